//! `okyeame train` and `okyeame eval` as a person calls them: the real binary, the tiny Whisper of `tests/golden`, and
//! a corpus that is made here. What goes well is in this file, what is refused in `refusals`.
//!
//! What a head can do on speech is measured by `okyeame eval` itself, not here: see models/twi-shop.

#![allow(clippy::unwrap_used, reason = "tests")]

#[path = "../../../core/tests/hub/account.rs"]
#[allow(dead_code, reason = "the hub's own tests use the rest")]
mod account;
mod circle;
mod corpus;
mod refusals;
#[path = "../../../core/tests/hub/server.rs"]
#[allow(dead_code, reason = "the hub's own tests use the rest")]
mod server;

use std::fs;

use serde_json::{Value, json};

use corpus::{BASE, BASE_NAME, COMMANDS, Corpus, HEAD_FILES, LEARN, answers, done, said};

/// What a run is to end with, however often it was killed.
const RESULTS: [&str; 9] = [
    "model/model.safetensors",
    "model/config.json",
    "model/intent_labels.json",
    "model/calibration.json",
    "splits.csv",
    "plan.json",
    "words.jsonl",
    "seed-1/training.json",
    "seed-1/curves.svg",
];

/// Keys of evaluation.json that hold a share.
const SHARES: [&str; 18] = [
    "value",
    "low",
    "high",
    "accuracy",
    "macro_f1",
    "accepted",
    "wrong_accepts",
    "false_accepts",
    "recall",
    "precision",
    "f1",
    "confidence",
    "coverage",
    "risk",
    "accuracy_audio",
    "accuracy_words",
    "accuracy_fused",
    "train_accuracy",
];

fn shares(value: &Value, found: &mut Vec<f64>) {
    match value {
        Value::Array(values) => values.iter().for_each(|value| shares(value, found)),
        Value::Object(map) => map.iter().for_each(|(key, value)| match value.as_f64() {
            Some(share) if SHARES.contains(&key.as_str()) => found.push(share),
            _ => shares(value, found),
        }),
        _ => {}
    }
}

/// Puts other ends to every interval.
fn set_intervals(value: &mut Value, low: f64, high: f64) {
    match value {
        Value::Array(values) => values.iter_mut().for_each(|value| set_intervals(value, low, high)),
        Value::Object(map) if map.contains_key("low") => {
            map.insert("low".to_owned(), json!(low));
            map.insert("high".to_owned(), json!(high));
        }
        Value::Object(map) => map.values_mut().for_each(|value| set_intervals(value, low, high)),
        _ => {}
    }
}

#[test]
fn recordings_become_a_head_a_report_and_answers() {
    let corpus = Corpus::new();
    let stderr = done(corpus.train("manifest.csv", "run", &LEARN));
    assert!(stderr.contains("The head of seed 1 is in run/model"), "{stderr}");
    assert_eq!(corpus.json("run/plan.json")["fit"]["epochs"], 40);
    let training = corpus.json("run/seed-1/training.json");
    let losses: Vec<f64> =
        training["epochs"].as_array().unwrap().iter().map(|epoch| epoch["train_loss"].as_f64().unwrap()).collect();
    assert!(losses.len() == 40 && losses[39] < losses[0], "{losses:?}");
    assert!(corpus.text("run/seed-1/curves.svg").contains("<svg"));
    for file in HEAD_FILES {
        assert_eq!(corpus.bytes(&format!("run/model/{file}")), corpus.bytes(&format!("run/seed-1/model/{file}")));
    }
    assert_eq!(corpus.json("run/model/intent_labels.json")["labels"].as_array().unwrap().len(), 49);
    assert_eq!(corpus.json("run/model/config.json")["_name_or_path"], BASE_NAME);
    // It writes the words of what it learned from, and of nothing that tests it.
    let sentences = corpus.text("run/model/sentences.txt");
    assert!(sentences.lines().any(|line| line.starts_with("fa gu kɛntɛn mu")), "{sentences}");
    let temperature = corpus.json("run/model/calibration.json")["temperature"].as_f64().unwrap();
    assert!(temperature > 0.0, "{temperature}");

    // Every clip has its part, and what is called unseen is nowhere in training or validation.
    let splits = corpus.text("run/splits.csv");
    let rows: Vec<Vec<&str>> = splits.lines().skip(1).map(|line| line.split(',').collect()).collect();
    assert_eq!(rows.len(), corpus.text("manifest.csv").lines().count() - 1);
    let learned = |row: &Vec<&str>| row[3] == "train" || row[3].starts_with("validation");
    for (column, cells) in [(1, ["test_voice", "test_both"]), (2, ["test_wording", "test_both"])] {
        let unseen: Vec<&str> = rows.iter().filter(|row| cells.contains(&row[3])).map(|row| row[column]).collect();
        assert!(!unseen.is_empty() && !rows.iter().any(|row| learned(row) && unseen.contains(&row[column])));
    }

    // The report.
    let eval = |out: &str, more: &[&str]| {
        let mut command = corpus.okyeame(&["eval", "run/model", "--data", "manifest.csv", "--base", BASE]);
        command.args(["--splits", "run/splits.csv", "--out", out, "--noisy-clips", "4", "--sounds", "1"]).args(more);
        command
    };
    let stderr = done(eval("report", &["--word-clips", "4", "--card", "run/model"]));
    assert!(stderr.contains("The report is report/report.html"), "{stderr}");
    let evaluation = corpus.json("report/evaluation.json");
    assert_eq!(evaluation, corpus.json("run/model/evaluation.json"));
    let mut found = Vec::new();
    shares(&evaluation, &mut found);
    assert!(found.len() > 100, "{} shares", found.len());
    assert!(found.iter().all(|share| (0.0..=1.0).contains(share)), "{found:?}");
    assert_eq!((&evaluation["model"]["base"], &evaluation["words"]["n"]), (&json!(BASE_NAME), &json!(4)));
    let all = evaluation["splits"].as_array().unwrap().iter().find(|split| split["name"] == "test_all").unwrap();
    assert!(all["accuracy"]["value"].as_f64().unwrap() > 0.5, "chance is 0.25: {all}");
    let kinds: Vec<&Value> = evaluation["out_of_scope"].as_array().unwrap().iter().map(|one| &one["kind"]).collect();
    assert!(kinds.contains(&&json!("talk")) && kinds.contains(&&json!("white")), "{kinds:?}");
    let html = corpus.text("report/report.html");
    assert!(html.contains("<svg"));
    for resource in ["http:", "https:", "src=", "href=", "url(", "@import", "<link", "<script", "<iframe"] {
        assert!(!html.contains(resource), "the report loads something by {resource}");
    }
    let card = corpus.text("run/model/README.md");
    assert!(card.starts_with("---\n") && card.contains(BASE_NAME) && card.contains("`add_to_cart`"), "{card}");

    // An earlier evaluation that this one agrees with, and one that it does not.
    for (file, low, high, code) in [("wide.json", 0.0, 1.0, 0), ("other.json", 2.0, 3.0, 1)] {
        let mut earlier = evaluation.clone();
        set_intervals(&mut earlier, low, high);
        fs::write(corpus.path(file), earlier.to_string()).unwrap();
        let (got, stderr) = said(eval("again", &["--word-clips", "0", "--compare", file]));
        assert_eq!(got, Some(code), "{stderr}");
        let is_other = |line: &str| line.starts_with("OTHER") && line.contains("Unseen voices, accuracy");
        assert_eq!(stderr.lines().any(is_other), code == 1, "{stderr}");
    }

    // What was trained answers.
    let mut n_right = 0;
    for speaker in ["ama", "kofi"] {
        let clips = COMMANDS.map(|(intent, ..)| format!("clips/{intent}-0-{speaker}.wav"));
        let mut command = corpus.okyeame(&["recognize", "--json", "--model", "run/model", "--base", BASE]);
        command.args(&clips);
        let heard = answers(command);
        assert!(
            heard.len() == 4 && heard.iter().all(|answer| answer["model_type"] == "whisper_multitask"),
            "{heard:?}"
        );
        let pairs = heard.iter().zip(&COMMANDS);
        n_right += pairs.filter(|(answer, command)| answer["top_predictions"][0]["intent"] == command.0).count();
    }
    assert!(n_right >= 4, "chance is 2 of 8: {n_right}");
    let info = answers(corpus.okyeame(&["info", "run/model", "--base", BASE, "--json"])).remove(0);
    assert_eq!((&info["task"], &info["head_window"]), (&json!("multi"), &json!("fitted")));
    assert_eq!(info["labels"].as_array().unwrap().len(), 49);
}

#[test]
fn a_killed_run_goes_on_and_ends_as_one_that_was_left_alone() {
    let corpus = Corpus::new();
    done(corpus.train("manifest.csv", "whole", &LEARN));
    let same = |what: &str| {
        for file in RESULTS {
            let (whole, cut) = (corpus.bytes(&format!("whole/{file}")), corpus.bytes(&format!("cut/{file}")));
            assert!(whole == cut, "{what}: {file} is another");
        }
    };
    // In the encoder's work, then behind the first epoch.
    for path in ["cut/cache/index.tsv", "cut/seed-1/checkpoints/checkpoint/state.json"] {
        corpus.train_until(path, "cut", &LEARN);
        assert!(!corpus.path("cut/model").exists() && !corpus.path("cut/seed-1/model").exists());
    }
    let stderr = done(corpus.train("manifest.csv", "cut", &LEARN));
    assert!(stderr.contains("going on behind epoch") && !stderr.contains("behind epoch 40"), "{stderr}");
    same("after two kills");
    let stderr = done(corpus.train("manifest.csv", "cut", &LEARN));
    assert!(stderr.contains("going on behind epoch 40"), "{stderr}");
    same("started again at its end");
}

#[test]
fn help_has_examples_and_every_option() {
    let corpus = Corpus(tempfile::tempdir().unwrap());
    let options_of_train = "data out base base-name labels skip-bad splits split-seed test-speakers seeds cache copies \
                            augment noise-clips fusion-clips epochs patience batch-size learning-rate weight-decay \
                            dropout label-smoothing mask position-stride states width pools contexts context-kernel \
                            no-letters phrases sentences letters-weight hidden lora lora-rank lora-epochs threads";
    let options_of_eval = "data splits out base skip-bad word-clips noisy-clips sounds synthetic note card compare \
                           title license threads";
    let example_of_train = "okyeame train --data recordings/manifest.csv --out runs/first";
    let example_of_eval = "okyeame eval runs/first/model --data manifest.csv --splits runs/first/splits.csv";
    for (name, options, example) in
        [("train", options_of_train, example_of_train), ("eval", options_of_eval, example_of_eval)]
    {
        let out = corpus.okyeame(&[name, "--help"]).output().unwrap();
        assert!(out.status.success() && out.stderr.is_empty());
        let help = String::from_utf8(out.stdout).unwrap();
        // However wide the terminal is.
        let unwrapped = help.split_whitespace().collect::<Vec<&str>>().join(" ");
        assert!(unwrapped.contains("Examples:") && unwrapped.contains(example), "{help}");
        let lines: Vec<&str> = help.lines().map(str::trim).collect();
        for option in options.split_whitespace() {
            let option = format!("--{option}");
            let names_it = |line: &&str| line.split_whitespace().next() == Some(option.as_str());
            assert!(lines.iter().any(names_it), "{name} {option}");
        }
    }
}
