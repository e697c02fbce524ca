//! A corpus of chirps, made by code, and the calls of `okyeame` in its folder. Each command is a pattern of tones, each
//! speaker a pitch.

use std::f64::consts::PI;
use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

pub(crate) const BASE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/golden/tiny-multilingual");
pub(crate) const BASE_NAME: &str = "okyeame-tests/tiny-multilingual";
const RATE_HZ: f64 = 16_000.0;

const SPEAKERS: [&str; 6] = ["ama", "kofi", "yaa", "kwame", "esi", "kojo"];
/// From one multiple of the speaker's pitch to another.
pub(crate) type Syllable = (f64, f64);
/// Intent, words, and how it sounds.
pub(crate) const COMMANDS: [(&str, &str, &[Syllable]); 4] = [
    ("add_to_cart", "fa gu kɛntɛn mu", &[(2.0, 8.0)]),
    ("checkout", "tua ka wie", &[(20.0, 20.0), (20.0, 20.0), (20.0, 20.0), (20.0, 20.0)]),
    ("search", "hwehwɛ biribi", &[(2.0, 2.0), (2.0, 2.0)]),
    ("go_back", "san kɔ akyi", &[(16.0, 4.0)]),
];
/// A wording of every command for each.
const ENDINGS: [&str; 5] = ["mesrɛ wo", "seesei", "ntɛm", "bio", "me nua"];
pub(crate) const HEADER: &str = "path,text,intent,speaker,kind";
/// Behind the header: lines 2 and 3.
pub(crate) const GOOD: &str =
    "clips/search-0-ama.wav,hwehwɛ,search,ama,\nclips/search-0-kofi.wav,hwehwɛ,search,kofi,\n";

/// A training of a few seconds that learns something: of four commands it tells three in four apart, whatever the seed.
pub(crate) const LEARN: [&str; 12] = [
    "--epochs",
    "40",
    "--patience",
    "40",
    "--learning-rate",
    "0.02",
    "--dropout",
    "0",
    "--mask",
    "0",
    "--fusion-clips",
    "4",
];
/// A training that only has to run.
pub(crate) const HASTE: [&str; 4] = ["--epochs", "2", "--fusion-clips", "0"];
pub(crate) const HEAD_FILES: [&str; 5] =
    ["model.safetensors", "config.json", "intent_labels.json", "calibration.json", "sentences.txt"];

/// A folder with clips and manifest.csv, in which the commands are called.
pub(crate) struct Corpus(pub(crate) TempDir);

impl Corpus {
    pub(crate) fn new() -> Self {
        let corpus = Self(tempfile::tempdir().unwrap());
        fs::create_dir(corpus.path("clips")).unwrap();
        let mut manifest = format!("{HEADER}\n");
        for (at, speaker) in SPEAKERS.iter().enumerate() {
            let pitch_hz = 150.0 + 12.0 * at as f64;
            for (intent, text, syllables) in COMMANDS {
                for (wording, ending) in ENDINGS.iter().enumerate() {
                    let (path, w) = (format!("clips/{intent}-{wording}-{speaker}.wav"), wording as f64);
                    let last = (5.0 + 0.3 * w, 5.0 + 0.5 * w);
                    corpus.clip(&path, pitch_hz, &[syllables, &[last][..]].concat(), 0.8 + 0.15 * w);
                    manifest += &format!("{path},{text} {ending},{intent},{speaker},\n");
                }
            }
            for (wording, ending) in ENDINGS.iter().enumerate() {
                let (path, w) = (format!("clips/talk-{wording}-{speaker}.wav"), wording as f64);
                corpus.clip(&path, pitch_hz, &[(4.0 + w, 12.0), (10.0, 10.0), (2.0, 3.0 + w), (7.0, 7.0)], 1.2);
                manifest += &format!("{path},ɛte sɛn {ending},none,{speaker},talk\n");
            }
            for wording in 0..2 {
                let (path, w) = (format!("clips/music-{wording}-{speaker}.wav"), f64::from(wording));
                corpus.clip(&path, pitch_hz, &[(3.0, 3.0), (4.0, 4.0), (5.0 + w, 5.0 + w), (3.0, 3.0)], 1.3);
                manifest += &format!("{path},,none,{speaker},music\n");
            }
        }
        fs::write(corpus.path("manifest.csv"), manifest).unwrap();
        fs::write(corpus.path("few.csv"), format!("{HEADER}\n{GOOD}")).unwrap();
        corpus
    }

    /// Writes a chirp: syllables with a short silence behind each.
    pub(crate) fn clip(&self, path: &str, pitch_hz: f64, syllables: &[Syllable], seconds: f64) {
        let n = (RATE_HZ * seconds) as usize;
        let mut phase = 0.0_f64;
        let samples: Vec<i16> = (0..n)
            .map(|at| {
                let place = at as f64 / n as f64 * syllables.len() as f64;
                let syllable = (place as usize).min(syllables.len() - 1);
                let (within, (from, to)) = (place - syllable as f64, syllables[syllable]);
                phase += 2.0 * PI * pitch_hz * (from + (to - from) * within) / RATE_HZ;
                let envelope = if within < 0.85 { (PI * within / 0.85).sin() } else { 0.0 };
                let voice = phase.sin() + 0.4 * (2.0 * phase).sin() + 0.2 * (3.0 * phase).sin();
                (32_767.0 * 0.25 * envelope * voice) as i16
            })
            .collect();
        fs::write(self.path(path), wav(&samples)).unwrap();
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub(crate) fn bytes(&self, name: &str) -> Vec<u8> {
        fs::read(self.path(name)).unwrap_or_else(|e| panic!("{name}: {e}"))
    }

    pub(crate) fn text(&self, name: &str) -> String {
        String::from_utf8(self.bytes(name)).unwrap()
    }

    pub(crate) fn json(&self, name: &str) -> Value {
        serde_json::from_slice(&self.bytes(name)).unwrap()
    }

    /// `okyeame` in this folder, without a network and with a hub cache of its own.
    pub(crate) fn okyeame(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_okyeame"));
        command
            .args(args)
            .current_dir(self.0.path())
            .env_remove("HUGGINGFACE_MODEL_PATH")
            .env_remove("HUGGINGFACE_MODEL_TYPE")
            .env_remove("CUDA_VISIBLE_DEVICES")
            .env("HF_HOME", self.path("hub"))
            .env("HF_HUB_OFFLINE", "1");
        command
    }

    pub(crate) fn train(&self, data: &str, out: &str, more: &[&str]) -> Command {
        let mut command = self.okyeame(&["train", "--data", data, "--out", out, "--base", BASE]);
        command.args(["--base-name", BASE_NAME, "--copies", "1", "--noise-clips", "9"]);
        command.args(["--width", "32", "--pools", "4", "--batch-size", "16"]).args(more);
        command
    }

    /// Starts a training and kills it as soon as `path` is there and not empty.
    pub(crate) fn train_until(&self, path: &str, out: &str, more: &[&str]) {
        let path = self.path(path);
        let mut command = self.train("manifest.csv", out, more);
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let deadline = Instant::now() + Duration::from_secs(120);
        let is_there = || fs::metadata(&path).is_ok_and(|found| found.len() > 0);
        while !is_there() && Instant::now() < deadline && child.try_wait().unwrap().is_none() {
            thread::sleep(Duration::from_millis(1));
        }
        // SIGKILL, which nobody can prepare for.
        child.kill().unwrap();
        let status = child.wait().unwrap();
        assert!(is_there() && status.code().is_none(), "not killed in the middle: {status}");
    }
}

/// 16 kHz, mono, 16 bit.
pub(crate) fn wav(samples: &[i16]) -> Vec<u8> {
    let data: Vec<u8> = samples.iter().flat_map(|sample| sample.to_le_bytes()).collect();
    let mut bytes = b"RIFF".to_vec();
    bytes.extend((36 + data.len() as u32).to_le_bytes());
    bytes.extend(b"WAVEfmt \x10\0\0\0\x01\0\x01\0\x80\x3e\0\0\0\x7d\0\0\x02\0\x10\0data");
    bytes.extend((data.len() as u32).to_le_bytes());
    bytes.extend(data);
    bytes
}

/// The exit code and stderr of a call that prints nothing else, and does not panic.
#[track_caller]
pub(crate) fn said(mut command: Command) -> (Option<i32>, String) {
    let out = command.output().unwrap();
    let stderr = String::from_utf8(out.stderr).unwrap();
    assert!(out.stdout.is_empty() && !stderr.contains("panicked"), "{command:?}: {stderr}");
    (out.status.code(), stderr)
}

/// stderr of a call that succeeds.
#[track_caller]
pub(crate) fn done(command: Command) -> String {
    let (code, stderr) = said(command);
    assert_eq!(code, Some(0), "{stderr}");
    stderr
}

/// The last line of stderr of a call that ends with exit code 1.
#[track_caller]
pub(crate) fn complaint(command: Command) -> String {
    let (code, stderr) = said(command);
    assert_eq!(code, Some(1), "{stderr}");
    let last = stderr.lines().last().unwrap();
    assert!(last.starts_with("error: ") && !last.chars().any(char::is_control), "{stderr}");
    last.to_owned()
}

/// What a call prints on stdout: one JSON value on each line, or over several.
#[track_caller]
pub(crate) fn answers(mut command: Command) -> Vec<Value> {
    let out = command.output().unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    serde_json::Deserializer::from_slice(&out.stdout).into_iter::<Value>().collect::<Result<_, _>>().unwrap()
}
