//! Commands that were typed: the same answer as for spoken ones, from the words alone.

#![allow(clippy::unwrap_used)] // a test that cannot go on fails

use std::path::{Path, PathBuf};
use std::sync::Arc;

use okyeame_core::intent::catalogue::Catalogue;
use okyeame_core::recognizer::MAX_TEXT_CHARS;
use okyeame_core::{IntentSource, RecognizeOptions, Recognizer, Rejection};
use serde_json::json;

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden").join(name)
}

/// No word of it is computed by the model: any model will do.
fn recognizer() -> Recognizer {
    Recognizer::load(&golden("tiny-multilingual")).unwrap()
}

#[test]
fn what_was_typed_means_what_it_says() {
    let recognizer = recognizer();
    let options = RecognizeOptions { top_k: 3, ..RecognizeOptions::default() };
    for (text, intent) in [
        ("Fa yei to cart no mu", "add_to_cart"),
        ("fa yɛi to cart no mu", "add_to_cart"),
        ("  FA YEI TO CART NO MU!  ", "add_to_cart"),
        ("Kɔ cart no mu", "show_cart"),
        ("Kyerɛ me cart no", "show_cart"),
        ("Boa me", "help"),
    ] {
        let answer = recognizer.recognize_text(text, &options).unwrap();
        assert_eq!((answer.intent.as_str(), answer.accepted), (intent, true), "{text}: {answer:?}");
        assert_eq!(answer.transcription.as_deref(), Some(text.trim()));
        assert_eq!(answer.intent_source, IntentSource::Transcript);
        assert_eq!(answer.whisper_info.decode_language, None);
        assert_eq!(answer.top_predictions.len(), 3);
    }
}

#[test]
fn a_catalogue_gives_its_values() {
    let catalogue = json!({"products": [{"value": "rice", "names": ["ɛmo", "rice"]}]}).to_string();
    let catalogue = Some(Arc::new(Catalogue::parse(catalogue.as_bytes()).unwrap()));
    let options = RecognizeOptions { catalogue, ..RecognizeOptions::default() };
    let answer = recognizer().recognize_text("Hwehwɛ ɛmo ma me", &options).unwrap();
    assert_eq!(answer.intent, "search", "{answer:?}");
    assert!(answer.slots.iter().any(|slot| slot.slot == "product" && slot.value == "rice"), "{:?}", answer.slots);
}

#[test]
fn talk_is_no_command_and_rubbish_no_reason_to_fail() {
    let recognizer = recognizer();
    let options = RecognizeOptions::default();
    for text in [
        "The president spoke to farmers in Kumasi yesterday about the price of cocoa",
        "1234567890",
        "مرحبا بالعالم",
        "😀😀😀",
        "\u{202e}\0\u{1b}[31m",
        "x",
    ] {
        let answer = recognizer.recognize_text(text, &options).unwrap();
        assert_eq!((answer.intent.as_str(), answer.accepted), ("unknown", false), "{text}: {answer:?}");
        assert_ne!(answer.rejection, Some(Rejection::NoSpeech), "{text}");
        assert!(answer.slots.is_empty());
    }
}

#[test]
fn a_text_is_neither_blank_nor_a_book() {
    let recognizer = recognizer();
    for text in ["", "  \n\t ", &"ɔ".repeat(MAX_TEXT_CHARS + 1)] {
        let error = recognizer.recognize_text(text, &RecognizeOptions::default()).unwrap_err();
        assert_eq!(error.code(), "invalid_parameter", "{text}");
    }
    assert!(recognizer.recognize_text(&"ɔ".repeat(MAX_TEXT_CHARS), &RecognizeOptions::default()).is_ok());
    let bad = RecognizeOptions { top_k: 0, ..RecognizeOptions::default() };
    assert_eq!(recognizer.recognize_text("x", &bad).unwrap_err().code(), "invalid_parameter");
}

#[test]
fn a_model_with_labels_of_its_own_answers_in_them() {
    let recognizer = Recognizer::load(&golden("heads/one-encoder-mlp")).unwrap();
    let labels = recognizer.intents().iter().map(|intent| intent.intent.clone()).collect::<Vec<_>>();
    let answer = recognizer.recognize_text("Fa yei to cart no mu", &RecognizeOptions::default()).unwrap();
    for prediction in &answer.top_predictions {
        assert_eq!(labels[prediction.label_id], prediction.intent);
    }
    assert_eq!(answer.accepted, labels.contains(&"add_to_cart".to_owned()), "{answer:?}");
}
