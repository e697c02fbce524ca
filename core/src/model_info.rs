//! What a model is, in words: `okyeame info` and `GET /model-info` print this.

use serde::{Deserialize, Serialize};

/// Words only, or words and an intent head.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(ts_rs::TS))]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Task {
    /// Transcription; the intent is matched from the words.
    Single,
    /// An intent head, and transcription where the model has a decoder.
    Multi,
}

/// A model's description. Names follow OpenAI's Whisper. What a kind of model does not have is left out.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(ts_rs::TS))]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ModelInfo {
    /// Repository id or folder name; never an absolute path.
    pub name: String,
    /// As `config.json` names it.
    pub architecture: String,
    /// The kind of engine, as in `Recognition.model_type`: `whisper`, `whisper_multitask`, `whisper_classifier` or
    /// `wav2vec2`.
    pub model_type: String,
    /// Single or multi.
    pub task: Task,
    /// Whether it writes words.
    pub transcription: bool,
    /// The repository of the base, for an intent head that comes alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, ts(optional))]
    pub base: Option<String>,
    /// `tiny`, `base`, …, or `custom`.
    pub model_size: String,
    /// Number of parameters.
    pub parameters: u64,
    /// `safetensors`, `pytorch` or `ctranslate2`.
    pub weight_format: String,
    /// The number type of most of the stored weights.
    pub stored_dtype: String,
    /// The number type that the device computes in.
    pub dtype: String,
    /// The device's short name.
    pub device: String,
    /// Why this device.
    pub device_reason: String,
    /// Mel channels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, ts(optional))]
    pub n_mels: Option<usize>,
    /// Encoder positions of a full window.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, ts(optional))]
    pub n_audio_ctx: Option<usize>,
    /// Encoder width.
    pub n_audio_state: usize,
    /// Encoder heads.
    pub n_audio_head: usize,
    /// Encoder layers.
    pub n_audio_layer: usize,
    /// Decoder positions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, ts(optional))]
    pub n_text_ctx: Option<usize>,
    /// Decoder layers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, ts(optional))]
    pub n_text_layer: Option<usize>,
    /// Tokens, or CTC classes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, ts(optional))]
    pub n_vocab: Option<usize>,
    /// Whether the model knows languages other than English.
    pub multilingual: bool,
    /// The language codes that the decoder has tokens for, or the one of the adapter in use.
    pub languages: Vec<String>,
    /// `full` or `fitted`: the window that the intent head reads.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, ts(optional))]
    pub head_window: Option<String>,
    /// The intent labels in class order.
    pub labels: Vec<String>,
    /// What the repository lacks or contradicts, and what stands in for it.
    pub fallbacks: Vec<String>,
}
