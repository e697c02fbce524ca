//! Several texts side by side, the likeliest kept.
//!
//! Follows `openai/whisper` `decoding.py` `BeamSearchDecoder` with patience 1 and
//! `MaximumLikelihoodRanker` without length penalty: the best of the finished texts has the highest
//! log-probability a token.

use super::SpeechModel;
use super::filters::LogitFilters;
use super::greedy::{Sampled, check_finite};
use super::scan::{log_sum_exp_below, top};
use crate::error::Result;

/// Searches with `beam_size` texts; see [`super::greedy::sample`] for the arguments.
///
/// # Errors
/// What the model says, and [`crate::Error::NotFinite`] if its logits are NaN.
pub async fn search<M: SpeechModel>(
    model: &M,
    cache: &mut M::Cache,
    first: Vec<f32>,
    filters: &LogitFilters,
    eot: u32,
    max_tokens: usize,
    beam_size: usize,
) -> Result<Sampled> {
    let mut finished: Vec<Sampled> = Vec::new();
    let mut beams = vec![Sampled::default()];
    let mut logits = first; // [beams.len(), n_vocab]
    for _ in 0..=max_tokens {
        check_finite(&logits)?;
        let n_vocab = (logits.len() / beams.len()).max(1);
        // Every beam's best continuations, one more than beams: one of them may be the end.
        let mut candidates: Vec<(f32, usize, u32)> = Vec::new();
        for (i, (beam, logits)) in beams.iter().zip(logits.chunks_exact_mut(n_vocab)).enumerate() {
            filters.apply(logits, &beam.tokens);
            let best = top(logits, beam_size + 1);
            let total = log_sum_exp_below(logits, best.first().map_or(f32::NEG_INFINITY, |token| logits[*token]));
            for token in best {
                candidates.push((beam.sum_logprob + logits[token] - total, i, token as u32));
            }
        }
        candidates.retain(|c| c.0 > f32::NEG_INFINITY);
        candidates.sort_by(|a, b| b.0.total_cmp(&a.0));
        let mut next = Vec::new();
        let mut source = Vec::new();
        for (sum_logprob, i, token) in candidates {
            let mut tokens = beams[i].tokens.clone();
            if token == eot {
                if finished.len() < beam_size {
                    finished.push(Sampled { tokens, sum_logprob });
                }
            } else {
                tokens.push(token);
                next.push(Sampled { tokens, sum_logprob });
                source.push(i);
                if next.len() == beam_size {
                    break;
                }
            }
        }
        if finished.len() >= beam_size || next.is_empty() {
            break;
        }
        beams = next;
        if beams[0].tokens.len() >= max_tokens {
            break;
        }
        model.reorder(cache, &source);
        let tokens: Vec<Vec<u32>> = beams.iter().filter_map(|b| b.tokens.last().map(|t| vec![*t])).collect();
        logits = model.logits(&tokens, cache, &[0]).await?;
    }
    // Texts that were cut at the bound take part only where too few came to an end.
    for beam in beams {
        if finished.len() >= beam_size {
            break;
        }
        finished.push(beam);
    }
    let score = |s: &Sampled| s.sum_logprob / s.tokens.len().max(1) as f32;
    Ok(finished.into_iter().max_by(|a, b| score(a).total_cmp(&score(b))).unwrap_or_default())
}
