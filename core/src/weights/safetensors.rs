//! `model.safetensors`, read in place.
//!
//! The container is checked by the `safetensors` crate (header at most 100 MB, offsets without holes,
//! sizes that fit shapes and file); this file adds the number types. Several files that are one checkpoint are
//! [`Shards`](super::shards::Shards).

use std::borrow::Cow;
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
    elements: HashMap<String, Element>,
}

#[derive(Clone, Copy)]
enum Element {
    Float(StoredType),
    /// What is not read, by its name.
    Other(&'static str),
}

impl Element {
    fn of(dtype: Dtype) -> Self {
        match dtype {
            Dtype::F32 => Self::Float(StoredType::F32),
            Dtype::F16 => Self::Float(StoredType::F16),
            Dtype::BF16 => Self::Float(StoredType::Bf16),
            Dtype::F64 => Self::Float(StoredType::F64),
            Dtype::BOOL => Self::Other("bool"),
            Dtype::U8 => Self::Other("uint8"),
            Dtype::I8 => Self::Other("int8"),
            Dtype::U16 => Self::Other("uint16"),
            Dtype::I16 => Self::Other("int16"),
            Dtype::U32 => Self::Other("uint32"),
            Dtype::I32 => Self::Other("int32"),
            Dtype::U64 => Self::Other("uint64"),
            Dtype::I64 => Self::Other("int64"),
            _ => Self::Other("a number type that is not read"),
        }
    }
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
    /// [`Error::DamagedWeights`] if the container contradicts itself. A tensor that is neither f32, f16, bf16 nor f64
    /// is no error until it is expected to be a weight.
    pub fn from_bytes(bytes: Vec<u8>, file: &str) -> Result<Self> {
        Self::new(Box::new(bytes), file)
    }

    pub(crate) fn new(bytes: FileBytes, file: &str) -> Result<Self> {
        let damaged = |reason: String| Error::DamagedWeights { file: file.to_owned(), reason };
        let content: &[u8] = (*bytes).as_ref();
        // `deserialize` also checks that the data is exactly as long as the header says.
        SafeTensors::deserialize(content).map_err(|e| damaged(e.to_string()))?;
        let (header_len, metadata) = SafeTensors::read_metadata(content).map_err(|e| damaged(e.to_string()))?;
        let elements = metadata.tensors().into_iter().map(|(name, info)| (name, Element::of(info.dtype))).collect();
        // 8 bytes of length stand before the header.
        let data_start = header_len + 8;
        Ok(Self { bytes, metadata, data_start, file: file.to_owned(), elements })
    }
}

impl WeightSource for Safetensors {
    fn names(&self) -> Vec<String> {
        self.elements.keys().cloned().collect()
    }

    fn get(&self, name: &str) -> Option<StoredTensor<'_>> {
        let element = *self.elements.get(name)?;
        let info = self.metadata.info(name)?;
        let (start, end) = info.data_offsets;
        let content: &[u8] = (*self.bytes).as_ref();
        let bytes = content.get(self.data_start + start..self.data_start + end)?;
        let data = match element {
            Element::Float(dtype) => StoredData::Float { dtype, bytes: Cow::Borrowed(bytes) },
            Element::Other(type_name) => StoredData::Other { type_name },
        };
        Some(StoredTensor { shape: info.shape.clone(), data })
    }

    fn format(&self) -> &'static str {
        "safetensors"
    }

    fn file(&self) -> &str {
        &self.file
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
