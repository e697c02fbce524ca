//! `tests/golden/base/tokens.json` as `golden_base.rs` reads it: what the reference says about each clip.

use std::collections::BTreeMap;

use okyeame_core::tokenizer::SpeechTask;
use serde::Deserialize;

/// A lead smaller than this may turn with rounding.
const NEAR_TIE: f32 = 0.01;

#[derive(Deserialize)]
pub(crate) struct Golden {
    pub(crate) settings: Settings,
    pub(crate) clips: BTreeMap<String, ClipFacts>,
    pub(crate) greedy: Vec<Greedy>,
    pub(crate) greedy_on_fitted_window: Vec<Greedy>,
    pub(crate) beam: Vec<Beam>,
    pub(crate) language: BTreeMap<String, Language>,
    pub(crate) long_form: Vec<LongForm>,
    pub(crate) words: Vec<Words>,
    pub(crate) numbers: Numbers,
}

#[derive(Deserialize)]
pub(crate) struct Settings {
    pub(crate) suppress_tokens: Vec<u32>,
    pub(crate) begin_suppress_tokens: Vec<u32>,
    pub(crate) max_initial_timestamp_index: usize,
    pub(crate) alignment_heads: Vec<[usize; 2]>,
}

#[derive(Deserialize)]
pub(crate) struct ClipFacts {
    pub(crate) samples: usize,
    pub(crate) fitted_frames: usize,
    pub(crate) in_repository: bool,
}

#[derive(Deserialize)]
pub(crate) struct Greedy {
    pub(crate) clip: String,
    pub(crate) language: String,
    pub(crate) task: SpeechTask,
    pub(crate) timestamps: bool,
    pub(crate) max_new_tokens: Option<usize>,
    pub(crate) prompt: Vec<u32>,
    pub(crate) tokens: Vec<u32>,
    pub(crate) text: String,
    pub(crate) avg_logprob: f32,
    pub(crate) compression_ratio: f32,
    pub(crate) min_margin: f32,
    pub(crate) min_margin_at: usize,
    pub(crate) min_timestamp_rule_margin: Option<f32>,
}

impl Greedy {
    pub(crate) fn about(&self) -> String {
        let stamps = if self.timestamps { "with" } else { "without" };
        format!("{} in {}, {:?} {stamps} timestamps", self.clip, self.language, self.task)
    }

    /// The step at which the reference itself nearly said something else: the sequence counts up to there.
    pub(crate) fn near_tie(&self) -> Option<usize> {
        assert!(
            self.min_timestamp_rule_margin.is_none_or(|m| m > NEAR_TIE),
            "{}: say from which step on",
            self.about()
        );
        (self.min_margin < NEAR_TIE).then_some(self.min_margin_at)
    }
}

#[derive(Deserialize)]
pub(crate) struct Beam {
    pub(crate) clip: String,
    pub(crate) language: String,
    pub(crate) n_beams: usize,
    pub(crate) tokens: Vec<u32>,
    pub(crate) text: String,
    pub(crate) score: f32,
}

#[derive(Deserialize)]
pub(crate) struct Language {
    pub(crate) language: String,
    pub(crate) probabilities: BTreeMap<String, f32>,
    pub(crate) no_speech_prob: f32,
}

#[derive(Deserialize)]
pub(crate) struct LongForm {
    pub(crate) clip: String,
    pub(crate) condition_on_prev_tokens: bool,
    pub(crate) seek_frames: Vec<usize>,
    pub(crate) text: String,
    pub(crate) segments: Vec<SegmentFacts>,
}

#[derive(Deserialize)]
pub(crate) struct SegmentFacts {
    pub(crate) start_s: f64,
    pub(crate) end_s: f64,
    pub(crate) tokens: Vec<u32>,
    pub(crate) text: String,
}

#[derive(Deserialize)]
pub(crate) struct Words {
    pub(crate) clip: String,
    pub(crate) transformers: TransformersWords,
    pub(crate) ctranslate2_align: OpenAiWords,
}

#[derive(Deserialize)]
pub(crate) struct TransformersWords {
    pub(crate) tokens: Vec<u32>,
    /// Where each token ends; 0 for the first.
    pub(crate) token_s: Vec<f64>,
}

#[derive(Deserialize)]
pub(crate) struct OpenAiWords {
    pub(crate) text_tokens: Vec<u32>,
    /// Where each token begins, and where the last one ends.
    pub(crate) token_start_s: Vec<f64>,
}

#[derive(Deserialize)]
pub(crate) struct Numbers {
    pub(crate) clip: String,
    pub(crate) full: WindowNumbers,
    pub(crate) fitted: WindowNumbers,
}

#[derive(Deserialize)]
pub(crate) struct WindowNumbers {
    pub(crate) n_frames: usize,
    pub(crate) n_audio_ctx: usize,
    pub(crate) first_step: LogitNumbers,
    pub(crate) sot: LogitNumbers,
}

#[derive(Deserialize)]
pub(crate) struct LogitNumbers {
    pub(crate) prompt: Vec<u32>,
    pub(crate) top_ids: Vec<usize>,
    pub(crate) top_logits: Vec<f32>,
    pub(crate) logsumexp: f32,
    pub(crate) mean: f32,
}
