//! What an intent head is meant to reach, held against an evaluation.

use super::evaluation::{Evaluation, Target};
use super::metrics::Interval;

/// The bars that this project sets itself, for speech that it was not trained on.
pub(super) fn targets(evaluation: &Evaluation) -> Vec<Target> {
    let percent = |i: &Interval| format!("{:.1} % ({:.1} to {:.1})", 100.0 * i.value, 100.0 * i.low, 100.0 * i.high);
    let split = |name: &str| evaluation.splits.iter().find(|split| split.name == name);
    let kind = |kind: &str| evaluation.out_of_scope.iter().find(|result| result.kind.starts_with(kind));
    let noise = |snr: Option<f32>| evaluation.noise.iter().find(|n| n.snr_db == snr && n.kind == "all");
    let mut targets = Vec::new();
    let mut add = |name: &str, bar: &str, got: Option<Interval>, met: &dyn Fn(f64) -> bool| {
        if let Some(got) = got {
            targets.push(Target {
                name: name.to_owned(),
                bar: bar.to_owned(),
                got: percent(&got),
                met: met(got.value),
            });
        }
    };
    let accuracy_of = |name| split(name).and_then(|s| s.accuracy);
    add("Accuracy, unseen voices", "at least 98 %", accuracy_of("test_voice"), &|v| v >= 0.98);
    add("Accuracy, unseen wordings", "at least 85 %", accuracy_of("test_wording"), &|v| v >= 0.85);
    add("Calibration error", "at most 3 %", split("test_all").and_then(|s| s.ece), &|v| v <= 0.03);
    add("Commands accepted, unseen voices", "at least 95 %", split("test_voice").and_then(|s| s.accepted), &|v| {
        v >= 0.95
    });
    add(
        "Accepted of speech that is no command",
        "at most 5 %",
        kind("speech that is no command").and_then(|k| k.false_accepts),
        &|v| v <= 0.05,
    );
    add(
        "Accepted of silence, noise and music",
        "at most 1 %",
        kind("silence, noise and music").and_then(|k| k.false_accepts),
        &|v| v <= 0.01,
    );
    if let (Some(clean), Some(noisy)) =
        (noise(None).and_then(|n| n.accuracy), noise(Some(10.0)).and_then(|n| n.accuracy))
    {
        let lost = 100.0 * (clean.value - noisy.value);
        targets.push(Target {
            name: "Accuracy lost in noise of 10 dB".to_owned(),
            bar: "at most 3 points".to_owned(),
            got: format!("{lost:.1} points"),
            met: lost <= 3.0,
        });
    }
    if let Some(head) = evaluation.timings.head {
        targets.push(Target {
            name: "Time that the head adds, median".to_owned(),
            bar: "under 2 ms".to_owned(),
            got: format!("{:.2} ms", head.p50),
            met: head.p50 < 2.0,
        });
    }
    if let Some(words) = &evaluation.words
        && let (Some(audio), Some(text), Some(fused)) =
            (words.accuracy_audio, words.accuracy_words, words.accuracy_fused)
    {
        targets.push(Target {
            name: "Accuracy of sound and words together".to_owned(),
            bar: "no worse than the better of the two".to_owned(),
            got: format!("{:.1} %; sound {:.1} %, words {:.1} %", 100.0 * fused, 100.0 * audio, 100.0 * text),
            met: fused >= audio.max(text),
        });
    }
    targets
}
