//! `GET /`: the page. It is served while the model loads too; it asks `/health` itself.

use axum::http::header;
use axum::response::{Html, IntoResponse};

const INDEX_HTML: &str = include_str!("../../assets/index.html");

/// The page, never from a browser's cache: it changes with the binary.
pub(crate) async fn page() -> impl IntoResponse {
    ([(header::CACHE_CONTROL, "no-cache")], Html(INDEX_HTML))
}
