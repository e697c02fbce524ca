//! The words that customers say and how they follow each other: counted from sentences, it makes words of letters that
//! were heard badly.
//!
//! A head with letters may bring `sentences.txt`, a sentence on each line, as people would say it. Its words are the only
//! ones that [`super::word_search`] writes down, and an n-gram model over them says how likely each is behind two others:
//! interpolated Witten–Bell, of order 3 (Witten and Bell, "The Zero-Frequency Problem", 1991; in the form of Chen and
//! Goodman, "An Empirical Study of Smoothing Techniques for Language Modeling", 1998). What is kept is counts, so that a
//! shop may add its own sentences to the file with an editor.

use std::collections::BTreeSet;

use super::reader::{Alphabet, spoken_letters};
use crate::error::Result;
use crate::whisper::config::invalid;

/// The file of a head's sentences.
pub const SENTENCES_FILE: &str = "sentences.txt";

/// Larger files hold more than customers say.
const MAX_BYTES: usize = 8 << 20;
/// Words of all sentences together.
const MAX_WORDS: usize = 100_000;
/// The longest of them.
const MAX_WORD_LETTERS: usize = 64;
/// Bits of a word's number in an n-gram's.
const WORD_BITS: u32 = 21;
/// Words of an n-gram.
const ORDER: usize = 3;
/// Stands for the two words before the first.
const START: u32 = 0;
/// Stands behind the last word.
const END: u32 = 1;
/// Words are counted from here.
const FIRST_WORD: u32 = 2;

/// The root of [`Lexicon`]'s tree.
pub(super) const ROOT: u32 = 0;

/// Words as a tree of letters, and how they follow each other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lexicon {
    words: Vec<String>,
    nodes: Vec<Node>,
    model: NGrams,
}

/// A letter of the tree. The root's is the space. Small: there are tens of thousands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Node {
    class: u16,
    /// The word that ends here; [`START`]: none.
    word: u32,
    /// The first of the letters that may follow; [`ROOT`]: none.
    first_child: u32,
    /// The next letter behind the same letters; [`ROOT`]: none.
    next: u32,
}

/// Words that were said before: the last two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct History([u32; ORDER - 1]);

/// Counts of n-grams, each list sorted by its numbers.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct NGrams {
    /// Different words, and the end.
    n_words: u32,
    /// For each length less one: n-grams, and how often they are said.
    counts: [Table<u32>; ORDER],
    /// For each length less one: what stands before an n-gram's last word, how often, and how many words follow it.
    contexts: [Table<Followed>; ORDER],
}

/// Values by their keys, which are sorted.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Table<T> {
    keys: Vec<u64>,
    values: Vec<T>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Followed {
    times: u32,
    by: u32,
}

impl Lexicon {
    /// Reads the sentences of a head that writes `alphabet`. Lines with digits, and words with other letters, are passed
    /// over.
    ///
    /// # Errors
    /// [`crate::Error::InvalidConfig`] for what is no text, too large, or holds no word that these letters spell.
    pub fn parse(bytes: &[u8], alphabet: &Alphabet) -> Result<Self> {
        let wrong = |reason: String| Err(invalid(SENTENCES_FILE, reason));
        if bytes.len() > MAX_BYTES {
            return wrong(format!("it may have {} MB at most", MAX_BYTES >> 20));
        }
        let Ok(text) = std::str::from_utf8(bytes) else { return wrong("it must be text in UTF-8".to_owned()) };
        let Some(space) = alphabet.classes(" ").map(|classes| classes[0]) else {
            return wrong("the head's letters hold no space, so it writes no words".to_owned());
        };
        let sentences: Vec<String> = text.lines().filter_map(spoken_letters).collect();
        let words: BTreeSet<&str> = sentences.iter().flat_map(|sentence| sentence.split(' ')).collect();
        let spelled: Vec<(&str, Vec<usize>)> = words
            .into_iter()
            .filter_map(|word| Some((word, alphabet.classes(word)?)))
            .filter(|(_, classes)| (1..=MAX_WORD_LETTERS).contains(&classes.len()))
            .collect();
        if spelled.is_empty() || spelled.len() > MAX_WORDS {
            return wrong(format!("it must hold 1 to {MAX_WORDS} different words in the head's letters"));
        }
        let number =
            |word: &str| spelled.binary_search_by_key(&word, |(word, _)| *word).ok().map(|at| FIRST_WORD + at as u32);
        let numbered = sentences.iter().filter_map(|sentence| {
            let words: Vec<u32> = sentence.split(' ').filter_map(number).collect();
            (!words.is_empty()).then_some(words)
        });
        let model = NGrams::count(numbered, spelled.len() as u32 + 1);
        let mut nodes = vec![Node { class: space as u16, word: START, first_child: ROOT, next: ROOT }];
        for ((_, classes), number) in spelled.iter().zip(FIRST_WORD..) {
            let end = classes.iter().fold(ROOT, |node, class| child_of(&mut nodes, node, *class as u16));
            nodes[end as usize].word = number;
        }
        Ok(Self { words: spelled.into_iter().map(|(word, _)| word.to_owned()).collect(), nodes, model })
    }

    /// Different words.
    #[must_use]
    pub fn n_words(&self) -> usize {
        self.words.len()
    }

    /// A word by its number.
    pub(super) fn word(&self, number: u32) -> &str {
        self.words.get((number - FIRST_WORD) as usize).map_or("", String::as_str)
    }

    pub(super) fn node(&self, at: u32) -> Node {
        self.nodes[at as usize]
    }

    /// The letters that may follow one, with their places.
    pub(super) fn children(&self, of: u32) -> impl Iterator<Item = (u32, Node)> {
        let at = |at: u32| (at != ROOT).then(|| (at, self.node(at)));
        std::iter::successors(at(self.node(of).first_child), move |(_, node)| at(node.next))
    }

    /// The natural logarithm of a word's probability behind others.
    pub(super) fn log_probability(&self, before: History, word: u32) -> f32 {
        self.model.probability(before, word).ln()
    }

    /// That of a sentence's end.
    pub(super) fn log_probability_of_end(&self, before: History) -> f32 {
        self.model.probability(before, END).ln()
    }
}

impl History {
    /// Before the first word.
    pub(super) const NONE: Self = Self([START; ORDER - 1]);

    /// After one more word.
    pub(super) fn with(self, word: u32) -> Self {
        let [_, last] = self.0;
        Self([last, word])
    }
}

impl Node {
    /// The letter's class.
    pub(super) fn class(self) -> usize {
        usize::from(self.class)
    }

    /// The word that ends here.
    pub(super) fn word(self) -> Option<u32> {
        (self.word != START).then_some(self.word)
    }
}

impl<T: Copy> Table<T> {
    /// Behind what is there: a larger key.
    fn push(&mut self, key: u64, value: T) {
        self.keys.push(key);
        self.values.push(value);
    }

    fn last_mut(&mut self) -> Option<(u64, &mut T)> {
        self.keys.last().copied().zip(self.values.last_mut())
    }

    fn get(&self, key: u64) -> Option<T> {
        self.keys.binary_search(&key).ok().map(|at| self.values[at])
    }

    fn shrink(&mut self) {
        self.keys.shrink_to_fit();
        self.values.shrink_to_fit();
    }
}

impl NGrams {
    fn count(sentences: impl Iterator<Item = Vec<u32>>, n_words: u32) -> Self {
        let mut all: [Vec<u64>; ORDER] = Default::default();
        for sentence in sentences {
            let padded: Vec<u32> = [START; ORDER - 1].into_iter().chain(sentence).chain([END]).collect();
            for n_gram in padded.windows(ORDER) {
                for (length, all) in (1..).zip(&mut all) {
                    all.push(packed(&n_gram[ORDER - length..]));
                }
            }
        }
        let mut model = Self { n_words, ..Self::default() };
        for (length, mut all) in all.into_iter().enumerate() {
            all.sort_unstable();
            let (counts, contexts) = (&mut model.counts[length], &mut model.contexts[length]);
            for same in all.chunk_by(|a, b| a == b) {
                let (n_gram, times) = (same[0], same.len() as u32);
                counts.push(n_gram, times);
                let before = n_gram >> WORD_BITS;
                match contexts.last_mut() {
                    Some((last, followed)) if last == before => {
                        followed.times += times;
                        followed.by += 1;
                    }
                    _ => contexts.push(before, Followed { times, by: 1 }),
                }
            }
            counts.shrink();
            contexts.shrink();
        }
        model
    }

    /// What a word's probability is if nothing is known before it; then with the last word, and with the last two, as far
    /// as they were ever said.
    fn probability(&self, History(before): History, word: u32) -> f32 {
        let mut probability = 1.0 / self.n_words as f32;
        for length in 0..ORDER {
            let context = packed(&before[ORDER - 1 - length..]);
            let Some(followed) = self.contexts[length].get(context) else { break };
            let times = self.counts[length].get(context << WORD_BITS | u64::from(word)).unwrap_or(0) as f32;
            let (all, by) = (followed.times as f32, followed.by as f32);
            probability = (times + by * probability) / (all + by);
        }
        probability
    }
}

/// The numbers of words, one behind the other.
fn packed(words: &[u32]) -> u64 {
    words.iter().fold(0, |packed, word| packed << WORD_BITS | u64::from(*word))
}

/// The letter behind another, which is put there if it is not yet.
fn child_of(nodes: &mut Vec<Node>, parent: u32, class: u16) -> u32 {
    let mut at = nodes[parent as usize].first_child;
    while at != ROOT {
        let node = nodes[at as usize];
        if node.class == class {
            return at;
        }
        at = node.next;
    }
    let new = nodes.len() as u32;
    nodes.push(Node { class, word: START, first_child: ROOT, next: nodes[parent as usize].first_child });
    nodes[parent as usize].first_child = new;
    new
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn alphabet() -> Alphabet {
        Alphabet::new(" 'abcdefghijklmnopqrstuvwxyzɔɛ").unwrap()
    }

    fn lexicon(text: &str) -> Lexicon {
        Lexicon::parse(text.as_bytes(), &alphabet()).unwrap()
    }

    /// Numbers of words, in the order of the alphabet.
    fn number(lexicon: &Lexicon, word: &str) -> u32 {
        (FIRST_WORD..).take(lexicon.n_words()).find(|at| lexicon.word(*at) == word).unwrap()
    }

    #[test]
    fn a_words_probability_is_witten_and_bells() {
        // "fa" begins three of four sentences; behind it "yei" twice, "cart" once.
        let lexicon = lexicon("Fa yei.\nfa yei\n\nFA cart\nSan kɔ!\nFa 2\n");
        let of = |word: &str| number(&lexicon, word);
        let behind = |words: &[&str]| words.iter().fold(History::NONE, |before, word| before.with(of(word)));
        let probability = |before: &[&str], word: &str| lexicon.log_probability(behind(before), of(word)).exp();
        assert_eq!(lexicon.n_words(), 5);
        // Six kinds with the end among twelve words; nothing known: a sixth.
        let fa = (3.0 + 6.0 / 6.0) / (12.0 + 6.0);
        // Two kinds behind a start; the two starts say no more than one.
        let fa_first = (3.0 + 2.0 * fa) / (4.0 + 2.0);
        let fa_first = (3.0 + 2.0 * fa_first) / (4.0 + 2.0);
        assert!((probability(&[], "fa") - fa_first).abs() < 1e-6);
        let yei = (2.0 + 1.0) / 18.0;
        let yei = (2.0 + 2.0 * yei) / (3.0 + 2.0);
        let yei = (2.0 + 2.0 * yei) / (3.0 + 2.0);
        assert!((probability(&["fa"], "yei") - yei).abs() < 1e-6);
        // What was never said in that order is less likely, and never impossible.
        assert!(probability(&["yei"], "cart") > 0.0 && probability(&["yei"], "cart") < probability(&["fa"], "cart"));
        // All that may follow is all there is.
        for before in [vec![], vec!["fa"], vec!["fa", "yei"], vec!["kɔ", "kɔ"]] {
            let words: f32 = ["fa", "yei", "cart", "san", "kɔ"].iter().map(|word| probability(&before, word)).sum();
            let end = lexicon.log_probability_of_end(behind(&before)).exp();
            assert!((words + end - 1.0).abs() < 1e-5, "{before:?}: {}", words + end);
        }
    }

    #[test]
    fn words_share_their_first_letters() {
        let lexicon = lexicon("cart cat ca\ncare");
        let mut found = Vec::new();
        let mut open = vec![(ROOT, String::new())];
        while let Some((at, letters)) = open.pop() {
            if let Some(word) = lexicon.node(at).word() {
                assert_eq!(lexicon.word(word), letters);
                found.push(letters.clone());
            }
            for (child, node) in lexicon.children(at) {
                let letter = " 'abcdefghijklmnopqrstuvwxyzɔɛ".chars().nth(node.class() - 1).unwrap();
                open.push((child, format!("{letters}{letter}")));
            }
        }
        found.sort();
        assert_eq!(found, ["ca", "care", "cart", "cat"]);
        assert_eq!(lexicon.nodes.len(), 1 + "car".len() + "t".len() + "e".len() + "t".len());
    }

    #[test]
    fn what_is_no_text_is_refused_and_hostile_lines_are_passed_over() {
        let parse = |bytes: &[u8]| Lexicon::parse(bytes, &alphabet());
        let many: String = (0..=MAX_WORDS).map(|at| format!("{}\n", spelled(at))).collect();
        for (bytes, says) in [
            (&b""[..], "1 to 100000 different words"),
            (b"\n \n2\n", "1 to 100000"),
            (b"\xFF\xFE", "UTF-8"),
            ("ŋŋ ẹẹ".as_bytes(), "in the head's letters"),
            (many.as_bytes(), "1 to 100000"),
            (&vec![b'a'; MAX_BYTES + 1], "8 MB at most"),
        ] {
            let error = parse(bytes).unwrap_err();
            assert_eq!(error.code(), "invalid_config");
            assert!(error.to_string().contains(says), "{error}");
        }
        let error = Lexicon::parse(b"fa", &Alphabet::new("fa").unwrap()).unwrap_err();
        assert!(error.to_string().contains("no space"), "{error}");
        // A line of one word without end, and words that cannot be spelled, beside good ones.
        let long = format!("{}\nfa ŋ yei\n{}", "a".repeat(1 << 20), "cart ".repeat(100_000));
        let lexicon = parse(long.as_bytes()).unwrap();
        assert_eq!(lexicon.n_words(), 3);
    }

    /// Another word for each number.
    fn spelled(mut number: usize) -> String {
        let mut word = String::new();
        loop {
            word.push(char::from(b'a' + (number % 26) as u8));
            number /= 26;
            if number == 0 {
                return word;
            }
        }
    }
}
