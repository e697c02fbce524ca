//! The command line. Each command's doc comment is its help.
//!
//! Read in this order: `server`, `recognize`, `info`, `pull`; `bench` is for `make bench` alone.

mod bench;
mod info;
mod progress;
mod pull;
mod recognize;
mod server;

use std::io;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use okyeame_core::Recognizer;

use crate::config::available_threads;
use crate::model_choice::ModelChoice;

const EXAMPLES: &str = "\
Examples:
  okyeame server                                       serve the default model on http://127.0.0.1:8000/
  okyeame server --huggingface openai/whisper-small    serve a model of the Hugging Face hub
  curl -F file=@command.wav 'localhost:8000/test-intent?top_k=3'
  okyeame recognize command.wav                        answer a file without a server
  okyeame info models/whisper-base                     say what a model is

Environment:
  HUGGINGFACE_MODEL_PATH   the model, where none is named     PORT        the server's port
  HUGGINGFACE_MODEL_TYPE   single or multi: what it must be   LOG_LEVEL   DEBUG, INFO, WARN or ERROR
  HF_TOKEN, HF_HOME        the hub's token and cache          CUDA_VISIBLE_DEVICES=\"\" forces the CPU";

/// Voice commands in Twi and English for online shops: speech in, intent out.
#[derive(Debug, Parser)]
#[command(name = "okyeame", version, after_help = EXAMPLES)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

// Each command's help is the doc comment of its `Args`.
#[derive(Debug, Subcommand)]
enum Command {
    Server(Box<server::Args>),
    Recognize(Box<recognize::Args>),
    Pull(Box<pull::Args>),
    Info(Box<info::Args>),
    #[command(hide = true)]
    Bench(Box<bench::Args>),
}

/// Why a command failed, for the person at the terminal.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CliError {
    /// The core said no.
    #[error(transparent)]
    Core(#[from] okyeame_core::Error),
    /// The operating system said no.
    #[error("{what}: {source}")]
    Io {
        /// What was being done.
        what: String,
        /// The cause.
        source: io::Error,
    },
    /// The model of a server could not be loaded.
    #[error("the model could not be loaded: {0}")]
    Model(String),
    /// The arithmetic's threads could not be started.
    #[error("the threads could not be started: {0}")]
    Threads(String),
}

impl CliError {
    fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        move |source| Self::Io { what, source }
    }
}

/// Reads the command line, does what it says, and tells the exit code.
///
/// # Errors
/// A sentence for the person at the terminal.
pub fn run() -> Result<ExitCode, CliError> {
    match Cli::parse().command {
        Command::Server(args) => server::run(*args),
        Command::Recognize(args) => recognize::run(&args),
        Command::Pull(args) => pull::run(*args),
        Command::Info(args) => info::run(&args),
        Command::Bench(args) => bench::run(&args),
    }
}

// Which model, for every command that needs one. (No doc comment: clap would show it as the command's.)
#[derive(Debug, Clone, clap::Args)]
struct ModelArgs {
    /// A model's folder, or its repository on the Hugging Face hub (owner/name).
    ///
    /// Without it, the model that HUGGINGFACE_MODEL_PATH names; without that, the default model: the
    /// folder models/whisper-base, or openai/whisper-base.
    #[arg(
        long = "huggingface",
        visible_alias = "model",
        value_name = "REPO_OR_FOLDER",
        env = "HUGGINGFACE_MODEL_PATH",
        hide_env = true
    )]
    model: Option<String>,
    /// A branch, tag or commit of the repository.
    #[arg(long, value_name = "REVISION")]
    revision: Option<String>,
}

impl ModelArgs {
    fn choice(&self) -> Result<ModelChoice, CliError> {
        let task = std::env::var("HUGGINGFACE_MODEL_TYPE").ok();
        Ok(ModelChoice::new(self.model.as_deref(), self.revision.as_deref()).with_task(task.as_deref())?)
    }

    /// Finds the model, fetching it if need be, and loads it.
    fn load(&self) -> Result<Recognizer, CliError> {
        Ok(load(&self.choice()?)?)
    }
}

/// Finds a model, fetching it if need be, and loads it.
fn load(choice: &ModelChoice) -> okyeame_core::Result<Recognizer> {
    let progress = progress::Progress::new();
    let folder: PathBuf = choice.locate(&mut |event| progress.show(event))?;
    drop(progress);
    let recognizer = Recognizer::load(&folder)?;
    choice.check_task(recognizer.info())?;
    Ok(recognizer)
}

/// Bounds the threads of the arithmetic; `None` leaves a thread for each core. Gives their number.
fn limit_threads(threads: Option<usize>) -> Result<usize, CliError> {
    let Some(threads) = threads.filter(|threads| *threads > 0) else { return Ok(available_threads()) };
    rayon::ThreadPoolBuilder::new()
        .num_threads(threads)
        .build_global()
        .map_err(|error| CliError::Threads(error.to_string()))?;
    Ok(threads)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_contract_s_calls_are_understood() {
        for call in [
            "okyeame server",
            "okyeame server --huggingface openai/whisper-base --revision main --port 8001 --host 0.0.0.0",
            "okyeame recognize a.wav b.ogg --json --language tw --top-k 3 --no-transcribe --model models/x",
            "okyeame recognize -",
            "okyeame pull openai/whisper-base --revision main --to models/whisper-base",
            "okyeame info models/whisper-base --json",
            "okyeame bench --serve --model models/whisper-base --threads 2",
        ] {
            assert!(Cli::try_parse_from(call.split(' ')).is_ok(), "{call}");
        }
        for call in ["okyeame", "okyeame recognize", "okyeame server --port 99999", "okyeame pull"] {
            assert!(Cli::try_parse_from(call.split(' ')).is_err(), "{call}");
        }
    }
}
