//! `okyeame bench --serve`: what `bench/run.py` measures. It reads lines `WORK<TAB>LANGUAGE<TAB>PATH` on
//! stdin and writes a line of JSON for each, as `bench/faster_whisper_worker.py` does; the first line says
//! that the model is loaded. WORK is
//!
//! - `command`: decode, trim, log-mel and the encoder on a window as long as the speech: all that an intent head
//!   needs, no transcript machinery;
//! - `encode_clip`: decode, log-mel and the encoder on a window as long as the clip (+ 0.1 s), not trimmed;
//! - `encode`: the same on a full window; then, apart, the keys and values that a decoder makes of it (`cross_ms`);
//! - `transcribe`: the words, greedy, in full windows, no timestamps, no fallback;
//! - `transcribe5`, or another number: with so many beams.
//!
//! `okyeame bench --profile` says where the time of such a work goes: [`profile`].

mod profile;

use std::io::{self, BufRead, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use okyeame_core::audio::{self, DecodeLimits, Waveform};
use okyeame_core::decoding::{DecodeOptions, TranscribeOptions};
use okyeame_core::intent::head::HeadWindow;
use okyeame_core::recognizer::MAX_BEAM_SIZE;
use okyeame_core::{CommandTimings, Error as CoreError, Recognizer};
use serde::Serialize;

use crate::cli::{CliError, ModelArgs, limit_threads, thread_count};
use crate::engine::block_on_pool;

/// Answer timing requests, line by line, or say where the time of a clip goes.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Read requests from stdin until it ends.
    #[arg(long, conflicts_with = "profile")]
    serve: bool,
    /// Say where the time of a clip goes, and how near its products are to this machine's peak: command:sw:clip.wav or
    /// transcribe:en:clip.wav; repeatable.
    #[arg(long, value_name = "WORK:LANGUAGE:PATH", value_parser = profile::request)]
    profile: Vec<profile::Request>,
    /// How often --profile does each work; the run of median time is shown.
    #[arg(long, value_name = "N", default_value_t = 9, value_parser = clap::value_parser!(u16).range(1..=1000))]
    runs: u16,
    /// Write the figures of --profile into this file too.
    #[arg(long, value_name = "FILE", requires = "profile", conflicts_with = "serve")]
    json: Option<PathBuf>,
    /// Threads of the arithmetic. Without it, one for each core.
    #[arg(long, value_name = "N", value_parser = thread_count, allow_negative_numbers = true)]
    threads: Option<usize>,
    #[command(flatten)]
    model: ModelArgs,
}

#[derive(Serialize)]
struct Ready {
    ready: bool,
    load_ms: f64,
}

#[derive(Serialize)]
struct Failed<'a> {
    clip: &'a str,
    work: &'a str,
    error: String,
}

/// A measured clip; what a work does not do is 0.
#[derive(Default, Serialize)]
struct Timed {
    clip: String,
    work: String,
    total_ms: f64,
    decode_audio_ms: f64,
    features_ms: f64,
    encoder_ms: f64,
    cross_ms: f64,
    decoder_ms: f64,
    /// Of the encoder.
    positions: usize,
    tokens: usize,
    text: String,
}

impl Timed {
    fn encoded(&mut self, timings: CommandTimings) {
        self.features_ms = timings.features_ms;
        self.encoder_ms = timings.encoder_ms;
        self.cross_ms = timings.cross_ms;
        self.positions = timings.n_audio_ctx;
    }
}

pub(crate) fn run(args: &Args) -> Result<ExitCode, CliError> {
    if !args.profile.is_empty() {
        return profile::run(args);
    }
    let started = Instant::now();
    if !args.serve {
        eprintln!(
            "okyeame bench is for bench/run.py (make bench), which calls it with --serve, and for make profile, with --profile"
        );
        return Ok(ExitCode::FAILURE);
    }
    limit_threads(args.threads)?;
    let recognizer = args.model.load()?;
    let mut stdout = io::stdout().lock();
    write_line(&mut stdout, &Ready { ready: true, load_ms: ms_since(started) })?;

    for line in io::stdin().lock().lines() {
        let line = line.map_err(CliError::io("reading stdin"))?;
        let mut parts = line.splitn(3, '\t');
        let (work, language, path) = match (parts.next(), parts.next(), parts.next()) {
            (Some(work), Some(language), Some(path)) => (work, language, PathBuf::from(path)),
            _ => {
                let error = "the line is not WORK<TAB>LANGUAGE<TAB>PATH".to_owned();
                write_line(&mut stdout, &Failed { clip: "", work: &line, error })?;
                continue;
            }
        };
        let clip = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        match measure(&recognizer, work, language, &path) {
            Ok(timed) => {
                write_line(&mut stdout, &Timed { clip, work: work.to_owned(), ..timed })?;
            }
            Err(error) => {
                write_line(&mut stdout, &Failed { clip: &clip, work, error: error.to_string() })?;
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Does one work from the file on, as faster-whisper's worker does.
fn measure(recognizer: &Recognizer, work: &str, language: &str, path: &Path) -> Result<Timed, CoreError> {
    let total = Instant::now();
    let bytes = std::fs::read(path).map_err(|source| CoreError::Io { what: "reading the clip".to_owned(), source })?;
    let waveform = audio::decode(&bytes, &DecodeLimits::default())?;
    let mut timed = Timed { decode_audio_ms: ms_since(total), ..Timed::default() };
    match work {
        "command" => timed.encoded(block_on_pool(recognizer.encode_command(&waveform))?),
        "encode" => timed.encoded(block_on_pool(recognizer.encode_window(&waveform, HeadWindow::Full))?),
        "encode_clip" => timed.encoded(block_on_pool(recognizer.encode_window(&waveform, HeadWindow::Fitted))?),
        _ => transcribe(recognizer, &waveform, language, beam_size(work)?, &mut timed)?,
    }
    // What came after the encoder is told apart.
    timed.total_ms = ms_since(total) - timed.cross_ms;
    Ok(timed)
}

/// The beams of `transcribe` (one) or `transcribeN`.
fn beam_size(work: &str) -> Result<usize, CoreError> {
    let beams: Option<usize> =
        work.strip_prefix("transcribe").and_then(|n| if n.is_empty() { Some(1) } else { n.parse().ok() });
    beams.filter(|n| (1..=MAX_BEAM_SIZE).contains(n)).ok_or_else(|| CoreError::InvalidParameter {
        name: "WORK",
        allowed: format!("command, encode, encode_clip, transcribe, or transcribe1 to transcribe{MAX_BEAM_SIZE}"),
    })
}

fn transcribe(
    recognizer: &Recognizer,
    waveform: &Waveform,
    language: &str,
    beam_size: usize,
    timed: &mut Timed,
) -> Result<(), CoreError> {
    // As plain as faster-whisper is asked to be: one temperature, nothing that repeats or drops a window.
    let decode = DecodeOptions {
        beam_size,
        temperatures: vec![0.0],
        compression_ratio_threshold: None,
        logprob_threshold: None,
        no_speech_threshold: None,
        ..DecodeOptions::default()
    };
    let options = TranscribeOptions { decode, ..TranscribeOptions::default() };
    let begin = Instant::now();
    let transcript = block_on_pool(recognizer.transcribe(waveform, Some(language), &options))?;
    timed.encoder_ms = transcript.encoder_ms;
    timed.decoder_ms = transcript.decoder_ms;
    timed.features_ms = (ms_since(begin) - transcript.encoder_ms - transcript.decoder_ms).max(0.0);
    timed.tokens = transcript.segments.iter().map(|segment| segment.tokens.len()).sum();
    timed.text = transcript.text.trim().to_owned();
    Ok(())
}

fn ms_since(instant: Instant) -> f64 {
    instant.elapsed().as_secs_f64() * 1e3
}

fn write_line(out: &mut impl Write, value: &impl Serialize) -> Result<(), CliError> {
    let mut line = serde_json::to_vec(value).expect("a measurement is plain data");
    line.push(b'\n');
    out.write_all(&line).and_then(|()| out.flush()).map_err(CliError::io("writing to stdout"))
}
