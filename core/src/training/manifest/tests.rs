#![allow(clippy::unwrap_used)]

use std::fs;

use proptest::prelude::*;
use tempfile::TempDir;

use super::*;

/// A 16-bit mono WAV at 16 kHz of a tone; another `hz` is other audio.
fn wav(seconds: f64, hz: f64) -> Vec<u8> {
    let n = (seconds * 16_000.0).round() as u32;
    let mut bytes = b"RIFF".to_vec();
    bytes.extend((36 + 2 * n).to_le_bytes());
    bytes.extend(b"WAVEfmt ");
    bytes.extend(16_u32.to_le_bytes());
    bytes.extend([1_u16, 1].iter().flat_map(|v| v.to_le_bytes()));
    bytes.extend([16_000_u32, 32_000].iter().flat_map(|v| v.to_le_bytes()));
    bytes.extend([2_u16, 16].iter().flat_map(|v| v.to_le_bytes()));
    bytes.extend(b"data");
    bytes.extend((2 * n).to_le_bytes());
    let sample = |at: u32| (8000.0 * (std::f64::consts::TAU * hz * f64::from(at) / 16_000.0).sin()) as i16;
    bytes.extend((0..n).flat_map(|at| sample(at).to_le_bytes()));
    bytes
}

/// A folder with the clips `0.wav` … `9.wav`, each other audio.
fn clips() -> TempDir {
    let folder = TempDir::new().unwrap();
    for at in 0..10 {
        fs::write(folder.path().join(format!("{at}.wav")), wav(0.5, 200.0 + 50.0 * f64::from(at))).unwrap();
    }
    folder
}

fn read_with(folder: &TempDir, name: &str, table: &[u8], options: &ManifestOptions) -> Result<Manifest> {
    let path = folder.path().join(name);
    fs::write(&path, table).unwrap();
    read_manifest(&path, options, &|_, _| {})
}

fn read(folder: &TempDir, name: &str, table: impl AsRef<[u8]>) -> Result<Manifest> {
    read_with(folder, name, table.as_ref(), &ManifestOptions::default())
}

fn skipping(folder: &TempDir, table: impl AsRef<[u8]>) -> Manifest {
    let options = ManifestOptions { skip_bad: true, ..ManifestOptions::default() };
    read_with(folder, "m.csv", table.as_ref(), &options).unwrap()
}

/// The problems of a manifest that has to be refused.
fn problems(manifest: Result<Manifest>) -> Vec<String> {
    match manifest {
        Err(Error::BadManifest { problems, n_problems, .. }) => {
            assert_eq!(problems.len(), n_problems.min(MAX_SHOWN_PROBLEMS));
            problems
        }
        other => panic!("expected a bad manifest, got {other:?}"),
    }
}

/// A table of two good lines of `search`, and these behind them, from line 4.
fn with_lines(header: &str, lines: &str) -> String {
    let commas = ",".repeat(header.split(',').count() - 2);
    format!("{header}\n8.wav,search{commas}\n9.wav,search{commas}\n{lines}\n")
}

fn label(name: &str) -> Option<usize> {
    crate::intent::label_id(name)
}

#[test]
fn a_table_is_read_with_all_its_fields() {
    let folder = clips();
    let table = "\u{FEFF}path,text,intent,slots,speaker,wording,kind,language,split,mood\r\n\
        0.wav,\"Fa yei, to cart no mu\",Add to-Cart,\"{\"\"quantity\"\": 2}\",ama,w1,,tw,train,good\r\n\r\n\
        1.wav,Fa yei to cart no mu,add_to_cart,,kofi,,,,Train,\r\n\
        2.wav,Ɛte sɛn,NONE,,ama,,,,train,\r\n";
    let manifest = read(&folder, "m.csv", table).unwrap();
    let [first, second, talk] = manifest.examples.as_slice() else { panic!("{manifest:?}") };
    assert_eq!((first.line, second.line, talk.line), (2, 4, 5), "a blank line counts");
    assert_eq!((first.text.as_str(), first.label), ("Fa yei, to cart no mu", label("add_to_cart")));
    assert_eq!(first.slots["quantity"], 2);
    assert_eq!((first.kind.as_str(), first.language.as_str(), first.split), ("command", "tw", Some(Cell::Train)));
    assert_eq!((second.wording.as_str(), second.label), ("w1", first.label), "the same text has the wording's name");
    assert_eq!((talk.label, talk.kind.as_str(), talk.wording.as_str()), (None, "talk", "etesen"));
    assert_eq!(first.path, folder.path().join("0.wav"));
    assert!((first.duration_s - 0.5).abs() < 1e-9);
    assert!(first.content != second.content && first.content != [0; 32]);
    assert!(manifest.notes.contains(&"columns that are not read: mood".to_owned()), "{:?}", manifest.notes);
}

#[test]
fn json_lines_say_the_same_as_a_table() {
    let folder = clips();
    let csv = read(
        &folder,
        "m.csv",
        "path,intent,slots,speaker\n0.wav,search,\"{\"\"size\"\": \"\"large\"\"}\",7\n1.wav,search,,7\n",
    );
    let json = "{\"path\": \"0.wav\", \"intent\": \"search\", \"slots\": {\"size\": \"large\"}, \"speaker\": 7}\n\
                {\"path\": \"1.wav\", \"intent\": \"search\", \"slots\": null, \"speaker\": \"7\"}\n";
    let mut expected = csv.unwrap();
    for example in &mut expected.examples {
        example.line -= 1;
    }
    for name in ["m.jsonl", "m.json", "manifest"] {
        assert_eq!(read(&folder, name, json).unwrap(), expected, "{name}");
    }
    let tsv = read(&folder, "m.tsv", "path\tintent\n0.wav\tsearch\n1.wav\tsearch\n").unwrap();
    assert_eq!(tsv.examples.len(), 2);
}

#[test]
fn every_bad_line_is_named_with_what_is_wrong() {
    let folder = clips();
    fs::create_dir(folder.path().join("folder.wav")).unwrap();
    fs::write(folder.path().join("words.wav"), "these are words, not sound").unwrap();
    fs::write(folder.path().join("zero.wav"), wav(0.0, 1.0)).unwrap();
    fs::write(folder.path().join("short.wav"), wav(0.05, 300.0)).unwrap();
    fs::write(folder.path().join("long.wav"), wav(601.0, 300.0)).unwrap();
    let cases = [
        ("gone.wav,search,,", "line 4: gone.wav: no such file"),
        ("folder.wav,search,,", "line 4: folder.wav: it is a folder"),
        ("words.wav,search,,", "line 4: words.wav: this is not audio of a known format"),
        ("zero.wav,search,,", "line 4: zero.wav: the audio is empty"),
        ("short.wav,search,,", "line 4: short.wav: it is 0.050 s long; at least 0.1 s are needed"),
        ("long.wav,search,,", "line 4: long.wav: it is 601.0 s long; at most 30 s are allowed"),
        ("0.wav,serch,,", "line 4: 0.wav: the intent 'serch' is not in the list; is it 'search'?"),
        ("0.wav,search,[1],", "line 4: 0.wav: the slots are no JSON object"),
        ("0.wav,search,{,", "line 4: 0.wav: the slots are no JSON object"),
        ("0.wav,search", "line 4: the row has 2 fields, the first line has 4"),
        (",search,,x", "line 4: the path is empty"),
        ("0\0.wav,search,,", "line 4: a field holds a NUL character"),
        ("0.wav,search,,\"ama\n1.wav,search,,ama", "line 4: a field holds a line break: is a quote not closed?"),
        ("0.wav,go_back,,", "line 4: 0.wav: the intent 'go_back' has 1 recording, at least 2 are needed"),
    ];
    for (line, expected) in cases {
        let table = with_lines("path,intent,slots,speaker", line);
        let found = problems(read(&folder, "m.csv", &table));
        assert!(found.len() == 1 && found[0].starts_with(expected), "{line:?}: {found:?}");
        let kept = skipping(&folder, &table);
        assert_eq!((kept.examples.len(), kept.left_out.len()), (2, 1), "{line:?}");
        assert!(kept.left_out[0].to_string().starts_with(expected));
    }
}

#[test]
fn one_line_may_have_two_problems_and_an_error_names_twenty() {
    let folder = clips();
    let two = problems(read(&folder, "m.csv", with_lines("path,intent,slots", "gone.wav,qqq,[]")));
    assert_eq!(two.len(), 3, "{two:?}");
    assert!(two.iter().all(|problem| problem.starts_with("line 4: gone.wav: ")));
    let lines: Vec<String> = (0..25).map(|at| format!("gone{at}.wav,search,")).collect();
    let error = read(&folder, "m.csv", with_lines("path,intent,slots", &lines.join("\n"))).unwrap_err();
    assert_eq!(error.code(), "bad_manifest");
    let sentence = error.to_string();
    assert!(sentence.contains("gone19.wav") && !sentence.contains("gone20.wav"), "{sentence}");
    assert!(sentence.ends_with("and 5 more"), "{sentence}");
    assert!(!sentence.contains(folder.path().to_str().unwrap()), "no folders: {sentence}");
}

#[test]
fn files_that_are_no_manifest_are_refused_as_a_whole() {
    let folder = clips();
    let cases: [(&str, &[u8], &str); 9] = [
        ("m.csv", b"", "it is empty"),
        ("m.csv", b"\xEF\xBB\xBF\r\n", "it is empty"),
        ("m.csv", b"path,intent\n", "it has no rows"),
        ("m.csv", b"path,intent\n,\n", "it has no rows"),
        ("m.csv", b"file;intent\n0.wav;search\n", "its first line lacks the column path and intent"),
        ("m.csv", b"path,intent,path\n0.wav,search,\n", "it has the column 'path' twice"),
        ("m.csv", b"\xFF\xFEp\0", "it is UTF-16"),
        ("m.jsonl", b"[{\"path\": \"0.wav\"}]", "it is one JSON list"),
        ("m.jsonl", b"{\"path\": \"0.wav\"}\n", "none of its lines has the field 'intent'"),
    ];
    for (name, bytes, expected) in cases {
        let found = problems(read(&folder, name, bytes));
        assert!(found.len() == 1 && found[0].starts_with(expected), "{expected}: {found:?}");
    }
    let missing = read_manifest(&folder.path().join("none.csv"), &ManifestOptions::default(), &|_, _| {});
    assert!(matches!(missing, Err(Error::Io { .. })));
}

#[test]
fn bad_lines_of_json_and_bad_text_are_named() {
    let folder = clips();
    let good = "{\"path\": \"8.wav\", \"intent\": \"search\"}\n{\"path\": \"9.wav\", \"intent\": \"search\"}\n";
    let cases = [
        ("{\"path\": ", "line 3: the line is not valid JSON (column "),
        ("3", "line 3: the line is no JSON object"),
        ("{\"path\": \"0.wav\"}", "line 3: the field 'intent' is missing"),
        ("{\"path\": [], \"intent\": null}", "line 3: the field 'path' is not text"),
        ("{\"path\": \"0.wav\", \"intent\": null, \"slots\": 5}", "line 3: 0.wav: the slots are no JSON object"),
    ];
    for (line, expected) in cases {
        let found = problems(read(&folder, "m.jsonl", format!("{good}{line}")));
        assert!(found.len() == 1 && found[0].starts_with(expected), "{line}: {found:?}");
    }
    let found = problems(read(&folder, "m.csv", b"path,intent\n8.wav,search\n9.wav,search\n\xFF.wav,search\n"));
    assert_eq!(found, ["line 4: the line is not UTF-8; save the table as UTF-8"]);
    let long = with_lines("path,intent,text", &format!("0.wav,search,{}", "a".repeat(5_000_000)));
    assert!(problems(read(&folder, "m.csv", long))[0].starts_with("line 4: a field is 5000000 bytes long"));
}

#[test]
fn the_same_audio_counts_once_and_cannot_mean_two_things() {
    let folder = clips();
    fs::copy(folder.path().join("8.wav"), folder.path().join("copy.wav")).unwrap();
    let same =
        read(&folder, "m.csv", with_lines("path,intent,split", "copy.wav,search,").replace(",\n", ",train\n")).unwrap();
    assert_eq!(same.examples.iter().map(|example| example.line).collect::<Vec<_>>(), [2, 3]);
    assert!(same.notes.iter().any(|note| note.ends_with("not used: 4")), "{:?}", same.notes);

    let table = with_lines("path,intent,text", "copy.wav,none,");
    let found = problems(read(&folder, "m.csv", &table));
    assert_eq!(found[0], "line 2: 8.wav: the same audio as line 4 (copy.wav), which has another intent");
    assert_eq!(found[1], "line 4: copy.wav: the same audio as line 2 (8.wav), which has another intent");
    let splits =
        "path,intent,split\n8.wav,search,train\n9.wav,search,train\n0.wav,search,train\ncopy.wav,search,test\n";
    let found = problems(read(&folder, "m.csv", splits));
    assert_eq!(found, ["line 5: copy.wav: the same audio as line 2 (8.wav), which is in another split"]);
}

#[test]
fn splits_are_for_all_lines_or_none_and_test_says_what_it_tests() {
    let folder = clips();
    let header = "path,intent,text,speaker,split\n";
    let some = "0.wav,search,a b,ama,train\n1.wav,search,a b,ama,\n";
    let found = problems(read(&folder, "m.csv", format!("{header}{some}")));
    assert_eq!(found, ["line 3: 1.wav: it has no split, but other lines have one"]);
    let found =
        problems(read(&folder, "m.csv", format!("{header}0.wav,search,a,ama,train\n1.wav,search,a,ama,tset\n")));
    assert!(found[0].starts_with("line 3: 1.wav: the split 'tset' is not known; there are test, train"), "{found:?}");

    let all = "0.wav,search,mepɛ,ama,train\n1.wav,search,hwehwɛ,kofi,validation\n2.wav,search,mepɛ,ama,test\n\
               3.wav,search,mepɛ,yaw,test\n4.wav,search,kyerɛ,kofi,test\n5.wav,search,kyerɛ,yaw,test\n\
               6.wav,search,mepɛ,,test\n7.wav,search,mepɛ,yaw,Test-Both\n";
    let manifest = read(&folder, "m.csv", format!("{header}{all}")).unwrap();
    let cells: Vec<Cell> = manifest.examples.iter().map(|example| example.split.unwrap()).collect();
    let tests = [Cell::TestSeen, Cell::TestVoice, Cell::TestWording, Cell::TestBoth, Cell::TestSeen, Cell::TestBoth];
    assert_eq!(cells[2..], tests);
}

#[test]
fn notes_tell_of_speakers_slots_and_labels() {
    let folder = clips();
    let lines = "0.wav,go_back,ama,\"{\"\"color\"\": 1}\",\n1.wav,go_back,ama,,";
    let manifest = read(&folder, "m.csv", with_lines("path,intent,speaker,slots,text", lines)).unwrap();
    let notes = manifest.notes.join("\n");
    assert!(notes.contains("2 of 4 lines name no speaker"), "{notes}");
    assert!(notes.contains("slots that their intent does not carry: 'color' of go_back (line 4)"), "{notes}");
    assert!(notes.contains("47 of 49 intents have no recordings: add_address, "), "{notes}");
    assert_eq!(manifest.examples[0].speaker, UNKNOWN_SPEAKER);
    assert_eq!(manifest.examples[0].wording, "8", "by the file's name");
    assert!(
        skipping(&folder, "path,intent\n0.wav,none\ngone.wav,none").notes[0].starts_with("no line names a speaker")
    );
}

#[test]
fn nothing_left_is_an_error_even_when_bad_lines_are_skipped() {
    let folder = clips();
    let options = ManifestOptions { skip_bad: true, ..ManifestOptions::default() };
    let none = read_with(&folder, "m.csv", b"path,intent\ngone.wav,search\n", &options);
    assert_eq!(problems(none), ["line 2: gone.wav: no such file"]);
    let options = ManifestOptions { min_duration_s: f64::NAN, ..ManifestOptions::default() };
    let wrong = read_with(&folder, "m.csv", b"path,intent\n0.wav,none\n", &options).unwrap_err();
    assert_eq!(wrong.code(), "invalid_parameter");
}

#[test]
fn progress_ends_at_the_number_of_files() {
    let folder = clips();
    let path = folder.path().join("m.csv");
    fs::write(&path, "path,intent\n0.wav,none\n1.wav,none\n2.wav,none\n").unwrap();
    let (calls, last) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let progress = |done: usize, of: usize| {
        assert_eq!(of, 3);
        calls.fetch_add(1, Ordering::Relaxed);
        last.fetch_max(done, Ordering::Relaxed);
    };
    read_manifest(&path, &ManifestOptions::default(), &progress).unwrap();
    assert_eq!((calls.into_inner(), last.into_inner()), (3, 3));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn any_bytes_are_read_or_refused(body in prop::collection::vec(any::<u8>(), 0..200), json in any::<bool>()) {
        let folder = TempDir::new().unwrap();
        let start: &[u8] = if json { b"{\"path\": \"a.wav\", \"intent\": \"none\"}\n" } else { b"path,intent\n" };
        let table = [start, &body].concat();
        for skip_bad in [false, true] {
            let options = ManifestOptions { skip_bad, ..ManifestOptions::default() };
            let refused = read_with(&folder, if json { "m.jsonl" } else { "m.csv" }, &table, &options);
            let is_refused = matches!(refused, Err(Error::BadManifest { .. }));
            prop_assert!(is_refused, "the folder holds no clips");
        }
    }

    #[test]
    fn the_line_of_a_missing_file_is_its_line(blank in prop::collection::vec(0_usize..3, 1..12), crlf in any::<bool>()) {
        let folder = TempDir::new().unwrap();
        let end = if crlf { "\r\n" } else { "\n" };
        let (mut table, mut line, mut expected) = (format!("path,intent{end}"), 2, Vec::new());
        for n_blank in blank {
            table.push_str(&end.repeat(n_blank));
            line += n_blank;
            expected.push(format!("line {line}: gone{line}.wav: no such file"));
            table.push_str(&format!("gone{line}.wav,none{end}"));
            line += 1;
        }
        prop_assert_eq!(problems(read(&folder, "m.csv", table)), expected);
    }
}
