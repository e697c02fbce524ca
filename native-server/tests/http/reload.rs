//! `POST /admin/models`: another model takes the place of the one that answers, and nobody notices but by the answers.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::http::{HeaderValue, Request, StatusCode, header};
use okyeame_core::{Error, Result, Task};
use okyeame_server::access::Scope;
use okyeame_server::access::keys::{ApiKey, generate};
use okyeame_server::config::ServerConfig;
use okyeame_server::engine::Engine;
use okyeame_server::model_choice::ModelChoice;
use okyeame_server::{Server, app};
use serde_json::{Value, json};

use crate::support::{Answer, Control, Shop, TestEngine, WAIT, ask, send, tone};

const ROUTE: &str = "/admin/models";

/// What a test holds the models by.
#[derive(Default)]
struct Models {
    a: Arc<Control>,
    b: Arc<Control>,
    /// Loading `slow` waits here.
    gate: Control,
    /// Loads of `fresh`, which says the same of itself each time and answers otherwise.
    fresh: AtomicUsize,
}

impl Models {
    fn load(&self, task: Task, name: &str) -> Result<Box<dyn Engine>> {
        let a = || TestEngine::new(Arc::clone(&self.a), task).named("a", "add_to_cart");
        let b = || TestEngine::new(Arc::clone(&self.b), task).named("b", "checkout");
        Ok(Box::new(match name {
            "a" => a(),
            "b" => b(),
            "slow" => {
                self.gate.wait();
                b()
            }
            "fresh" => {
                let n = self.fresh.fetch_add(1, Ordering::SeqCst);
                a().answering(&format!("command_{n}"))
            }
            "missing" => return Err(Error::ModelNotFound { what: "the folder '/home/shop/secret'".to_owned() }),
            "large" => return Err(Error::OutOfMemory { needed_mb: 9000, available_mb: 12 }),
            "broken" => panic!("the weights at /secret/path are broken"),
            other => panic!("nobody asked for {other}"),
        }))
    }
}

/// A shop that serves `first`, and can be told to serve others.
async fn shop(task: Task, first: &str, change: impl FnOnce(&mut ServerConfig)) -> (Shop, Arc<Models>) {
    let (shop, models) = start(task, first, change);
    shop.server.loaded().await.unwrap();
    (shop, models)
}

/// The same, without waiting for the first model.
fn start(task: Task, first: &str, change: impl FnOnce(&mut ServerConfig)) -> (Shop, Arc<Models>) {
    let model = ModelChoice::new(Some(&format!("./{first}")), None);
    let mut config = ServerConfig { threads: 2, request_timeout_s: 20.0, model, ..ServerConfig::default() };
    change(&mut config);
    let models = Arc::new(Models::default());
    let of_server = Arc::clone(&models);
    let server =
        Server::with_loader(config.clone(), move |choice: &ModelChoice| of_server.load(task, &choice.label())).unwrap();
    let shop = Shop { app: app(Arc::clone(&server)), server, control: Arc::clone(&models.a), config };
    (shop, models)
}

fn post(body: &str) -> Request<Body> {
    Request::post(ROUTE).header(header::CONTENT_TYPE, "application/json").body(Body::from(body.to_owned())).unwrap()
}

fn load(name: &str) -> Request<Body> {
    post(&json!({"model": format!("./{name}")}).to_string())
}

async fn switch(shop: &Shop, name: &str) -> Value {
    let answer = shop.send(load(name)).await;
    assert_eq!(answer.status, StatusCode::OK, "{:?}", answer.json);
    answer.json
}

/// Asks until the answer is as it should be.
async fn until(shop: &Shop, is_so: impl Fn(&Value) -> bool) -> Value {
    let begin = Instant::now();
    loop {
        let json = shop.get(ROUTE).await.json;
        if is_so(&json) {
            return json;
        }
        assert!(begin.elapsed() < Duration::from_secs(10), "{json}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// Which model an answer is of, all of it.
#[track_caller]
fn model_of(answer: &Answer) -> &'static str {
    assert_eq!(answer.status, StatusCode::OK, "{:?}", answer.json);
    let json = &answer.json;
    let said = [&json["intent"], &json["top_predictions"][0]["intent"], &json["model_type"]];
    let said = said.map(|value| value.as_str().unwrap_or_default());
    match said {
        ["add_to_cart", "add_to_cart", "whisper_a"] => "a",
        ["checkout", "checkout", "whisper_b"] => "b",
        _ => panic!("an answer of two models: {json}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_switch_under_a_stream_of_requests_loses_none() {
    for task in [Task::Single, Task::Multi] {
        let (shop, _) = shop(task, "a", |config| config.cache_bytes = 0).await;
        let (shop, stop) = (Arc::new(shop), Arc::new(AtomicBool::new(false)));
        let client = |i: usize| {
            let (app, stop) = (shop.app.clone(), Arc::clone(&stop));
            tokio::spawn(async move {
                let mut seen = Vec::new();
                while !stop.load(Ordering::SeqCst) {
                    let request = ask(&tone(0.2 + 0.01 * i as f64), "top_k=1&transcribe=false");
                    seen.push(model_of(&send(app.clone(), request).await));
                }
                seen
            })
        };
        let clients: Vec<_> = (0..4).map(client).collect();
        for name in ["b", "a", "b", "a", "b"] {
            let info = switch(&shop, name).await;
            assert_eq!(info["name"], name);
            assert!(info["load_time_ms"].as_f64().is_some_and(|ms| ms > 0.0), "{info}");
            // What is asked from now on is of the new one.
            let answer = shop.send(ask(&tone(0.5), "top_k=1&transcribe=false")).await;
            assert_eq!(model_of(&answer), name);
            assert_eq!(shop.get("/health").await.status, StatusCode::OK);
            let mut said = shop.get("/model-info").await.json;
            assert_eq!(said["name"], name);
            said["load_time_ms"] = info["load_time_ms"].clone();
            assert_eq!(said, info);
            let intents = shop.get("/intents").await.json;
            assert_eq!(intents["intents"][1]["intent"], if name == "a" { "add_to_cart" } else { "checkout" });
            assert_eq!(shop.get("/performance-stats").await.json["model_info"]["model_path"], name);
            assert_eq!(shop.get("/v1/models").await.json["data"][0]["id"], name);
        }
        stop.store(true, Ordering::SeqCst);
        let mut seen = Vec::new();
        for client in clients {
            seen.extend(client.await.unwrap());
        }
        assert!(!seen.is_empty());
    }
}

#[tokio::test]
async fn work_in_hand_is_of_the_old_model_which_then_goes() {
    let (shop, models) = shop(Task::Multi, "a", |config| config.cache_bytes = 0).await;
    let clip = |i: usize, language: &str| ask(&tone(0.3 + 0.01 * i as f64), &format!("transcribe=false&{language}"));
    let mut old = vec![shop.start(clip(0, &format!("language={WAIT}")))];
    shop.until_started(1).await;
    for i in 1..=2 {
        old.push(shop.start(clip(i, "")));
        shop.until_queued(i as u64).await;
    }
    switch(&shop, "b").await;
    let mut new = Vec::new();
    for i in 3..=4 {
        new.push(shop.start(clip(i, "")));
        shop.until_queued(i as u64).await;
    }
    assert!(Arc::strong_count(&models.a) > 2, "its work is not done");
    models.a.open();
    for answer in old {
        assert_eq!(model_of(&answer.await.unwrap()), "a");
    }
    for answer in new {
        assert_eq!(model_of(&answer.await.unwrap()), "b");
    }
    // Taken together, answered apart.
    assert_eq!((models.a.passes(), models.b.passes()), (vec![1, 2], vec![2]));
    // The shop and the loader hold the control, and no engine any more.
    let begin = Instant::now();
    while Arc::strong_count(&models.a) > 2 {
        assert!(begin.elapsed() < Duration::from_secs(10), "the old model is still in memory");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

#[tokio::test]
async fn a_model_that_cannot_be_loaded_leaves_the_old_one() {
    let (shop, _) = shop(Task::Single, "a", |config| config.cache_bytes = 0).await;
    for (name, status, code) in
        [("missing", 422, "model_not_found"), ("large", 422, "out_of_memory"), ("broken", 500, "internal_error")]
    {
        shop.send(load(name)).await.is_error(status, code);
        assert_eq!(model_of(&shop.send(ask(&tone(0.3), "")).await), "a");
        assert_eq!(shop.get("/health").await.json["status"], "healthy");
        let answer = shop.get(ROUTE).await;
        let failure = &answer.json["last_failure"];
        assert_eq!((failure["model"].as_str(), failure["code"].as_str()), (Some(name), Some(code)), "{failure}");
        assert!(failure["failed_at"].as_u64().is_some() && !answer.text.contains("secret"), "{}", answer.text);
        assert!(answer.json["loading"].is_null());
        assert_eq!(answer.json["served"]["model"], "a");
    }
    let said = shop.send(load("large")).await.json["detail"].as_str().unwrap().to_owned();
    assert!(said.contains("9000 MB"), "{said}");
    switch(&shop, "b").await;
    let json = shop.get(ROUTE).await.json;
    assert!(json["last_failure"].is_null(), "{json}");
    assert_eq!((&json["served"]["model"], &json["served"]["source"]), (&json!("b"), &json!("local")));
    assert!(json["served"]["loaded_at"].as_u64().is_some_and(|at| at > 1_600_000_000), "{json}");
}

#[tokio::test]
async fn one_is_loaded_at_a_time_and_a_client_that_goes_does_not_stop_it() {
    let (shop, models) = shop(Task::Single, "a", |_| {}).await;
    let impatient = shop.start(load("slow"));
    let json = until(&shop, |json| json["loading"]["model"] == "slow").await;
    assert!(json["loading"]["started_at"].as_u64().is_some(), "{json}");
    shop.send(load("b")).await.is_error(409, "model_loading");
    shop.send(post("")).await.is_error(409, "model_loading");
    assert_eq!(shop.get("/health").await.json["status"], "healthy");
    assert_eq!(model_of(&shop.send(ask(&tone(0.3), "")).await), "a");
    impatient.abort();
    assert!(impatient.await.is_err());
    models.gate.open();
    until(&shop, |json| json["served"]["model"] == "slow" && json["loading"].is_null()).await;
    assert_eq!(model_of(&shop.send(ask(&tone(0.3), "")).await), "b");
}

#[tokio::test]
async fn while_the_first_model_loads_there_is_no_other() {
    let (shop, models) = start(Task::Single, "slow", |_| {});
    let json = shop.get(ROUTE).await.json;
    assert_eq!((&json["served"], &json["loading"]["model"]), (&Value::Null, &json!("slow")));
    shop.send(load("b")).await.is_error(409, "model_loading");
    models.gate.open();
    shop.server.loaded().await.unwrap();
    until(&shop, |json| json["loading"].is_null()).await;
    switch(&shop, "a").await;
}

#[tokio::test]
async fn a_server_that_stops_does_not_wait_for_a_model() {
    let (shop, models) = shop(Task::Single, "a", |_| {}).await;
    let loading = shop.start(load("slow"));
    until(&shop, |json| json["loading"]["model"] == "slow").await;
    shop.server.begin_drain();
    loading.await.unwrap().is_error(503, "draining");
    shop.send(load("b")).await.is_error(503, "draining");
    models.gate.open();
}

#[tokio::test]
async fn the_cache_has_no_answer_of_another_model() {
    let (shop, _) = shop(Task::Single, "fresh", |_| {}).await;
    let clip = || ask(&tone(0.3), "top_k=1");
    let mut infos = Vec::new();
    for n in 0..3 {
        let answers = [shop.send(clip()).await, shop.send(clip()).await];
        let cached = answers.each_ref().map(|answer| answer.json["cached"] == true);
        assert_eq!(cached, [false, true], "load {n}");
        for answer in answers {
            assert_eq!(answer.json["intent"], format!("command_{n}"));
        }
        infos.push(shop.get("/model-info").await.json);
        // The present one again, by an empty body or an empty object.
        let body = if n == 0 { "" } else { "{}" };
        assert_eq!(shop.send(post(body)).await.status, StatusCode::OK);
    }
    assert!(infos.windows(2).all(|pair| pair[0] == pair[1]), "they say the same of themselves");
}

#[tokio::test]
async fn without_a_key_only_this_machine_s_programs_may() {
    let (shop, _) = shop(Task::Single, "a", |_| {}).await;
    let get = || Request::get(ROUTE).body(Body::empty()).unwrap();
    for origin in ["https://evil.example", "null", "http://127.0.0.1:8000"] {
        for mut request in [load("b"), get()] {
            request.headers_mut().insert(header::ORIGIN, HeaderValue::from_static(origin));
            shop.send(request).await.is_error(403, "forbidden");
        }
    }
    for host in ["0.0.0.0", "192.168.1.7", "shop.example"] {
        let (open_to_all, _) = self::shop(Task::Single, "a", |config| config.host = host.to_owned()).await;
        for request in [load("b"), get()] {
            open_to_all.send(request).await.is_error(403, "forbidden");
        }
    }
    assert_eq!(shop.get("/model-info").await.json["name"], "a");
    let (here, _) = self::shop(Task::Single, "a", |config| config.host = "[::1]".to_owned()).await;
    switch(&here, "b").await;
}

#[tokio::test]
async fn a_key_must_say_that_it_may_and_a_token_never_does() {
    let [admin, usual] = [(); 2].map(|()| generate().unwrap());
    let (shop, _) = shop(Task::Single, "a", |config| {
        config.host = "0.0.0.0".to_owned();
        config.keys = vec![
            ApiKey::of("admin", &admin, Scope::ALL.to_vec()),
            ApiKey::of("usual", &usual, Scope::OF_KEYS.to_vec()),
        ];
    })
    .await;
    let signed = |mut request: Request<Body>, key: &str| {
        let shown = HeaderValue::from_str(&format!("Bearer {key}")).unwrap();
        request.headers_mut().insert(header::AUTHORIZATION, shown);
        request
    };
    let get = || Request::get(ROUTE).body(Body::empty()).unwrap();
    let mint = |body: &str| Request::post("/v1/tokens").body(Body::from(body.to_owned())).unwrap();
    for scopes in [r#"{"scopes": ["admin"]}"#, r#"{"scopes": ["intent", "admin"]}"#] {
        shop.send(signed(mint(scopes), &admin)).await.is_error(422, "invalid_parameter");
    }
    let token = shop.send(signed(mint(""), &admin)).await.json["token"].as_str().unwrap().to_owned();
    for request in [get as fn() -> Request<Body>, || load("b")] {
        shop.send(request()).await.is_error(401, "missing_key");
        shop.send(signed(request(), "oky_wrong")).await.is_error(401, "invalid_key");
        shop.send(signed(request(), &usual)).await.is_error(403, "forbidden");
        shop.send(signed(request(), &token)).await.is_error(403, "forbidden");
    }
    assert_eq!(shop.send(signed(get(), &admin)).await.json["served"]["model"], "a");
    assert_eq!(shop.send(signed(load("b"), &admin)).await.json["name"], "b");
    assert!(ApiKey::from_environment(&usual).unwrap().scopes.iter().all(|scope| *scope != Scope::Admin));
}

#[tokio::test]
async fn what_is_no_request_loads_nothing() {
    let (shop, models) = shop(Task::Single, "a", |config| config.max_body_bytes = 100_000).await;
    for body in ["no json", "[]", "7", r#"{"model": 7}"#, r#"{"models": "b"}"#, "{\"model\": \"b\"", "\u{0}"] {
        shop.send(post(body)).await.is_error(400, "malformed_body");
    }
    let long = "x".repeat(5000);
    for name in ["", "  ", "a\u{0}b", "a\nb", &long] {
        for field in ["model", "revision", "base", "adapter"] {
            shop.send(post(&json!({field: name}).to_string())).await.is_error(422, "invalid_parameter");
        }
    }
    shop.send(post(&json!({"model": "x".repeat(200_000)}).to_string())).await.is_error(413, "body_too_large");
    for kind in
        ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "application/jsonp"]
    {
        let mut request = load("b");
        request.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
        shop.send(request).await.is_error(415, "not_json");
    }
    let bare = Request::post(ROUTE).body(Body::from(r#"{"model": "b"}"#)).unwrap();
    shop.send(bare).await.is_error(415, "not_json");
    let put = Request::put(ROUTE).body(Body::empty()).unwrap();
    shop.send(put).await.is_error(405, "method_not_allowed");
    assert_eq!(shop.get(ROUTE).await.json["served"]["model"], "a");
    assert_eq!(models.b.started(), 0);

    let mut request = load("b");
    request.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("Application/JSON; charset=utf-8"));
    assert_eq!(shop.send(request).await.json["name"], "b");
}
