//! `okyeame pull`: a model, from the hub to this disk.
#![allow(clippy::print_stdout)] // a command's answer goes to stdout

use std::path::PathBuf;
use std::process::ExitCode;

use okyeame_core::weights::hub::{self, PullRequest};

use crate::cli::CliError;
use crate::cli::progress::Progress;

/// Fetch a model from the Hugging Face hub, and print the folder that it is in.
///
/// What is already there is not fetched again, a download that was cut off goes on where it stopped, and
/// each file is checked against the checksum that the hub states. HF_TOKEN opens private repositories.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The repository, such as openai/whisper-base.
    repo: String,
    /// A branch, tag or commit.
    #[arg(long)]
    revision: Option<String>,
    /// The folder to put it in. Without it, the hub cache (HF_HOME), where other programs find it too.
    #[arg(long, value_name = "DIR")]
    to: Option<PathBuf>,
}

pub(crate) fn run(args: Args) -> Result<ExitCode, CliError> {
    let progress = Progress::new();
    let request = PullRequest { revision: args.revision, to: args.to, ..PullRequest::new(args.repo) };
    let folder = hub::pull(&request, &mut |event| progress.show(event))?;
    println!("{}", folder.display());
    Ok(ExitCode::SUCCESS)
}
