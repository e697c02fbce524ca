//! What a Whisper checkpoint's JSON files say.
//!
//! Field names are Hugging Face's (serde reads them as they stand); the rest of this crate speaks
//! OpenAI's. The pairs, as in `openai/whisper` `model.py` `ModelDimensions` and
//! `transformers` `configuration_whisper.py`:
//!
//! | OpenAI | Hugging Face |
//! |---|---|
//! | `n_mels` | `num_mel_bins` |
//! | `n_audio_ctx` | `max_source_positions` |
//! | `n_audio_state`, `n_text_state` | `d_model` |
//! | `n_audio_head` | `encoder_attention_heads` |
//! | `n_audio_layer` | `encoder_layers` |
//! | `n_text_ctx` | `max_target_positions` |
//! | `n_text_head` | `decoder_attention_heads` |
//! | `n_text_layer` | `decoder_layers` |
//! | `n_vocab` | `vocab_size` |
//! | `n_state * 4` | `encoder_ffn_dim`, `decoder_ffn_dim` |

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result, printable};
use crate::weights::n_elements;

/// `config.json` of a Whisper checkpoint.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WhisperConfig {
    /// Width of both stacks.
    pub d_model: usize,
    /// Encoder layers.
    pub encoder_layers: usize,
    /// Encoder heads.
    pub encoder_attention_heads: usize,
    /// Encoder MLP width.
    pub encoder_ffn_dim: usize,
    /// Decoder layers.
    pub decoder_layers: usize,
    /// Decoder heads.
    pub decoder_attention_heads: usize,
    /// Decoder MLP width.
    pub decoder_ffn_dim: usize,
    /// Mel channels.
    pub num_mel_bins: usize,
    /// Encoder positions of a full window.
    pub max_source_positions: usize,
    /// Decoder positions.
    pub max_target_positions: usize,
    /// Tokens.
    pub vocab_size: usize,
    /// Whether token embeddings are scaled by `sqrt(d_model)`; false in every released Whisper.
    #[serde(default)]
    pub scale_embedding: bool,
    /// Only `gelu` (the exact one) is known.
    #[serde(default = "default_activation")]
    pub activation_function: String,
    /// As the checkpoint names its class.
    #[serde(default)]
    pub architectures: Vec<String>,
    /// Tokens never to be produced.
    #[serde(default)]
    pub suppress_tokens: Option<Vec<i64>>,
    /// Tokens not to be produced first.
    #[serde(default)]
    pub begin_suppress_tokens: Option<Vec<i64>>,
}

fn default_activation() -> String {
    "gelu".to_owned()
}

/// Larger than any Whisper by a wide margin; keeps a hostile config from asking for all memory.
const MAX_WIDTH: usize = 16_384;
const MAX_LAYERS: usize = 128;
const MAX_POSITIONS: usize = 65_536;
const MAX_VOCAB: usize = 1_048_576;
/// Numbers of one activation or cache: large-v3 has 7.7 million of the first and 18 million of the second.
const MAX_PRODUCT: u64 = 1 << 26;

impl WhisperConfig {
    /// Reads and checks `config.json`.
    ///
    /// # Errors
    /// [`Error::InvalidConfig`] if it is not JSON, lacks a field or asks for the impossible.
    pub fn from_json(json: &[u8]) -> Result<Self> {
        let json = serde_json::from_slice(json).map_err(|e| invalid("config.json", e.to_string()))?;
        Self::from_value(&json)
    }

    /// As [`Self::from_json`], of JSON that was parsed.
    ///
    /// # Errors
    /// [`Error::InvalidConfig`] if it lacks a field or asks for the impossible.
    pub fn from_value(json: &serde_json::Value) -> Result<Self> {
        // Some write a null where transformers would leave a field out.
        let mut json = json.clone();
        if let Some(fields) = json.as_object_mut() {
            fields.retain(|_, value| !value.is_null());
        }
        let config = Self::deserialize(json).map_err(|e| invalid("config.json", e.to_string()))?;
        config.check()?;
        Ok(config)
    }

    /// Whether the dimensions are possible and fit each other.
    ///
    /// # Errors
    /// [`Error::InvalidConfig`], naming the field.
    pub fn check(&self) -> Result<()> {
        let ranges = [
            ("d_model", self.d_model, MAX_WIDTH),
            ("encoder_layers", self.encoder_layers, MAX_LAYERS),
            ("encoder_attention_heads", self.encoder_attention_heads, MAX_WIDTH),
            ("encoder_ffn_dim", self.encoder_ffn_dim, 4 * MAX_WIDTH),
            ("decoder_layers", self.decoder_layers, MAX_LAYERS),
            ("decoder_attention_heads", self.decoder_attention_heads, MAX_WIDTH),
            ("decoder_ffn_dim", self.decoder_ffn_dim, 4 * MAX_WIDTH),
            ("num_mel_bins", self.num_mel_bins, 512),
            ("max_source_positions", self.max_source_positions, MAX_POSITIONS),
            ("max_target_positions", self.max_target_positions, MAX_POSITIONS),
            ("vocab_size", self.vocab_size, MAX_VOCAB),
        ];
        for (name, value, max) in ranges {
            if value == 0 || value > max {
                return Err(invalid("config.json", format!("{name} is {value}, expected 1 to {max}")));
            }
        }
        for (name, heads) in [
            ("encoder_attention_heads", self.encoder_attention_heads),
            ("decoder_attention_heads", self.decoder_attention_heads),
        ] {
            if !self.d_model.is_multiple_of(heads) {
                return Err(invalid(
                    "config.json",
                    format!("d_model {} is no multiple of {name} {heads}", self.d_model),
                ));
            }
        }
        // Each alone may be large, but not all together: what one window needs must fit into a machine.
        let widest = self.encoder_ffn_dim.max(3 * self.d_model);
        let products = [
            ("max_source_positions × encoder_ffn_dim", [self.max_source_positions, widest, 1]),
            (
                "max_target_positions × d_model × decoder_layers",
                [self.max_target_positions, self.d_model, self.decoder_layers],
            ),
            ("max_target_positions × decoder_ffn_dim", [self.max_target_positions, self.decoder_ffn_dim, 1]),
        ];
        for (name, factors) in products {
            let product = n_elements(&factors);
            if product > MAX_PRODUCT {
                return Err(invalid("config.json", format!("{name} is {product}, expected at most {MAX_PRODUCT}")));
            }
        }
        if self.activation_function != "gelu" {
            return Err(invalid(
                "config.json",
                format!("activation_function '{}' is not known, only 'gelu'", printable(&self.activation_function)),
            ));
        }
        if self.scale_embedding {
            return Err(invalid("config.json", "scale_embedding is not supported".to_owned()));
        }
        Ok(())
    }

    /// Mel frames of a full window: the second convolution halves them.
    #[must_use]
    pub fn n_frames(&self) -> usize {
        2 * self.max_source_positions
    }

    /// Whether the checkpoint knows languages other than English, as far as its size tells: every released
    /// English-only vocabulary has 51 864 tokens.
    #[must_use]
    pub fn is_multilingual(&self) -> bool {
        self.vocab_size != 51_864
    }

    /// The released size that these dimensions are, or `custom`.
    #[must_use]
    pub fn model_size(&self) -> &'static str {
        match (self.d_model, self.encoder_layers, self.decoder_layers) {
            (384, 4, 4) => "tiny",
            (512, 6, 6) => "base",
            (768, 12, 12) => "small",
            (1024, 24, 24) => "medium",
            (1280, 32, 32) => "large",
            (1280, 32, 4) => "turbo",
            (768, 12, 4) => "distil-small",
            (1024, 24, 2) => "distil-medium",
            (1280, 32, 2) => "distil-large",
            _ => "custom",
        }
    }
}

/// `generation_config.json`: how a checkpoint wants to be decoded. Every field may be missing.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct GenerationConfig {
    /// Tokens never to be produced; `-1` stands for the tokenizer's list of non-speech tokens.
    pub suppress_tokens: Option<Vec<i64>>,
    /// Tokens not to be produced first.
    pub begin_suppress_tokens: Option<Vec<i64>>,
    /// `[layer, head]` pairs whose cross-attention follows time.
    pub alignment_heads: Option<Vec<[usize; 2]>>,
    /// The first timestamp may not exceed this index (0.02 s each).
    pub max_initial_timestamp_index: Option<usize>,
    /// Whether the prompt names a language and a task. English-only checkpoints list those tokens too.
    pub is_multilingual: Option<bool>,
    /// The language that a fine-tuned checkpoint was trained to be asked with: a code, a name or a token.
    pub language: Option<String>,
    /// `[position, token]` of the prompt; position 1 is the language, null if it is to be detected.
    pub forced_decoder_ids: Option<Vec<(usize, Option<u32>)>>,
}

pub(crate) fn invalid(file: &str, reason: String) -> Error {
    Error::InvalidConfig { file: file.to_owned(), reason }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const BASE: &str = r#"{"d_model":512,"encoder_layers":6,"encoder_attention_heads":8,"encoder_ffn_dim":2048,
        "decoder_layers":6,"decoder_attention_heads":8,"decoder_ffn_dim":2048,"num_mel_bins":80,
        "max_source_positions":1500,"max_target_positions":448,"vocab_size":51865}"#;

    #[test]
    fn base_is_base() {
        let config = WhisperConfig::from_json(BASE.as_bytes()).unwrap();
        assert_eq!(config.model_size(), "base");
        assert_eq!(config.n_frames(), 3000);
        assert!(config.is_multilingual());
    }

    #[test]
    fn hostile_dimensions_are_named() {
        for (from, to, field) in [
            ("\"d_model\":512", "\"d_model\":99999999999", "d_model"),
            ("\"encoder_layers\":6", "\"encoder_layers\":0", "encoder_layers"),
            ("\"decoder_attention_heads\":8", "\"decoder_attention_heads\":7", "decoder_attention_heads"),
            ("\"vocab_size\":51865", "\"vocab_size\":51865,\"activation_function\":\"relu\"", "relu"),
        ] {
            let error = WhisperConfig::from_json(BASE.replace(from, to).as_bytes()).unwrap_err();
            assert_eq!(error.code(), "invalid_config");
            assert!(error.to_string().contains(field), "{error}");
        }
        assert!(WhisperConfig::from_json(b"{").is_err());
    }
}
