//! Passes over a row of logits. A row of Whisper's vocabulary is 200 KB, and a token is chosen in three passes over
//! it: are they finite, which is the largest, and what do they sum to.
//!
//! Each is vectorised by hand (`rten-simd`), since a compiler may reorder neither a maximum nor a sum of floats; where
//! an element is sought, a block is passed over by its maximum. Nothing is allocated but an answer.
//!
//! Of equals the first counts, and NaN is never the largest.

use rten_simd::ops::{BitOps, NumOps};
use rten_simd::{Isa, Simd, SimdIterable, SimdOp, SimdUnaryOp};
use rten_vecmath::{Exp, Sum};

/// Values whose maximum, or whose sum, says whether one of them is looked for.
pub(super) const BLOCK: usize = 1024;

/// The largest value; minus infinity if there is none.
pub(super) fn largest(values: &[f32]) -> f32 {
    Largest(values).dispatch()
}

/// Whether no value is NaN or infinite.
pub(super) fn is_finite(values: &[f32]) -> bool {
    IsFinite(values).dispatch()
}

/// `log(sum(exp(x)))`, without overflow.
pub(crate) fn log_sum_exp(values: &[f32]) -> f32 {
    log_sum_exp_below(values, largest(values))
}

/// As [`log_sum_exp`], where the largest value is known.
pub(super) fn log_sum_exp_below(values: &[f32], max: f32) -> f32 {
    if max == f32::NEG_INFINITY {
        return max;
    }
    max + sum_exp_below(values, max).ln()
}

/// `sum(exp(x - offset))`. As `rten_vecmath::SumExpSub`, which takes 9 ns a value on AVX-512 (0.27), in steps that each take a
/// fraction of one.
pub(super) fn sum_exp_below(values: &[f32], offset: f32) -> f32 {
    let mut room = [0.0; BLOCK];
    let of_block = |block: &[f32]| {
        let room = &mut room[..block.len()];
        room.iter_mut().zip(block).for_each(|(to, from)| *to = from - offset);
        Exp {}.map_mut(room);
        Sum::new(room).dispatch()
    };
    values.chunks(BLOCK).map(of_block).sum()
}

/// Index of the largest value; 0 if there is none above minus infinity.
pub(super) fn argmax(values: &[f32]) -> usize {
    let (mut start, mut max) = (0, f32::NEG_INFINITY);
    for (i, block) in values.chunks(BLOCK).enumerate() {
        let of_block = largest(block);
        if of_block > max {
            (start, max) = (i * BLOCK, of_block);
        }
    }
    if max == f32::NEG_INFINITY {
        return 0;
    }
    values[start..].iter().position(|v| *v == max).map_or(0, |at| start + at)
}

/// Indices of the `n` largest values, the largest first; those of minus infinity are left out.
pub(crate) fn top(values: &[f32], n: usize) -> Vec<usize> {
    let mut best: Vec<usize> = Vec::new();
    // What a value must exceed to be among them.
    let mut bar = f32::NEG_INFINITY;
    for (i, block) in values.chunks(BLOCK).enumerate() {
        if largest(block) <= bar {
            continue;
        }
        for (at, value) in block.iter().enumerate() {
            if *value > bar {
                let place = best.partition_point(|better| values[*better] >= *value);
                best.insert(place, i * BLOCK + at);
                best.truncate(n);
                if best.len() == n
                    && let Some(last) = best.last()
                {
                    bar = values[*last];
                }
            }
        }
    }
    best
}

struct Largest<'a>(&'a [f32]);

impl SimdOp for Largest<'_> {
    type Output = f32;

    #[inline(always)]
    fn eval<I: Isa>(self, isa: I) -> f32 {
        let ops = isa.f32();
        // Not `ops.max`: machines differ in what it makes of NaN.
        let lanes = self.0.simd_iter(ops).fold_unroll::<4>(
            ops.splat(f32::NEG_INFINITY),
            #[inline(always)]
            |max, x| ops.select(x, max, ops.gt(x, max)),
            #[inline(always)]
            |a, b| ops.select(a, b, ops.gt(a, b)),
        );
        lanes.to_array().into_iter().fold(f32::NEG_INFINITY, f32::max)
    }
}

struct IsFinite<'a>(&'a [f32]);

impl SimdOp for IsFinite<'_> {
    type Output = bool;

    #[inline(always)]
    fn eval<I: Isa>(self, isa: I) -> bool {
        let ops = isa.f32();
        let zero = ops.zero();
        // Zero times a finite number is zero, and times any other NaN, which stays.
        let lanes = self.0.simd_iter(ops).fold_unroll::<4>(
            zero,
            #[inline(always)]
            |sum, x| ops.mul_add(x, zero, sum),
            #[inline(always)]
            |a, b| ops.add(a, b),
        );
        lanes.to_array().into_iter().all(|lane| lane == 0.0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOT_FINITE: [f32; 3] = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY];

    /// Rows of every kind: of few values, so that many are equal; of any numbers; and with what are none among them.
    fn row(n: usize, seed: u64) -> Vec<f32> {
        const AWKWARD: [f32; 9] =
            [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 0.0, -0.0, f32::MAX, f32::MIN, f32::MIN_POSITIVE, -1.0];
        let mut rng = fastrand::Rng::with_seed(seed);
        let kind = rng.u8(0..5);
        let mut value = || match kind {
            0 => f32::from(rng.u8(0..4)),
            1 => rng.f32() * 40.0 - 20.0,
            2 => AWKWARD[rng.usize(0..AWKWARD.len())],
            3 => f32::from_bits(rng.u32(..)),
            _ if rng.u8(0..50) == 0 => AWKWARD[rng.usize(0..AWKWARD.len())],
            _ => -f32::from(rng.u8(..)),
        };
        (0..n).map(|_| value()).collect()
    }

    fn check(values: &[f32]) {
        let numbers = || values.iter().copied().enumerate().filter(|(_, v)| !v.is_nan());
        assert_eq!(largest(values), numbers().map(|(_, v)| v).fold(f32::NEG_INFINITY, f32::max));
        assert_eq!(is_finite(values), values.iter().all(|v| v.is_finite()));
        let first_of_the_largest = |best: (usize, f32), (i, v): (usize, f32)| if v > best.1 { (i, v) } else { best };
        assert_eq!(argmax(values), numbers().fold((0, f32::NEG_INFINITY), first_of_the_largest).0);
        // A sort keeps the order of equals.
        let mut sorted: Vec<(usize, f32)> = numbers().filter(|(_, v)| *v > f32::NEG_INFINITY).collect();
        sorted.sort_by(|a, b| b.1.partial_cmp(&a.1).expect("NaN is left out"));
        for n in [0, 1, 2, 6, 33, values.len(), values.len() + 1] {
            let expected: Vec<usize> = sorted.iter().take(n).map(|(i, _)| *i).collect();
            assert_eq!(top(values, n), expected, "the {n} largest");
        }
    }

    /// Every length about the widths of vectors and about a block.
    #[test]
    fn rows_of_every_length() {
        for n in (0..150).chain(BLOCK - 2..BLOCK + 70).chain(2 * BLOCK - 1..2 * BLOCK + 2) {
            for seed in 0..5 {
                check(&row(n, (n * 5 + seed) as u64));
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn passes_are_what_they_are_in_plain_words(n in 0usize..3 * BLOCK, seed: u64) {
            check(&row(n, seed));
        }

        #[test]
        fn a_sum_is_that_of_doubles(n in 1usize..3 * BLOCK, seed: u64, n_forbidden in 0usize..40) {
            let mut rng = fastrand::Rng::with_seed(seed);
            let mut values: Vec<f32> = (0..n).map(|_| rng.f32() * 60.0 - 20.0).collect();
            for _ in 0..n_forbidden {
                values[rng.usize(0..n)] = f32::NEG_INFINITY;
            }
            let sum = values.iter().map(|v| f64::from(*v).exp()).sum::<f64>().ln();
            let got = log_sum_exp(&values);
            prop_assert!(f64::from(got) == sum || (f64::from(got) - sum).abs() < 2e-5, "{}, not {}", got, sum);
            prop_assert_eq!(got.to_bits(), log_sum_exp_below(&values, largest(&values)).to_bits());
        }
    }

    /// Wherever it stands; and the largest numbers are numbers, though no sum of them is.
    #[test]
    fn one_value_that_is_not_finite_is_found() {
        for n in 1..140 {
            let mut values = vec![f32::MAX; n];
            assert!(is_finite(&values));
            for at in 0..n {
                for bad in NOT_FINITE {
                    values[at] = bad;
                    assert!(!is_finite(&values), "{bad} at {at} of {n}");
                }
                values[at] = f32::MIN;
            }
        }
    }

    #[test]
    fn nothing_sums_to_nothing_and_one_value_to_itself() {
        assert_eq!(log_sum_exp(&[]), f32::NEG_INFINITY);
        assert_eq!(log_sum_exp(&[f32::NEG_INFINITY; 70]), f32::NEG_INFINITY);
        assert_eq!(log_sum_exp(&[-3.5]), -3.5);
        assert_eq!(log_sum_exp(&[3.0e38, f32::NEG_INFINITY]), 3.0e38);
    }
}
