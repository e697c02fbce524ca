//! Answers that replicas share: the second level behind [`crate::answer_cache`], in Redis or Valkey.
//!
//! It may be slow, full, damaged or gone: that costs hits, never answers. A question has a short limit; one that fails drops
//! the connection, and for a while nobody asks. Then the next request has a task connect anew and is a miss itself: no request
//! ever waits for a connection. What is kept is on its way beside the answer, a bounded number at a time.
//!
//! Values are a customer's words: the connection and the server that holds them are to be trusted with those. Not for more than
//! one server or Sentinel: a cache that is gone for a moment is no loss.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use okyeame_core::Recognition;
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, Cmd, ConnectionAddr, ErrorKind, FromRedisValue, RedisError};
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_rustls::rustls::crypto::aws_lc_rs;

use crate::metrics::SharedCacheMetrics;

/// How long a question may take. Redis answers within a data centre in about a millisecond; the model, which answers where Redis
/// does not, takes tens. Longer than that, and the look into the cache would cost more than it saves.
const ASK_LIMIT: Duration = Duration::from_millis(50);
/// How long a connection may take, its TLS and password included. No request waits for it.
const CONNECT_LIMIT: Duration = Duration::from_secs(2);
/// How long nobody asks after a failure: of an outage, one request a second has the cost of its limit, at most.
const PAUSE: Duration = Duration::from_secs(1);
/// The largest answer that is shared. A command's takes one or two kilobytes, one with minutes of words ten or twenty.
const MAX_VALUE_BYTES: usize = 64 * 1024;
/// Answers that are being written at once. With more the server does not keep up; then they are not shared.
const MAX_WRITES: usize = 32;

/// Where the shared answers are. Shown without its user and password.
#[derive(Clone)]
pub struct CacheUrl {
    client: Client,
    /// Host and port.
    address: String,
    ask_limit: Duration,
}

impl fmt::Debug for CacheUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CacheUrl({})", self.address)
    }
}

/// It is no address of a Redis. Does not repeat it: it may hold a password.
#[derive(Debug, thiserror::Error)]
#[error(
    "the cache's address is not redis://[USER:PASSWORD@]HOST[:PORT][/DATABASE], or rediss:// (TLS), valkey:// or valkeys://; \
     signs such as @ and / in a password are written %40 and %2F"
)]
pub struct CacheUrlError;

impl CacheUrl {
    /// Reads `redis://`, `rediss://`, `valkey://` or `valkeys://`; asks nothing of the network.
    ///
    /// # Errors
    /// [`CacheUrlError`].
    pub fn parse(url: &str) -> Result<Self, CacheUrlError> {
        let client = Client::open(url).map_err(|_| CacheUrlError)?;
        let address = match client.get_connection_info().addr() {
            address @ (ConnectionAddr::Tcp(..) | ConnectionAddr::TcpTls { insecure: false, .. }) => address.to_string(),
            _ => return Err(CacheUrlError),
        };
        Ok(Self { client, address, ask_limit: ASK_LIMIT })
    }

    /// With another limit for a question, where the machine is too busy for the usual one: in tests.
    #[must_use]
    pub fn with_ask_limit(self, ask_limit: Duration) -> Self {
        Self { ask_limit, ..self }
    }
}

/// The connection, or until when there is none.
enum Link {
    Up(MultiplexedConnection),
    Down { until: Instant },
}

struct State {
    link: Link,
    /// From the first failure to the next answer: it is logged once.
    is_outage: bool,
    /// Whether it was logged that the server refuses commands; once a connection.
    is_refusal_logged: bool,
}

/// The second level.
pub(crate) struct SharedCache {
    url: CacheUrl,
    ttl_ms: u64,
    state: Mutex<State>,
    writes: Arc<Semaphore>,
    metrics: SharedCacheMetrics,
}

impl SharedCache {
    /// Begins to connect, if this is called on a runtime; else the first question does.
    pub(crate) fn new(url: CacheUrl, ttl: Duration, metrics: SharedCacheMetrics) -> Arc<Self> {
        // The client leaves this choice to rustls, which panics where some dependency brings a second library of cryptography.
        let _ = aws_lc_rs::default_provider().install_default();
        let this = Arc::new(Self {
            url,
            ttl_ms: u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX),
            state: Mutex::new(State {
                link: Link::Down { until: Instant::now() },
                is_outage: false,
                is_refusal_logged: false,
            }),
            writes: Arc::new(Semaphore::new(MAX_WRITES)),
            metrics,
        });
        if tokio::runtime::Handle::try_current().is_ok() {
            let _ = this.connection();
        }
        this
    }

    /// The answer under this key; `None` also if it cannot be had soon.
    pub(crate) async fn get(self: &Arc<Self>, key: &str) -> Option<Recognition> {
        // Not GET: what somebody else wrote there may have any size.
        let mut command = redis::cmd("GETRANGE");
        command.arg(key).arg(0).arg(MAX_VALUE_BYTES);
        let value: Vec<u8> = self.ask(&command).await?;
        if value.is_empty() {
            return None; // nothing there
        }
        let recognition = Some(value).filter(|value| value.len() <= MAX_VALUE_BYTES);
        let recognition = recognition.and_then(|value| serde_json::from_slice(&value).ok());
        if recognition.is_none() {
            self.metrics.failure("damaged_value");
        }
        recognition
    }

    /// Keeps an answer's JSON, beside whatever else goes on.
    pub(crate) fn insert(self: &Arc<Self>, key: String, json: Vec<u8>) {
        if json.len() > MAX_VALUE_BYTES {
            return;
        }
        let Ok(place) = Arc::clone(&self.writes).try_acquire_owned() else {
            return self.metrics.failure("too_many_writes");
        };
        let this = Arc::clone(self);
        tokio::spawn(async move {
            let _place = place;
            let mut command = redis::cmd("SET");
            command.arg(key).arg(json).arg("PX").arg(this.ttl_ms);
            let _: Option<()> = this.ask(&command).await;
        });
    }

    /// Asks within the limit, if there is a connection.
    async fn ask<T: FromRedisValue>(self: &Arc<Self>, command: &Cmd) -> Option<T> {
        let mut connection = self.connection()?;
        match timeout(self.url.ask_limit, command.query_async::<T>(&mut connection)).await {
            Ok(Ok(answer)) => {
                self.answered();
                Some(answer)
            }
            Ok(Err(error)) if matches!(error.kind(), ErrorKind::Server(_) | ErrorKind::Extension) => {
                self.refused(&error);
                None
            }
            Ok(Err(error)) => {
                self.failed("connection", &cause(&error));
                None
            }
            Err(_) => {
                self.failed("timeout", "it does not answer in time");
                None
            }
        }
    }

    /// The connection. Where there is none, and it is time, a task makes one for those who come later.
    fn connection(self: &Arc<Self>) -> Option<MultiplexedConnection> {
        let mut state = self.lock();
        match &mut state.link {
            Link::Up(connection) => Some(connection.clone()),
            Link::Down { until } => {
                let now = Instant::now();
                if *until <= now {
                    // The task says how it went before this is over, so there is one at a time.
                    *until = now + CONNECT_LIMIT + PAUSE;
                    let this = Arc::clone(self);
                    tokio::spawn(async move { this.connect().await });
                }
                None
            }
        }
    }

    async fn connect(&self) {
        // The limits are ours: of each question, and of all that a connection takes.
        let config = AsyncConnectionConfig::new().set_connection_timeout(None).set_response_timeout(None);
        let connecting = self.url.client.get_multiplexed_async_connection_with_config(&config);
        match timeout(CONNECT_LIMIT, connecting).await {
            Ok(Ok(connection)) => {
                let mut state = self.lock();
                state.link = Link::Up(connection);
                state.is_refusal_logged = false;
                drop(state);
                self.metrics.connected.set(1);
            }
            Ok(Err(error)) => self.failed("connect", &cause(&error)),
            Err(_) => self.failed("connect", "no connection in time"),
        }
    }

    /// The server answered: an outage is over.
    fn answered(&self) {
        let mut state = self.lock();
        let was_outage = std::mem::take(&mut state.is_outage);
        drop(state);
        if was_outage {
            tracing::info!(address = self.url.address, "the shared cache answers again");
        }
    }

    /// The server is there and will not: no right, no memory, another kind of value.
    fn refused(&self, error: &RedisError) {
        self.metrics.failure("refused");
        let was_logged = std::mem::replace(&mut self.lock().is_refusal_logged, true);
        if !was_logged {
            tracing::warn!(address = self.url.address, cause = cause(error), "the shared cache refuses a command");
        }
    }

    /// Drops the connection, and leaves the server alone for a while.
    fn failed(&self, what: &'static str, cause: &str) {
        self.metrics.failure(what);
        self.metrics.connected.set(0);
        let mut state = self.lock();
        state.link = Link::Down { until: Instant::now() + PAUSE };
        let was_outage = std::mem::replace(&mut state.is_outage, true);
        drop(state);
        if !was_outage {
            tracing::warn!(
                address = self.url.address,
                cause,
                "the shared cache cannot be reached: the answers of other replicas are not found until it can"
            );
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing panics while it holds the lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An error for the log: what the system says in full, of what the server says its kind alone.
fn cause(error: &RedisError) -> String {
    if error.is_io_error() { error.to_string() } else { error.category().to_owned() }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_shown_without_their_password() {
        for (url, shown) in [
            ("redis://127.0.0.1", "CacheUrl(127.0.0.1:6379)"),
            ("redis://:pa55word@cache.example:7000/2", "CacheUrl(cache.example:7000)"),
            ("valkey://shop:pa55word@cache.example", "CacheUrl(cache.example:6379)"),
            ("rediss://shop:pa55word@cache.example", "CacheUrl(cache.example:6379)"),
        ] {
            assert_eq!(format!("{:?}", CacheUrl::parse(url).unwrap()), shown);
        }
    }

    #[test]
    fn what_is_no_address_is_refused_and_not_repeated() {
        for url in [
            "",
            "cache.example",
            "http://:pa55word@cache.example",
            "redis://",
            "redis://:pa55word@cache.example:port",
            "redis://:pa55word@cache.example/database",
            "rediss://:pa55word@cache.example/#insecure",
            "redis+unix:///run/redis.sock?pass=pa55word",
        ] {
            let error = CacheUrl::parse(url).unwrap_err().to_string();
            assert!(!error.contains("pa55word") && error.contains("rediss://"), "{url}: {error}");
        }
    }
}
