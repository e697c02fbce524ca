//! The audio encoder: log-mel frames to states, on a full or a fitted window.
//!
//! Follows `openai/whisper` `model.py` `AudioEncoder`. One deviation: a window shorter than the full one
//! takes the first positions of the table (a *fitted* window). That is sound for an intent head that
//! was trained so; an unadapted text decoder needs the full window.

use burn::tensor::{Tensor, TensorData};
use rayon::prelude::*;

use super::config::WhisperConfig;
use crate::error::{Error, Result};
use crate::kernels::{
    Activation, Conv1d, Conv1dShape, LayerNorm, Linear, Target, profile, self_attention, self_attention_of,
};
use crate::weights::Checkpoint;

/// Whisper's audio encoder.
#[derive(Debug, Clone)]
pub struct AudioEncoder {
    conv1: Conv1d,
    conv2: Conv1d,
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
    pub fn load<'a>(
        config: &WhisperConfig,
        checkpoint: &Checkpoint<'_>,
        target: impl Into<Target<'a>>,
    ) -> Result<Self> {
        let target = target.into();
        let device = target.device;
        let n_state = config.d_model;
        let take = |name: &str| checkpoint.take(&format!("model.encoder.{name}"));
        let positions = take("embed_positions.weight")?;
        let conv = |name: &str, d_input: usize, stride: usize| -> Result<Conv1d> {
            let shape = Conv1dShape { d_input, d_output: n_state, kernel_size: 3, stride, padding: 1, groups: 1 };
            Ok(Conv1d::new(&take(&format!("{name}.weight"))?, Some(take(&format!("{name}.bias"))?), shape, device))
        };
        Ok(Self {
            conv1: conv("conv1", config.num_mel_bins, 1)?,
            conv2: conv("conv2", n_state, 2)?,
            positional_embedding: Tensor::from_data(
                TensorData::new(positions, [1, config.max_source_positions, n_state]),
                device,
            ),
            blocks: (0..config.encoder_layers)
                .into_par_iter()
                .map(|i| EncoderBlock::load(config, checkpoint, i, target))
                .collect::<Result<_>>()?,
            ln_post: LayerNorm::new(take("layer_norm.weight")?, take("layer_norm.bias")?, device),
            n_mels: config.num_mel_bins,
            n_frames: config.n_frames(),
        })
    }

    /// The same encoder, weights shared, with linear layers as exact as in floating point ([`Linear::refined`]); `None` if they
    /// compute in it.
    #[must_use]
    pub fn refined(&self) -> Option<Self> {
        let blocks = self.blocks.iter().map(EncoderBlock::refined).collect::<Option<_>>()?;
        Some(Self { blocks, ..self.clone() })
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

    /// All hidden states of one window, `n_layer + 1` of them: the embedded input, then what each block gave. The last
    /// one is normalised, and the last block's own output is not among them: so transformers 5.23 answers
    /// `output_hidden_states` (`utils/output_capturing.py`, `tie_last_hidden_states`), so weighted heads are trained.
    ///
    /// # Shapes
    /// - mel: `[batch, n_mels, n_frames]`, as in [`AudioEncoder::forward`]
    /// - each result: `[batch, n_frames / 2, n_state]`
    ///
    /// # Errors
    /// As [`AudioEncoder::forward`].
    pub fn forward_all(&self, mel: Tensor<3>) -> Result<Vec<Tensor<3>>> {
        let _timer = profile::stage(profile::ENCODER);
        let mut x = self.embed(mel, None)?; // [batch, n_ctx, n_state]
        let mut states = Vec::with_capacity(self.blocks.len() + 1);
        for block in &self.blocks {
            states.push(x.clone());
            x = block.forward(x);
        }
        states.push(self.ln_post.forward(x));
        Ok(states)
    }

    /// [`AudioEncoder::forward_all`] of several windows in one pass, each of a length of its own; the answers are those of each
    /// alone. All positions of all windows are rows of the same products, which is what makes a batch worth it; the
    /// convolutions and the attention keep to a window. So nothing is padded, and no mask is needed.
    ///
    /// # Shapes
    /// - mels: `[1, n_mels, n_frames]` each, as in [`AudioEncoder::forward`]
    /// - each result: `n_layer + 1` states of `[1, n_frames / 2, n_state]`
    ///
    /// # Errors
    /// As [`AudioEncoder::forward`].
    pub fn forward_all_of(&self, mels: Vec<Tensor<3>>) -> Result<Vec<Vec<Tensor<3>>>> {
        let _timer = profile::stage(profile::ENCODER);
        let windows = mels.into_iter().map(|mel| self.embed(mel, None)).collect::<Result<Vec<_>>>()?;
        if windows.is_empty() {
            return Ok(Vec::new());
        }
        let n_ctx: Vec<usize> = windows.iter().map(|window| window.dims()[1]).collect();
        let mut states = vec![Vec::with_capacity(self.blocks.len() + 1); n_ctx.len()];
        let mut keep = |x: Tensor<3>| {
            let windows = x.split_with_sizes(n_ctx.clone(), 1);
            states.iter_mut().zip(windows).for_each(|(states, window)| states.push(window));
        };
        let mut x = Tensor::cat(windows, 1); // [1, sum of n_ctx, n_state]
        for block in &self.blocks {
            keep(x.clone());
            x = block.forward_with(x, |qkv| self_attention_of(qkv, &n_ctx, block.n_head));
        }
        keep(self.ln_post.forward(x));
        Ok(states)
    }

    /// As [`AudioEncoder::forward`], keeping what each stage gave.
    ///
    /// # Errors
    /// As [`AudioEncoder::forward`].
    pub fn forward_stages(&self, mel: Tensor<3>, mut stages: Option<&mut EncoderStages>) -> Result<Tensor<3>> {
        let _timer = profile::stage(profile::ENCODER);
        let mut x = self.embed(mel, stages.as_deref_mut())?;
        for block in &self.blocks {
            x = block.forward(x);
            if let Some(stages) = stages.as_deref_mut() {
                stages.blocks.push(x.clone());
            }
        }
        Ok(self.ln_post.forward(x))
    }

    /// Both convolutions and the positions: `[batch, n_mels, n_frames]` to `[batch, n_frames / 2, n_state]`.
    fn embed(&self, mel: Tensor<3>, mut stages: Option<&mut EncoderStages>) -> Result<Tensor<3>> {
        let [batch, n_mels, n_frames] = mel.dims();
        if n_mels != self.n_mels || n_frames == 0 || n_frames > self.n_frames || !n_frames.is_multiple_of(2) {
            return Err(Error::ShapeMismatch {
                tensor: "mel",
                expected: vec![batch, self.n_mels, self.n_frames],
                got: vec![batch, n_mels, n_frames],
            });
        }
        let x = self.conv1.forward(mel.swap_dims(1, 2), Activation::Gelu); // [batch, n_frames, n_state]
        if let Some(stages) = stages.as_deref_mut() {
            stages.convs.push(x.clone());
        }
        let x = self.conv2.forward(x, Activation::Gelu); // [batch, n_ctx, n_state]
        if let Some(stages) = stages.as_deref_mut() {
            stages.convs.push(x.clone());
        }
        let n_ctx = n_frames / 2;
        let x = x + self.positional_embedding.clone().slice([0..1, 0..n_ctx]);
        if let Some(stages) = stages {
            stages.embedded = Some(x.clone());
        }
        Ok(x)
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
    fn load(config: &WhisperConfig, checkpoint: &Checkpoint<'_>, layer: usize, target: Target<'_>) -> Result<Self> {
        let (device, n_state) = (target.device, config.d_model);
        let take = |name: &str| checkpoint.take(&format!("model.encoder.layers.{layer}.{name}"));
        Ok(Self {
            attn_ln: LayerNorm::new(take("self_attn_layer_norm.weight")?, take("self_attn_layer_norm.bias")?, device),
            qkv: fused_qkv(&take, "self_attn", n_state, target)?,
            attn_out: Linear::new(
                &take("self_attn.out_proj.weight")?,
                Some(take("self_attn.out_proj.bias")?),
                n_state,
                target,
            ),
            mlp_ln: LayerNorm::new(take("final_layer_norm.weight")?, take("final_layer_norm.bias")?, device),
            fc1: Linear::new(&take("fc1.weight")?, Some(take("fc1.bias")?), config.encoder_ffn_dim, target),
            fc2: Linear::new(&take("fc2.weight")?, Some(take("fc2.bias")?), n_state, target),
            n_head: config.encoder_attention_heads,
        })
    }

    /// [`AudioEncoder::refined`] of one block.
    fn refined(&self) -> Option<Self> {
        Some(Self {
            qkv: self.qkv.refined()?,
            attn_out: self.attn_out.refined()?,
            fc1: self.fc1.refined()?,
            fc2: self.fc2.refined()?,
            ..self.clone()
        })
    }

    /// `[batch, n_ctx, n_state]` to the same
    fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        self.forward_with(x, |qkv| self_attention(qkv, self.n_head))
    }

    /// With the attention that fits the windows in `x`.
    fn forward_with(&self, x: Tensor<3>, attention: impl FnOnce(Tensor<3>) -> Tensor<3>) -> Tensor<3> {
        let qkv = self.qkv.forward(self.attn_ln.forward(x.clone()), Activation::None);
        let x = self.attn_out.forward_add(x, attention(qkv));
        let normalised = self.mlp_ln.forward(x.clone());
        self.fc1.mlp(Activation::Gelu, &self.fc2, x, normalised)
    }
}

/// Query, key and value projections as one product. Whisper's key projection has no bias.
pub(super) fn fused_qkv(
    take: &impl Fn(&str) -> Result<Vec<f32>>,
    attention: &str,
    n_state: usize,
    target: Target<'_>,
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
    Ok(Linear::new(&weight, Some(bias), 3 * n_state, target))
}
