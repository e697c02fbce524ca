#![allow(clippy::unwrap_used)]

use std::task::{Context, Poll, Waker};

use burn::tensor::TensorData;

use super::*;
use crate::weights::safetensors::Safetensors;
use crate::weights::to_safetensors;

fn spec() -> HeadSpec {
    HeadSpec {
        n_state: 2,
        n_layer: 1,
        window: HeadWindow::Full,
        activation: HeadActivation::Relu,
        pooling: HeadPooling::Mean,
        alphabet: Alphabet::default(),
    }
}

type Named = (&'static str, Vec<usize>, Vec<f32>);
type State<'a> = (&'a [f32], [usize; 3]);

fn source(tensors: &[Named]) -> Safetensors {
    Safetensors::from_bytes(to_safetensors(tensors), "model.safetensors").unwrap()
}

fn load(spec: HeadSpec, tensors: &[Named]) -> Result<IntentHead> {
    let weights = source(tensors);
    let checkpoint = Checkpoint::new(&weights, &IntentHead::expected_tensors(&spec, &weights)?, |_| false)?;
    IntentHead::load(spec, &checkpoint, &weights, &Device::flex())
}

/// On the CPU nothing has to be waited for.
fn classify(head: &IntentHead, states: &[State<'_>]) -> Result<Vec<HeadAnswer>> {
    let states: Vec<Tensor<3>> = states
        .iter()
        .map(|(values, shape)| Tensor::from_data(TensorData::new(values.to_vec(), *shape), &Device::flex()))
        .collect();
    match std::pin::pin!(head.classify(states)).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(answer) => answer,
        Poll::Pending => panic!("the CPU does not wait"),
    }
}

fn classifier() -> Named {
    ("head.classifier.weight", vec![3, 2], vec![1.0, 0.0, 0.0, 1.0, 1.0, 1.0])
}

#[test]
fn a_linear_head_on_the_mean() {
    let head = load(spec(), &[classifier(), ("head.classifier.bias", vec![3], vec![0.0, 0.5, -1.0])]).unwrap();
    assert_eq!((head.n_classes(), head.n_parameters(), head.needs_all_states()), (3, 9, false));
    assert_eq!(head.window(), HeadWindow::Full);
    // means (2, 3) and (-1, 0)
    let states: &[f32] = &[1.0, 2.0, 3.0, 4.0, 0.0, -4.0, -2.0, 4.0];
    let answer = classify(&head, &[(states, [2, 2, 2])]).unwrap();
    let logits: Vec<Vec<f32>> = answer.into_iter().map(|answer| answer.logits).collect();
    assert_eq!(logits, [[2.0, 3.5, 4.0], [-1.0, 0.5, -2.0]]);
}

#[test]
fn every_optional_part() {
    let layer_weights = ("head.layer_weights", vec![2], vec![0.0, 3.0f32.ln()]); // shares 1/4 and 3/4
    let projector = ("head.projector.weight", vec![2, 2], vec![0.0, 1.0, 1.0, 0.0]);
    let hidden = ("head.hidden.weight", vec![2, 2], vec![1.0, 0.0, 0.0, -1.0]);
    let hidden_bias = ("head.hidden.bias", vec![2], vec![0.0, 1.0]);
    let tensors = [layer_weights, projector, hidden, hidden_bias, classifier()];
    // (4, 8) / 4 + (4, 0) * 3 / 4 = (4, 2); swapped (2, 4); hidden (2, -3)
    let states: [State<'_>; 2] = [(&[4.0, 8.0], [1, 1, 2]), (&[4.0, 0.0], [1, 1, 2])];
    // gelu(2) = 2 * 0.977_249_9, gelu(-3) = -3 * 0.001_349_9
    let answers = [
        (HeadActivation::Relu, [2.0, 0.0]),
        (HeadActivation::Tanh, [2.0f32.tanh(), (-3.0f32).tanh()]),
        (HeadActivation::Gelu, [1.954_499_7, -0.004_049_7]),
    ];
    for (activation, [a, b]) in answers {
        let head = load(HeadSpec { activation, ..spec() }, &tensors).unwrap();
        assert!(head.needs_all_states());
        assert_eq!(head.n_parameters(), 2 + 4 + 6 + 6);
        let answer = classify(&head, &states).unwrap();
        for (got, expected) in answer[0].logits.iter().zip([a, b, a + b]) {
            assert!((got - expected).abs() < 1e-5, "{activation:?}: {got} against {expected}");
        }
    }
}

#[test]
fn what_does_not_fit_is_named() {
    let zeros = |name: &'static str, shape: &[usize]| (name, shape.to_vec(), vec![0.0; shape.iter().product()]);
    let cases: [(&[Named], &str); 9] = [
        (&[], "missing [\"head.classifier.weight\"]"),
        (&[zeros("head.classifier.bias", &[3])], "missing [\"head.classifier.weight\"]"),
        (&[zeros("head.classifier.weight", &[3, 4])], "head.classifier.weight: expected [3, 2], got [3, 4]"),
        (&[zeros("head.classifier.weight", &[0, 2])], "expected 1 to 100000 rows, got [0, 2]"),
        (&[zeros("head.classifier.weight", &[100_001, 2])], "expected 1 to 100000 rows, got [100001, 2]"),
        (&[zeros("head.classifier.weight", &[])], "expected 1 to 100000 rows, got []"),
        (&[classifier(), zeros("head.classifier.bias", &[2])], "head.classifier.bias: expected [3], got [2]"),
        (&[classifier(), zeros("head.projector.bias", &[2])], "missing [\"head.projector.weight\"]"),
        (&[classifier(), zeros("head.layer_weights", &[3])], "head.layer_weights: expected [2], got [3]"),
    ];
    for (tensors, reason) in cases {
        let error = load(spec(), tensors).unwrap_err();
        assert_eq!(error.code(), "weight_mismatch");
        assert!(error.to_string().contains(reason), "{error}");
    }
    // The projector's rows are the classifier's columns.
    let error = load(spec(), &[classifier(), zeros("head.projector.weight", &[5, 2])]).unwrap_err();
    assert!(error.to_string().contains("head.classifier.weight: expected [3, 5], got [3, 2]"), "{error}");
}

#[test]
fn states_that_do_not_fit_are_refused() {
    let head = load(spec(), &[classifier()]).unwrap();
    let two: &[f32] = &[1.0, 2.0];
    let cases: [(&[State<'_>], &str); 5] = [
        (&[], "shape_mismatch"),
        (&[(two, [1, 1, 2]), (two, [1, 1, 2])], "shape_mismatch"),
        (&[(two, [1, 2, 1])], "shape_mismatch"),
        (&[(&[f32::NAN, 1.0], [1, 1, 2])], "not_finite"),
        (&[(&[f32::MAX, f32::MAX], [1, 1, 2])], "not_finite"),
    ];
    for (states, code) in cases {
        assert_eq!(classify(&head, states).unwrap_err().code(), code, "{states:?}");
    }
}
