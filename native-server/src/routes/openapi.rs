//! `GET /openapi.json`, what this API takes and gives (OpenAPI 3.1), and `GET /docs`, a page that shows it.
//!
//! The document is made from the code: `#[utoipa::path]` stands at each handler, the schemas are those of the types that
//! are sent, and the status of an error is asked of the map that answers it. What is described and has no type of its own
//! is in [`forms`](super::forms). `native-server/openapi.json` is a copy for those who make clients; a test says when it is
//! stale. The page is Swagger UI, out of this binary: it works without a network. Neither asks for a key: who may read the
//! pages may read how to ask.
//!
//! A new route: `#[utoipa::path]` at its handler, its line in [`Document`]'s `paths`, its codes in a set of `refusal_sets!`.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

use axum::body::Body;
use axum::http::{HeaderValue, StatusCode, Uri, header};
use axum::response::{Html, IntoResponse, Response};
use serde_json::Value;
use utoipa::openapi::header::{Header, HeaderBuilder};
use utoipa::openapi::response::ResponseBuilder;
use utoipa::openapi::schema::{Components, Object, ObjectBuilder, Type};
use utoipa::openapi::security::{ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::openapi::{self, Content, Ref, RefOr};
use utoipa::{IntoResponses, Modify, OpenApi};

use super::forms::OpenAiErrorBody;
use super::{admin, batch, files, health, intent, intents, openai, page, stats, stream, text, tokens};
use crate::error::{ApiError, ErrorBody, status_of};
use crate::metrics;

/// The routes' names.
pub(crate) const DOCUMENT: &str = "/openapi.json";
pub(crate) const DOCS: &str = "/docs";
pub(crate) const DOCS_FILES: &str = "/docs/{file}";

/// The groups of operations.
pub(crate) const COMMANDS: &str = "Commands";
pub(crate) const WORDS: &str = "Words";
pub(crate) const ACCESS: &str = "Access";
pub(crate) const ABOUT: &str = "About the model";
pub(crate) const OPERATION: &str = "Operation";
pub(crate) const PAGES: &str = "Pages and files";

const DOCS_HTML: &str = include_str!("../../assets/docs.html");
const DOCS_JS: &str = include_str!("../../assets/docs.js");
/// The page runs the scripts of this server and talks to it, and to nobody else.
const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; \
    img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'self'";

/// Every code of an error, and what it says. The statuses are [`status_of`]'s.
pub(crate) const CODES: [(&str, &str); 56] = [
    ("empty_audio", "the file holds no bytes, or no samples"),
    ("malformed_audio", "a known format, but damaged or cut off before the first sample"),
    ("invalid_samples", "samples that are no finite numbers"),
    ("missing_file", "the form holds no file: send it as the field that the route names"),
    ("not_multipart", "the body is no `multipart/form-data`"),
    ("malformed_body", "the body is damaged, or not the JSON that the route takes"),
    ("missing_key", "this server asks for a key: send it as `Authorization: Bearer KEY`"),
    ("invalid_key", "a key or token that is not known here"),
    ("token_expired", "the token has ended: ask the shop for a new one"),
    ("wrong_origin", "the token is for a page of another origin"),
    ("forbidden", "the scopes of the key or token do not open this route"),
    ("not_found", "there is nothing here"),
    ("unknown_model", "`model` names none that is served"),
    ("method_not_allowed", "the route takes other methods: see the `Allow` header"),
    ("body_timeout", "the rest of the body did not come"),
    ("audio_too_long", "the clip plays longer than the server takes"),
    ("body_too_large", "the body is larger than the server takes"),
    ("catalogue_too_large", "the catalogue is larger than 1 MiB"),
    ("unsupported_audio", "not audio of a known format: send WAV, FLAC, MP3, Ogg, WebM or M4A"),
    ("invalid_parameter", "a parameter is out of its range; `detail` says which, and what it may be"),
    ("unsupported_language", "the model does not know this language"),
    ("too_many_files", "more files than the route takes"),
    ("invalid_catalogue", "the catalogue cannot be used; `detail` says where"),
    ("overloaded", "more work waits than the server takes on: come back after `Retry-After` seconds"),
    ("rate_limited", "too many requests with this key or token: come back after `Retry-After` seconds"),
    ("loading", "the model is still loading: come back after `Retry-After` seconds"),
    ("draining", "the server shuts down: come back after `Retry-After` seconds"),
    ("model_unavailable", "the model could not be loaded; the server's log says why"),
    ("timeout", "the answer took longer than the server allows"),
    ("internal_error", "the server's own fault; its log holds the cause under `request_id`"),
    ("not_a_websocket", "this route speaks WebSocket only: ask with `Upgrade: websocket`"),
    ("not_json", "send the body as `Content-Type: application/json`"),
    ("model_loading", "another model is being loaded: one at a time"),
    ("model_not_found", "there is no such model, or it is not complete"),
    ("invalid_config", "a file of the model does not fit the others"),
    ("unsupported_model", "a kind of model that is not read here"),
    ("unsafe_path", "a file of the model points out of its folder"),
    ("damaged_weights", "the weights are damaged"),
    ("unsafe_pickle", "the weights ask to run something; nothing was run"),
    ("weights_too_large", "the weights are larger than is read here"),
    ("weight_mismatch", "the weights are not those of the architecture; `detail` lists the tensors"),
    ("shape_mismatch", "a tensor has another shape than its neighbours need"),
    ("unsupported_bundle", "a web bundle of another version"),
    ("checksum_mismatch", "a file is not what its checksum says"),
    ("out_of_memory", "the model does not fit into the memory that is free"),
    ("device_unavailable", "the device is not there"),
    ("device_failed", "the device failed"),
    ("not_finite", "the model's numbers are not finite"),
    ("io", "a file could not be read; the server's log says which"),
    ("bad_manifest", "a manifest cannot be used"),
    ("hub_unreachable", "the hub cannot be reached"),
    ("hub_unauthorized", "the hub does not know the token"),
    ("hub_forbidden", "the hub does not let the token's account in"),
    ("hub_not_found", "the hub has no such repository"),
    ("hub_busy", "the hub asks to come back later"),
    ("hub_failed", "the hub failed"),
];

/// Why a model cannot be loaded.
const LOAD: &[&str] = &[
    "model_not_found",
    "invalid_config",
    "unsupported_model",
    "unsafe_path",
    "damaged_weights",
    "unsafe_pickle",
    "weights_too_large",
    "weight_mismatch",
    "shape_mismatch",
    "unsupported_bundle",
    "checksum_mismatch",
    "out_of_memory",
    "device_unavailable",
    "device_failed",
    "not_finite",
    "io",
    "bad_manifest",
    "hub_unreachable",
    "hub_unauthorized",
    "hub_forbidden",
    "hub_not_found",
    "hub_busy",
    "hub_failed",
];

/// What the door says of a key or a token.
const DOOR: &[&str] = &["missing_key", "invalid_key", "token_expired", "wrong_origin", "forbidden", "rate_limited"];
/// The model is not there, or not any more.
const NO_MODEL: &[&str] = &["loading", "model_unavailable", "internal_error"];
/// What a body alone can be wrong in.
const BODY: &[&str] = &["malformed_body", "body_timeout", "body_too_large"];
/// A form of files.
const FORM: &[&str] = &["missing_file", "not_multipart", "too_many_files", "invalid_parameter", "draining", "timeout"];
/// What is asked about a command.
const OPTIONS: &[&str] = &["unsupported_language", "invalid_catalogue", "catalogue_too_large"];
/// A recording.
const AUDIO: &[&str] = &["empty_audio", "malformed_audio", "invalid_samples", "unsupported_audio", "audio_too_long"];

/// Types that stand for what a route refuses with: `NAME, SCHEMA OF THE BODY, CODES…`.
macro_rules! refusal_sets {
    ($($(#[$doc:meta])* $name:ident, $body:literal, $($codes:expr),+;)+) => {$(
        $(#[$doc])*
        pub(crate) struct $name;

        impl IntoResponses for $name {
            fn responses() -> BTreeMap<String, RefOr<openapi::Response>> {
                refusals(&[$($codes),+], $body)
            }
        }
    )+};
}

refusal_sets! {
    /// One clip.
    ClipRefusals, "ErrorBody", DOOR, NO_MODEL, BODY, FORM, OPTIONS, AUDIO, &["overloaded"];
    /// Many clips: what is wrong with one of them stands in its place among the results.
    BatchRefusals, "ErrorBody", DOOR, NO_MODEL, BODY, FORM, OPTIONS;
    /// A text.
    TextRefusals, "ErrorBody", DOOR, NO_MODEL, BODY, OPTIONS, &["invalid_parameter", "overloaded", "draining", "timeout"];
    /// A transcript.
    TranscriptRefusals, "OpenAiErrorBody", DOOR, NO_MODEL, BODY, FORM, AUDIO,
        &["unsupported_language", "unknown_model", "overloaded"];
    /// The list of models.
    ModelListRefusals, "OpenAiErrorBody", DOOR, NO_MODEL;
    /// What is asked of the model, without work for it.
    AboutRefusals, "ErrorBody", DOOR, NO_MODEL;
    /// A token.
    TokenRefusals, "ErrorBody", DOOR, BODY, &["invalid_parameter", "internal_error"];
    /// A stream, before it is one.
    StreamRefusals, "ErrorBody", DOOR, NO_MODEL, OPTIONS, &["invalid_parameter", "not_a_websocket", "overloaded", "draining"];
    /// What is served.
    AdminRefusals, "ErrorBody", DOOR;
    /// Another model.
    LoadRefusals, "ErrorBody", DOOR, BODY, LOAD, &["not_json", "model_loading", "invalid_parameter", "draining", "internal_error"];
    /// Counters.
    MetricsRefusals, "ErrorBody", DOOR, &["internal_error"];
    /// A file.
    FileRefusals, "ErrorBody", &["not_found"];
}

/// The responses of these codes, each under its status.
fn refusals(sets: &[&[&'static str]], body: &str) -> BTreeMap<String, RefOr<openapi::Response>> {
    let mut by_status: BTreeMap<u16, Vec<&'static str>> = BTreeMap::new();
    for set in sets {
        for code in *set {
            // What is wrong with a model is the fault of whoever asked for it.
            let status = if LOAD.contains(code) { StatusCode::UNPROCESSABLE_ENTITY } else { status_of(code) };
            by_status.entry(status.as_u16()).or_default().push(*code);
        }
    }
    let response = |(status, codes): (u16, Vec<&'static str>)| {
        let lines: Vec<String> = codes.iter().map(|code| format!("- `{code}`: {}", meaning(code))).collect();
        let mut response = ResponseBuilder::new()
            .description(lines.join("\n"))
            .content("application/json", Content::new(Some(Ref::from_schema_name(body))));
        response = match status {
            401 => response.header("WWW-Authenticate", header_of(Type::String, "`Bearer`")),
            429 | 503 => {
                response.header("Retry-After", header_of(Type::Integer, "Seconds until it makes sense to ask again"))
            }
            _ => response,
        };
        (status.to_string(), RefOr::T(response.build()))
    };
    by_status.into_iter().map(response).collect()
}

fn meaning(code: &str) -> &'static str {
    CODES.iter().find(|(known, _)| *known == code).map(|(_, meaning)| *meaning).expect("each code of a set is in CODES")
}

fn header_of(kind: Type, description: &str) -> Header {
    HeaderBuilder::new().schema(Some(Object::with_type(kind))).description(Some(description)).build()
}

/// An answer to a command.
pub(crate) fn example() -> Value {
    serde_json::from_str(include_str!("../../assets/recognition.json")).expect("a test reads it")
}

/// The schema of an error's `code`.
pub(crate) fn error_code() -> Object {
    ObjectBuilder::new()
        .schema_type(Type::String)
        .description(Some("A stable name for programs to look at."))
        .enum_values(Some(CODES.map(|(code, _)| code)))
        .build()
}

const INTRODUCTION: &str = "Speech in, a shop's command out: a customer says *Fa yei to cart no mu*, and the answer is \
    the intent `add_to_cart`, how sure it is, the values in it and the words. Twi, often mixed with English.\n\n\
    ```console\n$ curl -F file=@command.wav 'http://localhost:8000/test-intent?top_k=3'\n```\n\n\
    **Act on an answer only if `accepted` is true**; then look at `risk`. A rejected clip has the intent `unknown` and says \
    why in `rejection`. Times are milliseconds, lengths of audio seconds.\n\n\
    **Errors** are `{\"detail\", \"code\", \"request_id\"}`: a sentence for people, a stable name for programs, and what to \
    ask the operator with. A request may bring its own `X-Request-Id` (letters, digits, `.`, `_`, `-`; at most 64).\n\n\
    **Keys.** A server without keys is open to whoever reaches it. With keys, a shop's own servers send one as \
    `Authorization: Bearer KEY` (or `X-API-Key: KEY`), and its pages send a short-lived token from `POST /v1/tokens`. Each \
    route says the scope that it asks for.\n\n\
    **Bounds** (files, seconds, bytes, requests) are settings of the server: an answer that refuses says which one was met.";

/// Who may ask for what.
#[derive(OpenApi)]
#[openapi(
    info(title = "Okyeame", description = INTRODUCTION),
    tags(
        (name = COMMANDS, description = "What did the customer mean?"),
        (name = WORDS, description = "What was said? OpenAI's audio API: its clients work unchanged."),
        (name = ACCESS, description = "Tokens for pages, which must not hold a key."),
        (name = ABOUT, description = "What is served, and what it can tell apart."),
        (name = OPERATION, description = "Probes and figures for those who run it."),
        (name = PAGES, description = "What browsers fetch."),
    ),
    paths(
        intent::intent,
        batch::batch,
        text::text,
        stream::stream,
        openai::transcriptions,
        openai::translations,
        openai::models,
        tokens::mint,
        intents::intents,
        intents::model_info,
        health::health,
        health::live,
        stats::performance_stats,
        metrics::metrics,
        admin::models,
        admin::load,
        page::page,
        files::models,
        openapi_json,
        docs,
        docs_file,
    ),
    components(schemas(ErrorBody, OpenAiErrorBody)),
    modifiers(&Finish)
)]
struct Document;

/// What no attribute says: older names, headers of every answer, and how keys are shown.
struct Finish;

impl Modify for Finish {
    fn modify(&self, document: &mut openapi::OpenApi) {
        let paths = &mut document.paths.paths;
        for (alias, route) in [(intent::ALIAS, intent::ROUTE), (batch::ALIAS, batch::ROUTE)] {
            let mut item = paths.get(route).cloned().expect("the route is described");
            if let Some(operation) = &mut item.post {
                operation.operation_id = Some(alias.trim_start_matches('/').replace('-', "_"));
                operation.summary = Some(format!("The older name of `{route}`"));
            }
            paths.insert(alias.to_owned(), item);
        }
        let operations = paths.values_mut().flat_map(|item| item.get.iter_mut().chain(item.post.iter_mut()));
        for response in operations.flat_map(|operation| operation.responses.responses.values_mut()) {
            if let RefOr::T(response) = response {
                let id = header_of(Type::String, "The request's name in the server's log");
                response.headers.insert("X-Request-Id".to_owned(), RefOr::T(id));
            }
        }
        let bearer = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).bearer_format("a key, or a token").description(Some(
            "A key of the shop's servers (`okyeame key`), or a token of `POST /v1/tokens`. Not asked for where the server \
             has no keys.",
        ));
        let api_key =
            ApiKeyValue::with_description("X-API-Key", "The same, for clients that cannot set `Authorization`.");
        let components = document.components.get_or_insert_with(Components::new);
        components.add_security_scheme("bearer", SecurityScheme::Http(bearer.build()));
        components.add_security_scheme("api_key", SecurityScheme::ApiKey(ApiKey::Header(api_key)));
    }
}

/// The document as it is sent, written once.
fn written() -> &'static str {
    static WRITTEN: LazyLock<String> =
        LazyLock::new(|| Document::openapi().to_pretty_json().expect("the document holds text and numbers") + "\n");
    &WRITTEN
}

/// This document
///
/// OpenAPI 3.1, for those who make clients and tests from it.
#[utoipa::path(get, path = DOCUMENT, tag = PAGES, responses(
    (status = 200, description = "The document", body = Object, content_type = "application/json"),
))]
pub(crate) async fn openapi_json() -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "application/json"), (header::CACHE_CONTROL, "no-cache")], written())
}

/// A page that shows this document
///
/// Each route can be tried there. Everything on it comes from this server.
#[utoipa::path(get, path = DOCS, tag = PAGES, responses(
    (status = 200, description = "The page", body = String, content_type = "text/html"),
))]
pub(crate) async fn docs() -> impl IntoResponse {
    let headers = [(header::CACHE_CONTROL, "no-cache"), (header::CONTENT_SECURITY_POLICY, CONTENT_SECURITY_POLICY)];
    (headers, Html(DOCS_HTML))
}

/// A script or a style of that page
#[utoipa::path(get, path = DOCS_FILES, tag = PAGES,
    params(("file" = String, Path, description = "`docs.js`, `swagger-ui-bundle.js` or `swagger-ui.css`")),
    responses(
        (status = 200, description = "The file; Swagger UI's own are compressed with gzip", content(
            (String = "text/javascript"),
            (String = "text/css"),
        )),
        FileRefusals,
    )
)]
pub(crate) async fn docs_file(uri: Uri) -> Result<Response, ApiError> {
    let (kind, name) = match uri.path().rsplit('/').next() {
        Some("docs.js") => return Ok(docs_response("text/javascript; charset=utf-8", Body::from(DOCS_JS))),
        Some(name @ "swagger-ui-bundle.js") => ("text/javascript; charset=utf-8", name),
        Some(name @ "swagger-ui.css") => ("text/css; charset=utf-8", name),
        _ => return Err(ApiError::NotFound),
    };
    let file = utoipa_swagger_ui::serve(name, Arc::default()).ok().flatten().ok_or(ApiError::NotFound)?;
    let mut response = docs_response(kind, Body::from(file.bytes));
    if file.gzpipped {
        response.headers_mut().insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    Ok(response)
}

/// A file that changes with the binary only.
fn docs_response(kind: &'static str, body: Body) -> Response {
    let headers = [
        (header::CONTENT_TYPE, kind),
        (header::CACHE_CONTROL, "public, max-age=3600"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    (headers, body).into_response()
}
