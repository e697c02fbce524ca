//! Against the encoder's own code, which `core/tests/golden_tiny.rs` holds against transformers.

#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::sync::Arc;

use super::*;
use crate::weights::lora::LoraMerged;
use crate::weights::safetensors::Safetensors;
use crate::weights::to_safetensors;
use crate::whisper::AudioEncoder;

/// Positions of a clip in these tests; the fixture has 50.
const N_CTX: usize = 30;

fn fixture(file: &str) -> Vec<u8> {
    std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden/tiny-2").join(file)).unwrap()
}

/// Three layers of width 16, two heads.
pub(in crate::training) fn config() -> WhisperConfig {
    WhisperConfig::from_json(&fixture("config.json")).unwrap()
}

pub(in crate::training) fn weights() -> Arc<dyn WeightSource> {
    Arc::new(Safetensors::from_bytes(fixture("model.safetensors"), "model.safetensors").unwrap())
}

fn spec(n_layers: usize) -> LoraSpec {
    LoraSpec { rank: 3, alpha: 6.0, layers: (3 - n_layers..3).collect() }
}

fn tensor<const D: usize>(shape: [usize; D], seed: u64, device: &Device) -> Tensor<D> {
    let mut rng = fastrand::Rng::with_seed(seed);
    let values: Vec<f32> = (0..shape.iter().product::<usize>()).map(|_| 2.0 * rng.f32() - 1.0).collect();
    Tensor::from_data(TensorData::new(values, shape), device)
}

pub(in crate::training) fn in_memory(tensors: &[NamedTensor]) -> Safetensors {
    let named: Vec<(&str, Vec<usize>, Vec<f32>)> =
        tensors.iter().map(|(name, shape, values)| (name.as_str(), shape.clone(), values.clone())).collect();
    Safetensors::from_bytes(to_safetensors(&named), "adapters").unwrap()
}

/// Adapters that do something: B as well as A is drawn.
pub(in crate::training) fn trained(spec: &LoraSpec) -> Vec<NamedTensor> {
    let expected = spec.expected_tensors(16).into_iter().zip(100..);
    expected
        .map(|((name, shape), seed)| {
            let size = if name.ends_with(".b") { 0.25 } else { 1.0 };
            let numbers = tensor([shape[0], shape[1]], seed, &Device::flex()) * size;
            (name, shape, values(numbers).unwrap())
        })
        .collect()
}

pub(in crate::training) fn encoder(weights: &dyn WeightSource) -> AudioEncoder {
    let config = config();
    let checkpoint = Checkpoint::new(weights, &encoder_tensors(&config), |_| true).unwrap();
    AudioEncoder::load(&config, &checkpoint, &Device::flex()).unwrap()
}

pub(in crate::training) fn mel() -> Tensor<3> {
    tensor([1, 128, 2 * N_CTX], 7, &Device::flex())
}

/// The largest difference of two tensors.
pub(in crate::training) fn distance(a: &Tensor<3>, b: &Tensor<3>) -> f32 {
    assert_eq!(a.dims(), b.dims());
    let (a, b) = (values(a.clone()).unwrap(), values(b.clone()).unwrap());
    a.iter().zip(&b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

#[test]
fn new_adapters_change_nothing() {
    let (weights, device) = (weights(), Device::flex());
    let states = encoder(&*weights).forward_all(mel()).unwrap();
    for n_layers in 1..=3 {
        let frozen = FrozenLayers::load(&config(), &*weights, n_layers).unwrap();
        let spec = spec(n_layers);
        let layers = LoraLayers::init(&spec, 16, 1, &device).unwrap();
        let first = 3 - n_layers;
        let got = layers.forward(&frozen, spec.scale(), states[first].clone(), None);
        assert_eq!(got.len(), n_layers);
        for (at, (got, expected)) in got.iter().zip(&states[first + 1..]).enumerate() {
            assert!(distance(got, expected) < 1e-4, "{n_layers} layers, state {at}: {}", distance(got, expected));
        }
    }
    for n_layers in [0, 4] {
        let error = FrozenLayers::load(&config(), &*weights, n_layers).unwrap_err();
        assert_eq!(error.code(), "invalid_parameter");
    }
}

/// What is trained and what is served are the same encoder.
#[test]
fn the_merged_encoder_gives_the_states_of_training() {
    let (weights, device) = (weights(), Device::flex());
    let frozen_states = encoder(&*weights).forward_all(mel()).unwrap();
    for n_layers in 1..=3 {
        let spec = spec(n_layers);
        let adapters = Arc::new(in_memory(&trained(&spec)));
        let layers = LoraLayers::read(&spec, 16, &*adapters, &device).unwrap();
        let frozen = FrozenLayers::load(&config(), &*weights, n_layers).unwrap();
        let merged = LoraMerged::new(Arc::clone(&weights), adapters, &spec, &config()).unwrap();
        let states = encoder(&merged).forward_all(mel()).unwrap();
        let first = 3 - n_layers;
        assert!(distance(&states[first], &frozen_states[first]) < 1e-6, "what is below stays");
        let got = layers.forward(&frozen, spec.scale(), frozen_states[first].clone(), None);
        for (at, (got, expected)) in got.iter().zip(&states[first + 1..]).enumerate() {
            assert!(distance(got, expected) < 1e-4, "{n_layers} layers, state {at}: {}", distance(got, expected));
            let moved = distance(expected, &frozen_states[first + 1 + at]);
            assert!(moved > 1e-2, "{n_layers} layers, state {at}: adapters moved it by {moved}");
        }
    }
}

#[test]
fn a_clip_in_a_batch_is_as_it_is_alone() {
    let device = Device::flex();
    let spec = spec(2);
    let layers = LoraLayers::read(&spec, 16, &in_memory(&trained(&spec)), &device).unwrap();
    let frozen = FrozenLayers::load(&config(), &*weights(), 2).unwrap();
    let lengths = [20, 13, 1];
    let clips = lengths.map(|n| tensor([1, n, 16], n as u64, &device));
    // Behind the end of the shorter ones stands rubbish.
    let rows = clips.iter().zip(lengths).map(|(clip, n)| match 20 - n {
        0 => clip.clone(),
        rest => Tensor::cat(vec![clip.clone(), tensor([1, rest, 16], 99, &device) * 50.0], 1),
    });
    let together = Tensor::cat(rows.collect(), 0);
    let mask = padding(&lengths, 20, &device);
    let with_mask = layers.forward(&frozen, spec.scale(), together.clone(), Some(&mask));
    let without = layers.forward(&frozen, spec.scale(), together, None);
    for (at, (clip, n)) in clips.iter().zip(lengths).enumerate() {
        let alone = layers.forward(&frozen, spec.scale(), clip.clone(), None);
        for (state, alone) in alone.iter().enumerate() {
            let of_clip = |states: &[Tensor<3>]| states[state].clone().slice([at..at + 1, 0..n, 0..16]);
            assert!(distance(&of_clip(&with_mask), alone) < 1e-4, "clip {at}, state {state}");
            if n < 20 {
                assert!(distance(&of_clip(&without), alone) > 1e-3, "clip {at}: rubbish that is heard is not noticed");
            }
        }
    }
}

#[test]
fn what_is_written_is_read() {
    let device = Device::flex();
    let spec = spec(2);
    let layers = LoraLayers::init(&spec, 16, 1, &device).unwrap();
    let tensors = layers.tensors(&spec).unwrap();
    let names: Vec<&str> = tensors.iter().map(|(name, ..)| name.as_str()).collect();
    assert_eq!(names.len(), 8);
    assert_eq!(names[..2], ["lora.layers.1.q_proj.a", "lora.layers.1.q_proj.b"]);
    assert_eq!(names[7], "lora.layers.2.v_proj.b");
    for (name, _, numbers) in &tensors {
        assert_eq!(numbers.iter().all(|v| *v == 0.0), name.ends_with(".b"), "{name}");
    }
    let again = LoraLayers::read(&spec, 16, &in_memory(&tensors), &device).unwrap();
    assert_eq!(again.tensors(&spec).unwrap(), tensors);
    assert_eq!(LoraLayers::init(&spec, 16, 1, &device).unwrap().tensors(&spec).unwrap(), tensors);
    assert_ne!(LoraLayers::init(&spec, 16, 2, &device).unwrap().tensors(&spec).unwrap(), tensors);
    let wider = LoraSpec { rank: 4, ..spec };
    let error = LoraLayers::read(&wider, 16, &in_memory(&tensors), &device).unwrap_err();
    assert_eq!(error.code(), "weight_mismatch");
}

/// Central differences against the derivatives that autodiff gives, through mask, softmax, norm and gelu.
#[test]
fn gradients_are_those_of_the_states() {
    let device = Device::flex().autodiff();
    let spec = spec(2);
    let frozen = FrozenLayers::load(&config(), &*weights(), 2).unwrap();
    let tensors = trained(&spec);
    let (x, directions) = (tensor([2, 9, 16], 1, &device), tensor([2, 9, 16], 2, &device));
    let mask = padding(&[9, 6], 9, &device);
    let layers_of = |tensors: &[NamedTensor]| LoraLayers::read(&spec, 16, &in_memory(tensors), &device).unwrap();
    let loss = |layers: &LoraLayers| {
        let states = layers.forward(&frozen, spec.scale(), x.clone(), Some(&mask));
        states.into_iter().map(|state| (state * directions.clone()).sum()).reduce(|sum, x| sum + x).unwrap()
    };
    let layers = layers_of(&tensors);
    let gradients = loss(&layers).backward();
    let first = &layers.layers[0];
    let last = &layers.layers[1];
    let parameters = [(0, &first.query.a), (1, &first.query.b), (2, &first.value.a), (7, &last.value.b)];
    for (tensor_at, parameter) in parameters {
        let gradient = values(parameter.val().grad(&gradients).unwrap()).unwrap();
        assert!(gradient.iter().any(|g| g.abs() > 0.1), "{}", tensors[tensor_at].0);
        for at in [0, 5, gradient.len() - 1] {
            let moved = |by: f32| {
                let mut moved = tensors.clone();
                moved[tensor_at].2[at] += by;
                f64::from(values(loss(&layers_of(&moved))).unwrap()[0])
            };
            let expected = (moved(5e-3) - moved(-5e-3)) / 1e-2;
            let got = f64::from(gradient[at]);
            assert!(
                (expected - got).abs() < 0.02 + 0.01 * expected.abs(),
                "{} {at}: {got}, expected {expected}",
                tensors[tensor_at].0
            );
        }
    }
}
