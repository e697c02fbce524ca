//! What `GET /metrics` shows: OpenMetrics text, as Prometheus reads it.
//!
//! Names follow Prometheus's conventions (base units, `_total`). Labels are routes as they are written in the code, statuses
//! and this server's own words: never a path, a file name or anything else that a client chose, so their number is bounded.

use std::fmt;
use std::hash::Hash;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::extract::{MatchedPath, Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use okyeame_core::device::{DeviceMemory, is_built_in};
use okyeame_core::{Recognition, Rejection, TimingsMs};
use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};

use crate::answer_cache::Level;
use crate::engine::MemoryProbe;
use crate::error::ApiError;
use crate::memory;
use crate::routes::openapi::{self, MetricsRefusals};
use crate::state::Server;

/// The media type of OpenMetrics 1.0.
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
/// Upper ends of times, seconds: a command takes tens of milliseconds, a long transcript a minute.
const BUCKETS_S: [f64; 14] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0, 60.0];
/// Upper ends of numbers of commands.
const BATCHES: [f64; 6] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0];
/// How long a device may take to say what it holds. One that hangs must not take the metrics with it.
const LOOK_LIMIT: Duration = Duration::from_secs(1);
/// The route of whatever no route takes: files of a site, and what is not found.
const OTHER: &str = "other";

#[derive(Debug, Clone, Hash, PartialEq, Eq, EncodeLabelSet)]
struct RequestLabels {
    route: String,
    status: u16,
}

#[derive(Debug, Clone, Hash, PartialEq, Eq, EncodeLabelSet)]
struct RouteLabel {
    route: String,
}

#[derive(Debug, Clone, Hash, PartialEq, Eq, EncodeLabelSet)]
struct CodeLabel {
    code: &'static str,
}

#[derive(Debug, Clone, Hash, PartialEq, Eq, EncodeLabelSet)]
struct StageLabel {
    stage: &'static str,
}

#[derive(Debug, Clone, Hash, PartialEq, Eq, EncodeLabelSet)]
struct LookupLabel {
    result: &'static str,
}

#[derive(Debug, Clone, Hash, PartialEq, Eq, EncodeLabelSet)]
struct CauseLabel {
    cause: &'static str,
}

#[derive(Debug, Clone, Hash, PartialEq, Eq, EncodeLabelSet)]
struct KindLabel {
    kind: &'static str,
}

/// What the program is.
#[derive(Debug, Clone, Hash, PartialEq, Eq, EncodeLabelSet)]
struct BuildLabels {
    version: &'static str,
    os: &'static str,
    arch: &'static str,
    /// Those that are built in.
    devices: String,
}

impl BuildLabels {
    fn of_this() -> Self {
        let built_in = ["cpu", "wgpu", "vulkan", "cuda"].into_iter().filter(|name| is_built_in(name));
        Self {
            version: env!("CARGO_PKG_VERSION"),
            os: std::env::consts::OS,
            arch: std::env::consts::ARCH,
            devices: built_in.collect::<Vec<_>>().join(","),
        }
    }
}

type Times<L> = Family<L, Histogram, fn() -> Histogram>;

fn times<L: Clone + Hash + Eq>() -> Times<L> {
    Family::new_with_constructor(|| Histogram::new(BUCKETS_S))
}

/// The code of an error, for the layer that counts: [`ApiError`] leaves it in its response.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ErrorCode(pub(crate) &'static str);

/// How a shared cache does. Clones count together.
#[derive(Clone, Default)]
pub(crate) struct SharedCacheMetrics {
    failures: Family<CauseLabel, Counter>,
    pub(crate) connected: Gauge,
}

impl SharedCacheMetrics {
    /// A question that got no answer, or no use of one.
    pub(crate) fn failure(&self, cause: &'static str) {
        self.failures.get_or_create(&CauseLabel { cause }).inc();
    }
}

/// Counts what is asked and answered.
pub(crate) struct Metrics {
    registry: Registry,
    requests: Family<RequestLabels, Counter>,
    durations: Times<RouteLabel>,
    errors: Family<CodeLabel, Counter>,
    stages: Times<StageLabel>,
    lookups: Family<LookupLabel, Counter>,
    accepted: Counter,
    rejections: Family<CauseLabel, Counter>,
    /// The model's threads fill it.
    pub(crate) batch_sizes: Histogram,
    /// Looked at when somebody asks.
    ready: Gauge,
    queue_length: Gauge,
    queue_capacity: Gauge,
    cache_entries: Gauge,
    cache_bytes: Gauge,
    uptime_s: Gauge,
    resident_bytes: Gauge,
    device_bytes: Family<KindLabel, Gauge>,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut metrics = Self {
            registry: Registry::with_prefix("okyeame"),
            requests: Family::default(),
            durations: times(),
            errors: Family::default(),
            stages: times(),
            lookups: Family::default(),
            accepted: Counter::default(),
            rejections: Family::default(),
            batch_sizes: Histogram::new(BATCHES),
            ready: Gauge::default(),
            queue_length: Gauge::default(),
            queue_capacity: Gauge::default(),
            cache_entries: Gauge::default(),
            cache_bytes: Gauge::default(),
            uptime_s: Gauge::default(),
            resident_bytes: Gauge::default(),
            device_bytes: Family::default(),
        };
        let all = &mut metrics.registry;
        all.register("requests", "Requests answered, by route and status", metrics.requests.clone());
        all.register_with_unit(
            "request_duration",
            "Time from a request's header to its answer",
            Unit::Seconds,
            metrics.durations.clone(),
        );
        all.register(
            "errors",
            "Requests and files of batches refused or failed, by the code of the answer",
            metrics.errors.clone(),
        );
        all.register_with_unit(
            "stage_duration",
            "Time that a clip spent in a stage; queue is the wait for the model",
            Unit::Seconds,
            metrics.stages.clone(),
        );
        all.register("cache_lookups", "Looks into the cache of answers, by result", metrics.lookups.clone());
        all.register(
            "accepted",
            "Commands that were understood, those from the cache included",
            metrics.accepted.clone(),
        );
        all.register("rejections", "Commands that were not understood, by cause", metrics.rejections.clone());
        all.register("batch_size", "Commands that shared a pass through the model", metrics.batch_sizes.clone());
        all.register("ready", "1 when GET /health answers 200", metrics.ready.clone());
        all.register("queue_length", "Jobs that wait for the model", metrics.queue_length.clone());
        all.register("queue_capacity", "Jobs that may wait for the model", metrics.queue_capacity.clone());
        all.register("cache_entries", "Answers in the cache", metrics.cache_entries.clone());
        all.register_with_unit("cache_size", "Size of the cache", Unit::Bytes, metrics.cache_bytes.clone());
        all.register_with_unit("uptime", "Time since the start", Unit::Seconds, metrics.uptime_s.clone());
        all.register_with_unit(
            "process_resident_memory",
            "What the process has in memory",
            Unit::Bytes,
            metrics.resident_bytes.clone(),
        );
        all.register_with_unit(
            "device_memory",
            "What is held on the device that computes, where that is no CPU",
            Unit::Bytes,
            metrics.device_bytes.clone(),
        );
        all.register("build", "What this program is", Info::new(BuildLabels::of_this()));
        metrics
    }
}

impl Metrics {
    /// A clip's stages.
    pub(crate) fn clip(&self, timings: &TimingsMs) {
        let stages = [
            ("decode_audio", timings.decode_audio),
            ("queue", timings.queue),
            ("features", timings.features),
            ("encoder", timings.encoder),
            ("intent", timings.intent),
            ("transcript", timings.transcript),
        ];
        for (stage, ms) in stages {
            self.stages.get_or_create(&StageLabel { stage }).observe(ms / 1e3);
        }
    }

    /// An answer to a command.
    pub(crate) fn command(&self, recognition: &Recognition) {
        let cause = match recognition.rejection {
            None => {
                self.accepted.inc();
                return;
            }
            Some(Rejection::NoSpeech) => "no_speech",
            Some(Rejection::OutOfScope) => "out_of_scope",
            Some(Rejection::Ambiguous) => "ambiguous",
            Some(Rejection::LowConfidence) => "low_confidence",
        };
        self.rejections.get_or_create(&CauseLabel { cause }).inc();
    }

    fn memory(&self, resident_bytes: Option<u64>, device: Option<DeviceMemory>) {
        self.resident_bytes.set(whole(resident_bytes.unwrap_or(0)));
        let Some(device) = device else { return self.device_bytes.clear() };
        for (kind, bytes) in [("in_use", device.in_use_bytes), ("reserved", device.reserved_bytes)] {
            self.device_bytes.get_or_create(&KindLabel { kind }).set(whole(bytes));
        }
    }

    /// A look into the cache, and where it found something.
    pub(crate) fn lookup(&self, found: Option<Level>) {
        let result = match found {
            Some(Level::Local) => "local_hit",
            Some(Level::Shared) => "shared_hit",
            None => "miss",
        };
        self.lookups.get_or_create(&LookupLabel { result }).inc();
    }

    /// What a shared cache counts; without one, nothing of it is shown.
    pub(crate) fn shared_cache(&mut self) -> SharedCacheMetrics {
        let shared = SharedCacheMetrics::default();
        let all = &mut self.registry;
        all.register(
            "shared_cache_failures",
            "Questions to the shared cache that failed, by cause",
            shared.failures.clone(),
        );
        all.register("shared_cache_connected", "1 with a connection to the shared cache", shared.connected.clone());
        shared
    }

    /// An answer that is an error: a request's, or a file's of a batch that was answered otherwise.
    pub(crate) fn error(&self, code: &'static str) {
        self.errors.get_or_create(&CodeLabel { code }).inc();
    }

    fn request(&self, route: &str, status: StatusCode, took: Duration) {
        let route = route.to_owned();
        self.durations.get_or_create(&RouteLabel { route: route.clone() }).observe(took.as_secs_f64());
        self.requests.get_or_create(&RequestLabels { route, status: status.as_u16() }).inc();
    }
}

/// Counts a request by its route; outside of whatever answers it, a caught panic included.
pub(crate) async fn layer(State(server): State<Arc<Server>>, request: Request, next: Next) -> Response {
    let started = Instant::now();
    let route = request.extensions().get::<MatchedPath>().map_or(OTHER, MatchedPath::as_str).to_owned();
    let response = next.run(request).await;
    server.metrics.request(&route, response.status(), started.elapsed());
    if let Some(ErrorCode(code)) = response.extensions().get().copied() {
        server.metrics.error(code);
    }
    response
}

/// Asks the system and the device, on threads that may wait for them. What cannot be had in time is not shown.
async fn look(probe: Option<MemoryProbe>) -> (Option<u64>, Option<DeviceMemory>) {
    let resident = tokio::task::spawn_blocking(memory::resident);
    let device = async {
        let probe = probe?;
        let look = tokio::task::spawn_blocking(move || probe.look());
        tokio::time::timeout(LOOK_LIMIT, look).await.ok()?.ok()?
    };
    let (resident, device) = tokio::join!(resident, device);
    (resident.ok().flatten(), device)
}

fn whole(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

/// Figures for Prometheus
///
/// Requests, times of each stage, errors by code, the cache, the queue. Nothing in it was chosen by a client.
#[utoipa::path(get, path = "/metrics", tag = openapi::OPERATION,
    responses(
        (status = 200, description = "OpenMetrics text", body = String, content_type = OPEN_METRICS),
        MetricsRefusals,
    ),
    security((), ("bearer" = ["operate"]), ("api_key" = ["operate"]))
)]
pub(crate) async fn metrics(State(server): State<Arc<Server>>) -> Result<Response, ApiError> {
    let metrics = &server.metrics;
    let (queue_length, queue_capacity) = server.worker.queue_len();
    let (cache_entries, cache_bytes) = server.cache.size();
    metrics.ready.set(i64::from(server.is_ready()));
    metrics.queue_length.set(whole(queue_length as u64));
    metrics.queue_capacity.set(whole(queue_capacity as u64));
    metrics.cache_entries.set(whole(cache_entries));
    metrics.cache_bytes.set(whole(cache_bytes));
    metrics.uptime_s.set(whole(server.started.elapsed().as_secs()));
    let probe = server.worker.model().ok().and_then(|model| model.memory_probe.clone());
    let (resident_bytes, device) = look(probe).await;
    metrics.memory(resident_bytes, device);
    let mut body = String::new();
    text::encode(&mut body, &metrics.registry)
        .map_err(|error: fmt::Error| ApiError::Internal { cause: error.to_string() })?;
    Ok(([(header::CONTENT_TYPE, OPEN_METRICS)], body).into_response())
}
