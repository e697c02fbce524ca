//! `GET /models/NAME/…` and, with a site, `GET /…`: web bundles and a shop's own pages, as files of a folder.
//!
//! Files are sent with `ETag`, ranges and, where `FILE.br` or `FILE.gz` lies beside them, compressed. A part of a bundle
//! carries its digest in its name and never changes; everything else is asked after at each visit. A path that leaves the
//! folder, or has a part that begins with a dot, is not found.

use std::path::Path;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{HeaderName, HeaderValue, Method, Uri, header};
use axum::response::{IntoResponse, Response};
use tower_http::cors::{AllowHeaders, AllowOrigin, Any, CorsLayer};
use tower_http::services::ServeDir;

use crate::error::ApiError;
use crate::routes::openapi::{self, FileRefusals};
use crate::routes::page;
use crate::state::Server;

const ONE_YEAR: HeaderValue = HeaderValue::from_static("public, max-age=31536000, immutable");
const ASK_EACH_TIME: HeaderValue = HeaderValue::from_static("no-cache");
/// What the shop's pages may do: run their own scripts and WebAssembly, and nothing that somebody slipped in.
const CONTENT_SECURITY_POLICY: HeaderValue = HeaderValue::from_static(
    "script-src 'self' 'wasm-unsafe-eval'; worker-src 'self'; object-src 'none'; base-uri 'self'; frame-ancestors 'self'",
);

/// Where the web bundles are.
pub(crate) const MODELS: &str = "/models/{*path}";

/// Any page may fetch a model: it is the customer's browser that asks, and weights are no secret of a page.
pub(crate) fn models_cors() -> CorsLayer {
    let shown = [header::CONTENT_LENGTH, header::CONTENT_RANGE, header::ETAG];
    CorsLayer::new()
        .allow_origin(Any)
        .allow_methods([Method::GET, Method::HEAD])
        .allow_headers(Any)
        .expose_headers(shown)
}

/// Pages of these origins may ask for answers; `*` stands for any page.
pub(crate) fn api_cors(origins: &[HeaderValue]) -> CorsLayer {
    let shown = [HeaderName::from_static("x-request-id"), header::RETRY_AFTER];
    let allowed =
        if origins.iter().any(|origin| origin == "*") { Any.into() } else { AllowOrigin::list(origins.to_vec()) };
    let methods = [Method::GET, Method::POST];
    // Not `*`: that leaves out `Authorization`.
    let sent = AllowHeaders::mirror_request();
    CorsLayer::new().allow_origin(allowed).allow_methods(methods).allow_headers(sent).expose_headers(shown)
}

/// A file of a web bundle
///
/// What a browser fetches to hear by itself. Any page may fetch it. Parts carry their digest in their name and are cached
/// for a year; ranges and `If-None-Match` are answered.
#[utoipa::path(get, path = "/models/{path}", operation_id = "model_file", tag = openapi::PAGES,
    params(("path" = String, Path, description = "`NAME/FILE`, a path below the folder of `--models`")),
    responses(
        (status = 200, description = "The file", content_type = "*/*"),
        (status = 206, description = "The range that was asked for", content_type = "*/*"),
        (status = 304, description = "As the asker has it"),
        (status = 307, description = "A folder: its name ends in a slash"),
        (status = 412, description = "It has changed since `If-Unmodified-Since`"),
        (status = 416, description = "The file does not reach that far"),
        FileRefusals,
    )
)]
pub(crate) async fn models(State(server): State<Arc<Server>>, request: Request) -> Result<Response, ApiError> {
    let folder = server.config.models_dir.as_deref().ok_or(ApiError::NotFound)?;
    let path = request.uri().path().strip_prefix("/models").unwrap_or_default().to_owned();
    let caching = if path.ends_with(".bin") { ONE_YEAR } else { ASK_EACH_TIME };
    let mut response = file(folder, &path, request).await?;
    response.headers_mut().insert(header::CACHE_CONTROL, caching);
    Ok(response)
}

/// What no route takes: a file of the site, if there is one.
pub(crate) async fn site(State(server): State<Arc<Server>>, request: Request) -> Result<Response, ApiError> {
    let Some(folder) = &server.config.site_dir else {
        return if request.uri().path() == "/" { page_or_method(request).await } else { Err(ApiError::NotFound) };
    };
    let path = request.uri().path().to_owned();
    let mut response = file(folder, &path, request).await?;
    response.headers_mut().insert(header::CACHE_CONTROL, ASK_EACH_TIME);
    response.headers_mut().insert(header::CONTENT_SECURITY_POLICY, CONTENT_SECURITY_POLICY);
    Ok(response)
}

async fn page_or_method(request: Request) -> Result<Response, ApiError> {
    match *request.method() {
        Method::GET | Method::HEAD => Ok(page::page().await.into_response()),
        _ => Err(ApiError::MethodNotAllowed),
    }
}

async fn file(folder: &Path, path: &str, mut request: Request) -> Result<Response, ApiError> {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return Err(if path == "/" { ApiError::MethodNotAllowed } else { ApiError::NotFound });
    }
    if path.split('/').any(|part| part.starts_with('.') || part.starts_with("%2e") || part.starts_with("%2E")) {
        return Err(ApiError::NotFound);
    }
    *request.uri_mut() = Uri::try_from(path).map_err(|_| ApiError::NotFound)?;
    let served = ServeDir::new(folder).precompressed_br().precompressed_gzip().try_call(request).await;
    // A folder that cannot be read, a name too long for the file system: not there, for whoever asks.
    let mut response = served.map_err(|_| ApiError::NotFound)?.map(axum::body::Body::new);
    if response.status() == axum::http::StatusCode::NOT_FOUND {
        return Err(ApiError::NotFound);
    }
    response.headers_mut().insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    Ok(response)
}
