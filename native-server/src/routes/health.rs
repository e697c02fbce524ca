//! `GET /health`: can it do its work? `GET /live`: does it run at all?

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use okyeame_core::Task;
use serde::Serialize;

use crate::inference_worker::Health;
use crate::state::Server;

#[derive(Serialize)]
struct Components {
    transcription: &'static str,
    intent_classification: &'static str,
}

/// The answer of `/health`.
#[derive(Serialize)]
pub(crate) struct HealthReport {
    status: Health,
    /// The kind of engine, as in `Recognition.model_type`; `null` while there is no model.
    model_type: Option<String>,
    device: Option<String>,
    components: Components,
    /// What the model's repository lacks, and what stands in for it.
    fallbacks: Vec<String>,
    version: &'static str,
    uptime_s: f64,
}

/// 200 once the model has answered its warm-up clip and still answers; 503 otherwise.
pub(crate) async fn health(State(server): State<Arc<Server>>) -> (StatusCode, Json<HealthReport>) {
    let health = server.worker.health();
    let model = server.worker.model().ok();
    let components = match (&model, health) {
        (Some(model), Health::Healthy) => Components {
            transcription: if model.info.transcription { "healthy" } else { "unavailable" },
            intent_classification: match model.info.task {
                Task::Multi => "healthy",
                // No intent head: the intent is matched from the words.
                Task::Single => "fallback",
            },
        },
        _ => Components { transcription: "unavailable", intent_classification: "unavailable" },
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
#[derive(Serialize)]
pub(crate) struct Live {
    status: &'static str,
}

/// 200 as long as the process answers.
pub(crate) async fn live() -> Json<Live> {
    Json(Live { status: "alive" })
}
