//! What an intent head's numbers are worth: probabilities that can be believed, and thresholds for acting on them.
//!
//! `calibration.json` lies beside the weights and is written by training, from clips that training did not see:
//!
//! ```json
//! {"version": 1, "temperature": 1.4,
//!  "thresholds": {"in_scope_below": 0.5, "confidence_below": 0.45, "ambiguous_above": 0.5},
//!  "fusion": {"audio": 0.9, "text": 0.3, "none": -0.2, "thresholds": {…}},
//!  "trade_off": "a sentence on how the thresholds were chosen", "fitted_on": {"clips": 2312}}
//! ```
//! - **temperature** (Guo et al., "On Calibration of Modern Neural Networks", 2017): logits are divided by it before
//!   the softmax over all labels and the rejection classes.
//! - **thresholds**: see [`Thresholds::judge`].
//! - **fusion**: weights of the log-probabilities of the sound and of the words, and what is added for "none of them":
//!   a log-linear pool, as in Heskes, "Selecting weighting factors in logarithmic opinion pools", 1997.
//!
//! A head without such a file is [`rank`]ed by thresholds that are sensible without knowing it.

use serde::{Deserialize, Serialize};

use crate::error::Result;
use crate::recognition::Rejection;
use crate::whisper::config::invalid;

/// The file beside the weights.
pub const CALIBRATION_FILE: &str = "calibration.json";
/// Of the file's form.
const VERSION: u32 = 1;

/// Below this the best class of an uncalibrated head is not acted on: with less than half, the others together are
/// likelier.
pub const MIN_PROBABILITY: f32 = 0.5;
/// Two classes nearer than this fit about equally well.
pub const MIN_LEAD: f32 = 0.1;
/// Labels that stand for "none of the shop's commands", in lower case with underscores.
pub const OUT_OF_SCOPE_LABELS: [&str; 7] =
    ["unknown", "none", "out_of_scope", "other", "no_intent", "silence", "no_speech"];

/// Below this a probability is as good as none; keeps one side of a fusion from being certain.
const FLOOR: f32 = 1e-5;

/// Classes of a head that are no label: behind the labels, in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RejectionClass {
    /// Speech that is none of the commands.
    OutOfScope,
    /// Sound that is no speech.
    NoSpeech,
}

impl RejectionClass {
    /// `out_of_scope` or `no_speech`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::OutOfScope => "out_of_scope",
            Self::NoSpeech => "no_speech",
        }
    }
}

impl From<RejectionClass> for Rejection {
    fn from(class: RejectionClass) -> Self {
        match class {
            RejectionClass::OutOfScope => Self::OutOfScope,
            RejectionClass::NoSpeech => Self::NoSpeech,
        }
    }
}

/// When the best label is not acted on.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Thresholds {
    /// Below this probability of being a command at all: `out_of_scope`, or `no_speech`.
    pub in_scope_below: f32,
    /// Below this confidence of the best intent: `ambiguous` or `low_confidence`.
    pub confidence_below: f32,
    /// `ambiguous` if the second intent has more than this share of the first's confidence.
    pub ambiguous_above: f32,
}

/// Whether two probabilities are less than `log_odds` apart.
pub(crate) fn are_close(one: f32, other: f32, log_odds: f32) -> bool {
    let of = |p: f32| (p / (1.0 - p)).ln();
    (of(one) - of(other)).abs() < log_odds
}

impl Thresholds {
    /// Whether `confidence`, the best intent's, or `in_scope` is nearer to its threshold than `log_odds`.
    pub(crate) fn are_near(&self, in_scope: f32, confidence: f32, log_odds: f32) -> bool {
        are_close(confidence, self.confidence_below, log_odds) || are_close(in_scope, self.in_scope_below, log_odds)
    }

    /// Why the best of `predictions` (best first) is not to be acted on; `None` if it is.
    #[must_use]
    pub fn judge(&self, in_scope: f32, predictions: &[(usize, f32)]) -> Option<Rejection> {
        let confidence = |at: usize| predictions.get(at).map_or(0.0, |p| p.1);
        if in_scope < self.in_scope_below {
            Some(Rejection::OutOfScope)
        } else if confidence(0) >= self.confidence_below {
            None
        } else if confidence(1) > self.ambiguous_above * confidence(0) {
            Some(Rejection::Ambiguous)
        } else {
            Some(Rejection::LowConfidence)
        }
    }

    fn check(&self) -> std::result::Result<(), String> {
        let named = [self.in_scope_below, self.confidence_below, self.ambiguous_above];
        match named.iter().find(|t| !(0.0..=1.0).contains(*t)) {
            Some(wrong) => Err(format!("a threshold is {wrong}; each is a probability, 0 to 1")),
            None => Ok(()),
        }
    }
}

/// How the sound's answer and the words' are put together.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fusion {
    /// Weight of the sound's log-probabilities.
    pub audio: f32,
    /// Weight of the words'.
    pub text: f32,
    /// Added to the log-probability of "none of them".
    pub none: f32,
    /// For the fused answer.
    pub thresholds: Thresholds,
}

impl Fusion {
    /// The fused probabilities: of each label, and of none of them; they sum to 1.
    ///
    /// `audio` and `text` hold a probability per label, in label order; what they lack to 1 is "none".
    ///
    /// # Panics
    /// If the lengths differ.
    #[must_use]
    pub fn fuse(&self, audio: &[f32], text: &[f32]) -> (Vec<f32>, f32) {
        assert_eq!(audio.len(), text.len(), "both speak of the same labels");
        let none = |p: &[f32]| (1.0 - p.iter().sum::<f32>()).max(0.0);
        let log = |audio: f32, text: f32| self.audio * audio.max(FLOOR).ln() + self.text * text.max(FLOOR).ln();
        let mut logits: Vec<f32> = audio.iter().zip(text).map(|(a, t)| log(*a, *t)).collect();
        logits.push(log(none(audio), none(text)) + self.none);
        let mut fused = softmax(&logits);
        let none = fused.pop().unwrap_or_default();
        (fused, none)
    }

    fn check(&self) -> std::result::Result<(), String> {
        let weights = [self.audio, self.text];
        if !self.none.is_finite() || weights.iter().any(|w| !w.is_finite() || *w < 0.0) {
            return Err("fusion: its weights are finite numbers, those of audio and text not negative".to_owned());
        }
        self.thresholds.check()
    }
}

/// `calibration.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Calibration {
    /// Of this form.
    pub version: u32,
    /// Logits are divided by it.
    pub temperature: f32,
    /// For the sound's answer alone.
    pub thresholds: Thresholds,
    /// With the words; `None` if that was not fitted: the sound's answer stands.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fusion: Option<Fusion>,
    /// How the thresholds were chosen, for people.
    #[serde(default)]
    pub trade_off: String,
    /// What it was fitted on, for people.
    #[serde(default)]
    pub fitted_on: serde_json::Value,
}

impl Calibration {
    /// A calibration of the form that is written now.
    #[must_use]
    pub fn new(temperature: f32, thresholds: Thresholds) -> Self {
        Self {
            version: VERSION,
            temperature,
            thresholds,
            fusion: None,
            trade_off: String::new(),
            fitted_on: serde_json::Value::Null,
        }
    }

    /// Reads the file.
    ///
    /// # Errors
    /// [`crate::Error::InvalidConfig`] if it is not this form, of another version, or has numbers that make no sense.
    pub fn parse(json: &[u8]) -> Result<Self> {
        let wrong = |reason: String| invalid(CALIBRATION_FILE, reason);
        let calibration: Self = serde_json::from_slice(json).map_err(|e| wrong(e.to_string()))?;
        if calibration.version != VERSION {
            return Err(wrong(format!("it has version {}, only {VERSION} is read", calibration.version)));
        }
        if !(1e-3..=1e3).contains(&calibration.temperature) {
            return Err(wrong(format!("the temperature is {}; it must be 0.001 to 1000", calibration.temperature)));
        }
        calibration.thresholds.check().map_err(wrong)?;
        if let Some(fusion) = &calibration.fusion {
            fusion.check().map_err(wrong)?;
        }
        Ok(calibration)
    }

    /// Ranks the labels by the head's logits; those behind the labels belong to `rejection_classes`.
    #[must_use]
    pub fn rank(&self, logits: &[f32], rejection_classes: &[RejectionClass]) -> HeadRanking {
        let probabilities = self.probabilities(logits);
        let n_labels = probabilities.len().saturating_sub(rejection_classes.len());
        let (labels, others) = probabilities.split_at(n_labels);
        let predictions = best_first(labels);
        let in_scope: f32 = labels.iter().sum();
        let rejection = self.thresholds.judge(in_scope, &predictions).map(|rejection| {
            let likeliest = others.iter().zip(rejection_classes).max_by(|a, b| a.0.total_cmp(b.0));
            match likeliest {
                Some((_, class)) if rejection == Rejection::OutOfScope => (*class).into(),
                _ => rejection,
            }
        });
        HeadRanking { predictions, rejection }
    }

    /// The probability of every class, labels and others.
    #[must_use]
    pub fn probabilities(&self, logits: &[f32]) -> Vec<f32> {
        softmax(&logits.iter().map(|logit| logit / self.temperature).collect::<Vec<_>>())
    }
}

/// The classes of one answer, and whether to act on the best.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct HeadRanking {
    /// (class, probability) of every label, best first. What they lack to 1 is "none of them".
    pub predictions: Vec<(usize, f32)>,
    /// Why the best one should not be acted on; `None` if it may be.
    pub rejection: Option<Rejection>,
}

/// Classes by their probability, the best first, then by their number.
#[must_use]
pub fn best_first(probabilities: &[f32]) -> Vec<(usize, f32)> {
    // A probability that is no number counts as 0.
    let number = |p: f32| if p.is_finite() { p } else { 0.0 };
    let mut predictions: Vec<(usize, f32)> = probabilities.iter().map(|p| number(*p)).enumerate().collect();
    predictions.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
    predictions
}

/// Probabilities of finite logits; they sum to 1.
#[must_use]
pub fn softmax(logits: &[f32]) -> Vec<f32> {
    let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let weights: Vec<f64> = logits.iter().map(|v| f64::from(v - max).exp()).collect();
    let sum: f64 = weights.iter().sum();
    weights.iter().map(|w| (w / sum) as f32).collect()
}

/// Ranks the classes of a head that nobody calibrated.
///
/// The best is rejected if it is one of [`OUT_OF_SCOPE_LABELS`], if it has less than [`MIN_PROBABILITY`], or if it
/// leads by less than [`MIN_LEAD`]: the first of these that holds is the reason. A probability that is no number counts
/// as 0.
#[must_use]
pub fn rank(probabilities: &[f32], labels: &[String]) -> HeadRanking {
    let predictions = best_first(probabilities);
    let probability = |at: usize| predictions.get(at).map_or(0.0, |p| p.1);
    let rejection = if predictions.first().is_some_and(|(class, _)| is_out_of_scope(labels.get(*class))) {
        Some(Rejection::OutOfScope)
    } else if probability(0) < MIN_PROBABILITY {
        Some(Rejection::LowConfidence)
    } else if probability(0) - probability(1) < MIN_LEAD {
        Some(Rejection::Ambiguous)
    } else {
        None
    };
    HeadRanking { predictions, rejection }
}

/// Whether a label stands for "none of the shop's commands"; `Out-of-scope` is one as well.
fn is_out_of_scope(label: Option<&String>) -> bool {
    label.is_some_and(|label| {
        let plain = label.trim().to_ascii_lowercase().replace(['-', ' '], "_");
        // Speech-command data sets call them _unknown_ and _silence_.
        OUT_OF_SCOPE_LABELS.contains(&plain.trim_matches('_'))
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    const THRESHOLDS: Thresholds = Thresholds { in_scope_below: 0.5, confidence_below: 0.4, ambiguous_above: 0.5 };

    fn file() -> Value {
        json!({
            "version": 1, "temperature": 2.0, "thresholds": THRESHOLDS, "trade_off": "", "fitted_on": {"clips": 3},
            "fusion": {"audio": 1.0, "text": 0.5, "none": 0.1, "thresholds": THRESHOLDS},
        })
    }

    fn parsed(file: &Value) -> std::result::Result<Calibration, String> {
        Calibration::parse(file.to_string().as_bytes()).map_err(|e| e.to_string())
    }

    #[test]
    fn near_is_by_log_odds_of_either_threshold() {
        let thresholds = Thresholds { in_scope_below: 0.02, confidence_below: 0.72, ambiguous_above: 0.5 };
        // 0.72 has log-odds of 0.94, 0.8 of 1.39, 0.81 of 1.45, 0.61 of 0.45; 0.02 has -3.89, 0.033 has -3.38.
        for (in_scope, confidence, expected) in [
            (0.99, 0.74, true),
            (0.99, 0.80, true),
            (0.99, 0.81, false),
            (0.99, 0.62, true),
            (0.99, 0.60, false),
            (0.99, 0.9999, false),
            (0.032, 0.03, true),
            (0.034, 0.03, false),
            (1.0, 1.0, false),
            (0.0, 0.0, false),
            (f32::NAN, f32::NAN, false),
        ] {
            assert_eq!(thresholds.are_near(in_scope, confidence, 0.5), expected, "{in_scope}, {confidence}");
        }
        // No answer is near to a threshold that all or none pass.
        let none = Thresholds { in_scope_below: 0.0, confidence_below: 1.0, ambiguous_above: 1.0 };
        assert!([0.0, 0.5, 1.0].into_iter().all(|p| !none.are_near(p, p, 0.5)));
    }

    #[test]
    fn a_file_is_read_as_it_was_written() {
        let calibration = parsed(&file()).unwrap();
        assert_eq!(calibration.fusion.unwrap().text, 0.5);
        assert_eq!(serde_json::to_value(&calibration).unwrap()["thresholds"]["ambiguous_above"], 0.5);
        let again = Calibration::parse(&serde_json::to_vec(&calibration).unwrap()).unwrap();
        assert_eq!(again, calibration);
    }

    #[test]
    fn numbers_that_make_no_sense_are_refused() {
        let set = |path: &str, value: Value| {
            let mut file = file();
            *file.pointer_mut(path).unwrap() = value;
            parsed(&file).unwrap_err()
        };
        assert!(set("/version", json!(2)).contains("version 2"));
        for temperature in [json!(0.0), json!(-1.0), json!(1e9), json!("x"), Value::Null] {
            assert!(set("/temperature", temperature).starts_with("calibration.json cannot be used"));
        }
        assert!(set("/thresholds/confidence_below", json!(1.5)).contains("probability"));
        assert!(set("/fusion/audio", json!(-1.0)).contains("fusion"));
        assert!(set("/fusion/thresholds/in_scope_below", json!(-0.1)).contains("probability"));
        for bytes in [&b""[..], b"{", b"[]", b"\xff", br#"{"version": 1}"#] {
            assert_eq!(Calibration::parse(bytes).unwrap_err().code(), "invalid_config");
        }
    }

    #[test]
    fn the_temperature_divides_and_the_rejection_classes_are_no_labels() {
        let calibration = Calibration::new(2.0, THRESHOLDS);
        let classes = [RejectionClass::OutOfScope, RejectionClass::NoSpeech];
        // e^(x / 2) = 3, 1, 1, 1
        let ranking = calibration.rank(&[3f32.ln() * 2.0, 0.0, 0.0, 0.0], &classes);
        assert_eq!(ranking.rejection, None);
        assert_eq!(ranking.predictions.len(), 2);
        assert!((ranking.predictions[0].1 - 0.5).abs() < 1e-6 && (ranking.predictions[1].1 - 1.0 / 6.0).abs() < 1e-6);
        let rejection = |logits: &[f32]| calibration.rank(logits, &classes).rejection;
        assert_eq!(rejection(&[0.0, 0.0, 5.0, 1.0]), Some(Rejection::OutOfScope));
        assert_eq!(rejection(&[0.0, 0.0, 1.0, 5.0]), Some(Rejection::NoSpeech));
        // 3, 3, 1, 1 over 8: in scope, but two of them
        assert_eq!(rejection(&[3f32.ln() * 2.0, 3f32.ln() * 2.0, 0.0, 0.0]), Some(Rejection::Ambiguous));
        let strict = Calibration::new(1.0, Thresholds { confidence_below: 0.9, ..THRESHOLDS });
        assert_eq!(strict.rank(&[2.0, 0.0, 0.0, 0.0], &classes).rejection, Some(Rejection::LowConfidence));
    }

    #[test]
    fn a_fusion_weighs_both_sides() {
        let fusion = |audio, text| Fusion { audio, text, none: 0.0, thresholds: THRESHOLDS };
        let (sound, words) = ([0.7, 0.1], [0.1, 0.8]);
        let near = |got: (Vec<f32>, f32), expected: [f32; 3]| {
            let got = [got.0[0], got.0[1], got.1];
            assert!(got.iter().zip(expected).all(|(g, e)| (g - e).abs() < 1e-4), "{got:?}");
        };
        near(fusion(1.0, 0.0).fuse(&sound, &words), [0.7, 0.1, 0.2]);
        near(fusion(0.0, 1.0).fuse(&sound, &words), [0.1, 0.8, 0.1]);
        // products 0.07, 0.08, 0.02
        near(fusion(1.0, 1.0).fuse(&sound, &words), [0.07 / 0.17, 0.08 / 0.17, 0.02 / 0.17]);
        // Nobody is so sure that the other is not heard.
        let (fused, _) = fusion(1.0, 1.0).fuse(&[1.0, 0.0], &[0.0, 1.0]);
        assert!((fused[0] - fused[1]).abs() < 1e-6);
    }

    fn ranked(answer: &[(&str, f32)]) -> (usize, Option<Rejection>) {
        let labels: Vec<String> = answer.iter().map(|(label, _)| (*label).to_owned()).collect();
        let probabilities: Vec<f32> = answer.iter().map(|(_, p)| *p).collect();
        let ranking = rank(&probabilities, &labels);
        assert_eq!(ranking.predictions.len(), answer.len());
        (ranking.predictions[0].0, ranking.rejection)
    }

    #[test]
    fn the_best_is_acted_on_only_if_it_leads() {
        assert_eq!(ranked(&[("search", 0.1), ("checkout", 0.9)]), (1, None));
        assert_eq!(ranked(&[("search", 0.56), ("checkout", 0.44)]), (0, None));
        assert_eq!(ranked(&[("search", 0.52), ("checkout", 0.48)]), (0, Some(Rejection::Ambiguous)));
        assert_eq!(ranked(&[("search", 0.4), ("help", 0.3), ("go_back", 0.3)]), (0, Some(Rejection::LowConfidence)));
        for label in ["unknown", "none", "out_of_scope", "other", "no_intent", "Out-of-Scope", " NONE "] {
            assert_eq!(ranked(&[("search", 0.05), (label, 0.95)]), (1, Some(Rejection::OutOfScope)), "{label}");
        }
        assert_eq!(ranked(&[("search", 0.9), ("unknown", 0.1)]), (0, None));
        assert_eq!(ranked(&[("search", f32::NAN), ("help", 0.8)]), (1, None));
        assert_eq!(rank(&[], &[]).rejection, Some(Rejection::LowConfidence));
    }

    proptest! {
        #[test]
        fn ranking_is_an_order_of_the_classes(probabilities in prop::collection::vec(prop::num::f32::ANY, 0..20)) {
            let ranking = rank(&probabilities, &["search".to_owned()]);
            let mut classes: Vec<usize> = ranking.predictions.iter().map(|(class, _)| *class).collect();
            prop_assert!(ranking.predictions.windows(2).all(|w| w[0].1 >= w[1].1));
            classes.sort_unstable();
            prop_assert!(classes.into_iter().eq(0..probabilities.len()));
        }

        #[test]
        fn probabilities_sum_to_one(logits in prop::collection::vec(-1e30f32..1e30, 1..50)) {
            let probabilities = softmax(&logits);
            prop_assert!((probabilities.iter().sum::<f32>() - 1.0).abs() < 1e-5);
            let best = |values: &[f32]| values.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            for (p, v) in probabilities.iter().zip(&logits) {
                prop_assert!((0.0..=1.0).contains(p));
                prop_assert!(*v < best(&logits) || *p == best(&probabilities));
            }
        }
    }
}
