//! A rotation that spreads what is loud in a row over the row, so that 8-bit steps are small.
//!
//! A row's step is as wide as its largest number asks for. Whisper's states have a few channels far above the others, for which all
//! others are rounded coarsely; so have its weights. In `x Wᵗ = (x H) (W H)ᵗ`, `H` orthogonal, both factors may be rotated: after a
//! Hadamard matrix each number is a sum of many, with signs, and none stands out (QuaRot, arXiv 2404.00456; QuIP#, arXiv 2402.04396).
//! Weights are rotated while they are loaded, activations as they come, which a fast Walsh–Hadamard transform does in `n log n` additions.
//!
//! `H` is `H_m ⊗ I_16` on blocks of `16 m` numbers, the largest power of two that divides a row: mixing numbers that lie next to each other would
//! need shuffles within a vector, and 16 ways less to spread are not missed.

use rten_simd::{Isa, SimdOp};

/// Numbers that stay side by side: a vector of AVX-512.
const LANES: usize = 16;

/// Whether rows so long are changed at all.
pub(super) fn can_rotate(n: usize) -> bool {
    block_of(n) > LANES
}

/// Rotates each row of `rows`, `[n_rows, n]` row-major. Twice is as never.
pub(super) fn rotate(rows: &mut [f32], n: usize) {
    rows.chunks_exact_mut(n).for_each(|row| Rotate { row }.dispatch());
}

/// The largest power of two that divides `n`.
fn block_of(n: usize) -> usize {
    n & n.wrapping_neg()
}

struct Rotate<'a> {
    row: &'a mut [f32],
}

impl SimdOp for Rotate<'_> {
    type Output = ();

    // Plain loops: that they stand in `eval` has them compiled for the machine's vectors.
    #[inline(always)]
    fn eval<I: Isa>(self, _: I) {
        let block = block_of(self.row.len());
        // In the first pass: no sum on the way is then longer than the row.
        let first = (LANES as f32 / block as f32).sqrt();
        for block in self.row.chunks_exact_mut(block) {
            let (mut apart, mut scale) = (LANES, first);
            while 2 * apart < block.len() {
                two_levels(block, apart, scale);
                (apart, scale) = (4 * apart, 1.0);
            }
            if apart < block.len() {
                one_level(block, apart, scale);
            }
        }
    }
}

/// Sums and differences of numbers that are `apart`, times `scale`.
#[inline(always)]
fn one_level(block: &mut [f32], apart: usize, scale: f32) {
    for pair in block.chunks_exact_mut(2 * apart) {
        let (low, high) = pair.split_at_mut(apart);
        for (a, b) in low.iter_mut().zip(high) {
            let (x, y) = (*a * scale, *b * scale);
            (*a, *b) = (x + y, x - y);
        }
    }
}

/// Two levels in one pass through memory: `apart`, and twice as far.
#[inline(always)]
fn two_levels(block: &mut [f32], apart: usize, scale: f32) {
    for four in block.chunks_exact_mut(4 * apart) {
        let (low, high) = four.split_at_mut(2 * apart);
        let ((a, b), (c, d)) = (low.split_at_mut(apart), high.split_at_mut(apart));
        for (((a, b), c), d) in a.iter_mut().zip(b).zip(c).zip(d) {
            let (w, x, y, z) = (*a * scale, *b * scale, *c * scale, *d * scale);
            let (sum, difference, other_sum, other_difference) = (w + x, w - x, y + z, y - z);
            (*a, *b) = (sum + other_sum, difference + other_difference);
            (*c, *d) = (sum - other_sum, difference - other_difference);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(n: usize) -> Vec<f32> {
        let mut rng = fastrand::Rng::with_seed(n as u64);
        (0..n).map(|_| rng.f32() - 0.5).collect()
    }

    /// The matrix as its definition says it: the sign is the parity of the common bits of both indices.
    #[test]
    fn it_is_a_hadamard_matrix_on_each_block() {
        for (n, block) in [(512, 512), (384, 128), (96, 32), (32, 32)] {
            let x = numbers(n);
            let mut rotated = x.clone();
            rotate(&mut rotated, n);
            let scale = (LANES as f64 / block as f64).sqrt();
            for (i, got) in rotated.iter().enumerate() {
                let (start, row, lane) = (i / block * block, i % block / LANES, i % LANES);
                let expected: f64 = (0..block / LANES)
                    .map(|column| {
                        let sign = if (row & column).count_ones() % 2 == 0 { scale } else { -scale };
                        sign * f64::from(x[start + column * LANES + lane])
                    })
                    .sum();
                assert!((f64::from(*got) - expected).abs() < 1e-5, "{n} at {i}: {got}, not {expected}");
            }
        }
    }

    #[test]
    fn lengths_and_products_stay_and_twice_is_as_never() {
        let (n, n_rows) = (192, 3);
        let x = numbers(n_rows * n);
        let mut rotated = x.clone();
        rotate(&mut rotated, n);
        let product = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>();
        for (i, j) in [(0, 0), (0, 1), (1, 2), (2, 2)] {
            let of = |x: &[f32]| product(&x[i * n..(i + 1) * n], &x[j * n..(j + 1) * n]);
            assert!((of(&x) - of(&rotated)).abs() < 1e-4, "rows {i} and {j}");
        }
        rotate(&mut rotated, n);
        assert!(x.iter().zip(&rotated).all(|(a, b)| (a - b).abs() < 1e-6));
    }

    #[test]
    fn what_is_loud_is_spread() {
        let mut row = vec![0.1; 512];
        row[200] = 50.0;
        rotate(&mut row, 512);
        let loudest = row.iter().fold(0.0f32, |m, v| m.max(v.abs()));
        assert!(loudest < 10.0, "{loudest}"); // 50 / √32, and what the others add up to
    }

    #[test]
    fn rows_in_blocks_of_16_or_less_stay_as_they_are() {
        for n in [1, 7, 16, 31, 80] {
            assert!(!can_rotate(n), "{n}");
            let x = numbers(n);
            let mut rotated = x.clone();
            rotate(&mut rotated, n);
            assert_eq!(rotated, x, "{n}");
        }
        assert!([32, 96, 512, 768, 1280, 2048].into_iter().all(can_rotate));
    }
}
