//! A model folder: which files are there, what they are, and what stands in for those that are not.
//!
//! Knows Hugging Face's layout (`config.json`, `model.safetensors` or its shards,
//! `generation_config.json`, `tokenizer.json`) and CTranslate2's (`model.bin`, `config.json` with
//! `suppress_ids`, `tokenizer.json`), whose dimensions are read from its tensors.

// `unsafe`: mapping a file is unsafe because another process could change it under the map. The map
// lives only while a model is loaded; every read through it is bounds-checked against the length at
// the time of mapping, every bit pattern is a valid u8, and values are checked to be finite after
// conversion. A file that is truncated meanwhile raises SIGBUS; weights land by rename (never by
// writing in place), so no tool of this project does that.
#![allow(unsafe_code)]

use std::fs::File;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::WeightSource;
use super::ctranslate2::Ctranslate2;
use super::safetensors::{FileBytes, Safetensors, Shards};
use crate::error::{Error, Result};
use crate::whisper::config::invalid;
use crate::whisper::{GenerationConfig, WhisperConfig};

/// JSON and tokenizer files beyond this are not what they say they are.
const MAX_TEXT_FILE_BYTES: u64 = 64 << 20;

/// A model folder, its small files read and its weights opened.
pub struct ModelFolder {
    /// The folder's own name.
    pub name: String,
    /// Dimensions.
    pub config: WhisperConfig,
    /// How it wants to be decoded.
    pub generation: GenerationConfig,
    /// `tokenizer.json`, unparsed.
    pub tokenizer_json: Vec<u8>,
    /// The weights.
    pub weights: Box<dyn WeightSource>,
    /// What was missing, and what stands in for it.
    pub fallbacks: Vec<String>,
}

impl std::fmt::Debug for ModelFolder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ModelFolder").field("name", &self.name).finish_non_exhaustive()
    }
}

/// `config.json` beside a CTranslate2 model.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Ct2Config {
    suppress_ids: Option<Vec<i64>>,
    suppress_ids_begin: Option<Vec<i64>>,
    alignment_heads: Option<Vec<[usize; 2]>>,
}

#[derive(Debug, Deserialize)]
struct ShardIndex {
    weight_map: std::collections::BTreeMap<String, String>,
}

impl ModelFolder {
    /// Opens a folder.
    ///
    /// # Errors
    /// [`Error::ModelNotFound`] names the file that is missing; [`Error::InvalidConfig`] and
    /// [`Error::DamagedWeights`] say what is wrong with one that is there.
    pub fn open(folder: &Path) -> Result<Self> {
        if !folder.is_dir() {
            return Err(not_found("the model folder"));
        }
        let name = folder
            .canonicalize()
            .ok()
            .and_then(|p| p.file_name().map(|n| n.to_string_lossy().into_owned()))
            .unwrap_or_else(|| "model".to_owned());
        let tokenizer_json = read_text(folder, "tokenizer.json")?.ok_or_else(|| not_found("tokenizer.json"))?;
        let safetensors = folder.join("model.safetensors").is_file();
        let sharded = folder.join("model.safetensors.index.json").is_file();
        if safetensors || sharded {
            Self::open_hugging_face(folder, name, tokenizer_json, sharded && !safetensors)
        } else if folder.join("model.bin").is_file() {
            Self::open_ctranslate2(folder, name, tokenizer_json)
        } else {
            Err(not_found("model.safetensors or model.bin"))
        }
    }

    fn open_hugging_face(folder: &Path, name: String, tokenizer_json: Vec<u8>, sharded: bool) -> Result<Self> {
        let config = read_text(folder, "config.json")?.ok_or_else(|| not_found("config.json"))?;
        let config = WhisperConfig::from_json(&config)?;
        let mut fallbacks = Vec::new();
        let generation = match read_text(folder, "generation_config.json")? {
            Some(json) => parse::<GenerationConfig>(&json, "generation_config.json")?,
            None => {
                fallbacks.push("no generation_config.json: suppressed tokens from config.json".to_owned());
                GenerationConfig {
                    suppress_tokens: config.suppress_tokens.clone(),
                    begin_suppress_tokens: config.begin_suppress_tokens.clone(),
                    ..GenerationConfig::default()
                }
            }
        };
        let weights: Box<dyn WeightSource> = if sharded {
            Box::new(Shards::new(open_shards(folder)?))
        } else {
            Box::new(Safetensors::new(map(&folder.join("model.safetensors"))?, "model.safetensors")?)
        };
        Ok(Self { name, config, generation, tokenizer_json, weights, fallbacks })
    }

    fn open_ctranslate2(folder: &Path, name: String, tokenizer_json: Vec<u8>) -> Result<Self> {
        let mut fallbacks = Vec::new();
        let ct2 = match read_text(folder, "config.json")? {
            Some(json) => parse::<Ct2Config>(&json, "config.json")?,
            None => {
                fallbacks.push("no config.json: no token is suppressed".to_owned());
                Ct2Config::default()
            }
        };
        let weights = Ctranslate2::new(map(&folder.join("model.bin"))?, "model.bin")?;
        let config = ctranslate2_dimensions(&weights)?;
        let generation = GenerationConfig {
            suppress_tokens: ct2.suppress_ids,
            begin_suppress_tokens: ct2.suppress_ids_begin,
            alignment_heads: ct2.alignment_heads,
            ..GenerationConfig::default()
        };
        Ok(Self { name, config, generation, tokenizer_json, weights: Box::new(weights), fallbacks })
    }
}

/// The dimensions that a CTranslate2 model's tensors have.
fn ctranslate2_dimensions(weights: &Ctranslate2) -> Result<WhisperConfig> {
    let dims = |variable: &str| {
        weights.shape(variable).ok_or_else(|| Error::WeightMismatch {
            missing: vec![variable.to_owned()],
            unused: Vec::new(),
            misshapen: Vec::new(),
        })
    };
    let at = |variable: &str, axis: usize| dims(variable).map(|d| d.get(axis).copied().unwrap_or(0));
    let layers = |stack: &str| {
        (0..).take_while(|i| weights.shape(&format!("{stack}/layer_{i}/ffn/linear_0/weight")).is_some()).count()
    };
    let d_model = at("decoder/embeddings/weight", 1)?;
    // Every released Whisper has heads of 64; the file states the number since format version 6.
    let heads = |stack: &str| weights.n_head(stack).unwrap_or(d_model / 64);
    let config = WhisperConfig {
        d_model,
        encoder_layers: layers("encoder"),
        encoder_attention_heads: heads("encoder"),
        encoder_ffn_dim: at("encoder/layer_0/ffn/linear_0/weight", 0)?,
        decoder_layers: layers("decoder"),
        decoder_attention_heads: heads("decoder"),
        decoder_ffn_dim: at("decoder/layer_0/ffn/linear_0/weight", 0)?,
        num_mel_bins: at("encoder/conv1/weight", 1)?,
        max_source_positions: at("encoder/position_encodings/encodings", 0)?,
        max_target_positions: at("decoder/position_encodings/encodings", 0)?,
        vocab_size: at("decoder/embeddings/weight", 0)?,
        scale_embedding: false,
        activation_function: "gelu".to_owned(),
        architectures: vec!["WhisperForConditionalGeneration".to_owned()],
        suppress_tokens: None,
        begin_suppress_tokens: None,
    };
    config.check()?;
    Ok(config)
}

fn open_shards(folder: &Path) -> Result<Vec<Safetensors>> {
    const INDEX: &str = "model.safetensors.index.json";
    let json = read_text(folder, INDEX)?.ok_or_else(|| not_found(INDEX))?;
    let index: ShardIndex = parse(&json, INDEX)?;
    let files: std::collections::BTreeSet<&String> = index.weight_map.values().collect();
    files
        .into_iter()
        .map(|file| {
            // A name from a repository never leaves its folder.
            let plain = Path::new(file).components().count() == 1
                && Path::new(file).file_name().is_some_and(|n| n == file.as_str());
            if !plain {
                return Err(invalid(INDEX, "it names a file outside the model folder".to_owned()));
            }
            let path = folder.join(file);
            if !path.is_file() {
                return Err(not_found(file));
            }
            Safetensors::new(map(&path)?, file)
        })
        .collect()
}

fn parse<T: for<'de> Deserialize<'de>>(json: &[u8], file: &str) -> Result<T> {
    serde_json::from_slice(json).map_err(|e| invalid(file, e.to_string()))
}

fn not_found(what: &str) -> Error {
    Error::ModelNotFound { what: what.to_owned() }
}

/// A small file's bytes; `None` if it is not there.
fn read_text(folder: &Path, file: &str) -> Result<Option<Vec<u8>>> {
    let path = folder.join(file);
    let io = |source| Error::Io { what: format!("reading {file}"), source };
    match std::fs::metadata(&path) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(io(e)),
        Ok(m) if m.len() > MAX_TEXT_FILE_BYTES => {
            Err(invalid(file, format!("{} bytes are too many for such a file", m.len())))
        }
        Ok(_) => std::fs::read(&path).map(Some).map_err(io),
    }
}

struct Mapped(memmap2::Mmap);

impl AsRef<[u8]> for Mapped {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

fn map(path: &PathBuf) -> Result<FileBytes> {
    let name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    let io = |source| Error::Io { what: format!("reading {name}"), source };
    let file = File::open(path).map_err(io)?;
    if file.metadata().map_err(io)?.len() == 0 {
        return Err(Error::DamagedWeights { file: name, reason: "it is empty".to_owned() });
    }
    // SAFETY: see the head of this file.
    let map = unsafe { memmap2::Mmap::map(&file) }.map_err(io)?;
    Ok(Box::new(Mapped(map)))
}
