//! From what was found to the [`Recognition`] that a client gets.

use super::words::Words;
use super::{RecognizeOptions, Recognizer};
use crate::intent::text_match::IntentRanking;
use crate::language::DEFAULT_LANGUAGE;
use crate::recognition::{
    IntentSource, Prediction, Recognition, Rejection, Risk, RunInfo, RunWhere, Slot, TimingsMs, WhisperInfo,
};

/// What was decided about a clip, from its sound or from its words.
pub(crate) struct Verdict {
    /// `(class, confidence)`, best first.
    pub(crate) predictions: Vec<(usize, f32)>,
    /// Why the best one is not accepted, when it is not.
    pub(crate) rejection: Option<Rejection>,
    pub(crate) slots: Vec<Slot>,
    pub(crate) source: IntentSource,
}

impl Verdict {
    pub(crate) fn no_speech(source: IntentSource) -> Self {
        Self { predictions: Vec::new(), rejection: Some(Rejection::NoSpeech), slots: Vec::new(), source }
    }
}

impl From<IntentRanking> for Verdict {
    fn from(ranking: IntentRanking) -> Self {
        Self {
            predictions: ranking.predictions,
            rejection: ranking.rejection,
            slots: ranking.slots,
            source: IntentSource::Transcript,
        }
    }
}

impl Recognizer {
    pub(super) fn answer(
        &self,
        words: Words,
        verdict: Verdict,
        options: &RecognizeOptions,
        timings: TimingsMs,
    ) -> Recognition {
        let best = verdict.predictions.first().filter(|_| verdict.rejection.is_none()).map(|p| &self.intents[p.0]);
        let top_predictions: Vec<Prediction> = verdict
            .predictions
            .iter()
            .take(options.top_k)
            .enumerate()
            .map(|(index, (label_id, confidence))| Prediction {
                intent: self.intents[*label_id].intent.clone(),
                confidence: *confidence,
                index,
                label_id: *label_id,
            })
            .collect();
        let transcription = (options.transcribe && self.transcriber.is_some())
            .then(|| words.text.as_ref().map(|(_, text)| text.clone()).unwrap_or_default());
        Recognition {
            filename: String::new(),
            intent: best.map_or_else(|| "unknown".to_owned(), |b| b.intent.clone()),
            confidence: top_predictions.first().map_or(0.0, |p| p.confidence),
            accepted: best.is_some(),
            rejection: if best.is_some() { None } else { verdict.rejection.or(Some(Rejection::OutOfScope)) },
            transcription,
            processing_time_ms: timings.features + timings.encoder + timings.transcript + timings.intent,
            top_predictions,
            slots: if best.is_some() { verdict.slots } else { Vec::new() },
            risk: best.map_or(Risk::None, |b| b.risk),
            intent_source: verdict.source,
            model_type: self.info.model_type.clone(),
            whisper_info: WhisperInfo {
                model_size: self.info.model_size.clone(),
                language: words.language.unwrap_or_else(|| DEFAULT_LANGUAGE.to_owned()),
                decode_language: words.text.map(|(code, _)| code),
                transcription_confidence: words.confidence,
            },
            timings_ms: timings,
            run: RunInfo {
                place: RunWhere::Local,
                device: self.info.device.clone(),
                reason: "only_engine".to_owned(),
                bytes_sent: 0,
            },
            request_id: String::new(),
            cached: false,
        }
    }
}
