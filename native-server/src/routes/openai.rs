//! OpenAI's audio API: `POST /v1/audio/transcriptions`, `POST /v1/audio/translations`, `GET /v1/models`, so that programs
//! that were written for it work against this server.
//!
//! Follows OpenAI's API reference (audio, 2025) for fields and answers, and `whisper/utils.py` (v20240930) for SRT and VTT.
//! Errors carry OpenAI's `error` object beside this server's own fields. Deviations: `model` may be `whisper-1`, `default` or
//! the name of the model that is served; `language` also takes `tw`; languages are named by code. `stream=true` is
//! in [`super::openai_stream`].

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Instant;

use axum::Json;
use axum::extract::{Request, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use okyeame_core::decoding::{Segment, Transcript, Word};
use okyeame_core::{Error as CoreError, RecognizeOptions, TimingsMs};
use serde::Serialize;
use serde_json::json;
use utoipa::ToSchema;

use crate::engine::{AskedWords, Engine};
use crate::error::ApiError;
use crate::inference_worker::{Answered, LoadedModel};
use crate::queue::{Admission, Lane};
use crate::routes::clip;
use crate::routes::forms::{JsonTranscript, TranscriptEvent, TranscriptionForm};
use crate::routes::openai_stream;
use crate::routes::openapi::{self, ModelListRefusals, TranscriptRefusals};
use crate::routes::upload::{self, Form, out_of_range};
use crate::state::Server;
use crate::traces;

/// The routes' names.
pub(crate) const TRANSCRIPTIONS: &str = "/v1/audio/transcriptions";
pub(crate) const TRANSLATIONS: &str = "/v1/audio/translations";
pub(crate) const MODELS: &str = "/v1/models";

/// The fields that are read; others are passed over.
const FIELDS: &[&str] =
    &["model", "language", "prompt", "response_format", "temperature", "timestamp_granularities[]", "stream"];
/// Names by which clients ask for whatever is served.
const ALIASES: [&str; 2] = ["whisper-1", "default"];

/// How the answer is written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ToSchema)]
#[schema(rename_all = "snake_case")]
pub(crate) enum Format {
    #[default]
    Json,
    Text,
    Srt,
    VerboseJson,
    Vtt,
}

/// What the form asks for.
#[derive(Debug, Default)]
struct Asked {
    words: AskedWords,
    format: Format,
    /// Whether `verbose_json` lists segments; it does unless only words were asked for.
    segments: bool,
    /// Whether the text is wanted in pieces, as it is found.
    stream: bool,
}

/// An answer.
enum Reply {
    Whole(Response),
    /// Its text is still to come.
    InPieces(Response),
}

/// What is said in this recording?
///
/// The words, as text, subtitles or JSON: `response_format` says which. With `stream=true` in pieces: events
/// `transcript.text.delta`, then `transcript.text.done` with the whole text.
#[utoipa::path(post, path = TRANSCRIPTIONS, operation_id = "create_transcription", tag = openapi::WORDS,
    request_body(content = TranscriptionForm, content_type = "multipart/form-data"),
    responses(
        (status = 200, description = "The transcript", content(
            (JsonTranscript = "application/json"),
            (String = "text/plain"),
            (String = "application/x-subrip"),
            (String = "text/vtt"),
            (TranscriptEvent = "text/event-stream")
        )),
        TranscriptRefusals,
    ),
    security((), ("bearer" = ["transcribe"]), ("api_key" = ["transcribe"]))
)]
pub(crate) async fn transcriptions(
    State(server): State<Arc<Server>>,
    request: Request,
) -> Result<Response, OpenAiError> {
    answer(&server, request, TRANSCRIPTIONS, false).await.map_err(OpenAiError)
}

/// What is said in this recording, in English?
///
/// As a transcription; whatever is spoken, English is written.
#[utoipa::path(post, path = TRANSLATIONS, operation_id = "create_translation", tag = openapi::WORDS,
    request_body(content = TranscriptionForm, content_type = "multipart/form-data"),
    responses(
        (status = 200, description = "The transcript", content(
            (JsonTranscript = "application/json"),
            (String = "text/plain"),
            (String = "application/x-subrip"),
            (String = "text/vtt")
        )),
        TranscriptRefusals,
    ),
    security((), ("bearer" = ["transcribe"]), ("api_key" = ["transcribe"]))
)]
pub(crate) async fn translations(State(server): State<Arc<Server>>, request: Request) -> Result<Response, OpenAiError> {
    answer(&server, request, TRANSLATIONS, true).await.map_err(OpenAiError)
}

/// The list of models.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ModelList {
    /// `list`.
    object: &'static str,
    data: Vec<ModelCard>,
}

/// A name that `model` may have.
#[derive(Debug, Serialize, ToSchema)]
struct ModelCard {
    id: String,
    /// `model`.
    object: &'static str,
    created: u64,
    owned_by: &'static str,
}

/// The names that `model` may have
///
/// That of the model that is served, and those by which clients ask for whatever is served.
#[utoipa::path(get, path = MODELS, operation_id = "list_models", tag = openapi::WORDS,
    responses((status = 200, description = "The names", body = ModelList), ModelListRefusals),
    security((), ("bearer" = []), ("api_key" = []))
)]
pub(crate) async fn models(State(server): State<Arc<Server>>) -> Result<Json<ModelList>, OpenAiError> {
    let model = server.worker.model().map_err(OpenAiError)?;
    let card = |id: &str| ModelCard { id: id.to_owned(), object: "model", created: 0, owned_by: "okyeame" };
    let ids = std::iter::once(model.info.name.as_str()).chain(ALIASES);
    Ok(Json(ModelList { object: "list", data: ids.map(card).collect() }))
}

async fn answer(
    server: &Arc<Server>,
    request: Request,
    route: &'static str,
    translate: bool,
) -> Result<Response, ApiError> {
    let started = Instant::now();
    match clip::in_time(server, started, transcribe(server, request, route, translate, started)).await {
        Ok(Reply::Whole(response)) => {
            server.stats.succeeded(started.elapsed(), false);
            Ok(response)
        }
        // It is counted when it ends.
        Ok(Reply::InPieces(response)) => Ok(response),
        Err(error) => {
            server.stats.failed();
            Err(error)
        }
    }
}

async fn transcribe(
    server: &Arc<Server>,
    request: Request,
    route: &'static str,
    translate: bool,
    started: Instant,
) -> Result<Reply, ApiError> {
    let form = Form { field: "file", route, max_files: 1 };
    let (mut files, fields) = upload::read_fields(server, request, form, FIELDS, started).await?;
    let model = server.worker.model()?;
    let mut asked = read(&fields, &model)?;
    asked.words.translate = translate;
    if asked.stream && translate {
        return Err(out_of_range("stream", format!("false; only {TRANSCRIPTIONS} writes in pieces")));
    }
    let check = RecognizeOptions { language: asked.words.language.clone(), ..RecognizeOptions::default() };
    model.options_check.check(&check)?;
    let bytes = files.swap_remove(0).bytes; // never empty
    if bytes.is_empty() {
        return Err(CoreError::EmptyAudio.into());
    }
    server.worker.check_room(Admission::Refuse)?;
    let (waveform, _) = clip::decode(server, bytes).await?;
    let duration_s = waveform.duration_s();
    if asked.stream {
        return openai_stream::begin(server, model, waveform, asked.words, started).await.map(Reply::InPieces);
    }
    let words = asked.words.clone();
    let work = move |engine: &dyn Engine| engine.transcribe(&waveform, &words);
    let asked_at = Instant::now();
    let Answered { answer, queued } =
        server.worker.ask(&model, Lane::Words, duration_s, Admission::Refuse, work).await?;
    let transcript = clip::millis(asked_at.elapsed().saturating_sub(queued));
    traces::stages(&TimingsMs { queue: clip::millis(queued), transcript, ..TimingsMs::default() });
    Ok(Reply::Whole(written(&answer, &asked, duration_s)))
}

fn read(fields: &[(&'static str, String)], model: &LoadedModel) -> Result<Asked, ApiError> {
    let mut asked = Asked { segments: true, ..Asked::default() };
    let (mut wants_words, mut wants_segments) = (false, false);
    for (name, value) in fields {
        let value = value.trim();
        match *name {
            "model" if ALIASES.contains(&value) || value == model.info.name || value.is_empty() => {}
            "model" => return Err(ApiError::UnknownModel { served: model.info.name.clone() }),
            "language" if !value.is_empty() => asked.words.language = Some(value.to_owned()),
            "prompt" if !value.is_empty() => asked.words.prompt = Some(value.to_owned()),
            "temperature" if !value.is_empty() => {
                let temperature = value.parse().ok().filter(|t| (0.0..=1.0).contains(t));
                let allowed = || out_of_range("temperature", "0 to 1".to_owned());
                asked.words.temperature = Some(temperature.ok_or_else(allowed)?);
            }
            "response_format" => {
                asked.format = match value {
                    "json" | "" => Format::Json,
                    "text" => Format::Text,
                    "srt" => Format::Srt,
                    "verbose_json" => Format::VerboseJson,
                    "vtt" => Format::Vtt,
                    _ => {
                        return Err(out_of_range("response_format", "json, text, srt, verbose_json or vtt".to_owned()));
                    }
                }
            }
            "timestamp_granularities[]" => match value {
                "word" => wants_words = true,
                "segment" => wants_segments = true,
                _ => return Err(out_of_range("timestamp_granularities[]", "word or segment".to_owned())),
            },
            "stream" => asked.stream = value.eq_ignore_ascii_case("true"),
            _ => {}
        }
    }
    if (wants_words || wants_segments) && asked.format != Format::VerboseJson {
        return Err(out_of_range("timestamp_granularities[]", "only with response_format=verbose_json".to_owned()));
    }
    if asked.stream && !matches!(asked.format, Format::Json | Format::Text) {
        return Err(out_of_range("stream", "only with response_format=json or text".to_owned()));
    }
    asked.words.segment_times = !matches!(asked.format, Format::Json | Format::Text);
    asked.words.word_times = wants_words;
    asked.segments = wants_segments || !wants_words;
    Ok(asked)
}

fn written(transcript: &Transcript, asked: &Asked, duration_s: f64) -> Response {
    let text = transcript.text.trim();
    let plain = |body: String, kind: &'static str| ([(header::CONTENT_TYPE, kind)], body).into_response();
    match asked.format {
        Format::Json => Json(PlainTranscript { text: text.to_owned() }).into_response(),
        Format::Text => plain(format!("{text}\n"), "text/plain; charset=utf-8"),
        Format::Srt => plain(srt(&transcript.segments), "application/x-subrip; charset=utf-8"),
        Format::Vtt => plain(vtt(&transcript.segments), "text/vtt; charset=utf-8"),
        Format::VerboseJson => Json(verbose(transcript, asked, duration_s)).into_response(),
    }
}

/// A transcript with `response_format=json`.
#[derive(Debug, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct PlainTranscript {
    text: String,
}

/// A transcript with `response_format=verbose_json`. Times are seconds.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct VerboseTranscript {
    /// `transcribe` or `translate`.
    task: &'static str,
    /// What was spoken, as a code; `null` for a model that knows one language only.
    #[schema(required = true)]
    language: Option<String>,
    duration: f64,
    text: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    segments: Option<Vec<TimedSegment>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    words: Option<Vec<TimedWord>>,
}

/// A stretch of speech.
#[derive(Debug, Serialize, ToSchema)]
struct TimedSegment {
    id: usize,
    /// Where its window begins, hundredths of a second.
    seek: usize,
    start: f64,
    end: f64,
    text: String,
    tokens: Vec<u32>,
    temperature: f32,
    avg_logprob: f32,
    compression_ratio: f32,
    no_speech_prob: f32,
}

/// A word.
#[derive(Debug, Serialize, ToSchema)]
struct TimedWord {
    word: String,
    start: f64,
    end: f64,
}

fn verbose(transcript: &Transcript, asked: &Asked, duration_s: f64) -> VerboseTranscript {
    let segment = |(id, s): (usize, &Segment)| TimedSegment {
        id,
        seek: s.seek,
        start: s.start_s,
        end: s.end_s,
        text: s.text.clone(),
        tokens: s.tokens.clone(),
        temperature: s.temperature,
        avg_logprob: s.avg_logprob,
        compression_ratio: s.compression_ratio,
        no_speech_prob: s.no_speech_prob,
    };
    let word = |w: &Word| TimedWord { word: w.text.trim().to_owned(), start: w.start_s, end: w.end_s };
    let segments = &transcript.segments;
    VerboseTranscript {
        task: if asked.words.translate { "translate" } else { "transcribe" },
        language: transcript.language.clone(),
        duration: duration_s,
        text: transcript.text.trim().to_owned(),
        segments: asked.segments.then(|| segments.iter().enumerate().map(segment).collect()),
        words: asked.words.word_times.then(|| segments.iter().flat_map(|segment| &segment.words).map(word).collect()),
    }
}

/// SubRip: numbered, hours always, a comma before the milliseconds.
fn srt(segments: &[Segment]) -> String {
    segments.iter().enumerate().fold(String::new(), |mut file, (at, segment)| {
        let (start, end) = (clock(segment.start_s, true, ','), clock(segment.end_s, true, ','));
        let _ = write!(file, "{}\n{start} --> {end}\n{}\n\n", at + 1, cue(&segment.text));
        file
    })
}

/// WebVTT: hours only where there are any.
fn vtt(segments: &[Segment]) -> String {
    segments.iter().fold("WEBVTT\n\n".to_owned(), |mut file, segment| {
        let (start, end) = (clock(segment.start_s, false, '.'), clock(segment.end_s, false, '.'));
        let _ = write!(file, "{start} --> {end}\n{}\n\n", cue(&segment.text));
        file
    })
}

/// A line of its own; an arrow in it would begin another cue.
fn cue(text: &str) -> String {
    text.trim().replace("-->", "->").replace(['\r', '\n'], " ")
}

fn clock(seconds: f64, always_hours: bool, point: char) -> String {
    let ms = (seconds.max(0.0) * 1e3).round() as u64;
    let (hours, minutes, rest) = (ms / 3_600_000, ms / 60_000 % 60, ms % 60_000);
    let tail = format!("{minutes:02}:{:02}{point}{:03}", rest / 1000, rest % 1000);
    if always_hours || hours > 0 { format!("{hours:02}:{tail}") } else { tail }
}

/// An error as OpenAI's clients read it.
#[derive(Debug)]
pub(crate) struct OpenAiError(ApiError);

/// OpenAI's `error` object.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ErrorObject {
    message: String,
    /// `invalid_request_error` or `server_error`.
    r#type: &'static str,
    /// Always `null`: the message names the parameter.
    #[schema(required = true)]
    param: Option<String>,
    #[schema(schema_with = openapi::error_code)]
    code: &'static str,
}

impl ErrorObject {
    pub(super) fn of(error: &ApiError) -> Self {
        Self {
            message: error.detail(),
            r#type: if error.status().is_server_error() { "server_error" } else { "invalid_request_error" },
            param: None,
            code: error.code(),
        }
    }
}

impl IntoResponse for OpenAiError {
    fn into_response(self) -> Response {
        let error = ErrorObject::of(&self.0);
        self.0.response_with(|body| body["error"] = json!(error))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn segment(start_s: f64, end_s: f64, text: &str) -> Segment {
        Segment { start_s, end_s, text: text.to_owned(), ..Segment::default() }
    }

    #[test]
    fn subtitles_are_those_of_the_reference() {
        // whisper/utils.py, WriteSRT and WriteVTT, on the same segments.
        let segments = [segment(0.0, 7.6, " And so my fellow Americans"), segment(3661.5, 3662.0004, " a --> b\nc ")];
        assert_eq!(
            srt(&segments),
            "1\n00:00:00,000 --> 00:00:07,600\nAnd so my fellow Americans\n\n2\n01:01:01,500 --> 01:01:02,000\na -> b c\n\n"
        );
        assert_eq!(
            vtt(&segments),
            "WEBVTT\n\n00:00.000 --> 00:07.600\nAnd so my fellow Americans\n\n01:01:01.500 --> 01:01:02.000\na -> b c\n\n"
        );
        assert_eq!((srt(&[]), vtt(&[])), (String::new(), "WEBVTT\n\n".to_owned()));
    }
}
