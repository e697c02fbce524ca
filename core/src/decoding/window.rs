//! One window to one text: the start sequence, the choice of tokens, and hotter tries when the answer
//! repeats itself or is unlikely.
//!
//! Follows `openai/whisper` `decoding.py` `DecodingTask` and `transcribe.py` `decode_with_fallback`.

use std::io::Write;

use super::filters::{LogitFilters, TimestampRules};
use super::greedy::Sampled;
use super::{SpeechModel, beam, greedy, log_sum_exp};
use crate::error::{Error, Result};
use crate::tokenizer::{SpeechTask, Tokenizer};

/// How to decode a window.
#[derive(Debug, Clone, PartialEq)]
pub struct DecodeOptions {
    /// Transcribe or translate.
    pub task: SpeechTask,
    /// A Whisper language code; `None` detects it.
    pub language: Option<String>,
    /// Whether timestamps are wanted.
    pub timestamps: bool,
    /// Texts searched side by side at temperature 0; 1 is greedy.
    pub beam_size: usize,
    /// Tried in turn until an answer is good enough.
    pub temperatures: Vec<f32>,
    /// Above this the text repeats itself (zlib, as the reference has it).
    pub compression_ratio_threshold: Option<f32>,
    /// Below this average log-probability the text is unlikely.
    pub logprob_threshold: Option<f32>,
    /// Above this probability, together with an unlikely text, nobody spoke.
    pub no_speech_threshold: Option<f32>,
    /// Tokens of the text before, or of a prompt; the last half of the context is kept.
    pub prompt: Vec<u32>,
    /// Bound on the tokens of the text; `None`: half the context, as the reference.
    pub max_tokens: Option<usize>,
    /// Never produced.
    pub suppress: Vec<u32>,
    /// Not produced first.
    pub begin_suppress: Vec<u32>,
    /// The first timestamp is at most this many steps of 0.02 s late.
    pub max_initial_timestamp_index: Option<usize>,
    /// Seed of the draws above temperature 0.
    pub seed: u64,
}

impl Default for DecodeOptions {
    fn default() -> Self {
        Self {
            task: SpeechTask::Transcribe,
            language: None,
            timestamps: false,
            beam_size: 1,
            temperatures: vec![0.0, 0.2, 0.4, 0.6, 0.8, 1.0],
            compression_ratio_threshold: Some(2.4),
            logprob_threshold: Some(-1.0),
            no_speech_threshold: Some(0.6),
            prompt: Vec::new(),
            max_tokens: None,
            suppress: Vec::new(),
            begin_suppress: Vec::new(),
            max_initial_timestamp_index: Some(50), // 1.0 s, as the reference
            seed: 0,
        }
    }
}

impl DecodeOptions {
    /// Whether the text repeats itself.
    #[must_use]
    pub fn repeats(&self, result: &DecodeResult) -> bool {
        self.compression_ratio_threshold.is_some_and(|t| result.compression_ratio > t)
    }

    /// Whether nobody spoke: the model says so, and its text is unlikely (or nobody asked how likely).
    #[must_use]
    pub fn is_silent(&self, result: &DecodeResult) -> bool {
        self.no_speech_threshold.is_some_and(|t| result.no_speech_prob > t)
            && self.logprob_threshold.is_none_or(|t| result.avg_logprob < t)
    }
}

/// One window's text.
#[derive(Debug, Clone, PartialEq)]
pub struct DecodeResult {
    /// The language code decoded with; `None` for an English-only model.
    pub language: Option<String>,
    /// The tokens, timestamps among them where wanted.
    pub tokens: Vec<u32>,
    /// Their text, trimmed.
    pub text: String,
    /// Mean log-probability of a token, the closing one counted.
    pub avg_logprob: f32,
    /// Probability that nobody spoke, as the model sees it; 0 where it has no such token.
    pub no_speech_prob: f32,
    /// The temperature of this answer.
    pub temperature: f32,
    /// How much shorter zlib makes the text.
    pub compression_ratio: f32,
}

/// Decodes one encoded window.
///
/// # Errors
/// [`Error::UnsupportedLanguage`], [`Error::InvalidParameter`], and what the model says.
pub async fn decode_window<M: SpeechModel>(
    model: &M,
    tokenizer: &Tokenizer,
    window: &M::Window,
    options: &DecodeOptions,
) -> Result<DecodeResult> {
    if options.beam_size == 0 || options.temperatures.is_empty() {
        return Err(Error::InvalidParameter { name: "beam_size", allowed: "at least 1".to_owned() });
    }
    let language = match &options.language {
        _ if tokenizer.special().languages.is_empty() => None,
        Some(code) => tokenizer.language_token(code)?.map(|token| (code.clone(), token)),
        None => Some(detect_language(model, tokenizer, window).await?),
    };
    let mut best: Option<DecodeResult> = None;
    for &temperature in &options.temperatures {
        let result = decode_once(model, tokenizer, window, options, language.as_ref(), temperature).await?;
        let repeats = options.repeats(&result);
        let unlikely = options.logprob_threshold.is_some_and(|t| result.avg_logprob < t);
        let silent = unlikely && options.is_silent(&result);
        let good = !(repeats || unlikely) || silent;
        best = Some(result);
        if good {
            break;
        }
    }
    best.ok_or(Error::NotFinite { stage: "decoder" })
}

/// The likeliest language of a window: `(code, token)`.
///
/// # Errors
/// What the model says.
pub async fn detect_language<M: SpeechModel>(
    model: &M,
    tokenizer: &Tokenizer,
    window: &M::Window,
) -> Result<(String, u32)> {
    let probabilities = language_probabilities(model, tokenizer, window).await?;
    probabilities
        .into_iter()
        .max_by(|a, b| a.2.total_cmp(&b.2))
        .map(|(code, token, _)| (code, token))
        .ok_or(Error::NotFinite { stage: "language detection" })
}

/// Every language of the vocabulary with its probability: `(code, token, probability)`.
///
/// # Errors
/// What the model says.
pub async fn language_probabilities<M: SpeechModel>(
    model: &M,
    tokenizer: &Tokenizer,
    window: &M::Window,
) -> Result<Vec<(String, u32, f32)>> {
    let special = tokenizer.special();
    let mut cache = model.start(window, 1);
    let logits = model.logits(&[vec![special.sot]], &mut cache, &[0]).await?;
    let of_languages: Vec<f32> =
        special.languages.iter().map(|(_, t)| logits.get(*t as usize).copied().unwrap_or(f32::NEG_INFINITY)).collect();
    let total = log_sum_exp(&of_languages);
    Ok(special
        .languages
        .iter()
        .zip(of_languages)
        .map(|((code, token), logit)| (code.clone(), *token, (logit - total).exp()))
        .collect())
}

async fn decode_once<M: SpeechModel>(
    model: &M,
    tokenizer: &Tokenizer,
    window: &M::Window,
    options: &DecodeOptions,
    language: Option<&(String, u32)>,
    temperature: f32,
) -> Result<DecodeResult> {
    let special = tokenizer.special();
    let half = model.n_text_ctx() / 2;
    let mut start = Vec::new();
    if let (Some(sot_prev), false) = (special.sot_prev, options.prompt.is_empty()) {
        start.push(sot_prev);
        start.extend(&options.prompt[options.prompt.len().saturating_sub(half.saturating_sub(1))..]);
    }
    let sot_index = start.len();
    start.extend(special.sot_sequence(language.map(|l| l.1), options.task, options.timestamps));
    let room = model.n_text_ctx().saturating_sub(start.len());
    let max_tokens = options.max_tokens.unwrap_or(half).min(half).min(room);

    let mut cache = model.start(window, 1);
    let last = start.len() - 1;
    let mut at_sot = model.logits(&[start], &mut cache, &[sot_index, last]).await?; // [1, 2, n_vocab]
    let first = at_sot.split_off(at_sot.len() / 2);
    greedy::check_finite(&first)?;
    let no_speech_prob =
        special.no_speech.and_then(|t| at_sot.get(t as usize).map(|l| (l - log_sum_exp(&at_sot)).exp())).unwrap_or(0.0);

    let filters = LogitFilters {
        suppress: options.suppress.clone(),
        begin_suppress: options.begin_suppress.clone(),
        timestamps: options.timestamps.then(|| TimestampRules::new(special, options.max_initial_timestamp_index)),
    };
    let Sampled { tokens, sum_logprob } = if temperature == 0.0 && options.beam_size > 1 {
        beam::search(model, &mut cache, first, &filters, special.eot, max_tokens, options.beam_size).await?
    } else {
        let mut rng = fastrand::Rng::with_seed(options.seed);
        greedy::sample(model, &mut cache, first, &filters, special.eot, max_tokens, temperature, &mut rng).await?
    };
    let text = tokenizer.decode(&tokens)?.trim().to_owned();
    Ok(DecodeResult {
        language: language.map(|l| l.0.clone()),
        avg_logprob: sum_logprob / (tokens.len() + 1) as f32,
        compression_ratio: compression_ratio(&text)?,
        tokens,
        text,
        no_speech_prob,
        temperature,
    })
}

/// Length of the text over its length after zlib: above 2.4 it repeats itself.
pub(crate) fn compression_ratio(text: &str) -> Result<f32> {
    if text.is_empty() {
        return Ok(0.0);
    }
    let io = |source| Error::Io { what: "compressing a text".to_owned(), source };
    let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(text.as_bytes()).map_err(io)?;
    Ok(text.len() as f32 / encoder.finish().map_err(io)?.len() as f32)
}
