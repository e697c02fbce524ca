//! Okyeame in a browser: [`okyeame_core::Recognizer`] behind JavaScript's types.
//!
//! A Web Worker (`js/worker.js`) reads a bundle's manifest, adds its parts as they arrive, and starts an engine. The
//! words' stage may follow later:
//!
//! ```js
//! const loader = new Loader(manifestBytes);
//! for (const { file } of loader.parts("intent")) loader.add(file, await bytesOf(file));
//! const engine = await loader.start({ device: "auto" });
//! const answer = await engine.recognize(samples, 48000, { top_k: 3 });
//! for (const { file } of engine.parts("words")) engine.add(file, await bytesOf(file));
//! engine.load_words();
//! ```
//!
//! Answers are plain objects in the schema of the HTTP API. Every error is an `Error` with a `code`.
//!
//! Two builds: one computes on the CPU only; the other (Cargo feature `webgpu`) on the browser's GPU as well, and is
//! larger. A GPU is trusted when its answer to a known sound is the one that the manifest has.
#![cfg(target_arch = "wasm32")]

mod device;
mod errors;

use std::cell::RefCell;
use std::rc::Rc;

use js_sys::{Array, Object, Uint8Array};
use okyeame_core::audio::{self, DecodeLimits, Waveform};
use okyeame_core::intent::catalogue::Catalogue;
use okyeame_core::weights::web_bundle::{StageName, WebBundle};
use okyeame_core::{Error, Recognition, RecognizeOptions, RunWhere};
use serde::{Deserialize, Serialize};
use wasm_bindgen::prelude::*;

use device::{DeviceWanted, DtypeWanted, Started};
use errors::{invalid_parameter, js_error};

/// What happens once, when the module starts: a panic says where it was.
#[wasm_bindgen(start)]
pub fn start() {
    console_error_panic_hook::set_once();
}

/// A bundle whose parts arrive.
#[wasm_bindgen]
#[derive(Debug)]
pub struct Loader {
    bundle: WebBundle,
}

/// A part that is to be fetched.
#[derive(Debug, Serialize)]
struct WantedPart<'a> {
    file: &'a str,
    bytes: u64,
    sha256: &'a str,
    stage: &'a str,
}

/// How an engine is started.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct StartOptions {
    /// Whether the words are wanted as well: the second stage must be there then.
    words: bool,
    device: DeviceWanted,
    dtype: DtypeWanted,
}

#[wasm_bindgen]
impl Loader {
    /// Reads `manifest.json`.
    #[wasm_bindgen(constructor)]
    pub fn new(manifest: &[u8]) -> Result<Loader, JsValue> {
        Ok(Self { bundle: WebBundle::new(manifest).map_err(js_error)? })
    }

    /// The parts of a stage, `"intent"` or `"words"`: `{file, bytes, sha256, stage}`, in order; none if the bundle has no
    /// such stage.
    pub fn parts(&self, stage: &str) -> Result<Array, JsValue> {
        parts(&self.bundle, stage)
    }

    /// Takes a part, if it is what the manifest says.
    pub fn add(&mut self, file: &str, bytes: &[u8]) -> Result<(), JsValue> {
        self.bundle.add_part(file, bytes).map_err(js_error)
    }

    /// Puts the model onto a device and asks it a known sound. The loader is used up.
    pub async fn start(self, options: JsValue) -> Result<Engine, JsValue> {
        let StartOptions { words, device, dtype } = from_js(options, &["words", "device", "dtype"])?;
        let started = device::start(&self.bundle, words, device, dtype).await.map_err(js_error)?;
        Ok(Engine { bundle: RefCell::new(self.bundle), started: RefCell::new(Rc::new(started)) })
    }
}

/// A model that answers.
#[wasm_bindgen]
#[derive(Debug)]
pub struct Engine {
    bundle: RefCell<WebBundle>,
    /// Shared with the answers that are under way.
    started: RefCell<Rc<Started>>,
}

const OPTIONS: &[&str] = &["top_k", "language", "transcribe", "beam_size", "filename", "request_id", "catalogue"];

/// As the HTTP API's parameters.
#[derive(Debug, Deserialize)]
#[serde(default)]
struct Options {
    top_k: usize,
    language: Option<String>,
    transcribe: bool,
    beam_size: usize,
    filename: String,
    request_id: String,
    /// The shop's own names, as the server's `catalogue` parameter has them.
    catalogue: Option<String>,
}

impl Default for Options {
    fn default() -> Self {
        let RecognizeOptions { top_k, transcribe, beam_size, .. } = RecognizeOptions::default();
        let (filename, request_id) = (String::new(), String::new());
        Self { top_k, language: None, transcribe, beam_size, filename, request_id, catalogue: None }
    }
}

impl Options {
    fn for_recognizer(&self, can_transcribe: bool) -> Result<RecognizeOptions, JsValue> {
        let catalogue = match &self.catalogue {
            Some(text) => Some(std::sync::Arc::new(Catalogue::parse(text.as_bytes()).map_err(js_error)?)),
            None => None,
        };
        Ok(RecognizeOptions {
            top_k: self.top_k,
            language: self.language.clone(),
            transcribe: self.transcribe && can_transcribe,
            beam_size: self.beam_size,
            catalogue,
        })
    }

    /// The answer with what only the caller knows.
    fn answer(self, mut answer: Recognition, engine: &Started, started: web_time::Instant) -> Result<JsValue, JsValue> {
        answer.filename = self.filename;
        answer.request_id = self.request_id;
        answer.run.place = RunWhere::Local;
        answer.run.reason = engine.compute.reason.clone();
        answer.run.bytes_sent = 0;
        answer.processing_time_ms = started.elapsed().as_secs_f64() * 1e3;
        to_js(&answer)
    }
}

#[wasm_bindgen]
impl Engine {
    /// Starts an engine from a manifest and its parts, `{file: Uint8Array}`, all at hand.
    pub async fn load(manifest: &[u8], parts: &Object, options: JsValue) -> Result<Engine, JsValue> {
        let mut loader = Loader::new(manifest)?;
        for entry in Object::entries(parts).iter() {
            let entry = Array::from(&entry);
            let file = entry.get(0).as_string().unwrap_or_default();
            let bytes: Uint8Array =
                entry.get(1).dyn_into().map_err(|_| invalid_parameter("parts", "each part is a Uint8Array"))?;
            loader.add(&file, &bytes.to_vec())?;
        }
        loader.start(options).await
    }

    /// As [`Loader::parts`].
    pub fn parts(&self, stage: &str) -> Result<Array, JsValue> {
        parts(&self.bundle.borrow(), stage)
    }

    /// As [`Loader::add`], for the second stage.
    pub fn add(&self, file: &str, bytes: &[u8]) -> Result<(), JsValue> {
        self.bundle.borrow_mut().add_part(file, bytes).map_err(js_error)
    }

    /// Takes the second stage into use, once all of its parts are there. Answers have their words from then on.
    pub fn load_words(&self) -> Result<(), JsValue> {
        let compute = self.started.borrow().compute.clone();
        let with_words = device::load(&self.bundle.borrow(), true, compute).map_err(js_error)?;
        *self.started.borrow_mut() = Rc::new(with_words);
        Ok(())
    }

    /// Where it computes, and why there: `{name: "wasm" | "webgpu", reason}`.
    pub fn device(&self) -> Result<JsValue, JsValue> {
        #[derive(Serialize)]
        struct DeviceInfo<'a> {
            name: &'a str,
            reason: &'a str,
        }
        let started = self.started.borrow();
        to_js(&DeviceInfo { name: started.compute.name, reason: &started.compute.reason })
    }

    /// Recognises samples of one channel at `sample_rate` Hz.
    pub async fn recognize(&self, samples: &[f32], sample_rate: u32, options: JsValue) -> Result<JsValue, JsValue> {
        let engine = Rc::clone(&self.started.borrow());
        let asked: Options = from_js(options, OPTIONS)?;
        let options = asked.for_recognizer(engine.recognizer.info().transcription)?;
        let waveform = waveform(samples, sample_rate).map_err(js_error)?;
        let started = web_time::Instant::now();
        let answer = engine.recognizer.recognize(&waveform, &options).await.map_err(js_error)?;
        asked.answer(answer, &engine, started)
    }

    /// What somebody wrote instead of saying it: the intent, matched from the words.
    pub fn recognize_text(&self, text: &str, options: JsValue) -> Result<JsValue, JsValue> {
        let engine = Rc::clone(&self.started.borrow());
        let asked: Options = from_js(options, OPTIONS)?;
        let options = asked.for_recognizer(false)?;
        let started = web_time::Instant::now();
        let answer = engine.recognizer.recognize_text(text, &options).map_err(js_error)?;
        asked.answer(answer, &engine, started)
    }

    /// What the model is, as `GET /model-info` tells it.
    pub fn info(&self) -> Result<JsValue, JsValue> {
        to_js(self.started.borrow().recognizer.info())
    }

    /// Gives the memory back. JavaScript may call it more than once.
    pub fn dispose(self) {}
}

/// Bytes of a sound file as samples of one channel at 16 kHz.
#[wasm_bindgen]
pub fn decode_audio(bytes: &[u8]) -> Result<Vec<f32>, JsValue> {
    Ok(audio::decode(bytes, &DecodeLimits::default()).map_err(js_error)?.into_samples())
}

fn waveform(samples: &[f32], sample_rate: u32) -> Result<Waveform, Error> {
    let limit_s = DecodeLimits::default().max_duration_s;
    if samples.len() as f64 > limit_s * f64::from(sample_rate.max(audio::MIN_RATE_HZ)) {
        return Err(Error::AudioTooLong { limit_s });
    }
    // What is not finite is found before it is spread by the resampler.
    let checked = Waveform::new(samples.to_vec())?;
    if sample_rate == audio::SAMPLE_RATE_HZ {
        return Ok(checked);
    }
    Waveform::new(audio::to_16khz(checked.samples(), sample_rate)?)
}

fn parts(bundle: &WebBundle, stage: &str) -> Result<Array, JsValue> {
    let name = [StageName::Intent, StageName::Words]
        .into_iter()
        .find(|name| name.name() == stage)
        .ok_or_else(|| invalid_parameter("stage", "'intent' or 'words'"))?;
    let parts = Array::new();
    for part in bundle.manifest().stage(name).into_iter().flat_map(|stage| &stage.parts) {
        parts.push(&to_js(&WantedPart { file: &part.file, bytes: part.bytes, sha256: &part.sha256, stage })?);
    }
    Ok(parts)
}

/// Plain objects, as `JSON.parse` would make them.
fn to_js(value: &impl Serialize) -> Result<JsValue, JsValue> {
    value
        .serialize(&serde_wasm_bindgen::Serializer::json_compatible())
        .map_err(|e| invalid_parameter("answer", &e.to_string()))
}

/// Reads an object of options. serde alone would pass over what it does not know, and a page would never learn of its
/// misspelling.
fn from_js<T: Default + for<'de> Deserialize<'de>>(value: JsValue, known: &[&str]) -> Result<T, JsValue> {
    if value.is_undefined() || value.is_null() {
        return Ok(T::default());
    }
    let options = value.dyn_ref::<Object>().ok_or_else(|| invalid_parameter("options", "an object"))?;
    let is_known = |key: &JsValue| key.as_string().is_some_and(|key| known.contains(&key.as_str()));
    if !Object::keys(options).iter().all(|key| is_known(&key)) {
        return Err(invalid_parameter("options", &format!("an object with {}", known.join(", "))));
    }
    serde_wasm_bindgen::from_value(value).map_err(|e| invalid_parameter("options", &e.to_string()))
}
