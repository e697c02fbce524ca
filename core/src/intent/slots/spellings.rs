//! Spellings of values, looked up in the words of a transcript: as they are written, and by the evidence that the
//! letters give for them.
//!
//! Nearly is not a number of edits: a spelling is heard nearly if the evidence for it ([`super::evidence`]) outweighs
//! the number of places and spellings that were tried, and is no small part of what the whole spelling would give
//! ([`Bar`]). Short words thus never are. Digits cannot be heard nearly.

use std::collections::{HashMap, HashSet};

use serde_json::Value;

use super::super::channel::{CENTINATS, symbol};
use super::evidence::{Evidence, Fit, Search};
use super::numbers::{figures, is_number};
use super::words::{Run, Words};

/// How much evidence is enough.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bar {
    /// Places and spellings that count as tried, however few there are: the language has other words too.
    least_tried: usize,
    /// What the evidence must have beyond their number, in centinats.
    margin: i32,
    /// The share of a spelling's full evidence that must be there.
    share: f32,
    /// Letters that a spelling must have: "to" is not *two*.
    least_letters: usize,
}

/// For a value that nothing but the words speaks for: odds of 20 to 1. At a share of a half, *ahosuo* (colour) is
/// *ankaa ahosuo* (orange).
pub(super) const BY_ITSELF: Bar = Bar { least_tried: 1000, margin: 300, share: 0.6, least_letters: 0 };

/// For the value of the phrase that was matched: even odds.
pub(super) const IN_ITS_PHRASE: Bar = Bar { least_tried: 1, margin: 0, share: 0.3, least_letters: 4 };

/// One way to say a value.
#[derive(Debug)]
pub(in crate::intent) struct Spelling {
    pub(in crate::intent) slot: String,
    pub(in crate::intent) value: Value,
    /// What its words are matched as.
    pub(in crate::intent) key: Vec<u8>,
    /// What it says in numbers; these must be said exactly.
    pub(in crate::intent) figures: Vec<i64>,
    /// A number and nothing else, such as a shoe's size.
    pub(super) is_number: bool,
    /// Its letters as the channel counts them.
    symbols: Vec<u8>,
    /// The evidence of all its letters.
    full: i32,
    /// Its place in the list.
    order: usize,
}

impl Spelling {
    fn new(slot: String, value: Value, text: &str, order: usize) -> Option<Self> {
        let words = Words::new(text);
        let last = words.len().checked_sub(1)?;
        let key = words.key(0, last);
        let symbols: Vec<u8> = words.free_letters().into_iter().flat_map(|run| run.symbols).collect();
        let full = Evidence::built_in().of_itself(&symbols);
        let is_number = key.iter().all(u8::is_ascii_digit) || is_number(&words);
        let figures = figures(&words, 0, last);
        (!key.is_empty()).then_some(Self { slot, value, key, figures, is_number, symbols, full, order })
    }
}

/// A spelling found in the words `start..=end`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Hit<'a> {
    pub(super) spelling: &'a Spelling,
    pub(super) start: usize,
    pub(super) end: usize,
    /// The evidence, centinats; 0 for what is there as it is written.
    pub(super) gain: i32,
}

/// Many spellings.
#[derive(Debug, Default)]
pub(in crate::intent) struct Spellings {
    /// In the order of their letters, so that beginnings are shared.
    sorted: Vec<Spelling>,
    /// Places in `sorted`, first come first.
    by_key: HashMap<Vec<u8>, Vec<usize>>,
}

impl Spellings {
    /// From (slot, value, text); texts in which nothing can be matched are left out.
    pub(in crate::intent) fn new(rows: impl IntoIterator<Item = (String, Value, String)>) -> Self {
        let rows = rows.into_iter().enumerate();
        let mut sorted: Vec<Spelling> =
            rows.filter_map(|(order, (slot, value, text))| Spelling::new(slot, value, &text, order)).collect();
        sorted.sort_by(|a, b| (&a.symbols, a.order).cmp(&(&b.symbols, b.order)));
        let mut by_key: HashMap<Vec<u8>, Vec<usize>> = HashMap::new();
        for (at, spelling) in sorted.iter().enumerate() {
            by_key.entry(spelling.key.clone()).or_default().push(at);
        }
        by_key.values_mut().for_each(|places| places.sort_by_key(|at| sorted[*at].order));
        Self { sorted, by_key }
    }

    /// The first spelling that is matched as this.
    pub(super) fn first(&self, key: &[u8]) -> Option<&Spelling> {
        self.by_key.get(key)?.first().map(|at| &self.sorted[*at])
    }

    /// The spellings that are there as they are written and have a `rank`, the longest first, then as they come in the
    /// list. Where several of one rank are matched as the same, the first is meant: a shop may call all that it has by one
    /// name, and a customer may say nothing but that name.
    pub(super) fn said(&self, words: &Words, rank: impl Fn(&Spelling) -> Option<usize>) -> Vec<Hit<'_>> {
        // Each name is looked through once, however often it is said.
        let mut meant: HashMap<Vec<u8>, Vec<&Spelling>> = HashMap::new();
        let mut hits = Vec::new();
        for (start, end, key) in words.runs() {
            let found = meant.entry(key).or_insert_with_key(|key| self.meant(key, &rank));
            hits.extend(found.iter().copied().map(|spelling| Hit { spelling, start, end, gain: 0 }));
        }
        hits.sort_by_key(|hit| (std::cmp::Reverse(hit.spelling.key.len()), hit.start, hit.spelling.order));
        hits
    }

    /// The first spelling of each rank that is matched as this. Numbers are apart: what is read of a single letter depends
    /// on whether it is one.
    fn meant(&self, key: &[u8], rank: impl Fn(&Spelling) -> Option<usize>) -> Vec<&Spelling> {
        let places = self.by_key.get(key).map_or(&[][..], Vec::as_slice);
        let mut seen = HashSet::new();
        let is_first =
            |spelling: &&Spelling| rank(spelling).is_some_and(|rank| seen.insert((rank, spelling.is_number)));
        places.iter().map(|at| &self.sorted[*at]).filter(is_first).collect()
    }

    /// The wanted spellings that the free letters speak for, the best first.
    pub(super) fn nearly(&self, words: &Words, wanted: impl Fn(&Spelling) -> bool, bar: Bar) -> Vec<Hit<'_>> {
        let runs = words.free_letters();
        let wanted: Vec<&Spelling> = self.sorted.iter().filter(|spelling| wanted(spelling)).collect();
        let tried = wanted.len() * runs.iter().map(|run| run.symbols.len()).sum::<usize>();
        let least = (CENTINATS * (tried.max(bar.least_tried) as f32).ln()) as i32 + bar.margin;
        let mut hits = Vec::new();
        for run in &runs {
            let mut search = Search::new(&run.symbols);
            let long_enough = |spelling: &&Spelling| spelling.symbols.len() >= bar.least_letters;
            for spelling in wanted.iter().copied().filter(long_enough).filter(|spelling| spelling.full >= least) {
                let fit = search.best(&spelling.symbols);
                if fit.gain < least || (fit.gain as f32) < bar.share * spelling.full as f32 || fit.start >= fit.end {
                    continue;
                }
                let (start, end) = (first_word(words, run, fit), run.words[fit.end - 1]);
                if spelling.is_number || figures(words, start, end) == spelling.figures {
                    hits.push(Hit { spelling, start, end, gain: fit.gain });
                }
            }
        }
        hits.sort_by_key(|hit| (std::cmp::Reverse(hit.gain), hit.start, hit.spelling.order));
        hits
    }
}

/// The word in which a fit starts. Of a letter that ends one word and begins the next only the first is kept ("two
/// oranges"): where the fit goes on in the next word, it starts there.
fn first_word(words: &Words, run: &Run, fit: Fit) -> usize {
    let first = run.words[fit.start];
    let next = run.words[fit.start..fit.end].get(1).copied().filter(|next| *next > first);
    let begins = |at: &usize| words.0[*at].key.first().map(|b| symbol(*b)) == Some(run.symbols[fit.start]);
    next.filter(begins).unwrap_or(first)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::json;

    use super::*;

    fn shop(names: &[&str]) -> Spellings {
        Spellings::new(names.iter().map(|name| ("product".to_owned(), json!(name), (*name).to_owned())))
    }

    fn nearly(shop: &Spellings, text: &str) -> Option<Value> {
        let hits = shop.nearly(&Words::new(text), |_| true, BY_ITSELF);
        hits.first().map(|hit| hit.spelling.value.clone())
    }

    #[test]
    fn the_longest_comes_first() {
        let shop = shop(&["rice", "jasmine rice", "Jasmine"]);
        let words = Words::new("fa jasmine rice no");
        let found: Vec<&Value> = shop.said(&words, |_| Some(0)).iter().map(|hit| &hit.spelling.value).collect();
        assert_eq!(found, [&json!("jasmine rice"), &json!("Jasmine"), &json!("rice")]);
    }

    /// Each of 20,000 values was once a hit each time that their name was said: millions.
    #[test]
    fn a_name_of_very_many_values_is_one_hit_each_time_it_is_said() {
        let rows = (0..20_000).map(|i| (["product", "brand"][i % 2].to_owned(), json!(i), "rice".to_owned()));
        let shop = Spellings::new(rows);
        let words = Words::new(&"rice ".repeat(40));
        let rank = |spelling: &Spelling| ["brand", "product"].iter().position(|slot| *slot == spelling.slot);
        let hits = shop.said(&words, rank);
        assert_eq!(hits.len(), 2 * 40);
        assert!(hits.iter().all(|hit| [json!(0), json!(1)].contains(&hit.spelling.value)), "the first of each slot");
        assert_eq!(hits[0].spelling.value, json!(0), "as they come in the list");
        // Letters that are said twice are one, so that each run of such words is the name.
        let shop = Spellings::new((0..20_000).map(|i| ("size".to_owned(), json!(i), "l".to_owned())));
        let words = Words::new(&"l ".repeat(40));
        assert_eq!(shop.said(&words, |_| Some(0)).len(), words.runs().len());
        assert!(shop.said(&words, |_| None).is_empty());
    }

    #[test]
    fn another_number_is_another_thing() {
        let shop = shop(&["iPhone 15", "Galaxy S24"]);
        assert_eq!(nearly(&shop, "fa iphone fifteen no ma me"), Some(json!("iPhone 15")));
        assert_eq!(nearly(&shop, "fa ifone 15 no ma me"), Some(json!("iPhone 15")));
        assert_eq!(nearly(&shop, "fa iphone fourteen no ma me"), None);
        assert_eq!(nearly(&shop, "fa iphone 14 no ma me"), None);
        assert_eq!(nearly(&shop, "galaxy s23"), None);
        assert_eq!(
            nearly(&Spellings::new([("product".to_owned(), json!("oranges"), "oranges".to_owned())]), "fa two oranzes"),
            Some(json!("oranges"))
        );
    }

    #[test]
    fn a_short_name_is_never_nearly_heard() {
        assert_eq!(nearly(&shop(&["ɛmo", "fo"]), "emu fu ni"), None);
    }
}
