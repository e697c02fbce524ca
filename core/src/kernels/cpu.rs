//! The way between a Burn tensor on the flex device and a plain slice of `f32`, without a copy
//! where there is nothing to reorder.

use burn::tensor::{Device, Tensor, TensorData};
use burn_flex::{Flex, FlexTensor};
use rten_gemm::GemmExecutor;

/// Whether tensors of `device` are flex tensors, plain memory that a kernel here may read.
pub(crate) fn is_cpu(device: &Device) -> bool {
    matches!(device.as_dispatch(), burn::backend::DispatchDevice::Flex(_))
}

/// The storage of a contiguous `f32` tensor on the flex device.
pub(crate) struct CpuBuffer(FlexTensor);

impl CpuBuffer {
    /// Takes a tensor that [`is_cpu`] said yes for.
    pub(crate) fn new<const D: usize>(tensor: Tensor<D>) -> Self {
        let tensor = tensor.try_into_primitive::<Flex>().expect("the caller asked is_cpu before");
        Self(if tensor.is_contiguous() && tensor.layout().start_offset() == 0 {
            tensor
        } else {
            tensor.to_contiguous()
        })
    }

    /// The values in row-major order.
    pub(crate) fn values(&self) -> &[f32] {
        let n = self.0.layout().num_elements();
        &self.0.storage::<f32>()[..n]
    }

    /// The values, writable; copied first when another tensor shares them.
    pub(crate) fn values_mut(&mut self) -> &mut [f32] {
        let n = self.0.layout().num_elements();
        &mut self.0.storage_mut::<f32>()[..n]
    }

    /// Back to a tensor of the same shape.
    pub(crate) fn into_tensor<const D: usize>(self) -> Tensor<D> {
        Tensor::from_primitive::<Flex>(self.0)
    }
}

/// A CPU tensor around `values`, without a copy.
pub(crate) fn tensor_from<const D: usize>(values: Vec<f32>, shape: [usize; D], device: &Device) -> Tensor<D> {
    Tensor::from_data(TensorData::new(values, shape), device)
}

thread_local!(static GEMM: GemmExecutor = GemmExecutor::default());

/// The matrix product for this machine's instruction set. The executor cannot move between threads
/// (it is a boxed kernel without `Send`), so each thread finds its own once.
pub(crate) fn with_gemm<R>(f: impl FnOnce(&GemmExecutor) -> R) -> R {
    GEMM.with(f)
}
