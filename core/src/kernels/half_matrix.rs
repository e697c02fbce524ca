//! A matrix in half precision for products with few rows, on the CPU: the keys and values of an encoding, which every token
//! reads from end to end and does two operations with each number of.
//!
//! Such a product takes as long as reading takes. In `f16` there is half as much to read and to keep; numbers are widened in
//! registers (F16C, NEON) and sums are `f32`. The order is that of `f32_tiles`: panels of columns, so that no vector has to be
//! summed across and no kernel has a rest. A row's numbers do not depend on what else is multiplied.
//!
//! Not for numbers that are not finite or beyond ±65504 ([`HalfMatrix::new`] gives none), nor where a vector is widened number by
//! number: x86 without F16C, WebAssembly ([`HalfMatrix::pays`]).

use rten_simd::ops::{BitOps, Extend as _, NumOps};
use rten_simd::{Isa, SimdOp, f16};
use rten_tensor::Matrix;
use rten_tensor::prelude::*;
use rten_vecmath::{ExtendInit, F32ToF16};

/// Columns of a panel: the longest vector of halves there is (AVX-512).
const PANEL: usize = 32;
/// Numbers along the depth that pass through together: 8 KiB of a panel, which stay in the first cache for all rows.
const DEPTH: usize = 128;
/// Rows of a tile: with two vectors of sums each, 12 of the 16 registers of AVX2.
const TILE_ROWS: usize = 6;
/// The largest number in half precision.
const LARGEST: f32 = 65504.0;

/// A matrix `[depth, width]`: for each panel of columns, for each number along the depth, its columns side by side. Columns
/// that are missing in the last panel are 0.
pub(super) struct HalfMatrix {
    panels: Vec<f16>,
    depth: usize,
    width: usize,
}

impl HalfMatrix {
    /// Whether this machine widens a vector at once. Those that do not have vectors of 8 halves; so has NEON, which does.
    pub(super) fn pays() -> bool {
        cfg!(target_arch = "aarch64") || Lanes.dispatch() > 8
    }

    /// Rounds a matrix `[depth, width]` whose rows are contiguous; `None` if a number is not finite or too large.
    pub(super) fn new(matrix: Matrix<'_, f32>) -> Option<Self> {
        let [depth, width] = matrix.shape();
        let rows = rows_of(matrix);
        let mut panels = Vec::with_capacity(depth * width.next_multiple_of(PANEL));
        let mut block = vec![[0.0f32; PANEL]; DEPTH.min(depth)];
        for first in (0..width).step_by(PANEL) {
            let n_columns = PANEL.min(width - first);
            block.iter_mut().for_each(|step| step[n_columns..].fill(0.0));
            for rows in rows.chunks(DEPTH) {
                for (step, row) in block.iter_mut().zip(rows) {
                    step[..n_columns].copy_from_slice(&row[first..first + n_columns]);
                }
                append(block[..rows.len()].as_flattened(), &mut panels)?;
            }
        }
        Some(Self { panels, depth, width })
    }

    /// The same from the transpose, `[width, depth]`, whose rows are contiguous.
    pub(super) fn from_transposed(matrix: Matrix<'_, f32>) -> Option<Self> {
        let [width, depth] = matrix.shape();
        let mut panels = Vec::with_capacity(depth * width.next_multiple_of(PANEL));
        let mut panel = vec![[0.0f32; PANEL]; depth];
        for columns in rows_of(matrix).chunks(PANEL) {
            panel.iter_mut().for_each(|step| step[columns.len()..].fill(0.0));
            for (at, column) in columns.iter().enumerate() {
                for (step, value) in panel.iter_mut().zip(*column) {
                    step[at] = *value;
                }
            }
            append(panel.as_flattened(), &mut panels)?;
        }
        Some(Self { panels, depth, width })
    }

    /// `scale * x B`.
    ///
    /// # Shapes
    /// - x: `[n_rows, depth]`, rows contiguous
    /// - out: `[n_rows, width]` row-major, all of it written
    pub(super) fn multiply(&self, x: Matrix<'_, f32>, scale: f32, out: &mut [f32]) {
        debug_assert_eq!(x.size(1), self.depth, "the caller gives whole rows");
        out.fill(0.0);
        AddProduct { rows: &rows_of(x), matrix: self, scale, out }.dispatch();
    }
}

fn rows_of(matrix: Matrix<'_, f32>) -> Vec<&[f32]> {
    matrix.axis_iter(0).map(|row| row.data().expect("the numbers of a row stand side by side")).collect()
}

/// Rounds numbers to the end of `panels`; `None` if there is one that half precision cannot hold.
fn append(numbers: &[f32], panels: &mut Vec<f16>) -> Option<()> {
    // Not `all`, which looks at one number at a time; and NaN is not below the largest either.
    let fit = numbers.iter().fold(true, |fit, v| fit & (v.abs() <= LARGEST));
    fit.then(|| panels.extend_init(|uninit| F32ToF16::new(numbers, &mut uninit[..numbers.len()]).dispatch()))
}

/// Halves in a vector.
struct Lanes;

impl SimdOp for Lanes {
    type Output = usize;

    #[inline(always)]
    fn eval<I: Isa>(self, isa: I) -> usize {
        isa.f16().len()
    }
}

/// `out += scale * x B`
struct AddProduct<'a> {
    /// `[n_rows][depth]`
    rows: &'a [&'a [f32]],
    matrix: &'a HalfMatrix,
    scale: f32,
    out: &'a mut [f32],
}

/// A part of a panel.
#[derive(Clone, Copy)]
struct Block<'a> {
    steps: &'a [[f16; PANEL]],
    /// Where it begins along the depth.
    start: usize,
    /// Its first column.
    first: usize,
}

impl SimdOp for AddProduct<'_> {
    type Output = ();

    #[inline(always)]
    fn eval<I: Isa>(self, isa: I) {
        let Self { rows, matrix, scale, out } = self;
        let width = matrix.width;
        for (panel, first) in matrix.panels.chunks_exact(matrix.depth * PANEL).zip((0..).step_by(PANEL)) {
            for (steps, start) in panel.as_chunks::<PANEL>().0.chunks(DEPTH).zip((0..).step_by(DEPTH)) {
                let block = Block { steps, start, first };
                for (rows, out) in rows.chunks(TILE_ROWS).zip(out.chunks_mut(TILE_ROWS * width)) {
                    match rows.len() {
                        1 => add_tile::<I, 1>(isa, block, rows, scale, out, width),
                        2 => add_tile::<I, 2>(isa, block, rows, scale, out, width),
                        3 => add_tile::<I, 3>(isa, block, rows, scale, out, width),
                        4 => add_tile::<I, 4>(isa, block, rows, scale, out, width),
                        5 => add_tile::<I, 5>(isa, block, rows, scale, out, width),
                        _ => add_tile::<I, TILE_ROWS>(isa, block, rows, scale, out, width),
                    }
                }
            }
        }
    }
}

/// Adds `ROWS` rows times one block to `out`, whose rows have `width` columns.
#[inline(always)]
fn add_tile<I: Isa, const ROWS: usize>(
    isa: I,
    block: Block<'_>,
    rows: &[&[f32]],
    scale: f32,
    out: &mut [f32],
    width: usize,
) {
    let (halves, floats) = (isa.f16(), isa.f32());
    let lanes = floats.len();
    let rows: [&[f32]; ROWS] = std::array::from_fn(|row| &rows[row][block.start..][..block.steps.len()]);
    let mut sums = [[0.0f32; PANEL]; ROWS];
    for at in (0..PANEL).step_by(2 * lanes) {
        let mut totals = [[floats.zero(); 2]; ROWS];
        for (k, step) in block.steps.iter().enumerate() {
            let half = halves.load(&step[at..]);
            let (low, high) = (halves.extend_low(half), halves.extend_high(half));
            for (totals, row) in totals.iter_mut().zip(&rows) {
                let x = floats.splat(row[k]);
                totals[0] = floats.mul_add(x, low, totals[0]);
                totals[1] = floats.mul_add(x, high, totals[1]);
            }
        }
        for (sums, [low, high]) in sums.iter_mut().zip(totals) {
            floats.store(low, &mut sums[at..]);
            floats.store(high, &mut sums[at + lanes..]);
        }
    }
    for (sums, out) in sums.iter().zip(out.chunks_mut(width)) {
        out[block.first..].iter_mut().zip(sums).for_each(|(out, sum)| *out += scale * sum);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use rten_simd::isa::GenericIsa;
    use rten_tensor::NdTensorView;

    use super::*;

    const SHAPES: [(usize, usize, usize); 11] = [
        (1, 1, 1),
        (1, 64, 1500),
        (5, 64, 1500),
        (1, 1500, 64),
        (5, 1500, 64),
        (2, 6, 31),
        (3, 7, 32),
        (4, 128, 33),
        (6, 129, 64),
        (7, 300, 6),
        (25, 40, 70),
    ];

    fn numbers(n: usize, seed: u64) -> Vec<f32> {
        let mut rng = fastrand::Rng::with_seed(seed);
        (0..n).map(|_| rng.f32() * 4.0 - 2.0).collect()
    }

    fn view(values: &[f32], n_rows: usize, n_cols: usize) -> Matrix<'_, f32> {
        NdTensorView::from_data([n_rows, n_cols], values)
    }

    fn transpose(values: &[f32], n_cols: usize) -> Vec<f32> {
        (0..n_cols).flat_map(|col| values.iter().skip(col).step_by(n_cols).copied()).collect()
    }

    /// With the vectors of this machine, and with those in plain Rust.
    fn products(matrix: &HalfMatrix, x: &[f32], scale: f32) -> [Vec<f32>; 2] {
        let x = view(x, x.len() / matrix.depth, matrix.depth);
        let mut dispatched = vec![f32::NAN; x.size(0) * matrix.width];
        matrix.multiply(x, scale, &mut dispatched);
        let mut generic = vec![0.0; dispatched.len()];
        AddProduct { rows: &rows_of(x), matrix, scale, out: &mut generic }.eval(GenericIsa::new());
        [dispatched, generic]
    }

    /// One row, as many as beams, more than a tile, one column, panels and blocks that are not full, just full, and several.
    #[test]
    fn products_are_those_of_the_rounded_numbers_in_double_precision() {
        for (n_rows, depth, width) in SHAPES {
            let (x, b) = (numbers(n_rows * depth, 1), numbers(depth * width, 2));
            // Rounded by another crate: that the rounding is the usual one is tested with it.
            let rounded: Vec<f64> = b.iter().map(|v| half::f16::from_f32(*v).to_f64()).collect();
            let straight = HalfMatrix::new(view(&b, depth, width)).unwrap();
            let turned = HalfMatrix::from_transposed(view(&transpose(&b, width), width, depth)).unwrap();
            for got in [&straight, &turned].map(|matrix| products(matrix, &x, 0.3)).as_flattened() {
                for (at, got) in got.iter().enumerate() {
                    let pairs =
                        x[at / width * depth..][..depth].iter().zip(rounded.iter().skip(at % width).step_by(width));
                    let (sum, size) = pairs
                        .map(|(x, b)| f64::from(*x) * b)
                        .fold((0.0f64, 0.0f64), |(sum, size), product| (sum + product, size + product.abs()));
                    let off = (f64::from(*got) - 0.3 * sum).abs();
                    assert!(off <= 1e-5 * size + 1e-7, "{n_rows}x{depth}x{width} at {at}: {got}, not {}", 0.3 * sum);
                }
            }
        }
    }

    /// A beam's numbers do not depend on how many beams there are.
    #[test]
    fn rows_do_not_see_each_other() {
        let (depth, width) = (200, 50);
        let matrix = HalfMatrix::new(view(&numbers(depth * width, 1), depth, width)).unwrap();
        let x = numbers(13 * depth, 2);
        let [together, _] = products(&matrix, &x, 1.0);
        for (row, expected) in x.chunks_exact(depth).zip(together.chunks_exact(width)) {
            let [alone, _] = products(&matrix, row, 1.0);
            assert_eq!(alone, expected);
        }
    }

    #[test]
    fn rows_may_lie_in_a_wider_matrix() {
        let (depth, width) = (6, 5);
        let wide = numbers(3 * 20, 1);
        let narrow: Vec<f32> = wide.chunks_exact(20).flat_map(|row| row[7..7 + depth].to_vec()).collect();
        let rows = NdTensorView::from_slice_with_strides([3, depth], &wide[7..7 + 40 + depth], [20, 1]).unwrap();
        let matrix = HalfMatrix::new(view(&numbers(depth * width, 2), depth, width)).unwrap();
        let mut got = vec![f32::NAN; 3 * width];
        matrix.multiply(rows, 1.0, &mut got);
        assert_eq!(got, products(&matrix, &narrow, 1.0)[0]);
        let (wide, narrow) = (HalfMatrix::from_transposed(rows).unwrap(), view(&narrow, 3, depth));
        assert!(wide.panels == HalfMatrix::from_transposed(narrow).unwrap().panels);
    }

    #[test]
    fn numbers_that_half_precision_cannot_hold_are_refused_wherever_they_stand() {
        let (depth, width) = (140, 40);
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 65505.0, -1e6] {
            for at in [0, 39, 130 * width + 3, depth * width - 1] {
                let mut b = numbers(depth * width, 1);
                b[at] = bad;
                assert!(HalfMatrix::new(view(&b, depth, width)).is_none(), "{bad} at {at}");
                assert!(HalfMatrix::from_transposed(view(&b, depth, width)).is_none(), "{bad} at {at}");
            }
        }
        let held = [65504.0, -65504.0, 6e-8, -0.0];
        let matrix = HalfMatrix::new(view(&held, 1, 4)).unwrap();
        let expected = [65504.0, -65504.0, 2f32.powi(-24), 0.0];
        products(&matrix, &[1.0], 1.0).iter().for_each(|got| assert_eq!(got, &expected));
    }

    #[test]
    fn a_row_that_is_not_finite_gives_no_number_and_leaves_the_others_alone() {
        let (depth, width) = (130, 33);
        let matrix = HalfMatrix::new(view(&numbers(depth * width, 1), depth, width)).unwrap();
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let mut x = numbers(3 * depth, 2);
            x[depth + 129] = bad;
            for got in products(&matrix, &x, 1.0) {
                let finite: Vec<bool> = got.chunks(width).map(|row| row.iter().all(|v| v.is_finite())).collect();
                assert_eq!(finite, [true, false, true], "{bad}");
                assert!(got[width..2 * width].iter().all(|v| !v.is_finite()), "{bad}");
            }
        }
    }
}
