//! From an encoded window to words: one piece of async code over a small trait, for every device.
//!
//! Follows `openai/whisper` `decoding.py` and `transcribe.py` (v20240930): inference ([`SpeechModel`]),
//! logit filters ([`filters`]), token choice ([`greedy`], [`beam`]; `scan` has the passes over logits that they share), one
//! window with its fallbacks ([`window`]), and long audio by windows ([`transcribe`]) with segments ([`timestamps`]) and
//! words ([`word_timing`]). Read in that order. A CTC model has no decoder to ask: [`ctc`] reads its words from the
//! classes of each frame.
//!
//! Deviations: a clip of one window is padded as a waveform, as `transformers` does, not as a spectrogram;
//! the number of tokens can be bounded by the clip's length.

pub mod beam;
pub mod ctc;
mod ctc_beam;
pub mod filters;
pub mod greedy;
mod scan;
pub mod timestamps;
pub mod transcribe;
pub mod window;
pub mod word_timing;

use crate::error::Result;
pub use crate::tokenizer::SpeechTask;
pub(crate) use scan::{log_sum_exp, top};
pub use transcribe::{OnSegments, Segment, TranscribeOptions, Transcript, go_on, transcribe, transcribe_in_pieces};
pub use window::{DecodeOptions, DecodeResult, decode_window};
pub use word_timing::Word;

/// What decoding needs of a model.
#[allow(async_fn_in_trait, reason = "used by this crate's generic code only, never as a trait object")]
pub trait SpeechModel {
    /// One encoded window.
    type Window;
    /// What is remembered of the texts begun on a window.
    type Cache;

    /// Positions that a text may have.
    fn n_text_ctx(&self) -> usize;

    /// Encodes one window of log-mel frames, `[n_mels, n_frames]` row-major with `n_frames` those of a
    /// full window.
    async fn encode(&self, mel: &[f32]) -> Result<Self::Window>;

    /// Starts `batch` texts on a window.
    fn start(&self, window: &Self::Window, batch: usize) -> Self::Cache;

    /// Takes new tokens in, every beam as many, and gives the logits at the wanted ones of them:
    /// `[batch, at.len(), n_vocab]` row-major, as the product left them.
    async fn logits(&self, tokens: &[Vec<u32>], cache: &mut Self::Cache, at: &[usize]) -> Result<Vec<f32>>;

    /// Makes beam `i` continue what beam `source[i]` was.
    fn reorder(&self, cache: &mut Self::Cache, source: &[usize]);

    /// Attention of the heads that follow time, each `[n_tokens, n_audio_ctx]` row-major; empty if the
    /// model names none.
    async fn alignment(&self, window: &Self::Window, tokens: &[u32]) -> Result<Vec<Vec<f32>>>;
}
