//! One text, the likeliest token at each step, or one drawn at a temperature.
//!
//! Follows `openai/whisper` `decoding.py` `GreedyDecoder`.

use super::filters::LogitFilters;
use super::{SpeechModel, argmax, log_sum_exp};
use crate::error::{Error, Result};

/// The end of one text.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Sampled {
    /// The tokens after the start sequence, without the closing one.
    pub tokens: Vec<u32>,
    /// Sum of their log-probabilities, the closing one's included.
    pub sum_logprob: f32,
}

/// Says tokens until the text ends.
///
/// `first` are the logits after the start sequence; `max_tokens` bounds the text; `rng` draws when
/// `temperature` is above 0.
///
/// # Errors
/// What the model says, and [`Error::NotFinite`] if its logits are NaN.
#[allow(clippy::too_many_arguments, reason = "each is one bound of a text; a struct would only rename them")]
pub async fn sample<M: SpeechModel>(
    model: &M,
    cache: &mut M::Cache,
    first: Vec<f32>,
    filters: &LogitFilters,
    eot: u32,
    max_tokens: usize,
    temperature: f32,
    rng: &mut fastrand::Rng,
) -> Result<Sampled> {
    let mut sampled = Sampled::default();
    let mut logits = first;
    loop {
        check_finite(&logits)?;
        filters.apply(&mut logits, &sampled.tokens);
        let token = if temperature > 0.0 { draw(&logits, temperature, rng) } else { argmax(&logits) };
        if logits[token] == f32::NEG_INFINITY {
            return Ok(sampled); // every token is forbidden: there is nothing left to say
        }
        sampled.sum_logprob += logits[token] - log_sum_exp(&logits);
        let token = token as u32;
        if token == eot || sampled.tokens.len() >= max_tokens {
            return Ok(sampled);
        }
        sampled.tokens.push(token);
        logits = model.logits(&[vec![token]], cache, &[0]).await?.pop().ok_or(Error::NotFinite { stage: "decoder" })?;
    }
}

/// A broken device gives NaN, and NaN must never look like an answer.
pub(crate) fn check_finite(logits: &[f32]) -> Result<()> {
    if logits.iter().all(|l| l.is_finite()) { Ok(()) } else { Err(Error::NotFinite { stage: "decoder" }) }
}

/// Draws from `softmax(logits / temperature)`.
fn draw(logits: &[f32], temperature: f32, rng: &mut fastrand::Rng) -> usize {
    let scaled: Vec<f32> = logits.iter().map(|l| l / temperature).collect();
    let total = log_sum_exp(&scaled);
    let mut left = rng.f32();
    for (i, l) in scaled.iter().enumerate() {
        left -= (l - total).exp();
        if left < 0.0 {
            return i;
        }
    }
    argmax(logits)
}
