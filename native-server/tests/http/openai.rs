//! OpenAI's audio API: fields, formats and errors. Its official clients meet the real server in tests/browser/openai.test.js.

use axum::body::Body;
use axum::http::{Request, StatusCode, header};
use http_body_util::BodyExt;
use tower::ServiceExt;

use crate::support::{Form, PANIC, Shop, tone};

const ROUTE: &str = "/v1/audio/transcriptions";

fn form() -> Form {
    Form::new().file("file", "a.wav", &tone(0.5)).text("model", b"whisper-1")
}

/// The body as text, and its type.
async fn text(shop: &Shop, form: Form) -> (StatusCode, String, String) {
    let response = shop.app.clone().oneshot(form.post(ROUTE)).await.unwrap();
    let (parts, body) = response.into_parts();
    let kind = parts.headers[header::CONTENT_TYPE].to_str().unwrap().to_owned();
    let bytes = body.collect().await.unwrap().to_bytes();
    (parts.status, kind, String::from_utf8(bytes.to_vec()).unwrap())
}

#[tokio::test]
async fn every_format_is_written_as_the_api_has_it() {
    let shop = Shop::open().await;
    let answer = shop.send(form().post(ROUTE)).await;
    assert_eq!(answer.json, serde_json::json!({"text": "Kɔ cart"}));
    let cases = [
        ("text", "text/plain; charset=utf-8", "Kɔ cart\n"),
        ("srt", "application/x-subrip; charset=utf-8", "1\n00:00:00,000 --> 00:00:00,500\nKɔ cart\n\n"),
        ("vtt", "text/vtt; charset=utf-8", "WEBVTT\n\n00:00.000 --> 00:00.500\nKɔ cart\n\n"),
    ];
    for (format, kind, body) in cases {
        let got = text(&shop, form().text("response_format", format.as_bytes())).await;
        assert_eq!(got, (StatusCode::OK, kind.to_owned(), body.to_owned()), "{format}");
    }
    let verbose = form().text("response_format", b"verbose_json").text("language", b"tw");
    let json = shop.send(verbose.clone().post(ROUTE)).await.json;
    assert_eq!(
        (json["task"].as_str(), json["language"].as_str(), json["duration"].as_f64()),
        (Some("transcribe"), Some("tw"), Some(0.5))
    );
    assert_eq!(json["segments"][0]["end"], 0.5);
    assert!(json.get("words").is_none());
    let json = shop.send(verbose.clone().text("timestamp_granularities[]", b"word").post(ROUTE)).await.json;
    assert_eq!(json["words"][1], serde_json::json!({"word": "cart", "start": 0.2, "end": 0.5}));
    assert!(json.get("segments").is_none());
    let both = verbose.text("timestamp_granularities[]", b"word").text("timestamp_granularities[]", b"segment");
    let json = shop.send(both.post("/v1/audio/translations")).await.json;
    assert_eq!(
        (json["task"].as_str(), json["words"].as_array().map(Vec::len), json["segments"].as_array().map(Vec::len)),
        (Some("translate"), Some(2), Some(1))
    );
}

#[tokio::test]
async fn the_prompt_reaches_the_model() {
    let answer = Shop::open().await.send(form().text("prompt", b" Kumasi").post(ROUTE)).await;
    assert_eq!(answer.json["text"], "Kɔ cartKumasi");
}

#[tokio::test]
async fn the_models_are_listed() {
    let json = Shop::open().await.get("/v1/models").await.json;
    let ids: Vec<_> = json["data"].as_array().unwrap().iter().map(|model| model["id"].as_str().unwrap()).collect();
    assert_eq!((json["object"].as_str(), ids), (Some("list"), vec!["test", "whisper-1", "default"]));
}

#[tokio::test]
async fn what_is_wrong_is_said_as_both_apis_say_it() {
    let shop = Shop::open().await;
    let cases: [(Form, u16, &str); 13] = [
        (Form::new().text("model", b"whisper-1"), 400, "missing_file"),
        (Form::new().file("file", "a.wav", b"").text("model", b"whisper-1"), 400, "empty_audio"),
        (Form::new().file("file", "a.wav", b"this is not a sound file"), 415, "unsupported_audio"),
        (Form::new().file("file", "a.wav", &tone(0.5)).text("model", b"gpt-9"), 404, "unknown_model"),
        (form().text("response_format", b"xml"), 422, "invalid_parameter"),
        (form().text("temperature", b"hot"), 422, "invalid_parameter"),
        (form().text("temperature", b"NaN"), 422, "invalid_parameter"),
        (form().text("temperature", b"1.5"), 422, "invalid_parameter"),
        (form().text("timestamp_granularities[]", b"word"), 422, "invalid_parameter"),
        (form().text("stream", b"true"), 422, "invalid_parameter"),
        (form().text("language", b"klingon"), 422, "unsupported_language"),
        (form().text("prompt", &[b'a'; 5000]), 422, "invalid_parameter"),
        (form().text("language", PANIC.as_bytes()), 500, "internal_error"),
    ];
    for (form, status, code) in cases {
        let answer = shop.send(form.post(ROUTE)).await;
        assert_eq!((answer.status.as_u16(), answer.json["code"].as_str()), (status, Some(code)), "{:?}", answer.json);
        assert_eq!(answer.json["error"]["code"], code);
        assert_eq!(answer.json["error"]["message"], answer.json["detail"]);
        assert!(answer.json["error"]["type"].is_string());
    }
    let many = (0..100).fold(form(), |form, _| form.text("prompt", b"x"));
    assert_eq!(shop.send(many.post(ROUTE)).await.status, StatusCode::UNPROCESSABLE_ENTITY);
    let json = Request::post(ROUTE).header(header::CONTENT_TYPE, "application/json").body(Body::from("{}")).unwrap();
    assert_eq!(shop.send(json).await.status, StatusCode::BAD_REQUEST);
    shop.get(ROUTE).await.is_error(405, "method_not_allowed");
    shop.still_answers().await;
}

#[tokio::test]
async fn a_transcript_waits_in_the_queue_as_everything_does() {
    let shop = Shop::with(|config| config.max_audio_s = 1.0).await;
    let long = Form::new().file("file", "a.wav", &tone(3.0)).text("model", b"default");
    assert_eq!(shop.send(long.post(ROUTE)).await.status, StatusCode::PAYLOAD_TOO_LARGE);
}
