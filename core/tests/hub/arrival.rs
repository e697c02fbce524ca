//! What arrives, where it lies, and when it is taken without asking again.

use std::path::Path;

use okyeame_core::weights::hub::{self, PullEvent, PullRequest};
use sha2::{Digest as _, Sha256};

use crate::repository::{
    COMMIT, LISTING, NOBODY, Repo, WEIGHTS, cached, names, pull, read, refused, request, resolve, weights,
};
use crate::server::{Reply, Request, Server};

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
    // Nothing else was written, in the cache or beside it.
    assert_eq!(names(cache.path()), [".locks", "models--shop--twi"]);
    assert_eq!(names(&home), ["blobs", "refs", "snapshots"]);

    let fetches = server.fetches();
    assert_eq!(pull(&cached(&server, cache.path())).unwrap(), folder);
    assert_eq!(server.fetches(), fetches);
    // A blob without its link, as after a new commit with the same weights.
    std::fs::remove_file(folder.join(WEIGHTS)).unwrap();
    assert!(read(&pull(&cached(&server, cache.path())).unwrap(), WEIGHTS) == repo.bytes(WEIGHTS));
    assert_eq!(server.fetches(), fetches);
}

#[test]
fn a_revision_is_asked_for_by_its_name_and_kept_under_it() {
    let repo = Repo::model();
    let server = Server::start(move |request| {
        let path = request.path.replace("/revision/refs%2Fpr%2F3", "/revision/main");
        repo.answer(&Request { path, ..request.clone() })
    });
    let cache = tempfile::tempdir().unwrap();
    let pr = PullRequest { revision: Some("refs/pr/3".to_owned()), ..cached(&server, cache.path()) };
    let folder = pull(&pr).unwrap();
    assert_eq!(read(cache.path(), "models--shop--twi/refs/refs/pr/3"), COMMIT.as_bytes());
    assert_eq!(server.seen()[0].path, "/api/models/shop/twi/revision/refs%2Fpr%2F3");
    assert_eq!(pull(&PullRequest { offline: Some(true), ..pr }).unwrap(), folder);
    // What another revision brought is not `main`.
    assert_eq!(
        refused(&PullRequest { offline: Some(true), ..cached(&server, cache.path()) }).code(),
        "hub_unreachable"
    );
}

#[test]
fn what_the_cache_holds_is_used_without_a_network() {
    let server = Repo::model().serve();
    let cache = tempfile::tempdir().unwrap();
    let online = cached(&server, cache.path());
    let offline = PullRequest { offline: Some(true), ..online.clone() };
    let unreachable = PullRequest { endpoint: Some(NOBODY.to_owned()), ..online.clone() };
    let error = refused(&offline);
    assert_eq!(error.code(), "hub_unreachable");
    assert!(error.to_string().contains("unset HF_HUB_OFFLINE"), "{error}");
    assert_eq!(refused(&unreachable).code(), "hub_unreachable");
    assert!(server.seen().is_empty());

    let folder = pull(&online).unwrap();
    let asked = server.seen().len();
    assert_eq!(pull(&offline).unwrap(), folder);
    assert_eq!(pull(&unreachable).unwrap(), folder);
    let by_commit = PullRequest { revision: Some(COMMIT.to_owned()), ..offline.clone() };
    assert_eq!(pull(&by_commit).unwrap(), folder);
    assert_eq!(server.seen().len(), asked);
    let other = PullRequest { revision: Some("v2".to_owned()), ..offline.clone() };
    assert_eq!(refused(&other).code(), "hub_unreachable");
    // Without its weights or its settings it is no model, and is not taken for one.
    for name in [WEIGHTS, "config.json"] {
        pull(&online).unwrap();
        pull(&offline).unwrap();
        std::fs::remove_file(folder.join(name)).unwrap();
        assert_eq!(refused(&offline).code(), "hub_unreachable", "{name}");
    }
}

#[test]
fn a_plain_folder_is_used_offline_and_never_in_place_of_an_answer() {
    let server = Repo::model().serve();
    let folder = tempfile::tempdir().unwrap();
    let online = request(&server, folder.path());
    pull(&online).unwrap();
    assert_eq!(pull(&PullRequest { offline: Some(true), ..online.clone() }).unwrap(), folder.path());
    let unreachable = PullRequest { endpoint: Some(NOBODY.to_owned()), ..online };
    assert_eq!(refused(&unreachable).code(), "hub_unreachable");
}

#[test]
fn a_first_pull_that_fails_leaves_nothing_that_looks_like_a_model() {
    let place = tempfile::tempdir().unwrap();
    let (to, cache) = (place.path().join("twi"), place.path().join("cache"));
    for path in [LISTING.to_owned(), resolve("config.json"), resolve(WEIGHTS)] {
        let server = Repo::model().serve_after(usize::MAX, path.clone(), Reply::status(404));
        for request in [request(&server, &to), cached(&server, &cache)] {
            assert_eq!(refused(&request).code(), "hub_not_found", "{path}");
            // Nor does it without a network.
            let offline = PullRequest { offline: Some(true), ..request.clone() };
            assert_eq!(refused(&offline).code(), "hub_unreachable", "{path}");
            let unreachable = PullRequest { endpoint: Some(NOBODY.to_owned()), ..request };
            assert_eq!(refused(&unreachable).code(), "hub_unreachable", "{path}");
        }
        // Where nothing is known of the repository, nothing is made.
        assert_eq!(to.exists() || cache.exists(), path != LISTING);
    }
    assert_eq!(names(&to), ["config.json", "tokenizer.json"]);
    let home = cache.join("models--shop--twi");
    assert!(!home.join("refs").exists());
    assert_eq!(names(&home.join("snapshots").join(COMMIT)), ["config.json", "tokenizer.json"]);
    assert_eq!(names(&home.join("blobs")).len(), 2);
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
