//! `POST /text-intent`: a command that was typed.

use axum::body::Body;
use axum::http::{Method, Request, StatusCode, header};
use serde_json::json;

use crate::support::{PANIC, Shop};

fn post(body: impl Into<Body>) -> Request<Body> {
    let request =
        Request::builder().method(Method::POST).uri("/text-intent").header(header::CONTENT_TYPE, "application/json");
    request.body(body.into()).unwrap()
}

#[tokio::test]
async fn a_typed_command_gets_the_whole_recognition() {
    let shop = Shop::open().await;
    let answer = shop
        .send(post(json!({"text": "Fa yɛi to cart no mu", "top_k": 1, "catalogue": {"products": ["ɛmo"]}}).to_string()))
        .await;
    assert_eq!(answer.status, StatusCode::OK, "{:?}", answer.json);
    assert_eq!(answer.json["transcription"], "Fa yɛi to cart no mu");
    assert_eq!(answer.json["intent"], "add_to_cart");
    assert_eq!(answer.json["top_predictions"].as_array().unwrap().len(), 1);
    assert_eq!(answer.json["run"]["where"], "remote");
    assert_eq!(answer.json["run"]["bytes_sent"], "Fa yɛi to cart no mu".len());
    assert_eq!(answer.json["request_id"], answer.headers["x-request-id"].to_str().unwrap());
}

#[tokio::test]
async fn bad_bodies_are_refused_by_name_and_the_next_is_answered() {
    let shop = Shop::open().await;
    let cases = [
        (String::new(), 400, "malformed_body"),
        ("{".to_owned(), 400, "malformed_body"),
        ("[]".to_owned(), 400, "malformed_body"),
        (json!({"txt": "x"}).to_string(), 400, "malformed_body"),
        (json!({"text": 7}).to_string(), 400, "malformed_body"),
        (json!({"text": "x", "top_k": -1}).to_string(), 400, "malformed_body"),
        (json!({"text": "x", "top_k": 0}).to_string(), 422, "invalid_parameter"),
        (json!({"text": "x", "language": "klingon"}).to_string(), 422, "unsupported_language"),
        (json!({"text": "x", "catalogue": {"products": 7}}).to_string(), 422, "invalid_catalogue"),
        (json!({"text": "x", "catalogue": "a".repeat(2 << 20)}).to_string(), 413, "catalogue_too_large"),
        ("[".repeat(100_000), 400, "malformed_body"),
        (json!({"text": "x", "language": PANIC}).to_string(), 500, "internal_error"),
    ];
    for (body, status, code) in cases {
        shop.send(post(body)).await.is_error(status, code);
    }
    let request = Request::get("/text-intent").body(Body::empty()).unwrap();
    shop.send(request).await.is_error(405, "method_not_allowed");
    shop.still_answers().await;
}

#[tokio::test]
async fn a_body_beyond_the_limit_is_refused() {
    let shop = Shop::with(|config| config.max_body_bytes = 1000).await;
    shop.send(post(json!({"text": "a".repeat(2000)}).to_string())).await.is_error(413, "body_too_large");
}
