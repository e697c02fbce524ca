//! Okyeame in a browser: [`okyeame_core::Recognizer`] behind JavaScript's types.
//!
//! A page, or better a Web Worker, reads a bundle's manifest, adds its parts as they arrive, and starts an engine:
//!
//! ```js
//! const loader = new Loader(manifestBytes);
//! for (const { file } of loader.parts(false)) loader.add(file, await bytesOf(file));
//! const engine = await loader.start();
//! const answer = await engine.recognize(samples, 48000, { top_k: 3 });
//! ```
//!
//! Answers are plain objects in the schema of the HTTP API. Every error is an `Error` with a `code`.
#![cfg(target_arch = "wasm32")]

mod errors;

use js_sys::{Array, Object, Uint8Array};
use okyeame_core::audio::{self, DecodeLimits, Waveform};
use okyeame_core::device::Compute;
use okyeame_core::intent::catalogue::Catalogue;
use okyeame_core::recognizer::LoadOptions;
use okyeame_core::weights::web_bundle::{StageName, WebBundle};
use okyeame_core::{Error, RecognizeOptions, Recognizer, RunWhere};
use serde::{Deserialize, Serialize};
use wasm_bindgen::prelude::*;

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
#[serde(default, deny_unknown_fields)]
struct StartOptions {
    /// Whether the words are wanted as well: the second stage must be there then.
    words: bool,
}

#[wasm_bindgen]
impl Loader {
    /// Reads `manifest.json`.
    #[wasm_bindgen(constructor)]
    pub fn new(manifest: &[u8]) -> Result<Loader, JsValue> {
        Ok(Self { bundle: WebBundle::new(manifest).map_err(js_error)? })
    }

    /// The parts that are needed, `{file, bytes, sha256, stage}`, in the order in which they are needed.
    pub fn parts(&self, words: bool) -> Result<Array, JsValue> {
        let parts = Array::new();
        for stage in &self.bundle.manifest().stages {
            if stage.name == StageName::Words && !words {
                continue;
            }
            for part in &stage.parts {
                let stage = stage.name.name();
                let part = WantedPart { file: &part.file, bytes: part.bytes, sha256: &part.sha256, stage };
                parts.push(&to_js(&part)?);
            }
        }
        Ok(parts)
    }

    /// Takes a part, if it is what the manifest says.
    pub fn add(&mut self, file: &str, bytes: &[u8]) -> Result<(), JsValue> {
        self.bundle.add_part(file, bytes).map_err(js_error)
    }

    /// Puts the model onto the device. The loader is used up.
    pub async fn start(self, options: JsValue) -> Result<Engine, JsValue> {
        let StartOptions { words } = from_js(options, "options")?;
        let check = self.bundle.manifest().check.clone();
        let folder = self.bundle.into_folder(words).map_err(js_error)?;
        let options = LoadOptions { compute: Compute::cpu(), task: None };
        let recognizer = Recognizer::from_folder(folder, options).map_err(js_error)?;
        if let Some(check) = check {
            let answer = recognizer.probe().await.map_err(js_error)?;
            check.hold(&answer).map_err(js_error)?;
        }
        Ok(Engine { recognizer })
    }
}

/// A model that answers.
#[wasm_bindgen]
#[derive(Debug)]
pub struct Engine {
    recognizer: Recognizer,
}

/// As the HTTP API's parameters.
#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
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

    /// Recognises samples of one channel at `sample_rate` Hz.
    pub async fn recognize(&self, samples: &[f32], sample_rate: u32, options: JsValue) -> Result<JsValue, JsValue> {
        let asked: Options = from_js(options, "options")?;
        let catalogue = match &asked.catalogue {
            Some(text) => Some(std::sync::Arc::new(Catalogue::parse(text.as_bytes()).map_err(js_error)?)),
            None => None,
        };
        let options = RecognizeOptions {
            top_k: asked.top_k,
            language: asked.language,
            transcribe: asked.transcribe && self.recognizer.info().transcription,
            beam_size: asked.beam_size,
            catalogue,
        };
        let waveform = waveform(samples, sample_rate).map_err(js_error)?;
        let started = web_time::Instant::now();
        let mut answer = self.recognizer.recognize(&waveform, &options).await.map_err(js_error)?;
        answer.filename = asked.filename;
        answer.request_id = asked.request_id;
        answer.run.place = RunWhere::Local;
        answer.run.reason = "in_the_browser".to_owned();
        answer.run.bytes_sent = 0;
        answer.processing_time_ms = started.elapsed().as_secs_f64() * 1e3;
        to_js(&answer)
    }

    /// What the model is, as `GET /model-info` tells it.
    pub fn info(&self) -> Result<JsValue, JsValue> {
        to_js(self.recognizer.info())
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
    if samples.len() as f64 > limit_s * f64::from(sample_rate.max(1)) {
        return Err(Error::AudioTooLong { limit_s });
    }
    // What is not finite is found before it is spread by the resampler.
    let checked = Waveform::new(samples.to_vec())?;
    if sample_rate == audio::SAMPLE_RATE_HZ {
        return Ok(checked);
    }
    Waveform::new(audio::to_16khz(checked.samples(), sample_rate)?)
}

/// Plain objects, as `JSON.parse` would make them.
fn to_js(value: &impl Serialize) -> Result<JsValue, JsValue> {
    value
        .serialize(&serde_wasm_bindgen::Serializer::json_compatible())
        .map_err(|e| invalid_parameter("answer", &e.to_string()))
}

fn from_js<T: Default + for<'de> Deserialize<'de>>(value: JsValue, name: &'static str) -> Result<T, JsValue> {
    if value.is_undefined() || value.is_null() {
        return Ok(T::default());
    }
    serde_wasm_bindgen::from_value(value).map_err(|e| invalid_parameter(name, &e.to_string()))
}
