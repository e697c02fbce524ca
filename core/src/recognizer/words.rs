//! Who writes the words of a clip: a Whisper with its tokenizer, or a wav2vec 2.0 with its vocabulary.

use web_time::Instant;

use super::{RecognizeOptions, ms_since};
use crate::audio::{HOP_LENGTH, LogMelExtractor, Waveform};
use crate::decoding::{
    DecodeOptions, OnSegments, Segment, SpeechModel, TranscribeOptions, Transcript, decode_window, transcribe,
    transcribe_in_pieces,
};
use crate::error::Result;
use crate::language::{DEFAULT_LANGUAGE, SpeechLanguage};
use crate::recognition::TimingsMs;
use crate::tokenizer::Tokenizer;
use crate::wav2vec2::Wav2Vec2OnDevice;
use crate::whisper::{EncodedWindow, WhisperOnDevice};

/// A clip says at most this many tokens a second; a text that goes on is a loop.
const TOKENS_PER_S: f64 = 12.0;
/// And so many on top, for short clips.
const TOKENS_SPARE: usize = 24;

/// What turns sound into words.
#[allow(clippy::large_enum_variant, reason = "there is one of them")]
pub(super) enum Transcriber {
    Whisper(WhisperTranscriber),
    Wav2Vec2 {
        model: Wav2Vec2OnDevice,
        /// The language of its adapter.
        language: Option<String>,
    },
}

impl Transcriber {
    /// The words of a command. `window` is the clip's encoding, where there is one already.
    pub(super) async fn words(
        &self,
        audio: &Waveform,
        window: Option<EncodedWindow>,
        language: &SpeechLanguage,
        options: &RecognizeOptions,
        timings: &mut TimingsMs,
    ) -> Result<Words> {
        match self {
            Self::Whisper(whisper) if audio.samples().len() <= whisper.window_samples() => {
                whisper.words_of_window(audio, window, language, options, timings).await
            }
            Self::Whisper(whisper) => whisper.words_of_windows(audio, language, options, timings).await,
            Self::Wav2Vec2 { model, language: own } => {
                let transcript = model.transcribe(audio.samples(), options.beam_size).await?;
                timings.encoder += transcript.encoder_ms;
                timings.transcript += transcript.decoder_ms;
                let mut words = Words::new(language);
                let code = own.clone().or_else(|| words.language.clone());
                words.add(code, transcript.text, Some(transcript.avg_logprob.exp()), false, false);
                Ok(words)
            }
        }
    }

    /// The words of a recording of any length, with their times, and window by window to whoever waits for them.
    pub(super) async fn transcribe(
        &self,
        audio: &Waveform,
        language: &SpeechLanguage,
        options: &TranscribeOptions,
        on_segments: &mut OnSegments<'_>,
    ) -> Result<Transcript> {
        match self {
            Self::Whisper(whisper) => whisper.transcribe(audio, language, options, on_segments).await,
            Self::Wav2Vec2 { model, .. } => {
                let heard = model.transcribe(audio.samples(), options.decode.beam_size).await?;
                // A CTC model has no segments of its own: the words from the first to the last are one.
                let segment = heard.words.first().zip(heard.words.last()).map(|(first, last)| Segment {
                    seek: 0,
                    start_s: first.start_s,
                    end_s: last.end_s,
                    text: heard.text.clone(),
                    tokens: Vec::new(),
                    avg_logprob: heard.avg_logprob,
                    no_speech_prob: 0.0,
                    compression_ratio: 1.0,
                    temperature: 0.0,
                    words: if options.word_timestamps { heard.words.clone() } else { Vec::new() },
                });
                let segments: Vec<Segment> = segment.into_iter().collect();
                // It ends here either way.
                let _ = on_segments(&segments);
                Ok(Transcript {
                    text: heard.text,
                    language: None,
                    segments,
                    encoder_ms: heard.encoder_ms,
                    decoder_ms: heard.decoder_ms,
                })
            }
        }
    }
}

/// A Whisper that writes.
pub(super) struct WhisperTranscriber {
    pub(super) model: WhisperOnDevice,
    pub(super) tokenizer: Tokenizer,
    pub(super) extractor: LogMelExtractor,
    pub(super) suppress: Vec<u32>,
    pub(super) begin_suppress: Vec<u32>,
    pub(super) max_initial_timestamp_index: Option<usize>,
    /// What Twi is decoded with, best first; empty for an English-only model.
    pub(super) twi_languages: Vec<String>,
}

impl WhisperTranscriber {
    /// Samples of a full window.
    pub(super) fn window_samples(&self) -> usize {
        self.model.whisper.config.n_frames() * HOP_LENGTH
    }

    async fn transcribe(
        &self,
        audio: &Waveform,
        language: &SpeechLanguage,
        options: &TranscribeOptions,
        on_segments: &mut OnSegments<'_>,
    ) -> Result<Transcript> {
        let mut options = options.clone();
        let base = self.decode_options(self.decode_languages(language).first().copied().flatten());
        options.decode.language = base.language;
        options.decode.suppress = base.suppress;
        options.decode.begin_suppress = base.begin_suppress;
        options.decode.max_initial_timestamp_index = base.max_initial_timestamp_index;
        let n_frames = self.model.whisper.config.n_frames();
        let (model, tokenizer, extractor) = (&self.model, &self.tokenizer, &self.extractor);
        transcribe_in_pieces(model, tokenizer, extractor, n_frames, audio, &options, on_segments).await
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
    fn decode_languages<'a>(&'a self, language: &'a SpeechLanguage) -> Vec<Option<&'a str>> {
        match language {
            SpeechLanguage::Known(code) => vec![Some(code.as_str())],
            SpeechLanguage::Detect => vec![None],
            // An English-only model has no language tokens at all, and decodes with none.
            SpeechLanguage::Twi if self.twi_languages.is_empty() => vec![None],
            SpeechLanguage::Twi => self.twi_languages.iter().map(|code| Some(code.as_str())).collect(),
        }
    }

    /// A clip of one window: encoded once, decoded with the first language that gives a text.
    async fn words_of_window(
        &self,
        audio: &Waveform,
        window: Option<EncodedWindow>,
        language: &SpeechLanguage,
        options: &RecognizeOptions,
        timings: &mut TimingsMs,
    ) -> Result<Words> {
        let window = match window {
            Some(window) => window,
            None => {
                let started = Instant::now();
                let mel = self.extractor.extract_padded(audio.samples(), self.window_samples())?;
                timings.features += ms_since(started);
                let started = Instant::now();
                let window = self.model.encode(&mel.data).await?;
                timings.encoder += ms_since(started);
                window
            }
        };
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
        timings.transcript += ms_since(started);
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
        timings.encoder += transcript.encoder_ms;
        timings.transcript += transcript.decoder_ms;
        let mut words = Words::new(language);
        let confidence = transcript.avg_logprob().map(f32::exp);
        words.add(transcript.language, transcript.text, confidence, false, false);
        Ok(words)
    }
}

/// What was heard.
pub(super) struct Words {
    /// As reported to people; a language that is to be detected is known with the first text.
    pub(super) language: Option<String>,
    /// `(decode language, text)`.
    pub(super) text: Option<(String, String)>,
    pub(super) confidence: Option<f32>,
    pub(super) no_speech: bool,
}

impl Words {
    pub(super) fn new(language: &SpeechLanguage) -> Self {
        let language = match language {
            SpeechLanguage::Twi => Some(DEFAULT_LANGUAGE.to_owned()),
            SpeechLanguage::Known(code) => Some(code.clone()),
            SpeechLanguage::Detect => None,
        };
        Self { language, text: None, confidence: None, no_speech: false }
    }

    /// Whether nobody spoke, as far as the words tell.
    pub(super) fn says_nothing(&self) -> bool {
        self.no_speech || self.text.as_ref().is_none_or(|(_, text)| text.trim().is_empty())
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
