//! The product of a linear layer in 8-bit integers, on the CPU: `y = x Wᵗ + b` with weights as `i8`, one scale an output
//! channel, and activations as `u8`, one scale and zero point a row, found as the row comes (dynamic quantisation).
//!
//! The scheme is CTranslate2's and ONNX Runtime's (`DynamicQuantizeLinear`), with rows in the place of whole tensors, since
//! Whisper's loud and quiet positions differ by orders of magnitude. The sums are exact in `i32` (`int8_rten`, which
//! takes VNNI, AVX2 or NEON as the machine has them; in a browser `int8_pairs`); what is lost is lost in rounding the two
//! factors. Bias, activation or residual are applied where a block of sums still lies in cache; so is the zero point, since
//! `rten-gemm` 0.27 takes the first tile's zero points for every tile of rows (`packing/int8.rs`, `pack_a_impl`).
//!
//! Not for weights with few columns (the look-up of a token needs rows), and not for other devices.

use rayon::prelude::*;
use rten_simd::ops::{BitOps, NumOps, ToFloat};
use rten_simd::{Isa, SimdOp};
use rten_vecmath::{MinMax, Sum};

#[cfg(target_arch = "wasm32")]
use super::int8_pairs::Packed;
#[cfg(not(target_arch = "wasm32"))]
use super::int8_rten::Packed;
use super::linear::Activation;

/// Rows that one task takes at most: 64 rows of 2048 sums are 512 KiB, half an L2 cache.
const ROWS_PER_TASK: usize = 64;
/// Rows of a micro-kernel's tile.
const TILE_ROWS: usize = 8;
/// Largest number of a weight, and where pairs of products are summed in 16 bits (x86 before VNNI): 255 * 63 * 2 < 2^15.
const MAX_WEIGHT: f32 = 127.0;
const MAX_WEIGHT_16_BITS: f32 = 63.0;

/// Whether a sum of products may overflow on this machine, were weights not smaller.
pub(super) fn may_saturate() -> bool {
    Packed::may_saturate()
}

/// The largest number of a weight on this machine.
fn largest_weight() -> f32 {
    if may_saturate() { MAX_WEIGHT_16_BITS } else { MAX_WEIGHT }
}

/// How exactly a product is computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Precision {
    /// Both factors in 8 bits: one product.
    Single,
    /// Both factors in two parts of 8 bits, the second what rounding to the first left: three products (the one of both second
    /// parts is too small to matter).
    Double,
}

/// A weight `[d_output, d_input]` in one or two parts, and its bias.
pub(super) struct Int8Weight {
    whole: Part,
    /// What `whole` lacks, for [`Precision::Double`].
    rest: Option<Part>,
    bias: Option<Vec<f32>>,
    d_input: usize,
}

/// Whole numbers, packed, and what they are worth.
struct Part {
    packed: Packed,
    /// What one step of an output channel's weights is worth.
    scales: Vec<f32>,
    /// The sum of an output channel's weights, in steps: what a zero point of one adds to every product.
    sums: Vec<i32>,
}

/// What becomes of a product.
pub(super) enum Then {
    /// It is written, through an activation.
    Activate(Activation),
    /// It is added to what stands there.
    Add,
}

impl Int8Weight {
    /// Rounds and packs `weight`, `[d_output, d_input]` row-major; with what the rounding left, if products are wanted in
    /// [`Precision::Double`].
    pub(super) fn new(weight: &[f32], bias: Option<Vec<f32>>, d_output: usize, precision: Precision) -> Self {
        let d_input = weight.len() / d_output;
        let largest = largest_weight();
        let mut steps = vec![0i8; weight.len()];
        let rows = || weight.par_chunks(d_input.max(1));
        let scales: Vec<f32> = steps
            .par_chunks_mut(d_input.max(1))
            .zip(rows())
            .map(|(steps, row)| round_row(row, steps, largest))
            .collect();
        let whole = Part::new(&steps, scales);
        let rest = (precision == Precision::Double).then(|| {
            // At most half a step is left, which is `largest` of the finer ones.
            let finer: Vec<f32> = whole.scales.iter().map(|scale| scale / (2.0 * largest)).collect();
            steps.par_chunks_mut(d_input.max(1)).zip(rows()).zip(&whole.scales).zip(&finer).for_each(
                |(((steps, row), scale), finer)| {
                    let inverse = finite_inverse(*finer);
                    for (step, value) in steps.iter_mut().zip(row) {
                        let left = (value - scale * f32::from(*step)) * inverse;
                        *step = left.round_ties_even().clamp(-largest, largest) as i8;
                    }
                },
            );
            Part::new(&steps, finer)
        });
        Self { whole, rest, bias, d_input }
    }

    /// Whether it can be multiplied in [`Precision::Double`].
    pub(super) fn has_rest(&self) -> bool {
        self.rest.is_some()
    }

    /// x: `[n_rows, d_input]`; out: `[n_rows, d_output]`, all of it written. A row with a value that is not finite gives NaN.
    /// Without a second part [`Precision::Double`] is as `Single`.
    pub(super) fn forward(&self, x: &[f32], out: &mut [f32], then: &Then, precision: Precision) {
        let d_output = self.whole.scales.len();
        let n_rows = x.len() / self.d_input;
        let rows = rows_per_task(n_rows, rayon::current_num_threads());
        if n_rows <= rows {
            self.rows(x, out, then, precision);
        } else {
            let blocks = out.par_chunks_mut(rows * d_output).zip(x.par_chunks(rows * self.d_input));
            blocks.for_each(|(out, x)| self.rows(x, out, then, precision));
        }
    }

    /// Adds `then(activation(self(x)))` to `out`; in blocks of rows, each of which is small enough to stay in cache.
    pub(super) fn forward_through(
        &self,
        activation: Activation,
        then: &Self,
        x: &[f32],
        out: &mut [f32],
        precision: Precision,
    ) {
        let (d_hidden, d_output) = (self.whole.scales.len(), then.whole.scales.len());
        let rows = rows_per_task(x.len() / self.d_input, rayon::current_num_threads());
        let block = |(out, x): (&mut [f32], &[f32])| {
            let mut hidden = vec![0.0; x.len() / self.d_input * d_hidden];
            self.rows(x, &mut hidden, &Then::Activate(activation), precision);
            then.rows(&hidden, out, &Then::Add, precision);
        };
        if x.len() <= rows * self.d_input {
            block((out, x));
        } else {
            out.par_chunks_mut(rows * d_output).zip(x.par_chunks(rows * self.d_input)).for_each(block);
        }
    }

    /// A block of rows: rounded, multiplied, and brought back.
    fn rows(&self, x: &[f32], out: &mut [f32], then: &Then, precision: Precision) {
        let whole = Rounded::new(x, self.d_input);
        self.whole.multiply(&whole, self.bias.as_deref(), matches!(then, Then::Add), out);
        if let (Precision::Double, Some(rest)) = (precision, &self.rest) {
            rest.multiply(&whole, None, true, out);
            self.whole.multiply(&Rounded::rest(x, &whole, self.d_input), None, true, out);
        }
        if let Then::Activate(activation) = then {
            activation.apply_to(out);
        }
    }
}

impl Part {
    /// steps: `[d_output, d_input]` row-major
    fn new(steps: &[i8], scales: Vec<f32>) -> Self {
        let d_output = scales.len();
        let d_input = steps.len() / d_output;
        let sums = steps.chunks(d_input).map(|row| row.iter().map(|w| i32::from(*w)).sum()).collect();
        Self { packed: Packed::new(steps, d_output), scales, sums }
    }

    /// The product, written, or added to what stands in `out`.
    fn multiply(&self, x: &Rounded, bias: Option<&[f32]>, add: bool, out: &mut [f32]) {
        let d_output = self.scales.len();
        let sums = self.packed.multiply(&x.steps);
        for ((out, sums), &range) in out.chunks_exact_mut(d_output).zip(sums.chunks_exact(d_output)).zip(&x.ranges) {
            Dequantise { sums, range, weight: self, bias, add, out }.dispatch();
        }
    }
}

/// Rows of activations in steps.
struct Rounded {
    steps: Vec<u8>,
    /// What a row's step is worth, and which one is zero.
    ranges: Vec<(f32, i32)>,
}

impl Rounded {
    fn new(x: &[f32], d_input: usize) -> Self {
        let mut steps = vec![0; x.len()];
        let one = |(row, steps): (&[f32], &mut [u8])| {
            let (scale, zero_point) = range_of(row);
            Round { row, inverse: finite_inverse(scale), zero_point: f32::from(zero_point), steps }.dispatch();
            (scale, i32::from(zero_point))
        };
        let ranges = x.chunks_exact(d_input).zip(steps.chunks_exact_mut(d_input)).map(one).collect();
        Self { steps, ranges }
    }

    /// What `whole` lacks of `x`. At the ends of a row's range that may be a whole step, since its zero point is rounded, too.
    fn rest(x: &[f32], whole: &Self, d_input: usize) -> Self {
        let mut steps = vec![0; x.len()];
        let rows = x.chunks_exact(d_input).zip(whole.steps.chunks_exact(d_input)).zip(&whole.ranges);
        let mut ranges = Vec::with_capacity(whole.ranges.len());
        for (((row, coarse), &(scale, zero_point)), steps) in rows.zip(steps.chunks_exact_mut(d_input)) {
            let finer = scale / 127.0;
            let zero_point = zero_point as f32;
            RoundRest { row, coarse, scale, zero_point, inverse: finite_inverse(finer), steps }.dispatch();
            ranges.push((finer, 128));
        }
        Self { steps, ranges }
    }
}

/// `row * inverse + zero_point`, rounded to the nearest of `0..=255`. As `rten_vecmath::Quantize`, whose narrowing of numbers is
/// slow on AVX-512 (1.2 ns a number against 0.1): here they are narrowed by adding 1.5 * 2^23, behind which a float's last bits
/// are its whole number.
struct Round<'a> {
    row: &'a [f32],
    inverse: f32,
    zero_point: f32,
    steps: &'a mut [u8],
}

impl SimdOp for Round<'_> {
    type Output = ();

    // A plain loop: that it stands in `eval` has it compiled for the machine's vectors.
    #[inline(always)]
    fn eval<I: Isa>(self, _: I) {
        for (step, x) in self.steps.iter_mut().zip(self.row) {
            *step = nearest(x * self.inverse + self.zero_point);
        }
    }
}

/// The nearest of `0..=255`.
#[inline(always)]
fn nearest(x: f32) -> u8 {
    const WHOLE: f32 = 12_582_912.0;
    let x = if x > 0.0 { x } else { 0.0 };
    let x = if x < 255.0 { x } else { 255.0 };
    (x + WHOLE).to_bits() as u8
}

/// What the steps `coarse` lack of `row`, in finer ones around 128.
struct RoundRest<'a> {
    row: &'a [f32],
    coarse: &'a [u8],
    scale: f32,
    zero_point: f32,
    /// One by what a finer step is worth.
    inverse: f32,
    steps: &'a mut [u8],
}

impl SimdOp for RoundRest<'_> {
    type Output = ();

    #[inline(always)]
    fn eval<I: Isa>(self, _: I) {
        for ((step, x), coarse) in self.steps.iter_mut().zip(self.row).zip(self.coarse) {
            let left = x - self.scale * (f32::from(*coarse) - self.zero_point);
            *step = nearest(left * self.inverse + 128.0);
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
    weight: &'a Part,
    bias: Option<&'a [f32]>,
    /// To what stands in `out`.
    add: bool,
    out: &'a mut [f32],
}

impl SimdOp for Dequantise<'_> {
    type Output = ();

    #[inline(always)]
    fn eval<I: Isa>(self, isa: I) {
        let Self { sums, range: (scale, zero_point), weight, bias, add, out } = self;
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

    use rten_vecmath::{ExtendInit, Quantize};

    use super::*;
    use crate::weights::ctranslate2::Ctranslate2;
    use crate::weights::{StoredData, WeightSource};

    fn numbers(n: usize, seed: u64) -> Vec<f32> {
        let mut rng = fastrand::Rng::with_seed(seed);
        (0..n).map(|_| (0..6).map(|_| rng.f32() - 0.5).sum()).collect()
    }

    /// The product in f64, and how far 8 bits may be from it: half a step of each factor, times what it is multiplied with.
    fn exact(x: &[f32], weight: &[f32], bias: &[f32], d_input: usize) -> Vec<(f64, f64)> {
        let largest = largest_weight();
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
        let int8 = Int8Weight::new(&weight, Some(bias), d_output, Precision::Double);
        let mut out = vec![f32::NAN; n_rows * d_output];
        int8.forward(&x, &mut out, &Then::Activate(Activation::None), Precision::Single);
        for (i, (got, (sum, bound))) in out.iter().zip(&expected).enumerate() {
            assert!((f64::from(*got) - sum).abs() <= *bound, "{n_rows}x{d_input}x{d_output} at {i}: {got}, not {sum}");
        }
        // Residual and activations work on the very same numbers.
        let residual = numbers(n_rows * d_output, seed + 3);
        let mut added = residual.clone();
        int8.forward(&x, &mut added, &Then::Add, Precision::Single);
        for ((added, residual), out) in added.iter().zip(&residual).zip(&out) {
            assert!((added - (residual + out)).abs() <= 1e-5 * (1.0 + added.abs()));
        }
        for activation in [Activation::Gelu, Activation::Relu] {
            let mut activated = vec![f32::NAN; out.len()];
            int8.forward(&x, &mut activated, &Then::Activate(activation), Precision::Single);
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
        let int8 = Int8Weight::new(&numbers(d_output * d_input, 1), None, d_output, Precision::Double);
        let x = numbers(200 * d_input, 2);
        let mut together = vec![0.0; 200 * d_output];
        int8.forward(&x, &mut together, &Then::Activate(Activation::Gelu), Precision::Single);
        for (row, expected) in x.chunks_exact(d_input).zip(together.chunks_exact(d_output)) {
            let mut alone = vec![0.0; d_output];
            int8.forward(row, &mut alone, &Then::Activate(Activation::Gelu), Precision::Single);
            assert_eq!(alone, expected);
        }
    }

    #[test]
    fn rows_with_a_number_that_is_none_give_none_and_leave_the_others_alone() {
        let (d_input, d_output) = (50, 9);
        let int8 = Int8Weight::new(&numbers(d_output * d_input, 1), None, d_output, Precision::Double);
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            for at in [0, 17, 49] {
                let mut x = numbers(3 * d_input, 2);
                x[d_input + at] = bad;
                let mut out = vec![0.0; 3 * d_output];
                int8.forward(&x, &mut out, &Then::Activate(Activation::None), Precision::Single);
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
        let int8 = Int8Weight::new(&weight, Some(vec![1.5, -2.0]), 2, Precision::Single);
        let mut out = vec![0.0; 4];
        int8.forward(
            &[0.0, 0.0, 0.0, 0.0, 255.0, 3.0, 0.0, 7.0],
            &mut out,
            &Then::Activate(Activation::None),
            Precision::Single,
        );
        let exact = 255.0 * 63.0 - 3.0 + 35.0 - 2.0;
        assert_eq!(&out[..3], &[1.5, -2.0, 1.5]);
        // With 127 steps the weights 1, 2 and 5 fall between two of them.
        assert!((out[3] - exact).abs() <= 255.0 * 0.5, "{} is not {exact}", out[3]);
    }

    /// Numbers that are whole steps of a row whose largest is 127 of them, as CTranslate2 and web bundles store int8.
    fn in_steps(n_rows: usize, d_input: usize, seed: u64) -> (Vec<i8>, Vec<f32>) {
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut bytes: Vec<i8> = (0..n_rows * d_input).map(|_| rng.i8(-127..=127)).collect();
        for (row, bytes) in bytes.chunks_exact_mut(d_input).enumerate() {
            match row % 5 {
                0 => bytes.fill(0), // of a row of zeros any scale is right
                _ => bytes[rng.usize(..d_input)] = if rng.bool() { 127 } else { -127 },
            }
        }
        // `value = byte / scale`, and scales of all sizes that weights have.
        let scales: Vec<f32> = (0..n_rows).map(|_| 127.0 / (0.001 + 10.0 * rng.f32().powi(4))).collect();
        (bytes, scales)
    }

    /// Nothing is lost between an int8 file and this kernel, though weights are f32 on the way.
    #[test]
    fn stored_bytes_are_rounded_to_themselves() {
        for seed in 0..50 {
            let d_input = 33 + seed as usize;
            let (bytes, scales) = in_steps(200, d_input, seed);
            for (row, scale) in bytes.chunks_exact(d_input).zip(scales) {
                let values: Vec<f32> = row.iter().map(|byte| f32::from(*byte) / scale).collect();
                let mut again = vec![0; d_input];
                let step = round_row(&values, &mut again, MAX_WEIGHT);
                assert_eq!(again, row, "scale {scale}");
                let is_zero = row.iter().all(|byte| *byte == 0);
                assert!(is_zero || (step * scale - 1.0).abs() < 1e-6, "a step of {step}, scale {scale}");
                // Before VNNI there are half the steps: then a weight is at most half of one of them off.
                round_row(&values, &mut again, MAX_WEIGHT_16_BITS);
                let off = |(now, stored): (&i8, &i8)| (f32::from(*now) / 63.0 - f32::from(*stored) / 127.0).abs();
                assert!(again.iter().zip(row).map(off).fold(0.0, f32::max) <= 0.5 / 63.0 + 1e-6);
            }
        }
    }

    /// Every row that `source` has in int8, unpacked to f32 as all weights are, is rounded to the bytes that it was. Rows are
    /// rounded each by itself, so this is also so where several tensors become one (queries, keys and values).
    fn keeps_its_bytes(source: &dyn WeightSource) {
        let mut n_rows = 0;
        for name in source.names() {
            let tensor = source.get(&name).unwrap();
            let StoredData::Int8 { bytes, .. } = &tensor.data else { continue };
            let d_input = bytes.len() / tensor.shape[0];
            for (values, stored) in tensor.to_f32().chunks_exact(d_input).zip(bytes.chunks_exact(d_input)) {
                let stored: Vec<i8> = stored.iter().map(|byte| byte.cast_signed()).collect();
                let mut again = vec![0; d_input];
                round_row(values, &mut again, MAX_WEIGHT);
                assert_eq!(again, stored, "{name}");
                n_rows += 1;
            }
        }
        assert!(n_rows > 300, "{} has {n_rows} rows in int8", source.file());
    }

    fn golden(path: &str) -> std::path::PathBuf {
        std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden").join(path)
    }

    #[test]
    fn weights_of_ctranslate2_keep_their_bytes() {
        for file in ["tiny-2/ct2-int8/model.bin", "tiny-2/ct2-int8_float16/model.bin"] {
            keeps_its_bytes(&Ctranslate2::from_bytes(std::fs::read(golden(file)).unwrap(), file).unwrap());
        }
    }

    #[cfg(feature = "web-bundle")]
    #[test]
    fn weights_of_web_bundles_keep_their_bytes() {
        use crate::weights::folder::{Base, ModelFolder, OpenOptions};
        use crate::weights::web_bundle::{Delivery, PackOptions, WebBundle, pack};

        let base = || Base { name: "tiny".to_owned(), folder: golden("tiny-multilingual") };
        let folder =
            ModelFolder::open_with(&golden("heads/head-only"), &OpenOptions::default(), &mut |_| Ok(base())).unwrap();
        let options =
            PackOptions { dtype: Delivery::Int8, trim_vocabulary: true, texts: Vec::new(), licences: Vec::new() };
        let packed = pack(&folder, &options).unwrap();
        let mut bundle = WebBundle::new(&serde_json::to_vec(&packed.manifest).unwrap()).unwrap();
        for (file, bytes) in &packed.parts {
            bundle.add_part(file, bytes).unwrap();
        }
        keeps_its_bytes(&*bundle.folder(true).unwrap().into_whisper().unwrap().weights);
    }

    /// In two parts of 8 bits each factor is off by a 127th of what one part is; zeros, one row and odd sizes as well.
    #[test]
    fn what_rounding_left_is_multiplied_too() {
        for (n_rows, d_input, d_output) in
            [(1, 1, 1), (1, 7, 33), (6, 64, 5), (65, 31, 130), (3, 2500, 40), (130, 512, 64)]
        {
            let weight = numbers(d_output * d_input, 3);
            let bias = numbers(d_output, 4);
            let mut x = numbers(n_rows * d_input, 5);
            x[..d_input.min(3)].fill(0.0);
            let exact = exact(&x, &weight, &bias, d_input);
            let int8 = Int8Weight::new(&weight, Some(bias), d_output, Precision::Double);
            assert!(int8.has_rest());
            let mut out = vec![f32::NAN; n_rows * d_output];
            int8.forward(&x, &mut out, &Then::Activate(Activation::None), Precision::Double);
            for (got, (sum, bound)) in out.iter().zip(&exact) {
                // Both are rounded to a finer grid of which a step is a 127th (63rd before VNNI) of a coarse one, or half that.
                let bound = bound / 40.0 + 1e-5 * (1.0 + sum.abs());
                assert!((f64::from(*got) - sum).abs() <= bound, "{n_rows}x{d_input}x{d_output}: {got}, not {sum}");
            }
            let mut added = vec![1.0; out.len()];
            int8.forward(&x, &mut added, &Then::Add, Precision::Double);
            assert!(added.iter().zip(&out).all(|(added, out)| (added - 1.0 - out).abs() <= 1e-4 * (1.0 + out.abs())));
        }
    }

    #[test]
    fn rows_keep_to_themselves_in_two_parts_and_none_is_lost() {
        let (d_input, d_output) = (96, 40);
        let int8 = Int8Weight::new(&numbers(d_output * d_input, 1), None, d_output, Precision::Double);
        let mut x = numbers(200 * d_input, 2);
        x[100 * d_input] = f32::NAN;
        let mut together = vec![0.0; 200 * d_output];
        int8.forward(&x, &mut together, &Then::Activate(Activation::Gelu), Precision::Double);
        for (i, (row, got)) in x.chunks_exact(d_input).zip(together.chunks_exact(d_output)).enumerate() {
            let mut alone = vec![0.0; d_output];
            int8.forward(row, &mut alone, &Then::Activate(Activation::Gelu), Precision::Double);
            assert_eq!(got.iter().all(|v| v.is_nan()), i == 100);
            assert!(i == 100 || alone == got);
        }
    }

    /// Two layers at once are the two one after the other, to the last bit.
    #[test]
    fn through_two_layers_is_one_and_then_the_other() {
        let (d_input, d_hidden) = (24, 70);
        for precision in [Precision::Single, Precision::Double] {
            let first =
                Int8Weight::new(&numbers(d_hidden * d_input, 1), Some(numbers(d_hidden, 2)), d_hidden, precision);
            let second =
                Int8Weight::new(&numbers(d_input * d_hidden, 3), Some(numbers(d_input, 4)), d_input, precision);
            for n_rows in [1, 9, 300] {
                let x = numbers(n_rows * d_input, 5);
                let residual = numbers(n_rows * d_input, 6);
                let mut hidden = vec![0.0; n_rows * d_hidden];
                first.forward(&x, &mut hidden, &Then::Activate(Activation::Gelu), precision);
                let mut expected = residual.clone();
                second.forward(&hidden, &mut expected, &Then::Add, precision);
                let mut got = residual;
                first.forward_through(Activation::Gelu, &second, &x, &mut got, precision);
                assert_eq!(got, expected, "{n_rows} rows");
            }
        }
    }

    #[test]
    fn rounding_is_rten_vecmaths() {
        for (n, seed) in [(0, 1), (1, 2), (15, 3), (16, 4), (333, 5)] {
            // Beyond both ends, too.
            let row: Vec<f32> = numbers(n, seed).iter().map(|v| v * 3.0).collect();
            let (inverse, zero_point) = (97.3, 101u8);
            let mut got = vec![0; n];
            Round { row: &row, inverse, zero_point: f32::from(zero_point), steps: &mut got }.dispatch();
            let mut expected = Vec::with_capacity(n);
            expected.extend_init(|uninit| Quantize::new(&row, &mut uninit[..n], inverse, zero_point).dispatch());
            // They differ only where a number lies half-way, which is rounded to even before or after the zero point.
            for ((got, expected), x) in got.iter().zip(&expected).zip(&row) {
                let half_way = ((x * inverse).fract().abs() - 0.5).abs() < 1e-4;
                assert!(got == expected || half_way && got.abs_diff(*expected) == 1, "{x}: {got}, not {expected}");
            }
        }
    }

    #[test]
    fn every_thread_has_as_much_to_do() {
        for (n_rows, n_threads, expected) in [(1, 2, 8), (165, 2, 48), (1500, 2, 64), (1500, 16, 48), (10, 16, 8)] {
            assert_eq!(rows_per_task(n_rows, n_threads), expected, "{n_rows} rows on {n_threads} threads");
        }
    }
}
