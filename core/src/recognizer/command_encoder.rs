//! The encoder as the command path uses it, without a head and without words: what an intent head is trained on.
//!
//! One code for both sides: a head that was trained on other windows than it is given later would be wrong about them.

use burn::tensor::{Device, Tensor, TensorData};

#[cfg(feature = "train")]
use super::Recognizer;
use super::fitted;
use crate::audio::{HOP_LENGTH, LogMelExtractor, find_speech};
use crate::device::Compute;
use crate::error::{Error, Result};
use crate::weights::Checkpoint;
use crate::weights::folder::{Body, ModelFolder, WhisperFiles};
use crate::whisper::AudioEncoder;
use crate::whisper::model::encoder_tensors;

/// An audio encoder on fitted windows.
pub struct CommandEncoder {
    encoder: AudioEncoder,
    extractor: LogMelExtractor,
    window_samples: usize,
    device: Device,
    /// Width of the encoder.
    pub n_state: usize,
    /// Encoder layers.
    pub n_layer: usize,
}

impl std::fmt::Debug for CommandEncoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CommandEncoder").field("n_state", &self.n_state).finish_non_exhaustive()
    }
}

impl CommandEncoder {
    /// Loads the encoder of a Whisper.
    ///
    /// # Errors
    /// [`Error::UnsupportedModel`] for another model; what is wrong with the weights.
    pub fn from_folder(folder: &ModelFolder, compute: &Compute) -> Result<Self> {
        let files = whisper_files(folder)?;
        let config = &files.config;
        // The decoder is not missed here.
        let checkpoint = Checkpoint::new(&*files.weights, &encoder_tensors(config), |_| true)?;
        Ok(Self {
            encoder: AudioEncoder::load(config, &checkpoint, compute.target())?,
            extractor: LogMelExtractor::new(config.num_mel_bins),
            window_samples: config.n_frames() * HOP_LENGTH,
            device: compute.device.clone(),
            n_state: config.d_model,
            n_layer: config.encoder_layers,
        })
    }

    /// All hidden states of the speech in a clip ([`AudioEncoder::forward_all`]); `None` if nobody speaks.
    ///
    /// # Shapes
    /// - samples: 16 kHz mono
    /// - result: `n_layer + 1` states of `[1, n_ctx, n_state]`, a position each 20 ms
    ///
    /// # Errors
    /// What the device says.
    pub fn forward(&self, samples: &[f32]) -> Result<Option<Vec<Tensor<3>>>> {
        states(&self.encoder, &self.extractor, self.window_samples, samples, &self.device)
    }
}

#[cfg(feature = "train")]
impl Recognizer {
    /// As [`CommandEncoder::forward`], by the encoder that only the intent head reads; `None` if there is none, and it
    /// stands on the one that writes the words.
    pub(crate) fn own_states(&self, samples: &[f32]) -> Option<Result<Option<Vec<Tensor<3>>>>> {
        let head = self.head.as_ref()?;
        let encoder = head.own_encoder.as_ref()?;
        Some(states(encoder, &head.extractor, head.window_samples, samples, &self.compute.device))
    }
}

fn states(
    encoder: &AudioEncoder,
    extractor: &LogMelExtractor,
    window_samples: usize,
    samples: &[f32],
    device: &Device,
) -> Result<Option<Vec<Tensor<3>>>> {
    let Some(speech) = find_speech(samples) else { return Ok(None) };
    let (samples, n_samples) = fitted(samples, &speech, window_samples);
    let mel = extractor.extract_padded(samples, n_samples)?;
    let shape = [1, mel.n_mels, mel.n_frames];
    encoder.forward_all(Tensor::from_data(TensorData::new(mel.data, shape), device)).map(Some)
}

/// The Whisper in a folder, which stays open.
pub(crate) fn whisper_files(folder: &ModelFolder) -> Result<&WhisperFiles> {
    match &folder.body {
        Body::Whisper(files) => Ok(files),
        Body::Wav2Vec2(_) => Err(Error::UnsupportedModel {
            architecture: folder.architecture.clone(),
            reason: "an intent head stands on a Whisper's encoder".to_owned(),
        }),
    }
}
