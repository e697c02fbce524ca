//! Where a repository's files are put: a plain folder, or the hub cache that other programs share.
//!
//! The cache has huggingface_hub's layout, so that what it fetched is found here and the other way round:
//! ```text
//! models--owner--name/blobs/DIGEST               the content, under the digest that the hub states
//!                     snapshots/COMMIT/NAME      a link to its blob
//!                     refs/REVISION              the commit that a branch or tag stood at
//! .locks/models--owner--name/DIGEST.lock         held while a blob is fetched
//! ```
//! A blob gets its name only after it was checked, so a blob of the right size is the right one. A plain
//! folder says nothing of that kind about its files: they are hashed each time.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use super::hub_download::{is_complete, write_error};
use super::hub_files::{self, Listing, RepoFile, Weights};
use super::hub_names::{adapter_language, is_commit};
use crate::error::{Error, Result};

/// A plain folder's lock. It stays when the pull is over: to delete a lock file is to race with the next
/// one who waits for it.
const FOLDER_LOCK: &str = ".okyeame-pull.lock";

/// Where the files of one repository are put.
pub(super) enum Store {
    /// All in this folder.
    Folder(PathBuf),
    /// In a hub cache.
    Cache {
        /// `CACHE/models--owner--name`
        repo: PathBuf,
        /// `CACHE/.locks/models--owner--name`
        locks: PathBuf,
    },
}

impl Store {
    /// The place of `owner/name` in a hub cache.
    pub(super) fn in_cache(cache: &Path, owner: &str, name: &str) -> Self {
        let folder = format!("models--{owner}--{name}");
        Self::Cache { locks: cache.join(".locks").join(&folder), repo: cache.join(folder) }
    }

    /// A folder in which a model of `listing` would be mixed with another one's files is refused: a
    /// loader would take the other's labels or weights for this one's.
    ///
    /// # Errors
    /// [`Error::InvalidParameter`] names the first file that is foreign.
    pub(super) fn check_unmixed(&self, listing: &Listing) -> Result<()> {
        let Self::Folder(folder) = self else { return Ok(()) };
        let known = hub_files::known_names().map(str::to_owned).filter(|name| folder.join(name).is_file());
        let adapters =
            fs::read_dir(folder).into_iter().flatten().flatten().filter_map(|entry| {
                entry.file_name().into_string().ok().filter(|name| adapter_language(name).is_some())
            });
        match known.chain(adapters).find(|name| !listing.has(name)) {
            None => Ok(()),
            Some(foreign) => Err(Error::InvalidParameter {
                name: "to",
                allowed: format!(
                    "the folder holds {foreign}, which this repository does not have; take an empty folder, or \
                     delete that file"
                ),
            }),
        }
    }

    /// Keeps other pulls of this file away until the answer is dropped; waits for one that is under way.
    ///
    /// # Errors
    /// [`Error::Io`] if the folder cannot be written.
    pub(super) fn lock(&self, file: &RepoFile) -> Result<File> {
        match self {
            Self::Folder(folder) => lock_in(folder, FOLDER_LOCK),
            Self::Cache { repo, locks } => {
                create_folder(&repo.join("blobs"))?;
                lock_in(locks, &format!("{}.lock", file.checksum.hex()))
            }
        }
    }

    /// Whether the file is there, whole and right.
    ///
    /// # Errors
    /// [`Error::Io`] if what is there cannot be read.
    pub(super) fn holds(&self, file: &RepoFile) -> Result<bool> {
        match self {
            Self::Folder(_) => is_complete(&self.place(file), file),
            Self::Cache { .. } => {
                Ok(fs::metadata(self.place(file)).is_ok_and(|blob| blob.is_file() && blob.len() == file.size))
            }
        }
    }

    /// Where the file's bytes end up.
    pub(super) fn place(&self, file: &RepoFile) -> PathBuf {
        match self {
            Self::Folder(folder) => folder.join(&file.name),
            Self::Cache { repo, .. } => repo.join("blobs").join(file.checksum.hex()),
        }
    }

    /// Where they are gathered.
    pub(super) fn part(&self, file: &RepoFile) -> PathBuf {
        match self {
            Self::Folder(folder) => folder.join(format!("{}.part", file.name)),
            Self::Cache { repo, .. } => repo.join("blobs").join(format!("{}.incomplete", file.checksum.hex())),
        }
    }

    /// Gives a file that is in its place its name in the commit; the caller holds the lock.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub(super) fn link(&self, commit: &str, file: &RepoFile) -> Result<PathBuf> {
        let Self::Cache { repo, .. } = self else { return Ok(self.place(file)) };
        let snapshot = repo.join("snapshots").join(commit);
        create_folder(&snapshot)?;
        let path = snapshot.join(&file.name);
        let new = snapshot.join(format!(".{}.new", file.name));
        match fs::remove_file(&new) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(writing(e)),
            _ => {}
        }
        #[cfg(unix)]
        std::os::unix::fs::symlink(Path::new("../../blobs").join(file.checksum.hex()), &new).map_err(writing)?;
        // A link needs a privilege on Windows: the same bytes under a second name do as well.
        #[cfg(not(unix))]
        fs::hard_link(self.place(file), &new)
            .or_else(|_| fs::copy(self.place(file), &new).map(|_| ()))
            .map_err(writing)?;
        fs::rename(&new, &path).map_err(writing)?;
        Ok(path)
    }

    /// Notes that the commit is complete; the model's folder.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub(super) fn finish(&self, revision: &str, commit: &str) -> Result<PathBuf> {
        let Self::Cache { repo, locks } = self else { return Ok(self.folder(commit)) };
        if !is_commit(revision) {
            let path = repo.join("refs").join(revision);
            let folder = path.parent().unwrap_or(repo);
            create_folder(folder)?;
            let _lock = lock_in(locks, "refs.lock")?;
            let new = folder.join(".new");
            // What an earlier run left; a link in its place would be written through.
            match fs::remove_file(&new) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(writing(e)),
                _ => fs::write(&new, commit).map_err(writing)?,
            }
            fs::rename(&new, &path).map_err(writing)?;
        }
        Ok(self.folder(commit))
    }

    /// The folder of a complete model that is already here, without asking the hub. Another program may
    /// have put a part of a model into the cache: settings and weights are looked for, and the adapter of the
    /// language that is asked for.
    pub(super) fn local(&self, revision: &str, adapter: Option<&str>) -> Option<PathBuf> {
        let commit = match self {
            Self::Cache { repo, .. } if !is_commit(revision) => {
                fs::read_to_string(repo.join("refs").join(revision)).ok()?.trim().to_owned()
            }
            _ => revision.to_owned(),
        };
        let in_cache = matches!(self, Self::Cache { .. });
        if in_cache && !is_commit(&commit) {
            return None;
        }
        let folder = self.folder(&commit);
        let is_there = |name: &str| folder.join(name).is_file();
        let complete = match hub_files::select(is_there, adapter).ok()?.weights {
            // CTranslate2's states its dimensions itself.
            Weights::Single("model.bin") => true,
            _ if !is_there("config.json") => false,
            Weights::Single(_) => true,
            Weights::Sharded(index) => fs::read(folder.join(index))
                .ok()
                .and_then(|json| hub_files::shards(&json, index).ok())
                .is_some_and(|shards| shards.iter().all(|shard| is_there(shard))),
        };
        complete.then_some(folder)
    }

    fn folder(&self, commit: &str) -> PathBuf {
        match self {
            Self::Folder(folder) => folder.clone(),
            Self::Cache { repo, .. } => repo.join("snapshots").join(commit),
        }
    }
}

fn lock_in(folder: &Path, name: &str) -> Result<File> {
    create_folder(folder)?;
    let path = folder.join(name);
    // Opened through a link, it would be made wherever that points.
    if path.is_symlink() {
        return Err(writing(io::Error::other(format!("the file {name} in it is a link; delete it, and try again"))));
    }
    let lock = File::options().write(true).create(true).truncate(false).open(path).map_err(writing)?;
    match lock.lock() {
        Ok(()) => Ok(lock),
        // A file system without locks: the only one who pulls there does not need one.
        Err(e) if e.kind() == io::ErrorKind::Unsupported => Ok(lock),
        Err(e) => Err(writing(e)),
    }
}

fn create_folder(path: &Path) -> Result<()> {
    fs::create_dir_all(path).map_err(writing)
}

fn writing(source: io::Error) -> Error {
    write_error("writing the model's folder", source)
}
