//! `GET /v1/stream` on a real socket: the protocol, sound in all pieces, bad input, and whoever goes, comes too often or stays
//! too long.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::http::{HeaderValue, Request, StatusCode};
use futures::{SinkExt, StreamExt};
use okyeame_core::Task;
use okyeame_server::access::Scope;
use okyeame_server::access::keys::{ApiKey, generate};
use okyeame_server::config::ServerConfig;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::handshake::client::Response;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{WebSocketStream, client_async};

use crate::socket::{Served, serve};
use crate::support::{PANIC, Shop, WAIT, ask, tone};

type Socket = WebSocketStream<TcpStream>;

const LIMIT: Duration = Duration::from_secs(20);
/// What the test voice's utterance is, with the silence around it that belongs to it: 0.32 s before and 0.7 s after.
const ONE_SECOND: &str = "2.0 s";
const TWO_SECONDS: &str = "3.0 s";

/// Silence, 16 kHz, 16 bits.
fn silence(seconds: f64) -> Vec<u8> {
    vec![0; (seconds * 16_000.0) as usize * 2]
}

/// A tone that swells four times a second, as syllables do.
fn voice(seconds: f64) -> Vec<u8> {
    let sample = |i: usize| {
        let t = i as f64 / 16_000.0;
        let loudness = (std::f64::consts::PI * 4.0 * t).sin().abs();
        ((std::f64::consts::TAU * 440.0 * t).sin() * loudness * 8000.0) as i16
    };
    (0..(seconds * 16_000.0) as usize).flat_map(|i| sample(i).to_le_bytes()).collect()
}

/// Somebody who says something, and what is around it.
fn spoken(seconds: f64) -> Vec<u8> {
    [silence(0.5), voice(seconds), silence(1.0)].concat()
}

#[allow(clippy::result_large_err)] // the client's own
async fn try_open(
    address: SocketAddr,
    query: &str,
    headers: &[(&'static str, &str)],
) -> Result<(Socket, Response), Error> {
    let mut request = format!("ws://{address}/v1/stream?{query}").into_client_request().unwrap();
    for (name, value) in headers {
        request.headers_mut().insert(*name, HeaderValue::from_str(value).unwrap());
    }
    let tcp = TcpStream::connect(address).await.unwrap();
    tokio::time::timeout(LIMIT, client_async(request, tcp)).await.unwrap()
}

/// Opens a stream, which is ready.
async fn open(served: &Served, query: &str) -> Socket {
    let (mut socket, response) = try_open(served.address, query, &[]).await.unwrap();
    assert_eq!(response.status(), StatusCode::SWITCHING_PROTOCOLS);
    assert_eq!(event(&mut socket).await["type"], "ready");
    socket
}

/// The status of a refusal, and when to come back.
fn refusal(opened: Result<(Socket, Response), Error>) -> (u16, Option<String>) {
    match opened {
        Err(Error::Http(response)) => {
            let wait = response.headers().get("retry-after").map(|value| value.to_str().unwrap().to_owned());
            (response.status().as_u16(), wait)
        }
        other => panic!("{other:?}"),
    }
}

async fn send(socket: &mut Socket, bytes: &[u8], piece: usize) {
    for piece in bytes.chunks(piece) {
        socket.feed(Message::binary(piece.to_vec())).await.unwrap();
    }
    socket.flush().await.unwrap();
}

async fn say(socket: &mut Socket, text: &str) {
    socket.send(Message::text(text.to_owned())).await.unwrap();
}

async fn message(socket: &mut Socket) -> Message {
    tokio::time::timeout(LIMIT, socket.next()).await.unwrap().expect("the stream is open").unwrap()
}

async fn event(socket: &mut Socket) -> Value {
    match message(socket).await {
        Message::Text(text) => serde_json::from_str(text.as_str()).unwrap(),
        other => panic!("{other:?}"),
    }
}

/// The next event of this kind; the others before it are no answers.
async fn until(socket: &mut Socket, kind: &str) -> Value {
    loop {
        let event = event(socket).await;
        if event["type"] == kind {
            return event;
        }
        assert!(event["type"] == "speech_started" || event["type"] == "partial", "{event}");
    }
}

#[track_caller]
fn is_error(event: &Value, code: &str) {
    assert_eq!((event["type"].as_str(), event["code"].as_str()), (Some("error"), Some(code)), "{event}");
    let detail = event["detail"].as_str().unwrap();
    assert!(detail.len() > 10 && !detail.contains("secret") && event["request_id"].is_string(), "{event}");
}

/// The code with which the server closes.
async fn close_code(socket: &mut Socket) -> u16 {
    match message(socket).await {
        Message::Close(Some(frame)) => frame.code.into(),
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_utterance_is_answered() {
    let shop = Shop::open().await;
    let served = serve(&shop).await;
    let (mut socket, response) = try_open(served.address, "top_k=1", &[("x-request-id", "till-7")]).await.unwrap();
    assert_eq!(response.headers()["x-request-id"], "till-7");
    let expected = json!({
        "type": "ready", "format": "pcm16", "language": null, "top_k": 1, "transcribe": false, "partials": false,
        "request_id": "till-7",
    });
    assert_eq!(event(&mut socket).await, expected);
    let mut end_s = 0.0;
    for n in 1..=2 {
        send(&mut socket, &spoken(1.0), 3200).await;
        let started = event(&mut socket).await;
        assert_eq!((&started["type"], &started["utterance"]), (&json!("speech_started"), &json!(n)), "{started}");
        let answer = event(&mut socket).await;
        assert_eq!((&answer["type"], &answer["utterance"]), (&json!("final"), &json!(n)), "{answer}");
        assert_eq!(answer["start_s"], started["at_s"]);
        let start_s = answer["start_s"].as_f64().unwrap();
        assert!((end_s..=f64::from(n) * 2.5 - 2.0).contains(&start_s), "{answer}");
        end_s = answer["end_s"].as_f64().unwrap();
        assert!((start_s + 1.9..=f64::from(n) * 2.5).contains(&end_s), "{answer}");
        let recognition = &answer["recognition"];
        assert_eq!(
            (&recognition["intent"], &recognition["transcription"]),
            (&json!("add_to_cart"), &json!(ONE_SECOND))
        );
        assert_eq!((&recognition["run"]["where"], &recognition["request_id"]), (&json!("remote"), &json!("till-7")));
        assert!(recognition["run"]["bytes_sent"].as_u64().unwrap() > 60_000, "{recognition}");
        assert_eq!(recognition["top_predictions"].as_array().unwrap().len(), 1);
    }
    say(&mut socket, r#"{"type": "stop"}"#).await;
    assert_eq!(close_code(&mut socket).await, 1000);
    let stats = shop.get("/performance-stats").await.json;
    assert_eq!(stats["performance_metrics"]["successful_requests"], 2, "{stats}");
    assert!(shop.get("/metrics").await.text.contains("route=\"/v1/stream\",status=\"101\""));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_that_hears_answers_from_the_sound_first() {
    let shop = Shop::with_model(Task::Multi, |_| {}).await;
    let served = serve(&shop).await;
    let mut socket = open(&served, "transcribe=true").await;
    send(&mut socket, &spoken(1.0), 3200).await;
    let intent = until(&mut socket, "intent").await;
    assert_eq!((&intent["recognition"]["transcription"], &intent["utterance"]), (&Value::Null, &json!(1)));
    let words = event(&mut socket).await;
    assert_eq!((&words["type"], &words["recognition"]["transcription"]), (&json!("final"), &json!(ONE_SECOND)));
    assert_eq!(words["end_s"], intent["end_s"]);

    let mut socket = open(&served, "").await;
    for _ in 0..2 {
        send(&mut socket, &spoken(1.0), 3200).await;
        assert_eq!(until(&mut socket, "intent").await["recognition"]["accepted"], true);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_size_of_the_pieces_changes_nothing() {
    let shop = Shop::open().await;
    let served = serve(&shop).await;
    let bytes = spoken(1.0);
    let mut answers = Vec::new();
    for piece in [1, 3, 333, 65_536] {
        let mut socket = open(&served, "").await;
        let (start, rest) = bytes.split_at(4001);
        send(&mut socket, start, piece).await;
        socket.send(Message::binary(Vec::<u8>::new())).await.unwrap();
        send(&mut socket, rest, piece.max(777)).await;
        let answer = until(&mut socket, "final").await;
        assert_eq!(answer["recognition"]["transcription"], ONE_SECOND);
        answers.push((answer["start_s"].clone(), answer["end_s"].clone()));
    }
    assert!(answers.iter().all(|answer| *answer == answers[0]), "{answers:?}");
}

/// The packets of an Ogg file with one stream: RFC 3533, section 6.
fn packets_of_ogg(mut pages: &[u8]) -> Vec<Vec<u8>> {
    let (mut packets, mut packet) = (Vec::new(), Vec::new());
    while !pages.is_empty() {
        let (lens, mut body) = pages[27..].split_at(usize::from(pages[26]));
        for len in lens {
            let (segment, rest) = body.split_at(usize::from(*len));
            packet.extend_from_slice(segment);
            body = rest;
            if *len < 255 {
                packets.push(std::mem::take(&mut packet));
            }
        }
        pages = body;
    }
    packets
}

#[tokio::test(flavor = "multi_thread")]
async fn opus_packets_are_heard_and_a_damaged_one_costs_itself_only() {
    let shop = Shop::open().await;
    let served = serve(&shop).await;
    let mut socket = open(&served, "format=opus").await;
    send(&mut socket, &[3, 0], 2).await;
    is_error(&event(&mut socket).await, "malformed_audio");
    send(&mut socket, &[3, 0], 2).await; // one of a row is told
    let packets = packets_of_ogg(include_bytes!("../../../tests/audio/speech_opus.ogg"));
    for packet in &packets[2..] {
        send(&mut socket, packet, packet.len()).await;
    }
    say(&mut socket, r#"{"type": "end"}"#).await;
    let answer = until(&mut socket, "final").await;
    // The file holds 1.36 s.
    let heard_s = answer["end_s"].as_f64().unwrap() - answer["start_s"].as_f64().unwrap();
    assert!((1.2..1.45).contains(&heard_s), "{answer}");
    assert_eq!(answer["recognition"]["intent"], "add_to_cart");
    assert!(answer["recognition"]["run"]["bytes_sent"].as_u64().unwrap() < 6000, "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_utterance_can_be_ended_by_hand() {
    let shop = Shop::open().await;
    let served = serve(&shop).await;
    let mut socket = open(&served, "").await;
    say(&mut socket, r#"{"type": "end"}"#).await;
    is_error(&event(&mut socket).await, "empty_audio");
    send(&mut socket, &voice(1.0), 3200).await;
    say(&mut socket, r#"{"type": "end"}"#).await;
    let answer = until(&mut socket, "final").await;
    let ends = (answer["utterance"].as_u64(), answer["start_s"].as_f64(), answer["end_s"].as_f64());
    assert_eq!(ends, (Some(1), Some(0.0), Some(1.0)), "{answer}");
    // Too short to be found: what is held.
    send(&mut socket, &voice(0.05), 3200).await;
    say(&mut socket, r#"{"type": "end"}"#).await;
    let answer = event(&mut socket).await;
    assert_eq!((&answer["type"], &answer["utterance"]), (&json!("final"), &json!(2)), "{answer}");
    // What is being said when the client stops is answered, too.
    send(&mut socket, &voice(1.0), 3200).await;
    say(&mut socket, r#"{"type": "stop"}"#).await;
    assert_eq!(until(&mut socket, "final").await["utterance"], 3);
    assert_eq!(close_code(&mut socket).await, 1000);
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_does_not_stop_is_cut_at_the_limit() {
    let shop = Shop::with(|config| config.max_audio_s = 2.0).await;
    let served = serve(&shop).await;
    let mut socket = open(&served, "").await;
    send(&mut socket, &[silence(0.5), voice(5.0), silence(1.0)].concat(), 65_536).await;
    let mut end_s = None;
    for n in 1..=3 {
        let answer = until(&mut socket, "final").await;
        assert_eq!(answer["utterance"], n, "{answer}");
        assert!(end_s.is_none_or(|end_s| answer["start_s"] == end_s), "{answer}");
        end_s = Some(answer["end_s"].clone());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_first_message_may_say_what_is_wanted() {
    let shop = Shop::open().await;
    let served = serve(&shop).await;
    for (start, code) in [
        (json!({"type": "start", "top_k": 0}), "invalid_parameter"),
        (json!({"type": "start", "language": "xx"}), "unsupported_language"),
        (json!({"type": "start", "catalogue": {"products": 7}}), "invalid_catalogue"),
    ] {
        let mut socket = open(&served, "").await;
        say(&mut socket, &start.to_string()).await;
        is_error(&event(&mut socket).await, code);
        assert_eq!(close_code(&mut socket).await, 1008, "{code}");
    }
    let mut socket = open(&served, "top_k=2&language=tw").await;
    say(&mut socket, &json!({"type": "start", "top_k": 1, "language": "en"}).to_string()).await;
    let ready = event(&mut socket).await;
    assert_eq!((&ready["type"], &ready["top_k"], &ready["language"]), (&json!("ready"), &json!(1), &json!("en")));
    send(&mut socket, &spoken(1.0), 3200).await;
    let recognition = until(&mut socket, "final").await["recognition"].clone();
    assert_eq!(recognition["whisper_info"]["language"], "en");
    assert_eq!(recognition["top_predictions"].as_array().unwrap().len(), 1);
    // Later it is no first message any more.
    say(&mut socket, r#"{"type": "start", "top_k": 2}"#).await;
    is_error(&event(&mut socket).await, "malformed_body");
    // A catalogue may be larger than any other message.
    let product = |i: u32| json!({"value": format!("p{i}"), "names": [format!("the product with the number {i}")]});
    let products: Vec<Value> = (0..1500).map(product).collect();
    let start = json!({"type": "start", "catalogue": {"products": products}}).to_string();
    assert!(start.len() > 70_000, "{}", start.len());
    let mut socket = open(&served, "").await;
    say(&mut socket, &start).await;
    assert_eq!(event(&mut socket).await["type"], "ready");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_message_is_told_and_the_stream_lives_on() {
    let shop = Shop::open().await;
    let served = serve(&shop).await;
    let mut socket = open(&served, "").await;
    for text in ["", "Fa yei", "[]", "{}", r#"{"type": 7}"#, r#"{"type": "begin"}"#, r#"{"type": "end", "x": 1}"#, "\0"]
    {
        say(&mut socket, text).await;
        is_error(&event(&mut socket).await, "malformed_body");
    }
    // Any bytes are sound: noise, which nobody spoke.
    let noise: Vec<u8> = (0..9999_u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    send(&mut socket, &noise, 1001).await;
    say(&mut socket, r#"{"type": "end"}"#).await;
    assert_eq!(until(&mut socket, "final").await["utterance"], 1);
    socket.send(Message::Ping(vec![1_u8].into())).await.unwrap();
    assert!(matches!(message(&mut socket).await, Message::Pong(_)));
    send(&mut socket, &spoken(1.0), 3200).await;
    assert_eq!(until(&mut socket, "final").await["recognition"]["intent"], "add_to_cart");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_is_too_large_ends_its_stream() {
    let shop = Shop::open().await;
    let served = serve(&shop).await;
    let mut socket = open(&served, "").await;
    send(&mut socket, &[0; 65_537], 65_537).await;
    is_error(&event(&mut socket).await, "body_too_large");
    assert_eq!(close_code(&mut socket).await, 1009);

    let mut socket = open(&served, "").await;
    say(&mut socket, "not the first").await;
    is_error(&event(&mut socket).await, "malformed_body");
    say(&mut socket, &"x".repeat(70_000)).await;
    is_error(&event(&mut socket).await, "body_too_large");
    assert_eq!(close_code(&mut socket).await, 1009);

    // So large that it is not even read: the connection ends, however that looks from here.
    let mut socket = open(&served, "").await;
    let _ = socket.send(Message::binary(vec![0; 4 << 20])).await;
    while let Some(Ok(_)) = tokio::time::timeout(LIMIT, socket.next()).await.unwrap() {}
    shop.still_answers().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_without_messages_ends() {
    let shop = Shop::with(|config| config.io_timeout_s = 0.4).await;
    let served = serve(&shop).await;
    let mut socket = open(&served, "").await;
    is_error(&event(&mut socket).await, "body_timeout");
    assert_eq!(close_code(&mut socket).await, 1008);
    // Who waits for an answer is not idle.
    let mut socket = open(&served, &format!("language={WAIT}")).await;
    send(&mut socket, &spoken(1.0), 3200).await;
    assert_eq!(event(&mut socket).await["type"], "speech_started");
    shop.until_started(1).await;
    tokio::time::sleep(Duration::from_millis(900)).await;
    shop.control.open();
    assert_eq!(event(&mut socket).await["type"], "final");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_goes_frees_its_places() {
    let shop = Shop::with(|config| {
        config.queue_len = 1;
        config.max_streams = 1;
    })
    .await;
    let served = serve(&shop).await;
    let running = shop.start(ask(&tone(0.3), &format!("language={WAIT}")));
    shop.until_started(1).await;
    let mut socket = open(&served, "").await;
    let (status, wait) = refusal(try_open(served.address, "", &[]).await);
    assert_eq!((status, wait.is_some()), (429, true));
    send(&mut socket, &spoken(1.0), 3200).await;
    shop.until_queued(1).await;
    drop(socket);
    shop.until_queued(0).await;
    // In the middle of an utterance, too.
    let begin = Instant::now();
    for _ in 0..2 {
        let mut socket = loop {
            match try_open(served.address, "", &[]).await {
                Ok((socket, _)) => break socket,
                Err(_) => assert!(begin.elapsed() < LIMIT, "the place never came free"),
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        };
        send(&mut socket, &voice(1.0), 3200).await;
        until(&mut socket, "ready").await;
        until(&mut socket, "speech_started").await;
    }
    shop.control.open();
    assert_eq!(running.await.unwrap().status, StatusCode::OK);
    assert_eq!(shop.control.started(), 1, "the utterance of the client that went was worked on");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_that_panics_costs_one_answer() {
    let shop = Shop::open().await;
    let served = serve(&shop).await;
    let mut socket = open(&served, &format!("language={PANIC}")).await;
    for n in 1..=2 {
        send(&mut socket, &spoken(1.0), 3200).await;
        let error = until(&mut socket, "error").await;
        is_error(&error, "internal_error");
        assert_eq!(error["utterance"], n, "{error}");
        shop.still_answers().await;
    }
    let metrics = shop.get("/metrics").await.text;
    assert!(metrics.contains("okyeame_errors_total{code=\"internal_error\"} 2"), "{metrics}");
    say(&mut socket, r#"{"type": "stop"}"#).await;
    assert_eq!(close_code(&mut socket).await, 1000);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_queue_costs_one_answer_and_no_guess_adds_to_it() {
    let shop = Shop::with_model(Task::Multi, |config| config.queue_len = 1).await;
    let served = serve(&shop).await;
    let waiting = || ask(&tone(0.3), &format!("transcribe=false&language={WAIT}"));
    let running = shop.start(waiting());
    shop.until_started(1).await;
    let queued = shop.start(waiting());
    shop.until_queued(1).await;
    let mut socket = open(&served, "partials=true").await;
    send(&mut socket, &spoken(2.0), 3200).await;
    assert_eq!(event(&mut socket).await["type"], "speech_started");
    let error = event(&mut socket).await;
    is_error(&error, "overloaded");
    assert!(error["utterance"] == 1 && error["retry_after_s"].as_u64().unwrap() >= 1, "{error}");
    shop.control.open();
    assert_eq!(running.await.unwrap().status, StatusCode::OK);
    assert_eq!(queued.await.unwrap().status, StatusCode::OK);
    send(&mut socket, &spoken(1.0), 3200).await;
    assert_eq!(until(&mut socket, "intent").await["utterance"], 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn guesses_come_while_somebody_speaks() {
    let shop = Shop::with_model(Task::Multi, |_| {}).await;
    let served = serve(&shop).await;
    let mut socket = open(&served, "partials=true").await;
    send(&mut socket, &[silence(0.5), voice(2.0)].concat(), 3200).await;
    let guess = until(&mut socket, "partial").await;
    assert_eq!(guess["recognition"].as_object().unwrap().len(), 3, "{guess}");
    assert_eq!(guess["recognition"]["intent"], "add_to_cart");
    assert!(guess["utterance"] == 1 && guess["end_s"].as_f64().unwrap() <= 2.5, "{guess}");
    send(&mut socket, &silence(1.0), 3200).await;
    assert_eq!(until(&mut socket, "intent").await["start_s"], guess["start_s"]);
    // Guesses are no answers.
    assert_eq!(shop.get("/performance-stats").await.json["performance_metrics"]["total_requests"], 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_streams_have_their_own_answers() {
    let shop = Shop::open().await;
    let served = serve(&shop).await;
    let (mut a, mut b) = (open(&served, "top_k=1").await, open(&served, "top_k=2").await);
    let (one, two) = (spoken(1.0), spoken(2.0));
    for (of_one, of_two) in one.chunks(3000).zip(two.chunks(4000)) {
        send(&mut a, of_one, 1000).await;
        send(&mut b, of_two, 1001).await;
    }
    let (a, b) = (until(&mut a, "final").await, until(&mut b, "final").await);
    assert_eq!((&a["recognition"]["transcription"], &a["utterance"]), (&json!(ONE_SECOND), &json!(1)));
    assert_eq!((&b["recognition"]["transcription"], &b["utterance"]), (&json!(TWO_SECONDS), &json!(1)));
}

/// A shop with a key.
async fn guarded(change: impl FnOnce(&mut ServerConfig)) -> (Shop, String) {
    let key = generate().unwrap();
    let kept = ApiKey::of("shop", &key, Scope::ALL.to_vec());
    let shop = Shop::with(|config| {
        config.keys = vec![kept];
        change(config);
    })
    .await;
    (shop, key)
}

async fn token(shop: &Shop, key: &str, wanted: Value) -> String {
    let request = Request::post("/v1/tokens").header("authorization", format!("Bearer {key}"));
    let answer = shop.send(request.body(Body::from(wanted.to_string())).unwrap()).await;
    answer.json["token"].as_str().unwrap().to_owned()
}

/// Asks as a WebSocket does, without a socket: what is refused is refused before that matters.
fn handshake(query: &str, headers: &[(&'static str, &str)]) -> Request<Body> {
    let mut request = Request::get(format!("/v1/stream?{query}")).header("host", "shop.example");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(Body::empty()).unwrap()
}

#[tokio::test]
async fn who_may_not_open_a_stream_is_told_why() {
    const PAGE: &str = "https://page.example";
    let (shop, key) = guarded(|config| config.allowed_origins = vec![HeaderValue::from_static(PAGE)]).await;
    let words = token(&shop, &key, json!({"scopes": ["transcribe"]})).await;
    let of_page = token(&shop, &key, json!({"origin": PAGE})).await;
    let offer = |token: &str| format!("okyeame.v1, okyeame.token.{token}");
    shop.send(handshake("", &[])).await.is_error(401, "missing_key");
    shop.send(handshake("", &[("sec-websocket-protocol", "okyeame.v1")])).await.is_error(401, "missing_key");
    shop.send(handshake("", &[("sec-websocket-protocol", &offer("a.b.c"))])).await.is_error(401, "invalid_key");
    shop.send(handshake("", &[("sec-websocket-protocol", &offer(&words))])).await.is_error(403, "forbidden");
    let of_page = offer(&of_page);
    shop.send(handshake("", &[("sec-websocket-protocol", &of_page)])).await.is_error(403, "wrong_origin");
    let bearer = format!("Bearer {key}");
    let foreign = [("authorization", bearer.as_str()), ("origin", "https://evil.example")];
    shop.send(handshake("", &foreign)).await.is_error(403, "wrong_origin");
    // Let in, but for the socket that is none.
    for headers in [
        vec![("authorization", bearer.as_str())],
        vec![("authorization", bearer.as_str()), ("origin", "https://shop.example")],
        vec![("sec-websocket-protocol", of_page.as_str()), ("origin", PAGE)],
    ] {
        let answer = shop.send(handshake("", &headers)).await;
        answer.is_error(426, "not_a_websocket");
        assert_eq!(answer.headers["upgrade"], "websocket");
    }
}

#[tokio::test]
async fn a_server_without_keys_is_not_for_pages_of_other_sites() {
    let shop = Shop::open().await;
    for origin in ["https://evil.example", "null", "http://shop.example:81"] {
        shop.send(handshake("", &[("origin", origin)])).await.is_error(403, "wrong_origin");
    }
    shop.send(handshake("", &[("origin", "http://shop.example")])).await.is_error(426, "not_a_websocket");
    for (query, code) in [
        ("format=mp3", "invalid_parameter"),
        ("partials=x", "invalid_parameter"),
        ("top_k=0", "invalid_parameter"),
        ("language=xx", "unsupported_language"),
    ] {
        shop.send(handshake(query, &[])).await.is_error(422, code);
    }
    let posted = Request::post("/v1/stream").body(Body::empty()).unwrap();
    shop.send(posted).await.is_error(405, "method_not_allowed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_opens_a_stream_with_its_token_until_that_ends() {
    let (shop, key) = guarded(|_| {}).await;
    let served = serve(&shop).await;
    let offer = format!("okyeame.v1, okyeame.token.{}", token(&shop, &key, json!({"expires_in": 2})).await);
    let own = format!("http://{}", served.address);
    let headers = [("sec-websocket-protocol", offer.as_str()), ("origin", own.as_str())];
    let (mut socket, response) = try_open(served.address, "", &headers).await.unwrap();
    assert_eq!(response.headers()["sec-websocket-protocol"], "okyeame.v1");
    assert_eq!(event(&mut socket).await["type"], "ready");
    tokio::time::sleep(Duration::from_millis(3100)).await;
    send(&mut socket, &spoken(1.0), 3200).await;
    is_error(&until(&mut socket, "error").await, "token_expired");
    assert_eq!(close_code(&mut socket).await, 1008);
    assert_eq!(shop.control.started(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn each_utterance_counts_as_a_request_of_its_key() {
    // Opening the stream is the first.
    let (shop, key) = guarded(|config| config.requests_per_minute = 2).await;
    let served = serve(&shop).await;
    let bearer = format!("Bearer {key}");
    let (mut socket, _) = try_open(served.address, "", &[("authorization", &bearer)]).await.unwrap();
    assert_eq!(event(&mut socket).await["type"], "ready");
    send(&mut socket, &spoken(1.0), 3200).await;
    until(&mut socket, "final").await;
    for n in 2..=3 {
        send(&mut socket, &spoken(1.0), 3200).await;
        let error = until(&mut socket, "error").await;
        is_error(&error, "rate_limited");
        assert_eq!(error["utterance"], n, "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopping_server_answers_the_utterance_in_hand_and_ends_its_streams() {
    let shop = Shop::open().await;
    let served = serve(&shop).await;
    let (mut idle, mut speaking) = (open(&served, "").await, open(&served, "").await);
    send(&mut speaking, &[silence(0.5), voice(1.0)].concat(), 3200).await;
    until(&mut speaking, "speech_started").await;
    shop.server.begin_drain();
    served.stop.send(()).unwrap();
    is_error(&event(&mut idle).await, "draining");
    assert_eq!(close_code(&mut idle).await, 1001);
    shop.send(handshake("", &[])).await.is_error(503, "draining");
    assert!(!served.serving.is_finished(), "the server ended with an utterance in hand");
    send(&mut speaking, &silence(1.0), 3200).await;
    assert_eq!(until(&mut speaking, "final").await["recognition"]["transcription"], ONE_SECOND);
    is_error(&event(&mut speaking).await, "draining");
    assert_eq!(close_code(&mut speaking).await, 1001);
    tokio::time::timeout(LIMIT, served.serving).await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_is_a_connection_among_the_others() {
    let shop = Shop::with(|config| config.max_connections = 1).await;
    let served = serve(&shop).await;
    let socket = open(&served, "").await;
    let address = served.address;
    let second = tokio::spawn(async move { try_open(address, "", &[]).await.is_ok() });
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(!second.is_finished());
    drop(socket);
    assert!(tokio::time::timeout(LIMIT, second).await.unwrap().unwrap());
}
