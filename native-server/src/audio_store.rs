//! `--store-audio DIR`: clips and what was heard in them, kept for training where the operator may keep them. Off unless
//! asked for: a voice is personal data, and its owner has to know.
//!
//! `DIR/clips/` holds the clips as they came, `DIR/manifest.jsonl` a line for each that `okyeame train` reads: a person
//! listens, corrects `intent` and `text`, and trains. Who speaks is not known here. A thread of its own writes, so that no
//! answer waits for a disk; what it cannot keep up with, and what would pass the bound on the folder's size, is left out.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Mutex, PoisonError};
use std::thread::JoinHandle;

use axum::body::Bytes;
use okyeame_core::{Recognition, Rejection};
use serde_json::{Map, Value, json};
use uuid::Uuid;

/// Clips that may wait for the disk.
const MAX_WAITING: usize = 64;
/// Speech that is no command, in a manifest.
const NO_COMMAND: &str = "none";

struct Kept {
    bytes: Bytes,
    /// The manifest's line, but for its path.
    line: Map<String, Value>,
}

struct Writer {
    to: SyncSender<Kept>,
    thread: JoinHandle<()>,
}

/// Keeps clips.
pub(crate) struct AudioStore {
    /// `None` once it is closed.
    writer: Mutex<Option<Writer>>,
}

impl AudioStore {
    /// Opens a folder, which is made if need be, for its owner alone. It may hold `max_bytes` in all.
    ///
    /// # Errors
    /// If it cannot be written.
    pub(crate) fn open(folder: &Path, max_bytes: u64) -> io::Result<Self> {
        let clips = folder.join("clips");
        private_folder(&clips)?;
        let manifest = whole_lines(&folder.join("manifest.jsonl"))?;
        let used = manifest.metadata()?.len() + size_of_files(&clips)?;
        let (to, from) = sync_channel(MAX_WAITING);
        let disk = Disk { clips, manifest, left: max_bytes.saturating_sub(used), is_full: false };
        let thread = std::thread::Builder::new().name("audio store".to_owned()).spawn(move || disk.write_all(&from))?;
        Ok(Self { writer: Mutex::new(Some(Writer { to, thread })) })
    }

    /// Keeps a clip and its answer, if there is time and room.
    pub(crate) fn keep(&self, bytes: Bytes, recognition: &Recognition) {
        let line = line_of(recognition);
        if let Some(writer) = &*self.writer.lock().unwrap_or_else(PoisonError::into_inner) {
            // Full: the disk is slower than the customers are. Their answers come first.
            let _ = writer.to.try_send(Kept { bytes, line });
        }
    }

    /// Waits until everything is written.
    pub(crate) fn close(&self) {
        let writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(Writer { to, thread }) = writer {
            drop(to);
            let _ = thread.join();
        }
    }
}

/// The thread's side.
struct Disk {
    clips: PathBuf,
    manifest: File,
    left: u64,
    is_full: bool,
}

impl Disk {
    fn write_all(mut self, from: &Receiver<Kept>) {
        for kept in from {
            if let Err(error) = self.write(&kept) {
                tracing::warn!(cause = %error, "a clip could not be stored");
            }
        }
    }

    /// The clip first: a line names only what is there.
    fn write(&mut self, Kept { bytes, line }: &Kept) -> io::Result<()> {
        let name = format!("{}.{}", Uuid::new_v4(), extension(bytes));
        let mut object = Map::from_iter([("path".to_owned(), json!(format!("clips/{name}")))]);
        object.extend(line.clone());
        let line = format!("{}\n", Value::Object(object));
        let needed = (bytes.len() + line.len()) as u64;
        if needed > self.left {
            if !self.is_full {
                tracing::warn!("the folder of --store-audio has reached --store-audio-mb: no more clips are kept");
            }
            self.is_full = true;
            return Ok(());
        }
        self.left -= needed;
        private_file(OpenOptions::new().create_new(true).write(true), &self.clips.join(name))?.write_all(bytes)?;
        self.manifest.write_all(line.as_bytes())
    }
}

/// What a manifest says of a clip. A rejected clip's intent is nobody's guess: it is for a person to say.
fn line_of(recognition: &Recognition) -> Map<String, Value> {
    let slots: Map<String, Value> =
        recognition.slots.iter().map(|slot| (slot.slot.clone(), slot.value.clone())).collect();
    let intent = if recognition.accepted { &recognition.intent } else { NO_COMMAND };
    let kind = match recognition.rejection {
        Some(Rejection::NoSpeech) => "noise",
        Some(_) => "talk",
        None => "command",
    };
    let fields = json!({
        "intent": intent,
        "text": recognition.transcription,
        "slots": slots,
        "kind": kind,
        "language": recognition.whisper_info.language,
        "heard": {
            "confidence": recognition.confidence,
            "rejection": recognition.rejection,
            "source": recognition.intent_source,
            "best": recognition.top_predictions.first().map(|best| &best.intent),
        },
        "request_id": recognition.request_id,
    });
    match fields {
        Value::Object(mut fields) => {
            fields.retain(|_, value| !value.is_null());
            fields
        }
        _ => Map::new(),
    }
}

/// By the first bytes, so that a player opens it. What it is said to be does not matter.
fn extension(bytes: &[u8]) -> &'static str {
    match bytes {
        [b'R', b'I', b'F', b'F', ..] => "wav",
        [b'f', b'L', b'a', b'C', ..] => "flac",
        [b'O', b'g', b'g', b'S', ..] => "ogg",
        [0x1A, 0x45, 0xDF, 0xA3, ..] => "webm",
        [_, _, _, _, b'f', b't', b'y', b'p', ..] => "m4a",
        _ => "mp3",
    }
}

fn private_folder(path: &Path) -> io::Result<()> {
    let mut builder = DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(path)
}

fn private_file(options: &mut OpenOptions, path: &Path) -> io::Result<File> {
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(options, 0o600);
    options.open(path)
}

/// The manifest, to append to. A process that was killed may have left half a line: that is cut off.
fn whole_lines(path: &Path) -> io::Result<File> {
    let file = private_file(OpenOptions::new().create(true).append(true), path)?;
    let text = fs::read(path)?;
    let end = text.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
    if end < text.len() {
        file.set_len(end as u64)?;
    }
    Ok(file)
}

fn size_of_files(folder: &Path) -> io::Result<u64> {
    fs::read_dir(folder)?.map(|entry| Ok(entry?.metadata()?.len())).sum()
}
