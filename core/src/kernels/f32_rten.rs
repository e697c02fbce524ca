//! Products in f32 by `rten-gemm`, the weight packed once: everywhere but in a browser, where `f32_tiles` is in its place.

use rten_gemm::{BiasVector, GemmInputA, GemmInputB, GemmOptions, GemmUninitOptions, PackedBMatrix};
use rten_tensor::NdTensorView;
use rten_vecmath::ExtendInit;

use super::cpu::with_gemm;

/// A packed weight `[d_output, d_input]`.
pub(super) struct Packed {
    packed: PackedBMatrix<f32>,
    d_input: usize,
    d_output: usize,
}

impl Packed {
    /// Packs `weight`, `[d_output, d_input]` row-major.
    pub(super) fn new(weight: &[f32], d_output: usize) -> Self {
        let d_input = weight.len() / d_output;
        let rows = NdTensorView::from_data([d_output, d_input], weight);
        Self { packed: with_gemm(|gemm| gemm.prepack_b(rows.transposed())), d_input, d_output }
    }

    /// `x Wᵗ + b`.
    ///
    /// # Shapes
    /// - x: `[n_rows, d_input]`
    /// - result: `[n_rows, d_output]`
    pub(super) fn multiply(&self, x: &[f32], n_rows: usize, bias: Option<&[f32]>) -> Vec<f32> {
        let n_out = n_rows * self.d_output;
        let mut out: Vec<f32> = Vec::with_capacity(n_out);
        out.extend_init(|uninit| {
            let uninit = &mut uninit[..n_out];
            let options = GemmUninitOptions { bias: bias.map(BiasVector::Row), ..GemmUninitOptions::default() };
            let a = NdTensorView::from_data([n_rows, self.d_input], x);
            with_gemm(|gemm| {
                gemm.gemm_uninit(uninit, GemmInputA::Unpacked(a), GemmInputB::Packed(&self.packed), options)
            })
            .expect("the caller gives whole rows")
        });
        out
    }

    /// Adds `x Wᵗ + b` to `out`; shapes as in [`Self::multiply`].
    pub(super) fn multiply_add(&self, x: &[f32], n_rows: usize, bias: Option<&[f32]>, out: &mut [f32]) {
        let options = GemmOptions { beta: 1.0, bias: bias.map(BiasVector::Row), ..GemmOptions::default() };
        let a = NdTensorView::from_data([n_rows, self.d_input], x);
        with_gemm(|gemm| gemm.gemm(out, GemmInputA::Unpacked(a), GemmInputB::Packed(&self.packed), options))
            .expect("the caller gives whole rows");
    }
}
