//! Commands that wait share a pass through the model; a transcript never stands in their way.

use axum::body::Body;
use axum::http::{Request, StatusCode};
use okyeame_core::Task;
use okyeame_server::config::ServerConfig;

use crate::support::{FAIL, PANIC, Shop, WAIT, ask, silence, tone};

/// A shop whose model hears intents.
async fn shop(change: impl FnOnce(&mut ServerConfig)) -> Shop {
    Shop::with_model(Task::Multi, change).await
}

fn command(clip: &[u8], language: &str) -> Request<Body> {
    ask(clip, &format!("transcribe=false&language={language}"))
}

/// A clip that no other test has, so that no answer comes out of the cache.
fn clip(i: u32) -> Vec<u8> {
    tone(0.3 + 0.01 * f64::from(i))
}

#[tokio::test]
async fn commands_that_wait_share_a_pass() {
    let shop = shop(|config| config.max_batch = 4).await;
    let first = shop.start(command(&clip(0), WAIT));
    shop.until_started(1).await;
    let mut waiting = Vec::new();
    for i in 1..=6 {
        // Lengths, contents and options of all kinds together.
        let (bytes, top_k) = (if i == 3 { silence(0.5) } else { clip(i) }, i % 2 + 1);
        waiting.push(shop.start(ask(&bytes, &format!("transcribe=false&top_k={top_k}"))));
        shop.until_queued(u64::from(i)).await;
    }
    shop.control.open();
    assert_eq!(first.await.unwrap().status, StatusCode::OK);
    for (i, answer) in (1..).zip(waiting) {
        let answer = answer.await.unwrap();
        assert_eq!(answer.status, StatusCode::OK, "{:?}", answer.json);
        let intent = if i == 3 { "unknown" } else { "add_to_cart" };
        assert_eq!(answer.json["intent"], intent, "{i}");
        assert_eq!(answer.json["top_predictions"].as_array().unwrap().len(), i % 2 + 1, "{i}");
    }
    assert_eq!(shop.control.passes(), [1, 4, 2]);
    let metrics = shop.get("/metrics").await.text;
    assert!(
        metrics.contains("okyeame_batch_size_count 3\n") && metrics.contains("okyeame_batch_size_sum 7.0\n"),
        "{metrics}"
    );
    assert_eq!(shop.get("/performance-stats").await.json["optimization_status"]["batching_enabled"], true);
}

#[tokio::test]
async fn a_transcript_does_not_hold_up_a_command() {
    let shop = shop(|_| {}).await;
    let transcript = shop.start(ask(&clip(0), &format!("language={WAIT}")));
    shop.until_started(1).await;
    let behind_it = shop.start(ask(&clip(1), ""));
    shop.until_queued(1).await;
    assert_eq!(shop.send(command(&clip(2), "tw")).await.status, StatusCode::OK);
    let typed = Request::post("/text-intent").body(Body::from(r#"{"text": "Kɔ cart"}"#)).unwrap();
    assert_eq!(shop.send(typed).await.status, StatusCode::OK);
    assert!(!transcript.is_finished() && !behind_it.is_finished());
    shop.control.open();
    assert_eq!(transcript.await.unwrap().status, StatusCode::OK);
    assert_eq!(behind_it.await.unwrap().status, StatusCode::OK);
}

#[tokio::test]
async fn a_clip_that_fails_costs_no_other_its_answer() {
    for (bad, status) in [(PANIC, 500), (FAIL, 500)] {
        let shop = shop(|_| {}).await;
        let first = shop.start(command(&clip(0), WAIT));
        shop.until_started(1).await;
        let mut waiting = Vec::new();
        for (i, language) in (1..).zip(["tw", bad, "en"]) {
            waiting.push(shop.start(command(&clip(i), language)));
            shop.until_queued(u64::from(i)).await;
        }
        shop.control.open();
        let mut statuses = Vec::new();
        for answer in waiting {
            statuses.push(answer.await.unwrap().status.as_u16());
        }
        assert_eq!(statuses, [200, status, 200]);
        assert_eq!(first.await.unwrap().status, StatusCode::OK);
        assert_eq!(shop.control.passes(), [1, 3]);
        assert_eq!(shop.get("/health").await.status, StatusCode::OK);
        shop.still_answers().await;
    }
}

#[tokio::test]
async fn a_client_that_goes_leaves_the_batch() {
    let shop = shop(|_| {}).await;
    let first = shop.start(command(&clip(0), WAIT));
    shop.until_started(1).await;
    let stays = shop.start(command(&clip(1), "tw"));
    shop.until_queued(1).await;
    let goes = shop.start(command(&clip(2), "tw"));
    shop.until_queued(2).await;
    goes.abort();
    shop.until_queued(1).await;
    shop.control.open();
    assert_eq!(stays.await.unwrap().status, StatusCode::OK);
    assert_eq!(first.await.unwrap().status, StatusCode::OK);
    assert_eq!(shop.control.passes(), [1, 1]);
}

#[tokio::test]
async fn with_a_wait_commands_that_come_one_after_the_other_go_together() {
    let shop = shop(|config| {
        config.max_batch = 2;
        config.batch_wait_ms = 10_000.0;
    })
    .await;
    let (a, b) = (shop.start(command(&clip(1), "tw")), shop.start(command(&clip(2), "tw")));
    assert_eq!((a.await.unwrap().status, b.await.unwrap().status), (StatusCode::OK, StatusCode::OK));
    assert_eq!(shop.control.passes(), [2]);
}
