//! Sums of products of 8-bit integers by `rten-gemm`: everywhere but in a browser, where `int8_pairs` is in its place.

use std::mem::MaybeUninit;

use rten_gemm::{GemmExecutor, GemmInputA, GemmInputB, GemmUninitOptions, PackedBMatrix};
use rten_tensor::NdTensorView;
use rten_vecmath::ExtendInit;

thread_local!(static GEMM: GemmExecutor<u8, i8, i32> = GemmExecutor::default());

/// As [`super::cpu::with_gemm`], for integers.
fn with_gemm<R>(f: impl FnOnce(&GemmExecutor<u8, i8, i32>) -> R) -> R {
    GEMM.with(f)
}

/// A packed weight `[d_output, d_input]`.
pub(super) struct Packed {
    packed: PackedBMatrix<i8>,
    d_input: usize,
    d_output: usize,
}

impl Packed {
    /// Whether pairs of products are summed in 16 bits on this machine (x86 before VNNI): weights beyond 63 may overflow then.
    pub(super) fn may_saturate() -> bool {
        with_gemm(|gemm| gemm.may_saturate())
    }

    /// Packs `weight`, `[d_output, d_input]` row-major, neither of them 0.
    pub(super) fn new(weight: &[i8], d_output: usize) -> Self {
        let d_input = weight.len() / d_output;
        let rows = NdTensorView::from_data([d_output, d_input], weight);
        Self { packed: with_gemm(|gemm| gemm.prepack_b(rows.transposed())), d_input, d_output }
    }

    /// `x Wᵗ`, exact.
    ///
    /// # Shapes
    /// - x: `[n_rows, d_input]`
    /// - result: `[n_rows, d_output]`
    pub(super) fn multiply(&self, x: &[u8]) -> Vec<i32> {
        let n_rows = x.len() / self.d_input;
        let n_sums = n_rows * self.d_output;
        let mut sums: Vec<i32> = Vec::with_capacity(n_sums);
        sums.extend_init(|uninit: &mut [MaybeUninit<i32>]| {
            let a = NdTensorView::from_data([n_rows, self.d_input], x);
            let uninit = &mut uninit[..n_sums];
            with_gemm(|gemm| {
                let b = GemmInputB::Packed(&self.packed);
                gemm.gemm_uninit(uninit, GemmInputA::Unpacked(a), b, GemmUninitOptions::default())
            })
            .expect("the shapes are those of this weight")
        });
        sums
    }
}
