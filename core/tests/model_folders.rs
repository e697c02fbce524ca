//! A model folder of every shape, from its files to its answer: what it is told to be, what it is called, what stands in
//! for what is missing, and what a contradiction is called. `tests/golden/heads` says what the numbers must be;
//! transformers made them.

#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use std::ops::ControlFlow;
use std::path::Path;

use common::{Loaded, block_on, bytes_of, clip, copy_of, golden, hugging_face_folder, json, refused, set, write};
use okyeame_core::audio::{LogMelExtractor, Waveform};
use okyeame_core::decoding::{DecodeOptions, Segment, SpeechModel, TranscribeOptions, decode_window};
use okyeame_core::intent::built_in;
use okyeame_core::recognizer::LoadOptions;
use okyeame_core::tokenizer::SpeechTask;
use okyeame_core::weights::folder::{Base, ModelFolder, OpenOptions};
use okyeame_core::{Error, IntentSource, Recognition, RecognizeOptions, Recognizer, Rejection, Result, Risk, Task};
use serde_json::{Value, json};

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

fn words_only() -> RecognizeOptions {
    RecognizeOptions { transcribe: false, top_k: 100, ..RecognizeOptions::default() }
}

fn recognize(recognizer: &Recognizer, samples: &[f32], options: &RecognizeOptions) -> Recognition {
    let audio = Waveform::new(samples.to_vec()).unwrap();
    block_on(recognizer.recognize(&audio, options)).unwrap()
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

/// What is said window by window is what is said in the end, and whoever has heard enough ends the work.
#[test]
fn a_long_recording_is_told_in_pieces() {
    let audio = clip("tw_go_cart");
    // Of both kinds: windows of one second, and a CTC model that hears everything at once.
    for (folder, in_windows) in [("tiny-2", true), ("wav2vec2-base", false)] {
        let recognizer = load(&golden(folder)).unwrap();
        // Not drawn by lot: the same each time.
        let decode = DecodeOptions { temperatures: vec![0.0], ..DecodeOptions::default() };
        let options = TranscribeOptions { decode, ..TranscribeOptions::default() };
        let whole = block_on(recognizer.transcribe(&audio, None, &options)).unwrap();
        let mut pieces = Vec::new();
        let mut keep = |segments: &[Segment]| -> ControlFlow<()> {
            pieces.push(segments.to_vec());
            ControlFlow::Continue(())
        };
        let told = block_on(recognizer.transcribe_in_pieces(&audio, None, &options, &mut keep)).unwrap();
        assert_eq!((&told.text, &told.segments), (&whole.text, &whole.segments), "{folder}");
        assert_eq!(pieces.concat(), whole.segments, "{folder}");
        assert_eq!(pieces.len() > 1, in_windows, "{folder}: {} windows", pieces.len());

        let mut n_calls = 0;
        let mut enough = |_: &[Segment]| -> ControlFlow<()> {
            n_calls += 1;
            ControlFlow::Break(())
        };
        let cut = block_on(recognizer.transcribe_in_pieces(&audio, None, &options, &mut enough)).unwrap();
        assert_eq!((n_calls, &cut.segments), (1, &pieces[0]), "{folder}");
    }
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
