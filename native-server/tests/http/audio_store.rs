//! `--store-audio`: what is kept, what is not, and that `okyeame train` reads it.

use std::path::Path;

use axum::http::StatusCode;
use okyeame_core::training::manifest::{ManifestOptions, read_manifest};
use serde_json::Value;

use crate::support::{Form, Shop, WAIT, ask, silence, tone};

async fn shop(folder: &Path, max_bytes: u64) -> Shop {
    Shop::with(|config| {
        config.store_audio = Some(folder.to_owned());
        config.store_audio_bytes = max_bytes;
    })
    .await
}

fn lines(folder: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(folder.join("manifest.jsonl")).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn n_clips(folder: &Path) -> usize {
    std::fs::read_dir(folder.join("clips")).unwrap().count()
}

#[tokio::test]
async fn what_is_kept_is_a_manifest_to_train_with() {
    let folder = tempfile::tempdir().unwrap();
    let kept = folder.path().join("kept");
    let shop = shop(&kept, 1 << 20).await;
    let (loud, quiet) = (tone(0.4), silence(0.5));
    let secret = Form::new().file("file", "../../Ama's secret.wav", &loud).post("/test-intent");
    assert_eq!(shop.send(secret).await.status, StatusCode::OK);
    assert_eq!(shop.send(ask(&quiet, "")).await.status, StatusCode::OK);
    assert_eq!(shop.send(ask(&tone(0.6), "")).await.status, StatusCode::OK);
    // Neither an answer from the cache nor a refused clip is kept.
    assert_eq!(shop.send(ask(&loud, "top_k=5")).await.json["cached"], true);
    shop.send(ask(b"not audio", "")).await.is_error(415, "unsupported_audio");
    shop.server.finish();
    shop.server.finish();

    let lines = lines(&kept);
    let intents: Vec<_> = lines.iter().map(|line| line["intent"].as_str().unwrap()).collect();
    assert_eq!((intents, n_clips(&kept)), (vec!["add_to_cart", "none", "add_to_cart"], 3));
    assert_eq!(std::fs::read(kept.join(lines[0]["path"].as_str().unwrap())).unwrap(), loud);
    let text = std::fs::read_to_string(kept.join("manifest.jsonl")).unwrap();
    assert!(!text.contains("Ama") && !text.contains(".."), "{text}");
    let manifest = read_manifest(&kept.join("manifest.jsonl"), &ManifestOptions::default(), &|_, _| {}).unwrap();
    assert_eq!(manifest.examples.len(), 3);
    #[cfg(unix)]
    for (path, mode) in [("clips", 0o700), ("manifest.jsonl", 0o600)] {
        use std::os::unix::fs::PermissionsExt;
        assert_eq!(std::fs::metadata(kept.join(path)).unwrap().permissions().mode() & 0o777, mode, "{path}");
    }
}

#[tokio::test]
async fn the_folder_has_a_bound_which_a_restart_does_not_lift() {
    let folder = tempfile::tempdir().unwrap();
    for expected in [1, 1] {
        let shop = shop(folder.path(), 20_000).await;
        for i in 0..3 {
            // 13 kB each.
            assert_eq!(shop.send(ask(&tone(0.4 + 0.001 * f64::from(i)), "")).await.status, StatusCode::OK);
        }
        shop.server.finish();
        assert_eq!((lines(folder.path()).len(), n_clips(folder.path())), (expected, expected));
    }
}

#[tokio::test]
async fn half_a_line_of_a_killed_process_is_cut_off() {
    let folder = tempfile::tempdir().unwrap();
    let manifest = folder.path().join("manifest.jsonl");
    let whole = "{\"path\": \"a.wav\", \"intent\": \"none\"}\n";
    for (left, n_whole) in
        [(format!("{whole}{{\"path\": \"clips/b"), 1), ("{\"pa".to_owned(), 0), (whole.to_owned(), 1)]
    {
        std::fs::write(&manifest, left).unwrap();
        let shop = shop(folder.path(), 1 << 20).await;
        shop.still_answers().await;
        shop.server.finish();
        assert_eq!(lines(folder.path()).len(), n_whole + 1);
    }
}

#[tokio::test]
async fn nothing_is_kept_of_a_client_that_went_or_where_nobody_asked_for_it() {
    let folder = tempfile::tempdir().unwrap();
    let shop = shop(folder.path(), 1 << 20).await;
    let gone = shop.start(ask(&tone(0.3), &format!("language={WAIT}")));
    shop.until_started(1).await;
    gone.abort();
    let _ = gone.await;
    shop.control.open();
    shop.still_answers().await;
    shop.server.finish();
    assert_eq!(lines(folder.path()).len(), 1);
}

#[tokio::test]
async fn a_folder_that_cannot_be_made_is_said_at_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    std::fs::write(&file, "").unwrap();
    let config = okyeame_server::config::ServerConfig { store_audio: Some(file), ..Default::default() };
    assert!(okyeame_server::Server::start(config, || unreachable!("no model is loaded")).is_err());
}
