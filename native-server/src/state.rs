//! What every handler shares.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use okyeame_core::Result;
use tokio::sync::Semaphore;

use crate::access::Access;
use crate::answer_cache::AnswerCache;
use crate::audio_store::AudioStore;
use crate::config::ServerConfig;
use crate::engine::Engine;
use crate::error::ApiError;
use crate::inference_worker::{Health, InferenceWorker, Phase};
use crate::metrics::Metrics;
use crate::stats::Stats;

/// A running server without its socket: hand it to [`crate::app`].
pub struct Server {
    pub(crate) config: ServerConfig,
    pub(crate) access: Access,
    pub(crate) worker: InferenceWorker,
    pub(crate) cache: AnswerCache,
    pub(crate) store: Option<AudioStore>,
    pub(crate) stats: Stats,
    pub(crate) metrics: Metrics,
    /// One permit for each clip that is decoded at this moment.
    pub(crate) decoders: Arc<Semaphore>,
    pub(crate) started: Instant,
    draining: AtomicBool,
}

impl Server {
    /// Starts the model's threads, on one of which `load` runs; returns at once.
    ///
    /// # Errors
    /// If the system gives no thread, or no random numbers, or the folder for clips cannot be written.
    pub fn start<L>(config: ServerConfig, load: L) -> io::Result<Arc<Self>>
    where
        L: FnOnce() -> Result<Box<dyn Engine>> + Send + 'static,
    {
        let metrics = Metrics::default();
        let store = config
            .store_audio
            .as_deref()
            .map(|folder| AudioStore::open(folder, config.store_audio_bytes))
            .transpose()?;
        Ok(Arc::new(Self {
            access: Access::new(&config).map_err(io::Error::other)?,
            worker: InferenceWorker::spawn(&config, metrics.batch_sizes.clone(), load)?,
            cache: AnswerCache::new(config.cache_bytes, config.cache_ttl_s),
            store,
            stats: Stats::default(),
            metrics,
            decoders: Arc::new(Semaphore::new(config.threads.clamp(1, 1024))),
            started: Instant::now(),
            draining: AtomicBool::new(false),
            config,
        }))
    }

    /// Waits for the model.
    ///
    /// # Errors
    /// A sentence for the operator, if the model could not be loaded.
    pub async fn loaded(&self) -> std::result::Result<(), String> {
        match self.worker.loaded().await {
            Phase::Failed(why) => Err(why.to_string()),
            Phase::Loading | Phase::Ready(_) => Ok(()),
        }
    }

    /// From now on new work is refused with 503; what was accepted is finished.
    pub fn begin_drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    /// Once nothing is asked any more: waits until what is to be kept is on the disk.
    pub fn finish(&self) {
        if let Some(store) = &self.store {
            store.close();
        }
    }

    /// Whether a load balancer may send work: the model answers, and the server does not stop.
    pub(crate) fn is_ready(&self) -> bool {
        self.accepts_work().is_ok() && self.worker.health() == Health::Healthy
    }

    /// # Errors
    /// [`ApiError::Draining`] once the server stops.
    pub(crate) fn accepts_work(&self) -> std::result::Result<(), ApiError> {
        if self.draining.load(Ordering::Relaxed) { Err(ApiError::Draining) } else { Ok(()) }
    }
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Server").field("config", &self.config).finish_non_exhaustive()
    }
}
