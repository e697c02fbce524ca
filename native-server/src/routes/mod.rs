//! The HTTP routes. One file for each thing that a client asks for.
//!
//! Read in this order: [`intent`] (one clip, the main job), [`upload`] (how a form becomes clips and
//! parameters), [`clip`] (how a clip becomes an answer), [`stream`] (a microphone), [`batch`], [`text`], [`openai`] and [`openai_stream`]
//! (transcripts), [`files`], [`admin`] (another model); the rest only reports. A route is described where it is handled;
//! [`openapi`] gathers that.

pub(crate) mod admin;
pub(crate) mod batch;
pub(crate) mod clip;
pub(crate) mod files;
mod forms;
pub(crate) mod health;
pub(crate) mod intent;
pub(crate) mod intents;
pub(crate) mod openai;
mod openai_stream;
pub(crate) mod openapi;
pub(crate) mod page;
mod part_heads;
pub(crate) mod stats;
pub(crate) mod stream;
pub(crate) mod text;
pub(crate) mod tokens;
pub(crate) mod upload;

use std::any::Any;
use std::sync::Arc;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::middleware;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use tower_http::catch_panic::CatchPanicLayer;

use crate::access::{self, Door, Scope};
use crate::connections;
use crate::error::ApiError;
use crate::inference_worker::panic_message;
use crate::metrics;
use crate::request_id;
use crate::state::Server;
use crate::traces;

/// All the routes, over a running [`Server`].
pub fn app(server: Arc<Server>) -> Router {
    let max_body_bytes = server.config.max_body_bytes;
    let open_to = |scopes| middleware::from_fn_with_state(Door { server: Arc::clone(&server), scopes }, access::layer);
    let commands = Router::new()
        .route(intent::ROUTE, post(intent::intent))
        .route(intent::ALIAS, post(intent::intent))
        .route(batch::ROUTE, post(batch::batch))
        .route(batch::ALIAS, post(batch::batch))
        .route(text::ROUTE, post(text::text))
        .route(stream::ROUTE, get(stream::stream))
        .route_layer(open_to(&[Scope::Intent]));
    let words = Router::new()
        .route(openai::TRANSCRIPTIONS, post(openai::transcriptions))
        .route(openai::TRANSLATIONS, post(openai::translations))
        .route_layer(open_to(&[Scope::Transcribe]));
    let operation = Router::new()
        .route("/metrics", get(metrics::metrics))
        .route("/performance-stats", get(stats::performance_stats))
        .route_layer(open_to(&[Scope::Operate]));
    let administration =
        Router::new().route(admin::MODELS, get(admin::models).post(admin::load)).route_layer(open_to(&[Scope::Admin]));
    // Whoever may do anything here.
    let about = Router::new()
        .route(openai::MODELS, get(openai::models))
        .route("/intents", get(intents::intents))
        .route("/model-info", get(intents::model_info))
        .route(tokens::ROUTE, post(tokens::mint))
        .route_layer(open_to(&Scope::ALL));
    let mut api = Router::new()
        .route("/health", get(health::health))
        .route("/live", get(health::live))
        .route(openapi::DOCUMENT, get(openapi::openapi_json))
        .route(openapi::DOCS, get(openapi::docs))
        .route(openapi::DOCS_FILES, get(openapi::docs_file))
        .merge(commands)
        .merge(words)
        .merge(operation)
        .merge(administration)
        .merge(about)
        .method_not_allowed_fallback(method_not_allowed);
    if !server.config.allowed_origins.is_empty() {
        api = api.layer(files::api_cors(&server.config.allowed_origins));
    }
    let models = Router::new()
        .route(files::MODELS, get(files::models))
        .method_not_allowed_fallback(method_not_allowed)
        .layer(files::models_cors());
    api.merge(models)
        .fallback(files::site)
        .layer(DefaultBodyLimit::max(max_body_bytes))
        .layer(connections::body_timeout(&server.config))
        // Last is outermost: a panic in a handler is answered like any other error, with its request id.
        .layer(CatchPanicLayer::custom(handler_panicked))
        .layer(middleware::from_fn_with_state(Arc::clone(&server), metrics::layer))
        .layer(middleware::from_fn_with_state(Arc::clone(&server), traces::layer))
        .layer(middleware::from_fn(request_id::layer))
        .with_state(server)
}

/// Inside of the layers that answer what a browser asks before a request of its own (`OPTIONS`).
async fn method_not_allowed() -> ApiError {
    ApiError::MethodNotAllowed
}

fn handler_panicked(panic: Box<dyn Any + Send + 'static>) -> Response {
    ApiError::Internal { cause: format!("a handler panicked: {}", panic_message(panic.as_ref())) }.into_response()
}
