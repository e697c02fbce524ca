//! What a client is told when something goes wrong: one enum, one map from code to HTTP status.
//!
//! The body is `{"detail", "code", "request_id"}`. A detail is a sentence that the client can act on.
//! Whatever is the server's own fault keeps its cause to the log: the client gets a fixed sentence and
//! the request id to ask for.

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use okyeame_core::Error as CoreError;
use serde::Serialize;
use utoipa::ToSchema;

use crate::metrics::ErrorCode;
use crate::request_id;
use crate::routes::openapi;

/// Seconds after which a client may ask again while the model loads.
const LOADING_RETRY_S: u64 = 2;
/// Seconds after which a client may ask again when this process stops: its successor is up by then.
const DRAINING_RETRY_S: u64 = 5;

/// Every failure of a request.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ApiError {
    /// The core said no; its own code and sentence stand.
    #[error(transparent)]
    Core(#[from] CoreError),
    #[error(
        "the form holds no audio: send it as the field '{field}', like curl -F {field}=@command.wav http://HOST:PORT{route}"
    )]
    MissingFile { field: &'static str, route: &'static str },
    #[error("the body is not multipart/form-data: send it like curl -F {field}=@command.wav http://HOST:PORT{route}")]
    NotMultipart { field: &'static str, route: &'static str },
    #[error("the body is damaged: {reason}")]
    MalformedBody { reason: String },
    #[error("the body is not the JSON that this route takes, like {{\"text\": \"Fa yei to cart no mu\"}}: {reason}")]
    InvalidJson { reason: String },
    #[error("the rest of the body did not come: for {limit_s} s nothing was sent")]
    BodyTooSlow { limit_s: f64 },
    #[error("the stream was silent: for {limit_s} s no message came")]
    StreamIdle { limit_s: f64 },
    #[error("this route speaks WebSocket: open it with ws:// or wss://")]
    NotWebSocket,
    #[error("this is no message of a stream, such as {{\"type\": \"end\"}}: {reason}")]
    InvalidMessage { reason: String },
    #[error("the message is larger than the limit of {limit_bytes} bytes")]
    MessageTooLarge { limit_bytes: usize },
    #[error("the body is larger than the limit of {limit_bytes} bytes")]
    BodyTooLarge { limit_bytes: usize },
    #[error("the {reason}")]
    InvalidCatalogue { reason: String },
    #[error("the catalogue is larger than the limit of {limit_bytes} bytes")]
    CatalogueTooLarge { limit_bytes: usize },
    #[error("the body is not application/json: send it with 'Content-Type: application/json'")]
    NotJson,
    #[error("this server has no such model: send 'whisper-1', or '{served}'")]
    UnknownModel { served: String },
    #[error("too many files: {allowed}")]
    TooManyFiles { allowed: String },
    #[error("the server has more work than it can take on: try again in {retry_after_s} s")]
    Overloaded { retry_after_s: u64 },
    #[error("the model is still loading: try again in a moment")]
    Loading,
    #[error("the server is shutting down: try again in a moment")]
    Draining,
    #[error("the model could not be loaded: the server's log says why")]
    ModelUnavailable,
    #[error("a model is being loaded: wait until it is there, GET /admin/models tells")]
    ModelLoading,
    /// The core's code and sentence, without what it tells of this machine.
    #[error("the model could not be loaded, the one before goes on: {reason}")]
    NotLoaded { code: &'static str, reason: String },
    #[error("the answer took longer than {limit_s} s: send a shorter clip, or try again later")]
    Timeout { limit_s: f64 },
    #[error("this server asks for a key: send it as 'Authorization: Bearer KEY'")]
    NoKey,
    #[error("this key or token is not known here: ask the shop's operator for a new one")]
    UnknownKey,
    #[error("this token has ended: ask the shop for a new one")]
    TokenExpired,
    #[error("this token is for another page: a page of its own origin must send it")]
    WrongOrigin,
    #[error("a page of another site may not open a stream: the operator allows its origin with --allow-origin")]
    ForeignOrigin,
    #[error("this key or token does not open this route: its scopes are others")]
    OutOfScope,
    #[error(
        "without a key this is only for programs on the server's own machine, not for web pages: ask for it without an Origin \
         header at a server that listens on loopback, or give the server a key, 'okyeame key NAME --scopes admin'"
    )]
    NeedsAdminKey,
    #[error("too many requests with this key or token: try again in {retry_after_s} s")]
    TooOften { retry_after_s: u64 },
    #[error("there is nothing here: the routes are listed in the documentation")]
    NotFound,
    #[error("this route does not take that method: see the Allow header")]
    MethodNotAllowed,
    /// Anything else. The cause is for the log only.
    #[error("{cause}")]
    Internal { cause: String },
}

/// The body of an error.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ErrorBody {
    /// What is wrong, and what to do about it.
    detail: String,
    #[schema(schema_with = openapi::error_code)]
    code: &'static str,
    /// For the logs and for support.
    request_id: String,
}

/// The one map from a code, the core's or this crate's, to an HTTP status.
pub(crate) fn status_of(code: &str) -> StatusCode {
    match code {
        "empty_audio" | "malformed_audio" | "invalid_samples" | "missing_file" | "not_multipart" | "malformed_body" => {
            StatusCode::BAD_REQUEST
        }
        "missing_key" | "invalid_key" | "token_expired" => StatusCode::UNAUTHORIZED,
        "wrong_origin" | "forbidden" => StatusCode::FORBIDDEN,
        "not_a_websocket" => StatusCode::UPGRADE_REQUIRED,
        "not_found" | "unknown_model" => StatusCode::NOT_FOUND,
        "method_not_allowed" => StatusCode::METHOD_NOT_ALLOWED,
        "body_timeout" => StatusCode::REQUEST_TIMEOUT,
        "audio_too_long" | "body_too_large" | "catalogue_too_large" => StatusCode::PAYLOAD_TOO_LARGE,
        "model_loading" => StatusCode::CONFLICT,
        "unsupported_audio" | "not_json" => StatusCode::UNSUPPORTED_MEDIA_TYPE,
        "invalid_parameter" | "unsupported_language" | "too_many_files" | "invalid_catalogue" => {
            StatusCode::UNPROCESSABLE_ENTITY
        }
        "overloaded" | "rate_limited" => StatusCode::TOO_MANY_REQUESTS,
        "loading" | "draining" | "model_unavailable" => StatusCode::SERVICE_UNAVAILABLE,
        "timeout" => StatusCode::GATEWAY_TIMEOUT,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

impl ApiError {
    /// The name of what went wrong inside, as the log has it.
    fn inner_code(&self) -> &'static str {
        match self {
            Self::Core(error) => error.code(),
            Self::MissingFile { .. } => "missing_file",
            Self::NotMultipart { .. } => "not_multipart",
            Self::MalformedBody { .. } | Self::InvalidJson { .. } | Self::InvalidMessage { .. } => "malformed_body",
            Self::BodyTooSlow { .. } | Self::StreamIdle { .. } => "body_timeout",
            Self::BodyTooLarge { .. } | Self::MessageTooLarge { .. } => "body_too_large",
            Self::NotWebSocket => "not_a_websocket",
            Self::InvalidCatalogue { .. } => "invalid_catalogue",
            Self::CatalogueTooLarge { .. } => "catalogue_too_large",
            Self::NotJson => "not_json",
            Self::UnknownModel { .. } => "unknown_model",
            Self::TooManyFiles { .. } => "too_many_files",
            Self::Overloaded { .. } => "overloaded",
            Self::Loading => "loading",
            Self::Draining => "draining",
            Self::ModelUnavailable => "model_unavailable",
            Self::ModelLoading => "model_loading",
            Self::NotLoaded { code, .. } => code,
            Self::Timeout { .. } => "timeout",
            Self::NoKey => "missing_key",
            Self::UnknownKey => "invalid_key",
            Self::TokenExpired => "token_expired",
            Self::WrongOrigin | Self::ForeignOrigin => "wrong_origin",
            Self::OutOfScope | Self::NeedsAdminKey => "forbidden",
            Self::TooOften { .. } => "rate_limited",
            Self::NotFound => "not_found",
            Self::MethodNotAllowed => "method_not_allowed",
            Self::Internal { .. } => "internal_error",
        }
    }

    /// The HTTP status.
    pub(crate) fn status(&self) -> StatusCode {
        match self {
            // Whatever the core calls it: what was asked for cannot be served, and the server is well.
            Self::NotLoaded { .. } => StatusCode::UNPROCESSABLE_ENTITY,
            _ => status_of(self.inner_code()),
        }
    }

    /// The stable code that a client sees; one for everything that is the server's own fault.
    pub(crate) fn code(&self) -> &'static str {
        match self.status() {
            StatusCode::INTERNAL_SERVER_ERROR => "internal_error",
            _ => self.inner_code(),
        }
    }

    /// The sentence that a client sees.
    pub(crate) fn detail(&self) -> String {
        match self.status() {
            StatusCode::INTERNAL_SERVER_ERROR => {
                "the server could not answer; its log holds the cause under this request id".to_owned()
            }
            _ => self.to_string(),
        }
    }

    /// Seconds after which it makes sense to ask again.
    pub(crate) fn retry_after_s(&self) -> Option<u64> {
        match self {
            Self::Overloaded { retry_after_s } | Self::TooOften { retry_after_s } => Some(*retry_after_s),
            Self::Loading => Some(LOADING_RETRY_S),
            Self::Draining | Self::ModelUnavailable => Some(DRAINING_RETRY_S),
            _ => None,
        }
    }

    /// Writes the cause of a 500 to the log, where the client does not see it.
    pub(crate) fn log(&self) {
        if self.status() == StatusCode::INTERNAL_SERVER_ERROR {
            let request_id = request_id::current();
            tracing::error!(request_id, code = self.inner_code(), cause = %self, "a request failed");
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        self.response_with(|_| {})
    }
}

impl ApiError {
    /// The response, its JSON body with what `add` adds.
    pub(crate) fn response_with(self, add: impl FnOnce(&mut serde_json::Value)) -> Response {
        self.log();
        let body = ErrorBody { detail: self.detail(), code: self.code(), request_id: request_id::current() };
        let mut body = serde_json::json!(body);
        add(&mut body);
        let mut response = (self.status(), Json(body)).into_response();
        response.extensions_mut().insert(ErrorCode(self.code()));
        if response.status() == StatusCode::UNAUTHORIZED {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if response.status() == StatusCode::UPGRADE_REQUIRED {
            response.headers_mut().insert(header::UPGRADE, HeaderValue::from_static("websocket"));
        }
        if let Some(seconds) = self.retry_after_s() {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn each_code_has_the_status_of_the_contract() {
        let cases: [(ApiError, u16, &str); 35] = [
            (CoreError::EmptyAudio.into(), 400, "empty_audio"),
            (CoreError::MalformedAudio { reason: "x".into() }.into(), 400, "malformed_audio"),
            (CoreError::InvalidSamples { count: 1 }.into(), 400, "invalid_samples"),
            (ApiError::MissingFile { field: "file", route: "/test-intent" }, 400, "missing_file"),
            (ApiError::MalformedBody { reason: "x".into() }, 400, "malformed_body"),
            (ApiError::NoKey, 401, "missing_key"),
            (ApiError::UnknownKey, 401, "invalid_key"),
            (ApiError::TokenExpired, 401, "token_expired"),
            (ApiError::WrongOrigin, 403, "wrong_origin"),
            (ApiError::ForeignOrigin, 403, "wrong_origin"),
            (ApiError::OutOfScope, 403, "forbidden"),
            (ApiError::TooOften { retry_after_s: 3 }, 429, "rate_limited"),
            (ApiError::NotFound, 404, "not_found"),
            (ApiError::MethodNotAllowed, 405, "method_not_allowed"),
            (ApiError::BodyTooSlow { limit_s: 1.0 }, 408, "body_timeout"),
            (ApiError::StreamIdle { limit_s: 1.0 }, 408, "body_timeout"),
            (ApiError::InvalidMessage { reason: "x".into() }, 400, "malformed_body"),
            (ApiError::MessageTooLarge { limit_bytes: 1 }, 413, "body_too_large"),
            (ApiError::NotWebSocket, 426, "not_a_websocket"),
            (CoreError::AudioTooLong { limit_s: 1.0 }.into(), 413, "audio_too_long"),
            (ApiError::BodyTooLarge { limit_bytes: 1 }, 413, "body_too_large"),
            (ApiError::CatalogueTooLarge { limit_bytes: 1 }, 413, "catalogue_too_large"),
            (ApiError::InvalidCatalogue { reason: "x".into() }, 422, "invalid_catalogue"),
            (CoreError::UnsupportedAudio { reason: "x".into() }.into(), 415, "unsupported_audio"),
            (CoreError::InvalidParameter { name: "top_k", allowed: "x".into() }.into(), 422, "invalid_parameter"),
            (CoreError::UnsupportedLanguage { language: "x".into() }.into(), 422, "unsupported_language"),
            (ApiError::Overloaded { retry_after_s: 3 }, 429, "overloaded"),
            (ApiError::ModelLoading, 409, "model_loading"),
            (ApiError::NotLoaded { code: "out_of_memory", reason: "x".into() }, 422, "out_of_memory"),
            (ApiError::NeedsAdminKey, 403, "forbidden"),
            (ApiError::NotJson, 415, "not_json"),
            (ApiError::Loading, 503, "loading"),
            (ApiError::Draining, 503, "draining"),
            (ApiError::Timeout { limit_s: 1.0 }, 504, "timeout"),
            (CoreError::NotFinite { stage: "encoder" }.into(), 500, "internal_error"),
        ];
        for (error, status, code) in cases {
            assert_eq!((error.status().as_u16(), error.code()), (status, code), "{error}");
            assert!(openapi::CODES.iter().any(|(described, _)| *described == code), "{code} is not described");
        }
    }

    #[test]
    fn the_cause_of_a_500_stays_inside() {
        let secret = "/home/shop/.cache/hf_secret";
        let error = ApiError::from(CoreError::Io {
            what: format!("reading {secret}"),
            source: std::io::Error::other("denied"),
        });
        assert!(!error.detail().contains(secret), "{}", error.detail());
        assert!(error.to_string().contains(secret));
    }

    #[test]
    fn a_full_queue_says_when_to_come_back() {
        let response = ApiError::Overloaded { retry_after_s: 7 }.into_response();
        assert_eq!(response.headers()[header::RETRY_AFTER], "7");
    }
}
