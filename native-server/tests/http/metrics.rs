//! `GET /metrics`: what happened is counted, and nothing that a client chose becomes a label.

use axum::body::Body;
use axum::http::{Request, StatusCode};
use okyeame_core::device::DeviceMemory;

use crate::support::{Form, Shop, WAIT, ask, silence, tone};

/// The value of a line that begins with `name`, labels included; `None` if there is no such line.
fn value(text: &str, name: &str) -> Option<f64> {
    let line = text.lines().find(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(' ')))?;
    line.rsplit(' ').next()?.parse().ok()
}

#[tokio::test]
async fn what_happened_is_counted() {
    let shop = Shop::open().await;
    for _ in 0..2 {
        assert_eq!(shop.send(ask(&tone(0.3), "")).await.status, StatusCode::OK); // the second from the cache
    }
    shop.send(ask(b"not audio", "")).await;
    shop.send(Form::new().post("/test-intent")).await.is_error(400, "missing_file");

    let answer = shop.get("/metrics").await;
    assert_eq!(answer.status, StatusCode::OK);
    assert!(
        answer.headers["content-type"].to_str().unwrap().starts_with("application/openmetrics-text; version=1.0.0")
    );
    let of = |name: &str| value(&answer.text, name);
    assert_eq!(of(r#"okyeame_requests_total{route="/test-intent",status="200"}"#), Some(2.0), "{}", answer.text);
    assert_eq!(of(r#"okyeame_errors_total{code="missing_file"}"#), Some(1.0));
    assert_eq!(of(r#"okyeame_errors_total{code="unsupported_audio"}"#), Some(1.0), "{}", answer.text);
    assert_eq!(of(r#"okyeame_cache_lookups_total{result="local_hit"}"#), Some(1.0));
    assert_eq!(of(r#"okyeame_cache_lookups_total{result="miss"}"#), Some(2.0), "damaged sound was looked up too");
    assert_eq!(of(r#"okyeame_request_duration_seconds_count{route="/test-intent"}"#), Some(4.0));
    // A clip from the cache took no stage's time.
    assert_eq!(of(r#"okyeame_stage_duration_seconds_count{stage="encoder"}"#), Some(1.0));
    assert_eq!(of(r#"okyeame_stage_duration_seconds_sum{stage="encoder"}"#), Some(0.003));
    assert_eq!(of("okyeame_ready"), Some(1.0));
    assert!(answer.text.ends_with("# EOF\n"), "{}", answer.text);
}

#[tokio::test]
async fn a_bad_file_of_a_good_batch_is_counted_as_an_error() {
    let shop = Shop::open().await;
    let form = Form::new().file("files", "a.wav", &tone(0.3)).file("files", "b.wav", b"not audio");
    assert_eq!(shop.send(form.post("/batch-intent")).await.json["failed"], 1);
    let text = shop.get("/metrics").await.text;
    assert_eq!(value(&text, r#"okyeame_errors_total{code="unsupported_audio"}"#), Some(1.0), "{text}");
    assert_eq!(value(&text, r#"okyeame_requests_total{route="/batch-intent",status="200"}"#), Some(1.0), "{text}");
}

#[tokio::test]
async fn the_queue_and_a_stopping_server_are_seen() {
    let shop = Shop::with(|config| config.queue_len = 3).await;
    let running = shop.start(ask(&tone(0.3), &format!("language={WAIT}")));
    shop.until_started(1).await;
    let waiting = shop.start(ask(&tone(0.4), ""));
    shop.until_queued(1).await;
    let text = shop.get("/metrics").await.text;
    assert_eq!((value(&text, "okyeame_queue_length"), value(&text, "okyeame_queue_capacity")), (Some(1.0), Some(3.0)));
    shop.server.begin_drain();
    assert_eq!(value(&shop.get("/metrics").await.text, "okyeame_ready"), Some(0.0));
    shop.control.open();
    assert_eq!((running.await.unwrap().status, waiting.await.unwrap().status), (StatusCode::OK, StatusCode::OK));
}

#[tokio::test]
async fn nothing_that_a_client_chose_is_shown() {
    let shop = Shop::open().await;
    for n in 0..50 {
        shop.get(&format!("/secret-{n}?token=secret")).await.is_error(404, "not_found");
    }
    let odd = Request::builder().method("SECRET").uri("/test-intent").body(Body::empty()).unwrap();
    shop.send(odd).await.is_error(405, "method_not_allowed");
    let form = Form::new().file("file", "secret.wav", &tone(0.3)).text("secret", b"secret");
    assert_eq!(shop.send(form.post("/test-intent")).await.status, StatusCode::OK);
    let text = shop.get("/metrics").await.text;
    assert!(!text.contains("secret") && !text.contains("SECRET"), "{text}");
    assert_eq!(value(&text, r#"okyeame_requests_total{route="other",status="404"}"#), Some(50.0), "{text}");
}

#[tokio::test]
async fn what_was_understood_and_what_was_not_is_counted() {
    let shop = Shop::open().await;
    for clip in [tone(0.3), tone(0.3), silence(0.4)] {
        assert_eq!(shop.send(ask(&clip, "")).await.status, StatusCode::OK);
    }
    let typed = Request::post("/text-intent").body(Body::from(r#"{"text": "go to the cart"}"#)).unwrap();
    assert_eq!(shop.send(typed).await.status, StatusCode::OK);
    let form = Form::new().file("files", "a.wav", &silence(0.5)).file("files", "b.wav", b"not audio");
    assert_eq!(shop.send(form.post("/batch-intent")).await.json["failed"], 1);
    let text = shop.get("/metrics").await.text;
    assert_eq!(value(&text, "okyeame_accepted_total"), Some(3.0), "{text}");
    assert_eq!(value(&text, r#"okyeame_rejections_total{cause="no_speech"}"#), Some(2.0), "{text}");
    assert!(!text.contains(r#"cause="out_of_scope""#), "{text}");
}

#[tokio::test]
async fn the_program_and_its_memory_are_seen() {
    let shop = Shop::open().await;
    let text = shop.get("/metrics").await.text;
    assert!(value(&text, "okyeame_process_resident_memory_bytes").unwrap() > 1e6, "{text}");
    let build = text.lines().find(|line| line.starts_with("okyeame_build_info{")).unwrap();
    assert!(build.contains(&format!(r#"version="{}""#, env!("CARGO_PKG_VERSION"))), "{build}");
    assert!(build.contains(r#"devices="cpu"#) && build.ends_with("} 1"), "{build}");

    // A device that does not tell, such as the CPU, has no lines; one that tells has two.
    assert!(!text.contains("okyeame_device_memory_bytes{"), "{text}");
    *shop.control.device_memory.lock().unwrap() =
        Some(DeviceMemory { in_use_bytes: 300_000_000, reserved_bytes: 512_000_000 });
    let text = shop.get("/metrics").await.text;
    assert_eq!(value(&text, r#"okyeame_device_memory_bytes{kind="in_use"}"#), Some(3e8), "{text}");
    assert_eq!(value(&text, r#"okyeame_device_memory_bytes{kind="reserved"}"#), Some(5.12e8), "{text}");
    *shop.control.device_memory.lock().unwrap() = None;
    assert!(!shop.get("/metrics").await.text.contains("okyeame_device_memory_bytes{"));
}
