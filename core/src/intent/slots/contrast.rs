//! Which of several values of a slot is meant: "not red but black", *ɛnyɛ kɔkɔɔ, tuntum*, "black instead of red",
//! *sesa firi kɔkɔɔ kɔ tuntum*, *tuntum mmom*.
//!
//! *Ɛnyɛ* is two words in one spelling, "it is not" and, after *ma*, "let it be": it rules a value out only where the
//! sentence offers another. Not for grammar beyond a word or two around the value.

use super::words::Words;

/// What the words around a value say about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    Plain,
    /// Not this one.
    Refused,
    /// Not this one, if there is another.
    MaybeRefused,
    /// From this one to another.
    Source,
    /// Rather this one.
    Rather,
}

impl Role {
    /// Whether a value in this role can be what is meant, however many others there are.
    pub(super) fn is_sure(self) -> bool {
        matches!(self, Self::Plain | Self::Rather)
    }
}

/// A value of a slot, and its words `start..=end`.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Candidate<V> {
    pub(super) value: V,
    pub(super) start: usize,
    pub(super) end: usize,
    pub(super) role: Role,
}

/// Cues right before a value, as words are matched.
const BEFORE: [(&[&str], Role); 13] = [
    (&["instead", "of"], Role::Refused),
    (&["rater", "tan"], Role::Refused),
    (&["not"], Role::Refused),
    (&["eksept"], Role::Refused),
    (&["witout"], Role::Refused),
    (&["enye"], Role::MaybeRefused),
    (&["from"], Role::Source),
    (&["firi"], Role::Source),
    (&["fi"], Role::Source),
    (&["afiri"], Role::Source),
    (&["afi"], Role::Source),
    (&["mom"], Role::Rather),
    (&["rater"], Role::Rather),
];

/// May stand between a cue and its value.
const BETWEEN: [&str; 10] = ["te", "a", "an", "no", "yi", "size", "kolor", "kolour", "ahosuo", "in"];

/// Before *ɛnyɛ*: let it be.
const LET: [&str; 4] = ["ma", "mame", "moma", "ama"];

const CHANGE: [&str; 11] =
    ["Cange", "sesa", "sese", "masesa", "mesesa", "nsesa", "swiC", "swap", "eksCange", "replase", "turn"];

const TO: [&str; 7] = ["to", "ko", "ye", "into", "wit", "by", "na"];

/// Most words between the two values of a change.
const MOST_BETWEEN: usize = 4;

/// What the words around `start..=end` say.
pub(super) fn role(words: &Words, start: usize, end: usize) -> Role {
    let mut before = start;
    while before > 0 && is_any(words, before - 1, &BETWEEN) {
        before -= 1;
    }
    for (cue, role) in BEFORE {
        let Some(first) = before.checked_sub(cue.len()) else { continue };
        if !cue.iter().enumerate().all(|(at, word)| words.is(first + at, word.as_bytes())) {
            continue;
        }
        if role == Role::MaybeRefused && first > 0 && is_any(words, first - 1, &LET) {
            return Role::Plain;
        }
        return role;
    }
    if words.is(end + 1, b"mom") { Role::Rather } else { Role::Plain }
}

/// The value that is meant; `None` if every one is refused. Of several, the first in the list.
pub(super) fn choose<'a, V>(words: &Words, candidates: &'a [Candidate<V>]) -> Option<&'a Candidate<V>> {
    let mut left: Vec<&Candidate<V>> = candidates.iter().filter(|c| c.role != Role::Refused).collect();
    if let Some(rather) = left.iter().copied().find(|c| c.role == Role::Rather) {
        return Some(rather);
    }
    if left.iter().any(|c| c.role != Role::MaybeRefused) {
        left.retain(|c| c.role != Role::MaybeRefused);
    }
    if let Some(source) = left.iter().find(|c| c.role == Role::Source) {
        let target = left.iter().copied().filter(|c| c.start > source.end).min_by_key(|c| c.start);
        if target.is_some() {
            return target;
        }
    }
    let mut in_order = left.clone();
    in_order.sort_by_key(|c| c.start);
    if let [first, second, ..] = in_order[..] {
        let mut between = first.end + 1..second.start;
        let changes = (0..first.start).any(|at| is_any(words, at, &CHANGE));
        if changes && between.len() <= MOST_BETWEEN && between.any(|at| is_any(words, at, &TO)) {
            return Some(second);
        }
    }
    left.first().copied()
}

/// From one number to another, if that is said.
pub(super) fn from_to<'a, V>(
    words: &Words,
    candidates: &'a [Candidate<V>],
) -> Option<(&'a Candidate<V>, &'a Candidate<V>)> {
    let from = candidates.iter().find(|c| c.role == Role::Source)?;
    let to = candidates.iter().filter(|c| c.start > from.end).min_by_key(|c| c.start)?;
    (from.end + 1..to.start).any(|at| is_any(words, at, &TO)).then_some((from, to))
}

fn is_any(words: &Words, at: usize, any: &[&str]) -> bool {
    any.iter().any(|word| words.is(at, word.as_bytes()))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::words::key;
    use super::*;

    #[test]
    fn cues_are_written_as_words_are_matched() {
        for (written, matched) in [
            ("instead", "instead"),
            ("rather", "rater"),
            ("than", "tan"),
            ("except", "eksept"),
            ("without", "witout"),
            ("ɛnyɛ", "enye"),
            ("mmom", "mom"),
            ("the", "te"),
            ("size", "size"),
            ("color", "kolor"),
            ("colour", "kolour"),
            ("change", "Cange"),
            ("switch", "swiC"),
            ("exchange", "eksCange"),
            ("replace", "replase"),
            ("with", "wit"),
            ("sesɛ", "sese"),
            ("kɔ", "ko"),
            ("yɛ", "ye"),
            ("momma", "moma"),
        ] {
            assert_eq!(String::from_utf8(key(written)).unwrap(), matched, "{written}");
        }
    }

    #[test]
    fn let_it_be_is_no_refusal() {
        assert_eq!(role(&Words::new("ɛnyɛ fitaa"), 1, 1), Role::MaybeRefused);
        assert_eq!(role(&Words::new("ma ɛnyɛ fitaa"), 2, 2), Role::Plain);
        assert_eq!(role(&Words::new("instead of the fitaa"), 3, 3), Role::Refused);
        assert_eq!(role(&Words::new("blue mmom"), 0, 0), Role::Rather);
    }
}
