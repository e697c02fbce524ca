//! Group normalisation with one channel a group: each channel over its whole time,
//! `(x - mean) / sqrt(var + 1e-5) * gamma + beta`.
//!
//! Follows PyTorch's `nn.GroupNorm(num_groups=C, num_channels=C)`, as the first layer of a wav2vec2-base has it. The
//! moments are summed in f64: half a minute of speech is 96,000 values a channel.
//!
//! Not for groups of several channels, and not where frames come one by one: it sees the whole clip.

use burn::tensor::{Device, Tensor};
use rayon::prelude::*;

use super::cpu::{CpuBuffer, is_cpu};
use super::profile::{self, Op};
use super::{in_single, single_from};

/// PyTorch's default, which wav2vec2 keeps.
const EPSILON: f32 = 1e-5;

/// Rows that one task takes.
const ROWS_PER_TASK: usize = 512;

/// A norm of each channel over time, on any device.
#[derive(Debug, Clone)]
pub struct ChannelNorm {
    gamma: Vec<f32>,
    beta: Vec<f32>,
    /// `[1, 1, n_channels]` each
    on_device: Option<(Tensor<3>, Tensor<3>)>,
}

impl ChannelNorm {
    /// Takes `gamma` and `beta` as `[n_channels]`.
    ///
    /// # Panics
    /// If their lengths differ; the weight loader has checked them.
    #[must_use]
    pub fn new(gamma: Vec<f32>, beta: Vec<f32>, device: &Device) -> Self {
        assert_eq!(gamma.len(), beta.len(), "gamma and beta are [n_channels]");
        let on_device = (!is_cpu(device)).then(|| (row_of(&gamma, device), row_of(&beta, device)));
        Self { gamma, beta, on_device }
    }

    /// Normalises each channel of each item.
    ///
    /// # Shapes
    /// - x, result: `[batch, n_ctx, n_channels]`
    #[must_use]
    pub fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        let _timer = profile::op(|| Op::new("channel norm", &[]));
        if let Some((gamma, beta)) = &self.on_device {
            return in_single(x, |x| plain(x, gamma.clone(), beta.clone()));
        }
        let [_, n_ctx, n_channels] = x.dims();
        assert_eq!(n_channels, self.gamma.len(), "the last axis of x is n_channels");
        assert!(n_ctx > 0, "there is a frame to normalise");
        let mut buffer = CpuBuffer::new(x);
        for window in buffer.values_mut().chunks_exact_mut(n_ctx * n_channels) {
            self.normalise(window, n_ctx);
        }
        buffer.into_tensor()
    }

    /// window: `[n_ctx, n_channels]`
    fn normalise(&self, window: &mut [f32], n_ctx: usize) {
        let n_channels = self.gamma.len();
        let mean = column_means(window, n_channels, n_ctx, |_, v| v);
        let variance = column_means(window, n_channels, n_ctx, |c, v| (v - mean[c]).powi(2));
        let mean: Vec<f32> = mean.iter().map(|m| *m as f32).collect();
        let scale: Vec<f32> =
            variance.iter().zip(&self.gamma).map(|(v, gamma)| (*v as f32 + EPSILON).sqrt().recip() * gamma).collect();
        window.par_chunks_mut(ROWS_PER_TASK * n_channels).for_each(|rows| {
            for row in rows.chunks_exact_mut(n_channels) {
                for (((v, mean), scale), beta) in row.iter_mut().zip(&mean).zip(&scale).zip(&self.beta) {
                    *v = (*v - mean) * scale + beta;
                }
            }
        });
    }
}

/// The mean over time of `f(channel, value)`. The partial sums are added in order, so that two runs give the same bits.
fn column_means(window: &[f32], n_channels: usize, n_ctx: usize, f: impl Fn(usize, f64) -> f64 + Sync) -> Vec<f64> {
    let partial: Vec<Vec<f64>> = window
        .par_chunks(ROWS_PER_TASK * n_channels)
        .map(|rows| {
            let mut sums = vec![0.0; n_channels];
            for row in rows.chunks_exact(n_channels) {
                for (c, (sum, v)) in sums.iter_mut().zip(row).enumerate() {
                    *sum += f(c, f64::from(*v));
                }
            }
            sums
        })
        .collect();
    (0..n_channels).map(|c| partial.iter().map(|sums| sums[c]).sum::<f64>() / n_ctx as f64).collect()
}

fn row_of(values: &[f32], device: &Device) -> Tensor<3> {
    single_from(values.to_vec(), [1, 1, values.len()], device)
}

/// The same in ordinary Burn operations, for every other device and for the tests.
fn plain(x: Tensor<3>, gamma: Tensor<3>, beta: Tensor<3>) -> Tensor<3> {
    let mean = x.clone().mean_dim(1); // [batch, 1, n_channels]
    let centred = x - mean;
    let variance = (centred.clone() * centred.clone()).mean_dim(1);
    centred / (variance + EPSILON).sqrt() * gamma + beta
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::cpu::tensor_from;
    use super::*;

    #[test]
    fn equals_burns_operations() {
        let device = Device::flex();
        for (batch, n_ctx, n_channels) in [(1, 1, 3), (2, 50, 7), (1, 1300, 16)] {
            let n = batch * n_ctx * n_channels;
            let values = (0..n).map(|i| ((i * 7919) % 997) as f32 / 200.0 - 1.0).collect();
            let x = tensor_from(values, [batch, n_ctx, n_channels], &device);
            let gamma: Vec<f32> = (0..n_channels).map(|i| 0.5 + i as f32 / 10.0).collect();
            let beta: Vec<f32> = (0..n_channels).map(|i| 1.0 - i as f32 / 5.0).collect();
            let expected = plain(x.clone(), row_of(&gamma, &device), row_of(&beta, &device));
            let kept = x.clone();
            let got = ChannelNorm::new(gamma, beta, &device).forward(x.clone());
            let (got, expected) = (got.try_into_vec_as::<f32>().unwrap(), expected.try_into_vec_as::<f32>().unwrap());
            for (i, (a, b)) in got.iter().zip(&expected).enumerate() {
                assert!((a - b).abs() <= 2e-5, "{batch}x{n_ctx}x{n_channels}, index {i}: {a} against {b}");
            }
            // Normalising must not write through a shared tensor.
            assert_eq!(kept.try_into_vec_as::<f32>().unwrap(), x.try_into_vec_as::<f32>().unwrap());
        }
    }

    #[test]
    fn each_channel_has_mean_0_and_variance_1() {
        let device = Device::flex();
        let (n_ctx, n_channels) = (700, 5);
        let values = (0..n_ctx * n_channels).map(|i| ((i * 31) % 101) as f32 * 3.0 + 50.0).collect();
        let norm = ChannelNorm::new(vec![1.0; n_channels], vec![0.0; n_channels], &device);
        let out = norm.forward(tensor_from(values, [1, n_ctx, n_channels], &device)).try_into_vec_as::<f32>().unwrap();
        for c in 0..n_channels {
            let channel = || out.iter().skip(c).step_by(n_channels);
            let mean = channel().sum::<f32>() / n_ctx as f32;
            let variance = channel().map(|v| (v - mean).powi(2)).sum::<f32>() / n_ctx as f32;
            assert!(mean.abs() < 1e-4 && (variance - 1.0).abs() < 1e-3, "channel {c}: {mean}, {variance}");
        }
    }
}
