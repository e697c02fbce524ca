//! Sentences that nobody spoke: a file of them teaches a head's reader ([`super::read_fit`]) more ways of saying a thing
//! than there are recordings.
//!
//! A CSV or TSV file with `text`, `intent` and, if known, `wording`. What tests a head stays unknown to it: sentences of
//! a wording that is set aside, or with the words of such a clip, are left out.

use std::collections::{HashMap, HashSet};
use std::path::Path;

use super::manifest::Manifest;
use super::splits::{Cell, Splits};
use crate::error::{Error, Result, printable};
use crate::intent::reader::spoken_letters;

/// Larger files are no list of sentences.
const MAX_BYTES: u64 = 256 << 20;
/// An intent of this name, or none, is no command.
const NO_INTENT: &str = "none";

/// A sentence that nobody spoke.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Phrase {
    /// As [`spoken_letters`] gives it.
    pub letters: String,
    /// The place of its intent among the labels; `None`: no command.
    pub label: Option<usize>,
    /// Sentences of the same wording that stand before it; 0 where no wording is given.
    pub nth_of_wording: usize,
}

/// The sentences of a file, without those that a test is made of.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Phrases {
    /// Each once.
    pub phrases: Vec<Phrase>,
    /// How many were left out because they are set aside.
    pub n_set_aside: usize,
}

/// Reads a file of sentences.
///
/// # Errors
/// [`Error::Io`]; [`Error::InvalidParameter`], naming the first line that is wrong.
pub fn read_phrases(path: &Path, labels: &[String], manifest: &Manifest, splits: &Splits) -> Result<Phrases> {
    let wrong = |reason: String| Error::InvalidParameter { name: "phrases", allowed: reason };
    let io = |source| Error::Io { what: format!("reading {}", path.display()), source };
    if std::fs::metadata(path).map_err(io)?.len() > MAX_BYTES {
        return Err(wrong(format!("a file of up to {} MB", MAX_BYTES >> 20)));
    }
    let delimiter = if path.extension().is_some_and(|e| e.eq_ignore_ascii_case("tsv")) { b'\t' } else { b',' };
    let mut reader = csv::ReaderBuilder::new()
        .delimiter(delimiter)
        .quoting(delimiter == b',')
        .flexible(true)
        .from_path(path)
        .map_err(|e| wrong(e.to_string()))?;
    let header = reader.headers().map_err(|e| wrong(format!("line 1: {e}")))?.clone();
    let column = |name: &str| header.iter().position(|h| h.trim().trim_start_matches('\u{FEFF}') == name);
    let (Some(text), Some(intent)) = (column("text"), column("intent")) else {
        return Err(wrong("the first line names the columns: text, intent and, if known, wording".to_owned()));
    };
    let wording = column("wording");
    let (wordings, texts) = set_aside(manifest, splits);
    let mut found = Phrases::default();
    let mut seen = HashSet::new();
    let mut of_wording: HashMap<String, usize> = HashMap::new();
    for record in reader.records() {
        let record = record.map_err(|e| wrong(e.to_string()))?;
        let line = record.position().map_or(0, csv::Position::line);
        let field = |at: usize| record.get(at).unwrap_or_default().trim();
        let label = match field(intent) {
            "" | NO_INTENT => None,
            name => Some(
                labels
                    .iter()
                    .position(|label| label == name)
                    .ok_or_else(|| wrong(format!("line {line}: '{}' is no intent of the labels", printable(name))))?,
            ),
        };
        let Some(letters) = spoken_letters(field(text)).filter(|letters| !letters.is_empty()) else { continue };
        if wording.is_some_and(|at| wordings.contains(field(at))) || texts.contains(&letters) {
            found.n_set_aside += 1;
        } else if seen.insert(letters.clone()) {
            let nth_of_wording = match wording.map(field).filter(|name| !name.is_empty()) {
                None => 0,
                Some(name) => {
                    let n = of_wording.entry(name.to_owned()).or_default();
                    *n += 1;
                    *n - 1
                }
            };
            found.phrases.push(Phrase { letters, label, nth_of_wording });
        }
    }
    Ok(found)
}

/// Wordings and texts of the clips that are set aside for their wording.
fn set_aside<'a>(manifest: &'a Manifest, splits: &Splits) -> (HashSet<&'a str>, HashSet<String>) {
    let is_new = |cell: Cell| {
        matches!(cell, Cell::ValidationWording | Cell::ValidationBoth | Cell::TestWording | Cell::TestBoth)
    };
    let clips = manifest.examples.iter().zip(&splits.cells).filter(|(_, cell)| is_new(**cell));
    clips.map(|(example, _)| (example.wording.as_str(), spoken_letters(&example.text).unwrap_or_default())).unzip()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::training::manifest::Example;

    fn example(text: &str, wording: &str) -> Example {
        Example {
            line: 1,
            path: "a.wav".into(),
            shown_path: "a.wav".to_owned(),
            text: text.to_owned(),
            label: Some(0),
            slots: serde_json::Map::new(),
            speaker: "ama".to_owned(),
            wording: wording.to_owned(),
            kind: "command".to_owned(),
            language: String::new(),
            split: None,
            duration_s: 1.0,
            content: [0; 32],
        }
    }

    fn read(text: &str, name: &str) -> Result<Phrases> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        let examples = vec![example("Bue cart no", "w/1"), example("Me ne wo", "w/2"), example("Hwɛ cart", "w/3")];
        let manifest = Manifest { examples, ..Manifest::default() };
        let cells = vec![Cell::TestWording, Cell::ValidationBoth, Cell::Train];
        let splits = Splits { cells, notes: Vec::new() };
        read_phrases(&path, &["show_cart".to_owned(), "go_back".to_owned()], &manifest, &splits)
    }

    #[test]
    fn sentences_of_wordings_that_test_are_left_out() {
        let found = read(
            "text,intent,wording\nKyerɛ me cart,show_cart,w/3\nCart no bue,show_cart,w/1\n\"Me, ne wo!\",none,w/9\n\
             San kɔ,go_back,\nSan kɔ.,go_back,\nKɔ 2,go_back,\n?,none,\nƐte sɛn,none,w/7\n",
            "p.csv",
        )
        .unwrap();
        let texts: Vec<(&str, Option<usize>)> = found.phrases.iter().map(|p| (p.letters.as_str(), p.label)).collect();
        assert_eq!(texts, [("kyerɛ me cart", Some(0)), ("san kɔ", Some(1)), ("ɛte sɛn", None)]);
        assert_eq!(found.n_set_aside, 2);
        let nth: Vec<usize> = found.phrases.iter().map(|p| p.nth_of_wording).collect();
        assert_eq!(nth, [0, 0, 0]);
        let many = read(
            "text,intent,wording\nBue,go_back,w/5\nKɔ,go_back,w/6\nSan,go_back,w/5\nYi,go_back,\nTo,go_back,\n",
            "p.csv",
        );
        let nth: Vec<usize> = many.unwrap().phrases.iter().map(|p| p.nth_of_wording).collect();
        assert_eq!(nth, [0, 0, 1, 0, 0]);
        assert_eq!(read("intent\ttext\ngo_back\tSan \"kɔ\n", "p.tsv").unwrap().phrases.len(), 1);
    }

    #[test]
    fn what_is_wrong_is_named_by_its_line() {
        for (text, says) in [
            ("", "the first line names the columns"),
            ("text;intent\n", "the first line names the columns"),
            ("text,intent\nSan kɔ,go_back\nSan,go_bakc\n", "line 3: 'go_bakc' is no intent"),
        ] {
            let error = read(text, "p.csv").unwrap_err();
            assert!(error.to_string().contains(says), "{error}");
        }
        let rubbish = [0xFF, 0xFE, b',', b'\n'];
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("p.csv"), rubbish).unwrap();
        let (manifest, splits) = (Manifest::default(), Splits { cells: Vec::new(), notes: Vec::new() });
        for name in ["p.csv", "not-there.csv", ""] {
            assert!(read_phrases(&folder.path().join(name), &[], &manifest, &splits).is_err(), "{name}");
        }
    }
}
