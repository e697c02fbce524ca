//! The noisy channel between a phrase and what Whisper writes when it hears it: how often a letter comes out as
//! another, comes from nowhere, or is not heard, as costs in hundredths of a nat.
//!
//! The costs are counts from aligned (phrase, transcript) pairs of synthetic voices, context-free, after Ristad
//! and Yianilos, "Learning string-edit distance" (1998), with one best alignment instead of all.
//! `tests/intent/fit_text_match.py` writes them to `core/data/text_match.json`, with the parameters of
//! [`Confidence`]. Not for languages whose spelling Whisper knows: there the words can be compared.

use serde::Deserialize;

use crate::error::{Error, Result};

const TEXT_MATCH_JSON: &str = include_str!("../../data/text_match.json");
const FILE: &str = "core/data/text_match.json";

/// Symbols of a folded text: `a-z`, `C`, `S`, `J`.
pub const N_SYMBOLS: usize = 29;

/// Costs are integers, hundredths of a nat: the same sums on every platform.
pub const CENTINATS: f32 = 100.0;

/// How sure a match is, from its cost.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
pub struct Confidence {
    /// Divides costs (nats) before the softmax over intents: the channel's letters are not independent.
    pub temperature: f32,
    /// Logistic weights of 1, the best cost per heard symbol (nats), and length (at most 40) / 10.
    pub in_scope: [f32; 3],
    /// When a match is not accepted.
    pub reject: Reject,
}

/// Thresholds; `tests/intent/README.md` states the trade-off that they were chosen for.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
pub struct Reject {
    /// Below this probability of being a command at all: `out_of_scope`.
    pub in_scope_below: f32,
    /// Below this confidence of the best intent: `ambiguous` or `low_confidence`.
    pub confidence_below: f32,
    /// `ambiguous` if the second intent has more than this share of the first's confidence.
    pub ambiguous_above: f32,
}

impl Confidence {
    /// The probability that words of `length` folded symbols, whose cheapest phrase costs `cost` nats, are one
    /// of the shop's commands.
    #[must_use]
    pub fn in_scope(&self, cost: f32, length: f32) -> f32 {
        let [bias, per_symbol, by_length] = self.in_scope;
        let logit = bias + per_symbol * cost / length.max(1.0) + by_length * length.min(40.0) / 10.0;
        1.0 / (1.0 + (-logit).exp())
    }
}

#[derive(Deserialize)]
struct File {
    symbols: String,
    substitution: Vec<Vec<i32>>,
    insertion: Vec<i32>,
    deletion: Vec<i32>,
    #[serde(flatten)]
    confidence: Confidence,
}

/// Edit costs by symbol.
#[derive(Debug, Clone)]
pub struct Channel {
    /// `[said][heard]`.
    substitution: Vec<Vec<i32>>,
    insertion: Vec<i32>,
    deletion: Vec<i32>,
}

/// Place of a folded byte among the symbols.
pub(super) fn symbol(byte: u8) -> u8 {
    match byte {
        b'C' => 26,
        b'S' => 27,
        b'J' => 28,
        letter => letter.saturating_sub(b'a').min(25),
    }
}

/// Reads the fitted file that is part of this crate.
///
/// # Errors
/// [`Error::InvalidConfig`] if its tables have other sizes than [`N_SYMBOLS`] or a cost is out of range.
pub fn built_in() -> Result<(Channel, Confidence)> {
    parse(TEXT_MATCH_JSON)
}

fn parse(json: &str) -> Result<(Channel, Confidence)> {
    let invalid = |reason: String| Error::InvalidConfig { file: FILE.to_owned(), reason };
    let file: File = serde_json::from_str(json).map_err(|e| invalid(e.to_string()))?;
    let tables = || file.substitution.iter().chain([&file.insertion, &file.deletion]);
    if file.substitution.len() != N_SYMBOLS || tables().any(|t| t.len() != N_SYMBOLS) {
        return Err(invalid(format!("a table does not have {N_SYMBOLS} entries")));
    }
    if tables().flatten().any(|c| !(0..=10_000).contains(c)) {
        return Err(invalid("a cost is not between 0 and 100 nats".to_owned()));
    }
    if file.symbols.bytes().map(symbol).ne(0..N_SYMBOLS as u8) {
        return Err(invalid("the symbols are not a-z, C, S, J".to_owned()));
    }
    if file.confidence.temperature.is_nan() || file.confidence.temperature <= 0.0 {
        return Err(invalid("the temperature is not positive".to_owned()));
    }
    let channel = Channel { substitution: file.substitution, insertion: file.insertion, deletion: file.deletion };
    Ok((channel, file.confidence))
}

/// Texts to compare against, sorted so that common beginnings are computed once.
#[derive(Debug, Clone)]
pub struct SortedTexts {
    entries: Vec<Entry>,
    longest: usize,
}

#[derive(Debug, Clone)]
struct Entry {
    symbols: Vec<u8>,
    /// What the text belongs to.
    owner: usize,
    /// How many symbols it begins with that the entry before has too.
    shared: usize,
}

impl SortedTexts {
    /// From (owner, folded text) pairs.
    #[must_use]
    pub fn new(texts: impl IntoIterator<Item = (usize, Vec<u8>)>) -> Self {
        let mut entries: Vec<Entry> = texts
            .into_iter()
            .map(|(owner, text)| Entry { symbols: text.into_iter().map(symbol).collect(), owner, shared: 0 })
            .collect();
        entries.sort_by(|a, b| (&a.symbols, a.owner).cmp(&(&b.symbols, b.owner)));
        entries.dedup_by(|a, b| a.symbols == b.symbols && a.owner == b.owner);
        for at in 1..entries.len() {
            let pairs = entries[at - 1].symbols.iter().zip(&entries[at].symbols);
            entries[at].shared = pairs.take_while(|(a, b)| a == b).count();
        }
        let longest = entries.iter().map(|e| e.symbols.len()).max().unwrap_or(0);
        Self { entries, longest }
    }
}

impl Channel {
    /// The least cost, in centinats, at which each owner's texts are heard as `heard` (folded).
    ///
    /// `n_owners` is one more than the largest owner; an owner without texts costs `i32::MAX`.
    #[must_use]
    pub fn costs(&self, texts: &SortedTexts, heard: &[u8], n_owners: usize) -> Vec<i32> {
        let heard: Vec<usize> = heard.iter().map(|b| usize::from(symbol(*b))).collect();
        let n = heard.len() + 1;
        // What each symbol costs against each place heard, so that the inner loop reads in order.
        let profiles: Vec<Vec<i32>> =
            self.substitution.iter().map(|row| heard.iter().map(|h| row[*h]).collect()).collect();
        // Row i: the first i symbols said, against each beginning of what was heard.
        let mut rows = vec![0i32; (texts.longest + 1) * n];
        for (at, h) in heard.iter().enumerate() {
            rows[at + 1] = rows[at] + self.insertion[*h];
        }
        let gaps = rows[..n].to_vec();
        let mut best = vec![i32::MAX; n_owners];
        for entry in &texts.entries {
            for (at, said) in entry.symbols.iter().enumerate().skip(entry.shared) {
                let (above, below) = rows.split_at_mut((at + 1) * n);
                let said = usize::from(*said);
                next_row(&above[at * n..], &mut below[..n], &profiles[said], self.deletion[said], &gaps);
            }
            let cost = rows[entry.symbols.len() * n + n - 1];
            if let Some(least) = best.get_mut(entry.owner) {
                *least = cost.min(*least);
            }
        }
        best
    }
}

/// `row[j] = min(above[j-1] + substitution, above[j] + deletion, row[j-1] + insertion)`; with the running sums of
/// the insertions taken off, the last term is a running minimum, so the loop before it has no chain.
fn next_row(above: &[i32], row: &mut [i32], profile: &[i32], deletion: i32, gaps: &[i32]) {
    row[0] = above[0] + deletion;
    let places = row[1..].iter_mut().zip(above.iter().zip(&above[1..])).zip(profile.iter().zip(&gaps[1..]));
    for ((cell, (diagonal, up)), (substitution, gap)) in places {
        *cell = (diagonal + substitution).min(up + deletion) - gap;
    }
    let mut least = row[0];
    for (cell, gap) in row[1..].iter_mut().zip(&gaps[1..]) {
        least = least.min(*cell);
        *cell = least + gap;
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The recursion as the textbook has it.
    fn plain_cost(channel: &Channel, said: &[u8], heard: &[u8]) -> i32 {
        let index = |b: &u8| usize::from(symbol(*b));
        let mut rows = vec![vec![0; heard.len() + 1]; said.len() + 1];
        for i in 0..=said.len() {
            for j in 0..=heard.len() {
                let delete = (i > 0).then(|| rows[i - 1][j] + channel.deletion[index(&said[i - 1])]);
                let insert = (j > 0).then(|| rows[i][j - 1] + channel.insertion[index(&heard[j - 1])]);
                let replace = (i > 0 && j > 0)
                    .then(|| rows[i - 1][j - 1] + channel.substitution[index(&said[i - 1])][index(&heard[j - 1])]);
                rows[i][j] = [delete, insert, replace].into_iter().flatten().min().unwrap_or(0);
            }
        }
        rows[said.len()][heard.len()]
    }

    #[test]
    fn a_letter_is_mostly_heard_as_itself() {
        let (channel, _) = built_in().unwrap();
        for (said, row) in
            channel.substitution.iter().enumerate().filter(|(s, _)| b"aeioumnkstf".contains(&(*s as u8 + b'a')))
        {
            assert!(row.iter().enumerate().all(|(heard, cost)| heard == said || *cost > row[said]));
        }
    }

    #[test]
    fn a_broken_file_is_named() {
        let short = TEXT_MATCH_JSON.replacen("\"insertion\": [", "\"insertion\": [1, ", 1);
        assert_eq!(parse(&short).unwrap_err().code(), "invalid_config");
        assert_eq!(parse("{}").unwrap_err().code(), "invalid_config");
    }

    #[test]
    fn an_owner_without_texts_is_never_near() {
        let (channel, _) = built_in().unwrap();
        let costs = channel.costs(&SortedTexts::new([(1, b"fa".to_vec())]), b"fa", 3);
        assert_eq!([costs[0], costs[2]], [i32::MAX; 2]);
        assert!(costs[1] < 300);
        assert!(channel.costs(&SortedTexts::new([]), b"fa", 0).is_empty());
    }

    proptest! {
        #[test]
        fn shared_beginnings_change_nothing(
            said in prop::collection::vec("[a-eCSJ]{0,8}", 1..6),
            heard in "[a-fCSJ]{0,9}",
        ) {
            let (channel, _) = built_in().unwrap();
            let texts = SortedTexts::new(said.iter().enumerate().map(|(at, s)| (at, s.clone().into_bytes())));
            let costs = channel.costs(&texts, heard.as_bytes(), said.len());
            let plain: Vec<i32> = said.iter().map(|s| plain_cost(&channel, s.as_bytes(), heard.as_bytes())).collect();
            prop_assert_eq!(costs, plain);
        }
    }
}
