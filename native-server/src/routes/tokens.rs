//! `POST /v1/tokens`: a shop's server mints a short-lived token for a page with its key.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::body::Bytes;
use axum::extract::{FromRequest, Request, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::access::tokens::MAX_LIFE_S;
use crate::access::{Caller, Scope, is_origin};
use crate::error::ApiError;
use crate::routes::openapi::{self, TokenRefusals};
use crate::routes::upload::{object, out_of_range, unread};
use crate::state::Server;

/// The route's name.
pub(crate) const ROUTE: &str = "/v1/tokens";
/// What a token opens if nothing is said.
const DEFAULT_SCOPES: [Scope; 1] = [Scope::Intent];
/// How long it lives if nothing is said, seconds.
const DEFAULT_LIFE_S: u64 = 600;

/// The body; an empty one takes all defaults.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
#[schema(as = TokenRequest)]
struct Wanted {
    /// Some of `intent` and `transcribe`, no more than the key has.
    #[schema(min_items = 1, default = json!(["intent"]))]
    scopes: Option<Vec<Scope>>,
    /// The page that may use it, such as `https://shop.example`. Absent, whoever has the token.
    #[schema(max_length = 300)]
    origin: Option<String>,
    /// Seconds, 1 to 86400.
    #[schema(minimum = 1, maximum = 86400, default = 600)]
    expires_in: Option<u64>,
}

/// The answer.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Token)]
struct Minted {
    /// To be sent as `Authorization: Bearer TOKEN`.
    token: String,
    scopes: Vec<Scope>,
    #[schema(required = true)]
    origin: Option<String>,
    /// Seconds.
    expires_in: u64,
    /// Seconds since 1970.
    expires_at: u64,
}

/// A token for a page
///
/// A shop's own server asks with its key and gives the token to its page: it is short-lived, opens no more than the key
/// does, and can be bound to the page's origin. A token mints no others. An empty body takes all defaults.
///
/// Where access is off there is no key to mint it with, and it opens nothing that is not open.
#[utoipa::path(post, path = ROUTE, operation_id = "mint_token", tag = openapi::ACCESS,
    request_body = Option<Wanted>,
    responses((status = 200, description = "The token; nobody on the way keeps it", body = Minted), TokenRefusals),
    security((), ("bearer" = []), ("api_key" = []))
)]
pub(crate) async fn mint(State(server): State<Arc<Server>>, request: Request) -> Result<Response, ApiError> {
    let caller = request.extensions().get::<Caller>().cloned();
    if caller.as_ref().is_some_and(|caller| caller.by_token) {
        return Err(ApiError::OutOfScope);
    }
    let body = Bytes::from_request(request, &()).await;
    let body = body.map_err(|refused| unread(refused.status(), &refused.body_text(), &refused, &server.config))?;
    // `null` is what some clients send for no body.
    let wanted: Wanted = match body.trim_ascii() {
        b"" | b"null" => Wanted::default(),
        body => object(body).map_err(|reason| ApiError::InvalidJson { reason })?,
    };

    let scopes = wanted.scopes.unwrap_or_else(|| DEFAULT_SCOPES.to_vec());
    if scopes.is_empty() || !scopes.iter().all(|scope| scope.is_for_tokens()) {
        return Err(out_of_range("scopes", "one or both of intent and transcribe".to_owned()));
    }
    if let Some(caller) = &caller
        && !scopes.iter().all(|scope| caller.scopes.contains(scope))
    {
        return Err(ApiError::OutOfScope);
    }
    let expires_in = wanted.expires_in.unwrap_or(DEFAULT_LIFE_S);
    if !(1..=MAX_LIFE_S).contains(&expires_in) {
        return Err(out_of_range("expires_in", format!("1 to {MAX_LIFE_S} seconds")));
    }
    let origin = wanted.origin;
    if origin.as_deref().is_some_and(|origin| !is_origin(origin)) {
        return Err(out_of_range("origin", "an origin such as https://shop.example, without a path".to_owned()));
    }

    let key = caller.map(|caller| caller.key).unwrap_or_default();
    let life = Duration::from_secs(expires_in);
    let (token, expires_at) = server.access.tokens.mint(key, scopes.clone(), origin.clone(), life)?;
    let minted = Minted { token, scopes, origin, expires_in, expires_at };
    // Nobody on the way keeps it.
    Ok(([(header::CACHE_CONTROL, "no-store")], Json(minted)).into_response())
}
