//! Downloads, as bars on stderr.

use std::cell::RefCell;
use std::collections::HashMap;

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use okyeame_core::weights::hub::PullEvent;

/// A bar for each file. Where stderr is no terminal, indicatif shows nothing: then a line for each file.
pub(crate) struct Progress {
    bars: MultiProgress,
    files: RefCell<HashMap<String, ProgressBar>>,
}

impl Progress {
    /// No bars yet.
    pub(crate) fn new() -> Self {
        Self { bars: MultiProgress::new(), files: RefCell::new(HashMap::new()) }
    }

    /// Shows what happened.
    pub(crate) fn show(&self, event: PullEvent) {
        match event {
            PullEvent::Start { files, bytes_total } => {
                let megabytes = bytes_total.unwrap_or(0) as f64 / 1e6;
                self.bars.suspend(|| eprintln!("{files} files, {megabytes:.1} MB"));
            }
            PullEvent::File { name, bytes_total } => {
                if self.bars.is_hidden() {
                    eprintln!("fetching {name} ({bytes_total} bytes)");
                }
                self.bar(&name).set_length(bytes_total);
            }
            PullEvent::Bytes { name, done, total } => {
                let bar = self.bar(&name);
                bar.set_length(total);
                bar.set_position(done);
            }
            PullEvent::Done { name } => self.bar(&name).finish(),
        }
    }

    fn bar(&self, name: &str) -> ProgressBar {
        let mut files = self.files.borrow_mut();
        let bar = files.entry(name.to_owned()).or_insert_with(|| {
            let style = ProgressStyle::with_template(
                "{msg:32} {bar:24} {binary_bytes:>11} of {binary_total_bytes:11} {binary_bytes_per_sec:>13} {eta:>4}",
            )
            .unwrap_or_else(|_| ProgressStyle::default_bar());
            self.bars.add(ProgressBar::new(0).with_style(style).with_message(name.to_owned()))
        });
        bar.clone()
    }
}
