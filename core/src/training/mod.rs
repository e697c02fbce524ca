//! Training and evaluating intent heads (feature `train`).
//!
//! ```text
//! manifest ─ splits ─┬─ features (augment, noise; the frozen encoder; feature_store) ─ fit (model, batches) ─┬─ calibrate ─ export
//!                    │                                                       └─ lora_fit (lora), if asked for ─┘
//!                    └─ evaluate (metrics) ─ Evaluation
//! ```
//! Read in this order: [`manifest`], [`splits`] (what tests is set aside before anything else), [`augment`], [`noise`],
//! [`features`] with [`feature_store`] (what the frozen encoder makes of each clip, computed once), [`model`], [`fit`]
//! with [`ctc`] (letters), [`read_fit`] and [`phrases`] (what the letters say), [`lora`] and [`lora_fit`] (adapters on
//! the encoder, optional), [`calibrate`], [`words`] (transcripts, for the fusion), [`run`] (all of that in order),
//! [`export`]; then [`evaluate`], which fills an [`evaluation`] with [`metrics`].
//!
//! Not for browsers; no printing: progress goes to a callback.

pub mod augment;
mod batches;
pub mod calibrate;
mod checkpoint;
pub mod ctc;
pub mod evaluate;
pub mod evaluation;
pub mod export;
pub mod feature_store;
pub mod features;
pub mod fit;
pub mod lora;
pub mod lora_fit;
pub mod manifest;
pub mod metrics;
pub mod model;
pub mod noise;
pub mod phrases;
pub mod read_fit;
pub mod run;
pub mod splits;
mod targets;
pub mod words;

pub use batches::TrainingClip;
