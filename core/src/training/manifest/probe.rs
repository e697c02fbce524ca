//! Listens to one file of a manifest: how long it is, and a hash of its samples.

use std::fs::{self, File};
use std::io::{ErrorKind, Read as _};
use std::path::Path;

use super::table::Read;
use crate::audio::{DecodeLimits, decode};
use crate::error::Error;

/// Up to here a recording that is too long is decoded to its end, so that its length can be told.
const MEASURED_S: f64 = 900.0;
/// A file of [`MEASURED_S`] in stereo at 48 kHz and 16 bits has 173 MB.
const MAX_FILE_BYTES: u64 = 256 << 20;
/// Samples that are hashed at a time.
const HASH_CHUNK: usize = 4096;

/// What a file holds.
#[derive(Debug, Clone, Copy)]
pub(super) struct Probe {
    pub(super) duration_s: f64,
    pub(super) content: [u8; 32],
}

/// Decodes a file and drops the samples.
///
/// # Errors
/// The end of a sentence that begins with the file.
pub(super) fn probe(path: &Path, min_s: f64, max_s: f64) -> Read<Probe> {
    let bytes = bytes_of(path)?;
    let limits = DecodeLimits { max_duration_s: MEASURED_S.max(max_s + 1.0) };
    let waveform = decode(&bytes, &limits).map_err(|error| match error {
        Error::EmptyAudio => format!("{error} (0 s; at least {min_s} s are needed)"),
        Error::AudioTooLong { limit_s } => format!("it is longer than {limit_s} s; at most {max_s} s are allowed"),
        error => error.to_string(),
    })?;
    drop(bytes);
    let duration_s = waveform.duration_s();
    if duration_s < min_s {
        return Err(format!("it is {duration_s:.3} s long; at least {min_s} s are needed"));
    }
    if duration_s > max_s {
        return Err(format!("it is {duration_s:.1} s long; at most {max_s} s are allowed"));
    }
    Ok(Probe { duration_s, content: hash_of(waveform.samples()) })
}

/// The bytes of a plain file: a pipe would wait for ever.
fn bytes_of(path: &Path) -> Read<Vec<u8>> {
    let io = |error: std::io::Error| match error.kind() {
        ErrorKind::NotFound | ErrorKind::NotADirectory => "no such file".to_owned(),
        kind => format!("it cannot be read ({kind})"),
    };
    let metadata = fs::metadata(path).map_err(io)?;
    if metadata.is_dir() {
        return Err("it is a folder, not a sound file".to_owned());
    }
    if !metadata.is_file() {
        return Err("it is no plain file".to_owned());
    }
    let too_large = || format!("it is larger than {} MB", MAX_FILE_BYTES >> 20);
    if metadata.len() > MAX_FILE_BYTES {
        return Err(too_large());
    }
    let mut bytes = Vec::new();
    // It may have grown since.
    File::open(path).and_then(|file| file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes)).map_err(io)?;
    if bytes.len() as u64 > MAX_FILE_BYTES { Err(too_large()) } else { Ok(bytes) }
}

/// BLAKE3 of the samples, as little-endian f32.
fn hash_of(samples: &[f32]) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    let mut bytes = Vec::with_capacity(4 * HASH_CHUNK);
    for chunk in samples.chunks(HASH_CHUNK) {
        bytes.clear();
        bytes.extend(chunk.iter().flat_map(|sample| sample.to_le_bytes()));
        hasher.update(&bytes);
    }
    *hasher.finalize().as_bytes()
}
