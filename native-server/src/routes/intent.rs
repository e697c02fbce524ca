//! `POST /test-intent` (and `/recognize`, its older name): one clip, one answer.

use std::sync::Arc;
use std::time::Instant;

use axum::Json;
use axum::extract::{Request, State};
use okyeame_core::Recognition;

use crate::error::ApiError;
use crate::queue::Admission;
use crate::routes::clip;
use crate::routes::upload::{self, Form};
use crate::state::Server;

/// The route's main name.
pub(crate) const ROUTE: &str = "/test-intent";

/// Answers the form's one file.
pub(crate) async fn intent(State(server): State<Arc<Server>>, request: Request) -> Result<Json<Recognition>, ApiError> {
    let started = Instant::now();
    let form = Form { field: "file", route: ROUTE, max_files: 1 };
    let (file, options) = match upload::read(&server, request, form, started).await {
        Ok((mut files, options)) => (files.swap_remove(0), options), // never empty
        Err(error) => {
            server.stats.failed();
            return Err(error);
        }
    };
    clip::recognize(&server, file, &options, Admission::Refuse, started).await.map(Json)
}
