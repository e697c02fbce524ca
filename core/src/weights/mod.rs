//! Weight files, read strictly.
//!
//! Every format gives the same thing, a [`WeightSource`]: tensors under Hugging Face's names, still in
//! the file's own number type. [`Checkpoint`] holds such a source against the list of tensors that an
//! architecture needs, names every difference at once, and then hands tensors out as `f32`, one at a
//! time, so that loading never holds the model twice.
//!
//! Read in this order: this file, [`safetensors`], [`pytorch`] (with `pytorch_container`, `pickle`, `pickle_value`),
//! [`ctranslate2`] (with [`key_map`]); [`shards`], [`renamed`], [`overlay`] and [`lora`], which make one source of
//! others; [`folder`], [`hub`].

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
mod hub_names;
#[cfg(feature = "hub")]
mod hub_refusal;
#[cfg(feature = "hub")]
mod hub_store;
#[cfg(feature = "hub")]
pub mod hub_upload;
#[cfg(feature = "hub")]
mod hub_upload_plan;
pub mod key_map;
pub mod lora;
pub mod overlay;
mod pickle;
mod pickle_value;
pub mod pytorch;
mod pytorch_container;
pub mod renamed;
pub mod safetensors;
pub mod shards;
#[cfg(feature = "web-bundle")]
pub mod web_bundle;

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::sync::Arc;

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
    /// IEEE double; rounded to single when it is read.
    F64,
}

impl StoredType {
    /// Bytes of one element.
    #[must_use]
    pub fn size(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::Bf16 => 2,
            Self::F64 => 8,
        }
    }

    /// `f32`, `f16`, `bf16` or `f64`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::Bf16 => "bf16",
            Self::F64 => "f64",
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
#[derive(Debug, Clone, PartialEq)]
pub enum StoredData<'a> {
    /// Floating point.
    Float {
        /// Which.
        dtype: StoredType,
        /// `shape.product() * dtype.size()` bytes: the file's own, or gathered from a view that is not contiguous.
        bytes: Cow<'a, [u8]>,
    },
    /// One signed byte an element, `value = byte / scale[row]` (CTranslate2's int8).
    Int8 {
        /// `shape.product()` bytes.
        bytes: &'a [u8],
        /// One scale a row.
        scales: Cow<'a, [f32]>,
    },
    /// Two elements a byte, the low half first, each 8 too high; a scale for each 32 of them: `value = (half - 8) * scale`
    /// (a web bundle's int4).
    #[cfg(feature = "web-bundle")]
    Int4 {
        /// `shape.product() / 2` bytes.
        bytes: &'a [u8],
        /// f16, little-endian.
        scales: &'a [u8],
    },
    /// Two signed bytes an element, `value = stored / scale` (CTranslate2's int16).
    Int16 {
        /// `shape.product() * 2` bytes.
        bytes: &'a [u8],
        /// One scale for the whole tensor.
        scale: f32,
    },
    /// Numbers that no weight is made of, such as a counter of batches. They can be named, not read.
    Other {
        /// What they are, for messages: `int64`, `bool` and the like.
        type_name: &'static str,
    },
}

impl StoredData<'_> {
    /// `f32`, `f16`, `bf16`, `f64`, `int8`, `int4`, `int16`, or what else they are.
    #[must_use]
    pub fn type_name(&self) -> &'static str {
        match self {
            Self::Float { dtype, .. } => dtype.name(),
            Self::Int8 { .. } => "int8",
            #[cfg(feature = "web-bundle")]
            Self::Int4 { .. } => "int4",
            Self::Int16 { .. } => "int16",
            Self::Other { type_name } => type_name,
        }
    }
}

impl StoredTensor<'_> {
    /// Whether both hold the same elements, stored in the same way; false where they cannot be read.
    #[must_use]
    pub fn is_same(&self, other: &StoredTensor<'_>) -> bool {
        let readable = !matches!(self.data, StoredData::Other { .. });
        readable && self.shape == other.shape && self.data == other.data
    }

    /// The values as `f32`, row-major; none for [`StoredData::Other`]. Nothing beside the result is allocated.
    #[must_use]
    pub fn to_f32(&self) -> Vec<f32> {
        match &self.data {
            StoredData::Float { dtype, bytes } => match dtype {
                StoredType::F32 => bytes.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect(),
                StoredType::F16 => bytes.as_chunks::<2>().0.iter().map(|b| f16::from_le_bytes(*b).to_f32()).collect(),
                StoredType::Bf16 => bytes.as_chunks::<2>().0.iter().map(|b| bf16::from_le_bytes(*b).to_f32()).collect(),
                StoredType::F64 => bytes.as_chunks::<8>().0.iter().map(|b| f64::from_le_bytes(*b) as f32).collect(),
            },
            StoredData::Int8 { bytes, scales } => {
                let n_cols = bytes.len() / scales.len().max(1);
                // Collecting a flat_map would grow by doubling: it does not know its length.
                let mut values = Vec::with_capacity(bytes.len());
                for (row, scale) in bytes.chunks(n_cols.max(1)).zip(scales.iter()) {
                    values.extend(row.iter().map(|b| f32::from(b.cast_signed()) / scale));
                }
                values
            }
            #[cfg(feature = "web-bundle")]
            StoredData::Int4 { bytes, scales } => web_bundle::from_int4(bytes, scales),
            StoredData::Int16 { bytes, scale } => {
                bytes.as_chunks::<2>().0.iter().map(|b| f32::from(i16::from_le_bytes(*b)) / scale).collect()
            }
            StoredData::Other { .. } => Vec::new(),
        }
    }
}

/// Elements of a tensor of this shape, 0 if one of its axes is empty; `u64::MAX` if they are more than can be counted.
/// Shapes come from strangers, and in a browser a `usize` has 32 bits: whatever multiplies a file's numbers asks here.
#[must_use]
pub fn n_elements(shape: &[usize]) -> u64 {
    if shape.contains(&0) {
        return 0;
    }
    shape.iter().fold(1, |n: u64, axis| n.saturating_mul(*axis as u64))
}

/// Named tensors of one checkpoint, whatever the format.
pub trait WeightSource: Send + Sync {
    /// Every name, in Hugging Face's scheme.
    fn names(&self) -> Vec<String>;
    /// The tensor of that name.
    fn get(&self, name: &str) -> Option<StoredTensor<'_>>;
    /// Its shape, without gathering its elements.
    fn shape(&self, name: &str) -> Option<Vec<usize>> {
        self.get(name).map(|tensor| tensor.shape)
    }
    /// `safetensors`, `pytorch` or `ctranslate2`.
    fn format(&self) -> &'static str;
    /// For messages: the file's name without its folder.
    fn file(&self) -> &str;
    /// Numbers in all its tensors.
    fn n_elements(&self) -> u64 {
        let n = |name: &String| self.shape(name).map_or(0, |shape| n_elements(&shape));
        self.names().iter().map(n).fold(0, u64::saturating_add)
    }
    /// The number type of its largest tensor.
    fn main_dtype(&self) -> &'static str {
        let largest = self.names().into_iter().max_by_key(|name| self.shape(name).map(|shape| n_elements(&shape)));
        largest.and_then(|name| self.get(&name)).map_or("f32", |tensor| tensor.data.type_name())
    }
    /// For messages: the file that holds this tensor, where a source is made of several.
    fn file_of(&self, _name: &str) -> &str {
        self.file()
    }
}

impl<T: WeightSource + ?Sized> WeightSource for Arc<T> {
    fn names(&self) -> Vec<String> {
        (**self).names()
    }

    fn get(&self, name: &str) -> Option<StoredTensor<'_>> {
        (**self).get(name)
    }

    fn shape(&self, name: &str) -> Option<Vec<usize>> {
        (**self).shape(name)
    }

    fn format(&self) -> &'static str {
        (**self).format()
    }

    fn file(&self) -> &str {
        (**self).file()
    }

    fn file_of(&self, name: &str) -> &str {
        (**self).file_of(name)
    }
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
            // The shape first: what is then gathered from a file is no larger than what is expected.
            match source.shape(name) {
                None => missing.push(name.clone()),
                Some(found) if found != *shape => {
                    misshapen.push(format!("{name}: expected {shape:?}, got {found:?}"));
                }
                Some(_) => misshapen.extend(source.get(name).and_then(|tensor| not_floats(name, &tensor))),
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
        let mismatch = |missing, misshapen| Error::WeightMismatch { missing, unused: Vec::new(), misshapen };
        let tensor = self.source.get(name).ok_or_else(|| mismatch(vec![name.to_owned()], Vec::new()))?;
        if let Some(reason) = not_floats(name, &tensor) {
            return Err(mismatch(Vec::new(), vec![reason]));
        }
        let values = tensor.to_f32();
        if values.iter().all(|v| v.is_finite()) {
            Ok(values)
        } else {
            Err(Error::DamagedWeights {
                file: self.source.file_of(name).to_owned(),
                reason: format!("{name} holds values that are not finite"),
            })
        }
    }
}

/// What is wrong with a tensor whose elements are no floats.
fn not_floats(name: &str, tensor: &StoredTensor<'_>) -> Option<String> {
    match tensor.data {
        StoredData::Other { type_name } => Some(format!("{name}: {type_name} where floats are expected")),
        _ => None,
    }
}

/// Writes tensors as an f32 safetensors file; for tests and for heads that were trained here.
#[cfg(any(test, feature = "train"))]
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

    /// A source of one tensor of integers.
    struct Counter;

    impl WeightSource for Counter {
        fn names(&self) -> Vec<String> {
            vec!["a".to_owned()]
        }

        fn get(&self, name: &str) -> Option<StoredTensor<'_>> {
            (name == "a").then(|| StoredTensor { shape: vec![1], data: StoredData::Other { type_name: "int64" } })
        }

        fn format(&self) -> &'static str {
            "test"
        }

        fn file(&self) -> &str {
            "counter"
        }
    }

    #[test]
    fn integers_where_floats_are_expected() {
        let reported = |error: Error| match error {
            Error::WeightMismatch { misshapen, .. } => misshapen,
            other => panic!("{other}"),
        };
        let error = Checkpoint::new(&Counter, &[("a".to_owned(), vec![1])], |_| false).unwrap_err();
        assert_eq!(reported(error), ["a: int64 where floats are expected"]);
        // Asked for without having been expected, they are no empty tensor either.
        let checkpoint = Checkpoint::new(&Counter, &[], |_| true).unwrap();
        assert_eq!(reported(checkpoint.take("a").unwrap_err()), ["a: int64 where floats are expected"]);
        assert!(!Counter.get("a").unwrap().is_same(&Counter.get("a").unwrap()));
    }

    #[test]
    fn every_stored_type_widens_to_the_same_numbers() {
        // 1.5 and -2 are exact in all of them.
        let f64s: Vec<u8> = [1.5_f64, -2.0].iter().flat_map(|v| v.to_le_bytes()).collect();
        let (f16s, bf16s) = ([0x00, 0x3E, 0x00, 0xC0], [0xC0, 0x3F, 0x00, 0xC0]);
        let stored = [(StoredType::F64, &f64s[..]), (StoredType::F16, &f16s[..]), (StoredType::Bf16, &bf16s[..])];
        for (dtype, bytes) in stored {
            assert_eq!(bytes.len(), 2 * dtype.size());
            let data = StoredData::Float { dtype, bytes: Cow::Borrowed(bytes) };
            assert_eq!(StoredTensor { shape: vec![2], data }.to_f32(), [1.5, -2.0], "{}", dtype.name());
        }
        let data = StoredData::Int16 { bytes: &[3, 0, 0xFC, 0xFF], scale: 2.0 };
        assert_eq!(StoredTensor { shape: vec![2], data }.to_f32(), [1.5, -2.0]);
        let data = StoredData::Int8 { bytes: &[3, 0xFC], scales: Cow::Borrowed(&[2.0, 2.0]) };
        assert_eq!(StoredTensor { shape: vec![2, 1], data }.to_f32(), [1.5, -2.0]);
    }

    #[test]
    fn elements_are_counted_without_overflow() {
        assert_eq!([&[][..], &[3], &[2, 3, 4]].map(n_elements), [1, 3, 24]);
        assert_eq!([&[usize::MAX, 4, 0][..], &[0, usize::MAX, 4]].map(n_elements), [0, 0]);
        assert_eq!(n_elements(&[1 << 30, 1 << 30, 1 << 30]), u64::MAX);
        // What wraps to 0 in 32 bits.
        assert_eq!(n_elements(&[1 << 16, 1 << 16]), 1 << 32);
    }

    #[test]
    fn values_that_are_not_finite_are_damage() {
        let bytes = to_safetensors(&[("a", vec![2], vec![1.0, f32::NAN])]);
        let source = safetensors::Safetensors::from_bytes(bytes, "model.safetensors").unwrap();
        let checkpoint = Checkpoint::new(&source, &[("a".to_owned(), vec![2])], |_| false).unwrap();
        assert_eq!(checkpoint.take("a").unwrap_err().code(), "damaged_weights");
    }
}
