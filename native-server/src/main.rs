//! `okyeame`: the command line. All of it is in the library; this gives the process its exit code.

use std::error::Error;
use std::process::ExitCode;

/// Tensors are large and short-lived: the system's allocator would give each back and fetch its pages anew, which costs a
/// training step a fifth of its time.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    okyeame_server::cli::run().unwrap_or_else(|error| {
        eprintln!("error: {}", sentence(&error));
        ExitCode::FAILURE
    })
}

/// An error with its causes, each said once; never a stack trace, whatever RUST_BACKTRACE says.
fn sentence(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    text
}
