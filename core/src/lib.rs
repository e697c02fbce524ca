//! Okyeame's core: speech in, intent and words out, on any Burn device.
//!
//! The one way through is [`Recognizer`]; ARCHITECTURE.md draws it. This crate does no I/O but reading model
//! folders (and, with the feature `hub`, fetching them), prints nothing and starts no threads but rayon's.
//!
//! ```no_run
//! use okyeame_core::audio::{DecodeLimits, decode};
//! use okyeame_core::{RecognizeOptions, Recognizer};
//!
//! # async fn example() -> okyeame_core::Result<()> {
//! let recognizer = Recognizer::load("models/whisper-base".as_ref())?;
//! let bytes = std::fs::read("command.ogg").expect("a recording");
//! let answer = recognizer.recognize(&decode(&bytes, &DecodeLimits::default())?, &RecognizeOptions::default()).await?;
//! assert_eq!(answer.intent, "add_to_cart");
//! # Ok(())
//! # }
//! ```

pub mod audio;
pub mod decoding;
pub mod device;
pub mod error;
pub mod intent;
pub mod kernels;
pub mod language;
pub mod model_info;
pub mod recognition;
pub mod recognizer;
pub mod tokenizer;
#[cfg(feature = "train")]
pub mod training;
#[cfg(test)]
mod typescript;
pub mod wav2vec2;
pub mod weights;
pub mod whisper;

pub use error::{Error, Result};
pub use intent::IntentInfo;
pub use model_info::{ModelInfo, Task};
pub use recognition::{
    IntentSource, Prediction, Recognition, Rejection, Risk, RunInfo, RunWhere, Slot, TimingsMs, WhisperInfo,
};
pub use recognizer::{CommandTimings, OptionsCheck, RecognizeOptions, Recognizer};
