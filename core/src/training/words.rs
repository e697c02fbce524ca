//! What the base model writes for a clip, kept beside a run: decoding is the slow part, and it is the same for every
//! head on that base.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::intent::text_match::{Heard, IntentRanking, PhraseBook};

/// The words of one clip.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Written {
    /// BLAKE3 of the samples, hexadecimal.
    pub content: String,
    /// What the decoder was told.
    pub language: String,
    /// What it wrote; `None` if it heard nobody.
    pub text: Option<String>,
}

impl Written {
    /// What the words mean.
    #[must_use]
    pub fn rank(&self) -> Option<IntentRanking> {
        let text = self.text.as_deref()?;
        let ranking = PhraseBook::built_in().rank(&[Heard { language: &self.language, text }]);
        (!ranking.predictions.is_empty()).then_some(ranking)
    }
}

/// A file of [`Written`], a JSON object on each line, that only grows.
#[derive(Debug)]
pub struct WordsCache {
    file: File,
    known: HashMap<String, Written>,
}

impl WordsCache {
    /// Opens the file, or begins it. Half a line, which a kill leaves, is passed over.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn open(path: &Path) -> Result<Self> {
        let io = |source| Error::Io { what: "the file of transcripts".to_owned(), source };
        let mut file = OpenOptions::new().read(true).append(true).create(true).open(path).map_err(io)?;
        let mut known = HashMap::new();
        let mut last_is_whole = true;
        for line in BufReader::new(&file).split(b'\n') {
            let line = line.map_err(io)?;
            match serde_json::from_slice::<Written>(&line) {
                Ok(written) => {
                    known.insert(written.content.clone(), written);
                    last_is_whole = true;
                }
                Err(_) => last_is_whole = line.is_empty(),
            }
        }
        if !last_is_whole {
            writeln!(file).map_err(io)?;
        }
        Ok(Self { file, known })
    }

    /// The words of a clip, if they were written before.
    #[must_use]
    pub fn get(&self, content: &str) -> Option<&Written> {
        self.known.get(content)
    }

    /// Keeps the words of a clip.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn add(&mut self, written: Written) -> Result<()> {
        let io = |source| Error::Io { what: "the file of transcripts".to_owned(), source };
        let line = serde_json::to_string(&written).map_err(|e| io(e.into()))?;
        writeln!(self.file, "{line}").map_err(io)?;
        self.known.insert(written.content.clone(), written);
        Ok(())
    }
}

/// A hash as text.
#[must_use]
pub fn hex(content: &[u8; 32]) -> String {
    content.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn transcripts_outlive_a_run_that_was_killed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("words.jsonl");
        let written = |content: &str, text: Option<&str>| Written {
            content: content.to_owned(),
            language: "sw".to_owned(),
            text: text.map(str::to_owned),
        };
        let mut cache = WordsCache::open(&path).unwrap();
        cache.add(written("a", Some("Faye i toka no mu."))).unwrap();
        cache.add(written("b", None)).unwrap();
        drop(cache);
        let whole = std::fs::read(&path).unwrap();
        std::fs::write(&path, &whole[..whole.len() - 4]).unwrap();
        let mut cache = WordsCache::open(&path).unwrap();
        assert!(cache.get("a").is_some() && cache.get("b").is_none());
        cache.add(written("c", Some(""))).unwrap();
        let cache = WordsCache::open(&path).unwrap();
        assert_eq!(cache.get("a").unwrap().rank().unwrap().predictions.len(), 49);
        assert!(cache.get("c").unwrap().rank().is_none());
    }
}
