//! Mean and percentiles of times, by linear interpolation as numpy's `percentile` does by default.

use serde::{Deserialize, Serialize};

/// What a list of times comes to, in its own unit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Percentiles {
    /// Mean.
    pub mean: f64,
    /// Median.
    pub p50: f64,
    /// Exceeded by one in twenty.
    pub p95: f64,
    /// Exceeded by one in a hundred.
    pub p99: f64,
}

/// Mean and percentiles; sorts `values`. `None` without values or with one that is no finite number.
pub fn percentiles(values: &mut [f64]) -> Option<Percentiles> {
    if values.is_empty() || values.iter().any(|value| !value.is_finite()) {
        return None;
    }
    values.sort_by(f64::total_cmp);
    let mean = values.iter().sum::<f64>() / values.len() as f64;
    let [p50, p95, p99] = [0.5, 0.95, 0.99].map(|part| quantile(values, part));
    Some(Percentiles { mean, p50, p95, p99 })
}

/// The value below which `part` of the sorted values lie; there is one at least.
pub(super) fn quantile(sorted: &[f64], part: f64) -> f64 {
    let at = part * (sorted.len() - 1) as f64;
    let below = sorted[at.floor() as usize];
    let above = sorted[at.ceil() as usize];
    below + (above - below) * (at - at.floor())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    // numpy 2.4.6: v = [12.5, 3.0, 7.25, 41.0, 8.0, 9.5, 10.0, 55.5, 6.0, 11.0, 7.0]; v.mean(), np.percentile(v, [50, 95, 99])
    #[test]
    fn they_are_numpys() {
        let got = percentiles(&mut [12.5, 3.0, 7.25, 41.0, 8.0, 9.5, 10.0, 55.5, 6.0, 11.0, 7.0]).unwrap();
        let expected = [15.522727272727273, 9.5, 48.25, 54.050000000000004];
        for (got, expected) in [got.mean, got.p50, got.p95, got.p99].into_iter().zip(expected) {
            assert!((got - expected).abs() < 1e-9, "{got} is not {expected}");
        }
    }

    #[test]
    fn one_value_is_every_percentile_and_none_has_none() {
        assert_eq!(percentiles(&mut [4.0]), Some(Percentiles { mean: 4.0, p50: 4.0, p95: 4.0, p99: 4.0 }));
        assert_eq!(percentiles(&mut []), None);
        assert_eq!(percentiles(&mut [1.0, f64::NAN]), None);
    }

    proptest! {
        #[test]
        fn they_ascend_between_the_ends(mut values in proptest::collection::vec(0.0..1e6_f64, 1..50)) {
            let got = percentiles(&mut values).unwrap();
            prop_assert!(values[0] <= got.p50 && got.p50 <= got.p95 && got.p95 <= got.p99);
            prop_assert!(got.p99 <= values[values.len() - 1]);
        }
    }
}
