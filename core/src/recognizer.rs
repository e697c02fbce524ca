//! The one way through: a waveform in, a [`Recognition`] out.
//!
//! ```text
//! Waveform ─ find speech ─ log-mel ─ AudioEncoder ─ TextDecoder ─ words ─ PhraseBook ─ Recognition
//! ```
//! The words are made from the whole clip on a full window, as an unadapted decoder needs it; silence is
//! answered before any model runs. [`Recognizer::encode_command`] is the other path, speech only on a
//! fitted window, that an intent head reads.
//!
//! Long, because it is the one place where everything meets; each step is a call into a folder of its own.
//!
//! Everything that waits for a device is `async`; a native caller blocks at its own edge.

use std::path::Path;

use burn::tensor::Device;
use serde::Serialize;
use web_time::Instant;

use crate::audio::{HOP_LENGTH, LogMelExtractor, N_SAMPLES, SAMPLE_RATE_HZ, Waveform, find_speech};
use crate::decoding::{DecodeOptions, SpeechModel, TranscribeOptions, Transcript, decode_window, transcribe};
use crate::error::{Error, Result};
use crate::intent::text_match::{Heard, IntentRanking, PhraseBook};
use crate::intent::{IntentInfo, built_in};
use crate::kernels;
use crate::language::{DEFAULT_LANGUAGE, SpeechLanguage, TWI_DECODE_LANGUAGES};
use crate::model_info::{ModelInfo, Task};
use crate::recognition::{
    IntentSource, Prediction, Recognition, Rejection, Risk, RunInfo, RunWhere, TimingsMs, WhisperInfo,
};
use crate::tokenizer::Tokenizer;
use crate::weights::folder::ModelFolder;
use crate::whisper::{GenerationConfig, Whisper, WhisperOnDevice};

/// Most candidates that a client may ask for.
pub const MAX_TOP_K: usize = 100;
/// Most texts that a client may have searched side by side.
pub const MAX_BEAM_SIZE: usize = 16;

/// A clip says at most this many tokens a second; a text that goes on is a loop.
const TOKENS_PER_S: f64 = 12.0;
/// And so many on top, for short clips.
const TOKENS_SPARE: usize = 24;
/// Added behind the speech in a fitted window.
const FITTED_TAIL_SAMPLES: usize = SAMPLE_RATE_HZ as usize / 10; // 1600 samples, 0.1 s
/// Encoder positions are two mel frames apart.
const FITTED_STEP_SAMPLES: usize = 2 * HOP_LENGTH; // 320 samples

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
}

impl Default for RecognizeOptions {
    fn default() -> Self {
        Self { top_k: 5, language: None, transcribe: true, beam_size: 1 }
    }
}

/// Checks options without a model at hand, so that a bad request is refused before it waits for one.
#[derive(Debug, Clone)]
pub struct OptionsCheck {
    languages: Vec<String>,
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
        SpeechLanguage::parse(options.language.as_deref(), &self.languages).map(|_| ())
    }
}

/// Where the time of the command path went.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct CommandTimings {
    /// Trim and log-mel.
    pub features_ms: f64,
    /// The encoder on the fitted window.
    pub encoder_ms: f64,
    /// Encoder positions of the fitted window.
    pub n_audio_ctx: usize,
}

/// A model with everything around it.
pub struct Recognizer {
    model: WhisperOnDevice,
    tokenizer: Tokenizer,
    extractor: LogMelExtractor,
    suppress: Vec<u32>,
    begin_suppress: Vec<u32>,
    max_initial_timestamp_index: Option<usize>,
    phrases: &'static PhraseBook,
    info: ModelInfo,
}

impl std::fmt::Debug for Recognizer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Recognizer").field("info", &self.info).finish_non_exhaustive()
    }
}

impl Recognizer {
    /// Loads a model folder onto the CPU.
    ///
    /// # Errors
    /// Whatever [`ModelFolder::open`] and [`Whisper::load`] say.
    pub fn load(folder: &Path) -> Result<Self> {
        Self::from_folder(ModelFolder::open(folder)?, Device::flex())
    }

    /// Puts an opened model folder onto a device.
    ///
    /// # Errors
    /// Whatever [`Whisper::load`] says, and [`Error::InvalidConfig`] for a tokenizer that does not fit.
    pub fn from_folder(folder: ModelFolder, device: Device) -> Result<Self> {
        let mut tokenizer = Tokenizer::from_json(&folder.tokenizer_json)?;
        if !folder.generation.is_multilingual.unwrap_or_else(|| folder.config.is_multilingual()) {
            tokenizer = tokenizer.english_only();
        }
        let whisper = Whisper::load(folder.config.clone(), &*folder.weights, &device)?;
        let info = describe(&folder, &whisper, &tokenizer);
        let GenerationConfig {
            suppress_tokens,
            begin_suppress_tokens,
            alignment_heads,
            max_initial_timestamp_index,
            ..
        } = folder.generation;
        Ok(Self {
            extractor: LogMelExtractor::new(whisper.config.num_mel_bins),
            suppress: token_list(suppress_tokens.as_deref(), &tokenizer)?,
            begin_suppress: token_list(begin_suppress_tokens.as_deref(), &tokenizer)?,
            // 1.0 s, as the reference has it where the checkpoint says nothing.
            max_initial_timestamp_index: max_initial_timestamp_index.or(Some(50)),
            model: WhisperOnDevice { whisper, device, alignment_heads: alignment_heads.unwrap_or_default() },
            tokenizer,
            phrases: PhraseBook::built_in(),
            info,
        })
    }

    /// What the model is.
    #[must_use]
    pub fn info(&self) -> &ModelInfo {
        &self.info
    }

    /// The intents in class order.
    #[must_use]
    pub fn intents(&self) -> &'static [IntentInfo] {
        built_in()
    }

    /// A check of options that can travel to another thread.
    #[must_use]
    pub fn options_check(&self) -> OptionsCheck {
        OptionsCheck { languages: self.info.languages.clone() }
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
        self.options_check().check(options)?;
        let language = SpeechLanguage::parse(options.language.as_deref(), &self.info.languages)?;
        let started = Instant::now();
        let speech = find_speech(audio.samples());
        let mut timings = TimingsMs { features: ms_since(started), ..TimingsMs::default() };
        if speech.is_none() {
            // No model runs.
            let words = Words { no_speech: true, ..Words::new(&language) };
            return Ok(self.answer(words, &IntentRanking::default(), options, timings));
        }
        let words = if audio.samples().len() <= N_SAMPLES {
            self.words_of_window(audio, &language, options, &mut timings).await?
        } else {
            self.words_of_windows(audio, &language, options, &mut timings).await?
        };
        let started = Instant::now();
        let heard: Vec<Heard<'_>> = words.text.iter().map(|(language, text)| Heard { language, text }).collect();
        let ranking = self.phrases.rank(&heard);
        timings.intent = ms_since(started);
        Ok(self.answer(words, &ranking, options, timings))
    }

    /// The words of one clip, of any length, with segments and, if asked for, word times.
    ///
    /// # Errors
    /// [`Error::UnsupportedLanguage`], and what the model or its device says.
    pub async fn transcribe(
        &self,
        audio: &Waveform,
        language: Option<&str>,
        options: &TranscribeOptions,
    ) -> Result<Transcript> {
        let language = SpeechLanguage::parse(language, &self.info.languages)?;
        let mut options = options.clone();
        let base = self.decode_options(self.decode_languages(&language).first().copied().flatten());
        options.decode.language = base.language;
        options.decode.suppress = base.suppress;
        options.decode.begin_suppress = base.begin_suppress;
        options.decode.max_initial_timestamp_index = base.max_initial_timestamp_index;
        let n_frames = self.model.whisper.config.n_frames();
        transcribe(&self.model, &self.tokenizer, &self.extractor, n_frames, audio, &options).await
    }

    /// The command path up to where an intent head reads: speech only, fitted window, encoder.
    ///
    /// # Errors
    /// [`Error::EmptyAudio`] if nobody speaks, and what the device says.
    pub async fn encode_command(&self, audio: &Waveform) -> Result<CommandTimings> {
        let started = Instant::now();
        let speech = find_speech(audio.samples()).ok_or(Error::EmptyAudio)?;
        let samples = &audio.samples()[speech.start_sample..speech.end_sample];
        let n_samples = (samples.len() + FITTED_TAIL_SAMPLES).next_multiple_of(FITTED_STEP_SAMPLES).min(N_SAMPLES);
        let mel = self.extractor.extract_padded(samples, n_samples)?;
        let features_ms = ms_since(started);
        let started = Instant::now();
        let states = self.model.encode_mel(&mel.data)?;
        let [_, n_audio_ctx, _] = states.dims();
        // Reading back is what waits for the device.
        let values = kernels::read(states, "encoder").await?;
        if values.iter().any(|v| !v.is_finite()) {
            return Err(Error::NotFinite { stage: "encoder" });
        }
        Ok(CommandTimings { features_ms, encoder_ms: ms_since(started), n_audio_ctx })
    }

    fn decode_options(&self, language: Option<&str>) -> DecodeOptions {
        DecodeOptions {
            language: language.map(str::to_owned),
            suppress: self.suppress.clone(),
            begin_suppress: self.begin_suppress.clone(),
            max_initial_timestamp_index: self.max_initial_timestamp_index,
            ..DecodeOptions::default()
        }
    }

    /// A command must not be drawn by lot: one try, at temperature 0.
    fn command_options(&self, language: Option<&str>, options: &RecognizeOptions) -> DecodeOptions {
        DecodeOptions { beam_size: options.beam_size, temperatures: vec![0.0], ..self.decode_options(language) }
    }

    /// The tokens to decode with; `None` detects.
    fn decode_languages<'a>(&self, language: &'a SpeechLanguage) -> Vec<Option<&'a str>> {
        match language {
            SpeechLanguage::Known(code) => vec![Some(code.as_str())],
            SpeechLanguage::Detect => vec![None],
            SpeechLanguage::Twi => {
                let known: Vec<Option<&str>> = TWI_DECODE_LANGUAGES
                    .iter()
                    .filter(|code| self.tokenizer.special().language(code).is_some())
                    .map(|code| Some(*code))
                    .collect();
                // An English-only model has no language tokens at all, and decodes with none.
                if known.is_empty() { vec![None] } else { known }
            }
        }
    }

    /// A clip of one window: encoded once, decoded with the first language that gives a text.
    async fn words_of_window(
        &self,
        audio: &Waveform,
        language: &SpeechLanguage,
        options: &RecognizeOptions,
        timings: &mut TimingsMs,
    ) -> Result<Words> {
        let started = Instant::now();
        let mel = self.extractor.extract_padded(audio.samples(), self.model.whisper.config.n_frames() * HOP_LENGTH)?;
        timings.features += ms_since(started);
        let started = Instant::now();
        let window = self.model.encode(&mel.data).await?;
        timings.encoder = ms_since(started);
        let started = Instant::now();
        let mut words = Words::new(language);
        for code in self.decode_languages(language) {
            let mut decode = self.command_options(code, options);
            decode.max_tokens = Some(TOKENS_SPARE + (audio.duration_s() * TOKENS_PER_S) as usize);
            let result = decode_window(&self.model, &self.tokenizer, &window, &decode).await?;
            let (silent, repeats) = (decode.is_silent(&result), decode.repeats(&result));
            words.add(result.language, result.text, Some(result.avg_logprob.exp()), silent, repeats);
            if !repeats {
                break;
            }
        }
        timings.transcript = ms_since(started);
        Ok(words)
    }

    /// Longer audio: one language, window after window.
    async fn words_of_windows(
        &self,
        audio: &Waveform,
        language: &SpeechLanguage,
        options: &RecognizeOptions,
        timings: &mut TimingsMs,
    ) -> Result<Words> {
        let decode = self.command_options(self.decode_languages(language).first().copied().flatten(), options);
        let transcribe_options = TranscribeOptions { decode, ..TranscribeOptions::default() };
        let n_frames = self.model.whisper.config.n_frames();
        let transcript =
            transcribe(&self.model, &self.tokenizer, &self.extractor, n_frames, audio, &transcribe_options).await?;
        timings.encoder = transcript.encoder_ms;
        timings.transcript = transcript.decoder_ms;
        let mut words = Words::new(language);
        let confidence = transcript.avg_logprob().map(f32::exp);
        words.add(transcript.language, transcript.text, confidence, false, false);
        Ok(words)
    }

    fn answer(
        &self,
        words: Words,
        ranking: &IntentRanking,
        options: &RecognizeOptions,
        timings: TimingsMs,
    ) -> Recognition {
        let said_nothing = words.no_speech || words.text.as_ref().is_none_or(|(_, text)| text.trim().is_empty());
        let rejection = if said_nothing { Some(Rejection::NoSpeech) } else { ranking.rejection };
        let best = ranking.predictions.first().filter(|_| rejection.is_none()).map(|p| &built_in()[p.0]);
        let predictions = if said_nothing { &[][..] } else { &ranking.predictions[..] };
        let top_predictions: Vec<Prediction> = predictions
            .iter()
            .take(options.top_k)
            .enumerate()
            .map(|(index, (label_id, confidence))| Prediction {
                intent: built_in()[*label_id].intent.clone(),
                confidence: *confidence,
                index,
                label_id: *label_id,
            })
            .collect();
        Recognition {
            filename: String::new(),
            intent: best.map_or_else(|| "unknown".to_owned(), |b| b.intent.clone()),
            confidence: top_predictions.first().map_or(0.0, |p| p.confidence),
            accepted: best.is_some(),
            rejection: if best.is_some() { None } else { rejection.or(Some(Rejection::OutOfScope)) },
            transcription: if options.transcribe {
                Some(words.text.as_ref().map(|(_, text)| text.clone()).unwrap_or_default())
            } else {
                None
            },
            processing_time_ms: timings.features + timings.encoder + timings.transcript + timings.intent,
            top_predictions,
            slots: if best.is_some() { ranking.slots.clone() } else { Vec::new() },
            risk: best.map_or(Risk::None, |b| b.risk),
            intent_source: IntentSource::Transcript,
            model_type: self.info.model_type.clone(),
            whisper_info: WhisperInfo {
                model_size: self.info.model_size.clone(),
                language: words.language.unwrap_or_else(|| DEFAULT_LANGUAGE.to_owned()),
                decode_language: words.text.as_ref().map(|(code, _)| code.clone()),
                transcription_confidence: words.confidence,
            },
            timings_ms: timings,
            run: RunInfo {
                place: RunWhere::Local,
                device: self.info.device.clone(),
                reason: "only_engine".to_owned(),
                bytes_sent: 0,
            },
            request_id: String::new(),
            cached: false,
        }
    }
}

/// What was heard.
struct Words {
    /// As reported to people; a language that is to be detected is known with the first text.
    language: Option<String>,
    /// `(decode language, text)`.
    text: Option<(String, String)>,
    confidence: Option<f32>,
    no_speech: bool,
}

impl Words {
    fn new(language: &SpeechLanguage) -> Self {
        let language = match language {
            SpeechLanguage::Twi => Some(DEFAULT_LANGUAGE.to_owned()),
            SpeechLanguage::Known(code) => Some(code.clone()),
            SpeechLanguage::Detect => None,
        };
        Self { language, text: None, confidence: None, no_speech: false }
    }

    /// Takes one text in. A text that repeats itself makes way for one that does not.
    fn add(&mut self, code: Option<String>, text: String, confidence: Option<f32>, no_speech: bool, repeats: bool) {
        if repeats && self.text.is_some() {
            return;
        }
        // An English-only model names no language.
        let code = code.unwrap_or_else(|| "en".to_owned());
        self.language.get_or_insert_with(|| code.clone());
        self.confidence = confidence;
        self.no_speech = no_speech;
        self.text = Some((code, text));
    }
}

/// A list of tokens; `-1` stands for the tokenizer's list of non-speech tokens.
fn token_list(tokens: Option<&[i64]>, tokenizer: &Tokenizer) -> Result<Vec<u32>> {
    let mut list = Vec::new();
    for token in tokens.unwrap_or_default() {
        match u32::try_from(*token) {
            Ok(token) => list.push(token),
            Err(_) if *token == -1 => list.extend(tokenizer.non_speech_tokens()?),
            Err(_) => {}
        }
    }
    Ok(list)
}

fn describe(folder: &ModelFolder, whisper: &Whisper, tokenizer: &Tokenizer) -> ModelInfo {
    let config = &whisper.config;
    let mut fallbacks = folder.fallbacks.clone();
    fallbacks.push("no intent head: the intent is matched from the words".to_owned());
    ModelInfo {
        name: folder.name.clone(),
        architecture: config
            .architectures
            .first()
            .cloned()
            .unwrap_or_else(|| "WhisperForConditionalGeneration".to_owned()),
        model_type: "whisper".to_owned(),
        task: Task::Single,
        model_size: config.model_size().to_owned(),
        parameters: whisper.n_parameters(),
        weight_format: folder.weights.format().to_owned(),
        dtype: "f32".to_owned(),
        device: "cpu".to_owned(),
        n_mels: config.num_mel_bins,
        n_audio_ctx: config.max_source_positions,
        n_audio_state: config.d_model,
        n_audio_head: config.encoder_attention_heads,
        n_audio_layer: config.encoder_layers,
        n_text_ctx: config.max_target_positions,
        n_text_layer: config.decoder_layers,
        n_vocab: config.vocab_size,
        multilingual: !tokenizer.special().languages.is_empty(),
        languages: tokenizer.special().languages.iter().map(|(code, _)| code.clone()).collect(),
        labels: built_in().iter().map(|i| i.intent.clone()).collect(),
        fallbacks,
    }
}

fn ms_since(started: Instant) -> f64 {
    started.elapsed().as_secs_f64() * 1e3
}
