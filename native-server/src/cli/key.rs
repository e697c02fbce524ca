//! `okyeame key`: makes an API key.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use crate::access::Scope;
use crate::access::keys::{self, ApiKey};
use crate::cli::CliError;

/// Make an API key for `okyeame server --keys`.
///
/// The key itself is printed once, on the standard output; what is kept is its digest, from which nobody can make it again.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Whose key it is: a shop, a till, a monitoring system.
    name: String,
    /// The file of keys to add it to; made if need be. Without it, what belongs into the file is printed as well.
    #[arg(long, value_name = "FILE")]
    add: Option<PathBuf>,
    /// What it opens: intent (commands), transcribe (words of recordings), operate (statistics and metrics), admin (another model
    /// in the place of the one that is served; only if it is named).
    #[arg(long, value_name = "SCOPE,…", value_delimiter = ',', default_values = ["intent", "transcribe", "operate"])]
    scopes: Vec<Scope>,
}

pub(crate) fn run(args: &Args) -> Result<ExitCode, CliError> {
    let secret = keys::generate()?;
    let key = ApiKey::of(&args.name, &secret, args.scopes.clone());
    let mut out = std::io::stdout().lock();
    let mut say = |text: &str| writeln!(out, "{text}").map_err(CliError::io("writing the key"));
    match &args.add {
        Some(file) => {
            keys::add(file, &key)?;
            say(&secret)?;
            eprintln!("This is the key of '{}', shown once; {} holds its digest.", args.name, file.display());
            eprintln!("A running server reads the file at its next start: okyeame server --keys {}", file.display());
        }
        None => {
            say(&secret)?;
            eprintln!("This is the key of '{}', shown once. For the file of keys:\n", args.name);
            eprint!("{}", keys::table_of(&key)?);
        }
    }
    Ok(ExitCode::SUCCESS)
}
