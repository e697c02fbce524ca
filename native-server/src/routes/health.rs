//! `GET /health`: can it do its work? `GET /live`: does it run at all?

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use okyeame_core::Task;
use serde::Serialize;
use utoipa::ToSchema;

use crate::inference_worker::Health;
use crate::routes::openapi;
use crate::state::Server;

/// Whether a part of the model does its work.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum Component {
    Healthy,
    /// Something else stands in for it: the intent is matched from the words.
    Fallback,
    Unavailable,
}

#[derive(Serialize, ToSchema)]
#[schema(as = HealthComponents)]
struct Components {
    transcription: Component,
    intent_classification: Component,
}

/// The answer of `/health`.
#[derive(Serialize, ToSchema)]
pub(crate) struct HealthReport {
    status: Health,
    /// The kind of engine, as in `Recognition.model_type`; `null` while there is no model.
    #[schema(required = true)]
    model_type: Option<String>,
    #[schema(required = true)]
    device: Option<String>,
    components: Components,
    /// What the model's repository lacks, and what stands in for it.
    fallbacks: Vec<String>,
    version: &'static str,
    /// Seconds since the start.
    uptime_s: f64,
}

/// Can it do its work?
///
/// 200 once the model has answered its warm-up clip and still answers; 503 otherwise, with the same body.
#[utoipa::path(get, path = "/health", tag = openapi::OPERATION, responses(
    (status = 200, description = "Send work", body = HealthReport),
    (status = 503, description = "Send none: it loads, fails or shuts down", body = HealthReport),
))]
pub(crate) async fn health(State(server): State<Arc<Server>>) -> (StatusCode, Json<HealthReport>) {
    let health = server.worker.health();
    let model = server.worker.model().ok();
    let components = match (&model, health) {
        (Some(model), Health::Healthy) => Components {
            transcription: if model.info.transcription { Component::Healthy } else { Component::Unavailable },
            intent_classification: match model.info.task {
                Task::Multi => Component::Healthy,
                // No intent head: the intent is matched from the words.
                Task::Single => Component::Fallback,
            },
        },
        _ => Components { transcription: Component::Unavailable, intent_classification: Component::Unavailable },
    };
    let report = HealthReport {
        status: health,
        model_type: model.as_ref().map(|model| model.info.model_type.clone()),
        device: model.as_ref().map(|model| model.info.device.clone()),
        components,
        fallbacks: model.map(|model| model.info.fallbacks.clone()).unwrap_or_default(),
        version: env!("CARGO_PKG_VERSION"),
        uptime_s: server.started.elapsed().as_secs_f64(),
    };
    let status = if server.is_ready() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(report))
}

/// The answer of `/live`.
#[derive(Serialize, ToSchema)]
pub(crate) struct Live {
    /// `alive`.
    status: &'static str,
}

/// Does it run at all?
///
/// 200 as long as the process answers.
#[utoipa::path(get, path = "/live", tag = openapi::OPERATION, responses(
    (status = 200, description = "It runs", body = Live),
))]
pub(crate) async fn live() -> Json<Live> {
    Json(Live { status: "alive" })
}
