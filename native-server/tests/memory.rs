//! What the real binary holds when it has nothing to do. Linux tells it (`/proc/PID/status`, in KiB).

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "tests")]

mod served;

use std::time::{Duration, Instant};

use served::{Served, model_folder};

/// Longer than anything takes here, also beside a build.
const PATIENCE: Duration = Duration::from_secs(120);
/// In bytes: weights in 8 bits with the rows that tokens are looked up in, about 120 MB, the tokenizer, the program, threads, and
/// what the allocator keeps between. Without giving back it is 340 MB and more. The bar of 250 MB is `make bench`'s to tell.
const MOST: u64 = 310_000_000;

fn clip(name: &str) -> String {
    format!("{}/../tests/golden/clips/{name}.flac", env!("CARGO_MANIFEST_DIR"))
}

/// A line of the process's status; `None` where this kernel has none of that name.
fn status(server: &Served, name: &str) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.child.id())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    line.split_whitespace().next()?.parse().ok()
}

/// Loading, commands, and a full window of words need more for a while; what of it is kept is the allocator's.
#[tokio::test(flavor = "multi_thread")]
async fn a_quiet_server_gives_back_what_its_work_took() {
    let Some(base) = model_folder() else { return };
    let args = ["--dtype", "int8", "--threads", "2", "--base", base.to_str().unwrap()];
    let server = Served::start_with(tempfile::tempdir().unwrap(), &args).await;
    for _ in 0..3 {
        server.send_file("/test-intent?transcribe=false", &clip("tw_cart")).await;
        server.send_file("/test-intent", &clip("en_short")).await;
    }
    for name in ["en_eleven", "en_long"] {
        server.send_file("/v1/audio/transcriptions", &clip(name)).await;
    }
    let deadline = Instant::now() + PATIENCE;
    loop {
        let resident = status(&server, "VmRSS").unwrap() * 1024;
        if resident < MOST {
            break;
        }
        assert!(Instant::now() < deadline, "{} MB", resident / 1_000_000);
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    // Else the system would make whole ones again of the pages that were given back in part.
    assert!(status(&server, "THP_enabled").is_none_or(|enabled| enabled == 0), "huge pages");
}
