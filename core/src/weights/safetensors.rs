//! `model.safetensors`, read in place.
//!
//! The container is checked by the `safetensors` crate (header at most 100 MB, offsets without holes,
//! sizes that fit shapes and file); this file adds the number types and the shards' index.

use std::collections::HashMap;

use safetensors::tensor::{Dtype, Metadata, SafeTensors};

use super::{StoredData, StoredTensor, StoredType, WeightSource};
use crate::error::{Error, Result};

/// The bytes of a weight file: mapped on a native machine, owned elsewhere and in tests.
pub(crate) type FileBytes = Box<dyn AsRef<[u8]> + Send + Sync>;

/// One safetensors file.
pub struct Safetensors {
    bytes: FileBytes,
    metadata: Metadata,
    data_start: usize,
    file: String,
    infos: HashMap<String, StoredType>,
}

impl std::fmt::Debug for Safetensors {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Safetensors").field("file", &self.file).finish_non_exhaustive()
    }
}

impl Safetensors {
    /// Reads a file that is in memory.
    ///
    /// # Errors
    /// [`Error::DamagedWeights`] if the container contradicts itself or holds a number type that is
    /// none of f32, f16 and bf16.
    pub fn from_bytes(bytes: Vec<u8>, file: &str) -> Result<Self> {
        Self::new(Box::new(bytes), file)
    }

    pub(crate) fn new(bytes: FileBytes, file: &str) -> Result<Self> {
        let damaged = |reason: String| Error::DamagedWeights { file: file.to_owned(), reason };
        let content: &[u8] = (*bytes).as_ref();
        // `deserialize` also checks that the data is exactly as long as the header says.
        SafeTensors::deserialize(content).map_err(|e| damaged(e.to_string()))?;
        let (header_len, metadata) = SafeTensors::read_metadata(content).map_err(|e| damaged(e.to_string()))?;
        let mut infos = HashMap::new();
        for (name, info) in metadata.tensors() {
            let dtype = match info.dtype {
                Dtype::F32 => StoredType::F32,
                Dtype::F16 => StoredType::F16,
                Dtype::BF16 => StoredType::Bf16,
                other => return Err(damaged(format!("{name} is {other:?}, expected F32, F16 or BF16"))),
            };
            infos.insert(name, dtype);
        }
        // 8 bytes of length stand before the header.
        let data_start = header_len + 8;
        Ok(Self { bytes, metadata, data_start, file: file.to_owned(), infos })
    }
}

impl WeightSource for Safetensors {
    fn names(&self) -> Vec<String> {
        self.infos.keys().cloned().collect()
    }

    fn get(&self, name: &str) -> Option<StoredTensor<'_>> {
        let dtype = *self.infos.get(name)?;
        let info = self.metadata.info(name)?;
        let (start, end) = info.data_offsets;
        let content: &[u8] = (*self.bytes).as_ref();
        let bytes = content.get(self.data_start + start..self.data_start + end)?;
        Some(StoredTensor { shape: info.shape.clone(), data: StoredData::Float { dtype, bytes } })
    }

    fn format(&self) -> &'static str {
        "safetensors"
    }

    fn file(&self) -> &str {
        &self.file
    }
}

/// Several files that are one checkpoint.
pub struct Shards(Vec<Safetensors>);

impl std::fmt::Debug for Shards {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Shards").field(&self.0.len()).finish()
    }
}

impl Shards {
    /// Takes the files that an index names.
    #[must_use]
    pub fn new(files: Vec<Safetensors>) -> Self {
        Self(files)
    }
}

impl WeightSource for Shards {
    fn names(&self) -> Vec<String> {
        self.0.iter().flat_map(WeightSource::names).collect()
    }

    fn get(&self, name: &str) -> Option<StoredTensor<'_>> {
        self.0.iter().find_map(|file| file.get(name))
    }

    fn format(&self) -> &'static str {
        "safetensors"
    }

    fn file(&self) -> &str {
        "model.safetensors.index.json"
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::to_safetensors;
    use super::*;

    #[test]
    fn truncated_and_lying_headers_are_errors() {
        let good = to_safetensors(&[("a", vec![4], vec![1.0, 2.0, 3.0, 4.0])]);
        let source = Safetensors::from_bytes(good.clone(), "f").unwrap();
        assert_eq!(source.get("a").unwrap().to_f32(), [1.0, 2.0, 3.0, 4.0]);
        for cut in 0..good.len() {
            assert_eq!(Safetensors::from_bytes(good[..cut].to_vec(), "f").unwrap_err().code(), "damaged_weights");
        }
        let mut lying = good;
        lying[..8].copy_from_slice(&(100_u64 << 30).to_le_bytes());
        assert_eq!(Safetensors::from_bytes(lying, "f").unwrap_err().code(), "damaged_weights");
    }
}
