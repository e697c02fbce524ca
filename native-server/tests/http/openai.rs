//! OpenAI's audio API: fields, formats and errors. Its official clients meet the real server in tests/browser/openai.test.js.

use std::time::Duration;

use axum::body::Body;
use axum::http::{Request, StatusCode, header};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tower::ServiceExt;

use crate::support::{FAIL, Form, PANIC, PANIC_LATER, Shop, WAIT, WAIT_LATER, tone};

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
    let cases: [(Form, u16, &str); 18] = [
        (Form::new().text("model", b"whisper-1"), 400, "missing_file"),
        (Form::new().file("file", "a.wav", b"").text("model", b"whisper-1"), 400, "empty_audio"),
        (Form::new().file("file", "a.wav", b"this is not a sound file"), 415, "unsupported_audio"),
        (Form::new().file("file", "a.wav", &tone(0.5)).text("model", b"gpt-9"), 404, "unknown_model"),
        (form().text("response_format", b"xml"), 422, "invalid_parameter"),
        (form().text("temperature", b"hot"), 422, "invalid_parameter"),
        (form().text("temperature", b"NaN"), 422, "invalid_parameter"),
        (form().text("temperature", b"1.5"), 422, "invalid_parameter"),
        (form().text("timestamp_granularities[]", b"word"), 422, "invalid_parameter"),
        (form().text("stream", b"true").text("response_format", b"srt"), 422, "invalid_parameter"),
        (form().text("stream", b"true").text("response_format", b"vtt"), 422, "invalid_parameter"),
        (form().text("stream", b"True").text("response_format", b"verbose_json"), 422, "invalid_parameter"),
        (form().text("stream", b"true").text("language", PANIC.as_bytes()), 500, "internal_error"),
        (form().text("stream", b"true").text("language", FAIL.as_bytes()), 500, "internal_error"),
        (form().text("stream", b"true").text("language", b"klingon"), 422, "unsupported_language"),
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

/// Several windows.
fn long() -> Form {
    Form::new().file("file", "a.wav", &tone(4.5)).text("model", b"whisper-1")
}

/// The events of a stream, each one JSON.
fn events(text: &str) -> Vec<Value> {
    assert!(text.is_empty() || text.ends_with("\n\n"), "{text:?}");
    let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with(':'));
    lines.map(|line| serde_json::from_str(line.strip_prefix("data: ").unwrap()).unwrap()).collect()
}

/// What an event that is not the last one adds.
#[track_caller]
fn delta(event: &Value) -> &str {
    assert_eq!(event["type"], "transcript.text.delta", "{event}");
    event["delta"].as_str().unwrap()
}

#[tokio::test]
async fn a_stream_says_in_pieces_what_is_said_in_one() {
    let shop = Shop::open().await;
    for (format, form) in [("json", long()), ("text", long()), ("json", form())] {
        let form = form.text("response_format", format.as_bytes());
        let (_, _, whole) = text(&shop, form.clone().text("stream", b"false")).await;
        let whole = match serde_json::from_str::<Value>(&whole) {
            Ok(json) => json["text"].as_str().unwrap().to_owned(),
            Err(_) => whole.trim_end_matches('\n').to_owned(),
        };
        let (status, kind, body) = text(&shop, form.text("stream", b"true")).await;
        assert_eq!((status, kind.as_str()), (StatusCode::OK, "text/event-stream"));
        let events = events(&body);
        let (done, deltas) = events.split_last().unwrap();
        assert_eq!(done, &json!({"type": "transcript.text.done", "text": whole}));
        assert_eq!(deltas.iter().map(delta).collect::<String>(), whole);
        assert!(deltas.iter().all(|event| !delta(event).is_empty()));
    }
    // Of four windows with words, perhaps the last ones together: they were there before anybody looked.
    let (_, _, body) = text(&shop, long().text("stream", b"true")).await;
    assert!(body.contains("Kɔ cart na 1.  na 3.  na 4."), "{body}");
    let counted = shop.get("/performance-stats").await.json;
    assert_eq!(counted["performance_metrics"]["successful_requests"], 7, "{counted}");
}

#[tokio::test]
async fn the_first_words_come_before_the_last_are_found() {
    let shop = Shop::open().await;
    let request = long().text("stream", b"true").text("language", WAIT_LATER.as_bytes()).post(ROUTE);
    let mut body = shop.app.clone().oneshot(request).await.unwrap().into_body();
    let frame = tokio::time::timeout(Duration::from_secs(10), body.frame()).await.unwrap().unwrap().unwrap();
    let first = events(std::str::from_utf8(frame.data_ref().unwrap()).unwrap());
    assert_eq!(first.iter().map(delta).collect::<Vec<_>>(), ["Kɔ cart"]);
    assert_eq!(shop.control.windows(), 1, "the second window is still to be decoded");
    shop.control.open();
    let rest = body.collect().await.unwrap().to_bytes();
    let rest = events(std::str::from_utf8(&rest).unwrap());
    assert_eq!(rest.last().unwrap()["text"], "Kɔ cart na 1.  na 3.  na 4.");
}

#[tokio::test]
async fn a_client_that_goes_ends_the_work_between_windows() {
    let shop = Shop::open().await;
    let request = long().text("stream", b"true").text("language", WAIT_LATER.as_bytes()).post(ROUTE);
    let mut body = shop.app.clone().oneshot(request).await.unwrap().into_body();
    assert!(tokio::time::timeout(Duration::from_secs(10), body.frame()).await.unwrap().is_some());
    drop(body);
    shop.control.open();
    // In the same lane, so behind it.
    shop.still_answers().await;
    // Of the five: the first, and the second if that was begun before it was seen that nobody listens.
    assert!(shop.control.windows() <= 2, "the window that was being decoded, and no more");
}

#[tokio::test]
async fn what_goes_wrong_later_is_an_event() {
    let shop = Shop::with(|config| config.request_timeout_s = 2.0).await;
    for (language, code) in [(PANIC_LATER, "internal_error"), (WAIT_LATER, "timeout")] {
        let form = long().text("stream", b"true").text("language", language.as_bytes());
        let (status, _, body) = text(&shop, form).await;
        assert_eq!(status, StatusCode::OK);
        assert!(!body.contains("secret"), "{body}");
        let events = events(&body);
        let (error, deltas) = events.split_last().unwrap();
        assert_eq!(deltas.iter().map(delta).collect::<Vec<_>>(), ["Kɔ cart"]);
        assert_eq!((&error["type"], &error["error"]["code"]), (&json!("error"), &json!(code)), "{error}");
        assert!(error["error"]["message"].as_str().unwrap().len() > 10);
        assert!(!error["request_id"].as_str().unwrap().is_empty(), "{error}");
    }
    let counted = shop.get("/performance-stats").await.json;
    assert_eq!(counted["performance_metrics"]["failed_requests"], 2, "{counted}");
    let metrics = shop.get("/metrics").await.text;
    assert!(metrics.contains("okyeame_errors_total{code=\"timeout\"} 1\n"), "{metrics}");
    shop.control.open();
}

#[tokio::test]
async fn a_stream_waits_its_turn_and_is_refused_as_everything_is() {
    let shop = Shop::with(|config| config.queue_len = 1).await;
    let stream = || form().text("stream", b"true");
    let running = shop.start(stream().text("language", WAIT.as_bytes()).post(ROUTE));
    shop.until_started(1).await;
    let queued = shop.start(stream().post(ROUTE));
    shop.until_queued(1).await;
    let refused = shop.send(stream().post(ROUTE)).await;
    assert_eq!((refused.status.as_u16(), &refused.json["error"]["code"]), (429, &json!("overloaded")));
    assert!(refused.headers.contains_key(header::RETRY_AFTER));
    // Who goes while it waits is never worked for.
    queued.abort();
    shop.until_queued(0).await;
    shop.control.open();
    assert!(running.await.unwrap().text.contains("transcript.text.done"));
    assert_eq!(shop.control.windows(), 1);

    let translation = stream().post("/v1/audio/translations");
    let refused = shop.send(translation).await;
    assert_eq!((refused.status.as_u16(), &refused.json["code"]), (422, &json!("invalid_parameter")));
}
