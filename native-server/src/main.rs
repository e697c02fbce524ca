//! `okyeame`: the command line. All of it is in the library; this gives the process its exit code.

use std::error::Error;
use std::process::ExitCode;

/// Tensors are large and short-lived. The system's allocator gives each back and has its pages fetched and cleared anew.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// `mi_option_purge_delay` in mimalloc.h: milliseconds until freed memory goes back to the system, -1 for never.
const PURGE_DELAY: libmimalloc_sys::mi_option_t = 15;

/// Keeps freed memory for the next tensor. Each step of a training has threads of its own, and what they leave behind would
/// be given back and fetched again: in a virtual machine that took more time than all arithmetic.
///
/// Where the environment says something (`MIMALLOC_PURGE_DELAY`), that stays.
#[allow(unsafe_code)]
fn keep_freed_memory() {
    // SAFETY: sets a number in a table of the allocator; any thread may at any time.
    unsafe { libmimalloc_sys::mi_option_set_default(PURGE_DELAY, -1) };
}

fn main() -> ExitCode {
    if std::env::args_os().nth(1).is_some_and(|command| command == "train") {
        keep_freed_memory();
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    /// The option is known by its number only.
    #[test]
    #[allow(unsafe_code)]
    fn the_option_is_the_purge_delay() {
        // SAFETY: as above.
        let get = || unsafe { libmimalloc_sys::mi_option_get(PURGE_DELAY) };
        if std::env::var_os("MIMALLOC_PURGE_DELAY").is_none() {
            // mimalloc's default; no other option has it.
            assert_eq!(get(), 1000);
            keep_freed_memory();
            assert_eq!(get(), -1);
        }
    }
}
