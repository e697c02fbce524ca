//! The rows that tokens are looked up in, as small as their values allow.
//!
//! The same matrix is there once more, packed for the product of the logits (tied weights). Checkpoints ship half precision, so half precision
//! loses nothing; those from f32 files keep f32. A model in 8-bit integers keeps 8 bits and a scale for each 32 numbers, half
//! of half precision: of whisper-base 28 MB.

use half::f16;
use rayon::prelude::*;

/// Numbers that share a scale.
const BLOCK: usize = 32;

/// One row a token.
#[derive(Debug)]
pub(super) struct TokenEmbedding {
    rows: Rows,
    n_state: usize,
}

#[derive(Debug)]
enum Rows {
    /// Of each row the blocks of [`BLOCK`] steps, the last of which may be shorter, and what a step of each is worth.
    Int8 {
        steps: Vec<i8>,
        scales: Vec<f16>,
    },
    Half(Vec<f16>),
    Single(Vec<f32>),
}

impl TokenEmbedding {
    /// values: `[n_vocab, n_state]` row-major
    pub(super) fn new(values: &[f32], n_state: usize, int8: bool) -> Self {
        if int8 {
            let mut steps = vec![0; values.len()];
            let rows = steps.par_chunks_mut(n_state).zip(values.par_chunks(n_state));
            let scales = rows.flat_map_iter(|(steps, row)| {
                let blocks = steps.chunks_mut(BLOCK).zip(row.chunks(BLOCK));
                blocks.map(|(steps, block)| round_block(block, steps))
            });
            let scales = scales.collect();
            return Self { rows: Rows::Int8 { steps, scales }, n_state };
        }
        let half: Vec<f16> = values.iter().map(|v| f16::from_f32(*v)).collect();
        let fits_half = values.iter().zip(&half).all(|(v, h)| h.to_f32() == *v);
        Self { rows: if fits_half { Rows::Half(half) } else { Rows::Single(values.to_vec()) }, n_state }
    }

    /// `[n_state]`
    pub(super) fn row(&self, token: usize) -> Vec<f32> {
        let range = token * self.n_state..(token + 1) * self.n_state;
        match &self.rows {
            Rows::Int8 { steps, scales } => {
                let n_blocks = self.n_state.div_ceil(BLOCK);
                let blocks = steps[range].chunks(BLOCK).zip(&scales[token * n_blocks..]);
                let mut row = Vec::with_capacity(self.n_state);
                for (block, scale) in blocks {
                    let scale = scale.to_f32();
                    row.extend(block.iter().map(|step| scale * f32::from(*step)));
                }
                row
            }
            Rows::Half(rows) => rows[range].iter().map(|h| h.to_f32()).collect(),
            Rows::Single(rows) => rows[range].to_vec(),
        }
    }
}

/// What a step is worth.
fn round_block(block: &[f32], steps: &mut [i8]) -> f16 {
    let peak = block.iter().fold(0.0f32, |m, v| m.max(v.abs()));
    // Of a block that half precision takes for zeros nothing is left.
    let scale = f16::from_f32((peak / 127.0).min(f16::MAX.to_f32()));
    let inverse = 1.0 / scale.to_f32();
    if inverse.is_finite() {
        steps
            .iter_mut()
            .zip(block)
            .for_each(|(step, v)| *step = (v * inverse).round_ties_even().clamp(-127.0, 127.0) as i8);
    }
    scale
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(n: usize) -> Vec<f32> {
        let mut rng = fastrand::Rng::with_seed(7);
        (0..n).map(|i| (rng.f32() - 0.5) * if i % 41 == 0 { 30.0 } else { 1.0 }).collect()
    }

    #[test]
    fn a_row_in_8_bits_is_near_itself_in_each_block() {
        for n_state in [1, 31, 32, 50, 512] {
            let values = numbers(3 * n_state);
            let embedding = TokenEmbedding::new(&values, n_state, true);
            for (token, row) in values.chunks(n_state).enumerate() {
                let got = embedding.row(token);
                assert_eq!(got.len(), n_state);
                for (got, row) in got.chunks(BLOCK).zip(row.chunks(BLOCK)) {
                    let peak = row.iter().fold(0.0f32, |m, v| m.max(v.abs()));
                    let bound = peak / 127.0 * 0.501 + 1e-6 + peak / 2048.0; // half precision may put the peak beyond the last step
                    assert!(got.iter().zip(row).all(|(a, b)| (a - b).abs() <= bound), "{n_state}: {got:?} not {row:?}");
                }
            }
        }
    }

    #[test]
    fn nothing_is_lost_without_8_bits() {
        let of_halves: Vec<f32> = numbers(96).into_iter().map(|v| f16::from_f32(v).to_f32()).collect();
        for (values, is_half) in [(of_halves, true), (numbers(96), false)] {
            let embedding = TokenEmbedding::new(&values, 48, false);
            assert_eq!(matches!(embedding.rows, Rows::Half(_)), is_half);
            assert_eq!([embedding.row(0), embedding.row(1)].concat(), values);
        }
    }

    #[test]
    fn zeros_and_the_smallest_and_largest_numbers_stay_finite() {
        for value in [0.0, 1e-9, 1e-40, 65504.0, 1e30] {
            let row = TokenEmbedding::new(&[value, -value], 2, true).row(0);
            assert!(row.iter().all(|v| v.is_finite()), "{value}: {row:?}");
        }
    }
}
