//! A request's form: its files and its parameters, checked before any work is done.
//!
//! Parameters come in the query or as text fields of the form; the form wins. The shop's catalogue, JSON or a table,
//! comes in the form alone, as text or as a file, and stands instead of the server's own. Names that are not known are
//! passed over. The body's size is bounded by axum's `DefaultBodyLimit`, the number of files here, and what stands before a
//! part's content in [`part_heads`].

use std::error::Error;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::{Body, Bytes};
use axum::extract::multipart::{Field, MultipartError};
use axum::extract::{FromRequest, Multipart, Query, Request};
use axum::http::{HeaderMap, StatusCode, Uri, header};
use futures::StreamExt;
use okyeame_core::intent::catalogue::{Catalogue, MAX_CATALOGUE_BYTES};
use okyeame_core::{Error as CoreError, RecognizeOptions};
use serde::de::DeserializeOwned;
use serde_json::Value;
use tower_http::timeout::TimeoutError;

use crate::config::ServerConfig;
use crate::error::ApiError;
use crate::routes::part_heads::{self, HeadTooLong};
use crate::state::Server;

/// Longest text of a parameter, bytes. Nothing that is known comes near it.
const MAX_TEXT_BYTES: usize = 1024;
/// Longest file name that is echoed, characters.
const MAX_FILENAME_CHARS: usize = 255;
/// How long an oversized body is read and thrown away, so that its sender gets to read the answer.
const DISCARD_FOR: Duration = Duration::from_secs(2);

/// What a route takes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Form {
    /// The name of the file's field, as the route's errors teach it; `file` and `files` are both read.
    pub(crate) field: &'static str,
    pub(crate) route: &'static str,
    pub(crate) max_files: usize,
}

/// A file as it came.
#[derive(Debug)]
pub(crate) struct UploadedFile {
    /// Fit to be echoed; empty if the client gave none.
    pub(crate) filename: String,
    pub(crate) bytes: Bytes,
}

/// Reads a request: at least one file, at most `form.max_files`, and options that this model takes.
///
/// # Errors
/// 503 before the model is there; 400, 413 and 422 for what is wrong with the request; 504 if it does not
/// arrive in time.
pub(crate) async fn read(
    server: &Server,
    request: Request,
    form: Form,
    started: Instant,
) -> Result<(Vec<UploadedFile>, RecognizeOptions), ApiError> {
    server.accepts_work()?;
    server.worker.model()?;
    let mut parameters = Parameters::from_query(request.uri())?;
    let files = read_in_time(server, request, form, &mut parameters, started).await?;
    let mut options = parameters.into_options();
    options.catalogue = options.catalogue.or_else(|| server.config.catalogue.clone());
    // Of the model that is there now: a form may take its time, and must not hold on to one that was replaced.
    server.worker.model()?.options_check.check(&options)?;
    Ok((files, options))
}

/// Reads a form of other parameters: its files, and the fields of these names, in order.
///
/// # Errors
/// As [`read`].
pub(crate) async fn read_fields(
    server: &Server,
    request: Request,
    form: Form,
    names: &'static [&'static str],
    started: Instant,
) -> Result<(Vec<UploadedFile>, Vec<(&'static str, String)>), ApiError> {
    server.accepts_work()?;
    server.worker.model()?;
    let mut fields = Fields { names, read: Vec::new() };
    let files = read_in_time(server, request, form, &mut fields, started).await?;
    Ok((files, fields.read))
}

/// What takes a form's fields that are no files.
trait TakesFields: Send {
    /// The name, if it is one that is read.
    fn known(&self, name: Option<&str>) -> Option<&'static str>;
    fn take(&mut self, name: &'static str, value: &str) -> Result<(), ApiError>;
    fn take_catalogue(&mut self, _: Arc<Catalogue>) {}
}

struct Fields {
    names: &'static [&'static str],
    read: Vec<(&'static str, String)>,
}

/// Most fields of a form: a client that sends more is not asking for a transcript.
const MAX_FIELDS: usize = 64;

impl TakesFields for Fields {
    fn known(&self, name: Option<&str>) -> Option<&'static str> {
        self.names.iter().copied().find(|known| name == Some(*known))
    }

    fn take(&mut self, name: &'static str, value: &str) -> Result<(), ApiError> {
        if self.read.len() == MAX_FIELDS {
            return Err(out_of_range("the form", format!("at most {MAX_FIELDS} fields")));
        }
        self.read.push((name, value.to_owned()));
        Ok(())
    }
}

impl TakesFields for Parameters {
    fn known(&self, name: Option<&str>) -> Option<&'static str> {
        ["top_k", "language", "transcribe", "catalogue"].into_iter().find(|known| name == Some(*known))
    }

    fn take(&mut self, name: &'static str, value: &str) -> Result<(), ApiError> {
        self.set(name, value)
    }

    fn take_catalogue(&mut self, catalogue: Arc<Catalogue>) {
        self.catalogue = Some(catalogue);
    }
}

/// Reads the form before the request's time is over, and sees to it that there is a file.
async fn read_in_time(
    server: &Server,
    request: Request,
    form: Form,
    fields: &mut impl TakesFields,
    started: Instant,
) -> Result<Vec<UploadedFile>, ApiError> {
    let request = refuse_oversized(request, server.config.max_body_bytes).await?;
    let deadline = tokio::time::Instant::from_std(started + server.config.request_timeout());
    let files = tokio::time::timeout_at(deadline, read_form(server, request, form, fields))
        .await
        .unwrap_or(Err(ApiError::Timeout { limit_s: server.config.request_timeout_s }))?;
    if files.is_empty() {
        return Err(ApiError::MissingFile { field: form.field, route: form.route });
    }
    Ok(files)
}

async fn read_form(
    server: &Server,
    request: Request,
    form: Form,
    fields: &mut impl TakesFields,
) -> Result<Vec<UploadedFile>, ApiError> {
    if !is_multipart(request.headers()) {
        return Err(ApiError::NotMultipart { field: form.field, route: form.route });
    }
    let config = &server.config;
    let no_boundary = || ApiError::MalformedBody { reason: "its Content-Type names no boundary".to_owned() };
    let content_type = request.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let boundary = content_type.and_then(|value| multer::parse_boundary(value).ok()).ok_or_else(no_boundary)?;
    let request = request.map(|body| part_heads::bounded(body, &boundary));
    let mut multipart = Multipart::from_request(request, &()).await.map_err(|_| no_boundary())?;

    let mut files = Vec::new();
    while let Some(field) = multipart.next_field().await.map_err(|error| body_error(&error, config))? {
        match field.name() {
            Some("file" | "files") => {
                if files.len() == form.max_files {
                    return Err(too_many_files(form));
                }
                let filename = echoed_filename(field.file_name().unwrap_or_default());
                let bytes = field.bytes().await.map_err(|error| body_error(&error, config))?;
                files.push(UploadedFile { filename, bytes });
            }
            name => match fields.known(name) {
                Some("catalogue") => {
                    if let Some(catalogue) = catalogue(field, config).await? {
                        fields.take_catalogue(catalogue);
                    }
                }
                Some(name) => fields.take(name, &text(field, name, config).await?)?,
                None => {} // read past by the next `next_field`
            },
        }
    }
    Ok(files)
}

fn too_many_files(form: Form) -> ApiError {
    let allowed = match form.max_files {
        1 => "this route takes one; send several to /batch-intent".to_owned(),
        max => format!("this server takes at most {max} in one request"),
    };
    ApiError::TooManyFiles { allowed }
}

/// Reads a text field.
async fn text(field: Field<'_>, name: &'static str, config: &ServerConfig) -> Result<String, ApiError> {
    let too_long = || out_of_range(name, format!("at most {MAX_TEXT_BYTES} bytes of text"));
    let bytes = bounded(field, MAX_TEXT_BYTES, config).await?.ok_or_else(too_long)?;
    String::from_utf8(bytes).map_err(|_| out_of_range(name, "text in UTF-8".to_owned()))
}

/// Reads a catalogue; a blank one is none.
async fn catalogue(field: Field<'_>, config: &ServerConfig) -> Result<Option<Arc<Catalogue>>, ApiError> {
    let too_large = ApiError::CatalogueTooLarge { limit_bytes: MAX_CATALOGUE_BYTES };
    let bytes = bounded(field, MAX_CATALOGUE_BYTES, config).await?.ok_or(too_large)?;
    if bytes.trim_ascii().is_empty() {
        return Ok(None);
    }
    parse_catalogue(bytes).await.map(Some)
}

/// Thousands of names take tens of milliseconds: not on a thread that serves others.
pub(super) async fn parse_catalogue(bytes: Vec<u8>) -> Result<Arc<Catalogue>, ApiError> {
    let parsed = tokio::task::spawn_blocking(move || Catalogue::parse(&bytes)).await;
    match parsed.map_err(|error| ApiError::Internal { cause: error.to_string() })? {
        Ok(catalogue) => Ok(Arc::new(catalogue)),
        Err(error) => Err(ApiError::InvalidCatalogue { reason: error.to_string() }),
    }
}

/// Reads a field; `None` if it is longer than `max_bytes`.
async fn bounded(mut field: Field<'_>, max_bytes: usize, config: &ServerConfig) -> Result<Option<Vec<u8>>, ApiError> {
    let mut bytes = Vec::new();
    while let Some(chunk) = field.chunk().await.map_err(|error| body_error(&error, config))? {
        bytes.extend_from_slice(&chunk);
        if bytes.len() > max_bytes {
            return Ok(None);
        }
    }
    Ok(Some(bytes))
}

/// A body whose stated length is beyond the limit is refused before it is read.
async fn refuse_oversized(request: Request, limit_bytes: usize) -> Result<Request, ApiError> {
    let stated: Option<u64> = request
        .headers()
        .get(header::CONTENT_LENGTH)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.parse().ok());
    if stated.is_none_or(|stated| stated <= limit_bytes as u64) {
        return Ok(request);
    }
    // A client that asks first (as curl does) sends nothing after this answer. Another one may be so busy
    // sending that it finds its connection reset instead of the answer: let it finish, for a while.
    if !request.headers().contains_key(header::EXPECT) {
        discard(request.into_body(), limit_bytes.saturating_mul(4)).await;
    }
    Err(ApiError::BodyTooLarge { limit_bytes })
}

/// Throws a body away, up to a size and a time.
async fn discard(body: Body, max_bytes: usize) {
    let mut chunks = body.into_data_stream();
    let reading = async {
        let mut seen = 0_usize;
        while let Some(Ok(chunk)) = chunks.next().await {
            seen = seen.saturating_add(chunk.len());
            if seen > max_bytes {
                break;
            }
        }
    };
    // Out of time or done: the answer is the same.
    let _ = tokio::time::timeout(DISCARD_FOR, reading).await;
}

fn is_multipart(headers: &HeaderMap) -> bool {
    headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.split(';').next())
        .is_some_and(|essence| essence.trim().eq_ignore_ascii_case("multipart/form-data"))
}

/// What is wrong with a form that cannot be read on.
fn body_error(error: &MultipartError, config: &ServerConfig) -> ApiError {
    unread(error.status(), &error.body_text(), error, config)
}

/// What is wrong with a body that cannot be read on; `status` and `text` are what axum would answer.
pub(super) fn unread(status: StatusCode, text: &str, error: &(dyn Error + 'static), config: &ServerConfig) -> ApiError {
    if status == StatusCode::PAYLOAD_TOO_LARGE {
        return ApiError::BodyTooLarge { limit_bytes: config.max_body_bytes };
    }
    let mut cause = Some(error);
    while let Some(error) = cause {
        if error.is::<TimeoutError>() {
            return ApiError::BodyTooSlow { limit_s: config.io_timeout_s };
        }
        if error.is::<HeadTooLong>() {
            return ApiError::MalformedBody { reason: error.to_string() };
        }
        cause = error.source();
    }
    ApiError::MalformedBody { reason: harmless(text) }
}

/// A JSON object as a type. By way of a map, since a list would be taken for the fields in their order.
pub(super) fn object<T: DeserializeOwned>(body: &[u8]) -> Result<T, String> {
    serde_json::from_slice(body)
        .and_then(|map| serde_json::from_value(Value::Object(map)))
        .map_err(|error| harmless(&error.to_string()))
}

/// A parser's sentence, which may quote the client's own bytes: cut, and without control characters.
pub(super) fn harmless(sentence: &str) -> String {
    sentence.chars().filter(|c| !c.is_control()).take(200).collect()
}

pub(super) fn out_of_range(name: &'static str, allowed: String) -> ApiError {
    CoreError::InvalidParameter { name, allowed }.into()
}

/// A file name without what could fool a log, a terminal or a page's reader.
fn echoed_filename(name: &str) -> String {
    // Marks that turn the direction of text make "gpj.exe" look like "exe.jpg".
    let is_direction_mark =
        |c: char| matches!(c, '\u{200E}' | '\u{200F}' | '\u{202A}'..='\u{202E}' | '\u{2066}'..='\u{2069}');
    name.chars().filter(|c| !c.is_control() && !is_direction_mark(*c)).take(MAX_FILENAME_CHARS).collect()
}

/// What a client may say beside its audio.
#[derive(Debug, Default)]
pub(super) struct Parameters {
    pub(super) top_k: Option<usize>,
    pub(super) language: Option<String>,
    pub(super) transcribe: Option<bool>,
    pub(super) catalogue: Option<Arc<Catalogue>>,
}

impl Parameters {
    pub(super) fn from_query(uri: &Uri) -> Result<Self, ApiError> {
        let mut parameters = Self::default();
        for (name, value) in query(uri)? {
            parameters.set(&name, &value)?;
        }
        Ok(parameters)
    }

    /// Takes one value. Names that are not known are passed over; an empty value leaves the default.
    fn set(&mut self, name: &str, value: &str) -> Result<(), ApiError> {
        let value = value.trim();
        match name {
            "top_k" | "language" | "transcribe" if value.is_empty() => {}
            "top_k" => {
                let top_k =
                    value.parse().map_err(|_| out_of_range("top_k", "a whole number of at least 1".to_owned()))?;
                self.top_k = Some(top_k);
            }
            "language" => self.language = Some(value.to_owned()),
            "transcribe" => self.transcribe = Some(truth("transcribe", value)?),
            _ => {}
        }
        Ok(())
    }

    pub(super) fn into_options(self) -> RecognizeOptions {
        let defaults = RecognizeOptions::default();
        RecognizeOptions {
            top_k: self.top_k.unwrap_or(defaults.top_k),
            language: self.language,
            transcribe: self.transcribe.unwrap_or(defaults.transcribe),
            catalogue: self.catalogue,
            ..defaults
        }
    }
}

/// The pairs of a request's query.
pub(super) fn query(uri: &Uri) -> Result<Vec<(String, String)>, ApiError> {
    Query::try_from_uri(uri)
        .map(|Query(pairs)| pairs)
        .map_err(|_| out_of_range("the query", "pairs like ?top_k=5&language=tw".to_owned()))
}

/// A value that is true or false.
pub(super) fn truth(name: &'static str, value: &str) -> Result<bool, ApiError> {
    match value.to_ascii_lowercase().as_str() {
        "true" | "1" | "yes" => Ok(true),
        "false" | "0" | "no" => Ok(false),
        _ => Err(out_of_range(name, "true or false".to_owned())),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn filenames_are_made_harmless() {
        assert_eq!(echoed_filename("fa yɛi.wav"), "fa yɛi.wav");
        assert_eq!(echoed_filename("a\r\nSet-Cookie: x\0\u{1b}[31m.wav"), "aSet-Cookie: x[31m.wav");
        assert_eq!(echoed_filename("\u{202E}vaw.exe"), "vaw.exe");
        assert_eq!(echoed_filename(&"ɔ".repeat(9000)).chars().count(), MAX_FILENAME_CHARS);
    }

    #[test]
    fn parameters_are_read_strictly_and_unknown_ones_passed_over() {
        let read = |query: &str| Parameters::from_query(&format!("/x?{query}").parse().unwrap());
        let options = read("top_k=3&language=tw&transcribe=NO&utm_source=x").unwrap().into_options();
        assert_eq!((options.top_k, options.language.as_deref(), options.transcribe), (3, Some("tw"), false));
        assert_eq!(read("top_k=&language=").unwrap().into_options(), RecognizeOptions::default());
        for bad in ["top_k=abc", "top_k=-1", "top_k=1.5", "top_k=99999999999999999999999", "transcribe=maybe"] {
            assert_eq!(read(bad).unwrap_err().code(), "invalid_parameter", "{bad}");
        }
    }

    #[test]
    fn only_multipart_is_multipart() {
        let is = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::CONTENT_TYPE, value.parse().unwrap());
            is_multipart(&headers)
        };
        assert!(is("Multipart/Form-Data; boundary=x"));
        assert!(!is("multipart/mixed; boundary=x"));
        assert!(!is("application/json"));
        assert!(!is_multipart(&HeaderMap::new()));
    }
}
