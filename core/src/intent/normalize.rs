//! Twi normalisation and a phonetic folding that survives how Whisper spells Twi.
//!
//! Two steps, each used by itself as well:
//!
//! 1. [`letters`]: one spelling for what people and keyboards write differently. NFC, lower case, look-alikes of
//!    ɛ and ɔ, typographic apostrophes. It keeps ɛ, ɔ and the apostrophe, so it can be shown.
//! 2. [`fold`]: what is matched. ɛ and ɔ become e and o as people type them, accents go, digraphs become one
//!    symbol each, spaces and apostrophes go (Whisper puts both anywhere), doubled letters and loops collapse.
//!
//! The digraph rules were chosen on whisper-base's spellings of synthetic Twi (`tests/intent/README.md`); what
//! letters are heard *as* is not folded here but weighed by the cost table of [`super::channel`]. Not for
//! tone, which Twi spelling does not write.

use unicode_normalization::UnicodeNormalization;
use unicode_normalization::char::is_combining_mark;

/// Longest text that is looked at, in characters; a command is far shorter.
pub const MAX_TEXT_CHARS: usize = 300;

/// Longest folded text, in symbols: the longest phrase has 55.
pub const MAX_FOLDED: usize = 120;

/// Look-alikes and their Twi letter. Greek epsilon, reversed ze and Latin small capital/open-e variants are
/// typed for ɛ; the reversed c and Greek/Cyrillic forms for ɔ (FACTS.md, "Twi spelling").
const LOOK_ALIKES: [(char, char); 12] = [
    ('\u{03B5}', 'ɛ'), // Greek small epsilon
    ('\u{0511}', 'ɛ'), // Cyrillic reversed ze
    ('\u{0454}', 'ɛ'), // Cyrillic Ukrainian ie
    ('\u{2184}', 'ɔ'), // Latin reversed c
    ('\u{037B}', 'ɔ'), // Greek reversed lunate sigma
    ('\u{1D10}', 'ɔ'), // Latin small capital open o
    ('\u{2019}', '\''),
    ('\u{2018}', '\''),
    ('\u{02BC}', '\''),
    ('\u{02B9}', '\''),
    ('\u{00B4}', '\''),
    ('\u{FF07}', '\''),
];

/// Letters outside a-z that Whisper writes for Twi sounds when it decodes with another language's token, and
/// their nearest plain spelling.
const PLAIN: [(char, &str); 18] = [
    ('ɛ', "e"),
    ('ɔ', "o"),
    ('ə', "e"),
    ('æ', "e"),
    ('œ', "e"),
    ('ø', "o"),
    ('ŋ', "n"),
    ('ɲ', "n"),
    ('ı', "i"),
    ('ɪ', "i"),
    ('ʊ', "u"),
    ('ß', "s"),
    ('đ', "d"),
    ('ð', "d"),
    ('ł', "l"),
    ('ɡ', "g"),
    ('þ', "t"),
    ('ʃ', "sh"),
];

/// Letter groups and the one symbol each is matched as; the first that fits wins. `C`, `J` and `S` stand for the
/// sounds of ky, gy and hy. (tw, dw, nw, hw stay two letters: Whisper mostly writes them so, or drops the w.)
const GROUPS: [(&[u8], &[u8]); 16] = [
    (b"tch", b"C"),
    (b"tsh", b"C"),
    (b"sch", b"S"),
    (b"ch", b"C"),
    (b"ky", b"C"),
    (b"sh", b"S"),
    (b"hy", b"S"),
    (b"gy", b"J"),
    (b"dj", b"J"),
    (b"ph", b"f"),
    (b"th", b"t"),
    (b"ck", b"k"),
    (b"qu", b"kw"),
    (b"q", b"k"),
    (b"x", b"ks"),
    (b"j", b"J"),
];

/// Longest unit that counts as a loop when it comes three times or more ("me me me me").
const LONGEST_LOOP: usize = 8;

/// The text in one spelling: NFC, lower case, look-alikes and apostrophes unified, at most
/// [`MAX_TEXT_CHARS`] characters. Idempotent.
#[must_use]
pub fn letters(text: &str) -> String {
    // A lower-cased letter may decompose and a look-alike may take an accent: composed again at the end.
    text.chars()
        .take(MAX_TEXT_CHARS)
        .nfc()
        .flat_map(char::to_lowercase)
        .map(without_look_alike)
        .nfc()
        .take(MAX_TEXT_CHARS)
        .collect()
}

fn without_look_alike(c: char) -> char {
    LOOK_ALIKES.iter().find(|(from, _)| *from == c).map_or(c, |(_, to)| *to)
}

/// The text's words in plain a-z: ɛ and ɔ as e and o, no accents, no apostrophes, no other script.
#[must_use]
pub fn plain_words(text: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    for c in letters(text).nfd().filter(|c| !is_combining_mark(*c)).map(without_look_alike) {
        let plain = PLAIN.iter().find(|(from, _)| *from == c).map(|(_, to)| *to);
        let word = words.last_mut().expect("never empty");
        match (plain, c) {
            (Some(plain), _) => word.push_str(plain),
            (None, 'a'..='z') => word.push(c),
            (None, '\'') => {}
            _ if word.is_empty() => {}
            _ => words.push(String::new()),
        }
    }
    words.retain(|w| !w.is_empty());
    words
}

/// The text as it is matched: symbols `a-z`, `C`, `J` and `S`, no spaces.
#[must_use]
pub fn fold(text: &str) -> Vec<u8> {
    let mut folded = Vec::new();
    for word in plain_words(text) {
        fold_word(word.as_bytes(), &mut folded);
    }
    let mut folded = without_loops(&folded);
    folded.dedup();
    folded.truncate(MAX_FOLDED);
    folded
}

/// One word of a-z through [`GROUPS`]; c is s before e, i and y, else k.
fn fold_word(word: &[u8], folded: &mut Vec<u8>) {
    let mut rest = word;
    while let [first, tail @ ..] = rest {
        if let Some((from, to)) = GROUPS.iter().find(|(from, _)| rest.starts_with(from)) {
            folded.extend_from_slice(to);
            rest = &rest[from.len()..];
            continue;
        }
        folded.push(match (first, tail.first()) {
            (b'c', Some(b'e' | b'i' | b'y')) => b's',
            (b'c', _) => b'k',
            _ => *first,
        });
        rest = tail;
    }
}

/// What Whisper repeats three times or more, once: a decoder that loses its place writes "mememememe".
fn without_loops(symbols: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(symbols.len());
    let mut at = 0;
    while at < symbols.len() {
        let rest = &symbols[at..];
        let loop_of = (1..=LONGEST_LOOP.min(rest.len() / 3))
            .map(|n| (n, rest.chunks_exact(n).take_while(|unit| *unit == &rest[..n]).count()))
            .find(|(_, times)| *times >= 3);
        match loop_of {
            Some((n, times)) => {
                out.extend_from_slice(&rest[..n]);
                at += n * times;
            }
            None => {
                out.push(rest[0]);
                at += 1;
            }
        }
    }
    out
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn folded(text: &str) -> String {
        String::from_utf8(fold(text)).unwrap()
    }

    #[test]
    fn look_alikes_and_apostrophes_become_one_spelling() {
        assert_eq!(letters("Kyεrε me w’akyi"), "kyɛrɛ me w'akyi");
        assert_eq!(letters("KƆ CART NO MU"), "kɔ cart no mu");
        assert_eq!(letters("kↄ"), letters("kɔ"));
        assert_eq!(letters("e\u{301}"), "é");
    }

    #[test]
    fn digraphs_are_one_symbol_and_spaces_go() {
        assert_eq!(folded("Kyerɛ me"), "Cereme");
        assert_eq!(folded("chere me"), "Cereme");
        assert_eq!(folded("gyae hyɛ"), "JaeSe");
        assert_eq!(folded("checkout"), "Cekout");
        assert_eq!(folded("Fa yei to cart no mu"), "fayeitokartnomu");
        assert_eq!(folded("price"), "prise");
    }

    #[test]
    fn loops_collapse() {
        assert_eq!(folded("Me me me me me me me"), "me");
        assert_eq!(folded("mepe sesesesese kola"), "mepesekola");
        assert_eq!(folded("aaaaah"), "ah");
        assert_eq!(folded("bobɔ"), "bobo", "twice is not a loop");
    }

    #[test]
    fn other_scripts_and_digits_hold_no_symbols() {
        assert!(fold("تنو نور 123 火 !?").is_empty());
        assert!(fold("").is_empty());
        assert_eq!(folded("Fá yéí"), "fayei");
    }

    proptest! {
        #[test]
        fn never_panics_and_stays_bounded(text in any::<String>()) {
            let folded = fold(&text);
            prop_assert!(folded.len() <= MAX_FOLDED);
            prop_assert!(folded.iter().all(|b| b.is_ascii_lowercase() || b"CJS".contains(b)));
            prop_assert!(letters(&text).chars().count() <= MAX_TEXT_CHARS);
        }

        #[test]
        fn normalisation_is_idempotent(text in any::<String>()) {
            let once = letters(&text);
            prop_assert_eq!(letters(&once), once);
        }

        #[test]
        fn the_fold_does_not_see_case_or_look_alikes(text in "[a-zɛɔ' ]{0,60}") {
            let other = text.to_uppercase().replace('Ɛ', "\u{395}").replace('\'', "\u{2019}");
            prop_assert_eq!(fold(&other), fold(&text));
            prop_assert_eq!(fold(&text.replace('ɛ', "ԑ").replace('ɔ', "\u{2184}")), fold(&text));
        }
    }
}
