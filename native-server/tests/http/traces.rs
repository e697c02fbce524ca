//! A collector gets the spans of each request, under the caller's own trace, and nothing that was said. One that is gone or hangs
//! costs no answer.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::http::{HeaderValue, Request, StatusCode};
use axum::routing::post;
use okyeame_server::access::Scope;
use okyeame_server::access::keys::{ApiKey, generate};
use okyeame_server::traces::CollectorUrl;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message;
use tokio::net::TcpListener;

use crate::support::{Answer, Form, PANIC, Shop, ask, tone};

const TRACE_ID: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const PARENT_ID: &str = "00f067aa0ba902b7";
/// OTLP's numbers.
const KIND_SERVER: i32 = 2;
const STATUS_ERROR: i32 = 2;

/// What came to a collector, body by body.
#[derive(Clone, Default)]
struct Collector {
    bodies: Arc<Mutex<Vec<Bytes>>>,
}

impl Collector {
    /// Listens; gives also its address.
    async fn start() -> (Self, String) {
        let collector = Self::default();
        let bodies = Arc::clone(&collector.bodies);
        let take = move |body: Bytes| {
            bodies.lock().unwrap().push(body);
            std::future::ready(StatusCode::OK)
        };
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let app = Router::new().route("/v1/traces", post(take));
        tokio::spawn(async move { axum::serve(listener, app).await });
        (collector, address)
    }

    fn requests(&self) -> Vec<ExportTraceServiceRequest> {
        let bodies = self.bodies.lock().unwrap();
        bodies.iter().map(|body| ExportTraceServiceRequest::decode(body.clone()).unwrap()).collect()
    }

    fn spans(&self) -> Vec<Span> {
        let of_all = self.requests().into_iter().flat_map(|request| request.resource_spans);
        of_all.flat_map(|resource| resource.scope_spans).flat_map(|scope| scope.spans).collect()
    }

    fn contains(&self, text: &str) -> bool {
        self.bodies.lock().unwrap().iter().any(|body| body.windows(text.len()).any(|part| part == text.as_bytes()))
    }
}

/// A shop that sends its traces there.
async fn shop(endpoint: &str) -> Shop {
    let collector = CollectorUrl::parse(endpoint).unwrap();
    Shop::with(|config| config.collector = Some(collector)).await
}

/// Stops the server, which sends the last spans. Not on a thread that others need.
async fn finish(shop: &Shop) {
    let server = Arc::clone(&shop.server);
    let stopping = tokio::task::spawn_blocking(move || server.finish());
    tokio::time::timeout(Duration::from_secs(60), stopping).await.expect("it stops").unwrap();
}

async fn traced(shop: &Shop, mut request: Request<Body>, traceparent: &str) -> Answer {
    request.headers_mut().insert("traceparent", HeaderValue::from_bytes(traceparent.as_bytes()).unwrap());
    shop.send(request).await
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn value<'a>(attributes: &'a [KeyValue], key: &str) -> Option<&'a Value> {
    attributes.iter().find(|attribute| attribute.key == key)?.value.as_ref()?.value.as_ref()
}

fn text<'a>(span: &'a Span, key: &str) -> Option<&'a str> {
    match value(&span.attributes, key)? {
        Value::StringValue(text) => Some(text),
        other => panic!("{key} is no text: {other:?}"),
    }
}

fn status(span: &Span) -> Option<i64> {
    match value(&span.attributes, "http.response.status_code")? {
        Value::IntValue(status) => Some(*status),
        other => panic!("{other:?}"),
    }
}

fn is_failed(span: &Span) -> bool {
    span.status.as_ref().is_some_and(|status| status.code == STATUS_ERROR)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_is_a_span_of_its_callers_trace_with_its_stages_below() {
    let (collector, endpoint) = Collector::start().await;
    let secret = generate().unwrap();
    let key = ApiKey::of("till-of-kumasi", &secret, Scope::ALL.to_vec());
    let url = CollectorUrl::parse(&endpoint).unwrap();
    let shop = Shop::with(|config| {
        config.collector = Some(url);
        config.keys = vec![key];
    })
    .await;
    let signed = |mut request: Request<Body>| {
        let shown = HeaderValue::from_str(&format!("Bearer {secret}")).unwrap();
        request.headers_mut().insert("authorization", shown);
        request.headers_mut().insert("tracestate", HeaderValue::from_static("shop=privatestate"));
        request
    };
    let parent = format!("00-{TRACE_ID}-{PARENT_ID}-01");
    let form = Form::new().file("file", "privatename.wav", &tone(0.3));
    let answer = traced(&shop, signed(form.post("/test-intent?top_k=2")), &parent).await;
    assert_eq!(answer.status, StatusCode::OK, "{:?}", answer.json);
    let typed = Body::from(r#"{"text": "privatewords"}"#);
    let typed = traced(&shop, signed(Request::post("/text-intent").body(typed).unwrap()), &parent).await;
    assert_eq!(typed.json["transcription"], "privatewords", "{:?}", typed.json);
    finish(&shop).await;

    let spans = collector.spans();
    assert!(spans.iter().all(|span| hex(&span.trace_id) == TRACE_ID && span.trace_state.is_empty()), "{spans:?}");
    let root = spans.iter().find(|span| span.name == "POST /test-intent").unwrap();
    assert_eq!((hex(&root.parent_span_id).as_str(), root.kind), (PARENT_ID, KIND_SERVER));
    assert_eq!(text(root, "http.request.method"), Some("POST"));
    assert_eq!(text(root, "http.route"), Some("/test-intent"));
    assert_eq!((status(root), text(root, "error.type")), (Some(200), None));
    assert_eq!(text(root, "request_id"), answer.json["request_id"].as_str());

    let children: Vec<&Span> = spans.iter().filter(|span| span.parent_span_id == root.span_id).collect();
    let names: BTreeSet<&str> = children.iter().map(|span| span.name.as_str()).collect();
    assert!(names.is_superset(&BTreeSet::from(["decode_audio", "queue", "encoder"])), "{names:?}");
    let encoder = children.iter().find(|span| span.name == "encoder").unwrap();
    // The test engine says that it took 3 ms.
    assert_eq!(encoder.end_time_unix_nano - encoder.start_time_unix_nano, 3_000_000);
    assert!(spans.iter().any(|span| span.name == "POST /text-intent"), "{spans:?}");

    let resource = collector.requests().remove(0).resource_spans.remove(0).resource.unwrap();
    assert_eq!(value(&resource.attributes, "service.name"), Some(&Value::StringValue("okyeame".to_owned())));
    for private in ["privatename", "privatewords", "privatestate", "till-of-kumasi", secret.as_str(), "0.3 s"] {
        assert!(!collector.contains(private), "{private}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_fails_says_how_and_what_a_caller_says_is_checked() {
    let (collector, endpoint) = Collector::start().await;
    let shop = shop(&endpoint).await;
    for damaged in ["", "00-0-0-01", "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", "é"] {
        traced(&shop, ask(b"not audio", ""), damaged).await.is_error(415, "unsupported_audio");
    }
    // The caller does not want this one.
    let unsampled = format!("00-{TRACE_ID}-{PARENT_ID}-00");
    assert_eq!(traced(&shop, ask(&tone(0.4), ""), &unsampled).await.status, StatusCode::OK);
    shop.send(ask(&tone(0.3), &format!("language={PANIC}"))).await.is_error(500, "internal_error");
    shop.get("/privatepath?token=privatetoken").await.is_error(404, "not_found");
    let odd = Request::builder().method("PRIVATE").uri("/test-intent").body(Body::empty()).unwrap();
    shop.send(odd).await.is_error(405, "method_not_allowed");
    finish(&shop).await;

    let spans = collector.spans();
    let roots: Vec<&Span> = spans.iter().filter(|span| span.kind == KIND_SERVER).collect();
    assert!(roots.iter().all(|span| span.parent_span_id.is_empty() && hex(&span.trace_id) != TRACE_ID), "{roots:?}");
    let with = |code: &str| roots.iter().filter(|span| text(span, "error.type") == Some(code)).collect::<Vec<_>>();
    assert_eq!(with("unsupported_audio").len(), 4);
    assert!(with("unsupported_audio").iter().all(|span| status(span) == Some(415) && !is_failed(span)));
    assert!(matches!(with("internal_error")[..], [span] if status(span) == Some(500) && is_failed(span)));
    assert!(matches!(with("not_found")[..], [span] if span.name == "GET" && text(span, "http.route").is_none()));
    let odd = with("method_not_allowed");
    assert!(matches!(odd[..], [span] if text(span, "http.request.method") == Some("_OTHER")), "{odd:?}");
    assert_eq!(roots.len(), 7, "{roots:?}");
    for private in ["privatepath", "privatetoken", "PRIVATE", "/secret/path"] {
        assert!(!collector.contains(private), "{private}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_collector_everything_is_answered() {
    // One that is not there, one that takes connections and says nothing, one that refuses, and one that is no collector.
    let gone = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let gone_url = format!("http://{}", gone.local_addr().unwrap());
    drop(gone);
    let mute = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let mute_url = format!("http://{}", mute.local_addr().unwrap());
    let (_other, url) = Collector::start().await;
    for endpoint in [gone_url, mute_url, format!("{url}/elsewhere")] {
        let shop = shop(&endpoint).await;
        for i in 0..20 {
            let answer = shop.send(ask(&tone(0.2 + 0.01 * f64::from(i)), "")).await;
            assert_eq!(answer.status, StatusCode::OK, "{endpoint}: {:?}", answer.json);
        }
        finish(&shop).await;
        // Also afterwards.
        shop.still_answers().await;
    }
    drop(mute);
}
