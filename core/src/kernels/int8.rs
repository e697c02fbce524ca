//! The product of a linear layer in 8-bit integers, on the CPU: `y = x Wᵗ + b` with weights as `i8`, one scale an output
//! channel, and activations as `u8`, one scale and zero point a row, found as the row comes (dynamic quantisation).
//!
//! The scheme is CTranslate2's and ONNX Runtime's (`DynamicQuantizeLinear`), with rows in the place of whole tensors, since
//! Whisper's loud and quiet positions differ by orders of magnitude. The sums are exact in `i32` (`rten-gemm`, which packs the
//! weights once and takes VNNI, AVX2, NEON or wasm's vectors as the machine has them); what is lost is lost in rounding the
//! two factors. Bias, activation or residual are applied where a block of sums still lies in cache; so is the zero point, since
//! `rten-gemm` 0.27 takes the first tile's zero points for every tile of rows (`packing/int8.rs`, `pack_a_impl`).
//!
//! Not for weights with few columns (the look-up of a token needs rows), and not for other devices.

use std::mem::MaybeUninit;

use rayon::prelude::*;
use rten_gemm::{GemmExecutor, GemmInputA, GemmInputB, GemmUninitOptions, PackedBMatrix};
use rten_simd::ops::{BitOps, NumOps, ToFloat};
use rten_simd::{Isa, SimdOp};
use rten_tensor::NdTensorView;
use rten_vecmath::{ExtendInit, MinMax, Quantize, Sum};

use super::linear::Activation;

/// Rows that one task takes at most: 64 rows of 2048 sums are 512 KiB, half an L2 cache.
const ROWS_PER_TASK: usize = 64;
/// Rows of a micro-kernel's tile.
const TILE_ROWS: usize = 8;
/// Largest number of a weight, and where pairs of products are summed in 16 bits (x86 before VNNI): 255 * 63 * 2 < 2^15.
const MAX_WEIGHT: f32 = 127.0;
const MAX_WEIGHT_16_BITS: f32 = 63.0;

thread_local!(static GEMM: GemmExecutor<u8, i8, i32> = GemmExecutor::default());

/// As [`super::cpu::with_gemm`], for integers.
fn with_gemm<R>(f: impl FnOnce(&GemmExecutor<u8, i8, i32>) -> R) -> R {
    GEMM.with(f)
}

/// A packed weight `[d_output, d_input]`.
pub(super) struct Int8Weight {
    packed: PackedBMatrix<i8>,
    /// What one step of an output channel's weights is worth.
    scales: Vec<f32>,
    /// The sum of an output channel's weights, in steps: what a zero point of one adds to every product.
    sums: Vec<i32>,
    bias: Option<Vec<f32>>,
    d_input: usize,
}

/// What becomes of a product.
pub(super) enum Then {
    /// It is written, through an activation.
    Activate(Activation),
    /// It is added to what stands there.
    Add,
}

impl Int8Weight {
    /// Rounds and packs `weight`, `[d_output, d_input]` row-major.
    pub(super) fn new(weight: &[f32], bias: Option<Vec<f32>>, d_output: usize) -> Self {
        let d_input = weight.len() / d_output;
        let largest = with_gemm(|gemm| if gemm.may_saturate() { MAX_WEIGHT_16_BITS } else { MAX_WEIGHT });
        let mut rounded = vec![0i8; weight.len()];
        let scales = rounded
            .par_chunks_mut(d_input.max(1))
            .zip(weight.par_chunks(d_input.max(1)))
            .map(|(rounded, row)| round_row(row, rounded, largest))
            .collect();
        let sums = rounded.chunks(d_input).map(|row| row.iter().map(|w| i32::from(*w)).sum()).collect();
        let rows = NdTensorView::from_data([d_output, d_input], rounded.as_slice());
        let packed = with_gemm(|gemm| gemm.prepack_b(rows.transposed()));
        Self { packed, scales, sums, bias, d_input }
    }

    /// x: `[n_rows, d_input]`; out: `[n_rows, d_output]`, all of it written. A row with a value that is not finite gives NaN.
    pub(super) fn forward(&self, x: &[f32], out: &mut [f32], then: &Then) {
        let d_output = self.scales.len();
        let n_rows = x.len() / self.d_input;
        let rows = rows_per_task(n_rows, rayon::current_num_threads());
        if n_rows <= rows {
            self.rows(x, out, then);
        } else {
            let blocks = out.par_chunks_mut(rows * d_output).zip(x.par_chunks(rows * self.d_input));
            blocks.for_each(|(out, x)| self.rows(x, out, then));
        }
    }

    /// A block of rows: rounded, multiplied, and brought back.
    fn rows(&self, x: &[f32], out: &mut [f32], then: &Then) {
        let (d_input, d_output) = (self.d_input, self.scales.len());
        let n_rows = x.len() / d_input;
        let mut rounded = Vec::with_capacity(x.len());
        let mut ranges = Vec::with_capacity(n_rows);
        for row in x.chunks_exact(d_input) {
            let (scale, zero_point) = range_of(row);
            rounded.extend_init(|uninit| {
                Quantize::new(row, &mut uninit[..d_input], finite_inverse(scale), zero_point).dispatch()
            });
            ranges.push((scale, i32::from(zero_point)));
        }
        let mut sums: Vec<i32> = Vec::with_capacity(n_rows * d_output);
        sums.extend_init(|uninit: &mut [MaybeUninit<i32>]| {
            let a = NdTensorView::from_data([n_rows, d_input], rounded.as_slice());
            let uninit = &mut uninit[..n_rows * d_output];
            with_gemm(|gemm| {
                let b = GemmInputB::Packed(&self.packed);
                gemm.gemm_uninit(uninit, GemmInputA::Unpacked(a), b, GemmUninitOptions::default())
            })
            .expect("the shapes are those of this weight")
        });
        let add = matches!(then, Then::Add);
        for ((out, sums), range) in out.chunks_exact_mut(d_output).zip(sums.chunks_exact(d_output)).zip(ranges) {
            Dequantise { sums, range, weight: self, add, out }.dispatch();
        }
        if let Then::Activate(activation) = then {
            activation.apply_to(out);
        }
    }
}

/// So many that every thread has as much to do, in whole tiles.
fn rows_per_task(n_rows: usize, n_threads: usize) -> usize {
    let rounds = n_rows.div_ceil(ROWS_PER_TASK * n_threads).max(1);
    n_rows.div_ceil(rounds * n_threads).next_multiple_of(TILE_ROWS)
}

/// One output channel's weights on the steps `-largest..=largest`; what a step is worth.
fn round_row(row: &[f32], rounded: &mut [i8], largest: f32) -> f32 {
    let peak = row.iter().fold(0.0f32, |m, v| m.max(v.abs()));
    if peak == 0.0 {
        return 0.0;
    }
    let inverse = largest / peak;
    for (rounded, v) in rounded.iter_mut().zip(row) {
        *rounded = (v * inverse).round_ties_even() as i8;
    }
    peak / largest
}

/// The scale and zero point with which a row fills `0..=255`, zero being one of the steps. The scale of a row with a value that
/// is not finite is NaN.
fn range_of(row: &[f32]) -> (f32, u8) {
    // The minimum and the maximum may pass over a NaN, the sum does not.
    if !Sum::new(row).dispatch().is_finite() {
        return (f32::NAN, 0);
    }
    let (min, max) = MinMax::new(row).dispatch();
    let (min, max) = (min.min(0.0), max.max(0.0));
    let scale = (max - min) / 255.0;
    if scale == 0.0 { (0.0, 0) } else { (scale, (-min / scale).round_ties_even() as u8) }
}

fn finite_inverse(scale: f32) -> f32 {
    let inverse = scale.recip();
    if inverse.is_finite() { inverse } else { 0.0 }
}

/// `(sums - zero_point * weight.sums) * scale * weight.scales + bias`, for one row.
struct Dequantise<'a> {
    sums: &'a [i32],
    /// Scale and zero point of the row.
    range: (f32, i32),
    weight: &'a Int8Weight,
    /// To what stands in `out`.
    add: bool,
    out: &'a mut [f32],
}

impl SimdOp for Dequantise<'_> {
    type Output = ();

    #[inline(always)]
    fn eval<I: Isa>(self, isa: I) {
        let Self { sums, range: (scale, zero_point), weight, add, out } = self;
        let bias = weight.bias.as_deref();
        let (floats, ints) = (isa.f32(), isa.i32());
        let width = floats.len();
        let (row_scale, row_zero) = (floats.splat(scale), ints.splat(zero_point));
        let whole = out.len() - out.len() % width;
        for at in (0..whole).step_by(width) {
            let end = at + width;
            let offset = ints.mul(row_zero, ints.load(&weight.sums[at..end]));
            let sum = ints.to_float(ints.sub(ints.load(&sums[at..end]), offset));
            let mut y = floats.mul(sum, floats.mul(row_scale, floats.load(&weight.scales[at..end])));
            if let Some(bias) = bias {
                y = floats.add(y, floats.load(&bias[at..end]));
            }
            if add {
                y = floats.add(y, floats.load(&out[at..end]));
            }
            floats.store(y, &mut out[at..end]);
        }
        for at in whole..out.len() {
            let sum = (sums[at] - zero_point * weight.sums[at]) as f32;
            let y = sum * (scale * weight.scales[at]) + bias.map_or(0.0, |b| b[at]);
            out[at] = if add { out[at] + y } else { y };
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn numbers(n: usize, seed: u64) -> Vec<f32> {
        let mut rng = fastrand::Rng::with_seed(seed);
        (0..n).map(|_| (0..6).map(|_| rng.f32() - 0.5).sum()).collect()
    }

    /// The product in f64, and how far 8 bits may be from it: half a step of each factor, times what it is multiplied with.
    fn exact(x: &[f32], weight: &[f32], bias: &[f32], d_input: usize) -> Vec<(f64, f64)> {
        let largest = with_gemm(|gemm| if gemm.may_saturate() { MAX_WEIGHT_16_BITS } else { MAX_WEIGHT });
        let products = |(row, scale): (&[f32], f32)| {
            let of_channel = |(weight, bias): (&[f32], &f32)| {
                let step = weight.iter().fold(0.0f32, |m, v| m.max(v.abs())) / largest;
                let (mut sum, mut bound) = (f64::from(*bias), 0.0);
                for (x, w) in row.iter().zip(weight) {
                    sum += f64::from(*x) * f64::from(*w);
                    // The zero point is rounded as well: up to a whole step of an activation at the ends.
                    bound += f64::from(scale * w.abs() + 0.5 * step * (x.abs() + scale));
                }
                (sum, bound * 1.01 + 1e-5)
            };
            weight.chunks_exact(d_input).zip(bias).map(of_channel).collect::<Vec<_>>()
        };
        x.chunks_exact(d_input).map(|row| (row, range_of(row).0)).flat_map(products).collect()
    }

    fn check(n_rows: usize, d_input: usize, d_output: usize, seed: u64) {
        let weight = numbers(d_output * d_input, seed);
        let bias = numbers(d_output, seed + 1);
        let x = numbers(n_rows * d_input, seed + 2);
        let expected = exact(&x, &weight, &bias, d_input);
        let int8 = Int8Weight::new(&weight, Some(bias), d_output);
        let mut out = vec![f32::NAN; n_rows * d_output];
        int8.forward(&x, &mut out, &Then::Activate(Activation::None));
        for (i, (got, (sum, bound))) in out.iter().zip(&expected).enumerate() {
            assert!((f64::from(*got) - sum).abs() <= *bound, "{n_rows}x{d_input}x{d_output} at {i}: {got}, not {sum}");
        }
        // Residual and activations work on the very same numbers.
        let residual = numbers(n_rows * d_output, seed + 3);
        let mut added = residual.clone();
        int8.forward(&x, &mut added, &Then::Add);
        for ((added, residual), out) in added.iter().zip(&residual).zip(&out) {
            assert!((added - (residual + out)).abs() <= 1e-5 * (1.0 + added.abs()));
        }
        for activation in [Activation::Gelu, Activation::Relu] {
            let mut activated = vec![f32::NAN; out.len()];
            int8.forward(&x, &mut activated, &Then::Activate(activation));
            let mut expected = out.clone();
            activation.apply_to(&mut expected);
            assert_eq!(activated, expected);
        }
    }

    /// One row, odd sizes, more rows than a task takes, a depth beyond one block, one column.
    #[test]
    fn the_product_is_within_the_rounding_of_its_factors() {
        let shapes = [(1, 1, 1), (1, 7, 33), (6, 64, 5), (65, 31, 130), (300, 48, 17), (3, 2500, 40), (130, 512, 64)];
        for (n_rows, d_input, d_output) in shapes {
            check(n_rows, d_input, d_output, 7);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(40))]
        #[test]
        fn the_product_of_any_shape(n_rows in 1usize..90, d_input in 1usize..120, d_output in 1usize..90, seed: u32) {
            check(n_rows, d_input, d_output, u64::from(seed));
        }
    }

    /// A row's numbers do not depend on what else is computed with it, so a batch answers as each clip alone.
    #[test]
    fn rows_do_not_see_each_other() {
        let (d_input, d_output) = (96, 40);
        let int8 = Int8Weight::new(&numbers(d_output * d_input, 1), None, d_output);
        let x = numbers(200 * d_input, 2);
        let mut together = vec![0.0; 200 * d_output];
        int8.forward(&x, &mut together, &Then::Activate(Activation::Gelu));
        for (row, expected) in x.chunks_exact(d_input).zip(together.chunks_exact(d_output)) {
            let mut alone = vec![0.0; d_output];
            int8.forward(row, &mut alone, &Then::Activate(Activation::Gelu));
            assert_eq!(alone, expected);
        }
    }

    #[test]
    fn rows_with_a_number_that_is_none_give_none_and_leave_the_others_alone() {
        let (d_input, d_output) = (50, 9);
        let int8 = Int8Weight::new(&numbers(d_output * d_input, 1), None, d_output);
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            for at in [0, 17, 49] {
                let mut x = numbers(3 * d_input, 2);
                x[d_input + at] = bad;
                let mut out = vec![0.0; 3 * d_output];
                int8.forward(&x, &mut out, &Then::Activate(Activation::None));
                let finite: Vec<bool> = out.chunks(d_output).map(|row| row.iter().all(|v| v.is_finite())).collect();
                assert_eq!(finite, [true, false, true], "{bad} at {at}");
                assert!(out[d_output..2 * d_output].iter().all(|v| v.is_nan()), "{bad} at {at}");
            }
        }
    }

    #[test]
    fn nothing_is_lost_of_zeros_and_of_numbers_that_are_steps() {
        // A channel of zeros, a row of zeros, and whole numbers whose steps are 1.
        let weight: Vec<f32> = [vec![0.0; 4], vec![63.0, -1.0, 2.0, 5.0]].concat();
        let int8 = Int8Weight::new(&weight, Some(vec![1.5, -2.0]), 2);
        let mut out = vec![0.0; 4];
        int8.forward(&[0.0, 0.0, 0.0, 0.0, 255.0, 3.0, 0.0, 7.0], &mut out, &Then::Activate(Activation::None));
        let exact = 255.0 * 63.0 - 3.0 + 35.0 - 2.0;
        assert_eq!(&out[..3], &[1.5, -2.0, 1.5]);
        // With 127 steps the weights 1, 2 and 5 fall between two of them.
        assert!((out[3] - exact).abs() <= 255.0 * 0.5, "{} is not {exact}", out[3]);
    }

    #[test]
    fn every_thread_has_as_much_to_do() {
        for (n_rows, n_threads, expected) in [(1, 2, 8), (165, 2, 48), (1500, 2, 64), (1500, 16, 48), (10, 16, 8)] {
            assert_eq!(rows_per_task(n_rows, n_threads), expected, "{n_rows} rows on {n_threads} threads");
        }
    }
}
