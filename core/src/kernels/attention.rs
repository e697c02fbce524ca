//! Scaled dot-product attention in the three forms that Whisper needs: a whole window onto itself
//! ([`self_attention`]), new tokens onto a growing cache ([`SelfKv`]), and tokens onto a fixed
//! encoding ([`CrossKv`]).
//!
//! Follows `openai/whisper` `model.py` `MultiHeadAttention.qkv_attention`, whose two scales of
//! `head_dim ** -0.25` are one `head_dim ** -0.5` here. On the CPU a head's keys and values are packed
//! once, then blocks of query rows pass through product, softmax and product while the scores are in
//! cache; the whole score matrix is never built. Elsewhere: `burn::tensor::module::attention`.
//! Of an int8 model a fixed encoding's keys and values are kept in half precision (`half_matrix`), where the machine has it.
//!
//! One file, though long: the three forms share the packed head, the head layout and most tests.
//!
//! Windows of unequal lengths go side by side without padding ([`self_attention_of`]).
//!
//! Not for masks other than the causal one, and not for grouped-query attention.

use burn::tensor::ops::AttentionModuleOptions;
use burn::tensor::{Device, Tensor, TensorData, module};
use rayon::prelude::*;
use rten_gemm::{GemmInputA, GemmInputB, GemmOptions, PackedBMatrix};
use rten_simd::SimdOp;
use rten_tensor::prelude::*;
use rten_tensor::{Matrix, MatrixLayout, NdTensorView};
use rten_vecmath::Softmax;

use super::cpu::{CpuBuffer, is_cpu, tensor_from, with_gemm};
use super::half_matrix::HalfMatrix;
use super::profile::{self, Op};

/// Query rows that pass through a head together: 96 rows of 1500 scores are 0.6 MB, half an L2 cache.
const QUERY_ROWS: usize = 96;

/// Attention of a window onto itself, without a mask.
///
/// # Shapes
/// - qkv: `[batch, n_ctx, 3 * n_state]`, queries, keys and values side by side
/// - result: `[batch, n_ctx, n_state]`
///
/// # Panics
/// If the last axis is not `3 * n_head * head_dim`.
#[must_use]
pub fn self_attention(qkv: Tensor<3>, n_head: usize) -> Tensor<3> {
    let device = qkv.device();
    let [batch, n_ctx, width] = qkv.dims();
    // Two products a head, of all positions with all.
    let _timer = profile::op(|| Op::new("self-attention", &[2 * batch, n_ctx, n_ctx, width / 3]));
    if !is_cpu(&device) {
        return plain::self_attention(qkv, n_head);
    }
    let attended = cpu_self_attention(qkv, &vec![n_ctx; batch], n_head);
    tensor_from(attended, [batch, n_ctx, width / 3], &device)
}

/// [`self_attention`] of several windows that stand one behind the other, each of a length of its own: nothing is padded,
/// and no window sees another.
///
/// # Shapes
/// - qkv: `[1, sum of n_ctx, 3 * n_state]`
/// - n_ctx: the windows' lengths
/// - result: `[1, sum of n_ctx, n_state]`
///
/// # Panics
/// If the lengths do not add up to the second axis.
#[must_use]
pub fn self_attention_of(qkv: Tensor<3>, n_ctx: &[usize], n_head: usize) -> Tensor<3> {
    let [batch, n_rows, width] = qkv.dims();
    assert!(batch == 1 && n_ctx.iter().sum::<usize>() == n_rows, "the windows are all of the rows");
    let device = qkv.device();
    let _timer = profile::op(|| {
        let pairs = n_ctx.iter().map(|n| n * n).sum::<usize>();
        Op::new("self-attention", &[2, pairs, width / 3])
    });
    if is_cpu(&device) {
        return tensor_from(cpu_self_attention(qkv, n_ctx, n_head), [1, n_rows, width / 3], &device);
    }
    let attended =
        qkv.split_with_sizes(n_ctx.to_vec(), 1).into_iter().map(|window| plain::self_attention(window, n_head));
    Tensor::cat(attended.collect(), 1)
}

/// Windows of `n_ctx` rows, one behind the other; each head of each is a task of its own.
fn cpu_self_attention(qkv: Tensor<3>, n_ctx: &[usize], n_head: usize) -> Vec<f32> {
    let [_, _, width] = qkv.dims();
    let n_state = width / 3;
    let head_dim = n_state / n_head;
    let qkv = CpuBuffer::new(qkv);
    let mut values = qkv.values();
    let mut heads = vec![0.0; values.len() / 3];
    let mut rest = &mut heads[..];
    let mut tasks = Vec::with_capacity(n_ctx.len() * n_head);
    for &n_ctx in n_ctx {
        let (window, more) = values.split_at(n_ctx * width);
        values = more;
        for h in 0..n_head {
            let (out, more) = rest.split_at_mut(n_ctx * head_dim);
            rest = more;
            tasks.push((window, n_ctx, h, out));
        }
    }
    tasks.into_par_iter().for_each(|(window, n_ctx, h, out)| {
        let part = |offset: usize| strided(&window[offset + h * head_dim..], n_ctx, head_dim, width);
        let head = PackedHead::new(part(n_state), part(2 * n_state), false);
        head.attend(part(0), out);
    });
    let mut out = Vec::with_capacity(heads.len());
    let mut rest = &heads[..];
    for &n_ctx in n_ctx {
        let (window, more) = rest.split_at(n_ctx * n_state);
        rest = more;
        out.extend(interleave_heads(window, 1, n_head, n_ctx, head_dim));
    }
    out
}

/// A row-major matrix inside a wider one.
fn strided(values: &[f32], n_rows: usize, n_cols: usize, row_stride: usize) -> Matrix<'_, f32> {
    let end = if n_rows == 0 { 0 } else { (n_rows - 1) * row_stride + n_cols };
    NdTensorView::from_slice_with_strides([n_rows, n_cols], &values[..end], [row_stride, 1])
        .expect("the slice ends with the last row")
}

/// One head's keys and values, packed for the micro-kernel.
struct PackedHead {
    /// `[head_dim, n_kv]`
    keys: Packed,
    /// `[n_kv, head_dim]`
    values: Packed,
    n_kv: usize,
    head_dim: usize,
}

/// The right factor of a product.
enum Packed {
    Single(PackedBMatrix<f32>),
    Half(HalfMatrix),
}

impl Packed {
    fn single(matrix: Matrix<'_, f32>) -> Self {
        Self::Single(with_gemm(|gemm| gemm.prepack_b(matrix)))
    }

    /// `alpha * x B`, row-major, written over `out`.
    fn multiply(&self, x: Matrix<'_, f32>, alpha: f32, out: &mut [f32]) {
        match self {
            Self::Single(packed) => {
                let options = GemmOptions { alpha, ..GemmOptions::default() };
                with_gemm(|gemm| gemm.gemm(out, GemmInputA::Unpacked(x), GemmInputB::Packed(packed), options))
                    .expect("the shapes are those of this head");
            }
            Self::Half(matrix) => matrix.multiply(x, alpha, out),
        }
    }
}

impl PackedHead {
    /// keys, values: `[n_kv, head_dim]`; `half`: keys, and values, are kept in half precision unless one of their numbers does
    /// not fit into it.
    fn new(keys: Matrix<'_, f32>, values: Matrix<'_, f32>, half: bool) -> Self {
        let [n_kv, head_dim] = keys.shape();
        let (half_keys, half_values) =
            if half { (HalfMatrix::from_transposed(keys), HalfMatrix::new(values)) } else { (None, None) };
        let keys = half_keys.map_or_else(|| Packed::single(keys.transposed()), Packed::Half);
        let values = half_values.map_or_else(|| Packed::single(values), Packed::Half);
        Self { keys, values, n_kv, head_dim }
    }

    /// queries: `[n_q, head_dim]`; out: `[n_q, head_dim]` row-major
    fn attend(&self, queries: Matrix<'_, f32>, out: &mut [f32]) {
        let n_q = queries.rows();
        let mut scores = vec![0.0; n_q.min(QUERY_ROWS) * self.n_kv];
        for start in (0..n_q).step_by(QUERY_ROWS) {
            let end = (start + QUERY_ROWS).min(n_q);
            let scores = &mut scores[..(end - start) * self.n_kv];
            self.weights(queries.slice(start..end), scores);
            let a = NdTensorView::from_data([end - start, self.n_kv], &*scores);
            self.values.multiply(a, 1.0, &mut out[start * self.head_dim..end * self.head_dim]);
        }
    }

    /// Softmax of the scaled scores, `[n_q, n_kv]` row-major.
    fn weights(&self, queries: Matrix<'_, f32>, scores: &mut [f32]) {
        self.keys.multiply(queries, scale(self.head_dim), scores);
        for row in scores.chunks_mut(self.n_kv) {
            Softmax::new_mut(row).dispatch();
        }
    }
}

fn scale(head_dim: usize) -> f32 {
    (head_dim as f32).sqrt().recip()
}

/// `[batch, n_head, n_ctx, head_dim]` to `[batch, n_ctx, n_head * head_dim]`.
fn interleave_heads(heads: &[f32], batch: usize, n_head: usize, n_ctx: usize, head_dim: usize) -> Vec<f32> {
    let n_state = n_head * head_dim;
    let mut out = vec![0.0; batch * n_ctx * n_state];
    for (row, out) in out.chunks_mut(n_state).enumerate() {
        let (b, t) = (row / n_ctx, row % n_ctx);
        for (h, out) in out.chunks_mut(head_dim).enumerate() {
            let start = ((b * n_head + h) * n_ctx + t) * head_dim;
            out.copy_from_slice(&heads[start..start + head_dim]);
        }
    }
    out
}

/// The keys and values of an encoding that tokens look at: made once a window, shared by all beams.
pub struct CrossKv {
    n_head: usize,
    n_kv: usize,
    kind: CrossKind,
}

#[allow(clippy::large_enum_variant, reason = "a handful live at a time; a box would be one more hop a token")]
enum CrossKind {
    Cpu(Vec<PackedHead>),
    /// `[1, n_head, n_kv, head_dim]` each
    Device {
        keys: Tensor<4>,
        values: Tensor<4>,
    },
}

impl CrossKv {
    /// Takes keys and values of one window; with `half`, the CPU keeps them in half precision: half the memory, and half of
    /// what a token reads. A head's keys or values that do not fit (not finite, or beyond 65504) stay as they are, as do all
    /// where half precision is slow (`HalfMatrix::pays`).
    ///
    /// # Shapes
    /// - kv: `[1, n_kv, 2 * n_state]`, keys and values side by side
    ///
    /// # Panics
    /// If it is more than one window's.
    #[must_use]
    pub fn new(kv: Tensor<3>, n_head: usize, half: bool) -> Self {
        let [batch, n_kv, width] = kv.dims();
        assert_eq!(batch, 1, "the keys and values are those of one window");
        let _timer = profile::op(|| Op::new("packing of keys", &[]));
        let n_state = width / 2;
        let head_dim = n_state / n_head;
        let kind = if is_cpu(&kv.device()) {
            let half = half && HalfMatrix::pays();
            let kv = CpuBuffer::new(kv);
            let part = |offset: usize| strided(&kv.values()[offset..], n_kv, head_dim, width);
            CrossKind::Cpu(
                (0..n_head)
                    .into_par_iter()
                    .map(|h| PackedHead::new(part(h * head_dim), part(n_state + h * head_dim), half))
                    .collect(),
            )
        } else {
            let [keys, values] = plain::split_heads::<2>(kv, n_head);
            CrossKind::Device { keys, values }
        };
        Self { n_head, n_kv, kind }
    }

    /// Tokens of every beam onto the one encoding.
    ///
    /// # Shapes
    /// - q, result: `[batch, n_q, n_state]`
    #[must_use]
    pub fn attend(&self, q: Tensor<3>) -> Tensor<3> {
        let [batch, n_q, n_state] = q.dims();
        let _timer = profile::op(|| Op::new("cross-attention", &[2 * batch, n_q, self.n_kv, n_state]));
        let head_dim = n_state / self.n_head;
        match &self.kind {
            CrossKind::Cpu(heads) => {
                let device = q.device();
                let q = CpuBuffer::new(q);
                let n_rows = batch * n_q;
                let mut out = vec![0.0; self.n_head * n_rows * head_dim];
                out.par_chunks_mut(n_rows * head_dim).zip(heads).enumerate().for_each(|(h, (out, head))| {
                    head.attend(strided(&q.values()[h * head_dim..], n_rows, head_dim, n_state), out);
                });
                // The beams' rows stand one below the other, so to the heads they are one long window.
                let out = interleave_heads(&out, 1, self.n_head, n_rows, head_dim);
                tensor_from(out, [batch, n_q, n_state], &device)
            }
            CrossKind::Device { keys, values } => {
                let [q] = plain::split_heads::<1>(q, self.n_head);
                let expand = |x: &Tensor<4>| x.clone().expand([batch, self.n_head, self.n_kv, head_dim]);
                plain::merge_heads(attention(q, expand(keys), expand(values), false))
            }
        }
    }

    /// Whether it has keys in half precision.
    #[cfg(test)]
    pub(crate) fn is_half(&self) -> bool {
        matches!(&self.kind, CrossKind::Cpu(heads) if heads.iter().any(|head| matches!(head.keys, Packed::Half(_))))
    }

    /// The attention weights themselves, for word times.
    ///
    /// # Shapes
    /// - q: `[1, n_q, n_state]`
    /// - result: `[n_q, n_kv]` row-major, rows sum to 1
    ///
    /// # Errors
    /// [`crate::Error::Device`] if the device cannot be read.
    pub async fn weights(&self, q: &Tensor<3>, head: usize) -> crate::Result<Vec<f32>> {
        let [_, n_q, n_state] = q.dims();
        let head_dim = n_state / self.n_head;
        match &self.kind {
            CrossKind::Cpu(heads) => {
                let q = CpuBuffer::new(q.clone());
                let mut scores = vec![0.0; n_q * self.n_kv];
                heads[head].weights(strided(&q.values()[head * head_dim..], n_q, head_dim, n_state), &mut scores);
                Ok(scores)
            }
            CrossKind::Device { keys, .. } => {
                let q = q.clone().slice([0..1, 0..n_q, head * head_dim..(head + 1) * head_dim]);
                let keys = keys.clone().slice([0..1, head..head + 1]).reshape([1, self.n_kv, head_dim]);
                let scores = q.matmul(keys.swap_dims(1, 2)) * scale(head_dim);
                let weights = burn::tensor::activation::softmax(scores, 2);
                crate::kernels::read(weights, "word times").await
            }
        }
    }
}

/// The keys and values of the tokens so far, one row a beam.
pub struct SelfKv {
    n_head: usize,
    batch: usize,
    len: usize,
    kind: SelfKind,
}

#[allow(clippy::large_enum_variant, reason = "a handful live at a time; a box would be one more hop a token")]
enum SelfKind {
    /// For each beam, `[len, n_state]` keys and as many values; the memory is taken once.
    Cpu(Vec<(Vec<f32>, Vec<f32>)>),
    /// `[batch, n_head, len, head_dim]` each
    Device(Option<(Tensor<4>, Tensor<4>)>),
}

impl SelfKv {
    /// An empty cache for `batch` beams of up to `n_text_ctx` tokens.
    #[must_use]
    pub fn new(batch: usize, n_text_ctx: usize, n_state: usize, n_head: usize, device: &Device) -> Self {
        let kind = if is_cpu(device) {
            let room = || Vec::with_capacity(n_text_ctx * n_state);
            SelfKind::Cpu((0..batch).map(|_| (room(), room())).collect())
        } else {
            SelfKind::Device(None)
        };
        Self { n_head, batch, len: 0, kind }
    }

    /// Tokens held for each beam.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether no token has been seen.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Takes the keys and values of new tokens in, and lets each new token look at itself and at all
    /// before it.
    ///
    /// # Shapes
    /// - qkv: `[batch, n_new, 3 * n_state]`
    /// - result: `[batch, n_new, n_state]`
    #[must_use]
    pub fn attend(&mut self, qkv: Tensor<3>) -> Tensor<3> {
        let [batch, n_new, width] = qkv.dims();
        assert_eq!(batch, self.batch, "one row a beam");
        let n_state = width / 3;
        let head_dim = n_state / self.n_head;
        let past = self.len;
        let _timer = profile::op(|| Op::new("self-attention", &[2 * batch, n_new, past + n_new, n_state]));
        self.len += n_new;
        match &mut self.kind {
            SelfKind::Cpu(beams) => {
                let device = qkv.device();
                let qkv = CpuBuffer::new(qkv);
                for (rows, (keys, values)) in qkv.values().chunks(n_new * width).zip(beams.iter_mut()) {
                    for row in rows.chunks(width) {
                        keys.extend_from_slice(&row[n_state..2 * n_state]);
                        values.extend_from_slice(&row[2 * n_state..]);
                    }
                }
                let mut out = vec![0.0; batch * self.n_head * n_new * head_dim];
                let n_head = self.n_head;
                let one_head = |(i, out): (usize, &mut [f32])| {
                    let (b, h) = (i / n_head, i % n_head);
                    let queries = &qkv.values()[b * n_new * width + h * head_dim..];
                    let (keys, values) = &beams[b];
                    causal_head(
                        strided(queries, n_new, head_dim, width),
                        strided(&keys[h * head_dim..], past + n_new, head_dim, n_state),
                        strided(&values[h * head_dim..], past + n_new, head_dim, n_state),
                        out,
                    );
                };
                // One token against a short past is less work than waking a second thread.
                if n_new * (past + n_new) * batch < 4096 {
                    out.chunks_mut(n_new * head_dim).enumerate().for_each(one_head);
                } else {
                    out.par_chunks_mut(n_new * head_dim).enumerate().for_each(one_head);
                }
                tensor_from(interleave_heads(&out, batch, n_head, n_new, head_dim), [batch, n_new, n_state], &device)
            }
            SelfKind::Device(cache) => {
                let [q, keys, values] = plain::split_heads::<3>(qkv, self.n_head);
                let (keys, values) = match cache.take() {
                    Some((k, v)) => (Tensor::cat(vec![k, keys], 2), Tensor::cat(vec![v, values], 2)),
                    None => (keys, values),
                };
                *cache = Some((keys.clone(), values.clone()));
                plain::merge_heads(attention(q, keys, values, n_new > 1))
            }
        }
    }

    /// Makes beam `i` continue what beam `source[i]` was; the number of beams may change.
    ///
    /// # Panics
    /// If a source does not exist.
    pub fn reorder(&mut self, source: &[usize]) {
        if source.len() == self.batch && source.iter().enumerate().all(|(i, &s)| i == s) {
            return;
        }
        let _timer = profile::op(|| Op::new("reordering of beams", &[]));
        self.batch = source.len();
        match &mut self.kind {
            SelfKind::Cpu(beams) => {
                let room = beams[0].0.capacity();
                let copy = |from: &Vec<f32>| {
                    let mut to = Vec::with_capacity(room);
                    to.extend_from_slice(from);
                    to
                };
                *beams = source.iter().map(|&s| (copy(&beams[s].0), copy(&beams[s].1))).collect();
            }
            SelfKind::Device(cache) => {
                if let Some((keys, values)) = cache.take() {
                    let device = keys.device();
                    let source: Vec<i32> = source.iter().map(|&s| s as i32).collect();
                    let n = source.len();
                    let index = Tensor::<1, burn::tensor::Int>::from_data(TensorData::new(source, [n]), &device);
                    *cache = Some((keys.select(0, index.clone()), values.select(0, index)));
                }
            }
        }
    }
}

/// One head of new tokens onto everything up to themselves.
///
/// queries: `[n_new, head_dim]`; keys, values: `[n_kv, head_dim]`; out: `[n_new, head_dim]`
fn causal_head(queries: Matrix<'_, f32>, keys: Matrix<'_, f32>, values: Matrix<'_, f32>, out: &mut [f32]) {
    let [n_new, head_dim] = queries.shape();
    let n_kv = keys.rows();
    let mut scores = vec![0.0; n_new * n_kv];
    with_gemm(|gemm| {
        let options = GemmOptions { alpha: scale(head_dim), ..GemmOptions::default() };
        gemm.gemm(&mut scores, GemmInputA::Unpacked(queries), GemmInputB::Unpacked(keys.transposed()), options)
            .expect("the shapes are those of this head");
        for (i, row) in scores.chunks_mut(n_kv).enumerate() {
            let (seen, future) = row.split_at_mut(n_kv - n_new + i + 1);
            Softmax::new_mut(seen).dispatch();
            future.fill(0.0);
        }
        let a = NdTensorView::from_data([n_new, n_kv], scores.as_slice());
        gemm.gemm(out, GemmInputA::Unpacked(a), GemmInputB::Unpacked(values), GemmOptions::default())
            .expect("the shapes are those of this head");
    });
}

/// Burn's own attention; the scale is left to it, since an explicit one takes a slow path on GPUs.
fn attention(q: Tensor<4>, k: Tensor<4>, v: Tensor<4>, is_causal: bool) -> Tensor<4> {
    let options = AttentionModuleOptions { is_causal, ..AttentionModuleOptions::default() };
    module::attention(q, k, v, None, None, options)
}

/// The same in ordinary Burn operations, for every other device and for the tests.
mod plain {
    use super::{Tensor, attention};

    pub(super) fn self_attention(qkv: Tensor<3>, n_head: usize) -> Tensor<3> {
        let [q, k, v] = split_heads::<3>(qkv, n_head);
        merge_heads(attention(q, k, v, false))
    }

    /// `[batch, n_ctx, N * n_state]` to N times `[batch, n_head, n_ctx, head_dim]`
    pub(super) fn split_heads<const N: usize>(x: Tensor<3>, n_head: usize) -> [Tensor<4>; N] {
        let [batch, n_ctx, width] = x.dims();
        let n_state = width / N;
        std::array::from_fn(|i| {
            x.clone()
                .slice([0..batch, 0..n_ctx, i * n_state..(i + 1) * n_state]) // [batch, n_ctx, n_state]
                .reshape([batch, n_ctx, n_head, n_state / n_head])
                .swap_dims(1, 2) // [batch, n_head, n_ctx, head_dim]
        })
    }

    /// `[batch, n_head, n_ctx, head_dim]` to `[batch, n_ctx, n_state]`
    pub(super) fn merge_heads(x: Tensor<4>) -> Tensor<3> {
        let [batch, n_head, n_ctx, head_dim] = x.dims();
        x.swap_dims(1, 2).reshape([batch, n_ctx, n_head * head_dim])
    }
}

#[cfg(test)]
mod cross_tests;

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    pub(super) fn noise(shape: [usize; 3], seed: u64) -> Tensor<3> {
        let n = shape.iter().product();
        let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
        let values: Vec<f32> = (0..n)
            .map(|_| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
            })
            .collect();
        tensor_from(values, shape, &Device::flex())
    }

    pub(super) fn assert_close(a: Tensor<3>, b: Tensor<3>, tolerance: f32) {
        assert_eq!(a.dims(), b.dims());
        let (a, b) = (a.try_into_vec_as::<f32>().unwrap(), b.try_into_vec_as::<f32>().unwrap());
        let (i, worst) = a
            .iter()
            .zip(&b)
            .map(|(a, b)| (a - b).abs())
            .enumerate()
            .fold((0, 0.0), |best, x| if x.1 > best.1 || x.1.is_nan() { x } else { best });
        assert!(worst <= tolerance, "index {i}: {} against {}", a[i], b[i]);
    }

    #[test]
    fn whole_window_equals_burn() {
        for (batch, n_ctx, n_head, head_dim) in [(1, 1, 1, 8), (2, 7, 3, 5), (1, 97, 2, 64), (1, 301, 2, 32)] {
            let qkv = noise([batch, n_ctx, 3 * n_head * head_dim], 7);
            assert_close(self_attention(qkv.clone(), n_head), plain::self_attention(qkv, n_head), 2e-6);
        }
    }

    #[test]
    fn windows_side_by_side_equal_each_alone() {
        let (n_head, head_dim) = (3, 8);
        for n_ctx in [vec![1], vec![5, 1, 97, 30], vec![200, 3], vec![7; 4]] {
            let n_rows = n_ctx.iter().sum();
            let qkv = noise([1, n_rows, 3 * n_head * head_dim], 9);
            let together = self_attention_of(qkv.clone(), &n_ctx, n_head);
            let alone = qkv.split_with_sizes(n_ctx, 1).into_iter().map(|window| plain::self_attention(window, n_head));
            assert_close(together, Tensor::cat(alone.collect(), 1), 2e-6);
        }
    }

    #[test]
    #[should_panic(expected = "all of the rows")]
    fn windows_that_leave_rows_out_are_a_mistake() {
        let _ = self_attention_of(noise([1, 7, 24], 1), &[3, 3], 2);
    }

    #[test]
    fn cached_tokens_equal_one_pass() {
        let (n_head, head_dim, n) = (3, 16, 11);
        let n_state = n_head * head_dim;
        let qkv = noise([2, n, 3 * n_state], 3);
        let [q, k, v] = plain::split_heads::<3>(qkv.clone(), n_head);
        let expected = plain::merge_heads(attention(q, k, v, true));
        // all at once, and in pieces of 4, 1, 1, 5
        let mut cache = SelfKv::new(2, n, n_state, n_head, &Device::flex());
        assert_close(cache.attend(qkv.clone()), expected.clone(), 2e-6);
        let mut cache = SelfKv::new(2, n, n_state, n_head, &Device::flex());
        let mut start = 0;
        for len in [4, 1, 1, 5] {
            let piece = cache.attend(qkv.clone().slice([0..2, start..start + len]));
            assert_close(piece, expected.clone().slice([0..2, start..start + len]), 2e-6);
            start += len;
        }
        assert_eq!(cache.len(), n);
    }

    #[test]
    fn reordered_beams_continue_their_source() {
        let (n_head, n_state) = (2, 8);
        let device = Device::flex();
        let first = noise([2, 3, 3 * n_state], 1);
        let next = noise([3, 1, 3 * n_state], 2);
        let mut cache = SelfKv::new(2, 8, n_state, n_head, &device);
        let _ = cache.attend(first.clone());
        cache.reorder(&[1, 1, 0]);
        let got = cache.attend(next.clone());
        for (i, source) in [1, 1, 0].into_iter().enumerate() {
            let mut single = SelfKv::new(1, 8, n_state, n_head, &device);
            let _ = single.attend(first.clone().slice([source..source + 1]));
            let expected = single.attend(next.clone().slice([i..i + 1]));
            assert_close(got.clone().slice([i..i + 1]), expected, 1e-6);
        }
    }

    #[test]
    fn nan_in_is_nan_out() {
        let mut values = vec![0.5; 4 * 3 * 8];
        values[5] = f32::NAN;
        let qkv = tensor_from(values, [1, 4, 24], &Device::flex());
        let out = self_attention(qkv, 2).try_into_vec_as::<f32>().unwrap();
        assert!(out.iter().any(|x| x.is_nan()), "a broken input must not look like an answer");
    }
}
