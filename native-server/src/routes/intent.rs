//! `POST /test-intent` (and `/recognize`, its older name): one clip, one answer.

use std::sync::Arc;
use std::time::Instant;

use axum::Json;
use axum::extract::{Request, State};
use okyeame_core::Recognition;

use crate::error::ApiError;
use crate::queue::Admission;
use crate::routes::clip;
use crate::routes::forms::{ClipForm, ClipQuery};
use crate::routes::openapi::{self, ClipRefusals};
use crate::routes::upload::{self, Form};
use crate::state::Server;

/// The route's main name.
pub(crate) const ROUTE: &str = "/test-intent";
/// Its older name.
pub(crate) const ALIAS: &str = "/recognize";

/// What does this recording ask for?
///
/// One clip, one answer. Silence and talk that is no command are answers too: `accepted` is false then, and `rejection`
/// says why. The same clip with the same parameters may be answered from a cache (`"cached": true`).
#[utoipa::path(post, path = ROUTE, operation_id = "test_intent", tag = openapi::COMMANDS,
    params(ClipQuery),
    request_body(content = ClipForm, content_type = "multipart/form-data"),
    responses(
        (status = 200, description = "What was understood", body = Recognition, example = openapi::example),
        ClipRefusals,
    ),
    security((), ("bearer" = ["intent"]), ("api_key" = ["intent"]))
)]
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
