//! What the hub refuses, in which words that is told, and when it is asked again.

use std::time::{Duration, Instant};

use okyeame_core::weights::hub::PullRequest;

use crate::repository::{LISTING, NOBODY, Repo, TOKEN, WEIGHTS, names, pull, read, refused, request, resolve, weights};
use crate::server::Reply;

#[test]
fn refusals_have_their_codes_and_never_show_the_token() {
    let moved = "RevisionNotFound";
    // What a hub or a proxy echoes is not repeated either.
    let echo = |status| Reply { body: TOKEN.into(), ..Reply::status(status) }.with("X-Request-Id", TOKEN);
    let gated = |status| echo(status).with("X-Error-Code", "GatedRepo");
    for (reply, code, says) in [
        (echo(401), "hub_unauthorized", "token"),
        (gated(401), "hub_unauthorized", "accept its terms"),
        (gated(403), "hub_forbidden", "accept its terms"),
        (echo(403).with("X-Error-Message", TOKEN), "hub_forbidden", "token"),
        (echo(404).with("X-Error-Code", "RepoNotFound"), "hub_not_found", "check the name"),
        (echo(404).with("X-Error-Code", moved), "hub_not_found", "revision 'main'"),
        (echo(404), "hub_not_found", "check both names"),
        (echo(429).with("Retry-After", "3600"), "hub_busy", "try again in 3600 s"),
        (echo(400), "hub_failed", "400"),
        (Reply::ok("<html>a captive portal</html>"), "hub_failed", "not the list of files"),
    ] {
        let server = Repo::model().serve_after(usize::MAX, LISTING.to_owned(), reply);
        let folder = tempfile::tempdir().unwrap();
        for token in ["", TOKEN] {
            let request = PullRequest { token: Some(token.to_owned()), ..request(&server, folder.path()) };
            let error = refused(&request);
            assert_eq!(error.code(), code, "{error}");
            assert!(error.to_string().contains(says), "{error}");
            assert!(error.to_string().starts_with("shop/twi: "), "{error}");
        }
        assert_eq!(server.seen().len(), 2, "{code} is final");
        let tokens: Vec<_> = server.seen().iter().map(|seen| seen.header("authorization").is_some()).collect();
        assert_eq!(tokens, [false, true]);
        assert!(names(folder.path()).is_empty());
    }
}

#[test]
fn a_gated_repository_lists_its_files_and_refuses_them() {
    let gated = Reply::status(403).with("X-Error-Code", "GatedRepo");
    let server = Repo::model().serve_after(usize::MAX, resolve("config.json"), gated);
    let folder = tempfile::tempdir().unwrap();
    let error = refused(&request(&server, folder.path()));
    assert_eq!(error.code(), "hub_forbidden");
    let page = format!("accept its terms on {}/shop/twi with that account", server.url());
    assert!(error.to_string().contains(&page), "{error}");
    let nobody = PullRequest { token: Some(String::new()), ..request(&server, folder.path()) };
    assert!(refused(&nobody).to_string().contains("set HF_TOKEN"));
    assert!(names(folder.path()).is_empty());
}

#[test]
fn a_file_that_is_refused_leaves_nothing_half_done() {
    let server = Repo::model().serve_after(usize::MAX, resolve("tokenizer.json"), Reply::status(404));
    let folder = tempfile::tempdir().unwrap();
    assert_eq!(refused(&request(&server, folder.path())).code(), "hub_not_found");
    assert_eq!(names(folder.path()), ["config.json"]);
}

#[test]
fn a_busy_hub_is_asked_again_after_the_pause_that_it_wants() {
    for (name, value) in [("Retry-After", "1"), ("RateLimit", "\"api\";r=0;t=0")] {
        let server = Repo::model().serve_after(1, LISTING.to_owned(), Reply::status(429).with(name, value));
        let folder = tempfile::tempdir().unwrap();
        let start = Instant::now();
        pull(&request(&server, folder.path())).unwrap();
        assert!(start.elapsed() >= Duration::from_secs(1), "{name}");
        assert_eq!(server.seen_at(LISTING).len(), 2, "{name}");
    }
}

#[test]
fn a_hub_that_fails_twice_is_asked_a_third_time() {
    for path in [LISTING.to_owned(), resolve(WEIGHTS)] {
        let server = Repo::model().serve_after(2, path.clone(), Reply::status(500));
        let folder = tempfile::tempdir().unwrap();
        pull(&request(&server, folder.path())).unwrap();
        assert_eq!(server.seen_at(&path).len(), 3);
        assert!(read(folder.path(), WEIGHTS) == weights());
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
        ..PullRequest::new("shop/twi")
    };
    let start = Instant::now();
    let error = refused(&request);
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    assert_eq!(error.code(), "hub_unreachable");
    for says in ["127.0.0.1:1 cannot be reached", "HTTPS_PROXY", "HF_ENDPOINT", "make demo"] {
        assert!(error.to_string().contains(says), "{error}");
    }
    assert!(names(folder.path()).is_empty());
}
