//! The values that a command carries: from the words that were heard, and from the phrase that they match.
//!
//! Rules, in order:
//! 1. Only slots of the intent, one value each, except that `change_quantity` alone reads signs.
//! 2. A value whose spelling (`core/data/slot_values.tsv`, `numbers.tsv`) is found in the transcript, tolerantly
//!    for long spellings and exactly for short ones; the longest spelling first, and no word is read twice. So
//!    *kɛse paa* is extra large and not large, and *fo* is a low price range under a filter, cheap in a search.
//! 3. Where the transcript says nothing, the matched phrase's own annotation, but only if the word that carries
//!    it there has something like it in the transcript: a phrase about rice that matched a sentence about shoes
//!    must not put rice into the cart.
//!
//! A size before *dodo* is a complaint ("ɛyɛ kɛse dodo": it is too large), not a choice. `product` and `brand`
//! are the shop's own catalogue: here only those of the phrase table are known.

use std::sync::OnceLock;

use serde_json::{Map, Value, json};
use strsim::generic_levenshtein;

use super::normalize::{fold, letters};
use crate::recognition::Slot;

const SLOT_VALUES: &str = include_str!("../../data/slot_values.tsv");
const NUMBERS: &str = include_str!("../../data/numbers.tsv");

/// Longest run of words that is read as one value.
const MAX_WORDS: usize = 6;

/// Words that are looked at in a transcript.
const MAX_TRANSCRIPT_WORDS: usize = 40;

/// The largest number that a shop takes for one.
const MAX_NUMBER: i64 = 999;

/// A spelling of a value.
struct Spelling {
    slot: String,
    value: Value,
    folded: Vec<u8>,
    n_words: usize,
}

struct Tables {
    /// Longest first.
    values: Vec<Spelling>,
    numbers: Vec<Spelling>,
}

fn tables() -> &'static Tables {
    static TABLES: OnceLock<Tables> = OnceLock::new();
    TABLES.get_or_init(|| {
        let rows = |text: &'static str| text.lines().skip(1).map(|line| line.split('\t').collect::<Vec<_>>());
        let spelling = |slot: &str, value: Value, text: &str| Spelling {
            slot: slot.to_owned(),
            value,
            folded: fold(text),
            n_words: text.split_whitespace().count(),
        };
        let mut values: Vec<Spelling> = rows(SLOT_VALUES)
            .filter_map(|row| match row[..] {
                [slot, value, text] => {
                    Some(spelling(slot, value.parse().map_or(json!(value), |n: i64| json!(n)), text))
                }
                _ => None,
            })
            .collect();
        let mut numbers: Vec<Spelling> = rows(NUMBERS)
            .filter_map(|row| match row[..] {
                [value, text] => Some(spelling("number", json!(value.parse::<i64>().ok()?), text)),
                _ => None,
            })
            .collect();
        for table in [&mut values, &mut numbers] {
            table.retain(|s| !s.folded.is_empty());
            table.sort_by_key(|s| std::cmp::Reverse(s.folded.len()));
        }
        Tables { values, numbers }
    })
}

/// A word of the transcript and how it is matched.
struct Word {
    text: String,
    folded: Vec<u8>,
    taken: bool,
}

struct Words(Vec<Word>);

impl Words {
    fn new(text: &str) -> Self {
        let text = letters(text);
        let words = text.split(|c: char| c.is_whitespace() || ",.?!;:\"()-".contains(c)).filter(|w| !w.is_empty());
        Self(
            words
                .take(MAX_TRANSCRIPT_WORDS)
                .map(|w| Word { text: w.to_owned(), folded: fold(w), taken: false })
                .collect(),
        )
    }

    /// The run of free words closest to `folded` of those whose length may be right, with its distance in
    /// edits.
    fn closest(&self, folded: &[u8], n_words: usize, most_edits: usize) -> Option<(usize, usize, usize)> {
        let target = folded.to_vec();
        let mut best: Option<(usize, usize, usize)> = None;
        for start in 0..self.0.len() {
            let mut run: Vec<u8> = Vec::new();
            for (end, word) in self.0.iter().enumerate().skip(start).take(MAX_WORDS.min(n_words + 2)) {
                if word.taken {
                    break;
                }
                run.extend_from_slice(&word.folded);
                run.dedup();
                if run.len() > folded.len() + most_edits {
                    break;
                }
                if run.len() + most_edits < folded.len() {
                    continue;
                }
                let edits = generic_levenshtein(&run, &target);
                if edits <= most_edits && best.is_none_or(|(_, _, least)| edits < least) {
                    best = Some((start, end, edits));
                }
            }
        }
        best
    }

    fn take(&mut self, start: usize, end: usize) -> String {
        let run = &mut self.0[start..=end];
        run.iter_mut().for_each(|w| w.taken = true);
        run.iter().map(|w| w.text.as_str()).collect::<Vec<_>>().join(" ")
    }

    fn next_is(&self, at: usize, folded: &[u8]) -> bool {
        self.0.get(at).is_some_and(|w| w.folded == folded)
    }
}

/// Edits that a spelling may be off: short words must be exact, or every "no" would be a number.
fn tolerance(len: usize) -> usize {
    match len {
        0..=4 => 0,
        5..=8 => 1,
        9..=12 => 2,
        _ => 3,
    }
}

/// Edits that a word may be off where the matched phrase already says which it should be: two in five letters,
/// none in a short one (*two* is not *to*).
fn loosely(len: usize) -> usize {
    if len <= 3 { 0 } else { len * 2 / 5 }
}

/// The slots of a transcript under an intent that allows `allowed`, where `phrase` with `annotation` is the
/// known phrase that it matches.
#[must_use]
pub fn find_slots(transcript: &str, allowed: &[String], phrase: &str, annotation: &Map<String, Value>) -> Vec<Slot> {
    if allowed.is_empty() {
        return Vec::new();
    }
    let mut words = Words::new(transcript);
    let mut slots = Vec::new();
    let allows = |slot: &str| allowed.iter().any(|a| a == slot);
    if allows("delta") {
        slots.extend(find_delta(&mut words, phrase, annotation));
    } else {
        // One spelling may stand for two slots (fo): the intent's first one has it.
        let rank = |slot: &str| allowed.iter().position(|a| a == slot);
        let mut spellings: Vec<(&Spelling, usize)> =
            tables().values.iter().filter_map(|s| Some((s, rank(&s.slot)?))).collect();
        spellings.sort_by_key(|(s, rank)| (std::cmp::Reverse(s.folded.len()), *rank));
        // As written before nearly: "ketewa" is small although extra small, "ketewa paa", is longer.
        for exact in [true, false] {
            for (spelling, _) in &spellings {
                let edits = if exact { 0 } else { tolerance(spelling.folded.len()) };
                find_value(&mut words, spelling, edits, &mut slots);
            }
        }
        if allows("quantity")
            && let Some((value, text)) = find_number(&mut words)
        {
            slots.push(Slot { slot: "quantity".to_owned(), value: json!(value), text });
        }
    }
    for (slot, value) in annotation {
        if allows(slot)
            && slot != "delta"
            && !slots.iter().any(|s| s.slot == *slot)
            && let Some(text) = heard_in(&mut words, phrase, slot, value)
        {
            slots.push(Slot { slot: slot.clone(), value: value.clone(), text });
        }
    }
    slots.sort_by_key(|s| allowed.iter().position(|a| *a == s.slot));
    slots
}

fn find_value(words: &mut Words, spelling: &Spelling, most_edits: usize, slots: &mut Vec<Slot>) {
    if slots.iter().any(|s| s.slot == spelling.slot) {
        return;
    }
    let Some((start, end, _)) = words.closest(&spelling.folded, spelling.n_words, most_edits) else {
        return;
    };
    // A single letter is a size only right after the word.
    if spelling.folded.len() < 2 && !(start > 0 && words.next_is(start - 1, &fold("size"))) {
        return;
    }
    if spelling.slot == "size" && words.next_is(end + 1, &fold("dodo")) {
        words.take(start, end + 1);
        return;
    }
    let text = words.take(start, end);
    slots.push(Slot { slot: spelling.slot.clone(), value: spelling.value.clone(), text });
}

/// A positive number in digits, Twi or English, tens and ones added.
fn find_number(words: &mut Words) -> Option<(i64, String)> {
    let digits =
        words.0.iter().position(|w| !w.taken && w.text.parse::<i64>().is_ok_and(|n| (1..=MAX_NUMBER).contains(&n)));
    if let Some(at) = digits {
        let text = words.take(at, at);
        return Some((text.parse().ok()?, text));
    }
    let (value, text, end) = find_number_word(words, |_| true)?;
    if (20..100).contains(&value)
        && let Some((ones, more, _)) = find_number_word(words, |(start, ones)| start == end + 1 && ones < 10)
    {
        return Some((value + ones, format!("{text} {more}")));
    }
    Some((value, text))
}

fn find_number_word(words: &mut Words, fits: impl Fn((usize, i64)) -> bool) -> Option<(i64, String, usize)> {
    for exact in [true, false] {
        for spelling in &tables().numbers {
            let Some(value) = spelling.value.as_i64().filter(|n| *n > 0) else { continue };
            let edits = if exact { 0 } else { tolerance(spelling.folded.len()) };
            if let Some((start, end, _)) = words.closest(&spelling.folded, spelling.n_words, edits)
                && fits((start, value))
            {
                return Some((value, words.take(start, end), end));
            }
        }
    }
    None
}

/// A signed change: the sign from a cue (*te so*, *less*; *ka ho*, *bio*), or from the phrase, the size from a
/// number, else 1.
fn find_delta(words: &mut Words, phrase: &str, annotation: &Map<String, Value>) -> Option<Slot> {
    let annotated = annotation.get("delta").and_then(Value::as_i64);
    // Cues are read on their own copy: "yi baako so" is a cue that holds its number.
    let heard = words.0.iter().map(|w| w.text.as_str()).collect::<Vec<_>>().join(" ");
    let mut cue_words = Words::new(&heard);
    let cue = tables().values.iter().filter(|s| s.slot == "delta").find_map(|s| {
        let (start, end, _) = cue_words.closest(&s.folded, s.n_words, tolerance(s.folded.len()))?;
        Some((s.value.as_i64()?.signum(), cue_words.take(start, end)))
    });
    let number = find_number(words);
    let sign = cue.as_ref().map(|c| c.0).or(annotated.map(i64::signum))?;
    let same_sign = annotated.filter(|a| a.signum() == sign);
    let size = match (&number, same_sign) {
        (Some((n, _)), _) => *n,
        // The phrase's own number is believed only if a word like its number was heard.
        (None, Some(a)) if a.abs() > 1 => heard_in(words, phrase, "delta", &json!(a.abs())).map_or(1, |_| a.abs()),
        (None, _) => 1,
    };
    let text = match (number, cue) {
        (Some((_, number)), Some((_, cue))) if !cue.contains(&number) => format!("{number} {cue}"),
        (_, Some((_, cue))) => cue,
        (Some((_, number)), None) => number,
        (None, None) => heard,
    };
    Some(Slot { slot: "delta".to_owned(), value: json!(sign * size), text })
}

/// The run of the transcript's words that sounds like the words that carry `value` in `phrase`.
fn heard_in(words: &mut Words, phrase: &str, slot: &str, value: &Value) -> Option<String> {
    let in_phrase = Words::new(phrase);
    let table = if value.is_i64() { &tables().numbers } else { &tables().values };
    let known = table
        .iter()
        .filter(|s| s.value == *value && (s.slot == slot || value.is_i64()))
        .filter(|s| in_phrase.closest(&s.folded, s.n_words, 0).is_some())
        .map(|s| (s.folded.clone(), s.n_words));
    // A product or a brand is annotated in English and may stand in the phrase as it is.
    let as_it_is = value.as_str().map(|v| (fold(v), 1));
    for (folded, n_words) in known.chain(as_it_is) {
        let loose = loosely(folded.len());
        if let Some((start, end, _)) = words.closest(&folded, n_words, loose) {
            return Some(words.take(start, end));
        }
    }
    // Products said in Twi (ɛmo: rice): the phrase's word is not in the tables, the value not in the phrase.
    let product = PRODUCTS.iter().find(|(_, name)| value.as_str() == Some(*name)).map(|(twi, _)| fold(twi))?;
    let loose = loosely(product.len());
    let (start, end, _) = words.closest(&product, 1, loose)?;
    Some(words.take(start, end))
}

/// The Twi words of the phrase table's products.
const PRODUCTS: [(&str, &str); 4] =
    [("mpaboa", "shoes"), ("ɛmo", "rice"), ("asikyire", "sugar"), ("ntadeɛ", "clothes")];

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::intent::labels::{built_in, label_id};

    fn slots(intent: &str, transcript: &str) -> Vec<(String, Value)> {
        slots_like(intent, transcript, "", &json!({}))
    }

    fn slots_like(intent: &str, transcript: &str, phrase: &str, annotation: &Value) -> Vec<(String, Value)> {
        let allowed = &built_in()[label_id(intent).unwrap()].slots;
        find_slots(transcript, allowed, phrase, annotation.as_object().unwrap())
            .into_iter()
            .map(|s| (s.slot, s.value))
            .collect()
    }

    fn one(slot: &str, value: Value) -> Vec<(String, Value)> {
        vec![(slot.to_owned(), value)]
    }

    #[test]
    fn numbers_in_twi_english_and_digits() {
        assert_eq!(slots("set_quantity", "Yɛ no mmiɛnsa"), one("quantity", json!(3)));
        assert_eq!(slots("set_quantity", "yeno miensa"), one("quantity", json!(3)));
        assert_eq!(slots("set_quantity", "Set quantity to 12."), one("quantity", json!(12)));
        assert_eq!(slots("set_quantity", "Make it five ma me"), one("quantity", json!(5)));
        assert_eq!(slots("set_quantity", "Yɛ no aduonu baako"), one("quantity", json!(21)));
        assert_eq!(slots("set_quantity", "Dodow no nyɛ hwee"), vec![]);
        assert_eq!(slots("open_orders", "Kɔ me orders mmienu"), vec![], "only slots of the intent");
    }

    #[test]
    fn a_change_has_a_sign() {
        assert_eq!(slots("change_quantity", "Fa mmienu ka ho"), one("delta", json!(2)));
        assert_eq!(slots("change_quantity", "Yi mmienu firi so"), one("delta", json!(-2)));
        assert_eq!(slots("change_quantity", "Te so kakra"), one("delta", json!(-1)));
        assert_eq!(slots("change_quantity", "Baako bio"), one("delta", json!(1)));
    }

    #[test]
    fn the_longest_spelling_wins() {
        assert_eq!(slots("select_size", "Kɛse paa no na mepɛ"), one("size", json!("xlarge")));
        assert_eq!(slots("change_size", "kɔ extra small"), one("size", json!("xsmall")));
        assert_eq!(slots("select_size", "Size L na mepɛ"), one("size", json!("large")));
        assert_eq!(slots("make_payment", "Fa me Visa card no tua"), one("payment_method", json!("card")));
    }

    #[test]
    fn too_large_is_no_choice() {
        assert_eq!(slots("change_size", "Ɛyɛ kɛse dodo"), vec![]);
        assert_eq!(slots("change_size", "Ɛyɛ ketewa dodo, ma me large"), one("size", json!("large")));
    }

    #[test]
    fn fo_is_a_price_under_a_filter_and_cheap_in_a_search() {
        assert_eq!(slots("apply_filter", "deɛ ne boɔ yɛ fo nko ara"), one("price_range", json!("low")));
        let found = slots("search", "Hwehwɛ mpaboa a ne boɔ yɛ fo");
        assert_eq!(found, vec![("category".to_owned(), json!("shoes")), ("qualifier".to_owned(), json!("cheap"))]);
    }

    #[test]
    fn the_transcript_wins_and_the_phrase_fills_in_what_was_heard() {
        let like = |heard| slots_like("change_size", heard, "Sesa size no kɔ medium", &json!({"size": "medium"}));
        assert_eq!(like("Sesa size no kɔ large"), one("size", json!("large")));
        assert_eq!(like("sesa sais no ko midim"), one("size", json!("medium")));
        assert_eq!(like("sesa sais no ko"), vec![], "nothing like it was heard");
        let two = slots_like("add_to_cart", "add to my cart", "Add two to my cart", &json!({"quantity": 2}));
        assert_eq!(two, vec![]);
        let rice = slots_like(
            "add_to_cart",
            "fa emo to kat no mu",
            "Fa ɛmo no hyɛ me cart no mu",
            &json!({"product": "rice"}),
        );
        assert_eq!(rice, one("product", json!("rice")));
    }

    proptest! {
        #[test]
        fn never_panics(text in any::<String>()) {
            for intent in built_in() {
                let found = find_slots(&text, &intent.slots, &text, &Map::new());
                prop_assert!(found.iter().all(|s| intent.slots.contains(&s.slot)));
            }
        }
    }
}
