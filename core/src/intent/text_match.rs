//! The intent from the words: known phrases, ranked by how likely each is to be heard as what Whisper wrote.
//!
//! Stock Whisper has no Twi. It writes what it hears in the spelling of a related language, so a transcript is
//! not compared as text but through [`super::channel`]: the cost of a phrase being heard as this. The cheapest
//! phrase of each intent counts; costs under several decode languages are averaged (they err differently); a
//! softmax over the intents says which, a logistic on the best cost says whether it is a command at all.
//!
//! An English word in a phrase is tried in its own spelling and as it sounds (`core/data/english_sounds.tsv`).
//! The figures that this reaches, and what was tried and left out, are in `tests/intent/README.md`. Not for
//! wordings far from every known phrase: those are rejected more often than found.

use std::sync::OnceLock;

use serde_json::{Map, Value};

use super::catalogue::Catalogue;
use super::channel::{self, CENTINATS, Channel, Confidence, SortedTexts};
use super::labels::{built_in as intents, label_id};
use super::normalize::{fold, letters};
use super::slots::find_slots;
use crate::recognition::{Rejection, Slot};

const PHRASES: &str = include_str!("../../data/phrases.tsv");
const ENGLISH_SOUNDS: &str = include_str!("../../data/english_sounds.tsv");

/// Transcripts of one clip that are looked at.
pub const MAX_HEARD: usize = 4;

/// What one decode language made of a clip.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Heard<'a> {
    /// The language token that the decoder was given.
    pub language: &'a str,
    /// What it wrote.
    pub text: &'a str,
}

/// What the words mean, best first.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct IntentRanking {
    /// (class, calibrated confidence) of every intent, best first; with `none` they sum to 1. Empty if nothing
    /// that can be read was heard.
    pub predictions: Vec<(usize, f32)>,
    /// The probability that it is none of the shop's commands.
    pub none: f32,
    /// Why the best one should not be acted on; `None` if it may be.
    pub rejection: Option<Rejection>,
    /// The known phrase that fits best, as it is written.
    pub phrase: Option<String>,
    /// The values that the best intent carries.
    pub slots: Vec<Slot>,
}

#[derive(Debug)]
struct Phrase {
    label_id: usize,
    text: &'static str,
    slots: Map<String, Value>,
}

/// The known phrases, ready to be matched.
#[derive(Debug)]
pub struct PhraseBook {
    phrases: Vec<Phrase>,
    texts: SortedTexts,
    channel: Channel,
    confidence: Confidence,
}

impl PhraseBook {
    /// The phrases that are part of this crate. Built at the first call, in a few milliseconds.
    #[must_use]
    pub fn built_in() -> &'static Self {
        static BOOK: OnceLock<PhraseBook> = OnceLock::new();
        BOOK.get_or_init(Self::build)
    }

    fn build() -> Self {
        let (channel, confidence) = channel::built_in().expect("core/data/text_match.json is checked by a test");
        let phrases: Vec<Phrase> = PHRASES.lines().skip(1).filter_map(read_phrase).collect();
        let sounds: Vec<(&str, &str)> = ENGLISH_SOUNDS.lines().skip(1).filter_map(|l| l.split_once('\t')).collect();
        let texts = phrases
            .iter()
            .enumerate()
            .flat_map(|(at, phrase)| [(at, fold(phrase.text)), (at, fold(&spoken(phrase.text, &sounds)))]);
        Self { texts: SortedTexts::new(texts), phrases, channel, confidence }
    }

    /// The phrases as they are written, with their class.
    pub fn phrases(&self) -> impl Iterator<Item = (usize, &str)> {
        self.phrases.iter().map(|p| (p.label_id, p.text))
    }

    /// Ranks the intents by what was heard; the first [`MAX_HEARD`] transcripts count.
    ///
    /// Text of any length or script is taken; only its first [`super::normalize::MAX_TEXT_CHARS`] characters are
    /// looked at.
    #[must_use]
    pub fn rank(&self, heard: &[Heard<'_>]) -> IntentRanking {
        self.rank_with(heard, None)
    }

    /// As [`Self::rank`]; the values are the shop's, where it names them.
    #[must_use]
    pub fn rank_with(&self, heard: &[Heard<'_>], catalogue: Option<&Catalogue>) -> IntentRanking {
        let folded: Vec<Vec<u8>> =
            heard.iter().take(MAX_HEARD).map(|h| fold(h.text)).filter(|f| !f.is_empty()).collect();
        if folded.is_empty() {
            return IntentRanking { none: 1.0, rejection: Some(Rejection::OutOfScope), ..IntentRanking::default() };
        }
        let n_heard = folded.len() as f32;
        let length = folded.iter().map(Vec::len).sum::<usize>() as f32 / n_heard;
        let mut total = vec![0.0f32; self.phrases.len()];
        for text in &folded {
            let costs = self.channel.costs(&self.texts, text, self.phrases.len());
            total.iter_mut().zip(costs).for_each(|(sum, cost)| *sum += cost as f32 / (CENTINATS * n_heard));
        }

        // The cheapest phrase of each intent: (class, nats, phrase), cheapest intent first.
        let mut best: Vec<(usize, f32, usize)> =
            (0..intents().len()).map(|label| (label, f32::INFINITY, usize::MAX)).collect();
        for (at, (phrase, cost)) in self.phrases.iter().zip(&total).enumerate() {
            let entry = &mut best[phrase.label_id];
            if *cost < entry.1 {
                (entry.1, entry.2) = (*cost, at);
            }
        }
        best.sort_by(|a, b| a.1.total_cmp(&b.1).then(a.0.cmp(&b.0)));
        let (label, least, at) = best[0];

        let in_scope = self.confidence.in_scope(least, length);
        let weights: Vec<f32> =
            best.iter().map(|(_, c, _)| ((least - c) / self.confidence.temperature).exp()).collect();
        let sum: f32 = weights.iter().sum();
        let predictions: Vec<(usize, f32)> =
            best.iter().zip(&weights).map(|((label, ..), w)| (*label, in_scope * w / sum)).collect();
        let phrase = &self.phrases[at];
        IntentRanking {
            none: 1.0 - in_scope,
            rejection: self.rejection(in_scope, &predictions),
            phrase: Some(phrase.text.to_owned()),
            slots: slots_of(heard, label, phrase, catalogue),
            predictions,
        }
    }

    fn rejection(&self, in_scope: f32, predictions: &[(usize, f32)]) -> Option<Rejection> {
        let reject = &self.confidence.reject;
        let confidence = |at: usize| predictions.get(at).map_or(0.0, |p| p.1);
        if in_scope < reject.in_scope_below {
            Some(Rejection::OutOfScope)
        } else if confidence(0) >= reject.confidence_below {
            None
        } else if confidence(1) > reject.ambiguous_above * confidence(0) {
            Some(Rejection::Ambiguous)
        } else {
            Some(Rejection::LowConfidence)
        }
    }
}

/// Slots from each transcript, the first that names a slot wins.
fn slots_of(heard: &[Heard<'_>], label: usize, phrase: &Phrase, catalogue: Option<&Catalogue>) -> Vec<Slot> {
    let mut slots: Vec<Slot> = Vec::new();
    for h in heard.iter().take(MAX_HEARD) {
        for slot in find_slots(h.text, &intents()[label].slots, phrase.text, &phrase.slots, catalogue) {
            if !slots.iter().any(|s| s.slot == slot.slot) {
                slots.push(slot);
            }
        }
    }
    slots
}

/// `intent`, phrase and slots (a JSON object or nothing), parted by tabs.
fn read_phrase(line: &'static str) -> Option<Phrase> {
    let mut columns = line.split('\t');
    let label_id = label_id(columns.next()?)?;
    let text = columns.next().filter(|t| !t.is_empty())?;
    let slots = columns.next().and_then(|json| serde_json::from_str(json).ok()).unwrap_or_default();
    Some(Phrase { label_id, text, slots })
}

/// The phrase with its English words as they sound.
fn spoken(phrase: &str, sounds: &[(&str, &str)]) -> String {
    let sound = |word: &str| {
        let plain: String = letters(word).chars().filter(|c| !",.?!".contains(*c)).collect();
        sounds
            .binary_search_by(|(w, _)| (*w).cmp(&plain))
            .map_or_else(|_| word.to_owned(), |at| sounds[at].1.to_owned())
    };
    phrase.split_whitespace().map(sound).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn rank(texts: &[&str]) -> IntentRanking {
        let heard: Vec<Heard<'_>> =
            texts.iter().zip(["yo", "sw", "mi", "it", "en"]).map(|(text, language)| Heard { language, text }).collect();
        PhraseBook::built_in().rank(&heard)
    }

    fn accepted(texts: &[&str]) -> Option<&'static str> {
        let ranking = rank(texts);
        ranking.rejection.is_none().then(|| intents()[ranking.predictions[0].0].intent.as_str())
    }

    #[test]
    fn every_row_of_the_tables_is_read() {
        let book = PhraseBook::built_in();
        assert_eq!(book.phrases.len(), PHRASES.lines().count() - 1);
        for intent in intents() {
            assert!(book.phrases().filter(|(label, _)| *label == intent.id).count() >= 8, "{}", intent.intent);
        }
        let with_slots = PHRASES.lines().filter(|l| l.ends_with('}')).count();
        assert_eq!(book.phrases.iter().filter(|p| !p.slots.is_empty()).count(), with_slots);
        let words: Vec<&str> = ENGLISH_SOUNDS.lines().skip(1).map(|l| l.split_once('\t').unwrap().0).collect();
        assert!(words.windows(2).all(|w| w[0] < w[1]), "looked up by bisection");
    }

    #[test]
    fn every_written_phrase_is_its_own_intent() {
        let book = PhraseBook::built_in();
        let wrong: Vec<&str> = book
            .phrases()
            .filter(|(label, text)| {
                let ranking = book.rank(&[Heard { language: "tw", text }]);
                ranking.predictions[0].0 != *label
            })
            .map(|(_, text)| text)
            .collect();
        assert!(wrong.is_empty(), "{} phrases: {wrong:?}", wrong.len());
    }

    #[test]
    fn english_talk_is_out_of_scope() {
        for talk in [
            "And so my fellow Americans, ask not what your country can do for you, ask what you can do for your country.",
            "The weather is lovely today and we should go to the beach.",
            "He read the newspaper every morning before breakfast.",
        ] {
            assert_eq!(rank(&[talk]).rejection, Some(Rejection::OutOfScope), "{talk}");
            assert_eq!(rank(&[talk, talk]).rejection, Some(Rejection::OutOfScope), "{talk}");
        }
    }

    #[test]
    fn nothing_heard_is_nothing() {
        for texts in [&[][..], &[""], &["", "…"], &["تنو نور لقلات"]] {
            let ranking = rank(texts);
            assert_eq!(ranking.rejection, Some(Rejection::OutOfScope));
            assert_eq!((ranking.none, ranking.predictions.len()), (1.0, 0));
        }
    }

    /// As whisper-base wrote it down from espeak-ng's Swahili and Setswana voices.
    #[test]
    fn put_this_in_the_cart_as_whisper_spells_it() {
        for [yo, sw] in [
            ["Fahiei toka, Lomu", "Faiye i toka, lomu"],
            ["Faye i toka tlomu", "Faye i toka no mu."],
            ["Faiyae Toka no Mu", "Fayaito kaat no moo."],
        ] {
            for texts in [&[yo, sw][..], &[yo], &[sw]] {
                let ranking = rank(texts);
                assert_eq!(intents()[ranking.predictions[0].0].intent, "add_to_cart", "{texts:?}");
            }
            assert_eq!(accepted(&[yo, sw]), Some("add_to_cart"), "{yo} {sw}");
        }
    }

    #[test]
    fn a_phrase_brings_its_slots() {
        let ranking = rank(&["Fa mmienu to cart no mu"]);
        assert_eq!(ranking.phrase.as_deref(), Some("Fa mmienu to cart no mu"));
        assert_eq!(ranking.slots[0].slot, "quantity");
        assert_eq!(ranking.slots[0].value, 2);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]

        #[test]
        fn any_text_gives_probabilities(texts in prop::collection::vec(any::<String>(), 0..6)) {
            let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
            let ranking = rank(&texts);
            let sum: f32 = ranking.predictions.iter().map(|p| p.1).sum::<f32>() + ranking.none;
            prop_assert!((sum - 1.0).abs() < 1e-4, "{}", sum);
            prop_assert!(ranking.predictions.iter().all(|p| (0.0..=1.0).contains(&p.1)));
            prop_assert!(ranking.predictions.windows(2).all(|w| w[0].1 >= w[1].1));
        }

        #[test]
        fn look_alikes_apostrophes_and_case_change_nothing(at in 0usize..1000) {
            let (_, text) = PhraseBook::built_in().phrases().nth(at).unwrap();
            let other = text.to_uppercase().replace('Ɛ', "ԑ").replace('Ɔ', "\u{2184}").replace('\'', "\u{2019}");
            prop_assert_eq!(rank(&[&other]).predictions, rank(&[text]).predictions);
        }
    }
}
