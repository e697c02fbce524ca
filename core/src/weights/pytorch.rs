//! `pytorch_model.bin`: a state dict as `torch.save` writes it, read without Python and without running anything.
//!
//! Three steps, each of which trusts nothing: the container (`pytorch_container.rs`) finds the pickle and the bytes of
//! each storage, the pickle (`pickle.rs`, `pickle_value.rs`) says which tensor is which view of which storage, and here
//! every view is held against its storage. Contiguous tensors are then read in place; a transposed or expanded one is
//! gathered when it is asked for.
//!
//! Follows PyTorch 2.15 `torch/serialization.py` and `torch/_utils.py`. Not for whole pickled modules
//! (`torch.save(model)`), quantised, sparse or complex tensors.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::ops::Range;

use super::pickle_value::{Element, TensorRef, printable};
use super::pytorch_container::read_container;
use super::safetensors::FileBytes;
use super::{StoredData, StoredTensor, WeightSource, n_elements};
use crate::error::{Error, Result};

/// How much a `.bin` may hold. Safetensors need no such limit: their tensors are no larger than their file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PytorchLimits {
    /// Tensors in the state dict.
    pub max_tensors: usize,
    /// Their bytes together; one that is seen through two names counts twice.
    pub max_bytes: u64,
}

/// One `.bin` file.
pub struct PytorchFile {
    bytes: FileBytes,
    file: String,
    tensors: BTreeMap<String, Placed>,
}

/// A tensor that was held against its storage.
struct Placed {
    element: Element,
    shape: Vec<usize>,
    /// From the first element: to behind the last, or for a view with strides of its own to the storage's end.
    range: Range<usize>,
    /// In elements; `None` if the elements lie one behind the other.
    strides: Option<Vec<usize>>,
}

impl std::fmt::Debug for PytorchFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PytorchFile").field("file", &self.file).finish_non_exhaustive()
    }
}

impl PytorchFile {
    /// Reads a file that is in memory.
    ///
    /// # Errors
    /// - [`Error::UnsafePickle`] if its pickle names anything that weights do not need;
    /// - [`Error::WeightsTooLarge`] if it holds more than `limits` allow, before anything of that size is set aside;
    /// - [`Error::DamagedWeights`] if it is cut short, contradicts itself or holds no state dict.
    pub fn from_bytes(bytes: Vec<u8>, file: &str, limits: &PytorchLimits) -> Result<Self> {
        Self::new(Box::new(bytes), file, limits)
    }

    pub(crate) fn new(bytes: FileBytes, file: &str, limits: &PytorchLimits) -> Result<Self> {
        let tensors = read_tensors((*bytes).as_ref(), file, limits)?;
        Ok(Self { bytes, file: file.to_owned(), tensors })
    }
}

fn read_tensors(content: &[u8], file: &str, limits: &PytorchLimits) -> Result<BTreeMap<String, Placed>> {
    let too_large = |reason: String| Error::WeightsTooLarge { file: file.to_owned(), reason };
    // A checkpoint's optimizer keeps up to three storages beside each tensor.
    let container = read_container(content, file, limits.max_tensors.saturating_mul(4))?;
    let found = container.pickle.state_dict().map_err(|refusal| refusal.error(file))?;
    if found.len() > limits.max_tensors {
        return Err(too_large(format!("it holds {} tensors, more than {}", found.len(), limits.max_tensors)));
    }
    let mut n_bytes = 0_u64;
    let mut tensors = BTreeMap::new();
    for (name, tensor) in found {
        n_bytes = n_bytes.saturating_add(n_bytes_of(tensor));
        if n_bytes > limits.max_bytes {
            return Err(too_large(format!("its tensors take more than {} bytes", limits.max_bytes)));
        }
        let placed = place(tensor, &container.storages).map_err(|reason| Error::DamagedWeights {
            file: file.to_owned(),
            reason: format!("{}: {reason}", printable(name)),
        })?;
        tensors.insert(name.to_owned(), placed);
    }
    Ok(tensors)
}

impl PytorchFile {
    /// Bytes of all its tensors, each counted on its own.
    pub(crate) fn n_bytes(&self) -> u64 {
        let of = |tensor: &Placed| n_elements(&tensor.shape).saturating_mul(tensor.element.size as u64);
        self.tensors.values().map(of).fold(0, u64::saturating_add)
    }
}

/// What a tensor would take on its own; `u64::MAX` where that does not fit.
fn n_bytes_of(tensor: &TensorRef<'_>) -> u64 {
    n_elements(&tensor.shape).saturating_mul(tensor.storage.element.size as u64)
}

/// Holds a view against its storage.
fn place(tensor: &TensorRef<'_>, storages: &HashMap<String, Range<usize>>) -> std::result::Result<Placed, String> {
    let TensorRef { storage, offset, shape, strides } = tensor;
    let (element, size) = (storage.element, storage.element.size);
    let bytes = storages.get(storage.key).ok_or_else(|| format!("storage {} is not there", printable(storage.key)))?;
    if storage.n.checked_mul(size) != Some(bytes.len()) {
        return Err(format!("its storage has {} bytes, not {} elements of {size}", bytes.len(), storage.n));
    }
    let (shape, mut strides) = (shape.clone(), strides.clone());
    if shape.contains(&0) {
        return Ok(Placed { element, shape, range: bytes.start..bytes.start, strides: None });
    }
    // An axis of one element is never stepped along, and torch gives it any stride.
    for (stride, n) in strides.iter_mut().zip(&shape) {
        if *n == 1 {
            *stride = 0;
        }
    }
    let steps =
        shape.iter().zip(&strides).try_fold(0_usize, |at, (n, stride)| at.checked_add((n - 1).checked_mul(*stride)?));
    let last = steps.and_then(|steps| steps.checked_add(*offset));
    if last.is_none_or(|last| last >= storage.n) {
        return Err("it reaches beyond its storage".to_owned());
    }
    let n_bytes = shape.iter().try_fold(size, |n, axis| n.checked_mul(*axis));
    let n_bytes = n_bytes.ok_or_else(|| "it has more elements than can be counted".to_owned())?;
    // An expanded view shows one element many times; no weight is stored so, and a bomb would be.
    if n_bytes > bytes.len() {
        return Err(format!("it shows {n_bytes} bytes of a storage of {}", bytes.len()));
    }
    // Both lie inside the storage, whose bytes are there.
    let start = bytes.start + offset * size;
    if is_contiguous(&shape, &strides) {
        Ok(Placed { element, shape, range: start..start + n_bytes, strides: None })
    } else {
        Ok(Placed { element, shape, range: start..bytes.end, strides: Some(strides) })
    }
}

/// Whether the elements lie row-major and one behind the other.
fn is_contiguous(shape: &[usize], strides: &[usize]) -> bool {
    let mut step = 1;
    shape.iter().zip(strides).rev().all(|(n, stride)| {
        let fits = *n == 1 || *stride == step;
        step *= n;
        fits
    })
}

/// The elements of a view, row-major, `size` bytes each; it does not reach beyond `bytes`.
fn gather(bytes: &[u8], size: usize, shape: &[usize], strides: &[usize]) -> Vec<u8> {
    let n: usize = shape.iter().product();
    let mut gathered = Vec::with_capacity(n * size);
    let mut index = vec![0; shape.len()];
    let mut at = 0;
    for _ in 0..n {
        gathered.extend_from_slice(&bytes[at * size..][..size]);
        for axis in (0..shape.len()).rev() {
            index[axis] += 1;
            at += strides[axis];
            if index[axis] < shape[axis] {
                break;
            }
            index[axis] = 0;
            at -= shape[axis] * strides[axis];
        }
    }
    gathered
}

impl WeightSource for PytorchFile {
    fn names(&self) -> Vec<String> {
        self.tensors.keys().cloned().collect()
    }

    fn get(&self, name: &str) -> Option<StoredTensor<'_>> {
        let Placed { element, shape, range, strides } = self.tensors.get(name)?;
        let content: &[u8] = (*self.bytes).as_ref();
        let bytes = content.get(range.clone())?;
        let data = match (element.float, strides) {
            (None, _) => StoredData::Other { type_name: element.name },
            (Some(dtype), None) => StoredData::Float { dtype, bytes: Cow::Borrowed(bytes) },
            (Some(dtype), Some(strides)) => {
                StoredData::Float { dtype, bytes: Cow::Owned(gather(bytes, element.size, shape, strides)) }
            }
        };
        Some(StoredTensor { shape: shape.clone(), data })
    }

    fn shape(&self, name: &str) -> Option<Vec<usize>> {
        self.tensors.get(name).map(|tensor| tensor.shape.clone())
    }

    fn format(&self) -> &'static str {
        "pytorch"
    }

    fn file(&self) -> &str {
        &self.file
    }
}
