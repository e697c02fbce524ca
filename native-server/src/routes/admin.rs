//! `POST /admin/models`: another model in the place of the one that is served, without losing a request.
//! `GET /admin/models`: which one that is, since when, whether another is being loaded, and why the last one could not be.
//!
//! The request is answered once the new model is loaded and warm; a client that goes does not stop that. Both models are in
//! memory meanwhile, so one that does not fit beside the other is refused like any that cannot be loaded, and the one before
//! goes on. What is read is what lies on this disk: `okyeame pull` fetches a repository's newer revision first. Files of a
//! model that is served are replaced, never written into.
//!
//! Not for browsers: no token opens it, and without a key no web page does.

use std::net::IpAddr;
use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::{FromRequest, Request, State};
use axum::http::{HeaderMap, header};
use okyeame_core::ModelInfo;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::error::ApiError;
use crate::inference_worker::LoadedModel;
use crate::model_choice::{ModelChoice, ModelSource};
use crate::model_loading::{LoadsNow, since_1970};
use crate::routes::clip::millis;
use crate::routes::openapi::{self, AdminRefusals, LoadRefusals};
use crate::routes::upload::{object, out_of_range, unread};
use crate::state::Server;

/// The route's name.
pub(crate) const MODELS: &str = "/admin/models";
/// The name by which the model that comes with this program is asked for.
const DEFAULT: &str = "default";
/// The longest name, bytes; paths are no longer on most systems.
const MAX_NAME_BYTES: usize = 4096;

/// The body, as the options of `okyeame server` have it; an empty one loads the present model again.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
#[schema(as = ModelRequest)]
struct Wanted {
    /// A repository, a folder of the server's machine, or `default`. Absent, the present one is loaded again.
    #[schema(min_length = 1, max_length = 4096)]
    model: Option<String>,
    /// Of the repository.
    #[schema(min_length = 1, max_length = 4096)]
    revision: Option<String>,
    /// The base of an intent head that is alone.
    #[schema(min_length = 1, max_length = 4096)]
    base: Option<String>,
    /// The language of a model with one adapter for each.
    #[schema(min_length = 1, max_length = 4096)]
    adapter: Option<String>,
}

/// The answer of `POST /admin/models`: what `/model-info` says from now on.
#[derive(Serialize, ToSchema)]
#[schema(as = LoadedModel)]
pub(crate) struct Loaded {
    #[serde(flatten)]
    info: ModelInfo,
    load_time_ms: f64,
}

/// The answer of `GET /admin/models`.
#[derive(Serialize, ToSchema)]
#[schema(as = ServedModels)]
pub(crate) struct Models {
    /// Absent until the first one is loaded.
    #[schema(required = true)]
    served: Option<Served>,
    #[serde(flatten)]
    loads: LoadsNow,
}

#[derive(Serialize, ToSchema)]
#[schema(as = ServedModel)]
struct Served {
    /// The repository, or the folder's name: never a path of this machine.
    model: String,
    #[schema(value_type = String)]
    source: ModelSource,
    /// Seconds since 1970.
    loaded_at: u64,
    load_time_ms: f64,
}

impl Served {
    fn of(model: &LoadedModel) -> Self {
        Self {
            model: model.choice.label(),
            source: model.choice.source(),
            loaded_at: since_1970(model.loaded_at),
            load_time_ms: millis(model.load_time),
        }
    }
}

/// Which model is served
///
/// Since when, whether another one is being loaded, and why the last one could not be.
#[utoipa::path(get, path = MODELS, operation_id = "served_models", tag = openapi::OPERATION,
    responses((status = 200, description = "The model, and how loading goes", body = Models), AdminRefusals),
    security((), ("bearer" = ["admin"]), ("api_key" = ["admin"]))
)]
pub(crate) async fn models(State(server): State<Arc<Server>>, headers: HeaderMap) -> Result<Json<Models>, ApiError> {
    check_place(&server, &headers)?;
    // The books first: a load that is not in them any more has its model in place.
    let loads = server.worker.loads();
    let served = server.worker.model().ok().map(|model| Served::of(&model));
    Ok(Json(Models { served, loads }))
}

/// Another model in the place of the one that is served
///
/// No request is lost: the new one is loaded and warmed up beside the old one, whose work is finished. The answer comes when
/// the new one has taken over. Without a key only programs on the server's own machine may ask.
#[utoipa::path(post, path = MODELS, operation_id = "load_model", tag = openapi::OPERATION,
    request_body = Option<Wanted>,
    responses((status = 200, description = "The model that answers from now on", body = Loaded), LoadRefusals),
    security((), ("bearer" = ["admin"]), ("api_key" = ["admin"]))
)]
pub(crate) async fn load(State(server): State<Arc<Server>>, request: Request) -> Result<Json<Loaded>, ApiError> {
    check_place(&server, request.headers())?;
    // What a form of a web page could send, it may not be.
    if !is_json(request.headers()) {
        return Err(ApiError::NotJson);
    }
    let body = Bytes::from_request(request, &()).await;
    let body = body.map_err(|refused| unread(refused.status(), &refused.body_text(), &refused, &server.config))?;
    let choice = choice(&server, &body)?;
    let model = server.load(choice).await?;
    Ok(Json(Loaded { info: model.info.clone(), load_time_ms: millis(model.load_time) }))
}

/// Where no key is asked for, only programs on this machine may ask: a page that its user visits must not, nor a neighbour.
fn check_place(server: &Server, headers: &HeaderMap) -> Result<(), ApiError> {
    let is_local = is_loopback(&server.config.host) && !headers.contains_key(header::ORIGIN);
    if server.access.is_on() || is_local { Ok(()) } else { Err(ApiError::NeedsAdminKey) }
}

fn is_loopback(host: &str) -> bool {
    let host = host.trim_start_matches('[').trim_end_matches(']');
    host.eq_ignore_ascii_case("localhost") || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

fn is_json(headers: &HeaderMap) -> bool {
    headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.split(';').next())
        .is_some_and(|essence| essence.trim().eq_ignore_ascii_case("application/json"))
}

fn choice(server: &Server, body: &[u8]) -> Result<ModelChoice, ApiError> {
    let wanted: Wanted = if body.trim_ascii().is_empty() {
        Wanted::default()
    } else {
        object(body).map_err(|what| ApiError::MalformedBody {
            reason: format!("it is no JSON like {{\"model\": \"owner/name\"}}: {what}"),
        })?
    };
    let names = [
        ("model", &wanted.model),
        ("revision", &wanted.revision),
        ("base", &wanted.base),
        ("adapter", &wanted.adapter),
    ];
    for (name, value) in names {
        let is_name = |value: &str| {
            !value.trim().is_empty() && value.len() <= MAX_NAME_BYTES && !value.chars().any(char::is_control)
        };
        if value.as_deref().is_some_and(|value| !is_name(value)) {
            return Err(out_of_range(
                name,
                "a name in printable characters; leave it out for the present one's".to_owned(),
            ));
        }
    }
    let present = server.chosen();
    let revision = wanted.revision.as_deref();
    let choice = match wanted.model.as_deref().map(str::trim) {
        None => present.with_revision(revision),
        Some(DEFAULT) => present.other("", revision),
        Some(model) => present.other(model, revision),
    };
    // What is not said of the present model stays as it is; another one has none of it.
    let choice = if wanted.base.is_some() { choice.with_base(wanted.base.as_deref()) } else { choice };
    Ok(if wanted.adapter.is_some() { choice.with_adapter(wanted.adapter.as_deref()) } else { choice })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_machine_s_own_addresses_are_local() {
        for host in ["127.0.0.1", "127.8.8.8", "::1", "[::1]", "localhost", "LOCALHOST"] {
            assert!(is_loopback(host), "{host}");
        }
        for host in ["0.0.0.0", "::", "192.168.1.7", "shop.example", "localhost.shop.example", ""] {
            assert!(!is_loopback(host), "{host}");
        }
    }
}
