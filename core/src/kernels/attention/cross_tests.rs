//! Cross-attention, with keys and values in single and in half precision, against Burn's own operations.
#![allow(clippy::unwrap_used)]

use super::tests::{assert_close, noise};
use super::*;

/// Attention onto `kv` in Burn's own operations.
fn plain_cross(q: &Tensor<3>, kv: &Tensor<3>, n_head: usize) -> Tensor<3> {
    let [k, v] = plain::split_heads::<2>(kv.clone(), n_head);
    let [_, _, n_kv, head_dim] = k.dims();
    let expand = |x: Tensor<4>| x.expand([q.dims()[0], n_head, n_kv, head_dim]);
    let [q] = plain::split_heads::<1>(q.clone(), n_head);
    plain::merge_heads(attention(q, expand(k), expand(v), false))
}

fn largest(x: &Tensor<3>) -> f32 {
    x.clone().try_into_vec_as::<f32>().unwrap().into_iter().fold(0.0, |m, v| v.abs().max(m))
}

/// Half precision has 11 bits: a key or value is at most 2^-12 of itself off, and an average of them no more.
#[test]
fn cross_attention_equals_burn() {
    for (batch, n_q, n_kv, n_head, head_dim) in [
        (1, 1, 1, 2, 4),
        (5, 1, 1, 1, 64),
        (5, 1, 150, 2, 64),
        (1, 1, 1500, 2, 64),
        (5, 1, 1500, 2, 64),
        (2, 1, 65, 3, 6),
        (1, 9, 33, 3, 8),
        (1, 100, 31, 2, 33),
    ] {
        let n_state = n_head * head_dim;
        let kv = noise([1, n_kv, 2 * n_state], 5);
        let q = noise([batch, n_q, n_state], 6);
        let expected = plain_cross(&q, &kv, n_head);
        let half_tolerance = 1e-3 * largest(&expected);
        assert_close(CrossKv::new(kv.clone(), n_head, false).attend(q.clone()), expected.clone(), 2e-6);
        assert_close(CrossKv::new(kv, n_head, true).attend(q), expected, half_tolerance);
    }
}

#[test]
fn weights_are_those_that_attention_takes() {
    let (n_q, n_kv, n_head, head_dim) = (7, 40, 2, 16);
    let kv = noise([1, n_kv, 2 * n_head * head_dim], 5);
    let q = noise([1, n_q, n_head * head_dim], 6);
    for half in [false, true] {
        let cross = CrossKv::new(kv.clone(), n_head, half);
        let attended = cross.attend(q.clone());
        for head in 0..n_head {
            let weights = at_once(cross.weights(&q, head));
            weights.chunks(n_kv).for_each(|row| assert!((row.iter().sum::<f32>() - 1.0).abs() < 1e-5));
            let weights = tensor_from(weights, [1, n_q, n_kv], &Device::flex());
            let [_, v] = plain::split_heads::<2>(kv.clone(), n_head);
            let values = v.slice([0..1, head..head + 1]).reshape([1, n_kv, head_dim]);
            let attended = attended.clone().slice([0..1, 0..n_q, head * head_dim..(head + 1) * head_dim]);
            assert_close(weights.matmul(values), attended, if half { 5e-4 } else { 2e-6 });
        }
    }
}

/// On the CPU nothing is waited for.
fn at_once<T>(future: impl Future<Output = crate::Result<T>>) -> T {
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    match std::pin::pin!(future).poll(&mut context) {
        std::task::Poll::Ready(result) => result.unwrap(),
        std::task::Poll::Pending => panic!("the CPU answers at once"),
    }
}

/// A number beyond half precision keeps its head in single precision, and costs the others nothing.
#[test]
fn keys_and_values_that_half_precision_cannot_hold_stay_single() {
    let (n_kv, n_head, head_dim) = (20, 2, 8);
    let width = 2 * n_head * head_dim;
    let q = noise([2, 1, n_head * head_dim], 6);
    // A key of the first head, a value of the second.
    for at in [3 * width + 2, 3 * width + width - 1] {
        let mut kv = noise([1, n_kv, width], 5).try_into_vec_as::<f32>().unwrap();
        kv[at] = 1e5;
        let kv = tensor_from(kv, [1, n_kv, width], &Device::flex());
        let expected = plain_cross(&q, &kv, n_head);
        let cross = CrossKv::new(kv, n_head, true);
        let CrossKind::Cpu(heads) = &cross.kind else { unreachable!("flex is the CPU") };
        let half = |packed: &Packed| matches!(packed, Packed::Half(_));
        let is_half: Vec<_> = heads.iter().flat_map(|head| [half(&head.keys), half(&head.values)]).collect();
        let pays = HalfMatrix::pays();
        let expected_half = if at % width == 2 { [false, pays, pays, pays] } else { [pays, pays, pays, false] };
        assert_eq!(is_half, expected_half);
        let tolerance = 1e-3 * largest(&expected);
        assert_close(cross.attend(q.clone()), expected, tolerance);
    }
}

/// Of two heads and three beams, only what looks at the broken number is broken.
#[test]
fn cross_attention_hides_no_broken_number() {
    let (n_kv, n_head, head_dim) = (20, 2, 8);
    let (n_state, width) = (n_head * head_dim, 2 * n_head * head_dim);
    // For each beam, whether each head's numbers are all finite.
    let finite = |q: &[f32], kv: &[f32], half: bool| -> Vec<bool> {
        let tensor = |values: &[f32], shape| tensor_from(values.to_vec(), shape, &Device::flex());
        let out = CrossKv::new(tensor(kv, [1, n_kv, width]), n_head, half).attend(tensor(q, [3, 1, n_state]));
        let out = out.try_into_vec_as::<f32>().unwrap();
        out.chunks(head_dim).map(|head| head.iter().all(|v| v.is_finite())).collect()
    };
    let q = noise([3, 1, n_state], 6).try_into_vec_as::<f32>().unwrap();
    let kv = noise([1, n_kv, width], 5).try_into_vec_as::<f32>().unwrap();
    for half in [false, true] {
        assert_eq!(finite(&q, &kv, half), [true; 6]);
        // A key of the first head, and a value of the second.
        for (at, expected) in [(2, [false, true].repeat(3)), (width - 1, [true, false].repeat(3))] {
            let mut kv = kv.clone();
            kv[5 * width + at] = f32::NAN;
            assert_eq!(finite(&q, &kv, half), expected, "half: {half}");
        }
        for bad in [f32::INFINITY, f32::NEG_INFINITY] {
            let mut kv = kv.clone();
            kv[5 * width + width - 1] = bad;
            assert_eq!(finite(&q, &kv, half), [true, false].repeat(3), "half: {half}");
        }
        // A query of the second beam.
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let mut q = q.clone();
            q[n_state + 3] = bad;
            assert_eq!(finite(&q, &kv, half), [true, true, false, true, true, true], "{bad}, half: {half}");
        }
    }
}

#[test]
fn beams_answer_as_each_alone() {
    let (n_head, head_dim) = (2, 64);
    let kv = noise([1, 200, 2 * n_head * head_dim], 5);
    let q = noise([5, 1, n_head * head_dim], 6);
    let cross = CrossKv::new(kv, n_head, true);
    let together = cross.attend(q.clone());
    for beam in 0..5 {
        let alone = cross.attend(q.clone().slice([beam..beam + 1]));
        // In half precision the very same numbers; a machine without it takes another kernel for one row.
        let tolerance = if HalfMatrix::pays() { 0.0 } else { 2e-6 };
        assert_close(alone, together.clone().slice([beam..beam + 1]), tolerance);
    }
}
