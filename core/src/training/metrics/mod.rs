//! How good a head is, reckoned from plain lists of judged clips: no tensors, no files, no model.
//!
//! Read [`Judged`] first, then [`classification`] (accuracy, F1, confusion, what was accepted), [`calibration_error`],
//! [`mod@risk_coverage`], [`words`] (error rates, slots), [`mod@percentiles`], and [`bootstrap`] for the intervals around
//! all of them.
//!
//! The statistics follow scikit-learn 1.9, jiwer 4.0 and numpy 2.4 where those define one; each module's tests hold
//! them against numbers that these computed. A statistic of nothing is `None`, never 0 or NaN. Not for training: no
//! gradient comes from here.

pub mod bootstrap;
pub mod calibration_error;
pub mod classification;
pub mod percentiles;
pub mod risk_coverage;
pub mod words;

use serde::{Deserialize, Serialize};

pub use bootstrap::{Interval, RESAMPLES, bootstrap_interval, mean_over_seeds};
pub use calibration_error::{Binning, Calibration, ReliabilityBin, calibration, expected_calibration_error};
pub use classification::{
    ConfusedPair, LabelStats, accepted_share, accuracy, confusion, false_accept_share, macro_f1, per_label,
    top_confusions, wrong_accept_share,
};
pub use percentiles::{Percentiles, percentiles};
pub use risk_coverage::{RiskCoverage, RiskPoint, risk_coverage};
pub use words::{
    EditCounts, SlotCounts, character_error_rate, character_errors, slot_counts, word_error_rate, word_errors,
};

use crate::recognition::Rejection;

/// One clip, what it is and what was made of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Judged {
    /// The label it carries; `None` when it is no command.
    pub truth: Option<usize>,
    /// Labels and their probabilities, best first, the first five at least.
    pub predictions: Vec<(usize, f32)>,
    /// Probability of "none of the commands": what the labels leave of 1.
    pub none: f32,
    /// Whether a client may act on the best label.
    pub accepted: bool,
    /// Why not, when not.
    pub rejection: Option<Rejection>,
    /// Who speaks: clips of one group are not independent, and [`bootstrap`] draws them together.
    pub group: u32,
}

impl Judged {
    /// The best label, whatever was accepted.
    #[must_use]
    pub fn top(&self) -> Option<usize> {
        self.predictions.first().map(|(label, _)| *label)
    }

    /// The label that a client would act on.
    #[must_use]
    pub fn accepted_as(&self) -> Option<usize> {
        if self.accepted { self.top() } else { None }
    }

    /// Probability of the best label; 0 without one.
    #[must_use]
    pub fn confidence(&self) -> f32 {
        self.predictions.first().map_or(0.0, |(_, confidence)| *confidence)
    }

    /// Whether the best label is what was said; never for a clip that is no command.
    #[must_use]
    pub fn is_right(&self) -> bool {
        self.truth.is_some() && self.truth == self.top()
    }
}

/// `part / whole`, if there is a whole.
fn share(part: usize, whole: usize) -> Option<f64> {
    (whole > 0).then(|| part as f64 / whole as f64)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;

    /// (truth or -1, best label, confidence, accepted, speaker): the table that scikit-learn was given as well.
    pub(crate) const TABLE: [(i32, usize, f32, bool, u32); 20] = [
        (0, 0, 0.97, true, 0),
        (0, 0, 0.91, true, 0),
        (0, 1, 0.55, false, 1),
        (0, 0, 0.62, true, 1),
        (1, 1, 0.88, true, 0),
        (1, 1, 0.43, false, 1),
        (1, 2, 0.71, true, 2),
        (1, 1, 0.93, true, 2),
        (1, 1, 0.99, true, 2),
        (2, 2, 0.84, true, 0),
        (2, 0, 0.37, false, 1),
        (2, 2, 0.79, true, 1),
        (2, 1, 0.66, true, 2),
        (2, 2, 0.95, true, 2),
        (4, 4, 0.58, true, 0),
        (4, 2, 0.49, false, 2),
        (-1, 0, 0.28, false, 0),
        (-1, 2, 0.69, true, 1),
        (-1, 3, 0.74, true, 2),
        (-1, 1, 0.33, false, 2),
    ];

    /// [`TABLE`] has labels 0 to 4, of which nobody says 3.
    pub(crate) const N_LABELS: usize = 5;

    pub(crate) fn judged(truth: i32, best: usize, confidence: f32, accepted: bool, group: u32) -> Judged {
        let rejection = if accepted { None } else { Some(Rejection::LowConfidence) };
        let truth = usize::try_from(truth).ok();
        Judged { truth, predictions: vec![(best, confidence)], none: 1.0 - confidence, accepted, rejection, group }
    }

    pub(crate) fn table() -> Vec<Judged> {
        TABLE
            .iter()
            .map(|&(truth, best, confidence, accepted, group)| judged(truth, best, confidence, accepted, group))
            .collect()
    }

    pub(crate) fn any_clip() -> impl Strategy<Value = Judged> {
        (-1..5_i32, 0..N_LABELS, 0.0..=1.0_f32, any::<bool>(), 0..4_u32)
            .prop_map(|(truth, best, confidence, accepted, group)| judged(truth, best, confidence, accepted, group))
    }

    pub(crate) fn close(got: Option<f64>, expected: f64) {
        let got = got.unwrap();
        assert!((got - expected).abs() < 1e-9, "{got} is not {expected}");
    }

    #[test]
    fn a_clip_without_predictions_is_wrong_and_not_accepted_as_anything() {
        let clip = Judged { predictions: Vec::new(), accepted: true, ..judged(0, 0, 0.9, true, 0) };
        assert_eq!((clip.top(), clip.accepted_as(), clip.confidence(), clip.is_right()), (None, None, 0.0, false));
    }

    #[test]
    fn no_command_is_never_right() {
        assert!(!judged(-1, 0, 0.9, true, 0).is_right());
        assert!(judged(0, 0, 0.1, false, 0).is_right(), "right is about the label, not about acceptance");
    }

    #[test]
    fn it_is_written_and_read() {
        let clips = table();
        let text = serde_json::to_string(&clips).unwrap();
        assert_eq!(serde_json::from_str::<Vec<Judged>>(&text).unwrap(), clips);
    }
}
