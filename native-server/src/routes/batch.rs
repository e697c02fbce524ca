//! `POST /batch-intent` (and `/batch-recognize`): many clips, an answer for each, in their order. One bad
//! file fails alone.

use std::sync::Arc;
use std::time::Instant;

use axum::Json;
use axum::extract::{Request, State};
use futures::StreamExt;
use okyeame_core::{Recognition, RecognizeOptions};
use serde::Serialize;
use utoipa::ToSchema;

use crate::error::ApiError;
use crate::queue::Admission;
use crate::routes::clip;
use crate::routes::forms::{BatchForm, ClipQuery};
use crate::routes::openapi::{self, BatchRefusals};
use crate::routes::upload::{self, Form, UploadedFile};
use crate::state::Server;

/// The route's main name.
pub(crate) const ROUTE: &str = "/batch-intent";
/// Its older name.
pub(crate) const ALIAS: &str = "/batch-recognize";
/// Files of one batch that are at work together: one in the model, one waiting for it, one or two being
/// decoded. More would only keep single clips out of the queue.
const AT_WORK: usize = 4;

/// A file's answer, or why it has none.
#[derive(Serialize, ToSchema)]
#[serde(untagged)]
enum Outcome {
    Answered(Box<Recognition>),
    Failed {
        filename: String,
        /// What is wrong with this file, and what to do about it.
        error: String,
        #[schema(schema_with = openapi::error_code)]
        code: &'static str,
    },
}

/// The answer of `/batch-intent`.
#[derive(Serialize, ToSchema)]
pub(crate) struct BatchReport {
    /// In the order of the files.
    results: Vec<Outcome>,
    total_files: usize,
    successful: usize,
    failed: usize,
    total_processing_time_ms: f64,
}

/// What do these recordings ask for?
///
/// An answer for each file, in their order. A file that cannot be answered fails alone, with the code that `/test-intent`
/// would have refused it with. The time limit holds for each file, from its turn on.
#[utoipa::path(post, path = ROUTE, operation_id = "batch_intent", tag = openapi::COMMANDS,
    params(ClipQuery),
    request_body(content = BatchForm, content_type = "multipart/form-data"),
    responses((status = 200, description = "An answer for each file", body = BatchReport), BatchRefusals),
    security((), ("bearer" = ["intent"]), ("api_key" = ["intent"]))
)]
pub(crate) async fn batch(State(server): State<Arc<Server>>, request: Request) -> Result<Json<BatchReport>, ApiError> {
    let started = Instant::now();
    let form = Form { field: "files", route: ROUTE, max_files: server.config.max_batch_files };
    let (files, options) = match upload::read(&server, request, form, started).await {
        Ok(read) => read,
        Err(error) => {
            server.stats.failed();
            return Err(error);
        }
    };
    let total_files = files.len();
    let results: Vec<Outcome> = futures::stream::iter(files)
        .map(move |file| answer(Arc::clone(&server), file, options.clone()))
        .buffered(AT_WORK)
        .collect()
        .await;
    let successful = results.iter().filter(|outcome| matches!(outcome, Outcome::Answered(_))).count();
    Ok(Json(BatchReport {
        results,
        total_files,
        successful,
        failed: total_files - successful,
        total_processing_time_ms: started.elapsed().as_micros() as f64 / 1e3,
    }))
}

async fn answer(server: Arc<Server>, file: UploadedFile, options: RecognizeOptions) -> Outcome {
    let filename = file.filename.clone();
    match clip::recognize(&server, file, &options, Admission::Wait, Instant::now()).await {
        Ok(recognition) => Outcome::Answered(Box::new(recognition)),
        Err(error) => {
            error.log();
            server.metrics.error(error.code());
            Outcome::Failed { filename, error: error.detail(), code: error.code() }
        }
    }
}
