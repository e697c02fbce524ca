//! Several clips at once: each has the answer that it has alone, whatever stands beside it.

#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use std::path::{Path, PathBuf};

use burn::tensor::{Device, Tensor, TensorData};
use common::{Loaded, block_on, golden, model_folder};
use okyeame_core::audio::{DecodeLimits, Waveform, decode};
use okyeame_core::device::{Compute, DeviceChoice, DtypeChoice};
use okyeame_core::recognizer::LoadOptions;
use okyeame_core::weights::folder::{Base, ModelFolder, OpenOptions};
use okyeame_core::{Recognition, RecognizeOptions, Recognizer, Rejection, Result};

fn tests(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests").join(path)
}

fn load(folder: &Path, base: &Path) -> Recognizer {
    load_in(DtypeChoice::F32, folder, base)
}

fn load_in(dtype: DtypeChoice, folder: &Path, base: &Path) -> Recognizer {
    let base = || Base { name: "base".to_owned(), folder: base.to_owned() };
    let folder = ModelFolder::open_with(folder, &OpenOptions::default(), &mut |_| Ok(base())).unwrap();
    let compute = Compute::choose(DeviceChoice::Cpu, dtype, None).unwrap();
    Recognizer::from_folder(folder, LoadOptions { compute, task: None }).unwrap()
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
    for dtype in [DtypeChoice::F32, DtypeChoice::Int8] {
        check(&load_in(dtype, &tests("golden/heads/head-only"), &tests("golden/tiny-multilingual")), &[false]);
    }
}

#[test]
fn full_windows_with_and_without_words() {
    check(&load(&tests("golden/heads/one-encoder-mlp"), &tests("golden/tiny-multilingual")), &[false]);
    check(&load(&tests("golden/heads/multitask"), &tests("golden/tiny-multilingual")), &[true, false]);
}

#[test]
fn the_model_that_ships() {
    let Some(base) = model_folder() else { return };
    for dtype in [DtypeChoice::F32, DtypeChoice::Int8] {
        check(&load_in(dtype, &tests("../models/twi-shop"), &base), &[false]);
    }
}

/// How a batch goes through the encoder where it is not a core's own: in one pass, packed.
#[test]
fn packed_windows_have_the_states_that_each_has_alone() {
    let encoder = Loaded::open(&golden("tiny-multilingual")).unwrap().model.whisper.encoder;
    let device = Device::flex();
    let mels: Vec<Tensor<3>> = [10, 2, 64, 36]
        .into_iter()
        .map(|n_frames| {
            let values = (0..80 * n_frames).map(|i| ((i * 7919 + n_frames) % 997) as f32 / 500.0 - 1.0).collect();
            Tensor::from_data(TensorData::new::<f32, _>(values, [1, 80, n_frames]), &device)
        })
        .collect();
    let together = encoder.forward_all_of(mels.clone()).unwrap();
    assert_eq!(together.len(), mels.len());
    for (together, mel) in together.into_iter().zip(mels) {
        let alone = encoder.forward_all(mel).unwrap();
        assert_eq!(together.len(), alone.len());
        for (a, b) in together.into_iter().zip(alone) {
            assert_eq!(a.dims(), b.dims());
            let (a, b) = (a.try_into_vec_as::<f32>().unwrap(), b.try_into_vec_as::<f32>().unwrap());
            let worst = a.iter().zip(&b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(worst <= 1e-5, "{worst}");
        }
    }
    assert!(encoder.forward_all_of(Vec::new()).unwrap().is_empty());
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
