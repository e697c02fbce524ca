//! From recordings to an answer over HTTP, through a hub: `train`, `eval --card`, `upload`, and a server on another
//! machine's empty cache that is told the repository's name alone.

use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use reqwest::multipart::{Form, Part};
use serde_json::Value;

use crate::account::AccountHub;
use crate::corpus::{BASE, BASE_NAME, COMMANDS, Corpus, HEAD_FILES, LEARN, answers, done};

const REPO: &str = "shop/tones";

/// Ends with the test.
struct Served(Child);

impl Drop for Served {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

fn files_of(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.is_file());
    files.map(|path| (path.file_name().unwrap().to_str().unwrap().to_owned(), std::fs::read(path).unwrap())).collect()
}

#[tokio::test]
async fn recordings_become_a_repository_that_a_server_serves() {
    let (corpus, hub) = (Corpus::new(), AccountHub::start(None, |_| None));
    hub.account.lock().unwrap().repos.insert(BASE_NAME.to_owned(), files_of(Path::new(BASE)).into_iter().collect());
    done(corpus.train("manifest.csv", "run", &LEARN));
    let mut eval = corpus.okyeame(&["eval", "run/model", "--data", "manifest.csv", "--base", BASE]);
    eval.args(["--splits", "run/splits.csv", "--out", "report", "--card", "run/model"]);
    eval.args(["--word-clips", "0", "--noisy-clips", "2", "--sounds", "1"]);
    done(eval);

    let upload = |more: &[&str]| {
        let mut command = corpus.okyeame(&["upload", REPO, "run"]);
        command.args(more).env("HF_ENDPOINT", hub.server.url()).env("HF_TOKEN", "hf_write");
        let out = command.output().unwrap();
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
        assert_eq!(String::from_utf8(out.stdout).unwrap(), format!("{}/{REPO}\n", hub.server.url()));
        String::from_utf8(out.stderr).unwrap()
    };
    assert!(upload(&["--dry-run"]).contains("Nothing was sent"));
    let said = upload(&[]);
    assert!(said.contains("was made, private") && said.contains("okyeame server --huggingface"), "{said}");
    assert!(upload(&[]).contains("Nothing to send"));
    for file in HEAD_FILES.into_iter().chain(["README.md", "evaluation.json"]) {
        assert_eq!(hub.file(REPO, file).unwrap(), corpus.bytes(&format!("run/model/{file}")), "{file}");
    }

    let clip = format!("clips/{}-0-ama.wav", COMMANDS[0].0);
    let expected =
        answers(corpus.okyeame(&["recognize", "--json", "--model", "run/model", "--base", BASE, &clip])).remove(0);
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let elsewhere = tempfile::tempdir().unwrap();
    let mut server = corpus.okyeame(&["server", "--port", &port.to_string(), "--huggingface", REPO]);
    server
        .current_dir(elsewhere.path())
        .env("HF_HOME", elsewhere.path().join("hub"))
        .env("HF_ENDPOINT", hub.server.url())
        .env("HF_TOKEN", "hf_read")
        .env("HF_HUB_OFFLINE", "0")
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let _served = Served(server.spawn().unwrap());
    let url = |path: &str| format!("http://127.0.0.1:{port}{path}");
    let deadline = Instant::now() + Duration::from_secs(60);
    while !reqwest::get(url("/health")).await.is_ok_and(|response| response.status() == 200) {
        assert!(Instant::now() < deadline, "the server did not become healthy");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let form = Form::new().part("file", Part::bytes(corpus.bytes(&clip)).file_name("clip.wav"));
    let response = reqwest::Client::new().post(url("/test-intent")).multipart(form).send().await.unwrap();
    assert_eq!(response.status(), 200);
    let answer: Value = response.json().await.unwrap();
    let of = |answer: &Value| {
        let best = answer["intent"].clone();
        (best, answer["top_predictions"][0]["intent"].clone(), answer["accepted"].clone())
    };
    assert_eq!(of(&answer), of(&expected), "{answer} {expected}");
    assert!(answer["top_predictions"][0]["intent"].is_string(), "{answer}");
}
