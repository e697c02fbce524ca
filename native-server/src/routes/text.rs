//! `POST /text-intent`: a command that was typed, for those who cannot or will not speak.

use std::sync::Arc;
use std::time::Instant;

use axum::Json;
use axum::body::Bytes;
use axum::extract::{FromRequest, Request, State};
use okyeame_core::intent::catalogue::{Catalogue, MAX_CATALOGUE_BYTES};
use okyeame_core::{Recognition, RecognizeOptions, RunWhere};
use serde::Deserialize;
use serde_json::Value;
use utoipa::ToSchema;

use crate::engine::Engine;
use crate::error::ApiError;
use crate::inference_worker::Answered;
use crate::queue::{Admission, Lane};
use crate::request_id;
use crate::routes::clip::{RUN_REASON, counted, millis};
use crate::routes::openapi::{self, TextRefusals};
use crate::routes::upload::{object, parse_catalogue, unread};
use crate::state::Server;
use crate::traces;

/// The route's name.
pub(crate) const ROUTE: &str = "/text-intent";

/// The body: `{"text": "Fa yei to cart no mu"}`, and what a clip's form may hold beside its file.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = TextCommand)]
struct Written {
    /// The command, 1 to 300 characters.
    #[schema(min_length = 1, max_length = 300, examples("Fa yei to cart no mu", "add three of these to my cart"))]
    text: String,
    /// Candidates in `top_predictions`.
    #[schema(minimum = 1, maximum = 100, default = 5)]
    top_k: Option<usize>,
    /// As for a clip; it is echoed, and does not change what is understood.
    language: Option<String>,
    /// The shop's own names, as the form's field `catalogue` has them.
    catalogue: Option<Value>,
}

/// What does this text ask for?
///
/// For customers who cannot or will not speak: the intent is matched from the words, and `intent_source` is `transcript`.
#[utoipa::path(post, path = ROUTE, operation_id = "text_intent", tag = openapi::COMMANDS,
    request_body = Written,
    responses((status = 200, description = "What was understood", body = Recognition), TextRefusals),
    security((), ("bearer" = ["intent"]), ("api_key" = ["intent"]))
)]
pub(crate) async fn text(State(server): State<Arc<Server>>, request: Request) -> Result<Json<Recognition>, ApiError> {
    let started = Instant::now();
    counted(&server, started, |_| false, answer(&server, request, started)).await.map(Json)
}

async fn answer(server: &Server, request: Request, started: Instant) -> Result<Recognition, ApiError> {
    server.accepts_work()?;
    server.worker.model()?;
    let body = Bytes::from_request(request, &()).await;
    let body = body.map_err(|refused| unread(refused.status(), &refused.body_text(), &refused, &server.config))?;
    let written: Written = object(&body).map_err(|reason| ApiError::InvalidJson { reason })?;
    let defaults = RecognizeOptions::default();
    let options = RecognizeOptions {
        top_k: written.top_k.unwrap_or(defaults.top_k),
        language: written.language,
        catalogue: catalogue(written.catalogue).await?.or_else(|| server.config.catalogue.clone()),
        ..defaults
    };
    let model = server.worker.model()?;
    model.options_check.check(&options)?;
    let bytes_sent = written.text.len() as u64;
    let work = move |engine: &dyn Engine| engine.recognize_text(&written.text, &options);
    let Answered { answer: mut recognition, queued } =
        server.worker.ask(&model, Lane::Commands, 0.0, Admission::Refuse, work).await?;
    recognition.run.place = RunWhere::Remote;
    recognition.run.reason = RUN_REASON.to_owned();
    recognition.run.bytes_sent = bytes_sent;
    recognition.timings_ms.queue = millis(queued);
    server.metrics.command(&recognition);
    traces::stages(&recognition.timings_ms);
    recognition.request_id = request_id::current();
    recognition.processing_time_ms = millis(started.elapsed());
    Ok(recognition)
}

/// A catalogue that came as a part of a message.
pub(super) async fn catalogue(given: Option<Value>) -> Result<Option<Arc<Catalogue>>, ApiError> {
    let Some(json) = given.map(|json| json.to_string()) else { return Ok(None) };
    if json.len() > MAX_CATALOGUE_BYTES {
        return Err(ApiError::CatalogueTooLarge { limit_bytes: MAX_CATALOGUE_BYTES });
    }
    parse_catalogue(json.into_bytes()).await.map(Some)
}
