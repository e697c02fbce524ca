//! The hub, played by a real HTTP server on this machine: what it serves, refuses, cuts off and forges.
//!
//! Nothing here asks the network. The server speaks HTTP/1.1 over plain sockets, because it must also do
//! what a good server does not: close a connection in the middle of a file. Long, because the server's script and the
//! pulls that meet it are read together.
#![cfg(feature = "hub")]
#![allow(clippy::unwrap_used)]

use std::io::{self, BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use okyeame_core::weights::hub::{self, PullEvent, PullRequest};
use okyeame_core::{Error, Result};
use sha1::Sha1;
use sha2::{Digest as _, Sha256};

const REPO: &str = "shop/twi";
const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
const LISTING: &str = "/api/models/shop/twi/revision/main";
const WEIGHTS: &str = "model.safetensors";
/// An address where nobody listens: a port below 1024 that no test is given.
const NOBODY: &str = "http://127.0.0.1:1";
const TOKEN: &str = "hf_verySecretToken";

/// A request as it arrived.
#[derive(Debug, Clone)]
struct Request {
    path: String,
    query: String,
    headers: Vec<(String, String)>,
}

impl Request {
    fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    /// The N of `Range: bytes=N-`.
    fn range_start(&self) -> Option<usize> {
        self.header("range")
            .map(|range| range.strip_prefix("bytes=").unwrap().strip_suffix('-').unwrap().parse().unwrap())
    }
}

/// An answer; `cut_after` closes the connection after so many bytes of the body.
#[derive(Debug, Clone, Default)]
struct Reply {
    status: u16,
    headers: Vec<(&'static str, String)>,
    body: Vec<u8>,
    cut_after: Option<usize>,
}

impl Reply {
    fn status(status: u16) -> Self {
        Self { status, ..Self::default() }
    }

    fn ok(body: impl Into<Vec<u8>>) -> Self {
        Self { status: 200, body: body.into(), ..Self::default() }
    }

    fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    /// A file, or the part of it that was asked for.
    fn file(bytes: &[u8], request: &Request) -> Self {
        match request.range_start() {
            None => Self::ok(bytes),
            Some(start) if start < bytes.len() => {
                let range = format!("bytes {start}-{}/{}", bytes.len() - 1, bytes.len());
                Self { status: 206, ..Self::ok(&bytes[start..]) }.with("Content-Range", range)
            }
            Some(_) => Self::status(416),
        }
    }
}

/// A server on a free port, and all that it was asked.
struct Server {
    address: SocketAddr,
    seen: Arc<Mutex<Vec<Request>>>,
}

impl Server {
    fn start(answer: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (log, answer) = (Arc::clone(&seen), Arc::new(answer));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (log, answer) = (Arc::clone(&log), Arc::clone(&answer));
                std::thread::spawn(move || serve(&stream.unwrap(), &log, &*answer));
            }
        });
        Self { address, seen }
    }

    fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    fn seen(&self) -> Vec<Request> {
        self.seen.lock().unwrap().clone()
    }

    /// The requests for one file of the repository.
    fn seen_for(&self, file: &str) -> Vec<Request> {
        self.seen().into_iter().filter(|request| request.path == resolve(file)).collect()
    }

    fn fetches(&self) -> usize {
        self.seen().iter().filter(|request| request.path.contains("/resolve/")).count()
    }
}

fn serve(stream: &TcpStream, log: &Mutex<Vec<Request>>, answer: &dyn Fn(&Request) -> Reply) -> io::Result<()> {
    let mut head = Vec::new();
    for line in BufReader::new(stream).lines() {
        let line = line?;
        if line.is_empty() {
            break;
        }
        head.push(line);
    }
    let Some((first, headers)) = head.split_first() else { return Ok(()) };
    let target = first.split(' ').nth(1).unwrap();
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let headers = headers.iter().map(|line| line.split_once(':').unwrap());
    let request = Request {
        path: path.to_owned(),
        query: query.to_owned(),
        headers: headers.map(|(name, value)| (name.to_owned(), value.trim().to_owned())).collect(),
    };
    log.lock().unwrap().push(request.clone());
    let reply = answer(&request);
    let mut out = stream;
    write!(out, "HTTP/1.1 {} Answer\r\nConnection: close\r\nContent-Length: {}\r\n", reply.status, reply.body.len())?;
    for (name, value) in &reply.headers {
        write!(out, "{name}: {value}\r\n")?;
    }
    out.write_all(b"\r\n")?;
    out.write_all(&reply.body[..reply.cut_after.unwrap_or(reply.body.len())])?;
    out.flush()
}

/// The path of a file at the commit.
fn resolve(file: &str) -> String {
    format!("/{REPO}/resolve/{COMMIT}/{file}")
}

/// A repository as the hub would serve it.
#[derive(Clone)]
struct Repo(Vec<(String, Vec<u8>)>);

impl Repo {
    fn new(files: &[(&str, &[u8])]) -> Self {
        Self(files.iter().map(|(name, bytes)| ((*name).to_owned(), bytes.to_vec())).collect())
    }

    fn model() -> Self {
        Self::new(&[
            ("README.md", b"# Twi"),
            ("config.json", br#"{"model_type": "whisper"}"#),
            (WEIGHTS, &weights()),
            ("tokenizer.json", b"{}"),
        ])
    }

    fn bytes(&self, name: &str) -> &[u8] {
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

    fn answer(&self, request: &Request) -> Reply {
        if request.path == LISTING && request.query == "blobs=true" {
            return self.listing();
        }
        match self.0.iter().find(|(name, _)| request.path == resolve(name)) {
            Some((_, bytes)) => Reply::file(bytes, request),
            None => Reply::status(404).with("X-Error-Code", "EntryNotFound"),
        }
    }

    fn serve(self) -> Server {
        Server::start(move |request| self.answer(request))
    }

    /// Serves, but answers the first `times` requests for `path` with `reply`.
    fn serve_after(self, times: usize, path: String, reply: Reply) -> Server {
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
fn weights() -> Vec<u8> {
    (0..700_001_u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect()
}

fn request(server: &Server, to: &Path) -> PullRequest {
    PullRequest {
        to: Some(to.to_owned()),
        token: Some(String::new()),
        endpoint: Some(server.url()),
        offline: Some(false),
        ..PullRequest::new(REPO)
    }
}

fn cached(server: &Server, cache: &Path) -> PullRequest {
    PullRequest { to: None, cache: Some(cache.to_owned()), ..request(server, cache) }
}

fn pull(request: &PullRequest) -> Result<PathBuf> {
    hub::pull(request, &mut |_| {})
}

/// What is in a folder, but for its lock.
fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name != ".okyeame-pull.lock")
        .collect();
    names.sort();
    names
}

fn read(folder: &Path, name: &str) -> Vec<u8> {
    std::fs::read(folder.join(name)).unwrap()
}

#[test]
fn a_model_arrives_whole_and_its_events_add_up() {
    let repo = Repo::model();
    let server = repo.clone().serve();
    let folder = tempfile::tempdir().unwrap();
    let to = folder.path().join("models/twi");
    let mut events = Vec::new();
    assert_eq!(hub::pull(&request(&server, &to), &mut |event| events.push(event)).unwrap(), to);
    assert_eq!(names(&to), ["config.json", WEIGHTS, "tokenizer.json"]);
    for name in names(&to) {
        assert!(read(&to, &name) == repo.bytes(&name), "{name}");
    }

    let order = ["config.json", "tokenizer.json", WEIGHTS];
    let sizes = order.map(|name| repo.bytes(name).len() as u64);
    assert_eq!(events[0], PullEvent::Start { files: 3, bytes_total: Some(sizes.iter().sum()) });
    let mut rest = &events[1..];
    for (name, size) in order.into_iter().zip(sizes) {
        let name = name.to_owned();
        assert_eq!(rest[0], PullEvent::File { name: name.clone(), bytes_total: size });
        let mut last = 0;
        rest = &rest[1..];
        while let PullEvent::Bytes { name: of, done, total } = &rest[0] {
            assert!(*of == name && *total == size && *done >= last && *done <= size, "{:?}", rest[0]);
            last = *done;
            rest = &rest[1..];
        }
        assert_eq!(last, size, "{name}");
        assert_eq!(rest[0], PullEvent::Done { name });
        rest = &rest[1..];
    }
    assert!(rest.is_empty());

    // Again: it is all there.
    let fetches = server.fetches();
    pull(&request(&server, &to)).unwrap();
    assert_eq!(server.fetches(), fetches);
    // One file was changed on the disk: it alone comes again.
    std::fs::write(to.join("config.json"), "changed").unwrap();
    pull(&request(&server, &to)).unwrap();
    assert_eq!(server.fetches(), fetches + 1);
    assert_eq!(read(&to, "config.json"), repo.bytes("config.json"));
}

#[test]
fn the_cache_has_the_layout_that_other_programs_share() {
    let repo = Repo::model();
    let server = repo.clone().serve();
    let cache = tempfile::tempdir().unwrap();
    let folder = pull(&cached(&server, cache.path())).unwrap();
    let home = cache.path().join("models--shop--twi");
    assert_eq!(folder, home.join("snapshots").join(COMMIT));
    assert_eq!(read(&home, "refs/main"), COMMIT.as_bytes());
    assert!(read(&folder, WEIGHTS) == repo.bytes(WEIGHTS));
    let blob = format!("{:x}", Sha256::digest(weights()));
    assert!(home.join("blobs").join(&blob).is_file());
    #[cfg(unix)]
    assert_eq!(std::fs::read_link(folder.join(WEIGHTS)).unwrap(), Path::new("../../blobs").join(&blob));
    assert_eq!(names(&home.join("blobs")).len(), 3);
    assert_eq!(names(&folder), ["config.json", WEIGHTS, "tokenizer.json"]);

    let fetches = server.fetches();
    assert_eq!(pull(&cached(&server, cache.path())).unwrap(), folder);
    assert_eq!(server.fetches(), fetches);
    // A blob without its link, as after a new commit with the same weights.
    std::fs::remove_file(folder.join(WEIGHTS)).unwrap();
    assert!(read(&pull(&cached(&server, cache.path())).unwrap(), WEIGHTS) == repo.bytes(WEIGHTS));
    assert_eq!(server.fetches(), fetches);
}

#[test]
fn what_the_cache_holds_is_used_without_a_network() {
    let server = Repo::model().serve();
    let cache = tempfile::tempdir().unwrap();
    let online = cached(&server, cache.path());
    let offline = PullRequest { offline: Some(true), ..online.clone() };
    let unreachable = PullRequest { endpoint: Some(NOBODY.to_owned()), ..online.clone() };
    assert_eq!(pull(&offline).unwrap_err().code(), "hub_unreachable");
    assert_eq!(pull(&unreachable).unwrap_err().code(), "hub_unreachable");
    assert!(server.seen().is_empty());

    let folder = pull(&online).unwrap();
    let asked = server.seen().len();
    assert_eq!(pull(&offline).unwrap(), folder);
    assert_eq!(pull(&unreachable).unwrap(), folder);
    let by_commit = PullRequest { revision: Some(COMMIT.to_owned()), ..offline.clone() };
    assert_eq!(pull(&by_commit).unwrap(), folder);
    assert_eq!(server.seen().len(), asked);
    let other = PullRequest { revision: Some("v2".to_owned()), ..offline.clone() };
    assert_eq!(pull(&other).unwrap_err().code(), "hub_unreachable");
    // Without its weights it is no model, and is not taken for one.
    std::fs::remove_file(folder.join(WEIGHTS)).unwrap();
    assert_eq!(pull(&offline).unwrap_err().code(), "hub_unreachable");
}

#[test]
fn a_plain_folder_is_used_offline_and_never_in_place_of_an_answer() {
    let server = Repo::model().serve();
    let folder = tempfile::tempdir().unwrap();
    let online = request(&server, folder.path());
    pull(&online).unwrap();
    assert_eq!(pull(&PullRequest { offline: Some(true), ..online.clone() }).unwrap(), folder.path());
    let unreachable = PullRequest { endpoint: Some(NOBODY.to_owned()), ..online };
    assert_eq!(pull(&unreachable).unwrap_err().code(), "hub_unreachable");
}

#[test]
fn refusals_have_their_codes_and_never_show_the_token() {
    let moved = "RevisionNotFound";
    for (reply, code, says) in [
        (Reply::status(401), "hub_unauthorized", "token"),
        (Reply::status(403).with("X-Error-Code", "GatedRepo"), "hub_forbidden", "accept its terms"),
        (Reply::status(404).with("X-Error-Code", "RepoNotFound"), "hub_not_found", "check the name"),
        (Reply::status(404).with("X-Error-Code", moved), "hub_not_found", "revision 'main'"),
        (Reply::status(404), "hub_not_found", "check both names"),
        (Reply::status(429).with("Retry-After", "3600"), "hub_busy", "try again"),
        (Reply::status(400), "hub_failed", "400"),
        (Reply::ok("<html>a captive portal</html>"), "hub_failed", "not the list of files"),
    ] {
        let server = Repo::model().serve_after(usize::MAX, LISTING.to_owned(), reply);
        let folder = tempfile::tempdir().unwrap();
        for token in ["", TOKEN] {
            let request = PullRequest { token: Some(token.to_owned()), ..request(&server, folder.path()) };
            let error = pull(&request).unwrap_err();
            assert_eq!(error.code(), code, "{error}");
            assert!(error.to_string().contains(says), "{error}");
            assert!(!format!("{error} {error:?} {request:?}").contains(TOKEN), "{error}");
        }
        assert_eq!(server.seen().len(), 2, "{code} is final");
        assert!(names(folder.path()).is_empty());
    }
}

#[test]
fn a_file_that_is_refused_leaves_nothing_half_done() {
    let server = Repo::model().serve_after(usize::MAX, resolve("tokenizer.json"), Reply::status(404));
    let folder = tempfile::tempdir().unwrap();
    assert_eq!(pull(&request(&server, folder.path())).unwrap_err().code(), "hub_not_found");
    assert_eq!(names(folder.path()), ["config.json"]);
}

#[test]
fn a_busy_hub_is_asked_again_after_the_pause_that_it_wants() {
    let busy = Reply::status(429).with("Retry-After", "1");
    let server = Repo::model().serve_after(1, LISTING.to_owned(), busy);
    let folder = tempfile::tempdir().unwrap();
    let start = Instant::now();
    pull(&request(&server, folder.path())).unwrap();
    assert!(start.elapsed() >= Duration::from_secs(1));
    assert_eq!(server.seen().iter().filter(|request| request.path == LISTING).count(), 2);
}

#[test]
fn a_hub_that_fails_twice_is_asked_a_third_time() {
    for path in [LISTING.to_owned(), resolve(WEIGHTS)] {
        let server = Repo::model().serve_after(2, path.clone(), Reply::status(500));
        let folder = tempfile::tempdir().unwrap();
        pull(&request(&server, folder.path())).unwrap();
        assert_eq!(server.seen().iter().filter(|request| request.path == path).count(), 3);
        assert!(read(folder.path(), WEIGHTS) == weights());
    }
}

#[test]
fn a_cut_connection_is_resumed_where_it_broke() {
    let half = weights().len() / 2;
    let cut = Reply { cut_after: Some(half), ..Reply::ok(weights()) };
    let server = Repo::model().serve_after(1, resolve(WEIGHTS), cut);
    let folder = tempfile::tempdir().unwrap();
    pull(&request(&server, folder.path())).unwrap();
    let ranges: Vec<_> = server.seen_for(WEIGHTS).iter().map(Request::range_start).collect();
    assert_eq!(ranges, [None, Some(half)]);
    assert!(read(folder.path(), WEIGHTS) == weights());
    assert_eq!(names(folder.path()), ["config.json", WEIGHTS, "tokenizer.json"]);
}

#[test]
fn a_server_that_knows_no_ranges_sends_the_file_from_its_start() {
    let cut = Reply { cut_after: Some(1000), ..Reply::ok(weights()) };
    let server = Repo::model().serve_after(1, resolve(WEIGHTS), cut);
    let hub = server.url();
    // In front of it, one that drops the Range header.
    let plain = Server::start(move |request| {
        if request.path == resolve(WEIGHTS) && request.range_start().is_some() {
            return Reply::ok(weights());
        }
        Reply::status(307).with("Location", format!("{hub}{}?{}", request.path, request.query))
    });
    let folder = tempfile::tempdir().unwrap();
    pull(&request(&plain, folder.path())).unwrap();
    assert!(read(folder.path(), WEIGHTS) == weights());
}

#[test]
fn a_part_of_an_earlier_run_is_gone_on_with() {
    let server = Repo::model().serve();
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("model.safetensors.part"), &weights()[..123_456]).unwrap();
    pull(&request(&server, folder.path())).unwrap();
    let ranges: Vec<_> = server.seen_for(WEIGHTS).iter().map(Request::range_start).collect();
    assert_eq!(ranges, [Some(123_456)]);
    assert!(read(folder.path(), WEIGHTS) == weights());
}

#[test]
fn a_part_of_another_file_costs_a_second_try_and_no_more() {
    for junk in [vec![7; 1000], vec![7; weights().len()], vec![7; weights().len() + 1]] {
        let server = Repo::model().serve();
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("model.safetensors.part"), &junk).unwrap();
        pull(&request(&server, folder.path())).unwrap();
        assert_eq!(server.seen_for(WEIGHTS).last().unwrap().range_start(), None);
        assert!(read(folder.path(), WEIGHTS) == weights());
        assert_eq!(names(folder.path()), ["config.json", WEIGHTS, "tokenizer.json"]);
    }
}

#[test]
fn content_that_does_not_match_its_checksum_is_deleted() {
    let mut forged = weights();
    forged[350_000] ^= 1;
    let server = Repo::model().serve_after(usize::MAX, resolve(WEIGHTS), Reply::ok(forged));
    let folder = tempfile::tempdir().unwrap();
    match pull(&request(&server, folder.path())).unwrap_err() {
        Error::ChecksumMismatch { file, expected, got } => {
            assert_eq!(file, WEIGHTS);
            assert_eq!(expected, format!("{:x}", Sha256::digest(weights())));
            assert_ne!(got, expected);
        }
        other => panic!("{other}"),
    }
    assert_eq!(names(folder.path()), ["config.json", "tokenizer.json"]);
    assert_eq!(server.seen_for(WEIGHTS).len(), 1);

    // A small file is held to git's checksum.
    let server = Repo::model().serve_after(usize::MAX, resolve("tokenizer.json"), Reply::ok("[]"));
    let folder = tempfile::tempdir().unwrap();
    assert_eq!(pull(&request(&server, folder.path())).unwrap_err().code(), "checksum_mismatch");
    assert_eq!(names(folder.path()), ["config.json"]);
}

#[test]
fn more_bytes_than_were_stated_are_not_taken() {
    let mut long = weights();
    long.extend_from_slice(&weights());
    let server = Repo::model().serve_after(usize::MAX, resolve(WEIGHTS), Reply::ok(long));
    let folder = tempfile::tempdir().unwrap();
    assert_eq!(pull(&request(&server, folder.path())).unwrap_err().code(), "hub_failed");
    assert_eq!(names(folder.path()), ["config.json", "tokenizer.json"]);
}

#[test]
fn the_token_stays_with_the_hub_when_the_file_comes_from_elsewhere() {
    let storage = Server::start(|request| Reply::file(&weights(), request));
    let elsewhere = format!("{}/blob?X-Signature=abc", storage.url());
    let redirect = Reply::status(302).with("Location", elsewhere);
    let server = Repo::model().serve_after(usize::MAX, resolve(WEIGHTS), redirect);
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("model.safetensors.part"), &weights()[..1000]).unwrap();
    let request = PullRequest { token: Some(TOKEN.to_owned()), ..request(&server, folder.path()) };
    pull(&request).unwrap();
    assert!(read(folder.path(), WEIGHTS) == weights());
    for seen in server.seen() {
        assert_eq!(seen.header("authorization"), Some("Bearer hf_verySecretToken"), "{}", seen.path);
    }
    let seen = storage.seen();
    assert_eq!(seen.len(), 1);
    assert_eq!((seen[0].query.as_str(), seen[0].range_start()), ("X-Signature=abc", Some(1000)));
    assert!(!format!("{seen:?}").contains(TOKEN));
}

#[test]
fn a_storage_that_refuses_is_not_taken_for_the_hub() {
    let storage = Server::start(|_| Reply::status(403));
    let redirect = Reply::status(302).with("Location", format!("{}/blob?X-Signature=abc", storage.url()));
    let server = Repo::model().serve_after(usize::MAX, resolve(WEIGHTS), redirect);
    let folder = tempfile::tempdir().unwrap();
    let error = pull(&request(&server, folder.path())).unwrap_err();
    assert_eq!(error.code(), "hub_failed");
    assert!(!error.to_string().contains("X-Signature"), "{error}");
    assert_eq!(names(folder.path()), ["config.json", "tokenizer.json"]);
}

#[test]
fn a_repository_that_moved_is_followed_and_a_circle_is_not() {
    let moved = Repo::model();
    let server = Server::start(move |request| match request.path.strip_prefix("/api/models/old/name/") {
        Some(rest) => Reply::status(307).with("Location", format!("/api/models/{REPO}/{rest}")),
        None => match request.path.strip_prefix("/old/name/") {
            Some(rest) => Reply::status(307).with("Location", format!("/{REPO}/{rest}")),
            None => moved.answer(request),
        },
    });
    let folder = tempfile::tempdir().unwrap();
    let old = PullRequest { repo: "old/name".to_owned(), ..request(&server, folder.path()) };
    pull(&old).unwrap();
    assert!(read(folder.path(), WEIGHTS) == weights());

    let circle = Server::start(|request| Reply::status(302).with("Location", request.path.clone()));
    assert_eq!(pull(&request(&circle, folder.path())).unwrap_err().code(), "hub_failed");
    let nowhere = Server::start(|_| Reply::status(302).with("Location", "file:///etc/passwd"));
    assert_eq!(pull(&request(&nowhere, folder.path())).unwrap_err().code(), "hub_failed");
}

#[test]
fn hostile_file_names_never_leave_the_folder() {
    let outer = tempfile::tempdir().unwrap();
    let folder = outer.path().join("model");
    for name in ["../x", "/etc/x", "a/../../x", "..\\x"] {
        let mut repo = Repo::model();
        repo.0.push((name.to_owned(), b"evil".to_vec()));
        let server = repo.serve();
        let error = pull(&request(&server, &folder)).unwrap_err();
        assert_eq!(error.code(), "hub_failed", "{name}");
        assert_eq!(server.fetches(), 0);
    }
    let index = br#"{"weight_map": {"a": "../x"}}"#;
    let server = Repo::new(&[("model.safetensors.index.json", index)]).serve();
    assert_eq!(pull(&request(&server, &folder)).unwrap_err().code(), "invalid_config");
    assert_eq!(names(outer.path()), ["model"]);
    assert_eq!(names(&folder), ["model.safetensors.index.json"]);
}

#[test]
fn ids_and_revisions_that_are_paths_ask_nobody() {
    let server = Repo::model().serve();
    let folder = tempfile::tempdir().unwrap();
    for repo in ["", "gpt2", "../twi", "shop/..", "shop/twi/x", "/shop/twi", "shop/t w"] {
        let request = PullRequest { repo: repo.to_owned(), ..request(&server, folder.path()) };
        assert_eq!(pull(&request).unwrap_err().code(), "invalid_parameter", "{repo}");
    }
    for revision in ["", "../main", "a?b"] {
        let request = PullRequest { revision: Some(revision.to_owned()), ..request(&server, folder.path()) };
        assert_eq!(pull(&request).unwrap_err().code(), "invalid_parameter", "{revision}");
    }
    assert!(server.seen().is_empty());
}

#[test]
fn one_weight_format_is_fetched() {
    let repo = Repo::new(&[
        ("config.json", b"{}"),
        ("pytorch_model.bin", b"pickle"),
        (WEIGHTS, b"tensors"),
        ("model.bin", b"ct2"),
        ("flax_model.msgpack", b"flax"),
        ("vocab.json", b"{}"),
        ("merges.txt", b""),
        ("intent_labels.json", b"{}"),
        ("onnx/model.safetensors", b"onnx"),
    ]);
    let server = repo.serve();
    let folder = tempfile::tempdir().unwrap();
    pull(&request(&server, folder.path())).unwrap();
    assert_eq!(names(folder.path()), ["config.json", "intent_labels.json", "merges.txt", WEIGHTS, "vocab.json"]);
    assert_eq!(read(folder.path(), WEIGHTS), b"tensors");
}

#[test]
fn shards_are_those_that_the_index_names() {
    const INDEX: &str = "model.safetensors.index.json";
    let index =
        br#"{"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}}"#;
    let mut repo = Repo::new(&[
        ("config.json", b"{}"),
        (INDEX, index),
        ("model-00001-of-00002.safetensors", b"one"),
        ("model-00002-of-00002.safetensors", b"two"),
        ("model-00001-of-00003.safetensors", b"left over"),
    ]);
    let server = repo.clone().serve();
    let folder = tempfile::tempdir().unwrap();
    let mut events = Vec::new();
    hub::pull(&request(&server, folder.path()), &mut |event| events.push(event)).unwrap();
    let bytes = (2 + index.len() + 3 + 3) as u64;
    assert_eq!(events[0], PullEvent::Start { files: 4, bytes_total: Some(bytes) });
    assert_eq!(server.seen_for(INDEX).len(), 1);
    assert_eq!(names(folder.path()).len(), 4);
    assert_eq!(read(folder.path(), "model-00002-of-00002.safetensors"), b"two");

    repo.0.remove(3);
    let server = repo.serve();
    let error = pull(&request(&server, tempfile::tempdir().unwrap().path())).unwrap_err();
    assert_eq!(error.code(), "model_not_found");
    assert!(error.to_string().contains("model-00002-of-00002.safetensors"), "{error}");
}

#[test]
fn a_repository_without_weights_is_no_model() {
    let server = Repo::new(&[("README.md", b"# Data"), ("config.json", b"{}")]).serve();
    let folder = tempfile::tempdir().unwrap();
    assert_eq!(pull(&request(&server, folder.path())).unwrap_err().code(), "model_not_found");
    assert_eq!(server.fetches(), 0);
}

#[test]
fn two_models_are_not_mixed_in_one_folder() {
    let server = Repo::model().serve();
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("intent_labels.json"), "another model's").unwrap();
    std::fs::write(folder.path().join("NOTES.txt"), "mine").unwrap();
    let error = pull(&request(&server, folder.path())).unwrap_err();
    assert_eq!(error.code(), "invalid_parameter");
    assert!(error.to_string().contains("intent_labels.json"), "{error}");
    assert_eq!(server.fetches(), 0);
    std::fs::remove_file(folder.path().join("intent_labels.json")).unwrap();
    pull(&request(&server, folder.path())).unwrap();
    assert_eq!(read(folder.path(), "NOTES.txt"), b"mine");
}

#[test]
fn two_pulls_at_once_fetch_each_file_once() {
    let server = Repo::model().serve();
    let folder = tempfile::tempdir().unwrap();
    for request in [request(&server, &folder.path().join("plain")), cached(&server, &folder.path().join("cache"))] {
        let before = server.fetches();
        let found = std::thread::scope(|scope| {
            let pulls: Vec<_> = (0..4).map(|_| scope.spawn(|| pull(&request).unwrap())).collect();
            pulls.into_iter().map(|pull| pull.join().unwrap()).collect::<Vec<_>>()
        });
        assert_eq!(server.fetches() - before, 3);
        for folder in found {
            assert_eq!(names(&folder), ["config.json", WEIGHTS, "tokenizer.json"]);
            assert!(read(&folder, WEIGHTS) == weights());
        }
    }
}

#[test]
fn a_hub_out_of_reach_is_said_within_seconds() {
    let folder = tempfile::tempdir().unwrap();
    let request = PullRequest {
        to: Some(folder.path().to_owned()),
        token: Some(TOKEN.to_owned()),
        endpoint: Some(NOBODY.to_owned()),
        offline: Some(false),
        ..PullRequest::new(REPO)
    };
    let start = Instant::now();
    let error = pull(&request).unwrap_err();
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    assert_eq!(error.code(), "hub_unreachable");
    assert!(error.to_string().contains("make demo"), "{error}");
    assert!(!format!("{error} {error:?}").contains(TOKEN));
    assert!(names(folder.path()).is_empty());
}
