//! Tokens with timestamps to segments, and how far to move on.
//!
//! Follows `openai/whisper` `transcribe.py`: two timestamps in a row close a segment and open the next;
//! a text that ends in a single timestamp says that nothing follows it in this window.

use crate::tokenizer::TIMESTAMP_STEP_S;

/// A piece of a window's tokens with its times inside the window, seconds.
#[derive(Debug, Clone, PartialEq)]
pub struct TimedTokens {
    /// Start inside the window.
    pub start_s: f64,
    /// End inside the window.
    pub end_s: f64,
    /// The tokens, timestamps among them.
    pub tokens: Vec<u32>,
}

/// Cuts a window's tokens into segments.
///
/// `window_s` is the length of sound in the window. The second value is how far to move on, seconds.
#[must_use]
pub fn split_segments(tokens: &[u32], timestamp_begin: u32, window_s: f64) -> (Vec<TimedTokens>, f64) {
    let is_timestamp = |t: u32| t >= timestamp_begin;
    let time = |t: u32| f64::from(t - timestamp_begin) * TIMESTAMP_STEP_S;
    let n = tokens.len();
    let single_ending =
        n >= 2 && is_timestamp(tokens[n - 1]) && !is_timestamp(tokens[n - 2]) || n == 1 && is_timestamp(tokens[0]);
    let mut cuts: Vec<usize> = (1..n).filter(|i| is_timestamp(tokens[i - 1]) && is_timestamp(tokens[*i])).collect();
    if cuts.is_empty() {
        // No pair: one segment, up to its last timestamp where it has one that is not the beginning.
        let end_s =
            tokens.iter().rev().find(|t| is_timestamp(**t)).map(|t| time(*t)).filter(|t| *t > 0.0).unwrap_or(window_s);
        return (vec![TimedTokens { start_s: 0.0, end_s, tokens: tokens.to_vec() }], window_s);
    }
    if single_ending {
        cuts.push(n);
    }
    let mut segments = Vec::new();
    let mut start = 0;
    for cut in &cuts {
        let piece = &tokens[start..*cut];
        let times: Vec<f64> = piece.iter().filter(|t| is_timestamp(**t)).map(|t| time(*t)).collect();
        if let (Some(first), Some(last)) = (times.first(), times.last()) {
            segments.push(TimedTokens { start_s: *first, end_s: *last, tokens: piece.to_vec() });
        }
        start = *cut;
    }
    let advance = if single_ending {
        window_s
    } else {
        // What follows the last pair is not whole: it is heard again from there.
        segments.last().map_or(window_s, |s| s.end_s)
    };
    (segments, advance)
}

#[cfg(test)]
mod tests {
    use super::*;

    const B: u32 = 100; // <|0.00|>

    #[test]
    fn pairs_close_and_open() {
        let tokens = [B, 1, 2, B + 100, B + 100, 3, B + 200];
        let (segments, advance) = split_segments(&tokens, B, 30.0);
        assert_eq!(segments.len(), 2);
        assert_eq!((segments[0].start_s, segments[0].end_s), (0.0, 2.0));
        assert_eq!((segments[1].start_s, segments[1].end_s), (2.0, 4.0));
        assert!((advance - 30.0).abs() < 1e-9, "a single timestamp at the end: nothing follows");
    }

    #[test]
    fn an_open_segment_is_heard_again() {
        let (segments, advance) = split_segments(&[B, 1, B + 100, B + 100, 3, 4], B, 30.0);
        assert_eq!(segments.len(), 1);
        assert!((advance - 2.0).abs() < 1e-9);
    }

    #[test]
    fn without_pairs_it_is_one_segment() {
        for tokens in [vec![], vec![1, 2], vec![B, 1, 2], vec![B, 1, 2, B + 50]] {
            let (segments, advance) = split_segments(&tokens, B, 7.5);
            assert_eq!(segments.len(), 1);
            assert_eq!(segments[0].end_s, if tokens.len() == 4 { 1.0 } else { 7.5 });
            assert!((advance - 7.5).abs() < 1e-9);
        }
    }
}
