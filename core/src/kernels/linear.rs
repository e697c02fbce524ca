//! `y = x Wᵗ + b`, with the activation or the residual in the same pass.
//!
//! The weight comes as checkpoints store it, `[d_output, d_input]` row-major. On the CPU it is
//! packed once, as it is (`f32_rten`, in a browser `f32_tiles`) or as 8-bit integers ([`super::int8`]), and kept only in
//! that form; elsewhere it is a tensor `[d_input, d_output]`, as `burn::tensor::module::linear` wants it.

use std::sync::Arc;

use burn::tensor::{Device, Tensor, TensorData, activation};
use rayon::prelude::*;
use rten_simd::SimdUnaryOp;
use rten_vecmath::Gelu;

use super::cpu::{CpuBuffer, is_cpu, tensor_from};
#[cfg(not(target_arch = "wasm32"))]
use super::f32_rten::Packed;
#[cfg(target_arch = "wasm32")]
use super::f32_tiles::Packed;
use super::int8::{Int8Weight, Precision, Then};
use super::profile::{self, Op};

/// Where a layer's weights are put, and in what form. A device alone means floating point.
#[derive(Debug, Clone, Copy)]
pub struct Target<'a> {
    /// The device.
    pub device: &'a Device,
    /// Whether linear layers multiply in 8-bit integers, and a decoder keeps the rows of its tokens in 8 bits and an encoding's keys
    /// and values in half precision; on the CPU only.
    pub int8: bool,
    /// Whether those can be multiplied more exactly as well ([`Linear::refined`]); their weights take twice the memory then.
    pub refined: bool,
}

impl<'a> From<&'a Device> for Target<'a> {
    fn from(device: &'a Device) -> Self {
        Self { device, int8: false, refined: false }
    }
}

/// What follows the product.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activation {
    /// Nothing.
    None,
    /// The exact (erf) Gaussian error linear unit.
    Gelu,
    /// `max(x, 0)`; NaN stays NaN.
    Relu,
}

impl Activation {
    /// Applies it to a tensor of any shape; on the CPU in place, where nobody else holds the tensor.
    #[must_use]
    pub fn forward<const D: usize>(self, x: Tensor<D>) -> Tensor<D> {
        if self == Self::None {
            return x;
        }
        let _timer = profile::op(|| Op::new("activation", &[]));
        if is_cpu(&x.device()) {
            let mut buffer = CpuBuffer::new(x);
            self.apply_in_place(buffer.values_mut());
            return buffer.into_tensor();
        }
        match self {
            Self::None => x,
            Self::Gelu => activation::gelu(x),
            Self::Relu => activation::relu(x),
        }
    }

    /// Applies it to a CPU slice, on all cores.
    pub(super) fn apply_in_place(self, values: &mut [f32]) {
        if values.len() <= ELEMENTS_PER_TASK || self == Self::None {
            self.apply_to(values);
        } else {
            values.par_chunks_mut(ELEMENTS_PER_TASK).for_each(|chunk| self.apply_to(chunk));
        }
    }

    /// Applies it to a CPU slice, on this core.
    pub(super) fn apply_to(self, values: &mut [f32]) {
        match self {
            Self::None => {}
            Self::Gelu => Gelu {}.map_mut(values),
            // Not `f32::max`, which would make 0 of NaN.
            Self::Relu => values.iter_mut().filter(|v| **v < 0.0).for_each(|v| *v = 0.0),
        }
    }
}

/// Elements that one task of an element-wise pass takes: below this a second thread costs more.
const ELEMENTS_PER_TASK: usize = 32 * 1024;

/// A linear layer on any device.
#[derive(Clone)]
pub struct Linear {
    weight: Weight,
    d_input: usize,
    d_output: usize,
}

#[derive(Clone)]
#[allow(clippy::large_enum_variant, reason = "a handful live at a time; a box would be one more hop a token")]
enum Weight {
    Cpu(Arc<CpuWeight>),
    Int8(Arc<Int8Weight>, Precision),
    Device { weight: Tensor<2>, bias: Option<Tensor<1>> },
}

struct CpuWeight {
    packed: Packed,
    bias: Option<Vec<f32>>,
}

impl std::fmt::Debug for Linear {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Linear")
            .field("d_input", &self.d_input)
            .field("d_output", &self.d_output)
            .finish_non_exhaustive()
    }
}

impl Linear {
    /// Takes `weight` as `[d_output, d_input]` row-major and `bias` as `[d_output]`.
    ///
    /// # Panics
    /// If the lengths do not fit; the weight loader has checked them.
    #[must_use]
    pub fn new<'a>(weight: &[f32], bias: Option<Vec<f32>>, d_output: usize, target: impl Into<Target<'a>>) -> Self {
        let Target { device, int8, refined } = target.into();
        assert!(d_output > 0 && weight.len().is_multiple_of(d_output), "weight is [d_output, d_input]");
        assert!(bias.as_ref().is_none_or(|b| b.len() == d_output), "bias is [d_output]");
        let d_input = weight.len() / d_output;
        let weight = if is_cpu(device) && int8 && d_input > 0 {
            let weight =
                Int8Weight::new(weight, bias, d_output, if refined { Precision::Double } else { Precision::Single });
            Weight::Int8(Arc::new(weight), Precision::Single)
        } else if is_cpu(device) {
            Weight::Cpu(Arc::new(CpuWeight { packed: Packed::new(weight, d_output), bias }))
        } else {
            let weight = Tensor::<2>::from_data(TensorData::new(weight.to_vec(), [d_output, d_input]), device);
            let bias = bias.map(|b| Tensor::from_data(TensorData::new(b, [d_output]), device));
            Weight::Device { weight: weight.transpose(), bias }
        };
        Self { weight, d_input, d_output }
    }

    /// Width of the output.
    #[must_use]
    pub fn d_output(&self) -> usize {
        self.d_output
    }

    /// Whether it multiplies in 8-bit integers.
    #[must_use]
    pub fn is_int8(&self) -> bool {
        matches!(self.weight, Weight::Int8(..))
    }

    /// The same layer, weights shared, that keeps 16 bits of its factors where this one keeps 8, for three times the work;
    /// `None` if it computes in floating point or was loaded without [`Target::refined`].
    #[must_use]
    pub fn refined(&self) -> Option<Self> {
        match &self.weight {
            Weight::Int8(weight, _) if weight.has_rest() => {
                Some(Self { weight: Weight::Int8(Arc::clone(weight), Precision::Double), ..*self })
            }
            _ => None,
        }
    }

    /// `activation(x Wᵗ + b)`.
    ///
    /// # Shapes
    /// - x: `[batch, n_ctx, d_input]`
    /// - result: `[batch, n_ctx, d_output]`
    #[must_use]
    pub fn forward(&self, x: Tensor<3>, activation: Activation) -> Tensor<3> {
        let [batch, n_ctx, d_input] = x.dims();
        assert_eq!(d_input, self.d_input, "the last axis of x is d_input");
        let _timer = profile::op(|| self.op(batch * n_ctx));
        match &self.weight {
            Weight::Cpu(weight) => {
                let device = x.device();
                let x = CpuBuffer::new(x);
                let mut out = weight.packed.multiply(x.values(), batch * n_ctx, weight.bias.as_deref());
                activation.apply_in_place(&mut out);
                tensor_from(out, [batch, n_ctx, self.d_output], &device)
            }
            Weight::Int8(weight, precision) => {
                let device = x.device();
                let x = CpuBuffer::new(x);
                let mut out = vec![0.0; batch * n_ctx * self.d_output];
                weight.forward(x.values(), &mut out, &Then::Activate(activation), *precision);
                tensor_from(out, [batch, n_ctx, self.d_output], &device)
            }
            Weight::Device { weight, bias } => {
                activation.forward(burn::tensor::module::linear(x, weight.clone(), bias.clone()))
            }
        }
    }

    /// `residual + x Wᵗ + b`, written over the residual where nobody else holds it.
    ///
    /// # Shapes
    /// - residual, result: `[batch, n_ctx, d_output]`
    /// - x: `[batch, n_ctx, d_input]`
    #[must_use]
    pub fn forward_add(&self, residual: Tensor<3>, x: Tensor<3>) -> Tensor<3> {
        let [batch, n_ctx, d_input] = x.dims();
        assert_eq!(d_input, self.d_input, "the last axis of x is d_input");
        let _timer = profile::op(|| self.op(batch * n_ctx));
        match &self.weight {
            Weight::Cpu(weight) => {
                let x = CpuBuffer::new(x);
                let mut out = CpuBuffer::new(residual);
                weight.packed.multiply_add(x.values(), batch * n_ctx, weight.bias.as_deref(), out.values_mut());
                out.into_tensor()
            }
            Weight::Int8(weight, precision) => {
                let x = CpuBuffer::new(x);
                let mut out = CpuBuffer::new(residual);
                weight.forward(x.values(), out.values_mut(), &Then::Add, *precision);
                out.into_tensor()
            }
            Weight::Device { .. } => residual + self.forward(x, Activation::None),
        }
    }

    /// `residual + second(activation(self(x)))`, the two layers of an MLP. In 8-bit integers each block of rows goes through both
    /// while it is in cache, so that what stands between them is never written out.
    ///
    /// # Shapes
    /// - residual, x, result: `[batch, n_ctx, d_input]`
    ///
    /// # Panics
    /// If `second` does not lead back to `d_input`.
    #[must_use]
    pub fn mlp(&self, activation: Activation, second: &Self, residual: Tensor<3>, x: Tensor<3>) -> Tensor<3> {
        let (Weight::Int8(first, precision), Weight::Int8(then, _)) = (&self.weight, &second.weight) else {
            return second.forward_add(residual, self.forward(x, activation));
        };
        let [batch, n_ctx, d_input] = x.dims();
        assert_eq!((d_input, second.d_output), (self.d_input, d_input), "an MLP leads back to its input");
        assert_eq!(self.d_output, second.d_input, "the second layer takes what the first gives");
        let n_products = 2 * self.d_output; // both layers have as many weights
        let op =
            || Op::new(profile::MLP, &[batch * n_ctx, d_input, n_products]).with_weights(d_input, self.d_output, true);
        let _timer = profile::op(op);
        let x = CpuBuffer::new(x);
        let mut out = CpuBuffer::new(residual);
        first.forward_through(activation, then, x.values(), out.values_mut(), *precision);
        out.into_tensor()
    }

    /// What a profile calls it.
    fn op(&self, n_rows: usize) -> Op {
        Op::new(profile::LINEAR, &[n_rows, self.d_input, self.d_output]).with_weights(
            self.d_input,
            self.d_output,
            self.is_int8(),
        )
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn ramp(n: usize, seed: usize) -> Vec<f32> {
        (0..n).map(|i| ((i * 7919 + seed * 104_729) % 2003) as f32 / 1001.5 - 1.0).collect()
    }

    fn close(got: Tensor<3>, expected: Tensor<3>) {
        let (got, expected) = (got.try_into_vec_as::<f32>().unwrap(), expected.try_into_vec_as::<f32>().unwrap());
        assert_eq!(got.len(), expected.len());
        for (i, (a, b)) in got.iter().zip(&expected).enumerate() {
            assert!((a - b).abs() <= 2e-5, "index {i}: {a} against {b}");
        }
    }

    /// Every shape at the edges: one row, odd sizes, more rows than a block, one column.
    #[test]
    fn the_packed_product_equals_burns_own() {
        let device = Device::flex();
        for (batch, n_ctx, d_input, d_output) in
            [(1, 1, 1, 1), (1, 1, 7, 33), (2, 3, 64, 5), (1, 65, 31, 130), (1, 300, 48, 17)]
        {
            let weight = ramp(d_input * d_output, 1);
            let bias = ramp(d_output, 2);
            let x = tensor_from(ramp(batch * n_ctx * d_input, 3), [batch, n_ctx, d_input], &device);
            let linear = Linear::new(&weight, Some(bias.clone()), d_output, &device);
            let w = Tensor::<2>::from_data(TensorData::new(weight, [d_output, d_input]), &device).transpose();
            let b = Tensor::<1>::from_data(TensorData::new(bias, [d_output]), &device);
            let expected = burn::tensor::module::linear(x.clone(), w, Some(b));
            close(linear.forward(x.clone(), Activation::None), expected.clone());
            close(linear.forward(x.clone(), Activation::Gelu), activation::gelu(expected.clone()));
            close(linear.forward(x.clone(), Activation::Relu), activation::relu(expected.clone()));
            let residual = tensor_from(ramp(batch * n_ctx * d_output, 4), [batch, n_ctx, d_output], &device);
            let kept = residual.clone();
            close(linear.forward_add(residual.clone(), x), residual.clone() + expected);
            close(kept, residual); // adding must not write through a shared tensor
        }
    }

    #[test]
    fn an_mlp_is_its_two_layers_and_refined_it_is_near_floating_point() {
        let device = Device::flex();
        let (n, hidden, rows) = (40, 96, 70);
        let layer = |d_input: usize, d_output: usize, target: Target<'_>| {
            Linear::new(&ramp(d_input * d_output, 1), Some(ramp(d_output, 2)), d_output, target)
        };
        let x = tensor_from(ramp(rows * n, 3), [1, rows, n], &device);
        let mlp = |first: &Linear, second: &Linear| {
            let residual = tensor_from(ramp(rows * n, 4), [1, rows, n], &device);
            let kept = residual.clone();
            let out = first.mlp(Activation::Gelu, second, residual, x.clone());
            close(kept.clone(), tensor_from(ramp(rows * n, 4), [1, rows, n], &device));
            let apart = second.forward_add(kept, first.forward(x.clone(), Activation::Gelu));
            close(out.clone(), apart);
            out.try_into_vec_as::<f32>().unwrap()
        };
        let float = Target::from(&device);
        let exact = mlp(&layer(n, hidden, float), &layer(hidden, n, float));
        let error = |got: &[f32]| got.iter().zip(&exact).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        let int8 = Target { int8: true, refined: true, ..float };
        let (first, second) = (layer(n, hidden, int8), layer(hidden, n, int8));
        let once = error(&mlp(&first, &second));
        let twice = error(&mlp(&first.refined().unwrap(), &second.refined().unwrap()));
        assert!(once > 1e-3 && twice < once / 30.0, "{once}, refined {twice}");
        assert!(layer(n, hidden, float).refined().is_none());
        assert!(layer(n, hidden, Target { refined: false, ..int8 }).refined().is_none());
    }

    #[test]
    fn values_that_are_not_finite_stay_so() {
        let device = Device::flex();
        let linear = Linear::new(&[1.0, 2.0, 3.0, 4.0], None, 2, &device);
        for bad in [f32::NAN, f32::INFINITY] {
            let x = tensor_from(vec![bad, 1.0], [1, 1, 2], &device);
            for activation in [Activation::None, Activation::Relu] {
                let out = linear.forward(x.clone(), activation).try_into_vec_as::<f32>().unwrap();
                assert!(out.iter().all(|v| !v.is_finite()), "{bad} became {out:?}");
            }
        }
    }
}
