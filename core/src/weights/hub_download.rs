//! One file: fetched into a part beside its place, resumed, checked, and moved into its place whole.
//!
//! A part that an earlier run left is hashed and gone on with. Content that is pieced together from more
//! than one answer and does not match gets one more try from its beginning; content that came in one
//! piece and does not match is the source's fault, and is reported.

use std::fmt::Write as _;
use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};

use reqwest::StatusCode;
use sha1::Sha1;
use sha2::{Digest as _, Sha256};

use super::hub_client::{Failure, Hub, Retries, Retry};
use super::hub_files::{Checksum, RepoFile};
use crate::error::{Error, Result};

/// So much progress between two failures makes the second one count as the first.
const PROGRESS_BYTES: u64 = 4 << 20;
const READ_BYTES: usize = 1 << 20;

/// Fetches `file` at `commit` to `place` by way of `part`; the caller holds the lock for both. `on_bytes`
/// hears how many bytes are there: at first, as they come, and again from 0 if the file starts over.
///
/// # Errors
/// [`Error::Hub`] with what the hub says, [`Error::ChecksumMismatch`], or [`Error::Io`]. Bytes that came
/// and may be right stay in the part, to go on from; nothing else stays.
pub(super) async fn fetch(
    hub: &Hub,
    commit: &str,
    file: &RepoFile,
    part: &Path,
    place: &Path,
    on_bytes: &mut dyn FnMut(u64),
) -> Result<()> {
    let mut part = Part::open(part, file)?;
    on_bytes(part.done);
    let mut retries = Retries::new();
    let mut may_start_over = true;
    loop {
        let before = part.done;
        if let Err(failure) = stream(hub, commit, file, &mut part, on_bytes).await {
            if failure.retry == Retry::Afresh {
                part.start_over()?;
                on_bytes(0);
            } else if part.done >= before + PROGRESS_BYTES {
                retries = Retries::new();
            }
            if let Err(error) = retries.wait(failure).await {
                if part.done == 0 {
                    part.discard()?;
                }
                return Err(error);
            }
            continue;
        }
        let got = part.digest();
        if got == file.checksum.hex() {
            return part.land(place);
        }
        if !(part.pieced && may_start_over) {
            part.discard()?;
            let expected = file.checksum.hex().to_owned();
            return Err(Error::ChecksumMismatch { file: file.name.clone(), expected, got });
        }
        may_start_over = false;
        part.start_over()?;
        on_bytes(0);
    }
}

/// One answer of the hub, to its end.
async fn stream(
    hub: &Hub,
    commit: &str,
    file: &RepoFile,
    part: &mut Part,
    on_bytes: &mut dyn FnMut(u64),
) -> std::result::Result<(), Failure> {
    if part.done == file.size {
        return Ok(());
    }
    let mut response = hub.file(commit, &file.name, part.done).await?;
    if part.done > 0 {
        if response.status() == StatusCode::PARTIAL_CONTENT {
            part.pieced = true;
        } else {
            part.start_over()?;
        }
    }
    let url = response.url().clone();
    while let Some(chunk) = response.chunk().await.map_err(|e| hub.broken(&url, &e))? {
        if chunk.len() as u64 > file.size - part.done {
            part.start_over()?;
            let reason = format!("the hub sent more than the {} bytes that it states for {}", file.size, file.name);
            return Err(hub.error("hub_failed", reason).into());
        }
        part.append(&chunk)?;
        on_bytes(part.done);
    }
    if part.done < file.size {
        let reason = format!("the hub sent {} of the {} bytes of {}; try again", part.done, file.size, file.name);
        return Err(Failure { error: hub.error("hub_failed", reason), retry: Retry::Later });
    }
    Ok(())
}

/// Whether `path` is this very file.
///
/// # Errors
/// [`Error::Io`] if it is there but cannot be read.
pub(super) fn is_complete(path: &Path, file: &RepoFile) -> Result<bool> {
    let io = |source| Error::Io { what: format!("reading {}", file.name), source };
    match std::fs::metadata(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(e) => return Err(io(e)),
        Ok(found) if !found.is_file() || found.len() != file.size => return Ok(false),
        Ok(_) => {}
    }
    let mut hasher = Hasher::new(file);
    let read = hasher.update_from(&mut File::open(path).map_err(io)?).map_err(io)?;
    Ok(read == file.size && hasher.hex() == file.checksum.hex())
}

/// What the system says about a write; what to do about a full disk.
pub(super) fn write_error(what: &str, source: io::Error) -> Error {
    let what = match source.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => format!(
            "{what} (the disk is full: free some of it, or choose another by HF_HOME or --to, and try again; the \
             bytes that have come are kept)"
        ),
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            format!("{what} (this user may not write there: choose another folder by HF_HOME or --to)")
        }
        _ => what.to_owned(),
    };
    Error::Io { what, source }
}

/// A file on its way.
struct Part {
    path: PathBuf,
    file: RepoFile,
    out: File,
    hasher: Hasher,
    /// Bytes written and hashed.
    done: u64,
    /// Whether they came in more than one answer.
    pieced: bool,
}

impl Part {
    /// Opens the part, and hashes what is in it.
    fn open(path: &Path, file: &RepoFile) -> Result<Self> {
        let io = |source| write_error(&format!("writing {}", file.name), source);
        // Written through, a link would put the bytes wherever it points.
        if path.symlink_metadata().is_ok_and(|found| found.is_symlink()) {
            std::fs::remove_file(path).map_err(io)?;
        }
        let mut out = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path).map_err(io)?;
        let mut hasher = Hasher::new(file);
        let done = hasher.update_from(&mut out).map_err(io)?;
        let mut part = Self { path: path.to_owned(), file: file.clone(), out, hasher, done, pieced: done > 0 };
        if done > file.size {
            part.start_over()?;
        }
        Ok(part)
    }

    fn io(&self, source: io::Error) -> Error {
        write_error(&format!("writing {}", self.file.name), source)
    }

    fn append(&mut self, bytes: &[u8]) -> Result<()> {
        self.out.write_all(bytes).map_err(|e| self.io(e))?;
        self.hasher.update(bytes);
        self.done += bytes.len() as u64;
        Ok(())
    }

    fn start_over(&mut self) -> Result<()> {
        self.out.set_len(0).map_err(|e| self.io(e))?;
        self.out.seek(SeekFrom::Start(0)).map_err(|e| self.io(e))?;
        self.hasher = Hasher::new(&self.file);
        self.done = 0;
        self.pieced = false;
        Ok(())
    }

    fn digest(&self) -> String {
        self.hasher.clone().hex()
    }

    fn discard(&self) -> Result<()> {
        std::fs::remove_file(&self.path).map_err(|e| self.io(e))
    }

    /// Moves the whole file into its place, on the disk before it gets its name: after a power cut there
    /// is either the file or none.
    fn land(self, place: &Path) -> Result<()> {
        self.out.sync_all().map_err(|e| self.io(e))?;
        std::fs::rename(&self.path, place).map_err(|e| self.io(e))?;
        sync_folder(place);
        Ok(())
    }
}

/// Puts a rename on the disk, where the system knows how. Without it the file may be gone after a power
/// cut, but is never half there.
fn sync_folder(place: &Path) {
    #[cfg(unix)]
    if let Some(folder) = place.parent() {
        let _ = File::open(folder).and_then(|folder| folder.sync_all());
    }
    #[cfg(not(unix))]
    let _ = place;
}

/// The digest that the hub states, as far as the bytes have come.
#[derive(Clone)]
enum Hasher {
    Sha256(Sha256),
    GitBlob(Sha1),
}

impl Hasher {
    fn new(file: &RepoFile) -> Self {
        match file.checksum {
            Checksum::Sha256(_) => Self::sha256(),
            Checksum::GitBlob(_) => Self::git_blob(file.size),
        }
    }

    fn sha256() -> Self {
        Self::Sha256(Sha256::new())
    }

    fn git_blob(size: u64) -> Self {
        Self::GitBlob(Sha1::new_with_prefix(format!("blob {size}\0")))
    }

    fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Sha256(hash) => hash.update(bytes),
            Self::GitBlob(hash) => hash.update(bytes),
        }
    }

    /// Hashes to the end; the bytes that there were.
    fn update_from(&mut self, file: &mut File) -> io::Result<u64> {
        read_all(file, &mut |bytes| self.update(bytes))
    }

    fn hex(self) -> String {
        match self {
            Self::Sha256(hash) => to_hex(&hash.finalize()),
            Self::GitBlob(hash) => to_hex(&hash.finalize()),
        }
    }
}

/// A file of `size` bytes under both names that a hub may know it by, read once: its SHA-256, and git's SHA-1.
pub(super) fn digests(file: &mut File, size: u64) -> io::Result<[String; 2]> {
    let mut hashers = [Hasher::sha256(), Hasher::git_blob(size)];
    read_all(file, &mut |bytes| hashers.iter_mut().for_each(|hasher| hasher.update(bytes)))?;
    Ok(hashers.map(Hasher::hex))
}

/// Gives a file's bytes to its end; how many there were.
fn read_all(file: &mut File, on_bytes: &mut dyn FnMut(&[u8])) -> io::Result<u64> {
    let mut buffer = vec![0; READ_BYTES];
    let mut total = 0;
    loop {
        let n = file.read(&mut buffer)?;
        if n == 0 {
            return Ok(total);
        }
        on_bytes(&buffer[..n]);
        total += n as u64;
    }
}

fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut hex, byte| {
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn file(size: u64, checksum: Checksum) -> RepoFile {
        RepoFile { name: "x".to_owned(), size, checksum }
    }

    #[test]
    fn digests_are_those_of_sha256sum_and_git_hash_object() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x");
        // printf 'hello\n' | sha256sum; printf 'hello\n' | git hash-object --stdin
        std::fs::write(&path, "hello\n").unwrap();
        let sha256 = "5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03".to_owned();
        let git = "ce013625030ba8dba906f756967f9e9ca394464a".to_owned();
        assert!(is_complete(&path, &file(6, Checksum::Sha256(sha256.clone()))).unwrap());
        assert!(is_complete(&path, &file(6, Checksum::GitBlob(git.clone()))).unwrap());
        assert!(!is_complete(&path, &file(5, Checksum::GitBlob(git))).unwrap());
        std::fs::write(&path, "hellO\n").unwrap();
        assert!(!is_complete(&path, &file(6, Checksum::Sha256(sha256.clone()))).unwrap());
        assert!(!is_complete(&folder.path().join("y"), &file(6, Checksum::Sha256(sha256))).unwrap());
    }

    #[test]
    fn a_full_disk_is_said_with_what_to_do() {
        let error = write_error("writing x", io::Error::from(io::ErrorKind::StorageFull));
        assert_eq!(error.code(), "io");
        assert!(error.to_string().starts_with("writing x (the disk is full: "), "{error}");
        // As the system gives it: errno 28 is ENOSPC.
        #[cfg(unix)]
        assert!(write_error("writing x", io::Error::from_raw_os_error(28)).to_string().contains("disk is full"));
        let other = write_error("writing x", io::Error::from(io::ErrorKind::BrokenPipe));
        assert!(other.to_string().starts_with("writing x: "), "{other}");
    }

    #[cfg(unix)]
    #[test]
    fn a_part_is_never_written_through_a_link() {
        let folder = tempfile::tempdir().unwrap();
        let (outside, part) = (folder.path().join("outside"), folder.path().join("x.part"));
        std::fs::write(&outside, "keep").unwrap();
        std::os::unix::fs::symlink(&outside, &part).unwrap();
        let mut part = Part::open(&part, &file(6, Checksum::GitBlob(String::new()))).unwrap();
        part.append(b"hello\n").unwrap();
        assert_eq!(std::fs::read(&outside).unwrap(), b"keep");
    }
}
