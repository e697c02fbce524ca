//! `okyeame info`: what a model is.
#![allow(clippy::print_stdout)] // a command's answer goes to stdout

use std::process::ExitCode;

use okyeame_core::{ModelInfo, Task};

use crate::cli::{CliError, load};
use crate::model_choice::ModelChoice;

/// Say what a model is: architecture, task (single or multi), sizes, labels, number type, and what is
/// missing. The model is loaded, so that a damaged one is found out.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// A model's folder, or its repository on the Hugging Face hub (owner/name).
    model: String,
    /// A branch, tag or commit of the repository.
    #[arg(long)]
    revision: Option<String>,
    /// Print JSON, as GET /model-info does.
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &Args) -> Result<ExitCode, CliError> {
    let recognizer = load(&ModelChoice::new(Some(&args.model), args.revision.as_deref()))?;
    let info = recognizer.info();
    if args.json {
        println!("{}", serde_json::to_string_pretty(info).expect("a description is plain data"));
    } else {
        print!("{}", described(info));
    }
    Ok(ExitCode::SUCCESS)
}

/// A description, a line for each fact.
fn described(info: &ModelInfo) -> String {
    let task = match info.task {
        Task::Single => "single: transcription; the intent is matched from the words",
        Task::Multi => "multi: transcription and an intent head",
    };
    let mut lines = vec![
        ("model", info.name.clone()),
        ("architecture", format!("{} ({})", info.architecture, info.model_type)),
        ("task", task.to_owned()),
        ("size", format!("{}, {:.1} million parameters", info.model_size, info.parameters as f64 / 1e6)),
        ("weights", format!("{}, computed as {} on {}", info.weight_format, info.dtype, info.device)),
        (
            "encoder",
            format!(
                "{} layers of {} with {} heads; {} mels, {} positions",
                info.n_audio_layer, info.n_audio_state, info.n_audio_head, info.n_mels, info.n_audio_ctx
            ),
        ),
        ("decoder", format!("{} layers; {} tokens, {} positions", info.n_text_layer, info.n_vocab, info.n_text_ctx)),
        (
            "languages",
            if info.multilingual {
                format!("{}: {}", info.languages.len(), info.languages.join(" "))
            } else {
                "English only".to_owned()
            },
        ),
        ("labels", format!("{}: {}", info.labels.len(), info.labels.join(" "))),
    ];
    lines.extend(info.fallbacks.iter().map(|fallback| ("missing", fallback.clone())));
    lines.iter().map(|(name, value)| format!("{name:<13} {value}\n")).collect()
}
