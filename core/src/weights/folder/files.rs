//! The files of a model folder: small ones read, weights mapped; none through a link out of the folder.

// `unsafe`: mapping a file is unsafe because another process could change it under the map. The map
// lives only while a model is loaded; every read through it is bounds-checked against the length at
// the time of mapping, every bit pattern is a valid u8, and values are checked to be finite after
// conversion. A file that is truncated meanwhile raises SIGBUS; weights land by rename (never by
// writing in place), so no tool of this project does that.
#![allow(unsafe_code)]

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Deserialize;
use serde_json::Value;

use crate::error::{Error, Result};
use crate::weights::WeightSource;
use crate::weights::ctranslate2::Ctranslate2;
use crate::weights::pytorch::{PytorchFile, PytorchLimits};
use crate::weights::safetensors::{FileBytes, Safetensors};
use crate::weights::shards::Shards;
use crate::whisper::config::invalid;

/// JSON and tokenizer files beyond this are not what they say they are.
pub(crate) const MAX_TEXT_FILE_BYTES: u64 = 64 << 20;

/// What a PEFT (LoRA) repository has in place of a model's configuration.
pub(crate) const PEFT_CONFIG: &str = "adapter_config.json";

/// Large-file storage leaves such a text where the file was not fetched.
const LFS_POINTER: &[u8] = b"version https://git-lfs";

/// A folder that a model is read from.
pub(crate) struct Files {
    folder: PathBuf,
    /// With every link resolved.
    real: PathBuf,
    /// A folder that is not on disk.
    in_memory: Option<InMemory>,
}

/// A model folder that was compiled in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BuiltIn {
    /// What the folder would be called.
    pub name: &'static str,
    /// `(name, content)`.
    pub files: &'static [(&'static str, &'static [u8])],
}

impl BuiltIn {
    fn get(&self, file: &str) -> Option<&'static [u8]> {
        self.files.iter().find(|(name, _)| *name == file).map(|(_, bytes)| *bytes)
    }
}

/// A folder that is not on disk.
enum InMemory {
    /// A part of the program.
    BuiltIn(&'static BuiltIn),
    /// Unpacked from something else.
    Unpacked { name: String, files: BTreeMap<String, Vec<u8>>, weights: Arc<dyn WeightSource> },
}

impl InMemory {
    fn get(&self, file: &str) -> Option<&[u8]> {
        match self {
            Self::BuiltIn(built_in) => built_in.get(file),
            Self::Unpacked { files, .. } => files.get(file).map(Vec::as_slice),
        }
    }
}

/// The weights of a folder.
pub(crate) enum OpenedWeights {
    /// Named tensors in Hugging Face's layout.
    HuggingFace(Arc<dyn WeightSource>),
    /// CTranslate2's, whose tensors state the model's dimensions.
    Ctranslate2(Ctranslate2),
}

impl Files {
    /// # Errors
    /// [`Error::ModelNotFound`] if there is no such folder.
    pub(crate) fn open(folder: &Path) -> Result<Self> {
        let real = folder.canonicalize().ok().filter(|f| f.is_dir()).ok_or_else(|| not_found("the model folder"))?;
        Ok(Self { folder: folder.to_owned(), real, in_memory: None })
    }

    /// The files of a folder that was compiled in.
    pub(crate) fn built_in(folder: &'static BuiltIn) -> Self {
        Self::not_on_disk(InMemory::BuiltIn(folder))
    }

    /// Small files and weights that were unpacked from something else.
    #[cfg(feature = "web-bundle")]
    pub(crate) fn unpacked(name: String, files: BTreeMap<String, Vec<u8>>, weights: Arc<dyn WeightSource>) -> Self {
        Self::not_on_disk(InMemory::Unpacked { name, files, weights })
    }

    fn not_on_disk(content: InMemory) -> Self {
        Self { folder: PathBuf::new(), real: PathBuf::new(), in_memory: Some(content) }
    }

    /// The folder's own name. A snapshot of the hub cache is called as its repository.
    pub(crate) fn name(&self) -> String {
        match &self.in_memory {
            Some(InMemory::BuiltIn(built_in)) => return built_in.name.to_owned(),
            Some(InMemory::Unpacked { name, .. }) => return name.clone(),
            None => {}
        }
        let part = |path: &Path| path.file_name().map(|n| n.to_string_lossy().into_owned());
        self.cached_repo()
            .and_then(|repo| part(repo)?.strip_prefix("models--").map(|name| name.replacen("--", "/", 1)))
            .or_else(|| part(&self.real))
            .unwrap_or_else(|| "model".to_owned())
    }

    /// `CACHE/models--owner--name`, if this is one of its snapshots.
    fn cached_repo(&self) -> Option<&Path> {
        let snapshots = self.real.parent().filter(|p| p.file_name().is_some_and(|n| n == "snapshots"))?;
        let repo = snapshots.parent()?;
        repo.file_name()?.to_str()?.starts_with("models--").then_some(repo)
    }

    /// Whether there is such a file.
    pub(crate) fn has(&self, file: &str) -> bool {
        match &self.in_memory {
            Some(content) => content.get(file).is_some(),
            None => self.folder.join(file).is_file(),
        }
    }

    /// A small file's bytes; `None` if it is not there.
    ///
    /// # Errors
    /// [`Error::InvalidConfig`] if it is too large, [`Error::UnsafePath`] if it is a link out of the folder,
    /// [`Error::Io`].
    pub(crate) fn read(&self, file: &str) -> Result<Option<Vec<u8>>> {
        if let Some(content) = &self.in_memory {
            return Ok(content.get(file).map(<[u8]>::to_vec));
        }
        let Some(path) = self.path(file)? else { return Ok(None) };
        let io = |source| Error::Io { what: format!("reading {file}"), source };
        let metadata = std::fs::metadata(&path).map_err(io)?;
        if !metadata.is_file() {
            return Err(invalid(file, "it is not a file".to_owned()));
        }
        // What grows while it is read is bounded as well.
        let mut bytes = Vec::new();
        File::open(&path).map_err(io)?.take(MAX_TEXT_FILE_BYTES + 1).read_to_end(&mut bytes).map_err(io)?;
        if bytes.len() as u64 > MAX_TEXT_FILE_BYTES {
            return Err(invalid(file, format!("more than {MAX_TEXT_FILE_BYTES} bytes are too many for such a file")));
        }
        Ok(Some(bytes))
    }

    /// A small JSON file; `None` if it is not there.
    ///
    /// # Errors
    /// As [`Self::read`], and [`Error::InvalidConfig`] if it is not what it should be.
    pub(crate) fn json<T: for<'de> Deserialize<'de>>(&self, file: &str) -> Result<Option<T>> {
        let parse = |json: Vec<u8>| serde_json::from_slice(&json).map_err(|e| invalid(file, e.to_string()));
        self.read(file)?.map(parse).transpose()
    }

    /// What the feature extractor is told: `preprocessor_config.json`, or its part of the `processor_config.json` that
    /// newer versions of transformers save.
    ///
    /// # Errors
    /// As [`Self::json`].
    pub(crate) fn features(&self) -> Result<Option<Value>> {
        if let Some(json) = self.json("preprocessor_config.json")? {
            return Ok(Some(json));
        }
        Ok(self.json::<Value>("processor_config.json")?.and_then(|json| json.get("feature_extractor").cloned()))
    }

    /// Where a file really lies; `None` if it is not there.
    ///
    /// A link is followed inside the folder, and from a snapshot of the hub cache to that repository's blobs.
    fn path(&self, file: &str) -> Result<Option<PathBuf>> {
        let io = |source| Error::Io { what: format!("reading {file}"), source };
        let path = match self.folder.join(file).canonicalize() {
            Ok(path) => path,
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(io(e)),
        };
        let blobs = self.cached_repo().map(|repo| repo.join("blobs"));
        if path.starts_with(&self.real) || blobs.is_some_and(|blobs| path.starts_with(blobs)) {
            Ok(Some(path))
        } else {
            Err(Error::UnsafePath { file: file.to_owned() })
        }
    }

    /// The weights: one format, in the order in which they are trusted.
    ///
    /// # Errors
    /// [`Error::ModelNotFound`] if there are none, and what their formats say.
    pub(crate) fn weights(&self, limits: Option<&PytorchLimits>) -> Result<OpenedWeights> {
        const SAFETENSORS: &str = "model.safetensors";
        const SAFETENSORS_INDEX: &str = "model.safetensors.index.json";
        const PYTORCH: &str = "pytorch_model.bin";
        const PYTORCH_INDEX: &str = "pytorch_model.bin.index.json";
        const CTRANSLATE2: &str = "model.bin";
        if let Some(InMemory::Unpacked { weights, .. }) = &self.in_memory {
            return Ok(OpenedWeights::HuggingFace(Arc::clone(weights)));
        }
        if self.has(SAFETENSORS) {
            return Ok(OpenedWeights::HuggingFace(Arc::new(Safetensors::new(self.map(SAFETENSORS)?, SAFETENSORS)?)));
        }
        for index in [SAFETENSORS_INDEX, PYTORCH_INDEX] {
            if self.has(index) && !(index == PYTORCH_INDEX && self.has(PYTORCH)) {
                return Ok(OpenedWeights::HuggingFace(Arc::new(self.shards(index, limits)?)));
            }
        }
        for file in [PYTORCH, CTRANSLATE2] {
            if !self.has(file) {
                continue;
            }
            // A name proves nothing: what stands at the beginning does.
            let bytes = self.map(file)?;
            let content: &[u8] = (*bytes).as_ref();
            return Ok(if content.starts_with(b"PK\x03\x04") || content.starts_with(&[0x80]) {
                let limits = limits_for(limits, content);
                OpenedWeights::HuggingFace(Arc::new(PytorchFile::new(bytes, file, &limits)?))
            } else {
                OpenedWeights::Ctranslate2(Ctranslate2::new(bytes, file)?)
            });
        }
        if self.has(PEFT_CONFIG) {
            return Err(peft());
        }
        Err(not_found("model.safetensors, pytorch_model.bin (or the shards of either) or model.bin"))
    }

    /// The weights of a language's adapter; `None` if there are none.
    ///
    /// # Errors
    /// What their format says.
    pub(crate) fn adapter(
        &self,
        language: &str,
        limits: Option<&PytorchLimits>,
    ) -> Result<Option<Arc<dyn WeightSource>>> {
        // It becomes a part of a file's name.
        if !language.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_')) {
            return Ok(None);
        }
        let (safetensors, pytorch) = (format!("adapter.{language}.safetensors"), format!("adapter.{language}.bin"));
        Ok(if self.has(&safetensors) {
            Some(Arc::new(Safetensors::new(self.map(&safetensors)?, &safetensors)?))
        } else if self.has(&pytorch) {
            let bytes = self.map(&pytorch)?;
            let limits = limits_for(limits, (*bytes).as_ref());
            Some(Arc::new(PytorchFile::new(bytes, &pytorch, &limits)?))
        } else {
            None
        })
    }

    fn shards(&self, index_file: &'static str, limits: Option<&PytorchLimits>) -> Result<Shards> {
        #[derive(Deserialize)]
        struct Index {
            weight_map: BTreeMap<String, String>,
        }
        let index: Index = self.json(index_file)?.ok_or_else(|| not_found(index_file))?;
        let files: std::collections::BTreeSet<&String> = index.weight_map.values().collect();
        if files.is_empty() {
            return Err(invalid(index_file, "it names no weight file".to_owned()));
        }
        let mut shards: Vec<Box<dyn WeightSource>> = Vec::new();
        let (mut n_tensors, mut n_bytes) = (0, 0);
        for file in files {
            // A name from a repository never leaves its folder.
            let plain = Path::new(file).components().count() == 1
                && Path::new(file).file_name().is_some_and(|n| n == file.as_str());
            if !plain {
                return Err(invalid(index_file, "it names a file outside the model folder".to_owned()));
            }
            if !self.has(file) {
                return Err(not_found(file));
            }
            shards.push(if index_file.starts_with("pytorch") {
                let bytes = self.map(file)?;
                let mut left = limits_for(limits, (*bytes).as_ref());
                // What is allowed is allowed for all shards together.
                left.max_tensors = left.max_tensors.saturating_sub(n_tensors);
                left.max_bytes = left.max_bytes.saturating_sub(n_bytes);
                let shard = PytorchFile::new(bytes, file, &left)?;
                n_tensors += shard.names().len();
                n_bytes += shard.n_bytes();
                Box::new(shard)
            } else {
                Box::new(Safetensors::new(self.map(file)?, file)?)
            });
        }
        Shards::new(shards, index_file)
    }

    fn map(&self, file: &str) -> Result<FileBytes> {
        let damaged = |reason: &str| Error::DamagedWeights { file: file.to_owned(), reason: reason.to_owned() };
        match &self.in_memory {
            Some(InMemory::BuiltIn(built_in)) => {
                return Ok(Box::new(built_in.get(file).ok_or_else(|| not_found(file))?));
            }
            Some(InMemory::Unpacked { .. }) => return Err(not_found(file)),
            None => {}
        }
        let path = self.path(file)?.ok_or_else(|| not_found(file))?;
        let io = |source| Error::Io { what: format!("reading {file}"), source };
        let opened = File::open(path).map_err(io)?;
        if opened.metadata().map_err(io)?.len() == 0 {
            return Err(damaged("it is empty"));
        }
        // SAFETY: see the head of this file.
        let map = unsafe { memmap2::Mmap::map(&opened) }.map_err(io)?;
        if map.starts_with(LFS_POINTER) {
            return Err(damaged(
                "it is only a pointer of git's large-file storage; run `git lfs pull` in the repository, or fetch \
                 the model with `okyeame pull`",
            ));
        }
        Ok(Box::new(Mapped(map)))
    }
}

struct Mapped(memmap2::Mmap);

impl AsRef<[u8]> for Mapped {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

/// What a `.bin` may hold: what the configuration allows, or, where that says nothing, its own length, so that the tensors
/// can tell what they are.
fn limits_for(configured: Option<&PytorchLimits>, content: &[u8]) -> PytorchLimits {
    configured.copied().unwrap_or(PytorchLimits { max_tensors: 10_000, max_bytes: content.len() as u64 })
}

/// That a repository holds a PEFT adapter and no model.
pub(crate) fn peft() -> Error {
    Error::UnsupportedModel {
        architecture: "PEFT adapter".to_owned(),
        reason:
            "it holds LoRA weights for a base model and no model; merge it into its base (merge_and_unload) and save \
                 the result"
                .to_owned(),
    }
}

pub(crate) fn not_found(what: &str) -> Error {
    Error::ModelNotFound { what: what.to_owned() }
}
