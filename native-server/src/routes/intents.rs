//! `GET /intents` and `GET /model-info`: what the model can tell apart, and what it is.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use okyeame_core::{IntentInfo, ModelInfo};
use serde::Serialize;

use crate::error::ApiError;
use crate::state::Server;

/// The answer of `/intents`.
#[derive(Serialize)]
pub(crate) struct Intents {
    intents: Vec<IntentInfo>,
    total_intents: usize,
}

/// The labels in their order, with what each means.
pub(crate) async fn intents(State(server): State<Arc<Server>>) -> Result<Json<Intents>, ApiError> {
    let intents = server.worker.model()?.intents.clone();
    Ok(Json(Intents { total_intents: intents.len(), intents }))
}

/// What `okyeame info` says.
pub(crate) async fn model_info(State(server): State<Arc<Server>>) -> Result<Json<ModelInfo>, ApiError> {
    Ok(Json(server.worker.model()?.info.clone()))
}
