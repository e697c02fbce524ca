//! Audio of any length to a transcript: window after window, each moved to where the last one ended.
//!
//! Follows `openai/whisper` `transcribe.py`. Audio that fits one window is padded as a waveform (as
//! `transformers` does); longer audio is one spectrogram, cut into windows, the last padded with zeros.

use std::ops::ControlFlow;

use super::SpeechModel;
use super::timestamps::split_segments;
use super::window::{DecodeOptions, DecodeResult, decode_window};
use super::word_timing::{Word, align_words};
use crate::audio::{HOP_LENGTH, LogMelExtractor, SAMPLE_RATE_HZ, Waveform};
use crate::error::Result;
use crate::tokenizer::Tokenizer;

/// How to transcribe.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct TranscribeOptions {
    /// How each window is decoded. `timestamps` is on for audio longer than a window.
    pub decode: DecodeOptions,
    /// Whether each window is told the text before it.
    pub condition_on_previous_text: bool,
    /// Whether each word gets its times.
    pub word_timestamps: bool,
}

/// A stretch of speech.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Segment {
    /// Where its window begins, mel frames of 10 ms.
    pub seek: usize,
    /// Start, seconds.
    pub start_s: f64,
    /// End, seconds.
    pub end_s: f64,
    /// The words.
    pub text: String,
    /// Their tokens, timestamps among them.
    pub tokens: Vec<u32>,
    /// Mean log-probability of a token of the window.
    pub avg_logprob: f32,
    /// Probability that nobody spoke in the window.
    pub no_speech_prob: f32,
    /// zlib's ratio on the window's text.
    pub compression_ratio: f32,
    /// The temperature of the window's answer.
    pub temperature: f32,
    /// Each word, where asked for.
    pub words: Vec<Word>,
}

/// What was said.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Transcript {
    /// All the words.
    pub text: String,
    /// The language code decoded with; `None` for an English-only model.
    pub language: Option<String>,
    /// In order.
    pub segments: Vec<Segment>,
    /// Milliseconds in the encoder.
    pub encoder_ms: f64,
    /// Milliseconds in the decoder.
    pub decoder_ms: f64,
}

impl Transcript {
    /// Mean log-probability over the segments, weighted by their tokens; `None` without words.
    #[must_use]
    pub fn avg_logprob(&self) -> Option<f32> {
        let n: usize = self.segments.iter().map(|s| s.tokens.len()).sum();
        let sum: f32 = self.segments.iter().map(|s| s.avg_logprob * s.tokens.len() as f32).sum();
        (n > 0).then(|| sum / n as f32)
    }
}

/// Told the segments of each window once they are certain, none for a window of silence; says whether to go on.
pub type OnSegments<'a> = dyn FnMut(&[Segment]) -> ControlFlow<()> + Send + 'a;

/// The [`OnSegments`] of whoever waits for the whole.
pub fn go_on(_: &[Segment]) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

/// Transcribes a waveform.
///
/// `n_frames` is the number of mel frames of the model's full window.
///
/// # Errors
/// [`crate::Error::UnsupportedLanguage`], [`crate::Error::InvalidParameter`], and what the model says.
pub async fn transcribe<M: SpeechModel>(
    model: &M,
    tokenizer: &Tokenizer,
    extractor: &LogMelExtractor,
    n_frames: usize,
    audio: &Waveform,
    options: &TranscribeOptions,
) -> Result<Transcript> {
    transcribe_in_pieces(model, tokenizer, extractor, n_frames, audio, options, &mut go_on).await
}

/// As [`transcribe`], window by window: tokens of a window that is being decoded are not certain, since it may be decoded
/// again at a higher temperature. Where `on_segments` says so it ends, with what it has.
///
/// # Errors
/// As [`transcribe`].
pub async fn transcribe_in_pieces<M: SpeechModel>(
    model: &M,
    tokenizer: &Tokenizer,
    extractor: &LogMelExtractor,
    n_frames: usize,
    audio: &Waveform,
    options: &TranscribeOptions,
    on_segments: &mut OnSegments<'_>,
) -> Result<Transcript> {
    let samples = audio.samples();
    let mut decode = options.decode.clone();
    let mut transcript = Transcript::default();
    let n_window = n_frames * HOP_LENGTH;
    let fits = samples.len() <= n_window;
    let mel =
        extractor.extract_padded(samples, if fits { n_window } else { samples.len().next_multiple_of(HOP_LENGTH) })?;
    let total_frames = if fits { samples.len().div_ceil(HOP_LENGTH) } else { samples.len() / HOP_LENGTH };
    decode.timestamps |= !fits;
    let mut previous: Vec<u32> = decode.prompt.clone();
    let mut seek = 0;
    while seek < total_frames {
        let frames = n_frames.min(total_frames - seek);
        let started = web_time::Instant::now();
        let window = if fits && seek == 0 {
            model.encode(&mel.data).await?
        } else {
            model.encode(&cut(&mel.data, mel.n_frames, seek, frames, n_frames)).await?
        };
        transcript.encoder_ms += started.elapsed().as_secs_f64() * 1e3;
        let started = web_time::Instant::now();
        decode.prompt.clone_from(&previous);
        let result = decode_window(model, tokenizer, &window, &decode).await?;
        // The language of the first window is the language of the whole.
        if decode.language.is_none() {
            decode.language.clone_from(&result.language);
        }
        transcript.language.clone_from(&result.language);
        let offset_s = seek as f64 / frames_per_s();
        let window_s = frames as f64 / frames_per_s();
        let (segments, advance_s) = if decode.is_silent(&result) {
            (Vec::new(), window_s)
        } else {
            segments_of(tokenizer, &result, offset_s, window_s)
        };
        if options.condition_on_previous_text && result.temperature <= 0.5 {
            previous.extend(segments.iter().flat_map(|s| s.tokens.iter()));
        } else {
            previous.clear();
        }
        let heard = Heard { window: &window, result: &result, offset_s, frames };
        let before = transcript.segments.len();
        add(model, tokenizer, heard, segments, options, &mut transcript).await?;
        transcript.decoder_ms += started.elapsed().as_secs_f64() * 1e3;
        if on_segments(&transcript.segments[before..]).is_break() {
            break;
        }
        // Always forward: a timestamp of zero must not hold the loop.
        seek += ((advance_s * frames_per_s()).round() as usize).clamp(1, frames.max(1));
    }
    Ok(transcript)
}

fn frames_per_s() -> f64 {
    f64::from(SAMPLE_RATE_HZ) / HOP_LENGTH as f64 // 100
}

/// Frames `seek..seek + frames` of a `[n_mels, total]` spectrogram, padded with zeros to `[n_mels, n_frames]`.
fn cut(mel: &[f32], total: usize, seek: usize, frames: usize, n_frames: usize) -> Vec<f32> {
    let mut out = Vec::with_capacity(mel.len() / total * n_frames);
    for row in mel.chunks(total) {
        out.extend_from_slice(&row[seek..seek + frames]);
        out.resize(out.len() + n_frames - frames, 0.0);
    }
    out
}

/// A window's answer as segments of the whole, and how far to move on.
fn segments_of(tokenizer: &Tokenizer, result: &DecodeResult, offset_s: f64, window_s: f64) -> (Vec<Segment>, f64) {
    let (pieces, advance_s) = split_segments(&result.tokens, tokenizer.special().timestamp_begin, window_s);
    let segments = pieces
        .into_iter()
        .filter_map(|piece| {
            let text = tokenizer.decode(&piece.tokens).ok()?;
            (!text.trim().is_empty()).then(|| Segment {
                seek: (offset_s * frames_per_s()).round() as usize,
                start_s: offset_s + piece.start_s,
                end_s: offset_s + piece.end_s,
                text,
                tokens: piece.tokens,
                avg_logprob: result.avg_logprob,
                no_speech_prob: result.no_speech_prob,
                compression_ratio: result.compression_ratio,
                temperature: result.temperature,
                words: Vec::new(),
            })
        })
        .collect();
    (segments, advance_s)
}

/// One decoded window and where it stands in the audio.
struct Heard<'a, W> {
    window: &'a W,
    result: &'a DecodeResult,
    offset_s: f64,
    /// Mel frames that hold sound.
    frames: usize,
}

/// Puts a window's segments into the transcript, with word times where asked for.
async fn add<M: SpeechModel>(
    model: &M,
    tokenizer: &Tokenizer,
    heard: Heard<'_, M::Window>,
    mut segments: Vec<Segment>,
    options: &TranscribeOptions,
    transcript: &mut Transcript,
) -> Result<()> {
    if options.word_timestamps && !segments.is_empty() {
        time_words(model, tokenizer, &heard, &mut segments, options).await?;
    }
    for segment in segments {
        transcript.text.push_str(&segment.text);
        transcript.segments.push(segment);
    }
    transcript.text = transcript.text.trim_start().to_owned();
    Ok(())
}

/// Aligns all words of a window at once, then hands them to the segments that hold their tokens.
async fn time_words<M: SpeechModel>(
    model: &M,
    tokenizer: &Tokenizer,
    heard: &Heard<'_, M::Window>,
    segments: &mut [Segment],
    options: &TranscribeOptions,
) -> Result<()> {
    let special = tokenizer.special();
    let language = heard.result.language.as_deref().map(|code| tokenizer.language_token(code)).transpose()?.flatten();
    let mut tokens = special.sot_sequence(language, options.decode.task, false);
    let n_start = tokens.len();
    let n_words: Vec<usize> = segments
        .iter()
        .map(|segment| {
            let before = tokens.len();
            tokens.extend(segment.tokens.iter().copied().filter(|t| *t < special.eot));
            tokens.len() - before
        })
        .collect();
    let n_ctx = heard.frames.div_ceil(2);
    let words = align_words(model, tokenizer, heard.window, &tokens, n_start, n_ctx, heard.offset_s).await?;
    let mut words = words.into_iter();
    let mut owed = 0;
    for (segment, n_tokens) in segments.iter_mut().zip(n_words) {
        owed += n_tokens;
        // A word that a cut went through stays with the segment where it begins.
        while owed > 0 {
            let Some(word) = words.next() else { break };
            owed = owed.saturating_sub(word.n_tokens);
            segment.words.push(word);
        }
    }
    Ok(())
}
