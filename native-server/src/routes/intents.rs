//! `GET /intents` and `GET /model-info`: what the model can tell apart, and what it is.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use okyeame_core::{IntentInfo, ModelInfo};
use serde::Serialize;
use utoipa::ToSchema;

use crate::error::ApiError;
use crate::routes::openapi::{self, AboutRefusals};
use crate::state::Server;

/// The answer of `/intents`.
#[derive(Serialize, ToSchema)]
pub(crate) struct Intents {
    intents: Vec<IntentInfo>,
    total_intents: usize,
}

/// What can be understood
///
/// The labels in their order, with what each means, the values that it can carry and how hard it is to undo.
#[utoipa::path(get, path = "/intents", tag = openapi::ABOUT,
    responses((status = 200, description = "The intents", body = Intents), AboutRefusals),
    security((), ("bearer" = []), ("api_key" = []))
)]
pub(crate) async fn intents(State(server): State<Arc<Server>>) -> Result<Json<Intents>, ApiError> {
    let intents = server.worker.model()?.intents.clone();
    Ok(Json(Intents { total_intents: intents.len(), intents }))
}

/// What is served
///
/// The model's kind, size, labels and number types: what `okyeame info` says.
#[utoipa::path(get, path = "/model-info", tag = openapi::ABOUT,
    responses((status = 200, description = "The model", body = ModelInfo), AboutRefusals),
    security((), ("bearer" = []), ("api_key" = []))
)]
pub(crate) async fn model_info(State(server): State<Arc<Server>>) -> Result<Json<ModelInfo>, ApiError> {
    Ok(Json(server.worker.model()?.info.clone()))
}
