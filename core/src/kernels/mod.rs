//! The few operations that rule the time, each with one signature for every device.
//!
//! On the CPU (`burn-flex`) they take the tensor's own storage through Burn's extension door
//! (`Tensor::try_into_primitive`) and call `rten-gemm` and `rten-vecmath`: weights are packed once
//! at load, bias, residual and activation are applied where the product stands, and attention never
//! leaves a head's block. On every other device the same functions are a few ordinary Burn
//! operations, which is also what the tests here hold the CPU path against.
//!
//! Read in this order: [`linear`], [`int8`], `rotation`, [`layer_norm`], [`attention`], `half_matrix`, [`cpu`]; [`profile`] and [`peak`] measure them.
//! What was measured, and what did not pay, is in ARCHITECTURE.md.

pub mod attention;
pub mod channel_norm;
pub mod conv1d;
mod cpu;
#[cfg(not(target_arch = "wasm32"))]
mod f32_rten;
#[cfg(any(test, target_arch = "wasm32"))]
mod f32_tiles;
mod half_matrix;
mod int8;
#[cfg(any(test, target_arch = "wasm32"))]
mod int8_pairs;
#[cfg(not(target_arch = "wasm32"))]
mod int8_rten;
pub mod layer_norm;
pub mod linear;
pub mod peak;
pub mod profile;
mod rotation;

pub use attention::{CrossKv, SelfKv, self_attention, self_attention_of};
pub use channel_norm::ChannelNorm;
pub use conv1d::{Conv1d, Conv1dShape};
pub(crate) use cpu::CpuBuffer;
pub use layer_norm::LayerNorm;
pub use linear::{Activation, Linear, Target};

use burn::tensor::{DType, Device, FloatDType, Tensor, TensorData};

/// Whether sums of 8-bit products are exact with weights of 8 bits on this machine; without VNNI x86 sums pairs in 16 bits, and
/// weights are rounded to 7 bits there.
pub(crate) fn has_exact_int8_sums() -> bool {
    !int8::may_saturate()
}

/// Runs `f` in f32, whatever the device computes in: the square of a half-precision value overflows from 256 on, and
/// Whisper's residual stream goes further.
fn in_single<const D: usize>(x: Tensor<D>, f: impl FnOnce(Tensor<D>) -> Tensor<D>) -> Tensor<D> {
    let dtype = FloatDType::from(x.dtype());
    if dtype == FloatDType::F32 { f(x) } else { f(x.cast(FloatDType::F32)).cast(dtype) }
}

/// Parameters that stay f32 on every device.
fn single_from<const D: usize>(values: Vec<f32>, shape: [usize; D], device: &Device) -> Tensor<D> {
    Tensor::from_data(TensorData::new(values, shape), (device, DType::F32))
}

/// Reads a tensor back from its device as f32, whatever it computes in; row-major.
pub(crate) async fn read<const D: usize>(tensor: Tensor<D>, stage: &'static str) -> crate::Result<Vec<f32>> {
    let data = tensor.into_data_async().await.map_err(|_| crate::Error::Device { stage })?;
    data.try_into_vec_as::<f32>().map_err(|_| crate::Error::Device { stage })
}
