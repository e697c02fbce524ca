//! Which core each thread of the arithmetic runs on.

/// Keeps each thread of the pool that this is called in (else of rayon's own) on a core of its own, if there is one for each.
///
/// A product is shared among threads, and takes as long as the last of them. Left to itself, Linux wakes a thread on the core of
/// the one that woke it, and may leave both there for longer than a command takes: after a pause of 0.1 s two threads of two then
/// do the work of one. ONNX Runtime does the same, under the same condition: with fewer threads than cores, who else runs where
/// is the system's business, and several processes would all choose the first.
///
/// To be called once the model is loaded, and only if it computes on these threads: a thread that a GPU's driver started
/// meanwhile would have inherited the core of its parent.
pub(crate) fn keep_apart() {
    rayon::broadcast(|thread| keep(thread.index(), thread.num_threads()));
}

#[cfg(target_os = "linux")]
fn keep(index: usize, n_threads: usize) {
    use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

    let Ok(allowed) = sched_getaffinity(None) else { return };
    let mut cores = (0..CpuSet::MAX_CPU).filter(|core| allowed.is_set(*core));
    let n_cores = allowed.count() as usize;
    if let (Some(core), true) = (cores.nth(index), n_cores == n_threads) {
        let mut own = CpuSet::new();
        own.set(core);
        // Without the right to it, the thread stays where the system puts it.
        let _ = sched_setaffinity(None, &own);
    }
}

#[cfg(not(target_os = "linux"))]
fn keep(_index: usize, _n_threads: usize) {}
