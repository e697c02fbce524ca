//! Traces by OpenTelemetry, sent by OTLP over HTTP, where a collector is configured: a span for each request, with a child for
//! each part of the work. A caller's trace goes on: its `traceparent` (W3C Trace Context) is the request's parent.
//!
//! Attributes are routes as the code writes them, statuses, codes and request ids: never words, audio, keys, tokens, file
//! names or paths. That is why these spans are made by hand, and are not those of `tracing`, whose fields are the log's; and
//! why a caller's `tracestate` is left out.
//!
//! Nothing waits for the collector: spans go through a bounded queue to a thread of their own. When it is full they are dropped.
//! The standard variables hold (OTEL_SERVICE_NAME, OTEL_RESOURCE_ATTRIBUTES, OTEL_EXPORTER_OTLP_HEADERS, …_TIMEOUT,
//! OTEL_TRACES_SAMPLER, OTEL_BSP_…), but for the protocol, which is protobuf over HTTP.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderMap, Uri};
use axum::middleware::Next;
use axum::response::Response;
use okyeame_core::TimingsMs;
use opentelemetry::propagation::{Extractor, TextMapPropagator};
use opentelemetry::trace::{Span as _, SpanKind, Status, TraceContextExt, Tracer, TracerProvider};
use opentelemetry::{Context, Key, KeyValue};
use opentelemetry_otlp::{ExporterBuildError, Protocol, WithExportConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::{BatchSpanProcessor, SdkTracer, SdkTracerProvider, SpanData, SpanExporter};

use crate::metrics::ErrorCode;
use crate::request_id;
use crate::state::Server;

/// What OTLP appends to a collector's address for traces.
const PATH: &str = "/v1/traces";
/// How often it is logged that the collector cannot be reached.
const LOG_EVERY: Duration = Duration::from_secs(60);
/// How long a stopping server waits until the last spans are sent.
const FLUSH_LIMIT: Duration = Duration::from_secs(5);
/// Methods that are named; a client may send any.
const METHODS: [&str; 7] = ["GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH"];

/// Where traces are sent. Not shown: it may hold a password.
#[derive(Clone)]
pub struct CollectorUrl(String);

impl fmt::Debug for CollectorUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CollectorUrl(…)")
    }
}

/// It is no address of a collector. Does not repeat it.
#[derive(Debug, thiserror::Error)]
#[error("the collector's address is not an address such as http://localhost:4318 (OTLP over HTTP)")]
pub struct CollectorUrlError;

impl CollectorUrl {
    /// A collector's address, for all that it takes; asks nothing of the network.
    ///
    /// # Errors
    /// [`CollectorUrlError`].
    pub fn parse(endpoint: &str) -> Result<Self, CollectorUrlError> {
        Self::of_traces(&format!("{}{PATH}", endpoint.trim_end_matches('/')))
    }

    /// The whole address for traces.
    ///
    /// # Errors
    /// [`CollectorUrlError`].
    pub fn of_traces(url: &str) -> Result<Self, CollectorUrlError> {
        let uri: Uri = url.parse().map_err(|_| CollectorUrlError)?;
        let is_http = matches!(uri.scheme_str(), Some("http" | "https"));
        if is_http && uri.host().is_some_and(|host| !host.is_empty()) {
            Ok(Self(url.to_owned()))
        } else {
            Err(CollectorUrlError)
        }
    }

    /// The collector that the environment and the setting name; `None` if there is none, or traces are turned off.
    pub(crate) fn choose(endpoint: Option<&str>) -> Result<Option<Self>, CollectorUrlError> {
        let variable = |name: &str| std::env::var(name).ok().map(|value| value.trim().to_owned());
        let is = |name: &str, value: &str| variable(name).is_some_and(|said| said.eq_ignore_ascii_case(value));
        if is("OTEL_SDK_DISABLED", "true") || is("OTEL_TRACES_EXPORTER", "none") {
            return Ok(None);
        }
        let of_traces = variable("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT").filter(|url| !url.is_empty());
        match (of_traces, endpoint.map(str::trim).filter(|endpoint| !endpoint.is_empty())) {
            (Some(url), _) => Self::of_traces(&url).map(Some),
            (None, Some(endpoint)) => Self::parse(endpoint).map(Some),
            (None, None) => Ok(None),
        }
    }
}

/// Makes spans and sends them.
pub(crate) struct Traces {
    provider: SdkTracerProvider,
    tracer: SdkTracer,
}

impl Traces {
    /// Starts the thread that sends.
    ///
    /// # Errors
    /// If the environment says what cannot be done, such as a compression that is not built in.
    pub(crate) fn start(collector: &CollectorUrl) -> Result<Self, ExporterBuildError> {
        let exporter = opentelemetry_otlp::SpanExporter::builder()
            .with_http()
            .with_endpoint(collector.0.as_str())
            .with_protocol(Protocol::HttpBinary)
            .build()?;
        let processor = BatchSpanProcessor::builder(Watched { exporter, logged: Mutex::new(None) }).build();
        let provider = SdkTracerProvider::builder().with_resource(resource()).with_span_processor(processor).build();
        let tracer = provider.tracer("okyeame");
        Ok(Self { provider, tracer })
    }

    /// Sends what is still to be sent, for a bounded time. Blocks.
    pub(crate) fn finish(&self) {
        if let Err(error) = self.provider.shutdown_with_timeout(FLUSH_LIMIT) {
            tracing::warn!(cause = %error, "the last traces were not sent");
        }
    }

    /// The span of a request, as the parent of what is done for it.
    fn begin(&self, request: &Request) -> Context {
        let said = request.method().as_str();
        let method = METHODS.into_iter().find(|method| *method == said).unwrap_or("_OTHER");
        let route = request.extensions().get::<MatchedPath>().map(|path| path.as_str().to_owned());
        let name = route.as_ref().map_or_else(|| method.to_owned(), |route| format!("{method} {route}"));
        let caller = TraceContextPropagator::new().extract_with_context(&Context::new(), &Caller(request.headers()));
        let mut attributes =
            vec![KeyValue::new("http.request.method", method), KeyValue::new("request_id", request_id::current())];
        attributes.extend(route.map(|route| KeyValue::new("http.route", route)));
        let span = self.tracer.span_builder(name).with_kind(SpanKind::Server).with_attributes(attributes);
        let span = span.start_with_context(&self.tracer, &caller);
        caller.with_span(span)
    }
}

/// What names this program among others, unless the environment does.
fn resource() -> Resource {
    let version = || KeyValue::new("service.version", env!("CARGO_PKG_VERSION"));
    let resource = Resource::builder().with_attribute(version()).build();
    let name = resource.get(&Key::new("service.name"));
    if name.is_some_and(|name| !name.as_str().starts_with("unknown_service")) {
        resource
    } else {
        Resource::builder().with_service_name("okyeame").with_attribute(version()).build()
    }
}

/// The header of a request that says which trace it belongs to.
struct Caller<'a>(&'a HeaderMap);

impl Extractor for Caller<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        // Not `tracestate`: kilobytes that a client chose would go to the collector with each span.
        (key == "traceparent").then(|| self.0.get(key)?.to_str().ok()).flatten()
    }

    fn keys(&self) -> Vec<&str> {
        vec!["traceparent"]
    }
}

/// An exporter whose failures are logged, but not each: an absent collector is one line a minute.
#[derive(Debug)]
struct Watched {
    exporter: opentelemetry_otlp::SpanExporter,
    /// When it was logged last.
    logged: Mutex<Option<Instant>>,
}

impl Watched {
    fn is_time_to_log(&self) -> bool {
        let mut logged = self.logged.lock().unwrap_or_else(PoisonError::into_inner);
        let is_time = logged.is_none_or(|last| last.elapsed() >= LOG_EVERY);
        if is_time {
            *logged = Some(Instant::now());
        }
        is_time
    }
}

impl SpanExporter for Watched {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let n_spans = batch.len();
        let result = self.exporter.export(batch).await;
        if let Err(error) = &result
            && self.is_time_to_log()
        {
            tracing::warn!(cause = %error, n_spans, "traces are lost: the collector does not take them");
        }
        result
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.exporter.shutdown_with_timeout(timeout)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.exporter.set_resource(resource);
    }
}

/// The span that what happens in a task belongs to.
struct Parent {
    tracer: SdkTracer,
    context: Context,
}

tokio::task_local! {
    static CURRENT: Parent;
}

/// Gives each request its span; within the layer that gives it its id.
pub(crate) async fn layer(State(server): State<Arc<Server>>, request: Request, next: Next) -> Response {
    let Some(traces) = &server.traces else { return next.run(request).await };
    let context = traces.begin(&request);
    let parent = Parent { tracer: traces.tracer.clone(), context: context.clone() };
    // A request that is given up ends its span too: with the last of its contexts.
    let response = CURRENT.scope(parent, next.run(request)).await;

    let span = context.span();
    span.set_attribute(KeyValue::new("http.response.status_code", i64::from(response.status().as_u16())));
    if let Some(ErrorCode(code)) = response.extensions().get().copied() {
        span.set_attribute(KeyValue::new("error.type", code));
    }
    if response.status().is_server_error() {
        span.set_status(Status::error(""));
    }
    span.end();
    response
}

/// A part of this task's request has just ended. Outside of a traced request, nothing.
pub(crate) fn ended(part: &'static str, took: Duration) {
    let now = SystemTime::now();
    record(part, before(now, took), now);
}

/// The stages of an answer that has just come. The model tells how long each took, not when it was: they are laid one behind the
/// other, the last ending now.
pub(crate) fn stages(timings: &TimingsMs) {
    let mut end = SystemTime::now();
    for (stage, ms) in [
        ("transcript", timings.transcript),
        ("intent", timings.intent),
        ("encoder", timings.encoder),
        ("features", timings.features),
        ("queue", timings.queue),
    ] {
        let took = Duration::try_from_secs_f64(ms / 1e3).unwrap_or_default();
        if !took.is_zero() {
            let start = before(end, took);
            record(stage, start, end);
            end = start;
        }
    }
}

fn before(end: SystemTime, took: Duration) -> SystemTime {
    end.checked_sub(took).unwrap_or(end)
}

fn record(part: &'static str, start: SystemTime, end: SystemTime) {
    // An error: no request of this task is traced.
    let _ = CURRENT.try_with(|Parent { tracer, context }| {
        if context.span().is_recording() {
            let span = tracer.span_builder(part).with_start_time(start);
            span.start_with_context(tracer, context).end_with_timestamp(end);
        }
    });
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_collector_s_address_is_http() {
        for (endpoint, url) in [
            ("http://localhost:4318", "http://localhost:4318/v1/traces"),
            ("https://otel.example/tenant/", "https://otel.example/tenant/v1/traces"),
        ] {
            assert_eq!(CollectorUrl::parse(endpoint).unwrap().0, url);
        }
        for bad in ["", "localhost:4318", "grpc://localhost:4317", "http://", "http://a b", "/v1/traces"] {
            assert!(CollectorUrl::parse(bad).is_err(), "{bad}");
        }
        let secret = CollectorUrl::parse("https://user:pa55word@otel.example").unwrap();
        assert!(!format!("{secret:?}").contains("pa55word"));
    }

    #[test]
    fn only_the_parent_is_taken_of_a_caller() {
        let mut headers = HeaderMap::new();
        headers.insert("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01".parse().unwrap());
        headers.insert("tracestate", "shop=secret".parse().unwrap());
        let context = TraceContextPropagator::new().extract_with_context(&Context::new(), &Caller(&headers));
        let span = context.span().span_context().clone();
        assert_eq!(span.trace_id().to_string(), "4bf92f3577b34da6a3ce929d0e0e4736");
        assert!(span.is_remote() && span.trace_state().header().is_empty(), "{span:?}");
    }

    #[test]
    fn outside_of_a_request_nothing_happens() {
        ended("decode_audio", Duration::from_millis(3));
        stages(&TimingsMs { encoder: f64::NAN, ..TimingsMs::default() });
    }
}
