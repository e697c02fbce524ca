//! An intent head at work: its encoder, its labels, what its numbers are worth, and how the words join in.

use burn::tensor::Tensor;

use super::answer::Verdict;
use crate::audio::LogMelExtractor;
use crate::error::Result;
use crate::intent::calibration::{
    Calibration, HeadRanking, MIN_PROBABILITY, RejectionClass, are_close, best_first, rank, softmax,
};
use crate::intent::head::IntentHead;
use crate::intent::text_match::IntentRanking;
use crate::intent::{built_in, label_id};
use crate::recognition::{IntentSource, Rejection};
use crate::whisper::AudioEncoder;

/// How near to a threshold an answer is looked at again.
const CLOSE_LOG_ODDS: f32 = 0.5;

/// An intent head, and the encoder that it reads.
pub struct AudioHead {
    pub(super) head: IntentHead,
    /// `None`: the Whisper that also writes the words.
    pub(super) own_encoder: Option<AudioEncoder>,
    pub(super) extractor: LogMelExtractor,
    /// The longest clip that it sees; what is longer is cut.
    pub(super) window_samples: usize,
    pub(super) labels: Vec<String>,
    /// The classes behind the labels.
    pub(super) rejection_classes: Vec<RejectionClass>,
    pub(super) calibration: Option<Calibration>,
}

impl std::fmt::Debug for AudioHead {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AudioHead").field("n_labels", &self.labels.len()).finish_non_exhaustive()
    }
}

impl AudioHead {
    /// In class order.
    #[must_use]
    pub fn labels(&self) -> &[String] {
        &self.labels
    }

    /// What its numbers are worth, if that was measured.
    #[must_use]
    pub fn calibration(&self) -> Option<&Calibration> {
        self.calibration.as_ref()
    }

    /// The classifier itself.
    #[must_use]
    pub fn head(&self) -> &IntentHead {
        &self.head
    }

    /// The encoder's states that the head reads.
    ///
    /// # Shapes
    /// - mel: `[1, n_mels, n_frames]`
    pub(crate) fn states(&self, encoder: &AudioEncoder, mel: Tensor<3>) -> Result<Vec<Tensor<3>>> {
        if self.head.needs_all_states() { encoder.forward_all(mel) } else { Ok(vec![encoder.forward(mel)?]) }
    }

    /// Whether so little decided about an answer that the error of 8-bit integers might have: of 1000 commands' answers 8 are others in
    /// 8-bit integers, 6 of them so close (ARCHITECTURE.md).
    pub(crate) fn is_close(&self, verdict: &Verdict) -> bool {
        let confidence = verdict.predictions.first().map_or(0.0, |(_, confidence)| *confidence);
        match &self.calibration {
            Some(Calibration { thresholds, .. }) => {
                let in_scope = verdict.predictions.iter().map(|(_, confidence)| confidence).sum();
                thresholds.are_near(in_scope, confidence, CLOSE_LOG_ODDS)
            }
            None => are_close(confidence, MIN_PROBABILITY, CLOSE_LOG_ODDS),
        }
    }

    /// What a clip's encoder states mean.
    pub(crate) async fn judge(&self, states: Vec<Tensor<3>>) -> Result<Verdict> {
        let answer = self.head.classify(states).await?.into_iter().next().unwrap_or_default();
        let HeadRanking { predictions, rejection } = self.rank(&answer.logits);
        Ok(Verdict { predictions, rejection, slots: Vec::new(), source: IntentSource::AudioHead })
    }

    fn rank(&self, logits: &[f32]) -> HeadRanking {
        if let Some(calibration) = &self.calibration {
            return calibration.rank(logits, &self.rejection_classes);
        }
        let others = self.rejection_classes.iter().map(|class| class.name().to_owned());
        let names: Vec<String> = self.labels.iter().cloned().chain(others).collect();
        let mut ranking = rank(&softmax(logits), &names);
        ranking.predictions.retain(|(class, _)| *class < self.labels.len());
        ranking
    }

    /// Sound and words as one answer. `None` if it was not fitted how to weigh them, or the words say nothing that can
    /// be compared.
    pub(crate) fn fuse(&self, by_sound: &Verdict, by_words: &IntentRanking) -> Option<Verdict> {
        let fusion = self.calibration.as_ref()?.fusion?;
        if by_words.predictions.is_empty() {
            return None;
        }
        let text = self.of_words(by_words)?;
        let mut audio = vec![0.0; self.labels.len()];
        by_sound.predictions.iter().for_each(|(class, confidence)| audio[*class] = *confidence);
        let (fused, none) = fusion.fuse(&audio, &text);
        let predictions = best_first(&fused);
        let rejection = match fusion.thresholds.judge(1.0 - none, &predictions) {
            // Words can be written of anything; that it is no speech only the sound tells.
            Some(Rejection::OutOfScope) if by_sound.rejection == Some(Rejection::NoSpeech) => Some(Rejection::NoSpeech),
            rejection => rejection,
        };
        Some(Verdict { predictions, rejection, slots: Vec::new(), source: IntentSource::Fused })
    }

    /// The words' answer over this head's labels; `None` if the words know nothing of one of them.
    fn of_words(&self, ranking: &IntentRanking) -> Option<Vec<f32>> {
        let mut probabilities = vec![0.0; built_in().len()];
        ranking.predictions.iter().for_each(|(class, confidence)| probabilities[*class] = *confidence);
        self.labels.iter().map(|label| label_id(label).map(|class| probabilities[class])).collect()
    }
}
