//! What goes wrong on the way: cut, forged, too long, pieced together.

use okyeame_core::Error;
use sha2::{Digest as _, Sha256};

use crate::repository::{Repo, WEIGHTS, names, pull, read, refused, request, resolve, weights};
use crate::server::{Reply, Request, Server};

fn ranges(server: &Server) -> Vec<Option<usize>> {
    server.seen_at(&resolve(WEIGHTS)).iter().map(Request::range_start).collect()
}

#[test]
fn a_cut_connection_is_resumed_where_it_broke() {
    let half = weights().len() / 2;
    let cut = Reply { cut_after: Some(half), ..Reply::ok(weights()) };
    let server = Repo::model().serve_after(1, resolve(WEIGHTS), cut);
    let folder = tempfile::tempdir().unwrap();
    pull(&request(&server, folder.path())).unwrap();
    assert_eq!(ranges(&server), [None, Some(half)]);
    assert!(read(folder.path(), WEIGHTS) == weights());
    assert_eq!(names(folder.path()), ["config.json", WEIGHTS, "tokenizer.json"]);
}

/// Takes the pauses of all retries, about 16 s.
#[test]
fn a_connection_that_is_cut_each_time_is_given_up_and_the_next_pull_goes_on() {
    const PIECE: usize = 1000;
    let repo = Repo::model();
    let server = Server::start(move |request| {
        let whole = repo.answer(request);
        let cut_after = (request.path == resolve(WEIGHTS)).then_some(PIECE);
        Reply { cut_after, ..whole }
    });
    let folder = tempfile::tempdir().unwrap();
    let error = refused(&request(&server, folder.path()));
    assert_eq!(error.code(), "hub_failed");
    assert!(error.to_string().contains("the download goes on where it stopped"), "{error}");
    let asked = ranges(&server);
    let expected: Vec<_> = (0..asked.len()).map(|i| (i > 0).then_some(i * PIECE)).collect();
    assert!(asked.len() > 2 && asked == expected, "{asked:?}");
    let part = format!("{WEIGHTS}.part");
    assert_eq!(names(folder.path()), ["config.json", part.as_str(), "tokenizer.json"]);
    assert!(read(folder.path(), &part) == weights()[..asked.len() * PIECE]);

    let good = Repo::model().serve();
    pull(&request(&good, folder.path())).unwrap();
    assert_eq!(ranges(&good), [Some(asked.len() * PIECE)]);
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
    assert_eq!(ranges(&server), [Some(123_456)]);
    assert!(read(folder.path(), WEIGHTS) == weights());
}

#[test]
fn a_part_of_another_file_costs_a_second_try_and_no_more() {
    for junk in [vec![7; 1000], vec![7; weights().len()], vec![7; weights().len() + 1]] {
        let server = Repo::model().serve();
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("model.safetensors.part"), &junk).unwrap();
        pull(&request(&server, folder.path())).unwrap();
        assert_eq!(ranges(&server).last(), Some(&None));
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
    match refused(&request(&server, folder.path())) {
        Error::ChecksumMismatch { file, expected, got } => {
            assert_eq!(file, WEIGHTS);
            assert_eq!(expected, format!("{:x}", Sha256::digest(weights())));
            assert_ne!(got, expected);
        }
        other => panic!("{other}"),
    }
    assert_eq!(names(folder.path()), ["config.json", "tokenizer.json"]);
    assert_eq!(ranges(&server).len(), 1);

    // A small file is held to git's checksum.
    let server = Repo::model().serve_after(usize::MAX, resolve("tokenizer.json"), Reply::ok("[]"));
    let folder = tempfile::tempdir().unwrap();
    assert_eq!(refused(&request(&server, folder.path())).code(), "checksum_mismatch");
    assert_eq!(names(folder.path()), ["config.json"]);
}

#[test]
fn more_bytes_than_were_stated_are_not_taken() {
    let mut long = weights();
    long.extend_from_slice(&weights());
    let server = Repo::model().serve_after(usize::MAX, resolve(WEIGHTS), Reply::ok(long));
    let folder = tempfile::tempdir().unwrap();
    let error = refused(&request(&server, folder.path()));
    assert_eq!(error.code(), "hub_failed");
    assert!(error.to_string().contains("more than the 700001 bytes"), "{error}");
    assert_eq!(names(folder.path()), ["config.json", "tokenizer.json"]);
}
