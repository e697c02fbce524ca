//! The fastest that this machine multiplies two matrices, as the linear layers do it, with the threads that they have: what
//! a profile holds their times against.

use std::time::Duration;

use rayon::prelude::*;
use rten_gemm::{GemmExecutor, GemmInputA, GemmInputB, GemmOptions};
use rten_tensor::NdTensorView;
use serde::Serialize;
use web_time::Instant;

use super::cpu::with_gemm;

/// Rows, depth and columns: whisper-base's first MLP layer on a full window and on a 3 s one.
const SHAPES: [[usize; 3]; 2] = [[1500, 512, 2048], [150, 512, 2048]];
/// How long one product is repeated; the fastest counts.
const REPEATED_FOR: Duration = Duration::from_millis(250);
/// Rows of a micro-kernel's tile.
const TILE_ROWS: usize = 8;
/// Rows that a task takes at most, as [`super::int8`] has it.
const ROWS_PER_TASK: usize = 64;

thread_local!(static GEMM: GemmExecutor<u8, i8, i32> = GemmExecutor::default());

/// The fastest product of one shape.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Peak {
    /// Rows, depth and columns.
    pub shape: [usize; 3],
    /// Whether in 8-bit integers; in f32 otherwise.
    pub int8: bool,
    /// Milliseconds of the fastest.
    pub ms: f64,
    /// 10⁹ operations a second; a multiply-add is two.
    pub gops: f64,
}

/// Measures the products of a linear layer, in f32 and in 8-bit integers: about two seconds of all cores.
#[must_use]
pub fn measure() -> Vec<Peak> {
    measure_shapes(&SHAPES, REPEATED_FOR)
}

fn measure_shapes(shapes: &[[usize; 3]], repeated_for: Duration) -> Vec<Peak> {
    let mut peaks = Vec::with_capacity(2 * shapes.len());
    for shape in shapes {
        for int8 in [false, true] {
            let ms = if int8 { int8_ms(*shape, repeated_for) } else { f32_ms(*shape, repeated_for) };
            let operations = 2.0 * shape.iter().map(|n| *n as f64).product::<f64>();
            peaks.push(Peak { shape: *shape, int8, ms, gops: operations / ms / 1e6 });
        }
    }
    peaks
}

fn f32_ms([m, k, n]: [usize; 3], repeated_for: Duration) -> f64 {
    let a: Vec<f32> = (0..m * k).map(|i| (i % 251) as f32 / 125.0 - 1.0).collect();
    let b: Vec<f32> = (0..n * k).map(|i| (i % 241) as f32 / 120.0 - 1.0).collect();
    let rows = NdTensorView::from_data([n, k], b.as_slice());
    let packed = with_gemm(|gemm| gemm.prepack_b(rows.transposed()));
    let mut out = vec![0.0f32; m * n];
    fastest_ms([k, n], &a, &mut out, repeated_for, |a: &[f32], out: &mut [f32]| {
        let a = NdTensorView::from_data([a.len() / k, k], a);
        with_gemm(|gemm| gemm.gemm(out, GemmInputA::Unpacked(a), GemmInputB::Packed(&packed), GemmOptions::default()))
            .expect("the shapes are those of this product");
    })
}

fn int8_ms([m, k, n]: [usize; 3], repeated_for: Duration) -> f64 {
    let a: Vec<u8> = (0..m * k).map(|i| (i % 251) as u8).collect();
    // Small enough for machines that sum pairs of products in 16 bits.
    let b: Vec<i8> = (0..n * k).map(|i| (i % 121) as i8 - 60).collect();
    let rows = NdTensorView::from_data([n, k], b.as_slice());
    let packed = GEMM.with(|gemm| gemm.prepack_b(rows.transposed()));
    let mut out = vec![0i32; m * n];
    fastest_ms([k, n], &a, &mut out, repeated_for, |a: &[u8], out: &mut [i32]| {
        let a = NdTensorView::from_data([a.len() / k, k], a);
        GEMM.with(|gemm| gemm.gemm(out, GemmInputA::Unpacked(a), GemmInputB::Packed(&packed), GemmOptions::default()))
            .expect("the shapes are those of this product");
    })
}

/// The fastest of many products, divided over the threads by `rten-gemm` itself, or by us in blocks of rows.
fn fastest_ms<A: Sync, O: Send>(
    [k, n]: [usize; 2],
    a: &[A],
    out: &mut [O],
    repeated_for: Duration,
    product: impl Fn(&[A], &mut [O]) + Sync,
) -> f64 {
    let whole = repeat(repeated_for, || product(a, out));
    let share = (a.len() / k).div_ceil(rayon::current_num_threads()).next_multiple_of(TILE_ROWS);
    let rows = share.min(ROWS_PER_TASK);
    let in_blocks = repeat(repeated_for, || {
        out.par_chunks_mut(rows * n).zip(a.par_chunks(rows * k)).for_each(|(out, a)| product(a, out));
    });
    whole.min(in_blocks)
}

/// The shortest time of `work`, which runs at least three times.
fn repeat(repeated_for: Duration, mut work: impl FnMut()) -> f64 {
    let begun = Instant::now();
    let mut fastest = f64::INFINITY;
    let mut runs = 0;
    while runs < 3 || begun.elapsed() < repeated_for {
        let started = Instant::now();
        work();
        fastest = fastest.min(started.elapsed().as_secs_f64() * 1e3);
        runs += 1;
    }
    fastest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shape_is_measured_in_both_number_types() {
        let peaks = measure_shapes(&[[9, 16, 24], [1, 8, 8]], Duration::ZERO);
        let measured: Vec<_> = peaks.iter().map(|peak| (peak.shape, peak.int8)).collect();
        let expected = [([9, 16, 24], false), ([9, 16, 24], true), ([1, 8, 8], false), ([1, 8, 8], true)];
        assert_eq!(measured, expected);
        for peak in peaks {
            let operations = 2.0 * peak.shape.iter().product::<usize>() as f64;
            assert!((peak.gops * peak.ms * 1e6 - operations).abs() < 1e-6 * operations, "{peak:?}");
        }
    }

    #[test]
    fn the_fastest_run_counts_and_there_are_three_at_least() {
        let mut runs = 0;
        let ms = repeat(Duration::ZERO, || runs += 1);
        assert_eq!(runs, 3);
        assert!(ms.is_finite());
    }

    /// Both ways of dividing a product cover all of its rows, also where the last block is short.
    #[test]
    fn all_rows_are_computed() {
        for m in [1, 7, 64, 65, 200] {
            let a = vec![1u8; m * 2];
            let mut out = vec![0i32; m * 3];
            let calls = std::sync::atomic::AtomicUsize::new(0);
            let _ = fastest_ms([2, 3], &a, &mut out, Duration::ZERO, |a: &[u8], out: &mut [i32]| {
                assert_eq!(a.len() / 2, out.len() / 3);
                out.iter_mut().for_each(|v| *v += 1);
                calls.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            });
            assert!(out.iter().all(|v| *v == 6), "{m} rows: {out:?}");
            assert!(calls.into_inner() >= 6);
        }
    }
}
