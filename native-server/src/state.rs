//! What every handler shares.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use okyeame_core::{Error, Result};
use tokio::sync::{Semaphore, watch};

use crate::access::Access;
use crate::answer_cache::AnswerCache;
use crate::audio_store::AudioStore;
use crate::config::ServerConfig;
use crate::engine::Engine;
use crate::error::ApiError;
use crate::inference_worker::{Health, InferenceWorker, LoadedModel, Phase};
use crate::metrics::Metrics;
use crate::model_choice::ModelChoice;
use crate::shared_cache::SharedCache;
use crate::stats::Stats;
use crate::traces::Traces;

/// A running server without its socket: hand it to [`crate::app`].
pub struct Server {
    pub(crate) config: ServerConfig,
    pub(crate) access: Access,
    pub(crate) worker: InferenceWorker,
    pub(crate) cache: AnswerCache,
    pub(crate) store: Option<AudioStore>,
    pub(crate) stats: Stats,
    pub(crate) metrics: Metrics,
    pub(crate) traces: Option<Traces>,
    /// One permit for each clip that is decoded at this moment.
    pub(crate) decoders: Arc<Semaphore>,
    /// One permit for each stream that is open.
    pub(crate) streams: Arc<Semaphore>,
    pub(crate) started: Instant,
    draining: watch::Sender<bool>,
}

impl Server {
    /// As [`Self::with_loader`], for a server of one model, whatever its configuration names.
    ///
    /// # Errors
    /// As [`Self::with_loader`].
    pub fn start<L>(config: ServerConfig, load: L) -> io::Result<Arc<Self>>
    where
        L: FnOnce() -> Result<Box<dyn Engine>> + Send + 'static,
    {
        let load = Mutex::new(Some(load));
        Self::with_loader(config, move |_| {
            let load = load.lock().unwrap_or_else(PoisonError::into_inner).take();
            let load = load.ok_or_else(|| Error::ModelNotFound { what: "a second model of this server".to_owned() })?;
            load()
        })
    }

    /// Starts the model's threads, on one of which `loader` loads the configuration's model; returns at once. Whenever
    /// another model is asked for, `loader` loads that one.
    ///
    /// # Errors
    /// If the system gives no thread, or no random numbers, or the folder for clips cannot be written, or traces cannot be sent
    /// as the environment says.
    pub fn with_loader<L>(config: ServerConfig, loader: L) -> io::Result<Arc<Self>>
    where
        L: Fn(&ModelChoice) -> Result<Box<dyn Engine>> + Send + Sync + 'static,
    {
        let mut metrics = Metrics::default();
        let store = config
            .store_audio
            .as_deref()
            .map(|folder| AudioStore::open(folder, config.store_audio_bytes))
            .transpose()?;
        let traces = config.collector.as_ref().map(Traces::start).transpose().map_err(io::Error::other)?;
        let shared = config.cache.clone().filter(|_| config.cache_ttl_s > 0);
        let shared =
            shared.map(|url| SharedCache::new(url, AnswerCache::ttl(config.cache_ttl_s), metrics.shared_cache()));
        Ok(Arc::new(Self {
            access: Access::new(&config).map_err(io::Error::other)?,
            worker: InferenceWorker::spawn(&config, metrics.batch_sizes.clone(), loader)?,
            cache: AnswerCache::new(config.cache_bytes, config.cache_ttl_s).sharing(shared),
            store,
            stats: Stats::default(),
            metrics,
            traces,
            decoders: Arc::new(Semaphore::new(config.threads.clamp(1, 1024))),
            streams: Arc::new(Semaphore::new(config.max_streams.min(Semaphore::MAX_PERMITS))),
            started: Instant::now(),
            draining: watch::Sender::new(false),
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

    /// From now on new work is refused with 503; what was accepted is finished, and streams end after the utterance that they
    /// are at.
    pub fn begin_drain(&self) {
        self.draining.send_replace(true);
    }

    /// Once nothing is asked any more: waits until what is to be kept is on the disk, and a bounded time for the traces.
    pub fn finish(&self) {
        if let Some(store) = &self.store {
            store.close();
        }
        if let Some(traces) = &self.traces {
            traces.finish();
        }
    }

    /// Whether a load balancer may send work: the model answers, and the server does not stop.
    pub(crate) fn is_ready(&self) -> bool {
        self.accepts_work().is_ok() && self.worker.health() == Health::Healthy
    }

    /// # Errors
    /// [`ApiError::Draining`] once the server stops.
    pub(crate) fn accepts_work(&self) -> std::result::Result<(), ApiError> {
        if *self.draining.borrow() { Err(ApiError::Draining) } else { Ok(()) }
    }

    /// Comes back once the server stops.
    pub(crate) async fn stops(&self) {
        let mut draining = self.draining.subscribe();
        // The sender lives in `self`, so the channel cannot close meanwhile.
        let _ = draining.wait_for(|stops| *stops).await;
    }

    /// The model that is served, or will be: what is loaded again if no other is named.
    pub(crate) fn chosen(&self) -> ModelChoice {
        self.worker.model().map_or_else(|_| self.config.model.clone(), |model| model.choice.clone())
    }

    /// Loads a model beside the one that answers and puts it in its place. The load goes on if the future is dropped, and is
    /// left alone by a server that stops.
    ///
    /// # Errors
    /// As [`InferenceWorker::replace`]; 503 once the server stops.
    pub(crate) async fn load(&self, choice: ModelChoice) -> std::result::Result<Arc<LoadedModel>, ApiError> {
        self.accepts_work()?;
        tokio::select! {
            loaded = self.worker.replace(choice) => loaded,
            () = self.stops() => Err(ApiError::Draining),
        }
    }
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Server").field("config", &self.config).finish_non_exhaustive()
    }
}
