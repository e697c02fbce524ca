//! Bad manifests, options out of range, models that are not there: what is said, and that nothing is left behind.

use std::fs::{self, File};

use crate::corpus::{BASE, BASE_NAME, Corpus, GOOD, HASTE, HEAD_FILES, HEADER, complaint, done, said, wav};

#[test]
fn a_bad_manifest_is_refused_before_any_work() {
    let corpus = Corpus::new();
    corpus.clip("clips/zero.wav", 200.0, &[(1.0, 1.0)], 0.0);
    let long: Vec<i16> = (0..600 * 16_000).map(|at| (at % 99 * 100) as i16).collect();
    fs::write(corpus.path("clips/long.wav"), wav(&long)).unwrap();
    fs::write(corpus.path("clips/words.wav"), "these are words, not sound").unwrap();
    fs::copy(corpus.path("clips/search-0-ama.wav"), corpus.path("clips/copy.wav")).unwrap();
    let with = |line: &str| format!("{HEADER}\n{GOOD}{line}\n").into_bytes();
    let in_splits = "path,intent,split\nclips/search-0-ama.wav,search,train\nclips/search-0-kofi.wav,search,train\n\
                     clips/copy.wav,search,test\n";
    let of_json = |clip: &str| format!("{{\"path\": \"clips/{clip}.wav\", \"intent\": \"search\"}}\n");
    let broken_json = format!("{}{}{{\"path\": \n", of_json("search-0-ama"), of_json("search-0-kofi"));
    let cases: [(&str, Vec<u8>, &[&str]); 13] = [
        ("m.csv", with("clips/gone.wav,a,search,ama,"), &["line 4: clips/gone.wav: no such file"]),
        (
            "m.csv",
            with("clips/go_back-0-ama.wav,a,serch,ama,"),
            &["line 4: clips/go_back-0-ama.wav: the intent 'serch' is not in the list; is it 'search'?"],
        ),
        (
            "m.csv",
            with("clips/go_back-0-ama.wav,a,go_back,ama,"),
            &["line 4: clips/go_back-0-ama.wav: the intent 'go_back' has 1 recording, at least 2 are needed"],
        ),
        ("m.csv", with("clips/zero.wav,a,search,ama,"), &["line 4: clips/zero.wav: the audio is empty"]),
        (
            "m.csv",
            with("clips/long.wav,a,search,ama,"),
            &["line 4: clips/long.wav: it is 600.0 s long; at most 30 s are allowed"],
        ),
        ("m.csv", with("clips/words.wav,a,search,ama,"), &["line 4: clips/words.wav: this is not audio"]),
        (
            "m.csv",
            with("clips/copy.wav,a,none,ama,"),
            &[
                "line 2: clips/search-0-ama.wav: the same audio as line 4 (clips/copy.wav), which has another intent",
                "line 4: clips/copy.wav: the same audio as line 2 (clips/search-0-ama.wav), which has another intent",
            ],
        ),
        (
            "m.csv",
            in_splits.into(),
            &["line 4: clips/copy.wav: the same audio as line 2 (clips/search-0-ama.wav), which is in another split"],
        ),
        ("m.jsonl", broken_json.into(), &["m.jsonl has 1 problem: line 3: the line is not valid JSON"]),
        ("m.csv", Vec::new(), &["m.csv has 1 problem: it is empty"]),
        ("m.csv", format!("{HEADER}\n").into(), &["m.csv has 1 problem: it has no rows"]),
        // A sound file that was given in the manifest's place, and bytes of no meaning.
        ("m.wav", corpus.bytes("clips/copy.wav"), &["its first line lacks the column path and intent"]),
        ("m.csv", (0..3000).map(|at| (at * at % 251) as u8).collect(), &["its first line lacks the column"]),
    ];
    for (name, bytes, expected) in cases {
        fs::write(corpus.path(name), bytes).unwrap();
        let (code, stderr) = said(corpus.train(name, "run", &HASTE));
        assert_eq!((code, stderr.lines().count()), (Some(1), 1), "{expected:?}: {stderr}");
        for part in expected {
            assert!(stderr.starts_with("error: ") && stderr.contains(part), "{part}: {stderr}");
        }
        assert!(!stderr.trim_end().chars().any(char::is_control), "{stderr:?}");
        assert!(!corpus.path("run").exists(), "work was done for {expected:?}");
    }
    for (name, expected) in [("clips", "reading clips: "), ("nowhere.csv", "reading nowhere.csv: ")] {
        let stderr = complaint(corpus.train(name, "run", &HASTE));
        assert!(stderr.contains(expected) && !corpus.path("run").exists(), "{stderr}");
    }
}

#[test]
fn skip_bad_goes_on_and_lists_what_it_left_out() {
    let corpus = Corpus::new();
    corpus.clip("clips/zero.wav", 200.0, &[(1.0, 1.0)], 0.0);
    corpus.clip("clips/one.wav", 333.0, &[(2.0, 3.0), (3.0, 2.0)], 1.0);
    let manifest = corpus.text("manifest.csv");
    let n = manifest.lines().count();
    let bad = "clips/gone.wav,a,search,ama,\nclips/zero.wav,a,search,ama,\nclips/talk-0-ama.wav,a,serch,ama,\n";
    fs::write(corpus.path("bad.csv"), format!("{manifest}{bad}")).unwrap();
    fs::write(corpus.path("worse.csv"), format!("{manifest}{bad}clips/one.wav,a,show_cart,ama,\n")).unwrap();

    let stderr = done(corpus.train("worse.csv", "run", &[&HASTE[..], &["--skip-bad"][..]].concat()));
    let left_out: Vec<&str> = stderr.lines().filter_map(|line| line.strip_prefix("left out: ")).collect();
    let expected = [
        "clips/gone.wav: no such file",
        "clips/zero.wav: the audio is empty",
        "clips/talk-0-ama.wav: the intent 'serch' is not in the list",
        "clips/one.wav: the intent 'show_cart' has 1 recording, at least 2 are needed",
    ];
    assert_eq!(left_out.len(), expected.len(), "{stderr}");
    for (at, (line, expected)) in left_out.iter().zip(expected).enumerate() {
        assert!(line.starts_with(&format!("line {}: {expected}", n + 1 + at)), "{line}");
    }
    let splits = corpus.text("run/splits.csv");
    assert_eq!(splits.lines().count(), n, "the good lines, each once");
    assert!(!["gone.wav", "zero.wav", "one.wav"].iter().any(|clip| splits.contains(clip)));
    assert!(corpus.path("run/model/model.safetensors").is_file());

    let eval = |more: &[&str]| {
        let mut command = corpus.okyeame(&["eval", "run/model", "--data", "bad.csv", "--splits", "run/splits.csv"]);
        command.args(["--base", BASE, "--out", "report", "--word-clips", "0", "--noisy-clips", "0", "--sounds", "0"]);
        command.args(more);
        command
    };
    let stderr = complaint(eval(&[]));
    assert!(stderr.contains(&format!("bad.csv has 3 problems: line {}: clips/gone.wav", n + 1)), "{stderr}");
    assert!(!corpus.path("report").exists());
    let stderr = done(eval(&["--skip-bad"]));
    assert_eq!(stderr.matches("left out: line ").count(), 3, "{stderr}");

    // Nothing is left to go on with.
    fs::write(corpus.path("none.csv"), format!("{HEADER}\n{bad}")).unwrap();
    let stderr = complaint(corpus.train("none.csv", "none", &[&HASTE[..], &["--skip-bad"][..]].concat()));
    assert!(stderr.contains("none.csv has 3 problems: line 2: "), "{stderr}");
    assert!(!corpus.path("none").exists());
}

#[test]
fn options_that_train_cannot_follow_are_said() {
    let corpus = Corpus::new();
    fs::write(corpus.path("nothing.txt"), "").unwrap();
    fs::write(corpus.path("augment.json"), "{\"nonsense\": 7}").unwrap();
    let wav2vec2 = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/golden/wav2vec2-base");
    // `few.csv`: an option is refused whatever the data are.
    let train = |out: &str, more: &[&str]| {
        let mut command = corpus.okyeame(&["train", "--data", "few.csv", "--out", out, "--copies", "0"]);
        command.args(["--noise-clips", "9", "--fusion-clips", "0"]).args(more);
        command
    };
    let cases: [(&[&str], &str); 19] = [
        (&["--base", BASE, "--epochs", "0"], "epochs is out of range: 1 to 10000"),
        (&["--base", BASE, "--epochs", "10001"], "epochs is out of range: 1 to 10000"),
        (&["--base", BASE, "--batch-size", "0"], "batch_size is out of range: 1 to 4096"),
        (&["--base", BASE, "--learning-rate", "0"], "learning_rate is out of range: above 0, up to 1"),
        (&["--base", BASE, "--learning-rate", "nan"], "learning_rate is out of range: above 0, up to 1"),
        (&["--base", BASE, "--weight-decay", "2"], "weight_decay is out of range: 0 to 1"),
        (&["--base", BASE, "--dropout", "1"], "dropout is out of range"),
        (&["--base", BASE, "--label-smoothing", "1"], "label_smoothing is out of range"),
        (&["--base", BASE, "--mask", "2"], "mask is out of range: 0 to 1"),
        (&["--base", BASE, "--letters-weight", "200"], "letters_weight is out of range: 0 to 100"),
        (&["--base", BASE, "--width", "16", "--pools", "5"], "the number of pools divides"),
        (&["--base", BASE, "--context-kernel", "4"], "odd number"),
        (&["--base", BASE, "--lora", "9"], "lora is out of range: 0 to 2"),
        (&["--base", BASE, "--labels", "nothing.txt"], "labels cannot be used: it needs one label on each line"),
        (&["--base", BASE, "--augment", "augment.json"], "augment cannot be used: unknown field `nonsense`"),
        (&["--base", BASE, "--splits", "few.csv"], "splits.csv cannot be used"),
        (&["--base", "./no/such/folder"], "the folder './no/such/folder' was not found"),
        (&["--base", "shop/no-such-model"], "unset HF_HUB_OFFLINE"),
        (&["--base", wav2vec2], "name a Whisper"),
    ];
    for (at, (more, expected)) in cases.into_iter().enumerate() {
        let out = format!("run-{at}");
        let stderr = complaint(train(&out, more));
        assert!(stderr.contains(expected), "{more:?}: {stderr}");
        assert!(!corpus.path(&out).join("model").exists(), "{more:?}");
        let is_of_base = more.len() == 2;
        assert!(!is_of_base || !corpus.path(&out).join("cache").exists(), "{more:?}");
    }
    // What is not even a call has exit code 2, as in every command.
    let calls: [(&[&str], &str); 6] = [
        (&["--epochs", "many"], "invalid value 'many' for '--epochs <N>'"),
        (&["--seeds", "1,x"], "invalid value 'x' for '--seeds <NUMBERS>'"),
        (&["--learning-rate", "fast"], "invalid value 'fast' for '--learning-rate <RATE>'"),
        (&["--epoch", "3"], "'--epochs'"),
        (&["--no-letters", "--phrases", "x.csv"], "cannot be used with"),
        (&["--data", "few.csv"], "cannot be used multiple times"),
    ];
    for (more, expected) in calls {
        let (code, stderr) = said(train("run", more));
        assert!(code == Some(2) && stderr.contains(expected), "{more:?}: {code:?} {stderr}");
    }
    let (code, stderr) = said(corpus.okyeame(&["train", "--data", "few.csv"]));
    assert!(code == Some(2) && stderr.contains("--out <FOLDER>"), "{stderr}");
    assert!(!corpus.path("run").exists());

    // Two runs at once on one cache would spoil it.
    fs::create_dir(corpus.path("shared")).unwrap();
    let index = File::create(corpus.path("shared/index.tsv")).unwrap();
    index.lock().unwrap();
    let stderr = complaint(train("run", &["--base", BASE, "--cache", "shared"]));
    assert!(stderr.contains("another process is using it"), "{stderr}");
}

#[test]
fn what_eval_cannot_measure_is_said() {
    let corpus = Corpus::new();
    done(corpus.train("manifest.csv", "run", &HASTE));
    fs::create_dir(corpus.path("damaged")).unwrap();
    for file in HEAD_FILES {
        fs::write(corpus.path(&format!("damaged/{file}")), corpus.bytes(&format!("run/model/{file}"))).unwrap();
    }
    fs::write(corpus.path("damaged/model.safetensors"), &corpus.bytes("run/model/model.safetensors")[..999]).unwrap();
    let splits = corpus.text("run/splits.csv");
    let first_clips: Vec<&str> = splits.lines().take(9).collect();
    fs::write(corpus.path("other.csv"), first_clips.join("\n")).unwrap();

    let cases: [(&str, &str, &str, &str, &str); 8] = [
        ("run/model", "manifest.csv", "run/splits.csv", "./no/such", "the folder './no/such' was not found"),
        ("run/model", "manifest.csv", "run/splits.csv", "shop/no-such-model", "unset HF_HUB_OFFLINE"),
        ("nowhere", "manifest.csv", "run/splits.csv", BASE, "the model folder was not found"),
        (BASE, "manifest.csv", "run/splits.csv", BASE, "name the folder of an intent head"),
        ("damaged", "manifest.csv", "run/splits.csv", BASE, "the weight file model.safetensors is damaged"),
        ("run/model", "nowhere.csv", "run/splits.csv", BASE, "reading nowhere.csv"),
        ("run/model", "manifest.csv", "nowhere.csv", BASE, "splits.csv cannot be used"),
        ("run/model", "manifest.csv", "other.csv", BASE, "154 clips are not in it"),
    ];
    for (model, data, splits, base, expected) in cases {
        let mut command = corpus.okyeame(&["eval", model, "--data", data, "--splits", splits]);
        command.args(["--base", base, "--out", "report"]);
        let stderr = complaint(command);
        assert!(stderr.contains(expected), "{expected}: {stderr}");
        assert!(!corpus.path("report/report.html").exists(), "{expected}");
    }
    // The head names its base by a repository, which is not on this disk.
    let stderr = complaint(corpus.okyeame(&["eval", "run/model", "--data", "manifest.csv"]));
    assert!(stderr.contains(BASE_NAME) && stderr.contains("HF_HUB_OFFLINE"), "{stderr}");
    let (code, stderr) = said(corpus.okyeame(&["eval", "--data", "manifest.csv"]));
    assert!(code == Some(2) && stderr.contains("<MODEL>..."), "{stderr}");
}
