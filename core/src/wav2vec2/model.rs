//! Feature encoder, transformer and head together, and the list of tensors that they need.

use burn::tensor::{Device, Tensor, TensorData};

use super::config::Wav2Vec2Config;
use super::encoder::{self, ContextEncoder, PositionalForm, Wav2Vec2Stages};
use super::feature_encoder::{self, FeatureEncoder};
use crate::error::{Error, Result};
use crate::kernels::{Activation, LayerNorm, Linear, Target, profile};
use crate::weights::{Checkpoint, WeightSource, n_elements};

/// Where the feature projection's tensors are.
const PROJECTION: &str = "wav2vec2.feature_projection";

/// A wav2vec 2.0 with a CTC head on a device.
#[derive(Debug, Clone)]
pub struct Wav2Vec2 {
    /// Dimensions; `vocab_size` is that of the head that was loaded.
    pub config: Wav2Vec2Config,
    feature_encoder: FeatureEncoder,
    projection_norm: LayerNorm,
    projection: Linear,
    encoder: ContextEncoder,
    lm_head: Linear,
    n_parameters: u64,
    device: Device,
}

impl Wav2Vec2 {
    /// Loads strictly: every tensor of the architecture, and no other but those that only training reads.
    ///
    /// With attention adapters (MMS) the head has as many rows as its language has tokens, whatever `config.json` says;
    /// an adapter file is laid over the model's by [`WeightSource`]s of its own.
    ///
    /// # Errors
    /// [`Error::InvalidConfig`], [`Error::WeightMismatch`] with every difference, [`Error::DamagedWeights`].
    pub fn load<'a>(
        mut config: Wav2Vec2Config,
        weights: &dyn WeightSource,
        target: impl Into<Target<'a>>,
    ) -> Result<Self> {
        let target = target.into();
        let device = target.device;
        config.vocab_size = n_vocab(&config, weights);
        config.check()?;
        let expected = expected_tensors(&config, weights);
        let checkpoint = Checkpoint::new(weights, &expected, may_be_ignored)?;
        let take = |name: &str| checkpoint.take(name);
        let linear = |name: &str, d_output: usize| -> Result<Linear> {
            let weight = take(&format!("{name}.weight"))?;
            Ok(Linear::new(&weight, Some(take(&format!("{name}.bias"))?), d_output, target))
        };
        Ok(Self {
            feature_encoder: FeatureEncoder::load(&config, &checkpoint, device)?,
            projection_norm: LayerNorm::new(
                take(&format!("{PROJECTION}.layer_norm.weight"))?,
                take(&format!("{PROJECTION}.layer_norm.bias"))?,
                device,
            ),
            projection: linear(&format!("{PROJECTION}.projection"), config.hidden_size)?,
            encoder: ContextEncoder::load(&config, &checkpoint, PositionalForm::of(weights), target)?,
            lm_head: linear("lm_head", config.vocab_size)?,
            n_parameters: expected.iter().map(|(_, shape)| n_elements(shape)).sum(),
            device: device.clone(),
            config,
        })
    }

    /// Number of parameters.
    #[must_use]
    pub fn n_parameters(&self) -> u64 {
        self.n_parameters
    }

    /// Where the model computes.
    #[must_use]
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// The logits of one clip.
    ///
    /// # Shapes
    /// - samples: 16 kHz mono, normalised as the checkpoint wants it, at least [`Wav2Vec2Config::min_samples`]
    /// - result: `[1, n_frames, vocab_size]`
    ///
    /// # Errors
    /// [`Error::EmptyAudio`] without samples, [`Error::ShapeMismatch`] with too few for one frame.
    pub fn forward(&self, samples: &[f32]) -> Result<Tensor<3>> {
        self.forward_stages(samples, None)
    }

    /// As [`Wav2Vec2::forward`], keeping what each stage gave.
    ///
    /// # Errors
    /// As [`Wav2Vec2::forward`].
    pub fn forward_stages(&self, samples: &[f32], mut stages: Option<&mut Wav2Vec2Stages>) -> Result<Tensor<3>> {
        if samples.is_empty() {
            return Err(Error::EmptyAudio);
        }
        if self.config.n_frames(samples.len()) == 0 {
            return Err(Error::ShapeMismatch {
                tensor: "samples",
                expected: vec![self.config.min_samples()],
                got: vec![samples.len()],
            });
        }
        let _timer = profile::stage(profile::ENCODER);
        let data = TensorData::new(samples.to_vec(), [1, samples.len(), 1]);
        let features = self.feature_encoder.forward(Tensor::from_data(data, &self.device));
        if let Some(stages) = stages.as_deref_mut() {
            stages.features = Some(features.clone());
        }
        let x = self.projection.forward(self.projection_norm.forward(features), Activation::None);
        if let Some(stages) = stages.as_deref_mut() {
            stages.projected = Some(x.clone());
        }
        let x = self.encoder.forward(x, stages.as_deref_mut()); // [1, n_frames, hidden_size]
        if let Some(stages) = stages {
            stages.last = Some(x.clone());
        }
        Ok(self.lm_head.forward(x, Activation::None))
    }
}

/// Tokens of the head: those that the weights hold where each language brings its own head, else the config's.
fn n_vocab(config: &Wav2Vec2Config, weights: &dyn WeightSource) -> usize {
    let rows = || weights.shape("lm_head.weight")?.first().copied();
    if config.adapter_attn_dim.is_some() { rows().unwrap_or(config.vocab_size) } else { config.vocab_size }
}

/// What only training reads: the mask's embedding, the quantiser and the projections of its contrastive loss.
fn may_be_ignored(name: &str) -> bool {
    name == "wav2vec2.masked_spec_embed"
        || ["quantizer.", "project_hid.", "project_q."].iter().any(|prefix| name.starts_with(prefix))
}

/// Every tensor of a model of these dimensions, under Hugging Face's names. `weights` decides between the names that the
/// positional convolution has had, and how many tokens a language's head has.
#[must_use]
pub fn expected_tensors(config: &Wav2Vec2Config, weights: &dyn WeightSource) -> Vec<(String, Vec<usize>)> {
    let (n, n_features, n_vocab) = (config.hidden_size, config.n_features(), n_vocab(config, weights));
    let mut tensors = Vec::new();
    feature_encoder::expected_tensors(config, &mut tensors);
    encoder::expected_tensors(config, PositionalForm::of(weights), &mut tensors);
    let mut add = |name: String, shape: &[usize]| tensors.push((name, shape.to_vec()));
    add(format!("{PROJECTION}.layer_norm.weight"), &[n_features]);
    add(format!("{PROJECTION}.layer_norm.bias"), &[n_features]);
    add(format!("{PROJECTION}.projection.weight"), &[n, n_features]);
    add(format!("{PROJECTION}.projection.bias"), &[n]);
    add("lm_head.weight".to_owned(), &[n_vocab, n]);
    add("lm_head.bias".to_owned(), &[n_vocab]);
    tensors
}
