//! What is sent to the hub, what is not, and what is made of its refusals.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use okyeame_core::weights::hub_upload::{UploadEvent, UploadReport, UploadRequest, upload};
use okyeame_core::{Error, Result};

use crate::account::AccountHub;
use crate::repository::{REPO, TOKEN, names, pull, read, request};
use crate::server::{Reply, Request};

const WEIGHTS: &str = "model.safetensors";

/// A copy of the head that ships, with something beside it that is no part of a model.
fn model() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/twi-shop");
    for entry in std::fs::read_dir(shipped).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), folder.path().join(entry.file_name())).unwrap();
    }
    std::fs::write(folder.path().join("notes.txt"), "mine").unwrap();
    folder
}

fn asked(hub: &AccountHub, folder: &Path) -> UploadRequest {
    UploadRequest {
        token: Some(TOKEN.to_owned()),
        endpoint: Some(hub.server.url()),
        ..UploadRequest::new(REPO, folder)
    }
}

fn send(hub: &AccountHub, folder: &Path) -> Result<UploadReport> {
    upload(&asked(hub, folder), &mut |_| {})
}

fn plain() -> AccountHub {
    AccountHub::start(None, |_| None)
}

/// The error of an upload that must fail; the token is nowhere in it.
fn refused(request: &UploadRequest) -> Error {
    let error = upload(request, &mut |_| {}).expect_err("this upload must fail");
    assert!(!format!("{error} {error:?} {request:?}").contains(TOKEN), "the token is shown");
    error
}

#[test]
fn a_model_is_sent_and_comes_back_byte_for_byte() {
    let (hub, folder) = (plain(), model());
    let mut events = Vec::new();
    let report = upload(&asked(&hub, folder.path()), &mut |event| events.push(event)).unwrap();
    assert!(report.created && report.commit.is_some() && report.unchanged.is_empty());
    assert_eq!(report.left_out, ["notes.txt"]);
    assert_eq!(report.url, format!("{}/{REPO}", hub.server.url()));
    assert!(hub.account.lock().unwrap().private.contains(REPO));
    assert_eq!(hub.account.lock().unwrap().commits, ["Upload by okyeame"]);
    assert_eq!(hub.n_stored(), 1, "the weights");
    assert!(hub.file(REPO, "notes.txt").is_none());
    for name in &report.sent {
        assert!(hub.file(REPO, name).unwrap() == read(folder.path(), name), "{name}");
    }
    for name in ["README.md", "calibration.json", "config.json", "evaluation.json", "intent_labels.json", WEIGHTS] {
        assert!(report.sent.iter().any(|sent| sent == name), "{name}");
    }
    assert!(matches!(&events[0], UploadEvent::Planned { files, .. } if files.len() == report.sent.len()));
    for (name, size) in report.sent.iter().map(|name| (name, read(folder.path(), name).len() as u64)) {
        assert!(events.contains(&UploadEvent::Bytes { name: name.clone(), done: size, total: size }), "{name}");
    }
    // As somebody else fetches it.
    let fetched = tempfile::tempdir().unwrap();
    pull(&request(&hub.server, fetched.path())).unwrap();
    for name in names(fetched.path()) {
        assert!(read(fetched.path(), &name) == read(folder.path(), &name), "{name}");
    }
    assert!(names(fetched.path()).contains(&"calibration.json".to_owned()));
    // Again: nothing to do. Then one file is another.
    let again = send(&hub, folder.path()).unwrap();
    assert_eq!((again.created, again.commit, again.sent.len()), (false, None, 0));
    assert_eq!(again.unchanged, report.sent);
    std::fs::write(folder.path().join("README.md"), "# Another card").unwrap();
    let changed = send(&hub, folder.path()).unwrap();
    assert_eq!(changed.sent, ["README.md"]);
    assert_eq!(hub.n_stored(), 1);
    assert_eq!(hub.file(REPO, "README.md").unwrap(), b"# Another card");
}

#[test]
fn the_token_goes_to_the_hub_and_not_to_its_storage() {
    let (hub, folder) = (plain(), model());
    send(&hub, folder.path()).unwrap();
    for request in hub.server.seen() {
        let has_token = request.header("authorization") == Some(&format!("Bearer {TOKEN}"));
        assert_eq!(has_token, request.method != "PUT", "{} {}", request.method, request.path);
    }
}

#[test]
fn a_public_repository_a_branch_and_a_message() {
    let (hub, folder) = (plain(), model());
    let request = UploadRequest {
        private: false,
        revision: Some("next".to_owned()),
        message: Some("Second voice".to_owned()),
        ..asked(&hub, folder.path())
    };
    upload(&request, &mut |_| {}).unwrap();
    assert!(hub.account.lock().unwrap().private.is_empty());
    assert_eq!(hub.account.lock().unwrap().commits, ["Second voice"]);
    let paths: Vec<String> = hub.server.seen().into_iter().map(|request| request.path).collect();
    for path in ["branch/next", "preupload/next", "commit/next"] {
        assert!(paths.contains(&format!("/api/models/{REPO}/{path}")), "{paths:?}");
    }
}

#[test]
fn large_files_go_in_parts_if_the_hub_wants_it() {
    let hub = AccountHub::start(Some(65_536), |_| None);
    let folder = model();
    let mut done = Vec::new();
    upload(&asked(&hub, folder.path()), &mut |event| {
        if let UploadEvent::Bytes { name, done: n, .. } = event
            && name == WEIGHTS
        {
            done.push(n);
        }
    })
    .unwrap();
    assert!(hub.file(REPO, WEIGHTS).unwrap() == read(folder.path(), WEIGHTS));
    assert_eq!(hub.n_stored(), read(folder.path(), WEIGHTS).len().div_ceil(65_536));
    assert!(done.len() > 2 && done.is_sorted(), "{done:?}");
}

/// Answers the first request that `is` the one with `reply`, once.
fn once(is: impl Fn(&Request) -> bool + Send + Sync + 'static, reply: Reply) -> AccountHub {
    let count = Arc::new(AtomicUsize::new(0));
    AccountHub::start(None, move |request| {
        (is(request) && count.fetch_add(1, Ordering::SeqCst) == 0).then(|| reply.clone())
    })
}

#[test]
fn what_breaks_on_the_way_is_sent_again() {
    let cut = Reply { cut_after: Some(3), ..Reply::ok("a longer answer") };
    type Is = fn(&Request) -> bool;
    let cases: [(Is, Reply); 4] = [
        (|r| r.method == "PUT", Reply::status(500)),
        (|r| r.method == "PUT", Reply::status(429).with("Retry-After", "0")),
        (|r| r.path.ends_with("/commit/main"), Reply::status(503).with("Retry-After", "0")),
        (|r| r.path.ends_with("/preupload/main"), cut),
    ];
    for (is, reply) in cases {
        let status = reply.status;
        let (hub, folder) = (once(is, reply), model());
        let report = send(&hub, folder.path()).unwrap_or_else(|e| panic!("{status}: {e}"));
        assert!(hub.file(REPO, WEIGHTS).unwrap() == read(folder.path(), WEIGHTS));
        assert_eq!(hub.account.lock().unwrap().commits.len(), 1);
        assert!(report.commit.is_some());
    }
}

#[test]
fn an_upload_that_was_cut_off_does_not_send_the_weights_again() {
    let hub = once(|request| request.path.ends_with("/commit/main"), Reply::status(403));
    let folder = model();
    assert_eq!(refused(&asked(&hub, folder.path())).code(), "hub_forbidden");
    assert_eq!(hub.n_stored(), 1);
    assert!(hub.file(REPO, WEIGHTS).is_none());
    let report = send(&hub, folder.path()).unwrap();
    assert_eq!((hub.n_stored(), report.created), (1, false));
    assert!(hub.file(REPO, WEIGHTS).unwrap() == read(folder.path(), WEIGHTS));
}

#[test]
fn refusals_say_what_to_do() {
    let always = |part: &'static str, reply: Reply| {
        AccountHub::start(None, move |request| request.path.contains(part).then(|| reply.clone()))
    };
    let cases = [
        ("repos/create", Reply::status(401), "hub_unauthorized", "a token that may write"),
        ("repos/create", Reply::status(403), "hub_forbidden", "its type must be write"),
        ("preupload", Reply::status(403), "hub_forbidden", "its type must be write"),
        ("commit", Reply::status(409), "hub_failed", "somebody else changed the repository"),
        ("commit", Reply::status(413), "hub_failed", "413"),
        (
            "repos/create",
            Reply::status(307).with("Location", "http://evil.example/"),
            "hub_failed",
            "redirects an upload",
        ),
        ("preupload", Reply::ok("<html>"), "hub_failed", "not what its API gives"),
        ("commit", Reply::ok("{}"), "hub_failed", "names no commit"),
        ("lfs/objects", Reply::ok(r#"{"objects": []}"#), "hub_failed", "does not say where model.safetensors goes"),
    ];
    for (part, reply, code, says) in cases {
        let status = reply.status;
        let (hub, folder) = (always(part, reply), model());
        let error = refused(&asked(&hub, folder.path()));
        assert_eq!(error.code(), code, "{part} {status}: {error}");
        assert!(error.to_string().contains(says), "{part} {status}: {error}");
        assert!(!error.to_string().contains("download"), "{error}");
    }
    let ignored = r#"{"files": [{"path": "README.md", "uploadMode": "regular", "shouldIgnore": true}]}"#;
    let hub = always("preupload", Reply::ok(ignored));
    assert!(refused(&asked(&hub, model().path())).to_string().contains("keeps README.md out"));
    let no_token = UploadRequest { token: Some(String::new()), ..asked(&plain(), model().path()) };
    let folder = model();
    let error = refused(&UploadRequest { folder: folder.path().to_owned(), ..no_token });
    assert_eq!(error.code(), "hub_unauthorized");
}

#[test]
fn hostile_answers_get_nothing() {
    let folder = model();
    let oid = {
        use sha2::Digest as _;
        format!("{:x}", sha2::Sha256::digest(read(folder.path(), WEIGHTS)))
    };
    let endless = vec![b' '; 40 << 20];
    let action = |upload: serde_json::Value| {
        let object = serde_json::json!({"oid": oid, "size": 1, "actions": {"upload": upload}});
        serde_json::json!({ "objects": [object] }).to_string().into_bytes()
    };
    let parts =
        |chunk: &str| action(serde_json::json!({"href": "http://127.0.0.1:1/x", "header": {"chunk_size": chunk}}));
    for (answer, says) in [
        (endless, "has no end"),
        (action(serde_json::json!({"href": "file:///etc/passwd"})), "not encrypted, or none"),
        (action(serde_json::json!({"href": "not an address"})), "not encrypted, or none"),
        (parts("0"), "in a way that cannot be"),
        (parts("99999999999999999999"), "in a way that cannot be"),
        (parts("1"), "in a way that cannot be"),
    ] {
        let hub = AccountHub::start(None, move |r| r.path.contains("lfs/objects").then(|| Reply::ok(answer.clone())));
        let error = refused(&asked(&hub, folder.path()));
        assert!(error.to_string().contains(says), "{says}: {error}");
        assert!(hub.account.lock().unwrap().commits.is_empty());
    }
}

#[test]
fn a_folder_that_is_no_model_is_not_sent() {
    let hub = plain();
    let broken = |break_it: &dyn Fn(&Path)| -> (tempfile::TempDir, Error) {
        let folder = model();
        break_it(folder.path());
        let error = refused(&asked(&hub, folder.path()));
        (folder, error)
    };
    let write =
        |name: &'static str, text: &'static str| move |folder: &Path| std::fs::write(folder.join(name), text).unwrap();
    let remove = |name: &'static str| move |folder: &Path| std::fs::remove_file(folder.join(name)).unwrap();
    type BreakIt = Box<dyn Fn(&Path)>;
    let cases: [(BreakIt, &str); 9] = [
        (Box::new(remove("README.md")), "--no-card"),
        (Box::new(remove("config.json")), "config.json"),
        (Box::new(remove("intent_labels.json")), "intent_labels.json"),
        (Box::new(remove(WEIGHTS)), "*.safetensors"),
        (Box::new(write("config.json", "{")), "config.json"),
        (Box::new(write("calibration.json", "[]")), "calibration.json"),
        (Box::new(write(WEIGHTS, "short")), WEIGHTS),
        (
            Box::new(|folder: &Path| {
                let text = String::from_utf8(read(folder, "config.json")).unwrap();
                std::fs::write(folder.join("config.json"), text.replace("openai/whisper-base", "base")).unwrap();
            }),
            "_name_or_path",
        ),
        (
            Box::new(|folder: &Path| {
                std::fs::remove_file(folder.join("README.md")).unwrap();
                std::os::unix::fs::symlink("/etc/passwd", folder.join("README.md")).unwrap();
            }),
            "is a link",
        ),
    ];
    for (break_it, says) in cases {
        let (_folder, error) = broken(&*break_it);
        assert!(error.to_string().contains(says), "{says}: {error}");
    }
    let nowhere = refused(&asked(&hub, &PathBuf::from("/nonexistent/model")));
    assert_eq!(nowhere.code(), "io", "{nowhere}");
    for repo in ["twi", "a/b/c", "../x", "http://evil.example/a"] {
        let folder = model();
        let request = UploadRequest { repo: repo.to_owned(), ..asked(&hub, folder.path()) };
        assert_eq!(refused(&request).code(), "invalid_parameter", "{repo}");
    }
    assert!(hub.server.seen().is_empty(), "nothing was asked");
    // A dry run asks nobody either.
    let folder = model();
    let report = upload(&UploadRequest { dry_run: true, ..asked(&hub, folder.path()) }, &mut |_| {}).unwrap();
    assert_eq!((report.commit, report.left_out), (None, vec!["notes.txt".to_owned()]));
    assert!(hub.server.seen().is_empty());
}
