//! Progress of long work on stderr: a bar in a terminal, a line now and then elsewhere.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

/// Between two lines of one step in a log.
const BETWEEN_LINES: Duration = Duration::from_secs(20);

/// The steps of one command.
pub(crate) struct Steps(MultiProgress);

/// One step.
pub(crate) struct Step<'a> {
    steps: &'a Steps,
    name: String,
    bar: Option<ProgressBar>,
    last_line: Mutex<Instant>,
}

impl Steps {
    /// Nothing shown yet.
    pub(crate) fn new() -> Self {
        Self(MultiProgress::new())
    }

    /// A line for people.
    pub(crate) fn say(&self, line: &str) {
        self.0.suspend(|| eprintln!("{line}"));
    }

    /// Begins a step.
    pub(crate) fn bar(&self, name: &str) -> Step<'_> {
        let bar = (!self.0.is_hidden()).then(|| {
            let style = ProgressStyle::with_template("{msg:24} {bar:30} {pos:>7} of {len:7} {per_sec:>12} {eta:>5}");
            let bar = ProgressBar::new(0).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
            self.0.add(bar.with_message(name.to_owned()))
        });
        Step { steps: self, name: name.to_owned(), bar, last_line: Mutex::new(Instant::now()) }
    }
}

impl Step<'_> {
    /// How far it is.
    pub(crate) fn set(&self, done: usize, of: usize) {
        match &self.bar {
            Some(bar) => {
                bar.set_length(of as u64);
                bar.set_position(done as u64);
            }
            None => {
                let Ok(mut last) = self.last_line.lock() else { return };
                if last.elapsed() >= BETWEEN_LINES {
                    *last = Instant::now();
                    eprintln!("{}: {done} of {of}", self.name);
                }
            }
        }
    }

    /// A line for people, above the bar.
    pub(crate) fn say(&self, line: &str) {
        self.steps.say(line);
    }

    /// The step is over.
    pub(crate) fn done(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
