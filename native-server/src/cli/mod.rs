//! The command line. Each command's doc comment is its help.
//!
//! Read in this order: `server`, `recognize`, `info`, `pull`, `train`; `bench` is for `make bench` and
//! `make profile` alone.

mod bench;
mod eval;
mod export_web;
mod info;
mod key;
mod progress;
mod pull;
mod recognize;
mod server;
mod settings;
mod steps;
mod train;
mod upload;

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};
use okyeame_core::Recognizer;
use okyeame_core::device::{Compute, DeviceChoice, DtypeChoice};
use okyeame_core::recognizer::LoadOptions;
use okyeame_core::weights::folder::{ModelFolder, OpenOptions};

use crate::access::keys::KeyError;
use crate::cores;
use crate::engine::Engine;
use crate::memory;
use crate::model_choice::{ModelChoice, TWI_SHOP};
use crate::model_content::{self, Identified};
use crate::shared_cache::CacheUrlError;
use crate::tls::TlsError;
use crate::traces::CollectorUrlError;

/// Most threads that may be asked for.
const MAX_THREADS: usize = 1024;

const EXAMPLES: &str = "\
Examples:
  okyeame server                                       serve the default model on http://127.0.0.1:8000/
  okyeame server --huggingface openai/whisper-small    serve a model of the Hugging Face hub
  curl -F file=@command.wav 'localhost:8000/test-intent?top_k=3'
  okyeame recognize command.wav                        answer a file without a server
  okyeame info models/whisper-base                     say what a model is
  okyeame key shop --add keys.toml                     make an API key; then: okyeame server --keys keys.toml --host 0.0.0.0

Environment:
  HUGGINGFACE_MODEL_PATH   the model, where none is named     PORT        the server's port
  HUGGINGFACE_MODEL_TYPE   single or multi, over detection   LOG_LEVEL   DEBUG, INFO, WARN or ERROR
  OKYEAME_…                any option of the server, such as OKYEAME_QUEUE_LEN=128 for --queue-len 128
  OTEL_…                   traces, as OpenTelemetry names them: OTEL_EXPORTER_OTLP_ENDPOINT and the like
  OKYEAME_API_KEY          one key of the server, beside those of --keys
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
    Key(Box<key::Args>),
    Recognize(Box<recognize::Args>),
    Pull(Box<pull::Args>),
    Info(Box<info::Args>),
    Train(Box<train::Args>),
    Eval(Box<eval::Args>),
    Upload(Box<upload::Args>),
    ExportWeb(Box<export_web::Args>),
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
    /// A report could not be drawn.
    #[error("the report could not be written: {0}")]
    Report(String),
    /// The server's settings cannot be used.
    #[error("the settings in {path}: {reason}")]
    Settings {
        /// The file.
        path: String,
        /// What is wrong.
        reason: String,
    },
    /// The server would be open to anybody.
    #[error(
        "{address} can be reached from other machines, and no key is asked for: make one with 'okyeame key NAME --add keys.toml' \
         and give --keys keys.toml, or say --insecure if whoever reaches it may use it"
    )]
    OpenToAll {
        /// Where it would listen.
        address: String,
    },
    /// The secret that tokens are signed with is too short.
    #[error("the secret in {path} is too short: at least 32 bytes, such as 'openssl rand -hex 32' prints")]
    ShortSecret {
        /// The file.
        path: String,
    },
    /// A key or a file of keys cannot be used.
    #[error(transparent)]
    Keys(#[from] KeyError),
    /// A certificate cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The shared cache has no address.
    #[error("--cache: {0}")]
    Cache(#[from] CacheUrlError),
    /// Traces have no address to go to.
    #[error("--otlp-endpoint, or OTEL_EXPORTER_OTLP_TRACES_ENDPOINT: {0}")]
    Collector(#[from] CollectorUrlError),
    /// The arithmetic's threads could not be started.
    #[error("the threads could not be started: {0}")]
    Threads(String),
}

impl From<anyhow::Error> for CliError {
    fn from(error: anyhow::Error) -> Self {
        Self::Report(error.to_string())
    }
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
    let Some(cli) = parse()? else { return Ok(ExitCode::SUCCESS) };
    match cli.command {
        Command::Server(args) => server::run(*args),
        Command::Key(args) => key::run(&args),
        Command::Recognize(args) => recognize::run(&args),
        Command::Pull(args) => pull::run(*args),
        Command::Info(args) => info::run(&args),
        Command::Train(args) => train::run(&args),
        Command::Upload(args) => upload::run(*args),
        Command::ExportWeb(args) => export_web::run(&args),
        Command::Eval(args) => eval::run(&args),
        Command::Bench(args) => bench::run(&args),
    }
}

/// The command line, with the environment and the file of settings that it names. `None` if it only asked for the settings.
fn parse() -> Result<Option<Cli>, CliError> {
    let command = settings::with_environment(Cli::command());
    let mut matches = command.clone().get_matches();
    if let Some(told) = matches.subcommand_matches(settings::SERVER) {
        if let Some(file) = told.get_one::<PathBuf>("config") {
            matches = settings::with_file(command.clone(), file)?.get_matches();
        }
        if let Some(told) = matches.subcommand_matches(settings::SERVER).filter(|told| told.get_flag("print_config")) {
            write!(io::stdout().lock(), "{}", settings::print(&command, told))
                .map_err(CliError::io("writing the settings"))?;
            return Ok(None);
        }
    }
    Ok(Some(Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit())))
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
    #[command(flatten)]
    options: ModelOptions,
    #[command(flatten)]
    compute: ComputeArgs,
}

// What may be said about a model, however it is named.
#[derive(Debug, Clone, clap::Args)]
struct ModelOptions {
    /// A branch, tag or commit of the repository.
    #[arg(long, value_name = "REVISION")]
    revision: Option<String>,
    /// The base of a model that is an intent head alone: a folder or a repository. Without it, the one that
    /// the head names.
    #[arg(long, value_name = "REPO_OR_FOLDER")]
    base: Option<String>,
    /// The language of the adapter, for models that have one for each (MMS): aka, eng, …
    #[arg(long, value_name = "LANGUAGE")]
    adapter: Option<String>,
}

impl ModelOptions {
    fn revision(&self) -> Option<&str> {
        self.revision.as_deref()
    }

    /// Adds what was said, and what HUGGINGFACE_MODEL_TYPE says.
    fn apply(&self, choice: ModelChoice) -> Result<ModelChoice, CliError> {
        let task = std::env::var("HUGGINGFACE_MODEL_TYPE").ok();
        Ok(choice.with_base(self.base.as_deref()).with_adapter(self.adapter.as_deref()).with_task(task.as_deref())?)
    }
}

// Where to compute.
#[derive(Debug, Clone, Default, clap::Args)]
struct ComputeArgs {
    /// Where to compute: auto, cuda, wgpu or cpu (vulkan, if it was built in).
    ///
    /// auto takes the first of CUDA, a GPU through wgpu and the CPU that was built in and is there; the log
    /// says which and why. CUDA_VISIBLE_DEVICES="" forces the CPU.
    #[arg(long, value_name = "DEVICE", default_value = "auto", value_parser = parsed::<DeviceChoice>)]
    device: DeviceChoice,
    /// The number type to compute in: auto, f32, f16, bf16 or int8.
    ///
    /// auto is int8 on a CPU whose sums of 8-bit products are exact (x86 with AVX-512 VNNI, ARM), else f32. int8
    /// is for the CPU: linear layers multiply in 8-bit integers, which is faster and takes less memory, and answers differ a
    /// little. f16 and bf16 are for GPUs.
    #[arg(long, value_name = "TYPE", default_value = "auto", value_parser = parsed::<DtypeChoice>)]
    dtype: DtypeChoice,
}

/// A value of the command line by the core's own reading of it.
fn parsed<T: std::str::FromStr<Err = okyeame_core::Error>>(text: &str) -> Result<T, String> {
    text.parse::<T>().map_err(|e| e.to_string())
}

impl ComputeArgs {
    fn choose(&self) -> okyeame_core::Result<Compute> {
        Compute::choose(self.device, self.dtype, std::env::var("CUDA_VISIBLE_DEVICES").ok().as_deref())
    }
}

impl ModelArgs {
    fn choice(&self) -> Result<ModelChoice, CliError> {
        self.options.apply(ModelChoice::new(self.model.as_deref(), self.options.revision()))
    }

    /// Finds the model, fetching it if need be, and loads it. If it computes on the CPU, rayon's threads keep to a core each from
    /// then on.
    fn load(&self) -> Result<Recognizer, CliError> {
        let recognizer = load(&self.choice()?, &self.compute)?;
        if recognizer.compute().name == "cpu" {
            cores::keep_apart();
        }
        Ok(recognizer)
    }
}

/// Finds a model, fetching it if need be, and loads it.
fn load(choice: &ModelChoice, compute: &ComputeArgs) -> okyeame_core::Result<Recognizer> {
    let compute = compute.choose()?;
    let folder = open(choice)?;
    memory::check(&folder)?;
    Recognizer::from_folder(folder, LoadOptions { compute, task: choice.task() })
}

/// As [`load`], as the engine of a server, whose answers other processes may be given if it `shares` them.
fn load_engine(choice: &ModelChoice, compute: &ComputeArgs, shares: bool) -> okyeame_core::Result<Box<dyn Engine>> {
    if !shares {
        return Ok(Box::new(load(choice, compute)?));
    }
    let compute = compute.choose()?;
    let (folder, read_from) = open_from(choice)?;
    memory::check(&folder)?;
    let content = model_content::digest(choice, &read_from).map_err(|source| okyeame_core::Error::Io {
        what: "reading the model, to know whose answers to share".to_owned(),
        source,
    })?;
    let recognizer = Recognizer::from_folder(folder, LoadOptions { compute, task: choice.task() })?;
    Ok(Box::new(Identified { recognizer, content }))
}

/// Finds a model's folder, fetching it if need be, and opens it.
fn open(choice: &ModelChoice) -> okyeame_core::Result<ModelFolder> {
    open_from(choice).map(|(folder, _)| folder)
}

/// As [`open`], with the folders that it was read from.
fn open_from(choice: &ModelChoice) -> okyeame_core::Result<(ModelFolder, Vec<PathBuf>)> {
    let progress = progress::Progress::new();
    let options = OpenOptions { adapter: choice.adapter().map(str::to_owned) };
    let mut read_from = Vec::new();
    let mut base_folder = None;
    let mut find_base = |base: Option<&str>| {
        let found = choice.locate_base(base, &mut |event| progress.show(event));
        found.inspect(|base| base_folder = Some(base.folder.clone()))
    };
    let folder = if choice.is_default() {
        ModelFolder::open_built_in(&TWI_SHOP, &options, &mut find_base)?
    } else {
        let folder: PathBuf = choice.locate(&mut |event| progress.show(event))?;
        let opened = ModelFolder::open_with(&folder, &options, &mut find_base)?;
        read_from.push(folder);
        opened
    };
    read_from.extend(base_folder);
    choice.check_base_used(folder.base.as_deref())?;
    Ok((folder, read_from))
}

/// A number of threads, as `--threads` takes it everywhere. More than a machine has cores is allowed, but not so many that the
/// system gives up in the middle of starting them.
fn thread_count(text: &str) -> Result<usize, String> {
    match text.parse::<usize>() {
        Ok(threads) if (1..=MAX_THREADS).contains(&threads) => Ok(threads),
        _ => Err(format!("a number of threads, from 1 to {MAX_THREADS}")),
    }
}

/// Bounds rayon's own pool, the one of each command but the server; `None` leaves a thread for each core.
fn limit_threads(threads: Option<usize>) -> Result<(), CliError> {
    let Some(threads) = threads else { return Ok(()) };
    rayon::ThreadPoolBuilder::new()
        .num_threads(threads)
        .build_global()
        .map_err(|error| CliError::Threads(error.to_string()))
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
            "okyeame pull facebook/mms-1b-all --adapter aka",
            "okyeame info models/whisper-base --json --device cpu --dtype f32",
            "okyeame info okyeame/twi-shop --base models/whisper-base",
            "okyeame recognize a.wav --model facebook/mms-1b-all --adapter aka --device wgpu --dtype f16",
            "okyeame bench --serve --model models/whisper-base --threads 2",
            "okyeame bench --profile command:sw:a.wav --profile transcribe:en:b.wav --runs 3 --json out.json --dtype int8",
            "okyeame recognize a.wav --catalogue shop.json",
            "okyeame server --catalogue shop.csv",
            "okyeame server --host 0.0.0.0 --keys keys.toml --tls-cert cert.pem --tls-key key.pem --requests-per-minute 60",
            "okyeame server --config okyeame.toml --print-config",
            "okyeame server --otlp-endpoint http://localhost:4318",
            "okyeame server --cache redis://:secret@127.0.0.1:6379/1",
            "okyeame key shop --add keys.toml --scopes intent,transcribe",
            "okyeame train --data m.csv --out runs/a --seeds 1,2 --test-speakers flite-*,ama --skip-bad",
            "okyeame eval runs/a/seed-1/model runs/a/seed-2/model --data m.csv --splits runs/a/splits.csv --card out",
        ] {
            assert!(Cli::try_parse_from(call.split(' ')).is_ok(), "{call}");
        }
        for call in [
            "okyeame",
            "okyeame recognize",
            "okyeame server --port 99999",
            "okyeame server --tls-cert cert.pem",
            "okyeame key shop --scopes all",
            "okyeame pull",
            "okyeame info x --device tpu",
            "okyeame bench --profile a.wav",
            "okyeame bench --profile command:sw:a.wav --runs 0",
            "okyeame bench --serve --profile command:sw:a.wav",
            "okyeame bench --serve --json out.json",
        ] {
            assert!(Cli::try_parse_from(call.split(' ')).is_err(), "{call}");
        }
    }

    #[test]
    fn a_number_of_threads_is_one_everywhere() {
        for command in ["server", "recognize", "train", "eval", "export-web", "bench"] {
            for number in ["0", "-1", "1025", "100000", "18446744073709551617", "1.5", "two"] {
                let said = Cli::try_parse_from(["okyeame", command, "--threads", number]).unwrap_err().to_string();
                let expected =
                    format!("invalid value '{number}' for '--threads <N>': a number of threads, from 1 to 1024");
                assert!(said.contains(&expected), "{command}: {said}");
            }
        }
        for call in ["okyeame server --threads 1024", "okyeame recognize a.wav --threads 1"] {
            assert!(Cli::try_parse_from(call.split(' ')).is_ok(), "{call}");
        }
    }
}
