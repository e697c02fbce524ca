//! Log-mel features against transformers' `WhisperFeatureExtractor`, 80 and 128 mels.
//!
//! Tolerance: 1e-4 for each value, 1e-5 for the mean difference (the reference's own f32 is up to 4e-5 off f64 in
//! the quietest bins). The filter bank is private; `mel.rs` tests it, and every value here went through it.

#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use common::{Array, Tensors, clip, compare, golden, json};
use okyeame_core::audio::{HOP_LENGTH, LogMelExtractor, N_FRAMES, N_SAMPLES};
use serde::Deserialize;

const ATOL: f32 = 1e-4;
const ATOL_OF_MEAN: f32 = 1e-5;
/// The padded clip's frames that are stored: so many from the start and so many from the end.
const HEAD: usize = 200;
const TAIL: usize = 5;

#[derive(Deserialize)]
struct Facts {
    clip: String,
    clip_samples: usize,
    fitted_samples: usize,
    synthetic_first_samples: Vec<f32>,
    synthetic_last_samples: Vec<f32>,
    silence_value: f32,
}

/// `mel.json`'s rule, whole numbers but for the last division.
fn synthetic(n_samples: u32) -> Vec<f32> {
    let (mut noise_state, mut phase) = (12_345_u32, 0_u32);
    let top = |word: u32| i32::from(((word >> 16) as u16).cast_signed());
    (0..n_samples)
        .map(|i| {
            noise_state = noise_state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            phase = phase.wrapping_add(40_000_000).wrapping_add(i.wrapping_mul(6_000));
            let sample = (top(phase) >> 2) + (top(noise_state) >> 5);
            if (6000..8000).contains(&i) { 0.0 } else { sample as f32 / 32_768.0 }
        })
        .collect()
}

fn extract(n_mels: usize, samples: &[f32], n_samples: usize) -> Array {
    let mel = LogMelExtractor::new(n_mels).extract_padded(samples, n_samples).unwrap();
    assert_eq!((mel.n_mels, mel.n_frames), (n_mels, n_samples / HOP_LENGTH));
    Array::new(&[1, n_mels, mel.n_frames], mel.data)
}

#[track_caller]
fn compare_mel(name: &str, n_mels: usize, got: &Array, expected: &Array) {
    let name = format!("{name}, {n_mels} mels");
    let expected = Array::new(&[1, n_mels, expected.shape[1]], expected.data.clone());
    compare(&name, got, &expected, ATOL);
    let sum: f32 = got.data.iter().zip(&expected.data).map(|(g, e)| (g - e).abs()).sum();
    let mean = sum / got.data.len() as f32;
    assert!(mean <= ATOL_OF_MEAN, "{name}: off by {mean:.2e} in the mean");
}

#[test]
fn a_clip_padded_to_30_s() {
    let facts: Facts = json("mel/mel.json");
    let audio = clip(&facts.clip);
    assert_eq!(audio.samples().len(), facts.clip_samples);
    for n_mels in [80, 128] {
        let expected = Tensors::read(&golden(&format!("mel/mel_{n_mels}.safetensors")));
        let got = extract(n_mels, audio.samples(), N_SAMPLES);
        compare_mel("padded head", n_mels, &got.columns(0, HEAD), expected.get("clip.padded.head"));
        compare_mel("padded tail", n_mels, &got.columns(N_FRAMES - TAIL, N_FRAMES), expected.get("clip.padded.tail"));
        let rest = got.columns(HEAD, N_FRAMES);
        assert!(rest.data.iter().all(|v| *v == rest.data[0]), "{n_mels} mels: the padding is not one value");
    }
}

#[test]
fn a_clip_on_a_fitted_window() {
    let facts: Facts = json("mel/mel.json");
    let audio = clip(&facts.clip);
    // 0.1 s of silence behind the clip, then up to a whole encoder position.
    let n_samples = (audio.samples().len() + 1600).next_multiple_of(2 * HOP_LENGTH);
    assert_eq!(n_samples, facts.fitted_samples);
    for n_mels in [80, 128] {
        let expected = Tensors::read(&golden(&format!("mel/mel_{n_mels}.safetensors")));
        compare_mel("fitted", n_mels, &extract(n_mels, audio.samples(), n_samples), expected.get("clip.fitted"));
    }
}

#[test]
fn a_synthetic_signal_and_its_ragged_beginning() {
    let facts: Facts = json("mel/mel.json");
    let samples = synthetic(16_000);
    assert_eq!(samples[..8], facts.synthetic_first_samples[..]);
    assert_eq!(samples[samples.len() - 4..], facts.synthetic_last_samples[..]);
    for n_mels in [80, 128] {
        let expected = Tensors::read(&golden(&format!("mel/mel_{n_mels}.safetensors")));
        compare_mel("synthetic", n_mels, &extract(n_mels, &samples, 16_000), expected.get("synthetic"));
        // 1237 samples are 7 whole frames and a rest, which the seventh frame's right half still sees. We take whole
        // frames only, so: one more, dropped. No value is at the floor, so that the eighth frame cannot raise it.
        let got = extract(n_mels, &samples[..1237], 1280).columns(0, 7);
        compare_mel("ragged", n_mels, &got, expected.get("synthetic.ragged"));
    }
}

#[test]
fn silence_is_the_references_floor() {
    let facts: Facts = json("mel/mel.json");
    for n_mels in [80, 128] {
        let got = extract(n_mels, &[0.0; 16_000], 16_000);
        assert!(got.data.iter().all(|v| (v - facts.silence_value).abs() < 1e-6), "{}", got.data[0]);
    }
}
