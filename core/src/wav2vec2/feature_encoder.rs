//! Samples to features: a stack of convolutions that leaves one frame of 320 samples.
//!
//! Follows `transformers` 5.23 `Wav2Vec2FeatureEncoder` in both of its forms: `group` normalises the first convolution's
//! channels over time, `layer` normalises the frames of every convolution. Channels last throughout, so nothing is
//! transposed between a convolution and its norm.

use burn::tensor::{Device, Tensor};

use super::config::Wav2Vec2Config;
use crate::error::Result;
use crate::kernels::channel_norm::ChannelNorm;
use crate::kernels::conv1d::Conv1d;
use crate::kernels::{Activation, LayerNorm};
use crate::weights::Checkpoint;

/// Where the feature encoder's tensors are.
pub(super) const PREFIX: &str = "wav2vec2.feature_extractor.conv_layers";

/// The convolutions and their norms.
#[derive(Debug, Clone)]
pub struct FeatureEncoder {
    layers: Vec<Layer>,
}

#[derive(Debug, Clone)]
struct Layer {
    conv: Conv1d,
    norm: Norm,
}

#[derive(Debug, Clone)]
enum Norm {
    None,
    /// Each channel over time.
    Channels(ChannelNorm),
    /// Each frame over its channels.
    Frames(LayerNorm),
}

impl FeatureEncoder {
    /// Takes the feature encoder's tensors out of a checked checkpoint.
    ///
    /// # Errors
    /// [`crate::Error::DamagedWeights`] if values are not finite.
    pub fn load(config: &Wav2Vec2Config, checkpoint: &Checkpoint<'_>, device: &Device) -> Result<Self> {
        let load = |layer: usize| -> Result<Layer> {
            let take = |name: &str| checkpoint.take(&format!("{PREFIX}.{layer}.{name}"));
            let bias = if config.conv_bias { Some(take("conv.bias")?) } else { None };
            let norm = if config.has_layer_norm_features() {
                Norm::Frames(LayerNorm::new(take("layer_norm.weight")?, take("layer_norm.bias")?, device))
            } else if layer == 0 {
                Norm::Channels(ChannelNorm::new(take("layer_norm.weight")?, take("layer_norm.bias")?, device))
            } else {
                Norm::None
            };
            Ok(Layer { conv: Conv1d::new(&take("conv.weight")?, bias, config.conv_shape(layer), device), norm })
        };
        Ok(Self { layers: (0..config.conv_dim.len()).map(load).collect::<Result<_>>()? })
    }

    /// Encodes samples.
    ///
    /// # Shapes
    /// - samples: `[batch, n_samples, 1]`, at least [`Wav2Vec2Config::min_samples`]
    /// - result: `[batch, n_frames, n_features]`
    #[must_use]
    pub fn forward(&self, samples: Tensor<3>) -> Tensor<3> {
        self.layers.iter().fold(samples, |x, Layer { conv, norm }| match norm {
            Norm::None => conv.forward(x, Activation::Gelu),
            Norm::Channels(norm) => Activation::Gelu.forward(norm.forward(conv.forward(x, Activation::None))),
            Norm::Frames(norm) => Activation::Gelu.forward(norm.forward(conv.forward(x, Activation::None))),
        })
    }
}

/// The feature encoder's tensors, under Hugging Face's names.
pub(super) fn expected_tensors(config: &Wav2Vec2Config, tensors: &mut Vec<(String, Vec<usize>)>) {
    for layer in 0..config.conv_dim.len() {
        let shape = config.conv_shape(layer);
        let mut add = |name: &str, shape: Vec<usize>| tensors.push((format!("{PREFIX}.{layer}.{name}"), shape));
        add("conv.weight", vec![shape.d_output, shape.d_input, shape.kernel_size]);
        if config.conv_bias {
            add("conv.bias", vec![shape.d_output]);
        }
        if layer == 0 || config.has_layer_norm_features() {
            add("layer_norm.weight", vec![shape.d_output]);
            add("layer_norm.bias", vec![shape.d_output]);
        }
    }
}
