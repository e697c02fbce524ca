//! A model folder of every shape, from its files to its answer: what it is told to be, what it is called, what stands in
//! for what is missing, and what a contradiction is called. `tests/golden/heads` says what the numbers must be;
//! transformers made them.

#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use std::path::Path;

use common::{Loaded, block_on, bytes_of, clip, golden, hugging_face_folder, json};
use okyeame_core::audio::{LogMelExtractor, Waveform};
use okyeame_core::decoding::{SpeechModel, TranscribeOptions, decode_window};
use okyeame_core::intent::built_in;
use okyeame_core::recognizer::LoadOptions;
use okyeame_core::tokenizer::SpeechTask;
use okyeame_core::weights::folder::{Base, ModelFolder, OpenOptions};
use okyeame_core::{Error, IntentSource, Recognition, RecognizeOptions, Recognizer, Rejection, Result, Risk, Task};
use serde_json::{Value, json};
use tempfile::TempDir;

/// A probability may be off by this much: the logits are within 1e-4.
const ATOL: f32 = 1e-4;

/// Shapes with an intent head, and the kind of engine that each one is.
const HEADS: [(&str, &str); 7] = [
    ("classification", "whisper_classifier"),
    ("classification-weighted", "whisper_classifier"),
    ("one-encoder", "whisper_multitask"),
    ("one-encoder-mlp", "whisper_multitask"),
    ("multitask", "whisper_multitask"),
    ("multitask-shared", "whisper_multitask"),
    ("head-only", "whisper_multitask"),
];

fn base_of(name: Option<&str>) -> Result<Base> {
    assert!(name.is_none_or(|name| name == "okyeame-tests/tiny-multilingual"));
    Ok(Base { name: "okyeame-tests/tiny-multilingual".to_owned(), folder: golden("tiny-multilingual") })
}

/// Another folder as the base.
fn base_in(folder: &str) -> Result<Base> {
    Ok(Base { name: folder.to_owned(), folder: golden(folder) })
}

fn open(folder: &Path) -> Result<ModelFolder> {
    ModelFolder::open_with(folder, &OpenOptions::default(), &mut base_of)
}

fn load_as(folder: &Path, task: Option<Task>) -> Result<Recognizer> {
    Recognizer::from_folder(open(folder)?, LoadOptions { task, ..LoadOptions::default() })
}

fn load(folder: &Path) -> Result<Recognizer> {
    load_as(folder, None)
}

/// A copy of one of the golden folders, for a test to spoil.
fn copy_of(name: &str) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for file in std::fs::read_dir(golden(name)).unwrap() {
        let file = file.unwrap();
        if file.file_type().unwrap().is_file() {
            std::fs::copy(file.path(), folder.path().join(file.file_name())).unwrap();
        }
    }
    folder
}

fn write(folder: &TempDir, file: &str, value: &Value) {
    std::fs::write(folder.path().join(file), value.to_string()).unwrap();
}

/// Changes one key of a folder's `config.json`; null takes it away.
fn set(folder: &TempDir, key: &str, value: Value) {
    let path = folder.path().join("config.json");
    let mut config: Value = serde_json::from_slice(&bytes_of(&path)).unwrap();
    match value {
        Value::Null => drop(config.as_object_mut().unwrap().remove(key)),
        value => config[key] = value,
    }
    write(folder, "config.json", &config);
}

fn words_only() -> RecognizeOptions {
    RecognizeOptions { transcribe: false, top_k: 100, ..RecognizeOptions::default() }
}

fn recognize(recognizer: &Recognizer, samples: &[f32], options: &RecognizeOptions) -> Recognition {
    let audio = Waveform::new(samples.to_vec()).unwrap();
    block_on(recognizer.recognize(&audio, options)).unwrap()
}

/// The sentence that an error prints, checked for its code.
#[track_caller]
fn refused<T>(result: Result<T>, code: &str) -> String {
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

fn softmax(logits: &[f64]) -> Vec<f64> {
    let max = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let sum: f64 = logits.iter().map(|v| (v - max).exp()).sum();
    logits.iter().map(|v| (v - max).exp() / sum).collect()
}

#[test]
fn every_head_is_found_named_and_computed() {
    for (name, model_type) in HEADS {
        let expected: Value = json(&format!("heads/{name}/expected.json"));
        let recognizer = load(&golden("heads").join(name)).unwrap_or_else(|e| panic!("{name}: {e}"));
        let info = recognizer.info();
        assert_eq!((info.task, info.model_type.as_str()), (Task::Multi, model_type), "{name}");
        assert_eq!(json!(info.labels), expected["labels"], "{name}: the labels in class order");
        assert_eq!(info.head_window.as_deref(), expected["window"].as_str(), "{name}");
        let base_can_write = info.base.is_some();
        assert_eq!(info.transcription, base_can_write || expected["has_decoder"].as_bool().unwrap(), "{name}");
        assert_eq!(recognizer.intents().len(), info.labels.len());

        for case in ["clip", "cut"] {
            let answer = &expected["answers"][case];
            let Some(logits) = answer["logits"][0].as_array().filter(|_| expected["window"] == "full") else {
                continue;
            };
            let probabilities = softmax(&logits.iter().map(|v| v.as_f64().unwrap()).collect::<Vec<_>>());
            let whole = clip(answer["clip"].as_str().unwrap());
            // What is longer than the window is cut by the recogniser itself.
            let samples = if case == "clip" { &whole.samples()[..12_000] } else { whole.samples() };
            let got = recognize(&recognizer, samples, &words_only());
            assert_eq!(got.intent_source, IntentSource::AudioHead);
            assert_eq!(got.top_predictions.len(), probabilities.len(), "{name}, {case}");
            assert_eq!(json!(got.top_predictions[0].intent), answer["labels"][0], "{name}, {case}");
            for prediction in &got.top_predictions {
                let expected = probabilities[prediction.label_id] as f32;
                let difference = (prediction.confidence - expected).abs();
                assert!(difference <= ATOL, "{name}, {case}: {prediction:?}, expected {expected}");
            }
            assert_eq!(got.transcription, None, "no words were asked for");
            assert_eq!(got.accepted, got.rejection.is_none());
        }
    }
}

#[test]
fn words_come_with_the_intent_where_there_is_a_decoder() {
    let samples = clip("tw_go_cart").samples()[..12_000].to_vec();
    for (name, _) in HEADS {
        let recognizer = load(&golden("heads").join(name)).unwrap();
        let got = recognize(&recognizer, &samples, &RecognizeOptions::default());
        assert_eq!(got.transcription.is_some(), recognizer.info().transcription, "{name}");
        assert_eq!(got.intent_source, IntentSource::AudioHead);
        let without = recognize(&recognizer, &samples, &words_only());
        assert_eq!(got.top_predictions[0], without.top_predictions[0], "{name}: words do not change the intent");
        let silence = recognize(&recognizer, &vec![0.0; 16_000], &RecognizeOptions::default());
        assert_eq!(silence.rejection, Some(Rejection::NoSpeech));
    }
    let error = block_on(load(&golden("heads/classification")).unwrap().transcribe(
        &Waveform::new(samples).unwrap(),
        None,
        &TranscribeOptions::default(),
    ))
    .unwrap_err();
    assert_eq!(error.code(), "unsupported_model");
}

/// `openai/whisper-*.en` and its like: transformers' own texts, with no language and no task in the prompt.
#[test]
fn an_english_only_model_is_asked_without_a_language() {
    let recognizer = load(&golden("tiny-en")).unwrap();
    assert!(!recognizer.info().multilingual && recognizer.info().languages.is_empty());
    let mut loaded = Loaded::open(&golden("tiny-en")).unwrap();
    loaded.tokenizer = loaded.tokenizer.english_only();
    let extractor = LogMelExtractor::new(loaded.model.whisper.config.num_mel_bins);
    let generated: Value = json("tiny-en/generate.json");
    for case in generated["cases"].as_array().unwrap() {
        assert!(case["min_margin"].as_f64().unwrap() > 0.02, "the sequence is no near tie");
        let range: Vec<usize> = serde_json::from_value(case["samples"].clone()).unwrap();
        let audio = clip(case["clip"].as_str().unwrap());
        let audio = Waveform::new(audio.samples()[range[0]..range[1]].to_vec()).unwrap();
        let timestamps = case["timestamps"].as_bool().unwrap();
        let options = loaded.exact("en", SpeechTask::Transcribe, timestamps);
        // We stop after half of the context of 32, as OpenAI does; transformers fills it.
        let expected: Vec<u32> = serde_json::from_value(case["tokens"].clone()).unwrap();
        let mel = extractor.extract_padded(audio.samples(), 16_000).unwrap();
        let window = block_on(loaded.model.encode(&mel.data)).unwrap();
        let got = block_on(decode_window(&loaded.model, &loaded.tokenizer, &window, &options)).unwrap();
        assert_eq!((got.tokens, got.language), (expected[..16].to_vec(), None), "{case}");

        // The whole way through; with timestamps it would go on in a second window, behind the first segment.
        for language in [None, Some("en")].into_iter().filter(|_| !timestamps) {
            let options = TranscribeOptions { decode: options.clone(), ..TranscribeOptions::default() };
            let got = block_on(recognizer.transcribe(&audio, language, &options)).unwrap();
            let tokens: Vec<u32> = got.segments.iter().flat_map(|s| s.tokens.clone()).collect();
            assert_eq!(tokens, expected[..16], "{case}");
        }
    }
}

#[test]
fn the_task_can_be_overridden_either_way() {
    // A multi-task model as a single-task one: the intent from the words, over the shop's own 49.
    let recognizer = load_as(&golden("heads/one-encoder"), Some(Task::Single)).unwrap();
    assert_eq!(recognizer.info().task, Task::Single);
    assert_eq!(recognizer.intents().len(), built_in().len());
    assert!(recognizer.info().fallbacks.iter().any(|f| f.contains("HUGGINGFACE_MODEL_TYPE")));
    let got = recognize(&recognizer, &clip("tw_go_cart").samples()[..12_000], &RecognizeOptions::default());
    assert_eq!(got.intent_source, IntentSource::Transcript);

    assert!(load_as(&golden("heads/one-encoder"), Some(Task::Multi)).is_ok());
    let sentence = refused(load_as(&golden("tiny-multilingual"), Some(Task::Multi)), "invalid_config");
    assert!(sentence.contains("no intent head"), "{sentence}");
    let sentence = refused(load_as(&golden("heads/classification"), Some(Task::Single)), "invalid_config");
    assert!(sentence.contains("no text decoder"), "{sentence}");
}

/// A head that is not to be used may be as damaged as it likes.
#[test]
fn a_head_that_is_overridden_is_not_asked_for() {
    let folder = copy_of("heads/one-encoder-mlp");
    std::fs::write(folder.path().join("label_map.json"), "{not json").unwrap();
    set(&folder, "classifier_activation", json!("swish"));
    refused(load(folder.path()), "invalid_config");
    assert_eq!(load_as(folder.path(), Some(Task::Single)).unwrap().info().task, Task::Single);
}

/// What a stranger's files make the loader do is bounded, and a tokenizer of another model is found out.
#[test]
fn numbers_that_no_model_has() {
    let with_token = |token: &str, id: u64| {
        let folder = copy_of("tiny-2");
        let mut tokenizer: Value = json("tiny-2/tokenizer.json");
        for t in tokenizer["added_tokens"].as_array_mut().unwrap() {
            if t["content"] == token {
                t["content"] = json!("<|gone|>");
            }
        }
        tokenizer["model"]["vocab"][token] = json!(id);
        write(&folder, "tokenizer.json", &tokenizer);
        folder
    };
    for token in ["<|startoftranscript|>", "<|translate|>", "<|notimestamps|>", "<|endoftext|>"] {
        for id in [121, 5000, u64::from(u32::MAX)] {
            refused(load(with_token(token, id).path()), "invalid_config");
        }
    }
    // 200,000 times the list of non-speech tokens
    let folder = copy_of("tiny-2");
    let mut generation: Value = json("tiny-2/generation_config.json");
    generation["suppress_tokens"] = json!(vec![-1; 200_000]);
    generation["alignment_heads"] = json!(vec![[0, 1]; 200_000]);
    write(&folder, "generation_config.json", &generation);
    load(folder.path()).unwrap();
    // every dimension possible, their product not
    let folder = copy_of("tiny-2");
    set(&folder, "max_source_positions", json!(65_536));
    set(&folder, "encoder_ffn_dim", json!(65_536));
    assert!(refused(load(folder.path()), "invalid_config").contains("max_source_positions × encoder_ffn_dim"));
}

/// A window is full of what was said, not of the silence before it.
#[test]
fn a_long_clip_is_heard_from_where_somebody_speaks() {
    let recognizer = load(&golden("heads/one-encoder")).unwrap();
    let speech = clip("tw_go_cart").samples()[..14_000].to_vec();
    let late = [vec![0.0; 32_000], speech.clone()].concat();
    let other = [vec![0.0; 32_000], clip("en_numbers").samples()[..14_000].to_vec()].concat();
    let confidences = |samples: &[f32]| -> Vec<f32> {
        recognize(&recognizer, samples, &words_only()).top_predictions.iter().map(|p| p.confidence).collect()
    };
    assert_ne!(confidences(&late), confidences(&other), "what is said counts");
}

#[test]
fn without_labels_the_intent_comes_from_the_words() {
    let folder = copy_of("heads/one-encoder");
    std::fs::remove_file(folder.path().join("intent_labels.json")).unwrap();
    let recognizer = load(folder.path()).unwrap();
    assert_eq!(recognizer.info().task, Task::Single);
    assert!(recognizer.info().fallbacks.iter().any(|f| f.contains("no labels")), "{:?}", recognizer.info().fallbacks);
    refused(load_as(folder.path(), Some(Task::Multi)), "invalid_config");

    // With no words either, the classes keep the names that transformers gives to nameless ones.
    let folder = copy_of("heads/classification");
    for key in ["id2label", "label2id"] {
        set(&folder, key, Value::Null);
    }
    let recognizer = load(folder.path()).unwrap();
    assert_eq!((recognizer.info().task, recognizer.intents()[4].intent.as_str()), (Task::Multi, "LABEL_4"));
    assert!(recognizer.info().fallbacks.iter().any(|f| f.contains("LABEL_0")));
    // Nobody knows what they do: the shop asks first.
    assert_eq!(recognizer.intents()[4].risk, Risk::Confirm);
}

#[test]
fn contradictions_are_named() {
    let cases: [(Value, &str); 5] = [
        (json!(["a", "b", "c"]), "names 3 labels, but the head has 7"),
        (json!({"a": 0, "b": 1, "c": 2, "d": 3, "e": 4, "f": 5, "g": 7}), "6"),
        (json!({"label_to_id": {"a": 0, "b": 0}}), "0"),
        (json!({"id_to_label": {"0": "a", "1": "a"}}), "a"),
        (json!(7), "intent_labels.json"),
    ];
    for (labels, part) in cases {
        let folder = copy_of("heads/one-encoder");
        write(&folder, "intent_labels.json", &labels);
        let sentence = refused(load(folder.path()), "invalid_config");
        assert!(sentence.contains(part) && sentence.contains("intent_labels.json"), "{sentence}");
    }
    let folder = copy_of("heads/one-encoder");
    std::fs::write(folder.path().join("intent_labels.json"), "{not json").unwrap();
    refused(load(folder.path()), "invalid_config");

    // config.json speaks of a head that is not there
    let folder = hugging_face_folder(&[("model.safetensors", "model.safetensors")]);
    set(&folder, "task_types", json!(["transcription", "intent_classification"]));
    let info = load(folder.path()).unwrap().info().clone();
    assert_eq!(info.task, Task::Single);
    assert!(info.fallbacks.iter().any(|f| f.contains("speaks of an intent head")), "{:?}", info.fallbacks);

    for (key, value) in [("custom_model", json!("whisper_multitask")), ("num_labels", json!(20))] {
        let folder = hugging_face_folder(&[("model.safetensors", "model.safetensors")]);
        set(&folder, key, value);
        let info = load(folder.path()).unwrap().info().clone();
        assert!(info.fallbacks.iter().any(|f| f.contains("config.json speaks of")), "{key}: {:?}", info.fallbacks);
    }
    let folder = hugging_face_folder(&[("model.safetensors", "model.safetensors")]);
    write(&folder, "intent_labels.json", &json!(["a"]));
    let info = load(folder.path()).unwrap().info().clone();
    assert!(info.fallbacks.iter().any(|f| f.contains("intent_labels.json speaks of")), "{:?}", info.fallbacks);

    // a head that config.json denies or counts otherwise
    for (key, value, part) in [
        ("num_labels", json!(99), "num_labels is 99"),
        ("task_types", json!(["transcription"]), "names no intents"),
        ("use_weighted_layer_sum", json!(true), "use_weighted_layer_sum is true"),
    ] {
        let folder = copy_of("heads/one-encoder");
        set(&folder, key, value);
        let info = load(folder.path()).unwrap().info().clone();
        assert_eq!(info.task, Task::Multi);
        assert!(info.fallbacks.iter().any(|f| f.contains(part)), "{key}: {:?}", info.fallbacks);
    }
    let folder = copy_of("heads/classification");
    write(&folder, "preprocessor_config.json", &json!([]));
    refused(load(folder.path()), "invalid_config");

    // features that the model was not made for
    let folder = copy_of("heads/classification");
    write(&folder, "preprocessor_config.json", &json!({"feature_size": 128, "sampling_rate": 16000}));
    assert!(refused(load(folder.path()), "invalid_config").contains("feature_size"));

    // an activation that nobody knows
    let folder = copy_of("heads/one-encoder-mlp");
    set(&folder, "classifier_activation", json!("swish"));
    assert!(refused(load(folder.path()), "invalid_config").contains("swish"));
}

#[test]
fn the_strict_list_covers_body_and_head_at_once() {
    let folder = copy_of("heads/one-encoder");
    set(&folder, "encoder_layers", json!(3));
    set(&folder, "vocab_size", json!(121));
    match load(folder.path()) {
        Err(Error::WeightMismatch { missing, unused, misshapen }) => {
            assert!(missing.iter().all(|name| name.starts_with("model.encoder.layers.2.")), "{missing:?}");
            assert_eq!((missing.len(), unused.len()), (15, 0));
            assert_eq!(misshapen, ["model.decoder.embed_tokens.weight: expected [121, 32], got [120, 32]"]);
        }
        other => panic!("{:?}", other.map(|_| ())),
    }
}

#[test]
fn a_head_alone_needs_the_base_that_it_was_made_for() {
    let folder = golden("heads/head-only");
    let sentence = refused(ModelFolder::open(&folder), "model_not_found");
    assert!(sentence.contains("okyeame-tests/tiny-multilingual"), "{sentence}");
    let other = copy_of("heads/head-only");
    set(&other, "d_model", json!(512));
    assert!(refused(open(other.path()), "invalid_config").contains("another base"));
    // A head that names none may be given one.
    set(&other, "d_model", json!(32));
    set(&other, "_name_or_path", Value::Null);
    assert_eq!(open(other.path()).unwrap().base.as_deref(), Some("okyeame-tests/tiny-multilingual"));
    refused(ModelFolder::open(other.path()), "model_not_found");
    // a head on a head
    let result = ModelFolder::open_with(&folder, &OpenOptions::default(), &mut |_| base_in("heads/head-only"));
    assert!(refused(result, "invalid_config").contains("an intent head itself"));
    // a base that is no Whisper
    let result = ModelFolder::open_with(&folder, &OpenOptions::default(), &mut |_| base_in("wav2vec2-base"));
    assert!(refused(result, "invalid_config").contains("no Whisper"));
    let info = load(&folder).unwrap().info().clone();
    assert_eq!(info.base.as_deref(), Some("okyeame-tests/tiny-multilingual"));
}

#[test]
fn other_models_are_called_by_name() {
    use safetensors::tensor::{Dtype, TensorView, serialize};
    let folder = tempfile::tempdir().unwrap();
    let save = |names: &[&str]| {
        let data = [0_u8; 16];
        let views = names.iter().map(|n| (*n, TensorView::new(Dtype::F32, vec![2, 2], &data).unwrap()));
        std::fs::write(folder.path().join("model.safetensors"), serialize(views, None).unwrap()).unwrap();
    };
    write(&folder, "config.json", &json!({"architectures": ["BertForSequenceClassification"], "model_type": "bert"}));
    save(&["bert.embeddings.word_embeddings.weight", "classifier.weight"]);
    assert!(refused(ModelFolder::open(folder.path()), "unsupported_model").contains("BertForSequenceClassification"));
    write(&folder, "config.json", &json!({"architectures": ["Wav2Vec2ForPreTraining"], "model_type": "wav2vec2"}));
    save(&["wav2vec2.encoder.layer_norm.weight", "quantizer.codevectors"]);
    assert!(refused(ModelFolder::open(folder.path()), "unsupported_model").contains("CTC"));
    // an encoder and nothing that reads it
    let encoder = copy_of("heads/classification");
    let bytes = bytes_of(&encoder.path().join("model.safetensors"));
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let views = file.tensors().into_iter().filter(|(name, _)| name.starts_with("encoder."));
    std::fs::write(encoder.path().join("model.safetensors"), serialize(views, None).unwrap()).unwrap();
    assert!(refused(load(encoder.path()), "unsupported_model").contains("neither a decoder"));
}

/// The same kinds of repository as `.bin`, whose size no configuration tells.
#[test]
fn other_models_in_pytorchs_format_are_called_by_name_too() {
    let folder = copy_of("heads/multitask");
    write(&folder, "config.json", &json!({"architectures": ["HubertForCTC"], "model_type": "hubert"}));
    let sentence = refused(ModelFolder::open(folder.path()), "invalid_config");
    assert!(sentence.contains("d_model"), "{sentence}");
    std::fs::remove_file(folder.path().join("config.json")).unwrap();
    let sentence = refused(ModelFolder::open(folder.path()), "model_not_found");
    assert!(sentence.contains("config.json"), "{sentence}");

    let peft = tempfile::tempdir().unwrap();
    write(&peft, "adapter_config.json", &json!({"base_model_name_or_path": "openai/whisper-small"}));
    let sentence = refused(ModelFolder::open(peft.path()), "unsupported_model");
    assert!(sentence.contains("merge_and_unload"), "{sentence}");
}

/// What other tools write into `config.json` and transformers would leave out.
#[test]
fn nulls_and_nested_configurations_are_read() {
    let folder = copy_of("heads/multitask");
    set(&folder, "architectures", json!([null]));
    set(&folder, "suppress_tokens", json!([]));
    let path = folder.path().join("config.json");
    let mut inner: Value = serde_json::from_slice(&bytes_of(&path)).unwrap();
    for key in ["architectures", "activation_function", "begin_suppress_tokens"] {
        inner.as_object_mut().unwrap().insert(key.to_owned(), Value::Null);
    }
    let outer = json!({"architectures": ["WhisperForMultiTask"], "custom_model": true, "whisper_config": inner});
    write(&folder, "config.json", &outer);
    let info = load(folder.path()).unwrap().info().clone();
    assert_eq!((info.task, info.architecture.as_str()), (Task::Multi, "WhisperForMultiTask"));
    assert!(info.fallbacks.iter().any(|f| f.contains("whisper_config")), "{:?}", info.fallbacks);
}

/// A fine-tuned Whisper is asked in the language that it was trained with.
#[test]
fn twi_is_decoded_with_the_language_that_a_checkpoint_names() {
    let samples = clip("tw_go_cart").samples()[..12_000].to_vec();
    let language = |change: &dyn Fn(&mut Value)| {
        let folder = copy_of("tiny-multilingual");
        let mut generation: Value = json("tiny-multilingual/generation_config.json");
        change(&mut generation);
        write(&folder, "generation_config.json", &generation);
        let recognizer = load(folder.path()).unwrap();
        let said = recognizer.info().fallbacks.iter().any(|f| f.contains("which generation_config.json names"));
        let got = recognize(&recognizer, &samples, &RecognizeOptions::default());
        assert_eq!(got.whisper_info.language, "tw");
        (got.whisper_info.decode_language.unwrap(), said)
    };
    // the fixture knows en, sw and fr
    assert_eq!(language(&|_| {}), ("sw".to_owned(), false));
    assert_eq!(language(&|g| g["language"] = json!("french")), ("fr".to_owned(), true));
    assert_eq!(language(&|g| g["language"] = json!("<|en|>")), ("en".to_owned(), true));
    assert_eq!(language(&|g| g["language"] = json!("klingon")), ("sw".to_owned(), false));
    assert_eq!(language(&|g| g["forced_decoder_ids"] = json!([[1, 62], [2, 64]])), ("fr".to_owned(), true));
    assert_eq!(language(&|g| g["forced_decoder_ids"] = json!([[1, null], [2, 64]])), ("sw".to_owned(), false));

    // a token of its own, behind all others
    let folder = copy_of("tiny-multilingual");
    let text = String::from_utf8(bytes_of(&folder.path().join("tokenizer.json"))).unwrap();
    std::fs::write(folder.path().join("tokenizer.json"), text.replace("<|0.98|>", "<|tw|>")).unwrap();
    let recognizer = load(folder.path()).unwrap();
    assert!(recognizer.info().languages.contains(&"tw".to_owned()));
    let got = recognize(&recognizer, &samples, &RecognizeOptions::default());
    assert_eq!(got.whisper_info.decode_language.as_deref(), Some("tw"));
}

/// Without alignment heads, or with another model's, there are word times all the same.
#[test]
fn word_times_need_no_alignment_heads() {
    let audio = Waveform::new(clip("tw_go_cart").samples()[..12_000].to_vec()).unwrap();
    for heads in [Value::Null, json!([[25, 3], [31, 0]]), json!([])] {
        let folder = copy_of("tiny-2");
        let mut generation: Value = json("tiny-2/generation_config.json");
        generation["alignment_heads"] = heads.clone();
        write(&folder, "generation_config.json", &generation);
        let recognizer = load(folder.path()).unwrap();
        assert!(recognizer.info().fallbacks.iter().any(|f| f.contains("alignment heads")), "{heads}");
        let options = TranscribeOptions { word_timestamps: true, ..TranscribeOptions::default() };
        let got = block_on(recognizer.transcribe(&audio, None, &options)).unwrap();
        assert!(!got.text.trim().is_empty());
        assert!(got.segments.iter().any(|s| !s.words.is_empty()), "{heads}");
    }
}

#[test]
fn an_untied_projection_is_refused() {
    let folder = copy_of("heads/multitask");
    set(&folder, "tie_word_embeddings", json!(false));
    assert!(load(folder.path()).is_ok(), "it says so, but holds the same numbers twice");
    let tensors = bytes_of(&golden("tiny-2/model.safetensors"));
    let file = safetensors::SafeTensors::deserialize(&tensors).unwrap();
    let mut views: Vec<(String, safetensors::tensor::TensorView<'_>)> = file.tensors();
    let zeros = vec![0_u8; views.iter().find(|(n, _)| n.contains("embed_tokens")).unwrap().1.data().len()];
    let shape = file.tensor("model.decoder.embed_tokens.weight").unwrap().shape().to_vec();
    let other = safetensors::tensor::TensorView::new(safetensors::Dtype::F32, shape, &zeros).unwrap();
    views.push(("proj_out.weight".to_owned(), other));
    let folder = copy_of("tiny-2");
    let bytes = safetensors::serialize(views, None).unwrap();
    std::fs::write(folder.path().join("model.safetensors"), bytes).unwrap();
    assert!(load(folder.path()).is_ok(), "tied unless it says otherwise");
    set(&folder, "tie_word_embeddings", json!(false));
    assert!(refused(load(folder.path()), "unsupported_model").contains("tie_word_embeddings"));
}

#[cfg(unix)]
#[test]
fn links_lead_nowhere_else() {
    let outside = tempfile::tempdir().unwrap();
    for file in ["model.safetensors", "config.json", "tokenizer.json"] {
        let folder = hugging_face_folder(&[("model.safetensors", "model.safetensors")]);
        let target = outside.path().join(file);
        std::fs::rename(folder.path().join(file), &target).unwrap();
        std::os::unix::fs::symlink(&target, folder.path().join(file)).unwrap();
        refused(ModelFolder::open(folder.path()), "unsafe_path");
    }
    // a link inside the folder, and the hub cache's own from a snapshot to its blobs, are followed
    let cache = tempfile::tempdir().unwrap();
    let repo = cache.path().join("models--shop--tiny-2");
    let snapshot = repo.join("snapshots").join("0".repeat(40));
    std::fs::create_dir_all(&snapshot).unwrap();
    std::fs::create_dir_all(repo.join("blobs")).unwrap();
    for (i, file) in ["config.json", "generation_config.json", "tokenizer.json", "model.safetensors"].iter().enumerate()
    {
        std::fs::copy(golden("tiny-2").join(file), repo.join("blobs").join(i.to_string())).unwrap();
        std::os::unix::fs::symlink(format!("../../blobs/{i}"), snapshot.join(file)).unwrap();
    }
    assert_eq!(ModelFolder::open(&snapshot).unwrap().name, "shop/tiny-2");
    std::fs::remove_file(snapshot.join("config.json")).unwrap();
    std::os::unix::fs::symlink("../../../secret.json", snapshot.join("config.json")).unwrap();
    std::fs::copy(golden("tiny-2/config.json"), cache.path().join("secret.json")).unwrap();
    refused(ModelFolder::open(&snapshot), "unsafe_path");
}

#[test]
fn a_pointer_of_large_file_storage_is_not_the_weights() {
    let folder = hugging_face_folder(&[("model.safetensors", "model.safetensors")]);
    let pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 290403936\n";
    std::fs::write(folder.path().join("model.safetensors"), pointer).unwrap();
    let sentence = refused(ModelFolder::open(folder.path()), "damaged_weights");
    assert!(sentence.contains("git lfs pull"), "{sentence}");
}

/// Older checkpoints have the tokenizer in parts.
#[test]
fn a_tokenizer_of_parts_is_the_whole_one() {
    for name in ["tiny-multilingual", "tiny-2"] {
        let whole: Value = json(&format!("{name}/tokenizer.json"));
        let parts = copy_of(name);
        std::fs::remove_file(parts.path().join("tokenizer.json")).unwrap();
        refused(ModelFolder::open(parts.path()), "model_not_found");
        write(&parts, "vocab.json", &whole["model"]["vocab"]);
        let merge = |m: &Value| match m {
            Value::String(line) => line.clone(),
            pair => format!("{} {}", pair[0].as_str().unwrap(), pair[1].as_str().unwrap()),
        };
        let merges: Vec<String> = whole["model"]["merges"].as_array().unwrap().iter().map(merge).collect();
        std::fs::write(parts.path().join("merges.txt"), format!("#version: 0.2\n{}\n", merges.join("\n"))).unwrap();
        let added: serde_json::Map<String, Value> = whole["added_tokens"]
            .as_array()
            .unwrap()
            .iter()
            .map(|t| (t["content"].as_str().unwrap().to_owned(), t["id"].clone()))
            .collect();
        write(&parts, "added_tokens.json", &Value::Object(added));

        let (from_parts, from_whole) = (load(parts.path()).unwrap(), load(&golden(name)).unwrap());
        assert!(from_parts.info().fallbacks.iter().any(|f| f.contains("no tokenizer.json")));
        let tokenizer = |folder: &Path| {
            let json = ModelFolder::open(folder).unwrap().into_whisper().unwrap().tokenizer_json.unwrap();
            okyeame_core::tokenizer::Tokenizer::from_json(&json).unwrap()
        };
        let (a, b) = (tokenizer(parts.path()), tokenizer(&golden(name)));
        assert_eq!(a.special(), b.special());
        for text in ["", "ɛ", "kɔ cart", " no mu ɔɔ", "a"] {
            assert_eq!(a.encode(text).unwrap(), b.encode(text).unwrap(), "{text:?}");
        }
        let all: Vec<u32> = (0..b.special().eot).collect();
        assert_eq!(a.decode(&all).unwrap(), b.decode(&all).unwrap());
        assert_eq!(from_parts.info().languages, from_whole.info().languages);

        for (file, text) in [("vocab.json", "[]"), ("vocab.json", "{\"a\": -1}"), ("added_tokens.json", "7")] {
            let spoilt = tempfile::tempdir().unwrap();
            for f in std::fs::read_dir(parts.path()).unwrap() {
                let f = f.unwrap();
                std::fs::copy(f.path(), spoilt.path().join(f.file_name())).unwrap();
            }
            std::fs::write(spoilt.path().join(file), text).unwrap();
            refused(load(spoilt.path()), "invalid_config");
        }
    }
}
