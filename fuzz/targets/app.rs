//! Requests, as anybody may send them: the whole router without its socket, in front of an engine that answers at once.
//!
//! The first byte of the input chooses the route, the second in how large pieces the body comes (0: in one); the rest is
//! the body. Forms have the boundary `xx`.

use std::sync::{Arc, Mutex, OnceLock};

use axum::Router;
use axum::body::Body;
use axum::http::{Request, StatusCode, header};
use http_body_util::BodyExt;
use okyeame_core::audio::Waveform;
use okyeame_core::decoding::{Segment, Transcript};
use okyeame_core::{Error, IntentInfo, ModelInfo, Recognition, RecognizeOptions, Result};
use okyeame_server::config::ServerConfig;
use okyeame_server::engine::{AskedWords, CheckOptions, Engine};
use okyeame_server::{Server, app};
use serde_json::{Value, json};
use tokio::runtime::Runtime;
use tower::ServiceExt;

use crate::check;

const FORM: &str = "multipart/form-data; boundary=xx";
/// Append only: the corpus counts on the order.
const ROUTES: [(&str, &str); 6] = [
    ("/test-intent", FORM),
    ("/test-intent?top_k=2&transcribe=true&language=tw", FORM),
    ("/batch-intent", FORM),
    ("/v1/audio/transcriptions", FORM),
    ("/v1/audio/translations", FORM),
    ("/text-intent", "application/json"),
];

struct Shop {
    runtime: Runtime,
    app: Mutex<Router>,
}

impl Shop {
    fn open() -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        // Nothing is remembered from one input to the next.
        let config = ServerConfig { threads: 2, max_audio_s: 5.0, cache_bytes: 0, ..ServerConfig::default() };
        let app = runtime.block_on(async {
            let server = Server::start(config, || Ok(Box::new(Echo::new()) as Box<dyn Engine>)).expect("threads");
            server.loaded().await.expect("this engine loads");
            app(Arc::clone(&server))
        });
        Self { runtime, app: Mutex::new(app) }
    }
}

/// Says whether it was answered with 200.
pub(crate) fn run(input: &[u8]) -> bool {
    static SHOP: OnceLock<Shop> = OnceLock::new();
    let [route, piece_len, body @ ..] = input else { return false };
    let (path, content_type) = ROUTES[usize::from(*route) % ROUTES.len()];
    let request = Request::post(path).header(header::CONTENT_TYPE, content_type);
    let request = request.body(in_pieces(body, usize::from(*piece_len))).expect("a plain request");
    let shop = SHOP.get_or_init(Shop::open);
    let app = shop.app.lock().expect("no request panicked").clone();
    shop.runtime.block_on(answered(app, request, path))
}

async fn answered(app: Router, request: Request<Body>, path: &str) -> bool {
    let response = app.oneshot(request).await.expect("a router always answers");
    let (parts, body) = response.into_parts();
    let body = body.collect().await.expect("a whole answer").to_bytes();
    let text = String::from_utf8_lossy(&body);
    // The engine never fails, and one request at a time overloads nothing.
    assert!(!parts.status.is_server_error(), "{path}: {} {text}", parts.status);
    assert!(parts.headers.contains_key("x-request-id"), "{path}");
    if parts.status == StatusCode::OK {
        let is_json =
            parts.headers.get(header::CONTENT_TYPE).is_some_and(|kind| kind.as_bytes() == b"application/json");
        assert!(!is_json || serde_json::from_slice::<Value>(&body).is_ok(), "{path}: {text}");
        return true;
    }
    assert!(parts.status.is_client_error(), "{path}: {}", parts.status);
    let error: Value = serde_json::from_slice(&body).expect("an error is JSON");
    let field = |name: &str| error[name].as_str().unwrap_or_else(|| panic!("{path}: no {name} in {error}"));
    check::sentence(field("detail"));
    let code = field("code");
    assert!(!code.is_empty() && code.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'), "{path}: {code}");
    assert_eq!(parts.headers["x-request-id"].as_bytes(), field("request_id").as_bytes());
    false
}

/// A body that comes in pieces of so many bytes.
fn in_pieces(body: &[u8], len: usize) -> Body {
    if len == 0 {
        return Body::from(body.to_vec());
    }
    let pieces: Vec<std::io::Result<Vec<u8>>> = body.chunks(len).map(|piece| Ok(piece.to_vec())).collect();
    Body::from_stream(futures::stream::iter(pieces))
}

/// Answers at once, always the same.
struct Echo {
    info: ModelInfo,
    recognition: Recognition,
}

impl Echo {
    fn new() -> Self {
        let info = json!({
            "name": "fuzz", "architecture": "WhisperForConditionalGeneration", "model_type": "whisper", "task": "single",
            "transcription": true, "model_size": "base", "parameters": 1, "weight_format": "safetensors",
            "stored_dtype": "f32", "dtype": "f32", "device": "cpu", "device_reason": "asked for", "n_audio_state": 512,
            "n_audio_head": 8, "n_audio_layer": 6, "multilingual": true, "languages": ["en"], "labels": [],
            "fallbacks": [],
        });
        let recognition = json!({
            "filename": "", "intent": "add_to_cart", "confidence": 0.5, "accepted": true, "rejection": null,
            "transcription": null, "processing_time_ms": 0.0, "top_predictions": [], "slots": [], "risk": "undo",
            "intent_source": "transcript", "model_type": "whisper",
            "whisper_info": {"model_size": "base", "language": "tw", "decode_language": null,
                "transcription_confidence": null},
            "timings_ms": {"decode_audio": 0.0, "features": 0.0, "encoder": 0.0, "intent": 0.0, "transcript": 0.0,
                "queue": 0.0},
            "run": {"where": "local", "device": "cpu", "reason": "only_engine", "bytes_sent": 0}, "request_id": "",
        });
        Self {
            info: serde_json::from_value(info).expect("the schema of ModelInfo"),
            recognition: serde_json::from_value(recognition).expect("the schema of Recognition"),
        }
    }
}

impl Engine for Echo {
    fn recognize(&self, _: &Waveform, _: &RecognizeOptions) -> Result<Recognition> {
        Ok(self.recognition.clone())
    }

    fn recognize_text(&self, text: &str, _: &RecognizeOptions) -> Result<Recognition> {
        Ok(Recognition { transcription: Some(text.to_owned()), ..self.recognition.clone() })
    }

    fn transcribe(&self, waveform: &Waveform, asked: &AskedWords) -> Result<Transcript> {
        let text = asked.prompt.clone().unwrap_or_default();
        let segment = Segment { end_s: waveform.duration_s(), text: text.clone(), ..Segment::default() };
        Ok(Transcript { text, language: asked.language.clone(), segments: vec![segment], ..Transcript::default() })
    }

    fn info(&self) -> &ModelInfo {
        &self.info
    }

    fn intents(&self) -> &[IntentInfo] {
        &[]
    }

    fn options_check(&self) -> CheckOptions {
        CheckOptions::new(|options| {
            if !(1..=100).contains(&options.top_k) {
                return Err(Error::InvalidParameter { name: "top_k", allowed: "1 to 100".to_owned() });
            }
            match options.language.as_deref() {
                Some(language) if language.len() > 8 => {
                    Err(Error::UnsupportedLanguage { language: language.chars().take(16).collect() })
                }
                _ => Ok(()),
            }
        })
    }
}
