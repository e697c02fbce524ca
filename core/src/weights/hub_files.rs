//! What a repository holds, and which of it a model needs. No I/O.
//!
//! Follows the hub's `GET /api/models/{repo}/revision/{revision}?blobs=true` as huggingface_hub's
//! `model_info(files_metadata=True)` reads it (`hf_api.py`), and the names under which transformers saves
//! an MMS model's adapters (`models/wav2vec2/modeling_wav2vec2.py`, `load_adapter`).
//!
//! Only files at the root of a repository are taken: every layout that is read here has its files there.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;

use super::hub_names::{adapter_files, adapter_language, is_hex, is_plain_name, leaves_the_folder};
use crate::error::{Error, Result};

/// What says how to compute: dimensions, decoding, features, tokens, labels, calibration, words.
const SETTINGS: [&str; 9] = [
    "config.json",
    "generation_config.json",
    "preprocessor_config.json",
    "processor_config.json",
    "tokenizer.json",
    "intent_labels.json",
    "label_map.json",
    "calibration.json",
    "sentences.txt",
];

/// What stands in for `tokenizer.json` where there is none; a CTC model (wav2vec2) has its vocabulary in it.
const TOKENIZER_PARTS: [&str; 6] = [
    "vocab.json",
    "merges.txt",
    "normalizer.json",
    "added_tokens.json",
    "special_tokens_map.json",
    "tokenizer_config.json",
];

/// Weight files in the order in which one of them is chosen. CTranslate2's comes last: a repository
/// that also holds PyTorch's `.bin` was converted from it, and the original is the one to trust.
const WEIGHTS: [Weights; 5] = [
    Weights::Single("model.safetensors"),
    Weights::Sharded("model.safetensors.index.json"),
    Weights::Single("pytorch_model.bin"),
    Weights::Sharded("pytorch_model.bin.index.json"),
    Weights::Single("model.bin"),
];

/// The one weight format of a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Weights {
    /// All in this file.
    Single(&'static str),
    /// In the files that this index names.
    Sharded(&'static str),
}

impl Weights {
    fn name(self) -> &'static str {
        match self {
            Self::Single(name) | Self::Sharded(name) => name,
        }
    }
}

/// The files that make a model, by name.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Selection {
    /// Everything but the weights.
    pub(super) settings: Vec<&'static str>,
    /// The adapter of the language that was asked for.
    pub(super) adapter: Option<String>,
    /// The weights.
    pub(super) weights: Weights,
}

/// What a model cannot do without.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Absent {
    /// Weights, in any format that is read.
    Weights,
    /// The adapter that was asked for.
    Adapter,
}

/// Picks what a model needs among what there is. Without a language, no adapter: MMS has more than a
/// thousand of them.
///
/// # Errors
/// What is not there.
pub(super) fn select(has: impl Fn(&str) -> bool, adapter: Option<&str>) -> std::result::Result<Selection, Absent> {
    let weights = WEIGHTS.into_iter().find(|w| has(w.name())).ok_or(Absent::Weights)?;
    let adapter = match adapter {
        None => None,
        Some(language) => Some(adapter_files(language).into_iter().find(|file| has(file)).ok_or(Absent::Adapter)?),
    };
    // A vocabulary without merges is a CTC model's: it is read even beside a `tokenizer.json`.
    let is_ctc = has("vocab.json") && !has("merges.txt");
    let parts: &[&'static str] = if has("tokenizer.json") && !is_ctc { &[] } else { &TOKENIZER_PARTS };
    let settings = SETTINGS.iter().chain(parts).copied().filter(|name| has(name)).collect();
    Ok(Selection { settings, adapter, weights })
}

/// Names an adapter that is not there, and at most a dozen that are: those that are spelt most like it.
pub(super) fn missing_adapter(wanted: &str, there: &BTreeSet<&str>) -> String {
    const SHOWN: usize = 12;
    let mut nearest: Vec<&str> = there.iter().copied().collect();
    nearest.sort_by_key(|language| strsim::levenshtein(wanted, language));
    let more = if nearest.len() > SHOWN { ", …" } else { "" };
    nearest.truncate(SHOWN);
    match nearest.len() {
        0 => format!("the adapter '{wanted}' (the repository has none)"),
        _ => format!("the adapter '{wanted}' (the repository has: {}{more})", nearest.join(", ")),
    }
}

/// Every name that a loader may look for.
pub(super) fn known_names() -> impl Iterator<Item = &'static str> {
    SETTINGS.into_iter().chain(TOKENIZER_PARTS).chain(WEIGHTS.into_iter().map(Weights::name))
}

/// The weight files that an index names.
///
/// # Errors
/// [`Error::InvalidConfig`] if it is no index, or names a file outside its folder.
pub(super) fn shards(index: &[u8], index_name: &str) -> Result<BTreeSet<String>> {
    #[derive(Deserialize)]
    struct Index {
        weight_map: BTreeMap<String, String>,
    }
    let invalid = |reason: String| Error::InvalidConfig { file: index_name.to_owned(), reason };
    let index: Index = serde_json::from_slice(index).map_err(|e| invalid(e.to_string()))?;
    let files: BTreeSet<String> = index.weight_map.into_values().collect();
    if files.is_empty() {
        return Err(invalid("it names no weight file".to_owned()));
    }
    if files.iter().any(|file| !is_plain_name(file)) {
        return Err(invalid("it names a file outside the model's folder".to_owned()));
    }
    Ok(files)
}

/// What the hub states about a file's content, as a hex digest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Checksum {
    /// Of a file in large-file storage.
    Sha256(String),
    /// The SHA-1 that git gives a blob: over a header with its length, then the content.
    GitBlob(String),
}

impl Checksum {
    /// The hex digest; also the file's name among a hub cache's blobs.
    pub(super) fn hex(&self) -> &str {
        match self {
            Self::Sha256(hex) | Self::GitBlob(hex) => hex,
        }
    }
}

/// A file of a repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RepoFile {
    /// Its name; no folder in it.
    pub(super) name: String,
    /// Bytes.
    pub(super) size: u64,
    /// What its content must hash to.
    pub(super) checksum: Checksum,
}

/// A repository at one commit.
#[derive(Debug)]
pub(super) struct Listing {
    /// 40 hex digits.
    pub(super) commit: String,
    /// The files at its root; `None` where the hub states no size or no checksum.
    files: BTreeMap<String, Option<RepoFile>>,
}

impl Listing {
    /// Reads the hub's answer.
    ///
    /// # Errors
    /// A sentence that says what is wrong with it: no JSON of that shape, no commit, or a file name that
    /// would leave the folder, which git cannot store and only a forged answer holds.
    pub(super) fn parse(json: &[u8]) -> std::result::Result<Self, String> {
        let info: ModelInfo = serde_json::from_slice(json)
            .map_err(|_| "the hub's answer is not the list of files that was asked for".to_owned())?;
        let commit = info.sha.filter(|sha| is_hex(sha, 40)).ok_or("the hub names no commit for this revision")?;
        if info.siblings.iter().any(|file| leaves_the_folder(&file.rfilename)) {
            return Err("the hub lists a file name that leads out of the repository's folder".to_owned());
        }
        let files = info
            .siblings
            .into_iter()
            .filter(|file| is_plain_name(&file.rfilename))
            .map(|file| (file.rfilename.clone(), file.stated()))
            .collect();
        Ok(Self { commit: commit.to_ascii_lowercase(), files })
    }

    /// Whether the repository has this file.
    pub(super) fn has(&self, name: &str) -> bool {
        self.files.contains_key(name)
    }

    /// The file, with what the hub states about it; `None` if it is not there or nothing is stated.
    pub(super) fn file(&self, name: &str) -> Option<&RepoFile> {
        self.files.get(name)?.as_ref()
    }

    /// The languages for which it has adapters.
    pub(super) fn adapters(&self) -> BTreeSet<&str> {
        self.files.keys().filter_map(|name| adapter_language(name)).collect()
    }
}

#[derive(Deserialize)]
struct ModelInfo {
    sha: Option<String>,
    #[serde(default)]
    siblings: Vec<Sibling>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Sibling {
    rfilename: String,
    size: Option<u64>,
    blob_id: Option<String>,
    lfs: Option<Lfs>,
}

#[derive(Deserialize)]
struct Lfs {
    sha256: Option<String>,
    size: Option<u64>,
}

impl Sibling {
    fn stated(self) -> Option<RepoFile> {
        let (size, checksum) = match self.lfs {
            // The blob of a file in large-file storage is its pointer: only the SHA-256 is its own.
            Some(lfs) => {
                (lfs.size.or(self.size)?, Checksum::Sha256(lfs.sha256.filter(|h| is_hex(h, 64))?.to_ascii_lowercase()))
            }
            None => (self.size?, Checksum::GitBlob(self.blob_id.filter(|h| is_hex(h, 40))?.to_ascii_lowercase())),
        };
        Some(RepoFile { name: self.rfilename, size, checksum })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

    fn chosen(names: &[&str]) -> Option<Selection> {
        select(|name| names.contains(&name), None).ok()
    }

    #[test]
    fn one_weight_format_is_chosen() {
        let weights = |names: &[&str]| chosen(names).map(|s| s.weights.name());
        assert_eq!(weights(&["pytorch_model.bin", "model.safetensors", "model.bin"]), Some("model.safetensors"));
        assert_eq!(
            weights(&["pytorch_model.bin", "model.safetensors.index.json"]),
            Some("model.safetensors.index.json")
        );
        assert_eq!(weights(&["model.bin", "pytorch_model.bin"]), Some("pytorch_model.bin"));
        assert_eq!(weights(&["model.bin", "config.json"]), Some("model.bin"));
        assert_eq!(weights(&["config.json", "flax_model.msgpack"]), None);
    }

    #[test]
    fn tokenizer_parts_stand_in_for_a_missing_tokenizer() {
        let with = chosen(&["model.bin", "tokenizer.json", "vocab.json", "merges.txt"]).unwrap();
        assert_eq!(with.settings, ["tokenizer.json"]);
        let without = chosen(&["model.bin", "vocab.json", "merges.txt", "README.md"]).unwrap();
        assert_eq!(without.settings, ["vocab.json", "merges.txt"]);
    }

    #[test]
    fn a_ctc_model_comes_with_its_vocabulary() {
        let vocabulary = ["vocab.json", "special_tokens_map.json", "tokenizer_config.json"];
        let names = [&["config.json", "preprocessor_config.json", "model.safetensors"][..], &vocabulary].concat();
        let wav2vec2 = chosen(&names).unwrap();
        assert_eq!(wav2vec2.settings, [&["config.json", "preprocessor_config.json"][..], &vocabulary].concat());
        let both = chosen(&[&names[..], &["tokenizer.json"]].concat()).unwrap();
        assert!(vocabulary.iter().all(|name| both.settings.contains(name)), "{:?}", both.settings);
    }

    #[test]
    fn an_adapter_is_taken_where_its_language_is_asked_for() {
        let names = ["model.safetensors", "adapter.aka.safetensors", "adapter.aka.bin", "adapter.fra.bin"];
        let adapter = |language| select(|name| names.contains(&name), language).map(|s| s.adapter);
        assert_eq!(adapter(None), Ok(None));
        assert_eq!(adapter(Some("aka")), Ok(Some("adapter.aka.safetensors".to_owned())));
        assert_eq!(adapter(Some("fra")), Ok(Some("adapter.fra.bin".to_owned())));
        assert_eq!(adapter(Some("ewe")), Err(Absent::Adapter));
        assert_eq!(select(|name| name.starts_with("adapter."), Some("aka")), Err(Absent::Weights));
    }

    #[test]
    fn a_missing_adapter_is_answered_with_its_neighbours() {
        let says = |there: &[&str]| missing_adapter("twi", &there.iter().copied().collect());
        assert_eq!(says(&[]), "the adapter 'twi' (the repository has none)");
        assert_eq!(says(&["aka", "ewe", "twb"]), "the adapter 'twi' (the repository has: twb, ewe, aka)");
        let many: Vec<String> = ('a'..='z').map(|c| format!("zz{c}")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        let said = says(&many);
        assert!(said.ends_with(", …)") && said.matches("zz").count() == 12, "{said}");
    }

    #[test]
    fn a_listing_gives_sizes_and_checksums() {
        let sha256 = "A".repeat(64);
        let json = serde_json::json!({
            "id": "a/b",
            "sha": COMMIT,
            "siblings": [
                {"rfilename": "config.json", "size": 2, "blobId": COMMIT},
                {"rfilename": "model.bin", "size": 9, "blobId": COMMIT,
                 "lfs": {"sha256": sha256, "size": 9, "pointerSize": 130}},
                {"rfilename": "tokenizer.json"},
                {"rfilename": "onnx/model.bin", "size": 1, "blobId": COMMIT},
            ]
        });
        let listing = Listing::parse(json.to_string().as_bytes()).unwrap();
        assert_eq!(listing.commit, COMMIT);
        assert_eq!(listing.file("config.json").unwrap().checksum, Checksum::GitBlob(COMMIT.to_owned()));
        let weights = listing.file("model.bin").unwrap();
        assert_eq!((weights.size, weights.checksum.hex()), (9, &*"a".repeat(64)));
        assert!(listing.has("tokenizer.json") && listing.file("tokenizer.json").is_none());
        assert!(!listing.has("onnx/model.bin"));
    }

    #[test]
    fn a_listing_with_a_way_out_is_refused() {
        for name in ["../x", "/etc/x", "a/../../x", "..\\x", "\\x", "a\0b"] {
            let json = serde_json::json!({"sha": COMMIT, "siblings": [{"rfilename": name}]});
            assert!(Listing::parse(json.to_string().as_bytes()).is_err(), "{name}");
        }
        for json in ["", "[]", "{}", r#"{"sha": "../../../etc"}"#] {
            assert!(Listing::parse(json.as_bytes()).is_err(), "{json}");
        }
        let odd = serde_json::json!({"sha": COMMIT, "siblings": [{"rfilename": "a\\b"}, {"rfilename": "a\nb"}]});
        let listing = Listing::parse(odd.to_string().as_bytes()).unwrap();
        assert!(!listing.has("a\\b") && !listing.has("a\nb"));
    }

    #[test]
    fn an_index_names_plain_files() {
        let index = |file: &str| serde_json::json!({"weight_map": {"a": file}}).to_string().into_bytes();
        let name = "model.safetensors.index.json";
        assert_eq!(shards(&index("x.safetensors"), name).unwrap(), BTreeSet::from(["x.safetensors".to_owned()]));
        for file in ["../x", "/etc/x", "a/b", "..", ""] {
            assert_eq!(shards(&index(file), name).unwrap_err().code(), "invalid_config", "{file}");
        }
        for json in ["", "[]", r#"{"weight_map": {}}"#] {
            assert_eq!(shards(json.as_bytes(), name).unwrap_err().code(), "invalid_config", "{json}");
        }
    }
}
