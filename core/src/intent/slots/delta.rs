//! A signed change of a quantity: the sign from a cue (*te so*, "less"; *ka ho*, *bio*), a written sign, or the phrase;
//! the size from a number, else 1. "From two to five" is three more.

use std::sync::OnceLock;

use serde_json::{Map, Value, json};

use super::super::normalize::fold;
use super::contrast::{choose, from_to};
use super::numbers::{Number, nearly_number};
use super::spellings::{BY_ITSELF, Spellings};
use super::words::{MAX_WORDS, Words};
use super::{VALUES, heard_in, number_candidates, rows};
use crate::recognition::Slot;

/// Cues beyond those of `core/data/slot_values.tsv`.
const CUES: [(i64, &str); 21] = [
    (1, "extra"),
    (1, "additional"),
    (1, "another"),
    (1, "raise"),
    (1, "kɔ soro"),
    (-1, "yi so"),
    (-1, "yi firi"),
    (-1, "yi fi"),
    (-1, "te dodow so"),
    (-1, "tew dodow so"),
    (-1, "brɛ no ase"),
    (-1, "te no so"),
    (-1, "tew no so"),
    (-1, "decrease"),
    (-1, "remove"),
    (-1, "subtract"),
    (-1, "lower"),
    (-1, "drop"),
    (-1, "take off"),
    (-1, "take away"),
    (-1, "take out"),
];

fn cues() -> &'static Spellings {
    static SPELLINGS: OnceLock<Spellings> = OnceLock::new();
    SPELLINGS.get_or_init(|| {
        let cue = |sign: i64, text: &str| ("delta".to_owned(), json!(sign), text.to_owned());
        let in_table = rows(VALUES).filter_map(|row| match row[..] {
            ["delta", sign, text] => Some((sign.parse::<i64>().ok()?, text)),
            _ => None,
        });
        Spellings::new(in_table.chain(CUES).map(|(sign, text)| cue(sign.signum(), text)))
    })
}

/// A cue for a sign, and the words that it stands in.
struct Cue {
    sign: i64,
    start: usize,
    end: usize,
}

/// The change that a transcript asks for.
pub(super) fn find_delta(words: &Words, phrase: &str, annotation: &Map<String, Value>) -> Option<Slot> {
    let annotated = annotation.get("delta").and_then(Value::as_i64);
    let candidates = number_candidates(words);
    if let Some((from, to)) = from_to(words, &candidates).filter(|(from, to)| from.value != to.value) {
        return Some(slot(words, to.value - from.value, from.start, to.end));
    }
    let number = choose(words, &candidates).map(|c| Number { value: c.value, start: c.start, end: c.end });
    if let Some(n) = number.filter(|n| words.0[n.start].sign != 0) {
        return Some(slot(words, words.0[n.start].sign * n.value, n.start, n.end));
    }
    let cue = cue(words, number);
    let sign = cue.as_ref().map(|cue| cue.sign).or(annotated.map(i64::signum)).filter(|sign| *sign != 0)?;
    if number.is_none() {
        // The phrase's own number is believed only if something like its number was heard.
        let same = annotated.filter(|a| a.signum() == sign && a.unsigned_abs() > 1);
        let heard = same.and_then(|a| heard_in(words, phrase, "delta", &json!(a.checked_abs()?)));
        if let (Some(value), Some((start, end))) = (same, heard) {
            return Some(slot(words, value, start, end));
        }
    }
    let number = number.or_else(|| {
        let nearly = nearly_number(words)?;
        // Letters that make the cue make no number.
        cue.as_ref().is_none_or(|cue| nearly.end < cue.start || cue.end < nearly.start).then_some(nearly)
    });
    let spans = cue.iter().map(|cue| (cue.start, cue.end)).chain(number.map(|n| (n.start, n.end)));
    let span = spans.reduce(|a, b| (a.0.min(b.0), a.1.max(b.1)));
    let (start, end) = span.unwrap_or((0, words.len().saturating_sub(1)));
    (words.len() > 0).then(|| slot(words, sign * number.map_or(1, |n| n.value), start, end))
}

fn slot(words: &Words, delta: i64, start: usize, end: usize) -> Slot {
    Slot { slot: "delta".to_owned(), value: json!(delta), text: words.text(start, end) }
}

/// The longest cue as it is written, with the number's words passed over ("te baako so") or not; else one that is
/// nearly heard; else *yi* (take away) at the very beginning of a sentence with a number, where it is not "this".
fn cue(words: &Words, number: Option<Number>) -> Option<Cue> {
    let is_number = |at: usize| number.is_some_and(|n| (n.start..=n.end).contains(&at));
    let around: Vec<usize> = (0..words.len()).filter(|at| !is_number(*at)).collect();
    let all: Vec<usize> = (0..words.len()).collect();
    written(words, &around).or_else(|| written(words, &all)).or_else(|| {
        let hits = cues().nearly(words, |_| true, BY_ITSELF);
        let nearly = hits.first().and_then(|hit| Some((hit.spelling.value.as_i64()?, hit.start, hit.end)));
        let takes_away = || (number.is_some() && words.is(0, &fold("yi"))).then_some((-1, 0, 0));
        nearly.or_else(takes_away).map(|(sign, start, end)| Cue { sign, start, end })
    })
}

/// The longest cue in the words at `places`, the first of several.
fn written(words: &Words, places: &[usize]) -> Option<Cue> {
    let mut longest: Option<(usize, Cue)> = None;
    for (at, start) in places.iter().enumerate() {
        for to in at..places.len().min(at + MAX_WORDS) {
            let key = words.key_of(places[at..=to].iter().copied());
            let Some(sign) = cues().first(&key).and_then(|cue| cue.value.as_i64()) else { continue };
            if longest.as_ref().is_none_or(|(most, _)| key.len() > *most) {
                longest = Some((key.len(), Cue { sign, start: *start, end: places[to] }));
            }
        }
    }
    longest.map(|(_, cue)| cue)
}
