//! The two files that `torch.save` writes around a pickle, and where the numbers lie in them.
//!
//! Follows PyTorch 2.15 `torch/serialization.py` (`_load`, `_legacy_load`) and, for the zip,
//! `caffe2/serialize/inline_container.cc`:
//!
//! - since torch 1.6 a zip of stored (never compressed) entries under one folder's name: `data.pkl`, `data/KEY` for
//!   each storage, `byteorder`, `version`;
//! - before that pickles one behind the other (a magic number, the protocol's version, facts about the machine, the
//!   object, the keys of the storages), then for each key an `i64` count and the numbers.
//!
//! Deviations: checksums of zip entries are not computed, since they would have every byte read before the first is
//! needed; what `data.pkl` says of a storage is held against its entry's size instead. The tar of torch before 0.1.10
//! is not read.

use std::collections::{BTreeMap, HashMap};
use std::io::Cursor;
use std::ops::Range;

use zip::read::{ArchiveOffset, Config};
use zip::{CompressionMethod, ZipArchive};

use super::pickle::unpickle;
use super::pickle_value::{Pickle, StorageRef, Value, printable};
use crate::error::{Error, Result};

/// Of Whisper large it takes 130 kB.
const MAX_PICKLE_BYTES: usize = 64 << 20;
/// `byteorder`, `version` and what else stands beside the storages.
const OTHER_ENTRIES: usize = 64;
/// The first of the old format's pickles.
const MAGIC_NUMBER: i128 = 0x1950_a86a_20f9_469c_fc6c;
/// The second.
const LEGACY_PROTOCOL: i128 = 1001;
/// Versions of the zip's layout that torch reads.
const ZIP_VERSIONS: std::ops::RangeInclusive<u32> = 1..=10;

/// The pickle of a file, and the bytes of each storage by its key.
pub(super) struct Container<'a> {
    pub(super) pickle: Pickle<'a>,
    pub(super) storages: HashMap<String, Range<usize>>,
}

/// Reads either file; `max_storages` bounds what is kept of a directory.
///
/// # Errors
/// [`Error::DamagedWeights`], [`Error::UnsafePickle`], [`Error::WeightsTooLarge`].
pub(super) fn read_container<'a>(content: &'a [u8], file: &str, max_storages: usize) -> Result<Container<'a>> {
    match content.first() {
        Some(b'P') => read_zip(content, file, max_storages),
        Some(0x80) => read_legacy(content, file),
        Some(_) => Err(damaged(file, "it is no file that torch.save writes")),
        None => Err(damaged(file, "it is empty")),
    }
}

fn damaged(file: &str, reason: impl Into<String>) -> Error {
    Error::DamagedWeights { file: file.to_owned(), reason: reason.into() }
}

fn too_large(file: &str, reason: String) -> Error {
    Error::WeightsTooLarge { file: file.to_owned(), reason }
}

fn read_zip<'a>(content: &'a [u8], file: &str, max_storages: usize) -> Result<Container<'a>> {
    let entries = zip_entries(content, file, max_storages.saturating_add(OTHER_ENTRIES))?;
    let mut folders = entries.keys().filter_map(|name| name.strip_suffix("/data.pkl")).filter(|f| !f.contains('/'));
    let folder = folders.next().ok_or_else(|| damaged(file, "it is a zip without data.pkl, so not torch's"))?;
    if folders.next().is_some() {
        return Err(damaged(file, "it holds data.pkl twice"));
    }
    let entry = |name: &str| entries.get(&format!("{folder}/{name}")).map(|range| &content[range.clone()]);
    if entry("constants.pkl").is_some() {
        return Err(damaged(file, "it is a TorchScript program; weights are saved by torch.save(model.state_dict())"));
    }
    match entry("byteorder") {
        None | Some(b"little") => {}
        Some(_) => return Err(damaged(file, "its numbers are big-endian; save it again on a usual machine")),
    }
    if let Some(version) = entry("version") {
        let number = std::str::from_utf8(version).ok().and_then(|text| text.trim().parse::<u32>().ok());
        if !number.is_some_and(|n| ZIP_VERSIONS.contains(&n)) {
            return Err(damaged(file, "the version of its layout is not known"));
        }
    }
    let pickle = entry("data.pkl").ok_or_else(|| damaged(file, "it is a zip without data.pkl"))?;
    if pickle.len() > MAX_PICKLE_BYTES {
        return Err(too_large(file, format!("its pickle is {} bytes long", pickle.len())));
    }
    let pickle = unpickle(pickle).map_err(|refusal| refusal.error(file))?;
    let storages_in = format!("{folder}/data/");
    let storages = entries
        .iter()
        .filter_map(|(name, range)| Some((name.strip_prefix(&storages_in)?.to_owned(), range.clone())))
        .collect();
    Ok(Container { pickle, storages })
}

/// Where the content of each entry lies, checked: stored as it is, inside the file, and nobody else's.
fn zip_entries(content: &[u8], file: &str, max_entries: usize) -> Result<BTreeMap<String, Range<usize>>> {
    let broken = |error: zip::result::ZipError| damaged(file, printable(&error.to_string()));
    let too_many = || too_large(file, format!("it is a zip of more than {max_entries} entries"));
    if most_entries_claimed(content) > max_entries as u64 {
        return Err(too_many());
    }
    // The archive begins where the file does: nothing has to be searched for.
    let config = Config { archive_offset: ArchiveOffset::Known(0) };
    let mut archive = ZipArchive::with_config(config, Cursor::new(content)).map_err(broken)?;
    if archive.len() > max_entries {
        return Err(too_many());
    }
    if archive.has_duplicate_names() {
        return Err(damaged(file, "its zip directory holds a name twice"));
    }
    if archive.has_overlapping_entries().map_err(broken)? {
        return Err(damaged(file, "entries of its zip lie over each other"));
    }
    let mut entries = BTreeMap::new();
    for index in 0..archive.len() {
        let entry = archive.by_index_raw(index).map_err(broken)?;
        let name = entry.name().map_err(broken)?.into_owned();
        let shown = printable(&name);
        // Nothing is unpacked; this only keeps the names to what torch writes.
        if name.contains(['\\', '\0']) || name.split('/').any(|part| matches!(part, "" | "." | "..")) {
            return Err(damaged(file, format!("its zip holds '{shown}', which is no name that torch gives")));
        }
        if entry.encrypted() {
            return Err(damaged(file, format!("'{shown}' in its zip is encrypted")));
        }
        if entry.compression() != CompressionMethod::Stored || entry.compressed_size() != entry.size() {
            let reason =
                format!("'{shown}' in its zip is compressed, which torch never does; unpack it and save it again");
            return Err(damaged(file, reason));
        }
        let start = entry.data_start().and_then(|start| usize::try_from(start).ok());
        let range = start.and_then(|start| Some(start..start.checked_add(usize::try_from(entry.size()).ok()?)?));
        let range = range.filter(|range| content.get(range.clone()).is_some());
        let range = range.ok_or_else(|| damaged(file, format!("'{shown}' in its zip reaches beyond the file")))?;
        entries.insert(name, range);
    }
    Ok(entries)
}

/// The largest number of entries that any 64-bit end of a directory claims, before memory is set aside for them. The
/// `zip` crate tries every end in the file's last 64 KiB and a little; a 32-bit one cannot claim more than 65,535.
fn most_entries_claimed(content: &[u8]) -> u64 {
    const WINDOW: usize = 128 << 10;
    const LOCATOR: usize = 20;
    let u64_at = |at: usize| content.get(at..)?.first_chunk::<8>().map(|bytes| u64::from_le_bytes(*bytes));
    let record_at = |locator: usize| -> Option<u64> {
        content[locator..].starts_with(b"PK\x06\x07").then_some(())?;
        let record = usize::try_from(u64_at(locator + 8)?).ok()?;
        content.get(record..)?.starts_with(b"PK\x06\x06").then_some(())?;
        u64_at(record.checked_add(32)?)
    };
    let first = content.len().saturating_sub(WINDOW);
    (first..content.len())
        .filter(|at| *at >= LOCATOR && content[*at..].starts_with(b"PK\x05\x06"))
        .filter_map(|at| record_at(at - LOCATOR))
        .max()
        .unwrap_or(0)
}

fn read_legacy<'a>(content: &'a [u8], file: &str) -> Result<Container<'a>> {
    let mut at = 0;
    let mut next = || -> Result<Pickle<'a>> {
        let end = content.len().min(at + MAX_PICKLE_BYTES);
        let pickle = unpickle(&content[at..end]).map_err(|refusal| refusal.error(file))?;
        at += pickle.n_read;
        Ok(pickle)
    };
    if !matches!(next()?.root(), Value::Int(MAGIC_NUMBER)) {
        return Err(damaged(file, "it is a pickle, but not torch's"));
    }
    if !matches!(next()?.root(), Value::Int(LEGACY_PROTOCOL)) {
        return Err(damaged(file, "the version of its layout is not known"));
    }
    let machine = next()?;
    if matches!(machine.field(machine.root(), "little_endian"), Some(Value::Bool(false))) {
        return Err(damaged(file, "its numbers are big-endian; save it again on a usual machine"));
    }
    let pickle = next()?;
    let keys = next()?;
    let keys = keys.strings(keys.root()).ok_or_else(|| damaged(file, "it does not list its storages"))?;
    let known = pickle.storages().map_err(|refusal| refusal.error(file))?;
    let mut storages = HashMap::new();
    for key in keys {
        let range = legacy_storage(content, at, known.get(key));
        let range = range
            .ok_or_else(|| damaged(file, format!("its storage {} is cut short or not the pickle's", printable(key))))?;
        at = range.end;
        if storages.insert(key.to_owned(), range).is_some() {
            return Err(damaged(file, format!("it holds storage {} twice", printable(key))));
        }
    }
    Ok(Container { pickle, storages })
}

/// The numbers behind the count at `at`, if the count is what the pickle says and they are all there.
fn legacy_storage(content: &[u8], at: usize, known: Option<&StorageRef<'_>>) -> Option<Range<usize>> {
    let known = known?;
    let count = content.get(at..)?.first_chunk::<8>().map(|bytes| i64::from_le_bytes(*bytes))?;
    let start = at + 8;
    let end = start.checked_add(known.n.checked_mul(known.element.size)?)?;
    (usize::try_from(count).ok() == Some(known.n) && end <= content.len()).then_some(start..end)
}
