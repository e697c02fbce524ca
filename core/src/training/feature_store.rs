//! Encoder states on disk: computed once, read by every epoch and every later run.
//!
//! A store is a folder of two files that only grow. `states.f16` holds one record after the other, each
//! `[n_state_layers, n_positions, n_state]` of little-endian IEEE half; `index.tsv` has a line per record, written after
//! its data: key, position of the first value, number of positions. A run that is killed leaves at worst data that no
//! line speaks of, or half a line: both are cut off when the store is opened again. What the states were made with is
//! part of the key, so that other weights or other options never meet old states.
//!
//! Not for several processes at once: the folder is locked while it is open.

// `unsafe`: the data file is mapped while features are read. This process alone has it open (it holds the lock), it
// only appends, and a map covers what was there when it was made; every read is checked against its length.
#![allow(unsafe_code)]

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io::{BufWriter, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use half::f16;
use half::slice::HalfFloatSliceExt;

use crate::error::{Error, Result};

const DATA: &str = "states.f16";
const INDEX: &str = "index.tsv";

/// Names one record: what went in, hashed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FeatureKey([u8; 16]);

impl FeatureKey {
    /// Hashes the parts, each with its length.
    #[must_use]
    pub fn new(parts: &[&[u8]]) -> Self {
        let mut hasher = blake3::Hasher::new();
        for part in parts {
            hasher.update(&(part.len() as u64).to_le_bytes());
            hasher.update(part);
        }
        let mut key = [0; 16];
        key.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
        Self(key)
    }

    /// Its first bytes, to seed a generator of random numbers with.
    #[must_use]
    pub fn as_u64(self) -> u64 {
        u64::from_le_bytes(*self.0.first_chunk().expect("a key has 16 bytes"))
    }

    fn to_hex(self) -> String {
        self.0.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    fn from_hex(hex: &str) -> Option<Self> {
        let mut key = [0; 16];
        if hex.len() != 32 || !hex.is_ascii() {
            return None;
        }
        for (byte, at) in key.iter_mut().zip((0..32).step_by(2)) {
            *byte = u8::from_str_radix(&hex[at..at + 2], 16).ok()?;
        }
        Some(Self(key))
    }
}

#[derive(Debug, Clone, Copy)]
struct Record {
    /// in values
    start: u64,
    n_positions: u32,
}

/// Encoder states by key.
#[derive(Debug)]
pub struct FeatureStore {
    /// Hidden states of one record, `n_layer + 1`.
    n_layers: usize,
    n_state: usize,
    records: HashMap<FeatureKey, Record>,
    data: BufWriter<File>,
    index: BufWriter<File>,
    n_values: u64,
    map: Option<memmap2::Mmap>,
    data_path: PathBuf,
}

impl FeatureStore {
    /// Opens a store, or begins one, for records of `n_layers` states of width `n_state`.
    ///
    /// # Errors
    /// [`Error::Io`] if the folder cannot be written, or another process has it open.
    pub fn open(folder: &Path, n_layers: usize, n_state: usize) -> Result<Self> {
        let io = |source| Error::Io { what: "the cache of encoder states".to_owned(), source };
        fs::create_dir_all(folder).map_err(io)?;
        let open = |name: &str| {
            OpenOptions::new().read(true).write(true).create(true).truncate(false).open(folder.join(name)).map_err(io)
        };
        let (mut data, mut index) = (open(DATA)?, open(INDEX)?);
        index.try_lock().map_err(|_| Error::Io {
            what: "the cache of encoder states".to_owned(),
            source: std::io::Error::other("another process is using it; wait for it, or choose another folder"),
        })?;
        let n_stored = data.metadata().map_err(io)?.len() / 2;
        let lines = fs::read_to_string(folder.join(INDEX)).map_err(io)?;
        let mut records = HashMap::new();
        let (mut n_values, mut n_bytes) = (0, 0);
        for line in lines.split_inclusive('\n').filter(|line| line.ends_with('\n')) {
            let Some((key, record)) = read_line(line) else { break };
            let end = record.start + u64::from(record.n_positions) * (n_layers * n_state) as u64;
            if end > n_stored || record.start != n_values {
                break;
            }
            (n_values, n_bytes) = (end, n_bytes + line.len() as u64);
            records.insert(key, record);
        }
        data.set_len(2 * n_values).map_err(io)?;
        index.set_len(n_bytes).map_err(io)?;
        data.seek(SeekFrom::End(0)).map_err(io)?;
        index.seek(SeekFrom::End(0)).map_err(io)?;
        Ok(Self {
            n_layers,
            n_state,
            records,
            data: BufWriter::with_capacity(1 << 20, data),
            index: BufWriter::new(index),
            n_values,
            map: None,
            data_path: folder.join(DATA),
        })
    }

    /// Hidden states of one record.
    #[must_use]
    pub fn n_layers(&self) -> usize {
        self.n_layers
    }

    /// Width of a state.
    #[must_use]
    pub fn n_state(&self) -> usize {
        self.n_state
    }

    /// Whether a record is there.
    #[must_use]
    pub fn contains(&self, key: FeatureKey) -> bool {
        self.records.contains_key(&key)
    }

    /// Positions of a record.
    #[must_use]
    pub fn n_positions(&self, key: FeatureKey) -> Option<usize> {
        self.records.get(&key).map(|record| record.n_positions as usize)
    }

    /// Appends a record. One that is there already stays as it is.
    ///
    /// # Errors
    /// [`Error::Io`]: the disk is full.
    ///
    /// # Panics
    /// If `states` is not a whole number of positions.
    pub fn add(&mut self, key: FeatureKey, states: &[f16]) -> Result<()> {
        let width = self.n_layers * self.n_state;
        assert!(states.len().is_multiple_of(width), "a record is [n_layers, n_positions, n_state]");
        if self.contains(key) {
            return Ok(());
        }
        let record = Record { start: self.n_values, n_positions: (states.len() / width) as u32 };
        let io = |source| Error::Io { what: "writing encoder states (is the disk full?)".to_owned(), source };
        for value in states {
            self.data.write_all(&value.to_le_bytes()).map_err(io)?;
        }
        writeln!(self.index, "{}\t{}\t{}", key.to_hex(), record.start, record.n_positions).map_err(io)?;
        self.n_values += states.len() as u64;
        self.records.insert(key, record);
        Ok(())
    }

    /// Makes what was added safe from a kill, the data before the lines that speak of it; and readable.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn flush(&mut self) -> Result<()> {
        let io = |source| Error::Io { what: "writing encoder states (is the disk full?)".to_owned(), source };
        self.data.flush().map_err(io)?;
        self.index.flush().map_err(io)?;
        self.map = None;
        if self.n_values > 0 {
            let file = File::open(&self.data_path).map_err(io)?;
            // SAFETY: see the head of this file.
            self.map = Some(unsafe { memmap2::Mmap::map(&file) }.map_err(io)?);
        }
        Ok(())
    }

    /// Widens the states of one layer of a record into `out`, `[n_positions, n_state]`.
    ///
    /// # Errors
    /// [`Error::ShapeMismatch`] if there is no such record, or it is not flushed, or `out` has another length.
    pub fn read_layer(&self, key: FeatureKey, layer: usize, out: &mut [f32]) -> Result<()> {
        let wrong = |expected: usize, got: usize| Error::ShapeMismatch {
            tensor: "a record of encoder states",
            expected: vec![expected],
            got: vec![got],
        };
        let record = self.records.get(&key).ok_or_else(|| wrong(1, 0))?;
        let n = record.n_positions as usize * self.n_state;
        if out.len() != n || layer >= self.n_layers {
            return Err(wrong(n, out.len()));
        }
        let start = 2 * (record.start as usize + layer * n);
        let bytes = self.map.as_ref().and_then(|map| map.get(start..start + 2 * n)).ok_or_else(|| wrong(n, 0))?;
        let mut halves = [f16::ZERO; 1024];
        for (bytes, out) in bytes.chunks(2048).zip(out.chunks_mut(1024)) {
            for (half, pair) in halves.iter_mut().zip(bytes.as_chunks::<2>().0) {
                *half = f16::from_le_bytes(*pair);
            }
            halves[..out.len()].convert_to_f32_slice(out);
        }
        Ok(())
    }
}

impl Drop for FeatureStore {
    fn drop(&mut self) {
        // What cannot be written here is computed again by the next run.
        let _ = self.data.flush().and_then(|()| self.index.flush());
    }
}

fn read_line(line: &str) -> Option<(FeatureKey, Record)> {
    let mut fields = line.trim_end().split('\t');
    let key = FeatureKey::from_hex(fields.next()?)?;
    let record = Record { start: fields.next()?.parse().ok()?, n_positions: fields.next()?.parse().ok()? };
    fields.next().is_none().then_some((key, record))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn key(n: u8) -> FeatureKey {
        FeatureKey::new(&[b"clip", &[n]])
    }

    fn states(n: u8, n_positions: usize) -> Vec<f16> {
        (0..2 * n_positions * 3).map(|i| f16::from_f32(f32::from(n) + i as f32 / 8.0)).collect()
    }

    fn read(store: &FeatureStore, key: FeatureKey, layer: usize) -> Vec<f32> {
        let mut out = vec![0.0; store.n_positions(key).unwrap() * 3];
        store.read_layer(key, layer, &mut out).unwrap();
        out
    }

    #[test]
    fn what_was_added_is_read_also_by_a_later_run() {
        let folder = tempfile::tempdir().unwrap();
        let mut store = FeatureStore::open(folder.path(), 2, 3).unwrap();
        store.add(key(1), &states(1, 700)).unwrap();
        store.add(key(2), &states(2, 1)).unwrap();
        store.flush().unwrap();
        drop(store);
        let mut store = FeatureStore::open(folder.path(), 2, 3).unwrap();
        store.add(key(3), &states(3, 2)).unwrap();
        store.flush().unwrap();
        for (n, n_positions) in [(1, 700), (2, 1), (3, 2)] {
            let all: Vec<f32> = states(n, n_positions).into_iter().map(f16::to_f32).collect();
            assert_eq!(read(&store, key(n), 0), all[..n_positions * 3]);
            assert_eq!(read(&store, key(n), 1), all[n_positions * 3..]);
        }
        assert!(!store.contains(key(4)));
        assert!(store.read_layer(key(4), 0, &mut []).is_err());
        assert!(store.read_layer(key(2), 2, &mut [0.0; 3]).is_err());
    }

    #[test]
    fn a_killed_run_leaves_nothing_half_written() {
        let folder = tempfile::tempdir().unwrap();
        let mut store = FeatureStore::open(folder.path(), 2, 3).unwrap();
        for n in 0..3 {
            store.add(key(n), &states(n, 4)).unwrap();
        }
        store.flush().unwrap();
        drop(store);
        let (data, index) = (folder.path().join(DATA), folder.path().join(INDEX));
        let (whole_data, whole_index) = (fs::read(&data).unwrap(), fs::read(&index).unwrap());
        for (n_data, n_index) in [(whole_data.len() - 1, whole_index.len()), (whole_data.len(), whole_index.len() - 1)]
        {
            fs::write(&data, &whole_data[..n_data]).unwrap();
            fs::write(&index, &whole_index[..n_index]).unwrap();
            let mut store = FeatureStore::open(folder.path(), 2, 3).unwrap();
            assert!(store.contains(key(0)) && store.contains(key(1)) && !store.contains(key(2)));
            store.add(key(2), &states(2, 4)).unwrap();
            store.flush().unwrap();
            assert_eq!(read(&store, key(2), 0)[0], 2.0);
            assert_eq!(read(&store, key(1), 0)[0], 1.0);
            drop(store);
            assert_eq!(fs::read(&data).unwrap(), whole_data);
            assert_eq!(fs::read(&index).unwrap(), whole_index);
        }
    }

    #[test]
    fn a_store_is_one_process_s_at_a_time() {
        let folder = tempfile::tempdir().unwrap();
        let store = FeatureStore::open(folder.path(), 2, 3).unwrap();
        assert_eq!(FeatureStore::open(folder.path(), 2, 3).unwrap_err().code(), "io");
        drop(store);
        assert!(FeatureStore::open(folder.path(), 2, 3).is_ok());
    }

    #[test]
    fn parts_of_a_key_do_not_run_together() {
        assert_ne!(FeatureKey::new(&[b"ab", b"c"]), FeatureKey::new(&[b"a", b"bc"]));
        let key = key(7);
        assert_eq!(FeatureKey::from_hex(&key.to_hex()), Some(key));
        assert_eq!(FeatureKey::from_hex("zz"), None);
    }
}
