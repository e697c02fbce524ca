//! `okyeame export-web`: a model folder in, the parts that a browser loads out.
#![allow(clippy::print_stdout)] // a command's answer goes to stdout

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use comfy_table::{Table, presets};
use okyeame_core::audio::{self, DecodeLimits, Waveform};
use okyeame_core::device::Compute;
use okyeame_core::intent::built_in;
use okyeame_core::intent::calibration::softmax;
use okyeame_core::intent::text_match::PhraseBook;
use okyeame_core::recognizer::LoadOptions;
use okyeame_core::training::manifest::Example;
use okyeame_core::training::splits::{Cell, Splits};
use okyeame_core::weights::web_bundle::{
    Check, Delivery, Licence, Loss, MANIFEST_FILE, Manifest, PackOptions, StageName, WebBundle, pack,
};
use okyeame_core::{Error as CoreError, RecognizeOptions, Recognizer};

use crate::cli::steps::Steps;
use crate::cli::train::{read_data, write_json};
use crate::cli::{CliError, ModelOptions, limit_threads, open, parsed, thread_count};
use crate::engine::block_on_pool;
use crate::model_choice::ModelChoice;

/// Sounds that are made where no recordings are given.
const N_SYNTHETIC: usize = 24;
/// A device that computes in single precision is nearer; one that computes something else is farther.
const CHECK_TOLERANCE: f32 = 0.02;

const EXAMPLES: &str = "\
The folder then holds manifest.json and parts of at most 4 MiB, each named by its content: any web server can serve them
as they are, and caches may keep the parts for ever. The intent stage comes first and is enough for the intent.

Examples:
  okyeame export-web models/twi-shop --out public/okyeame
  okyeame export-web models/twi-shop --out public/okyeame --dtype int4 --data corpus/manifest.csv --splits run/splits.csv
  okyeame recognize --model public/okyeame command.wav";

/// Pack a model for browsers: small parts, the intent first, weights in fewer bits.
///
/// What fewer bits cost is measured against the model as it was, and written into the manifest: on the test clips of
/// --data, or, without it, on synthetic sounds, which say little about accuracy.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// A model with an intent head: a folder or a repository.
    #[arg(value_name = "MODEL")]
    model: String,
    #[command(flatten)]
    options: ModelOptions,
    /// The folder to write; what another export left in it is replaced.
    #[arg(long, value_name = "FOLDER")]
    out: PathBuf,
    /// How matrices travel: f16, int8 or int4. They are unpacked to f32 on arrival.
    #[arg(long, value_name = "TYPE", default_value = "int8", value_parser = parsed::<Delivery>)]
    dtype: Delivery,
    /// Keep the whole vocabulary: without it, tokens of scripts other than Latin are left out.
    #[arg(long)]
    whole_vocabulary: bool,
    /// Recordings to measure on: a manifest, as `okyeame train` reads it.
    #[arg(long, value_name = "MANIFEST")]
    data: Option<PathBuf>,
    /// The splits of the training, so that only its test clips are measured on.
    #[arg(long, value_name = "FILE", requires = "data")]
    splits: Option<PathBuf>,
    /// Most clips to measure on, spread evenly.
    #[arg(long, value_name = "N", default_value_t = 400)]
    clips: usize,
    /// Whose work is in it, and under which licence: --licence openai/whisper-base=Apache-2.0.
    #[arg(long, value_name = "WORK=SPDX", value_parser = licence)]
    licence: Vec<Licence>,
    /// Threads of the arithmetic. Without it, one for each core.
    #[arg(long, value_name = "N", value_parser = thread_count, allow_negative_numbers = true)]
    threads: Option<usize>,
}

fn licence(text: &str) -> Result<Licence, String> {
    match text.split_once('=') {
        Some((of, licence)) if !of.trim().is_empty() && !licence.trim().is_empty() => {
            Ok(Licence { of: of.trim().to_owned(), licence: licence.trim().to_owned() })
        }
        _ => Err("say it as WORK=LICENCE, for example openai/whisper-base=Apache-2.0".to_owned()),
    }
}

/// A sound to measure on, and the intent that it is, if that is known.
struct Clip {
    sound: Waveform,
    truth: Option<Option<String>>,
}

pub(crate) fn run(args: &Args) -> Result<ExitCode, CliError> {
    limit_threads(args.threads)?;
    let steps = Steps::new();
    let choice = args.options.apply(ModelChoice::new(Some(&args.model), args.options.revision()))?;
    let folder = open(&choice)?;
    let options = PackOptions {
        dtype: args.dtype,
        trim_vocabulary: !args.whole_vocabulary,
        texts: PhraseBook::built_in().phrases().map(|(_, text)| text.to_owned()).collect(),
        licences: args.licence.clone(),
    };
    let packed = pack(&folder, &options)?;
    let (clips, what) = args.clips(&steps)?;
    let load = |folder| Recognizer::from_folder(folder, LoadOptions { compute: Compute::cpu(), task: None });
    let before = answers(&load(folder)?, &clips, &steps, "the model as it was")?;
    // What is measured is what was written: the bundle, unpacked again.
    let mut manifest = packed.manifest;
    let mut bundle = WebBundle::new(&json(&manifest))?;
    for (file, bytes) in &packed.parts {
        bundle.add_part(file, bytes)?;
    }
    let has_words = manifest.stage(StageName::Words).is_some();
    let unpacked = load(bundle.folder(has_words)?)?;
    let after = answers(&unpacked, &clips, &steps, "the bundle")?;
    manifest.check = Some(Check { probabilities: block_on_pool(unpacked.probe())?, tolerance: CHECK_TOLERANCE });
    manifest.loss = Some(loss(&clips, what, &before, &after));
    write(&args.out, &manifest, &packed.parts)?;
    println!("{}", summary(&manifest));
    steps.say(&format!(
        "The bundle is in {}; try it: okyeame recognize --model {} FILE",
        args.out.display(),
        args.out.display()
    ));
    Ok(ExitCode::SUCCESS)
}

fn json(manifest: &Manifest) -> Vec<u8> {
    let mut json = serde_json::to_vec_pretty(manifest).expect("plain data is JSON");
    json.push(b'\n');
    json
}

impl Args {
    fn clips(&self, steps: &Steps) -> Result<(Vec<Clip>, String), CliError> {
        let Some(data) = &self.data else {
            let clips = (0..N_SYNTHETIC as u64).map(synthetic).collect::<Result<Vec<_>, CoreError>>()?;
            return Ok((clips, "synthetic sounds".to_owned()));
        };
        let labels: Vec<String> = built_in().iter().map(|intent| intent.intent.clone()).collect();
        let manifest = read_data(data, &labels, false, 1, steps)?;
        let is_test: Box<dyn Fn(usize) -> bool> = match &self.splits {
            None => Box::new(|_| true),
            Some(file) => {
                let splits = Splits::read(file, &manifest)?;
                Box::new(move |at| {
                    matches!(splits.cells[at], Cell::TestVoice | Cell::TestWording | Cell::TestBoth | Cell::TestSeen)
                })
            }
        };
        let mut chosen: Vec<&Example> =
            manifest.examples.iter().enumerate().filter(|(at, _)| is_test(*at)).map(|(_, example)| example).collect();
        // By their content, as any order of files is.
        chosen.sort_by_key(|example| example.content);
        chosen.truncate(self.clips.max(1));
        let clips = chosen
            .into_iter()
            .map(|example| {
                let bytes = fs::read(&example.path).map_err(CliError::io("reading a clip"))?;
                let sound = audio::decode(&bytes, &DecodeLimits::default())?;
                Ok(Clip { sound, truth: Some(example.label.map(|label| labels[label].clone())) })
            })
            .collect::<Result<Vec<_>, CliError>>()?;
        let of = if self.splits.is_some() { "test clips" } else { "clips" };
        Ok((
            clips,
            format!("{of} of {}", data.file_name().map_or_else(String::new, |n| n.to_string_lossy().into_owned())),
        ))
    }
}

/// A buzzing voice that nobody has: pitch, vowels and pauses drawn by chance.
fn synthetic(seed: u64) -> Result<Clip, CoreError> {
    let mut rng = fastrand::Rng::with_seed(seed);
    let pitch = 90.0 + 140.0 * rng.f64();
    let mut samples = Vec::new();
    for _ in 0..rng.usize(3..9) {
        let [first, second] = [300.0 + 500.0 * rng.f64(), 900.0 + 1400.0 * rng.f64()];
        let glide = rng.f64() * 40.0 - 20.0;
        let n = rng.usize(1600..4800);
        samples.extend((0..n).map(|at| {
            let t = at as f64 / 16_000.0;
            let envelope = (std::f64::consts::PI * at as f64 / n as f64).sin();
            let voice: f64 = (1..30)
                .map(|h| {
                    let hertz = (pitch + glide * t) * f64::from(h);
                    let resonance = |formant: f64| (-((hertz - formant) / 120.0).powi(2)).exp();
                    (std::f64::consts::TAU * hertz * t).sin() * (0.05 + resonance(first) + 0.6 * resonance(second))
                })
                .sum();
            (0.15 * envelope * voice) as f32
        }));
        samples.resize(samples.len() + rng.usize(0..1600), 0.0);
    }
    Ok(Clip { sound: Waveform::new(samples)?, truth: None })
}

/// What a model makes of one clip.
struct Answer {
    /// `None`: nobody speaks.
    logits: Option<Vec<f32>>,
    intent: String,
    accepted: bool,
}

fn answers(model: &Recognizer, clips: &[Clip], steps: &Steps, what: &str) -> Result<Vec<Answer>, CliError> {
    let bar = steps.bar(what);
    let options = RecognizeOptions { transcribe: false, ..RecognizeOptions::default() };
    let mut answers = Vec::with_capacity(clips.len());
    for (done, clip) in clips.iter().enumerate() {
        bar.set(done, clips.len());
        let answer = block_on_pool(model.recognize(&clip.sound, &options))?;
        let logits = block_on_pool(model.intent_logits(&clip.sound))?;
        let intent = answer.top_predictions.first().map(|best| best.intent.clone()).unwrap_or_default();
        answers.push(Answer { logits, intent, accepted: answer.accepted });
    }
    bar.done();
    Ok(answers)
}

fn loss(clips: &[Clip], what: String, before: &[Answer], after: &[Answer]) -> Loss {
    let pairs: Vec<(&Answer, &Answer)> = before.iter().zip(after).collect();
    let n = pairs.len().max(1) as f64;
    let share = |is: &dyn Fn(&(&Answer, &Answer)) -> bool| pairs.iter().filter(|pair| is(pair)).count() as f64 / n;
    let (mut error, mut power, mut farthest) = (0.0, 0.0, 0.0f64);
    for (a, b) in &pairs {
        let (Some(a), Some(b)) = (&a.logits, &b.logits) else { continue };
        for (a, b) in a.iter().zip(b) {
            error += f64::from(a - b).powi(2);
            power += f64::from(*a).powi(2);
        }
        for (a, b) in softmax(a).into_iter().zip(softmax(b)) {
            farthest = farthest.max(f64::from((a - b).abs()));
        }
    }
    let accuracy = |answers: &[Answer]| {
        let commands: Vec<(&Answer, &String)> = answers
            .iter()
            .zip(clips)
            .filter_map(|(answer, clip)| Some((answer, clip.truth.as_ref()?.as_ref()?)))
            .collect();
        let right = commands.iter().filter(|(answer, truth)| answer.intent == **truth).count();
        (!commands.is_empty()).then(|| right as f64 / commands.len() as f64)
    };
    Loss {
        n_clips: pairs.len(),
        clips: what,
        logits_relative_rms: (error / f64::max(power, 1e-12)).sqrt(),
        probability_max: farthest,
        same_intent: share(&|(a, b)| a.intent == b.intent),
        same_verdict: share(&|(a, b)| a.accepted == b.accepted && (!a.accepted || a.intent == b.intent)),
        accuracy_before: accuracy(before),
        accuracy: accuracy(after),
    }
}

/// Parts first, the manifest last: whoever finds a manifest finds its parts.
fn write(out: &Path, manifest: &Manifest, parts: &[(String, Vec<u8>)]) -> Result<(), CliError> {
    fs::create_dir_all(out).map_err(CliError::io("the bundle's folder"))?;
    for (file, bytes) in parts {
        fs::write(out.join(file), bytes).map_err(CliError::io(format!("writing {file}")))?;
    }
    let old = fs::read(out.join(MANIFEST_FILE)).ok().and_then(|json| Manifest::parse(&json).ok());
    write_json(&out.join(MANIFEST_FILE), manifest)?;
    for part in old.iter().flat_map(|old| &old.stages).flat_map(|stage| &stage.parts) {
        if !parts.iter().any(|(file, _)| *file == part.file) {
            // Somebody may have taken it away already.
            let _ = fs::remove_file(out.join(&part.file));
        }
    }
    Ok(())
}

fn summary(manifest: &Manifest) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(["stage", "MiB", "parts", "for"]);
    for stage in &manifest.stages {
        table.add_row([
            stage.name.name().to_owned(),
            format!("{:.2}", stage.bytes as f64 / f64::from(1 << 20)),
            stage.parts.len().to_string(),
            stage.purpose.clone(),
        ]);
    }
    let mut text = table.to_string();
    if let Some(vocabulary) = &manifest.vocabulary {
        text += &format!("\n{} of {} tokens kept: {}", vocabulary.kept, vocabulary.of, vocabulary.rule);
    }
    if let Some(loss) = &manifest.loss {
        text += &format!(
            "\n{} against the model as it was, on {} {}: same intent {:.1} %, same verdict {:.1} %, logits off by {:.2} %",
            manifest.dtype.name(),
            loss.n_clips,
            loss.clips,
            100.0 * loss.same_intent,
            100.0 * loss.same_verdict,
            100.0 * loss.logits_relative_rms,
        );
        if let (Some(before), Some(after)) = (loss.accuracy_before, loss.accuracy) {
            text += &format!("; accuracy {:.1} %, it was {:.1} %", 100.0 * after, 100.0 * before);
        }
    }
    text
}
