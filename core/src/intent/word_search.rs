//! Letters to words: the likeliest words of a [`Lexicon`] for what a head heard.
//!
//! Connectionist temporal classification as a beam search over prefixes (Hannun et al., "First-Pass Large Vocabulary
//! Continuous Speech Recognition using Bi-Directional Recurrent DNNs", 2014), inside of a tree of words: a hypothesis is the
//! words that are finished and a place in the tree. It holds the probability of all paths that spell it, those that end in
//! "none" and those that end in its last letter apart. A finished word adds what the language model thinks of it.

use std::collections::HashMap;

use super::lexicon::{History, Lexicon, ROOT};
use crate::decoding::log_sum_exp;

/// Hypotheses that are kept from position to position.
const BEAM: usize = 48;
/// What the language model counts beside the letters: they are too sure of themselves.
const LANGUAGE_WEIGHT: f32 = 0.5;
/// Added for each word, in natural logarithms: against the language model, which likes few of them.
const WORD_BONUS: f32 = 1.0;
/// Letters that are less likely are not tried; a space may be put in at this price anywhere.
const FLOOR: f32 = -9.0;
/// The class that is no letter.
const NONE: usize = 0;

/// Words that are finished, from the last to the first.
#[derive(Debug, Clone, Copy)]
struct Sequence {
    /// The place of the words before the last.
    before: u32,
    /// The last; `None`: there is no word yet.
    word: Option<u32>,
    history: History,
}

#[derive(Debug, Clone, Copy)]
struct Hypothesis {
    /// Place in the list of sequences.
    sequence: u32,
    /// Place in the lexicon's tree.
    node: u32,
    /// Logarithm of the probability of all paths to here that end in "none".
    none: f32,
    /// Of those that end in the node's letter.
    letter: f32,
    /// What the language model adds.
    language: f32,
}

impl Hypothesis {
    fn key(&self) -> (u32, u32) {
        (self.sequence, self.node)
    }

    fn all(&self) -> f32 {
        log_sum(self.none, self.letter)
    }
}

/// The words that are likeliest, with one space between them; `None` if no path ends with a word.
///
/// # Shapes
/// - scores: `[n_positions, n_classes]`, row by row, before the softmax
pub(super) fn best_words(scores: &[f32], n_classes: usize, lexicon: &Lexicon) -> Option<String> {
    let mut sequences = Sequences::new();
    let mut beam = vec![Hypothesis { sequence: 0, node: ROOT, none: 0.0, letter: f32::NEG_INFINITY, language: 0.0 }];
    let mut row = vec![0.0; n_classes];
    let mut next: Vec<Hypothesis> = Vec::new();
    for scores in scores.chunks_exact(n_classes) {
        let all = log_sum_exp(scores);
        row.iter_mut().zip(scores).for_each(|(to, score)| *to = score - all);
        step(&row, lexicon, &mut sequences, &beam, &mut next);
        if next.len() > BEAM {
            let score = |h: &Hypothesis| h.all() + h.language;
            next.select_nth_unstable_by(BEAM, |a, b| score(b).total_cmp(&score(a)));
            next.truncate(BEAM);
        }
        next.sort_unstable_by_key(Hypothesis::key);
        std::mem::swap(&mut beam, &mut next);
    }
    let finished = beam.iter().filter_map(|hypothesis| {
        let (sequence, language) = match hypothesis.node {
            ROOT => (hypothesis.sequence, hypothesis.language),
            node => {
                let word = lexicon.node(node).word()?;
                (
                    sequences.with(hypothesis.sequence, word),
                    hypothesis.language + sequences.worth(lexicon, hypothesis, word),
                )
            }
        };
        let end = lexicon.log_probability_of_end(sequences.all[sequence as usize].history);
        Some((hypothesis.all() + language + LANGUAGE_WEIGHT * end, sequence))
    });
    let (_, best) = finished.max_by(|a, b| a.0.total_cmp(&b.0))?;
    Some(sequences.text(lexicon, best))
}

/// One position further: every hypothesis stays, and goes on by each letter that may follow. `beam` is sorted by
/// [`Hypothesis::key`].
fn step(row: &[f32], lexicon: &Lexicon, sequences: &mut Sequences, beam: &[Hypothesis], next: &mut Vec<Hypothesis>) {
    next.clear();
    next.extend(beam.iter().map(|hypothesis| {
        // A space behind a space is the same space.
        let from = if hypothesis.node == ROOT { hypothesis.all() } else { hypothesis.letter };
        let letter = from + row[lexicon.node(hypothesis.node).class()];
        Hypothesis { none: hypothesis.all() + row[NONE], letter, ..*hypothesis }
    }));
    let mut reach = |to: Hypothesis| match beam.binary_search_by_key(&to.key(), Hypothesis::key) {
        Ok(at) => next[at].letter = log_sum(next[at].letter, to.letter),
        // Only one hypothesis leads to a place by a letter.
        Err(_) => next.push(to),
    };
    for hypothesis in beam {
        let here = lexicon.node(hypothesis.node);
        let all = hypothesis.all();
        if let Some(word) = here.word() {
            let language = hypothesis.language + sequences.worth(lexicon, hypothesis, word);
            let sequence = sequences.with(hypothesis.sequence, word);
            let letter = all + row[lexicon.node(ROOT).class()].max(FLOOR);
            reach(Hypothesis { sequence, node: ROOT, none: f32::NEG_INFINITY, letter, language });
        }
        for (node, child) in lexicon.children(hypothesis.node).filter(|(_, child)| row[child.class()] >= FLOOR) {
            // The same letter twice has "none" in between.
            let from = if child.class() == here.class() && hypothesis.node != ROOT { hypothesis.none } else { all };
            reach(Hypothesis { node, none: f32::NEG_INFINITY, letter: from + row[child.class()], ..*hypothesis });
        }
    }
}

/// Every sequence of words that was reached, each once.
struct Sequences {
    all: Vec<Sequence>,
    places: HashMap<(u32, u32), u32>,
}

impl Sequences {
    fn new() -> Self {
        Self { all: vec![Sequence { before: 0, word: None, history: History::NONE }], places: HashMap::new() }
    }

    /// The place of a sequence with one more word.
    fn with(&mut self, before: u32, word: u32) -> u32 {
        *self.places.entry((before, word)).or_insert_with(|| {
            let history = self.all[before as usize].history.with(word);
            self.all.push(Sequence { before, word: Some(word), history });
            self.all.len() as u32 - 1
        })
    }

    /// What a word behind a hypothesis' words adds.
    fn worth(&self, lexicon: &Lexicon, hypothesis: &Hypothesis, word: u32) -> f32 {
        let before = self.all[hypothesis.sequence as usize].history;
        LANGUAGE_WEIGHT * lexicon.log_probability(before, word) + WORD_BONUS
    }

    fn text(&self, lexicon: &Lexicon, last: u32) -> String {
        let back = std::iter::successors(Some(&self.all[last as usize]), |sequence| {
            sequence.word.map(|_| &self.all[sequence.before as usize])
        });
        let mut words: Vec<&str> = back.filter_map(|sequence| sequence.word).map(|word| lexicon.word(word)).collect();
        words.reverse();
        words.join(" ")
    }
}

/// `ln(exp(a) + exp(b))`
fn log_sum(a: f32, b: f32) -> f32 {
    let (low, high) = if a < b { (a, b) } else { (b, a) };
    if low == f32::NEG_INFINITY { high } else { high + (low - high).exp().ln_1p() }
}

#[cfg(test)]
mod tests;
