//! The file of keys: `access::keys`. It is the operator's own; what it must never do is open more than it says.

use std::fs;
use std::path::PathBuf;
use std::sync::OnceLock;

use okyeame_server::access::keys::{check_names, read, table_of};

/// A file of this process: `read` takes a path.
fn file() -> &'static PathBuf {
    static FILE: OnceLock<PathBuf> = OnceLock::new();
    FILE.get_or_init(|| std::env::temp_dir().join(format!("okyeame-fuzz-keys-{}.toml", std::process::id())))
}

/// Says whether it was read.
pub(crate) fn run(input: &[u8]) -> bool {
    fs::write(file(), input).expect("a folder for temporary files");
    let read_at_first = read(file());
    if let Ok(keys) = &read_at_first {
        assert!(!keys.is_empty() && check_names(keys).is_ok(), "{keys:?}");
        let tables: String = keys.iter().map(|key| table_of(key).expect("it was read from TOML")).collect();
        fs::write(file(), tables).expect("it was written above");
        assert_eq!(read(file()).expect("written as it was read"), *keys);
    }
    fs::remove_file(file()).expect("it was written above");
    read_at_first.is_ok()
}
