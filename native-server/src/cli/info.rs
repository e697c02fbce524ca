//! `okyeame info`: what a model is.
#![allow(clippy::print_stdout)] // a command's answer goes to stdout

use std::process::ExitCode;

use comfy_table::presets::UTF8_BORDERS_ONLY;
use comfy_table::{ContentArrangement, Table};
use okyeame_core::{ModelInfo, Task};

use crate::cli::{CliError, ComputeArgs, ModelOptions, load};
use crate::model_choice::ModelChoice;

/// Columns of the table where the terminal's width is not known.
const WIDTH: u16 = 100;

/// Say what a model is: architecture, task (single or multi), sizes, labels, number type, and what is
/// missing and stands in for it. The model is loaded, so that a damaged one is found out.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// A model's folder, or its repository on the Hugging Face hub (owner/name).
    model: String,
    #[command(flatten)]
    options: ModelOptions,
    #[command(flatten)]
    compute: ComputeArgs,
    /// Print JSON, as GET /model-info does.
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &Args) -> Result<ExitCode, CliError> {
    let choice = args.options.apply(ModelChoice::new(Some(&args.model), args.options.revision()))?;
    let recognizer = load(&choice, &args.compute)?;
    let info = recognizer.info();
    if args.json {
        println!("{}", serde_json::to_string_pretty(info).expect("a description is plain data"));
    } else {
        println!("{}", table(info));
    }
    Ok(ExitCode::SUCCESS)
}

/// A description, a row for each fact.
fn table(info: &ModelInfo) -> Table {
    let task = match (info.task, info.transcription) {
        (Task::Single, _) => "single: transcription; the intent is matched from the words",
        (Task::Multi, true) => "multi: an intent head on the encoder, and transcription",
        (Task::Multi, false) => "multi: an intent head on the encoder; no transcription",
    };
    let mut rows = vec![
        ("model", info.name.clone()),
        ("architecture", format!("{} ({})", info.architecture, info.model_type)),
        ("task", task.to_owned()),
    ];
    rows.extend(info.base.clone().map(|base| ("base", base)));
    rows.push(("size", format!("{}, {:.1} million parameters", info.model_size, info.parameters as f64 / 1e6)));
    rows.push(("weights", format!("{}, stored as {}", info.weight_format, info.stored_dtype)));
    rows.push(("device", format!("{}, computes in {} ({})", info.device, info.dtype, info.device_reason)));
    let mut encoder =
        format!("{} layers of {} with {} heads", info.n_audio_layer, info.n_audio_state, info.n_audio_head);
    if let (Some(n_mels), Some(n_ctx)) = (info.n_mels, info.n_audio_ctx) {
        encoder += &format!("; {n_mels} mels, {n_ctx} positions");
    }
    rows.push(("encoder", encoder));
    if let Some(n_vocab) = info.n_vocab {
        rows.push(match (info.n_text_layer, info.n_text_ctx) {
            (Some(layers), Some(n_ctx)) => ("decoder", format!("{layers} layers; {n_vocab} tokens, {n_ctx} positions")),
            _ => ("decoder", format!("CTC; {n_vocab} characters")),
        });
    }
    rows.extend(
        info.head_window
            .as_ref()
            .map(|window| ("intent head", format!("{} classes, {window} window", info.labels.len()))),
    );
    if info.transcription {
        rows.push((
            "languages",
            match (info.languages.len(), info.multilingual) {
                (0, _) if info.model_type == "wav2vec2" => "the one that it was trained for".to_owned(),
                (0, _) => "English only".to_owned(),
                (n, _) => format!("{n}: {}", info.languages.join(" ")),
            },
        ));
    }
    rows.push(("labels", format!("{}: {}", info.labels.len(), info.labels.join(" "))));
    rows.extend(info.fallbacks.iter().map(|fallback| ("note", fallback.clone())));
    let mut table = Table::new();
    table.load_style(UTF8_BORDERS_ONLY).set_content_arrangement(ContentArrangement::Dynamic).set_width(WIDTH);
    table.add_rows(rows.into_iter().map(|(name, value)| vec![name.to_owned(), value]));
    table
}
