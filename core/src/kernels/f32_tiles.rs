//! Products in f32 for WebAssembly's 128-bit vectors.
//!
//! `rten-gemm` 0.27 (`kernels/wasm.rs`) has tiles of eight rows and eight columns there: sixteen vectors of sums, which with
//! what they are made of do not fit the 16 registers of x86, so that V8 keeps moving them to memory and back. Tiles of four
//! rows fit. The order is the usual one: a block of rows and of the depth lies in the second cache, in the order in which tiles
//! want it, and a panel of the weight passes over it.
//!
//! Not for other machines, which have better vectors: there this file is compiled for its tests alone.

use std::ops::Range;

use rten_simd::Isa;
#[cfg(not(target_arch = "wasm32"))]
use rten_simd::isa::GenericIsa as Lanes;
#[cfg(target_arch = "wasm32")]
use rten_simd::isa::Wasm32Isa as Lanes;
use rten_simd::ops::{BitOps, NumOps};

/// Numbers of a vector.
const WIDTH: usize = 4;
/// Columns of a panel: two vectors.
const PANEL: usize = 2 * WIDTH;
/// Rows of a tile.
const TILE_ROWS: usize = 4;
/// Rows of a block.
const BLOCK_ROWS: usize = 64;
/// Numbers along `d_input` of a block: a panel of them is 16 KiB, a block 128 KiB.
const DEPTH: usize = 512;

/// A packed weight `[d_output, d_input]`: for each block of the depth, for each panel of channels, the channels of each number
/// along `d_input` side by side. Channels that are missing in the last panel are 0.
pub(super) struct Packed {
    blocks: Vec<Vec<f32>>,
    d_input: usize,
    d_output: usize,
}

impl Packed {
    /// Packs `weight`, `[d_output, d_input]` row-major.
    pub(super) fn new(weight: &[f32], d_output: usize) -> Self {
        let d_input = weight.len() / d_output;
        let starts = (0..d_input).step_by(DEPTH);
        let blocks = starts.map(|start| pack(weight, d_input, start..d_input.min(start + DEPTH))).collect();
        Self { blocks, d_input, d_output }
    }

    /// `x Wᵗ + b`.
    ///
    /// # Shapes
    /// - x: `[n_rows, d_input]`
    /// - result: `[n_rows, d_output]`
    pub(super) fn multiply(&self, x: &[f32], n_rows: usize, bias: Option<&[f32]>) -> Vec<f32> {
        let mut out = match bias {
            Some(bias) => bias.repeat(n_rows),
            None => vec![0.0; n_rows * self.d_output],
        };
        self.add_products(x, &mut out);
        out
    }

    /// Adds `x Wᵗ + b` to `out`; shapes as in [`Self::multiply`].
    pub(super) fn multiply_add(&self, x: &[f32], n_rows: usize, bias: Option<&[f32]>, out: &mut [f32]) {
        debug_assert_eq!(out.len(), n_rows * self.d_output, "the caller gives whole rows");
        if let Some(bias) = bias {
            let rows = out.chunks_exact_mut(self.d_output);
            rows.for_each(|row| row.iter_mut().zip(bias).for_each(|(out, bias)| *out += bias));
        }
        self.add_products(x, out);
    }

    fn add_products(&self, x: &[f32], out: &mut [f32]) {
        if self.d_input == 0 {
            return;
        }
        for (x, out) in x.chunks(BLOCK_ROWS * self.d_input).zip(out.chunks_mut(BLOCK_ROWS * self.d_output)) {
            for (block, start) in self.blocks.iter().zip((0..).step_by(DEPTH)) {
                let depth = DEPTH.min(self.d_input - start);
                let x = in_tiles(x, self.d_input, start..start + depth);
                for (at, panel) in block.chunks_exact(depth * PANEL).enumerate() {
                    let first = at * PANEL;
                    for (x, out) in x.chunks(TILE_ROWS * depth).zip(out.chunks_mut(TILE_ROWS * self.d_output)) {
                        let out = &mut out[first..];
                        match x.len() / depth {
                            1 => tile::<1>(x, panel, out, self.d_output, first),
                            2 => tile::<2>(x, panel, out, self.d_output, first),
                            3 => tile::<3>(x, panel, out, self.d_output, first),
                            _ => tile::<TILE_ROWS>(x, panel, out, self.d_output, first),
                        }
                    }
                }
            }
        }
    }
}

/// A block of the depth of all channels.
fn pack(weight: &[f32], d_input: usize, depth: Range<usize>) -> Vec<f32> {
    let panel_len = depth.len() * PANEL;
    let mut panels = vec![0.0; (weight.len() / d_input).div_ceil(PANEL) * panel_len];
    for (channels, panel) in weight.chunks(PANEL * d_input).zip(panels.chunks_exact_mut(panel_len)) {
        for (channel, row) in channels.chunks_exact(d_input).enumerate() {
            for (value, step) in row[depth.clone()].iter().zip(panel.chunks_exact_mut(PANEL)) {
                step[channel] = *value;
            }
        }
    }
    panels
}

/// A block of rows, for each tile the rows of each number along `d_input` side by side.
fn in_tiles(x: &[f32], d_input: usize, depth: Range<usize>) -> Vec<f32> {
    let mut tiles = Vec::with_capacity(x.len() / d_input * depth.len());
    for rows in x.chunks(TILE_ROWS * d_input) {
        for at in depth.clone() {
            tiles.extend(rows.chunks_exact(d_input).map(|row| row[at]));
        }
    }
    tiles
}

/// Adds `ROWS` rows times one panel.
///
/// # Shapes
/// - x: `[depth, ROWS]`
/// - panel: `[depth, PANEL]`
/// - out: rows that lie `d_output` apart, from channel `first` on; what the panel has beyond `d_output` is left out
fn tile<const ROWS: usize>(x: &[f32], panel: &[f32], out: &mut [f32], d_output: usize, first: usize) {
    let floats = lanes().f32();
    let mut totals = [[floats.splat(0.0); 2]; ROWS];
    for (weights, x) in panel.as_chunks::<PANEL>().0.iter().zip(x.as_chunks::<ROWS>().0) {
        let (low, high) = (floats.load(&weights[..WIDTH]), floats.load(&weights[WIDTH..]));
        for (totals, x) in totals.iter_mut().zip(x) {
            let x = floats.splat(*x);
            totals[0] = floats.mul_add(x, low, totals[0]);
            totals[1] = floats.mul_add(x, high, totals[1]);
        }
    }
    let width = PANEL.min(d_output - first);
    for (row, [low, high]) in totals.into_iter().enumerate() {
        let mut sums = [0.0; PANEL];
        floats.store(low, &mut sums[..WIDTH]);
        floats.store(high, &mut sums[WIDTH..]);
        out[row * d_output..][..width].iter_mut().zip(sums).for_each(|(out, sum)| *out += sum);
    }
}

#[cfg(target_arch = "wasm32")]
#[inline(always)]
fn lanes() -> Lanes {
    Lanes::new().expect("WebAssembly without vectors loads no module with them")
}

/// Four numbers in plain Rust.
#[cfg(not(target_arch = "wasm32"))]
fn lanes() -> Lanes {
    Lanes::new()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(n: usize, seed: u64) -> Vec<f32> {
        let mut rng = fastrand::Rng::with_seed(seed);
        (0..n).map(|_| rng.f32() - 0.5).collect()
    }

    /// Tiles, panels and blocks that are not full, blocks that are just full, and more than one of each.
    #[test]
    fn products_are_those_in_double_precision() {
        for (n_rows, d_input, d_output) in
            [(1, 1, 1), (2, 7, 33), (3, 64, 8), (4, 512, 9), (5, 513, 16), (64, 31, 17), (65, 1100, 5), (131, 3, 40)]
        {
            let (weight, bias) = (numbers(d_output * d_input, 1), numbers(d_output, 2));
            let (x, before) = (numbers(n_rows * d_input, 3), numbers(n_rows * d_output, 4));
            let packed = Packed::new(&weight, d_output);
            let plain = packed.multiply(&x, n_rows, None);
            let with_bias = packed.multiply(&x, n_rows, Some(bias.as_slice()));
            let (mut added, mut added_plain) = (before.clone(), before.clone());
            packed.multiply_add(&x, n_rows, Some(bias.as_slice()), &mut added);
            packed.multiply_add(&x, n_rows, None, &mut added_plain);
            for (at, plain) in plain.iter().enumerate() {
                let (row, channel) = (at / d_output, at % d_output);
                let pairs = x[row * d_input..][..d_input].iter().zip(&weight[channel * d_input..][..d_input]);
                let product: f64 = pairs.map(|(x, w)| f64::from(*x) * f64::from(*w)).sum();
                let (bias, before) = (f64::from(bias[channel]), f64::from(before[at]));
                let expected = [product, product + bias, before + product + bias, before + product];
                for (got, expected) in [*plain, with_bias[at], added[at], added_plain[at]].iter().zip(expected) {
                    let off = (f64::from(*got) - expected).abs();
                    assert!(off < 2e-5, "{n_rows}x{d_input}x{d_output} at {at}: {got}, not {expected}");
                }
            }
        }
    }

    #[test]
    fn without_inputs_there_is_the_bias() {
        let bias = [1.0, 2.0];
        assert_eq!(Packed::new(&[], 2).multiply(&[], 3, Some(bias.as_slice())), [1.0, 2.0, 1.0, 2.0, 1.0, 2.0]);
    }
}
