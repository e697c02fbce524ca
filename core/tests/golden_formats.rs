//! One model, tiny-2, in every file format that is read: value by value against its f32 weights, and its logits
//! against the reference's.
//!
//! | weights | largest difference of the encoder's output (largest value 3.7) | of a logit (largest 7.2) |
//! |---|---|---|
//! | f32: safetensors, PyTorch (old and new), shards of either, CTranslate2 float32 | 1e-4 | 1e-4 |
//! | f16: safetensors, PyTorch, CTranslate2 float16 | 2e-2 (0.009) | 2e-2 (0.009) |
//! | bf16: safetensors, CTranslate2 bfloat16 | 1e-1 (0.048) | 1e-1 (0.049) |
//! | int16: CTranslate2 int16 | 1e-1 (0.042) | 5e-2 (0.015) |
//! | int8: CTranslate2 int8, int8_float16 | 5e-1 (0.29) | 2.5e-1 (0.13) |
//!
//! In brackets what numpy finds with the same weights widened to f32: rounding of the weights, nothing of ours. How
//! the weights are read is checked much more sharply, by `values_are_the_formats_own_rounding`.

#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use std::collections::HashMap;
use std::path::Path;

use common::{Array, Loaded, Tensors, compare, ctranslate2_folder, golden, hugging_face_folder};
use half::f16;
use okyeame_core::weights::folder::{ModelFolder, WhisperFiles};
use okyeame_core::whisper::model::expected_tensors;
use tempfile::TempDir;

/// How a format rounds a weight.
#[derive(Clone, Copy, PartialEq)]
enum Rounding {
    None,
    Half,
    /// To bfloat16: 8 bits of mantissa.
    Brain,
    /// Matrices and convolutions to int16 with one scale a tensor; a fused projection is one tensor.
    Int16,
    /// Matrices and convolutions to int8 with one scale a row; `true`: all else to half precision.
    Int8(bool),
}

struct Format {
    name: &'static str,
    folder: fn() -> TempDir,
    /// As [`okyeame_core::weights::WeightSource::format`] calls it.
    format: &'static str,
    rounding: Rounding,
    encoder_atol: f32,
    logits_atol: f32,
}

static FORMATS: [Format; 14] = [
    Format {
        name: "safetensors f32",
        folder: || hugging_face_folder(&[("model.safetensors", "model.safetensors")]),
        format: "safetensors",
        rounding: Rounding::None,
        encoder_atol: 1e-4,
        logits_atol: 1e-4,
    },
    Format {
        name: "safetensors f16",
        folder: || hugging_face_folder(&[("model.safetensors", "f16/model.safetensors")]),
        format: "safetensors",
        rounding: Rounding::Half,
        encoder_atol: 2e-2,
        logits_atol: 2e-2,
    },
    Format {
        name: "safetensors in shards",
        folder: || {
            hugging_face_folder(&[
                ("model.safetensors.index.json", "sharded/model.safetensors.index.json"),
                ("model-00001-of-00002.safetensors", "sharded/model-00001-of-00002.safetensors"),
                ("model-00002-of-00002.safetensors", "sharded/model-00002-of-00002.safetensors"),
            ])
        },
        format: "safetensors",
        rounding: Rounding::None,
        encoder_atol: 1e-4,
        logits_atol: 1e-4,
    },
    Format {
        name: "safetensors bf16",
        folder: || hugging_face_folder(&[("model.safetensors", "bf16/model.safetensors")]),
        format: "safetensors",
        rounding: Rounding::Brain,
        encoder_atol: 1e-1,
        logits_atol: 1e-1,
    },
    Format {
        name: "PyTorch f32",
        folder: || hugging_face_folder(&[("pytorch_model.bin", "pytorch_model.bin")]),
        format: "pytorch",
        rounding: Rounding::None,
        encoder_atol: 1e-4,
        logits_atol: 1e-4,
    },
    Format {
        name: "PyTorch before 1.6",
        folder: || hugging_face_folder(&[("pytorch_model.bin", "legacy/pytorch_model.bin")]),
        format: "pytorch",
        rounding: Rounding::None,
        encoder_atol: 1e-4,
        logits_atol: 1e-4,
    },
    Format {
        name: "PyTorch f16",
        folder: || hugging_face_folder(&[("pytorch_model.bin", "pytorch-f16/pytorch_model.bin")]),
        format: "pytorch",
        rounding: Rounding::Half,
        encoder_atol: 2e-2,
        logits_atol: 2e-2,
    },
    Format {
        name: "PyTorch in shards",
        folder: || {
            hugging_face_folder(&[
                ("pytorch_model.bin.index.json", "pytorch_sharded/pytorch_model.bin.index.json"),
                ("pytorch_model-00001-of-00002.bin", "pytorch_sharded/pytorch_model-00001-of-00002.bin"),
                ("pytorch_model-00002-of-00002.bin", "pytorch_sharded/pytorch_model-00002-of-00002.bin"),
            ])
        },
        format: "pytorch",
        rounding: Rounding::None,
        encoder_atol: 1e-4,
        logits_atol: 1e-4,
    },
    Format {
        name: "CTranslate2 float32",
        folder: || ctranslate2_folder("ct2-float32/model.bin"),
        format: "ctranslate2",
        rounding: Rounding::None,
        encoder_atol: 1e-4,
        logits_atol: 1e-4,
    },
    Format {
        name: "CTranslate2 float16",
        folder: || ctranslate2_folder("ct2-float16/model.bin"),
        format: "ctranslate2",
        rounding: Rounding::Half,
        encoder_atol: 2e-2,
        logits_atol: 2e-2,
    },
    Format {
        name: "CTranslate2 bfloat16",
        folder: || ctranslate2_folder("ct2-bfloat16/model.bin"),
        format: "ctranslate2",
        rounding: Rounding::Brain,
        encoder_atol: 1e-1,
        logits_atol: 1e-1,
    },
    Format {
        name: "CTranslate2 int16",
        folder: || ctranslate2_folder("ct2-int16/model.bin"),
        format: "ctranslate2",
        rounding: Rounding::Int16,
        encoder_atol: 1e-1,
        logits_atol: 5e-2,
    },
    Format {
        name: "CTranslate2 int8",
        folder: || ctranslate2_folder("ct2-int8/model.bin"),
        format: "ctranslate2",
        rounding: Rounding::Int8(false),
        encoder_atol: 5e-1,
        logits_atol: 2.5e-1,
    },
    Format {
        name: "CTranslate2 int8_float16",
        folder: || ctranslate2_folder("ct2-int8_float16/model.bin"),
        format: "ctranslate2",
        rounding: Rounding::Int8(true),
        encoder_atol: 5e-1,
        logits_atol: 2.5e-1,
    },
];

#[test]
fn every_format_gives_the_same_logits() {
    let stages = Tensors::read(&golden("tiny-2/stages.safetensors"));
    let tokens = stages.get("decoder.tokens").token_rows();
    for format in &FORMATS {
        let folder = (format.folder)();
        let loaded = Loaded::open(folder.path()).unwrap_or_else(|e| panic!("{}: {e}", format.name));
        let whisper = &loaded.model.whisper;
        let encoding = Array::of(whisper.encoder.forward(stages.get("encoder.input").tensor()).unwrap());
        let name = format!("{}: encoder.ln_post", format.name);
        compare(&name, &encoding, stages.get("encoder.ln_post"), format.encoder_atol);
        for (item, tokens) in tokens.iter().enumerate() {
            let mut cache = whisper.decoder.start(&encoding.item(item).tensor(), 1);
            let states = whisper.decoder.forward(std::slice::from_ref(tokens), &mut cache).unwrap();
            let logits = Array::of(whisper.decoder.logits(states));
            let name = format!("{}: decoder.logits[{item}]", format.name);
            compare(&name, &logits, &stages.get("decoder.logits").item(item), format.logits_atol);
        }
    }
}

/// Whether CTranslate2 stores it as int8: linear layers, the token embedding and both convolutions.
fn is_quantised(name: &str, shape: &[usize]) -> bool {
    shape.len() > 1 && !name.ends_with("embed_positions.weight")
}

/// What CTranslate2 scales as one: a tensor, or the projections of an attention.
fn scaled_together(name: &str) -> String {
    ["q_proj", "k_proj", "v_proj"].iter().fold(name.to_owned(), |name, part| name.replace(part, "qkv"))
}

/// How far a value of a format may be from the f32 one; `row_max` is the largest of its row, `tensor_max` of all that
/// is scaled together.
fn allowed(rounding: Rounding, quantised: bool, value: f32, row_max: f32, tensor_max: f32) -> f32 {
    match rounding {
        Rounding::Brain => value.abs() / 256.0,
        // Half a step, and what the division by the scale rounds.
        Rounding::Int8(_) if quantised => 0.501 * row_max / 127.0 + 1e-7,
        Rounding::Int16 if quantised => 0.501 * tensor_max / 1024.0 + 1e-7,
        _ => 0.0,
    }
}

fn whisper(folder: &Path) -> WhisperFiles {
    ModelFolder::open(folder).unwrap().into_whisper().unwrap()
}

/// The fall-backs of a folder, but for the one that all fixtures share: none has a `preprocessor_config.json`.
fn missing(folder: &ModelFolder) -> Vec<&String> {
    folder.fallbacks.iter().filter(|f| !f.contains("preprocessor_config.json")).collect()
}

#[test]
fn values_are_the_formats_own_rounding() {
    let source = Tensors::read(&golden("tiny-2/model.safetensors"));
    let mut tensor_max: HashMap<String, f32> = HashMap::new();
    for (name, array) in &source.0 {
        let max = tensor_max.entry(scaled_together(name)).or_default();
        *max = array.data.iter().fold(*max, |m, v| m.max(v.abs()));
    }
    for format in &FORMATS {
        let folder = (format.folder)();
        let opened = whisper(folder.path());
        assert_eq!(opened.weights.format(), format.format);
        let expected = expected_tensors(&opened.config);
        let mut names = opened.weights.names();
        names.sort();
        let mut wanted: Vec<String> = expected.iter().map(|(name, _)| name.clone()).collect();
        wanted.sort();
        assert_eq!(names, wanted, "{}", format.name);
        let mut largest = 0.0_f32;
        for (name, shape) in expected {
            let stored = opened.weights.get(&name).unwrap_or_else(|| panic!("{}: no {name}", format.name));
            assert_eq!(stored.shape, shape, "{}: {name}", format.name);
            let exact = source.get(&name);
            assert_eq!(exact.shape, shape);
            let quantised = is_quantised(&name, &shape);
            let n_columns = exact.data.len() / shape[0];
            let rows = stored.to_f32();
            assert_eq!(rows.len(), exact.data.len());
            for (got, row) in rows.chunks(n_columns).zip(exact.data.chunks(n_columns)) {
                let row_max = row.iter().fold(0.0_f32, |m, v| m.max(v.abs()));
                for (got, value) in got.iter().zip(row) {
                    let half =
                        format.rounding == Rounding::Half || format.rounding == Rounding::Int8(true) && !quantised;
                    let value = if half { f16::from_f32(*value).to_f32() } else { *value };
                    let difference = (got - value).abs();
                    let bound =
                        allowed(format.rounding, quantised, value, row_max, tensor_max[&scaled_together(&name)]);
                    assert!(difference <= bound, "{}: {name}: {got} for {value}, allowed {bound:e}", format.name);
                    largest = largest.max(difference);
                }
            }
        }
        let rounds = matches!(format.rounding, Rounding::Brain | Rounding::Int16 | Rounding::Int8(_));
        assert_eq!(largest > 1e-4, rounds, "{}: the fixture is what it says it is ({largest})", format.name);
    }
}

/// A CTranslate2 folder knows of itself what Hugging Face's JSON says.
#[test]
fn dimensions_and_lists_are_the_same_in_both_layouts() {
    let folder = ModelFolder::open(&golden("tiny-2")).unwrap();
    assert_eq!(folder.name, "tiny-2");
    assert_eq!(missing(&folder), Vec::<&String>::new());
    let hugging_face = folder.into_whisper().unwrap();
    for format in FORMATS.iter().filter(|f| f.format == "ctranslate2") {
        let folder = (format.folder)();
        let opened = ModelFolder::open(folder.path()).unwrap();
        assert_eq!(missing(&opened), Vec::<&String>::new());
        let opened = opened.into_whisper().unwrap();
        assert_eq!(opened.config, hugging_face.config, "{}", format.name);
        let (ours, theirs) = (&opened.generation, &hugging_face.generation);
        assert_eq!(ours.suppress_tokens, theirs.suppress_tokens);
        assert_eq!(ours.begin_suppress_tokens, theirs.begin_suppress_tokens);
        assert_eq!(ours.alignment_heads, theirs.alignment_heads);
        assert_eq!(opened.tokenizer_json, hugging_face.tokenizer_json);
    }
}

/// Where both are there, one file wins over shards, and safetensors over CTranslate2.
#[test]
fn one_folder_of_several_formats() {
    let folder = hugging_face_folder(&[
        ("model.safetensors", "model.safetensors"),
        ("model.bin", "ct2-int8/model.bin"),
        ("model.safetensors.index.json", "sharded/model.safetensors.index.json"),
    ]);
    let opened = whisper(folder.path());
    assert_eq!((opened.weights.format(), opened.weights.file()), ("safetensors", "model.safetensors"));
}

/// What a folder may lack, and what stands in for it.
#[test]
fn what_stands_in_for_missing_files_is_said() {
    let folder = hugging_face_folder(&[("model.safetensors", "model.safetensors")]);
    std::fs::remove_file(folder.path().join("generation_config.json")).unwrap();
    assert_eq!(missing(&ModelFolder::open(folder.path()).unwrap()).len(), 1);
    let opened = whisper(folder.path());
    assert!(opened.generation.alignment_heads.is_none());

    let folder = ctranslate2_folder("ct2-float32/model.bin");
    for file in ["config.json", "vocabulary.json"] {
        std::fs::remove_file(folder.path().join(file)).unwrap();
    }
    assert_eq!(missing(&ModelFolder::open(folder.path()).unwrap()).len(), 1);
    let opened = whisper(folder.path());
    assert!(opened.generation.suppress_tokens.is_none());
    assert_eq!(opened.config, whisper(&golden("tiny-2")).config);
}
