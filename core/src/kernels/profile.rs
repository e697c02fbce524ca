//! Where a pass's time goes: while a profile is taken (`okyeame bench --profile`, `make profile`), each kernel adds its wall
//! time, its calls and its multiply-adds to a table, and the models say which stage a kernel works for. Otherwise one flag is
//! read, and no clock.
//!
//! A kernel is measured from outside, on the thread that calls it, with whatever other threads do for it. A kernel that another
//! one calls, or that a waiting thread picks up meanwhile, is not measured, so times add up to no more than those of the stages.
//!
//! Not for clips side by side: there is one table for the process, and it would add them up. Not for GPUs: a kernel there only
//! queues its work.

use std::cell::Cell;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::Serialize;
use web_time::Instant;

/// The audio encoder.
pub const ENCODER: &str = "encoder";
/// Keys and values of the encoding, made once a window.
pub const CROSS_KEYS: &str = "cross keys";
/// The text decoder's blocks.
pub const DECODER: &str = "decoder";
/// The logits of every token.
pub const VOCABULARY: &str = "vocabulary";
/// Whatever no model named.
pub const OTHER: &str = "other";

/// The kernel of linear layers.
pub const LINEAR: &str = "linear";
/// The kernel of two linear layers at once, the shape being that of the first.
pub const MLP: &str = "mlp";

static TAKEN: AtomicBool = AtomicBool::new(false);
static TABLE: Mutex<Profile> = Mutex::new(Profile { stages: Vec::new(), ops: Vec::new() });

thread_local! {
    static STAGE: Cell<&'static str> = const { Cell::new(OTHER) };
    static IN_OP: Cell<bool> = const { Cell::new(false) };
}

/// What was measured between [`start`] and [`stop`], in the order in which it was first seen.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Profile {
    /// The models' stages.
    pub stages: Vec<StageTime>,
    /// The kernels within them.
    pub ops: Vec<OpTime>,
}

/// All passes through one stage.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct StageTime {
    /// Its name, such as [`ENCODER`].
    pub stage: &'static str,
    /// Passes.
    pub calls: usize,
    /// Wall time, milliseconds.
    pub ms: f64,
}

/// All calls of one kernel with one shape of weights in one stage.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct OpTime {
    /// The stage that it worked for.
    pub stage: &'static str,
    /// The kernel: `linear`, `self-attention`, …
    pub op: &'static str,
    /// Channels in and out, of a kernel that has weights.
    pub shape: Option<[usize; 2]>,
    /// Whether it multiplied in 8-bit integers.
    pub int8: bool,
    /// Calls.
    pub calls: usize,
    /// Multiplications with an addition each; those of normalising, softmax and activations are not counted.
    pub multiply_adds: u64,
    /// Wall time, milliseconds.
    pub ms: f64,
}

impl Profile {
    /// Milliseconds in a stage; 0 if it was not passed.
    #[must_use]
    pub fn stage_ms(&self, stage: &str) -> f64 {
        self.stages.iter().filter(|time| time.stage == stage).map(|time| time.ms).sum()
    }

    fn add_stage(&mut self, stage: &'static str, ms: f64) {
        match self.stages.iter_mut().find(|time| time.stage == stage) {
            Some(time) => {
                time.calls += 1;
                time.ms += ms;
            }
            None => self.stages.push(StageTime { stage, calls: 1, ms }),
        }
    }

    fn add_op(&mut self, stage: &'static str, op: Op, ms: f64) {
        let Op { name, shape, int8, multiply_adds } = op;
        match self
            .ops
            .iter_mut()
            .find(|time| time.stage == stage && time.op == name && time.shape == shape && time.int8 == int8)
        {
            Some(time) => {
                time.calls += 1;
                time.multiply_adds += multiply_adds;
                time.ms += ms;
            }
            None => self.ops.push(OpTime { stage, op: name, shape, int8, calls: 1, multiply_adds, ms }),
        }
    }
}

/// Begins a profile of the whole process, and forgets the one before.
pub fn start() {
    *table() = Profile::default();
    TAKEN.store(true, Ordering::Relaxed);
}

/// Ends the profile.
#[must_use]
pub fn stop() -> Profile {
    TAKEN.store(false, Ordering::Relaxed);
    std::mem::take(&mut *table())
}

fn table() -> MutexGuard<'static, Profile> {
    // Sums are whole at any moment, whoever panicked.
    TABLE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What a kernel is about to do.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Op {
    name: &'static str,
    shape: Option<[usize; 2]>,
    int8: bool,
    multiply_adds: u64,
}

impl Op {
    /// A kernel without weights; its multiply-adds are the product of `factors`, none if there are no factors.
    pub(crate) fn new(name: &'static str, factors: &[usize]) -> Self {
        // In 64 bits, since a browser's usize has 32.
        let multiply_adds: u64 = if factors.is_empty() { 0 } else { factors.iter().map(|n| *n as u64).product() };
        Self { name, shape: None, int8: false, multiply_adds }
    }

    /// A kernel with weights, `[d_input, d_output]`.
    pub(crate) fn with_weights(self, d_input: usize, d_output: usize, int8: bool) -> Self {
        Self { shape: Some([d_input, d_output]), int8, ..self }
    }
}

/// Measures a kernel until it is dropped; `describe` is not called unless a profile is taken.
#[must_use]
pub(crate) fn op(describe: impl FnOnce() -> Op) -> Option<OpTimer> {
    if !TAKEN.load(Ordering::Relaxed) || IN_OP.get() {
        return None;
    }
    IN_OP.set(true);
    Some(OpTimer { op: describe(), started: Instant::now() })
}

/// A kernel that is being measured.
pub(crate) struct OpTimer {
    op: Op,
    started: Instant,
}

impl Drop for OpTimer {
    fn drop(&mut self) {
        let ms = self.started.elapsed().as_secs_f64() * 1e3;
        IN_OP.set(false);
        table().add_op(STAGE.get(), self.op, ms);
    }
}

/// Measures a stage until it is dropped; the kernels that this thread calls meanwhile are the stage's.
#[must_use]
pub(crate) fn stage(name: &'static str) -> Option<StageTimer> {
    TAKEN.load(Ordering::Relaxed).then(|| StageTimer { name, before: STAGE.replace(name), started: Instant::now() })
}

/// A stage that is being measured.
pub(crate) struct StageTimer {
    name: &'static str,
    before: &'static str,
    started: Instant,
}

impl Drop for StageTimer {
    fn drop(&mut self) {
        let ms = self.started.elapsed().as_secs_f64() * 1e3;
        STAGE.set(self.before);
        table().add_stage(self.name, ms);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Other tests' kernels may be in the table, under the stages of this test never.
    #[test]
    fn only_the_outermost_kernel_counts_and_only_while_a_profile_is_taken() {
        let work = |name: &'static str| {
            let _stage = stage(name);
            for _ in 0..3 {
                let _outer = op(|| Op::new("outer", &[2, 3]).with_weights(2, 3, true));
                let _inner = op(|| Op::new("inner", &[100]));
            }
            let _plain = op(|| Op::new("plain", &[]));
        };
        work("before");
        start();
        work("while");
        let profile = stop();
        work("after");
        assert!(!profile.ops.iter().any(|op| op.stage == "before" || op.stage == "after"));
        let seen: Vec<_> = profile
            .ops
            .iter()
            .filter(|op| op.stage == "while")
            .map(|op| (op.op, op.shape, op.int8, op.calls, op.multiply_adds))
            .collect();
        assert_eq!(seen, [("outer", Some([2, 3]), true, 3, 18), ("plain", None, false, 1, 0)]);
        let stages: Vec<_> = profile.stages.iter().filter(|time| time.stage == "while").collect();
        assert_eq!(stages.len(), 1);
        assert_eq!(stages[0].calls, 1);
        let in_ops: f64 = profile.ops.iter().filter(|op| op.stage == "while").map(|op| op.ms).sum();
        assert!(in_ops <= profile.stage_ms("while"), "{in_ops} ms of {}", profile.stage_ms("while"));
        assert_eq!(STAGE.get(), OTHER);
    }
}
