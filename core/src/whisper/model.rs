//! Encoder and decoder together, and the list of tensors that they need.

use super::config::WhisperConfig;
use super::decoder::TextDecoder;
use super::encoder::AudioEncoder;
use crate::error::Result;
use crate::kernels::Target;
use crate::weights::{Checkpoint, WeightSource};

/// A Whisper on a device.
#[derive(Debug, Clone)]
pub struct Whisper {
    /// Dimensions.
    pub config: WhisperConfig,
    /// Sound to states.
    pub encoder: AudioEncoder,
    /// States and tokens to logits.
    pub decoder: TextDecoder,
}

impl Whisper {
    /// Loads strictly: every tensor of the architecture, and no other.
    ///
    /// # Errors
    /// [`crate::Error::WeightMismatch`] with every difference, [`crate::Error::DamagedWeights`].
    pub fn load<'a>(config: WhisperConfig, weights: &dyn WeightSource, target: impl Into<Target<'a>>) -> Result<Self> {
        let target = target.into();
        let checkpoint = Checkpoint::new(weights, &expected_tensors(&config), may_be_ignored)?;
        Ok(Self {
            encoder: AudioEncoder::load(&config, &checkpoint, target)?,
            decoder: TextDecoder::load(&config, &checkpoint, target)?,
            config,
        })
    }
}

/// The output projection is the token embedding; some files hold it a second time.
fn may_be_ignored(name: &str) -> bool {
    name == "proj_out.weight"
}

/// Every tensor of a Whisper of these dimensions, under Hugging Face's names.
#[must_use]
pub fn expected_tensors(config: &WhisperConfig) -> Vec<(String, Vec<usize>)> {
    let n = config.d_model;
    let mut tensors = encoder_tensors(config);
    tensors.push(("model.decoder.embed_tokens.weight".to_owned(), vec![config.vocab_size, n]));
    tensors.push(("model.decoder.embed_positions.weight".to_owned(), vec![config.max_target_positions, n]));
    let attentions = ["self_attn", "encoder_attn"];
    add_layers(&mut tensors, "decoder", config.decoder_layers, n, config.decoder_ffn_dim, &attentions);
    tensors
}

/// The encoder's among them.
#[must_use]
pub fn encoder_tensors(config: &WhisperConfig) -> Vec<(String, Vec<usize>)> {
    let n = config.d_model;
    let mut tensors: Vec<(String, Vec<usize>)> = [
        ("conv1.weight", vec![n, config.num_mel_bins, 3]),
        ("conv1.bias", vec![n]),
        ("conv2.weight", vec![n, n, 3]),
        ("conv2.bias", vec![n]),
        ("embed_positions.weight", vec![config.max_source_positions, n]),
    ]
    .map(|(name, shape)| (format!("model.encoder.{name}"), shape))
    .into();
    add_layers(&mut tensors, "encoder", config.encoder_layers, n, config.encoder_ffn_dim, &["self_attn"]);
    tensors
}

/// The blocks of a stack and its last norm.
fn add_layers(
    tensors: &mut Vec<(String, Vec<usize>)>,
    stack: &str,
    n_layers: usize,
    n: usize,
    n_mlp: usize,
    attentions: &[&str],
) {
    let mut add = |name: String, shape: &[usize]| tensors.push((name, shape.to_vec()));
    for layer in 0..n_layers {
        let layer = format!("model.{stack}.layers.{layer}");
        for attention in attentions {
            for projection in ["q_proj", "k_proj", "v_proj", "out_proj"] {
                add(format!("{layer}.{attention}.{projection}.weight"), &[n, n]);
                if projection != "k_proj" {
                    add(format!("{layer}.{attention}.{projection}.bias"), &[n]);
                }
            }
            add(format!("{layer}.{attention}_layer_norm.weight"), &[n]);
            add(format!("{layer}.{attention}_layer_norm.bias"), &[n]);
        }
        add(format!("{layer}.fc1.weight"), &[n_mlp, n]);
        add(format!("{layer}.fc1.bias"), &[n_mlp]);
        add(format!("{layer}.fc2.weight"), &[n, n_mlp]);
        add(format!("{layer}.fc2.bias"), &[n]);
        add(format!("{layer}.final_layer_norm.weight"), &[n]);
        add(format!("{layer}.final_layer_norm.bias"), &[n]);
    }
    add(format!("model.{stack}.layer_norm.weight"), &[n]);
    add(format!("model.{stack}.layer_norm.bias"), &[n]);
}
