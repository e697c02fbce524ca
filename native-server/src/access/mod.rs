//! Who may ask for what: keys for a shop's own servers, short-lived tokens for its customers' browsers, and how often.
//!
//! Without a key in the configuration access is off: whoever reaches the port may use it, which is why only loopback is
//! listened on then. With one, a request carries `Authorization: Bearer …`, a key ([`keys`]) or a token ([`tokens`]), and
//! each route asks for a [`Scope`]. Pages, web bundles and the probes stay open: they are what a page needs before it has
//! anything to show.

pub mod keys;
pub mod tokens;

use std::num::NonZero;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::extract::{Request, State};
use axum::http::{HeaderMap, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use governor::clock::{Clock, DefaultClock};
use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};
use serde::{Deserialize, Serialize};

use crate::config::ServerConfig;
use crate::error::ApiError;
use crate::state::Server;
use keys::ApiKey;
use tokens::Tokens;

/// What a key or a token opens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, clap::ValueEnum, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    /// Commands, spoken or written, one or many.
    Intent,
    /// The words of recordings: the routes that OpenAI's clients call.
    Transcribe,
    /// Statistics and metrics. For operators: no token has it.
    Operate,
    /// Another model in the place of the one that is served. No token has it, and a key only if it says so.
    Admin,
}

impl Scope {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Intent, Self::Transcribe, Self::Operate, Self::Admin];
    /// What a key opens that says nothing.
    pub const OF_KEYS: [Self; 3] = [Self::Intent, Self::Transcribe, Self::Operate];

    /// Whether a browser may be given it.
    pub(crate) fn is_for_tokens(self) -> bool {
        matches!(self, Self::Intent | Self::Transcribe)
    }
}

/// Who sent a request, once that is known. Absent where access is off.
#[derive(Debug, Clone)]
pub(crate) struct Caller {
    /// The key, or the key that the token was minted with.
    pub(crate) key: String,
    pub(crate) scopes: Vec<Scope>,
    /// A token mints no others.
    pub(crate) by_token: bool,
    /// Whose requests are counted together: a key's own, and each token's.
    counted_as: String,
    /// When a token ends, seconds since 1970.
    ends_at: Option<u64>,
}

/// After so many requests those who have not come for a while are forgotten by the rate limit.
const SWEEP_EVERY: u64 = 1024;

/// The door.
pub(crate) struct Access {
    keys: Vec<ApiKey>,
    pub(crate) tokens: Tokens,
    rate: Option<Rate>,
}

struct Rate {
    limiter: DefaultKeyedRateLimiter<String>,
    seen: AtomicU64,
}

impl Access {
    pub(crate) fn new(config: &ServerConfig) -> Result<Self, getrandom::Error> {
        let rate = NonZero::new(config.requests_per_minute).map(|per_minute| Rate {
            limiter: RateLimiter::keyed(Quota::per_minute(per_minute)),
            seen: AtomicU64::new(0),
        });
        Ok(Self { keys: config.keys.clone(), tokens: Tokens::new(config.token_secret.as_ref())?, rate })
    }

    /// Whether anybody is asked for a key.
    pub(crate) fn is_on(&self) -> bool {
        !self.keys.is_empty()
    }

    /// Who it is.
    fn caller(&self, headers: &HeaderMap) -> Result<Caller, ApiError> {
        let shown = credential(headers).ok_or(ApiError::NoKey)?;
        if let Some(key) = keys::find(&self.keys, shown) {
            let name = key.name.clone();
            let scopes = key.scopes.clone();
            return Ok(Caller { counted_as: name.clone(), key: name, scopes, by_token: false, ends_at: None });
        }
        let claims = self.tokens.read(shown)?;
        // A key that was taken away takes its tokens along; one that may do less, what they may do.
        let key = self.keys.iter().find(|key| key.name == claims.sub).ok_or(ApiError::UnknownKey)?;
        if let Some(origin) = &claims.origin
            && headers.get(header::ORIGIN).is_none_or(|sent| sent.as_bytes() != origin.as_bytes())
        {
            return Err(ApiError::WrongOrigin);
        }
        let held = |scope: &Scope| scope.is_for_tokens() && key.scopes.contains(scope);
        let scopes = claims.scopes.into_iter().filter(held).collect();
        let ends_at = Some(claims.exp);
        Ok(Caller { key: key.name.clone(), scopes, by_token: true, counted_as: claims.jti, ends_at })
    }

    /// Counts a request; an error once there were too many.
    fn count(&self, caller: &Caller) -> Result<(), ApiError> {
        let Some(rate) = &self.rate else { return Ok(()) };
        if rate.seen.fetch_add(1, Ordering::Relaxed) % SWEEP_EVERY == SWEEP_EVERY - 1 {
            rate.limiter.retain_recent();
        }
        rate.limiter.check_key(&caller.counted_as).map_err(|until| {
            let wait = until.wait_time_from(DefaultClock::default().now());
            ApiError::TooOften { retry_after_s: whole_seconds(wait) }
        })
    }

    /// Counts one more thing that is asked in a stream, as if it were a request; an error also once the token has ended.
    pub(crate) fn asks_again(&self, caller: &Caller) -> Result<(), ApiError> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        if caller.ends_at.is_some_and(|end| end <= now) {
            return Err(ApiError::TokenExpired);
        }
        self.count(caller)
    }

    /// Lets a request through that may have one of `scopes`.
    fn enter(&self, headers: &HeaderMap, scopes: &[Scope]) -> Result<Option<Caller>, ApiError> {
        if !self.is_on() {
            return Ok(None);
        }
        let caller = self.caller(headers)?;
        if !scopes.iter().any(|scope| caller.scopes.contains(scope)) {
            return Err(ApiError::OutOfScope);
        }
        self.count(&caller)?;
        Ok(Some(caller))
    }
}

/// Beside `Authorization`, which a page cannot set on a WebSocket: a subprotocol of this prefix and the token.
const TOKEN_PROTOCOL: &str = "okyeame.token.";

/// Seconds until it makes sense to come back, at least one.
fn whole_seconds(wait: Duration) -> u64 {
    wait.as_secs() + 1
}

/// What stands behind `Authorization: Bearer`, in `X-API-Key`, or, of a WebSocket, in a subprotocol.
fn credential(headers: &HeaderMap) -> Option<&str> {
    let bearer = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok()).and_then(|value| {
        let (scheme, shown) = value.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then_some(shown.trim())
    });
    let shown = bearer.or_else(|| headers.get("x-api-key").and_then(|value| value.to_str().ok()).map(str::trim));
    shown.or_else(|| token_protocol(headers)).filter(|shown| !shown.is_empty())
}

/// The token among the subprotocols that a WebSocket offers.
fn token_protocol(headers: &HeaderMap) -> Option<&str> {
    let offered = headers.get_all(header::SEC_WEBSOCKET_PROTOCOL).iter().filter_map(|value| value.to_str().ok());
    offered.flat_map(|value| value.split(',')).find_map(|protocol| protocol.trim().strip_prefix(TOKEN_PROTOCOL))
}

/// An origin as browsers send it: scheme and host, no path.
pub(crate) fn is_origin(text: &str) -> bool {
    let host = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
    let is_plain =
        |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'/' | b'*' | b'"' | b'\\' | b'?' | b'#' | b'@');
    text.len() <= 300 && host.is_some_and(|host| !host.is_empty() && host.bytes().all(is_plain))
}

/// The state of [`layer`]: the server, and the scopes of which one is enough.
#[derive(Clone)]
pub(crate) struct Door {
    pub(crate) server: Arc<Server>,
    pub(crate) scopes: &'static [Scope],
}

/// Lets in who may have one of the door's scopes; the body of anybody else is not read.
pub(crate) async fn layer(State(door): State<Door>, mut request: Request, next: Next) -> Response {
    match door.server.access.enter(request.headers(), door.scopes) {
        Ok(caller) => {
            if let Some(caller) = caller {
                request.extensions_mut().insert(caller);
            }
            next.run(request).await
        }
        Err(refused) => refused.into_response(),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    #[test]
    fn a_credential_is_found_in_either_header() {
        let shown = |name: &'static str, value: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(name, HeaderValue::from_static(value));
            credential(&headers).map(str::to_owned)
        };
        for value in ["Bearer abc", "bearer  abc ", "BEARER abc"] {
            assert_eq!(shown("authorization", value).as_deref(), Some("abc"), "{value}");
        }
        assert_eq!(shown("x-api-key", "abc").as_deref(), Some("abc"));
        for value in ["okyeame.token.abc", "okyeame.v1, okyeame.token.abc", "okyeame.token.abc,okyeame.v1"] {
            assert_eq!(shown("sec-websocket-protocol", value).as_deref(), Some("abc"), "{value}");
        }
        for value in ["okyeame.v1", "okyeame.token.", "token.abc"] {
            assert_eq!(shown("sec-websocket-protocol", value), None, "{value}");
        }
        for value in ["Basic abc", "Bearer", "Bearer ", "abc", ""] {
            assert_eq!(shown("authorization", value), None, "{value}");
        }
    }

    #[test]
    fn waits_are_rounded_up() {
        assert_eq!([0, 999, 1000].map(|ms| whole_seconds(Duration::from_millis(ms))), [1, 1, 2]);
    }
}
