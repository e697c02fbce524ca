//! The shop's own names: from the request, from the server, and what is wrong with them.

use std::sync::Arc;

use axum::Router;
use okyeame_core::audio::Waveform;
use okyeame_core::decoding::Transcript;
use okyeame_core::intent::catalogue::{Catalogue, MAX_CATALOGUE_BYTES};
use okyeame_core::{IntentInfo, ModelInfo, Recognition, RecognizeOptions, Result, Slot, Task};
use okyeame_server::config::ServerConfig;
use okyeame_server::engine::{AskedWords, CheckOptions, Engine};
use okyeame_server::{Server, app};
use serde_json::{Value, json};

use crate::support::{Control, Form, Shop, TestEngine, send, tone};

const RICE: &str = r#"{"version": 1, "products": [{"value": "rice", "names": ["ɛmo", "royal aroma"]}]}"#;
const SUGAR: &str = "slot,value,name\nproduct,sugar,asikyire\n";

/// The test engine, and which catalogue it was given.
struct Told(TestEngine);

impl Engine for Told {
    fn recognize(&self, waveform: &Waveform, options: &RecognizeOptions) -> Result<Recognition> {
        let mut recognition = self.0.recognize(waveform, options)?;
        let digest = options.catalogue.as_ref().map_or(Value::Null, |catalogue| json!(catalogue.digest()));
        recognition.slots = vec![Slot { slot: "catalogue".to_owned(), value: digest, text: String::new() }];
        Ok(recognition)
    }

    fn recognize_text(&self, text: &str, options: &RecognizeOptions) -> Result<Recognition> {
        self.0.recognize_text(text, options)
    }

    fn transcribe(&self, waveform: &Waveform, asked: &AskedWords) -> Result<Transcript> {
        self.0.transcribe(waveform, asked)
    }

    fn info(&self) -> &ModelInfo {
        self.0.info()
    }

    fn intents(&self) -> &[IntentInfo] {
        self.0.intents()
    }

    fn options_check(&self) -> CheckOptions {
        self.0.options_check()
    }
}

/// A server whose own catalogue is `catalogue`.
async fn server(catalogue: Option<&str>) -> Router {
    let catalogue = catalogue.map(|text| Arc::new(Catalogue::parse(text.as_bytes()).unwrap()));
    let config = ServerConfig { threads: 2, request_timeout_s: 20.0, catalogue, ..ServerConfig::default() };
    let engine = Told(TestEngine::new(Arc::new(Control::default()), Task::Single));
    let server = Server::start(config, move || Ok(Box::new(engine) as Box<dyn Engine>)).unwrap();
    server.loaded().await.unwrap();
    app(server)
}

fn form() -> Form {
    Form::new().file("file", "a.wav", &tone(0.3))
}

/// What the engine was told.
fn digest(text: &str) -> Value {
    json!(Catalogue::parse(text.as_bytes()).unwrap().digest())
}

#[tokio::test]
async fn a_request_s_catalogue_reaches_the_model_on_every_route() {
    let app = server(None).await;
    let told = |json: &Value| json["slots"][0]["value"].clone();
    for route in ["/test-intent", "/recognize"] {
        let answer = send(app.clone(), form().text("catalogue", RICE.as_bytes()).post(route)).await;
        assert_eq!(told(&answer.json), digest(RICE), "{:?}", answer.json);
        // As a file, and before the clip.
        let early = Form::new().file("catalogue", "shop.csv", SUGAR.as_bytes()).file("file", "a.wav", &tone(0.3));
        assert_eq!(told(&send(app.clone(), early.post(route)).await.json), digest(SUGAR));
        assert_eq!(told(&send(app.clone(), form().post(route)).await.json), Value::Null);
        let blank = form().text("catalogue", b" \n").post(route);
        assert_eq!(told(&send(app.clone(), blank).await.json), Value::Null);
    }
    for route in ["/batch-intent", "/batch-recognize"] {
        let two = form().file("files", "b.wav", &tone(0.6)).text("catalogue", RICE.as_bytes());
        let answer = send(app.clone(), two.post(route)).await;
        let results = answer.json["results"].as_array().unwrap();
        assert_eq!(results.len(), 2);
        assert!(results.iter().all(|result| told(result) == digest(RICE)), "{:?}", answer.json);
    }
}

#[tokio::test]
async fn the_server_s_catalogue_is_for_requests_without_one() {
    let app = server(Some(SUGAR)).await;
    let told = |json: &Value| json["slots"][0]["value"].clone();
    assert_eq!(told(&send(app.clone(), form().post("/test-intent")).await.json), digest(SUGAR));
    let own = form().text("catalogue", RICE.as_bytes()).post("/test-intent");
    assert_eq!(told(&send(app.clone(), own).await.json), digest(RICE));
}

#[tokio::test]
async fn another_catalogue_is_another_answer_in_the_cache() {
    let shop = Shop::open().await;
    let ask = |catalogue: &str| form().text("catalogue", catalogue.as_bytes()).post("/test-intent");
    assert!(shop.send(ask(RICE)).await.json.get("cached").is_none());
    assert_eq!(shop.send(ask(RICE)).await.json["cached"], true);
    assert_eq!(shop.send(ask(&RICE.replace("ɛmo", "ƐMO"))).await.json["cached"], true, "the same names");
    assert!(shop.send(ask(SUGAR)).await.json.get("cached").is_none());
    assert!(shop.send(form().post("/test-intent")).await.json.get("cached").is_none());
    assert_eq!(shop.control.started(), 3);
}

#[tokio::test]
async fn a_bad_catalogue_is_refused_with_a_sentence() {
    let shop = Shop::open().await;
    for (catalogue, part) in [
        ("rice", "slot,value,name"),
        ("{", "not JSON"),
        (r#"{"version": 2}"#, "version"),
        (r#"{"produkts": []}"#, "'produkts' is not known"),
        (r#"{"products": [{"names": ["rice"]}]}"#, "products, entry 1"),
        (r#"{"slots": {"quantity": ["carton"]}}"#, "quantity"),
        ("slot,value,name\nproduct,rice", "line 2"),
    ] {
        for route in ["/test-intent", "/batch-intent"] {
            let answer = shop.send(form().text("catalogue", catalogue.as_bytes()).post(route)).await;
            answer.is_error(422, "invalid_catalogue");
            let detail = answer.json["detail"].as_str().unwrap();
            assert!(detail.starts_with("the catalogue cannot be used: ") && detail.contains(part), "{detail}");
        }
    }
    shop.send(form().text("catalogue", b"\xFF\xFE").post("/test-intent")).await.is_error(422, "invalid_catalogue");
    let large = vec![b' '; MAX_CATALOGUE_BYTES + 1];
    shop.send(form().text("catalogue", &large).post("/test-intent")).await.is_error(413, "catalogue_too_large");
    let nested = format!("{{\"products\": {}", "[".repeat(100_000));
    shop.send(form().text("catalogue", nested.as_bytes()).post("/test-intent"))
        .await
        .is_error(422, "invalid_catalogue");
    assert_eq!(shop.control.started(), 0, "nothing of this reaches the model");
    shop.still_answers().await;
}
