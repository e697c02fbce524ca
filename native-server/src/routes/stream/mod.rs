//! `GET /v1/stream`: a page's or a device's microphone over a WebSocket, answered utterance by utterance.
//!
//! Read in this order: this file (who may open a stream, and with what settings), [`messages`] (what is said in it), [`ear`]
//! (sound to utterances), [`session`] (the conversation). Where an utterance begins and ends is the core's `Endpointer`; its
//! answer is that of every clip ([`super::clip`]).
//!
//! A browser sends its page's `Origin` with a WebSocket, but holds no answer back as it does with CORS: so pages of other
//! sites are refused here. Nor can a page set `Authorization`: its token may come as a subprotocol, see [`crate::access`].

mod ear;
mod messages;
mod session;

use std::sync::Arc;

use axum::extract::ws::WebSocketUpgrade;
use axum::extract::{FromRequestParts, Request, State};
use axum::http::{HeaderMap, HeaderValue, Uri, header};
use axum::response::Response;
use okyeame_core::RecognizeOptions;
use okyeame_core::audio::EndpointOptions;
use okyeame_core::intent::catalogue::MAX_CATALOGUE_BYTES;

use crate::access::Caller;
use crate::config::ServerConfig;
use crate::error::ApiError;
use crate::request_id;
use crate::routes::openapi::{self, StreamRefusals};
use crate::routes::upload::{Parameters, out_of_range, query, truth};
use crate::state::Server;
use messages::Format;
use session::Session;

/// The route's name.
pub(crate) const ROUTE: &str = "/v1/stream";
/// The subprotocol that is spoken. A page that offers a token has to offer this, too: browsers want one of their offers taken.
const PROTOCOL: &str = "okyeame.v1";
/// The longest utterance, seconds: what a model hears at once.
const MAX_UTTERANCE_S: f64 = 30.0;
/// A message, bytes: two seconds of sound.
const MAX_MESSAGE_BYTES: usize = 64 * 1024;
/// The first message, bytes: it may hold a catalogue.
const MAX_FIRST_MESSAGE_BYTES: usize = MAX_CATALOGUE_BYTES + MAX_MESSAGE_BYTES;
/// What is read from a socket at once, bytes.
const READ_BUFFER_BYTES: usize = 16 * 1024;
/// Seconds after which a client may ask again for a stream when all are taken.
const RETRY_S: u64 = 5;

/// What a stream's query says.
#[derive(Debug)]
struct Asked {
    options: RecognizeOptions,
    format: Format,
    partials: bool,
}

impl Asked {
    fn from_query(uri: &Uri, config: &ServerConfig) -> Result<Self, ApiError> {
        let mut parameters = Parameters::from_query(uri)?;
        parameters.transcribe.get_or_insert(false);
        parameters.catalogue = config.catalogue.clone();
        let mut asked = Self { options: parameters.into_options(), format: Format::Pcm16, partials: false };
        for (name, value) in query(uri)? {
            match (name.as_str(), value.trim()) {
                (_, "") => {}
                ("format", "pcm16") => asked.format = Format::Pcm16,
                ("format", "opus") => asked.format = Format::Opus,
                ("format", _) => return Err(out_of_range("format", "pcm16 or opus".to_owned())),
                ("partials", value) => asked.partials = truth("partials", value)?,
                _ => {}
            }
        }
        Ok(asked)
    }
}

/// A microphone over a WebSocket
///
/// Sound in (binary frames), an answer for each utterance out (text frames of JSON, told apart by `type`): `ready`,
/// `speech_started`, `partial`, `intent` (from the sound), `final` (with the words), `error`. The server hears where an utterance
/// ends; `{"type": "end"}` ends it by hand, `{"type": "stop"}` the stream. The first message may be `{"type": "start"}` with
/// `language`, `top_k`, `transcribe` and `catalogue`. A page offers the subprotocol `okyeame.v1` and, as it cannot set
/// `Authorization`, its token as the subprotocol `okyeame.token.TOKEN`.
#[utoipa::path(get, path = ROUTE, operation_id = "stream", tag = openapi::COMMANDS,
    params(
        ("format" = Option<String>, Query, description = "`pcm16` (16 kHz, mono, 16 bits, little-endian; the default) or `opus` (a packet in each frame)"),
        ("partials" = Option<bool>, Query, description = "Whether to say what it sounds like so far"),
        ("transcribe" = Option<bool>, Query, description = "Whether the words are wanted; they are not unless asked for"),
        ("top_k" = Option<u32>, Query, description = "Candidates in each answer", minimum = 1, maximum = 100),
        ("language" = Option<String>, Query, description = "As for a clip"),
    ),
    responses((status = 101, description = "The stream is open"), StreamRefusals),
    security((), ("bearer" = ["intent"]), ("api_key" = ["intent"]))
)]
pub(crate) async fn stream(State(server): State<Arc<Server>>, request: Request) -> Result<Response, ApiError> {
    let (mut parts, _) = request.into_parts();
    check_origin(&parts.headers, &server.config.allowed_origins)?;
    server.accepts_work()?;
    let model = server.worker.model()?;
    let asked = Asked::from_query(&parts.uri, &server.config)?;
    model.options_check.check(&asked.options)?;
    let caller = parts.extensions.get::<Caller>().cloned();
    let upgrade: WebSocketUpgrade =
        WebSocketUpgrade::from_request_parts(&mut parts, &()).await.map_err(|_| ApiError::NotWebSocket)?;
    let place = Arc::clone(&server.streams).try_acquire_owned();
    let place = place.map_err(|_| ApiError::Overloaded { retry_after_s: RETRY_S })?;
    let session = Session::new(server, caller, asked)?;
    let request_id = request_id::current();
    Ok(upgrade
        .read_buffer_size(READ_BUFFER_BYTES)
        .max_frame_size(MAX_FIRST_MESSAGE_BYTES)
        .max_message_size(MAX_FIRST_MESSAGE_BYTES)
        .protocols([PROTOCOL])
        .on_upgrade(move |socket| request_id::under(request_id, session.run(socket, place))))
}

/// When an utterance ends.
fn endpoint_options(config: &ServerConfig) -> EndpointOptions {
    // `as` saturates.
    EndpointOptions { max_ms: (MAX_UTTERANCE_S.min(config.max_audio_s) * 1e3) as u32, ..EndpointOptions::default() }
}

/// Another site's page must not speak through its visitor's browser: to a server of the visitor's own machine or network, which
/// asks for no key, or with a token that it got hold of.
fn check_origin(headers: &HeaderMap, allowed: &[HeaderValue]) -> Result<(), ApiError> {
    // A program that is no browser sends none, or what it likes.
    let Some(origin) = headers.get(header::ORIGIN) else { return Ok(()) };
    let is_allowed = allowed.iter().any(|allowed| allowed == "*" || allowed == origin);
    if is_allowed || is_own(origin, headers.get(header::HOST)) { Ok(()) } else { Err(ApiError::ForeignOrigin) }
}

/// Whether a page comes from the host that it asks.
fn is_own(origin: &HeaderValue, host: Option<&HeaderValue>) -> bool {
    let (Ok(origin), Some(Ok(host))) = (origin.to_str(), host.map(HeaderValue::to_str)) else { return false };
    origin.split_once("://").is_some_and(|(_, authority)| authority.eq_ignore_ascii_case(host))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn pages_of_other_sites_are_refused() {
        let check = |origin: Option<&'static str>, allowed: &[&'static str]| {
            let mut headers = HeaderMap::new();
            headers.insert(header::HOST, HeaderValue::from_static("shop.example:8000"));
            if let Some(origin) = origin {
                headers.insert(header::ORIGIN, HeaderValue::from_static(origin));
            }
            let allowed: Vec<_> = allowed.iter().copied().map(HeaderValue::from_static).collect();
            check_origin(&headers, &allowed).is_ok()
        };
        assert!(check(None, &[]));
        for own in ["http://shop.example:8000", "https://SHOP.example:8000"] {
            assert!(check(Some(own), &[]), "{own}");
        }
        for foreign in
            ["https://evil.example", "null", "", "shop.example:8000", "http://shop.example:8000.evil.example"]
        {
            assert!(!check(Some(foreign), &["https://other.example"]), "{foreign}");
            assert!(check(Some(foreign), &["*"]), "{foreign}");
        }
        assert!(check(Some("https://other.example"), &["https://a.example", "https://other.example"]));
    }

    #[test]
    fn a_query_is_read_strictly() {
        let read = |query: &str| Asked::from_query(&format!("/x?{query}").parse().unwrap(), &ServerConfig::default());
        let plain = read("").unwrap();
        assert_eq!((plain.format, plain.partials, plain.options.transcribe), (Format::Pcm16, false, false));
        let asked = read("format=opus&partials=1&transcribe=true&top_k=2&language=en&utm_source=x").unwrap();
        assert_eq!((asked.format, asked.partials, asked.options.transcribe), (Format::Opus, true, true));
        assert_eq!((asked.options.top_k, asked.options.language.as_deref()), (2, Some("en")));
        for bad in ["format=mp3", "partials=maybe", "transcribe=2", "top_k=x"] {
            assert_eq!(read(bad).unwrap_err().code(), "invalid_parameter", "{bad}");
        }
    }

    #[test]
    fn an_utterance_is_no_longer_than_a_clip_may_be() {
        let max_ms =
            |max_audio_s: f64| endpoint_options(&ServerConfig { max_audio_s, ..ServerConfig::default() }).max_ms;
        assert_eq!([600.0, 12.5].map(max_ms), [30_000, 12_500]);
    }
}
