//! Low-rank adapters on the last layers of the encoder while they are trained: the encoder's blocks once more, on
//! parameters that can be differentiated.
//!
//! Follows Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models", 2021: `W x + alpha / rank · B A x` on the
//! query and value projections, A drawn at random and B zero, so that the first step starts from the frozen encoder.
//! The blocks follow [`crate::whisper::encoder`], in plain Burn operations: its kernels take no gradients, and clips of
//! one batch differ in length, so attention needs a mask.
//!
//! Only A and B are parameters ([`LoraLayers`]); the encoder's own weights ([`FrozenLayers`]) stay outside of the
//! `Module`, on a device without autodiff, where Burn takes them for constants. Burn's own `Lora` is not used: it draws
//! A from the device's generator, and a run has to come out the same on every machine.
//!
//! How they are fitted is in [`super::lora_fit`]; their names and how they are added in, in [`crate::weights::lora`].

use burn::module::{Module, Param, ParamId};
use burn::tensor::{Device, Tensor, TensorData, activation};

use super::model::{NamedTensor, values};
use crate::error::{Error, Result};
use crate::intent::pooling::normalise_positions;
use crate::weights::lora::{LoraSpec, PROJECTIONS};
use crate::weights::{Checkpoint, WeightSource};
use crate::whisper::WhisperConfig;
use crate::whisper::model::encoder_tensors;

/// The optimiser's number of the first adapter; a head's are counted from 1.
const FIRST_PARAM: u64 = 1000;
/// Added to the score of a position that is padding.
const PADDING_SCORE: f32 = -1e4;
/// Of the generator that draws A, so that it is not the one that drew the head.
const SEED_OF_A: u64 = 0x4C6F_5241; // "LoRA"

/// A and B of each adapted layer.
#[derive(Module, Debug)]
pub struct LoraLayers {
    layers: Vec<AdaptedLayer>,
}

#[derive(Module, Debug)]
struct AdaptedLayer {
    query: Adapter,
    value: Adapter,
}

#[derive(Module, Debug)]
struct Adapter {
    /// `[rank, n_state]`
    a: Param<Tensor<2>>,
    /// `[n_state, rank]`
    b: Param<Tensor<2>>,
}

/// The last layers of an encoder, which stay as they are.
#[derive(Debug, Clone)]
pub struct FrozenLayers {
    layers: Vec<FrozenLayer>,
    ln_post: Norm,
    n_head: usize,
    n_state: usize,
}

#[derive(Debug, Clone)]
struct FrozenLayer {
    attn_ln: Norm,
    query: Dense,
    key: Dense,
    value: Dense,
    attn_out: Dense,
    mlp_ln: Norm,
    fc1: Dense,
    fc2: Dense,
}

/// `[1, 1, n_state]` each
#[derive(Debug, Clone)]
struct Norm {
    gamma: Tensor<3>,
    beta: Tensor<3>,
}

/// `[d_input, d_output]`, as a product wants it, and `[1, d_output]`
#[derive(Debug, Clone)]
struct Dense {
    weight: Tensor<2>,
    bias: Option<Tensor<2>>,
}

/// Gives an adapter's values by its public name and shape.
type Take<'a> = &'a mut dyn FnMut(&str, [usize; 2]) -> Result<Vec<f32>>;

impl Adapter {
    /// `[n_rows, n_state]` to the same
    fn forward(&self, x: Tensor<2>, scale: f32) -> Tensor<2> {
        let inner = x.matmul(self.a.val().transpose()); // [n_rows, rank]
        inner.matmul(self.b.val().transpose()).mul_scalar(scale)
    }
}

impl LoraLayers {
    fn build(spec: &LoraSpec, n_state: usize, device: &Device, take: Take<'_>) -> Result<Self> {
        let mut next = FIRST_PARAM;
        let mut param = |name: &str, shape: [usize; 2]| -> Result<Param<Tensor<2>>> {
            let tensor = Tensor::<2>::from_data(TensorData::new(take(name, shape)?, shape), device);
            let tensor = if device.is_autodiff() { tensor.require_grad() } else { tensor };
            next += 1;
            Ok(Param::initialized(ParamId::from(next), tensor))
        };
        let mut adapter = |layer: usize, projection: &str| -> Result<Adapter> {
            let [a, b] = LoraSpec::names(layer, projection);
            Ok(Adapter { a: param(&a, [spec.rank, n_state])?, b: param(&b, [n_state, spec.rank])? })
        };
        let [query, value] = PROJECTIONS;
        let layers = spec.layers.iter().map(|layer| -> Result<AdaptedLayer> {
            Ok(AdaptedLayer { query: adapter(*layer, query)?, value: adapter(*layer, value)? })
        });
        Ok(Self { layers: layers.collect::<Result<_>>()? })
    }

    /// Adapters to begin with: A uniform in ±1/√n_state, B zero. The same on every machine.
    ///
    /// # Errors
    /// None that a checked `spec` gives.
    pub fn init(spec: &LoraSpec, n_state: usize, seed: u64, device: &Device) -> Result<Self> {
        let mut rng = fastrand::Rng::with_seed(seed ^ SEED_OF_A);
        let bound = 1.0 / (n_state as f32).sqrt();
        Self::build(spec, n_state, device, &mut |name, [d_output, d_input]| {
            let bound = if name.ends_with(".a") { bound } else { 0.0 };
            Ok((0..d_output * d_input).map(|_| (2.0 * rng.f32() - 1.0) * bound).collect())
        })
    }

    /// Adapters as they were written.
    ///
    /// # Errors
    /// [`Error::WeightMismatch`], [`Error::DamagedWeights`].
    pub fn read(spec: &LoraSpec, n_state: usize, weights: &dyn WeightSource, device: &Device) -> Result<Self> {
        let checkpoint = Checkpoint::new(weights, &spec.expected_tensors(n_state), |_| false)?;
        Self::build(spec, n_state, device, &mut |name, _| checkpoint.take(name))
    }

    /// All parameters under their public names, as [`LoraLayers::read`] takes them.
    ///
    /// # Errors
    /// [`Error::Device`] if they cannot be read back.
    pub fn tensors(&self, spec: &LoraSpec) -> Result<Vec<NamedTensor>> {
        let mut tensors = Vec::with_capacity(4 * self.layers.len());
        for (layer, adapted) in spec.layers.iter().zip(&self.layers) {
            for (projection, adapter) in PROJECTIONS.into_iter().zip([&adapted.query, &adapted.value]) {
                for (name, factor) in LoraSpec::names(*layer, projection).into_iter().zip([&adapter.a, &adapter.b]) {
                    let tensor = factor.val();
                    tensors.push((name, tensor.dims().to_vec(), values(tensor)?));
                }
            }
        }
        Ok(tensors)
    }

    /// What each adapted layer gives; the last one normalised, as in [`crate::whisper::AudioEncoder::forward_all`].
    ///
    /// # Shapes
    /// - x: `[batch, n_ctx, n_state]`, what enters the first adapted layer
    /// - padding: `[batch, 1, 1, n_ctx]`, of [`padding`]; `None` if every position counts
    /// - each result: `[batch, n_ctx, n_state]`; what stands behind a clip's end does not matter
    #[must_use]
    pub fn forward(
        &self,
        frozen: &FrozenLayers,
        scale: f32,
        mut x: Tensor<3>,
        padding: Option<&Tensor<4>>,
    ) -> Vec<Tensor<3>> {
        let mut states = Vec::with_capacity(self.layers.len());
        for (at, (adapted, layer)) in self.layers.iter().zip(&frozen.layers).enumerate() {
            x = layer.forward(adapted, scale, frozen.n_head, x, padding);
            let is_last = at + 1 == self.layers.len();
            states.push(if is_last { frozen.ln_post.forward(x.clone()) } else { x.clone() });
        }
        states
    }
}

impl FrozenLayers {
    /// The last `n_layers` layers of the encoder in `weights`.
    ///
    /// # Errors
    /// [`Error::InvalidParameter`] if there are not so many; [`Error::WeightMismatch`], [`Error::DamagedWeights`].
    pub fn load(config: &WhisperConfig, weights: &dyn WeightSource, n_layers: usize) -> Result<Self> {
        let n_layer = config.encoder_layers;
        if !(1..=n_layer).contains(&n_layers) {
            return Err(Error::InvalidParameter {
                name: "lora",
                allowed: format!("0 to {n_layer}, the encoder's layers"),
            });
        }
        // The decoder is not missed here.
        let checkpoint = Checkpoint::new(weights, &encoder_tensors(config), |_| true)?;
        let layers = (n_layer - n_layers..n_layer)
            .map(|layer| FrozenLayer::load(config, &checkpoint, layer))
            .collect::<Result<_>>()?;
        Ok(Self {
            layers,
            ln_post: Norm::load(&checkpoint, "model.encoder.layer_norm")?,
            n_head: config.encoder_attention_heads,
            n_state: config.d_model,
        })
    }

    /// Layers.
    #[must_use]
    pub fn n_layers(&self) -> usize {
        self.layers.len()
    }

    /// Their width.
    #[must_use]
    pub fn n_state(&self) -> usize {
        self.n_state
    }

    /// Attention heads.
    #[must_use]
    pub fn n_head(&self) -> usize {
        self.n_head
    }
}

impl FrozenLayer {
    fn load(config: &WhisperConfig, checkpoint: &Checkpoint<'_>, layer: usize) -> Result<Self> {
        let (n_state, n_mlp) = (config.d_model, config.encoder_ffn_dim);
        let name = |part: &str| format!("model.encoder.layers.{layer}.{part}");
        Ok(Self {
            attn_ln: Norm::load(checkpoint, &name("self_attn_layer_norm"))?,
            query: Dense::load(checkpoint, &name("self_attn.q_proj"), n_state, true)?,
            // Whisper's key projection has no bias.
            key: Dense::load(checkpoint, &name("self_attn.k_proj"), n_state, false)?,
            value: Dense::load(checkpoint, &name("self_attn.v_proj"), n_state, true)?,
            attn_out: Dense::load(checkpoint, &name("self_attn.out_proj"), n_state, true)?,
            mlp_ln: Norm::load(checkpoint, &name("final_layer_norm"))?,
            fc1: Dense::load(checkpoint, &name("fc1"), n_mlp, true)?,
            fc2: Dense::load(checkpoint, &name("fc2"), n_state, true)?,
        })
    }

    /// `[batch, n_ctx, n_state]` to the same
    fn forward(
        &self,
        adapted: &AdaptedLayer,
        scale: f32,
        n_head: usize,
        x: Tensor<3>,
        padding: Option<&Tensor<4>>,
    ) -> Tensor<3> {
        let [batch, n_ctx, n_state] = x.dims();
        let head_dim = n_state / n_head;
        let heads = |rows: Tensor<2>| rows.reshape([batch, n_ctx, n_head, head_dim]).swap_dims(1, 2);
        let rows = self.attn_ln.forward(x.clone()).reshape([batch * n_ctx, n_state]);
        let query = self.query.forward(rows.clone()) + adapted.query.forward(rows.clone(), scale);
        let key = self.key.forward(rows.clone());
        let value = self.value.forward(rows.clone()) + adapted.value.forward(rows, scale);
        let query = heads(query).mul_scalar((head_dim as f32).powf(-0.5)); // [batch, n_head, n_ctx, head_dim]
        let mut scores = query.matmul(heads(key).swap_dims(2, 3)); // [batch, n_head, n_ctx, n_ctx]
        if let Some(padding) = padding {
            scores = scores + padding.clone();
        }
        let mixed = activation::softmax(scores, 3).matmul(heads(value)); // [batch, n_head, n_ctx, head_dim]
        let mixed = mixed.swap_dims(1, 2).reshape([batch * n_ctx, n_state]);
        let x = x + self.attn_out.forward(mixed).reshape([batch, n_ctx, n_state]);
        let rows = self.mlp_ln.forward(x.clone()).reshape([batch * n_ctx, n_state]);
        let hidden = activation::gelu(self.fc1.forward(rows)); // [batch * n_ctx, n_mlp]
        x + self.fc2.forward(hidden).reshape([batch, n_ctx, n_state])
    }
}

impl Norm {
    fn load(checkpoint: &Checkpoint<'_>, name: &str) -> Result<Self> {
        let take = |part: &str| -> Result<Tensor<3>> {
            let values = checkpoint.take(&format!("{name}.{part}"))?;
            let shape = [1, 1, values.len()];
            Ok(Tensor::from_data(TensorData::new(values, shape), &Device::flex()))
        };
        Ok(Self { gamma: take("weight")?, beta: take("bias")? })
    }

    /// Whisper's epsilon is the 1e-5 of [`normalise_positions`].
    fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        normalise_positions(x) * self.gamma.clone() + self.beta.clone()
    }
}

impl Dense {
    fn load(checkpoint: &Checkpoint<'_>, name: &str, d_output: usize, has_bias: bool) -> Result<Self> {
        let device = Device::flex();
        let stored = checkpoint.take(&format!("{name}.weight"))?;
        let d_input = stored.len() / d_output;
        // Turned once here: a product with a transposed right side takes nearly twice as long on the CPU.
        let mut weight = vec![0.0; stored.len()];
        for (output, row) in stored.chunks(d_input).enumerate() {
            for (input, value) in row.iter().enumerate() {
                weight[input * d_output + output] = *value;
            }
        }
        let bias = if has_bias { Some(checkpoint.take(&format!("{name}.bias"))?) } else { None };
        Ok(Self {
            weight: Tensor::from_data(TensorData::new(weight, [d_input, d_output]), &device),
            bias: bias.map(|bias| Tensor::from_data(TensorData::new(bias, [1, d_output]), &device)),
        })
    }

    /// `[n_rows, d_input]` to `[n_rows, d_output]`
    fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        let y = x.matmul(self.weight.clone());
        match &self.bias {
            Some(bias) => y + bias.clone(),
            None => y,
        }
    }
}

/// What attention adds to its scores: 0 where a clip is, a large negative number behind its end.
///
/// # Shapes
/// - lengths: positions of each clip, at most `n_ctx`
/// - result: `[batch, 1, 1, n_ctx]`
#[must_use]
pub fn padding(lengths: &[usize], n_ctx: usize, device: &Device) -> Tensor<4> {
    let mut scores = vec![PADDING_SCORE; lengths.len() * n_ctx];
    for (row, length) in scores.chunks_mut(n_ctx.max(1)).zip(lengths) {
        row[..(*length).min(n_ctx)].fill(0.0);
    }
    Tensor::from_data(TensorData::new(scores, [lengths.len(), 1, 1, n_ctx]), device)
}

#[cfg(test)]
pub(super) mod tests;
