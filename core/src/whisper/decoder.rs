//! The text decoder: tokens and an encoding to the next token's logits, with caches.
//!
//! Follows `openai/whisper` `model.py` `TextDecoder`. The logits' matrix is the token embedding itself
//! (tied); it is kept once packed for the product and once as rows for the look-up ([`super::token_embedding`]).

use std::sync::Arc;

use burn::tensor::{Device, Tensor, TensorData};
use rayon::prelude::*;

use super::config::WhisperConfig;
use super::encoder::fused_qkv;
use super::token_embedding::TokenEmbedding;
use crate::decoding::top;
use crate::error::{Error, Result};
use crate::kernels::{Activation, CpuBuffer, CrossKv, LayerNorm, Linear, SelfKv, Target, profile};
use crate::weights::Checkpoint;

/// Tokens whose logits are computed again: the likeliest few, some of which the rules of a text may forbid.
const LOOKED_AT_AGAIN: usize = 16;

/// Whisper's text decoder.
#[derive(Debug, Clone)]
pub struct TextDecoder {
    token_embedding: Arc<TokenEmbedding>,
    /// `[n_text_ctx, n_state]` row-major
    positional_embedding: Arc<Vec<f32>>,
    blocks: Vec<DecoderBlock>,
    ln: LayerNorm,
    logits: Linear,
    n_text_ctx: usize,
    n_state: usize,
    n_vocab: usize,
    n_head: usize,
    /// Keys and values of an encoding in half precision: for int8 models, which 8 bits have cost more than 11 do.
    half_cross_kv: bool,
    device: Device,
}

/// What a decoder remembers of one window: the encoding's keys and values, and the tokens so far.
pub struct DecoderCache {
    layers: Vec<LayerCache>,
    len: usize,
    batch: usize,
}

struct LayerCache {
    own: SelfKv,
    cross: Arc<CrossKv>,
}

impl std::fmt::Debug for DecoderCache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DecoderCache").field("len", &self.len).field("batch", &self.batch).finish_non_exhaustive()
    }
}

impl DecoderCache {
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

    /// Makes beam `i` continue what beam `source[i]` was; the number of beams may change.
    pub fn reorder(&mut self, source: &[usize]) {
        self.batch = source.len();
        for layer in &mut self.layers {
            layer.own.reorder(source);
        }
    }
}

impl TextDecoder {
    /// Takes the decoder's tensors out of a checked checkpoint.
    ///
    /// # Errors
    /// [`Error::DamagedWeights`] if values are not finite.
    pub fn load<'a>(
        config: &WhisperConfig,
        checkpoint: &Checkpoint<'_>,
        target: impl Into<Target<'a>>,
    ) -> Result<Self> {
        let target = Target { refined: false, ..target.into() };
        let device = target.device;
        let take = |name: &str| checkpoint.take(&format!("model.decoder.{name}"));
        let embedding = take("embed_tokens.weight")?;
        let (rows, logits) = rayon::join(
            || TokenEmbedding::new(&embedding, config.d_model, target.int8),
            || Linear::new(&embedding, None, config.vocab_size, target),
        );
        drop(embedding); // a third of the model: not held while the blocks are loaded
        Ok(Self {
            token_embedding: Arc::new(rows),
            positional_embedding: Arc::new(take("embed_positions.weight")?),
            blocks: (0..config.decoder_layers)
                .into_par_iter()
                .map(|i| DecoderBlock::load(config, checkpoint, i, target))
                .collect::<Result<_>>()?,
            ln: LayerNorm::new(take("layer_norm.weight")?, take("layer_norm.bias")?, device),
            logits,
            n_text_ctx: config.max_target_positions,
            n_state: config.d_model,
            n_vocab: config.vocab_size,
            n_head: config.decoder_attention_heads,
            half_cross_kv: target.int8,
            device: device.clone(),
        })
    }

    /// Positions that a text may have.
    #[must_use]
    pub fn n_text_ctx(&self) -> usize {
        self.n_text_ctx
    }

    /// Starts a text on one window's encoding.
    ///
    /// # Shapes
    /// - encoding: `[1, n_audio_ctx, n_state]`
    #[must_use]
    pub fn start(&self, encoding: &Tensor<3>, batch: usize) -> DecoderCache {
        let _timer = profile::stage(profile::CROSS_KEYS);
        let layers = self
            .blocks
            .iter()
            .map(|block| {
                let kv = block.cross_kv.forward(encoding.clone(), Activation::None);
                LayerCache {
                    own: self.own_cache(batch),
                    cross: Arc::new(CrossKv::new(kv, self.n_head, self.half_cross_kv)),
                }
            })
            .collect();
        DecoderCache { layers, len: 0, batch }
    }

    /// Starts another text on the same encoding, without computing its keys and values again.
    #[must_use]
    pub fn restart(&self, cache: &DecoderCache, batch: usize) -> DecoderCache {
        let layers = cache
            .layers
            .iter()
            .map(|layer| LayerCache { own: self.own_cache(batch), cross: Arc::clone(&layer.cross) })
            .collect();
        DecoderCache { layers, len: 0, batch }
    }

    fn own_cache(&self, batch: usize) -> SelfKv {
        SelfKv::new(batch, self.n_text_ctx, self.n_state, self.n_head, &self.device)
    }

    /// Takes new tokens in and gives the decoder's states for them.
    ///
    /// # Shapes
    /// - tokens: `[batch][n_new]`, every beam as many
    /// - result: `[batch, n_new, n_state]`, normalised, ready for [`TextDecoder::logits`]
    ///
    /// # Errors
    /// [`Error::ShapeMismatch`] if beams differ in length, a token does not exist or the text is full.
    pub fn forward(&self, tokens: &[Vec<u32>], cache: &mut DecoderCache) -> Result<Tensor<3>> {
        self.forward_stages(tokens, cache, None)
    }

    /// As [`TextDecoder::forward`], keeping the embedding and what each block gave.
    ///
    /// # Errors
    /// As [`TextDecoder::forward`].
    pub fn forward_stages(
        &self,
        tokens: &[Vec<u32>],
        cache: &mut DecoderCache,
        mut stages: Option<&mut Vec<Tensor<3>>>,
    ) -> Result<Tensor<3>> {
        let _timer = profile::stage(profile::DECODER);
        let mut x = self.embed(tokens, cache)?;
        if let Some(stages) = stages.as_deref_mut() {
            stages.push(x.clone());
        }
        for (block, layer) in self.blocks.iter().zip(&mut cache.layers) {
            x = block.forward(x, layer);
            if let Some(stages) = stages.as_deref_mut() {
                stages.push(x.clone());
            }
        }
        cache.len += tokens[0].len();
        Ok(self.ln.forward(x))
    }

    /// The attention of one layer's cross heads over a whole text, for word times: for each wanted head
    /// `[n_tokens, n_audio_ctx]` row-major, rows summing to 1.
    ///
    /// # Errors
    /// As [`TextDecoder::forward`], and [`Error::Device`] if the device cannot be read.
    pub async fn cross_weights(
        &self,
        tokens: &[u32],
        cache: &DecoderCache,
        heads: &[[usize; 2]],
    ) -> Result<Vec<Vec<f32>>> {
        let mut cache = self.restart(cache, 1);
        let mut x = self.embed(&[tokens.to_vec()], &cache)?;
        let mut weights = vec![Vec::new(); heads.len()];
        for (i, (block, layer)) in self.blocks.iter().zip(&mut cache.layers).enumerate() {
            let query = block.cross_query(x.clone(), layer);
            for (head, out) in heads.iter().zip(&mut weights).filter(|(head, _)| head[0] == i) {
                if head[1] < self.n_head {
                    *out = layer.cross.weights(&query.1, head[1]).await?;
                }
            }
            x = block.after_query(query, layer);
        }
        weights.retain(|w| !w.is_empty());
        Ok(weights)
    }

    /// Logits of every token for each state.
    ///
    /// # Shapes
    /// - states: `[batch, n_new, n_state]`
    /// - result: `[batch, n_new, n_vocab]`
    #[must_use]
    pub fn logits(&self, states: Tensor<3>) -> Tensor<3> {
        let _timer = profile::stage(profile::VOCABULARY);
        if !self.logits.is_int8() {
            return self.logits.forward(states, Activation::None);
        }
        let mut logits = CpuBuffer::new(self.logits.forward(states.clone(), Activation::None));
        let states = CpuBuffer::new(states);
        let rows = logits.values_mut().chunks_exact_mut(self.n_vocab).zip(states.values().chunks_exact(self.n_state));
        rows.for_each(|(logits, state)| self.look_again(logits, state));
        logits.into_tensor()
    }

    /// The likeliest tokens' logits of a state in floating point, and of rows with more digits: the error of 8-bit integers would decide
    /// where two are close.
    fn look_again(&self, logits: &mut [f32], state: &[f32]) {
        for token in top(logits, LOOKED_AT_AGAIN) {
            let embedding = self.token_embedding.row(token);
            logits[token] = embedding.iter().zip(state).map(|(e, s)| e * s).sum();
        }
    }

    /// Token and position embeddings, `[batch, n_new, n_state]`.
    fn embed(&self, tokens: &[Vec<u32>], cache: &DecoderCache) -> Result<Tensor<3>> {
        let n_new = tokens.first().map_or(0, Vec::len);
        let past = cache.len;
        let bad = tokens.iter().any(|row| row.len() != n_new || row.iter().any(|t| *t as usize >= self.n_vocab));
        if bad || n_new == 0 || tokens.len() != cache.batch || past + n_new > self.n_text_ctx {
            return Err(Error::ShapeMismatch {
                tensor: "tokens",
                expected: vec![cache.batch, self.n_text_ctx],
                got: vec![tokens.len(), past + n_new],
            });
        }
        let mut values = Vec::with_capacity(tokens.len() * n_new * self.n_state);
        for row in tokens {
            for (i, token) in row.iter().enumerate() {
                let start = (past + i) * self.n_state;
                let position = &self.positional_embedding[start..start + self.n_state];
                let embedding = self.token_embedding.row(*token as usize);
                values.extend(embedding.iter().zip(position).map(|(e, p)| e + p));
            }
        }
        Ok(Tensor::from_data(TensorData::new(values, [tokens.len(), n_new, self.n_state]), &self.device))
    }
}

/// Self-attention, cross-attention and MLP, each on a normalised copy of the residual stream.
#[derive(Debug, Clone)]
struct DecoderBlock {
    attn_ln: LayerNorm,
    qkv: Linear,
    attn_out: Linear,
    cross_ln: LayerNorm,
    cross_q: Linear,
    cross_kv: Linear,
    cross_out: Linear,
    mlp_ln: LayerNorm,
    fc1: Linear,
    fc2: Linear,
}

impl DecoderBlock {
    fn load(config: &WhisperConfig, checkpoint: &Checkpoint<'_>, layer: usize, target: Target<'_>) -> Result<Self> {
        let n_state = config.d_model;
        let take = |name: &str| checkpoint.take(&format!("model.decoder.layers.{layer}.{name}"));
        let norm = |name: &str| -> Result<LayerNorm> {
            Ok(LayerNorm::new(take(&format!("{name}.weight"))?, take(&format!("{name}.bias"))?, target.device))
        };
        let linear = |name: &str, d_output: usize| -> Result<Linear> {
            Ok(Linear::new(&take(&format!("{name}.weight"))?, Some(take(&format!("{name}.bias"))?), d_output, target))
        };
        // Keys and values of the encoding as one product; the key projection has no bias.
        let mut kv = take("encoder_attn.k_proj.weight")?;
        kv.extend(take("encoder_attn.v_proj.weight")?);
        let mut kv_bias = vec![0.0; n_state];
        kv_bias.extend(take("encoder_attn.v_proj.bias")?);
        Ok(Self {
            attn_ln: norm("self_attn_layer_norm")?,
            qkv: fused_qkv(&take, "self_attn", n_state, target)?,
            attn_out: linear("self_attn.out_proj", n_state)?,
            cross_ln: norm("encoder_attn_layer_norm")?,
            cross_q: linear("encoder_attn.q_proj", n_state)?,
            cross_kv: Linear::new(&kv, Some(kv_bias), 2 * n_state, target),
            cross_out: linear("encoder_attn.out_proj", n_state)?,
            mlp_ln: norm("final_layer_norm")?,
            fc1: linear("fc1", config.decoder_ffn_dim)?,
            fc2: linear("fc2", n_state)?,
        })
    }

    /// `[batch, n_new, n_state]` to the same
    fn forward(&self, x: Tensor<3>, cache: &mut LayerCache) -> Tensor<3> {
        let query = self.cross_query(x, cache);
        self.after_query(query, cache)
    }

    /// Up to the cross-attention: the residual stream and the queries onto the encoding.
    fn cross_query(&self, x: Tensor<3>, cache: &mut LayerCache) -> (Tensor<3>, Tensor<3>) {
        let qkv = self.qkv.forward(self.attn_ln.forward(x.clone()), Activation::None);
        let x = self.attn_out.forward_add(x, cache.own.attend(qkv));
        let query = self.cross_q.forward(self.cross_ln.forward(x.clone()), Activation::None);
        (x, query)
    }

    /// From the cross-attention on.
    fn after_query(&self, (x, query): (Tensor<3>, Tensor<3>), cache: &LayerCache) -> Tensor<3> {
        let x = self.cross_out.forward_add(x, cache.cross.attend(query));
        let normalised = self.mlp_ln.forward(x.clone());
        self.fc1.mlp(Activation::Gelu, &self.fc2, x, normalised)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::weights::folder::ModelFolder;
    use crate::whisper::Whisper;

    /// Models in f32 are the reference: what they keep of the sound is not rounded.
    #[test]
    fn keys_are_in_half_precision_where_weights_are_in_8_bits() {
        let device = Device::flex();
        let zeros = |shape: [usize; 3]| {
            Tensor::<3>::from_data(TensorData::new(vec![0.0f32; shape.iter().product()], shape), &device)
        };
        let machine_has_it = CrossKv::new(zeros([1, 3, 16]), 2, true).is_half();
        for int8 in [false, true] {
            let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden/tiny-multilingual");
            let files = ModelFolder::open(&path).unwrap().into_whisper().unwrap();
            let target = Target { int8, ..Target::from(&device) };
            let decoder = Whisper::load(files.config, &*files.weights, target).unwrap().decoder;
            let cache = decoder.start(&zeros([1, 5, decoder.n_state]), 1);
            assert!(!cache.layers.is_empty());
            for layer in &cache.layers {
                assert_eq!(layer.cross.is_half(), int8 && machine_has_it);
            }
        }
    }
}
