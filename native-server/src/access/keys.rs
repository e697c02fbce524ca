//! API keys: 32 random bytes, shown once, kept as their BLAKE3 digest.
//!
//! A digest without salt or stretching is enough for a secret that no dictionary holds: 256 bits cannot be tried out. The
//! file is TOML, one table for each key:
//! ```toml
//! [[key]]
//! name = "shop"
//! hash = "…64 hexadecimal digits…"
//! scopes = ["intent", "transcribe"]
//! ```

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};

use super::Scope;

/// What a key begins with, so that people and secret scanners know one when they see it.
const PREFIX: &str = "oky_";
/// A key that a person chose for the environment has at least so many characters.
const MIN_CHARS: usize = 32;
/// The name of the environment's key.
const FROM_ENVIRONMENT: &str = "environment";

/// A key as it is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ApiKey {
    /// Whose it is, for the operator.
    pub name: String,
    #[serde(with = "hex_digest")]
    hash: blake3::Hash,
    /// What it opens; all but `admin`, if the file says nothing.
    #[serde(default = "usual_scopes")]
    pub scopes: Vec<Scope>,
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct KeyFile {
    #[serde(default)]
    key: Vec<ApiKey>,
}

/// What is wrong with a key or a file of keys.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The file cannot be read or written.
    #[error("the file of keys {path}: {source}")]
    Io {
        /// The file.
        path: String,
        /// The cause.
        source: io::Error,
    },
    /// The file is not what it should be.
    #[error("the file of keys {path} is not understood: {reason}")]
    Malformed {
        /// The file.
        path: String,
        /// Why, with the line.
        reason: String,
    },
    /// A file of keys that opens nothing would turn access off.
    #[error("the file of keys {path} holds no key: make one with 'okyeame key NAME --add {path}'")]
    Empty {
        /// The file.
        path: String,
    },
    /// Two keys of one name.
    #[error("there are two keys named '{name}'")]
    Twice {
        /// The name.
        name: String,
    },
    /// A key without a name.
    #[error("a key has no name: say whose it is")]
    NoName,
    /// A key that could be guessed.
    #[error(
        "the key in OKYEAME_API_KEY is too short: at least {MIN_CHARS} characters, such as 'okyeame key shop' prints"
    )]
    TooShort,
    /// No randomness.
    #[error("the system gives no random numbers: {0}")]
    Random(#[from] getrandom::Error),
}

fn usual_scopes() -> Vec<Scope> {
    Scope::OF_KEYS.to_vec()
}

impl ApiKey {
    /// A key as it is kept, from the key itself.
    #[must_use]
    pub fn of(name: &str, secret: &str, scopes: Vec<Scope>) -> Self {
        Self { name: name.to_owned(), hash: blake3::hash(secret.as_bytes()), scopes }
    }

    /// The key of `OKYEAME_API_KEY`, which opens what a key does whose scopes are not named.
    ///
    /// # Errors
    /// [`KeyError::TooShort`].
    pub fn from_environment(secret: &str) -> Result<Self, KeyError> {
        if secret.chars().count() < MIN_CHARS {
            return Err(KeyError::TooShort);
        }
        Ok(Self::of(FROM_ENVIRONMENT, secret, usual_scopes()))
    }
}

/// A new key: what is shown once.
///
/// # Errors
/// If the system gives no random numbers.
pub fn generate() -> Result<String, KeyError> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes)?;
    Ok(format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(bytes)))
}

/// The key that was shown, if it is one of these. Each is compared, in constant time: how long it takes tells nothing.
pub(crate) fn find<'a>(keys: &'a [ApiKey], shown: &str) -> Option<&'a ApiKey> {
    let hash = blake3::hash(shown.as_bytes());
    keys.iter().fold(None, |found, key| if key.hash == hash { Some(key) } else { found })
}

/// Reads a file of keys.
///
/// # Errors
/// [`KeyError`].
pub fn read(path: &Path) -> Result<Vec<ApiKey>, KeyError> {
    let keys = parse(path)?;
    if keys.is_empty() { Err(KeyError::Empty { path: path.display().to_string() }) } else { Ok(keys) }
}

fn parse(path: &Path) -> Result<Vec<ApiKey>, KeyError> {
    let shown = || path.display().to_string();
    let text = std::fs::read_to_string(path).map_err(|source| KeyError::Io { path: shown(), source })?;
    let file: KeyFile = toml::from_str(&text)
        .map_err(|error| KeyError::Malformed { path: shown(), reason: error.to_string().trim().to_owned() })?;
    check_names(&file.key)?;
    Ok(file.key)
}

/// Keys are told apart by their names: a token says with which it was minted.
///
/// # Errors
/// [`KeyError::Twice`], [`KeyError::NoName`].
pub fn check_names(keys: &[ApiKey]) -> Result<(), KeyError> {
    if keys.iter().any(|key| key.name.trim().is_empty()) {
        return Err(KeyError::NoName);
    }
    let mut seen = std::collections::HashSet::new();
    match keys.iter().find(|key| !seen.insert(&key.name)) {
        Some(key) => Err(KeyError::Twice { name: key.name.clone() }),
        None => Ok(()),
    }
}

/// Adds a key to a file, which is made if need be, for its owner alone to read.
///
/// # Errors
/// [`KeyError`], also if the file has a key of this name.
pub fn add(path: &Path, key: &ApiKey) -> Result<(), KeyError> {
    let io_error = |source| KeyError::Io { path: path.display().to_string(), source };
    let mut keys = if path.exists() { parse(path)? } else { Vec::new() };
    keys.push(key.clone());
    check_names(&keys)?;
    let table = table_of(key)?;
    let mut options = OpenOptions::new();
    options.create(true).append(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(path).map_err(io_error)?;
    file.write_all(table.as_bytes()).and_then(|()| file.sync_all()).map_err(io_error)
}

/// A key as the file has it.
///
/// # Errors
/// If it cannot be written as TOML.
pub fn table_of(key: &ApiKey) -> Result<String, KeyError> {
    toml::to_string(&KeyFile { key: vec![key.clone()] })
        .map(|table| format!("{table}\n"))
        .map_err(|error| KeyError::Malformed { path: "(new)".to_owned(), reason: error.to_string() })
}

mod hex_digest {
    use serde::{Deserialize, Deserializer, Serializer, de};

    pub(super) fn serialize<S: Serializer>(hash: &blake3::Hash, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&hash.to_hex())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<blake3::Hash, D::Error> {
        let text = String::deserialize(from)?;
        blake3::Hash::from_hex(&text).map_err(|_| de::Error::custom("hash: 64 hexadecimal digits are expected"))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_new_each_time_and_kept_as_digests() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("keys.toml");
        let (shop, till) = (generate().unwrap(), generate().unwrap());
        assert!(shop != till && shop.starts_with(PREFIX) && shop.len() == PREFIX.len() + 43, "{shop}");
        add(&file, &ApiKey::of("shop", &shop, vec![Scope::Intent])).unwrap();
        add(&file, &ApiKey::of("till", &till, usual_scopes())).unwrap();
        let kept = std::fs::read_to_string(&file).unwrap();
        assert!(!kept.contains(&shop) && !kept.contains(&shop[PREFIX.len()..]), "{kept}");

        let keys = read(&file).unwrap();
        assert_eq!(
            find(&keys, &shop).map(|key| (key.name.as_str(), &key.scopes[..])),
            Some(("shop", &[Scope::Intent][..]))
        );
        assert_eq!(find(&keys, &till).map(|key| key.scopes.len()), Some(3));
        for wrong in ["", "oky_", &shop[..shop.len() - 1], &format!("{shop}x")] {
            assert!(find(&keys, wrong).is_none(), "{wrong}");
        }
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        }
    }

    #[test]
    fn a_name_is_given_once() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("keys.toml");
        let key = ApiKey::of("shop", &generate().unwrap(), usual_scopes());
        add(&file, &key).unwrap();
        assert!(matches!(add(&file, &key), Err(KeyError::Twice { name }) if name == "shop"));
        assert_eq!(read(&file).unwrap().len(), 1);
    }

    #[test]
    fn a_file_that_would_open_the_door_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("keys.toml");
        let digest = blake3::hash(b"x").to_hex();
        for (text, what) in [
            (String::new(), "holds no key"),
            ("key = 7".to_owned(), "not understood"),
            (format!("[[key]]\nname = ' '\nhash = '{digest}'\n"), "no name"),
            ("[[key]]\nname = 'a'\nhash = 'abc'\n".to_owned(), "64 hexadecimal digits"),
            (format!("[[key]]\nname = 'a'\nhash = '{digest}'\nscopes = ['all']\n"), "unknown variant"),
            (format!("[[key]]\nname = 'a'\nhash = '{digest}'\nscope = ['intent']\n"), "unknown field"),
            (format!("[[keys]]\nname = 'a'\nhash = '{digest}'\n"), "unknown field"),
        ] {
            std::fs::write(&file, &text).unwrap();
            let error = read(&file).unwrap_err().to_string();
            assert!(error.contains(what), "{text}: {error}");
        }
        assert!(matches!(read(&folder.path().join("none")), Err(KeyError::Io { .. })));
        assert!(matches!(ApiKey::from_environment("password"), Err(KeyError::TooShort)));
    }
}
