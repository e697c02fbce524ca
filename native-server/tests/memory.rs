//! What the real binary holds when it has nothing to do. Linux tells it (`/proc/PID/status`, in KiB).
//!
//! The model is the folder `OKYEAME_MODEL_DIR`, or `models/whisper-base` of this repository. Without it this test says so and
//! passes, except in CI, which always fetches it.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "tests")]

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use reqwest::multipart::{Form, Part};

/// Longer than anything takes here, also beside a build.
const PATIENCE: Duration = Duration::from_secs(120);
/// In bytes: weights in 8 bits with the rows that tokens are looked up in, about 180 MB, the tokenizer, the program, threads, and
/// what the allocator keeps between. Without giving back it is 340 MB and more. The bar of 250 MB is `make bench`'s to tell.
const MOST: u64 = 310_000_000;

fn of_the_repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path)
}

fn base() -> Option<PathBuf> {
    let folder =
        std::env::var_os("OKYEAME_MODEL_DIR").map_or_else(|| of_the_repository("models/whisper-base"), PathBuf::from);
    if folder.join("tokenizer.json").is_file() {
        return folder.canonicalize().ok();
    }
    assert!(std::env::var_os("CI").is_none(), "CI fetches the default model before it tests");
    println!("not run: no model at {}; scripts/fetch_model.py gets it", folder.display());
    None
}

/// A server of our own, ended with the test.
struct Served {
    child: Child,
    port: u16,
    _folder: tempfile::TempDir,
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Served {
    async fn start(base: &Path) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let child = Command::new(env!("CARGO_BIN_EXE_okyeame"))
            .args(["server", "--dtype", "int8", "--threads", "2", "--port", &port.to_string(), "--base"])
            .arg(base)
            .current_dir(folder.path())
            .env_remove("HUGGINGFACE_MODEL_PATH")
            .env_remove("HUGGINGFACE_MODEL_TYPE")
            .env_remove("MIMALLOC_ALLOW_THP")
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let served = Self { child, port, _folder: folder };
        let deadline = Instant::now() + PATIENCE;
        while !reqwest::get(served.url("/health")).await.is_ok_and(|answer| answer.status() == 200) {
            assert!(Instant::now() < deadline, "the server did not become healthy");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        served
    }

    fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    async fn send(&self, path: &str, clip: &str) {
        let bytes = std::fs::read(of_the_repository("tests/golden/clips").join(clip)).unwrap();
        let form = Form::new().part("file", Part::bytes(bytes).file_name("clip")).text("model", "whisper-1");
        let response = reqwest::Client::new().post(self.url(path)).multipart(form).send().await.unwrap();
        assert_eq!(response.status(), 200, "{clip} to {path}");
    }

    /// A line of the process's status; `None` where this kernel has none of that name.
    fn status(&self, name: &str) -> Option<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        line.split_whitespace().next()?.parse().ok()
    }
}

/// Loading, commands, and a full window of words need more for a while; what of it is kept is the allocator's.
#[tokio::test(flavor = "multi_thread")]
async fn a_quiet_server_gives_back_what_its_work_took() {
    let Some(base) = base() else { return };
    let server = Served::start(&base).await;
    for _ in 0..3 {
        server.send("/test-intent?transcribe=false", "tw_cart.flac").await;
        server.send("/test-intent", "en_short.flac").await;
    }
    for clip in ["en_eleven.flac", "en_long.flac"] {
        server.send("/v1/audio/transcriptions", clip).await;
    }
    let deadline = Instant::now() + PATIENCE;
    loop {
        let resident = server.status("VmRSS").unwrap() * 1024;
        if resident < MOST {
            break;
        }
        assert!(Instant::now() < deadline, "{} MB", resident / 1_000_000);
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    // Else the system would make whole ones again of the pages that were given back in part.
    assert!(server.status("THP_enabled").is_none_or(|enabled| enabled == 0), "huge pages");
}
