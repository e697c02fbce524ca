//! The small files of a model folder, written by strangers: dimensions beyond reason, JSON that is none, tokenizers
//! without the tokens that decoding needs, files that are not there. Each is an error with a stable code; none is a
//! panic, and none asks for memory by the gigabyte.

#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use std::path::Path;

use burn::tensor::Device;
use common::{Loaded, bytes_of, ctranslate2_folder, golden, hugging_face_folder};
use okyeame_core::Result;
use okyeame_core::tokenizer::{SpeechTask, Tokenizer};
use okyeame_core::weights::folder::ModelFolder;
use okyeame_core::whisper::{Whisper, WhisperConfig};
use serde_json::{Value, json};
use tempfile::TempDir;

/// Fields of `config.json` that are dimensions.
const DIMENSIONS: [&str; 11] = [
    "d_model",
    "encoder_layers",
    "encoder_attention_heads",
    "encoder_ffn_dim",
    "decoder_layers",
    "decoder_attention_heads",
    "decoder_ffn_dim",
    "num_mel_bins",
    "max_source_positions",
    "max_target_positions",
    "vocab_size",
];

fn code_of<T>(result: Result<T>) -> &'static str {
    match result {
        Ok(_) => "accepted",
        Err(error) => {
            let place = std::env::temp_dir();
            assert!(!error.to_string().contains(place.to_str().unwrap()), "it tells a path: {error}");
            error.code()
        }
    }
}

fn load_weights(folder: &Path) -> Result<Whisper> {
    let files = ModelFolder::open(folder)?.into_whisper()?;
    Whisper::load(files.config, &*files.weights, &Device::flex())
}

fn whole_folder() -> TempDir {
    hugging_face_folder(&[("model.safetensors", "model.safetensors")])
}

fn tiny_config() -> Value {
    serde_json::from_slice(&bytes_of(&golden("tiny-2/config.json"))).unwrap()
}

#[test]
fn dimensions_beyond_reason() {
    let impossible = [
        json!(0),
        json!(-1),
        json!(1_000_000_000_000_000_000_u64),
        json!(u64::MAX),
        json!(1e300),
        json!(3.5),
        json!("16"),
        json!(null),
        json!([16]),
        json!(true),
    ];
    for field in DIMENSIONS {
        for value in &impossible {
            let mut config = tiny_config();
            config[field] = value.clone();
            let result = WhisperConfig::from_json(config.to_string().as_bytes());
            assert_eq!(code_of(result), "invalid_config", "{field} = {value}");
        }
        let mut config = tiny_config();
        config.as_object_mut().unwrap().remove(field).unwrap();
        assert_eq!(code_of(WhisperConfig::from_json(config.to_string().as_bytes())), "invalid_config", "no {field}");
    }
    for (field, value) in [
        ("encoder_attention_heads", json!(3)),
        ("decoder_attention_heads", json!(32)),
        ("activation_function", json!("relu")),
        ("scale_embedding", json!(true)),
        ("suppress_tokens", json!("all")),
        ("architectures", json!({})),
    ] {
        let mut config = tiny_config();
        config[field] = value.clone();
        let result = WhisperConfig::from_json(config.to_string().as_bytes());
        assert_eq!(code_of(result), "invalid_config", "{field} = {value}");
    }
    let deep = "[".repeat(100_000);
    for text in ["", "null", "[]", "{}", "\u{FEFF}{}", "{\"d_model\":16", deep.as_str()] {
        assert_eq!(code_of(WhisperConfig::from_json(text.as_bytes())), "invalid_config", "{text:.20}");
    }
}

/// Each is allowed; in a browser, where a number has 32 bits, these products were once 0.
#[test]
fn dimensions_whose_product_is_beyond_reason() {
    let together = [
        json!({"max_source_positions": 65_536, "encoder_ffn_dim": 65_536}),
        json!({"max_target_positions": 65_536, "d_model": 16_384, "decoder_layers": 128}),
        json!({"max_target_positions": 65_536, "decoder_ffn_dim": 65_536}),
    ];
    for change in together {
        let mut config = tiny_config();
        for (field, value) in change.as_object().unwrap() {
            config[field] = value.clone();
        }
        let error = WhisperConfig::from_json(config.to_string().as_bytes()).unwrap_err();
        assert!(error.code() == "invalid_config" && error.to_string().contains(" × "), "{change}: {error}");
    }
}

#[test]
fn a_config_is_quoted_harmlessly() {
    for (field, part) in [("activation_function", "is not known, only 'gelu'"), ("d_model", "invalid type")] {
        let mut config = tiny_config();
        config[field] = format!("\u{1b}[2J\n{}", "x".repeat(100_000)).into();
        let said = WhisperConfig::from_json(config.to_string().as_bytes()).unwrap_err().to_string();
        assert!(said.len() < 1000 && !said.contains(char::is_control) && said.contains(part), "{said}");
    }
}

/// Possible, but not those of the weights: every tensor is told, and nothing is allocated for them first.
#[test]
fn dimensions_of_another_model() {
    let folder = whole_folder();
    let path = folder.path().join("config.json");
    let changes = [
        json!({"d_model": 32}),
        json!({"encoder_layers": 4}),
        json!({"encoder_layers": 2}),
        json!({"decoder_layers": 128}),
        json!({"encoder_ffn_dim": 64}),
        json!({"num_mel_bins": 80}),
        json!({"max_source_positions": 1500}),
        json!({"max_target_positions": 448}),
        json!({"vocab_size": 51865}),
        json!({
            "d_model": 8192, "encoder_layers": 128, "decoder_layers": 18, "encoder_ffn_dim": 32768,
            "decoder_ffn_dim": 32768, "num_mel_bins": 512, "max_source_positions": 1500,
            "max_target_positions": 448, "vocab_size": 1048576,
        }),
    ];
    for change in changes {
        let mut config = tiny_config();
        for (field, value) in change.as_object().unwrap() {
            config[field] = value.clone();
        }
        std::fs::write(&path, config.to_string()).unwrap();
        assert_eq!(code_of(load_weights(folder.path())), "weight_mismatch", "{change}");
    }
}

#[test]
fn generation_settings_of_the_wrong_kind() {
    let folder = whole_folder();
    let path = folder.path().join("generation_config.json");
    for text in [
        "",
        "null",
        "{\"suppress_tokens\": 7}",
        "{\"suppress_tokens\": [1.5]}",
        "{\"begin_suppress_tokens\": [\"eot\"]}",
        "{\"alignment_heads\": [[0]]}",
        "{\"alignment_heads\": [[0, -1]]}",
        "{\"max_initial_timestamp_index\": -1}",
    ] {
        std::fs::write(&path, text).unwrap();
        assert_eq!(code_of(ModelFolder::open(folder.path())), "invalid_config", "{text}");
    }
    // All may be missing or null; heads that do not exist give no word times and no panic.
    for text in
        ["{}", "{\"suppress_tokens\": null, \"alignment_heads\": [[99, 0], [0, 99], [18446744073709551615, 0]]}"]
    {
        std::fs::write(&path, text).unwrap();
        let loaded = Loaded::open(folder.path()).unwrap();
        let model = &loaded.model;
        let mel = vec![0.1; model.whisper.config.num_mel_bins * model.whisper.config.n_frames()];
        let encoding = model.encode_mel(&mel).unwrap();
        let cache = model.whisper.decoder.start(&encoding, 1);
        let tokens = [59, 60, 65];
        let weights = common::block_on(model.whisper.decoder.cross_weights(&tokens, &cache, &model.alignment_heads));
        assert!(weights.unwrap().is_empty(), "{text}");
    }
}

#[test]
fn files_that_are_not_there_or_not_files() {
    assert_eq!(code_of(ModelFolder::open(Path::new("/no/such/folder"))), "model_not_found");
    assert_eq!(code_of(ModelFolder::open(&golden("README.md"))), "model_not_found", "a file is no folder");
    let empty = tempfile::tempdir().unwrap();
    assert_eq!(code_of(ModelFolder::open(empty.path())), "model_not_found");

    for file in ["config.json", "tokenizer.json", "model.safetensors"] {
        let folder = whole_folder();
        std::fs::remove_file(folder.path().join(file)).unwrap();
        assert_eq!(code_of(ModelFolder::open(folder.path())), "model_not_found", "{file}");
        // A folder of that name is no file either; for the weights there is then none.
        std::fs::create_dir(folder.path().join(file)).unwrap();
        let code = code_of(ModelFolder::open(folder.path()));
        assert!(["model_not_found", "invalid_config", "io"].contains(&code), "{file}: {code}");
    }
    for file in ["tokenizer.json", "model.bin"] {
        let folder = ctranslate2_folder("ct2-int8/model.bin");
        std::fs::remove_file(folder.path().join(file)).unwrap();
        assert_eq!(code_of(ModelFolder::open(folder.path())), "model_not_found", "{file}");
    }
    for (folder, file) in
        [(whole_folder(), "model.safetensors"), (ctranslate2_folder("ct2-int8/model.bin"), "model.bin")]
    {
        std::fs::write(folder.path().join(file), "").unwrap();
        assert_eq!(code_of(ModelFolder::open(folder.path())), "damaged_weights", "an empty {file}");
    }
    let folder = ctranslate2_folder("ct2-int8/model.bin");
    for text in ["", "null", "{\"suppress_ids\": 1}", "{\"alignment_heads\": [[1]]}"] {
        std::fs::write(folder.path().join("config.json"), text).unwrap();
        assert_eq!(code_of(ModelFolder::open(folder.path())), "invalid_config", "{text:?}");
    }
    // What a file is named does not say what it is.
    for (file, bytes) in [("model.safetensors", "ct2-int8/model.bin"), ("model.bin", "model.safetensors")] {
        let folder = if file == "model.bin" { ctranslate2_folder("ct2-int8/model.bin") } else { whole_folder() };
        std::fs::write(folder.path().join(file), bytes_of(&golden("tiny-2").join(bytes))).unwrap();
        assert_eq!(code_of(ModelFolder::open(folder.path())), "damaged_weights", "{bytes} as {file}");
    }
}

#[test]
fn tokenizers_that_are_none_of_a_whisper() {
    let whole = String::from_utf8(bytes_of(&golden("tiny-2/tokenizer.json"))).unwrap();
    Tokenizer::from_json(whole.as_bytes()).unwrap();
    for text in ["", "null", "{}", "[]", "{\"model\": {}}", "{\"version\": \"1.0\", \"model\": {\"type\": \"BPE\"}}"] {
        assert_eq!(code_of(Tokenizer::from_json(text.as_bytes())), "invalid_config", "{text}");
    }
    for token in ["<|startoftranscript|>", "<|endoftext|>", "<|notimestamps|>"] {
        let without = whole.replace(token, "<|somethingelse|>");
        assert_eq!(code_of(Tokenizer::from_json(without.as_bytes())), "invalid_config", "without {token}");
    }
    // The others may be missing: an English-only vocabulary has no tasks, an old one no <|nospeech|>.
    let without = whole.replace("<|translate|>", "<|aaa|>").replace("<|nospeech|>", "<|bbb|>");
    let tokenizer = Tokenizer::from_json(without.as_bytes()).unwrap();
    let special = tokenizer.special();
    assert!(special.languages.is_empty() && special.no_speech.is_none());
    assert_eq!(tokenizer.language_token("en").unwrap(), None);
    assert_eq!(special.sot_sequence(None, SpeechTask::Transcribe, false), [special.sot, special.no_timestamps]);
}

/// Tokens come from a model, and a model from a stranger: what does not exist is left out, never looked up.
#[test]
fn tokens_that_do_not_exist_have_no_text() {
    for name in ["tiny-multilingual", "tiny-2"] {
        let tokenizer = Tokenizer::from_json(&bytes_of(&golden(name).join("tokenizer.json"))).unwrap();
        assert_eq!(tokenizer.decode(&[u32::MAX, 200, 119]).unwrap(), "");
        assert!(tokenizer.split_words(&[u32::MAX, 200, 119]).unwrap().is_empty());
        // 42 is the first byte of ɔ or ɛ: alone it is no character, and still no error.
        let words = tokenizer.split_words(&[48, 42, 42, 48]).unwrap();
        let tokens: Vec<u32> = words.iter().flat_map(|(_, tokens)| tokens.clone()).collect();
        assert_eq!(tokens, [48, 42, 42, 48], "no token is lost");
        assert_eq!(tokenizer.language_token("xx").unwrap_err().code(), "unsupported_language");
    }
}
