//! Names that are paths, links that point outside, and answers without an end.

use okyeame_core::weights::hub::{self, PullEvent, PullRequest};

use crate::repository::{COMMIT, LISTING, Repo, WEIGHTS, names, pull, refused, request};
use crate::server::{Reply, Server};

#[test]
fn hostile_file_names_never_leave_the_folder() {
    let outer = tempfile::tempdir().unwrap();
    let folder = outer.path().join("model");
    for name in ["../x", "/etc/x", "a/../../x", "..\\x"] {
        let mut repo = Repo::model();
        repo.0.push((name.to_owned(), b"evil".to_vec()));
        let server = repo.serve();
        let error = refused(&request(&server, &folder));
        assert_eq!(error.code(), "hub_failed", "{name}");
        assert_eq!(server.fetches(), 0);
    }
    let index = br#"{"weight_map": {"a": "../x"}}"#;
    let server = Repo::new(&[("model.safetensors.index.json", index)]).serve();
    assert_eq!(refused(&request(&server, &folder)).code(), "invalid_config");
    assert_eq!(names(outer.path()), ["model"]);
    assert_eq!(names(&folder), ["model.safetensors.index.json"]);
}

#[test]
fn ids_revisions_and_adapters_that_are_paths_ask_nobody() {
    let server = Repo::model().serve();
    let folder = tempfile::tempdir().unwrap();
    for repo in ["", "gpt2", "../twi", "shop/..", "shop/twi/x", "/shop/twi", "shop/t w"] {
        let request = PullRequest { repo: repo.to_owned(), ..request(&server, folder.path()) };
        assert_eq!(refused(&request).code(), "invalid_parameter", "{repo}");
        assert_eq!(hub::check_repo(repo).unwrap_err().code(), "invalid_parameter", "{repo}");
    }
    for revision in ["", "../main", "a?b"] {
        let request = PullRequest { revision: Some(revision.to_owned()), ..request(&server, folder.path()) };
        assert_eq!(refused(&request).code(), "invalid_parameter", "{revision}");
    }
    for adapter in ["", "../../aka", "AKA", "aka/x", "aka.bin", "akan"] {
        let request = PullRequest { adapter: Some(adapter.to_owned()), ..request(&server, folder.path()) };
        assert_eq!(refused(&request).code(), "invalid_parameter", "{adapter}");
    }
    hub::check_repo("shop/twi").unwrap();
    assert!(server.seen().is_empty());
}

#[cfg(unix)]
#[test]
fn nothing_is_written_through_a_link_in_a_folder() {
    use std::os::unix::fs::symlink;

    use crate::repository::{read, weights};

    let repo = Repo::model();
    let server = repo.clone().serve();
    let place = tempfile::tempdir().unwrap();
    let (outside, folder) = (place.path().join("outside"), place.path().join("twi"));
    for made in [&outside, &folder] {
        std::fs::create_dir(made).unwrap();
    }
    // As long as the file that comes, so that its length gives nothing away.
    let kept = vec![7; weights().len()];
    std::fs::write(outside.join("weights"), &kept).unwrap();
    std::fs::write(outside.join("settings"), "keep").unwrap();
    symlink(outside.join("weights"), folder.join(WEIGHTS)).unwrap();
    symlink(outside.join("settings"), folder.join("config.json")).unwrap();
    symlink(outside.join("nothing yet"), folder.join("model.safetensors.part")).unwrap();
    pull(&request(&server, &folder)).unwrap();
    assert_eq!(names(&folder), ["config.json", WEIGHTS, "tokenizer.json"]);
    for name in names(&folder) {
        assert!(!folder.join(&name).is_symlink(), "{name}");
        assert!(read(&folder, &name) == repo.bytes(&name), "{name}");
    }
    assert_eq!(names(&outside), ["settings", "weights"]);
    assert_eq!(read(&outside, "settings"), b"keep");
    assert!(read(&outside, "weights") == kept);

    let lock = folder.join(".okyeame-pull.lock");
    std::fs::remove_file(&lock).unwrap();
    symlink(outside.join("lock"), &lock).unwrap();
    let error = refused(&request(&server, &folder));
    assert_eq!(error.code(), "io");
    assert!(error.to_string().contains(".okyeame-pull.lock in it is a link; delete it"), "{error}");
    assert!(!outside.join("lock").exists());
}

#[cfg(unix)]
#[test]
fn nothing_is_written_through_a_link_in_the_cache() {
    use std::os::unix::fs::symlink;

    use sha2::{Digest as _, Sha256};

    use crate::repository::{cached, read, weights};

    let server = Repo::model().serve();
    let place = tempfile::tempdir().unwrap();
    let (outside, cache) = (place.path().join("outside"), place.path().join("cache"));
    let home = cache.join("models--shop--twi");
    let snapshot = home.join("snapshots").join(COMMIT);
    for made in [&outside, &home.join("refs"), &home.join("blobs"), &snapshot] {
        std::fs::create_dir_all(made).unwrap();
    }
    std::fs::write(outside.join("keep"), "keep").unwrap();
    let part = format!("{:x}.incomplete", Sha256::digest(weights()));
    for link in [
        home.join("refs/main"),
        home.join("refs/.new"),
        home.join("blobs").join(part),
        snapshot.join(WEIGHTS),
        snapshot.join(format!(".{WEIGHTS}.new")),
    ] {
        symlink(outside.join("keep"), link).unwrap();
    }
    let folder = pull(&cached(&server, &cache)).unwrap();
    assert!(read(&folder, WEIGHTS) == weights());
    assert_eq!(read(&home, "refs/main"), COMMIT.as_bytes());
    assert_eq!(names(&outside), ["keep"]);
    assert_eq!(read(&outside, "keep"), b"keep");
}

#[test]
fn a_list_of_files_without_an_end_is_not_read_to_its_end() {
    let long = Reply::ok(vec![b' '; (32 << 20) + 1]);
    let server = Server::start(move |_| long.clone());
    let folder = tempfile::tempdir().unwrap();
    let error = refused(&request(&server, folder.path()));
    assert_eq!(error.code(), "hub_failed");
    assert!(error.to_string().contains("has no end"), "{error}");
    assert_eq!(server.seen().len(), 1);
    assert!(names(folder.path()).is_empty());
}

/// Serves a list of files that states what it likes, and none of the files.
fn forged(sizes: &[(&str, u64)]) -> Server {
    let sibling = |(name, size): &(&str, u64)| serde_json::json!({"rfilename": name, "size": size, "blobId": COMMIT});
    let siblings: Vec<serde_json::Value> = sizes.iter().map(sibling).collect();
    let listing = serde_json::json!({"sha": COMMIT, "siblings": siblings}).to_string();
    Server::start(move |request| match request.path.as_str() {
        LISTING => Reply::ok(listing.as_str()),
        _ => Reply::status(404),
    })
}

#[test]
fn sizes_that_cannot_be_are_refused_or_counted_without_overflow() {
    let folder = tempfile::tempdir().unwrap();
    let server = forged(&[("config.json", 1 << 40), (WEIGHTS, 10)]);
    let error = refused(&request(&server, folder.path()));
    assert_eq!(error.code(), "hub_failed");
    assert!(error.to_string().contains("config.json has 1099511627776 bytes, too many"), "{error}");
    assert_eq!(server.fetches(), 0);

    let server = forged(&[("config.json", 2), (WEIGHTS, u64::MAX)]);
    let mut events = Vec::new();
    let error = hub::pull(&request(&server, folder.path()), &mut |event| events.push(event)).unwrap_err();
    assert_eq!(error.code(), "hub_not_found");
    assert_eq!(events[0], PullEvent::Start { files: 2, bytes_total: Some(u64::MAX) });
    assert!(names(folder.path()).is_empty());
}
