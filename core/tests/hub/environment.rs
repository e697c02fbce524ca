//! What the environment says: the hub, its token, its cache, and the proxy on the way to it.
//!
//! Variables belong to a whole process, so each of these pulls runs in one of its own: the test binary starts itself
//! again with this very test alone, which then finds [`ANSWER`] set, pulls, and writes there how it went.

use std::path::{Path, PathBuf};
use std::process::Command;

use okyeame_core::weights::hub::PullRequest;

use crate::repository::{COMMIT, LISTING, NOBODY, REPO, Repo, TOKEN, WEIGHTS, pull, read, resolve, weights};
use crate::server::{Reply, Request, Server};

/// The file to which a pull in a process of its own writes its outcome.
const ANSWER: &str = "OKYEAME_TEST_ANSWER";
/// Needed to start at all: sockets on Windows, and where a system keeps its certificates elsewhere.
const KEPT: [&str; 3] = ["SystemRoot", "SSL_CERT_FILE", "SSL_CERT_DIR"];

/// In a process that was started for it: pulls as the environment says, and answers. Else does nothing.
fn pulled_as_the_environment_says() -> bool {
    let Some(answer) = std::env::var_os(ANSWER) else { return false };
    let told = match pull(&PullRequest::new(REPO)) {
        Ok(folder) => format!("ok\n{}", folder.display()),
        Err(error) => format!("{}\n{error}\n{error:?}", error.code()),
    };
    std::fs::write(answer, told).unwrap();
    true
}

/// Pulls in a process of its own, in which these variables are set and no others: the folder, or the error's code and
/// all its words.
fn pull_under(test: &str, variables: &[(&str, &str)]) -> Result<PathBuf, (String, String)> {
    let place = tempfile::tempdir().unwrap();
    let answer = place.path().join("answer");
    let kept = KEPT.into_iter().filter_map(|name| Some((name, std::env::var_os(name)?)));
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test])
        .env_clear()
        .envs(kept)
        .envs(variables.iter().copied())
        .env(ANSWER, &answer)
        .output()
        .unwrap();
    let printed = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).join("\n");
    assert!(!printed.contains(TOKEN), "the token is shown");
    let told = std::fs::read_to_string(&answer).unwrap_or_else(|_| panic!("{test} did not answer:\n{printed}"));
    assert!(!told.contains(TOKEN), "the token is shown");
    let (code, rest) = told.split_once('\n').unwrap();
    if code == "ok" { Ok(PathBuf::from(rest)) } else { Err((code.to_owned(), rest.to_owned())) }
}

fn path(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn variables_name_the_hub_the_token_and_the_cache() {
    const THIS: &str = "environment::variables_name_the_hub_the_token_and_the_cache";
    if pulled_as_the_environment_says() {
        return;
    }
    let server = Repo::model().serve();
    let home = tempfile::tempdir().unwrap();
    let snapshot = |hub: &Path| hub.join("models--shop--twi/snapshots").join(COMMIT);
    let url = server.url();
    let online = [("HF_ENDPOINT", url.as_str()), ("HF_HOME", path(home.path())), ("HF_TOKEN", TOKEN)];
    let folder = pull_under(THIS, &online).unwrap();
    assert_eq!(folder, snapshot(&home.path().join("hub")));
    assert!(read(&folder, WEIGHTS) == weights());
    for seen in server.seen() {
        assert_eq!(seen.header("authorization"), Some("Bearer hf_verySecretToken"), "{}", seen.path);
    }
    // What a login stored stands in for the variable.
    std::fs::write(home.path().join("token"), "hf_stored\n").unwrap();
    let cache = home.path().join("elsewhere");
    let stored = [("HF_ENDPOINT", url.as_str()), ("HF_HOME", path(home.path())), ("HF_HUB_CACHE", path(&cache))];
    assert_eq!(pull_under(THIS, &stored).unwrap(), snapshot(&cache));
    assert_eq!(server.seen().last().unwrap().header("authorization"), Some("Bearer hf_stored"));
    // Offline, nobody is asked.
    let asked = server.seen().len();
    let offline = [&online[..], &[("HF_HUB_OFFLINE", "1")]].concat();
    assert_eq!(pull_under(THIS, &offline).unwrap(), folder);
    assert_eq!(server.seen().len(), asked);
    let nothing = tempfile::tempdir().unwrap();
    let offline = [("HF_HOME", path(nothing.path())), ("HF_HUB_OFFLINE", "1"), ("HF_TOKEN", TOKEN)];
    let (code, said) = pull_under(THIS, &offline).unwrap_err();
    assert_eq!(code, "hub_unreachable");
    assert!(said.contains("unset HF_HUB_OFFLINE"), "{said}");
    assert!(std::fs::read_dir(nothing.path()).unwrap().next().is_none());
}

/// A hub that only a proxy can reach: `.invalid` is the name of nobody (RFC 6761).
const HIDDEN: &str = "http://hub.invalid";

/// A proxy: it is sent whole addresses, and answers for the hidden hub.
fn proxy() -> Server {
    let repo = Repo::model();
    Server::start(move |request| match request.path.strip_prefix(HIDDEN) {
        Some(path) => repo.answer(&Request { path: path.to_owned(), ..request.clone() }),
        None => Reply::status(502),
    })
}

#[test]
fn a_hub_behind_a_proxy_is_reached_through_it() {
    const THIS: &str = "environment::a_hub_behind_a_proxy_is_reached_through_it";
    if pulled_as_the_environment_says() {
        return;
    }
    for variable in ["HTTP_PROXY", "http_proxy", "ALL_PROXY"] {
        let proxy = proxy();
        let home = tempfile::tempdir().unwrap();
        let url = proxy.url();
        let set = [("HF_ENDPOINT", HIDDEN), ("HF_HOME", path(home.path())), (variable, url.as_str())];
        let folder = pull_under(THIS, &set).unwrap();
        assert!(read(&folder, WEIGHTS) == weights(), "{variable}");
        let asked: Vec<String> = proxy.seen().into_iter().map(|request| request.path).collect();
        let [config, tokens, weights] = ["config.json", "tokenizer.json", WEIGHTS].map(resolve);
        let expected = [LISTING.to_owned(), config, tokens, weights].map(|path| format!("{HIDDEN}{path}"));
        assert_eq!(asked, expected, "{variable}");
    }
}

#[test]
fn an_encrypted_hub_is_reached_by_a_tunnel_that_is_told_its_name_alone() {
    const THIS: &str = "environment::an_encrypted_hub_is_reached_by_a_tunnel_that_is_told_its_name_alone";
    if pulled_as_the_environment_says() {
        return;
    }
    let proxy = Server::start(|_| Reply::status(502));
    let home = tempfile::tempdir().unwrap();
    let url = proxy.url();
    let set = [
        ("HF_ENDPOINT", "https://hub.invalid"),
        ("HF_HOME", path(home.path())),
        ("HF_TOKEN", TOKEN),
        ("HTTPS_PROXY", url.as_str()),
    ];
    let (code, said) = pull_under(THIS, &set).unwrap_err();
    assert_eq!(code, "hub_unreachable");
    assert!(said.contains("check the network and the proxy"), "{said}");
    let seen = proxy.seen();
    assert_eq!((seen[0].method.as_str(), seen[0].path.as_str()), ("CONNECT", "hub.invalid:443"));
    assert!(!format!("{seen:?}").contains(TOKEN));
}

#[test]
fn a_proxy_is_left_out_where_no_proxy_says_so_and_for_this_machine() {
    const THIS: &str = "environment::a_proxy_is_left_out_where_no_proxy_says_so_and_for_this_machine";
    if pulled_as_the_environment_says() {
        return;
    }
    let home = tempfile::tempdir().unwrap();
    let proxy = proxy();
    let url = proxy.url();
    let set = [
        ("HF_ENDPOINT", HIDDEN),
        ("HF_HOME", path(home.path())),
        ("HTTP_PROXY", url.as_str()),
        ("NO_PROXY", "hub.invalid"),
    ];
    assert_eq!(pull_under(THIS, &set).unwrap_err().0, "hub_unreachable");
    // A proxy could not reach this machine's own address.
    let server = Repo::model().serve();
    let own = server.url();
    let set = [("HF_ENDPOINT", own.as_str()), ("HF_HOME", path(home.path())), ("HTTP_PROXY", url.as_str())];
    pull_under(THIS, &set).unwrap();
    assert!(proxy.seen().is_empty());
    // One that does not answer is said, with the variable to look at.
    let empty = tempfile::tempdir().unwrap();
    let set = [("HF_ENDPOINT", HIDDEN), ("HF_HOME", path(empty.path())), ("HTTP_PROXY", NOBODY)];
    let (code, said) = pull_under(THIS, &set).unwrap_err();
    assert_eq!(code, "hub_unreachable");
    assert!(said.contains("proxy"), "{said}");
}
