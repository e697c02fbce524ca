//! What answering less often buys: the error among the clips that are kept, as the confidence asked for rises.
//!
//! Geifman and El-Yaniv 2017: clips sorted by the best label's confidence, risk is the share of wrong ones among the
//! first k, and the area under the curve is its mean over k. Clips that are no command count as wrong. Clips of one
//! confidence cannot be told apart by any threshold, so within them the risk is the one expected in random order.

use serde::{Deserialize, Serialize};

use super::Judged;

/// Points of a curve at most; the plot is not wider.
const MAX_POINTS: usize = 200;

/// What one threshold gives.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct RiskPoint {
    /// Share of the clips that are kept.
    pub coverage: f64,
    /// Share of wrong ones among them.
    pub risk: f64,
    /// Confidence from which on they are kept.
    pub threshold: f64,
}

/// The curve and the area under it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RiskCoverage {
    /// Mean risk over all coverages; 0 is best.
    pub area: f64,
    /// Ascending by coverage, at most 200, the last one keeps everything.
    pub points: Vec<RiskPoint>,
}

/// The risk–coverage curve; `None` without clips.
pub fn risk_coverage<'a>(clips: impl IntoIterator<Item = &'a Judged>) -> Option<RiskCoverage> {
    let mut scored: Vec<(f64, bool)> = clips.into_iter().map(|c| (f64::from(c.confidence()), c.is_right())).collect();
    if scored.is_empty() {
        return None;
    }
    scored.sort_by(|a, b| b.0.total_cmp(&a.0));

    let (mut kept, mut wrong, mut risks) = (0_usize, 0.0, 0.0);
    let mut points = Vec::new();
    for equals in scored.chunk_by(|a, b| a.0 == b.0) {
        let wrong_share = equals.iter().filter(|(_, right)| !right).count() as f64 / equals.len() as f64;
        for _ in equals {
            kept += 1;
            wrong += wrong_share;
            risks += wrong / kept as f64;
        }
        let coverage = kept as f64 / scored.len() as f64;
        points.push(RiskPoint { coverage, risk: wrong / kept as f64, threshold: equals[0].0 });
    }
    Some(RiskCoverage { area: risks / scored.len() as f64, points: thinned(points) })
}

/// At most [`MAX_POINTS`], evenly chosen, with the first and the last.
fn thinned(points: Vec<RiskPoint>) -> Vec<RiskPoint> {
    if points.len() <= MAX_POINTS {
        return points;
    }
    (0..MAX_POINTS).map(|i| points[i * (points.len() - 1) / (MAX_POINTS - 1)]).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::super::tests::{any_clip, close, judged, table};
    use super::*;

    // numpy 2.4.6 on the same table (`c`: confidences, `r`: right or not):
    //   w = 1 - r[np.argsort(-c)]; risk = np.cumsum(w) / np.arange(1, 21); risk.mean(); risk[[4, 9, 14, 19]]

    #[test]
    fn the_curve_is_numpys() {
        let got = risk_coverage(&table()).unwrap();
        close(Some(got.area), 0.1915897170425034);
        assert_eq!(got.points.len(), 20);
        for (i, risk) in [(4, 0.0), (9, 0.2), (14, 1.0 / 3.0), (19, 0.45)] {
            close(Some(got.points[i].risk), risk);
        }
        assert!((got.points[0].threshold - 0.99).abs() < 1e-6);
    }

    #[test]
    fn equal_confidences_are_one_point_in_whatever_order() {
        let clips = [judged(0, 0, 0.5, true, 0), judged(0, 1, 0.5, true, 0)];
        let expected = vec![RiskPoint { coverage: 1.0, risk: 0.5, threshold: 0.5 }];
        assert_eq!(risk_coverage(&clips).unwrap(), RiskCoverage { area: 0.5, points: expected });
        assert_eq!(risk_coverage(clips.iter().rev()), risk_coverage(&clips));
    }

    #[test]
    fn a_long_list_is_thinned_and_keeps_its_ends() {
        let clips: Vec<Judged> = (0..1000).map(|i| judged(0, 0, i as f32 / 1000.0, true, 0)).collect();
        let got = risk_coverage(&clips).unwrap();
        assert_eq!(got.points.len(), MAX_POINTS);
        assert_eq!((got.points[0].coverage, got.points[MAX_POINTS - 1].coverage), (0.001, 1.0));
        assert_eq!(risk_coverage([]), None);
    }

    proptest! {
        #[test]
        fn it_ends_at_the_risk_of_everything(clips in proptest::collection::vec(any_clip(), 1..60)) {
            let got = risk_coverage(&clips).unwrap();
            let wrong = clips.iter().filter(|clip| !clip.is_right()).count() as f64 / clips.len() as f64;
            let last = got.points.last().unwrap();
            prop_assert_eq!(last.coverage, 1.0);
            prop_assert!((last.risk - wrong).abs() < 1e-9);
            prop_assert!(got.points.is_sorted_by(|a, b| a.coverage < b.coverage && a.threshold > b.threshold));
            prop_assert!((-1e-12..=1.0 + 1e-12).contains(&got.area));
        }
    }
}
