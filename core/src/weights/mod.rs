//! Weight files, read strictly.
//!
//! Every format gives the same thing, a [`WeightSource`]: tensors under Hugging Face's names, still in
//! the file's own number type. [`Checkpoint`] holds such a source against the list of tensors that an
//! architecture needs, names every difference at once, and then hands tensors out as `f32`, one at a
//! time, so that loading never holds the model twice.
//!
//! Read in this order: this file, [`safetensors`], [`ctranslate2`] (with [`key_map`]), [`folder`], [`hub`].

pub mod ctranslate2;
pub mod folder;
#[cfg(feature = "hub")]
pub mod hub;
#[cfg(feature = "hub")]
mod hub_client;
#[cfg(feature = "hub")]
mod hub_download;
#[cfg(feature = "hub")]
mod hub_env;
#[cfg(feature = "hub")]
mod hub_files;
#[cfg(feature = "hub")]
mod hub_store;
pub mod key_map;
pub mod safetensors;

use std::borrow::Cow;
use std::collections::BTreeSet;

use half::{bf16, f16};

use crate::error::{Error, Result};

/// The number type of a stored tensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StoredType {
    /// IEEE single.
    F32,
    /// IEEE half.
    F16,
    /// bfloat16.
    Bf16,
}

impl StoredType {
    /// Bytes of one element.
    #[must_use]
    pub fn size(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::Bf16 => 2,
        }
    }

    /// `f32`, `f16` or `bf16`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::Bf16 => "bf16",
        }
    }
}

/// A tensor as it lies in its file.
#[derive(Debug, Clone)]
pub struct StoredTensor<'a> {
    /// Row-major shape.
    pub shape: Vec<usize>,
    /// The elements.
    pub data: StoredData<'a>,
}

/// The elements of a stored tensor, little-endian.
#[derive(Debug, Clone)]
pub enum StoredData<'a> {
    /// Floating point.
    Float {
        /// Which.
        dtype: StoredType,
        /// `shape.product() * dtype.size()` bytes.
        bytes: &'a [u8],
    },
    /// One signed byte an element, `value = byte / scale[row]` (CTranslate2's int8).
    Int8 {
        /// `shape.product()` bytes.
        bytes: &'a [u8],
        /// One scale a row.
        scales: Cow<'a, [f32]>,
    },
}

impl StoredTensor<'_> {
    /// The values as `f32`, row-major.
    #[must_use]
    pub fn to_f32(&self) -> Vec<f32> {
        match &self.data {
            StoredData::Float { dtype, bytes } => match dtype {
                StoredType::F32 => bytes.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect(),
                StoredType::F16 => bytes.as_chunks::<2>().0.iter().map(|b| f16::from_le_bytes(*b).to_f32()).collect(),
                StoredType::Bf16 => bytes.as_chunks::<2>().0.iter().map(|b| bf16::from_le_bytes(*b).to_f32()).collect(),
            },
            StoredData::Int8 { bytes, scales } => {
                let n_cols = bytes.len() / scales.len().max(1);
                bytes
                    .chunks(n_cols.max(1))
                    .zip(scales.iter())
                    .flat_map(|(row, scale)| row.iter().map(move |b| f32::from(b.cast_signed()) / scale))
                    .collect()
            }
        }
    }
}

/// Named tensors of one checkpoint, whatever the format.
pub trait WeightSource: Send + Sync {
    /// Every name, in Hugging Face's scheme.
    fn names(&self) -> Vec<String>;
    /// The tensor of that name.
    fn get(&self, name: &str) -> Option<StoredTensor<'_>>;
    /// `safetensors`, `pytorch` or `ctranslate2`.
    fn format(&self) -> &'static str;
    /// For messages: the file's name without its folder.
    fn file(&self) -> &str;
}

/// A source whose tensors were checked against what an architecture needs.
pub struct Checkpoint<'a> {
    source: &'a dyn WeightSource,
}

impl std::fmt::Debug for Checkpoint<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Checkpoint").field("file", &self.source.file()).finish_non_exhaustive()
    }
}

impl<'a> Checkpoint<'a> {
    /// Holds `source` against `expected` names and shapes. Names in the source for which
    /// `may_be_ignored` says yes are not reported as unused.
    ///
    /// # Errors
    /// [`Error::WeightMismatch`] with every difference.
    pub fn new(
        source: &'a dyn WeightSource,
        expected: &[(String, Vec<usize>)],
        may_be_ignored: impl Fn(&str) -> bool,
    ) -> Result<Self> {
        let (mut missing, mut misshapen) = (Vec::new(), Vec::new());
        for (name, shape) in expected {
            match source.get(name) {
                None => missing.push(name.clone()),
                Some(tensor) if tensor.shape != *shape => {
                    misshapen.push(format!("{name}: expected {shape:?}, got {:?}", tensor.shape));
                }
                Some(_) => {}
            }
        }
        let known: BTreeSet<&str> = expected.iter().map(|(name, _)| name.as_str()).collect();
        let unused: Vec<String> =
            source.names().into_iter().filter(|name| !known.contains(name.as_str()) && !may_be_ignored(name)).collect();
        if missing.is_empty() && misshapen.is_empty() && unused.is_empty() {
            Ok(Self { source })
        } else {
            Err(Error::WeightMismatch { missing, unused, misshapen })
        }
    }

    /// A tensor that was checked, as `f32`.
    ///
    /// # Errors
    /// [`Error::WeightMismatch`] if the name was not among the expected ones,
    /// [`Error::DamagedWeights`] if it holds values that are not finite.
    pub fn take(&self, name: &str) -> Result<Vec<f32>> {
        let values = self
            .source
            .get(name)
            .ok_or_else(|| Error::WeightMismatch {
                missing: vec![name.to_owned()],
                unused: Vec::new(),
                misshapen: Vec::new(),
            })?
            .to_f32();
        if values.iter().all(|v| v.is_finite()) {
            Ok(values)
        } else {
            Err(Error::DamagedWeights {
                file: self.source.file().to_owned(),
                reason: format!("{name} holds values that are not finite"),
            })
        }
    }
}

/// Writes tensors as an f32 safetensors file; for tests and for heads that were trained here.
#[cfg(test)]
pub(crate) fn to_safetensors(tensors: &[(&str, Vec<usize>, Vec<f32>)]) -> Vec<u8> {
    use ::safetensors::tensor::{Dtype, TensorView, serialize};
    let bytes: Vec<Vec<u8>> =
        tensors.iter().map(|(_, _, v)| v.iter().flat_map(|x| x.to_le_bytes()).collect()).collect();
    let views: Vec<(&str, TensorView<'_>)> = tensors
        .iter()
        .zip(&bytes)
        .map(|((name, shape, _), b)| (*name, TensorView::new(Dtype::F32, shape.clone(), b).expect("sizes fit")))
        .collect();
    serialize(views, None).expect("small")
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn every_difference_is_named_at_once() {
        let bytes = to_safetensors(&[
            ("a", vec![2, 2], vec![1.0; 4]),
            ("b", vec![3], vec![1.0; 3]),
            ("extra", vec![1], vec![1.0]),
            ("ignored", vec![1], vec![1.0]),
        ]);
        let source = safetensors::Safetensors::from_bytes(bytes, "model.safetensors").unwrap();
        let expected = [("a".to_owned(), vec![2, 2]), ("b".to_owned(), vec![4]), ("c".to_owned(), vec![1])];
        let error = Checkpoint::new(&source, &expected, |n| n == "ignored").unwrap_err();
        match error {
            Error::WeightMismatch { missing, unused, misshapen } => {
                assert_eq!(missing, ["c"]);
                assert_eq!(unused, ["extra"]);
                assert_eq!(misshapen, ["b: expected [4], got [3]"]);
            }
            other => panic!("{other}"),
        }
    }

    #[test]
    fn values_that_are_not_finite_are_damage() {
        let bytes = to_safetensors(&[("a", vec![2], vec![1.0, f32::NAN])]);
        let source = safetensors::Safetensors::from_bytes(bytes, "model.safetensors").unwrap();
        let checkpoint = Checkpoint::new(&source, &[("a".to_owned(), vec![2])], |_| false).unwrap();
        assert_eq!(checkpoint.take("a").unwrap_err().code(), "damaged_weights");
    }
}
