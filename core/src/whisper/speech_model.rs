//! A loaded Whisper as decoding sees it.

use burn::tensor::{Device, Tensor, TensorData};

use super::{DecoderCache, Whisper};
use crate::decoding::SpeechModel;
use crate::error::{Error, Result};
use crate::kernels;

/// One encoded window, with the keys and values that every text on it shares.
#[derive(Debug)]
pub struct EncodedWindow {
    /// `[1, n_audio_ctx, n_state]`
    pub states: Tensor<3>,
    cross: DecoderCache,
}

/// A Whisper on its device, and the heads whose attention follows time.
#[derive(Debug)]
pub struct WhisperOnDevice {
    /// The model.
    pub whisper: Whisper,
    /// Where it computes.
    pub device: Device,
    /// `[layer, head]` pairs for word times; empty if the checkpoint names none.
    pub alignment_heads: Vec<[usize; 2]>,
}

impl WhisperOnDevice {
    /// Encodes log-mel frames, a full or a fitted window.
    ///
    /// # Shapes
    /// - mel: `[n_mels, n_frames]` row-major
    /// - result: `[1, n_frames / 2, n_state]`
    ///
    /// # Errors
    /// [`crate::Error::ShapeMismatch`] if the window is too long or odd.
    pub fn encode_mel(&self, mel: &[f32]) -> Result<Tensor<3>> {
        let n_mels = self.whisper.config.num_mel_bins;
        if !mel.len().is_multiple_of(n_mels) {
            return Err(Error::ShapeMismatch { tensor: "mel", expected: vec![n_mels, 0], got: vec![mel.len()] });
        }
        let data = TensorData::new(mel.to_vec(), [1, n_mels, mel.len() / n_mels]);
        self.whisper.encoder.forward(Tensor::from_data(data, &self.device))
    }

    /// A window of states that the encoder gave, ready for texts.
    ///
    /// # Shapes
    /// - states: `[1, n_audio_ctx, n_state]`
    #[must_use]
    pub fn window_of(&self, states: Tensor<3>) -> EncodedWindow {
        let cross = self.whisper.decoder.start(&states, 1);
        EncodedWindow { states, cross }
    }
}

impl SpeechModel for WhisperOnDevice {
    type Window = EncodedWindow;
    type Cache = DecoderCache;

    fn n_text_ctx(&self) -> usize {
        self.whisper.decoder.n_text_ctx()
    }

    async fn encode(&self, mel: &[f32]) -> Result<EncodedWindow> {
        Ok(self.window_of(self.encode_mel(mel)?))
    }

    fn start(&self, window: &EncodedWindow, batch: usize) -> DecoderCache {
        self.whisper.decoder.restart(&window.cross, batch)
    }

    async fn logits(&self, tokens: &[Vec<u32>], cache: &mut DecoderCache, at: &[usize]) -> Result<Vec<f32>> {
        let states = self.whisper.decoder.forward(tokens, cache)?;
        let [batch, n_new, _] = states.dims();
        let wanted = if at.iter().copied().eq(0..n_new) {
            states
        } else {
            let rows = at.iter().map(|i| states.clone().slice([0..batch, *i..*i + 1])).collect();
            Tensor::cat(rows, 1) // [batch, at.len(), n_state]
        };
        let logits = self.whisper.decoder.logits(wanted); // [batch, at.len(), n_vocab]
        kernels::read(logits, "decoder").await
    }

    fn reorder(&self, cache: &mut DecoderCache, source: &[usize]) {
        cache.reorder(source);
    }

    async fn alignment(&self, window: &EncodedWindow, tokens: &[u32]) -> Result<Vec<Vec<f32>>> {
        self.whisper.decoder.cross_weights(tokens, &window.cross, &self.alignment_heads).await
    }
}
