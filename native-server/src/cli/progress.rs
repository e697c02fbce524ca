//! Downloads on stderr: bars in a terminal, and elsewhere (a log, a pipe) a few plain lines.

use std::cell::RefCell;
use std::collections::HashMap;

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use okyeame_core::weights::hub::PullEvent;

/// A file beyond this tells each tenth of its way; a smaller one, only that it comes.
const LONG_BYTES: u64 = 50_000_000;

/// How far the files of one download have come.
pub(crate) struct Progress(View);

enum View {
    Bars { bars: MultiProgress, files: RefCell<HashMap<String, ProgressBar>> },
    Lines(RefCell<Lines>),
}

impl Progress {
    /// Nothing shown yet.
    pub(crate) fn new() -> Self {
        let bars = MultiProgress::new();
        // Hidden: stderr is no terminal.
        Self(if bars.is_hidden() {
            View::Lines(RefCell::default())
        } else {
            View::Bars { bars, files: RefCell::default() }
        })
    }

    /// Shows what happened.
    pub(crate) fn show(&self, event: PullEvent) {
        match &self.0 {
            View::Lines(lines) => {
                if let Some(line) = lines.borrow_mut().line(event) {
                    eprintln!("{line}");
                }
            }
            View::Bars { bars, files } => {
                let bar = |name: String| {
                    let mut files = files.borrow_mut();
                    files.entry(name).or_insert_with_key(|name| bars.add(new_bar(name))).clone()
                };
                match event {
                    PullEvent::Start { files, bytes_total } => {
                        bars.suspend(|| eprintln!("{}", start(files, bytes_total)))
                    }
                    PullEvent::File { name, bytes_total } => bar(name).set_length(bytes_total),
                    PullEvent::Bytes { name, done, total } => {
                        let bar = bar(name);
                        bar.set_length(total);
                        bar.set_position(done);
                    }
                    PullEvent::Done { name } => bar(name).finish(),
                }
            }
        }
    }
}

fn new_bar(name: &str) -> ProgressBar {
    let style = ProgressStyle::with_template(
        "{msg:32} {bar:24} {binary_bytes:>11} of {binary_total_bytes:11} {binary_bytes_per_sec:>13} {eta:>4}",
    )
    .unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(0).with_style(style).with_message(name.to_owned())
}

/// What there is to say where nothing can be drawn over.
#[derive(Default)]
struct Lines {
    /// By file: the bytes that it had when last heard of.
    done: HashMap<String, u64>,
}

impl Lines {
    /// The line for an event, if it is worth one.
    fn line(&mut self, event: PullEvent) -> Option<String> {
        match event {
            PullEvent::Start { files, bytes_total } => Some(start(files, bytes_total)),
            PullEvent::File { .. } | PullEvent::Done { .. } => None,
            PullEvent::Bytes { name, done, total } => {
                let line = match self.done.get(&name) {
                    None if done == total && total > 0 => Some(format!("{name}: here already")),
                    None if done > 0 => Some(format!("{name}: {}, going on from {}", size(total), size(done))),
                    None => Some(format!("{name}: {}", size(total))),
                    Some(before) if done < *before => Some(format!("{name}: starting over")),
                    Some(before) if total >= LONG_BYTES && tenths(done, total) > tenths(*before, total) => {
                        let percent = 10 * tenths(done, total);
                        Some(format!("{name}: {} of {} ({percent} %)", size(done), size(total)))
                    }
                    Some(_) => None,
                };
                self.done.insert(name, done);
                line
            }
        }
    }
}

fn start(files: usize, bytes_total: Option<u64>) -> String {
    let s = if files == 1 { "" } else { "s" };
    bytes_total.map_or_else(|| format!("{files} file{s}"), |bytes| format!("{files} file{s}, {}", size(bytes)))
}

/// Whole tenths of the way.
fn tenths(done: u64, total: u64) -> u64 {
    done.saturating_mul(10) / total.max(1)
}

/// Bytes as people read them.
fn size(bytes: u64) -> String {
    match bytes {
        0..1_000 => format!("{bytes} bytes"),
        1_000..1_000_000 => format!("{:.1} kB", bytes as f64 / 1e3),
        _ => format!("{:.1} MB", bytes as f64 / 1e6),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(name: &str, done: u64, total: u64) -> PullEvent {
        PullEvent::Bytes { name: name.to_owned(), done, total }
    }

    fn lines(events: impl IntoIterator<Item = PullEvent>) -> Vec<String> {
        let mut lines = Lines::default();
        events.into_iter().filter_map(|event| lines.line(event)).collect()
    }

    #[test]
    fn a_small_file_has_one_line_and_a_long_one_eleven() {
        let total = 290_000_000;
        // As they come: one event each 256 KiB.
        let steps = (0..total).step_by(256 << 10).chain([total]).map(|done| bytes("model.safetensors", done, total));
        let said = lines([bytes("config.json", 0, 2_100), bytes("config.json", 2_100, 2_100)].into_iter().chain(steps));
        assert_eq!(said[..2], ["config.json: 2.1 kB", "model.safetensors: 290.0 MB"]);
        assert_eq!(said.len(), 2 + 10, "{said:?}");
        assert!(said[2].starts_with("model.safetensors: 29.") && said[2].ends_with(" of 290.0 MB (10 %)"), "{said:?}");
        assert_eq!(said[11], "model.safetensors: 290.0 MB of 290.0 MB (100 %)");
    }

    #[test]
    fn what_is_here_what_goes_on_and_what_starts_over_is_said() {
        let file = PullEvent::File { name: "vocab.json".to_owned(), bytes_total: 12 };
        let said = lines([
            PullEvent::Start { files: 3, bytes_total: Some(61_000_012) },
            file,
            bytes("vocab.json", 12, 12),
            bytes("empty.json", 0, 0),
            bytes("model.bin", 31_000_000, 61_000_000),
            bytes("model.bin", 0, 61_000_000),
            PullEvent::Done { name: "model.bin".to_owned() },
        ]);
        let expected = [
            "3 files, 61.0 MB",
            "vocab.json: here already",
            "empty.json: 0 bytes",
            "model.bin: 61.0 MB, going on from 31.0 MB",
            "model.bin: starting over",
        ];
        assert_eq!(said, expected);
    }
}
