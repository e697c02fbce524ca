//! `okyeame eval`: what a head can do, measured on clips that it was not trained on.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use okyeame_core::Error as CoreError;
use okyeame_core::device::Compute;
use okyeame_core::recognizer::{CommandEncoder, LoadOptions, Recognizer};
use okyeame_core::training::evaluate::{EvaluateEvent, EvaluateOptions, Evaluator};
use okyeame_core::training::evaluation::{EpochPoint, Evaluation, ModelFacts};
use okyeame_core::training::metrics::Interval;
use okyeame_core::training::splits::{Cell, Splits};
use okyeame_core::training::words::WordsCache;
use okyeame_core::weights::folder::ModelFolder;

use crate::cli::steps::Steps;
use crate::cli::train::{open_base, read_data, write_json};
use crate::cli::{CliError, limit_threads, thread_count};
use crate::report::{self, CardMeta};

const EXAMPLES: &str = "\
Examples:
  okyeame eval runs/first/model --data manifest.csv --splits runs/first/splits.csv --out runs/first/report
  okyeame eval runs/five/seed-*/model --data manifest.csv --splits runs/five/splits.csv   (intervals over seeds, too)
  okyeame eval models/twi-shop --data my-recordings.csv      every clip is a test, none was trained on
  okyeame eval runs/first/model --data manifest.csv --splits runs/first/splits.csv --card runs/first/model

report.html opens in any browser, and needs no network; evaluation.json holds the same figures for programs.";

/// Measure an intent head: accuracy by voice and wording, calibration, what it turns down, noise, words and slots.
///
/// Clips that splits.csv keeps for tests are used; without it, every clip of the manifest.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// The head's folder; more than one: the same training with other seeds, the first is reported.
    #[arg(required = true, value_name = "MODEL")]
    models: Vec<PathBuf>,
    /// The manifest: a CSV, TSV or JSONL file, as for okyeame train.
    #[arg(long, value_name = "MANIFEST")]
    data: PathBuf,
    /// The run's splits.csv. Without it every clip is a test, by voices and wordings that are taken as unseen.
    #[arg(long, value_name = "FILE")]
    splits: Option<PathBuf>,
    /// Where report.html and evaluation.json are written.
    #[arg(long, value_name = "FOLDER", default_value = "evaluation")]
    out: PathBuf,
    /// The base of the heads. Without it, the one that the first head names.
    #[arg(long, value_name = "REPO_OR_FOLDER")]
    base: Option<String>,
    /// Leave bad lines of the manifest out, and say which, instead of stopping.
    #[arg(long)]
    skip_bad: bool,
    /// Clips that are written down as well, for word error rate, fusion and slots. The slow part; 0 leaves it out.
    #[arg(long, value_name = "N", default_value_t = 300)]
    word_clips: usize,
    /// Commands that are heard again under each strength of noise.
    #[arg(long, value_name = "N", default_value_t = 400)]
    noisy_clips: usize,
    /// Sounds of each kind that are no speech.
    #[arg(long, value_name = "N", default_value_t = 60)]
    sounds: usize,
    /// Say in the report that the clips were made by speech synthesis.
    #[arg(long)]
    synthetic: bool,
    /// Where the clips are from, a sentence for the report.
    #[arg(long, value_name = "TEXT", default_value = "")]
    note: String,
    /// Write the model card (README.md) and the figures into this head's folder.
    #[arg(long, value_name = "FOLDER")]
    card: Option<PathBuf>,
    /// An earlier evaluation.json: say whether this one's figures lie within its intervals, and fail if not.
    #[arg(long, value_name = "FILE")]
    compare: Option<PathBuf>,
    /// What the card calls the model.
    #[arg(long, value_name = "TITLE", default_value = "Intent head for shop commands")]
    title: String,
    /// The licence that the card names.
    #[arg(long, value_name = "SPDX", default_value = "mit")]
    license: String,
    /// Threads of the arithmetic. Without it, one for each core.
    #[arg(long, value_name = "N", value_parser = thread_count, allow_negative_numbers = true)]
    threads: Option<usize>,
}

pub(crate) fn run(args: &Args) -> Result<ExitCode, CliError> {
    limit_threads(args.threads)?;
    let steps = Steps::new();
    let mut recognizers = Vec::new();
    let mut base_name = String::new();
    for model in &args.models {
        let folder = ModelFolder::open_with(model, &Default::default(), &mut |named| {
            let base = args.base.as_deref().or(named).unwrap_or_default();
            let found = crate::model_choice::ModelChoice::new(None, None).with_base(args.base.as_deref());
            let found = found.locate_base(Some(base), &mut |_| {})?;
            base_name = named.unwrap_or(&found.name).to_owned();
            Ok(found)
        })?;
        recognizers.push(Recognizer::from_folder(folder, LoadOptions { compute: Compute::cpu(), task: None })?);
    }
    if base_name.is_empty() {
        return Err(CoreError::InvalidParameter {
            name: "MODEL",
            allowed: "name the folder of an intent head, as okyeame train writes it".to_owned(),
        }
        .into());
    }
    let labels = recognizers[0].audio_head().map(|head| head.labels().to_vec()).unwrap_or_default();
    // What the training left out is left out here, or its splits would not fit.
    let min_per_intent = if args.skip_bad && args.splits.is_some() { 2 } else { 1 };
    let manifest = read_data(&args.data, &labels, args.skip_bad, min_per_intent, &steps)?;
    let splits = match &args.splits {
        Some(file) => Splits::read(file, &manifest)?,
        None => Splits { cells: vec![Cell::TestVoice; manifest.examples.len()], ..Splits::default() },
    };
    // By the head's own name it is found again; a folder only by the flag.
    let (base, _) = open_base(args.base.as_deref().unwrap_or(&base_name))?;
    let encoder = CommandEncoder::from_folder(&base, &Compute::cpu())?;
    drop(base);
    let options = EvaluateOptions {
        sounds_per_kind: args.sounds,
        noisy_clips: args.noisy_clips,
        word_clips: args.word_clips,
        ..EvaluateOptions::default()
    };
    fs::create_dir_all(&args.out).map_err(CliError::io("the folder of the report"))?;
    let mut words = WordsCache::open(&args.out.join("words.jsonl"))?;
    let evaluator = Evaluator {
        encoder: &encoder,
        recognizers: &recognizers,
        manifest: &manifest,
        splits: &splits,
        options: &options,
    };
    let (hearing, writing) = (steps.bar("hearing"), steps.bar("writing down"));
    let mut evaluation = evaluator.run(&mut words, &mut |event| match event {
        EvaluateEvent::Clips { done, of } => hearing.set(done, of),
        EvaluateEvent::Words { done, of } => writing.set(done, of),
    })?;
    hearing.done();
    writing.done();
    describe(&mut evaluation, args, &recognizers[0], &base_name, &labels);

    write_json(&args.out.join("evaluation.json"), &evaluation)?;
    let write = |path: PathBuf, text: String| {
        fs::write(&path, text).map_err(CliError::io(format!("writing {}", path.display())))
    };
    write(args.out.join("report.html"), report::render_html(&evaluation)?)?;
    if let Some(folder) = &args.card {
        fs::create_dir_all(folder).map_err(CliError::io("the folder of the card"))?;
        let meta = CardMeta {
            title: args.title.clone(),
            model: folder.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default(),
            base_model: base_name.clone(),
            license: args.license.clone(),
            languages: vec!["tw".to_owned(), "en".to_owned()],
            ..CardMeta::default()
        };
        write(folder.join("README.md"), report::model_card(&evaluation, &meta)?)?;
        write_json(&folder.join("evaluation.json"), &evaluation)?;
    }
    for target in &evaluation.targets {
        steps.say(&format!(
            "{} {}: {} (asked: {})",
            if target.met { "met   " } else { "MISSED" },
            target.name,
            target.got,
            target.bar
        ));
    }
    steps.say(&format!("The report is {}", args.out.join("report.html").display()));
    let Some(earlier) = &args.compare else { return Ok(ExitCode::SUCCESS) };
    let bytes = fs::read(earlier).map_err(CliError::io(format!("reading {}", earlier.display())))?;
    let earlier: Evaluation = serde_json::from_slice(&bytes)
        .map_err(|e| CoreError::InvalidConfig { file: "evaluation.json".to_owned(), reason: e.to_string() })?;
    let mut is_same = true;
    for (name, now, before) in compared(&evaluation, &earlier) {
        let is_within = (before.low..=before.high).contains(&now);
        is_same &= is_within;
        steps.say(&format!(
            "{} {name}: {:.1} %, before {:.1} % ({:.1} to {:.1})",
            if is_within { "same  " } else { "OTHER " },
            100.0 * now,
            100.0 * before.value,
            100.0 * before.low,
            100.0 * before.high,
        ));
    }
    Ok(if is_same { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Figures that both have: name, now, and the interval of before.
fn compared(now: &Evaluation, before: &Evaluation) -> Vec<(String, f64, Interval)> {
    let mut pairs = Vec::new();
    let mut add = |name: String, now: Option<Interval>, before: Option<Interval>| {
        if let (Some(now), Some(before)) = (now, before) {
            pairs.push((name, now.value, before));
        }
    };
    for split in &now.splits {
        if let Some(old) = before.splits.iter().find(|old| old.name == split.name) {
            add(format!("{}, accuracy", split.title), split.accuracy, old.accuracy);
            add(format!("{}, accepted", split.title), split.accepted, old.accepted);
        }
    }
    for kind in &now.out_of_scope {
        if let Some(old) = before.out_of_scope.iter().find(|old| old.kind == kind.kind) {
            add(format!("accepted of {}", kind.kind), kind.false_accepts, old.false_accepts);
        }
    }
    pairs
}

/// What the evaluator cannot know.
fn describe(evaluation: &mut Evaluation, args: &Args, recognizer: &Recognizer, base: &str, labels: &[String]) {
    let model = &args.models[0];
    let head_bytes = fs::metadata(model.join("model.safetensors")).map_or(0, |m| m.len());
    evaluation.model = ModelFacts {
        name: recognizer.info().name.clone(),
        base: base.to_owned(),
        labels: labels.to_vec(),
        parameters: recognizer.audio_head().map_or(0, |head| head.head().n_parameters()),
        head_bytes,
    };
    evaluation.data.manifest =
        args.data.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    evaluation.data.synthetic = args.synthetic;
    evaluation.data.note.clone_from(&args.note);
    evaluation.command = command_line();
    evaluation.machine = machine();
    evaluation.date = today();
    evaluation.okyeame = env!("CARGO_PKG_VERSION").to_owned();
    evaluation.training = model.parent().and_then(|run| {
        let training: serde_json::Value = serde_json::from_slice(&fs::read(run.join("training.json")).ok()?).ok()?;
        serde_json::from_value::<Vec<EpochPoint>>(training.get("epochs")?.clone()).ok()
    });
    if args.splits.is_none() {
        evaluation.notes.push("no splits.csv was given: every clip counts as one of an unseen voice".to_owned());
    }
}

/// As it was typed, by the program's own name, without this machine's own paths.
fn command_line() -> String {
    let quoted = |arg: String| if arg.contains([' ', '\'', '"']) { format!("{arg:?}") } else { arg };
    let args = std::env::args().skip(1).map(|arg| publishable(&arg)).map(quoted);
    std::iter::once("okyeame".to_owned()).chain(args).collect::<Vec<_>>().join(" ")
}

/// An absolute path by its last two names: a card is published, and where its folders lay is nobody's business.
fn publishable(arg: &str) -> String {
    let (option, value) = match arg.split_once('=') {
        Some((option, value)) if option.starts_with("--") => (format!("{option}="), value),
        _ => (String::new(), arg),
    };
    let path = Path::new(value);
    if !path.is_absolute() {
        return arg.to_owned();
    }
    let names: Vec<_> = path.iter().skip(1).map(|name| name.to_string_lossy()).collect();
    option + &names[names.len().saturating_sub(2)..].join("/")
}

/// Cores and processor.
fn machine() -> String {
    let name = fs::read_to_string("/proc/cpuinfo")
        .ok()
        .and_then(|text| {
            let line = text.lines().find(|line| line.starts_with("model name"))?;
            line.split_once(':').map(|(_, name)| name.trim().to_owned())
        })
        .unwrap_or_else(|| std::env::consts::ARCH.to_owned());
    format!("{} cores, {name}", crate::config::available_threads())
}

/// The date in UTC, as ISO 8601 has it.
fn today() -> String {
    let date = time::OffsetDateTime::now_utc().date();
    format!("{:04}-{:02}-{:02}", date.year(), u8::from(date.month()), date.day())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(unix)]
    fn a_card_names_no_folders_of_this_machine() {
        assert_eq!(publishable("/home/ama/work/models/whisper-base"), "models/whisper-base");
        assert_eq!(publishable("--base=/home/ama/models/whisper-base/"), "--base=models/whisper-base");
        for same in ["--base", "models/whisper-base", "--title", "a=/b", "1/2", ""] {
            assert_eq!(publishable(same), same);
        }
    }
}
