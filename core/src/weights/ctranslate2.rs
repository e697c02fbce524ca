//! CTranslate2 `model.bin`, the format of every faster-whisper repository.
//!
//! Follows OpenNMT/CTranslate2 `python/ctranslate2/specs/model_spec.py` (`_serialize`) at version 6 of
//! the binary format, little-endian: `u32` format version, string spec name, `u32` spec revision, `u32`
//! count; then per variable: string name, `u8` rank, `u32` × rank dimensions, `u8` type, `u32` bytes, data;
//! then `u32` count of aliases, each two strings. A string is `u16` length, its closing NUL counted.
//! Linear weights, the token embedding and the convolutions may be quantised, with a variable `…/weight_scale` beside
//! them and `value = stored / scale`: int8 with one factor a row, int16 with one for the whole tensor.
//!
//! Every length is checked against what is left of the file before anything is allocated. No variable is empty, so that
//! none has more rows than bytes: the scales of its rows are then no bomb.

use std::borrow::Cow;
use std::collections::BTreeMap;

use super::key_map::{Ct2Part, ct2_names, is_ct2_weight};
use super::safetensors::FileBytes;
use super::{StoredData, StoredTensor, StoredType, WeightSource, n_elements};
use crate::error::{Error, Result, printable};
use crate::whisper::WhisperConfig;

/// The versions of the binary format that are read: older ones lay variables out in another way.
const BINARY_VERSIONS: std::ops::RangeInclusive<u32> = 4..=6;

/// Whisper large has under 2000 variables.
const MAX_VARIABLES: u32 = 100_000;

/// One `model.bin`, seen under Hugging Face's names.
pub struct Ctranslate2 {
    bytes: FileBytes,
    variables: BTreeMap<String, Variable>,
    parts: BTreeMap<String, Ct2Part>,
    file: String,
}

impl std::fmt::Debug for Ctranslate2 {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ctranslate2").field("file", &self.file).finish_non_exhaustive()
    }
}

#[derive(Debug, Clone)]
struct Variable {
    shape: Vec<usize>,
    dtype: VariableType,
    start: usize,
    len: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum VariableType {
    Float(StoredType),
    Int8,
    Int16,
    Int32,
}

impl VariableType {
    fn size(self) -> usize {
        match self {
            Self::Float(dtype) => dtype.size(),
            Self::Int8 => 1,
            Self::Int16 => 2,
            Self::Int32 => 4,
        }
    }
}

/// Walks the file, never past its end.
struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    fn take(&mut self, n: usize) -> Option<&'a [u8]> {
        let taken = self.bytes.get(self.at..self.at.checked_add(n)?)?;
        self.at += n;
        Some(taken)
    }

    fn u8(&mut self) -> Option<u8> {
        self.take(1).map(|b| b[0])
    }

    fn u16(&mut self) -> Option<u16> {
        self.take(2).and_then(|b| b.try_into().ok()).map(u16::from_le_bytes)
    }

    fn u32(&mut self) -> Option<u32> {
        self.take(4).and_then(|b| b.try_into().ok()).map(u32::from_le_bytes)
    }

    fn string(&mut self) -> Option<String> {
        let n = usize::from(self.u16()?);
        let bytes = self.take(n)?;
        let text = bytes.strip_suffix(&[0]).unwrap_or(bytes);
        String::from_utf8(text.to_vec()).ok()
    }
}

impl Ctranslate2 {
    /// Reads a file that is in memory.
    ///
    /// # Errors
    /// [`Error::DamagedWeights`] if it is cut short, contradicts itself or is no Whisper.
    pub fn from_bytes(bytes: Vec<u8>, file: &str) -> Result<Self> {
        Self::new(Box::new(bytes), file)
    }

    pub(crate) fn new(bytes: FileBytes, file: &str) -> Result<Self> {
        let damaged = |reason: &str| Error::DamagedWeights { file: file.to_owned(), reason: reason.to_owned() };
        let content: &[u8] = (*bytes).as_ref();
        let mut cursor = Cursor { bytes: content, at: 0 };
        let version = cursor.u32().ok_or_else(|| damaged("it is empty"))?;
        if !BINARY_VERSIONS.contains(&version) {
            return Err(damaged(&format!("format version {version} is not known, only 4 to 6")));
        }
        let spec = cursor.string().ok_or_else(|| damaged("it ends in the header"))?;
        if spec != "WhisperSpec" {
            return Err(damaged("it is a CTranslate2 model, but no Whisper"));
        }
        let (variables, aliases) = read_variables(&mut cursor)
            .ok_or_else(|| damaged("it ends early, holds an empty variable or lengths that contradict each other"))?;
        let mut parts = ct2_names(variables.keys().map(String::as_str));
        // Another name of a weight, such as the output projection's for the token embedding, is nothing unknown.
        for (alias, target) in &aliases {
            for (one, other) in [(alias, target), (target, alias)] {
                if is_ct2_weight(other) {
                    parts.remove(one);
                }
            }
        }
        let model = Self { bytes, variables, parts, file: file.to_owned() };
        model
            .check_fused()
            .map_err(|name| damaged(&format!("{} does not split into equal parts", printable(&name))))?;
        Ok(model)
    }

    /// The number of attention heads of `encoder` or `decoder`, where the file states it.
    #[must_use]
    pub fn n_head(&self, stack: &str) -> Option<usize> {
        self.integer(&format!("{stack}/num_heads"))
    }

    /// Shape of a variable under CTranslate2's own name.
    fn variable_shape(&self, variable: &str) -> Option<&[usize]> {
        self.variables.get(variable).map(|v| v.shape.as_slice())
    }

    /// The dimensions that the tensors have.
    ///
    /// # Errors
    /// [`Error::WeightMismatch`] names the tensor that is missing, [`Error::InvalidConfig`] the dimension that no
    /// Whisper has.
    pub(crate) fn dimensions(&self) -> Result<WhisperConfig> {
        let axis = |variable: &str, axis: usize| {
            let missing = || Error::WeightMismatch {
                missing: vec![variable.to_owned()],
                unused: Vec::new(),
                misshapen: Vec::new(),
            };
            self.variable_shape(variable).ok_or_else(missing).map(|shape| shape.get(axis).copied().unwrap_or(0))
        };
        let layers = |stack: &str| {
            (0..)
                .take_while(|i| self.variable_shape(&format!("{stack}/layer_{i}/ffn/linear_0/weight")).is_some())
                .count()
        };
        let d_model = axis("decoder/embeddings/weight", 1)?;
        // Every released Whisper has heads of 64; the file states the number since format version 6.
        let heads = |stack: &str| self.n_head(stack).unwrap_or(d_model / 64);
        let config = WhisperConfig {
            d_model,
            encoder_layers: layers("encoder"),
            encoder_attention_heads: heads("encoder"),
            encoder_ffn_dim: axis("encoder/layer_0/ffn/linear_0/weight", 0)?,
            decoder_layers: layers("decoder"),
            decoder_attention_heads: heads("decoder"),
            decoder_ffn_dim: axis("decoder/layer_0/ffn/linear_0/weight", 0)?,
            num_mel_bins: axis("encoder/conv1/weight", 1)?,
            max_source_positions: axis("encoder/position_encodings/encodings", 0)?,
            max_target_positions: axis("decoder/position_encodings/encodings", 0)?,
            vocab_size: axis("decoder/embeddings/weight", 0)?,
            scale_embedding: false,
            activation_function: "gelu".to_owned(),
            architectures: vec!["WhisperForConditionalGeneration".to_owned()],
            suppress_tokens: None,
            begin_suppress_tokens: None,
        };
        config.check()?;
        Ok(config)
    }

    fn integer(&self, name: &str) -> Option<usize> {
        let variable = self.variables.get(name)?;
        let bytes = self.data(variable);
        let value = match variable.dtype {
            VariableType::Int8 => i64::from(bytes.first()?.cast_signed()),
            VariableType::Int16 => i64::from(i16::from_le_bytes(bytes.get(..2)?.try_into().ok()?)),
            VariableType::Int32 => i64::from(i32::from_le_bytes(bytes.get(..4)?.try_into().ok()?)),
            VariableType::Float(_) => return None,
        };
        usize::try_from(value).ok()
    }

    fn data(&self, variable: &Variable) -> &[u8] {
        let content: &[u8] = (*self.bytes).as_ref();
        &content[variable.start..variable.start + variable.len]
    }

    /// Every fused tensor must have as many rows as its parts ask for.
    fn check_fused(&self) -> std::result::Result<(), String> {
        for part in self.parts.values().filter(|part| part.n_parts > 1) {
            let rows = self.variables[&part.variable].shape.first().copied().unwrap_or(0);
            if rows == 0 || !rows.is_multiple_of(part.n_parts) {
                return Err(part.variable.clone());
            }
        }
        Ok(())
    }

    /// The scales of a quantised weight: of int8 one a row, and from older converters a single one; of int16 a single
    /// one, so that a caller asks for one row.
    fn scales(&self, variable: &str, n_rows: usize) -> Option<Vec<f32>> {
        let scale = self.variables.get(&format!("{variable}_scale"))?;
        let VariableType::Float(dtype) = scale.dtype else { return None };
        let bytes = Cow::Borrowed(self.data(scale));
        let values = StoredTensor { shape: scale.shape.clone(), data: StoredData::Float { dtype, bytes } }.to_f32();
        if values.iter().any(|s| *s == 0.0 || !s.is_finite()) {
            return None;
        }
        match values.len() {
            1 => Some(vec![values[0]; n_rows]),
            n if n == n_rows => Some(values),
            _ => None,
        }
    }
}

/// The variables by name, aliases among them, and the pairs of alias and name.
type Variables = (BTreeMap<String, Variable>, Vec<(String, String)>);

fn read_variables(cursor: &mut Cursor<'_>) -> Option<Variables> {
    let _revision = cursor.u32()?;
    let count = cursor.u32().filter(|n| *n <= MAX_VARIABLES)?;
    let mut variables = BTreeMap::new();
    for _ in 0..count {
        let name = cursor.string()?;
        let rank = cursor.u8()?;
        let shape: Vec<usize> = (0..rank).map(|_| cursor.u32().map(|d| d as usize)).collect::<Option<_>>()?;
        let dtype = match cursor.u8()? {
            0 => VariableType::Float(StoredType::F32),
            1 => VariableType::Int8,
            2 => VariableType::Int16,
            3 => VariableType::Int32,
            4 => VariableType::Float(StoredType::F16),
            5 => VariableType::Float(StoredType::Bf16),
            _ => return None,
        };
        let len = cursor.u32()? as usize;
        let needed = n_elements(&shape).saturating_mul(dtype.size() as u64);
        if needed == 0 || needed != len as u64 {
            return None;
        }
        let start = cursor.at;
        cursor.take(len)?;
        variables.insert(name, Variable { shape, dtype, start, len });
    }
    let n_aliases = cursor.u32().filter(|n| *n <= MAX_VARIABLES)?;
    let mut aliases = Vec::new();
    for _ in 0..n_aliases {
        let (alias, name) = (cursor.string()?, cursor.string()?);
        let variable = variables.get(&name)?.clone();
        variables.insert(alias.clone(), variable);
        aliases.push((alias, name));
    }
    Some((variables, aliases))
}

impl WeightSource for Ctranslate2 {
    fn names(&self) -> Vec<String> {
        self.parts.keys().cloned().collect()
    }

    fn get(&self, name: &str) -> Option<StoredTensor<'_>> {
        let part = self.parts.get(name)?;
        let variable = self.variables.get(&part.variable)?;
        let mut shape = variable.shape.clone();
        // A scalar is one row.
        let n_rows = shape.first().copied().unwrap_or(1);
        let rows_here = n_rows / part.n_parts;
        if let Some(rows) = shape.first_mut() {
            *rows = rows_here;
        }
        let bytes_here = variable.len / part.n_parts;
        let bytes = &self.data(variable)[part.index * bytes_here..(part.index + 1) * bytes_here];
        let is_quantised = self.variables.contains_key(&format!("{}_scale", part.variable));
        let data = match variable.dtype {
            VariableType::Float(dtype) => StoredData::Float { dtype, bytes: Cow::Borrowed(bytes) },
            VariableType::Int8 if is_quantised => {
                let scales = self.scales(&part.variable, n_rows)?;
                let scales = scales[part.index * rows_here..(part.index + 1) * rows_here].to_vec();
                StoredData::Int8 { bytes, scales: Cow::Owned(scales) }
            }
            VariableType::Int16 if is_quantised => {
                let scales = self.scales(&part.variable, 1)?;
                StoredData::Int16 { bytes, scale: *scales.first()? }
            }
            VariableType::Int8 => StoredData::Other { type_name: "int8" },
            VariableType::Int16 => StoredData::Other { type_name: "int16" },
            VariableType::Int32 => StoredData::Other { type_name: "int32" },
        };
        Some(StoredTensor { shape, data })
    }

    fn format(&self) -> &'static str {
        "ctranslate2"
    }

    fn file(&self) -> &str {
        &self.file
    }
}
