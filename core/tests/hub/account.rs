//! A hub that remembers what it is sent: repositories, large-file storage, commits; and serves them again.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::{Value, json};
use sha1::Sha1;
use sha2::{Digest as _, Sha256};

use crate::server::{Reply, Request, Server};

/// Where a small file ends.
const LARGE_BYTES: usize = 1_000_000;

/// What the hub holds.
#[derive(Debug, Default)]
pub(crate) struct Account {
    /// By `owner/name`, then by file.
    pub(crate) repos: BTreeMap<String, BTreeMap<String, Vec<u8>>>,
    pub(crate) private: BTreeSet<String>,
    /// By SHA-256.
    pub(crate) storage: BTreeMap<String, Vec<u8>>,
    /// Parts of large files, by SHA-256 and number.
    parts: BTreeMap<(String, u32), Vec<u8>>,
    /// First lines.
    pub(crate) commits: Vec<String>,
}

/// A hub on this machine, and what it holds.
pub(crate) struct AccountHub {
    pub(crate) server: Server,
    pub(crate) account: Arc<Mutex<Account>>,
}

impl AccountHub {
    /// `first` may answer in its place. With `part_bytes`, large files are wanted in parts.
    pub(crate) fn start(
        part_bytes: Option<usize>,
        first: impl Fn(&Request) -> Option<Reply> + Send + Sync + 'static,
    ) -> Self {
        let account = Arc::new(Mutex::new(Account::default()));
        let shared = Arc::clone(&account);
        let server = Server::start(move |request| match first(request) {
            Some(reply) => reply,
            None => shared.lock().unwrap().answer(request, part_bytes),
        });
        Self { server, account }
    }

    pub(crate) fn file(&self, repo: &str, name: &str) -> Option<Vec<u8>> {
        self.account.lock().unwrap().repos.get(repo)?.get(name).cloned()
    }

    /// How many bodies went to large-file storage.
    pub(crate) fn n_stored(&self) -> usize {
        self.server.seen().iter().filter(|request| request.method == "PUT").count()
    }
}

fn json_reply(value: &Value) -> Reply {
    Reply::ok(value.to_string()).with("Content-Type", "application/json")
}

fn sha256(bytes: &[u8]) -> String {
    format!("{:x}", Sha256::digest(bytes))
}

impl Account {
    /// As many digits as a commit has, one for each state.
    fn commit_id(&self) -> String {
        format!("{:040x}", self.commits.len())
    }

    fn answer(&mut self, request: &Request, part_bytes: Option<usize>) -> Reply {
        let path: Vec<&str> = request.path.trim_matches('/').split('/').collect();
        let body = || serde_json::from_slice::<Value>(&request.body).unwrap();
        let host = request.header("host").unwrap_or_default().to_owned();
        match (request.method.as_str(), &path[..]) {
            ("POST", ["api", "repos", "create"]) => {
                let body = body();
                let repo = format!("{}/{}", body["organization"].as_str().unwrap(), body["name"].as_str().unwrap());
                if self.repos.contains_key(&repo) {
                    return Reply::status(409);
                }
                if body["private"] == true {
                    self.private.insert(repo.clone());
                }
                self.repos.insert(repo.clone(), BTreeMap::from([(".gitattributes".to_owned(), b"*".to_vec())]));
                json_reply(&json!({ "url": format!("http://{host}/{repo}") }))
            }
            ("POST", ["api", "models", _, _, "branch", _]) => Reply::status(409),
            ("GET", ["api", "models", owner, name, "revision", _]) => self.listing(&format!("{owner}/{name}")),
            ("POST", ["api", "models", _, _, "preupload", _]) => {
                let files: Vec<Value> = body()["files"].as_array().unwrap().iter().map(|file| {
                    let sample = BASE64.decode(file["sample"].as_str().unwrap()).unwrap();
                    assert!(sample.len() <= 512 && sample.len() as u64 <= file["size"].as_u64().unwrap());
                    let is_large = file["size"].as_u64().unwrap() as usize >= LARGE_BYTES;
                    json!({"path": file["path"], "uploadMode": if is_large { "lfs" } else { "regular" }, "shouldIgnore": false})
                }).collect();
                json_reply(&json!({ "files": files }))
            }
            ("POST", [_, _, "info", "lfs", "objects", "batch"]) => self.batch(&body(), &host, part_bytes),
            ("PUT", ["storage", oid]) => {
                assert_eq!(sha256(&request.body), *oid);
                self.storage.insert((*oid).to_owned(), request.body.clone());
                Reply::ok("")
            }
            ("PUT", ["storage", oid, number]) => {
                self.parts.insert(((*oid).to_owned(), number.parse().unwrap()), request.body.clone());
                Reply::ok("").with("ETag", format!("\"{number}-{}\"", request.body.len()))
            }
            ("POST", ["complete", oid]) => {
                let mut whole = Vec::new();
                for part in body()["parts"].as_array().unwrap() {
                    let number = part["partNumber"].as_u64().unwrap() as u32;
                    let bytes = &self.parts[&((*oid).to_owned(), number)];
                    assert_eq!(part["etag"], format!("\"{number}-{}\"", bytes.len()));
                    whole.extend_from_slice(bytes);
                }
                assert_eq!(sha256(&whole), *oid);
                self.storage.insert((*oid).to_owned(), whole);
                Reply::ok("")
            }
            ("POST", ["verify"]) => {
                assert!(self.storage.contains_key(body()["oid"].as_str().unwrap()));
                Reply::ok("")
            }
            ("POST", ["api", "models", owner, name, "commit", _]) => {
                self.commit(&format!("{owner}/{name}"), &request.body)
            }
            ("GET", [owner, name, "resolve", _, file]) => {
                match self.repos.get(&format!("{owner}/{name}")).and_then(|files| files.get(*file)) {
                    Some(bytes) => Reply::file(bytes, request),
                    None => Reply::status(404).with("X-Error-Code", "EntryNotFound"),
                }
            }
            _ => Reply::status(404),
        }
    }

    fn listing(&self, repo: &str) -> Reply {
        let Some(files) = self.repos.get(repo) else {
            return Reply::status(404).with("X-Error-Code", "RepoNotFound");
        };
        let siblings: Vec<Value> = files
            .iter()
            .map(|(name, bytes)| {
                let blob = Sha1::digest([format!("blob {}\0", bytes.len()).as_bytes(), bytes].concat());
                let mut file = json!({"rfilename": name, "size": bytes.len(), "blobId": format!("{blob:x}")});
                if bytes.len() >= LARGE_BYTES {
                    file["lfs"] = json!({"sha256": sha256(bytes), "size": bytes.len(), "pointerSize": 134});
                }
                file
            })
            .collect();
        json_reply(&json!({"id": repo, "sha": self.commit_id(), "siblings": siblings}))
    }

    fn batch(&self, body: &Value, host: &str, part_bytes: Option<usize>) -> Reply {
        assert_eq!((&body["operation"], &body["hash_algo"]), (&json!("upload"), &json!("sha256")));
        let object = |object: &Value| {
            let (oid, size) = (object["oid"].as_str().unwrap(), object["size"].as_u64().unwrap() as usize);
            if self.storage.contains_key(oid) {
                return json!({"oid": oid, "size": size});
            }
            let verify = json!({"href": format!("http://{host}/verify")});
            let upload = match part_bytes {
                None => json!({"href": format!("http://{host}/storage/{oid}")}),
                Some(part_bytes) => {
                    let mut header = json!({ "chunk_size": part_bytes.to_string() });
                    for number in 1..=size.div_ceil(part_bytes) {
                        header[format!("{number:05}")] = json!(format!("http://{host}/storage/{oid}/{number}"));
                    }
                    json!({"href": format!("http://{host}/complete/{oid}"), "header": header})
                }
            };
            json!({"oid": oid, "size": size, "actions": {"upload": upload, "verify": verify}})
        };
        let objects: Vec<Value> = body["objects"].as_array().unwrap().iter().map(object).collect();
        json_reply(&json!({"transfer": if part_bytes.is_some() { "multipart" } else { "basic" }, "objects": objects}))
    }

    fn commit(&mut self, repo: &str, body: &[u8]) -> Reply {
        let parent = self.commit_id();
        let lines: Vec<Value> =
            std::str::from_utf8(body).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let Some(files) = self.repos.get_mut(repo) else { return Reply::status(404) };
        for line in &lines {
            let value = &line["value"];
            match line["key"].as_str().unwrap() {
                "header" if value["parentCommit"] != parent => return Reply::status(412),
                "header" => self.commits.push(value["summary"].as_str().unwrap().to_owned()),
                "file" => {
                    let bytes = BASE64.decode(value["content"].as_str().unwrap()).unwrap();
                    files.insert(value["path"].as_str().unwrap().to_owned(), bytes);
                }
                "lfsFile" => {
                    let bytes = self.storage[value["oid"].as_str().unwrap()].clone();
                    assert_eq!(value["size"], bytes.len());
                    files.insert(value["path"].as_str().unwrap().to_owned(), bytes);
                }
                other => panic!("{other}"),
            }
        }
        json_reply(&json!({ "commitUrl": "", "commitOid": self.commit_id() }))
    }
}
