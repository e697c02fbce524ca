//! What every fuzz target shares: which panics are findings, and how much memory an input may cost.
//!
//! libFuzzer's own hook ends the process at every panic, also at one that is caught. Here a panic of a dependency that
//! the code around it catches (`core/src/audio/decode.rs` says where and why) is no finding; a panic in this project's
//! own code is one, wherever it is caught, and so is any that nobody catches.

use std::backtrace::Backtrace;
use std::panic::{self, PanicHookInfo};
use std::process::abort;
use std::sync::{Mutex, PoisonError};

use peak_alloc::PeakAlloc;

/// Counts what is allocated. libFuzzer's own limit sees pages only once they are written, and once a second.
#[global_allocator]
static ALLOCATED: PeakAlloc = PeakAlloc;

/// The last panic of a dependency, for the case that nobody catches it.
static LAST_FOREIGN_PANIC: Mutex<String> = Mutex::new(String::new());

/// What one input may have allocated at its highest: a constant, and so many bytes for each of its own.
pub(crate) struct Memory {
    pub(crate) base_mib: usize,
    pub(crate) per_byte: usize,
}

/// Puts this module's panic hook in the place of libFuzzer's.
pub(crate) fn init() {
    panic::set_hook(Box::new(|panic| {
        if !is_foreign(panic) {
            eprintln!("{panic}\n{}", Backtrace::force_capture());
            abort(); // libFuzzer saves the input
        }
        // Without a backtrace, whose making would count as the input's memory.
        *LAST_FOREIGN_PANIC.lock().unwrap_or_else(PoisonError::into_inner) = panic.to_string();
    }));
}

/// Whether it is the code of a registry, or the standard library's, that panicked.
fn is_foreign(panic: &PanicHookInfo<'_>) -> bool {
    let places = ["/registry/src/", "/git/checkouts/", "/library/"];
    panic.location().is_some_and(|at| places.iter().any(|place| at.file().contains(place)))
}

/// Runs a target's body on one input.
pub(crate) fn run(input: &[u8], may: Memory, body: fn(&[u8]) -> bool) {
    ALLOCATED.reset_peak_usage();
    let before = ALLOCATED.current_usage();
    if panic::catch_unwind(|| body(input)).is_err() {
        eprintln!("{}", LAST_FOREIGN_PANIC.lock().unwrap_or_else(PoisonError::into_inner));
        abort();
    }
    let n_bytes = ALLOCATED.peak_usage().saturating_sub(before);
    let allowed = (may.base_mib << 20) + may.per_byte * input.len();
    assert!(n_bytes <= allowed, "{} bytes of input had {n_bytes} bytes allocated, allowed {allowed}", input.len());
}
