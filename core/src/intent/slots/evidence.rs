//! How much a stretch of letters speaks for a spelling: the log-likelihood ratio, in hundredths of a nat, of its
//! having been heard from that spelling through [`super::super::channel`] against its being any Twi or English.
//!
//! The stretch is found anywhere in what was heard, across the words that Whisper made of it ("Faba akotokak": *Fa
//! baako to kat*), after Sellers, "The theory and computation of evolutionary distances" (1980). Spellings that come
//! in the order of their letters share the rows of their common beginnings, as in [`SortedTexts`].

use std::sync::OnceLock;

use super::super::channel::{self, CENTINATS, N_SYMBOLS, SortedTexts, symbol};
use super::super::normalize::fold;
use super::super::text_match::PhraseBook;

const SYMBOLS: &[u8; N_SYMBOLS] = b"abcdefghijklmnopqrstuvwxyzCSJ";

/// Costs of the channel with what the heard letter costs anyway taken off.
pub(super) struct Evidence {
    /// `[said][heard]`.
    substitution: Vec<Vec<i32>>,
    insertion: Vec<i32>,
    deletion: Vec<i32>,
}

impl Evidence {
    pub(super) fn built_in() -> &'static Self {
        static EVIDENCE: OnceLock<Evidence> = OnceLock::new();
        EVIDENCE.get_or_init(Self::build)
    }

    fn build() -> Self {
        let (channel, _) = channel::built_in().expect("core/data/text_match.json is checked by a test");
        let background = background();
        // The costs are asked for letter by letter: where to replace is dearer than to drop and to add, the sums of
        // longer texts are the same.
        let letters = SortedTexts::new(SYMBOLS.iter().enumerate().map(|(at, letter)| (at, vec![*letter])));
        let nothing = SortedTexts::new([(0, Vec::new())]);
        let mut substitution = vec![vec![0; N_SYMBOLS]; N_SYMBOLS];
        let mut insertion = vec![0; N_SYMBOLS];
        for (heard, letter) in SYMBOLS.iter().enumerate() {
            for (said, cost) in channel.costs(&letters, &[*letter], N_SYMBOLS).into_iter().enumerate() {
                substitution[said][heard] = cost - background[heard];
            }
            insertion[heard] = channel.costs(&nothing, &[*letter], 1)[0] - background[heard];
        }
        Self { substitution, insertion, deletion: channel.costs(&letters, &[], N_SYMBOLS) }
    }

    /// The evidence of a spelling that is heard letter for letter.
    pub(super) fn of_itself(&self, said: &[u8]) -> i32 {
        -said.iter().map(|s| self.substitution[usize::from(*s)][usize::from(*s)]).sum::<i32>()
    }
}

/// What each letter costs in the shop's phrases.
fn background() -> Vec<i32> {
    let mut counts = [1.0f32; N_SYMBOLS];
    for (_, phrase) in PhraseBook::built_in().phrases() {
        fold(phrase).iter().for_each(|letter| counts[usize::from(symbol(*letter))] += 1.0);
    }
    let sum: f32 = counts.iter().sum();
    counts.iter().map(|count| (-CENTINATS * (count / sum).ln()).round() as i32).collect()
}

/// Where a spelling fits best.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Fit {
    /// Centinats for it.
    pub(super) gain: i32,
    /// Its letters are `start..end` of what was heard.
    pub(super) start: usize,
    pub(super) end: usize,
}

/// Spellings against one run of letters. Letters are those of [`symbol`].
pub(super) struct Search<'a> {
    evidence: &'static Evidence,
    heard: &'a [u8],
    /// Row i: the first i letters of `said` against each end of a stretch; its cost, and where it starts.
    rows: Vec<(i32, usize)>,
    said: Vec<u8>,
}

impl<'a> Search<'a> {
    pub(super) fn new(heard: &'a [u8]) -> Self {
        // A stretch may start anywhere for nothing.
        let rows = (0..=heard.len()).map(|start| (0, start)).collect();
        Self { evidence: Evidence::built_in(), heard, rows, said: Vec::new() }
    }

    /// The best stretch for a spelling.
    pub(super) fn best(&mut self, said: &[u8]) -> Fit {
        let width = self.heard.len() + 1;
        let shared = self.said.iter().zip(said).take_while(|(a, b)| a == b).count();
        self.rows.truncate((shared + 1) * width);
        for letter in &said[shared..] {
            let above = self.rows.len() - width;
            let substitution = &self.evidence.substitution[usize::from(*letter)];
            let deletion = self.evidence.deletion[usize::from(*letter)];
            let mut left = (self.rows[above].0 + deletion, self.rows[above].1);
            self.rows.push(left);
            for (at, heard) in self.heard.iter().enumerate() {
                let heard = usize::from(*heard);
                let (diagonal, up) = (self.rows[above + at], self.rows[above + at + 1]);
                left = (diagonal.0 + substitution[heard], diagonal.1)
                    .min((up.0 + deletion, up.1))
                    .min((left.0 + self.evidence.insertion[heard], left.1));
                self.rows.push(left);
            }
        }
        self.said.clear();
        self.said.extend_from_slice(said);
        let last = &self.rows[self.rows.len() - width..];
        let best = last.iter().enumerate().map(|(end, (cost, start))| (*cost, end, *start)).min();
        let (cost, end, start) = best.expect("a row has an entry for the empty stretch");
        Fit { gain: -cost, start, end }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn codes(text: &str) -> Vec<u8> {
        fold(text).into_iter().map(symbol).collect()
    }

    #[test]
    fn a_word_is_found_inside_others_and_speaks_for_itself() {
        let heard = codes("Faba akotokak no mo");
        let fit = Search::new(&heard).best(&codes("baako"));
        assert_eq!(heard[fit.start..fit.end], codes("bako")[..]);
        assert_eq!(fit.gain, Evidence::built_in().of_itself(&codes("baako")));
        assert!(fit.gain > Search::new(&codes("Ma mempaw no")).best(&codes("baako")).gain);
    }

    proptest! {
        #[test]
        fn shared_beginnings_change_nothing(said in prop::collection::vec("[a-eCSJ]{0,8}", 1..6), heard in "[a-fCSJ]{0,9}") {
            let code = |text: &str| text.bytes().map(symbol).collect::<Vec<u8>>();
            let heard = code(&heard);
            let mut search = Search::new(&heard);
            for said in said {
                let (shared, alone) = (search.best(&code(&said)), Search::new(&heard).best(&code(&said)));
                prop_assert_eq!(shared, alone);
                prop_assert!(shared.start <= shared.end && shared.end <= heard.len());
            }
        }
    }
}
