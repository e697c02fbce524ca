//! What a model is made of, and what computes it, as one digest: answers may be shared only where both are the same.
//!
//! A model's own description ([`ModelInfo`]) does not tell two trainings of one architecture apart. Here every file of its
//! folders counts, and the running program itself, whose phrases and arithmetic no version number describes. Files that are not
//! read count too: a folder with another README shares nothing, which costs hits and no wrong answer.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use blake3::Hasher;
use okyeame_core::audio::Waveform;
use okyeame_core::decoding::Transcript;
use okyeame_core::{IntentInfo, ModelInfo, Recognition, RecognizeOptions, Recognizer, Result};

use crate::engine::{AskedWords, CheckOptions, Engine, MemoryProbe};
use crate::model_choice::{ModelChoice, TWI_SHOP};

/// A model whose answers may be shared with other processes.
pub(crate) struct Identified {
    pub(crate) recognizer: Recognizer,
    /// Of [`digest`].
    pub(crate) content: String,
}

/// The digest of a model that was opened from these folders.
///
/// # Errors
/// A file that cannot be read.
pub(crate) fn digest(choice: &ModelChoice, folders: &[PathBuf]) -> io::Result<String> {
    let mut hasher = Hasher::new();
    add_file(&mut hasher, "program", &program()?)?;
    // What is asked of a folder that holds more than one model.
    add(&mut hasher, "choice", format!("{:?} {:?}", choice.task(), choice.adapter()).as_bytes());
    if choice.is_default() {
        for (name, content) in TWI_SHOP.files {
            add(&mut hasher, name, content);
        }
    }
    for folder in folders {
        let mut files = Vec::new();
        for entry in std::fs::read_dir(folder)? {
            let path = entry?.path();
            // A snapshot of the hub's cache holds links.
            if path.is_file() {
                files.push(path);
            }
        }
        files.sort();
        add(&mut hasher, "folder", &files.len().to_le_bytes());
        for path in files {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            add_file(&mut hasher, &name, &path)?;
        }
    }
    Ok(hasher.finalize().to_hex().to_string())
}

/// The file that this process runs, also after another was put in its place.
fn program() -> io::Result<PathBuf> {
    let running = PathBuf::from("/proc/self/exe");
    if running.exists() { Ok(running) } else { std::env::current_exe() }
}

/// The lengths first: no two lists of parts give the same bytes.
fn add(hasher: &mut Hasher, name: &str, content: &[u8]) {
    for part in [name.as_bytes(), content] {
        hasher.update(&(part.len() as u64).to_le_bytes()).update(part);
    }
}

/// By its own digest, so that a large file is read piece by piece.
fn add_file(hasher: &mut Hasher, name: &str, path: &Path) -> io::Result<()> {
    let mut of_file = Hasher::new();
    of_file.update_reader(File::open(path)?)?;
    add(hasher, name, of_file.finalize().as_bytes());
    Ok(())
}

impl Engine for Identified {
    fn recognize(&self, waveform: &Waveform, options: &RecognizeOptions) -> Result<Recognition> {
        Engine::recognize(&self.recognizer, waveform, options)
    }

    fn recognize_all(&self, clips: &[(&Waveform, &RecognizeOptions)]) -> Vec<Result<Recognition>> {
        Engine::recognize_all(&self.recognizer, clips)
    }

    fn recognize_text(&self, text: &str, options: &RecognizeOptions) -> Result<Recognition> {
        Engine::recognize_text(&self.recognizer, text, options)
    }

    fn transcribe(&self, waveform: &Waveform, asked: &AskedWords) -> Result<Transcript> {
        Engine::transcribe(&self.recognizer, waveform, asked)
    }

    fn info(&self) -> &ModelInfo {
        self.recognizer.info()
    }

    fn intents(&self) -> &[IntentInfo] {
        self.recognizer.intents()
    }

    fn options_check(&self) -> CheckOptions {
        Engine::options_check(&self.recognizer)
    }

    fn memory_probe(&self) -> Option<MemoryProbe> {
        self.recognizer.memory_probe()
    }

    fn fingerprint(&self) -> String {
        format!("{} {}", Engine::fingerprint(&self.recognizer), self.content)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn every_file_counts_and_so_does_what_is_asked_of_them() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, content: &str| std::fs::write(folder.path().join(name), content).unwrap();
        let model = ModelChoice::new(Some("./model"), None);
        let of = |choice: &ModelChoice| digest(choice, &[folder.path().to_owned()]).unwrap();
        write("config.json", "{}");
        write("calibration.json", "1");
        let first = of(&model);
        assert_eq!(of(&model), first, "the same again");
        write("calibration.json", "2");
        let calibrated = of(&model);
        assert_ne!(calibrated, first);
        write("more", "");
        assert_ne!(of(&model), calibrated);
        std::fs::remove_file(folder.path().join("more")).unwrap();
        assert_eq!(of(&model), calibrated);
        assert_ne!(of(&model.clone().with_adapter(Some("aka"))), calibrated);
        assert_ne!(of(&ModelChoice::default()), calibrated, "the built-in head");
    }

    #[test]
    fn a_folder_that_is_not_there_has_no_digest() {
        let folder = tempfile::tempdir().unwrap();
        assert!(digest(&ModelChoice::default(), &[folder.path().join("none")]).is_err());
    }
}
