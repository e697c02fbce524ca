//! What a model is, in words: `okyeame info` and `GET /model-info` print this.

use serde::{Deserialize, Serialize};

/// Words only, or words and an intent head.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Task {
    /// Transcription; the intent is matched from the words.
    Single,
    /// Transcription and an intent head.
    Multi,
}

/// A model's description. Names follow OpenAI's Whisper.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ModelInfo {
    /// Repository id or folder name; never an absolute path.
    pub name: String,
    /// As `config.json` names it.
    pub architecture: String,
    /// The kind of engine, as in `Recognition.model_type`.
    pub model_type: String,
    /// Single or multi.
    pub task: Task,
    /// `tiny`, `base`, …, or `custom`.
    pub model_size: String,
    /// Number of parameters.
    pub parameters: u64,
    /// `safetensors`, `pytorch` or `ctranslate2`.
    pub weight_format: String,
    /// The number type that the device computes in.
    pub dtype: String,
    /// The device's short name.
    pub device: String,
    /// Mel channels.
    pub n_mels: usize,
    /// Encoder positions of a full window.
    pub n_audio_ctx: usize,
    /// Encoder width.
    pub n_audio_state: usize,
    /// Encoder heads.
    pub n_audio_head: usize,
    /// Encoder layers.
    pub n_audio_layer: usize,
    /// Decoder positions.
    pub n_text_ctx: usize,
    /// Decoder layers.
    pub n_text_layer: usize,
    /// Tokens.
    pub n_vocab: usize,
    /// Whether the model knows languages other than English.
    pub multilingual: bool,
    /// The language codes that the decoder has tokens for.
    pub languages: Vec<String>,
    /// The intent labels in class order.
    pub labels: Vec<String>,
    /// What the repository lacks, and what stands in for it.
    pub fallbacks: Vec<String>,
}
