//! Where the hub sends a pull on to, and what goes along.

use okyeame_core::weights::hub::PullRequest;

use crate::repository::{LISTING, REPO, Repo, TOKEN, WEIGHTS, names, pull, read, refused, request, resolve, weights};
use crate::server::{Reply, Server};

#[test]
fn the_token_stays_with_the_hub_when_the_file_comes_from_elsewhere() {
    let storage = Server::start(|request| Reply::file(&weights(), request));
    let elsewhere = format!("{}/blob?X-Signature=abc", storage.url());
    let redirect = Reply::status(302).with("Location", elsewhere);
    let server = Repo::model().serve_after(usize::MAX, resolve(WEIGHTS), redirect);
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("model.safetensors.part"), &weights()[..1000]).unwrap();
    pull(&request(&server, folder.path())).unwrap();
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
fn a_listing_from_elsewhere_is_asked_for_without_the_token() {
    let repo = Repo::model();
    let other = Server::start(move |request| repo.answer(request));
    let location = format!("{}{LISTING}?blobs=true", other.url());
    let redirect = Reply::status(307).with("Location", location);
    let server = Repo::model().serve_after(usize::MAX, LISTING.to_owned(), redirect);
    let folder = tempfile::tempdir().unwrap();
    pull(&request(&server, folder.path())).unwrap();
    assert_eq!(other.seen().len(), 1);
    assert!(!format!("{:?}", other.seen()).contains(TOKEN));
    // The files still come from the hub itself, which may know them by the token alone.
    assert_eq!(server.seen_at(&resolve(WEIGHTS))[0].header("authorization"), Some("Bearer hf_verySecretToken"));
}

#[test]
fn a_storage_that_refuses_is_not_taken_for_the_hub() {
    let storage = Server::start(|_| Reply::status(403));
    let redirect = Reply::status(302).with("Location", format!("{}/blob?X-Signature=abc", storage.url()));
    let server = Repo::model().serve_after(usize::MAX, resolve(WEIGHTS), redirect);
    let folder = tempfile::tempdir().unwrap();
    let error = refused(&request(&server, folder.path()));
    assert_eq!(error.code(), "hub_failed");
    assert!(!error.to_string().contains("X-Signature"), "{error}");
    assert_eq!(names(folder.path()), ["config.json", "tokenizer.json"]);
}

#[test]
fn a_repository_that_moved_is_followed() {
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
}

#[test]
fn a_circle_is_left() {
    let folder = tempfile::tempdir().unwrap();
    let circle = Server::start(|request| Reply::status(302).with("Location", request.path.clone()));
    let error = refused(&request(&circle, folder.path()));
    assert_eq!(error.code(), "hub_failed");
    assert!(error.to_string().contains("in a circle"), "{error}");
    assert!(circle.seen().len() < 20, "{}", circle.seen().len());
}

#[test]
fn what_is_no_web_address_is_not_followed() {
    let folder = tempfile::tempdir().unwrap();
    for location in ["file:///etc/passwd", "ftp://127.0.0.1/x", "data:application/json,{}", "javascript:0"] {
        for path in [LISTING.to_owned(), resolve("config.json")] {
            let redirect = Reply::status(302).with("Location", location);
            let server = Repo::model().serve_after(usize::MAX, path, redirect);
            let error = refused(&request(&server, folder.path()));
            assert_eq!(error.code(), "hub_failed", "{location}");
            assert!(error.to_string().contains("neither http nor https"), "{error}");
            assert!(names(folder.path()).is_empty());
        }
    }
    let nowhere = Server::start(|_| Reply::status(302));
    let error = refused(&request(&nowhere, folder.path()));
    assert!(error.to_string().contains("redirects to nowhere"), "{error}");
}
