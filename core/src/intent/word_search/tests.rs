#![allow(clippy::unwrap_used)]

use std::collections::HashMap;

use super::*;
use crate::intent::reader::Alphabet;

const LETTERS: &str = " abɔ";

fn lexicon(sentences: &str) -> Lexicon {
    Lexicon::parse(sentences.as_bytes(), &Alphabet::new(LETTERS).unwrap()).unwrap()
}

/// Scores that make one class of each position the likeliest, by `lead`.
fn heard(classes: &[usize], lead: f32) -> Vec<f32> {
    classes.iter().flat_map(|class| (0..5).map(move |at| if at == *class { lead } else { 0.0 })).collect()
}

/// Letter by letter: "-" is none.
fn path(letters: &str) -> Vec<usize> {
    letters.chars().map(|c| LETTERS.chars().position(|letter| letter == c).map_or(0, |at| at + 1)).collect()
}

/// The best words by adding up every path there is.
fn by_every_path(scores: &[f32], lexicon: &Lexicon) -> Option<String> {
    let n = scores.len() / 5;
    let rows: Vec<Vec<f32>> = scores
        .chunks(5)
        .map(|scores| {
            let all = scores.iter().map(|score| score.exp()).sum::<f32>().ln();
            scores.iter().map(|score| score - all).collect()
        })
        .collect();
    // With a space behind the last word, and without: two hypotheses.
    let mut texts: HashMap<(String, bool), f64> = HashMap::new();
    for at in 0..5usize.pow(n as u32) {
        let classes: Vec<usize> = (0..n).map(|position| at / 5usize.pow(position as u32) % 5).collect();
        let mut spelled = String::new();
        for (position, class) in classes.iter().enumerate() {
            if *class != 0 && (position == 0 || classes[position - 1] != *class) {
                spelled.push(LETTERS.chars().nth(class - 1).unwrap());
            }
        }
        let words = spelled.split_whitespace().collect::<Vec<_>>().join(" ");
        let log: f32 = classes.iter().zip(&rows).map(|(class, row)| row[*class]).sum();
        *texts.entry((words, spelled.ends_with(' '))).or_default() += f64::from(log).exp();
    }
    let number = |word: &str| (2..).take(lexicon.n_words()).find(|at| lexicon.word(*at) == word);
    let scored = texts.into_iter().filter_map(|((text, _), probability)| {
        let mut score = probability.ln() as f32;
        let mut history = History::NONE;
        for word in text.split_whitespace() {
            let word = number(word)?;
            score += LANGUAGE_WEIGHT * lexicon.log_probability(history, word) + WORD_BONUS;
            history = history.with(word);
        }
        Some((score + LANGUAGE_WEIGHT * lexicon.log_probability_of_end(history), text))
    });
    scored.max_by(|a, b| a.0.total_cmp(&b.0)).map(|(_, text)| text)
}

#[test]
fn it_finds_what_adding_up_every_path_finds() {
    let lexicon = lexicon("a\nab\nab a\nba ab\nbɔ\naa b\nab\n");
    let mut rng = fastrand::Rng::with_seed(3);
    let mut different = std::collections::HashSet::new();
    for round in 0..60 {
        let n = 2 + round % 5;
        let scores: Vec<f32> = (0..n * 5).map(|_| 6.0 * rng.f32() - 3.0).collect();
        let expected = by_every_path(&scores, &lexicon);
        assert_eq!(best_words(&scores, 5, &lexicon), expected, "round {round}");
        different.insert(expected);
    }
    assert!(different.len() > 5, "{different:?}");
}

#[test]
fn a_letter_that_was_heard_badly_becomes_a_word_that_is_said() {
    let lexicon = lexicon("abba bɔ\nabba\nbaba");
    // "abaa bɔ" is no word; "abba bɔ" is two.
    let mut scores = heard(&path("a-b-aa-  bɔ-"), 3.0);
    scores[4 * 5 + 3] = 2.5; // the third letter may be a "b" as well
    assert_eq!(best_words(&scores, 5, &lexicon).as_deref(), Some("abba bɔ"));
    // Twice the same letter has "none" in between, and a missing space is put in.
    assert_eq!(best_words(&heard(&path("ab-baabbɔ"), 9.0), 5, &lexicon).as_deref(), Some("abba bɔ"));
    assert_eq!(best_words(&heard(&path(" -ab-ba- - bɔ "), 6.0), 5, &lexicon).as_deref(), Some("abba bɔ"));
}

#[test]
fn what_ends_with_no_word_has_none() {
    let lexicon = lexicon("abba");
    assert_eq!(best_words(&[], 5, &lexicon).as_deref(), Some(""));
    assert_eq!(best_words(&heard(&path("---"), 20.0), 5, &lexicon).as_deref(), Some(""));
    // Not a number anywhere: an answer of some kind, and no panic.
    let answer = best_words(&[f32::NAN; 20], 5, &lexicon);
    assert!(answer.is_none_or(|text| text.len() < 10));
    assert!(best_words(&[f32::INFINITY; 20], 5, &lexicon).is_none_or(|text| text.len() < 10));
}

#[test]
fn a_long_clip_of_noise_ends_in_good_time() {
    let lexicon = lexicon(&["a", "b", "ab", "ba", "aa", "bb", "ɔ", "aɔ", "bɔ"].join("\n"));
    let mut rng = fastrand::Rng::with_seed(5);
    let scores: Vec<f32> = (0..1500 * 5).map(|_| rng.f32()).collect();
    let text = best_words(&scores, 5, &lexicon).unwrap();
    assert!(text.split(' ').all(|word| word.len() <= 3) && text.len() > 10, "{text}");
}
