//! Several clips at once: each has the answer that it has alone, whatever stands beside it.

#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use std::path::{Path, PathBuf};

use common::block_on;
use okyeame_core::audio::{DecodeLimits, Waveform, decode};
use okyeame_core::recognizer::LoadOptions;
use okyeame_core::weights::folder::{Base, ModelFolder, OpenOptions};
use okyeame_core::{Recognition, RecognizeOptions, Recognizer, Rejection, Result};

fn tests(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests").join(path)
}

fn load(folder: &Path, base: &Path) -> Recognizer {
    let base = || Base { name: "base".to_owned(), folder: base.to_owned() };
    let folder = ModelFolder::open_with(folder, &OpenOptions::default(), &mut |_| Ok(base())).unwrap();
    Recognizer::from_folder(folder, LoadOptions::default()).unwrap()
}

/// The speech fixture in lengths of 0.4 to 3 s, and silence.
fn clips() -> Vec<Waveform> {
    let speech = decode(&std::fs::read(tests("audio/speech.wav")).unwrap(), &DecodeLimits::default()).unwrap();
    let samples = speech.samples();
    let part = |from: f64, to: f64| {
        let at = |share: f64| (share * samples.len() as f64) as usize;
        Waveform::new(samples[at(from)..at(to)].to_vec()).unwrap()
    };
    let silence = Waveform::new(vec![0.0; 16_000]).unwrap();
    vec![part(0.0, 1.0), part(0.0, 0.4), silence, part(0.3, 0.9), part(0.5, 0.7), part(0.0, 1.0)]
}

fn alone(model: &Recognizer, clip: &Waveform, options: &RecognizeOptions) -> Result<Recognition> {
    block_on(model.recognize(clip, options))
}

#[track_caller]
fn assert_same(together: &Recognition, alone: &Recognition) {
    let said = |r: &Recognition| {
        let places: Vec<_> = r.top_predictions.iter().map(|p| p.label_id).collect();
        (r.intent.clone(), r.rejection, r.accepted, r.transcription.clone(), r.intent_source, places)
    };
    assert_eq!(said(together), said(alone));
    for (a, b) in together.top_predictions.iter().zip(&alone.top_predictions) {
        assert!((a.confidence - b.confidence).abs() < 1e-5, "{} {} {}", a.intent, a.confidence, b.confidence);
    }
}

/// Each clip of a batch, also in another order, and with other options beside it.
fn check(model: &Recognizer, words: &[bool]) {
    let mut clips = clips();
    for _ in 0..2 {
        let options: Vec<RecognizeOptions> = (0..clips.len())
            .map(|i| RecognizeOptions {
                transcribe: words[i % words.len()],
                top_k: 1 + i,
                ..RecognizeOptions::default()
            })
            .collect();
        let batch: Vec<_> = clips.iter().zip(&options).collect();
        let answers = block_on(model.recognize_all(&batch));
        assert_eq!(answers.len(), clips.len());
        let mut kinds = std::collections::BTreeSet::new();
        for ((clip, options), together) in batch.into_iter().zip(answers) {
            let together = together.unwrap();
            assert_same(&together, &alone(model, clip, options).unwrap());
            kinds.insert(format!("{:?}", together.top_predictions.iter().map(|p| p.confidence).collect::<Vec<_>>()));
            assert_eq!(together.rejection == Some(Rejection::NoSpeech), clip.samples().iter().all(|s| *s == 0.0));
        }
        assert!(kinds.len() > 3, "the clips differ, and so do their answers");
        clips.reverse();
    }
}

#[test]
fn fitted_windows_of_all_lengths() {
    check(&load(&tests("golden/heads/head-only"), &tests("golden/tiny-multilingual")), &[false]);
}

#[test]
fn full_windows_with_and_without_words() {
    check(&load(&tests("golden/heads/one-encoder-mlp"), &tests("golden/tiny-multilingual")), &[false]);
    check(&load(&tests("golden/heads/multitask"), &tests("golden/tiny-multilingual")), &[true, false]);
}

#[test]
fn the_model_that_ships() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let base = root.join("models/whisper-base");
    if !base.join("tokenizer.json").is_file() {
        assert!(std::env::var_os("CI").is_none(), "CI fetches the default model before it tests");
        eprintln!("not run: no model at {}", base.display());
        return;
    }
    check(&load(&root.join("models/twi-shop"), &base), &[false]);
}

#[test]
fn a_clip_that_fails_fails_alone() {
    let model = load(&tests("golden/heads/head-only"), &tests("golden/tiny-multilingual"));
    let clips = clips();
    let good = RecognizeOptions { transcribe: false, ..RecognizeOptions::default() };
    let bad = RecognizeOptions { top_k: 0, ..good.clone() };
    let unknown = RecognizeOptions { language: Some("not a language".to_owned()), ..good.clone() };
    let batch = [(&clips[0], &bad), (&clips[1], &good), (&clips[3], &unknown), (&clips[4], &good)];
    let answers = block_on(model.recognize_all(&batch));
    let codes: Vec<_> = answers.iter().map(|answer| answer.as_ref().err().map(okyeame_core::Error::code)).collect();
    assert_eq!(codes, [Some("invalid_parameter"), None, Some("unsupported_language"), None]);
    for (answer, clip) in answers.iter().zip([0, 1, 3, 4]).filter(|(answer, _)| answer.is_ok()) {
        assert_same(answer.as_ref().unwrap(), &alone(&model, &clips[clip], &good).unwrap());
    }
    assert!(block_on(model.recognize_all(&[])).is_empty());
}
