//! `okyeame pull`: a model, from the hub to this disk.
#![allow(clippy::print_stdout)] // a command's answer goes to stdout

use std::path::PathBuf;
use std::process::ExitCode;

use okyeame_core::weights::hub::{self, PullRequest};

use crate::cli::CliError;
use crate::cli::progress::Progress;

const HELP: &str = "\
Examples:
  okyeame pull openai/whisper-base                        into the hub cache, shared with other programs
  okyeame pull openai/whisper-base --to models/base       into a folder of your own
  okyeame pull facebook/mms-1b-all --adapter aka          with the adapter of one language
  okyeame server --huggingface \"$(okyeame pull REPO)\"     the folder is printed, and nothing else on stdout

Private and gated repositories:
  Make a token at https://huggingface.co/settings/tokens and set HF_TOKEN to it; 'hf auth login' does as well.
  For a gated one, first accept its terms on its page, with the account of the token.
  The token is sent to the hub alone, and never printed.

Environment:
  HF_TOKEN        the token                     HF_ENDPOINT     a mirror, instead of https://huggingface.co
  HF_HOME         where the cache is; else ~/.cache/huggingface (HF_HUB_CACHE: the cache itself)
  HF_HUB_OFFLINE  1: ask nobody, and use what the cache holds
  HTTPS_PROXY     the proxy on the way to the hub (also HTTP_PROXY and ALL_PROXY); NO_PROXY: hosts without one";

/// Fetch a model from the Hugging Face hub, and print the folder that it is in.
///
/// What is already there is not fetched again, a download that was cut off goes on where it stopped, and
/// each file is checked against the checksum that the hub states. Only what a model needs is fetched: its
/// settings, its vocabulary, and its weights in one format.
#[derive(Debug, clap::Args)]
#[command(after_help = HELP)]
pub(crate) struct Args {
    /// The repository, such as openai/whisper-base.
    repo: String,
    /// A branch, tag or commit.
    #[arg(long)]
    revision: Option<String>,
    /// The folder to put it in. Without it, the hub cache (HF_HOME), where other programs find it too.
    #[arg(long, value_name = "DIR")]
    to: Option<PathBuf>,
    /// The language whose adapter to fetch too, as the repository's adapter files name it (MMS: aka for Akan).
    #[arg(long, value_name = "LANG")]
    adapter: Option<String>,
}

pub(crate) fn run(args: Args) -> Result<ExitCode, CliError> {
    let progress = Progress::new();
    let request =
        PullRequest { revision: args.revision, to: args.to, adapter: args.adapter, ..PullRequest::new(args.repo) };
    let folder = hub::pull(&request, &mut |event| progress.show(event))?;
    println!("{}", folder.display());
    Ok(ExitCode::SUCCESS)
}
