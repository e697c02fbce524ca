//! `GET /`: the page. It is served while the model loads too; it asks `/health` itself.

use axum::http::header;
use axum::response::{Html, IntoResponse};

use crate::routes::openapi;

const INDEX_HTML: &str = include_str!("../../assets/index.html");

/// The page
///
/// Speak to it in a browser. With `--site`, the pages of that folder stand in its place, and `GET /…` are its files.
#[utoipa::path(get, path = "/", tag = openapi::PAGES, responses(
    (status = 200, description = "The page, never from a browser's cache", body = String, content_type = "text/html"),
))]
pub(crate) async fn page() -> impl IntoResponse {
    ([(header::CACHE_CONTROL, "no-cache")], Html(INDEX_HTML))
}
