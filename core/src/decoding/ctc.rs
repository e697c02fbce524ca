//! From log-probabilities a frame to words, for models with a CTC head.
//!
//! [`greedy`] follows `transformers` 5.23 `Wav2Vec2CTCTokenizer.decode` with `output_word_offsets`: the best class of
//! each frame, repeats taken together, blanks dropped, the delimiter read as a space. [`beam`] is prefix beam search
//! (`ctc_beam`), with the times of the likeliest path of what it found.
//!
//! Deviation from the reference: `<s>`, `</s>` and `<unk>` give no text (see [`CtcVocabulary`]). Values that are not
//! finite count as impossible. Pure functions on the host; [`crate::wav2vec2::speech`] brings the numbers.

use super::ctc_beam::{IMPOSSIBLE, Search, possible};
use super::word_timing::Word;
use crate::wav2vec2::vocabulary::CtcVocabulary;

/// The words of a clip.
#[derive(Debug, Clone, PartialEq)]
pub struct CtcText {
    /// All of them, trimmed. Two delimiters with blanks between them stay two spaces, as in the reference.
    pub text: String,
    /// Each with its leading space, from the first frame of its first character to behind the last of its last.
    pub words: Vec<Word>,
    /// Mean log-probability a frame: of the best path ([`greedy`]), or of all paths of the text ([`beam`]). Minus
    /// infinity without frames, or if a frame has no possible class.
    pub avg_logprob: f32,
}

/// A class and the frames that say it, `start..end`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Piece {
    class: usize,
    start: usize,
    end: usize,
}

/// The best class of each frame.
///
/// # Shapes
/// - log_probs: `[n_frames, n_vocab]` row-major, natural logarithms; `frame_s` seconds from one frame to the next
#[must_use]
pub fn greedy(log_probs: &[f32], n_vocab: usize, vocabulary: &CtcVocabulary, frame_s: f64) -> CtcText {
    let mut pieces: Vec<Piece> = Vec::new();
    let mut total = 0.0;
    let mut n_frames = 0;
    for (frame, row) in log_probs.chunks_exact(n_vocab.max(1)).enumerate() {
        // The first of equals, as in the reference; a frame without a possible class says nothing.
        let best = row
            .iter()
            .copied()
            .map(possible)
            .enumerate()
            .fold((vocabulary.blank(), IMPOSSIBLE), |best, x| if x.1 > best.1 { x } else { best });
        total += best.1;
        n_frames = frame + 1;
        match pieces.last_mut() {
            Some(last) if last.class == best.0 => last.end = n_frames,
            _ => pieces.push(Piece { class: best.0, start: frame, end: n_frames }),
        }
    }
    finish(&pieces, vocabulary, frame_s, total, n_frames)
}

/// The likeliest text among the `beam_size` prefixes that are kept at each frame; 0 counts as 1.
///
/// Only the `beam_size + 1` best classes of a frame, and those that prefixes end in, are tried: no other can give one of
/// the `beam_size` best prefixes, so that leaves nothing out. Word times are those of the text's likeliest path.
///
/// # Shapes
/// - log_probs: `[n_frames, n_vocab]` row-major, natural logarithms; `frame_s` seconds from one frame to the next
#[must_use]
pub fn beam(log_probs: &[f32], n_vocab: usize, vocabulary: &CtcVocabulary, frame_s: f64, beam_size: usize) -> CtcText {
    let mut search = Search::new(vocabulary.blank(), beam_size.max(1));
    let mut n_frames = 0;
    for row in log_probs.chunks_exact(n_vocab.max(1)) {
        search.step(&row.iter().copied().map(possible).collect::<Vec<_>>());
        n_frames += 1;
    }
    let (classes, total) = search.best();
    let pieces = align(log_probs, n_vocab, &classes, vocabulary.blank());
    finish(&pieces, vocabulary, frame_s, total, n_frames)
}

/// Text, words and mean of what the frames say.
fn finish(pieces: &[Piece], vocabulary: &CtcVocabulary, frame_s: f64, total: f64, n_frames: usize) -> CtcText {
    let space = vocabulary.space();
    let mut text = String::new();
    let mut words: Vec<Word> = Vec::new();
    let mut in_word = false;
    for piece in pieces {
        let Some(characters) = vocabulary.text_of(piece.class) else { continue };
        text.push_str(characters);
        if characters == space {
            in_word = false;
            continue;
        }
        let end_s = piece.end as f64 * frame_s;
        match words.last_mut() {
            Some(word) if in_word => {
                word.text.push_str(characters);
                word.end_s = end_s;
                word.n_tokens += 1;
            }
            _ => {
                let text = format!("{space}{characters}");
                words.push(Word { text, start_s: piece.start as f64 * frame_s, end_s, n_tokens: 1 });
                in_word = true;
            }
        }
    }
    for word in &mut words {
        word.text = vocabulary.finish_word(&word.text);
    }
    let avg_logprob = if n_frames == 0 { f32::NEG_INFINITY } else { (total / n_frames as f64) as f32 };
    CtcText { text: vocabulary.finish_text(&text), words, avg_logprob }
}

/// The likeliest path that collapses to `classes`, by Viterbi over the classes with blanks between them.
///
/// The steps back are kept for a block of frames at a time, and computed again from a column that was kept at its start:
/// ten minutes would otherwise need half a gigabyte.
fn align(log_probs: &[f32], n_vocab: usize, classes: &[usize], blank: usize) -> Vec<Piece> {
    let rows: Vec<&[f32]> = log_probs.chunks_exact(n_vocab.max(1)).collect();
    if rows.is_empty() || classes.is_empty() {
        return Vec::new();
    }
    let lattice = Lattice { classes, blank };
    let block = rows.len().isqrt().max(1);
    let mut column = vec![IMPOSSIBLE; lattice.n_states()];
    column[0] = 0.0;
    let mut starts = Vec::new();
    for rows in rows.chunks(block) {
        starts.push(column.clone());
        for row in rows {
            column = lattice.step(&column, row, |_, _| {});
        }
    }
    // The last frame is in the last class or in the blank behind it.
    let n = lattice.n_states();
    let mut state = if column[n - 1] > column[n - 2] { n - 1 } else { n - 2 };
    let mut states = vec![0; rows.len()];
    for (i, start) in starts.into_iter().enumerate().rev() {
        let rows = &rows[i * block..rows.len().min((i + 1) * block)];
        let mut steps = vec![0_u8; rows.len() * n];
        let mut column = start;
        for (row, steps) in rows.iter().zip(steps.chunks_exact_mut(n)) {
            column = lattice.step(&column, row, |state, step| steps[state] = step);
        }
        for (t, steps) in steps.chunks_exact(n).enumerate().rev() {
            states[i * block + t] = state;
            state -= usize::from(steps[state]);
        }
    }
    let mut pieces: Vec<Piece> = Vec::new();
    let mut previous = 0;
    for (frame, state) in states.into_iter().enumerate() {
        if let Some(class) = lattice.class(state) {
            match pieces.last_mut() {
                Some(piece) if state == previous => piece.end = frame + 1,
                _ => pieces.push(Piece { class, start: frame, end: frame + 1 }),
            }
        }
        previous = state;
    }
    pieces
}

/// Classes with a blank before, between and behind them: state `2 i + 1` is class `i`, even states are blank.
struct Lattice<'a> {
    classes: &'a [usize],
    blank: usize,
}

/// Instead of minus infinity, so that every text has a likeliest path, however broken the numbers are.
const FLOOR: f64 = -1e9;

impl Lattice<'_> {
    fn n_states(&self) -> usize {
        2 * self.classes.len() + 1
    }

    /// The class of a state; `None` for blank.
    fn class(&self, state: usize) -> Option<usize> {
        (state % 2 == 1).then(|| self.classes[state / 2])
    }

    /// One frame on; tells `keep` by how many states the best path into each state went on.
    fn step(&self, before: &[f64], row: &[f32], mut keep: impl FnMut(usize, u8)) -> Vec<f64> {
        (0..self.n_states())
            .map(|state| {
                let mut best = (before[state], 0);
                if state >= 1 && before[state - 1] > best.0 {
                    best = (before[state - 1], 1);
                }
                // The blank between two classes may be left out, unless they are the same.
                let may_skip = state >= 3 && state % 2 == 1 && self.class(state) != self.class(state - 2);
                if may_skip && before[state - 2] > best.0 {
                    best = (before[state - 2], 2);
                }
                keep(state, best.1);
                let log_prob = row.get(self.class(state).unwrap_or(self.blank)).copied().map_or(IMPOSSIBLE, possible);
                best.0 + log_prob.max(FLOOR)
            })
            .collect()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::collections::HashMap;

    use super::super::ctc_beam::enumerated::{all_paths, collapse, random_rows, score};
    use super::*;
    use crate::wav2vec2::VocabularyFiles;

    /// `<pad>` is blank, `|` a space.
    fn vocabulary() -> CtcVocabulary {
        let vocab = br#"{"<pad>": 0, "a": 1, "b": 2, "|": 3, "<s>": 4}"#;
        CtcVocabulary::new(&VocabularyFiles { vocab, ..VocabularyFiles::default() }, None, None).unwrap().0
    }

    #[test]
    fn the_alignment_is_the_likeliest_path() {
        for seed in 0..60 {
            let (n_frames, n_vocab) = (2 + seed as usize % 6, 2 + seed as usize % 3);
            let log_probs = random_rows(n_frames, n_vocab, 500 + seed);
            let mut best: HashMap<Vec<usize>, (f64, Vec<usize>)> = HashMap::new();
            for path in all_paths(n_frames, n_vocab) {
                let score = score(&path, &log_probs, n_vocab);
                let entry = best.entry(collapse(&path)).or_insert((IMPOSSIBLE, Vec::new()));
                if score > entry.0 {
                    *entry = (score, path);
                }
            }
            for (classes, (_, path)) in best {
                let mut spans: Vec<Piece> = Vec::new();
                for (t, class) in path.iter().copied().enumerate() {
                    match spans.last_mut() {
                        Some(span) if span.class == class => span.end = t + 1,
                        _ => spans.push(Piece { class, start: t, end: t + 1 }),
                    }
                }
                spans.retain(|span| span.class != 0);
                assert_eq!(align(&log_probs, n_vocab, &classes, 0), spans, "seed {seed}: {classes:?}");
            }
        }
    }

    /// The textbook case: blank is the best of both frames, yet `a` is likelier than nothing.
    #[test]
    fn a_text_of_many_paths_beats_the_best_path() {
        let vocabulary = vocabulary();
        let log_probs: Vec<f32> = [0.6_f32, 0.4, 0.6, 0.4].iter().map(|p| p.ln()).collect();
        assert_eq!(greedy(&log_probs, 2, &vocabulary, 0.02).text, "");
        let beam = beam(&log_probs, 2, &vocabulary, 0.02, 2);
        assert_eq!(beam.text, "a");
        assert!((beam.avg_logprob - 0.64_f32.ln() / 2.0).abs() < 1e-6);
    }

    /// Rows that are sure of one class.
    fn sure(path: &[usize]) -> Vec<f32> {
        path.iter().flat_map(|best| (0..5).map(move |class| if class == *best { -0.01 } else { -7.0 })).collect()
    }

    /// Offsets as transformers' `_compute_offsets` and `_get_word_offsets` give them.
    #[test]
    fn words_begin_and_end_with_their_characters() {
        let vocabulary = vocabulary();
        // "aa" needs a blank inside; the delimiter, a blank and a special token are no part of a word.
        let log_probs = sure(&[3, 0, 1, 1, 0, 1, 4, 3, 0, 3, 2, 0, 0]);
        for text in [greedy(&log_probs, 5, &vocabulary, 0.5), beam(&log_probs, 5, &vocabulary, 0.5, 4)] {
            assert_eq!(text.text, "aa  b");
            let words: Vec<(&str, f64, f64)> =
                text.words.iter().map(|w| (w.text.as_str(), w.start_s, w.end_s)).collect();
            assert_eq!(words, [(" aa", 1.0, 3.0), (" b", 5.0, 5.5)]);
        }
    }

    #[test]
    fn broken_numbers_are_an_answer_without_confidence() {
        let vocabulary = vocabulary();
        let mut log_probs = sure(&[1, 0, 2, 2, 3, 1]);
        log_probs[10..15].fill(f32::NAN);
        log_probs[3] = f32::INFINITY;
        log_probs[25..30].fill(f32::NEG_INFINITY);
        let mut texts = vec![greedy(&log_probs, 5, &vocabulary, 0.02)];
        texts.extend((0..9).map(|n| beam(&log_probs, 5, &vocabulary, 0.02, n)));
        texts.push(beam(&log_probs, 5, &vocabulary, 0.02, usize::MAX));
        for text in texts {
            assert_eq!(text.text, "ab");
            assert_eq!(text.avg_logprob, f32::NEG_INFINITY);
        }
        for n_vocab in [0, 1, 5] {
            for none in [greedy(&[], n_vocab, &vocabulary, 0.02), beam(&[], n_vocab, &vocabulary, 0.02, 3)] {
                assert_eq!(none, CtcText { text: String::new(), words: Vec::new(), avg_logprob: f32::NEG_INFINITY });
            }
        }
        // A head that is narrower than its vocabulary, and one without the blank's class.
        assert_eq!(beam(&[0.0, 0.0, 0.0], 1, &vocabulary, 0.02, 3).text, "");
    }

    #[test]
    fn long_clips_align_in_blocks() {
        // 4001 frames of "ab|" over and over, each class for three frames: the blocks' edges fall anywhere.
        let path: Vec<usize> = (0..4001).map(|t| [1, 2, 3][t / 3 % 3]).collect();
        let log_probs = sure(&path);
        let vocabulary = vocabulary();
        assert_eq!(beam(&log_probs, 5, &vocabulary, 1.0, 3).words, greedy(&log_probs, 5, &vocabulary, 1.0).words);
    }
}
