//! The values that a command carries: from the words that were heard, the shop's catalogue, and the phrase that they
//! match.
//!
//! Rules, in order:
//! 1. Only slots of the intent, one value each.
//! 2. The catalogue's names ([`super::catalogue`]), then the built-in spellings (`core/data/slot_values.tsv`): as they
//!    are written before nearly, longer before shorter, and no word is read twice. So *kɛse paa* is extra large and not
//!    large, and *fo* is a low price range under a filter, cheap in a search. A catalogue's name that is nearly heard
//!    gives way to a built-in value that was said in the same words.
//! 3. Of several values of a slot, the one that is meant: "not red but black".
//! 4. Numbers, where a quantity or a change of one can be said; those inside a catalogue's names are not counted.
//! 5. Where the transcript says nothing, the matched phrase's own annotation, but only if the word that carries
//!    it there has something like it in the transcript: a phrase about rice that matched a sentence about shoes
//!    must not put rice into the cart.
//!
//! A size before *dodo* is a complaint ("ɛyɛ kɛse dodo": it is too large), not a choice.
//!
//! Read in this order: this file; [`words`] (what is read), [`spellings`] (what it is compared with), [`evidence`]
//! (how well that fits), [`contrast`] (which value is meant), [`numbers`], [`delta`].

mod contrast;
mod delta;
mod evidence;
mod numbers;
pub(super) mod spellings;
mod words;

use std::cmp::Reverse;
use std::sync::OnceLock;

use serde_json::{Map, Value, json};

use super::catalogue::Catalogue;
use crate::recognition::Slot;
use contrast::{Candidate, choose, role};
use delta::find_delta;
use numbers::{Number, nearly_number, numbers, spellings_of};
use spellings::{BY_ITSELF, Hit, IN_ITS_PHRASE, Spelling, Spellings};
use words::Words;

const VALUES: &str = include_str!("../../../data/slot_values.tsv");

/// The Twi words of the phrase table's products.
const PRODUCTS: [(&str, &str); 4] =
    [("mpaboa", "shoes"), ("ɛmo", "rice"), ("asikyire", "sugar"), ("ntadeɛ", "clothes")];

/// The rows of a table, without its heading.
fn rows(table: &'static str) -> impl Iterator<Item = Vec<&'static str>> {
    table.lines().skip(1).map(|line| line.split('\t').collect())
}

/// The built-in values. Changes of a quantity are [`delta`]'s.
fn values() -> &'static Spellings {
    static SPELLINGS: OnceLock<Spellings> = OnceLock::new();
    SPELLINGS.get_or_init(|| {
        Spellings::new(rows(VALUES).filter_map(|row| match row[..] {
            [slot, value, text] if slot != "delta" => Some((slot.to_owned(), json!(value), text.to_owned())),
            _ => None,
        }))
    })
}

/// The slots of a transcript under an intent that allows `allowed`, where `phrase` with `annotation` is the
/// known phrase that it matches. Without a catalogue, only the built-in values are known.
#[must_use]
pub fn find_slots(
    transcript: &str,
    allowed: &[String],
    phrase: &str,
    annotation: &Map<String, Value>,
    catalogue: Option<&Catalogue>,
) -> Vec<Slot> {
    let mut finder = Finder { words: Words::new(transcript), allowed, found: Vec::new() };
    if allowed.is_empty() || finder.words.len() == 0 {
        return Vec::new();
    }
    if let Some(catalogue) = catalogue {
        finder.read_catalogue(catalogue.spellings());
    }
    finder.read_values();
    let mut slots = finder.chosen();
    let Finder { mut words, found, .. } = finder;
    let rank = |slot: &str| allowed.iter().position(|a| a == slot);
    let mut said: Vec<usize> = found.iter().map(|(rank, _)| *rank).collect();
    if rank("delta").is_some() {
        slots.extend(find_delta(&words, phrase, annotation));
    }
    if let Some(quantity) = rank("quantity") {
        let candidates = number_candidates(&words);
        let number = choose(&words, &candidates).map(|c| Number { value: c.value, start: c.start, end: c.end });
        let number = number.or_else(|| candidates.is_empty().then(|| nearly_number(&words)).flatten());
        if let Some(Number { value, start, end }) = number {
            words.take(start, end);
            slots.push(Slot { slot: "quantity".to_owned(), value: json!(value), text: words.text(start, end) });
        }
        said.extend((!candidates.is_empty()).then_some(quantity));
    }
    for (slot, value) in annotation {
        // What was refused ("not red") the phrase does not bring back.
        let is_open = rank(slot).is_some_and(|rank| !said.contains(&rank)) && slot != "delta";
        if is_open
            && !slots.iter().any(|s| s.slot == *slot)
            && let Some((start, end)) = heard_in(&words, phrase, slot, value)
        {
            words.take(start, end);
            slots.push(Slot { slot: slot.clone(), value: value.clone(), text: words.text(start, end) });
        }
    }
    slots.sort_by_key(|s| rank(&s.slot));
    slots
}

/// The values found so far.
struct Finder<'a> {
    words: Words,
    allowed: &'a [String],
    /// With the place of their slot in `allowed`.
    found: Vec<(usize, Candidate<Value>)>,
}

impl Finder<'_> {
    fn rank(&self, spelling: &Spelling) -> Option<usize> {
        self.allowed.iter().position(|a| *a == spelling.slot)
    }

    /// Whether no value of the spelling's slot is found yet that stands by itself.
    fn is_open(&self, spelling: &Spelling) -> bool {
        let rank = self.rank(spelling);
        !self.found.iter().any(|(other, candidate)| Some(*other) == rank && candidate.role.is_sure())
    }

    fn read_catalogue(&mut self, shop: &Spellings) {
        let counts = self.allowed.iter().any(|slot| ["quantity", "delta"].contains(&slot.as_str()));
        let hides = |spelling: &Spelling| counts && !spelling.figures.is_empty() && !spelling.is_number;
        self.read_written(shop, |this, spelling| this.rank(spelling).is_some() || hides(spelling));
        let values = values().said(&self.words, |spelling| self.rank(spelling));
        let wanted = |spelling: &Spelling| hides(spelling) || self.rank(spelling).is_some() && self.is_open(spelling);
        for hit in shop.nearly(&self.words, wanted, BY_ITSELF) {
            if !values.iter().any(|value| wins(value, &hit)) && self.is_open(hit.spelling) {
                self.accept(hit);
            }
        }
    }

    fn read_values(&mut self) {
        self.read_written(values(), |this, spelling| this.rank(spelling).is_some());
        let wanted = |spelling: &Spelling| self.rank(spelling).is_some() && self.is_open(spelling);
        for hit in values().nearly(&self.words, wanted, BY_ITSELF) {
            if self.is_open(hit.spelling) {
                self.accept(hit);
            }
        }
    }

    fn read_written(&mut self, spellings: &Spellings, wanted: impl Fn(&Self, &Spelling) -> bool) {
        // What is wanted without a slot of the intent stands behind all that has one; it is only passed over.
        let rank = |spelling: &Spelling| self.rank(spelling).unwrap_or(usize::MAX);
        let mut hits = spellings.said(&self.words, |spelling| wanted(self, spelling).then(|| rank(spelling)));
        // One spelling may stand for two slots (fo): the intent's first one has it.
        hits.sort_by_key(|hit| (Reverse(hit.spelling.key.len()), rank(hit.spelling)));
        for hit in hits {
            self.accept(hit);
        }
    }

    /// Reads the words of a hit, if they are free and mean what they say.
    fn accept(&mut self, hit: Hit<'_>) {
        let Hit { spelling, start, end, .. } = hit;
        if !self.words.is_free(start, end) {
            return;
        }
        let Some(rank) = self.rank(spelling) else {
            // A name of another slot that holds a number: it is not counted.
            self.words.take(start, end);
            return;
        };
        // A single letter is a size only right after the word.
        if spelling.key.len() < 2 && !spelling.is_number && !(start > 0 && self.words.is(start - 1, b"size")) {
            return;
        }
        if spelling.slot == "size" && self.words.is(end + 1, b"dodo") {
            self.words.take(start, end + 1);
            return;
        }
        self.words.take(start, end);
        let role = role(&self.words, start, end);
        self.found.push((rank, Candidate { value: spelling.value.clone(), start, end, role }));
    }

    /// The value of each slot that is meant.
    fn chosen(&self) -> Vec<Slot> {
        let of_slot = |rank: usize| -> Vec<Candidate<Value>> {
            self.found.iter().filter(|(other, _)| *other == rank).map(|(_, candidate)| candidate.clone()).collect()
        };
        let chosen = self.allowed.iter().enumerate().filter_map(|(rank, slot)| {
            let candidates = of_slot(rank);
            let Candidate { value, start, end, .. } = choose(&self.words, &candidates)?;
            Some(Slot { slot: slot.clone(), value: value.clone(), text: self.words.text(*start, *end) })
        });
        chosen.collect()
    }
}

/// Whether a built-in value as it is written stands against a name that is nearly heard: where they share words, unless
/// the name has more.
fn wins(value: &Hit<'_>, name: &Hit<'_>) -> bool {
    let shares = value.start <= name.end && name.start <= value.end && value.spelling.key.len() > 1;
    let inside = name.start <= value.start && value.end <= name.end && value.end - value.start < name.end - name.start;
    shares && !inside
}

/// The numbers of the free words, as what may be meant.
fn number_candidates(words: &Words) -> Vec<Candidate<i64>> {
    let candidate =
        |n: Number| Candidate { value: n.value, start: n.start, end: n.end, role: role(words, n.start, n.end) };
    numbers(words).into_iter().map(candidate).collect()
}

/// The words that sound like those that carry `value` in `phrase`.
fn heard_in(words: &Words, phrase: &str, slot: &str, value: &Value) -> Option<(usize, usize)> {
    let in_phrase = Words::new(phrase).runs();
    let known: Vec<&str> = match value.as_i64() {
        Some(number) => spellings_of(number).collect(),
        None => rows(VALUES)
            .filter_map(|row| match row[..] {
                [of, v, text] if of == slot && value.as_str() == Some(v) => Some(text),
                _ => None,
            })
            .collect(),
    };
    let carries = known.into_iter().map(|text| (words::key(text).len(), text));
    let carries = carries.filter(|(_, text)| in_phrase.iter().any(|(_, _, key)| *key == words::key(text)));
    let longest = carries.max_by_key(|(len, _)| *len).map(|(_, text)| text);
    // A product or a brand is annotated in English and may stand in the phrase as it is, or in Twi.
    let in_twi = PRODUCTS.iter().filter(|(_, name)| value.as_str() == Some(*name)).map(|(twi, _)| *twi);
    let texts = longest.into_iter().chain(value.as_str()).chain(in_twi);
    let spellings = Spellings::new(texts.map(|text| (slot.to_owned(), value.clone(), text.to_owned())));
    let written = spellings.said(words, |_| Some(0)).first().copied();
    let hit = written.or_else(|| spellings.nearly(words, |_| true, IN_ITS_PHRASE).first().copied())?;
    Some((hit.start, hit.end))
}

#[cfg(test)]
mod tests;
