//! Intent heads in every form that repositories have, against transformers' encoder and torch modules on top:
//! `tests/golden/heads`, made by `golden_heads.py`.
//!
//! The parts are put together here by hand, each folder's tensor names written down; that a folder is understood by
//! itself is tested in `model_folders.rs`. Tolerances: 1e-4 for hidden states and logits (the reference's own f32 is
//! 3e-6 off f64), 1e-5 for probabilities, which lie in 0..1. From a clip, the log-mel's own 1e-4 comes on top: 1e-3 for
//! logits. The smallest lead of a best class over the second is 0.2.

#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use burn::tensor::Device;
use common::{Array, Tensors, block_on, bytes_of, clip, compare, golden, json};
use okyeame_core::audio::{HOP_LENGTH, LogMelExtractor};
use okyeame_core::intent::calibration::softmax;
use okyeame_core::intent::head::{HeadActivation, HeadPooling, HeadSpec, HeadWindow, IntentHead};
use okyeame_core::intent::label_files::{check_count, read_labels};
use okyeame_core::intent::reader::Alphabet;
use okyeame_core::weights::pytorch::{PytorchFile, PytorchLimits};
use okyeame_core::weights::renamed::Renamed;
use okyeame_core::weights::safetensors::Safetensors;
use okyeame_core::weights::{Checkpoint, WeightSource};
use okyeame_core::whisper::model::expected_tensors;
use okyeame_core::whisper::{AudioEncoder, WhisperConfig};
use serde_json::Value;

const ATOL: f32 = 1e-4;
const ATOL_OF_PROBABILITIES: f32 = 1e-5;
const ATOL_FROM_A_CLIP: f32 = 1e-3;
/// The same computation in another order.
const ATOL_OF_ORDER: f32 = 1e-5;
const LINEAR: &[(&str, &str)] = &[("head.classifier.weight", "weight"), ("head.classifier.bias", "bias")];

/// Where a folder has what.
struct Folder {
    name: &'static str,
    weights: &'static str,
    /// Before the encoder's tensors.
    encoder: &'static str,
    /// Before the head's tensors.
    head: &'static str,
    /// House names of the head's tensors, and theirs.
    names: &'static [(&'static str, &'static str)],
}

static FOLDERS: [Folder; 7] = [
    Folder {
        name: "classification",
        weights: "model.safetensors",
        encoder: "encoder.",
        head: "",
        names: &[
            ("head.projector.weight", "projector.weight"),
            ("head.projector.bias", "projector.bias"),
            ("head.classifier.weight", "classifier.weight"),
            ("head.classifier.bias", "classifier.bias"),
        ],
    },
    Folder {
        name: "classification-weighted",
        weights: "pytorch_model.bin",
        encoder: "encoder.",
        head: "",
        names: &[
            ("head.layer_weights", "layer_weights"),
            ("head.projector.weight", "projector.weight"),
            ("head.projector.bias", "projector.bias"),
            ("head.classifier.weight", "classifier.weight"),
            ("head.classifier.bias", "classifier.bias"),
        ],
    },
    Folder {
        name: "one-encoder",
        weights: "model.safetensors",
        encoder: "model.encoder.",
        head: "intent_head.",
        names: LINEAR,
    },
    Folder {
        name: "one-encoder-mlp",
        weights: "model.safetensors",
        encoder: "whisper.model.encoder.",
        head: "intent_classifier.",
        names: &[
            ("head.hidden.weight", "0.weight"),
            ("head.hidden.bias", "0.bias"),
            ("head.classifier.weight", "3.weight"),
            ("head.classifier.bias", "3.bias"),
        ],
    },
    Folder {
        name: "multitask",
        weights: "pytorch_model.bin",
        encoder: "classification_model.encoder.",
        head: "classification_model.classifier.",
        names: LINEAR,
    },
    Folder {
        name: "multitask-shared",
        weights: "pytorch_model.bin",
        encoder: "transcription_model.model.encoder.",
        head: "classification_model.classifier.",
        names: LINEAR,
    },
    Folder {
        name: "head-only",
        weights: "model.safetensors",
        encoder: "",
        head: "",
        names: &[
            ("head.layer_weights", "layer_weights"),
            ("head.classifier.weight", "classifier.weight"),
            ("head.classifier.bias", "classifier.bias"),
        ],
    },
];

impl Folder {
    fn path(&self, file: &str) -> PathBuf {
        golden("heads").join(self.name).join(file)
    }

    /// The folder that the encoder is in.
    fn body(&self) -> PathBuf {
        if self.encoder.is_empty() { golden("tiny-multilingual") } else { golden("heads").join(self.name) }
    }

    fn weights(&self) -> Arc<dyn WeightSource> {
        let bytes = bytes_of(&self.path(self.weights));
        if self.weights.ends_with(".bin") {
            let limits = PytorchLimits { max_tensors: 1_000, max_bytes: 1 << 20 };
            Arc::new(PytorchFile::from_bytes(bytes, self.weights, &limits).unwrap())
        } else {
            Arc::new(Safetensors::from_bytes(bytes, self.weights).unwrap())
        }
    }

    /// Encoder and head of this folder.
    fn load(&self) -> (AudioEncoder, IntentHead) {
        let device = Device::flex();
        let file = self.weights();
        let config = WhisperConfig::from_json(&bytes_of(&self.body().join("config.json"))).unwrap();
        let encoder_file: Arc<dyn WeightSource> = if self.encoder.is_empty() {
            let bytes = bytes_of(&self.body().join("model.safetensors"));
            Arc::new(Safetensors::from_bytes(bytes, "model.safetensors").unwrap())
        } else {
            Arc::clone(&file)
        };
        let prefix = if self.encoder.is_empty() { "model.encoder." } else { self.encoder };
        let names: BTreeMap<String, String> = encoder_file
            .names()
            .into_iter()
            .filter_map(|name| Some((format!("model.encoder.{}", name.strip_prefix(prefix)?), name)))
            .collect();
        let mut expected = expected_tensors(&config);
        expected.retain(|(name, _)| name.starts_with("model.encoder."));
        let shown = Renamed::new(encoder_file, names);
        let checkpoint = Checkpoint::new(&shown, &expected, |_| false).unwrap();
        let encoder = AudioEncoder::load(&config, &checkpoint, &device).unwrap();

        let names =
            self.names.iter().map(|(shown, name)| ((*shown).to_owned(), format!("{}{name}", self.head))).collect();
        let shown = Renamed::new(file, names);
        let window = if self.encoder.is_empty() { HeadWindow::Fitted } else { HeadWindow::Full };
        let activation = HeadActivation::Relu;
        let spec = HeadSpec {
            n_state: config.d_model,
            n_layer: config.encoder_layers,
            window,
            activation,
            pooling: HeadPooling::Mean,
            alphabet: Alphabet::default(),
        };
        let expected = IntentHead::expected_tensors(&spec, &shown).unwrap();
        assert_eq!(expected.len(), self.names.len(), "{}: every name is expected", self.name);
        let checkpoint = Checkpoint::new(&shown, &expected, |_| false).unwrap();
        (encoder, IntentHead::load(spec, &checkpoint, &shown, &device).unwrap())
    }

    fn expected(&self) -> Value {
        json(&format!("heads/{}/expected.json", self.name))
    }

    /// The encoder's answer as the head wants it, and the head's.
    fn classify(&self, encoder: &AudioEncoder, head: &IntentHead, mel: &Array) -> Vec<Vec<f32>> {
        let states = if head.needs_all_states() {
            encoder.forward_all(mel.tensor()).unwrap()
        } else {
            vec![encoder.forward(mel.tensor()).unwrap()]
        };
        block_on(head.classify(states)).unwrap().into_iter().map(|answer| answer.logits).collect()
    }

    #[track_caller]
    fn check(&self, case: &str, logits: &[Vec<f32>], tensors: &Tensors, atol: f32, atol_of_probabilities: f32) {
        let expected = tensors.get(&format!("{case}.logits"));
        let got = Array::new(&[logits.len(), logits[0].len()], logits.concat());
        compare(&format!("{} {case}.logits", self.name), &got, expected, atol);
        let probabilities: Vec<Vec<f32>> = logits.iter().map(|row| softmax(row)).collect();
        let got = Array::new(&got.shape, probabilities.concat());
        let expected = tensors.get(&format!("{case}.probabilities"));
        compare(&format!("{} {case}.probabilities", self.name), &got, expected, atol_of_probabilities);
        let best: Vec<usize> = probabilities.iter().map(|row| best_of(row)).collect();
        assert_eq!(serde_json::json!(best), self.expected()["answers"][case]["argmax"], "{} {case}", self.name);
    }
}

fn best_of(values: &[f32]) -> usize {
    (0..values.len()).max_by(|a, b| values[*a].total_cmp(&values[*b])).unwrap()
}

/// The log-mel that every folder hears, cut to the frames of its `mel` case.
fn mel_for(folder: &Folder) -> Array {
    let n_frames = folder.expected()["answers"]["mel"]["n_frames"].as_u64().unwrap();
    let stages = Tensors::read(&golden("tiny-multilingual/stages.safetensors"));
    stages.get("encoder.input").columns(0, usize::try_from(n_frames).unwrap())
}

#[test]
fn hidden_states() {
    for folder in &FOLDERS {
        let (encoder, _) = folder.load();
        let tensors = Tensors::read(&folder.path("expected.safetensors"));
        let mel = mel_for(folder);
        let states = encoder.forward_all(mel.tensor()).unwrap();
        let n_states = tensors.0.keys().filter(|name| name.starts_with("hidden.")).count();
        assert_eq!(states.len(), n_states, "{}", folder.name);
        let output = Array::of(encoder.forward(mel.tensor()).unwrap());
        for (i, state) in states.into_iter().enumerate() {
            let state = Array::of(state);
            let name = format!("hidden.{i}");
            compare(&format!("{} {name}", folder.name), &state.item(0), tensors.get(&name), ATOL);
            if i + 1 == n_states {
                compare(&format!("{} the encoder's output", folder.name), &state, &output, ATOL_OF_ORDER);
            }
        }
    }
}

#[test]
fn answers_to_a_log_mel() {
    for folder in &FOLDERS {
        let (encoder, head) = folder.load();
        let tensors = Tensors::read(&folder.path("expected.safetensors"));
        let mel = mel_for(folder);
        let logits = folder.classify(&encoder, &head, &mel);
        folder.check("mel", &logits, &tensors, ATOL, ATOL_OF_PROBABILITIES);
        // A batch is its items.
        for (item, both) in logits.iter().enumerate() {
            let alone = folder.classify(&encoder, &head, &mel.item(item));
            let (alone, both) = (Array::new(&[both.len()], alone.concat()), Array::new(&[both.len()], both.clone()));
            compare(&format!("{} item {item} alone", folder.name), &alone, &both, ATOL_OF_ORDER);
        }
    }
}

#[test]
fn answers_to_a_clip() {
    for folder in &FOLDERS {
        let (encoder, head) = folder.load();
        let tensors = Tensors::read(&folder.path("expected.safetensors"));
        let expected = folder.expected();
        for (case, facts) in expected["answers"].as_object().unwrap().iter().filter(|(case, _)| *case != "mel") {
            let number = |value: &Value| usize::try_from(value.as_u64().unwrap()).unwrap();
            let (from, to) = (number(&facts["samples"][0]), number(&facts["samples"][1]));
            let waveform = clip(facts["clip"].as_str().unwrap());
            let extractor = LogMelExtractor::new(80);
            let n_samples = number(&facts["n_frames"]) * HOP_LENGTH;
            let mel = extractor.extract_padded(&waveform.samples()[from..to], n_samples).unwrap();
            let logits = folder.classify(&encoder, &head, &Array::new(&[1, mel.n_mels, mel.n_frames], mel.data));
            folder.check(case, &logits, &tensors, ATOL_FROM_A_CLIP, ATOL_FROM_A_CLIP);
        }
    }
}

#[test]
fn labels_and_sizes() {
    for folder in &FOLDERS {
        let (_, head) = folder.load();
        let expected = folder.expected();
        let bytes = |file: &str| std::fs::read(folder.path(file)).ok();
        let config: Value = serde_json::from_slice(&bytes("config.json").unwrap()).unwrap();
        let (intent_labels, label_map) = (bytes("intent_labels.json"), bytes("label_map.json"));
        let labels = read_labels(intent_labels.as_deref(), label_map.as_deref(), &config).unwrap().unwrap();
        assert_eq!(serde_json::json!(labels.names), expected["labels"], "{}", folder.name);
        assert_eq!(serde_json::json!(labels.file), expected["labels_from"], "{}", folder.name);
        assert!(labels.notes.is_empty(), "{}: {:?}", folder.name, labels.notes);
        check_count(&labels, head.n_classes()).unwrap();
        assert_eq!(serde_json::json!(head.n_parameters()), expected["n_head_parameters"], "{}", folder.name);
        assert_eq!(serde_json::json!(head.needs_all_states()), expected["head"]["layer_weights"], "{}", folder.name);
        assert_eq!(head.window() == HeadWindow::Fitted, expected["window"] == "fitted", "{}", folder.name);
    }
}

/// The fixtures tell a head that listens from one that does not: another clip, another answer, and a lead that no
/// rounding takes away.
#[test]
fn the_fixtures_are_lively() {
    for folder in &FOLDERS {
        let tensors = Tensors::read(&folder.path("expected.safetensors"));
        let (mel, clip) = (tensors.get("mel.logits"), tensors.get("clip.logits"));
        for (a, b) in [(mel.item(0), mel.item(1)), (mel.item(0), clip.item(0))] {
            assert!(common::worst(&a.data, &b.data).1 > 100.0 * ATOL, "{}", folder.name);
        }
        for (case, facts) in folder.expected()["answers"].as_object().unwrap() {
            let lead = facts["min_margin"].as_f64().unwrap();
            assert!(lead > 100.0 * f64::from(ATOL_FROM_A_CLIP), "{} {case}: {lead}", folder.name);
        }
    }
}
