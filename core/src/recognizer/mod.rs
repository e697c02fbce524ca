//! The one way through: a waveform in, a [`Recognition`] out.
//!
//! ```text
//!                              ┌─ AudioEncoder ─ IntentHead ─ predictions ────────────────────┐
//! Waveform ─ find speech ──────┤                                                              ├─ Recognition
//!                              └─ Transcriber (Whisper or wav2vec 2.0) ─ words ─ PhraseBook ──┘
//! ```
//! Silence is answered before any model runs. A model with an intent head answers from the sound, and makes words only
//! if they are asked for; a model without one makes the words first, from the whole clip on a full window, as an
//! unadapted decoder needs it, and matches the intent from them.
//!
//! Read in this order: this file, [`load`] (a folder becomes a recogniser), [`audio_head`] (the intent from the sound,
//! and from both), [`words`] (who writes them), [`answer`]; [`command_encoder`] is for training, `measure` for the
//! bench.
//!
//! Everything that waits for a device is `async`; a native caller blocks at its own edge.

mod answer;
mod audio_head;
mod command_encoder;
mod load;
mod measure;
mod words;

use std::path::Path;

use burn::tensor::{Tensor, TensorData};
use rayon::prelude::*;
use serde::Serialize;
use web_time::Instant;

pub use audio_head::AudioHead;
pub use command_encoder::CommandEncoder;
pub use load::LoadOptions;
pub use measure::CommandTimings;

use crate::audio::{HOP_LENGTH, SAMPLE_RATE_HZ, SpeechSpan, Waveform, find_speech};
use crate::decoding::{OnSegments, TranscribeOptions, Transcript, go_on};
use crate::device::Compute;
use crate::error::{Error, Result};
use crate::intent::calibration::softmax;
use crate::intent::catalogue::Catalogue;
use crate::intent::head::HeadWindow;
use crate::intent::text_match::{Heard, PhraseBook};
use crate::intent::{IntentInfo, built_in, slots};
use crate::language::{DEFAULT_LANGUAGE, SpeechLanguage};
use crate::model_info::ModelInfo;
use crate::recognition::{IntentSource, Recognition, Rejection, TimingsMs};
use crate::weights::folder::ModelFolder;
use crate::whisper::{AudioEncoder, EncodedWindow};
pub(crate) use answer::Verdict;
use words::{Transcriber, WhisperTranscriber, Words};

/// Most candidates that a client may ask for.
pub const MAX_TOP_K: usize = 100;
/// Most texts that a client may have searched side by side.
pub const MAX_BEAM_SIZE: usize = 16;

/// Added behind the speech in a fitted window.
const FITTED_TAIL_SAMPLES: usize = SAMPLE_RATE_HZ as usize / 10; // 1600 samples, 0.1 s
/// Encoder positions are two mel frames apart.
const FITTED_STEP_SAMPLES: usize = 2 * HOP_LENGTH; // 320 samples

/// Longest text of [`Recognizer::recognize_text`], characters: a command is ten words.
pub const MAX_TEXT_CHARS: usize = 300;

/// What a client asks for.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize)]
pub struct RecognizeOptions {
    /// Candidates in the answer, `1..=100`.
    pub top_k: usize,
    /// `tw` (also when absent), any Whisper code, or `auto`.
    pub language: Option<String>,
    /// Whether the words belong in the answer.
    pub transcribe: bool,
    /// Texts searched side by side, `1..=16`; 1 is greedy.
    pub beam_size: usize,
    /// The shop's own names for the values of slots; serialised as its digest.
    #[serde(serialize_with = "crate::intent::catalogue::serialize_shared")]
    pub catalogue: Option<std::sync::Arc<Catalogue>>,
}

impl Default for RecognizeOptions {
    fn default() -> Self {
        Self { top_k: 5, language: None, transcribe: true, beam_size: 1, catalogue: None }
    }
}

/// Checks options without a model at hand, so that a bad request is refused before it waits for one.
#[derive(Debug, Clone)]
pub struct OptionsCheck {
    languages: Vec<String>,
    /// Whether the model listens to the language at all: a CTC model has only its own.
    any_language: bool,
}

impl OptionsCheck {
    /// Whether the options are in range.
    ///
    /// # Errors
    /// [`Error::InvalidParameter`], [`Error::UnsupportedLanguage`].
    pub fn check(&self, options: &RecognizeOptions) -> Result<()> {
        for (name, value, max) in [("top_k", options.top_k, MAX_TOP_K), ("beam_size", options.beam_size, MAX_BEAM_SIZE)]
        {
            if value == 0 || value > max {
                return Err(Error::InvalidParameter { name, allowed: format!("1 to {max}") });
            }
        }
        self.language(options.language.as_deref()).map(|_| ())
    }

    fn language(&self, code: Option<&str>) -> Result<SpeechLanguage> {
        let parsed = SpeechLanguage::parse(code, &self.languages);
        // What cannot change the answer need not be refused, if it is a language at all.
        let own = code
            .map(|c| c.trim().to_ascii_lowercase())
            .filter(|c| self.any_language && (2..=3).contains(&c.len()) && c.bytes().all(|b| b.is_ascii_lowercase()));
        parsed.or_else(|error| own.map(SpeechLanguage::Known).ok_or(error))
    }
}

/// A clip in which somebody speaks, on its way to an answer.
struct Clip<'a> {
    audio: &'a Waveform,
    options: &'a RecognizeOptions,
    language: SpeechLanguage,
    timings: TimingsMs,
    /// What the intent head's encoder is given, until it has it; `None` without a head.
    mel: Option<Tensor<3>>,
}

enum Begun<'a> {
    /// No model need run.
    Answered(Box<Recognition>),
    Speech(Box<Clip<'a>>),
}

/// A model with everything around it.
pub struct Recognizer {
    compute: Compute,
    transcriber: Option<Transcriber>,
    head: Option<AudioHead>,
    /// The head's encoder with all digits, for answers that would not bear the error of the first look (8-bit integers).
    second_look: Option<AudioEncoder>,
    phrases: &'static PhraseBook,
    intents: Vec<IntentInfo>,
    info: ModelInfo,
}

impl std::fmt::Debug for Recognizer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Recognizer").field("info", &self.info).finish_non_exhaustive()
    }
}

impl Recognizer {
    /// Loads a model folder, complete in itself, onto the CPU.
    ///
    /// # Errors
    /// As [`Self::from_folder`], and what [`ModelFolder::open`] says.
    pub fn load(folder: &Path) -> Result<Self> {
        Self::from_folder(ModelFolder::open(folder)?, LoadOptions::default())
    }

    /// What the model is.
    #[must_use]
    pub fn info(&self) -> &ModelInfo {
        &self.info
    }

    /// The intents in class order.
    #[must_use]
    pub fn intents(&self) -> &[IntentInfo] {
        &self.intents
    }

    /// Where it computes.
    #[must_use]
    pub fn compute(&self) -> &Compute {
        &self.compute
    }

    /// A check of options that can travel to another thread.
    #[must_use]
    pub fn options_check(&self) -> OptionsCheck {
        OptionsCheck {
            languages: self.info.languages.clone(),
            any_language: matches!(self.transcriber, Some(Transcriber::Wav2Vec2 { .. })),
        }
    }

    /// Recognises one clip.
    ///
    /// `filename`, `request_id`, `timings_ms.decode_audio` and `.queue`, `processing_time_ms` and the
    /// receipt's `reason` and `bytes_sent` are the caller's to fill in.
    ///
    /// # Errors
    /// Bad options, and what the model or its device says. Silence and speech that is no command are
    /// answers, not errors.
    pub async fn recognize(&self, audio: &Waveform, options: &RecognizeOptions) -> Result<Recognition> {
        match self.begin(audio, options)? {
            Begun::Answered(answer) => Ok(*answer),
            Begun::Speech(mut clip) => {
                let states = match self.mel_of(&mut clip) {
                    Some(mel) => {
                        let started = Instant::now();
                        let states = self.encode_for_head(vec![mel])?.pop();
                        clip.timings.encoder += ms_since(started);
                        states
                    }
                    None => None,
                };
                self.finish(*clip, states).await
            }
        }
    }

    /// Recognises several clips, as [`Recognizer::recognize`] each of them. On a CPU each core takes a clip of its own; on other
    /// devices those that the intent head hears share one pass through its encoder, whose time each of them is told. A clip that
    /// fails, fails alone. A clip's times have in them what its thread did of others while it waited for a part of it.
    pub async fn recognize_all(&self, clips: &[(&Waveform, &RecognizeOptions)]) -> Vec<Result<Recognition>> {
        if self.compute.name == "cpu" {
            // Nothing waits on a CPU. The executor may be entered again: a thread that waits for a part of its clip may take up the next.
            let one = |(audio, options): &(&Waveform, &RecognizeOptions)| {
                futures_lite::future::block_on(self.recognize(audio, options))
            };
            return clips.par_iter().map(one).collect();
        }
        let mut begun: Vec<_> = clips.par_iter().map(|(audio, options)| self.begin(audio, options)).collect();
        let mels: Vec<_> = begun
            .iter_mut()
            .filter_map(|clip| match clip {
                Ok(Begun::Speech(clip)) => self.mel_of(clip),
                _ => None,
            })
            .collect();
        let started = Instant::now();
        let mut answers = Vec::with_capacity(clips.len());
        let Ok(states) = self.encode_for_head(mels) else {
            // Whose fault it was shows one by one.
            for (audio, options) in clips {
                answers.push(self.recognize(audio, options).await);
            }
            return answers;
        };
        let encoder_ms = ms_since(started);
        let mut states = states.into_iter();
        for clip in begun {
            answers.push(match clip {
                Ok(Begun::Answered(answer)) => Ok(*answer),
                Ok(Begun::Speech(mut clip)) => {
                    let states = self.head.as_ref().and_then(|_| states.next());
                    clip.timings.encoder += if states.is_some() { encoder_ms } else { 0.0 };
                    self.finish(*clip, states).await
                }
                Err(error) => Err(error),
            });
        }
        answers
    }

    /// A clip up to the encoder: options, speech, and what the intent head's encoder is given.
    fn begin<'a>(&self, audio: &'a Waveform, options: &'a RecognizeOptions) -> Result<Begun<'a>> {
        let check = self.options_check();
        check.check(options)?;
        let language = check.language(options.language.as_deref())?;
        let started = Instant::now();
        let speech = find_speech(audio.samples());
        let mut timings = TimingsMs { features: ms_since(started), ..TimingsMs::default() };
        let Some(speech) = speech else {
            // No model runs.
            let words = Words { no_speech: true, ..Words::new(&language) };
            let answer = self.answer(words, Verdict::no_speech(self.source()), options, timings);
            return Ok(Begun::Answered(Box::new(answer)));
        };
        let mel = match &self.head {
            Some(head) => Some(self.mel_for(head, audio, &speech, &mut timings)?),
            None => None,
        };
        Ok(Begun::Speech(Box::new(Clip { audio, options, language, timings, mel })))
    }

    /// A clip from the encoder on: the intent from the sound, the words, and both.
    async fn finish(&self, clip: Clip<'_>, states: Option<Vec<Tensor<3>>>) -> Result<Recognition> {
        let Clip { audio, options, language, mut timings, mel } = clip;
        let (by_sound, window) = match (&self.head, states) {
            (Some(head), Some(states)) => {
                let window = self.window_for_words(head, audio, &states).filter(|_| options.transcribe);
                let started = Instant::now();
                let mut verdict = head.judge(states).await?;
                timings.intent += ms_since(started);
                if let (Some(encoder), Some(mel)) = (self.second_look.as_ref().filter(|_| head.is_close(&verdict)), mel)
                {
                    let started = Instant::now();
                    let states = head.states(encoder, mel)?;
                    timings.encoder += ms_since(started);
                    verdict = head.judge(states).await?;
                }
                (Some(verdict), window)
            }
            _ => (None, None),
        };
        let words = match &self.transcriber {
            Some(transcriber) if options.transcribe || by_sound.is_none() => {
                transcriber.words(audio, window, &language, options, &mut timings).await?
            }
            _ => Words::new(&language),
        };
        let started = Instant::now();
        let heard: Vec<Heard<'_>> = words.text.iter().map(|(language, text)| Heard { language, text }).collect();
        let verdict = match by_sound {
            // Who wrote the words heard nobody: what the head made of that is not to be acted on.
            Some(verdict) if words.no_speech => Verdict { rejection: Some(Rejection::NoSpeech), ..verdict },
            Some(verdict) if !heard.is_empty() => self.with_words(verdict, &heard, options.catalogue.as_deref()),
            Some(verdict) => verdict,
            None if words.says_nothing() => Verdict::no_speech(IntentSource::Transcript),
            None => self.phrases.rank_with(&heard, options.catalogue.as_deref()).into(),
        };
        timings.intent += ms_since(started);
        Ok(self.answer(words, verdict, options, timings))
    }

    /// What somebody wrote instead of saying it: the intent is matched from the words, for those who cannot or will not
    /// speak. Fills the same fields as [`Self::recognize`].
    ///
    /// # Errors
    /// Bad options, and [`Error::InvalidParameter`] for a text that is blank or longer than [`MAX_TEXT_CHARS`].
    pub fn recognize_text(&self, text: &str, options: &RecognizeOptions) -> Result<Recognition> {
        let check = self.options_check();
        check.check(options)?;
        let text = text.trim();
        if text.is_empty() || text.chars().count() > MAX_TEXT_CHARS {
            let allowed = format!("1 to {MAX_TEXT_CHARS} characters");
            return Err(Error::InvalidParameter { name: "text", allowed });
        }
        let started = Instant::now();
        // No decoder wrote them: they are the customer's own.
        let words = Words::new(&check.language(options.language.as_deref())?);
        let ranking =
            self.phrases.rank_with(&[Heard { language: DEFAULT_LANGUAGE, text }], options.catalogue.as_deref());
        let timings = TimingsMs { intent: ms_since(started), ..TimingsMs::default() };
        let answer = self.answer(words, self.in_own_labels(ranking.into()), options, timings);
        Ok(Recognition { transcription: Some(text.to_owned()), ..answer })
    }

    /// A verdict over the built-in intents as one over this model's labels.
    fn in_own_labels(&self, verdict: Verdict) -> Verdict {
        let own = |id: usize| self.intents.iter().position(|intent| intent.intent == built_in()[id].intent);
        let predictions: Vec<_> = verdict.predictions.iter().map(|(id, p)| (own(*id), *p)).collect();
        let best_is_known = predictions.first().is_some_and(|(id, _)| id.is_some());
        Verdict {
            predictions: predictions.into_iter().filter_map(|(id, p)| Some((id?, p))).collect(),
            rejection: if best_is_known { verdict.rejection } else { Some(Rejection::OutOfScope) },
            ..verdict
        }
    }

    /// The words of one clip, of any length, with segments and, if asked for, word times.
    ///
    /// # Errors
    /// [`Error::UnsupportedLanguage`], [`Error::UnsupportedModel`] for a model that cannot write, and what the model or
    /// its device says.
    pub async fn transcribe(
        &self,
        audio: &Waveform,
        language: Option<&str>,
        options: &TranscribeOptions,
    ) -> Result<Transcript> {
        self.transcribe_in_pieces(audio, language, options, &mut go_on).await
    }

    /// As [`Self::transcribe`]; `on_segments` is told each window's segments once they are certain, and ends the work where
    /// it says so.
    ///
    /// # Errors
    /// As [`Self::transcribe`].
    pub async fn transcribe_in_pieces(
        &self,
        audio: &Waveform,
        language: Option<&str>,
        options: &TranscribeOptions,
        on_segments: &mut OnSegments<'_>,
    ) -> Result<Transcript> {
        let language = self.options_check().language(language)?;
        self.transcriber()?.transcribe(audio, &language, options, on_segments).await
    }

    /// A text as the tokens of [`crate::decoding::DecodeOptions::prompt`]: what came before, or how names are spelt. None
    /// for a model that takes no prompt.
    ///
    /// # Errors
    /// What the tokenizer says.
    pub fn prompt_tokens(&self, text: &str) -> Result<Vec<u32>> {
        match &self.transcriber {
            // As the reference: a text goes on after a space.
            Some(Transcriber::Whisper(whisper)) => {
                let tokens = whisper.tokenizer.encode(&format!(" {}", text.trim()))?;
                // A text that spells a special token must not become one.
                Ok(tokens.into_iter().filter(|token| *token < whisper.tokenizer.special().eot).collect())
            }
            _ => Ok(Vec::new()),
        }
    }

    /// What the intent head says of a clip, before its calibration: a logit for each label and rejection class. `None` if
    /// nobody speaks.
    ///
    /// # Errors
    /// [`Error::UnsupportedModel`] if the model has no intent head, and what the device says.
    pub async fn intent_logits(&self, audio: &Waveform) -> Result<Option<Vec<f32>>> {
        let Some(speech) = find_speech(audio.samples()) else { return Ok(None) };
        self.logits_of(audio, &speech).await.map(Some)
    }

    /// The intent head's probabilities, with all digits, for a sound that is made of a formula: the same on every device, so that a device
    /// that computes something else is found out before it is trusted.
    ///
    /// # Errors
    /// As [`Self::intent_logits`].
    pub async fn probe(&self) -> Result<Vec<f32>> {
        let samples = probe_sound();
        let speech = SpeechSpan { start_sample: 0, end_sample: samples.len() };
        Ok(softmax(&self.logits_of(&Waveform::new(samples)?, &speech).await?))
    }

    async fn logits_of(&self, audio: &Waveform, speech: &SpeechSpan) -> Result<Vec<f32>> {
        let head = self.head.as_ref().ok_or_else(|| self.cannot("it has no intent head"))?;
        let mel = self.mel_for(head, audio, speech, &mut TimingsMs::default())?;
        let encoder = self.second_look.as_ref().map_or_else(|| self.head_encoder(head), Ok)?;
        let states = head.states(encoder, mel)?;
        head.head.classify(states).await?.into_iter().next().map(|answer| answer.logits).ok_or(Error::EmptyAudio)
    }

    fn whisper(&self) -> Result<&WhisperTranscriber> {
        match self.transcriber()? {
            Transcriber::Whisper(whisper) => Ok(whisper),
            Transcriber::Wav2Vec2 { .. } => Err(self.cannot("its encoder takes no fitted window")),
        }
    }

    fn transcriber(&self) -> Result<&Transcriber> {
        self.transcriber.as_ref().ok_or_else(|| self.cannot("it has no text decoder, so it gives intents and no words"))
    }

    fn cannot(&self, reason: &str) -> Error {
        Error::UnsupportedModel { architecture: self.info.architecture.clone(), reason: reason.to_owned() }
    }

    fn source(&self) -> IntentSource {
        if self.head.is_some() { IntentSource::AudioHead } else { IntentSource::Transcript }
    }

    /// What the intent head's encoder is given of a clip, `[1, n_mels, n_frames]`.
    fn mel_for(
        &self,
        head: &AudioHead,
        audio: &Waveform,
        speech: &SpeechSpan,
        timings: &mut TimingsMs,
    ) -> Result<Tensor<3>> {
        let started = Instant::now();
        let (samples, n_samples) = match head.head.window() {
            HeadWindow::Fitted => fitted(audio.samples(), speech, head.window_samples),
            HeadWindow::Full => (first_speech(audio, speech, head.window_samples), head.window_samples),
        };
        let mel = head.extractor.extract_padded(samples, n_samples)?;
        timings.features += ms_since(started);
        let shape = [1, mel.n_mels, mel.n_frames];
        Ok(Tensor::from_data(TensorData::new(mel.data, shape), &self.compute.device))
    }

    /// What the intent head's encoder is to be given of a clip; kept for a second look, where there is one.
    fn mel_of(&self, clip: &mut Clip<'_>) -> Option<Tensor<3>> {
        if self.second_look.is_some() { clip.mel.clone() } else { clip.mel.take() }
    }

    fn head_encoder<'a>(&'a self, head: &'a AudioHead) -> Result<&'a AudioEncoder> {
        match (&head.own_encoder, self.shared_encoder(head)) {
            (Some(encoder), _) => Ok(encoder),
            (None, Some(whisper)) => Ok(&whisper.model.whisper.encoder),
            (None, None) => Err(Error::ModelNotFound { what: "the intent head's encoder".to_owned() }),
        }
    }

    /// The encoder's states that the head reads, of each window; none without a head.
    fn encode_for_head(&self, mels: Vec<Tensor<3>>) -> Result<Vec<Vec<Tensor<3>>>> {
        let Some(head) = self.head.as_ref().filter(|_| !mels.is_empty()) else { return Ok(Vec::new()) };
        let encoder = self.head_encoder(head)?;
        if mels.len() == 1 {
            return mels.into_iter().map(|mel| head.states(encoder, mel)).collect();
        }
        let mut states = encoder.forward_all_of(mels)?;
        if !head.head.needs_all_states() {
            states.iter_mut().for_each(|states| drop(states.drain(..states.len() - 1)));
        }
        Ok(states)
    }

    /// The encoding of the clip, if the words can be made of it as well.
    fn window_for_words(&self, head: &AudioHead, audio: &Waveform, states: &[Tensor<3>]) -> Option<EncodedWindow> {
        let whole_clip = head.head.window() == HeadWindow::Full && audio.samples().len() <= head.window_samples;
        let whisper = self.shared_encoder(head).filter(|_| whole_clip)?;
        states.last().map(|states| whisper.model.window_of(states.clone()))
    }

    /// The Whisper that writes the words, if the head reads its encoder.
    fn shared_encoder(&self, head: &AudioHead) -> Option<&WhisperTranscriber> {
        match &self.transcriber {
            Some(Transcriber::Whisper(whisper)) if head.own_encoder.is_none() => Some(whisper),
            _ => None,
        }
    }

    /// What the sound told and what the words tell, as one answer, where it is known how to weigh them; the values from
    /// the words in any case.
    pub(crate) fn with_words(&self, by_sound: Verdict, heard: &[Heard<'_>], catalogue: Option<&Catalogue>) -> Verdict {
        let by_words = self.phrases.rank_with(heard, catalogue);
        let fused = self.head.as_ref().and_then(|head| head.fuse(&by_sound, &by_words));
        let mut verdict = fused.unwrap_or(by_sound);
        if let Some((best, _)) = verdict.predictions.first().filter(|_| verdict.rejection.is_none()) {
            let intent = &self.intents[*best];
            let same = by_words.predictions.first().is_some_and(|(id, _)| built_in()[*id].intent == intent.intent);
            verdict.slots = match heard.first() {
                // The phrase that was matched knows more than the words alone.
                Some(_) if same => by_words.slots,
                Some(heard) => slots::find_slots(heard.text, &intent.slots, "", &serde_json::Map::new(), catalogue),
                None => Vec::new(),
            };
        }
        verdict
    }

    /// The intent head, if the model has one.
    #[must_use]
    pub fn audio_head(&self) -> Option<&AudioHead> {
        self.head.as_ref()
    }
}

/// A clip, or of a longer one the window in which somebody begins to speak.
fn first_speech<'a>(audio: &'a Waveform, speech: &SpeechSpan, window_samples: usize) -> &'a [f32] {
    let samples = audio.samples();
    let n_samples = samples.len().min(window_samples);
    // Where all of the speech fits, the window is the clip's beginning, as the reference cuts it.
    let start = if speech.end_sample <= n_samples { 0 } else { speech.start_sample.min(samples.len() - n_samples) };
    &samples[start..start + n_samples]
}

/// The speech of a clip, and the length of its fitted window.
fn fitted<'a>(samples: &'a [f32], speech: &SpeechSpan, window_samples: usize) -> (&'a [f32], usize) {
    let samples = &samples[speech.start_sample..speech.end_sample];
    let samples = &samples[..samples.len().min(window_samples)];
    (samples, (samples.len() + FITTED_TAIL_SAMPLES).next_multiple_of(FITTED_STEP_SAMPLES).min(window_samples))
}

/// 1.6 s of a voice as simple as can be: harmonics of a pitch that glides, in four bursts.
fn probe_sound() -> Vec<f32> {
    use std::f64::consts::TAU;
    let rate = f64::from(SAMPLE_RATE_HZ);
    (0..SAMPLE_RATE_HZ as usize * 8 / 5)
        .map(|n| {
            let t = n as f64 / rate;
            // The integral of a pitch that goes from 140 to 220 Hz.
            let phase = TAU * (140.0 * t + 25.0 * t * t);
            let voice: f64 = (1..=12).map(|h| (phase * f64::from(h)).sin() / f64::from(h)).sum();
            let burst = (TAU * 2.5 * t).sin().max(0.0);
            (0.2 * burst * voice) as f32
        })
        .collect()
}

fn ms_since(started: Instant) -> f64 {
    started.elapsed().as_secs_f64() * 1e3
}
