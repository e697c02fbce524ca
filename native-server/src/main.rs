//! `okyeame`: the command line. All of it is in the library; this gives the process its exit code.

use std::process::ExitCode;

fn main() -> ExitCode {
    okyeame_server::cli::run().unwrap_or_else(|error| {
        // A sentence with its causes, never a stack trace, whatever RUST_BACKTRACE says.
        eprintln!("error: {:#}", anyhow::Error::from(error));
        ExitCode::FAILURE
    })
}
