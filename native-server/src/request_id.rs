//! The outermost layer: each request has an id, which travels in `X-Request-Id`, in the answer and in
//! the log, and each request has one line in the log.
//!
//! A caller's own id is kept if it is harmless; anything else is replaced. The id is a task-local value,
//! so that an error made anywhere below can name it.

use std::time::Instant;

use axum::extract::Request;
use axum::http::{HeaderMap, HeaderValue, Method};
use axum::middleware::Next;
use axum::response::Response;
use uuid::Uuid;

/// The header, as it is read and written.
const HEADER: &str = "x-request-id";
/// Longest id that is taken over from a caller.
const MAX_LEN: usize = 64;

tokio::task_local! {
    static CURRENT: String;
}

/// The id of the request that this task answers; empty outside of one.
pub(crate) fn current() -> String {
    CURRENT.try_with(Clone::clone).unwrap_or_default()
}

/// Does something for a request outside of its task: an answer's body is made after the layers are done.
pub(crate) fn within<T>(id: String, work: impl FnOnce() -> T) -> T {
    CURRENT.sync_scope(id, work)
}

/// Does what goes on after a request was answered, such as its stream, under that request's id.
pub(crate) async fn under<T>(id: String, work: impl Future<Output = T>) -> T {
    CURRENT.scope(id, work).await
}

/// Gives the request its id, runs it, echoes the id and logs one line.
pub(crate) async fn layer(request: Request, next: Next) -> Response {
    let id = accepted(request.headers()).unwrap_or_else(|| Uuid::new_v4().to_string());
    let started = Instant::now();
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let mut response = CURRENT.scope(id.clone(), next.run(request)).await;

    if let Ok(value) = HeaderValue::from_str(&id) {
        response.headers_mut().insert(HEADER, value);
    }
    let (status, ms) = (response.status().as_u16(), started.elapsed().as_millis());
    if method == Method::POST || status >= 500 {
        tracing::info!(request_id = id, %method, path, status, ms, "answered");
    } else {
        tracing::debug!(request_id = id, %method, path, status, ms, "answered");
    }
    response
}

/// The caller's id, if it is `[A-Za-z0-9._-]{1,64}`.
fn accepted(headers: &HeaderMap) -> Option<String> {
    let id = headers.get(HEADER)?.to_str().ok()?;
    let sane = (1..=MAX_LEN).contains(&id.len())
        && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-'));
    sane.then(|| id.to_owned())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn only_harmless_ids_are_taken_over() {
        let id = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(HEADER, HeaderValue::from_str(value).unwrap());
            accepted(&headers)
        };
        assert_eq!(id("shop-7.order_3"), Some("shop-7.order_3".to_owned()));
        for bad in ["", "a b", "a\"b", "x=1;y", &"a".repeat(65)] {
            assert_eq!(id(bad), None, "{bad}");
        }
        assert_eq!(accepted(&HeaderMap::new()), None);
    }
}
