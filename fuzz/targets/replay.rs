//! For the tests of the workspace: a target's whole corpus, and the names of the inputs that fail.

use std::fs;
use std::panic::catch_unwind;
use std::path::Path;

/// Runs `body`, which says whether it read it, on each input of the corpus of `target`.
pub(crate) fn replay(target: &str, body: fn(&[u8]) -> bool) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus").join(target);
    let entries = fs::read_dir(&folder).unwrap_or_else(|error| panic!("the corpus of {target}: {error}"));
    let mut files: Vec<_> = entries.map(|entry| entry.expect("a folder that can be read").path()).collect();
    files.sort();
    let (mut n_read, mut failed) = (0, Vec::new());
    for file in &files {
        let input = fs::read(file).expect("a file that can be read");
        match catch_unwind(|| body(&input)) {
            Ok(was_read) => n_read += usize::from(was_read),
            Err(_) => failed.push(file.file_name()),
        }
    }
    assert!(failed.is_empty(), "{target}: what is said above is of {failed:?}");
    // Seeds that are all refused at the first byte lead nowhere.
    assert!(n_read >= 2, "{n_read} of the {} inputs of {target} are read", files.len());
}
