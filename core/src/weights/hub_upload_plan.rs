//! What of a folder is sent, after it was seen to be a model.

use std::fs::{self, File};
use std::io::Read as _;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::error::{Error, Result, printable};
use crate::intent::calibration::{CALIBRATION_FILE, Calibration};
use crate::intent::label_files::read_labels;
use crate::intent::lexicon::{Lexicon, SENTENCES_FILE};
use crate::intent::reader::Alphabet;
use crate::weights::folder::{HEAD_MODEL_TYPE, MAX_TEXT_FILE_BYTES, ModelFolder};
use crate::weights::hub_download::digests;
use crate::weights::hub_files::{Checksum, RepoFile};
use crate::weights::safetensors::Safetensors;

const CARD: &str = "README.md";
/// Files that belong to a model, beside `*.safetensors` and their index.
const NAMES: [&str; 17] = [
    CARD,
    "config.json",
    "intent_labels.json",
    CALIBRATION_FILE,
    SENTENCES_FILE,
    "evaluation.json",
    "report.html",
    "generation_config.json",
    "preprocessor_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "normalizer.json",
    "vocab.json",
    "merges.txt",
    "LICENSE",
];

/// A file on its way out.
#[derive(Debug)]
pub(super) struct Outgoing {
    pub(super) name: String,
    pub(super) path: PathBuf,
    pub(super) size: u64,
    /// Of its bytes, in hex.
    pub(super) sha256: String,
    /// What git calls it.
    git_sha1: String,
}

/// What a folder holds.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) files: Vec<Outgoing>,
    pub(super) left_out: Vec<String>,
}

impl Plan {
    pub(super) fn of(folder: &Path, needs_card: bool) -> Result<Self> {
        let refused = |allowed: String| Error::InvalidParameter { name: "folder", allowed };
        let io = |source| Error::Io { what: format!("reading {}", folder.display()), source };
        let (mut names, mut left_out) = (Vec::new(), Vec::new());
        for entry in fs::read_dir(folder).map_err(io)? {
            let entry = entry.map_err(io)?;
            let kind = entry.file_type().map_err(io)?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let is_wanted = NAMES.contains(&name.as_str())
                || name.ends_with(".safetensors")
                || name.ends_with(".safetensors.index.json");
            if is_wanted && !kind.is_file() {
                let what = if kind.is_symlink() { "a link" } else { "no file" };
                return Err(refused(format!("{} is {what}; put the file itself into the folder", printable(&name))));
            }
            if is_wanted { names.push(name) } else { left_out.push(printable(&name)) }
        }
        names.sort();
        left_out.sort();
        let has = |name: &str| names.iter().any(|n| n == name);
        if !names.iter().any(|name| name.ends_with(".safetensors")) {
            let pickled = left_out.iter().any(|name| name.ends_with(".bin") || name.ends_with(".pt"));
            let convert = "; pickled weights may run code where they are loaded: save them as safetensors";
            let what = format!("*.safetensors in the folder{}", if pickled { convert } else { "" });
            return Err(Error::ModelNotFound { what });
        }
        if needs_card && !has(CARD) {
            return Err(refused(
                "it has no README.md: `okyeame eval FOLDER … --card FOLDER` writes a model card with measured figures, \
                 and --no-card sends the folder without"
                    .to_owned(),
            ));
        }
        check_model(folder, &names)?;
        let files = names.into_iter().map(|name| Outgoing::of(folder, name)).collect::<Result<_>>()?;
        Ok(Self { files, left_out })
    }
}

/// A head is checked by itself: its base need not be here. Everything else is opened as a model.
fn check_model(folder: &Path, names: &[String]) -> Result<()> {
    let invalid = |file: &str, reason: String| Error::InvalidConfig { file: file.to_owned(), reason };
    let read = |name: &str| -> Result<Option<Vec<u8>>> {
        if !names.iter().any(|n| n == name) {
            return Ok(None);
        }
        let io = |source| Error::Io { what: format!("reading {name}"), source };
        let path = folder.join(name);
        if fs::metadata(&path).map_err(io)?.len() > MAX_TEXT_FILE_BYTES {
            return Err(invalid(name, "it is too large for such a file".to_owned()));
        }
        fs::read(path).map(Some).map_err(io)
    };
    let config = read("config.json")?.ok_or_else(|| Error::ModelNotFound { what: "config.json".to_owned() })?;
    let config: Value = serde_json::from_slice(&config).map_err(|e| invalid("config.json", e.to_string()))?;
    if config.get("model_type").and_then(Value::as_str) != Some(HEAD_MODEL_TYPE) {
        return ModelFolder::open(folder).map(|_| ());
    }
    if !config.get("_name_or_path").and_then(Value::as_str).is_some_and(|base| base.contains('/')) {
        let reason = "_name_or_path must be the repository of the head's base, such as openai/whisper-base, or nobody \
                      else can load the head; `okyeame train --base-name` writes it";
        return Err(invalid("config.json", reason.to_owned()));
    }
    let labels = read_labels(read("intent_labels.json")?.as_deref(), None, &config)?;
    if labels.is_none() {
        return Err(Error::ModelNotFound { what: "intent_labels.json".to_owned() });
    }
    if let Some(calibration) = read(CALIBRATION_FILE)? {
        Calibration::parse(&calibration)?;
    }
    if let (Some(sentences), Some(letters)) = (read(SENTENCES_FILE)?, config.get("letters").and_then(Value::as_str)) {
        Lexicon::parse(&sentences, &Alphabet::new(letters)?)?;
    }
    for name in names.iter().filter(|name| name.ends_with(".safetensors")) {
        let io = |source| Error::Io { what: format!("reading {name}"), source };
        Safetensors::from_bytes(fs::read(folder.join(name)).map_err(io)?, name)?;
    }
    Ok(())
}

impl Outgoing {
    /// Reads the file once, for both of its names.
    fn of(folder: &Path, name: String) -> Result<Self> {
        let path = folder.join(&name);
        let io = |source| Error::Io { what: format!("reading {name}"), source };
        let mut file = File::open(&path).map_err(io)?;
        let size = file.metadata().map_err(io)?.len();
        let [sha256, git_sha1] = digests(&mut file, size).map_err(io)?;
        Ok(Self { name, path, size, sha256, git_sha1 })
    }

    /// Whether the repository has it as it is.
    pub(super) fn is(&self, there: &RepoFile) -> bool {
        let checksum = match &there.checksum {
            Checksum::Sha256(_) => &self.sha256,
            Checksum::GitBlob(_) => &self.git_sha1,
        };
        there.size == self.size && there.checksum.hex() == checksum
    }

    /// Its first bytes.
    pub(super) fn sample(&self, at_most: usize) -> Result<Vec<u8>> {
        let io = |source| Error::Io { what: format!("reading {}", self.name), source };
        let mut bytes = Vec::new();
        File::open(&self.path).map_err(io)?.take(at_most as u64).read_to_end(&mut bytes).map_err(io)?;
        Ok(bytes)
    }
}
