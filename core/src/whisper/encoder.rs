//! The audio encoder: log-mel frames to states, on a full or a fitted window.
//!
//! Follows `openai/whisper` `model.py` `AudioEncoder`. One deviation: a window shorter than the full one
//! takes the first positions of the table (a *fitted* window). That is sound for an intent head that
//! was trained so; an unadapted text decoder needs the full window.

use burn::tensor::{Device, Tensor, TensorData};
use rayon::prelude::*;

use super::config::WhisperConfig;
use crate::error::{Error, Result};
use crate::kernels::{Activation, LayerNorm, Linear, self_attention};
use crate::weights::Checkpoint;

/// The convolutions see one neighbour on each side.
const KERNEL_SIZE: usize = 3;

/// Whisper's audio encoder.
#[derive(Debug, Clone)]
pub struct AudioEncoder {
    conv1: Conv,
    conv2: Conv,
    /// `[1, n_audio_ctx, n_state]`
    positional_embedding: Tensor<3>,
    blocks: Vec<EncoderBlock>,
    ln_post: LayerNorm,
    n_mels: usize,
    n_frames: usize,
}

/// What the encoder computes, stage by stage; for tests against a reference.
#[derive(Debug, Clone, Default)]
pub struct EncoderStages {
    /// After each convolution's gelu, `[batch, n_ctx, n_state]`.
    pub convs: Vec<Tensor<3>>,
    /// With positions added, `[batch, n_ctx, n_state]`.
    pub embedded: Option<Tensor<3>>,
    /// After each block.
    pub blocks: Vec<Tensor<3>>,
}

impl AudioEncoder {
    /// Takes the encoder's tensors out of a checked checkpoint.
    ///
    /// # Errors
    /// [`Error::DamagedWeights`] if values are not finite.
    pub fn load(config: &WhisperConfig, checkpoint: &Checkpoint<'_>, device: &Device) -> Result<Self> {
        let n_state = config.d_model;
        let take = |name: &str| checkpoint.take(&format!("model.encoder.{name}"));
        let positions = take("embed_positions.weight")?;
        Ok(Self {
            conv1: Conv::new(&take("conv1.weight")?, take("conv1.bias")?, config.num_mel_bins, 1, device),
            conv2: Conv::new(&take("conv2.weight")?, take("conv2.bias")?, n_state, 2, device),
            positional_embedding: Tensor::from_data(
                TensorData::new(positions, [1, config.max_source_positions, n_state]),
                device,
            ),
            blocks: (0..config.encoder_layers)
                .into_par_iter()
                .map(|i| EncoderBlock::load(config, checkpoint, i, device))
                .collect::<Result<_>>()?,
            ln_post: LayerNorm::new(take("layer_norm.weight")?, take("layer_norm.bias")?, device),
            n_mels: config.num_mel_bins,
            n_frames: config.n_frames(),
        })
    }

    /// Encodes one window.
    ///
    /// # Shapes
    /// - mel: `[batch, n_mels, n_frames]`, `n_frames` even, at most a full window
    /// - result: `[batch, n_frames / 2, n_state]`
    ///
    /// # Errors
    /// [`Error::ShapeMismatch`] if the window has the wrong channels or length.
    pub fn forward(&self, mel: Tensor<3>) -> Result<Tensor<3>> {
        self.forward_stages(mel, None)
    }

    /// As [`AudioEncoder::forward`], keeping what each stage gave.
    ///
    /// # Errors
    /// As [`AudioEncoder::forward`].
    pub fn forward_stages(&self, mel: Tensor<3>, mut stages: Option<&mut EncoderStages>) -> Result<Tensor<3>> {
        let [batch, n_mels, n_frames] = mel.dims();
        if n_mels != self.n_mels || n_frames == 0 || n_frames > self.n_frames || !n_frames.is_multiple_of(2) {
            return Err(Error::ShapeMismatch {
                tensor: "mel",
                expected: vec![batch, self.n_mels, self.n_frames],
                got: vec![batch, n_mels, n_frames],
            });
        }
        let x = self.conv1.forward(mel.swap_dims(1, 2)); // [batch, n_frames, n_state]
        if let Some(stages) = stages.as_deref_mut() {
            stages.convs.push(x.clone());
        }
        let x = self.conv2.forward(x); // [batch, n_ctx, n_state]
        if let Some(stages) = stages.as_deref_mut() {
            stages.convs.push(x.clone());
        }
        let n_ctx = n_frames / 2;
        let mut x = x + self.positional_embedding.clone().slice([0..1, 0..n_ctx]);
        if let Some(stages) = stages.as_deref_mut() {
            stages.embedded = Some(x.clone());
        }
        for block in &self.blocks {
            x = block.forward(x);
            if let Some(stages) = stages.as_deref_mut() {
                stages.blocks.push(x.clone());
            }
        }
        Ok(self.ln_post.forward(x))
    }
}

/// A convolution over time with gelu, as one product of unfolded frames: `n_ctx` rows of
/// `KERNEL_SIZE * d_input` are what the product kernels are good at.
#[derive(Debug, Clone)]
struct Conv {
    linear: Linear,
    stride: usize,
}

impl Conv {
    /// weight: `[d_output, d_input, KERNEL_SIZE]`
    fn new(weight: &[f32], bias: Vec<f32>, d_input: usize, stride: usize, device: &Device) -> Self {
        let d_output = bias.len();
        let mut unfolded = Vec::with_capacity(weight.len()); // [d_output, KERNEL_SIZE, d_input]
        for row in weight.chunks(d_input * KERNEL_SIZE) {
            for k in 0..KERNEL_SIZE {
                unfolded.extend(row.iter().skip(k).step_by(KERNEL_SIZE));
            }
        }
        Self { linear: Linear::new(&unfolded, Some(bias), d_output, device), stride }
    }

    /// `[batch, n_ctx, d_input]` to `[batch, n_ctx / stride, d_output]`
    fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        let [batch, n_ctx, d_input] = x.dims();
        let edge = Tensor::zeros([batch, 1, d_input], &x.device());
        let padded = Tensor::cat(vec![edge.clone(), x, edge], 1); // [batch, n_ctx + 2, d_input]
        let n_out = (n_ctx - 1) / self.stride + 1;
        let taps = (0..KERNEL_SIZE)
            .map(|k| {
                let end = k + (n_out - 1) * self.stride + 1;
                padded
                    .clone()
                    .slice_dim(1, burn::tensor::Slice::new(k as isize, Some(end as isize), self.stride as isize))
            })
            .collect();
        let unfolded = Tensor::cat(taps, 2); // [batch, n_out, KERNEL_SIZE * d_input]
        self.linear.forward(unfolded, Activation::Gelu)
    }
}

/// Attention and MLP, each on a normalised copy, each added to the residual stream.
#[derive(Debug, Clone)]
struct EncoderBlock {
    attn_ln: LayerNorm,
    qkv: Linear,
    attn_out: Linear,
    mlp_ln: LayerNorm,
    fc1: Linear,
    fc2: Linear,
    n_head: usize,
}

impl EncoderBlock {
    fn load(config: &WhisperConfig, checkpoint: &Checkpoint<'_>, layer: usize, device: &Device) -> Result<Self> {
        let n_state = config.d_model;
        let take = |name: &str| checkpoint.take(&format!("model.encoder.layers.{layer}.{name}"));
        Ok(Self {
            attn_ln: LayerNorm::new(take("self_attn_layer_norm.weight")?, take("self_attn_layer_norm.bias")?, device),
            qkv: fused_qkv(&take, "self_attn", n_state, device)?,
            attn_out: Linear::new(
                &take("self_attn.out_proj.weight")?,
                Some(take("self_attn.out_proj.bias")?),
                n_state,
                device,
            ),
            mlp_ln: LayerNorm::new(take("final_layer_norm.weight")?, take("final_layer_norm.bias")?, device),
            fc1: Linear::new(&take("fc1.weight")?, Some(take("fc1.bias")?), config.encoder_ffn_dim, device),
            fc2: Linear::new(&take("fc2.weight")?, Some(take("fc2.bias")?), n_state, device),
            n_head: config.encoder_attention_heads,
        })
    }

    /// `[batch, n_ctx, n_state]` to the same
    fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        let qkv = self.qkv.forward(self.attn_ln.forward(x.clone()), Activation::None);
        let x = self.attn_out.forward_add(x, self_attention(qkv, self.n_head));
        let hidden = self.fc1.forward(self.mlp_ln.forward(x.clone()), Activation::Gelu);
        self.fc2.forward_add(x, hidden)
    }
}

/// Query, key and value projections as one product. Whisper's key projection has no bias.
pub(super) fn fused_qkv(
    take: &impl Fn(&str) -> Result<Vec<f32>>,
    attention: &str,
    n_state: usize,
    device: &Device,
) -> Result<Linear> {
    let (mut weight, mut bias) = (Vec::new(), Vec::new());
    for projection in ["q_proj", "k_proj", "v_proj"] {
        weight.extend(take(&format!("{attention}.{projection}.weight"))?);
        bias.extend(if projection == "k_proj" {
            vec![0.0; n_state]
        } else {
            take(&format!("{attention}.{projection}.bias"))?
        });
    }
    Ok(Linear::new(&weight, Some(bias), 3 * n_state, device))
}
