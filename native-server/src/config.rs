//! Every bound and setting of the server in one place, with its reason.

use std::num::NonZero;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use axum::http::HeaderValue;
use okyeame_core::intent::catalogue::Catalogue;

use crate::access::keys::ApiKey;
use crate::access::tokens::TokenSecret;
use crate::model_choice::ModelChoice;
use crate::shared_cache::CacheUrl;
use crate::tls::Tls;
use crate::traces::CollectorUrl;

/// What `okyeame server` is told: where to listen, what to serve, and how much it takes on.
#[derive(Debug, Clone)]
pub struct ServerConfig {
    /// The address to bind. Loopback unless told otherwise: without keys whoever reaches it may use it.
    pub host: String,
    /// The TCP port; 0 lets the system choose.
    pub port: u16,
    /// The model to serve.
    pub model: ModelChoice,
    /// The shop's names, for requests that bring none of their own.
    pub catalogue: Option<Arc<Catalogue>>,
    /// The folder of web bundles, each in a folder of its own: `GET /models/NAME/…`.
    pub models_dir: Option<PathBuf>,
    /// The folder of pages that stand in the place of the built-in page.
    pub site_dir: Option<PathBuf>,
    /// Pages of other origins that may ask for answers; `*` is any.
    pub allowed_origins: Vec<HeaderValue>,
    /// The keys that open the API; without one, access is off.
    pub keys: Vec<ApiKey>,
    /// What browsers' tokens are signed with, the same for all replicas; absent, a random one.
    pub token_secret: Option<TokenSecret>,
    /// Requests of one key, or of one token, in a minute; 0 is no limit.
    pub requests_per_minute: u32,
    /// The certificate to answer with; absent, plain HTTP is spoken.
    pub tls: Option<Tls>,
    /// Bytes of one request's body, a whole batch included.
    pub max_body_bytes: usize,
    /// Seconds of one clip, counted while decoding.
    pub max_audio_s: f64,
    /// Files of one batch.
    pub max_batch_files: usize,
    /// Clips that may wait for the model.
    pub queue_len: usize,
    /// Seconds of decoded audio that may wait together, so that a full queue of long clips does not
    /// fill the memory: 3600 s are 3600 * 16000 * 4 bytes = 230 MB. At least `max_audio_s` counts.
    pub queue_audio_s: f64,
    /// Commands that are taken together, of those that wait when the model is free. On a CPU each thread takes a clip of its own, on
    /// a GPU they share a pass; each answer waits for all of them.
    pub max_batch: usize,
    /// How long a command waits for others to share a pass with, milliseconds, while the model is free.
    pub batch_wait_ms: f64,
    /// Seconds until a request (of a batch: each file, from its turn on) is answered with 504.
    pub request_timeout_s: f64,
    /// Connections that are open together; more wait until one ends. Half of the 1024 files that a process may usually have
    /// open: the rest is for the model, the log and the pages.
    pub max_connections: usize,
    /// Streams (`GET /v1/stream`) that are open together, each of which is a connection, too; beyond that, 429.
    pub max_streams: usize,
    /// Seconds in which a request's header must be there; an idle connection is closed after as many.
    pub header_timeout_s: f64,
    /// Seconds that a client may send nothing of a body that it began (then 408) or into its stream, or take nothing of its
    /// answer.
    pub io_timeout_s: f64,
    /// Where clips and their answers are kept for training; absent, nothing of them is.
    pub store_audio: Option<PathBuf>,
    /// Bytes that this folder may hold.
    pub store_audio_bytes: u64,
    /// The Redis or Valkey where replicas share their answers; absent, each has its own alone.
    pub cache: Option<CacheUrl>,
    /// Bytes of cached answers in this process; 0 turns that cache off.
    pub cache_bytes: u64,
    /// Seconds that a cached answer lives; 0 turns all caches off.
    pub cache_ttl_s: u64,
    /// The collector that a trace of each request is sent to; absent, nothing is.
    pub collector: Option<CollectorUrl>,
    /// Threads of the model's arithmetic, and clips decoded at once.
    pub threads: usize,
}

impl Default for ServerConfig {
    fn default() -> Self {
        Self {
            host: "127.0.0.1".to_owned(),
            port: 8000,
            model: ModelChoice::default(),
            catalogue: None,
            models_dir: None,
            site_dir: None,
            allowed_origins: Vec::new(),
            keys: Vec::new(),
            token_secret: None,
            requests_per_minute: 0,
            tls: None,
            max_body_bytes: 25 * 1024 * 1024,
            max_audio_s: 600.0,
            max_batch_files: 32,
            queue_len: 64,
            queue_audio_s: 3600.0,
            max_batch: 8,
            batch_wait_ms: 0.0,
            request_timeout_s: 60.0,
            max_connections: 512,
            max_streams: 64,
            header_timeout_s: 10.0,
            io_timeout_s: 10.0,
            store_audio: None,
            store_audio_bytes: 1024 * 1024 * 1024,
            cache: None,
            cache_bytes: 64 * 1024 * 1024,
            cache_ttl_s: 3600,
            collector: None,
            threads: available_threads(),
        }
    }
}

impl ServerConfig {
    /// [`Self::request_timeout_s`] as a [`duration`].
    pub(crate) fn request_timeout(&self) -> Duration {
        duration(self.request_timeout_s)
    }
}

/// Seconds as a duration. A number that is none (negative, NaN, more than a year) counts as one year.
pub(crate) fn duration(seconds: f64) -> Duration {
    const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);
    Duration::try_from_secs_f64(seconds).unwrap_or(YEAR).min(YEAR)
}

/// The cores that this process may use.
pub(crate) fn available_threads() -> usize {
    std::thread::available_parallelism().map_or(1, NonZero::get)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_timeout_that_is_no_number_does_not_panic() {
        for request_timeout_s in [f64::NAN, -1.0, f64::INFINITY, 1e300] {
            let config = ServerConfig { request_timeout_s, ..ServerConfig::default() };
            assert!(config.request_timeout() > Duration::from_secs(3600));
        }
    }
}
