//! Whether a model fits into this machine's memory, asked before it is loaded: the alternative is a process that the
//! system kills without a word. And what the process has taken, and what it gives back.

use okyeame_core::weights::folder::ModelFolder;
use okyeame_core::{Error, Result};
use rayon::ThreadPool;
use sysinfo::{MemoryRefreshKind, ProcessRefreshKind, ProcessesToUpdate, System};

/// Loading takes at most this many times the loaded weights: `core/tests/memory.rs`.
const PEAK_FACTOR: f64 = 1.3;
/// A request's own memory, the phrase book, threads.
const WORKING_BYTES: u64 = 200 << 20;

/// # Errors
/// [`Error::OutOfMemory`] says how much is needed and how much is there.
pub(crate) fn check(folder: &ModelFolder) -> Result<()> {
    check_against(folder.loaded_bytes(), available())
}

fn check_against(loaded_bytes: u64, available: Option<u64>) -> Result<()> {
    const MB: u64 = 1_000_000;
    let needed = (loaded_bytes as f64 * PEAK_FACTOR) as u64 + WORKING_BYTES;
    match available {
        Some(available) if available < needed => {
            Err(Error::OutOfMemory { needed_mb: needed / MB, available_mb: available / MB })
        }
        _ => Ok(()),
    }
}

/// Bytes that may still be taken, of the machine or of this container; `None` where the system does not tell.
fn available() -> Option<u64> {
    let mut system = System::new();
    system.refresh_memory_specifics(MemoryRefreshKind::nothing().with_ram());
    let of_machine = Some(system.available_memory()).filter(|bytes| *bytes > 0)?;
    // A container's free memory leaves out files that the system keeps only while nobody needs the room.
    let of_container = system.cgroup_limits().map(|limits| limits.total_memory.saturating_sub(limits.rss));
    Some(of_container.map_or(of_machine, |bytes| of_machine.min(bytes)))
}

/// Bytes of this process that are in memory; `None` where the system does not tell. Reads files of the system.
pub(crate) fn resident() -> Option<u64> {
    let pid = sysinfo::get_current_pid().ok()?;
    let mut system = System::new();
    let what = ProcessRefreshKind::nothing().with_memory().without_tasks();
    system.refresh_processes_specifics(ProcessesToUpdate::Some(&[pid]), false, what);
    system.process(pid).map(sysinfo::Process::memory).filter(|bytes| *bytes > 0)
}

/// Gives the system what is free. The allocator keeps freed memory for the next tensor and looks whether its time is over only
/// while it is being asked for more: a server that has nothing to do would keep what the last transcript needed.
///
/// Pages that a thread holds for itself are not among it: see [`give_back_of`]. Nothing, where the allocator is another (the
/// library's tests).
#[allow(unsafe_code)]
pub(crate) fn give_back() {
    // SAFETY: looks for memory that nobody holds, of this thread and of no thread; any thread may at any time.
    unsafe { libmimalloc_sys::mi_collect(true) };
}

/// As [`give_back`], and what the threads of `pool`, which has nothing to do, hold for themselves.
pub(crate) fn give_back_of(pool: &ThreadPool) {
    // More than once: while one of them returns pages to the system, it passes over what another has just let go.
    for _ in 0..3 {
        pool.broadcast(|_| give_back());
        give_back();
    }
}

/// From now on what was freed is kept for a tenth of a second, instead of a whole one: a busy server gives back what one
/// request needed before it takes more for the next. With 10 ms whisper-base rested 40 MB lower after a burst of commands and
/// transcripts, but a command took a fifth longer.
///
/// Where the environment says something (`MIMALLOC_PURGE_DELAY`), that stays.
#[allow(unsafe_code)]
pub(crate) fn keep_for_a_moment() {
    /// `mi_option_purge_delay` of mimalloc v3's `mimalloc.h`, in milliseconds; the crate does not name it.
    const PURGE_DELAY: libmimalloc_sys::mi_option_t = 15;
    if std::env::var_os("MIMALLOC_PURGE_DELAY").is_none() {
        // SAFETY: a number among mimalloc's options, written before any other thread is there.
        unsafe { libmimalloc_sys::mi_option_set(PURGE_DELAY, 100) };
    }
}

/// Pages of 4 KiB from now on. The allocator asks for huge ones, of which a touched byte takes 2 MiB, and the system makes
/// more of them by itself, out of pages that were given back; no command and no transcript is faster for them.
///
/// Where the environment says something (`MIMALLOC_ALLOW_THP`), that stays.
#[cfg(target_os = "linux")]
pub(crate) fn no_huge_pages() {
    if std::env::var_os("MIMALLOC_ALLOW_THP").is_none() {
        // A kernel that does not know the call keeps its pages as they are.
        let _ = rustix::thread::disable_transparent_huge_pages(true);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn too_large_a_model_is_refused_in_numbers() {
        let error = check_against(10 << 30, Some(4 << 30)).expect_err("14 GB do not fit into 4");
        assert_eq!(error.code(), "out_of_memory");
        assert!(error.to_string().contains("14168 MB") && error.to_string().contains("4294 MB"), "{error}");
        assert!(check_against(1 << 30, Some(4 << 30)).is_ok());
        assert!(check_against(1 << 40, None).is_ok(), "a system that does not tell is not in the way");
    }

    #[test]
    fn this_machine_tells() {
        assert!(available().is_some_and(|bytes| bytes > 1 << 20));
        assert!(resident().is_some_and(|bytes| bytes > 1 << 20));
    }
}
