//! Each route's good answers, and the cache.

use axum::body::Body;
use axum::http::{Request, StatusCode, header};
use okyeame_core::Recognition;

use crate::support::{Form, Shop, ask, silence, tone};

#[tokio::test]
async fn one_clip_gets_the_whole_recognition() {
    let shop = Shop::open().await;
    let clip = tone(0.5);
    for route in ["/test-intent", "/recognize"] {
        let request = Form::new().file("file", "fa yɛi.wav", &clip).post(&format!("{route}?top_k=2&language=en"));
        let answer = shop.send(request).await;
        assert_eq!(answer.status, StatusCode::OK, "{:?}", answer.json);
        let recognition: Recognition = serde_json::from_value(answer.json.clone()).unwrap();
        assert_eq!(recognition.filename, "fa yɛi.wav");
        assert_eq!((recognition.intent.as_str(), recognition.accepted), ("add_to_cart", true));
        assert_eq!(recognition.top_predictions.len(), 2);
        assert_eq!(recognition.whisper_info.language, "en");
        assert_eq!(recognition.request_id, answer.headers["x-request-id"].to_str().unwrap());
        assert_eq!(answer.json["run"]["where"], "remote");
        assert_eq!(answer.json["run"]["bytes_sent"], clip.len());
        assert!(recognition.processing_time_ms > 0.0);
    }
}

#[tokio::test]
async fn parameters_come_in_the_query_or_the_form_and_the_form_wins() {
    let shop = Shop::open().await;
    let form = || Form::new().file("file", "a.wav", &tone(0.3));
    let answer = shop.send(form().post("/test-intent?transcribe=false")).await;
    assert!(answer.json["transcription"].is_null(), "{:?}", answer.json);
    let answer = shop.send(form().text("transcribe", b"false").post("/test-intent?transcribe=true")).await;
    assert!(answer.json["transcription"].is_null(), "{:?}", answer.json);
    let answer = shop.send(form().text("language", b"en").text("top_k", b"1").post("/test-intent")).await;
    assert_eq!(answer.json["whisper_info"]["language"], "en");
    assert_eq!(answer.json["top_predictions"].as_array().unwrap().len(), 1);
    // A text field before the file, and fields that nobody knows.
    let form = Form::new().text("language", b"en").text("shop", b"7").file("photo", "x.png", b"png");
    let answer = shop.send(form.file("file", "a.wav", &tone(0.3)).post("/test-intent?utm=1")).await;
    assert_eq!(answer.json["whisper_info"]["language"], "en", "{:?}", answer.json);
}

#[tokio::test]
async fn silence_is_an_answer_not_an_error() {
    let answer = Shop::open().await.send(ask(&silence(1.0), "")).await;
    assert_eq!(answer.status, StatusCode::OK);
    assert_eq!(answer.json["accepted"], false);
    assert_eq!(answer.json["rejection"], "no_speech");
}

#[tokio::test]
async fn a_batch_keeps_its_order_and_one_bad_file_fails_alone() {
    let shop = Shop::open().await;
    for route in ["/batch-intent", "/batch-recognize"] {
        let form = Form::new()
            .file("files", "one.wav", &tone(0.3))
            .file("files", "bad.wav", b"this is not a sound file, it is a sentence")
            .file("files", "three.wav", &tone(0.6))
            .file("files", "empty.wav", b"");
        let answer = shop.send(form.post(&format!("{route}?top_k=1"))).await;
        assert_eq!(answer.status, StatusCode::OK, "{:?}", answer.json);
        let results = answer.json["results"].as_array().unwrap();
        let names: Vec<_> = results.iter().map(|result| result["filename"].as_str().unwrap()).collect();
        assert_eq!(names, ["one.wav", "bad.wav", "three.wav", "empty.wav"]);
        assert_eq!(results[0]["transcription"], "0.3 s");
        assert_eq!(results[2]["transcription"], "0.6 s");
        assert!(results[1]["error"].is_string() && results[1].get("intent").is_none(), "{:?}", results[1]);
        assert_eq!(results[3]["code"], "empty_audio");
        let counts = ["total_files", "successful", "failed"].map(|name| answer.json[name].as_u64().unwrap());
        assert_eq!(counts, [4, 2, 2]);
        assert!(answer.json["total_processing_time_ms"].is_number());
    }
}

#[tokio::test]
async fn health_and_live() {
    let shop = Shop::open().await;
    let answer = shop.get("/health").await;
    assert_eq!(answer.status, StatusCode::OK);
    assert_eq!(answer.json["status"], "healthy");
    assert_eq!(answer.json["model_type"], "whisper");
    assert_eq!(answer.json["device"], "cpu");
    assert_eq!(answer.json["components"]["transcription"], "healthy");
    assert_eq!(answer.json["components"]["intent_classification"], "fallback");
    assert!(answer.json["version"].is_string() && answer.json["uptime_s"].is_number());
    assert_eq!(shop.get("/live").await.status, StatusCode::OK);
}

#[tokio::test]
async fn stats_count_clips() {
    let shop = Shop::open().await;
    shop.send(ask(&tone(0.3), "")).await;
    shop.send(ask(&tone(0.3), "")).await;
    shop.send(ask(b"", "")).await;
    let stats = shop.get("/performance-stats").await.json;
    let metrics = &stats["performance_metrics"];
    let counts = ["total_requests", "successful_requests", "failed_requests", "cache_hits"];
    assert_eq!(counts.map(|name| metrics[name].as_u64().unwrap()), [3, 2, 1, 1], "{stats:?}");
    for name in ["avg_processing_time", "p50_ms", "p95_ms", "p99_ms"] {
        assert!(metrics[name].as_f64().unwrap() > 0.0, "{name}: {stats:?}");
    }
    let status = &stats["optimization_status"];
    assert_eq!(status["cuda_available"], false);
    assert_eq!(status["batching_enabled"], false);
    assert_eq!(status["cache_enabled"], true);
    assert_eq!(status["device"], "cpu");
    assert_eq!(status["dtype"], "f32");
    assert_eq!(status["threads"], 2);
    let model = &stats["model_info"];
    assert_eq!(model["model_type"], "single");
    assert_eq!(model["model_source"], "default");
    assert!(!model["model_path"].as_str().unwrap().starts_with('/'));
}

#[tokio::test]
async fn intents_and_model_info() {
    let shop = Shop::open().await;
    let intents = shop.get("/intents").await.json;
    assert_eq!(intents["total_intents"], 2);
    assert_eq!(intents["intents"][1]["id"], 1);
    assert_eq!(intents["intents"][1]["intent"], "add_to_cart");
    assert!(intents["intents"][1]["means"].is_string());
    let info = shop.get("/model-info").await.json;
    assert_eq!(info["task"], "single");
    assert_eq!(info["n_mels"], 80);
}

#[tokio::test]
async fn the_page_is_served() {
    let answer = Shop::open().await.get("/").await;
    assert_eq!(answer.status, StatusCode::OK);
    assert!(answer.headers[header::CONTENT_TYPE].to_str().unwrap().starts_with("text/html"));
}

#[tokio::test]
async fn what_does_not_exist_is_json_too() {
    let shop = Shop::open().await;
    shop.get("/nothing-here").await.is_error(404, "not_found");
    let answer = shop.get("/test-intent").await;
    answer.is_error(405, "method_not_allowed");
    assert_eq!(answer.headers[header::ALLOW], "POST");
    shop.send(Request::delete("/health").body(Body::empty()).unwrap()).await.is_error(405, "method_not_allowed");
}

#[tokio::test]
async fn a_sane_request_id_is_echoed_and_any_other_replaced() {
    let shop = Shop::open().await;
    let with_id = |id: &str| {
        let mut request = ask(&tone(0.3), "");
        request.headers_mut().insert("x-request-id", id.parse().unwrap());
        request
    };
    let answer = shop.send(with_id("order-7.a_b")).await;
    assert_eq!(answer.headers["x-request-id"], "order-7.a_b");
    assert_eq!(answer.json["request_id"], "order-7.a_b");
    for id in ["has space", "<script>", &"a".repeat(65)] {
        let answer = shop.send(with_id(id)).await;
        let given = answer.headers["x-request-id"].to_str().unwrap();
        assert_eq!(given.len(), 36, "a uuid, not {given}");
        assert_eq!(answer.json["request_id"], given);
    }
    assert_ne!(shop.get("/live").await.headers["x-request-id"], shop.get("/live").await.headers["x-request-id"]);
}

#[tokio::test]
async fn the_same_question_is_answered_from_the_cache_and_another_is_not() {
    let shop = Shop::open().await;
    let clip = tone(0.4);
    let first = shop.send(Form::new().file("file", "first.wav", &clip).post("/test-intent?language=tw")).await;
    assert!(first.json.get("cached").is_none(), "{:?}", first.json);
    let again = shop.send(Form::new().file("file", "again.wav", &clip).post("/test-intent?language=tw")).await;
    assert_eq!(again.json["cached"], true);
    assert_eq!(again.json["filename"], "again.wav");
    assert_ne!(again.json["request_id"], first.json["request_id"]);
    assert_eq!(again.json["timings_ms"]["encoder"], 0.0);
    assert_eq!(again.json["transcription"], first.json["transcription"]);
    assert_eq!(shop.control.started(), 1);
    for query in ["language=en", "language=tw&top_k=1", "language=tw&transcribe=false"] {
        let other = shop.send(ask(&clip, query)).await;
        assert!(other.json.get("cached").is_none(), "{query}: {:?}", other.json);
    }
    assert_eq!(shop.control.started(), 4);
}

#[tokio::test]
async fn a_cache_that_is_off_answers_anew() {
    let shop = Shop::with(|config| config.cache_bytes = 0).await;
    for _ in 0..2 {
        assert!(shop.send(ask(&tone(0.3), "")).await.json.get("cached").is_none());
    }
    assert_eq!(shop.control.started(), 2);
    assert_eq!(shop.get("/performance-stats").await.json["optimization_status"]["cache_enabled"], false);
}
