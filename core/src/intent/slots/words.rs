//! The words of a transcript: how each is matched, what its digits say, and which have been read.

use super::super::channel::symbol;
use super::super::normalize::{MAX_FOLDED, fold, letters};
use super::numbers::in_english;

/// Words that are looked at in a transcript.
const MAX_TRANSCRIPT_WORDS: usize = 40;

/// Longest run of words that is read as one value.
pub(super) const MAX_WORDS: usize = 8;

/// What parts words, beside spaces.
const SEPARATORS: &str = ",.?!;:\"()-/–—−…“”*&+[]{}|_";

/// Behind digits: so many of a thing.
const COUNTED: [&str; 13] =
    ["x", "×", "pc", "pcs", "piece", "pieces", "unit", "units", "pack", "packs", "packet", "packets", "items"];

/// Behind digits: how large or how dear a thing is, not how many.
const MEASURES: [&str; 35] = [
    "kg", "kgs", "g", "kilo", "kilos", "gram", "grams", "l", "litre", "litres", "liter", "liters", "ml", "cl", "cm",
    "mm", "inch", "inches", "gb", "mb", "tb", "oz", "lb", "lbs", "percent", "yard", "yards", "cedi", "cedis", "sidi",
    "ghs", "ghc", "pesewa", "pesewas", "%",
];

/// Before digits: a price.
const CURRENCIES: [&str; 4] = ["ghs", "ghc", "gh₵", "₵"];

/// A word.
#[derive(Debug)]
pub(super) struct Word {
    /// As it is shown.
    pub(super) text: String,
    /// As it is matched: folded, its digits kept.
    pub(super) key: Vec<u8>,
    /// Already read as (part of) a value.
    pub(super) taken: bool,
    /// The number of things that its digits say.
    pub(super) count: Option<i64>,
    /// -1 or 1 if the number was written with a sign.
    pub(super) sign: i64,
}

impl Word {
    fn new(text: String, sign: i64) -> Self {
        Self { key: key(&text), count: count(&text), taken: false, sign, text }
    }

    pub(super) fn has_digits(&self) -> bool {
        self.text.bytes().any(|b| b.is_ascii_digit())
    }
}

/// The text as it is matched: as [`fold`] has it, with its digits.
pub(super) fn key(text: &str) -> Vec<u8> {
    let text = letters(text);
    let mut key = Vec::new();
    let mut rest = text.as_str();
    while let Some(first) = rest.chars().next() {
        let end = rest.find(|c: char| c.is_ascii_digit() != first.is_ascii_digit()).unwrap_or(rest.len());
        let (run, more) = rest.split_at(end);
        if first.is_ascii_digit() {
            key.extend_from_slice(run.as_bytes());
        } else {
            append(&mut key, &fold(run));
        }
        rest = more;
    }
    key
}

/// Adds to a folded text. Doubled letters collapse across words too, doubled digits stand.
fn append(key: &mut Vec<u8>, more: &[u8]) {
    for symbol in more {
        if key.last() != Some(symbol) || symbol.is_ascii_digit() {
            key.push(*symbol);
        }
    }
}

/// How many a word in digits says: "12", "1,000", "x2", "2x", "3pcs"; not "5kg", "2.5", "3in1", "15pro".
fn count(text: &str) -> Option<i64> {
    let after_x = text.strip_prefix(['x', '×']);
    let rest = after_x.unwrap_or(text);
    let (digits, unit) = rest.split_at(rest.find(|c: char| !c.is_ascii_digit() && c != ',').unwrap_or(rest.len()));
    let digits = digits.replace(',', "");
    if !(1..=6).contains(&digits.len()) || !(unit.is_empty() || after_x.is_none() && COUNTED.contains(&unit)) {
        return None;
    }
    digits.parse().ok()
}

/// Words with their signs. A full stop or comma inside a number belongs to it.
fn split(text: &str) -> Vec<(String, i64)> {
    let chars: Vec<char> = letters(text).chars().collect();
    let digit = |at: usize| chars.get(at).is_some_and(char::is_ascii_digit);
    let mut words = Vec::new();
    let (mut word, mut sign) = (String::new(), 0);
    for (at, c) in chars.iter().copied().enumerate() {
        let begins = at == 0 || chars[at - 1].is_whitespace();
        let in_number = at > 0
            && digit(at - 1)
            && match c {
                '.' => digit(at + 1),
                ',' => (1..=3).all(|n| digit(at + n)) && !digit(at + 4),
                _ => false,
            };
        if begins && "+-−".contains(c) && digit(at + 1) {
            sign = if c == '+' { 1 } else { -1 };
        } else if in_number || !(c.is_whitespace() || SEPARATORS.contains(c)) {
            word.push(c);
        } else if !word.is_empty() {
            words.push((std::mem::take(&mut word), std::mem::take(&mut sign)));
        }
    }
    if !word.is_empty() {
        words.push((word, sign));
    }
    words
}

/// Free letters that follow each other, and the word that each is from.
#[derive(Debug, Default)]
pub(super) struct Run {
    /// Letters as the channel counts them.
    pub(super) symbols: Vec<u8>,
    pub(super) words: Vec<usize>,
}

/// A transcript, word by word.
#[derive(Debug)]
pub(super) struct Words(pub(super) Vec<Word>);

impl Words {
    pub(super) fn new(text: &str) -> Self {
        let words = split(text).into_iter().take(MAX_TRANSCRIPT_WORDS);
        let mut words: Vec<Word> = words.map(|(text, sign)| Word::new(text, sign)).collect();
        for at in 0..words.len() {
            let measure = words.get(at + 1).is_some_and(|w| MEASURES.contains(&w.text.as_str()));
            let price = at > 0 && CURRENCIES.contains(&words[at - 1].text.as_str());
            if measure || price {
                words[at].count = None;
            }
        }
        Self(words)
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// What the words `start..=end` are matched as.
    pub(super) fn key(&self, start: usize, end: usize) -> Vec<u8> {
        self.key_of(start..=end)
    }

    /// What the words at these places are matched as, one behind the other.
    pub(super) fn key_of(&self, places: impl Iterator<Item = usize>) -> Vec<u8> {
        let mut key = Vec::new();
        places.for_each(|at| append(&mut key, &self.0[at].key));
        key
    }

    /// Every run of free words, with its key.
    pub(super) fn runs(&self) -> Vec<(usize, usize, Vec<u8>)> {
        let mut runs = Vec::new();
        for start in 0..self.len() {
            let mut key = Vec::new();
            for (end, word) in self.0.iter().enumerate().skip(start).take(MAX_WORDS) {
                if word.taken {
                    break;
                }
                append(&mut key, &word.key);
                runs.push((start, end, key.clone()));
            }
        }
        runs
    }

    pub(super) fn is_free(&self, start: usize, end: usize) -> bool {
        self.0[start..=end].iter().all(|word| !word.taken)
    }

    pub(super) fn text(&self, start: usize, end: usize) -> String {
        self.0[start..=end].iter().map(|word| word.text.as_str()).collect::<Vec<_>>().join(" ")
    }

    /// Marks words as read.
    pub(super) fn take(&mut self, start: usize, end: usize) {
        self.0[start..=end].iter_mut().for_each(|word| word.taken = true);
    }

    pub(super) fn is(&self, at: usize, key: &[u8]) -> bool {
        self.0.get(at).is_some_and(|word| word.key == key)
    }

    /// The letters of the free words, at most [`MAX_FOLDED`] in all. Numbers in digits are read out in English.
    pub(super) fn free_letters(&self) -> Vec<Run> {
        let mut runs = vec![Run::default()];
        let mut room = MAX_FOLDED;
        for (at, word) in self.0.iter().enumerate() {
            if word.taken {
                runs.push(Run::default());
                continue;
            }
            let spoken = word.count.and_then(in_english).map(|words| fold(&words));
            let letters = spoken.as_deref().unwrap_or(&word.key).iter().filter(|b| !b.is_ascii_digit());
            let run = runs.last_mut().expect("never empty");
            for symbol in letters.map(|b| symbol(*b)) {
                if room > 0 && run.symbols.last() != Some(&symbol) {
                    run.symbols.push(symbol);
                    run.words.push(at);
                    room -= 1;
                }
            }
        }
        runs.retain(|run| !run.symbols.is_empty());
        runs
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn counts(text: &str) -> Vec<i64> {
        Words::new(text).0.iter().filter_map(|w| w.count).collect()
    }

    #[test]
    fn digits_count_things_but_not_kilos_or_cedis() {
        for (text, n) in [("x2", 2), ("2x", 2), ("3pcs", 3), ("12.", 12), ("1,000", 1000), ("set it to 12, please", 12)]
        {
            assert_eq!(counts(text), [n], "{text}");
        }
        for text in ["5kg", "5 kg", "GHS 20", "20 cedis", "2.5", "3in1", "15pro", "S24", "12345678", "x", "xl"] {
            assert!(counts(text).is_empty(), "{text}");
        }
    }

    #[test]
    fn signs_belong_to_numbers_and_hyphens_part_words() {
        let signs = |text| Words::new(text).0.iter().map(|w| w.sign).collect::<Vec<_>>();
        assert_eq!((signs("-2"), signs("+3 bio"), signs("5-6")), (vec![-1], vec![1, 0], vec![0, 0]));
        assert_eq!(Words::new("twenty-one").len(), 2);
    }

    #[test]
    fn keys_keep_digits_and_do_not_see_spaces() {
        assert_eq!(key("iPhone 15"), b"ifone15");
        assert_eq!(key("iphone15"), b"ifone15");
        assert_eq!(key("7-11"), b"711");
        let words = Words::new("I phone 15");
        assert_eq!(words.key(0, 2), b"ifone15");
    }
}
