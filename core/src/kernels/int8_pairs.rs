//! Sums of products of 8-bit integers for WebAssembly's 128-bit vectors.
//!
//! `rten-gemm` 0.27 has a kernel for them too (`kernels/wasm.rs`): it widens each product by itself, 8 instructions for 16
//! products, as many as its f32 kernel needs, and on x86 several of them are three or four of the machine's. Its tiles have
//! eight rows, whose sums do not fit the registers of x86. Here numbers are widened to 16 bits before they are multiplied:
//! `i32x4.dot_i16x8_s` multiplies eight pairs and adds neighbours, one instruction on x86 (`pmaddwd`) and three on ARM, so
//! that 16 products cost 4 instructions. Weights lie packed as bytes and are widened as they are loaded, once for each tile of
//! rows; activations are widened once a call.
//!
//! The relaxed `i32x4.relaxed_dot_i8x16_i7x16_add_s` would do 16 products in one instruction, in browsers that have it: it
//! needs a module of its own and activations of 7 bits.
//!
//! Not for other machines, which have better ones: there this file is compiled for its tests alone, with `lanes` in plain Rust.

use lanes::{Numbers, Sums};

/// Rows of a tile: with two vectors of sums for each, what a tile holds fits the 16 registers of x86.
const TILE_ROWS: usize = 4;
/// Channels of a panel: two vectors of sums.
const PANEL: usize = 8;
/// Weights that meet one pair of activations: two for each channel of a panel.
const STEP: usize = 2 * PANEL;

/// A packed weight `[d_output, d_input]`: for each panel of channels, for each two neighbours along `d_input`, those two of
/// each channel. What is missing at the ends is 0.
pub(super) struct Packed {
    panels: Vec<i8>,
    d_input: usize,
    d_output: usize,
}

impl Packed {
    /// Whether sums may overflow before they are 32 bits wide: never.
    pub(super) fn may_saturate() -> bool {
        false
    }

    /// Packs `weight`, `[d_output, d_input]` row-major, neither of them 0.
    pub(super) fn new(weight: &[i8], d_output: usize) -> Self {
        let d_input = weight.len() / d_output;
        let n_steps = d_input.div_ceil(2);
        let mut panels = vec![0; d_output.div_ceil(PANEL) * n_steps * STEP];
        for (channels, panel) in weight.chunks(PANEL * d_input).zip(panels.chunks_exact_mut(n_steps * STEP)) {
            for (channel, row) in channels.chunks_exact(d_input).enumerate() {
                for (two, step) in row.chunks(2).zip(panel.chunks_exact_mut(STEP)) {
                    step[2 * channel..][..two.len()].copy_from_slice(two);
                }
            }
        }
        Self { panels, d_input, d_output }
    }

    /// `x Wᵗ`, exact.
    ///
    /// # Shapes
    /// - x: `[n_rows, d_input]`
    /// - result: `[n_rows, d_output]`
    pub(super) fn multiply(&self, x: &[u8]) -> Vec<i32> {
        let n_steps = self.d_input.div_ceil(2);
        let x = in_tiles(x, self.d_input);
        let mut sums = vec![0; x.len() / n_steps * self.d_output];
        for (at, panel) in self.panels.chunks_exact(n_steps * STEP).enumerate() {
            let first = at * PANEL;
            for (x, sums) in x.chunks(TILE_ROWS * n_steps).zip(sums.chunks_mut(TILE_ROWS * self.d_output)) {
                let sums = &mut sums[first..];
                match x.len() / n_steps {
                    1 => tile::<1>(x, panel, sums, self.d_output, first),
                    2 => tile::<2>(x, panel, sums, self.d_output, first),
                    3 => tile::<3>(x, panel, sums, self.d_output, first),
                    _ => tile::<TILE_ROWS>(x, panel, sums, self.d_output, first),
                }
            }
        }
        sums
    }
}

/// Activations in the order in which tiles want them: for each tile of rows, for each two neighbours along a row, those two of
/// each row, 16 bits each.
fn in_tiles(x: &[u8], d_input: usize) -> Vec<i32> {
    let n_steps = d_input.div_ceil(2);
    let mut tiles = Vec::with_capacity(x.len() / d_input * n_steps);
    for rows in x.chunks(TILE_ROWS * d_input) {
        for step in 0..n_steps {
            tiles.extend(rows.chunks_exact(d_input).map(|row| {
                let second = row.get(2 * step + 1).copied().unwrap_or(0);
                i32::from(row[2 * step]) | i32::from(second) << 16
            }));
        }
    }
    tiles
}

/// `ROWS` rows times one panel.
///
/// # Shapes
/// - x: `[n_steps, ROWS]` pairs
/// - panel: `[n_steps, PANEL, 2]`
/// - sums: rows that lie `d_output` apart, from channel `first` on; what the panel has beyond `d_output` is left out
fn tile<const ROWS: usize>(x: &[i32], panel: &[i8], sums: &mut [i32], d_output: usize, first: usize) {
    let mut totals: [[Sums; 2]; ROWS] = [[lanes::zero(); 2]; ROWS];
    for (weights, x) in panel.as_chunks::<STEP>().0.iter().zip(x.as_chunks::<ROWS>().0) {
        let [low, high]: [Numbers; 2] = lanes::widened(weights);
        for (totals, x) in totals.iter_mut().zip(x) {
            let x = lanes::splat(*x);
            totals[0] = lanes::add_products(totals[0], x, low);
            totals[1] = lanes::add_products(totals[1], x, high);
        }
    }
    let width = PANEL.min(d_output - first);
    for (row, [low, high]) in totals.into_iter().enumerate() {
        let (low, high) = (lanes::values(low), lanes::values(high));
        for (sum, total) in sums[row * d_output..][..width].iter_mut().zip(low.into_iter().chain(high)) {
            *sum = total;
        }
    }
}

#[cfg(target_arch = "wasm32")]
mod lanes {
    use std::arch::wasm32::{
        i16x8_extend_high_i8x16, i16x8_extend_low_i8x16, i32x4_add, i32x4_dot_i16x8, i32x4_extract_lane, i32x4_splat,
        v128,
    };

    use rten_simd::Isa;
    use rten_simd::isa::Wasm32Isa;
    use rten_simd::ops::BitOps;

    /// Four numbers of 32 bits.
    pub(super) type Sums = v128;
    /// Eight numbers of 16 bits.
    pub(super) type Numbers = v128;

    #[inline(always)]
    pub(super) fn zero() -> Sums {
        i32x4_splat(0)
    }

    /// One pair, four times.
    #[inline(always)]
    pub(super) fn splat(pair: i32) -> Numbers {
        i32x4_splat(pair)
    }

    /// Sixteen bytes as numbers of 16 bits.
    #[inline(always)]
    pub(super) fn widened(weights: &[i8; 16]) -> [Numbers; 2] {
        let isa = Wasm32Isa::new().expect("WebAssembly without vectors loads no module with them");
        let bytes = isa.i8().load(weights).0;
        [i16x8_extend_low_i8x16(bytes), i16x8_extend_high_i8x16(bytes)]
    }

    /// `sums` and, for each of them, a pair's two products.
    #[inline(always)]
    pub(super) fn add_products(sums: Sums, x: Numbers, weights: Numbers) -> Sums {
        i32x4_add(sums, i32x4_dot_i16x8(x, weights))
    }

    #[inline(always)]
    pub(super) fn values(sums: Sums) -> [i32; 4] {
        [
            i32x4_extract_lane::<0>(sums),
            i32x4_extract_lane::<1>(sums),
            i32x4_extract_lane::<2>(sums),
            i32x4_extract_lane::<3>(sums),
        ]
    }
}

/// The same in plain Rust.
#[cfg(not(target_arch = "wasm32"))]
mod lanes {
    use std::array::from_fn;

    pub(super) type Sums = [i32; 4];
    pub(super) type Numbers = [i16; 8];

    pub(super) fn zero() -> Sums {
        [0; 4]
    }

    pub(super) fn splat(pair: i32) -> Numbers {
        from_fn(|lane| if lane % 2 == 0 { pair as i16 } else { (pair >> 16) as i16 })
    }

    pub(super) fn widened(weights: &[i8; 16]) -> [Numbers; 2] {
        [0, 8].map(|half| from_fn(|lane| i16::from(weights[half + lane])))
    }

    pub(super) fn add_products(sums: Sums, x: Numbers, weights: Numbers) -> Sums {
        let product = |lane: usize| i32::from(x[lane]) * i32::from(weights[lane]);
        from_fn(|at| sums[at] + product(2 * at) + product(2 * at + 1))
    }

    pub(super) fn values(sums: Sums) -> [i32; 4] {
        sums
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check(n_rows: usize, d_input: usize, d_output: usize, seed: u64) {
        let mut rng = fastrand::Rng::with_seed(seed);
        let weight: Vec<i8> = (0..d_output * d_input).map(|_| rng.i8(-127..=127)).collect();
        let x: Vec<u8> = (0..n_rows * d_input).map(|_| rng.u8(..)).collect();
        let dot = |x: &[u8], w: &[i8]| x.iter().zip(w).map(|(x, w)| i32::from(*x) * i32::from(*w)).sum::<i32>();
        let expected: Vec<i32> =
            x.chunks_exact(d_input).flat_map(|x| weight.chunks_exact(d_input).map(move |w| dot(x, w))).collect();
        assert_eq!(Packed::new(&weight, d_output).multiply(&x), expected, "{n_rows}x{d_input}x{d_output}");
    }

    /// One of each, odd depths, tiles and panels that are not full.
    #[test]
    fn sums_are_exact_at_the_edges() {
        for n_rows in [1, 2, 3, 4, 5, 9] {
            for (d_input, d_output) in [(1, 1), (1, 9), (2, 7), (3, 8), (31, 17), (64, 40)] {
                check(n_rows, d_input, d_output, 7);
            }
        }
    }

    #[test]
    fn sums_of_the_largest_numbers_are_exact() {
        assert!(!Packed::may_saturate());
        for largest in [-127i8, 127] {
            let sums = Packed::new(&[largest; 8 * 5120], 8).multiply(&[255; 5120]);
            assert_eq!(sums, [255 * 5120 * i32::from(largest); 8]);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(40))]
        #[test]
        fn sums_are_exact_in_any_shape(n_rows in 1usize..20, d_input in 1usize..70, d_output in 1usize..40, seed: u32) {
            check(n_rows, d_input, d_output, u64::from(seed));
        }
    }
}
