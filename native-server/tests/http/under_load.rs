//! The queue, the deadline, a model that fails, and the server's own life: loading, stopping.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::mpsc;
use std::time::Duration;

use axum::http::{StatusCode, header};
use okyeame_core::{Error, Task};
use okyeame_server::config::ServerConfig;
use okyeame_server::engine::Engine;
use okyeame_server::{Server, app};

use crate::support::{Control, FAIL, Form, PANIC, Shop, TestEngine, WAIT, ask, send, tone};

fn waiting() -> axum::http::Request<axum::body::Body> {
    ask(&tone(0.3), &format!("language={WAIT}"))
}

#[tokio::test]
async fn a_full_queue_says_429_and_when_to_come_back() {
    let shop = Shop::with(|config| config.queue_len = 1).await;
    let running = shop.start(waiting());
    shop.until_started(1).await;
    let queued = shop.start(waiting());
    shop.until_queued(1).await;
    let refused = shop.send(ask(&tone(0.3), "")).await;
    refused.is_error(429, "overloaded");
    let retry_after: u64 = refused.headers[header::RETRY_AFTER].to_str().unwrap().parse().unwrap();
    assert!((1..=120).contains(&retry_after), "{retry_after}");
    shop.control.open();
    assert_eq!(running.await.unwrap().status, StatusCode::OK);
    assert_eq!(queued.await.unwrap().status, StatusCode::OK);
    shop.still_answers().await;
}

#[tokio::test]
async fn long_clips_together_are_bounded_too() {
    let shop = Shop::with(|config| {
        config.max_audio_s = 4.0;
        config.queue_audio_s = 4.0;
    })
    .await;
    let running = shop.start(waiting());
    shop.until_started(1).await;
    shop.send(ask(&tone(3.9), "")).await.is_error(429, "overloaded");
    shop.control.open();
    assert_eq!(running.await.unwrap().status, StatusCode::OK);
    assert_eq!(shop.send(ask(&tone(3.9), "")).await.status, StatusCode::OK);
}

#[tokio::test]
async fn a_client_that_goes_frees_its_place_and_is_never_worked_for() {
    let shop = Shop::with(|config| config.queue_len = 1).await;
    let running = shop.start(waiting());
    shop.until_started(1).await;
    let gone = shop.start(waiting());
    shop.until_queued(1).await;
    gone.abort();
    shop.until_queued(0).await;
    let next = shop.start(ask(&tone(0.5), ""));
    shop.until_queued(1).await;
    shop.control.open();
    assert_eq!(running.await.unwrap().status, StatusCode::OK);
    assert_eq!(next.await.unwrap().status, StatusCode::OK);
    assert_eq!(shop.control.started(), 2, "the clip of the client that went was worked on");
}

#[tokio::test]
async fn what_takes_too_long_is_504() {
    let shop = Shop::with(|config| config.request_timeout_s = 0.5).await;
    shop.send(waiting()).await.is_error(504, "timeout");
    // In the queue behind it, too.
    shop.send(ask(&tone(0.3), "")).await.is_error(504, "timeout");
    shop.control.open();
    shop.still_answers().await;
}

#[tokio::test]
async fn a_panic_is_500_for_one_and_the_next_is_answered() {
    // Without the cache, which would answer the next one without the model.
    let shop = Shop::with(|config| config.cache_bytes = 0).await;
    for _ in 0..5 {
        shop.send(ask(&tone(0.3), &format!("language={PANIC}"))).await.is_error(500, "internal_error");
        shop.still_answers().await;
    }
    assert_eq!(shop.control.started(), 10);
}

#[tokio::test]
async fn a_model_that_only_fails_is_unhealthy_until_it_answers() {
    let shop = Shop::open().await;
    for language in [PANIC, FAIL, PANIC] {
        shop.send(ask(&tone(0.3), &format!("language={language}"))).await.is_error(500, "internal_error");
    }
    let health = shop.get("/health").await;
    assert_eq!(health.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(health.json["status"], "unhealthy");
    assert_eq!(health.json["components"]["transcription"], "unavailable");
    shop.still_answers().await;
    assert_eq!(shop.get("/health").await.status, StatusCode::OK);
}

#[tokio::test]
async fn fifty_at_once_are_all_answered() {
    let shop = Shop::open().await;
    let requests: Vec<_> = (0..50)
        .map(|i| {
            let name = format!("{i}.wav");
            let clip = tone(0.2 + f64::from(i) * 0.01);
            shop.start(Form::new().file("file", &name, &clip).post("/test-intent"))
        })
        .collect();
    let mut names = HashSet::new();
    for request in requests {
        let answer = request.await.unwrap();
        assert_eq!(answer.status, StatusCode::OK, "{:?}", answer.json);
        names.insert(answer.json["filename"].as_str().unwrap().to_owned());
    }
    assert_eq!(names.len(), 50);
}

#[tokio::test]
async fn a_batch_waits_for_room_instead_of_filling_the_queue() {
    let shop = Shop::with(|config| config.queue_len = 1).await;
    let form =
        (0..16).fold(Form::new(), |form, i| form.file("files", &format!("{i}"), &tone(0.2 + f64::from(i) * 0.01)));
    let answer = shop.send(form.post("/batch-intent")).await;
    assert_eq!(answer.json["successful"], 16, "{:?}", answer.json);
}

#[tokio::test]
async fn a_batch_tells_a_models_failure_without_its_cause() {
    let shop = Shop::open().await;
    let form = Form::new().file("files", "a.wav", &tone(0.3)).text("language", PANIC.as_bytes());
    let answer = shop.send(form.post("/batch-intent")).await;
    assert_eq!(answer.status, StatusCode::OK);
    let result = &answer.json["results"][0];
    assert_eq!(result["code"], "internal_error");
    assert!(!result["error"].as_str().unwrap().contains("secret"), "{result:?}");
}

#[tokio::test]
async fn while_the_model_loads_there_is_503_and_a_process_that_lives() {
    let (go, wait) = mpsc::channel::<()>();
    let engine = TestEngine::new(Arc::new(Control::default()), Task::Single);
    let server = Server::start(ServerConfig::default(), move || {
        wait.recv_timeout(Duration::from_secs(20)).expect("the test lets it load");
        Ok(Box::new(engine) as Box<dyn Engine>)
    })
    .unwrap();
    let app = app(Arc::clone(&server));
    let get = |path: &str| {
        let request = axum::http::Request::get(path).body(axum::body::Body::empty()).unwrap();
        send(app.clone(), request)
    };
    for path in ["/intents", "/model-info", "/performance-stats"] {
        let answer = get(path).await;
        answer.is_error(503, "loading");
        assert!(answer.headers.contains_key(header::RETRY_AFTER), "{path}");
    }
    for route in ["/test-intent", "/recognize", "/batch-intent", "/batch-recognize"] {
        let request = Form::new().file("file", "a.wav", &tone(0.3)).post(route);
        send(app.clone(), request).await.is_error(503, "loading");
    }
    let health = get("/health").await;
    assert_eq!((health.status.as_u16(), health.json["status"].as_str()), (503, Some("loading")));
    assert_eq!(get("/live").await.status, StatusCode::OK);

    go.send(()).unwrap();
    server.loaded().await.unwrap();
    assert_eq!(get("/health").await.status, StatusCode::OK);
    assert_eq!(send(app.clone(), ask(&tone(0.3), "")).await.status, StatusCode::OK);
}

#[tokio::test]
async fn without_a_model_it_is_unhealthy_and_says_so() {
    let server = Server::start(ServerConfig::default(), || {
        Err(Error::ModelNotFound { what: "the folder '/home/shop/secret'".to_owned() })
    })
    .unwrap();
    assert!(server.loaded().await.is_err());
    let app = app(server);
    send(app.clone(), ask(&tone(0.3), "")).await.is_error(503, "model_unavailable");
    let request = axum::http::Request::get("/health").body(axum::body::Body::empty()).unwrap();
    let health = send(app, request).await;
    assert_eq!((health.status.as_u16(), health.json["status"].as_str()), (503, Some("unhealthy")));
}

#[tokio::test]
async fn a_stopping_server_finishes_what_it_took_on_and_takes_no_more() {
    let shop = Shop::open().await;
    let accepted = shop.start(waiting());
    shop.until_started(1).await;
    shop.server.begin_drain();
    let refused = shop.send(ask(&tone(0.3), "")).await;
    refused.is_error(503, "draining");
    assert!(refused.headers.contains_key(header::RETRY_AFTER));
    assert_eq!(shop.get("/health").await.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(shop.get("/live").await.status, StatusCode::OK);
    shop.control.open();
    assert_eq!(accepted.await.unwrap().status, StatusCode::OK);
}
