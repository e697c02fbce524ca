//! All that one evaluation of a head found out: data only, written as `evaluation.json` and drawn by the report.
//!
//! Shares are in `0.0..=1.0`, times in milliseconds a clip. A figure that there was nothing to measure by is `None`.
//! Nothing is reckoned here; see [`super::metrics`].

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::metrics::{Interval, Percentiles, ReliabilityBin, RiskPoint};

/// One evaluation of one head.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Evaluation {
    /// What was evaluated.
    pub model: ModelFacts,
    /// On what.
    pub data: DataFacts,
    /// The same training with other seeds, one entry each.
    pub seeds: Vec<SeedResult>,
    /// Parts of the data, the headline first.
    pub splits: Vec<SplitResult>,
    /// What is no command, by kind.
    pub out_of_scope: Vec<OutOfScopeResult>,
    /// Commands with noise, by its kind and strength.
    pub noise: Vec<NoiseResult>,
    /// What was accepted as what, on the headline split and all that is no command.
    pub confusion: ConfusionTable,
    /// The most frequent mistakes that were acted on.
    pub top_confusions: Vec<NamedConfusion>,
    /// Confidence against accuracy.
    pub reliability: Vec<ReliabilityBin>,
    /// Error against the share of clips answered.
    pub risk_coverage: Vec<RiskPoint>,
    /// Area under that curve.
    pub risk_coverage_area: Option<f64>,
    /// Each intent.
    pub intents: Vec<IntentResult>,
    /// Each speaker of the test sets.
    pub speakers: Vec<SpeakerResult>,
    /// The words, where they were decoded.
    pub words: Option<WordsResult>,
    /// Where the time goes.
    pub timings: TimingsResult,
    /// What is asked of an answer before it is accepted, by name.
    pub thresholds: BTreeMap<String, f64>,
    /// Logits are divided by this.
    pub temperature: f64,
    /// What was aimed at.
    pub targets: Vec<Target>,
    /// The command line that made this.
    pub command: String,
    /// What it ran on.
    pub machine: String,
    /// When, ISO 8601.
    pub date: String,
    /// Version of this program.
    pub okyeame: String,
    /// What a reader has to know as well.
    pub notes: Vec<String>,
    /// How training went, if it is known.
    pub training: Option<Vec<EpochPoint>>,
}

/// The model.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ModelFacts {
    /// Its name: the folder's.
    pub name: String,
    /// The model whose encoder it stands on.
    pub base: String,
    /// In class order.
    pub labels: Vec<String>,
    /// Parameters of the head.
    pub parameters: u64,
    /// Size of the head's weights.
    pub head_bytes: u64,
}

/// The data.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct DataFacts {
    /// The manifest's file name.
    pub manifest: String,
    /// Clips of each part and kind.
    pub counts: Vec<CellCount>,
    /// Speakers in the test sets: few make wide or unsure intervals.
    pub test_speakers: usize,
    /// Whether speech synthesis spoke any of the clips.
    pub synthetic: bool,
    /// Where the clips are from.
    pub note: String,
}

/// Clips of one part and kind.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CellCount {
    /// The part of the split, such as `train` or `test_voice`.
    pub cell: String,
    /// The kind of clip, such as `command` or `talk`.
    pub kind: String,
    /// Clips.
    pub n: usize,
}

/// One training among several seeds.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct SeedResult {
    /// The seed.
    pub seed: u64,
    /// Accuracy on the headline split.
    pub accuracy: Option<f64>,
    /// Mean F1 over the labels there.
    pub macro_f1: Option<f64>,
    /// Share of commands accepted there.
    pub accepted: Option<f64>,
    /// Share of commands accepted as another there.
    pub wrong_accepts: Option<f64>,
    /// Share of clips accepted that are no command, over all kinds.
    pub false_accepts: Option<f64>,
}

/// One part of the data.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct SplitResult {
    /// As in the split file, such as `test_voice`.
    pub name: String,
    /// For people, such as "Unseen speakers".
    pub title: String,
    /// Clips.
    pub n: usize,
    /// Best label right, whatever was accepted.
    pub accuracy: Option<Interval>,
    /// Mean F1 over the labels, by what was accepted.
    pub macro_f1: Option<Interval>,
    /// Share of commands accepted.
    pub accepted: Option<Interval>,
    /// Share of commands accepted as another.
    pub wrong_accepts: Option<Interval>,
    /// Expected calibration error.
    pub ece: Option<Interval>,
}

/// One kind of clip that is no command.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct OutOfScopeResult {
    /// Such as `talk` or `music`.
    pub kind: String,
    /// Clips.
    pub n: usize,
    /// Share accepted as a command.
    pub false_accepts: Option<Interval>,
}

/// Commands under one noise.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct NoiseResult {
    /// Signal above noise; `None` for the clips as they are.
    pub snr_db: Option<f32>,
    /// Such as `babble` or `street`.
    pub kind: String,
    /// Clips.
    pub n: usize,
    /// Best label right.
    pub accuracy: Option<Interval>,
    /// Share accepted.
    pub accepted: Option<Interval>,
}

/// A confusion matrix with its labels.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ConfusionTable {
    /// In class order, without "no command" and "rejected".
    pub labels: Vec<String>,
    /// As [`super::metrics::confusion`]: one row and one column more than there are labels.
    pub rows: Vec<Vec<u32>>,
}

/// One mistake and how often.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NamedConfusion {
    /// What was said; empty when it was no command.
    pub truth: String,
    /// What it was accepted as.
    pub accepted_as: String,
    /// How often.
    pub count: u32,
}

/// One intent.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct IntentResult {
    /// The label.
    pub intent: String,
    /// Clips.
    pub n: usize,
    /// Share of them accepted as it.
    pub recall: Option<f64>,
    /// Share of what was accepted as it that is it.
    pub precision: Option<f64>,
    /// Harmonic mean of the two.
    pub f1: Option<f64>,
    /// Share of them accepted as anything.
    pub accepted: Option<f64>,
}

/// One speaker.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct SpeakerResult {
    /// As in the manifest.
    pub speaker: String,
    /// Clips.
    pub n: usize,
    /// Best label right.
    pub accuracy: Option<f64>,
    /// Share accepted.
    pub accepted: Option<f64>,
}

/// The words and what was read from them.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct WordsResult {
    /// Clips.
    pub n: usize,
    /// Word error rate.
    pub wer: Option<f64>,
    /// Character error rate.
    pub cer: Option<f64>,
    /// Slots: harmonic mean of the next two.
    pub slot_f1: Option<f64>,
    /// Slots: share of what was found that is right.
    pub slot_precision: Option<f64>,
    /// Slots: share of what was to be found.
    pub slot_recall: Option<f64>,
    /// Intent accuracy by the head alone.
    pub accuracy_audio: Option<f64>,
    /// Intent accuracy by the words alone.
    pub accuracy_words: Option<f64>,
    /// Intent accuracy by both.
    pub accuracy_fused: Option<f64>,
}

/// Milliseconds a clip.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct TimingsResult {
    /// Clips timed.
    pub n: usize,
    /// The audio encoder.
    pub encoder: Option<Percentiles>,
    /// The head.
    pub head: Option<Percentiles>,
    /// From samples to answer.
    pub total: Option<Percentiles>,
}

/// A target and whether it was met.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Target {
    /// What is measured.
    pub name: String,
    /// What was asked, such as "at least 95 %".
    pub bar: String,
    /// What came out, such as "96.2 % (94.8 to 97.3)".
    pub got: String,
    /// Whether that is enough.
    pub met: bool,
}

/// One epoch of training.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct EpochPoint {
    /// From 1 on.
    pub epoch: usize,
    /// Mean loss over the training clips.
    pub train_loss: f64,
    /// Share of them right.
    pub train_accuracy: f64,
    /// Mean loss over the validation clips; `None` without any.
    pub validation_loss: Option<f64>,
    /// Share of them right.
    pub validation_accuracy: Option<f64>,
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn it_is_read_as_it_was_written_and_what_is_missing_is_empty() {
        let interval = Some(Interval { value: 0.9, low: 0.85, high: 0.94 });
        let evaluation = Evaluation {
            splits: vec![SplitResult {
                name: "test_voice".into(),
                n: 40,
                accuracy: interval,
                ..SplitResult::default()
            }],
            thresholds: BTreeMap::from([("accept".to_owned(), 0.6)]),
            training: Some(vec![EpochPoint { epoch: 1, train_loss: 3.5, ..EpochPoint::default() }]),
            temperature: 1.5,
            ..Evaluation::default()
        };
        let text = serde_json::to_string_pretty(&evaluation).unwrap();
        assert_eq!(serde_json::from_str::<Evaluation>(&text).unwrap(), evaluation);
        assert_eq!(serde_json::from_str::<Evaluation>("{}").unwrap(), Evaluation::default());
    }
}
