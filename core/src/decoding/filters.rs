//! What the decoder may not say next.
//!
//! Follows `openai/whisper` `decoding.py` `SuppressBlank`, `SuppressTokens` and `ApplyTimestampRules`;
//! the same rules as `transformers` `WhisperTimeStampLogitsProcessor`.

use super::scan::{largest, log_sum_exp};
use crate::tokenizer::SpecialTokens;

/// The filters of one decoding, applied in one go.
#[derive(Debug, Clone)]
pub struct LogitFilters {
    /// Never.
    pub suppress: Vec<u32>,
    /// Not as the first token.
    pub begin_suppress: Vec<u32>,
    /// The rules of timestamps; `None` when they are not wanted.
    pub timestamps: Option<TimestampRules>,
}

/// Timestamps come in pairs, never go back, and the first is early.
#[derive(Debug, Clone)]
pub struct TimestampRules {
    /// `<|0.00|>`
    pub timestamp_begin: u32,
    /// `<|notimestamps|>`
    pub no_timestamps: u32,
    /// `<|endoftext|>`
    pub eot: u32,
    /// The first timestamp is at most this many steps late.
    pub max_initial_index: Option<usize>,
}

impl TimestampRules {
    /// For a vocabulary.
    #[must_use]
    pub fn new(special: &SpecialTokens, max_initial_index: Option<usize>) -> Self {
        Self {
            timestamp_begin: special.timestamp_begin,
            no_timestamps: special.no_timestamps,
            eot: special.eot,
            max_initial_index,
        }
    }

    fn apply(&self, logits: &mut [f32], sampled: &[u32]) {
        let n_vocab = logits.len();
        let begin = (self.timestamp_begin as usize).min(n_vocab);
        let eot = (self.eot as usize).min(n_vocab);
        forbid(logits, self.no_timestamps);
        let is_timestamp = |token: &u32| *token >= self.timestamp_begin;
        let last_was = sampled.last().is_some_and(is_timestamp);
        let before_was = sampled.len() < 2 || is_timestamp(&sampled[sampled.len() - 2]);
        if last_was {
            if before_was {
                logits[begin..].fill(f32::NEG_INFINITY); // a pair is closed: words
            } else {
                logits[..eot].fill(f32::NEG_INFINITY); // an end stands alone: its start, or the end
            }
        }
        if let Some(last) = sampled.iter().rev().find(|t| is_timestamp(t)) {
            // Never back; the start after an end may equal it, a new end may not.
            let first_allowed = if last_was && !before_was { *last } else { last + 1 };
            logits[begin..(first_allowed as usize).clamp(begin, n_vocab)].fill(f32::NEG_INFINITY);
        }
        if sampled.is_empty() {
            logits[..begin].fill(f32::NEG_INFINITY);
            if let Some(index) = self.max_initial_index {
                logits[begin.saturating_add(index).saturating_add(1).min(n_vocab)..].fill(f32::NEG_INFINITY);
            }
        }
        // If all timestamps together are likelier than any one word, it is a timestamp. The sum over all tokens, which
        // would make probabilities of the two, is the same for both.
        if log_sum_exp(&logits[begin..]) > largest(&logits[..begin]) {
            logits[..begin].fill(f32::NEG_INFINITY);
        }
    }
}

fn forbid(logits: &mut [f32], token: u32) {
    if let Some(logit) = logits.get_mut(token as usize) {
        *logit = f32::NEG_INFINITY;
    }
}

impl LogitFilters {
    /// Sets what may not follow `sampled` (the tokens after the start sequence) to minus infinity.
    pub fn apply(&self, logits: &mut [f32], sampled: &[u32]) {
        if sampled.is_empty() {
            self.begin_suppress.iter().for_each(|t| forbid(logits, *t));
        }
        self.suppress.iter().for_each(|t| forbid(logits, *t));
        if let Some(rules) = &self.timestamps {
            rules.apply(logits, sampled);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Words 0..6, eot 6, no_timestamps 7, timestamps 8..16.
    fn rules() -> TimestampRules {
        TimestampRules { timestamp_begin: 8, no_timestamps: 7, eot: 6, max_initial_index: Some(2) }
    }

    fn allowed(sampled: &[u32], logits: [f32; 16]) -> Vec<usize> {
        let mut logits = logits;
        rules().apply(&mut logits, sampled);
        (0..16).filter(|i| logits[*i].is_finite()).collect()
    }

    /// Words far likelier than timestamps, so that the last rule does not decide.
    const WORDS: [f32; 16] = [9., 9., 9., 9., 9., 9., 9., 9., 0., 0., 0., 0., 0., 0., 0., 0.];

    #[test]
    fn pairs_order_and_early_start() {
        assert_eq!(allowed(&[], WORDS), [8, 9, 10], "starts with an early timestamp");
        assert_eq!(allowed(&[9], WORDS), [0, 1, 2, 3, 4, 5, 6], "words follow the start");
        assert_eq!(
            allowed(&[9, 1], WORDS),
            [0, 1, 2, 3, 4, 5, 6, 10, 11, 12, 13, 14, 15],
            "an end is later than its start"
        );
        assert_eq!(allowed(&[9, 1, 12], WORDS), [6, 12, 13, 14, 15], "an end is followed by a start or the end");
        assert_eq!(allowed(&[9, 1, 12, 12], WORDS), [0, 1, 2, 3, 4, 5, 6], "and then by words");
    }

    #[test]
    fn likely_timestamps_win_over_each_single_word() {
        let flat = [0.0; 16]; // six timestamps left against words one by one
        assert_eq!(allowed(&[9, 1], flat), [10, 11, 12, 13, 14, 15]);
    }

    proptest! {
        /// The last rule as the reference has it, by probabilities over all that the others allow.
        #[test]
        fn the_mass_of_timestamps_decides(
            seed: u64, n_words in 1usize..3000, n_times in 1usize..1600, louder in -12.0f32..12.0,
        ) {
            let (eot, begin) = (n_words as u32, n_words + 2);
            let rules =
                TimestampRules { timestamp_begin: eot + 2, no_timestamps: eot + 1, eot, max_initial_index: None };
            let mut rng = fastrand::Rng::with_seed(seed);
            let mut before: Vec<f32> = (0..begin + n_times).map(|_| rng.f32() * 6.0 - 3.0).collect();
            before[begin..].iter_mut().for_each(|l| *l += louder);
            let mut after = before.clone();
            rules.apply(&mut after, &[0]);

            let weights: Vec<f64> = before.iter().map(|l| f64::from(*l).exp()).collect();
            let total: f64 = weights.iter().sum::<f64>() - weights[n_words + 1];
            let timestamps = weights[begin..].iter().sum::<f64>() / total;
            let best_word = weights[..=n_words].iter().copied().fold(0.0, f64::max) / total;
            prop_assume!((timestamps / best_word).ln().abs() > 1e-4);
            let words_are_left = after[..=n_words].iter().all(|l| l.is_finite());
            let words_are_forbidden = after[..begin].iter().all(|l| *l == f32::NEG_INFINITY);
            prop_assert_eq!((words_are_left, words_are_forbidden), (timestamps < best_word, timestamps > best_word));
            prop_assert_eq!(&after[begin..], &before[begin..]);
        }
    }

    #[test]
    fn tokens_outside_the_vocabulary_do_no_harm() {
        let filters = LogitFilters { suppress: vec![99], begin_suppress: vec![1, 77], timestamps: None };
        let mut logits = [0.0; 4];
        filters.apply(&mut logits, &[]);
        assert_eq!(logits, [0.0, f32::NEG_INFINITY, 0.0, 0.0]);
    }
}
