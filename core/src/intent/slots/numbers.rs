//! Numbers in Twi and English words and in digits: *aduonu baako*, "two hundred and fifty", "half a dozen", "x2".
//!
//! A number is read word by word, as far as the words add up to one. "A pair of" is how shoes are counted and so one;
//! a pair by itself is two. Not for fractions, ordinals and prices.

use std::collections::HashMap;
use std::sync::OnceLock;

use serde_json::json;

use super::spellings::{BY_ITSELF, Spellings};
use super::words::{Word, Words};

const NUMBERS: &str = include_str!("../../../data/numbers.tsv");

/// The largest number that a shop takes for one.
const MAX_NUMBER: i64 = 9_999;

/// A transcript with more numbers than this is a decoder that has lost its place ("3, 4, 5, 5, 5, 5").
const MAX_NUMBERS: usize = 3;

/// Most words of one step of a number.
const MAX_STEP_WORDS: usize = 3;

const ONES: [&str; 20] = [
    "",
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "eleven",
    "twelve",
    "thirteen",
    "fourteen",
    "fifteen",
    "sixteen",
    "seventeen",
    "eighteen",
    "nineteen",
];
const TENS: [&str; 10] = ["", "", "twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"];

/// One step of a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Digits(i64),
    /// A number, added to what is before it if the two fit.
    Plain(i64),
    /// Twi *du*, after which ones follow.
    Du,
    /// Multiplies what is before it, else stands for itself: hundred, dozen.
    Times(i64),
    /// Is multiplied by what comes after it: *aha* mmienu. By itself *aha* is "here".
    Of(i64),
    Pair,
}

/// Beyond `core/data/numbers.tsv`, and over it.
const STEPS: [(&str, Step); 32] = [
    ("du", Step::Du),
    ("edu", Step::Du),
    ("aha", Step::Of(100)),
    ("ahanu", Step::Plain(200)),
    ("ahasa", Step::Plain(300)),
    ("ahanan", Step::Plain(400)),
    ("ahanum", Step::Plain(500)),
    ("ahansia", Step::Plain(600)),
    ("ahanson", Step::Plain(700)),
    ("ahanwɔtwe", Step::Plain(800)),
    ("ahankron", Step::Plain(900)),
    ("apem", Step::Plain(1000)),
    ("apem baako", Step::Plain(1000)),
    ("mpem", Step::Of(1000)),
    ("hundred", Step::Times(100)),
    ("hundreds", Step::Times(100)),
    ("a hundred", Step::Plain(100)),
    ("thousand", Step::Times(1000)),
    ("thousands", Step::Times(1000)),
    ("a thousand", Step::Plain(1000)),
    ("dozen", Step::Times(12)),
    ("dozens", Step::Times(12)),
    ("a dozen", Step::Plain(12)),
    ("half dozen", Step::Plain(6)),
    ("half a dozen", Step::Plain(6)),
    ("couple", Step::Times(2)),
    ("a couple", Step::Plain(2)),
    ("couple of", Step::Times(2)),
    ("a couple of", Step::Plain(2)),
    ("pair", Step::Pair),
    ("pairs", Step::Pair),
    ("a pair", Step::Pair),
];

/// Between the steps of a number.
const AND: [&[u8]; 2] = [b"and", b"ne"];

fn rows() -> impl Iterator<Item = (i64, &'static str)> {
    NUMBERS.lines().skip(1).filter_map(|line| {
        let (value, text) = line.split_once('\t')?;
        Some((value.parse().ok().filter(|n| *n > 0)?, text))
    })
}

fn steps() -> &'static HashMap<Vec<u8>, Step> {
    static STEP_OF: OnceLock<HashMap<Vec<u8>, Step>> = OnceLock::new();
    STEP_OF.get_or_init(|| {
        let written = rows().map(|(value, text)| (text, Step::Plain(value)));
        written.chain(STEPS).map(|(text, step)| (super::words::key(text), step)).collect()
    })
}

/// Every spelling of every number of the table.
pub(super) fn spellings_of(value: i64) -> impl Iterator<Item = &'static str> {
    rows().filter(move |(n, _)| *n == value).map(|(_, text)| text)
}

/// Numbers of one word, to be heard nearly.
fn nearly() -> &'static Spellings {
    static NEARLY: OnceLock<Spellings> = OnceLock::new();
    NEARLY.get_or_init(|| {
        let one_word = rows().filter(|(_, text)| !text.contains(' '));
        Spellings::new(one_word.map(|(value, text)| ("number".to_owned(), json!(value), text.to_owned())))
    })
}

/// A number up to 100 in English.
pub(super) fn in_english(n: i64) -> Option<String> {
    let n = usize::try_from(n).ok()?;
    match n {
        1..=19 => Some(ONES[n].to_owned()),
        20..=99 => Some(format!("{} {}", TENS[n / 10], ONES[n % 10]).trim_end().to_owned()),
        100 => Some("hundred".to_owned()),
        _ => None,
    }
}

/// A number, and its words `start..=end`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Number {
    pub(super) value: i64,
    pub(super) start: usize,
    pub(super) end: usize,
}

/// The free words' numbers, in their order; none at all if there are more than a command can have.
pub(super) fn numbers(words: &Words) -> Vec<Number> {
    let mut numbers = Vec::new();
    let mut at = 0;
    while at < words.len() {
        match number_at(words, at, words.len() - 1) {
            Some(number) => {
                at = number.end + 1;
                numbers.push(number);
            }
            None => at += 1,
        }
    }
    if numbers.len() > MAX_NUMBERS { Vec::new() } else { numbers }
}

/// A number that is nearly heard; for transcripts in which none was found as it is written.
pub(super) fn nearly_number(words: &Words) -> Option<Number> {
    if words.0.iter().any(Word::has_digits) {
        return None;
    }
    let hits = nearly().nearly(words, |_| true, BY_ITSELF);
    let hit = hits.first()?;
    let (value, start, end) = (hit.spelling.value.as_i64()?, hit.start, hit.end);
    let ones = ((20..100).contains(&value) && end + 1 < words.len())
        .then(|| number_at(words, end + 1, words.len() - 1))
        .flatten()
        .filter(|ones| ones.value < 10);
    Some(ones.map_or(Number { value, start, end }, |ones| Number { value: value + ones.value, start, end: ones.end }))
}

/// All that the words `start..=end` say in numbers, digits in names and sizes included.
pub(super) fn figures(words: &Words, start: usize, end: usize) -> Vec<i64> {
    let mut figures = Vec::new();
    let mut at = start;
    while at <= end {
        let word = &words.0[at];
        if word.has_digits() {
            let runs = word.text.split(|c: char| !c.is_ascii_digit()).filter(|run| !run.is_empty());
            figures.extend(runs.map(|run| run.parse().unwrap_or(i64::MAX)));
        } else if let Some(number) = number_at(words, at, end) {
            figures.push(number.value);
            at = number.end;
        }
        at += 1;
    }
    figures
}

/// Whether the words are one number and nothing else.
pub(super) fn is_number(words: &Words) -> bool {
    let last = words.len().checked_sub(1);
    last.is_some_and(|last| number_at(words, 0, last).is_some_and(|number| number.end == last))
}

/// The longest number that begins at a word and ends at `last` or before.
fn number_at(words: &Words, start: usize, last: usize) -> Option<Number> {
    let (mut thousands, mut rest): (i64, i64) = (0, 0);
    let mut end: Option<usize> = None;
    // What came before, where it rules what may follow.
    let (mut after_digits, mut after_du) = (false, false);
    let mut multiplied: Option<i64> = None;
    let mut before_multiplied = (None, 0);
    loop {
        let next = end.map_or(start, |end| end + 1);
        let joined = thousands + rest >= 20 && next < last && AND.iter().any(|and| words.is(next, and));
        let Some((step, step_end)) = step_at(words, next + usize::from(joined), last) else { break };
        match step {
            Step::Digits(n) if end.is_none() => rest = n,
            Step::Plain(n) if end.is_none() => rest = n,
            Step::Du if end.is_none() => rest = 10,
            Step::Plain(n) if multiplied.is_some() && n < 10 => rest = n * multiplied.unwrap_or(1),
            Step::Plain(n) if !after_digits && multiplied.is_none() && fits(n, thousands, rest, after_du) => rest += n,
            Step::Du if !after_digits && multiplied.is_none() && fits(10, thousands, rest, false) => rest += 10,
            Step::Times(by) if rest < 100 => rest = rest.max(1) * by,
            Step::Of(by) if end.is_none() || rest == 0 && by < 1000 => {
                before_multiplied = (end, rest);
                rest = by;
            }
            Step::Pair => {
                if end.is_none() {
                    rest = if words.is(step_end + 1, b"of") { 1 } else { 2 };
                }
                end = Some(step_end);
                break;
            }
            _ => break,
        }
        multiplied = match step {
            Step::Of(by) => Some(by),
            _ => None,
        };
        (after_digits, after_du) = (matches!(step, Step::Digits(_)), step == Step::Du);
        if rest >= 1000 && multiplied.is_none() {
            thousands += rest;
            rest = 0;
        }
        end = Some(step_end);
    }
    if multiplied.is_some() {
        (end, rest) = before_multiplied;
    }
    let value = thousands + rest;
    end.filter(|_| (1..=MAX_NUMBER).contains(&value)).map(|end| Number { value, start, end })
}

/// Whether `n` can follow: ones after tens, tens after hundreds, hundreds after thousands.
fn fits(n: i64, thousands: i64, rest: i64, after_du: bool) -> bool {
    match n {
        1..=9 => after_du || rest % 10 == 0 && rest >= 20 || rest == 0 && thousands > 0,
        10..=99 => rest % 100 == 0 && thousands + rest > 0,
        _ => n < 1000 && rest == 0 && thousands > 0,
    }
}

/// The longest step that begins at a word.
fn step_at(words: &Words, start: usize, last: usize) -> Option<(Step, usize)> {
    let mut longest = None;
    for end in start..(start + MAX_STEP_WORDS).min(last + 1) {
        let word = &words.0[end];
        if word.taken || word.has_digits() {
            // A number in digits is a step by itself; other digits end the number.
            let digits = word.count.filter(|_| end == start && !word.taken).map(|n| (Step::Digits(n), end));
            return longest.or(digits);
        }
        if let Some(step) = steps().get(&words.key(start, end)) {
            longest = Some((*step, end));
        }
    }
    longest
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn values(text: &str) -> Vec<i64> {
        numbers(&Words::new(text)).iter().map(|n| n.value).collect()
    }

    #[test]
    fn english_twi_and_digits() {
        for (text, value) in [
            ("twenty one", 21),
            ("twenty-one", 21),
            ("aduonu baako", 21),
            ("aduonu ne mmiɛnsa", 23),
            ("du baako", 11),
            ("du abiɛsa", 13),
            ("ɔha aduonum", 150),
            ("ɔha ne mmienu", 102),
            ("aha mmienu", 200),
            ("ahanum", 500),
            ("apem", 1000),
            ("apem ne ahanu", 1200),
            ("mpem mmienu", 2000),
            ("one hundred twenty", 120),
            ("two hundred and fifty", 250),
            ("a thousand", 1000),
            ("fifteen hundred", 1500),
            ("a dozen", 12),
            ("half dozen", 6),
            ("half a dozen", 6),
            ("two dozen", 24),
            ("2 dozen", 24),
            ("a couple", 2),
            ("a couple of bags", 2),
            ("a pair", 2),
            ("a pair of shoes", 1),
            ("two pairs of shoes", 2),
            ("x2", 2),
            ("2x", 2),
            ("3pcs", 3),
            ("3 pcs", 3),
            ("1,000", 1000),
            ("nnuan mmienu", 2),
            ("ten", 10),
        ] {
            assert_eq!(values(text), [value], "{text}");
        }
    }

    #[test]
    fn what_is_no_number_of_things() {
        for text in
            ["", "hwee", "zero", "0", "2.5", "5 kg", "20 cedis", "10000", "3in1", "bra aha", "3, 4, 5, 5, 5, 5, 5"]
        {
            assert!(values(text).is_empty(), "{text}");
        }
        assert_eq!(values("not two but three"), [2, 3]);
        assert_eq!(values("mmienu ne mmiɛnsa"), [2, 3], "two and three are not one number");
    }

    #[test]
    fn every_row_of_the_table_is_its_number() {
        assert!(rows().count() > 100);
        for (value, text) in rows() {
            assert_eq!(values(text), [value], "{text}");
        }
    }

    #[test]
    fn english_is_read_back() {
        for n in 1..=100 {
            assert_eq!(values(&in_english(n).unwrap()), [n]);
        }
        assert_eq!((in_english(0), in_english(101), in_english(-1)), (None, None, None));
    }

    #[test]
    fn a_number_that_whisper_spells_in_its_way() {
        let nearly = |text| nearly_number(&Words::new(text)).map(|n| n.value);
        assert_eq!(nearly("Jodong mien sa nha mer"), Some(3));
        assert_eq!(nearly("Fa coupon no di dwuma"), None);
    }

    proptest! {
        #[test]
        fn numbers_are_in_range_and_in_order(text in "([0-9]{1,7}|[a-zɛɔ]{1,8}|two|dozen|hundred|thousand|du|aha|mpem|ne|and|[ ,.x+-]){0,30}") {
            let words = Words::new(&text);
            let numbers = numbers(&words);
            prop_assert!(numbers.iter().all(|n| (1..=MAX_NUMBER).contains(&n.value) && n.start <= n.end && n.end < words.len()));
            prop_assert!(numbers.windows(2).all(|n| n[0].end < n[1].start));
            if words.len() > 0 {
                figures(&words, 0, words.len() - 1);
            }
        }
    }
}
