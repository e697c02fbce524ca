//! The one answer schema, `Recognition`: what the HTTP server, the wasm engine and the JS SDK all
//! give. Times are milliseconds, audio lengths seconds.

use serde::{Deserialize, Serialize};

/// Milliseconds with three digits: what a clock can tell, without the noise of binary fractions.
fn microsecond_precision<S: serde::Serializer>(ms: &f64, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64((ms * 1e3).round() / 1e3)
}

/// The schema of [`Slot::value`].
#[cfg(feature = "openapi")]
fn number_or_string() -> utoipa::openapi::schema::Object {
    use utoipa::openapi::schema::{ObjectBuilder, SchemaType, Type};
    ObjectBuilder::new()
        .schema_type(SchemaType::from_iter([Type::Number, Type::String]))
        .description(Some("A number for `quantity` and `delta`, a canonical name otherwise."))
        .build()
}

/// Why a clip was not accepted as a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(ts_rs::TS))]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Rejection {
    /// Nobody spoke.
    NoSpeech,
    /// Speech, but none of the shop's commands.
    OutOfScope,
    /// Two commands fit about equally well.
    Ambiguous,
    /// One command fits best, but not well enough to act on.
    LowConfidence,
}

/// What the intent was found from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(ts_rs::TS))]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum IntentSource {
    /// An intent head on the encoder: a multi-task model.
    AudioHead,
    /// Matched from the words: the fallback of a single-task model.
    Transcript,
    /// Both, combined.
    Fused,
}

/// How hard an action is to undo.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(ts_rs::TS))]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Risk {
    /// Look or navigate: act at once.
    None,
    /// Can be taken back: act, and offer to undo.
    Undo,
    /// Money or lost data: ask before acting.
    Confirm,
}

/// One candidate intent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(ts_rs::TS))]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Prediction {
    /// The label.
    pub intent: String,
    /// Calibrated probability over all labels and "none of them", in `0.0..=1.0`.
    pub confidence: f32,
    /// Rank, 0 is the best.
    pub index: usize,
    /// The class in the model's label list.
    pub label_id: usize,
}

/// A value that a command carries.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(ts_rs::TS))]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Slot {
    /// The slot's name, such as `quantity`.
    pub slot: String,
    /// A number for `quantity` and `delta`, a canonical name otherwise.
    #[cfg_attr(test, ts(type = "number | string"))]
    #[cfg_attr(feature = "openapi", schema(schema_with = number_or_string))]
    pub value: serde_json::Value,
    /// The words that it was read from.
    pub text: String,
}

/// What the words stage knows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(ts_rs::TS))]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct WhisperInfo {
    /// `tiny`, `base`, …, or `custom`.
    pub model_size: String,
    /// The language as reported to people (`tw`).
    pub language: String,
    /// The language token that the decoder was given (Whisper has none for Twi).
    #[cfg_attr(feature = "openapi", schema(required = true))]
    pub decode_language: Option<String>,
    /// `exp(avg_logprob)` of the words, in `0.0..=1.0`; absent when nothing was decoded.
    #[cfg_attr(feature = "openapi", schema(required = true))]
    pub transcription_confidence: Option<f32>,
}

/// Where the time went, milliseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(ts_rs::TS))]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct TimingsMs {
    /// Bytes to 16 kHz samples.
    #[serde(serialize_with = "microsecond_precision")]
    #[cfg_attr(test, ts(type = "number"))]
    pub decode_audio: f64,
    /// Trim and log-mel.
    #[serde(serialize_with = "microsecond_precision")]
    #[cfg_attr(test, ts(type = "number"))]
    pub features: f64,
    /// Audio encoder, all windows.
    #[serde(serialize_with = "microsecond_precision")]
    #[cfg_attr(test, ts(type = "number"))]
    pub encoder: f64,
    /// Intent head or text match.
    #[serde(serialize_with = "microsecond_precision")]
    #[cfg_attr(test, ts(type = "number"))]
    pub intent: f64,
    /// Text decoder, all windows.
    #[serde(serialize_with = "microsecond_precision")]
    #[cfg_attr(test, ts(type = "number"))]
    pub transcript: f64,
    /// Waiting for the model.
    #[serde(serialize_with = "microsecond_precision")]
    #[cfg_attr(test, ts(type = "number"))]
    pub queue: f64,
}

/// Where an answer was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(ts_rs::TS))]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum RunWhere {
    /// On the customer's own device.
    Local,
    /// On a server.
    Remote,
}

/// The receipt: where the answer was made, why there, and what was sent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(ts_rs::TS))]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RunInfo {
    /// Where.
    #[serde(rename = "where")]
    pub place: RunWhere,
    /// The device's short name (`cpu`, `cuda:0`, `webgpu`).
    pub device: String,
    /// Why there, a stable snake_case word.
    pub reason: String,
    /// Bytes of audio that left the customer's device.
    pub bytes_sent: u64,
}

/// The answer to one clip.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(ts_rs::TS))]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Recognition {
    /// As the client named it; empty when it did not.
    pub filename: String,
    /// The label, or `unknown` when the clip was not accepted.
    pub intent: String,
    /// Calibrated probability of the best candidate.
    pub confidence: f32,
    /// Whether a client may act on `intent`.
    pub accepted: bool,
    /// Why not, when not.
    #[cfg_attr(feature = "openapi", schema(required = true))]
    pub rejection: Option<Rejection>,
    /// The words; `null` when they were not asked for and not needed.
    #[cfg_attr(feature = "openapi", schema(required = true))]
    pub transcription: Option<String>,
    /// From the first byte in to this answer out.
    #[serde(serialize_with = "microsecond_precision")]
    #[cfg_attr(test, ts(type = "number"))]
    pub processing_time_ms: f64,
    /// The best candidates, best first, accepted or not.
    pub top_predictions: Vec<Prediction>,
    /// The values that the command carries.
    pub slots: Vec<Slot>,
    /// How hard the action is to undo; `none` when nothing was accepted.
    pub risk: Risk,
    /// What the intent was found from.
    pub intent_source: IntentSource,
    /// The kind of engine, such as `whisper` or `whisper_multitask`.
    pub model_type: String,
    /// What the words stage knows.
    pub whisper_info: WhisperInfo,
    /// Where the time went.
    pub timings_ms: TimingsMs,
    /// Where the answer was made.
    pub run: RunInfo,
    /// For the logs and for support.
    pub request_id: String,
    /// Present and true when the answer comes from the cache.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    #[cfg_attr(test, ts(as = "Option<bool>", optional))]
    pub cached: bool,
}
