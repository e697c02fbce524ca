//! The log: to stderr for whoever watches, and to `logs/api_server.log` for whoever asks later.
//!
//! A file a day, `api_server.2026-01-31.log`, the oldest removed; `api_server.log` is a link to today's.
//! Neither audio, nor words, nor file names, nor tokens are ever logged.

use std::io::IsTerminal;
use std::path::Path;

use tracing::Subscriber;
use tracing::level_filters::LevelFilter;
use tracing_appender::non_blocking::{NonBlocking, WorkerGuard};
use tracing_appender::rolling::{RollingFileAppender, Rotation};
use tracing_subscriber::Layer;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::{self, MakeWriter};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;

/// Days of log that are kept.
const MAX_FILES: usize = 14;

/// Starts the log at the level that `LOG_LEVEL` names; keep the guard until the program ends. A folder
/// that cannot be written costs the file, not the server.
#[must_use = "the log file is flushed when the guard is dropped"]
pub(crate) fn init(folder: &Path, json: bool) -> Option<WorkerGuard> {
    let name = std::env::var("LOG_LEVEL").unwrap_or_default();
    let level = level(&name);
    let (writer, guard, failure) = match file_writer(folder) {
        Ok((writer, guard)) => (Some(writer), Some(guard), None),
        Err(error) => (None, None, Some(error)),
    };
    let filter = Targets::new()
        .with_default(level.unwrap_or(LevelFilter::INFO).min(LevelFilter::WARN))
        .with_target("okyeame", level.unwrap_or(LevelFilter::INFO));
    let to_stderr = layer(json, std::io::stderr().is_terminal(), std::io::stderr);
    let to_file = writer.map(|writer| layer(json, false, writer));
    // An error means that a log exists already (a test's): then that one stays.
    let _ = tracing_subscriber::registry().with(filter).with(to_stderr).with(to_file).try_init();

    if level.is_none() {
        tracing::warn!("LOG_LEVEL is none of DEBUG, INFO, WARN, ERROR: taken as INFO");
    }
    if let Some(failure) = failure {
        tracing::warn!(cause = failure, "the log file cannot be written: logging to stderr only");
    }
    guard
}

/// Lines for people, or objects for programs: `{"timestamp", "level", "target", "fields"}`.
fn layer<S, W>(json: bool, ansi: bool, writer: W) -> Box<dyn Layer<S> + Send + Sync>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let layer = fmt::layer().with_ansi(ansi && !json).with_writer(writer);
    if json { layer.json().boxed() } else { layer.boxed() }
}

/// `LOG_LEVEL`; nothing means INFO, `None` what is not known.
fn level(name: &str) -> Option<LevelFilter> {
    match name.trim().to_ascii_uppercase().as_str() {
        "DEBUG" => Some(LevelFilter::DEBUG),
        "" | "INFO" => Some(LevelFilter::INFO),
        "WARN" | "WARNING" => Some(LevelFilter::WARN),
        "ERROR" | "CRITICAL" => Some(LevelFilter::ERROR),
        _ => None,
    }
}

/// A writer that never makes a request wait for the disk.
fn file_writer(folder: &Path) -> Result<(NonBlocking, WorkerGuard), String> {
    std::fs::create_dir_all(folder).map_err(|error| error.to_string())?;
    let appender = RollingFileAppender::builder()
        .rotation(Rotation::DAILY)
        .filename_prefix("api_server")
        .filename_suffix("log")
        .latest_symlink("api_server.log")
        .max_log_files(MAX_FILES)
        .build(folder.canonicalize().map_err(|error| error.to_string())?)
        .map_err(|error| error.to_string())?;
    Ok(tracing_appender::non_blocking(appender))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn levels_are_read_in_any_case() {
        assert_eq!(level("debug"), Some(LevelFilter::DEBUG));
        assert_eq!(level(""), Some(LevelFilter::INFO));
        assert_eq!(level("Warning"), Some(LevelFilter::WARN));
        assert_eq!(level("loud"), None);
    }

    #[test]
    fn a_json_log_is_an_object_a_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let file = std::fs::File::create(&path).unwrap();
        let log = tracing_subscriber::registry().with(layer(true, true, file));
        tracing::subscriber::with_default(log, || tracing::info!(status = 200, "answered \"it\"\n"));
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(text.lines().count(), 1, "{text}");
        let line: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!((&line["level"], &line["fields"]["status"]), (&"INFO".into(), &200.into()), "{line}");
    }

    #[test]
    fn the_contract_s_file_leads_to_today_s() {
        let folder = tempfile::tempdir().unwrap();
        let logs = folder.path().join("logs");
        let (mut writer, guard) = file_writer(&logs).unwrap();
        writer.write_all(b"a line\n").unwrap();
        drop(guard);
        assert_eq!(std::fs::read_to_string(logs.join("api_server.log")).unwrap(), "a line\n");
    }

    #[test]
    fn a_folder_that_cannot_be_made_is_an_error_not_a_panic() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        std::fs::write(&file, "").unwrap();
        assert!(file_writer(&file.join("logs")).is_err());
    }
}
