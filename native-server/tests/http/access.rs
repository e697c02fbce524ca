//! Keys, tokens, scopes, origins and rates.

use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderValue, Method, Request, StatusCode};
use okyeame_server::access::Scope;
use okyeame_server::access::keys::{ApiKey, generate};
use okyeame_server::access::tokens::TokenSecret;
use serde_json::{Value, json};

use crate::support::{Answer, Form, Shop, tone};

const ORIGIN: &str = "https://shop.example";

/// A shop with a key that opens `scopes`.
async fn guarded(scopes: &[Scope], per_minute: u32) -> (Shop, String) {
    let secret = generate().unwrap();
    let key = ApiKey::of("shop", &secret, scopes.to_vec());
    let shop = Shop::with(|config| {
        config.keys = vec![ApiKey::of("other", &generate().unwrap(), Scope::ALL.to_vec()), key];
        config.requests_per_minute = per_minute;
    })
    .await;
    (shop, secret)
}

fn clip() -> Request<Body> {
    Form::new().file("file", "clip.wav", &tone(0.3)).post("/test-intent?top_k=1")
}

fn with(mut request: Request<Body>, headers: &[(&'static str, &str)]) -> Request<Body> {
    for (name, value) in headers {
        request.headers_mut().insert(*name, HeaderValue::from_str(value).unwrap());
    }
    request
}

fn signed(request: Request<Body>, shown: &str) -> Request<Body> {
    with(request, &[("authorization", &format!("Bearer {shown}"))])
}

async fn mint(shop: &Shop, key: &str, wanted: Value) -> Answer {
    let body = Body::from(wanted.to_string());
    shop.send(signed(Request::post("/v1/tokens").body(body).unwrap(), key)).await
}

async fn token(shop: &Shop, key: &str, wanted: Value) -> String {
    let answer = mint(shop, key, wanted).await;
    assert_eq!(answer.status, StatusCode::OK, "{:?}", answer.json);
    assert_eq!(answer.headers["cache-control"], "no-store");
    answer.json["token"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn without_a_key_nothing_but_pages_and_probes_is_answered() {
    let (shop, key) = guarded(&Scope::ALL, 0).await;
    for (method, path) in [
        (Method::POST, "/test-intent"),
        (Method::POST, "/recognize"),
        (Method::POST, "/batch-intent"),
        (Method::POST, "/batch-recognize"),
        (Method::POST, "/text-intent"),
        (Method::POST, "/v1/audio/transcriptions"),
        (Method::POST, "/v1/audio/translations"),
        (Method::POST, "/v1/tokens"),
        (Method::GET, "/v1/models"),
        (Method::GET, "/metrics"),
        (Method::GET, "/performance-stats"),
        (Method::GET, "/intents"),
        (Method::GET, "/model-info"),
        (Method::GET, "/admin/models"),
        (Method::POST, "/admin/models"),
    ] {
        let request = || Request::builder().method(method.clone()).uri(path).body(Body::empty()).unwrap();
        shop.send(request()).await.is_error(401, "missing_key");
        for wrong in ["oky_wrong", "a.b.c", &key[..key.len() - 1], &format!("{key} {key}"), "\u{00e9}"] {
            shop.send(signed(request(), wrong)).await;
        }
        shop.send(signed(request(), &key[1..])).await.is_error(401, "invalid_key");
        let answer = shop.send(signed(request(), &key)).await;
        assert!(answer.status != 401 && answer.status != 403, "{path}: {:?}", answer.json);
    }
    for path in ["/", "/health", "/live"] {
        assert_eq!(shop.get(path).await.status, StatusCode::OK, "{path}");
    }
    shop.get("/models/none/model.json").await.is_error(404, "not_found");
    assert_eq!(shop.send(signed(clip(), &key)).await.status, StatusCode::OK);
    assert_eq!(shop.send(with(clip(), &[("x-api-key", &key)])).await.status, StatusCode::OK);
    assert_eq!(shop.control.started(), 1, "the second is cached, and nothing else reached the model");
}

#[tokio::test]
async fn a_refused_request_says_how_to_come_in() {
    let (shop, _) = guarded(&Scope::ALL, 0).await;
    let answer = shop.send(clip()).await;
    answer.is_error(401, "missing_key");
    assert_eq!(answer.headers["www-authenticate"], "Bearer");
    // In the words that OpenAI's clients read, too, and without the key in them.
    let request = signed(Request::post("/v1/audio/transcriptions").body(Body::empty()).unwrap(), "oky_wrong");
    let answer = shop.send(request).await;
    assert_eq!(answer.status, StatusCode::UNAUTHORIZED);
    assert!(!answer.text.contains("oky_wrong"), "{}", answer.text);
}

#[tokio::test]
async fn a_key_opens_what_its_scopes_say() {
    let (shop, key) = guarded(&[Scope::Intent], 0).await;
    assert_eq!(shop.send(signed(clip(), &key)).await.status, StatusCode::OK);
    for path in ["/metrics", "/performance-stats"] {
        let request = Request::get(path).body(Body::empty()).unwrap();
        shop.send(signed(request, &key)).await.is_error(403, "forbidden");
    }
    let words = Request::post("/v1/audio/transcriptions").body(Body::empty()).unwrap();
    shop.send(signed(words, &key)).await.is_error(403, "forbidden");
    mint(&shop, &key, json!({"scopes": ["transcribe"]})).await.is_error(403, "forbidden");
}

#[tokio::test]
async fn a_token_opens_what_it_says_for_the_page_that_it_names() {
    let (shop, key) = guarded(&Scope::ALL, 0).await;
    let token = token(&shop, &key, json!({"origin": ORIGIN, "expires_in": 60})).await;
    let from = |origin: &str| with(signed(clip(), &token), &[("origin", origin)]);
    assert_eq!(shop.send(from(ORIGIN)).await.status, StatusCode::OK);
    for other in ["https://shop.example.evil.example", "http://shop.example", "null", ""] {
        shop.send(from(other)).await.is_error(403, "wrong_origin");
    }
    shop.send(signed(clip(), &token)).await.is_error(403, "wrong_origin");
    let operate = with(signed(Request::get("/metrics").body(Body::empty()).unwrap(), &token), &[("origin", ORIGIN)]);
    shop.send(operate).await.is_error(403, "forbidden");
    // A token mints no others: it would never end.
    let again = Request::post("/v1/tokens").body(Body::empty()).unwrap();
    shop.send(with(signed(again, &token), &[("origin", ORIGIN)])).await.is_error(403, "forbidden");
}

#[tokio::test]
async fn a_token_ends() {
    let (shop, key) = guarded(&Scope::ALL, 0).await;
    let token = token(&shop, &key, json!({"expires_in": 1})).await;
    assert_eq!(shop.send(signed(clip(), &token)).await.status, StatusCode::OK);
    tokio::time::sleep(Duration::from_millis(2100)).await;
    shop.send(signed(clip(), &token)).await.is_error(401, "token_expired");
}

#[tokio::test]
async fn a_token_goes_with_its_key_and_travels_between_replicas() {
    let secret = TokenSecret::new(&[7; 32]);
    let key = generate().unwrap();
    let replica = |keys: Vec<ApiKey>| {
        let secret = secret.clone();
        Shop::with(move |config| {
            config.keys = keys;
            config.token_secret = secret;
        })
    };
    let named = |name: &str, secret: &str, scopes: &[Scope]| ApiKey::of(name, secret, scopes.to_vec());
    let a = replica(vec![named("shop", &key, &Scope::ALL)]).await;
    let token = token(&a, &key, json!({"scopes": ["intent", "transcribe"]})).await;

    let b = replica(vec![named("shop", &key, &[Scope::Intent])]).await;
    assert_eq!(b.send(signed(clip(), &token)).await.status, StatusCode::OK);
    let words = Request::post("/v1/audio/transcriptions").body(Body::empty()).unwrap();
    b.send(signed(words, &token)).await.is_error(403, "forbidden");
    let without = replica(vec![named("other", &generate().unwrap(), &Scope::ALL)]).await;
    without.send(signed(clip(), &token)).await.is_error(401, "invalid_key");
}

#[tokio::test]
async fn what_cannot_be_minted_is_refused() {
    let (shop, key) = guarded(&Scope::ALL, 0).await;
    for wanted in [
        json!({"scopes": []}),
        json!({"scopes": ["operate"]}),
        json!({"scopes": ["admin"]}),
        json!({"expires_in": 0}),
        json!({"expires_in": 86_401}),
        json!({"origin": "*"}),
        json!({"origin": "https://shop.example/path"}),
        json!({"origin": "https://"}),
        json!({"origin": "shop.example"}),
        json!({"origin": format!("https://{}", "a".repeat(1000))}),
    ] {
        mint(&shop, &key, wanted).await.is_error(422, "invalid_parameter");
    }
    for wanted in
        [json!({"scopes": ["all"]}), json!({"expires_in": -1}), json!({"expire": 1}), json!("intent"), json!(7)]
    {
        mint(&shop, &key, wanted).await.is_error(400, "malformed_body");
    }
    assert_eq!(mint(&shop, &key, json!({})).await.json["scopes"], json!(["intent"]));
}

#[tokio::test]
async fn each_caller_has_a_rate_of_its_own() {
    let (shop, key) = guarded(&Scope::ALL, 3).await;
    let (a, b) = (token(&shop, &key, json!({})).await, token(&shop, &key, json!({})).await);
    for _ in 0..3 {
        assert_eq!(shop.send(signed(clip(), &a)).await.status, StatusCode::OK);
    }
    let answer = shop.send(signed(clip(), &a)).await;
    answer.is_error(429, "rate_limited");
    let wait: u64 = answer.headers["retry-after"].to_str().unwrap().parse().unwrap();
    assert!((1..=21).contains(&wait), "{wait}");
    assert_eq!(shop.send(signed(clip(), &b)).await.status, StatusCode::OK);
    assert_eq!(shop.send(signed(clip(), &key)).await.status, StatusCode::OK);
    // Two tokens and a clip: the key's own three.
    shop.send(signed(clip(), &key)).await.is_error(429, "rate_limited");
}

#[tokio::test]
async fn where_no_key_is_asked_for_what_is_shown_does_not_matter() {
    let shop = Shop::open().await;
    assert_eq!(shop.send(signed(clip(), "sk-anything")).await.status, StatusCode::OK);
    let token = token(&shop, "nothing", json!({"origin": ORIGIN})).await;
    assert_eq!(shop.send(signed(clip(), &token)).await.status, StatusCode::OK);
}

#[tokio::test]
async fn a_page_of_an_allowed_origin_may_send_a_token_and_sees_why_it_is_refused() {
    let shop = Shop::with(|config| {
        config.keys = vec![ApiKey::of("shop", &generate().unwrap(), Scope::ALL.to_vec())];
        config.allowed_origins = vec![HeaderValue::from_static(ORIGIN)];
    })
    .await;
    let asks_first = Request::options("/test-intent").body(Body::empty()).unwrap();
    let headers = [
        ("origin", ORIGIN),
        ("access-control-request-method", "POST"),
        ("access-control-request-headers", "authorization"),
    ];
    let answer = shop.send(with(asks_first, &headers)).await;
    assert_eq!(answer.status, StatusCode::OK);
    assert_eq!(answer.headers["access-control-allow-headers"], "authorization");
    let refused = shop.send(with(clip(), &[("origin", ORIGIN)])).await;
    refused.is_error(401, "missing_key");
    assert_eq!(refused.headers["access-control-allow-origin"], ORIGIN);
}
