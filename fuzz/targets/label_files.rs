//! The files that name a head's classes, and the words that it writes: `intent::label_files`, `intent::lexicon`.
//!
//! The input is `intent_labels.json`, `label_map.json` and `config.json`, with a NUL between them; an empty one is not
//! there. The whole of it is `sentences.txt` as well.

use std::collections::HashSet;

use okyeame_core::intent::label_files::{Labels, check_count, read_labels};
use okyeame_core::intent::reader::Alphabet;
use serde_json::{Value, json};

use crate::check;

/// Says whether it was read.
pub(crate) fn run(input: &[u8]) -> bool {
    let mut files = input.splitn(3, |byte| *byte == 0);
    let mut next = || files.next().filter(|file| !file.is_empty());
    let (intent_labels, label_map) = (next(), next());
    let spells = sentences(input);
    let config = next().and_then(|file| serde_json::from_slice(file).ok()).unwrap_or(Value::Null);
    match read_labels(intent_labels, label_map, &config) {
        Ok(Some(labels)) => {
            holds(&labels);
            true
        }
        Ok(None) => spells,
        Err(error) => check::refused(&error, &["invalid_config"]) || spells,
    }
}

/// Whatever is heard, words of the file are written.
fn sentences(input: &[u8]) -> bool {
    let alphabet = Alphabet::new(" 'abcdefghijklmnopqrstuvwxyzɔɛ").expect("different letters");
    let n_classes = alphabet.len() + 1;
    match alphabet.with_sentences(input) {
        Ok(alphabet) => {
            let scores: Vec<f32> = (0..40 * n_classes).map(|at| (at * 7919 % 101) as f32 / 10.0).collect();
            let written = alphabet.spell(&scores);
            assert!(
                alphabet.lexicon().is_some_and(|lexicon| lexicon.n_words() > 0) && written.len() <= 80,
                "{written}"
            );
            true
        }
        Err(error) => check::refused(&error, &["invalid_config"]),
    }
}

fn holds(labels: &Labels) {
    let names = &labels.names;
    assert!(!names.is_empty() && names.iter().collect::<HashSet<_>>().len() == names.len(), "{names:?}");
    assert!(names.iter().all(|name| !name.trim().is_empty() && !name.chars().any(char::is_control)), "{names:?}");
    assert!(check_count(labels, names.len()).is_ok() && check_count(labels, names.len() + 1).is_err());
    let file = json!({ "labels": names }).to_string();
    let again =
        read_labels(Some(file.as_bytes()), None, &Value::Null).expect("labels that were read can be read again");
    assert_eq!(again.as_ref().map(|again| &again.names), Some(names));
}
