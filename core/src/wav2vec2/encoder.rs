//! Features to states: the positional convolution and the transformer.
//!
//! Follows `transformers` 5.23 `Wav2Vec2Encoder` (norms behind attention and MLP) and `Wav2Vec2EncoderStableLayerNorm`
//! (norms before them, and MMS's attention adapters). The positional convolution is stored as a direction and a length a
//! tap (`nn.utils.weight_norm`, `dim=2`), under one of two pairs of names; it is put together once, at load.

use burn::tensor::{Device, Tensor};
use rayon::prelude::*;

use super::config::Wav2Vec2Config;
use crate::error::Result;
use crate::kernels::conv1d::{Conv1d, Conv1dShape};
use crate::kernels::{Activation, LayerNorm, Linear, Target, self_attention};
use crate::weights::{Checkpoint, WeightSource};

/// Where the transformer's tensors are.
const PREFIX: &str = "wav2vec2.encoder";

/// The transformer with its positions.
#[derive(Debug, Clone)]
pub struct ContextEncoder {
    positions: PositionalConv,
    norm: LayerNorm,
    norm_first: bool,
    blocks: Vec<Block>,
}

/// What the model computes, stage by stage; for tests against a reference. All are `[1, n_frames, channels]`.
#[derive(Debug, Clone, Default)]
pub struct Wav2Vec2Stages {
    /// What the feature encoder gives.
    pub features: Option<Tensor<3>>,
    /// Normalised and projected to the transformer's width.
    pub projected: Option<Tensor<3>>,
    /// With positions added: what the first block takes.
    pub embedded: Option<Tensor<3>>,
    /// After each block.
    pub blocks: Vec<Tensor<3>>,
    /// What the head takes.
    pub last: Option<Tensor<3>>,
}

/// How a checkpoint stores the positional convolution.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PositionalForm {
    /// `parametrizations.weight.original0` and `original1`, since torch 2.
    Parametrized,
    /// `weight_g` and `weight_v`, before.
    WeightNorm,
    /// `weight`, already put together.
    Plain,
}

impl PositionalForm {
    /// The form that `weights` has; the newest if there is none, so that its names are reported as missing.
    pub(super) fn of(weights: &dyn WeightSource) -> Self {
        let forms = [Self::Parametrized, Self::WeightNorm, Self::Plain];
        let has = |form: &Self| weights.shape(&form.name(form.names().len() - 1)).is_some();
        forms.into_iter().find(has).unwrap_or(Self::Parametrized)
    }

    fn names(self) -> &'static [&'static str] {
        match self {
            Self::Parametrized => &["parametrizations.weight.original0", "parametrizations.weight.original1"],
            Self::WeightNorm => &["weight_g", "weight_v"],
            Self::Plain => &["weight"],
        }
    }

    /// The full name of tensor `i`; the last holds the directions, or the whole weight.
    fn name(self, i: usize) -> String {
        format!("{PREFIX}.pos_conv_embed.conv.{}", self.names()[i])
    }
}

impl ContextEncoder {
    /// Takes the transformer's tensors out of a checked checkpoint.
    ///
    /// # Errors
    /// [`crate::Error::DamagedWeights`] if values are not finite.
    pub(super) fn load(
        config: &Wav2Vec2Config,
        checkpoint: &Checkpoint<'_>,
        form: PositionalForm,
        target: Target<'_>,
    ) -> Result<Self> {
        let device = target.device;
        let take = |name: &str| checkpoint.take(&format!("{PREFIX}.{name}"));
        Ok(Self {
            positions: PositionalConv::load(config, checkpoint, form, device)?,
            norm: LayerNorm::new(take("layer_norm.weight")?, take("layer_norm.bias")?, device),
            norm_first: config.do_stable_layer_norm,
            blocks: (0..config.num_hidden_layers)
                .into_par_iter()
                .map(|i| Block::load(config, checkpoint, i, target))
                .collect::<Result<_>>()?,
        })
    }

    /// Encodes projected features.
    ///
    /// # Shapes
    /// - x, result: `[batch, n_frames, hidden_size]`
    #[must_use]
    pub fn forward(&self, x: Tensor<3>, mut stages: Option<&mut Wav2Vec2Stages>) -> Tensor<3> {
        let mut x = x.clone() + self.positions.forward(x);
        if !self.norm_first {
            x = self.norm.forward(x);
        }
        if let Some(stages) = stages.as_deref_mut() {
            stages.embedded = Some(x.clone());
        }
        for block in &self.blocks {
            x = if self.norm_first { block.forward_norm_first(x) } else { block.forward_norm_last(x) };
            if let Some(stages) = stages.as_deref_mut() {
                stages.blocks.push(x.clone());
            }
        }
        if self.norm_first { self.norm.forward(x) } else { x }
    }
}

/// Positions by a wide grouped convolution over the features.
#[derive(Debug, Clone)]
struct PositionalConv {
    conv: Conv1d,
    /// An even kernel sees one frame too many on the right.
    is_even: bool,
}

impl PositionalConv {
    fn load(
        config: &Wav2Vec2Config,
        checkpoint: &Checkpoint<'_>,
        form: PositionalForm,
        device: &Device,
    ) -> Result<Self> {
        let kernel_size = config.num_conv_pos_embeddings;
        let shape = Conv1dShape {
            d_input: config.hidden_size,
            d_output: config.hidden_size,
            kernel_size,
            stride: 1,
            padding: kernel_size / 2,
            groups: config.num_conv_pos_embedding_groups,
        };
        let weight = match form {
            PositionalForm::Plain => checkpoint.take(&form.name(0))?,
            _ => normed_weight(&checkpoint.take(&form.name(0))?, checkpoint.take(&form.name(1))?),
        };
        let bias = checkpoint.take(&format!("{PREFIX}.pos_conv_embed.conv.bias"))?;
        Ok(Self { conv: Conv1d::new(&weight, Some(bias), shape, device), is_even: kernel_size.is_multiple_of(2) })
    }

    /// `[batch, n_frames, hidden_size]` to the same
    fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        let [_, n_frames, _] = x.dims();
        let out = self.conv.forward(x, Activation::Gelu);
        if self.is_even { out.narrow(1, 0, n_frames) } else { out }
    }
}

/// `length * direction / |direction|`, each tap on its own: lengths are `[1, 1, kernel_size]`, directions
/// `[d_output, d_input / groups, kernel_size]`.
fn normed_weight(lengths: &[f32], mut directions: Vec<f32>) -> Vec<f32> {
    let mut squares = vec![0.0_f64; lengths.len()];
    for taps in directions.chunks_exact(lengths.len()) {
        for (sum, v) in squares.iter_mut().zip(taps) {
            *sum += f64::from(*v).powi(2);
        }
    }
    // A tap without a direction weighs nothing.
    let scales: Vec<f32> = lengths
        .iter()
        .zip(&squares)
        .map(|(length, square)| if *square > 0.0 { (f64::from(*length) / square.sqrt()) as f32 } else { 0.0 })
        .collect();
    for taps in directions.chunks_exact_mut(lengths.len()) {
        taps.iter_mut().zip(&scales).for_each(|(v, scale)| *v *= scale);
    }
    directions
}

/// Attention and MLP, each added to the stream; with an adapter behind them in MMS.
#[derive(Debug, Clone)]
struct Block {
    qkv: Linear,
    attn_out: Linear,
    attn_norm: LayerNorm,
    fc1: Linear,
    fc2: Linear,
    mlp_norm: LayerNorm,
    adapter: Option<Adapter>,
    n_head: usize,
}

impl Block {
    fn load(config: &Wav2Vec2Config, checkpoint: &Checkpoint<'_>, layer: usize, target: Target<'_>) -> Result<Self> {
        let n_state = config.hidden_size;
        let take = |name: &str| checkpoint.take(&format!("{PREFIX}.layers.{layer}.{name}"));
        let linear = |name: &str, d_output: usize| -> Result<Linear> {
            let weight = take(&format!("{name}.weight"))?;
            Ok(Linear::new(&weight, Some(take(&format!("{name}.bias"))?), d_output, target))
        };
        let norm = |name: &str| -> Result<LayerNorm> {
            Ok(LayerNorm::new(take(&format!("{name}.weight"))?, take(&format!("{name}.bias"))?, target.device))
        };
        // Queries, keys and values as one product; unlike Whisper's, all three have a bias.
        let (mut weight, mut bias) = (Vec::new(), Vec::new());
        for projection in ["q_proj", "k_proj", "v_proj"] {
            weight.extend(take(&format!("attention.{projection}.weight"))?);
            bias.extend(take(&format!("attention.{projection}.bias"))?);
        }
        let adapter = match config.adapter_attn_dim {
            Some(width) => Some(Adapter {
                norm: norm("adapter_layer.norm")?,
                down: linear("adapter_layer.linear_1", width)?,
                up: linear("adapter_layer.linear_2", n_state)?,
            }),
            None => None,
        };
        Ok(Self {
            qkv: Linear::new(&weight, Some(bias), 3 * n_state, target),
            attn_out: linear("attention.out_proj", n_state)?,
            attn_norm: norm("layer_norm")?,
            fc1: linear("feed_forward.intermediate_dense", config.intermediate_size)?,
            fc2: linear("feed_forward.output_dense", n_state)?,
            mlp_norm: norm("final_layer_norm")?,
            adapter,
            n_head: config.num_attention_heads,
        })
    }

    /// `[batch, n_frames, n_state]` to the same; norms behind the sums
    fn forward_norm_last(&self, x: Tensor<3>) -> Tensor<3> {
        let attended = self_attention(self.qkv.forward(x.clone(), Activation::None), self.n_head);
        let x = self.attn_norm.forward(self.attn_out.forward_add(x, attended));
        let hidden = self.fc1.forward(x.clone(), Activation::Gelu);
        self.mlp_norm.forward(self.fc2.forward_add(x, hidden))
    }

    /// `[batch, n_frames, n_state]` to the same; norms before attention and MLP
    fn forward_norm_first(&self, x: Tensor<3>) -> Tensor<3> {
        let qkv = self.qkv.forward(self.attn_norm.forward(x.clone()), Activation::None);
        let x = self.attn_out.forward_add(x, self_attention(qkv, self.n_head));
        let hidden = self.fc1.forward(self.mlp_norm.forward(x.clone()), Activation::Gelu);
        let x = self.fc2.forward_add(x, hidden);
        match &self.adapter {
            Some(adapter) => adapter.forward_add(x),
            None => x,
        }
    }
}

/// What MMS trains for each language: a narrow MLP on a normalised copy, added to the stream.
#[derive(Debug, Clone)]
struct Adapter {
    norm: LayerNorm,
    down: Linear,
    up: Linear,
}

impl Adapter {
    fn forward_add(&self, x: Tensor<3>) -> Tensor<3> {
        let hidden = self.down.forward(self.norm.forward(x.clone()), Activation::Relu);
        self.up.forward_add(x, hidden)
    }
}

/// The transformer's tensors, under Hugging Face's names.
pub(super) fn expected_tensors(config: &Wav2Vec2Config, form: PositionalForm, tensors: &mut Vec<(String, Vec<usize>)>) {
    let (n, n_mlp, kernel_size) = (config.hidden_size, config.intermediate_size, config.num_conv_pos_embeddings);
    let mut add = |name: String, shape: &[usize]| tensors.push((name, shape.to_vec()));
    if form != PositionalForm::Plain {
        add(form.name(0), &[1, 1, kernel_size]);
    }
    add(form.name(form.names().len() - 1), &[n, n / config.num_conv_pos_embedding_groups, kernel_size]);
    add(format!("{PREFIX}.pos_conv_embed.conv.bias"), &[n]);
    let mut linears = vec![
        ("attention.q_proj", n, n),
        ("attention.k_proj", n, n),
        ("attention.v_proj", n, n),
        ("attention.out_proj", n, n),
        ("feed_forward.intermediate_dense", n_mlp, n),
        ("feed_forward.output_dense", n, n_mlp),
    ];
    let mut norms = vec!["layer_norm", "final_layer_norm"];
    if let Some(width) = config.adapter_attn_dim {
        linears.extend([("adapter_layer.linear_1", width, n), ("adapter_layer.linear_2", n, width)]);
        norms.push("adapter_layer.norm");
    }
    for layer in 0..config.num_hidden_layers {
        for (name, d_output, d_input) in &linears {
            add(format!("{PREFIX}.layers.{layer}.{name}.weight"), &[*d_output, *d_input]);
            add(format!("{PREFIX}.layers.{layer}.{name}.bias"), &[*d_output]);
        }
        for name in &norms {
            add(format!("{PREFIX}.layers.{layer}.{name}.weight"), &[n]);
            add(format!("{PREFIX}.layers.{layer}.{name}.bias"), &[n]);
        }
    }
    add(format!("{PREFIX}.layer_norm.weight"), &[n]);
    add(format!("{PREFIX}.layer_norm.bias"), &[n]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_tap_gets_its_own_length() {
        // Two rows of two taps; the columns are the taps: (3, 4) of length 5 and (0, -1) of length 1.
        let weight = normed_weight(&[10.0, 2.0], vec![3.0, 0.0, 4.0, -1.0]);
        assert_eq!(weight, [6.0, 0.0, 8.0, -2.0]);
        assert_eq!(normed_weight(&[1.0], vec![0.0, 0.0]), [0.0, 0.0]);
    }
}
