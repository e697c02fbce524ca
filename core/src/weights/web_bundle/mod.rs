//! A model as a browser loads it: a manifest, and parts of at most 4 MiB.
//!
//! A bundle has two stages. The first holds encoder and intent head and is enough for the intent; the second holds the
//! decoder, its vocabulary trimmed, and loads when words are asked for. A stage is one run of bytes, cut into parts; the
//! manifest says where in it which tensor lies and how it is stored. Unpacked, a bundle is a model folder like any
//! other ([`ModelFolder`]), so that a browser runs the very code of a server.
//!
//! Nothing of a stage is used before all of its parts are there and each has its SHA-256.

mod manifest;
mod pack;
mod quantise;
mod vocabulary;

use std::borrow::Cow;
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use sha2::{Digest, Sha256};

use super::folder::{Files, ModelFolder, not_found};
use super::{StoredData, StoredTensor, StoredType, WeightSource, n_elements};
use crate::error::{Error, Result};
pub use manifest::{
    Check, Delivery, Encoding, FORMAT, Licence, Loss, MANIFEST_FILE, MAX_PART_BYTES, Manifest, Part, Stage, StageName,
    StoredEntry, StoredFile, VERSION, Vocabulary,
};
pub use pack::{PackOptions, Packed, pack};
pub(crate) use quantise::from_int4;

/// A bundle whose parts arrive, in any order.
#[derive(Debug)]
pub struct WebBundle {
    manifest: Manifest,
    stages: BTreeMap<StageName, Arriving>,
}

/// A stage on its way.
#[derive(Debug)]
struct Arriving {
    /// Shared with the models that were made of it. From the stage's beginning to the end of the last part that is here;
    /// there is room for all.
    bytes: Arc<Vec<u8>>,
    /// Of each part.
    is_here: Vec<bool>,
}

impl WebBundle {
    /// A bundle of which nothing but the manifest is there.
    ///
    /// # Errors
    /// As [`Manifest::parse`].
    pub fn new(manifest_json: &[u8]) -> Result<Self> {
        Ok(Self { manifest: Manifest::parse(manifest_json)?, stages: BTreeMap::new() })
    }

    /// What the bundle says of itself.
    #[must_use]
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Takes a part, if it is what the manifest says; nothing else of it is kept.
    ///
    /// # Errors
    /// [`Error::ModelNotFound`] if the manifest has no such part, [`Error::DamagedWeights`] if it was cut short,
    /// [`Error::ChecksumMismatch`] if it was altered.
    pub fn add_part(&mut self, file: &str, bytes: &[u8]) -> Result<()> {
        let found = self.manifest.stages.iter().find_map(|stage| {
            let at = stage.parts.iter().position(|part| part.file == file)?;
            Some((stage, at))
        });
        let (stage, at) = found.ok_or_else(|| Error::ModelNotFound {
            what: format!("{} in {MANIFEST_FILE}", crate::error::printable(file)),
        })?;
        let part = &stage.parts[at];
        if bytes.len() as u64 != part.bytes {
            let reason = format!("it has {} bytes, not {}", bytes.len(), part.bytes);
            return Err(Error::DamagedWeights { file: part.file.clone(), reason });
        }
        let got = hex(&Sha256::digest(bytes));
        if got != part.sha256 {
            return Err(Error::ChecksumMismatch { file: part.file.clone(), expected: part.sha256.clone(), got });
        }
        let start: u64 = stage.parts[..at].iter().map(|part| part.bytes).sum();
        let arriving = match self.stages.entry(stage.name) {
            Entry::Occupied(arriving) => arriving.into_mut(),
            Entry::Vacant(place) => {
                let (bytes, is_here) = (Arc::new(room_for(stage.bytes)?), vec![false; stage.parts.len()]);
                place.insert(Arriving { bytes, is_here })
            }
        };
        if !arriving.is_here[at] {
            // A stage of which a part is missing is in no model yet: nothing is copied.
            let here = Arc::make_mut(&mut arriving.bytes);
            let start = start as usize;
            let end = start + bytes.len();
            if here.len() < end {
                here.resize(end, 0);
            }
            here[start..end].copy_from_slice(bytes);
            arriving.is_here[at] = true;
        }
        Ok(())
    }

    /// Whether every part of a stage is there.
    #[must_use]
    pub fn is_complete(&self, stage: StageName) -> bool {
        self.stages.get(&stage).is_some_and(|arriving| arriving.is_here.iter().all(|here| *here))
    }

    /// The model, with the stages that are wanted. It shares the bundle's bytes, and the bundle may make another.
    ///
    /// # Errors
    /// [`Error::ModelNotFound`] names a part that is missing; whatever is wrong with the model inside.
    pub fn folder(&self, with_words: bool) -> Result<ModelFolder> {
        let wanted: &[StageName] =
            if with_words { &[StageName::Intent, StageName::Words] } else { &[StageName::Intent] };
        let mut files = BTreeMap::new();
        let mut weights = BundleWeights { stages: Vec::new(), entries: HashMap::new() };
        for name in wanted {
            let not_found = |what: String| Error::ModelNotFound { what };
            let stage = self
                .manifest
                .stage(*name)
                .ok_or_else(|| not_found(format!("the stage '{}' of the bundle", name.name())))?;
            let arriving = self.stages.get(name);
            let is_here = |at: usize| arriving.is_some_and(|arriving| arriving.is_here[at]);
            if let Some(at) = (0..stage.parts.len()).find(|at| !is_here(*at)) {
                return Err(not_found(stage.parts[at].file.clone()));
            }
            let bytes = arriving.map(|arriving| Arc::clone(&arriving.bytes)).unwrap_or_default();
            for file in &stage.files {
                // A later stage says more about the model than an earlier one.
                files.insert(file.name.clone(), bytes[file.offset as usize..][..file.bytes as usize].to_vec());
            }
            for entry in &stage.tensors {
                weights.entries.insert(entry.name.clone(), (weights.stages.len(), entry.clone()));
            }
            weights.stages.push(bytes);
        }
        ModelFolder::open_in_memory(self.manifest.model.clone(), files, Arc::new(weights))
    }
}

/// Opens a folder with a bundle in it, all of its stages.
pub(super) fn open_folder(files: &Files) -> Result<ModelFolder> {
    let mut bundle = WebBundle::new(&files.read(MANIFEST_FILE)?.ok_or_else(|| not_found(MANIFEST_FILE))?)?;
    let parts: Vec<String> =
        bundle.manifest.stages.iter().flat_map(|stage| &stage.parts).map(|part| part.file.clone()).collect();
    for part in &parts {
        bundle.add_part(part, &files.read(part)?.ok_or_else(|| not_found(part))?)?;
    }
    let has_words = bundle.manifest.stage(StageName::Words).is_some();
    bundle.folder(has_words)
}

/// Room for a stage, or the news that there is none: a phone may have little, and a manifest may ask for anything. It is
/// asked for at once, since growing would need both the old room and the new; it is written to as parts come.
fn room_for(n_bytes: u64) -> Result<Vec<u8>> {
    let too_much = || Error::OutOfMemory { needed_mb: n_bytes >> 20, available_mb: 0 };
    let n = usize::try_from(n_bytes).map_err(|_| too_much())?;
    let mut bytes = Vec::new();
    bytes.try_reserve_exact(n).map_err(|_| too_much())?;
    Ok(bytes)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// The tensors of complete stages.
struct BundleWeights {
    stages: Vec<Arc<Vec<u8>>>,
    entries: HashMap<String, (usize, StoredEntry)>,
}

impl WeightSource for BundleWeights {
    fn names(&self) -> Vec<String> {
        self.entries.keys().cloned().collect()
    }

    fn get(&self, name: &str) -> Option<StoredTensor<'_>> {
        let (stage, entry) = self.entries.get(name)?;
        // The manifest was checked: every tensor lies inside its stage and has the bytes that its shape needs.
        let bytes = self.stages[*stage].get(entry.offset as usize..(entry.offset + entry.bytes) as usize)?;
        let n = usize::try_from(n_elements(&entry.shape)).ok()?;
        let data = match entry.encoding {
            Encoding::F16 => StoredData::Float { dtype: StoredType::F16, bytes: Cow::Borrowed(bytes) },
            Encoding::Int8 => {
                let (bytes, scales) = bytes.split_at_checked(n)?;
                let scales = scales.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
                StoredData::Int8 { bytes, scales: Cow::Owned(scales) }
            }
            Encoding::Int4 => {
                let (bytes, scales) = bytes.split_at_checked(n / 2)?;
                StoredData::Int4 { bytes, scales }
            }
            Encoding::Sinusoids => {
                let bytes = sinusoids(entry.shape[0], entry.shape[1]).iter().flat_map(|v| v.to_le_bytes()).collect();
                StoredData::Float { dtype: StoredType::F32, bytes: Cow::Owned(bytes) }
            }
        };
        Some(StoredTensor { shape: entry.shape.clone(), data })
    }

    fn shape(&self, name: &str) -> Option<Vec<usize>> {
        self.entries.get(name).map(|(_, entry)| entry.shape.clone())
    }

    fn format(&self) -> &'static str {
        "web_bundle"
    }

    fn file(&self) -> &str {
        MANIFEST_FILE
    }
}

/// `openai/whisper` `model.py` `sinusoids`: the encoder's positions, `[length, channels]`.
fn sinusoids(length: usize, channels: usize) -> Vec<f32> {
    let half = channels / 2;
    let step = 10_000f64.ln() / (half - 1) as f64;
    let mut values = Vec::with_capacity(length * channels);
    for position in 0..length {
        let angle = |at: usize| position as f64 * (-step * at as f64).exp();
        values.extend((0..half).map(|at| angle(at).sin() as f32));
        values.extend((0..half).map(|at| angle(at).cos() as f32));
    }
    values
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn memory_is_written_to_as_parts_come() {
        const N_BYTES: usize = 1000;
        let content = vec![7_u8; N_BYTES];
        let sha256 = hex(&Sha256::digest(&content));
        let parts: Vec<_> = (0..16)
            .map(|i| json!({ "file": format!("intent-{i:02}.bin"), "bytes": N_BYTES, "sha256": sha256 }))
            .collect();
        let stage = json!({
            "name": "intent", "purpose": "", "bytes": 16 * N_BYTES, "parts": parts, "files": [], "tensors": [],
        });
        let manifest = json!({
            "format": FORMAT, "version": VERSION, "made_by": "", "model": "", "dtype": "f16", "licences": [],
            "stages": [stage],
        });
        let mut bundle = WebBundle::new(&serde_json::to_vec(&manifest).unwrap()).unwrap();
        let written = |bundle: &WebBundle| bundle.stages[&StageName::Intent].bytes.len();
        bundle.add_part("intent-00.bin", &content).unwrap();
        assert_eq!(written(&bundle), N_BYTES);
        // Parts come in any order.
        bundle.add_part("intent-03.bin", &content).unwrap();
        assert_eq!(written(&bundle), 4 * N_BYTES);
        let here = &bundle.stages[&StageName::Intent].bytes;
        let is_content = |part: usize| here[part * N_BYTES..][..N_BYTES] == content;
        assert_eq!([0, 1, 2, 3].map(is_content), [true, false, false, true]);
        let room = here.as_ptr();
        for i in (1..16).rev() {
            assert!(!bundle.is_complete(StageName::Intent));
            bundle.add_part(&format!("intent-{i:02}.bin"), &content).unwrap();
        }
        assert!(bundle.is_complete(StageName::Intent));
        let here = &bundle.stages[&StageName::Intent].bytes;
        assert!(here.len() == 16 * N_BYTES && here.iter().all(|b| *b == 7));
        assert_eq!(here.as_ptr(), room, "nothing is moved");
    }
}
