//! Whisper: an audio encoder and a text decoder, any size from tiny to large-v3-turbo.
//!
//! Follows `openai/whisper` `model.py` (v20240930), with Hugging Face's tensor names. Knows no files, no
//! decoding strategy and no training: [`crate::weights`] brings tensors, [`crate::decoding`] asks for
//! logits.
//!
//! Read in this order: [`config`], [`encoder`], [`decoder`], [`model`], [`speech_model`].

pub mod config;
pub mod decoder;
pub mod encoder;
pub mod model;
pub mod speech_model;
mod token_embedding;

pub use config::{GenerationConfig, WhisperConfig};
pub use decoder::{DecoderCache, TextDecoder};
pub use encoder::AudioEncoder;
pub use model::Whisper;
pub use speech_model::{EncodedWindow, WhisperOnDevice};
