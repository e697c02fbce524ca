//! `okyeame upload`: a model folder, from this disk to the hub.
#![allow(clippy::print_stdout)] // a command's answer goes to stdout

use std::path::PathBuf;
use std::process::ExitCode;

use okyeame_core::weights::hub_upload::{UploadEvent, UploadRequest, upload};

use crate::cli::CliError;
use crate::cli::steps::Steps;

const HELP: &str = "\
Examples:
  okyeame upload shop/twi runs/first/model              the head that a run made, with its model card; private
  okyeame upload shop/twi runs/first                    the same: a run's model/ is found
  okyeame upload shop/twi models/twi --public           for everybody
  okyeame upload shop/twi models/twi --dry-run          only says what would be sent
  okyeame server --huggingface shop/twi                 serves it (with HF_TOKEN, while it is private)

What is sent: weights as safetensors, settings, labels, calibration, vocabulary, the model card (README.md) and the
evaluation that its figures come from. Everything else in the folder stays here and is named. The folder is checked
before anything is sent. An upload that was cut off goes on when it is started again: what the hub has is not sent
twice.

The token:
  Make one of type 'write' at https://huggingface.co/settings/tokens and set HF_TOKEN to it; 'hf auth login' does as
  well. It is sent to the hub alone, and never printed. HF_ENDPOINT names another hub.";

/// Send a model to the Hugging Face hub, from where `okyeame server --huggingface OWNER/NAME` serves it.
///
/// The repository is made if there is none, private unless --public is said.
#[derive(Debug, clap::Args)]
#[command(after_help = HELP)]
pub(crate) struct Args {
    /// The repository, such as shop/twi.
    repo: String,
    /// The model's folder, or that of the run that made it.
    folder: PathBuf,
    /// Make the repository for everybody to see. One that is there stays as it is.
    #[arg(long)]
    public: bool,
    /// A branch; it is made where there is none.
    #[arg(long)]
    revision: Option<String>,
    /// What the change is called in the repository's history.
    #[arg(long, value_name = "TEXT")]
    message: Option<String>,
    /// Send a folder that has no model card.
    #[arg(long)]
    no_card: bool,
    /// Check the folder and say what would be sent, and send nothing.
    #[arg(long)]
    dry_run: bool,
}

pub(crate) fn run(args: Args) -> Result<ExitCode, CliError> {
    let steps = Steps::new();
    let mut folder = args.folder;
    if !folder.join("config.json").exists() && folder.join("model/config.json").exists() {
        folder = folder.join("model");
        steps.say(&format!("{} is a run; its model is sent", folder.display()));
    }
    let request = UploadRequest {
        revision: args.revision,
        private: !args.public,
        message: args.message,
        needs_card: !args.no_card,
        dry_run: args.dry_run,
        ..UploadRequest::new(args.repo, folder)
    };
    let bar = steps.bar("sent");
    let mut sizes: Vec<(String, u64, u64)> = Vec::new();
    let report = upload(&request, &mut |event| match event {
        UploadEvent::Planned { files, left_out } => {
            for (name, bytes) in &files {
                bar.say(&format!("  {name}, {}", bytes_text(*bytes)));
            }
            if !left_out.is_empty() {
                bar.say(&format!("stays here: {}", left_out.join(", ")));
            }
            sizes = files.into_iter().map(|(name, total)| (name, 0, total)).collect();
        }
        UploadEvent::Repository { created: true } => {
            let kind = if request.private { "private" } else { "public" };
            bar.say(&format!("{} was made, {kind}", request.repo));
        }
        UploadEvent::Repository { created: false } => {}
        UploadEvent::Bytes { name, done, .. } => {
            sizes.iter_mut().filter(|file| file.0 == name).for_each(|file| file.1 = done);
            let (done, total) = sizes.iter().fold((0, 0), |sum, file| (sum.0 + file.1, sum.1 + file.2));
            // In kilobytes, so that 32 bits hold them.
            bar.set((done / 1000) as usize, (total / 1000) as usize);
        }
    })?;
    bar.done();
    match (&report.commit, args.dry_run) {
        (_, true) => steps.say("Nothing was sent: --dry-run."),
        (Some(commit), _) => steps.say(&format!(
            "{} files sent, {} were there already; commit {commit}. Try it: okyeame server --huggingface {}",
            report.sent.len(),
            report.unchanged.len(),
            request.repo
        )),
        (None, _) => steps.say("Nothing to send: the repository has these files as they are."),
    }
    println!("{}", report.url);
    Ok(ExitCode::SUCCESS)
}

fn bytes_text(bytes: u64) -> String {
    match bytes {
        0..10_000 => format!("{bytes} bytes"),
        10_000..10_000_000 => format!("{} kB", bytes / 1000),
        _ => format!("{} MB", bytes / 1_000_000),
    }
}
