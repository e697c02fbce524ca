//! Which threads the real binary has: `--threads` bounds each of its pools, and there is no other. Linux tells the threads of
//! a process, and their names; a thread without one has that of the thread that started it.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "tests")]

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use reqwest::multipart::{Form, Part};
use serde_json::json;

/// Longer than anything takes here, also beside a build.
const PATIENCE: Duration = Duration::from_secs(60);

fn of_the_tests(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests").join(path).canonicalize().unwrap()
}

/// The mask in `/proc/…/status`; the tests' machines have no more than 128 cores.
fn allowed_cores(status: &str) -> u128 {
    let mask = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed:")).unwrap();
    u128::from_str_radix(&mask.trim().replace(',', ""), 16).unwrap()
}

/// `okyeame` with a tiny seeded model, ended with the test.
struct Running {
    child: Child,
    _folder: tempfile::TempDir,
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Running {
    fn start(args: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_okyeame"))
            .args(args)
            .arg("--huggingface")
            .arg(of_the_tests("golden/heads/one-encoder-mlp"))
            .current_dir(folder.path())
            .env_remove("OKYEAME_THREADS")
            .env_remove("HUGGINGFACE_MODEL_TYPE")
            .env("HF_HUB_OFFLINE", "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Self { child, _folder: folder }
    }

    /// Its threads: the name, as far as the system keeps it (15 bytes), and the folder that tells more.
    fn tasks(&self) -> Vec<(String, PathBuf)> {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", self.child.id())).unwrap();
        let named = |task: PathBuf| {
            // One that has just ended has no name any more.
            let name = std::fs::read_to_string(task.join("comm")).ok()?;
            Some((name.trim_end().to_owned(), task))
        };
        tasks.filter_map(|task| named(task.unwrap().path())).collect()
    }

    fn threads(&self) -> Vec<String> {
        self.tasks().into_iter().map(|(name, _)| name).collect()
    }

    /// The cores that each thread of that kind may run on, as a mask.
    fn cores(&self, is_one: impl Fn(&str) -> bool) -> Vec<u128> {
        let of_kind = self.tasks().into_iter().filter(|(name, _)| is_one(name));
        of_kind.map(|(_, task)| allowed_cores(&std::fs::read_to_string(task.join("status")).unwrap())).collect()
    }

    fn count(&self, is_one: impl Fn(&str) -> bool) -> usize {
        self.threads().iter().filter(|name| is_one(name)).count()
    }

    /// Waits until so many of its threads are of that kind.
    #[track_caller]
    fn wait_for(&self, n: usize, is_one: impl Fn(&str) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while self.count(&is_one) != n {
            assert!(Instant::now() < deadline, "not {n}: {:?}", self.threads());
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_has_two_pools_of_the_size_that_is_asked_for_and_no_other() {
    let n_cores = std::thread::available_parallelism().unwrap().get();
    let cores = allowed_cores(&std::fs::read_to_string("/proc/self/status").unwrap());
    for n in [1, 3, cores.count_ones() as usize] {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let server = Running::start(&["server", "--port", &port.to_string(), "--threads", &n.to_string()]);
        let url = |path: &str| format!("http://127.0.0.1:{port}{path}");
        let deadline = Instant::now() + PATIENCE;
        while !reqwest::get(url("/health")).await.is_ok_and(|answer| answer.status() == 200) {
            assert!(Instant::now() < deadline, "the server did not become healthy");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        server.wait_for(n.min(n_cores), |name| name == "tokio-rt-worker");

        // Whatever needs arithmetic: a clip, a typed command, and loading beside both.
        let clip = std::fs::read(of_the_tests("audio/speech.wav")).unwrap();
        let form = Form::new().part("file", Part::bytes(clip).file_name("clip"));
        let client = reqwest::Client::new();
        let answer = client.post(url("/test-intent")).multipart(form).send().await.unwrap();
        assert_eq!(answer.status(), 200);
        let answer =
            client.post(url("/text-intent")).json(&json!({ "text": "fa yei to cart no mu" })).send().await.unwrap();
        assert_eq!(answer.status(), 200);
        let answer = client.post(url("/admin/models")).json(&json!({})).send().await.unwrap();
        assert_eq!(answer.status(), 200);

        for lane in ["commands ", "words "] {
            assert_eq!(server.count(|name| name.starts_with(lane)), n, "{:?}", server.threads());
            // With a core for each they keep to it; with more or fewer the system decides.
            let own = server.cores(|name| name.starts_with(lane));
            if n == cores.count_ones() as usize {
                assert!(own.iter().all(|mask| mask.is_power_of_two()), "{own:x?}");
                assert_eq!(own.iter().fold(0, |all, mask| all | mask), cores, "{own:x?}");
            } else {
                assert!(own.iter().all(|mask| *mask == cores), "{own:x?}");
            }
        }
        // The load's own are gone. Rayon's would be called as the thread that needed them.
        server.wait_for(0, |name| name.starts_with("loading"));
        for alone in ["okyeame", "model", "words"] {
            assert_eq!(server.count(|name| name == alone), 1, "{:?}", server.threads());
        }
    }
}

#[test]
fn another_command_has_one_pool_of_that_size() {
    // It waits for its clip, with a model that is loaded or not yet. The main thread is the sixth.
    let command = Running::start(&["recognize", "-", "--threads", "5"]);
    command.wait_for(6, |name| name == "okyeame");
}
