//! What letters mean: the second half of a head that writes down what it hears, letter by letter, and reads it.
//!
//! A head with `head.letters` names a letter, or none, for each position of the sound, as connectionist temporal
//! classification does (Graves et al., 2006): [`Alphabet::collapse`] is its best path. The letters follow the sound, not a
//! dictionary ("mesegis" for messages), unless the head brings one ([`super::lexicon`]): then [`Alphabet::spell`] writes the
//! likeliest words. The reader that judges them knows words by their parts: hashed character n-grams, summed as in Joulin et al., "Bag of Tricks for Efficient Text Classification", 2017, with one hidden layer.
//! Sentences that nobody spoke teach it as well as recordings do; that is why it understands wordings that the sound
//! alone does not.
//!
//! Plain arithmetic on a few hundred numbers, on every device the same. Not for long texts: what is behind
//! [`MAX_LETTERS`] is not read.

use std::collections::HashMap;
use std::sync::Arc;

use super::lexicon::Lexicon;
use super::normalize;
use super::word_search::best_words;
use crate::error::Result;
use crate::whisper::config::invalid;

/// Letters that are read.
pub const MAX_LETTERS: usize = 400;
/// Letters that an alphabet may have: Twi and English together have 28, an apostrophe and the space.
pub const MAX_ALPHABET: usize = 512;
/// Length of the character n-grams.
const N_GRAM: std::ops::RangeInclusive<usize> = 1..=5;
/// Stands before a word's first and behind its last letter.
const EDGE: char = ' ';
/// Stands before what is a whole word, or two.
const WHOLE: char = '#';

/// The letters that a head can name, in class order; class 0 is "none", letter `i` is class `i + 1`. Where it has a
/// [`Lexicon`], it writes words.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Alphabet {
    letters: Arc<[char]>,
    lexicon: Option<Arc<Lexicon>>,
}

impl Alphabet {
    /// # Errors
    /// [`crate::Error::InvalidConfig`] if it is empty, too large, or names a letter twice.
    pub fn new(letters: &str) -> Result<Self> {
        let letters: Vec<char> = letters.chars().collect();
        let distinct: std::collections::HashSet<char> = letters.iter().copied().collect();
        if letters.is_empty() || letters.len() > MAX_ALPHABET || distinct.len() != letters.len() {
            let reason = format!("letters must be 1 to {MAX_ALPHABET} different characters in a string");
            return Err(invalid("config.json", reason));
        }
        Ok(Self { letters: letters.into(), lexicon: None })
    }

    /// The letters that occur in `texts`, by code point; empty if there are none.
    #[must_use]
    pub fn of<'a>(texts: impl Iterator<Item = &'a str>) -> Self {
        let mut letters: Vec<char> = texts.flat_map(str::chars).collect();
        letters.sort_unstable();
        letters.dedup();
        letters.truncate(MAX_ALPHABET);
        Self { letters: letters.into(), lexicon: None }
    }

    /// The same letters, put together to the words of `sentences` (a head's [`super::lexicon::SENTENCES_FILE`]).
    ///
    /// # Errors
    /// As [`Lexicon::parse`].
    pub fn with_sentences(self, sentences: &[u8]) -> Result<Self> {
        let lexicon = Lexicon::parse(sentences, &self)?;
        Ok(Self { lexicon: Some(Arc::new(lexicon)), ..self })
    }

    /// The words that it writes; `None`: it writes letters as they are heard.
    #[must_use]
    pub fn lexicon(&self) -> Option<&Lexicon> {
        self.lexicon.as_deref()
    }

    /// How many letters there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.letters.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.letters.is_empty()
    }

    /// The classes of a text's letters; `None` if one is not in the alphabet.
    #[must_use]
    pub fn classes(&self, text: &str) -> Option<Vec<usize>> {
        text.chars().map(|c| self.letters.iter().position(|letter| *letter == c).map(|at| at + 1)).collect()
    }

    /// The best path: the best class of each position, repetitions as one, without "none".
    ///
    /// # Shapes
    /// - scores: `[n_positions, 1 + len]`, row by row
    #[must_use]
    pub fn collapse(&self, scores: &[f32]) -> String {
        let mut text = String::new();
        let mut last = 0;
        for row in scores.chunks_exact(self.len() + 1) {
            let best = row.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1)).map_or(0, |(class, _)| class);
            if best != last && best > 0 {
                text.push(self.letters[best - 1]);
            }
            last = best;
        }
        spaced(&text)
    }

    /// What is heard: the likeliest words of the lexicon, or [`Self::collapse`] without one.
    ///
    /// # Shapes
    /// - scores: `[n_positions, 1 + len]`, row by row, before the softmax
    #[must_use]
    pub fn spell(&self, scores: &[f32]) -> String {
        let words = self.lexicon().and_then(|lexicon| best_words(scores, self.len() + 1, lexicon));
        words.unwrap_or_else(|| self.collapse(scores))
    }
}

impl std::fmt::Display for Alphabet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.letters.iter().try_for_each(|letter| write!(f, "{letter}"))
    }
}

/// A text as a head writes it: lower case, no punctuation, one space between words. `None` if it holds digits, which
/// can be said in many ways.
#[must_use]
pub fn spoken_letters(text: &str) -> Option<String> {
    let text = normalize::letters(text);
    if text.chars().any(char::is_numeric) {
        return None;
    }
    let kept: String = text.chars().map(|c| if c.is_alphabetic() || c == '\'' { c } else { ' ' }).collect();
    Some(spaced(&kept))
}

/// One space between words, none around them.
pub(crate) fn spaced(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// A text's n-grams, each in one of `n_buckets`, with its weight; the squares of the weights sum to 1.
///
/// A bucket's sign is part of the hash, so that n-grams that share one do not add up (Weinberger et al., "Feature Hashing
/// for Large Scale Multitask Learning", 2009).
#[must_use]
pub fn n_grams(text: &str, n_buckets: usize) -> Vec<(usize, f32)> {
    let mut counts: HashMap<usize, f32> = HashMap::new();
    let mut count = |gram: &[char]| {
        let hash = hash_of(gram);
        let sign = if hash >> 63 == 0 { 1.0 } else { -1.0 };
        *counts.entry((hash % n_buckets.max(1) as u64) as usize).or_default() += sign;
    };
    let text: String = text.chars().take(MAX_LETTERS).collect();
    let words: Vec<Vec<char>> = text.split_whitespace().map(|word| word.chars().collect()).collect();
    for (at, word) in words.iter().enumerate() {
        let edged: Vec<char> = [EDGE].into_iter().chain(word.iter().copied()).chain([EDGE]).collect();
        for n in N_GRAM {
            edged.windows(n).for_each(&mut count);
        }
        let whole: Vec<char> = [WHOLE].into_iter().chain(word.iter().copied()).collect();
        count(&whole);
        if let Some(next) = words.get(at + 1) {
            let pair: Vec<char> = whole.into_iter().chain([EDGE]).chain(next.iter().copied()).collect();
            count(&pair);
        }
    }
    let mut grams: Vec<(usize, f32)> =
        counts.into_iter().filter(|(_, n)| *n != 0.0).map(|(at, n)| (at, n.signum() * n.abs().ln_1p())).collect();
    grams.sort_unstable_by_key(|(at, _)| *at);
    let length = grams.iter().map(|(_, w)| w * w).sum::<f32>().sqrt().max(1e-6);
    grams.iter_mut().for_each(|(_, weight)| *weight /= length);
    grams
}

/// FNV-1a, 64 bit, with the finaliser of MurmurHash3: the same on every machine.
fn hash_of(gram: &[char]) -> u64 {
    let mut hash = 0xCBF2_9CE4_8422_2325u64;
    for c in gram {
        for byte in u32::from(*c).to_le_bytes() {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01B3);
        }
    }
    hash = (hash ^ (hash >> 33)).wrapping_mul(0xFF51_AFD7_ED55_8CCD);
    hash = (hash ^ (hash >> 33)).wrapping_mul(0xC4CE_B9FE_1A85_EC53);
    hash ^ (hash >> 33)
}

/// A classifier of letters.
#[derive(Debug, Clone, PartialEq)]
pub struct Reader {
    /// `[n_buckets, d]`
    pub(crate) embedding: Vec<f32>,
    /// `[d]`
    pub(crate) bias: Vec<f32>,
    /// `[n_classes, d]`
    pub(crate) classifier: Vec<f32>,
}

impl Reader {
    /// From tensors as a head's file has them.
    ///
    /// # Shapes
    /// - weight: `[d, n_buckets]`
    /// - bias: `[d]`
    /// - classifier: `[n_classes, d]`
    #[must_use]
    pub fn new(weight: &[f32], bias: Vec<f32>, classifier: Vec<f32>) -> Self {
        Self { embedding: transposed(weight, bias.len()), bias, classifier }
    }

    /// What is added to the logits of the sound: `n_classes` numbers.
    #[must_use]
    pub fn logits(&self, letters: &str) -> Vec<f32> {
        let d = self.bias.len();
        let mut hidden = self.bias.clone();
        for (bucket, weight) in n_grams(letters, self.embedding.len() / d.max(1)) {
            for (h, e) in hidden.iter_mut().zip(&self.embedding[bucket * d..]) {
                *h += weight * e;
            }
        }
        hidden.iter_mut().for_each(|h| *h = h.max(0.0));
        self.classifier.chunks(d.max(1)).map(|row| row.iter().zip(&hidden).map(|(w, h)| w * h).sum()).collect()
    }
}

/// `[n_rows, n_columns]` to `[n_columns, n_rows]`.
pub(crate) fn transposed(values: &[f32], n_rows: usize) -> Vec<f32> {
    let n_columns = values.len() / n_rows.max(1);
    (0..values.len()).map(|at| values[at % n_rows * n_columns + at / n_rows]).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_best_path_is_collapsed() {
        let alphabet = Alphabet::new(" abɛ").unwrap();
        assert_eq!(alphabet.classes("ba ɛ"), Some(vec![3, 2, 1, 4]));
        assert_eq!(alphabet.classes("bad"), None);
        // blank a a blank a b b space space ɛ blank space
        let path = [0, 2, 2, 0, 2, 3, 3, 1, 1, 4, 0, 1];
        let scores: Vec<f32> =
            path.iter().flat_map(|class| (0..5).map(move |at| if at == *class { 2.0 } else { -1.0 })).collect();
        assert_eq!(alphabet.collapse(&scores), "aab ɛ");
        assert_eq!(alphabet.collapse(&[]), "");
        assert_eq!(alphabet.to_string(), " abɛ");
    }

    #[test]
    fn an_alphabet_that_cannot_be_one_is_refused() {
        for letters in ["", "aba", &"x".repeat(2)] {
            assert_eq!(Alphabet::new(letters).unwrap_err().code(), "invalid_config", "{letters}");
        }
        let many: String = ('\u{4E00}'..).take(MAX_ALPHABET + 1).collect();
        assert_eq!(Alphabet::new(&many).unwrap_err().code(), "invalid_config");
    }

    #[test]
    fn texts_are_written_as_they_are_said() {
        assert_eq!(spoken_letters("Mɛpa wo kyɛw, fa  YEI!").as_deref(), Some("mɛpa wo kyɛw fa yei"));
        assert_eq!(spoken_letters("I'd like it, please.").as_deref(), Some("i'd like it please"));
        assert_eq!(spoken_letters("Fa 2"), None);
        assert_eq!(spoken_letters("?!").as_deref(), Some(""));
    }

    #[test]
    fn n_grams_are_of_length_one_and_tell_texts_apart() {
        let of = |text: &str| n_grams(text, 4096);
        let length: f32 = of("fa yei to cart no mu").iter().map(|(_, w)| w * w).sum();
        assert!((length - 1.0).abs() < 1e-5);
        assert!(of("").is_empty() && n_grams("fa", 0).len() <= 1);
        let likeness = |a: &str, b: &str| -> f32 {
            let (a, b): (Vec<_>, HashMap<_, _>) = (of(a), of(b).into_iter().collect());
            a.iter().filter_map(|(at, w)| Some(w * b.get(at)?)).sum()
        };
        let near = likeness("remove yei firi cart no mu", "rimu nyi firi cart no mu");
        let far = likeness("remove yei firi cart no mu", "kyerɛ me orders a matɔ");
        assert!(near > 0.5 && far < near / 2.0, "{near} {far}");
        // A hostile length costs no more than a long sentence.
        assert!(of(&"ab cd ".repeat(100_000)).len() < 100);
    }

    #[test]
    fn the_reader_is_one_hidden_layer_on_n_grams() {
        let (n_buckets, d) = (16, 3);
        let mut rng = fastrand::Rng::with_seed(4);
        let mut random = |n: usize| (0..n).map(|_| 2.0 * rng.f32() - 1.0).collect::<Vec<f32>>();
        let reader = Reader { embedding: random(n_buckets * d), bias: random(d), classifier: random(2 * d) };
        let mut hidden = reader.bias.clone();
        for (bucket, weight) in n_grams("to so", n_buckets) {
            (0..d).for_each(|at| hidden[at] += weight * reader.embedding[bucket * d + at]);
        }
        let expected: Vec<f32> = (0..2)
            .map(|class| (0..d).map(|at| reader.classifier[class * d + at] * hidden[at].max(0.0)).sum())
            .collect();
        assert_eq!(reader.logits("to so"), expected);
    }
}
