//! One text, the likeliest token at each step, or one drawn at a temperature.
//!
//! Follows `openai/whisper` `decoding.py` `GreedyDecoder`.

use super::SpeechModel;
use super::filters::LogitFilters;
use super::scan::{BLOCK, argmax, is_finite, log_sum_exp_below, sum_exp_below};
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
/// What the model says, and [`Error::NotFinite`] if its logits are not numbers, or none.
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
    let mut scaled = Vec::new();
    loop {
        check_finite(&logits)?;
        filters.apply(&mut logits, &sampled.tokens);
        let best = argmax(&logits);
        if logits[best] == f32::NEG_INFINITY {
            return Ok(sampled); // every token is forbidden: there is nothing left to say
        }
        let token = if temperature > 0.0 { draw(&logits, best, temperature, &mut scaled, rng) } else { best };
        sampled.sum_logprob += logits[token] - log_sum_exp_below(&logits, logits[best]);
        let token = token as u32;
        if token == eot || sampled.tokens.len() >= max_tokens {
            return Ok(sampled);
        }
        sampled.tokens.push(token);
        logits = model.logits(&[vec![token]], cache, &[0]).await?;
    }
}

/// A broken device gives NaN, and NaN must never look like an answer.
pub(crate) fn check_finite(logits: &[f32]) -> Result<()> {
    if !logits.is_empty() && is_finite(logits) { Ok(()) } else { Err(Error::NotFinite { stage: "decoder" }) }
}

/// Draws from `softmax(logits / temperature)`, of which `best` is the likeliest; `scaled` is room for the quotients.
fn draw(logits: &[f32], best: usize, temperature: f32, scaled: &mut Vec<f32>, rng: &mut fastrand::Rng) -> usize {
    scaled.clear();
    scaled.extend(logits.iter().map(|l| l / temperature));
    let total = log_sum_exp_below(scaled, scaled[best]);
    let mut left = rng.f32();
    for (i, block) in scaled.chunks(BLOCK).enumerate() {
        let of_block = sum_exp_below(block, total);
        if left >= of_block {
            left -= of_block;
            continue;
        }
        for (at, l) in block.iter().enumerate() {
            left -= (l - total).exp();
            if left < 0.0 {
                return i * BLOCK + at;
            }
        }
    }
    best
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn numbers_are_wanted() {
        assert!(check_finite(&[0.0; 70]).is_ok());
        let none: [&[f32]; 4] = [&[], &[f32::NAN], &[0.0, f32::INFINITY], &[f32::NEG_INFINITY, 0.0]];
        for bad in none {
            assert_eq!(check_finite(bad).expect_err("these are none").code(), "not_finite", "{bad:?}");
        }
    }

    proptest! {
        /// The token drawn is that in whose share of the whole the random number falls; none that is forbidden.
        #[test]
        fn a_draw_falls_into_its_share(n in 1usize..3 * BLOCK, seed: u64, temperature in 0.2f32..1.5) {
            let mut rng = fastrand::Rng::with_seed(seed);
            let mut logits: Vec<f32> = (0..n).map(|_| rng.f32() * 12.0 - 6.0).collect();
            for _ in 0..n / 2 {
                logits[rng.usize(0..n)] = f32::NEG_INFINITY;
            }
            let best = argmax(&logits);
            let at = f64::from(rng.clone().f32());
            let token = draw(&logits, best, temperature, &mut vec![1.0; 7], &mut rng);
            prop_assert!(logits[token].is_finite());
            let weights: Vec<f64> = logits.iter().map(|l| (f64::from(*l) / f64::from(temperature)).exp()).collect();
            let whole: f64 = weights.iter().sum();
            let before = weights[..token].iter().sum::<f64>() / whole;
            let after = before + weights[token] / whole;
            // All shares may sum to a little less than one; beyond them is the likeliest.
            let beyond = token == best && at > 1.0 - 1e-4;
            prop_assert!(beyond || before - 1e-4 <= at && at <= after + 1e-4, "{} not in {}..{}", at, before, after);
        }
    }
}
