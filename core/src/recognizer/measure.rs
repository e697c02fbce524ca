//! The encoder by itself, with its times: what `okyeame bench` measures.

use burn::tensor::Tensor;
use serde::Serialize;
use web_time::Instant;

use super::words::WhisperTranscriber;
use super::{Recognizer, fitted, ms_since};
use crate::audio::{SpeechSpan, Waveform, find_speech};
use crate::error::{Error, Result};
use crate::intent::head::HeadWindow;
use crate::kernels;

/// Where the time of the command path went.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct CommandTimings {
    /// Trim and log-mel.
    pub features_ms: f64,
    /// The encoder on the window.
    pub encoder_ms: f64,
    /// Encoder positions of the window.
    pub n_audio_ctx: usize,
    /// The keys and values that every text on the window shares; 0 where no text is to follow.
    pub cross_ms: f64,
}

impl Recognizer {
    /// The command path up to where an intent head reads: speech only, fitted window, encoder.
    ///
    /// # Errors
    /// [`Error::EmptyAudio`] if nobody speaks, [`Error::UnsupportedModel`] if the model has no such encoder, and what
    /// the device says.
    pub async fn encode_command(&self, audio: &Waveform) -> Result<CommandTimings> {
        let whisper = self.whisper()?;
        let started = Instant::now();
        let speech = find_speech(audio.samples()).ok_or(Error::EmptyAudio)?;
        let (samples, n_samples) = fitted(audio.samples(), &speech, whisper.window_samples());
        let (_, timings) = timed_states(whisper, samples, n_samples, started).await?;
        Ok(timings)
    }

    /// The encoder on a whole clip, not trimmed, and no text: for measuring. On a full window also what the decoder makes of it
    /// before its first token.
    ///
    /// # Errors
    /// [`Error::UnsupportedModel`] if the model has no such encoder, and what the device says.
    pub async fn encode_window(&self, audio: &Waveform, window: HeadWindow) -> Result<CommandTimings> {
        let whisper = self.whisper()?;
        let started = Instant::now();
        let clip = SpeechSpan { start_sample: 0, end_sample: audio.samples().len() };
        let (samples, n_fitted) = fitted(audio.samples(), &clip, whisper.window_samples());
        match window {
            HeadWindow::Fitted => Ok(timed_states(whisper, samples, n_fitted, started).await?.1),
            HeadWindow::Full => {
                let (states, timings) = timed_states(whisper, samples, whisper.window_samples(), started).await?;
                let started = Instant::now();
                let _window = whisper.model.window_of(states);
                Ok(CommandTimings { cross_ms: ms_since(started), ..timings })
            }
        }
    }
}

/// Log-mel and encoder of one window, with the states, which are there when this comes back. The time of the features
/// began at `started`.
async fn timed_states(
    whisper: &WhisperTranscriber,
    samples: &[f32],
    n_samples: usize,
    started: Instant,
) -> Result<(Tensor<3>, CommandTimings)> {
    let mel = whisper.extractor.extract_padded(samples, n_samples)?;
    let features_ms = ms_since(started);
    let started = Instant::now();
    let states = whisper.model.encode_mel(&mel.data)?;
    let [_, n_audio_ctx, _] = states.dims();
    // Reading back is what waits for the device.
    let values = kernels::read(states.clone(), "encoder").await?;
    if values.iter().any(|v| !v.is_finite()) {
        return Err(Error::NotFinite { stage: "encoder" });
    }
    Ok((states, CommandTimings { features_ms, encoder_ms: ms_since(started), n_audio_ctx, cross_ms: 0.0 }))
}
