//! A repository as the hub would serve it, and the pulls that ask for it.
//!
//! Every pull here holds a token, and every error is searched for it, in all the forms in which it could be printed.

use std::error::Error as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use okyeame_core::weights::hub::{self, PullRequest};
use okyeame_core::{Error, Result};
use sha1::Sha1;
use sha2::{Digest as _, Sha256};

use crate::server::{Reply, Request, Server};

pub(crate) const REPO: &str = "shop/twi";
pub(crate) const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
pub(crate) const LISTING: &str = "/api/models/shop/twi/revision/main";
pub(crate) const WEIGHTS: &str = "model.safetensors";
/// An address where nobody listens: a port below 1024 that no test is given.
pub(crate) const NOBODY: &str = "http://127.0.0.1:1";
pub(crate) const TOKEN: &str = "hf_verySecretToken";
/// What is left where a plain folder was locked.
const LOCK: &str = ".okyeame-pull.lock";

/// The path of a file at the commit.
pub(crate) fn resolve(file: &str) -> String {
    format!("/{REPO}/resolve/{COMMIT}/{file}")
}

/// Names and contents.
#[derive(Clone)]
pub(crate) struct Repo(pub(crate) Vec<(String, Vec<u8>)>);

impl Repo {
    pub(crate) fn new(files: &[(&str, &[u8])]) -> Self {
        Self(files.iter().map(|(name, bytes)| ((*name).to_owned(), bytes.to_vec())).collect())
    }

    pub(crate) fn model() -> Self {
        Self::new(&[
            ("README.md", b"# Twi"),
            ("config.json", br#"{"model_type": "whisper"}"#),
            (WEIGHTS, &weights()),
            ("tokenizer.json", b"{}"),
        ])
    }

    pub(crate) fn bytes(&self, name: &str) -> &[u8] {
        &self.0.iter().find(|(n, _)| n == name).unwrap().1
    }

    fn listing(&self) -> Reply {
        let siblings: Vec<serde_json::Value> = self
            .0
            .iter()
            .map(|(name, bytes)| {
                let blob = Sha1::digest([format!("blob {}\0", bytes.len()).as_bytes(), bytes].concat());
                let mut file = serde_json::json!({
                    "rfilename": name, "size": bytes.len(), "blobId": format!("{blob:x}")
                });
                if name.ends_with(".safetensors") || name.ends_with(".bin") {
                    let sha256 = format!("{:x}", Sha256::digest(bytes));
                    file["lfs"] = serde_json::json!({"sha256": sha256, "size": bytes.len(), "pointerSize": 134});
                }
                file
            })
            .collect();
        let info = serde_json::json!({"id": REPO, "sha": COMMIT, "private": false, "siblings": siblings});
        Reply::ok(info.to_string()).with("Content-Type", "application/json")
    }

    /// What the hub answers.
    pub(crate) fn answer(&self, request: &Request) -> Reply {
        if request.path == LISTING && request.query == "blobs=true" {
            return self.listing();
        }
        match self.0.iter().find(|(name, _)| request.path == resolve(name)) {
            Some((_, bytes)) => Reply::file(bytes, request),
            None => Reply::status(404).with("X-Error-Code", "EntryNotFound"),
        }
    }

    pub(crate) fn serve(self) -> Server {
        Server::start(move |request| self.answer(request))
    }

    /// Serves, but answers the first `times` requests for `path` with `reply`.
    pub(crate) fn serve_after(self, times: usize, path: String, reply: Reply) -> Server {
        let count = AtomicUsize::new(0);
        Server::start(move |request| {
            if request.path == path && count.fetch_add(1, Ordering::SeqCst) < times {
                return reply.clone();
            }
            self.answer(request)
        })
    }
}

/// Enough bytes for many chunks, no two blocks alike.
pub(crate) fn weights() -> Vec<u8> {
    (0..700_001_u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect()
}

/// A pull into a plain folder.
pub(crate) fn request(server: &Server, to: &Path) -> PullRequest {
    PullRequest {
        to: Some(to.to_owned()),
        token: Some(TOKEN.to_owned()),
        endpoint: Some(server.url()),
        offline: Some(false),
        ..PullRequest::new(REPO)
    }
}

/// A pull into a hub cache.
pub(crate) fn cached(server: &Server, cache: &Path) -> PullRequest {
    PullRequest { to: None, cache: Some(cache.to_owned()), ..request(server, cache) }
}

pub(crate) fn pull(request: &PullRequest) -> Result<PathBuf> {
    hub::pull(request, &mut |_| {})
}

/// The error of a pull that must fail. It shows the token nowhere, and the request does not either.
pub(crate) fn refused(request: &PullRequest) -> Error {
    let error = pull(request).expect_err("this pull must fail");
    let mut printed = format!("{error} {error:?} {error:#?} {request:?}");
    let mut cause = error.source();
    while let Some(next) = cause {
        printed += &format!(" {next} {next:?}");
        cause = next.source();
    }
    assert!(!printed.contains(TOKEN), "the token is shown");
    error
}

/// What is in a folder, but for its lock.
pub(crate) fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name != LOCK)
        .collect();
    names.sort();
    names
}

pub(crate) fn read(folder: &Path, name: &str) -> Vec<u8> {
    std::fs::read(folder.join(name)).unwrap()
}
