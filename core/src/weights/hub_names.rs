//! Which names are taken at all: of repositories, revisions, files and adapters. No I/O.
//!
//! The rules are those of huggingface_hub's `validate_repo_id` (`utils/_validators.py`), made stricter: an owner is
//! required. Whatever passes here can be a part of a path and of an address, on every system.

use crate::error::{Error, Result};

/// The longest owner, repository name or file name that is taken.
const MAX_NAME_BYTES: usize = 96;
/// The longest branch or tag that is taken.
const MAX_REVISION_BYTES: usize = 200;
/// The longest language of an adapter that is taken; MMS' longest has 22.
const MAX_ADAPTER_BYTES: usize = 40;

/// Whether `text` is so many hex digits.
pub(super) fn is_hex(text: &str, digits: usize) -> bool {
    text.len() == digits && text.bytes().all(|b| b.is_ascii_hexdigit())
}

/// Whether a revision is a commit, which never moves, and not a branch or tag.
pub(super) fn is_commit(revision: &str) -> bool {
    is_hex(revision, 40)
}

/// A name that is a path out of its folder, on this system or on another.
pub(super) fn leaves_the_folder(name: &str) -> bool {
    name.starts_with(['/', '\\']) || name.contains('\0') || name.split(['/', '\\']).any(|part| part == "..")
}

/// A name that stays in its folder on every system.
pub(super) fn is_plain_name(name: &str) -> bool {
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

/// `[a-z]{3}([-_][A-Za-z0-9]+)*`: an ISO 639-3 code, and which script or dialect of it.
fn is_adapter(text: &str) -> bool {
    let mut parts = text.split(['-', '_']);
    text.len() <= MAX_ADAPTER_BYTES
        && parts.next().is_some_and(|code| code.len() == 3 && code.bytes().all(|b| b.is_ascii_lowercase()))
        && parts.all(|part| !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric()))
}

/// Checks the language of an adapter.
///
/// # Errors
/// [`Error::InvalidParameter`] unless it is a language as MMS writes them.
pub(super) fn check_adapter(language: &str) -> Result<()> {
    if is_adapter(language) {
        return Ok(());
    }
    Err(Error::InvalidParameter {
        name: "adapter",
        allowed: "it must be a language as the repository's adapters name it: three small letters, and perhaps a \
                  script or a dialect, such as aka or azj-script_latin"
            .to_owned(),
    })
}

/// The files in which the adapter of a language may be, the better one first.
pub(super) fn adapter_files(language: &str) -> [String; 2] {
    ["safetensors", "bin"].map(|format| format!("adapter.{language}.{format}"))
}

/// The language of an adapter, by the name of its file.
pub(super) fn adapter_language(file: &str) -> Option<&str> {
    let rest = file.strip_prefix("adapter.")?;
    rest.strip_suffix(".safetensors").or_else(|| rest.strip_suffix(".bin")).filter(|language| is_adapter(language))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

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
        for revision in ["main", "v1.0", "refs/pr/3", "0123456789abcdef0123456789abcdef01234567"] {
            check_revision(revision).unwrap();
        }
        for revision in ["", "/main", "main/", "../main", "a/../b", "a b", "a?b", "-x", ".hidden"] {
            assert_eq!(check_revision(revision).unwrap_err().code(), "invalid_parameter", "{revision}");
        }
    }

    #[test]
    fn adapters_are_languages_and_never_paths() {
        for language in ["aka", "azj-script_latin", "mam-dialect_central", "abp", "cmn-script_simplified"] {
            check_adapter(language).unwrap();
            for file in adapter_files(language) {
                assert_eq!(adapter_language(&file), Some(language));
            }
        }
        let long = format!("aka-{}", "x".repeat(MAX_ADAPTER_BYTES));
        for language in ["", "ak", "akan", "AKA", "a1a", "../aka", "aka/x", "aka-", "aka--x", "aka.x", "ɛwe", &long] {
            assert_eq!(check_adapter(language).unwrap_err().code(), "invalid_parameter", "{language}");
            assert_eq!(adapter_language(&format!("adapter.{language}.bin")), None, "{language}");
        }
        for file in ["adapter.aka", "adapter.aka.msgpack", "adapter_model.bin", "xadapter.aka.bin"] {
            assert_eq!(adapter_language(file), None, "{file}");
        }
    }
}
