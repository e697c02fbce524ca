//! What a pickle of named tensors is made of, and what its few globals make of their arguments.
//!
//! Values lie in one list ([`Pickle`]) and name each other by their place in it. So a value that is used a million
//! times is there once, one that holds itself is no danger to anybody who does not follow it round, and none has to be
//! dropped or walked through in depth.
//!
//! Follows PyTorch 2.15 `torch/_utils.py` (`_rebuild_tensor_v2`, `_rebuild_parameter`) and `torch/serialization.py`
//! (`persistent_load`).

use std::collections::BTreeMap;

use super::StoredType;
use crate::error::Error;

/// The place of a value in its [`Pickle`].
pub(super) type Id = usize;

/// More axes than any weight has.
const MAX_RANK: usize = 16;
/// Names of tensors are short.
const MAX_NAME_BYTES: usize = 512;
/// How much of a hostile name is shown.
const MAX_SHOWN_CHARS: usize = 80;

/// Why a pickle is not read.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// It contradicts itself, or ends in the middle.
    Damaged(String),
    /// It names something that weights do not need.
    Global(String),
    /// It is made of more parts than any state dict.
    TooLarge(String),
}

/// What this reader answers.
pub(super) type Read<T> = std::result::Result<T, Refusal>;

impl Refusal {
    /// As an error about a file.
    pub(super) fn error(self, file: &str) -> Error {
        let file = file.to_owned();
        match self {
            Self::Damaged(reason) => Error::DamagedWeights { file, reason },
            Self::Global(global) => Error::UnsafePickle { file, global },
            Self::TooLarge(reason) => Error::WeightsTooLarge { file, reason },
        }
    }
}

pub(super) fn damaged<T>(reason: impl Into<String>) -> Read<T> {
    Err(Refusal::Damaged(reason.into()))
}

/// A stranger's text, fit to be printed.
pub(super) fn printable(text: &str) -> String {
    text.chars().take(MAX_SHOWN_CHARS).map(|c| if c.is_ascii_graphic() || c == ' ' { c } else { '?' }).collect()
}

/// The type of a tensor's elements.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Element {
    pub(super) name: &'static str,
    pub(super) size: usize,
    /// Which floating point, if it is that.
    pub(super) float: Option<StoredType>,
}

const fn element(name: &'static str, size: usize, float: Option<StoredType>) -> Element {
    Element { name, size, float }
}

/// The storage classes of `torch` that hold numbers of one type.
const STORAGES: [(&str, Element); 10] = [
    ("FloatStorage", element("f32", 4, Some(StoredType::F32))),
    ("HalfStorage", element("f16", 2, Some(StoredType::F16))),
    ("BFloat16Storage", element("bf16", 2, Some(StoredType::Bf16))),
    ("DoubleStorage", element("f64", 8, Some(StoredType::F64))),
    ("LongStorage", element("int64", 8, None)),
    ("IntStorage", element("int32", 4, None)),
    ("ShortStorage", element("int16", 2, None)),
    ("CharStorage", element("int8", 1, None)),
    ("ByteStorage", element("uint8", 1, None)),
    ("BoolStorage", element("bool", 1, None)),
];

/// The only names that a pickle may speak of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Global {
    OrderedDict,
    RebuildTensor,
    RebuildParameter,
    Size,
    Storage(Element),
}

impl Global {
    /// # Errors
    /// [`Refusal::Global`] for every name that is not on the list.
    pub(super) fn named(module: &str, name: &str) -> Read<Self> {
        let storage = |name: &str| STORAGES.iter().find(|(n, _)| *n == name).map(|(_, e)| Self::Storage(*e));
        let known = match (module, name) {
            ("collections", "OrderedDict") => Some(Self::OrderedDict),
            ("torch._utils", "_rebuild_tensor_v2") => Some(Self::RebuildTensor),
            ("torch._utils", "_rebuild_parameter") => Some(Self::RebuildParameter),
            ("torch", "Size") => Some(Self::Size),
            ("torch", name) => storage(name),
            _ => None,
        };
        known.ok_or_else(|| Refusal::Global(printable(&format!("{module}.{name}"))))
    }
}

/// A run of numbers outside of the pickle.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct StorageRef<'a> {
    pub(super) element: Element,
    pub(super) key: &'a str,
    /// Elements.
    pub(super) n: usize,
}

/// A view of a storage. Offset and strides are counted in elements.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct TensorRef<'a> {
    pub(super) storage: StorageRef<'a>,
    pub(super) offset: usize,
    pub(super) shape: Vec<usize>,
    pub(super) strides: Vec<usize>,
}

/// One value. Containers hold the places of others.
#[derive(Debug)]
pub(super) enum Value<'a> {
    None,
    /// A float, bytes or a huge number: nothing that tensors are made of.
    Opaque,
    Bool(bool),
    Int(i128),
    Str(&'a str),
    Tuple(Vec<Id>),
    List(Vec<Id>),
    /// Key, value, key, value; a later one of the same key counts.
    Dict(Vec<Id>),
    Global(Global),
    Storage(Box<StorageRef<'a>>),
    Tensor(Box<TensorRef<'a>>),
}

/// Every value of one pickle.
#[derive(Debug)]
pub(super) struct Pickle<'a> {
    pub(super) values: Vec<Value<'a>>,
    pub(super) root: Id,
    /// Up to the closing STOP.
    pub(super) n_read: usize,
}

impl<'a> Pickle<'a> {
    /// What was pickled.
    pub(super) fn root(&self) -> &Value<'a> {
        &self.values[self.root]
    }

    /// The value of a key that is a string.
    pub(super) fn field(&self, dict: &Value<'a>, key: &str) -> Option<&Value<'a>> {
        let Value::Dict(entries) = dict else { return None };
        let is_key = |id: Id| matches!(&self.values[id], Value::Str(text) if *text == key);
        entries.as_chunks::<2>().0.iter().rev().find(|[k, _]| is_key(*k)).map(|[_, v]| &self.values[*v])
    }

    /// The strings of a list.
    pub(super) fn strings(&self, list: &Value<'a>) -> Option<Vec<&'a str>> {
        let Value::List(items) = list else { return None };
        let text = |id: &Id| if let Value::Str(text) = &self.values[*id] { Some(*text) } else { None };
        items.iter().map(text).collect()
    }

    /// The named tensors: of the whole, or of what a training loop wrapped as `state_dict` or `model_state_dict`.
    /// Entries that are no tensors, such as a counter of epochs, are left out.
    pub(super) fn state_dict(&self) -> Read<BTreeMap<&'a str, &TensorRef<'a>>> {
        let root = self.root();
        let wrapped = ["state_dict", "model_state_dict"].iter().find_map(|key| self.field(root, key));
        let dict = wrapped.filter(|value| matches!(value, Value::Dict(_))).unwrap_or(root);
        let Value::Dict(entries) = dict else { return damaged("it holds no dictionary of tensors") };
        let mut tensors = BTreeMap::new();
        for [key, value] in entries.as_chunks::<2>().0 {
            let (Value::Str(name), Value::Tensor(tensor)) = (&self.values[*key], &self.values[*value]) else {
                continue;
            };
            if name.len() > MAX_NAME_BYTES {
                return damaged(format!("a tensor's name is {} bytes long", name.len()));
            }
            tensors.insert(*name, &**tensor);
        }
        if tensors.is_empty() {
            return damaged("it holds no dictionary of tensors");
        }
        Ok(tensors)
    }

    /// Every storage that was spoken of, by key.
    ///
    /// # Errors
    /// [`Refusal::Damaged`] if two speak of one key in different ways.
    pub(super) fn storages(&self) -> Read<BTreeMap<&'a str, StorageRef<'a>>> {
        let mut storages = BTreeMap::new();
        for value in &self.values {
            if let Value::Storage(storage) = value
                && storages.insert(storage.key, **storage).is_some_and(|before| before != **storage)
            {
                return damaged(format!("storage {} is described in two ways", printable(storage.key)));
            }
        }
        Ok(storages)
    }

    fn whole(&self, id: Id, what: &str) -> Read<usize> {
        match &self.values[id] {
            Value::Int(value) => {
                usize::try_from(*value).map_err(|_| Refusal::Damaged(format!("the {what} of a tensor is {value}")))
            }
            _ => damaged(format!("the {what} of a tensor is no whole number")),
        }
    }

    fn axes(&self, id: Id, what: &str) -> Read<Vec<usize>> {
        match &self.values[id] {
            Value::Tuple(axes) | Value::List(axes) if axes.len() <= MAX_RANK => {
                axes.iter().map(|axis| self.whole(*axis, what)).collect()
            }
            Value::Tuple(axes) | Value::List(axes) => damaged(format!("a tensor has {} axes", axes.len())),
            _ => damaged(format!("the {what} of a tensor is no tuple")),
        }
    }

    /// `_rebuild_tensor_v2(storage, storage_offset, size, stride, requires_grad, backward_hooks, metadata=None)`;
    /// gradients and hooks are nothing to weights.
    pub(super) fn rebuild_tensor(&self, args: &[Id]) -> Read<Value<'a>> {
        let (&[storage, offset, size, stride, _, _] | &[storage, offset, size, stride, _, _, _]) = args else {
            return damaged(format!("a tensor is rebuilt from {} arguments", args.len()));
        };
        // The metadata says whether values have yet to be conjugated or negated; no saved weight has that.
        if let Some(metadata) = args.get(6) {
            match &self.values[*metadata] {
                Value::None => {}
                Value::Dict(entries) if entries.is_empty() => {}
                _ => return damaged("a tensor has metadata that is not read"),
            }
        }
        let Value::Storage(storage) = &self.values[storage] else { return damaged("a tensor has no storage") };
        let (shape, strides) = (self.axes(size, "size")?, self.axes(stride, "stride")?);
        if shape.len() != strides.len() {
            return damaged("a tensor has more or fewer strides than axes");
        }
        let offset = self.whole(offset, "offset")?;
        Ok(Value::Tensor(Box::new(TensorRef { storage: **storage, offset, shape, strides })))
    }

    /// `("storage", class, key, location, elements)`, and before torch 1.6 a sixth part for views, which is None. The
    /// location is the device that it was on.
    pub(super) fn persistent(&self, id: Id) -> Read<Value<'a>> {
        let Value::Tuple(parts) = &self.values[id] else { return damaged("a persistent id is no tuple") };
        let (&[tag, class, key, _, n] | &[tag, class, key, _, n, _]) = parts.as_slice() else {
            return damaged(format!("a persistent id has {} parts", parts.len()));
        };
        if parts.get(5).is_some_and(|view| !matches!(self.values[*view], Value::None)) {
            return damaged("a storage is a view of another, as only torch before 0.4 wrote");
        }
        match (&self.values[tag], &self.values[class], &self.values[key]) {
            (Value::Str("storage"), Value::Global(Global::Storage(element)), Value::Str(key)) => {
                let n = self.whole(n, "storage's length")?;
                Ok(Value::Storage(Box::new(StorageRef { element: *element, key, n })))
            }
            _ => damaged("a persistent id is no storage"),
        }
    }
}
