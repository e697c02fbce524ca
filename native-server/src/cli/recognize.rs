//! `okyeame recognize`: files in, answers out.
#![allow(clippy::print_stdout)] // a command's answer goes to stdout

use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

use okyeame_core::audio::{self, DecodeLimits};
use okyeame_core::intent::catalogue::{Catalogue, MAX_CATALOGUE_BYTES};
use okyeame_core::{Error as CoreError, Recognition, RecognizeOptions, Recognizer, RunWhere};

use crate::cli::{CliError, ModelArgs, limit_threads, thread_count};
use crate::config::ServerConfig;
use crate::engine::block_on_pool;

/// Answer sound files, one by one, without a server.
///
/// WAV, FLAC, MP3, Ogg, WebM and M4A are read. The exit code is 1 if any file has no answer; why not is
/// said on stderr, and the other files are answered.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The files; - reads one from standard input.
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Print each answer as a line of JSON, as the server sends it.
    #[arg(long)]
    json: bool,
    /// The language that is spoken: tw, en, sw, … Without it, the model's own choice.
    #[arg(long, short)]
    language: Option<String>,
    /// How many candidate intents to show.
    #[arg(long, value_name = "N")]
    top_k: Option<usize>,
    /// The shop's products, brands, categories, sizes and colours, with the names that customers call them by: JSON, or
    /// a table with the heading slot,value,name.
    #[arg(long, value_name = "FILE", env = "OKYEAME_CATALOGUE")]
    catalogue: Option<PathBuf>,
    /// Do not write down the words, unless the intent is found from them.
    #[arg(long)]
    no_transcribe: bool,
    /// Threads of the arithmetic. Without it, one for each core.
    #[arg(long, value_name = "N", value_parser = thread_count, allow_negative_numbers = true)]
    threads: Option<usize>,
    #[command(flatten)]
    model: ModelArgs,
}

pub(crate) fn run(args: &Args) -> Result<ExitCode, CliError> {
    limit_threads(args.threads)?;
    let catalogue = args.catalogue.as_deref().map(catalogue).transpose()?;
    let recognizer = args.model.load()?;
    let defaults = RecognizeOptions::default();
    let options = RecognizeOptions {
        top_k: args.top_k.unwrap_or(defaults.top_k),
        language: args.language.clone(),
        transcribe: !args.no_transcribe,
        catalogue,
        ..defaults
    };
    recognizer.options_check().check(&options)?;

    let mut any_failed = false;
    let mut stdout = io::stdout().lock();
    for file in &args.files {
        let name = shown_name(file);
        match answer(&recognizer, file, &name, &options) {
            Ok(recognition) => {
                let text = if args.json {
                    serde_json::to_string(&recognition).expect("an answer is plain data") + "\n"
                } else {
                    block(&recognition)
                };
                // A reader that has seen enough (`| head`) closes the pipe: no reason to go on.
                if stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()).is_err() {
                    break;
                }
            }
            Err(error) => {
                any_failed = true;
                eprintln!("{name}: {error}");
            }
        }
    }
    Ok(if any_failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// Answers one file.
fn answer(
    recognizer: &Recognizer,
    file: &Path,
    name: &str,
    options: &RecognizeOptions,
) -> Result<Recognition, CoreError> {
    let started = Instant::now();
    let limits = ServerConfig::default();
    let bytes = read(file, limits.max_body_bytes as u64)?;
    let decoding = Instant::now();
    let waveform = audio::decode(&bytes, &DecodeLimits { max_duration_s: limits.max_audio_s })?;
    let decode_audio_ms = decoding.elapsed().as_secs_f64() * 1e3;

    let mut recognition = block_on_pool(recognizer.recognize(&waveform, options))?;
    recognition.filename = name.to_owned();
    recognition.timings_ms.decode_audio = decode_audio_ms;
    recognition.run.place = RunWhere::Local;
    recognition.run.reason = "command_line".to_owned();
    recognition.run.bytes_sent = 0;
    recognition.processing_time_ms = started.elapsed().as_secs_f64() * 1e3;
    Ok(recognition)
}

/// Reads a shop's catalogue.
pub(super) fn catalogue(file: &Path) -> Result<Arc<Catalogue>, CoreError> {
    let bytes = read(file, MAX_CATALOGUE_BYTES as u64).map_err(|error| match error {
        CoreError::Io { source, .. } => CoreError::Io { what: "reading the catalogue".to_owned(), source },
        other => other,
    })?;
    Ok(Arc::new(Catalogue::parse(&bytes)?))
}

/// Reads a file or standard input, up to `max_bytes`.
fn read(file: &Path, max_bytes: u64) -> Result<Vec<u8>, CoreError> {
    let io_error = |source| CoreError::Io { what: "reading the file".to_owned(), source };
    let mut bytes = Vec::new();
    let read = if file == Path::new("-") {
        io::stdin().lock().take(max_bytes + 1).read_to_end(&mut bytes)
    } else {
        File::open(file).map_err(io_error)?.take(max_bytes + 1).read_to_end(&mut bytes)
    }
    .map_err(io_error)?;
    if read as u64 > max_bytes {
        return Err(io_error(io::Error::new(
            io::ErrorKind::FileTooLarge,
            format!("it is larger than the limit of {max_bytes} bytes"),
        )));
    }
    Ok(bytes)
}

fn shown_name(file: &Path) -> String {
    file.file_name().map_or_else(|| file.to_string_lossy(), |name| name.to_string_lossy()).into_owned()
}

/// An answer for people.
fn block(recognition: &Recognition) -> String {
    let mut text = format!("{}\n", recognition.filename);
    // Writing to a String cannot fail.
    let _ = write!(text, "  intent      {} ({:.0} %)", recognition.intent, recognition.confidence * 100.0);
    if let Some(rejection) = recognition.rejection {
        let _ = write!(text, ", rejected: {}", word(&rejection));
    }
    text.push('\n');
    if let Some(words) = &recognition.transcription {
        let _ = writeln!(text, "  words       {words}");
    }
    for slot in &recognition.slots {
        let _ = writeln!(text, "  slot        {} = {} ({})", slot.slot, slot.value, slot.text);
    }
    for prediction in &recognition.top_predictions {
        let percent = prediction.confidence * 100.0;
        let _ = writeln!(text, "  {:<10}  {} ({percent:.1} %)", prediction.index + 1, prediction.intent);
    }
    let _ = writeln!(
        text,
        "  time        {:.0} ms on {}, from {}",
        recognition.processing_time_ms,
        recognition.run.device,
        word(&recognition.intent_source)
    );
    text
}

/// A plain enum's name as the schema writes it.
fn word(value: &impl serde::Serialize) -> String {
    serde_json::to_value(value).ok().and_then(|value| value.as_str().map(str::to_owned)).unwrap_or_default()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn names_are_the_last_component() {
        assert_eq!(shown_name(Path::new("/tmp/clips/a.wav")), "a.wav");
        assert_eq!(shown_name(Path::new("-")), "-");
    }

    #[test]
    fn a_file_beyond_the_limit_is_not_read_whole() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("big");
        std::fs::write(&file, [0_u8; 100]).unwrap();
        assert!(read(&file, 99).is_err());
        assert_eq!(read(&file, 100).unwrap().len(), 100);
        assert_eq!(read(&folder.path().join("none"), 1).unwrap_err().code(), "io");
    }

    #[test]
    fn a_catalogue_is_read_and_what_is_wrong_with_it_is_said() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("shop.csv");
        std::fs::write(&file, "slot,value,name\nproduct,rice,ɛmo\nproduct,rice,royal aroma\n").unwrap();
        assert_eq!(catalogue(&file).unwrap().len(), 2);
        std::fs::write(&file, "product,rice,ɛmo\n").unwrap();
        assert_eq!(catalogue(&file).unwrap_err().code(), "invalid_config");
        let missing = catalogue(&folder.path().join("none")).unwrap_err();
        assert!(missing.to_string().contains("reading the catalogue"), "{missing}");
    }

    #[test]
    fn enums_are_shown_as_the_schema_has_them() {
        assert_eq!(word(&okyeame_core::Rejection::OutOfScope), "out_of_scope");
    }
}
