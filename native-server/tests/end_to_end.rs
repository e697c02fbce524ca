//! The real binary with the real default model: what README promises, run as a newcomer runs it.
//!
//! The model is the folder `OKYEAME_MODEL_DIR`, or `models/whisper-base` of this repository. Without it
//! these tests say so and pass, except in CI, which always fetches it.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "tests")]

mod served;

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use reqwest::multipart::{Form, Part};
use serde_json::Value;
use served::{Served, model_folder};

const CLIPS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/golden/clips");
const FORMATS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/audio");
/// Outside the repository; there in the workplace and in CI.
const JFK: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared/audio/jfk.flac");
const JFK_SAYS: &str =
    "And so my fellow Americans, ask not what your country can do for you, ask what you can do for your country.";

/// A command spoken by espeak-ng, which `make test` installs.
fn speak(voice: &str, text: &str) -> Vec<u8> {
    let out = Command::new("espeak-ng").args(["-v", voice, "--stdout", text]).output();
    let out = out.expect("espeak-ng is installed by scripts/install_tools.sh");
    assert!(out.status.success());
    out.stdout
}

#[tokio::test(flavor = "multi_thread")]
async fn words_intents_and_rejections() {
    let Some(model) = model_folder() else { return };
    let server = Served::start(&model).await;

    // Words, against transformers' own (tests/golden/base/tokens.json).
    let answer = server.send_file("/test-intent?language=en", &format!("{CLIPS}/en_short.flac")).await;
    assert_eq!(answer["transcription"], "Please show me the black shoes in size 42.");
    if Path::new(JFK).is_file() {
        let answer = server.send_file("/test-intent?language=en", JFK).await;
        assert_eq!(answer["transcription"], JFK_SAYS);
        assert_eq!(answer["accepted"], false);
        assert_eq!(answer["intent"], "unknown");
        assert_eq!(answer["rejection"], "out_of_scope");
        assert!(!answer["top_predictions"].as_array().unwrap().is_empty());
    }

    // A Twi command gives its intent, from a file and from a voice made now.
    let recorded = std::fs::read(format!("{CLIPS}/tw_cart.flac")).unwrap();
    for clip in [recorded, speak("sw", "Fa yei to cart no mu")] {
        let (status, answer) = server.send("/test-intent?top_k=3", clip).await;
        assert_eq!(status, 200);
        assert_eq!(answer["intent"], "add_to_cart", "{answer}");
        assert_eq!(answer["accepted"], true);
        assert_eq!(answer["whisper_info"]["language"], "tw");
        assert_eq!(answer["top_predictions"].as_array().unwrap().len(), 3);
        let sum: f64 =
            answer["top_predictions"].as_array().unwrap().iter().map(|p| p["confidence"].as_f64().unwrap()).sum();
        assert!(sum <= 1.0 + 1e-6, "confidences are probabilities");
    }

    // The same words whatever the container.
    for file in ["speech.flac", "speech.mp3", "speech.m4a", "speech_opus.ogg", "speech_opus.webm", "mediarecorder.webm"]
    {
        let answer = server.send_file("/test-intent", &format!("{FORMATS}/{file}")).await;
        assert_eq!(answer["rejection"], Value::Null, "{file}: {answer}");
        assert_eq!(answer["intent"], "add_to_cart", "{file}: {answer}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_clips_get_clear_answers_and_the_next_one_is_served() {
    let Some(model) = model_folder() else { return };
    let server = Served::start(&model).await;
    let good = std::fs::read(format!("{CLIPS}/tw_cart.flac")).unwrap();
    let wav = |samples: &[f32]| {
        let data: Vec<u8> = samples.iter().flat_map(|s| s.to_le_bytes()).collect();
        let mut bytes = b"RIFF".to_vec();
        bytes.extend((36 + data.len() as u32).to_le_bytes());
        bytes.extend(b"WAVEfmt \x10\0\0\0\x03\0\x01\0");
        bytes.extend(16_000_u32.to_le_bytes());
        bytes.extend(64_000_u32.to_le_bytes());
        bytes.extend([4, 0, 32, 0]);
        bytes.extend(b"data");
        bytes.extend((data.len() as u32).to_le_bytes());
        bytes.extend(data);
        bytes
    };
    for (what, clip, status, code) in [
        ("empty", Vec::new(), 400, "empty_audio"),
        ("text", b"this is not sound, it is a sentence".repeat(40), 415, "unsupported_audio"),
        ("0 s", wav(&[]), 400, "empty_audio"),
        ("NaN", wav(&[f32::NAN; 1600]), 400, "invalid_samples"),
    ] {
        let (got, answer) = server.send("/test-intent", clip).await;
        assert_eq!((got, answer["code"].as_str()), (status, Some(code)), "{what}: {answer}");
        assert!(answer["detail"].is_string() && answer["request_id"].is_string());
    }
    for top_k in ["0", "1000000", "-1", "abc"] {
        let (status, answer) = server.send(&format!("/test-intent?top_k={top_k}"), good.clone()).await;
        assert_eq!(status, 422, "{answer}");
    }
    let (status, answer) = server.send("/test-intent", wav(&[0.0; 48_000])).await;
    assert_eq!((status, answer["rejection"].as_str()), (200, Some("no_speech")), "silence is an answer: {answer}");

    assert_eq!(answer["transcription"], "");
    let (_, answer) = server.send("/test-intent?transcribe=false", wav(&[0.0; 48_000])).await;
    assert_eq!(answer["transcription"], Value::Null, "silence keeps to what was asked for: {answer}");

    // Every cut of a file: an answer or a clear error, never a lost connection.
    for cut in (0..good.len()).step_by(good.len() / 12) {
        let (status, _) = server.send("/test-intent?transcribe=false", good[..cut].to_vec()).await;
        assert!(status == 200 || status == 400 || status == 415, "cut at {cut}: {status}");
    }
    let (status, answer) = server.send("/test-intent", good).await;
    assert_eq!((status, &answer["intent"]), (200, &Value::from("add_to_cart")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_house_is_served_and_sigterm_loses_nothing() {
    let Some(model) = model_folder() else { return };
    let mut server = Served::start(&model).await;
    let clip = std::fs::read(format!("{CLIPS}/tw_go_cart.flac")).unwrap();
    let client = reqwest::Client::new();
    let send = |top_k: usize| {
        // Another `top_k` each time, so that no answer comes from the cache.
        let form = Form::new().part("file", Part::bytes(clip.clone()).file_name("clip.flac"));
        client.post(server.url(&format!("/test-intent?top_k={top_k}"))).multipart(form).send()
    };
    let requests: Vec<_> = (1..=8).map(|k| tokio::spawn(send(k))).collect();
    // All eight have to be accepted before the signal: wait until the first is answered.
    let mut answered = 0;
    for (i, request) in requests.into_iter().enumerate() {
        let response = request.await.unwrap().unwrap();
        assert_eq!(response.status(), 200);
        let _: Value = response.json().await.unwrap();
        answered += 1;
        if i == 0 {
            let status = Command::new("kill").args(["-TERM", &server.child.id().to_string()]).status().unwrap();
            assert!(status.success());
        }
    }
    assert_eq!(answered, 8);
    let exit = server.child.wait().unwrap();
    assert!(exit.success(), "SIGTERM ends with 0, got {exit}");
}

#[tokio::test(flavor = "multi_thread")]
async fn kill_9_damages_no_file_and_the_next_one_serves() {
    let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden/heads/one-encoder-mlp");
    let clip = std::fs::read(format!("{CLIPS}/tw_go_cart.flac")).unwrap();
    let mut folder = tempfile::tempdir().unwrap();
    for _ in 0..3 {
        let server = Served::start_in(folder, &model, &["--store-audio", "kept"]).await;
        let client = reqwest::Client::new();
        let send = |top_k: usize| {
            let form = Form::new().part("file", Part::bytes(clip.clone()).file_name("clip.flac"));
            client.post(server.url(&format!("/test-intent?transcribe=false&top_k={top_k}"))).multipart(form).send()
        };
        let mut requests: Vec<_> = (1..=40).map(|k| tokio::spawn(send(k))).collect();
        // In the middle of it.
        assert_eq!(requests.remove(0).await.unwrap().unwrap().status(), 200);
        let status = Command::new("kill").args(["-9", &server.child.id().to_string()]).status().unwrap();
        assert!(status.success());
        for request in requests {
            // Answered before, or cut off.
            let _ = request.await.unwrap();
        }
        folder = server.into_folder();
        for line in std::fs::read_to_string(folder.path().join("kept/manifest.jsonl")).unwrap().lines() {
            let line: Value = serde_json::from_str(line).unwrap();
            let kept = std::fs::read(folder.path().join("kept").join(line["path"].as_str().unwrap())).unwrap();
            assert_eq!(kept, clip);
        }
    }
    let server = Served::start_in(folder, &model, &["--store-audio", "kept"]).await;
    assert_eq!(server.send("/test-intent?transcribe=false", clip).await.0, 200);
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap().map(Result::unwrap) {
        if entry.path().is_file() {
            std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn another_model_takes_the_place_while_clients_ask() {
    let heads = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden/heads").canonicalize().unwrap();
    let folder = tempfile::tempdir().unwrap();
    // The model that is served lies here, so that its files can be replaced.
    let served = folder.path().join("served");
    copy(&heads.join("one-encoder"), &served);
    let damaged = folder.path().join("damaged");
    copy(&heads.join("one-encoder"), &damaged);
    let weights = std::fs::read(damaged.join("model.safetensors")).unwrap();
    std::fs::write(damaged.join("model.safetensors"), &weights[..weights.len() / 2]).unwrap();

    let args = ["--cache-bytes", "0", "--max-batch", "1"];
    let mut server = Served::start_in(tempfile::tempdir().unwrap(), &served, &args).await;
    let clip = std::fs::read(format!("{CLIPS}/tw_go_cart.flac")).unwrap();
    // What tells an answer's model: its kind, and the labels of its predictions.
    let ask = |client: reqwest::Client, url: String, clip: Vec<u8>| async move {
        let form = Form::new().part("file", Part::bytes(clip).file_name("clip.flac"));
        let response = client.post(url).multipart(form).send().await.unwrap();
        assert_eq!(response.status(), 200);
        let answer: Value = response.json().await.unwrap();
        let labels = answer["top_predictions"].as_array().unwrap().iter();
        let labels: Vec<String> = labels.map(|p| format!("{} {}", p["label_id"], p["intent"])).collect();
        (answer["model_type"].as_str().unwrap().to_owned(), labels)
    };
    let client = reqwest::Client::new();
    let url = server.url("/test-intent?transcribe=false&top_k=100");
    let load = |body: Value| {
        let sent = client.post(server.url("/admin/models")).json(&body).send();
        async move {
            let response = sent.await.unwrap();
            (response.status().as_u16(), response.json::<Value>().await.unwrap())
        }
    };
    let first = ask(client.clone(), url.clone(), clip.clone()).await;
    assert_eq!(first.0, "whisper_multitask");

    let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let asking: Vec<_> = (0..3)
        .map(|_| {
            let (client, url, clip, stop) = (client.clone(), url.clone(), clip.clone(), std::sync::Arc::clone(&stop));
            tokio::spawn(async move {
                let mut answers = Vec::new();
                while !stop.load(std::sync::atomic::Ordering::SeqCst) {
                    answers.push(ask(client.clone(), url.clone(), clip.clone()).await);
                }
                answers
            })
        })
        .collect();
    let mut second = None;
    for model in ["classification", "one-encoder", "classification"] {
        let (status, info) = load(serde_json::json!({"model": heads.join(model)})).await;
        assert_eq!((status, info["name"].as_str()), (200, Some(model)), "{info}");
        if model == "classification" {
            second = Some(ask(client.clone(), url.clone(), clip.clone()).await);
        }
        for (model, code) in [(&damaged, "damaged_weights"), (&folder.path().join("none"), "model_not_found")] {
            let (status, refused) = load(serde_json::json!({"model": model})).await;
            assert_eq!((status, refused["code"].as_str()), (422, Some(code)), "{refused}");
            let said = refused["detail"].as_str().unwrap();
            assert!(!said.contains(folder.path().to_str().unwrap()), "{said}");
        }
    }
    stop.store(true, std::sync::atomic::Ordering::SeqCst);
    let second = second.unwrap();
    assert_eq!(second.0, "whisper_classifier");
    for client in asking {
        let answers = client.await.unwrap();
        assert!(!answers.is_empty());
        for answer in answers {
            assert!(answer == first || answer == second, "an answer of neither: {answer:?}");
        }
    }

    // Back to the folder; then its files are others, and SIGHUP has them loaded.
    let (status, info) = load(serde_json::json!({"model": served})).await;
    assert_eq!((status, &info["model_type"]), (200, &Value::from("whisper_multitask")), "{info}");
    std::fs::rename(&served, folder.path().join("before")).unwrap();
    copy(&heads.join("classification"), &served);
    let signal = |name: &str| {
        let status = Command::new("kill").args([name, &server.child.id().to_string()]).status().unwrap();
        assert!(status.success());
    };
    signal("-HUP");
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let info: Value = reqwest::get(server.url("/model-info")).await.unwrap().json().await.unwrap();
        if info["model_type"] == "whisper_classifier" {
            break;
        }
        assert!(Instant::now() < deadline, "SIGHUP loaded nothing: {info}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }

    // Perhaps in the middle of a load: the server ends, and well.
    let sent = client.post(server.url("/admin/models")).json(&serde_json::json!({})).send();
    let loading = tokio::spawn(sent);
    signal("-TERM");
    let exit = server.child.wait().unwrap();
    assert!(exit.success(), "SIGTERM ends with 0, got {exit}");
    // Answered before, refused, or cut off before it was read.
    let _ = loading.await.unwrap();
}

#[test]
fn one_shot_commands() {
    let Some(model) = model_folder() else { return };
    let okyeame = |args: &[&str]| {
        let dir = tempfile::tempdir().unwrap();
        Command::new(env!("CARGO_BIN_EXE_okyeame")).args(args).current_dir(dir.path()).output().unwrap()
    };
    let model = model.to_str().unwrap();
    let clip = std::fs::canonicalize(format!("{CLIPS}/en_short.flac")).unwrap();
    let out = okyeame(&["recognize", clip.to_str().unwrap(), "--json", "--language", "en", "--model", model]);
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let answer: Value = serde_json::from_slice(&out.stdout).unwrap();
    assert_eq!(answer["transcription"], "Please show me the black shoes in size 42.");

    let out = okyeame(&["info", model, "--json"]);
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let info: Value = serde_json::from_slice(&out.stdout).unwrap();
    assert_eq!((&info["model_size"], &info["n_mels"]), (&Value::from("base"), &Value::from(80)));
    assert_eq!(info["labels"].as_array().unwrap().len(), 49);

    // A missing file, a missing model, a damaged one: a sentence and exit code 1, never a panic.
    let damaged = tempfile::tempdir().unwrap();
    for file in ["tokenizer.json", "config.json"] {
        std::fs::copy(Path::new(model).join(file), damaged.path().join(file)).unwrap();
    }
    let weights = std::fs::read(Path::new(model).join("model.bin")).unwrap();
    std::fs::write(damaged.path().join("model.bin"), &weights[..weights.len() / 2]).unwrap();
    for args in [
        &["recognize", "no_such_file.wav", "--model", model][..],
        &["recognize", clip.to_str().unwrap(), "--model", "no_such_folder"][..],
        &["info", damaged.path().to_str().unwrap()][..],
    ] {
        let out = okyeame(args);
        let said = String::from_utf8_lossy(&out.stderr);
        assert!(!out.status.success() && !said.is_empty() && !said.contains("panicked"), "{args:?}: {said}");
    }
}

/// Nobody names a model: the head that is compiled in, on the default base.
/// What bench/run.py stands on.
#[test]
fn bench_answers_each_work_on_a_line() {
    const WORKS: [&str; 8] =
        ["command", "encode_clip", "encode", "transcribe", "transcribe2", "transcribe0", "transcribe99", "dance"];
    let Some(model) = model_folder() else { return };
    let mut child = Command::new(env!("CARGO_BIN_EXE_okyeame"))
        .args(["bench", "--serve", "--huggingface"])
        .arg(&model)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    for work in WORKS {
        writeln!(stdin, "{work}\tsw\t{CLIPS}/tw_cart.flac").unwrap();
    }
    writeln!(stdin, "no tabs here").unwrap();
    drop(stdin);
    let out = child.wait_with_output().unwrap();
    assert!(out.status.success());
    let lines = String::from_utf8(out.stdout).unwrap();
    let lines: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), WORKS.len() + 2, "one to say that it is ready, one for each request");
    assert_eq!(lines[0]["ready"], true);
    for (work, answer) in WORKS.iter().zip(&lines[1..]) {
        assert_eq!(answer["work"], *work);
    }
    let [command, clip, full, greedy, beams] = &lines[1..6] else { panic!("there are {} lines", lines.len()) };
    let positions = |answer: &Value| answer["positions"].as_u64().unwrap();
    assert!((1..=positions(clip)).contains(&positions(command)), "the speech is within the clip");
    assert!(positions(clip) < 1500, "{clip}");
    assert_eq!(positions(full), 1500, "a full window");
    for (answer, has_cross) in [(command, false), (clip, false), (full, true)] {
        assert!(answer["encoder_ms"].as_f64().unwrap() > 0.0);
        assert_eq!(answer["cross_ms"].as_f64().unwrap() > 0.0, has_cross, "{answer}");
        assert_eq!((&answer["tokens"], &answer["decoder_ms"]), (&Value::from(0), &Value::from(0.0)), "no text");
    }
    for answer in [greedy, beams] {
        assert!(answer["tokens"].as_u64().unwrap() > 0 && !answer["text"].as_str().unwrap().is_empty(), "{answer}");
    }
    for refused in &lines[6..] {
        assert!(refused["error"].is_string(), "{refused}");
    }
}

#[test]
fn the_default_model_hears_the_intent_itself() {
    let Some(base) = model_folder() else { return };
    let dir = tempfile::tempdir().unwrap();
    let okyeame = |args: &[&str]| {
        let command = Command::new(env!("CARGO_BIN_EXE_okyeame"))
            .args(args)
            .args(["--base", base.to_str().unwrap()])
            .current_dir(dir.path())
            .env_remove("HUGGINGFACE_MODEL_PATH")
            .output()
            .unwrap();
        assert!(command.status.success(), "{}", String::from_utf8_lossy(&command.stderr));
        String::from_utf8(command.stdout).unwrap()
    };
    let clips = [("cart.wav", speak("sw", "Fa yei to cart no mu")), ("silence.wav", silence())];
    for (name, bytes) in &clips {
        std::fs::write(dir.path().join(name), bytes).unwrap();
    }
    let answers = |more: &[&str]| -> Vec<Value> {
        let args = [&["recognize", "cart.wav", "silence.wav", "--json", "--top-k", "49"], more].concat();
        okyeame(&args).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    for (more, source) in [(&[][..], "fused"), (&["--no-transcribe"], "audio_head")] {
        let [cart, silence] = &answers(more)[..] else { panic!("two clips, two answers") };
        assert_eq!(cart["model_type"], "whisper_multitask");
        assert_eq!(cart["intent_source"], source);
        assert_eq!(cart["top_predictions"][0]["intent"], "add_to_cart", "{cart}");
        let sum: f64 =
            cart["top_predictions"].as_array().unwrap().iter().map(|p| p["confidence"].as_f64().unwrap()).sum();
        assert!((0.0..=1.0001).contains(&sum), "{sum}");
        assert_eq!(cart["transcription"].is_string(), more.is_empty());
        assert_eq!((&silence["intent"], &silence["rejection"]), (&"unknown".into(), &"no_speech".into()));
    }
}

/// A second of digital silence, 16 kHz, 16 bit.
fn silence() -> Vec<u8> {
    let mut wav =
        b"RIFF\x24\x7d\0\0WAVEfmt \x10\0\0\0\x01\0\x01\0\x80\x3e\0\0\0\x7d\0\0\x02\0\x10\0data\0\x7d\0\0".to_vec();
    wav.resize(44 + 32_000, 0);
    wav
}
