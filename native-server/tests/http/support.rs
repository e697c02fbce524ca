//! The test engine, requests built by hand, and small WAV files.

use std::io::Write;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderMap, Method, Request, StatusCode, header};
use http_body_util::BodyExt;
use okyeame_core::audio::Waveform;
use okyeame_core::decoding::{OnSegments, Segment, Transcript, Word, go_on};
use okyeame_core::device::DeviceMemory;
use okyeame_core::{
    Error, IntentInfo, IntentSource, ModelInfo, Prediction, Recognition, RecognizeOptions, Rejection, Result, Risk,
    RunInfo, RunWhere, Task, TimingsMs, WhisperInfo,
};
use okyeame_server::config::ServerConfig;
use okyeame_server::engine::{AskedWords, CheckOptions, Engine, MemoryProbe};
use okyeame_server::{Server, app};
use serde_json::Value;
use tower::ServiceExt;

/// The engine waits at the gate.
pub(crate) const WAIT: &str = "x-wait";
/// The engine panics.
pub(crate) const PANIC: &str = "x-panic";
/// The engine's device fails.
pub(crate) const FAIL: &str = "x-fail";
/// The engine waits at the gate behind the first window of a transcript.
pub(crate) const WAIT_LATER: &str = "x-wait-later";
/// The engine panics there.
pub(crate) const PANIC_LATER: &str = "x-panic-later";

/// What a test sees of the engine, and holds it by.
#[derive(Default)]
pub(crate) struct Control {
    open: Mutex<bool>,
    opened: Condvar,
    started: AtomicUsize,
    /// Clips of each pass.
    passes: Mutex<Vec<usize>>,
    windows: AtomicUsize,
    /// What a device would say that it holds.
    pub(crate) device_memory: Mutex<Option<DeviceMemory>>,
}

impl Control {
    /// Clips that reached the engine, the warm-up clip not counted.
    pub(crate) fn started(&self) -> usize {
        self.started.load(Ordering::SeqCst).saturating_sub(1)
    }

    /// How many clips each pass through the engine had, from the first after the warm-up on.
    pub(crate) fn passes(&self) -> Vec<usize> {
        self.passes.lock().unwrap().clone()
    }

    /// Windows of transcripts that were decoded.
    pub(crate) fn windows(&self) -> usize {
        self.windows.load(Ordering::SeqCst)
    }

    /// Lets everything through that waits, now and later.
    pub(crate) fn open(&self) {
        *self.open.lock().unwrap() = true;
        self.opened.notify_all();
    }

    /// Waits until somebody opens.
    pub(crate) fn wait(&self) {
        let open = self.open.lock().unwrap();
        let limit = Duration::from_secs(20);
        let (_open, waited) = self.opened.wait_timeout_while(open, limit, |open| !*open).unwrap();
        assert!(!waited.timed_out(), "nobody opened the gate");
    }
}

/// Stands for a model.
pub(crate) struct TestEngine {
    control: Arc<Control>,
    info: ModelInfo,
    intents: Vec<IntentInfo>,
    /// What a loud clip asks for, by this engine.
    command: String,
}

impl TestEngine {
    /// It hears intents (`multi`), or has them from the words.
    pub(crate) fn new(control: Arc<Control>, task: Task) -> Self {
        let intents = vec![intent_info(0, "go_home", Risk::None), intent_info(1, "add_to_cart", Risk::Undo)];
        let info = ModelInfo { task, ..model_info(&intents) };
        Self { control, info, intents, command: "add_to_cart".to_owned() }
    }

    /// Another mind in the same model: it says the same of itself.
    pub(crate) fn answering(self, command: &str) -> Self {
        Self { command: command.to_owned(), ..self }
    }

    /// Another model: of another name, for other labels.
    pub(crate) fn named(self, name: &str, command: &str) -> Self {
        let intents = vec![intent_info(0, "call_help", Risk::None), intent_info(1, command, Risk::Undo)];
        let info = ModelInfo {
            name: name.to_owned(),
            model_type: format!("whisper_{name}"),
            task: self.info.task,
            ..model_info(&intents)
        };
        Self { info, intents, ..self.answering(command) }
    }

    fn recognition(&self, waveform: &Waveform, options: &RecognizeOptions) -> Recognition {
        let mut recognition = recognition(waveform, options);
        recognition.model_type.clone_from(&self.info.model_type);
        for prediction in &mut recognition.top_predictions {
            prediction.intent.clone_from(&self.command);
        }
        if recognition.accepted {
            recognition.intent.clone_from(&self.command);
        }
        recognition
    }
}

impl Engine for TestEngine {
    fn recognize(&self, waveform: &Waveform, options: &RecognizeOptions) -> Result<Recognition> {
        self.control.started.fetch_add(1, Ordering::SeqCst);
        match options.language.as_deref() {
            Some(WAIT) => self.control.wait(),
            Some(PANIC) => panic!("the test engine panics at /secret/path"),
            Some(FAIL) => return Err(Error::Device { stage: "encoder" }),
            _ => {}
        }
        Ok(self.recognition(waveform, options))
    }

    fn recognize_all(&self, clips: &[(&Waveform, &RecognizeOptions)]) -> Vec<Result<Recognition>> {
        self.control.passes.lock().unwrap().push(clips.len());
        clips.iter().map(|(waveform, options)| self.recognize(waveform, options)).collect()
    }

    fn recognize_text(&self, text: &str, options: &RecognizeOptions) -> Result<Recognition> {
        let loud = Waveform::new(vec![0.5; 16_000])?;
        let transcription = Some(text.to_owned());
        Ok(Recognition { transcription, ..self.recognize(&loud, options)? })
    }

    fn transcribe(&self, waveform: &Waveform, asked: &AskedWords) -> Result<Transcript> {
        self.transcribe_in_pieces(waveform, asked, &mut go_on)
    }

    /// A window is a second; nobody speaks in the third one.
    fn transcribe_in_pieces(
        &self,
        waveform: &Waveform,
        asked: &AskedWords,
        on_segments: &mut OnSegments<'_>,
    ) -> Result<Transcript> {
        let language = asked.language.clone();
        self.recognize(waveform, &RecognizeOptions { language: language.clone(), ..RecognizeOptions::default() })?;
        let word = |text: &str, start_s, end_s| Word::new(text, start_s, end_s);
        let words = if asked.word_times { vec![word(" Kɔ", 0.0, 0.2), word(" cart", 0.2, 0.5)] } else { Vec::new() };
        let text = format!(" Kɔ cart{}", asked.prompt.as_deref().unwrap_or_default());
        let mut first = Some(Segment { text, tokens: vec![7], words, ..Segment::default() });
        let mut transcript =
            Transcript { language: Some(language.clone().unwrap_or_else(|| "en".to_owned())), ..Transcript::default() };
        for window in 0..waveform.duration_s().ceil().max(1.0) as usize {
            match language.as_deref().filter(|_| window == 1) {
                Some(WAIT_LATER) => self.control.wait(),
                Some(PANIC_LATER) => panic!("the test engine panics at /secret/path"),
                _ => {}
            }
            self.control.windows.fetch_add(1, Ordering::SeqCst);
            let next = || Segment { text: format!(" na {window}. "), tokens: vec![8], ..Segment::default() };
            let mut segment = first.take().unwrap_or_else(next);
            segment.start_s = window as f64;
            segment.end_s = waveform.duration_s().min(window as f64 + 1.0);
            let before = transcript.segments.len();
            if window != 2 {
                transcript.text.push_str(&segment.text);
                transcript.segments.push(segment);
            }
            if on_segments(&transcript.segments[before..]).is_break() {
                break;
            }
        }
        Ok(transcript)
    }

    fn memory_probe(&self) -> Option<MemoryProbe> {
        let control = Arc::clone(&self.control);
        Some(MemoryProbe::new(move || *control.device_memory.lock().unwrap()))
    }

    fn info(&self) -> &ModelInfo {
        &self.info
    }

    fn intents(&self) -> &[IntentInfo] {
        &self.intents
    }

    fn options_check(&self) -> CheckOptions {
        CheckOptions::new(|options| {
            if !(1..=100).contains(&options.top_k) {
                return Err(Error::InvalidParameter { name: "top_k", allowed: "1 to 100".to_owned() });
            }
            match options.language.as_deref() {
                None | Some("tw" | "en" | WAIT | PANIC | FAIL | WAIT_LATER | PANIC_LATER) => Ok(()),
                Some(other) => Err(Error::UnsupportedLanguage { language: other.chars().take(16).collect() }),
            }
        })
    }
}

fn intent_info(id: usize, intent: &str, risk: Risk) -> IntentInfo {
    IntentInfo {
        id,
        intent: intent.to_owned(),
        means: Some(format!("the customer wants {intent}")),
        risk,
        slots: vec!["quantity".to_owned()],
    }
}

/// A loud clip is a command, a silent one is not; the words tell how long it was.
fn recognition(waveform: &Waveform, options: &RecognizeOptions) -> Recognition {
    let silent = waveform.samples().iter().all(|s| s.abs() < 1e-3);
    let prediction = Prediction { intent: "add_to_cart".to_owned(), confidence: 0.9, index: 0, label_id: 1 };
    Recognition {
        filename: String::new(),
        intent: if silent { "unknown" } else { "add_to_cart" }.to_owned(),
        confidence: if silent { 0.0 } else { 0.9 },
        accepted: !silent,
        rejection: silent.then_some(Rejection::NoSpeech),
        transcription: options.transcribe.then(|| format!("{:.1} s", waveform.duration_s())),
        processing_time_ms: 0.0,
        top_predictions: vec![prediction; options.top_k.min(2)],
        slots: Vec::new(),
        risk: Risk::Undo,
        intent_source: IntentSource::Transcript,
        model_type: "whisper".to_owned(),
        whisper_info: WhisperInfo {
            model_size: "base".to_owned(),
            language: options.language.clone().unwrap_or_else(|| "tw".to_owned()),
            decode_language: Some("sw".to_owned()),
            transcription_confidence: Some(0.8),
        },
        timings_ms: TimingsMs { encoder: 3.0, ..TimingsMs::default() },
        run: RunInfo {
            place: RunWhere::Local,
            device: "cpu".to_owned(),
            reason: "only_engine".to_owned(),
            bytes_sent: 0,
        },
        request_id: String::new(),
        cached: false,
    }
}

fn model_info(intents: &[IntentInfo]) -> ModelInfo {
    ModelInfo {
        name: "test".to_owned(),
        architecture: "WhisperForConditionalGeneration".to_owned(),
        model_type: "whisper".to_owned(),
        task: Task::Single,
        transcription: true,
        base: None,
        model_size: "base".to_owned(),
        parameters: 1,
        weight_format: "safetensors".to_owned(),
        stored_dtype: "f32".to_owned(),
        dtype: "f32".to_owned(),
        device: "cpu".to_owned(),
        device_reason: "asked for".to_owned(),
        n_mels: Some(80),
        n_audio_ctx: Some(1500),
        n_audio_state: 512,
        n_audio_head: 8,
        n_audio_layer: 6,
        n_text_ctx: Some(448),
        n_text_layer: Some(6),
        n_vocab: Some(51865),
        multilingual: true,
        languages: vec!["en".to_owned(), "sw".to_owned()],
        head_window: None,
        labels: intents.iter().map(|info| info.intent.clone()).collect(),
        fallbacks: Vec::new(),
    }
}

/// A server with the test engine, warm.
pub(crate) struct Shop {
    pub(crate) app: Router,
    pub(crate) server: Arc<Server>,
    pub(crate) control: Arc<Control>,
    pub(crate) config: ServerConfig,
}

impl Shop {
    pub(crate) async fn open() -> Self {
        Self::with(|_| {}).await
    }

    /// A shop whose settings `change` changes.
    pub(crate) async fn with(change: impl FnOnce(&mut ServerConfig)) -> Self {
        Self::with_model(Task::Single, change).await
    }

    pub(crate) async fn with_model(task: Task, change: impl FnOnce(&mut ServerConfig)) -> Self {
        let mut config = ServerConfig { threads: 2, request_timeout_s: 20.0, ..ServerConfig::default() };
        change(&mut config);
        let control = Arc::new(Control::default());
        let engine = TestEngine::new(Arc::clone(&control), task);
        let server = Server::start(config.clone(), move || Ok(Box::new(engine) as Box<dyn Engine>)).unwrap();
        server.loaded().await.unwrap();
        Self { app: app(Arc::clone(&server)), server, control, config }
    }

    pub(crate) async fn send(&self, request: Request<Body>) -> Answer {
        send(self.app.clone(), request).await
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.send(Request::get(path).body(Body::empty()).unwrap()).await
    }

    /// Sends without waiting for the answer.
    pub(crate) fn start(&self, request: Request<Body>) -> tokio::task::JoinHandle<Answer> {
        tokio::spawn(send(self.app.clone(), request))
    }

    /// A clip that must be answered: whatever happened before, the next customer is served.
    pub(crate) async fn still_answers(&self) {
        let answer = self.send(Form::new().file("file", "next.wav", &tone(0.3)).post("/test-intent?top_k=2")).await;
        assert_eq!(answer.status, StatusCode::OK, "{:?}", answer.json);
    }

    /// Waits until so many clips wait for the model.
    pub(crate) async fn until_queued(&self, n: u64) {
        let begin = Instant::now();
        while self.get("/performance-stats").await.json["optimization_status"]["queue_length"] != n {
            assert!(begin.elapsed() < Duration::from_secs(10), "the queue never held {n} clips");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    /// Waits until so many clips have reached the engine.
    pub(crate) async fn until_started(&self, n: usize) {
        let begin = Instant::now();
        while self.control.started() < n {
            assert!(begin.elapsed() < Duration::from_secs(10), "the engine never got {n} clips");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
}

/// A response, read whole.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    /// `null` for a body that is no JSON.
    pub(crate) json: Value,
    /// The body as text.
    pub(crate) text: String,
}

impl Answer {
    /// Asserts an error of the contract: status, code, a sentence, and the request id in body and header.
    #[track_caller]
    pub(crate) fn is_error(&self, status: u16, code: &str) {
        assert_eq!((self.status.as_u16(), self.json["code"].as_str()), (status, Some(code)), "{:?}", self.json);
        let detail = self.json["detail"].as_str().expect("a detail");
        assert!(detail.len() > 10 && !detail.contains("panicked") && !detail.contains("secret"), "{detail}");
        assert_eq!(self.headers["x-request-id"].to_str().unwrap(), self.json["request_id"], "{:?}", self.json);
        assert_eq!(self.json.as_object().unwrap().len(), 3, "{:?}", self.json);
    }
}

pub(crate) async fn send(app: Router, request: Request<Body>) -> Answer {
    let response = app.oneshot(request).await.unwrap();
    let (parts, body) = response.into_parts();
    let bytes = body.collect().await.unwrap().to_bytes();
    let text = String::from_utf8_lossy(&bytes).into_owned();
    Answer {
        status: parts.status,
        headers: parts.headers,
        json: serde_json::from_slice(&bytes).unwrap_or_default(),
        text,
    }
}

/// A multipart form, byte by byte.
#[derive(Clone)]
pub(crate) struct Form {
    body: Vec<u8>,
}

const BOUNDARY: &str = "okyeame-test-boundary";

impl Form {
    pub(crate) fn new() -> Self {
        Self { body: Vec::new() }
    }

    pub(crate) fn file(mut self, name: &str, filename: &str, bytes: &[u8]) -> Self {
        write!(self.body, "--{BOUNDARY}\r\nContent-Disposition: form-data; name=\"{name}\"; filename=\"").unwrap();
        self.body.extend_from_slice(filename.as_bytes());
        self.body.extend_from_slice(b"\"\r\nContent-Type: application/octet-stream\r\n\r\n");
        self.body.extend_from_slice(bytes);
        self.body.extend_from_slice(b"\r\n");
        self
    }

    pub(crate) fn text(mut self, name: &str, value: &[u8]) -> Self {
        write!(self.body, "--{BOUNDARY}\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n").unwrap();
        self.body.extend_from_slice(value);
        self.body.extend_from_slice(b"\r\n");
        self
    }

    /// The body with its closing boundary.
    pub(crate) fn bytes(mut self) -> Vec<u8> {
        write!(self.body, "--{BOUNDARY}--\r\n").unwrap();
        self.body
    }

    pub(crate) fn content_type() -> String {
        format!("multipart/form-data; boundary={BOUNDARY}")
    }

    pub(crate) fn post(self, path: &str) -> Request<Body> {
        Request::builder()
            .method(Method::POST)
            .uri(path)
            .header(header::CONTENT_TYPE, Self::content_type())
            .body(Body::from(self.bytes()))
            .unwrap()
    }
}

/// One file, asked of `/test-intent`.
pub(crate) fn ask(bytes: &[u8], query: &str) -> Request<Body> {
    Form::new().file("file", "clip.wav", bytes).post(&format!("/test-intent?{query}"))
}

/// A mono WAV file: the 44-byte header and the samples' bytes.
pub(crate) fn wav(format_tag: u16, bits: u16, rate_hz: u32, samples: &[u8]) -> Vec<u8> {
    let mut file = Vec::with_capacity(44 + samples.len());
    let block = bits / 8;
    file.extend_from_slice(b"RIFF");
    file.extend_from_slice(&(36 + samples.len() as u32).to_le_bytes());
    file.extend_from_slice(b"WAVEfmt ");
    file.extend_from_slice(&16_u32.to_le_bytes());
    file.extend_from_slice(&format_tag.to_le_bytes());
    file.extend_from_slice(&1_u16.to_le_bytes()); // channels
    file.extend_from_slice(&rate_hz.to_le_bytes());
    file.extend_from_slice(&(rate_hz * u32::from(block)).to_le_bytes());
    file.extend_from_slice(&block.to_le_bytes());
    file.extend_from_slice(&bits.to_le_bytes());
    file.extend_from_slice(b"data");
    file.extend_from_slice(&(samples.len() as u32).to_le_bytes());
    file.extend_from_slice(samples);
    file
}

/// A tone of 440 Hz, 16 kHz, 16 bits.
pub(crate) fn tone(seconds: f64) -> Vec<u8> {
    let n = (seconds * 16_000.0) as usize;
    let sample = |i: usize| ((i as f64 * 440.0 / 16_000.0 * std::f64::consts::TAU).sin() * 8000.0) as i16;
    let bytes: Vec<u8> = (0..n).flat_map(|i| sample(i).to_le_bytes()).collect();
    wav(1, 16, 16_000, &bytes)
}

/// Silence, 16 kHz, 16 bits.
pub(crate) fn silence(seconds: f64) -> Vec<u8> {
    wav(1, 16, 16_000, &vec![0; (seconds * 16_000.0) as usize * 2])
}
