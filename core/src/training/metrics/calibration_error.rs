//! Whether a confidence of 0.8 is right eight times in ten: reliability bins and the expected calibration error.
//!
//! Of the best label's confidence, over commands and other clips alike: a clip that is no command is never right, so
//! confidence in one is an error here as it is in a shop. The error is Naeini et al. 2015's: the gap between confidence
//! and accuracy, averaged over the bins by their clips. Bins of equal width are scikit-learn's
//! (`calibration_curve(strategy="uniform")`, open below and closed above). Bins of equal mass keep clips of one
//! confidence together, unlike `strategy="quantile"`: otherwise the order of the clips would move the figure.

use serde::{Deserialize, Serialize};

use super::Judged;

/// How confidences are put into bins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Binning {
    /// Each bin as wide as the next: comparable with what papers state.
    EqualWidth,
    /// Each bin with about as many clips: no figure hangs on a handful.
    EqualMass,
}

/// The clips of one bin; a bin without clips is left out of every list.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct ReliabilityBin {
    /// Mean confidence of the best label.
    pub confidence: f64,
    /// Share of clips whose best label is right.
    pub accuracy: f64,
    /// Clips.
    pub count: usize,
}

/// The bins and what they sum up to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Calibration {
    /// Expected calibration error, in `0.0..=1.0`.
    pub error: f64,
    /// Ascending by confidence.
    pub bins: Vec<ReliabilityBin>,
}

/// Reliability bins and the expected calibration error; `None` without clips or bins.
pub fn calibration<'a>(
    clips: impl IntoIterator<Item = &'a Judged>,
    n_bins: usize,
    binning: Binning,
) -> Option<Calibration> {
    let mut scored: Vec<(f64, bool)> = clips.into_iter().map(|c| (f64::from(c.confidence()), c.is_right())).collect();
    if scored.is_empty() || n_bins == 0 {
        return None;
    }
    // by whether it was right as well: sums of equal confidences then never depend on the order of the clips
    scored.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));

    let bin_of = |rank: usize| match binning {
        Binning::EqualWidth => (1..n_bins).filter(|k| *k as f64 / (n_bins as f64) < scored[rank].0).count(),
        Binning::EqualMass => scored.partition_point(|other| other.0 < scored[rank].0) * n_bins / scored.len(),
    };
    let bin_of_rank: Vec<usize> = (0..scored.len()).map(bin_of).collect();
    let bins: Vec<ReliabilityBin> = bin_of_rank
        .chunk_by(|a, b| a == b)
        .scan(0, |start, ranks| {
            let clips = &scored[*start..*start + ranks.len()];
            *start += ranks.len();
            Some(clips)
        })
        .map(reliability)
        .collect();
    let gaps: f64 = bins.iter().map(|bin| bin.count as f64 * (bin.accuracy - bin.confidence).abs()).sum();
    Some(Calibration { error: gaps / scored.len() as f64, bins })
}

/// [`calibration`]'s error alone.
pub fn expected_calibration_error<'a>(
    clips: impl IntoIterator<Item = &'a Judged>,
    n_bins: usize,
    binning: Binning,
) -> Option<f64> {
    calibration(clips, n_bins, binning).map(|calibration| calibration.error)
}

fn reliability(clips: &[(f64, bool)]) -> ReliabilityBin {
    let n = clips.len() as f64;
    ReliabilityBin {
        confidence: clips.iter().map(|(confidence, _)| confidence).sum::<f64>() / n,
        accuracy: clips.iter().filter(|(_, right)| *right).count() as f64 / n,
        count: clips.len(),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::super::tests::{any_clip, judged, table};
    use super::*;

    // By scikit-learn 1.9.1 and numpy 2.4.6 on the same table (`c`: confidences as float32, `r`: right or not):
    //   acc, conf = calibration_curve(r, c, n_bins=15, strategy="uniform")
    //   ids = np.searchsorted(np.linspace(0, 1, 16)[1:-1], c); counts = np.bincount(ids, minlength=15)
    //   (np.abs(acc - conf) * counts[counts > 0]).sum() / 20
    // and with four bins of equal mass:
    //   ids = np.searchsorted(np.sort(c), c) * 4 // 20
    //   sum(abs(r[ids == b].mean() - c[ids == b].mean()) * (ids == b).sum() for b in range(4)) / 20

    #[test]
    fn bins_of_equal_width_are_scikit_learns() {
        let got = calibration(&table(), 15, Binning::EqualWidth).unwrap();
        assert!((got.error - 0.24550000131130217).abs() < 1e-7, "{}", got.error);
        let expected = [
            (0.3050000071525574, 0.0, 2),
            (0.3700000047683716, 0.0, 1),
            (0.4300000071525574, 1.0, 1),
            (0.49000000953674316, 0.0, 1),
            (0.5649999976158142, 0.5, 2),
            (0.6400000154972076, 0.5, 2),
            (0.699999988079071, 0.0, 2),
            (0.7650000154972076, 0.5, 2),
            (0.8399999737739563, 1.0, 1),
            (0.9066666762034098, 1.0, 3),
            (0.9700000087420145, 1.0, 3),
        ];
        assert_eq!(got.bins.len(), expected.len());
        for (bin, (confidence, accuracy, count)) in got.bins.iter().zip(expected) {
            assert!((bin.confidence - confidence).abs() < 1e-7 && (bin.accuracy - accuracy).abs() < 1e-12, "{bin:?}");
            assert_eq!(bin.count, count);
        }
    }

    #[test]
    fn bins_of_equal_mass_hold_as_many_clips_each() {
        let got = calibration(&table(), 4, Binning::EqualMass).unwrap();
        assert!((got.error - 0.1604999989271164).abs() < 1e-7, "{}", got.error);
        assert_eq!(got.bins.iter().map(|bin| bin.count).collect::<Vec<_>>(), [5, 5, 5, 5]);
    }

    #[test]
    fn confidence_in_what_is_no_command_is_an_error() {
        let error = expected_calibration_error(&[judged(-1, 0, 0.75, true, 0)], 15, Binning::EqualWidth);
        assert_eq!(error, Some(0.75));
    }

    #[test]
    fn equal_confidences_stay_in_one_bin() {
        let clips: Vec<Judged> = (0..10).map(|i| judged(i % 2, 0, 0.5, true, 0)).collect();
        let got = calibration(&clips, 5, Binning::EqualMass).unwrap();
        assert_eq!(
            got,
            Calibration { error: 0.0, bins: vec![ReliabilityBin { confidence: 0.5, accuracy: 0.5, count: 10 }] }
        );
    }

    #[test]
    fn the_ends_and_nothing() {
        let ends = [judged(0, 0, 0.0, false, 0), judged(0, 0, 1.0, true, 0)];
        assert_eq!(calibration(&ends, 15, Binning::EqualWidth).unwrap().bins.len(), 2);
        assert_eq!(calibration([], 15, Binning::EqualMass), None);
        assert_eq!(calibration(&ends, 0, Binning::EqualMass), None);
    }

    proptest! {
        #[test]
        fn no_clip_is_lost_and_order_does_not_matter(
            clips in proptest::collection::vec(any_clip(), 1..60), n_bins in 1..20_usize, mass: bool,
        ) {
            let binning = if mass { Binning::EqualMass } else { Binning::EqualWidth };
            let got = calibration(&clips, n_bins, binning).unwrap();
            prop_assert_eq!(got.bins.iter().map(|bin| bin.count).sum::<usize>(), clips.len());
            prop_assert!(got.bins.len() <= n_bins);
            prop_assert!((0.0..=1.0).contains(&got.error));
            prop_assert!(got.bins.is_sorted_by(|a, b| a.confidence < b.confidence));
            prop_assert_eq!(calibration(clips.iter().rev(), n_bins, binning).unwrap(), got);
        }
    }
}
