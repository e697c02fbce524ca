//! The real binary as a server, with the real default model.
//!
//! The model is the folder `OKYEAME_MODEL_DIR`, or `models/whisper-base` of this repository. Without it a test that needs it says
//! so and passes, except in CI, which always fetches it.

#![allow(
    dead_code,
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "every test file uses its own part; tests may unwrap"
)]

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use reqwest::multipart::{Form, Part};
use serde_json::Value;

pub(crate) fn model_folder() -> Option<PathBuf> {
    let folder = std::env::var_os("OKYEAME_MODEL_DIR")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/whisper-base"), PathBuf::from);
    if folder.join("tokenizer.json").is_file() {
        return folder.canonicalize().ok();
    }
    assert!(std::env::var_os("CI").is_none(), "CI fetches the default model before it tests");
    println!("not run: no model at {}; scripts/fetch_model.py gets it", folder.display());
    None
}

/// A server of our own, ended with the test.
pub(crate) struct Served {
    pub(crate) child: Child,
    port: u16,
    folder: tempfile::TempDir,
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Served {
    pub(crate) async fn start(model: &Path) -> Self {
        Self::start_in(tempfile::tempdir().unwrap(), model, &[]).await
    }

    /// In a folder, perhaps that of a server before.
    pub(crate) async fn start_in(folder: tempfile::TempDir, model: &Path, args: &[&str]) -> Self {
        let model = model.to_str().unwrap();
        Self::start_with(folder, &[&["--huggingface", model], args].concat()).await
    }

    /// With arguments alone: which model it is, they say.
    pub(crate) async fn start_with(folder: tempfile::TempDir, args: &[&str]) -> Self {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let child = Command::new(env!("CARGO_BIN_EXE_okyeame"))
            .args(["server", "--port", &port.to_string()])
            .args(args)
            .current_dir(folder.path())
            .env_remove("HUGGINGFACE_MODEL_PATH")
            .env_remove("HUGGINGFACE_MODEL_TYPE")
            .env_remove("MIMALLOC_ALLOW_THP")
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let served = Self { child, port, folder };
        let deadline = Instant::now() + Duration::from_secs(120);
        loop {
            if let Ok(response) = reqwest::get(served.url("/health")).await
                && response.status() == 200
            {
                return served;
            }
            assert!(Instant::now() < deadline, "the server did not become healthy");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// What a server leaves behind; one that still runs is killed.
    pub(crate) fn into_folder(mut self) -> tempfile::TempDir {
        std::mem::replace(&mut self.folder, tempfile::tempdir().unwrap())
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    pub(crate) async fn send(&self, path: &str, bytes: Vec<u8>) -> (u16, Value) {
        let form = Form::new().part("file", Part::bytes(bytes).file_name("clip"));
        let response = reqwest::Client::new().post(self.url(path)).multipart(form).send().await.unwrap();
        (response.status().as_u16(), response.json().await.unwrap())
    }

    pub(crate) async fn send_file(&self, path: &str, file: &str) -> Value {
        let (status, answer) = self.send(path, std::fs::read(file).unwrap()).await;
        assert_eq!(status, 200, "{file}: {answer}");
        answer
    }
}
