//! When each word was said: the path of the heads whose attention follows time.
//!
//! Follows `openai/whisper` `timing.py` `find_alignment`: softmax over the frames that hold sound,
//! standardised over tokens, a median filter over time, the mean over heads, dynamic time warping.

use super::SpeechModel;
use crate::error::Result;
use crate::tokenizer::{TIMESTAMP_STEP_S, Tokenizer};

/// Frames that the median looks at.
const MEDIAN_WIDTH: usize = 7;

/// A word and its times, seconds.
#[derive(Debug, Clone, PartialEq)]
pub struct Word {
    /// As it stands in the text, with its leading space.
    pub text: String,
    /// Start.
    pub start_s: f64,
    /// End.
    pub end_s: f64,
    pub(crate) n_tokens: usize,
}

impl Word {
    /// A word that was not timed here.
    #[must_use]
    pub fn new(text: &str, start_s: f64, end_s: f64) -> Self {
        Self { text: text.to_owned(), start_s, end_s, n_tokens: 0 }
    }
}

/// Times of the words of `tokens[n_start..]`.
///
/// `tokens` is a whole text with its start sequence; `n_ctx` the encoder positions that hold sound;
/// `offset_s` where the window starts.
///
/// # Errors
/// What the model says.
pub async fn align_words<M: SpeechModel>(
    model: &M,
    tokenizer: &Tokenizer,
    window: &M::Window,
    tokens: &[u32],
    n_start: usize,
    n_ctx: usize,
    offset_s: f64,
) -> Result<Vec<Word>> {
    let text = &tokens[n_start..];
    let words = tokenizer.split_words(text)?;
    let mut closed = tokens.to_vec();
    closed.push(tokenizer.special().eot);
    let heads = model.alignment(window, &closed).await?;
    if heads.is_empty() || n_ctx == 0 {
        return Ok(Vec::new());
    }
    let n_tokens = closed.len();
    let cost = cost_matrix(&heads, n_tokens, n_ctx);
    // A row's attention says where the *next* token is: from the last token of the start sequence to the last
    // of the text.
    let rows = n_start - 1..n_tokens - 1;
    let jumps = token_starts(&cost[rows.start * n_ctx..rows.end * n_ctx], rows.len(), n_ctx);
    let time = |token: usize| offset_s + jumps[token] as f64 * TIMESTAMP_STEP_S;
    let mut out = Vec::new();
    let mut at = 0;
    for (text, of_word) in words {
        out.push(Word { text, start_s: time(at), end_s: time(at + of_word.len()), n_tokens: of_word.len() });
        at += of_word.len();
    }
    Ok(out)
}

/// Minus the mean over heads of the filtered, standardised weights, `[n_tokens, n_ctx]` row-major.
fn cost_matrix(heads: &[Vec<f32>], n_tokens: usize, n_ctx: usize) -> Vec<f32> {
    let mut cost = vec![0.0; n_tokens * n_ctx];
    for weights in heads {
        let n_full = weights.len() / n_tokens;
        let n_heard = n_ctx.min(n_full);
        // Attention that went to the padding does not count: each row sums to 1 over what was heard.
        let shares: Vec<f32> = weights.chunks(n_full).map(|row| row[..n_heard].iter().sum::<f32>().recip()).collect();
        let mut standard = vec![0.0; n_tokens * n_ctx];
        for t in 0..n_heard {
            let column = || (0..n_tokens).map(|i| weights[i * n_full + t] * shares[i]);
            let mean = column().sum::<f32>() / n_tokens as f32;
            let variance = column().map(|w| (w - mean).powi(2)).sum::<f32>() / n_tokens as f32;
            let scale = if variance > 0.0 { variance.sqrt().recip() } else { 0.0 };
            for (i, w) in column().enumerate() {
                standard[i * n_ctx + t] = (w - mean) * scale;
            }
        }
        for (row, out) in standard.chunks(n_ctx).zip(cost.chunks_mut(n_ctx)) {
            for (t, out) in out.iter_mut().enumerate() {
                *out -= median_around(row, t) / heads.len() as f32;
            }
        }
    }
    cost
}

/// The median of the frames around `t`, the row mirrored at its ends.
fn median_around(row: &[f32], t: usize) -> f32 {
    const HALF: usize = MEDIAN_WIDTH / 2;
    if row.len() <= HALF {
        return row[t];
    }
    let mut around = [0.0; MEDIAN_WIDTH];
    for (k, slot) in around.iter_mut().enumerate() {
        let i = (t + k).abs_diff(HALF); // mirrors at the start
        *slot = row[if i < row.len() { i } else { 2 * (row.len() - 1) - i }];
    }
    around.sort_unstable_by(f32::total_cmp);
    around[HALF]
}

/// The frame at which the cheapest monotonic path enters each token, by dynamic time warping.
///
/// `cost` is `[n_tokens, n_ctx]` row-major; the result has one frame a token.
fn token_starts(cost: &[f32], n_tokens: usize, n_ctx: usize) -> Vec<usize> {
    #[derive(Clone, Copy)]
    enum Step {
        Both,
        Token,
        Frame,
    }
    let width = n_ctx + 1;
    let mut total = vec![f32::INFINITY; (n_tokens + 1) * width];
    let mut steps = vec![Step::Frame; (n_tokens + 1) * width];
    total[0] = 0.0;
    for i in 1..=n_tokens {
        for j in 1..=n_ctx {
            let both = total[(i - 1) * width + j - 1];
            let token = total[(i - 1) * width + j];
            let frame = total[i * width + j - 1];
            let (best, step) = if both < token && both < frame {
                (both, Step::Both)
            } else if token < both && token < frame {
                (token, Step::Token)
            } else {
                (frame, Step::Frame)
            };
            total[i * width + j] = cost[(i - 1) * n_ctx + j - 1] + best;
            steps[i * width + j] = step;
        }
    }
    let mut starts = vec![0; n_tokens];
    let (mut i, mut j) = (n_tokens, n_ctx);
    while i > 0 && j > 0 {
        starts[i - 1] = j - 1;
        match steps[i * width + j] {
            Step::Both => {
                i -= 1;
                j -= 1;
            }
            Step::Token => i -= 1,
            Step::Frame => j -= 1,
        }
    }
    starts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_path_follows_a_staircase() {
        // Three tokens, each cheap on its own four frames.
        let cost: Vec<f32> = (0..3).flat_map(|i| (0..12).map(move |t| if t / 4 == i { -1.0 } else { 1.0 })).collect();
        assert_eq!(token_starts(&cost, 3, 12), [0, 4, 8]);
    }

    #[test]
    fn the_median_mirrors_at_the_ends_and_drops_spikes() {
        let row = [9.0, 1.0, 1.0, 1.0, 1.0, 1.0, 5.0, 1.0, 1.0, 1.0];
        assert!((0..10).all(|t| (median_around(&row, t) - 1.0).abs() < 1e-6));
        assert!((median_around(&[3.0, 4.0], 1) - 4.0).abs() < 1e-6);
    }
}
