//! The real binary on a folder of every shape: `okyeame info` and `okyeame recognize --huggingface FOLDER` as a person or a
//! script calls them, and what they print when a folder cannot be used.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

fn golden(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden").join(path)
}

/// Runs `okyeame`, without a network and with a hub cache of its own.
fn okyeame(args: &[&str], env: &[(&str, &str)]) -> Output {
    let home = tempfile::tempdir().unwrap();
    Command::new(env!("CARGO_BIN_EXE_okyeame"))
        .args(args)
        .current_dir(home.path())
        .env_remove("HUGGINGFACE_MODEL_TYPE")
        .env_remove("CUDA_VISIBLE_DEVICES")
        .env("HF_HOME", home.path())
        .env("HF_HUB_OFFLINE", "1")
        .envs(env.iter().copied())
        .output()
        .unwrap()
}

#[track_caller]
fn answer(args: &[&str], env: &[(&str, &str)]) -> Value {
    let out = okyeame(args, env);
    assert!(out.status.success(), "{args:?}: {}", String::from_utf8_lossy(&out.stderr));
    serde_json::from_slice(&out.stdout).unwrap()
}

/// What is printed on stderr by a call that fails.
#[track_caller]
fn complaint(args: &[&str], env: &[(&str, &str)]) -> String {
    let out = okyeame(args, env);
    assert!(!out.status.success(), "{args:?} succeeded");
    assert!(out.stdout.is_empty(), "an answer and a failure");
    let stderr = String::from_utf8(out.stderr).unwrap();
    assert!(!stderr.contains("panicked"), "{stderr}");
    assert_eq!(stderr.trim().lines().count(), 1, "one sentence: {stderr}");
    stderr
}

/// `(folder, further arguments, model_type, task, weight_format)`
const FOLDERS: [(&str, &[&str], &str, &str, &str); 14] = [
    ("tiny-multilingual", &[], "whisper", "single", "safetensors"),
    ("tiny-2", &[], "whisper", "single", "safetensors"),
    ("tiny-en", &[], "whisper", "single", "safetensors"),
    ("heads/classification", &[], "whisper_classifier", "multi", "safetensors"),
    ("heads/classification-weighted", &[], "whisper_classifier", "multi", "pytorch"),
    ("heads/one-encoder", &[], "whisper_multitask", "multi", "safetensors"),
    ("heads/one-encoder-mlp", &[], "whisper_multitask", "multi", "safetensors"),
    ("heads/multitask", &[], "whisper_multitask", "multi", "pytorch"),
    ("heads/multitask-shared", &[], "whisper_multitask", "multi", "pytorch"),
    ("heads/head-only", &["--base", "BASE"], "whisper_multitask", "multi", "safetensors"),
    ("wav2vec2-base", &[], "wav2vec2", "single", "safetensors"),
    ("wav2vec2-xlsr", &[], "wav2vec2", "single", "safetensors"),
    ("wav2vec2-mms", &["--adapter", "eng"], "wav2vec2", "single", "safetensors"),
    ("wav2vec2-old", &[], "wav2vec2", "single", "pytorch"),
];

#[test]
fn a_folder_of_every_shape_is_described_and_answers() {
    let base = golden("tiny-multilingual");
    let clip = golden("clips/tw_go_cart.flac");
    for (folder, further, model_type, task, format) in FOLDERS {
        let path = golden(folder);
        let path = path.to_str().unwrap();
        let further: Vec<&str> =
            further.iter().map(|arg| if *arg == "BASE" { base.to_str().unwrap() } else { arg }).collect();
        let info = answer(&[&["info", path, "--json"], &further[..]].concat(), &[]);
        let got = ["model_type", "task", "weight_format"].map(|key| info[key].as_str().unwrap_or_default());
        assert_eq!(got, [model_type, task, format], "{folder}");
        assert_eq!(info["name"], Path::new(folder).file_name().unwrap().to_str().unwrap());
        assert_eq!(info["device"], "cpu");
        assert!(["f32", "int8"].iter().any(|dtype| info["dtype"] == *dtype), "{}", info["dtype"]); // as the processor is
        assert!(info["parameters"].as_u64().unwrap() > 0 && !info["fallbacks"].as_array().unwrap().is_empty());

        let table = okyeame(&[&["info", path], &further[..]].concat(), &[]);
        let table = String::from_utf8(table.stdout).unwrap();
        assert!(table.contains("architecture") && table.contains(model_type), "{table}");

        let clip = clip.to_str().unwrap();
        let found = answer(&[&["recognize", clip, "--json", "--huggingface", path], &further[..]].concat(), &[]);
        let source = if task == "multi" { "audio_head" } else { "transcript" };
        assert_eq!((&found["intent_source"], &found["model_type"]), (&source.into(), &model_type.into()), "{folder}");
        assert_eq!(found["transcription"].is_null(), model_type == "whisper_classifier", "{folder}");
    }
}

#[test]
fn the_environment_overrides_what_is_detected() {
    let folder = golden("heads/one-encoder");
    let folder = folder.to_str().unwrap();
    let info = answer(&["info", folder, "--json"], &[("HUGGINGFACE_MODEL_TYPE", "single")]);
    assert_eq!((&info["task"], &info["model_type"]), (&"single".into(), &"whisper".into()));
    let tiny = golden("tiny-2");
    let said = complaint(&["info", tiny.to_str().unwrap()], &[("HUGGINGFACE_MODEL_TYPE", "multi")]);
    assert!(said.contains("no intent head"), "{said}");
    let said = complaint(&["info", folder], &[("HUGGINGFACE_MODEL_TYPE", "both")]);
    assert!(said.contains("'single' or 'multi'"), "{said}");

    let info = answer(&["info", folder, "--json"], &[("CUDA_VISIBLE_DEVICES", "")]);
    assert!(info["device_reason"].as_str().unwrap().contains("CUDA_VISIBLE_DEVICES"), "{info}");
    let said = complaint(&["info", folder, "--device", "wgpu"], &[("CUDA_VISIBLE_DEVICES", "")]);
    assert!(said.contains("forces the CPU"), "{said}");
    let said = complaint(&["info", folder, "--dtype", "f16", "--device", "cpu"], &[]);
    assert!(said.contains("f32 or int8"), "{said}");
}

#[test]
fn what_cannot_be_used_is_said_in_one_sentence() {
    let said = complaint(&["info", "./no/such/folder"], &[]);
    assert!(said.contains("was not found"), "{said}");
    let said = complaint(&["info", "shop/no-such-model"], &[]);
    assert!(said.contains("HF_HUB_OFFLINE"), "{said}");
    let head = golden("heads/head-only");
    let said = complaint(&["info", head.to_str().unwrap()], &[]);
    assert!(said.contains("okyeame-tests/tiny-multilingual"), "{said}");
    let mms = golden("wav2vec2-mms");
    let said = complaint(&["info", mms.to_str().unwrap(), "--adapter", "xyz"], &[]);
    assert!(said.contains("xyz"), "{said}");
    let empty = tempfile::tempdir().unwrap();
    let said = complaint(&["info", empty.path().to_str().unwrap()], &[]);
    assert!(said.contains("model.safetensors"), "{said}");
}

/// README's table of what goes wrong holds each message as it is printed.
#[test]
fn readme_has_the_messages_as_they_are_printed() {
    let readme = std::fs::read_to_string(golden("../../README.md")).unwrap();
    let (tiny, mms, head) = (golden("tiny-2"), golden("wav2vec2-mms"), golden("heads/one-encoder"));
    let clip = golden("clips/tw_go_cart.flac");
    let path = |path: &'static str| golden(path).to_str().unwrap().to_owned();
    let empty = tempfile::tempdir().unwrap();
    let calls: [Vec<&str>; 5] = [
        vec!["info", "./x"],
        vec!["info", empty.path().to_str().unwrap()],
        vec!["info", mms.to_str().unwrap(), "--adapter", "tw"],
        vec!["recognize", clip.to_str().unwrap(), "--model", tiny.to_str().unwrap(), "--language", "xx"],
        vec!["info", tiny.to_str().unwrap(), "--device", "cuda"],
    ];
    for call in calls {
        if cfg!(feature = "cuda") && call.contains(&"cuda") {
            continue;
        }
        let said = complaint(&call, &[]);
        let said = said.trim().trim_start_matches("error: ");
        assert!(readme.contains(said), "README lacks: {said}");
    }
    // What a folder is told to lack is in `info`.
    let unlabelled = tempfile::tempdir().unwrap();
    for file in ["config.json", "generation_config.json", "tokenizer.json", "model.safetensors"] {
        std::fs::copy(head.join(file), unlabelled.path().join(file)).unwrap();
    }
    for folder in [path("tiny-2"), unlabelled.path().to_str().unwrap().to_owned()] {
        let info = answer(&["info", &folder, "--json"], &[]);
        let fallbacks: Vec<&str> = info["fallbacks"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
        let told = fallbacks.iter().filter(|f| readme.contains(**f)).count();
        assert!(told > 0, "README has none of {fallbacks:?}");
    }
}

#[test]
fn a_profile_tells_where_the_time_of_a_clip_goes() {
    let folder = tempfile::tempdir().unwrap();
    let json = folder.path().join("profile.json");
    let (model, clip) = (golden("tiny-multilingual"), golden("clips/tw_go_cart.flac"));
    let (model, clip) = (model.to_str().unwrap(), clip.to_str().unwrap());
    let (command, words) = (format!("command:sw:{clip}"), format!("transcribe:sw:{clip}"));
    let further = ["--runs", "2", "--device", "cpu", "--dtype", "int8", "--model", model];
    let asked = ["bench", "--profile", &command, "--profile", &words, "--json", json.to_str().unwrap()];
    let out = okyeame(&[&asked[..], &further[..]].concat(), &[]);
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let printed = String::from_utf8(out.stdout).unwrap();
    assert!(printed.contains("| GEMM peak ") && printed.contains("The encoder's linear layers: "), "{printed}");

    let report: Value = serde_json::from_slice(&std::fs::read(&json).unwrap()).unwrap();
    assert_eq!((&report["dtype"], &report["runs"]), (&Value::from("int8"), &Value::from(2)));
    for int8 in [false, true] {
        let of_type = |peak: &&Value| peak["int8"] == int8 && peak["gops"].as_f64().unwrap() > 0.0;
        assert_eq!(report["peaks"].as_array().unwrap().iter().filter(of_type).count(), 2, "{}", report["peaks"]);
    }
    let clips = report["clips"].as_array().unwrap();
    assert_eq!(clips.len(), 2);
    for (clip, stages) in clips.iter().zip([&["encoder"][..], &["encoder", "cross keys", "decoder", "vocabulary"][..]])
    {
        let shares = |rows: &str| {
            let rows = clip[rows].as_array().unwrap();
            rows.iter().map(|row| row["share"].as_f64().unwrap()).sum::<f64>()
        };
        assert!((shares("stages") - 1.0).abs() < 1e-6, "{}", clip["stages"]);
        let of_kernels = shares("ops");
        assert!(of_kernels > 0.0 && of_kernels <= 1.0, "{of_kernels}");
        for stage in stages {
            let of_stage = |row: &&Value| row["stage"] == *stage && row["gops"].as_f64().is_some_and(|gops| gops > 0.0);
            assert!(clip["ops"].as_array().unwrap().iter().any(|row| of_stage(&row)), "{stage}: {}", clip["ops"]);
        }
        let of_peak = clip["encoder_linear"]["of_peak"].as_f64().unwrap();
        assert!(of_peak > 0.0, "{of_peak}");
    }
    let missing = ["bench", "--profile", "command:sw:nowhere.wav"];
    assert!(complaint(&[&missing[..], &further[..]].concat(), &[]).contains("reading the clip"));
}
