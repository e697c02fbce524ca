//! A loaded wav2vec 2.0 as a recogniser sees it: samples in, words out.
//!
//! Follows `transformers` 5.23: `Wav2Vec2FeatureExtractor` (zero mean and unit variance, each clip on its own) and, for
//! clips of more than 30 s, the windows of its speech recognition pipeline (`chunk_length_s=30, stride_length_s=5`):
//! windows of 30 s every 20 s, each normalised on its own, of which the 5 s on either side only lend context. The frames
//! that are left are joined and searched once, so a word on a seam is one word.
//!
//! Deviation: a clip too short for one frame is padded with zeros, where the reference fails.

use burn::tensor::Device;
use serde::Deserialize;
use web_time::Instant;

use super::model::Wav2Vec2;
use super::vocabulary::CtcVocabulary;
use crate::audio::SAMPLE_RATE_HZ;
use crate::decoding::Word;
use crate::decoding::ctc::{beam, greedy};
use crate::error::{Error, Result};
use crate::kernels;
use crate::whisper::config::invalid;

/// The longest window, seconds.
const WINDOW_S: usize = 30;
/// Of which so many lend context on either side.
const CONTEXT_S: usize = 5;
/// The feature extractor's guard against silence.
const VARIANCE_FLOOR: f64 = 1e-7;

/// A wav2vec 2.0 on its device, with what its classes mean.
#[derive(Debug, Clone)]
pub struct Wav2Vec2OnDevice {
    /// The model.
    pub model: Wav2Vec2,
    /// What its classes stand for.
    pub vocabulary: CtcVocabulary,
    /// Where it computes.
    pub device: Device,
    /// Whether clips are normalised first.
    pub do_normalize: bool,
}

/// The words of a clip and where the time went.
#[derive(Debug, Clone, PartialEq)]
pub struct CtcTranscript {
    /// All the words.
    pub text: String,
    /// Each with its times.
    pub words: Vec<Word>,
    /// Mean log-probability a frame, see [`crate::decoding::ctc::CtcText`].
    pub avg_logprob: f32,
    /// The network, milliseconds.
    pub encoder_ms: f64,
    /// The search, milliseconds.
    pub decoder_ms: f64,
}

impl Wav2Vec2OnDevice {
    /// Puts a model and its vocabulary together.
    ///
    /// # Errors
    /// [`Error::InvalidConfig`] as [`CtcVocabulary::check_fits`].
    pub fn new(model: Wav2Vec2, vocabulary: CtcVocabulary, do_normalize: bool) -> Result<Self> {
        vocabulary.check_fits(model.config.vocab_size)?;
        let device = model.device().clone();
        Ok(Self { model, vocabulary, device, do_normalize })
    }

    /// The words of a clip of any length; `samples` are 16 kHz mono, `beam_size` 1 is greedy.
    ///
    /// # Errors
    /// [`Error::EmptyAudio`] without samples, [`Error::NotFinite`] and [`Error::Device`] from a broken device or broken
    /// weights.
    pub async fn transcribe(&self, samples: &[f32], beam_size: usize) -> Result<CtcTranscript> {
        let started = Instant::now();
        let log_probs = self.log_probs(samples).await?;
        let encoder_ms = started.elapsed().as_secs_f64() * 1e3;
        let started = Instant::now();
        let (n_vocab, frame_s) = (self.model.config.vocab_size, self.model.config.frame_s());
        let text = if beam_size <= 1 {
            greedy(&log_probs, n_vocab, &self.vocabulary, frame_s)
        } else {
            beam(&log_probs, n_vocab, &self.vocabulary, frame_s, beam_size)
        };
        let decoder_ms = started.elapsed().as_secs_f64() * 1e3;
        Ok(CtcTranscript { text: text.text, words: text.words, avg_logprob: text.avg_logprob, encoder_ms, decoder_ms })
    }

    /// The log-probabilities of a clip of any length.
    ///
    /// # Shapes
    /// - samples: 16 kHz mono, not normalised
    /// - result: `[n_frames, vocab_size]` row-major
    ///
    /// # Errors
    /// As [`Wav2Vec2OnDevice::transcribe`].
    pub async fn log_probs(&self, samples: &[f32]) -> Result<Vec<f32>> {
        if samples.is_empty() {
            return Err(Error::EmptyAudio);
        }
        let n_vocab = self.model.config.vocab_size;
        let mut joined = Vec::new();
        for window in windows(samples.len(), self.model.config.frame_samples()) {
            let mut log_probs = self.window(&samples[window.start..window.end]).await?;
            log_softmax(&mut log_probs, n_vocab)?;
            let n_frames = log_probs.len() / n_vocab;
            let to = window.to_frame.map_or(n_frames, |to| to.min(n_frames));
            joined.extend_from_slice(&log_probs[window.from_frame.min(to) * n_vocab..to * n_vocab]);
        }
        Ok(joined)
    }

    /// The logits of one window, row-major.
    async fn window(&self, samples: &[f32]) -> Result<Vec<f32>> {
        let mut samples = if self.do_normalize { normalise(samples) } else { samples.to_vec() };
        if samples.len() < self.model.config.min_samples() {
            samples.resize(self.model.config.min_samples(), 0.0);
        }
        kernels::read(self.model.forward(&samples)?, "wav2vec2").await
    }
}

/// Zero mean and unit variance, as `Wav2Vec2FeatureExtractor.zero_mean_unit_var_norm` has it.
#[must_use]
pub fn normalise(samples: &[f32]) -> Vec<f32> {
    let n = samples.len().max(1) as f64;
    let mean = samples.iter().map(|v| f64::from(*v)).sum::<f64>() / n;
    let variance = samples.iter().map(|v| (f64::from(*v) - mean).powi(2)).sum::<f64>() / n;
    let scale = (variance + VARIANCE_FLOOR).sqrt().recip();
    samples.iter().map(|v| ((f64::from(*v) - mean) * scale) as f32).collect()
}

/// Logits to log-probabilities, row by row.
fn log_softmax(logits: &mut [f32], n_vocab: usize) -> Result<()> {
    if logits.iter().any(|v| !v.is_finite()) {
        return Err(Error::NotFinite { stage: "wav2vec2" });
    }
    for row in logits.chunks_exact_mut(n_vocab) {
        let total = crate::decoding::log_sum_exp(row);
        row.iter_mut().for_each(|v| *v -= total);
    }
    Ok(())
}

/// Samples that go through the model together, and which of their frames count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Window {
    start: usize,
    end: usize,
    from_frame: usize,
    /// `None`: all the rest.
    to_frame: Option<usize>,
}

/// The windows of a clip. Lengths are whole frames, so that frames of two windows fall on the same samples.
fn windows(n_samples: usize, frame_samples: usize) -> Vec<Window> {
    let frames_of = |seconds: usize| {
        let samples = seconds * SAMPLE_RATE_HZ as usize;
        ((samples + frame_samples / 2) / frame_samples).max(1)
    };
    let (n_context, n_window) = (frames_of(CONTEXT_S), frames_of(WINDOW_S));
    let step = (n_window - 2 * n_context) * frame_samples;
    let mut windows = Vec::new();
    for start in (0..n_samples).step_by(step) {
        let end = start + n_window * frame_samples;
        let from_frame = if start == 0 { 0 } else { n_context };
        if end >= n_samples {
            windows.push(Window { start, end: n_samples, from_frame, to_frame: None });
            break;
        }
        windows.push(Window { start, end, from_frame, to_frame: Some(n_window - n_context) });
    }
    windows
}

/// What `preprocessor_config.json` says of samples: whether clips are normalised. The sentences beside it say what was
/// taken for granted because the file or the field is missing.
///
/// # Errors
/// [`Error::InvalidConfig`] if it is not JSON, or wants anything but 16 kHz mono samples.
pub fn features_from_json(preprocessor_config: Option<&[u8]>) -> Result<(bool, Vec<String>)> {
    #[derive(Deserialize)]
    struct Preprocessor {
        do_normalize: Option<bool>,
        sampling_rate: Option<f64>,
        feature_size: Option<f64>,
        feature_extractor_type: Option<String>,
    }
    const FILE: &str = "preprocessor_config.json";
    const KNOWN: &str = "Wav2Vec2FeatureExtractor";
    let Some(json) = preprocessor_config else {
        return Ok((true, vec![format!("no {FILE}: clips are 16 kHz and normalised to zero mean and unit variance")]));
    };
    let config: Preprocessor = serde_json::from_slice(json).map_err(|e| invalid(FILE, e.to_string()))?;
    if let Some(rate) = config.sampling_rate
        && rate != f64::from(SAMPLE_RATE_HZ)
    {
        return Err(invalid(FILE, format!("sampling_rate is {rate}, only {SAMPLE_RATE_HZ} is known")));
    }
    if let Some(size) = config.feature_size
        && size != 1.0
    {
        return Err(invalid(FILE, format!("feature_size is {size}, but a wav2vec2 takes samples, so 1")));
    }
    if let Some(name) = config.feature_extractor_type
        && name != KNOWN
    {
        let name: String = name.chars().take(64).collect();
        return Err(invalid(FILE, format!("feature_extractor_type '{name}' is not known, only '{KNOWN}'")));
    }
    Ok(match config.do_normalize {
        Some(do_normalize) => (do_normalize, Vec::new()),
        None => {
            (true, vec![format!("{FILE} has no do_normalize: clips are normalised to zero mean and unit variance")])
        }
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn up_to_thirty_seconds_are_one_window() {
        for n in [1, 400, 480_000] {
            assert_eq!(windows(n, 320), [Window { start: 0, end: n, from_frame: 0, to_frame: None }]);
        }
    }

    /// Every frame of a long clip comes from exactly one window, and none from a window's edge.
    #[test]
    fn windows_join_without_a_seam() {
        for (n_samples, frame_samples) in
            [(480_001, 320), (692_148, 320), (800_000, 320), (9_600_000, 160), (692_148, 441)]
        {
            let windows = windows(n_samples, frame_samples);
            let mut next = 0;
            for (i, window) in windows.iter().enumerate() {
                assert!(window.start.is_multiple_of(frame_samples) && window.end <= n_samples);
                assert_eq!(window.start / frame_samples + window.from_frame, next, "window {i} of {n_samples}");
                let n_frames = (window.end - window.start) / frame_samples;
                match window.to_frame {
                    Some(to) => {
                        assert!(n_frames - to >= 5 * 16_000 / frame_samples - 1, "context behind window {i}");
                        next = window.start / frame_samples + to;
                    }
                    None => assert_eq!((i + 1, window.end), (windows.len(), n_samples)),
                }
                assert!(i == 0 || window.from_frame >= 5 * 16_000 / frame_samples - 1, "context before window {i}");
                assert!(window.end - window.start > window.from_frame * frame_samples);
            }
        }
    }

    #[test]
    fn silence_is_normalised_to_silence() {
        assert_eq!(normalise(&[0.25; 7]), [0.0; 7]);
        assert!(normalise(&[]).is_empty());
    }

    #[test]
    fn log_probabilities_sum_to_one() {
        let mut rows = vec![100.0, 101.0, 102.0, -5.0, -5.0, -5.0];
        log_softmax(&mut rows, 3).unwrap();
        for row in rows.chunks_exact(3) {
            assert!((row.iter().map(|v| v.exp()).sum::<f32>() - 1.0).abs() < 1e-5);
        }
        assert!((rows[3] + 3.0_f32.ln()).abs() < 1e-6);
        for bad in [f32::NAN, f32::INFINITY] {
            assert_eq!(log_softmax(&mut [0.0, bad], 2).unwrap_err().code(), "not_finite");
        }
    }

    #[test]
    fn only_sixteen_kilohertz_are_taken() {
        let of = |json: &str| features_from_json(Some(json.as_bytes()));
        assert_eq!(
            of(r#"{"do_normalize": false, "sampling_rate": 16000, "feature_size": 1}"#).unwrap(),
            (false, vec![])
        );
        assert!(of(r#"{"do_normalize": true}"#).unwrap().0);
        let (do_normalize, notes) = of("{}").unwrap();
        assert!(do_normalize && notes.len() == 1);
        let (do_normalize, notes) = features_from_json(None).unwrap();
        assert!(do_normalize && notes.len() == 1);
        for (json, word) in [
            (r#"{"sampling_rate": 8000}"#, "8000"),
            (r#"{"feature_size": 80}"#, "80"),
            (r#"{"feature_extractor_type": "WhisperFeatureExtractor"}"#, "Whisper"),
            ("[", "EOF"),
        ] {
            let error = of(json).unwrap_err();
            assert_eq!(error.code(), "invalid_config");
            assert!(error.to_string().contains(word), "{error}");
        }
    }
}
