//! What the golden tests share: where the vectors lie, how they are read, how two arrays are compared, and how a
//! model folder is put together from the fixture's files.
//!
//! `tests/golden/README.md` says what each vector is and how near to it we have to come.

#![allow(dead_code, clippy::unwrap_used, reason = "every test file uses its own part; tests may unwrap")]

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::task::{Context, Poll, Waker};

use burn::tensor::{Device, Tensor, TensorData};
use okyeame_core::Result;
use okyeame_core::audio::{DecodeLimits, Waveform, decode};
use okyeame_core::decoding::DecodeOptions;
use okyeame_core::tokenizer::{SpeechTask, Tokenizer};
use okyeame_core::weights::folder::{ModelFolder, WhisperFiles};
use okyeame_core::whisper::{GenerationConfig, Whisper, WhisperOnDevice};
use safetensors::{Dtype, SafeTensors};
use serde::de::DeserializeOwned;
use serde_json::Value;
use tempfile::TempDir;

/// A file or folder among the golden vectors.
pub(crate) fn golden(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden").join(path)
}

/// The bytes of a file that has to be there.
pub(crate) fn bytes_of(path: &Path) -> Vec<u8> {
    std::fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// One of the golden JSON files.
pub(crate) fn json<T: DeserializeOwned>(path: &str) -> T {
    serde_json::from_slice(&bytes_of(&golden(path))).unwrap_or_else(|e| panic!("{path}: {e}"))
}

/// A sound file as 16 kHz mono.
pub(crate) fn sound(path: &Path) -> Waveform {
    decode(&bytes_of(path), &DecodeLimits::default()).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// One of the project's own clips.
pub(crate) fn clip(name: &str) -> Waveform {
    sound(&golden(&format!("clips/{name}.flac")))
}

/// The default model; `None`, and a word on stderr, where it is not there.
pub(crate) fn model_folder() -> Option<PathBuf> {
    let folder = std::env::var_os("OKYEAME_MODEL_DIR")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/whisper-base"), PathBuf::from);
    if folder.join("tokenizer.json").is_file() {
        return Some(folder);
    }
    assert!(std::env::var_os("CI").is_none(), "CI fetches the default model before it tests");
    eprintln!("not run: no model at {}; scripts/fetch_model.py gets it", folder.display());
    None
}

/// Runs a future to its end. On the CPU nothing has to be waited for.
pub(crate) fn block_on<F: Future>(future: F) -> F::Output {
    let mut future = std::pin::pin!(future);
    let mut context = Context::from_waker(Waker::noop());
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut context) {
            return output;
        }
        std::thread::yield_now();
    }
}

/// Numbers and their shape, row-major.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Array {
    pub(crate) shape: Vec<usize>,
    pub(crate) data: Vec<f32>,
}

impl Array {
    pub(crate) fn new(shape: &[usize], data: Vec<f32>) -> Self {
        assert_eq!(shape.iter().product::<usize>(), data.len(), "a shape of {shape:?}");
        Self { shape: shape.to_vec(), data }
    }

    /// What a tensor holds.
    pub(crate) fn of(tensor: Tensor<3>) -> Self {
        let shape = tensor.dims();
        Self::new(&shape, tensor.try_into_vec_as::<f32>().unwrap())
    }

    /// As a tensor on the CPU.
    pub(crate) fn tensor(&self) -> Tensor<3> {
        Tensor::from_data(TensorData::new(self.data.clone(), self.three_axes()), &Device::flex())
    }

    fn three_axes(&self) -> [usize; 3] {
        <[usize; 3]>::try_from(self.shape.as_slice()).unwrap()
    }

    /// Item `i` of the first axis, which stays, with length 1.
    pub(crate) fn item(&self, i: usize) -> Self {
        let n = self.data.len() / self.shape[0];
        let mut shape = self.shape.clone();
        shape[0] = 1;
        Self::new(&shape, self.data[i * n..(i + 1) * n].to_vec())
    }

    /// `[a, b, c]` to `[a, c, b]`: the reference's convolutions are channels-first, ours channels-last.
    pub(crate) fn transposed(&self) -> Self {
        let [a, b, c] = self.three_axes();
        let mut data = Vec::with_capacity(self.data.len());
        for i in 0..a {
            for k in 0..c {
                data.extend((0..b).map(|j| self.data[(i * b + j) * c + k]));
            }
        }
        Self::new(&[a, c, b], data)
    }

    /// `from..to` of the last axis.
    pub(crate) fn columns(&self, from: usize, to: usize) -> Self {
        let mut shape = self.shape.clone();
        let n = shape.pop().unwrap();
        let data = self.data.chunks(n).flat_map(|row| row[from..to].to_vec()).collect();
        shape.push(to - from);
        Self::new(&shape, data)
    }

    /// `from..to` of the axis before the last.
    pub(crate) fn rows(&self, from: usize, to: usize) -> Self {
        self.transposed().columns(from, to).transposed()
    }

    /// The rows of the last axis as token numbers.
    pub(crate) fn token_rows(&self) -> Vec<Vec<u32>> {
        let n = *self.shape.last().unwrap();
        self.data.chunks(n).map(|row| row.iter().map(|v| *v as u32).collect()).collect()
    }
}

/// The tensors of one golden file; whole numbers become `f32`, which holds them exactly.
pub(crate) struct Tensors(pub(crate) HashMap<String, Array>);

impl Tensors {
    pub(crate) fn read(path: &Path) -> Self {
        let bytes = bytes_of(path);
        let file = SafeTensors::deserialize(&bytes).unwrap();
        let read = |(name, view): (String, safetensors::tensor::TensorView<'_>)| {
            let words = view.data().as_chunks::<4>().0;
            let data: Vec<f32> = match view.dtype() {
                Dtype::F32 => words.iter().map(|w| f32::from_le_bytes(*w)).collect(),
                Dtype::I32 => words.iter().map(|w| i32::from_le_bytes(*w) as f32).collect(),
                other => panic!("{name} is {other:?}"),
            };
            let array = Array::new(view.shape(), data);
            (name, array)
        };
        Self(file.tensors().into_iter().map(read).collect())
    }

    pub(crate) fn get(&self, name: &str) -> &Array {
        self.0.get(name).unwrap_or_else(|| panic!("there is no golden tensor {name}"))
    }
}

/// The largest difference and where it is; NaN on one side is infinitely far.
pub(crate) fn worst(got: &[f32], expected: &[f32]) -> (usize, f32) {
    assert_eq!(got.len(), expected.len());
    let mut worst = (0, 0.0);
    for (i, (g, e)) in got.iter().zip(expected).enumerate() {
        let difference = if (g - e).is_nan() { f32::INFINITY } else { (g - e).abs() };
        if difference > worst.1 {
            worst = (i, difference);
        }
    }
    worst
}

/// Fails if any value is further than `atol` from its reference; prints the worst either way.
#[track_caller]
pub(crate) fn compare(name: &str, got: &Array, expected: &Array, atol: f32) {
    assert_eq!(got.shape, expected.shape, "{name}: the shape");
    assert!(!got.data.is_empty(), "{name}: nothing to compare");
    let (at, difference) = worst(&got.data, &expected.data);
    let mut index = Vec::new();
    let mut rest = at;
    for n in got.shape.iter().rev() {
        index.insert(0, rest % n);
        rest /= n;
    }
    let (g, e) = (got.data[at], expected.data[at]);
    eprintln!("{name}: worst {difference:.2e}, allowed {atol:.0e}, at {index:?}: {g} against {e}");
    assert!(difference <= atol, "{name}: {difference:.3e} > {atol:.0e} at {index:?}: {g} against {e}");
}

/// Fails if two numbers are further apart than `atol`.
#[track_caller]
pub(crate) fn compare_number(name: &str, got: f32, expected: f32, atol: f32) {
    compare(name, &Array::new(&[1], vec![got]), &Array::new(&[1], vec![expected]), atol);
}

/// `log(sum(exp(x)))`.
pub(crate) fn log_sum_exp(values: &[f32]) -> f32 {
    let max = values.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    max + values.iter().map(|v| (v - max).exp()).sum::<f32>().ln()
}

/// A model ready to decode with, and what its files say of decoding.
pub(crate) struct Loaded {
    pub(crate) model: WhisperOnDevice,
    pub(crate) tokenizer: Tokenizer,
    pub(crate) generation: GenerationConfig,
}

impl Loaded {
    pub(crate) fn open(folder: &Path) -> Result<Self> {
        Self::open_on(folder, Device::flex())
    }

    pub(crate) fn open_on(folder: &Path, device: Device) -> Result<Self> {
        let WhisperFiles { config, generation, tokenizer_json, weights } = ModelFolder::open(folder)?.into_whisper()?;
        let tokenizer_json = tokenizer_json.expect("the fixtures can write");
        let whisper = Whisper::load(config, &*weights, &device)?;
        let alignment_heads = generation.alignment_heads.clone().unwrap_or_default();
        Ok(Self {
            model: WhisperOnDevice { whisper, device, alignment_heads },
            tokenizer: Tokenizer::from_json(&tokenizer_json)?,
            generation,
        })
    }

    pub(crate) fn suppress(&self) -> Vec<u32> {
        tokens_of(self.generation.suppress_tokens.as_deref())
    }

    pub(crate) fn begin_suppress(&self) -> Vec<u32> {
        tokens_of(self.generation.begin_suppress_tokens.as_deref())
    }

    /// Greedy, one try, no thresholds: as the golden vectors were made.
    pub(crate) fn exact(&self, language: &str, task: SpeechTask, timestamps: bool) -> DecodeOptions {
        DecodeOptions {
            task,
            language: Some(language.to_owned()),
            timestamps,
            beam_size: 1,
            temperatures: vec![0.0],
            compression_ratio_threshold: None,
            logprob_threshold: None,
            no_speech_threshold: None,
            suppress: self.suppress(),
            begin_suppress: self.begin_suppress(),
            // 1.0 s is what OpenAI has, and what the base model's vectors were made with.
            max_initial_timestamp_index: self.generation.max_initial_timestamp_index.or(Some(50)),
            ..DecodeOptions::default()
        }
    }
}

fn tokens_of(list: Option<&[i64]>) -> Vec<u32> {
    list.unwrap_or_default().iter().map(|t| u32::try_from(*t).expect("the fixtures name tokens, not -1")).collect()
}

/// Files of `tests/golden/tiny-2` under the names that a model folder wants.
pub(crate) fn assemble(files: &[(&str, &str)]) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, source) in files {
        std::fs::write(folder.path().join(name), bytes_of(&golden("tiny-2").join(source))).unwrap();
    }
    folder
}

/// The small files of tiny-2 in Hugging Face's layout, and `weights`.
pub(crate) fn hugging_face_folder(weights: &[(&str, &str)]) -> TempDir {
    let small = ["config.json", "generation_config.json", "tokenizer.json"].map(|f| (f, f));
    assemble(&[&small[..], weights].concat())
}

/// The small files of tiny-2 in CTranslate2's layout, and `model_bin` as its weights.
pub(crate) fn ctranslate2_folder(model_bin: &str) -> TempDir {
    assemble(&[
        ("config.json", "ct2-float32/config.json"),
        ("vocabulary.json", "ct2-float32/vocabulary.json"),
        ("tokenizer.json", "tokenizer.json"),
        ("model.bin", model_bin),
    ])
}

/// A copy of one of the golden folders, for a test to spoil.
pub(crate) fn copy_of(name: &str) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for file in std::fs::read_dir(golden(name)).unwrap() {
        let file = file.unwrap();
        if file.file_type().unwrap().is_file() {
            std::fs::copy(file.path(), folder.path().join(file.file_name())).unwrap();
        }
    }
    folder
}

pub(crate) fn write(folder: &TempDir, file: &str, value: &Value) {
    std::fs::write(folder.path().join(file), value.to_string()).unwrap();
}

/// Changes one key of a folder's `config.json`; null takes it away.
pub(crate) fn set(folder: &TempDir, key: &str, value: Value) {
    let path = folder.path().join("config.json");
    let mut config: Value = serde_json::from_slice(&bytes_of(&path)).unwrap();
    match value {
        Value::Null => drop(config.as_object_mut().unwrap().remove(key)),
        value => config[key] = value,
    }
    write(folder, "config.json", &config);
}

/// The sentence that an error prints, checked for its code.
#[track_caller]
pub(crate) fn refused<T>(result: Result<T>, code: &str) -> String {
    match result {
        Ok(_) => panic!("accepted"),
        Err(error) => {
            assert_eq!(error.code(), code, "{error}");
            let sentence = error.to_string();
            assert!(!sentence.contains("/tmp"), "it tells a path: {sentence}");
            sentence
        }
    }
}
