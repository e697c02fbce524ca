//! The OpenAPI document is true: every route is in it, and what the server answers is what it says.
//!
//! `UPDATE_OPENAPI=1 cargo test -p okyeame-server --test http openapi` writes `native-server/openapi.json`; the test says
//! when it is stale.

use std::collections::BTreeSet;
use std::path::Path;

use axum::body::Body;
use axum::http::{Method, Request, StatusCode, header};
use boon::{Compiler, Schemas};
use okyeame_core::Recognition;
use okyeame_server::access::Scope;
use okyeame_server::access::keys::{ApiKey, generate};
use serde_json::{Value, json};

use crate::support::{Answer, FAIL, Form, Shop, ask, silence, tone};

const ROUTER: &str = include_str!("../../src/routes/mod.rs");
const EXAMPLE: &str = include_str!("../../assets/recognition.json");
const SCHEMAS: &str = "#/components/schemas/";

/// The document, as it is served.
async fn document(shop: &Shop) -> Value {
    let answer = shop.get("/openapi.json").await;
    assert_eq!(answer.status, StatusCode::OK);
    assert_eq!(answer.headers[header::CONTENT_TYPE], "application/json");
    answer.json
}

/// `(path, method, operation)` of each operation.
fn operations(document: &Value) -> Vec<(&str, &str, &Value)> {
    let mut all = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            all.push((path.as_str(), method.as_str(), operation));
        }
    }
    all
}

/// Asserts that the document knows this answer: its status, and the shape of its body.
#[track_caller]
fn conforms(document: &Value, method: &str, path: &str, answer: &Answer) {
    let responses = &document["paths"][path][method]["responses"];
    let response = &responses[answer.status.as_str()];
    assert!(response.is_object(), "{method} {path}: {} is not described: {:?}", answer.status, answer.json);
    let kind = answer.headers[header::CONTENT_TYPE].to_str().unwrap().split(';').next().unwrap();
    let described = response["content"].as_object().unwrap();
    let content = described.iter().find(|(name, _)| name.split(';').next() == Some(kind));
    let (_, content) = content.unwrap_or_else(|| panic!("{method} {path}: {kind} is not described"));
    if kind == "application/json" {
        let wrong = complaint(document, &content["schema"], &answer.json);
        assert_eq!(wrong, None, "{method} {path}: {:?}", answer.json);
    }
    for name in response["headers"].as_object().unwrap().keys() {
        assert!(answer.headers.contains_key(name.as_str()), "{method} {path}: no {name} on {}", answer.status);
    }
}

/// What is wrong with `instance`, if anything.
fn complaint(document: &Value, schema: &Value, instance: &Value) -> Option<String> {
    let whole = json!({"$defs": document["components"]["schemas"], "allOf": [schema]});
    let whole = whole.to_string().replace(SCHEMAS, "#/$defs/");
    let url = "http://okyeame.invalid/schema.json";
    let (mut schemas, mut compiler) = (Schemas::new(), Compiler::new());
    compiler.add_resource(url, serde_json::from_str(&whole).unwrap()).unwrap();
    let index = compiler.compile(url, &mut schemas).unwrap();
    let checked = schemas.validate(instance, index);
    checked.err().map(|error| error.to_string())
}

fn form() -> Form {
    Form::new().file("file", "a.wav", &tone(0.3))
}

fn post(path: &str, body: &str) -> Request<Body> {
    Request::post(path).body(Body::from(body.to_owned())).unwrap()
}

#[tokio::test]
async fn the_committed_document_is_the_one_that_is_served() {
    let served = Shop::open().await.get("/openapi.json").await.text;
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("openapi.json");
    if std::env::var_os("UPDATE_OPENAPI").is_some() {
        std::fs::write(&file, &served).unwrap();
    }
    let there = std::fs::read_to_string(&file).unwrap_or_default();
    let stale =
        "native-server/openapi.json is stale: UPDATE_OPENAPI=1 cargo test -p okyeame-server --test http openapi";
    assert!(there == served, "{stale}");
}

/// As many routes as there are documented paths, and each path is a route: so they are the same.
#[tokio::test]
async fn every_route_is_described_and_nothing_else() {
    let shop = Shop::open().await;
    let document = document(&shop).await;
    let paths: BTreeSet<&str> = operations(&document).into_iter().map(|(path, ..)| path).collect();
    for path in &paths {
        let asked = path.replace("{path}", "x/y").replace("{file}", "x");
        let answer = shop.send(Request::delete(asked).body(Body::empty()).unwrap()).await;
        answer.is_error(405, "method_not_allowed");
    }
    for (path, method, _) in operations(&document) {
        let asked = path.replace("{path}", "x/y").replace("{file}", "x");
        let method = Method::from_bytes(method.to_uppercase().as_bytes()).unwrap();
        let answer = shop.send(Request::builder().method(&method).uri(asked).body(Body::empty()).unwrap()).await;
        assert_ne!(answer.status, StatusCode::METHOD_NOT_ALLOWED, "{method} {path}");
    }
    let routes = ROUTER.matches(".route(").count();
    assert_eq!(paths.len(), routes + 1, "the router has a route that the document lacks, or the page at / is missing");
}

#[tokio::test]
async fn the_document_holds_together() {
    let document = document(&Shop::open().await).await;
    assert_eq!(document["openapi"], "3.1.0");
    let tags: BTreeSet<&str> = document["tags"].as_array().unwrap().iter().filter_map(|t| t["name"].as_str()).collect();
    let mut ids = BTreeSet::new();
    for (path, method, operation) in operations(&document) {
        let id = operation["operationId"].as_str().unwrap();
        assert!(ids.insert(id.to_owned()), "two operations are called {id}");
        assert!(operation["summary"].is_string(), "{method} {path} has no summary");
        assert!(tags.contains(operation["tags"][0].as_str().unwrap()), "{method} {path}: {:?}", operation["tags"]);
        for (status, response) in operation["responses"].as_object().unwrap() {
            assert!(!response["description"].as_str().unwrap().is_empty(), "{method} {path} {status}");
            let waits = response["headers"].get("Retry-After").is_some();
            assert_eq!(waits, path != "/health" && ["429", "503"].contains(&status.as_str()), "{path} {status}");
        }
        for shown in operation["security"].as_array().into_iter().flatten() {
            for scheme in shown.as_object().unwrap().keys() {
                assert!(document["components"]["securitySchemes"].get(scheme).is_some(), "{path}: {scheme}");
            }
        }
    }
    let mut refs = BTreeSet::new();
    collect_refs(&document, &mut refs);
    assert!(refs.len() > 20, "{refs:?}");
    for reference in refs {
        let pointer = reference.strip_prefix('#').expect("a reference within the document");
        assert!(document.pointer(pointer).is_some(), "{reference} is not there");
    }
}

fn collect_refs(value: &Value, refs: &mut BTreeSet<String>) {
    match value {
        Value::Object(fields) => {
            refs.extend(fields.get("$ref").and_then(Value::as_str).map(str::to_owned));
            fields.values().for_each(|field| collect_refs(field, refs));
        }
        Value::Array(items) => items.iter().for_each(|item| collect_refs(item, refs)),
        _ => {}
    }
}

#[tokio::test]
async fn recognitions_are_as_described() {
    let shop = Shop::open().await;
    let document = document(&shop).await;
    let schema = json!({"$ref": format!("{SCHEMAS}Recognition")});
    let example: Value = serde_json::from_str(EXAMPLE).unwrap();
    assert_eq!(complaint(&document, &schema, &example), None);
    let read: Recognition = serde_json::from_value(example.clone()).unwrap();
    assert_eq!(read.intent, "add_to_cart");
    // The check can say no.
    for (field, wrong) in [("confidence", json!("high")), ("risk", json!("some")), ("rejection", json!("noise"))] {
        let mut example = example.clone();
        example[field] = wrong;
        assert!(complaint(&document, &schema, &example).is_some(), "{field}");
        example.as_object_mut().unwrap().remove(field);
        assert!(complaint(&document, &schema, &example).is_some(), "no {field}");
    }

    let clip = tone(0.5);
    for path in ["/test-intent", "/recognize"] {
        for query in ["", "?language=en&transcribe=false", "?language=en&transcribe=false"] {
            let request = Form::new().file("file", "a.wav", &clip).post(&format!("{path}{query}"));
            conforms(&document, "post", path, &shop.send(request).await);
        }
        conforms(
            &document,
            "post",
            path,
            &shop.send(Form::new().file("file", "b.wav", &silence(0.5)).post(path)).await,
        );
    }
    let batch = form().file("files", "bad.wav", b"this is not a sound file, it is a sentence");
    for path in ["/batch-intent", "/batch-recognize"] {
        let answer = shop.send(batch.clone().post(path)).await;
        assert_eq!((&answer.json["successful"], &answer.json["failed"]), (&json!(1), &json!(1)));
        conforms(&document, "post", path, &answer);
    }
    let answer = shop.send(post("/text-intent", r#"{"text": "Fa yei to cart no mu", "top_k": null}"#)).await;
    assert_eq!(answer.status, StatusCode::OK, "{:?}", answer.json);
    conforms(&document, "post", "/text-intent", &answer);
}

#[tokio::test]
async fn other_answers_are_as_described() {
    let shop = Shop::open().await;
    let document = document(&shop).await;
    let reports = ["/", "/health", "/live", "/performance-stats", "/metrics", "/intents", "/model-info", "/v1/models"];
    for path in reports.into_iter().chain(["/openapi.json", "/docs"]) {
        let answer = shop.get(path).await;
        assert_eq!(answer.status, StatusCode::OK, "{path}");
        conforms(&document, "get", path, &answer);
    }
    for body in ["", "null", "{}", r#"{"scopes": ["transcribe"], "origin": "https://shop.example"}"#] {
        let answer = shop.send(post("/v1/tokens", body)).await;
        assert_eq!(answer.status, StatusCode::OK, "{body}: {:?}", answer.json);
        conforms(&document, "post", "/v1/tokens", &answer);
    }
    for path in ["/v1/audio/transcriptions", "/v1/audio/translations"] {
        for format in ["json", "text", "srt", "verbose_json", "vtt"] {
            let answer = shop.send(form().text("response_format", format.as_bytes()).post(path)).await;
            assert_eq!(answer.status, StatusCode::OK, "{format}: {:?}", answer.json);
            conforms(&document, "post", path, &answer);
        }
        let timed = form().text("response_format", b"verbose_json").text("timestamp_granularities[]", b"word");
        let answer = shop.send(timed.post(path)).await;
        assert!(answer.json["words"].is_array() && answer.json.get("segments").is_none(), "{:?}", answer.json);
        conforms(&document, "post", path, &answer);
    }
}

#[tokio::test]
async fn errors_are_as_described() {
    let shop = Shop::with(|config| config.max_body_bytes = 64 * 1024).await;
    let document = document(&shop).await;
    for path in ["/test-intent", "/batch-intent", "/v1/audio/transcriptions", "/v1/audio/translations"] {
        let large = Form::new().file("file", "a.wav", &vec![0; 65 * 1024]).post(path);
        let language = form().text("language", b"xx").post(path);
        let bad = [(post(path, "x"), 400), (Form::new().post(path), 400), (large, 413), (language, 422)];
        for (request, status) in bad {
            let answer = shop.send(request).await;
            assert_eq!(answer.status.as_u16(), status, "{path}: {:?}", answer.json);
            conforms(&document, "post", path, &answer);
        }
    }
    for (request, status) in [
        (ask(b"", ""), 400),
        (ask(b"this is not a sound file, it is a sentence", ""), 415),
        (ask(&tone(0.3), "top_k=0"), 422),
        (ask(&tone(0.3), &format!("language={FAIL}")), 500),
    ] {
        let answer = shop.send(request).await;
        assert_eq!(answer.status.as_u16(), status, "{:?}", answer.json);
        conforms(&document, "post", "/test-intent", &answer);
    }
    for (path, body, status) in [
        ("/text-intent", "{", 400),
        ("/text-intent", r#"{"text": "a", "top_k": 101}"#, 422),
        ("/v1/tokens", "[]", 400),
        ("/v1/tokens", r#"{"expires_in": 0}"#, 422),
    ] {
        let answer = shop.send(post(path, body)).await;
        assert_eq!(answer.status.as_u16(), status, "{path}: {:?}", answer.json);
        conforms(&document, "post", path, &answer);
    }
    for path in ["/models/{path}", "/docs/{file}"] {
        let answer = shop.get(&path.replace(['{', '}'], "")).await;
        assert_eq!(answer.status, StatusCode::NOT_FOUND);
        conforms(&document, "get", path, &answer);
    }
    shop.server.begin_drain();
    for (method, path, request) in [
        ("post", "/test-intent", ask(&tone(0.3), "")),
        ("post", "/text-intent", post("/text-intent", "{}")),
        ("get", "/health", Request::get("/health").body(Body::empty()).unwrap()),
    ] {
        let answer = shop.send(request).await;
        assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE, "{path}");
        conforms(&document, method, path, &answer);
    }
}

#[tokio::test]
async fn the_document_and_its_page_ask_for_no_key_and_the_rest_is_refused_as_described() {
    let shop = Shop::with(|config| {
        config.keys = vec![ApiKey::of("shop", &generate().unwrap(), Scope::ALL.to_vec())];
    })
    .await;
    let document = document(&shop).await;
    assert_eq!(shop.get("/docs").await.status, StatusCode::OK);
    assert_eq!(shop.get("/docs/docs.js").await.status, StatusCode::OK);
    for (path, method, operation) in operations(&document) {
        if operation.get("security").is_some() {
            let method = Method::from_bytes(method.to_uppercase().as_bytes()).unwrap();
            let answer = shop.send(Request::builder().method(&method).uri(path).body(Body::empty()).unwrap()).await;
            assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "{method} {path}");
            conforms(&document, &method.as_str().to_lowercase(), path, &answer);
        }
    }
}

#[tokio::test]
async fn the_page_needs_this_server_only() {
    let shop = Shop::open().await;
    let page = shop.get("/docs").await;
    let policy = page.headers[header::CONTENT_SECURITY_POLICY].to_str().unwrap();
    assert!(policy.starts_with("default-src 'none'") && !policy.contains("http"), "{policy}");
    assert!(!page.text.contains("//"), "an address of somebody else: {}", page.text);
    let of_the_page = |text: &str| {
        let parts = text.split(['"', '\'']).filter(|part| part.starts_with("docs/")).map(|part| format!("/{part}"));
        parts.collect::<Vec<_>>()
    };
    let files = of_the_page(&page.text);
    assert_eq!(files.len(), 3, "{files:?}");
    for file in files {
        let answer = shop.get(&file).await;
        assert_eq!(answer.status, StatusCode::OK, "{file}");
        let kind = answer.headers[header::CONTENT_TYPE].to_str().unwrap();
        assert!(
            kind.starts_with(if file.ends_with(".css") { "text/css" } else { "text/javascript" }),
            "{file}: {kind}"
        );
        let packed = answer.headers.get(header::CONTENT_ENCODING).is_some();
        assert_eq!(packed, !file.ends_with("docs.js"), "{file}");
        assert!(answer.text.len() > 200, "{file}");
    }
    for file in ["/docs/index.html", "/docs/swagger-initializer.js", "/docs/..", "/docs/%2e%2e/Cargo.toml"] {
        shop.get(file).await.is_error(404, "not_found");
    }
}
