//! Convolution over time, `[batch, n_ctx, d_input]` to `[batch, n_out, d_output]`, channels last.
//!
//! Follows PyTorch's `nn.Conv1d` (dilation 1, zeros as padding), whose weights it takes as they are. On the CPU a
//! convolution is one product: with channels last, the samples that an output frame sees lie side by side, so the
//! unfolded input is the input itself with a row stride of `stride * d_input`. Its rows overlap, which a matrix that is
//! only read may. Groups are products of their own on gathered channels. Elsewhere: `burn::tensor::module::conv1d`.
//!
//! Not for dilation, and not for transposed convolutions.

use std::borrow::Cow;
use std::sync::Arc;

use burn::tensor::ops::ConvOptions;
use burn::tensor::{Device, Tensor, TensorData};
use rayon::prelude::*;
use rten_gemm::{BiasVector, GemmInputA, GemmInputB, GemmOptions, GemmUninitOptions, PackedBMatrix};
use rten_tensor::{Matrix, NdTensorView};
use rten_vecmath::ExtendInit;

use super::cpu::{CpuBuffer, is_cpu, tensor_from, with_gemm};
use super::linear::Activation;
use super::profile::{self, Op};

/// Dimensions of a convolution.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Conv1dShape {
    /// Channels in.
    pub d_input: usize,
    /// Channels out.
    pub d_output: usize,
    /// Frames that an output frame sees.
    pub kernel_size: usize,
    /// Frames from one output frame to the next.
    pub stride: usize,
    /// Zero frames before the first and behind the last.
    pub padding: usize,
    /// Sets of channels that do not see each other.
    pub groups: usize,
}

impl Conv1dShape {
    /// Output frames of `n_ctx` input frames; 0 if they are fewer than the kernel sees.
    #[must_use]
    pub fn n_out(&self, n_ctx: usize) -> usize {
        (n_ctx + 2 * self.padding).checked_sub(self.kernel_size).map_or(0, |rest| rest / self.stride + 1)
    }

    fn group_input(&self) -> usize {
        self.d_input / self.groups
    }

    fn group_output(&self) -> usize {
        self.d_output / self.groups
    }
}

/// A convolution over time on any device.
#[derive(Clone)]
pub struct Conv1d {
    weight: Weight,
    shape: Conv1dShape,
}

#[derive(Clone)]
#[allow(clippy::large_enum_variant, reason = "a handful live at a time; a box would be one more hop a call")]
enum Weight {
    Cpu(Arc<CpuWeight>),
    /// weight: `[d_output, d_input / groups, kernel_size]`
    Device {
        weight: Tensor<3>,
        bias: Option<Tensor<1>>,
    },
}

struct CpuWeight {
    /// Of each group, `[kernel_size * d_input / groups, d_output / groups]`.
    groups: Vec<PackedBMatrix<f32>>,
    bias: Option<Vec<f32>>,
}

impl std::fmt::Debug for Conv1d {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Conv1d").field("shape", &self.shape).finish_non_exhaustive()
    }
}

impl Conv1d {
    /// Takes `weight` as `[d_output, d_input / groups, kernel_size]` row-major and `bias` as `[d_output]`.
    ///
    /// # Panics
    /// If the dimensions are zero or do not fit each other; the config and the weight loader have checked them.
    #[must_use]
    pub fn new(weight: &[f32], bias: Option<Vec<f32>>, shape: Conv1dShape, device: &Device) -> Self {
        let Conv1dShape { d_input, d_output, kernel_size, stride, groups, .. } = shape;
        assert!(kernel_size > 0 && stride > 0 && groups > 0, "kernel, stride and groups are at least 1");
        assert!(d_input.is_multiple_of(groups) && d_output.is_multiple_of(groups), "groups divide the channels");
        let row_len = shape.group_input() * kernel_size;
        assert_eq!(weight.len(), d_output * row_len, "weight is [d_output, d_input / groups, kernel_size]");
        assert!(bias.as_ref().is_none_or(|b| b.len() == d_output), "bias is [d_output]");
        let weight = if is_cpu(device) {
            let groups = weight.par_chunks_exact(shape.group_output() * row_len).map(|g| pack_group(g, &shape));
            Weight::Cpu(Arc::new(CpuWeight { groups: groups.collect(), bias }))
        } else {
            let data = TensorData::new(weight.to_vec(), [d_output, shape.group_input(), kernel_size]);
            let bias = bias.map(|b| Tensor::from_data(TensorData::new(b, [d_output]), device));
            Weight::Device { weight: Tensor::from_data(data, device), bias }
        };
        Self { weight, shape }
    }

    /// `activation(conv(x) + b)`.
    ///
    /// # Shapes
    /// - x: `[batch, n_ctx, d_input]`, at least one frame, and with the padding as many as the kernel sees
    /// - result: `[batch, (n_ctx + 2 * padding - kernel_size) / stride + 1, d_output]`
    ///
    /// # Panics
    /// If `x` has other channels or too few frames.
    #[must_use]
    pub fn forward(&self, x: Tensor<3>, activation: Activation) -> Tensor<3> {
        let [batch, n_ctx, d_input] = x.dims();
        let shape = &self.shape;
        assert_eq!(d_input, shape.d_input, "the last axis of x is d_input");
        assert!(n_ctx > 0 && shape.n_out(n_ctx) > 0, "the kernel sees more frames than there are");
        let _timer = profile::op(|| {
            let factors = [batch * shape.n_out(n_ctx), shape.d_output, shape.kernel_size, shape.group_input()];
            Op::new("conv1d", &factors).with_weights(shape.d_input, shape.d_output, false)
        });
        match &self.weight {
            Weight::Cpu(weight) => {
                let device = x.device();
                let x = CpuBuffer::new(x);
                let mut out = if shape.groups == 1 {
                    weight.in_one(shape, x.values(), batch, n_ctx)
                } else {
                    weight.in_groups(shape, x.values(), batch, n_ctx)
                };
                activation.apply_in_place(&mut out);
                tensor_from(out, [batch, shape.n_out(n_ctx), shape.d_output], &device)
            }
            Weight::Device { weight, bias } => {
                let options = ConvOptions::new([shape.stride], [shape.padding], [1], shape.groups);
                let x = x.swap_dims(1, 2); // [batch, d_input, n_ctx]
                let out = burn::tensor::module::conv1d(x, weight.clone(), bias.clone(), options);
                activation.forward(out.swap_dims(1, 2)) // [batch, n_out, d_output]
            }
        }
    }
}

/// One group's weights, `[d_output / groups, d_input / groups, kernel_size]`, in the order in which an unfolded frame
/// holds its values: time, then channels.
fn pack_group(weight: &[f32], shape: &Conv1dShape) -> PackedBMatrix<f32> {
    let row_len = shape.group_input() * shape.kernel_size;
    let mut unfolded = Vec::with_capacity(weight.len());
    for row in weight.chunks_exact(row_len) {
        for k in 0..shape.kernel_size {
            unfolded.extend(row.iter().skip(k).step_by(shape.kernel_size));
        }
    }
    let rows = NdTensorView::from_data([shape.group_output(), row_len], unfolded.as_slice());
    with_gemm(|gemm| gemm.prepack_b(rows.transposed()))
}

impl CpuWeight {
    /// All channels at once. values: `[batch, n_ctx, d_input]`; result: `[batch, n_out, d_output]`
    fn in_one(&self, shape: &Conv1dShape, values: &[f32], batch: usize, n_ctx: usize) -> Vec<f32> {
        let n_out = shape.n_out(n_ctx);
        let len = n_out * shape.d_output;
        let mut out = Vec::with_capacity(batch * len);
        for window in values.chunks_exact(n_ctx * shape.d_input) {
            let padded = padded(window, shape.padding * shape.d_input);
            let frames = unfolded(&padded, n_out, shape.kernel_size * shape.d_input, shape.stride * shape.d_input);
            out.extend_init(|uninit| {
                let uninit = &mut uninit[..len];
                let options = GemmUninitOptions {
                    bias: self.bias.as_deref().map(BiasVector::Row),
                    ..GemmUninitOptions::default()
                };
                let b = GemmInputB::Packed(&self.groups[0]);
                with_gemm(|gemm| gemm.gemm_uninit(uninit, GemmInputA::Unpacked(frames), b, options))
                    .expect("the shapes are those of this convolution")
            });
        }
        out
    }

    /// Each group on its own channels. values: `[batch, n_ctx, d_input]`; result: `[batch, n_out, d_output]`
    fn in_groups(&self, shape: &Conv1dShape, values: &[f32], batch: usize, n_ctx: usize) -> Vec<f32> {
        let (d_input, groups) = (shape.d_input, shape.groups);
        let (group_input, group_output) = (shape.group_input(), shape.group_output());
        let n_out = shape.n_out(n_ctx);
        let mut parts = vec![0.0; batch * groups * n_out * group_output]; // [batch, groups, n_out, group_output]
        parts.par_chunks_mut(n_out * group_output).enumerate().for_each(|(i, part)| {
            let (b, g) = (i / groups, i % groups);
            let window = &values[b * n_ctx * d_input..(b + 1) * n_ctx * d_input];
            let mut channels = vec![0.0; (n_ctx + 2 * shape.padding) * group_input];
            let inside = channels[shape.padding * group_input..].chunks_exact_mut(group_input);
            for (row, to) in window.chunks_exact(d_input).zip(inside) {
                to.copy_from_slice(&row[g * group_input..(g + 1) * group_input]);
            }
            let frames = unfolded(&channels, n_out, shape.kernel_size * group_input, shape.stride * group_input);
            let bias = self.bias.as_ref().map(|b| BiasVector::Row(&b[g * group_output..(g + 1) * group_output]));
            let options = GemmOptions { bias, ..GemmOptions::default() };
            let b = GemmInputB::Packed(&self.groups[g]);
            with_gemm(|gemm| gemm.gemm(part, GemmInputA::Unpacked(frames), b, options))
                .expect("the shapes are those of this convolution");
        });
        let mut out = vec![0.0; batch * n_out * shape.d_output];
        for (row, out) in out.chunks_exact_mut(shape.d_output).enumerate() {
            let (b, t) = (row / n_out, row % n_out);
            for (g, out) in out.chunks_exact_mut(group_output).enumerate() {
                let start = ((b * groups + g) * n_out + t) * group_output;
                out.copy_from_slice(&parts[start..start + group_output]);
            }
        }
        out
    }
}

/// `n_zeros` zeros on either side; no copy where there are none.
fn padded(values: &[f32], n_zeros: usize) -> Cow<'_, [f32]> {
    if n_zeros == 0 {
        return Cow::Borrowed(values);
    }
    let mut padded = vec![0.0; values.len() + 2 * n_zeros];
    padded[n_zeros..n_zeros + values.len()].copy_from_slice(values);
    Cow::Owned(padded)
}

/// What each output frame sees, `[n_out, width]`, rows `step` apart.
fn unfolded(values: &[f32], n_out: usize, width: usize, step: usize) -> Matrix<'_, f32> {
    let end = (n_out - 1) * step + width;
    NdTensorView::from_slice_with_strides([n_out, width], &values[..end], [step, 1])
        .expect("the slice ends with the last frame")
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn ramp(n: usize, seed: usize) -> Vec<f32> {
        (0..n).map(|i| ((i * 7919 + seed * 104_729) % 2003) as f32 / 1001.5 - 1.0).collect()
    }

    /// Every form that a wav2vec2 has, and the edges: one frame, odd sizes, a batch, steps wider than the kernel.
    #[test]
    fn equals_burns_own() {
        let device = Device::flex();
        // batch, n_ctx, d_input, d_output, kernel_size, stride, padding, groups
        let cases = [
            (1, 1, 1, 1, 1, 1, 0, 1),
            (1, 400, 1, 16, 10, 5, 0, 1),
            (2, 37, 5, 7, 3, 2, 0, 1),
            (2, 40, 8, 12, 2, 2, 0, 1),
            (1, 9, 3, 4, 2, 3, 0, 1),
            (1, 21, 6, 4, 3, 1, 1, 1),
            (1, 17, 4, 33, 1, 1, 0, 1),
            (2, 50, 12, 12, 128, 1, 64, 4),
            (1, 33, 6, 9, 15, 1, 7, 3),
            (1, 1, 8, 8, 4, 1, 2, 8),
            (3, 30, 10, 20, 5, 3, 2, 5),
        ];
        for case @ (batch, n_ctx, d_input, d_output, kernel_size, stride, padding, groups) in cases {
            let shape = Conv1dShape { d_input, d_output, kernel_size, stride, padding, groups };
            let weight = ramp(d_output * d_input / groups * kernel_size, 1);
            for bias in [None, Some(ramp(d_output, 2))] {
                let x = tensor_from(ramp(batch * n_ctx * d_input, 3), [batch, n_ctx, d_input], &device);
                let w = TensorData::new(weight.clone(), [d_output, d_input / groups, kernel_size]);
                let b = bias.clone().map(|b| Tensor::<1>::from_data(TensorData::new(b, [d_output]), &device));
                let expected = burn::tensor::module::conv1d(
                    x.clone().swap_dims(1, 2),
                    Tensor::from_data(w, &device),
                    b,
                    ConvOptions::new([stride], [padding], [1], groups),
                );
                let expected = expected.swap_dims(1, 2);
                let got = Conv1d::new(&weight, bias, shape, &device).forward(x, Activation::None);
                assert_eq!(got.dims(), [batch, shape.n_out(n_ctx), d_output], "{case:?}");
                assert_eq!(got.dims(), expected.dims(), "{case:?}");
                let (got, expected) =
                    (got.try_into_vec_as::<f32>().unwrap(), expected.try_into_vec_as::<f32>().unwrap());
                for (i, (g, e)) in got.iter().zip(&expected).enumerate() {
                    assert!((g - e).abs() <= 1e-4, "{case:?}, index {i}: {g} against {e}");
                }
            }
        }
    }

    #[test]
    fn the_activation_follows_the_bias() {
        let device = Device::flex();
        let shape = Conv1dShape { d_input: 1, d_output: 2, kernel_size: 2, stride: 1, padding: 0, groups: 1 };
        let conv = Conv1d::new(&[1.0, 1.0, -1.0, -1.0], Some(vec![0.5, 0.5]), shape, &device);
        let out = conv.forward(tensor_from(vec![1.0, 2.0, 3.0], [1, 3, 1], &device), Activation::Relu);
        assert_eq!(out.try_into_vec_as::<f32>().unwrap(), [3.5, 0.0, 5.5, 0.0]);
    }

    #[test]
    fn too_few_frames_give_none() {
        let shape = Conv1dShape { d_input: 1, d_output: 1, kernel_size: 10, stride: 5, padding: 0, groups: 1 };
        assert_eq!([0, 9, 10, 14, 15].map(|n| shape.n_out(n)), [0, 0, 1, 1, 2]);
        assert_eq!(Conv1dShape { padding: 5, ..shape }.n_out(0), 1);
    }
}
