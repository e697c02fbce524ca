//! Sends a model folder to the Hugging Face hub: everything is checked first, nothing is sent twice, one commit at the end.
//!
//! Speaks what huggingface_hub 1.x does (`hf_api.py` `create_repo`, `_commit_api.py`, `lfs.py`): the repository is made
//! (`POST /api/repos/create`), the hub says for each file whether it goes into the commit or into large-file storage
//! (`POST /api/models/REPO/preupload/REVISION`), large files are sent by Git LFS's batch API (`basic`, or `multipart` with
//! part addresses), and one commit names them all (`POST /api/models/REPO/commit/REVISION`, lines of JSON).
//!
//! Large files are stored under their SHA-256: what an upload that was cut off has sent is there, and the next one sends
//! the rest. Files that the repository has as they are, are left out.
//!
//! The token goes to the hub's own scheme, host and port alone. Redirects are not followed: an upload that is sent
//! elsewhere is no upload to the hub.
//!
//! # Not for
//! Deleting, folders in folders, data sets, Xet's own protocol (the hub takes `basic` and `multipart` as well).

use std::collections::BTreeMap;
use std::fmt;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::PathBuf;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use reqwest::header::{ACCEPT, CONTENT_LENGTH, CONTENT_TYPE, ETAG};
use reqwest::{Body, Method, Url};
use serde::Deserialize;
use serde_json::{Value, json};

use super::hub_client::{Failure, Hub, Purpose, Retries, Retry};
use super::hub_env::environment;
use super::hub_names::{check_revision, split_repo};
use super::hub_upload_plan::{Outgoing, Plan};
use crate::error::{Error, Result, printable};

/// Bytes of a file that the hub wants to see to say how it is stored.
const SAMPLE_BYTES: usize = 512;
const LFS_JSON: &str = "application/vnd.git-lfs+json";
/// The hub's parts are a few dozen megabytes; an answer that asks for more at once would fill the memory.
const MAX_PART_BYTES: u64 = 1 << 30;
const MAX_PARTS: usize = 10_000;
/// A connection that carries less than this is given up.
const SLOWEST_BYTES_PER_S: u64 = 20_000;

const NO_TOKEN: &str = "an upload needs a token that may write; make one at https://huggingface.co/settings/tokens (type: \
                        write) and set HF_TOKEN to it, or run 'hf auth login'";

/// What to send, and whereto.
#[derive(Clone)]
pub struct UploadRequest {
    /// `owner/name`.
    pub repo: String,
    /// The model's folder.
    pub folder: PathBuf,
    /// A branch, made where there is none; else `main`.
    pub revision: Option<String>,
    /// Whether a repository that is made is seen by its owner alone. One that is there stays as it is.
    pub private: bool,
    /// The commit's first line.
    pub message: Option<String>,
    /// Whether a folder without a model card (README.md) is refused.
    pub needs_card: bool,
    /// Whether only to say what would be sent; nobody is asked.
    pub dry_run: bool,
    /// A token that may write; else `HF_TOKEN`, else the one that was stored by a login.
    pub token: Option<String>,
    /// The hub's address; else `HF_ENDPOINT`, else `https://huggingface.co`.
    pub endpoint: Option<String>,
}

impl UploadRequest {
    /// Asks for `folder` to be sent to `repo`, private, with its card.
    #[must_use]
    pub fn new(repo: impl Into<String>, folder: impl Into<PathBuf>) -> Self {
        Self {
            repo: repo.into(),
            folder: folder.into(),
            revision: None,
            private: true,
            message: None,
            needs_card: true,
            dry_run: false,
            token: None,
            endpoint: None,
        }
    }
}

impl fmt::Debug for UploadRequest {
    /// All but the token.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UploadRequest")
            .field("repo", &self.repo)
            .field("folder", &self.folder)
            .field("revision", &self.revision)
            .field("private", &self.private)
            .field("has_token", &self.token.is_some())
            .field("endpoint", &self.endpoint)
            .finish_non_exhaustive()
    }
}

/// How far an upload has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UploadEvent {
    /// The folder is checked; this is what a commit would hold.
    Planned {
        /// Names and bytes.
        files: Vec<(String, u64)>,
        /// What stays here.
        left_out: Vec<String>,
    },
    /// The repository is there.
    Repository {
        /// Whether it was made just now.
        created: bool,
    },
    /// Bytes of a file are sent. The last one has `done == total`.
    Bytes {
        /// The file's name.
        name: String,
        /// Bytes that are sent.
        done: u64,
        /// Its bytes.
        total: u64,
    },
}

/// What an upload did.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct UploadReport {
    /// The repository's page.
    pub url: String,
    /// Whether the repository was made.
    pub created: bool,
    /// Files of the commit.
    pub sent: Vec<String>,
    /// Files that the repository had as they are.
    pub unchanged: Vec<String>,
    /// Files of the folder that no model needs.
    pub left_out: Vec<String>,
    /// The commit; `None` if there was nothing to send.
    pub commit: Option<String>,
}

/// Checks a folder and sends it.
///
/// Blocks, on a runtime of its own: from async code, call it by `spawn_blocking`.
///
/// # Errors
/// - before anything is sent, what is wrong with the folder: [`Error::ModelNotFound`], [`Error::InvalidConfig`],
///   [`Error::DamagedWeights`], [`Error::InvalidParameter`];
/// - [`Error::Hub`], as [`super::hub::pull`], for what the hub or the way to it says;
/// - [`Error::Io`] for the disk.
pub fn upload(request: &UploadRequest, on_event: &mut dyn FnMut(UploadEvent)) -> Result<UploadReport> {
    split_repo(&request.repo)?;
    let revision = request.revision.as_deref().unwrap_or("main");
    check_revision(revision)?;
    let plan = Plan::of(&request.folder, request.needs_card)?;
    on_event(UploadEvent::Planned {
        files: plan.files.iter().map(|file| (file.name.clone(), file.size)).collect(),
        left_out: plan.left_out.clone(),
    });
    let environment = environment();
    let endpoint = request.endpoint.clone().unwrap_or_else(|| environment.endpoint());
    if request.dry_run {
        let url = format!("{}/{}", endpoint.trim_end_matches('/'), request.repo);
        return Ok(UploadReport { url, left_out: plan.left_out, ..UploadReport::default() });
    }
    let token = request.token.clone().or_else(|| environment.token()).filter(|token| !token.is_empty());
    let hub = Hub::new(&request.repo, &endpoint, token.as_deref(), Purpose::Upload)?;
    if token.is_none() {
        return Err(hub.error("hub_unauthorized", NO_TOKEN.to_owned()));
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|source| Error::Io { what: "starting the upload".to_owned(), source })?;
    let report = runtime.block_on(Upload { hub: &hub, revision, request }.run(plan, on_event));
    runtime.shutdown_background();
    report
}

struct Upload<'a> {
    hub: &'a Hub,
    revision: &'a str,
    request: &'a UploadRequest,
}

/// Where the hub wants a file.
#[derive(Deserialize)]
struct Preupload {
    files: Vec<PreuploadFile>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct PreuploadFile {
    path: String,
    upload_mode: String,
    #[serde(default)]
    should_ignore: bool,
}

#[derive(Deserialize)]
struct LfsBatch {
    objects: Vec<LfsObject>,
}

#[derive(Deserialize)]
struct LfsObject {
    oid: String,
    #[serde(default)]
    actions: Option<LfsActions>,
    #[serde(default)]
    error: Option<LfsError>,
}

#[derive(Deserialize)]
struct LfsError {
    #[serde(default)]
    message: String,
}

#[derive(Deserialize)]
struct LfsActions {
    #[serde(default)]
    upload: Option<LfsAction>,
    #[serde(default)]
    verify: Option<LfsAction>,
}

#[derive(Deserialize)]
struct LfsAction {
    href: String,
    #[serde(default)]
    header: BTreeMap<String, Value>,
}

impl Upload<'_> {
    async fn run(&self, plan: Plan, on_event: &mut dyn FnMut(UploadEvent)) -> Result<UploadReport> {
        let mut report =
            UploadReport { url: self.hub.page().to_string(), left_out: plan.left_out, ..UploadReport::default() };
        report.created = self.create().await?;
        on_event(UploadEvent::Repository { created: report.created });
        let listing = self.hub.listing(self.revision).await?;
        let (unchanged, changed): (Vec<Outgoing>, _) =
            plan.files.into_iter().partition(|file| listing.file(&file.name).is_some_and(|there| file.is(there)));
        report.unchanged = unchanged.into_iter().map(|file| file.name).collect();
        if changed.is_empty() {
            return Ok(report);
        }
        let is_large = self.preupload(&changed).await?;
        let (large, small): (Vec<&Outgoing>, Vec<&Outgoing>) =
            changed.iter().partition(|file| is_large.get(&file.name).copied().unwrap_or(false));
        self.send_large(&large, on_event).await?;
        report.commit = Some(self.commit(&small, &large, &listing.commit).await?);
        for file in small {
            on_event(UploadEvent::Bytes { name: file.name.clone(), done: file.size, total: file.size });
        }
        report.sent = changed.iter().map(|file| file.name.clone()).collect();
        Ok(report)
    }

    /// Makes the repository and its branch; whether the repository was made just now.
    async fn create(&self) -> Result<bool> {
        let (owner, name) = split_repo(&self.request.repo)?;
        let body = json!({"name": name, "organization": owner, "type": "model", "private": self.request.private});
        let url = self.hub.url(&["api", "repos", "create"]);
        let created = match self.post(&url, body.to_string(), "application/json", "the right to make it").await {
            Ok(_) => true,
            Err((Some(409), _)) => false,
            // Who may not make a repository here may still write to one that is there.
            Err((Some(403), error)) => match self.hub.listing(self.revision).await {
                Ok(_) => false,
                Err(_) => return Err(error),
            },
            Err((_, error)) => return Err(error),
        };
        if self.revision != "main" {
            let url = self.hub.api(&["branch", self.revision]);
            match self.post(&url, "{}".to_owned(), "application/json", "the branch").await {
                Ok(_) | Err((Some(409), _)) => {}
                Err((_, error)) => return Err(error),
            }
        }
        Ok(created)
    }

    /// Which files go into large-file storage.
    async fn preupload(&self, files: &[Outgoing]) -> Result<BTreeMap<String, bool>> {
        let described: Vec<Value> = files
            .iter()
            .map(|file| {
                let sample = BASE64.encode(file.sample(SAMPLE_BYTES)?);
                Ok(json!({"path": file.name, "sample": sample, "size": file.size}))
            })
            .collect::<Result<_>>()?;
        let url = self.hub.api(&["preupload", self.revision]);
        let answer =
            self.post(&url, json!({ "files": described }).to_string(), "application/json", "the revision").await;
        let answer: Preupload = self.parsed(&answer.map_err(|(_, error)| error)?)?;
        if let Some(ignored) = answer.files.iter().find(|file| file.should_ignore) {
            let reason = format!(
                "the repository's .gitignore keeps {} out; remove that line on its page, and try again",
                printable(&ignored.path)
            );
            return Err(self.hub.error("hub_failed", reason));
        }
        Ok(answer.files.into_iter().map(|file| (file.path, file.upload_mode == "lfs")).collect())
    }

    async fn send_large(&self, files: &[&Outgoing], on_event: &mut dyn FnMut(UploadEvent)) -> Result<()> {
        if files.is_empty() {
            return Ok(());
        }
        let objects: Vec<Value> = files.iter().map(|file| json!({"oid": file.sha256, "size": file.size})).collect();
        let body = json!({
            "operation": "upload", "transfers": ["basic", "multipart"], "objects": objects, "hash_algo": "sha256",
            "ref": {"name": self.revision},
        });
        let url = self.hub.lfs_batch();
        let answer = self.post(&url, body.to_string(), LFS_JSON, "large-file storage").await;
        let batch: LfsBatch = self.parsed(&answer.map_err(|(_, error)| error)?)?;
        for file in files {
            let object = batch.objects.iter().find(|object| object.oid == file.sha256).ok_or_else(|| {
                self.hub.error("hub_failed", format!("the hub does not say where {} goes", file.name))
            })?;
            if let Some(error) = &object.error {
                let reason = format!("the hub does not take {}: {}", file.name, printable(&error.message));
                return Err(self.hub.error("hub_failed", reason));
            }
            // Without actions, the hub has it.
            if let Some(actions) = &object.actions {
                if let Some(action) = &actions.upload {
                    self.send(file, action, on_event).await?;
                }
                if let Some(action) = &actions.verify {
                    let body = json!({"oid": file.sha256, "size": file.size}).to_string();
                    let url = self.address(&action.href)?;
                    self.post(&url, body, LFS_JSON, &file.name).await.map_err(|(_, error)| error)?;
                }
            }
            on_event(UploadEvent::Bytes { name: file.name.clone(), done: file.size, total: file.size });
        }
        Ok(())
    }

    /// One file to its storage, whole or in parts.
    async fn send(&self, file: &Outgoing, action: &LfsAction, on_event: &mut dyn FnMut(UploadEvent)) -> Result<()> {
        let href = self.address(&action.href)?;
        let Some(part_bytes) = action.header.get("chunk_size") else {
            self.put(&href, file, 0, file.size).await?;
            return Ok(());
        };
        let wrong = || self.hub.error("hub_failed", format!("the hub divides {} in a way that cannot be", file.name));
        let part_bytes: u64 = match part_bytes {
            Value::String(text) => text.parse().ok(),
            other => other.as_u64(),
        }
        .filter(|n| (1..=MAX_PART_BYTES).contains(n))
        .ok_or_else(wrong)?;
        let addresses: BTreeMap<u32, &str> =
            action.header.iter().filter_map(|(name, value)| Some((name.parse().ok()?, value.as_str()?))).collect();
        let n_parts = file.size.div_ceil(part_bytes) as usize;
        if addresses.len() != n_parts || n_parts > MAX_PARTS {
            return Err(wrong());
        }
        let mut parts = Vec::new();
        for (at, (number, address)) in addresses.into_iter().enumerate() {
            let start = at as u64 * part_bytes;
            let n = part_bytes.min(file.size - start);
            let etag = self.put(&self.address(address)?, file, start, n).await?;
            parts.push(json!({"partNumber": number, "etag": etag}));
            on_event(UploadEvent::Bytes { name: file.name.clone(), done: start + n, total: file.size });
        }
        let body = json!({"oid": file.sha256, "parts": parts}).to_string();
        self.post(&href, body, LFS_JSON, &file.name).await.map(|_| ()).map_err(|(_, error)| error)
    }

    /// `n` bytes of a file from `start` on; the storage's `ETag`.
    async fn put(&self, url: &Url, file: &Outgoing, start: u64, n: u64) -> Result<String> {
        let mut retries = Retries::new();
        loop {
            let body = self.body(file, start, n).await?;
            let patience = Duration::from_secs(60 + n / SLOWEST_BYTES_PER_S);
            // Whose address it is, is written in the address; the token is not for it.
            let request = self.hub.uploads()?.put(url.clone()).header(CONTENT_LENGTH, n).timeout(patience).body(body);
            let failure = match request.send().await {
                Ok(response) if response.status().is_success() => {
                    let etag = response.headers().get(ETAG).and_then(|etag| etag.to_str().ok()).unwrap_or_default();
                    return Ok(etag.to_owned());
                }
                Ok(response) => self.hub.refusal(url, &response, &file.name),
                Err(error) => self.hub.broken(url, &error),
            };
            retries.wait(failure).await?;
        }
    }

    /// Small pieces are read; a whole large file is streamed.
    async fn body(&self, file: &Outgoing, start: u64, n: u64) -> Result<Body> {
        let io = |source| Error::Io { what: format!("reading {}", file.name), source };
        if start == 0 && n == file.size && n > MAX_PART_BYTES / 16 {
            return Ok(Body::from(tokio::fs::File::open(&file.path).await.map_err(io)?));
        }
        let mut source = std::fs::File::open(&file.path).map_err(io)?;
        source.seek(SeekFrom::Start(start)).map_err(io)?;
        let mut bytes = Vec::new();
        source.take(n).read_to_end(&mut bytes).map_err(io)?;
        if bytes.len() as u64 != n {
            return Err(io(std::io::Error::other("the file became shorter while it was sent")));
        }
        Ok(Body::from(bytes))
    }

    async fn commit(&self, small: &[&Outgoing], large: &[&Outgoing], parent: &str) -> Result<String> {
        let summary = self.request.message.as_deref().unwrap_or("Upload by okyeame");
        let mut lines =
            vec![json!({"key": "header", "value": {"summary": summary, "description": "", "parentCommit": parent}})];
        for file in small {
            let content = BASE64.encode(file.sample(usize::MAX)?);
            lines.push(json!({"key": "file", "value": {"content": content, "path": file.name, "encoding": "base64"}}));
        }
        lines.extend(large.iter().map(|file| {
            json!({"key": "lfsFile", "value": {"path": file.name, "algo": "sha256", "oid": file.sha256, "size": file.size}})
        }));
        let body: String = lines.iter().map(|line| format!("{line}\n")).collect();
        let url = self.hub.api(&["commit", self.revision]);
        let answer = self.post(&url, body, "application/x-ndjson", "the revision").await;
        let answer: Value = match answer {
            Ok(bytes) => self.parsed(&bytes)?,
            Err((Some(409 | 412), _)) => {
                let reason = "somebody else changed the repository meanwhile; look at its page, and try again";
                return Err(self.hub.error("hub_failed", reason.to_owned()));
            }
            Err((_, error)) => return Err(error),
        };
        let oid =
            answer.get("commitOid").and_then(Value::as_str).filter(|oid| oid.bytes().all(|b| b.is_ascii_hexdigit()));
        oid.map(str::to_owned).ok_or_else(|| {
            self.hub.error("hub_failed", "the hub names no commit; look at the repository's page".to_owned())
        })
    }

    /// Asks until there is an answer; the error with the hub's status, if it gave one.
    async fn post(
        &self,
        url: &Url,
        body: String,
        content_type: &'static str,
        what: &str,
    ) -> std::result::Result<Vec<u8>, (Option<u16>, Error)> {
        let mut retries = Retries::new();
        loop {
            let request = self
                .hub
                .asking(Method::POST, url)
                .map_err(|error| (None, error))?
                .header(CONTENT_TYPE, content_type)
                .header(ACCEPT, if content_type == LFS_JSON { LFS_JSON } else { "application/json" })
                .timeout(Duration::from_secs(120 + body.len() as u64 / SLOWEST_BYTES_PER_S))
                .body(body.clone());
            let (status, failure) = match request.send().await {
                Ok(response) if response.status().is_success() => match self.hub.bounded_body(url, response).await {
                    Ok(answer) => return Ok(answer),
                    Err(failure) => (None, failure),
                },
                Ok(response) if response.status().is_redirection() => {
                    let reason =
                        "the hub redirects an upload; check HF_ENDPOINT, and whether the repository was renamed";
                    (None, Failure::from(self.hub.error("hub_failed", reason.to_owned())))
                }
                Ok(response) => {
                    let mut failure = self.hub.refusal(url, &response, what);
                    let status = response.status().as_u16();
                    if let Some(reason) = self.refused(status, what) {
                        let code = if status == 401 { "hub_unauthorized" } else { "hub_forbidden" };
                        failure = Failure { error: self.hub.error(code, reason), retry: Retry::Never };
                    }
                    (Some(status), failure)
                }
                Err(error) => (None, self.hub.broken(url, &error)),
            };
            retries.wait(failure).await.map_err(|error| (status, error))?;
        }
    }

    /// What a refusal means to somebody who writes.
    fn refused(&self, status: u16, what: &str) -> Option<String> {
        match status {
            401 => Some(format!("the hub does not know this token, or it may not write. {NO_TOKEN}")),
            403 => Some(format!(
                "the token may not write there ({what}): its type must be write, or a fine-grained one that may write \
                 to {}; make one at https://huggingface.co/settings/tokens",
                self.request.repo
            )),
            _ => None,
        }
    }

    /// An address that the hub gave: http only where the hub itself is.
    fn address(&self, href: &str) -> Result<Url> {
        Url::parse(href).ok().filter(|url| self.hub.is_safe(url)).ok_or_else(|| {
            let reason = "the hub names an address to send to that is not encrypted, or none; nothing was sent there";
            self.hub.error("hub_failed", reason.to_owned())
        })
    }

    fn parsed<T: serde::de::DeserializeOwned>(&self, bytes: &[u8]) -> Result<T> {
        serde_json::from_slice(bytes).map_err(|_| {
            let reason = "the hub's answer is not what its API gives; check HF_ENDPOINT, and which proxy is in between";
            self.hub.error("hub_failed", reason.to_owned())
        })
    }
}
