//! A model folder: which model it holds, what belongs to it, and what stands in for what is not there.
//!
//! Knows Hugging Face's layout (`config.json`, safetensors or PyTorch's `.bin`, whole or in shards,
//! `generation_config.json`, `preprocessor_config.json`, `tokenizer.json` or its parts), CTranslate2's (`model.bin`,
//! whose dimensions are read from its tensors), wav2vec 2.0's (`vocab.json`), and this project's head-only repository,
//! which names its base; and this project's web bundle (`web_bundle`). What kind of model it is, the tensors decide
//! (`layout.rs`); `config.json` is held against them, and every difference is either an error that names it or a line in [`ModelFolder::fallbacks`].

mod files;
mod layout;
mod wav2vec2;
mod whisper;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::Value;

use super::pytorch::PytorchLimits;
#[cfg(feature = "web-bundle")]
use super::web_bundle::MANIFEST_FILE;
use super::{WeightSource, n_elements};
use crate::error::{Error, Result, printable};
use crate::intent::calibration::{Calibration, RejectionClass};
use crate::intent::head::HeadSpec;
use crate::intent::label_files::Labels;
use crate::wav2vec2::{CtcVocabulary, Wav2Vec2Config};
use crate::whisper::config::invalid;
use crate::whisper::model::expected_tensors;
use crate::whisper::{GenerationConfig, WhisperConfig};
pub use files::BuiltIn;
use files::OpenedWeights;
pub(crate) use files::{Files, not_found};
#[cfg(feature = "hub")]
pub(super) use files::{MAX_TEXT_FILE_BYTES, PEFT_CONFIG, peft};
use layout::{Layout, layout_of};
use wav2vec2::open_wav2vec2;
use whisper::{Opened, open_ctranslate2, whisper_config};

/// `model_type` of a head-only repository.
pub const HEAD_MODEL_TYPE: &str = "okyeame_intent_head";

/// What a caller may say about a folder.
#[derive(Debug, Clone, Default)]
pub struct OpenOptions {
    /// The language of the adapter and the vocabulary, for models that have one for each (MMS); else the
    /// configuration's own.
    pub adapter: Option<String>,
}

/// The base of a head-only folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Base {
    /// What it is called: a repository, or a folder's own name.
    pub name: String,
    /// Where it lies.
    pub folder: PathBuf,
}

/// A model folder, its small files read and its weights opened.
pub struct ModelFolder {
    /// The repository's or the folder's own name.
    pub name: String,
    /// As `config.json` names its class, or what its tensors are.
    pub architecture: String,
    /// What hears.
    pub body: Body,
    /// What tells intents from the encoder's states.
    pub head: Option<HeadFiles>,
    /// The repository of the base, for a head-only folder.
    pub base: Option<String>,
    /// `safetensors`, `pytorch` or `ctranslate2`.
    pub weight_format: &'static str,
    /// What was missing or contradictory, and what stands in for it.
    pub fallbacks: Vec<String>,
}

/// What hears.
pub enum Body {
    /// Whisper.
    Whisper(Box<WhisperFiles>),
    /// wav2vec 2.0 with a CTC layer.
    Wav2Vec2(Box<Wav2Vec2Files>),
}

/// A Whisper's files.
pub struct WhisperFiles {
    /// Dimensions.
    pub config: WhisperConfig,
    /// How it wants to be decoded.
    pub generation: GenerationConfig,
    /// `tokenizer.json`, unparsed; `None` if the model cannot write.
    pub tokenizer_json: Option<Vec<u8>>,
    /// The weights, under Hugging Face's names.
    pub weights: Arc<dyn WeightSource>,
}

/// A wav2vec 2.0's files.
pub struct Wav2Vec2Files {
    /// Dimensions.
    pub config: Wav2Vec2Config,
    /// What its classes are.
    pub vocabulary: CtcVocabulary,
    /// Whether the samples are brought to mean 0 and variance 1.
    pub do_normalize: bool,
    /// The language of the adapter in use.
    pub adapter: Option<String>,
    /// The weights, an adapter's before the model's own.
    pub weights: Arc<dyn WeightSource>,
}

/// An intent head's files.
pub struct HeadFiles {
    /// What it reads and how.
    pub spec: HeadSpec,
    /// Its classes; `None` if nothing names them.
    pub labels: Option<Labels>,
    /// The classes behind those that have a label.
    pub rejection_classes: Vec<RejectionClass>,
    /// What its numbers are worth, if that was measured.
    pub calibration: Option<Calibration>,
    /// [`crate::intent::lexicon::SENTENCES_FILE`] as it is: the words that [`HeadSpec::alphabet`] writes.
    pub sentences: Option<Vec<u8>>,
    /// What is wrong with the files that describe it: an error as soon as the head is to be used.
    pub problem: Option<Error>,
    /// `head.…`
    pub weights: Arc<dyn WeightSource>,
    /// `model.encoder.…` of an encoder that only the head reads: stored with it, or the base's with adapters added in.
    pub own_encoder: Option<Arc<dyn WeightSource>>,
}

impl std::fmt::Debug for ModelFolder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ModelFolder")
            .field("name", &self.name)
            .field("architecture", &self.architecture)
            .finish_non_exhaustive()
    }
}

impl ModelFolder {
    /// Opens a folder that is complete in itself.
    ///
    /// # Errors
    /// As [`Self::open_with`]; a head-only folder is [`Error::ModelNotFound`], naming its base.
    pub fn open(folder: &Path) -> Result<Self> {
        Self::open_with(folder, &OpenOptions::default(), &mut |base| {
            let base = base.map_or_else(|| "that it does not name".to_owned(), printable);
            Err(not_found(&format!("the base model {base}, which this intent head needs,")))
        })
    }

    /// Opens a folder; `find_base` tells where the base of a head-only folder lies, given what the folder calls it.
    ///
    /// # Errors
    /// - [`Error::ModelNotFound`] names the file that is missing;
    /// - [`Error::InvalidConfig`] and [`Error::DamagedWeights`] say what is wrong with one that is there;
    /// - [`Error::UnsupportedModel`] says what kind of model this is, if it is none that is read;
    /// - [`Error::UnsafePickle`], [`Error::WeightsTooLarge`] and [`Error::UnsafePath`] for hostile files.
    pub fn open_with(
        folder: &Path,
        options: &OpenOptions,
        find_base: &mut dyn FnMut(Option<&str>) -> Result<Base>,
    ) -> Result<Self> {
        Self::open_files(&Files::open(folder)?, options, find_base)
    }

    /// Opens a folder that was compiled in.
    ///
    /// # Errors
    /// As [`Self::open_with`].
    pub fn open_built_in(
        folder: &'static BuiltIn,
        options: &OpenOptions,
        find_base: &mut dyn FnMut(Option<&str>) -> Result<Base>,
    ) -> Result<Self> {
        Self::open_files(&Files::built_in(folder), options, find_base)
    }

    /// Opens what was unpacked from something else: small files under their names, and the weights.
    ///
    /// # Errors
    /// As [`Self::open_with`].
    #[cfg(feature = "web-bundle")]
    pub(crate) fn open_in_memory(
        name: String,
        files: std::collections::BTreeMap<String, Vec<u8>>,
        weights: Arc<dyn WeightSource>,
    ) -> Result<Self> {
        let files = Files::unpacked(name, files, weights);
        Self::open_files(&files, &OpenOptions::default(), &mut |_| Err(not_found("the encoder")))
    }

    fn open_files(
        files: &Files,
        options: &OpenOptions,
        find_base: &mut dyn FnMut(Option<&str>) -> Result<Base>,
    ) -> Result<Self> {
        #[cfg(feature = "web-bundle")]
        if files.has(MANIFEST_FILE) && !files.has("config.json") {
            return super::web_bundle::open_folder(files);
        }
        let config = files.json::<Value>("config.json")?;
        if config.as_ref().is_some_and(|json| !json.is_object()) {
            return Err(invalid("config.json", "it is not a JSON object".to_owned()));
        }
        let limits = limits(config.as_ref());
        let weights = match files.weights(limits.as_ref())? {
            OpenedWeights::Ctranslate2(weights) => {
                no_adapters(options)?;
                return open_ctranslate2(files, config.as_ref(), weights);
            }
            OpenedWeights::HuggingFace(weights) => weights,
        };
        let config = config.ok_or_else(|| not_found("config.json"))?;
        match layout_of(&weights.names()) {
            Layout::Whisper { body, has_decoder, projection, head } => {
                no_adapters(options)?;
                let weights = Opened { files, config: &config, weights };
                weights.whisper(body, has_decoder, projection.as_deref(), head)
            }
            Layout::Wav2Vec2 { has_ctc: true } => open_wav2vec2(files, &config, weights, limits.as_ref(), options),
            Layout::HeadAlone { head, rest } if text(&config, "model_type") == Some(HEAD_MODEL_TYPE) => {
                if !rest.is_empty() {
                    let unused = rest.into_keys().collect();
                    return Err(Error::WeightMismatch { missing: Vec::new(), unused, misshapen: Vec::new() });
                }
                let opened = Opened { files, config: &config, weights };
                opened.head_alone(head, options, find_base)
            }
            Layout::Wav2Vec2 { has_ctc: false } => Err(unsupported(
                &config,
                "it is a wav2vec 2.0 without a CTC layer (lm_head), so it gives no words; fine-tuned models have one \
                 (Wav2Vec2ForCTC)",
            )),
            Layout::HeadAlone { .. } | Layout::Unknown => Err(unsupported(
                &config,
                "its weights are neither a Whisper's nor a wav2vec 2.0's; README.md lists what can be used",
            )),
        }
    }

    /// Bytes of the loaded weights: each number is a f32.
    #[must_use]
    pub fn loaded_bytes(&self) -> u64 {
        self.sources().iter().map(|source| 4 * source.n_elements()).sum()
    }

    /// The number type of most of the stored weights.
    #[must_use]
    pub fn stored_dtype(&self) -> &'static str {
        self.sources().first().map_or("f32", |source| source.main_dtype())
    }

    /// Everything that is loaded, the body first.
    fn sources(&self) -> Vec<&dyn WeightSource> {
        let body = match &self.body {
            Body::Whisper(files) => &files.weights,
            Body::Wav2Vec2(files) => &files.weights,
        };
        let head = self.head.iter().flat_map(|head| std::iter::once(&head.weights).chain(&head.own_encoder));
        std::iter::once(body).chain(head).map(|source| &**source).collect()
    }

    /// The Whisper in it.
    ///
    /// # Errors
    /// [`Error::UnsupportedModel`] if it is another model.
    pub fn into_whisper(self) -> Result<WhisperFiles> {
        match self.body {
            Body::Whisper(files) => Ok(*files),
            Body::Wav2Vec2(_) => Err(Error::UnsupportedModel {
                architecture: self.architecture,
                reason: "a Whisper is needed here".to_owned(),
            }),
        }
    }
}

/// # Errors
/// [`Error::InvalidParameter`] if an adapter was asked for of a model that has none.
fn no_adapters(options: &OpenOptions) -> Result<()> {
    match options.adapter {
        None => Ok(()),
        Some(_) => Err(Error::InvalidParameter {
            name: "adapter",
            allowed: "leave it out, this model has no adapters of languages".to_owned(),
        }),
    }
}

/// How much a `.bin` may hold: what `config.json` says that the model has, at 8 bytes a number and twice over for
/// an encoder of the head's own, and room for a head and buffers. `None` if it describes no model that is known.
fn limits(config: Option<&Value>) -> Option<PytorchLimits> {
    const SPARE_BYTES: u64 = 64 << 20;
    const SPARE_TENSORS: usize = 1024;
    let json = config?;
    let whisper = whisper_config(json, &mut Vec::new()).ok().map(|config| expected_tensors(&config));
    let tensors = whisper.or_else(|| {
        let config = Wav2Vec2Config::from_value(json).ok()?;
        Some(crate::wav2vec2::expected_tensors(&config, &NoWeights))
    })?;
    let numbers: u64 = tensors.iter().map(|(_, shape)| n_elements(shape)).sum();
    Some(PytorchLimits { max_tensors: 2 * tensors.len() + SPARE_TENSORS, max_bytes: 16 * numbers + SPARE_BYTES })
}

/// Stands where an architecture asks the weights which of two forms they have, before there are any.
struct NoWeights;

impl WeightSource for NoWeights {
    fn names(&self) -> Vec<String> {
        Vec::new()
    }

    fn get(&self, _name: &str) -> Option<super::StoredTensor<'_>> {
        None
    }

    fn format(&self) -> &'static str {
        "none"
    }

    fn file(&self) -> &str {
        ""
    }
}

fn text<'a>(json: &'a Value, key: &str) -> Option<&'a str> {
    json.get(key)?.as_str().map(str::trim).filter(|text| !text.is_empty())
}

/// The class that `config.json` names, fit to be printed.
fn architecture(config: &Value) -> Option<&str> {
    let name = config.get("architectures")?.get(0)?.as_str()?;
    let plain = !name.is_empty() && name.len() <= 100 && name.chars().all(|c| c.is_ascii_graphic());
    plain.then_some(name)
}

fn unsupported(config: &Value, reason: &str) -> Error {
    let named = architecture(config).or_else(|| text(config, "model_type")).unwrap_or("no architecture is named");
    Error::UnsupportedModel { architecture: printable(named), reason: reason.to_owned() }
}
