//! `GET /performance-stats`.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use okyeame_core::Task;
use serde::Serialize;
use utoipa::ToSchema;

use crate::error::ApiError;
use crate::model_choice::ModelSource;
use crate::routes::openapi::{self, AboutRefusals};
use crate::state::Server;
use crate::stats::PerformanceMetrics;

/// The answer of `/performance-stats`.
#[derive(Serialize, ToSchema)]
pub(crate) struct PerformanceReport {
    performance_metrics: PerformanceMetrics,
    optimization_status: OptimizationStatus,
    model_info: ModelSummary,
}

#[derive(Serialize, ToSchema)]
struct OptimizationStatus {
    cuda_available: bool,
    device: String,
    dtype: String,
    cache_enabled: bool,
    cache_entries: u64,
    cache_bytes: u64,
    batching_enabled: bool,
    threads: usize,
    queue_length: usize,
    queue_capacity: usize,
}

#[derive(Serialize, ToSchema)]
struct ModelSummary {
    /// The repository, or the folder's name: never a path of this machine.
    model_path: String,
    model_type: Task,
    device: String,
    model_source: ModelSource,
}

/// How the server does, and what it runs on
///
/// Counters since the start, percentiles of the latest requests; one clip is one request. For machines: `/metrics`.
#[utoipa::path(get, path = "/performance-stats", tag = openapi::OPERATION,
    responses((status = 200, description = "Figures", body = PerformanceReport), AboutRefusals),
    security((), ("bearer" = ["operate"]), ("api_key" = ["operate"]))
)]
pub(crate) async fn performance_stats(State(server): State<Arc<Server>>) -> Result<Json<PerformanceReport>, ApiError> {
    let model = server.worker.model()?;
    let (cache_entries, cache_bytes) = server.cache.size();
    let (queue_length, queue_capacity) = server.worker.queue_len();
    Ok(Json(PerformanceReport {
        performance_metrics: server.stats.snapshot(),
        optimization_status: OptimizationStatus {
            cuda_available: model.info.device.starts_with("cuda"),
            device: model.info.device.clone(),
            dtype: model.info.dtype.clone(),
            cache_enabled: server.cache.is_enabled(),
            cache_entries,
            cache_bytes,
            batching_enabled: server.config.max_batch > 1 && model.info.task == Task::Multi,
            threads: server.config.threads,
            queue_length,
            queue_capacity,
        },
        model_info: ModelSummary {
            model_path: model.choice.label(),
            model_type: model.info.task,
            device: model.info.device.clone(),
            model_source: model.choice.source(),
        },
    }))
}
