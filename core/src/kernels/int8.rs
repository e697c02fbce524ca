//! The product of a linear layer in 8-bit integers, on the CPU: `y = x Wᵗ + b` with weights as `i8`, one scale an output
//! channel, and activations as `u8`, one scale and zero point a row, found as the row comes (dynamic quantisation).
//!
//! The scheme is CTranslate2's and ONNX Runtime's (`DynamicQuantizeLinear`), with rows in the place of whole tensors, since
//! Whisper's loud and quiet positions differ by orders of magnitude. The sums are exact in `i32` (`int8_rten`, which
//! takes VNNI, AVX2 or NEON as the machine has them; in a browser `int8_pairs`); what is lost is lost in rounding the two
//! factors. Bias, activation or residual are applied where a block of sums still lies in cache; so is the zero point, since
//! `rten-gemm` 0.27 takes the first tile's zero points for every tile of rows (`packing/int8.rs`, `pack_a_impl`).
//!
//! Both factors are rotated before they are rounded ([`super::rotation`]), which leaves a third less error. Weights that were in
//! 8 bits already (of a file of int8) are on their steps as they are, and stay so, unless this machine has only 63 of them.
//!
//! Not for weights with few columns (the look-up of a token needs rows), and not for other devices.

use std::borrow::Cow;

use rayon::prelude::*;
use rten_simd::ops::{BitOps, NumOps, ToFloat};
use rten_simd::{Isa, SimdOp};
use rten_vecmath::{MinMax, Sum};

#[cfg(target_arch = "wasm32")]
use super::int8_pairs::Packed;
#[cfg(not(target_arch = "wasm32"))]
use super::int8_rten::Packed;
use super::linear::Activation;
use super::rotation::{can_rotate, rotate};

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
    /// Whether both factors are rotated.
    is_rotated: bool,
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
        let is_rotated = can_rotate(d_input) && !weight.chunks_exact(d_input).all(|row| is_on_steps(row, largest));
        let mut steps = vec![0i8; weight.len()];
        let rows = || {
            weight.par_chunks(d_input.max(1)).map(|row| {
                let mut row = Cow::Borrowed(row);
                if is_rotated {
                    rotate(row.to_mut(), d_input);
                }
                row
            })
        };
        let scales: Vec<f32> = steps
            .par_chunks_mut(d_input.max(1))
            .zip(rows())
            .map(|(steps, row)| round_row(&row, steps, largest))
            .collect();
        let whole = Part::new(&steps, scales);
        let rest = (precision == Precision::Double).then(|| {
            // At most half a step is left, which is `largest` of the finer ones.
            let finer: Vec<f32> = whole.scales.iter().map(|scale| scale / (2.0 * largest)).collect();
            steps.par_chunks_mut(d_input.max(1)).zip(rows()).zip(&whole.scales).zip(&finer).for_each(
                |(((steps, row), scale), finer)| {
                    let inverse = finite_inverse(*finer);
                    for (step, value) in steps.iter_mut().zip(row.iter()) {
                        let left = (value - scale * f32::from(*step)) * inverse;
                        *step = left.round_ties_even().clamp(-largest, largest) as i8;
                    }
                },
            );
            Part::new(&steps, finer)
        });
        Self { whole, rest, bias, d_input, is_rotated }
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
            self.rows(x.into(), out, then, precision);
        } else {
            let blocks = out.par_chunks_mut(rows * d_output).zip(x.par_chunks(rows * self.d_input));
            blocks.for_each(|(out, x)| self.rows(x.into(), out, then, precision));
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
            self.rows(x.into(), &mut hidden, &Then::Activate(activation), precision);
            then.rows(hidden.into(), out, &Then::Add, precision);
        };
        if x.len() <= rows * self.d_input {
            block((out, x));
        } else {
            out.par_chunks_mut(rows * d_output).zip(x.par_chunks(rows * self.d_input)).for_each(block);
        }
    }

    /// A block of rows: rotated, rounded, multiplied, and brought back.
    fn rows(&self, mut x: Cow<'_, [f32]>, out: &mut [f32], then: &Then, precision: Precision) {
        if self.is_rotated {
            rotate(x.to_mut(), self.d_input);
        }
        let whole = Rounded::new(&x, self.d_input);
        self.whole.multiply(&whole, self.bias.as_deref(), matches!(then, Then::Add), out);
        if let (Precision::Double, Some(rest)) = (precision, &self.rest) {
            rest.multiply(&whole, None, true, out);
            self.whole.multiply(&Rounded::rest(&x, &whole, self.d_input), None, true, out);
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

/// Whether rounding would change nothing of an output channel's weights but their last digits.
fn is_on_steps(row: &[f32], largest: f32) -> bool {
    let inverse = finite_inverse(row.iter().fold(0.0f32, |m, v| m.max(v.abs())) / largest);
    row.iter().all(|v| {
        let steps = v * inverse;
        (steps - steps.round_ties_even()).abs() < 1e-3
    })
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
mod tests;
