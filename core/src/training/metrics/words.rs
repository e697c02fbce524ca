//! How well the words were written down, and the values that were read from them.
//!
//! Word and character error rates as jiwer 4.0 reckons them: Levenshtein edits over the reference's length, summed
//! over the corpus, above 1 where much was made up. Both texts are normalised first: [`letters`] word by word (NFC,
//! lower case, one spelling of look-alikes), everything but letters, digits and apostrophes within a word separates
//! words. Character errors count the spaces between words, as jiwer does.

use std::ops::{Add, AddAssign};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use unicode_normalization::char::is_combining_mark;

use crate::intent::normalize::letters;
use crate::recognition::Slot;

/// Edits and what they are counted against; add those of all clips for a corpus.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EditCounts {
    /// Substitutions, deletions and insertions.
    pub edits: usize,
    /// Words or characters of the reference.
    pub reference: usize,
}

impl EditCounts {
    /// Edits per word or character of the reference.
    #[must_use]
    pub fn rate(&self) -> Option<f64> {
        super::share(self.edits, self.reference)
    }
}

impl Add for EditCounts {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self { edits: self.edits + other.edits, reference: self.reference + other.reference }
    }
}

impl std::iter::Sum for EditCounts {
    fn sum<I: Iterator<Item = Self>>(counts: I) -> Self {
        counts.fold(Self::default(), Self::add)
    }
}

/// The words that are compared.
fn words(text: &str) -> Vec<String> {
    // word by word: `letters` cuts what is longer than a command, and a transcript may be
    let spelt: Vec<String> = text.split_whitespace().map(letters).collect();
    spelt
        .iter()
        .flat_map(|word| word.split(|c: char| !(c.is_alphanumeric() || c == '\'' || is_combining_mark(c))))
        .map(|word| word.trim_matches('\'').to_owned())
        .filter(|word| !word.is_empty())
        .collect()
}

/// Word errors of one clip.
#[must_use]
pub fn word_errors(reference: &str, hypothesis: &str) -> EditCounts {
    let (reference, hypothesis) = (words(reference), words(hypothesis));
    EditCounts { edits: strsim::generic_levenshtein(&reference, &hypothesis), reference: reference.len() }
}

/// Character errors of one clip.
#[must_use]
pub fn character_errors(reference: &str, hypothesis: &str) -> EditCounts {
    let (reference, hypothesis) = (words(reference).join(" "), words(hypothesis).join(" "));
    EditCounts { edits: strsim::levenshtein(&reference, &hypothesis), reference: reference.chars().count() }
}

/// Word error rate over pairs of reference and hypothesis; `None` where the references hold no word.
pub fn word_error_rate<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> Option<f64> {
    pairs.into_iter().map(|(reference, hypothesis)| word_errors(reference, hypothesis)).sum::<EditCounts>().rate()
}

/// Character error rate over pairs of reference and hypothesis; `None` where the references hold none.
pub fn character_error_rate<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> Option<f64> {
    pairs.into_iter().map(|(reference, hypothesis)| character_errors(reference, hypothesis)).sum::<EditCounts>().rate()
}

/// Slots that were asked for, found, and found rightly; add those of all clips for micro averages.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlotCounts {
    /// Found, with the right value.
    pub right: usize,
    /// Found.
    pub found: usize,
    /// In the truth.
    pub expected: usize,
}

impl SlotCounts {
    /// Share of what was found that is right.
    #[must_use]
    pub fn precision(&self) -> Option<f64> {
        super::share(self.right, self.found)
    }

    /// Share of what was to be found that was.
    #[must_use]
    pub fn recall(&self) -> Option<f64> {
        super::share(self.right, self.expected)
    }

    /// Harmonic mean of the two, as `2 · right / (found + expected)`.
    #[must_use]
    pub fn f1(&self) -> Option<f64> {
        super::share(2 * self.right, self.found + self.expected)
    }
}

impl AddAssign for SlotCounts {
    fn add_assign(&mut self, other: Self) {
        self.right += other.right;
        self.found += other.found;
        self.expected += other.expected;
    }
}

impl std::iter::Sum for SlotCounts {
    fn sum<I: Iterator<Item = Self>>(counts: I) -> Self {
        let mut sum = Self::default();
        counts.for_each(|count| sum += count);
        sum
    }
}

/// Slots of one clip. Name and value must be equal: values as JSON, numbers by value (2 is 2.0). A slot that is found
/// twice is right once.
#[must_use]
pub fn slot_counts(expected: &Map<String, Value>, found: &[Slot]) -> SlotCounts {
    let is_right = |(name, value): &(&String, &Value)| {
        found.iter().any(|slot| slot.slot == **name && same_value(&slot.value, value))
    };
    SlotCounts { right: expected.iter().filter(is_right).count(), found: found.len(), expected: expected.len() }
}

fn same_value(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => a == b || a.as_f64() == b.as_f64(),
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same_value(a, b)),
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len() && a.iter().all(|(key, a)| b.get(key).is_some_and(|b| same_value(a, b)))
        }
        _ => a == b,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::super::tests::close;
    use super::*;

    /// Normalised already, since jiwer knows nothing of Twi.
    const PAIRS: [(&str, &str); 4] = [
        ("fa yei to cart no mu", "fa yɛ to kart mu"),
        ("kyerɛ me ntadeɛ", "kyerɛ me me ntadeɛ"),
        ("tua ka", ""),
        ("kɔ me cart so", "kɔ me cart so"),
    ];

    // jiwer 4.0.0: jiwer.wer(references, hypotheses), jiwer.cer(references, hypotheses); process_words counts 6 edits of
    // 15 words, process_characters 15 of 54
    #[test]
    fn rates_are_jiwers() {
        close(word_error_rate(PAIRS), 0.4);
        close(character_error_rate(PAIRS), 0.2777777777777778);
        let sum: EditCounts = PAIRS.iter().map(|(reference, hypothesis)| word_errors(reference, hypothesis)).sum();
        assert_eq!(sum, EditCounts { edits: 6, reference: 15 });
    }

    #[test]
    fn case_punctuation_and_look_alikes_are_no_errors() {
        assert_eq!(word_errors("Fa w’akyi, kɔ!", "fa  W'AKYI kↄ").edits, 0);
        assert_eq!(words("'Kɔ' cart-no mu… 10.50"), ["kɔ", "cart", "no", "mu", "10", "50"]);
        assert_eq!(words("kyerɛ\u{301} me"), ["kyerɛ\u{301}", "me"], "a tone mark is part of its word");
        assert_ne!(word_errors("akyi", "w'akyi").edits, 0);
    }

    #[test]
    fn a_transcript_longer_than_any_command_is_compared_to_its_end() {
        let long = "me ".repeat(400);
        assert_eq!(word_errors("me", &long), EditCounts { edits: 399, reference: 1 });
    }

    #[test]
    fn what_is_made_up_counts_and_nothing_has_no_rate() {
        assert_eq!(word_errors("", "fa yei"), EditCounts { edits: 2, reference: 0 });
        assert_eq!(word_error_rate([("", "fa yei")]), None);
        close(word_error_rate([("", "fa yei"), ("fa", "fa")]), 2.0);
    }

    fn slot(name: &str, value: Value) -> Slot {
        Slot { slot: name.to_owned(), value, text: String::new() }
    }

    fn object(value: Value) -> Map<String, Value> {
        value.as_object().unwrap().clone()
    }

    #[test]
    fn slots_need_name_and_value() {
        let expected = object(json!({"quantity": 2, "product": "kente", "color": "red"}));
        let found = [slot("quantity", json!(2.0)), slot("product", json!("Kente")), slot("size", json!("red"))];
        let got = slot_counts(&expected, &found);
        assert_eq!(got, SlotCounts { right: 1, found: 3, expected: 3 });
        close(got.f1(), 1.0 / 3.0);
        let twice = [slot("quantity", json!(2)), slot("quantity", json!(2))];
        assert_eq!(slot_counts(&expected, &twice), SlotCounts { right: 1, found: 2, expected: 3 });
        assert_eq!(slot_counts(&object(json!({"n": "2"})), &[slot("n", json!(2))]).right, 0);
        assert_eq!(slot_counts(&object(json!({"n": [1, {"a": 1.0}]})), &[slot("n", json!([1.0, {"a": 1}]))]).right, 1);
    }

    #[test]
    fn micro_averages_sum_before_they_divide() {
        let clips = [SlotCounts { right: 1, found: 1, expected: 4 }, SlotCounts { right: 2, found: 4, expected: 2 }];
        let sum: SlotCounts = clips.into_iter().sum();
        close(sum.precision(), 3.0 / 5.0);
        close(sum.recall(), 3.0 / 6.0);
        close(sum.f1(), 6.0 / 11.0);
        assert_eq!(SlotCounts::default().f1(), None);
    }

    proptest! {
        #[test]
        fn a_text_has_no_errors_against_itself(text in any::<String>(), other in "[a-zɛɔ ]{0,40}") {
            prop_assert_eq!(word_errors(&text, &text).edits, 0);
            prop_assert_eq!(character_errors(&text, &text).edits, 0);
            let there = word_errors(&text, &other);
            let back = word_errors(&other, &text);
            prop_assert_eq!(there.edits, back.edits);
            prop_assert!(there.edits >= there.reference.abs_diff(back.reference));
            prop_assert!(there.edits <= there.reference.max(back.reference));
        }
    }
}
