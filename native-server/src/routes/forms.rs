//! What multipart forms and queries hold, and bodies that are written in two ways: types for the OpenAPI document alone.
//!
//! The forms themselves are read field by field, as they come: see [`upload`](super::upload) and
//! [`openai`](super::openai). A field that is added there is named here.

#![allow(dead_code, reason = "utoipa reads the fields, nobody else does")]

use utoipa::{IntoParams, ToSchema};

use super::openai::{ErrorObject, Format, PlainTranscript, VerboseTranscript};
use super::openapi::error_code;

/// What may stand in the query instead of the form; the form wins.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct ClipQuery {
    /// Candidates in `top_predictions`.
    #[param(minimum = 1, maximum = 100, default = 5)]
    top_k: Option<usize>,
    /// What is spoken: `tw` (also when absent), a code of the model's own, or `auto`.
    #[param(example = "tw")]
    language: Option<String>,
    /// Whether the words belong in the answer.
    #[param(default = true)]
    transcribe: Option<bool>,
}

/// A recording of a command, and what is asked about it. Fields that are not known are passed over.
#[derive(ToSchema)]
pub(crate) struct ClipForm {
    /// The recording: WAV, FLAC, MP3, Ogg, WebM or M4A, at any rate.
    #[schema(value_type = String, format = Binary)]
    file: Vec<u8>,
    /// Candidates in `top_predictions`.
    #[schema(required = false, minimum = 1, maximum = 100, default = 5)]
    top_k: usize,
    /// What is spoken: `tw` (also when absent), a code of the model's own, or `auto`.
    #[schema(required = false)]
    language: String,
    /// Whether the words belong in the answer.
    #[schema(required = false, default = true)]
    transcribe: bool,
    /// The shop's own names for products and places, as JSON or as a table with the columns `slot,value,name`; as text or
    /// as a file. Stands instead of the server's own. At most 1 MiB.
    #[schema(required = false)]
    catalogue: String,
}

/// Several recordings, and what is asked about each.
#[derive(ToSchema)]
pub(crate) struct BatchForm {
    /// The recordings, each as a field `files` of its own: WAV, FLAC, MP3, Ogg, WebM or M4A, at any rate.
    #[schema(value_type = Vec<String>, format = Binary, min_items = 1)]
    files: Vec<Vec<u8>>,
    /// Candidates in `top_predictions`.
    #[schema(required = false, minimum = 1, maximum = 100, default = 5)]
    top_k: usize,
    /// What is spoken: `tw` (also when absent), a code of the model's own, or `auto`.
    #[schema(required = false)]
    language: String,
    /// Whether the words belong in the answers.
    #[schema(required = false, default = true)]
    transcribe: bool,
    /// The shop's own names, as in `/test-intent`.
    #[schema(required = false)]
    catalogue: String,
}

/// A recording, in the fields of OpenAI's audio API. Fields that are not known are passed over; 64 fields at most.
#[derive(ToSchema)]
pub(crate) struct TranscriptionForm {
    /// The recording: WAV, FLAC, MP3, Ogg, WebM or M4A, at any rate.
    #[schema(value_type = String, format = Binary)]
    file: Vec<u8>,
    /// `whisper-1`, `default`, or the name of the model that is served.
    #[schema(required = false, default = "whisper-1")]
    model: String,
    /// What is spoken: `tw`, or a code of the model's own. Absent, it is heard.
    #[schema(required = false)]
    language: String,
    /// Words that come before, or how names are spelt.
    #[schema(required = false)]
    prompt: String,
    /// How the answer is written.
    #[schema(required = false, inline)]
    response_format: Format,
    /// How freely words are chosen; absent or 0, no more freely than a likely text needs.
    #[schema(required = false, minimum = 0, maximum = 1)]
    temperature: f32,
    /// What is timed, with `response_format=verbose_json` only.
    #[schema(required = false, rename = "timestamp_granularities[]", inline)]
    timestamp_granularities: Vec<Granularity>,
    /// The text in pieces, as Server-Sent Events; of transcriptions as `json` or `text` only.
    #[schema(required = false, default = false)]
    stream: bool,
}

/// A Server-Sent Event of a transcript.
#[derive(ToSchema)]
pub(crate) struct TranscriptEvent {
    /// JSON: `{"type": "transcript.text.delta", "delta": "…"}`, in the end `{"type": "transcript.text.done", "text": "…"}`, or
    /// `{"type": "error", "error": {…}, "request_id": "…"}`.
    data: String,
}

/// What of a transcript is timed.
#[derive(ToSchema)]
#[schema(rename_all = "snake_case")]
pub(crate) enum Granularity {
    Word,
    Segment,
}

/// A transcript as JSON: `response_format` says which of the two.
#[derive(ToSchema)]
#[serde(untagged)]
pub(crate) enum JsonTranscript {
    Plain(PlainTranscript),
    Verbose(VerboseTranscript),
}

/// An error of the routes that OpenAI's clients call.
#[derive(ToSchema)]
pub(crate) struct OpenAiErrorBody {
    /// What is wrong, and what to do about it.
    detail: String,
    #[schema(schema_with = error_code)]
    code: &'static str,
    /// For the logs and for support.
    request_id: String,
    /// The same in OpenAI's words; absent where the key or the method was refused before the route was reached.
    #[schema(required = false, nullable = false)]
    error: Option<ErrorObject>,
}
