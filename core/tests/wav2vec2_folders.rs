//! wav2vec 2.0 folders as the hub has them: files that older or newer tools wrote, languages that nobody named, and sizes
//! that no model has. What the models compute is held against transformers in `golden_wav2vec2.rs`.

#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use common::{block_on, bytes_of, clip, copy_of};
use okyeame_core::recognizer::LoadOptions;
use okyeame_core::weights::folder::{ModelFolder, OpenOptions};
use okyeame_core::{RecognizeOptions, Recognizer, Result};
use serde_json::{Value, json};
use tempfile::TempDir;

/// Changes one key of a JSON file; null takes it away.
fn set(folder: &TempDir, file: &str, key: &str, value: Value) {
    let path = folder.path().join(file);
    let mut json: Value = serde_json::from_slice(&bytes_of(&path)).unwrap();
    match value {
        Value::Null => drop(json.as_object_mut().unwrap().remove(key)),
        value => json[key] = value,
    }
    std::fs::write(path, json.to_string()).unwrap();
}

fn load(folder: &TempDir, adapter: Option<&str>) -> Result<Recognizer> {
    let options = OpenOptions { adapter: adapter.map(str::to_owned) };
    let folder = ModelFolder::open_with(folder.path(), &options, &mut |_| unreachable!("it is no head"))?;
    Recognizer::from_folder(folder, LoadOptions::default())
}

fn words(recognizer: &Recognizer, language: Option<&str>) -> String {
    let options = RecognizeOptions { language: language.map(str::to_owned), ..RecognizeOptions::default() };
    block_on(recognizer.recognize(&clip("tw_go_cart"), &options)).unwrap().transcription.unwrap()
}

#[track_caller]
fn refused(folder: &TempDir, adapter: Option<&str>, code: &str) -> String {
    match load(folder, adapter) {
        Ok(_) => panic!("accepted"),
        Err(error) => {
            assert_eq!(error.code(), code, "{error}");
            error.to_string()
        }
    }
}

#[test]
fn a_padding_token_in_a_file_of_its_own_is_blank() {
    let whole = load(&copy_of("wav2vec2-base"), None).unwrap();
    let folder = copy_of("wav2vec2-base");
    let vocab: Value = serde_json::from_slice(&bytes_of(&folder.path().join("vocab.json"))).unwrap();
    let pad = vocab.as_object().unwrap().iter().find(|(token, _)| *token == "<pad>").unwrap().1.clone();
    set(&folder, "vocab.json", "<pad>", Value::Null);
    std::fs::write(folder.path().join("added_tokens.json"), json!({"<pad>": pad}).to_string()).unwrap();
    let apart = load(&folder, None).unwrap();
    assert_eq!(words(&apart, None), words(&whole, None));
    assert!(!words(&whole, None).is_empty());
}

#[test]
fn twi_is_chosen_where_nobody_names_a_language() {
    let folder = copy_of("wav2vec2-mms");
    let recognizer = load(&folder, None).unwrap();
    assert_eq!(recognizer.info().languages, ["twi"]);
    assert!(recognizer.info().fallbacks.iter().any(|f| f.contains("'twi'") && f.contains("--adapter")));
    let english = load(&folder, Some("eng")).unwrap();
    assert_eq!(english.info().languages, ["eng"]);
    assert_ne!(words(&recognizer, None), words(&english, None));
    assert!(refused(&folder, Some("ewe"), "invalid_parameter").contains("(eng, twi)"));
    let one_language = copy_of("wav2vec2-base");
    assert!(refused(&one_language, Some("twi"), "invalid_parameter").contains("no adapters"));
}

#[test]
fn the_configs_language_is_told_where_there_is_no_akan() {
    let folder = copy_of("wav2vec2-mms");
    std::fs::remove_file(folder.path().join("adapter.twi.safetensors")).unwrap();
    let recognizer = load(&folder, None).unwrap();
    assert_eq!(recognizer.info().languages, ["eng"]);
    let fallbacks = &recognizer.info().fallbacks;
    assert!(fallbacks.iter().any(|f| f.contains("'eng'") && f.contains("--adapter")), "{fallbacks:?}");
}

/// `<s>` behind the last class, as most fine-tunes have it, is nothing to tell of; a letter is.
#[test]
fn tokens_without_a_class_are_told() {
    let whole = words(&load(&copy_of("wav2vec2-xlsr"), None).unwrap(), None);
    for (token, is_told) in [("<s>", false), ("q", true)] {
        let folder = copy_of("wav2vec2-xlsr");
        set(&folder, "vocab.json", token, json!(22));
        let recognizer = load(&folder, None).unwrap();
        let fallbacks = &recognizer.info().fallbacks;
        assert_eq!(fallbacks.iter().any(|f| f.contains("tokens are not used")), is_told, "{fallbacks:?}");
        assert_eq!(words(&recognizer, None), whole, "{token}");
    }
    let folder = copy_of("wav2vec2-xlsr");
    set(&folder, "vocab.json", "[PAD]", json!(22));
    assert!(refused(&folder, None, "invalid_config").contains("blank"));
}

/// transformers 5.23 writes it to the top of `processor_config.json`, beside the feature extractor's part.
#[test]
fn a_language_model_is_told_wherever_it_is_named() {
    for file in ["preprocessor_config.json", "processor_config.json", "tokenizer_config.json"] {
        let folder = copy_of("wav2vec2-base");
        if !folder.path().join(file).is_file() {
            std::fs::write(folder.path().join(file), "{}").unwrap();
        }
        let told =
            |folder: &TempDir| load(folder, None).unwrap().info().fallbacks.join("; ").contains("language model");
        assert!(!told(&folder), "{file}");
        set(&folder, file, "processor_class", json!("Wav2Vec2ProcessorWithLM"));
        assert!(told(&folder), "{file}");
    }
}

/// A CTC model has one language: naming it, in any code, is no mistake.
#[test]
fn any_language_may_be_named_in_a_request() {
    let recognizer = load(&copy_of("wav2vec2-mms"), Some("eng")).unwrap();
    for language in ["en", "eng", "tw", "de", "auto"] {
        assert_eq!(words(&recognizer, Some(language)), words(&recognizer, None), "{language}");
    }
    let options = RecognizeOptions { language: Some("../x".to_owned()), ..RecognizeOptions::default() };
    let error = block_on(recognizer.recognize(&clip("tw_go_cart"), &options)).unwrap_err();
    assert_eq!(error.code(), "unsupported_language");
}

#[test]
fn what_other_tools_write_is_read() {
    let folder = copy_of("wav2vec2-base");
    set(&folder, "config.json", "output_hidden_size", json!(768));
    set(&folder, "config.json", "hidden_dropout", json!(0.5));
    let path = folder.path().join("config.json");
    let mut config: Value = serde_json::from_slice(&bytes_of(&path)).unwrap();
    config["architectures"] = Value::Null;
    config["feat_extract_norm"] = Value::Null;
    std::fs::write(path, config.to_string()).unwrap();
    set(&folder, "preprocessor_config.json", "processor_class", json!("Wav2Vec2ProcessorWithLM"));
    let info = load(&folder, None).unwrap().info().clone();
    assert_eq!(info.architecture, "Wav2Vec2ForCTC");
    assert!(info.fallbacks.iter().any(|f| f.contains("language model")), "{:?}", info.fallbacks);

    set(&folder, "tokenizer_config.json", "tokenizer_class", json!("Wav2Vec2PhonemeCTCTokenizer"));
    assert!(refused(&folder, None, "unsupported_model").contains("phonemes"));
}

#[test]
fn sizes_that_no_model_has_are_refused_before_a_clip_comes() {
    for (key, value, part) in [
        ("conv_stride", json!([1, 1, 1, 1, 1, 1, 1]), "a frame every 1 samples"),
        ("conv_dim", json!([16384, 16, 16, 16, 16, 16, 16]), "convolution 0"),
        ("vocab_size", json!(131_072), "classes are too many"),
        ("vocab_size", json!(0), "vocab_size is 0"),
        ("hidden_size", json!(99_999_999), "hidden_size"),
    ] {
        let folder = copy_of("wav2vec2-base");
        set(&folder, "config.json", key, value);
        let sentence = refused(&folder, None, "invalid_config");
        assert!(sentence.contains(part), "{key}: {sentence}");
    }
}
