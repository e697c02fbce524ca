//! Layer normalisation over the last axis, `(x - mean) / sqrt(var + 1e-5) * gamma + beta`.

use burn::tensor::{Device, Tensor};
use rayon::prelude::*;
use rten_simd::SimdOp;
use rten_vecmath::{Normalize, NormalizeOptions, Sum, SumSquareSub};

use super::cpu::{CpuBuffer, is_cpu, tensor_from};
use super::profile::{self, Op};
use super::{in_single, single_from};

/// PyTorch's default, which Whisper and wav2vec2 keep.
const EPSILON: f32 = 1e-5;

/// Rows that one task takes.
const ROWS_PER_TASK: usize = 64;

/// A layer norm on any device.
#[derive(Debug, Clone)]
pub struct LayerNorm {
    gamma: Vec<f32>,
    beta: Vec<f32>,
    on_device: Option<(Tensor<1>, Tensor<1>)>,
}

impl LayerNorm {
    /// Takes `gamma` and `beta` as `[n_state]`.
    ///
    /// # Panics
    /// If their lengths differ; the weight loader has checked them.
    #[must_use]
    pub fn new(gamma: Vec<f32>, beta: Vec<f32>, device: &Device) -> Self {
        assert_eq!(gamma.len(), beta.len(), "gamma and beta are [n_state]");
        let on_device = (!is_cpu(device)).then(|| {
            let n_state = gamma.len();
            (single_from(gamma.clone(), [n_state], device), single_from(beta.clone(), [n_state], device))
        });
        Self { gamma, beta, on_device }
    }

    /// Normalises each row.
    ///
    /// # Shapes
    /// - x, result: `[batch, n_ctx, n_state]`
    #[must_use]
    pub fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        let _timer = profile::op(|| Op::new("layer norm", &[]));
        if let Some((gamma, beta)) = &self.on_device {
            let norm = |x| burn::tensor::module::layer_norm(x, gamma.clone(), Some(beta.clone()), f64::from(EPSILON));
            return in_single(x, norm);
        }
        let shape = x.dims();
        let [_, _, n_state] = shape;
        assert_eq!(n_state, self.gamma.len(), "the last axis of x is n_state");
        let device = x.device();
        // The input is the residual stream, which lives on: copy, then normalise the copy.
        let mut values = CpuBuffer::new(x).values().to_vec();
        let weights = Some((self.gamma.as_slice(), self.beta.as_slice()));
        if values.len() <= ROWS_PER_TASK * n_state {
            values.chunks_mut(n_state).for_each(|row| normalise_row(row, weights));
        } else {
            values
                .par_chunks_mut(ROWS_PER_TASK * n_state)
                .for_each(|rows| rows.chunks_mut(n_state).for_each(|row| normalise_row(row, weights)));
        }
        tensor_from(values, shape, &device)
    }
}

/// Brings a row to mean 0 and variance 1, then applies `(gamma, beta)` if there are any.
pub(crate) fn normalise_row(row: &mut [f32], weights: Option<(&[f32], &[f32])>) {
    let n = row.len() as f32;
    let mean = Sum::new(row).dispatch() / n;
    let variance = SumSquareSub::new(row, mean).dispatch() / n;
    Normalize::new_mut(
        row,
        NormalizeOptions {
            pre_scale_bias: mean,
            scale: (variance + EPSILON).sqrt().recip(),
            element_scale: weights.map(|(gamma, _)| gamma),
            bias: 0.0,
            element_bias: weights.map(|(_, beta)| beta),
        },
    )
    .dispatch();
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use burn::tensor::TensorData;

    use super::*;

    #[test]
    fn rows_equal_burns_own() {
        let device = Device::flex();
        for (n_ctx, n_state) in [(1, 1), (1, 512), (3, 7), (200, 33)] {
            let values: Vec<f32> = (0..n_ctx * n_state).map(|i| ((i * 7919) % 997) as f32 / 50.0 - 7.0).collect();
            let gamma: Vec<f32> = (0..n_state).map(|i| 0.5 + i as f32 / n_state as f32).collect();
            let beta: Vec<f32> = (0..n_state).map(|i| i as f32 / 10.0 - 1.0).collect();
            let x = tensor_from(values, [1, n_ctx, n_state], &device);
            let of = |v: &Vec<f32>| Tensor::<1>::from_data(TensorData::new(v.clone(), [n_state]), &device);
            let expected = burn::tensor::module::layer_norm(x.clone(), of(&gamma), Some(of(&beta)), f64::from(EPSILON));
            let got = LayerNorm::new(gamma, beta, &device).forward(x);
            let (got, expected) = (got.try_into_vec_as::<f32>().unwrap(), expected.try_into_vec_as::<f32>().unwrap());
            for (i, (a, b)) in got.iter().zip(&expected).enumerate() {
                assert!((a - b).abs() <= 1e-5, "{n_ctx}x{n_state}, index {i}: {a} against {b}");
            }
        }
    }
}
