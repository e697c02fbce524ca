//! What a repository holds, which of it a model needs, and which names are taken at all. No I/O.
//!
//! Follows the hub's `GET /api/models/{repo}/revision/{revision}?blobs=true` as huggingface_hub's
//! `model_info(files_metadata=True)` reads it (`hf_api.py`), and the rules of its `validate_repo_id`,
//! made stricter: an owner is required.
//!
//! Only files at the root of a repository are taken: every layout that is read here has its files there.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;

use crate::error::{Error, Result};

/// The longest owner, repository name or file name that is taken.
const MAX_NAME_BYTES: usize = 96;
/// The longest branch or tag that is taken.
const MAX_REVISION_BYTES: usize = 200;

/// What says how to compute: dimensions, decoding, features, tokens, labels, calibration.
const SETTINGS: [&str; 7] = [
    "config.json",
    "generation_config.json",
    "preprocessor_config.json",
    "tokenizer.json",
    "intent_labels.json",
    "label_map.json",
    "calibration.json",
];

/// What stands in for `tokenizer.json` where there is none.
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
    /// The weights.
    pub(super) weights: Weights,
}

/// Picks what a model needs among what there is; `None` if there are no weights.
pub(super) fn select(has: impl Fn(&str) -> bool) -> Option<Selection> {
    let weights = WEIGHTS.into_iter().find(|w| has(w.name()))?;
    let parts: &[&'static str] = if has("tokenizer.json") { &[] } else { &TOKENIZER_PARTS };
    let settings = SETTINGS.iter().chain(parts).copied().filter(|name| has(name)).collect();
    Some(Selection { settings, weights })
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

fn is_hex(text: &str, digits: usize) -> bool {
    text.len() == digits && text.bytes().all(|b| b.is_ascii_hexdigit())
}

/// Whether a revision is a commit, which never moves, and not a branch or tag.
pub(super) fn is_commit(revision: &str) -> bool {
    is_hex(revision, 40)
}

/// A name that is a path out of its folder, on this system or on another.
fn leaves_the_folder(name: &str) -> bool {
    name.starts_with(['/', '\\']) || name.contains('\0') || name.split(['/', '\\']).any(|part| part == "..")
}

/// A name that stays in its folder on every system.
fn is_plain_name(name: &str) -> bool {
    !matches!(name, "" | "." | "..")
        && name.len() <= MAX_NAME_BYTES
        && !name.chars().any(|c| matches!(c, '/' | '\\' | ':') || c.is_control())
}

/// Letters, digits, `.`, `_` and `-`, beginning with a letter or a digit, without `..`.
fn is_word(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-'))
        && !text.contains("..")
}

/// Splits `owner/name`.
///
/// # Errors
/// [`Error::InvalidParameter`] unless both are words that the hub allows. `--` is not: in a cache it
/// separates the owner from the name.
pub(super) fn split_repo(repo: &str) -> Result<(&str, &str)> {
    let allowed = |part: &str| is_word(part) && part.len() <= MAX_NAME_BYTES && !part.contains("--");
    repo.split_once('/').filter(|(owner, name)| allowed(owner) && allowed(name)).ok_or_else(|| {
        Error::InvalidParameter {
            name: "repo",
            allowed: format!(
                "it must be owner/name, such as openai/whisper-base: letters, digits, '.', '_' and '-', each at \
                 most {MAX_NAME_BYTES} characters and beginning with a letter or a digit"
            ),
        }
    })
}

/// Checks a branch, tag or commit.
///
/// # Errors
/// [`Error::InvalidParameter`] unless it is made of words and slashes.
pub(super) fn check_revision(revision: &str) -> Result<()> {
    if revision.len() <= MAX_REVISION_BYTES && revision.split('/').all(is_word) {
        return Ok(());
    }
    Err(Error::InvalidParameter {
        name: "revision",
        allowed: "it must be a branch, a tag or a commit: letters, digits, '.', '_', '-' and '/'".to_owned(),
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

    fn chosen(names: &[&str]) -> Option<Selection> {
        select(|name| names.contains(&name))
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
    fn repository_ids_are_words() {
        assert_eq!(split_repo("openai/whisper-large-v3").unwrap(), ("openai", "whisper-large-v3"));
        let long = format!("a/{}", "b".repeat(MAX_NAME_BYTES + 1));
        for repo in [
            "",
            "gpt2",
            "a/",
            "/a",
            "a/b/c",
            "../b",
            "a/..",
            "a/b..c",
            "-a/b",
            "a/.b",
            "a b/c",
            "a/b?c",
            "a/b#c",
            "a\\b/c",
            "a/b%2f",
            "a--b/c",
            "ɛ/b",
            "https://huggingface.co/a/b",
            &long,
        ] {
            assert_eq!(split_repo(repo).unwrap_err().code(), "invalid_parameter", "{repo}");
        }
    }

    #[test]
    fn revisions_are_words_and_slashes() {
        for revision in ["main", "v1.0", "refs/pr/3", COMMIT] {
            check_revision(revision).unwrap();
        }
        for revision in ["", "/main", "main/", "../main", "a/../b", "a b", "a?b", "-x", ".hidden"] {
            assert_eq!(check_revision(revision).unwrap_err().code(), "invalid_parameter", "{revision}");
        }
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
