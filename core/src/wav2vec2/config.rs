//! What a wav2vec 2.0 checkpoint's `config.json` says.
//!
//! Field names and defaults are those of `transformers` 5.23 `configuration_wav2vec2.py`; fields that only training
//! reads are left out. What the kernels here do not do is refused by name, never guessed.

use serde::Deserialize;

use crate::audio::SAMPLE_RATE_HZ;
use crate::error::{Result, printable};
use crate::kernels::conv1d::Conv1dShape;
use crate::weights::n_elements;
use crate::whisper::config::invalid;

/// `config.json` of a wav2vec 2.0 checkpoint.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default)]
pub struct Wav2Vec2Config {
    /// Only `wav2vec2` is known.
    pub model_type: String,
    /// As the checkpoint names its class.
    pub architectures: Vec<String>,
    /// Width of the transformer.
    pub hidden_size: usize,
    /// Its blocks.
    pub num_hidden_layers: usize,
    /// Its heads.
    pub num_attention_heads: usize,
    /// MLP width.
    pub intermediate_size: usize,
    /// Only `gelu` (the exact one) is known.
    pub hidden_act: String,
    /// Only 1e-5, which every released checkpoint has, is known.
    pub layer_norm_eps: f64,
    /// `group` (the first convolution's channels over time) or `layer` (each convolution's frames).
    pub feat_extract_norm: String,
    /// Only `gelu` is known.
    pub feat_extract_activation: String,
    /// Channels of each convolution.
    pub conv_dim: Vec<usize>,
    /// Stride of each convolution.
    pub conv_stride: Vec<usize>,
    /// Kernel of each convolution.
    pub conv_kernel: Vec<usize>,
    /// Whether convolutions have a bias.
    pub conv_bias: bool,
    /// Kernel of the positional convolution.
    pub num_conv_pos_embeddings: usize,
    /// Its groups.
    pub num_conv_pos_embedding_groups: usize,
    /// Whether blocks normalise before attention and MLP (`true`) or behind them.
    pub do_stable_layer_norm: bool,
    /// Tokens.
    pub vocab_size: usize,
    /// The blank token, as training had it.
    pub pad_token_id: Option<usize>,
    /// Width of the attention adapters, if there are any (MMS).
    pub adapter_attn_dim: Option<usize>,
    /// The convolutional adapter of speech translation; not known here.
    pub add_adapter: bool,
}

impl Default for Wav2Vec2Config {
    fn default() -> Self {
        Self {
            model_type: "wav2vec2".to_owned(),
            architectures: Vec::new(),
            hidden_size: 768,
            num_hidden_layers: 12,
            num_attention_heads: 12,
            intermediate_size: 3072,
            hidden_act: "gelu".to_owned(),
            layer_norm_eps: 1e-5,
            feat_extract_norm: "group".to_owned(),
            feat_extract_activation: "gelu".to_owned(),
            conv_dim: vec![512; 7],
            conv_stride: vec![5, 2, 2, 2, 2, 2, 2],
            conv_kernel: vec![10, 3, 3, 3, 3, 2, 2],
            conv_bias: false,
            num_conv_pos_embeddings: 128,
            num_conv_pos_embedding_groups: 16,
            do_stable_layer_norm: false,
            vocab_size: 32,
            pad_token_id: Some(0),
            adapter_attn_dim: None,
            add_adapter: false,
        }
    }
}

/// Larger than any wav2vec 2.0 by a wide margin; keeps a hostile config from asking for all memory.
const MAX_WIDTH: usize = 16_384;
const MAX_LAYERS: usize = 128;
const MAX_CONVS: usize = 16;
const MAX_KERNEL: usize = 1024;
/// Most tokens of a character vocabulary.
pub(crate) const MAX_VOCAB: usize = 131_072;
/// A frame is at most a second, and at most two of them are needed for one answer.
const MAX_FRAME_SAMPLES: usize = SAMPLE_RATE_HZ as usize;
/// Released checkpoints have 320.
const MIN_FRAME_SAMPLES: usize = 80;
/// What is computed at once.
const WINDOW_SAMPLES: usize = 30 * SAMPLE_RATE_HZ as usize;
/// Numbers of one activation: the first convolution of every released checkpoint gives 49 million.
const MAX_PRODUCT: u64 = 1 << 27;
/// Log-probabilities of a second: the largest vocabulary known, of 21,000 Chinese characters, gives 1.1 million.
const MAX_CLASSES_PER_S: u64 = 2_000_000;
/// What `LayerNorm` and `ChannelNorm` add to the variance.
const KERNEL_EPSILON: f64 = 1e-5;

impl Wav2Vec2Config {
    /// Reads and checks `config.json`.
    ///
    /// # Errors
    /// [`crate::Error::InvalidConfig`] if it is not JSON, holds a field of another type or asks for what is not known
    /// here.
    pub fn from_json(json: &[u8]) -> Result<Self> {
        let json = serde_json::from_slice(json).map_err(|e| bad(e.to_string()))?;
        Self::from_value(&json)
    }

    /// As [`Self::from_json`], of JSON that was parsed.
    ///
    /// # Errors
    /// [`crate::Error::InvalidConfig`] if it holds a field of another type or asks for what is not known here.
    pub fn from_value(json: &serde_json::Value) -> Result<Self> {
        let mut json = json.clone();
        // Some write a null where transformers would leave a field out. A padding token that is null is none, though:
        // one that is left out is 0.
        if let Some(fields) = json.as_object_mut() {
            fields.retain(|key, value| !value.is_null() || key == "pad_token_id");
        }
        let config = Self::deserialize(json).map_err(|e| bad(e.to_string()))?;
        config.check()?;
        Ok(config)
    }

    /// Whether the dimensions are possible, fit each other and are of a form that is known here.
    ///
    /// # Errors
    /// [`crate::Error::InvalidConfig`], naming the field.
    pub fn check(&self) -> Result<()> {
        self.check_forms()?;
        self.check_ranges()?;
        for (name, parts) in [
            ("num_attention_heads", self.num_attention_heads),
            ("num_conv_pos_embedding_groups", self.num_conv_pos_embedding_groups),
        ] {
            if !self.hidden_size.is_multiple_of(parts) {
                return refuse(format!("hidden_size {} is no multiple of {name} {parts}", self.hidden_size));
            }
        }
        if self.adapter_attn_dim.is_some() && !self.do_stable_layer_norm {
            return refuse("adapter_attn_dim needs do_stable_layer_norm: other blocks have no adapters".to_owned());
        }
        if self.frame_samples() > MAX_FRAME_SAMPLES || self.min_samples() > 2 * MAX_FRAME_SAMPLES {
            return refuse("conv_kernel and conv_stride see more than a second of sound for one frame".to_owned());
        }
        self.check_products()
    }

    /// Each dimension alone may be large, but not all together: what a window of sound needs must fit into a machine.
    fn check_products(&self) -> Result<()> {
        if self.frame_samples() < MIN_FRAME_SAMPLES {
            let reason = format!("conv_stride gives a frame every {} samples", self.frame_samples());
            return refuse(format!("{reason}, expected at least {MIN_FRAME_SAMPLES}"));
        }
        let mut n_ctx = WINDOW_SAMPLES;
        for (i, d_output) in self.conv_dim.iter().enumerate() {
            n_ctx = self.conv_shape(i).n_out(n_ctx);
            if n_elements(&[n_ctx, *d_output]) > MAX_PRODUCT {
                let reason = format!("convolution {i} gives {n_ctx} frames of {d_output} in 30 s");
                return refuse(format!("{reason}, more than {MAX_PRODUCT} numbers"));
            }
        }
        let frames_per_s = SAMPLE_RATE_HZ as usize / self.frame_samples();
        if n_elements(&[frames_per_s, self.vocab_size]) > MAX_CLASSES_PER_S {
            return refuse(format!("{frames_per_s} frames a second of {} classes are too many", self.vocab_size));
        }
        if n_elements(&[n_ctx, self.intermediate_size]) > MAX_PRODUCT {
            return refuse(format!("intermediate_size {} is too wide for its {n_ctx} frames", self.intermediate_size));
        }
        Ok(())
    }

    fn check_forms(&self) -> Result<()> {
        for (name, value, known) in [
            ("model_type", &self.model_type, &["wav2vec2"][..]),
            ("hidden_act", &self.hidden_act, &["gelu"][..]),
            ("feat_extract_activation", &self.feat_extract_activation, &["gelu"][..]),
            ("feat_extract_norm", &self.feat_extract_norm, &["group", "layer"][..]),
        ] {
            if !known.contains(&value.as_str()) {
                let (value, known) = (printable(value), known.join("' and '"));
                return refuse(format!("{name} '{value}' is not known, only '{known}'"));
            }
        }
        if (self.layer_norm_eps - KERNEL_EPSILON).abs() > 1e-12 {
            return refuse(format!("layer_norm_eps is {}, only 1e-5 is known", self.layer_norm_eps));
        }
        if self.add_adapter {
            return refuse("add_adapter is true: the convolutional adapter is not supported".to_owned());
        }
        Ok(())
    }

    fn check_ranges(&self) -> Result<()> {
        let n_convs = self.conv_dim.len();
        if self.conv_stride.len() != n_convs || self.conv_kernel.len() != n_convs {
            return refuse("conv_dim, conv_stride and conv_kernel are not of one length".to_owned());
        }
        let mut ranges = vec![
            ("hidden_size", self.hidden_size, MAX_WIDTH),
            ("num_hidden_layers", self.num_hidden_layers, MAX_LAYERS),
            ("num_attention_heads", self.num_attention_heads, MAX_WIDTH),
            ("intermediate_size", self.intermediate_size, 4 * MAX_WIDTH),
            ("the length of conv_dim", n_convs, MAX_CONVS),
            ("num_conv_pos_embeddings", self.num_conv_pos_embeddings, MAX_KERNEL),
            ("num_conv_pos_embedding_groups", self.num_conv_pos_embedding_groups, MAX_WIDTH),
            ("vocab_size", self.vocab_size, MAX_VOCAB),
            ("adapter_attn_dim", self.adapter_attn_dim.unwrap_or(1), MAX_WIDTH),
        ];
        // Only as many as are possible: a hostile file may list millions.
        for i in 0..n_convs.min(MAX_CONVS) {
            ranges.push(("conv_dim", self.conv_dim[i], MAX_WIDTH));
            ranges.push(("conv_stride", self.conv_stride[i], MAX_KERNEL));
            ranges.push(("conv_kernel", self.conv_kernel[i], MAX_KERNEL));
        }
        for (name, value, max) in ranges {
            if value == 0 || value > max {
                return refuse(format!("{name} is {value}, expected 1 to {max}"));
            }
        }
        Ok(())
    }

    /// Whether each convolution is followed by a layer norm, as in models that were trained with an attention mask.
    #[must_use]
    pub fn has_layer_norm_features(&self) -> bool {
        self.feat_extract_norm == "layer"
    }

    /// Frames that `n_samples` give; 0 if they are fewer than [`Wav2Vec2Config::min_samples`].
    #[must_use]
    pub fn n_frames(&self, n_samples: usize) -> usize {
        (0..self.conv_dim.len()).fold(n_samples, |n, i| self.conv_shape(i).n_out(n))
    }

    /// Samples from one frame to the next.
    #[must_use]
    pub fn frame_samples(&self) -> usize {
        self.conv_stride.iter().fold(1, |product, stride| product.saturating_mul(*stride))
    }

    /// Seconds from one frame to the next, 0.02 in every released checkpoint.
    #[must_use]
    pub fn frame_s(&self) -> f64 {
        self.frame_samples() as f64 / f64::from(SAMPLE_RATE_HZ)
    }

    /// The fewest samples that give a frame, 400 in every released checkpoint.
    #[must_use]
    pub fn min_samples(&self) -> usize {
        let pairs = self.conv_kernel.iter().zip(&self.conv_stride).rev();
        pairs.fold(1, |n: usize, (kernel, stride)| (n - 1).saturating_mul(*stride).saturating_add(*kernel).max(1))
    }

    /// The dimensions of convolution `layer` of the feature encoder.
    pub(crate) fn conv_shape(&self, layer: usize) -> Conv1dShape {
        Conv1dShape {
            d_input: if layer == 0 { 1 } else { self.conv_dim[layer - 1] },
            d_output: self.conv_dim[layer],
            kernel_size: self.conv_kernel[layer],
            stride: self.conv_stride[layer],
            padding: 0,
            groups: 1,
        }
    }

    /// Channels that the feature encoder gives.
    pub(crate) fn n_features(&self) -> usize {
        self.conv_dim.last().copied().unwrap_or(1)
    }
}

fn bad(reason: String) -> crate::Error {
    invalid("config.json", reason)
}

fn refuse(reason: String) -> Result<()> {
    Err(bad(reason))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn missing_fields_are_wav2vec2_bases() {
        let config = Wav2Vec2Config::from_json(br#"{"architectures": ["Wav2Vec2ForCTC"], "vocab_size": 32}"#).unwrap();
        assert_eq!(config, Wav2Vec2Config { architectures: vec!["Wav2Vec2ForCTC".to_owned()], ..Default::default() });
        assert_eq!((config.frame_samples(), config.min_samples()), (320, 400));
        assert!((config.frame_s() - 0.02).abs() < 1e-12);
        // transformers' own formula gives 49 frames for a second and 1499 for thirty.
        assert_eq!([0, 399, 400, 719, 720, 16_000, 480_000].map(|n| config.n_frames(n)), [0, 0, 1, 1, 2, 49, 1499]);
    }

    /// transformers 5.23 gives a `pad_token_id` of `None` for null, and of 0 where there is none.
    #[test]
    fn nulls_are_fields_left_out_but_for_the_padding_token() {
        let json = br#"{"architectures": null, "conv_dim": null, "pad_token_id": null}"#;
        let config = Wav2Vec2Config::from_json(json).unwrap();
        assert_eq!(config, Wav2Vec2Config { pad_token_id: None, ..Default::default() });
        assert_eq!(Wav2Vec2Config::from_json(b"{}").unwrap().pad_token_id, Some(0));
    }

    #[test]
    fn what_is_not_known_is_named() {
        for (json, field) in [
            (r#"{"model_type": "hubert"}"#, "model_type"),
            (r#"{"hidden_act": "relu"}"#, "hidden_act"),
            (r#"{"feat_extract_norm": "batch"}"#, "feat_extract_norm"),
            (r#"{"feat_extract_activation": "gelu_new"}"#, "feat_extract_activation"),
            (r#"{"layer_norm_eps": 1e-12}"#, "layer_norm_eps"),
            (r#"{"add_adapter": true}"#, "add_adapter"),
            (r#"{"adapter_attn_dim": 16}"#, "do_stable_layer_norm"),
            (r#"{"hidden_size": 99999999999}"#, "hidden_size"),
            (r#"{"num_hidden_layers": 0}"#, "num_hidden_layers"),
            (r#"{"num_attention_heads": 7}"#, "num_attention_heads"),
            (r#"{"num_conv_pos_embedding_groups": 5}"#, "num_conv_pos_embedding_groups"),
            (r#"{"vocab_size": 0}"#, "vocab_size"),
            (r#"{"conv_dim": [512]}"#, "conv_dim"),
            (r#"{"conv_dim": [], "conv_stride": [], "conv_kernel": []}"#, "conv_dim"),
            (r#"{"conv_dim": [8], "conv_stride": [0], "conv_kernel": [3]}"#, "conv_stride"),
            (r#"{"conv_dim": [8, 8, 8], "conv_stride": [1024, 1024, 1024], "conv_kernel": [2, 2, 2]}"#, "second"),
            // 480,000 frames of 8948 are 72,704 numbers if 32 bits are all there are.
            (
                r#"{"conv_dim": [8948, 8, 8, 8, 8], "conv_stride": [1, 10, 2, 2, 2], "conv_kernel": [1, 10, 2, 2, 2]}"#,
                "convolution 0",
            ),
            (r#"{"conv_dim": "wide"}"#, "invalid type"),
            ("{", "EOF"),
        ] {
            let error = Wav2Vec2Config::from_json(json.as_bytes()).unwrap_err();
            assert_eq!(error.code(), "invalid_config", "{json}");
            assert!(error.to_string().contains(field), "{json}: {error}");
        }
    }
}
