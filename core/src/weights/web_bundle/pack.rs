//! From an opened model folder to a bundle.

use half::f16;
use rayon::prelude::*;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::manifest::fits_blocks;
use super::quantise::{to_int4, to_int8};
use super::vocabulary::{RULE, Trimmed, trim};
use super::{
    Delivery, Encoding, FORMAT, Licence, MAX_PART_BYTES, Manifest, Part, Stage, StageName, StoredEntry, StoredFile,
    VERSION, Vocabulary, hex, sinusoids,
};
use crate::error::{Error, Result};
use crate::intent::calibration::CALIBRATION_FILE;
use crate::intent::head::{HeadPooling, IntentHead};
use crate::intent::lexicon::SENTENCES_FILE;
use crate::tokenizer::Tokenizer;
use crate::weights::folder::{Body, HeadFiles, ModelFolder, WhisperFiles};
use crate::weights::{Checkpoint, WeightSource};
use crate::whisper::GenerationConfig;
use crate::whisper::model::{encoder_tensors, expected_tensors};

/// Farther from the formula than rounding to half precision brings a checkpoint's own table, positions are stored.
const SINUSOID_TOLERANCE: f32 = 1e-3;

/// How a bundle is made.
#[derive(Debug, Clone)]
pub struct PackOptions {
    /// How the matrices travel.
    pub dtype: Delivery,
    /// Leaves tokens out that the shop's languages do not need.
    pub trim_vocabulary: bool,
    /// Texts that a trimmed vocabulary must write as before.
    pub texts: Vec<String>,
    /// Whose work is in it.
    pub licences: Vec<Licence>,
}

/// A bundle in memory.
#[derive(Debug, Clone)]
pub struct Packed {
    /// Without [`Manifest::check`] and [`Manifest::loss`]: they are measured on the bundle.
    pub manifest: Manifest,
    /// `(file, bytes)`, in the manifest's order.
    pub parts: Vec<(String, Vec<u8>)>,
    /// For each token that is left, the number that it had.
    pub kept_tokens: Vec<u32>,
}

/// Packs a Whisper with an intent head.
///
/// # Errors
/// [`Error::UnsupportedModel`] for a model without an intent head, or whose head has an encoder of its own;
/// [`Error::InvalidConfig`] if a trimmed vocabulary does not write one of the texts as before; what is wrong with the weights.
pub fn pack(folder: &ModelFolder, options: &PackOptions) -> Result<Packed> {
    let unsupported =
        |reason: &str| Error::UnsupportedModel { architecture: folder.architecture.clone(), reason: reason.to_owned() };
    let Body::Whisper(files) = &folder.body else {
        return Err(unsupported("a web bundle holds a Whisper with an intent head"));
    };
    let head =
        folder.head.as_ref().ok_or_else(|| unsupported("it has no intent head; train one with `okyeame train`"))?;
    if head.own_encoder.is_some() {
        return Err(unsupported(
            "its head hears through an encoder of its own (adapters); a web bundle has one encoder",
        ));
    }
    let mut stages = vec![intent_stage(files, head, options.dtype)?];
    let mut vocabulary = None;
    let mut kept_tokens = Vec::new();
    if files.tokenizer_json.is_some() {
        let (stage, trimmed) = words_stage(files, head, options)?;
        vocabulary = options.trim_vocabulary.then(|| Vocabulary {
            of: files.config.vocab_size,
            kept: trimmed.kept.len(),
            rule: RULE.to_owned(),
            n_texts: options.texts.len(),
        });
        kept_tokens = trimmed.kept;
        stages.push(stage);
    }
    let mut parts = Vec::new();
    let stages = stages.into_iter().map(|stage| stage.cut(&mut parts)).collect();
    let manifest = Manifest {
        format: FORMAT.to_owned(),
        version: VERSION,
        made_by: format!("okyeame {}", env!("CARGO_PKG_VERSION")),
        model: folder.name.clone(),
        base: folder.base.clone(),
        dtype: options.dtype,
        licences: options.licences.clone(),
        stages,
        check: None,
        vocabulary,
        loss: None,
    };
    Ok(Packed { manifest, parts, kept_tokens })
}

fn intent_stage(files: &WhisperFiles, head: &HeadFiles, dtype: Delivery) -> Result<Writer> {
    let mut stage = Writer::new(StageName::Intent);
    let config = config_json(files, head, files.config.vocab_size)?;
    stage.json("config.json", &config)?;
    if let Some(labels) = &head.labels {
        stage.json("intent_labels.json", &json!({ "labels": labels.names }))?;
    }
    if let Some(calibration) = &head.calibration {
        stage.json(CALIBRATION_FILE, &serde_json::to_value(calibration).map_err(not_json)?)?;
    }
    if let Some(sentences) = &head.sentences {
        stage.file(SENTENCES_FILE, sentences);
    }
    stage.tensors(&*files.weights, &encoder_tensors(&files.config), dtype)?;
    stage.tensors(&*head.weights, &IntentHead::expected_tensors(&head.spec, &*head.weights)?, dtype)?;
    Ok(stage)
}

fn words_stage(files: &WhisperFiles, head: &HeadFiles, options: &PackOptions) -> Result<(Writer, Trimmed)> {
    let (config, json) = (&files.config, files.tokenizer_json.as_deref().unwrap_or_default());
    let n_vocab = config.vocab_size;
    let trimmed = match options.trim_vocabulary {
        true => trim(json, n_vocab)?,
        false => Trimmed { json: json.to_vec(), kept: (0..n_vocab as u32).collect() },
    };
    check_lossless(json, &trimmed, &options.texts)?;
    let mut stage = Writer::new(StageName::Words);
    stage.json("config.json", &config_json(files, head, trimmed.kept.len())?)?;
    let generation = renumbered(&files.generation, &trimmed, config.is_multilingual());
    stage.json("generation_config.json", &serde_json::to_value(generation).map_err(not_json)?)?;
    stage.file("tokenizer.json", &trimmed.json);
    let encoder: Vec<String> = encoder_tensors(config).into_iter().map(|(name, _)| name).collect();
    let decoder: Vec<(String, Vec<usize>)> =
        expected_tensors(config).into_iter().filter(|(name, _)| !encoder.contains(name)).collect();
    let (embedding, rest): (Vec<_>, Vec<_>) = decoder.into_iter().partition(|(name, _)| name == EMBEDDING);
    stage.tensors(&*files.weights, &rest, options.dtype)?;
    // Every logit is a product with one of its rows: it stays finer than the rest.
    let dtype = if options.dtype == Delivery::Int4 { Delivery::Int8 } else { options.dtype };
    for (name, shape) in embedding {
        let expected = [(name.clone(), shape.clone())];
        let values = Checkpoint::new(&*files.weights, &expected, |_| true)?.take(&name)?;
        let n = shape[1];
        let rows: Vec<f32> =
            trimmed.kept.iter().flat_map(|id| &values[*id as usize * n..(*id as usize + 1) * n]).copied().collect();
        stage.tensor(&name, vec![trimmed.kept.len(), n], &rows, dtype);
    }
    Ok((stage, trimmed))
}

const EMBEDDING: &str = "model.decoder.embed_tokens.weight";

/// Every text must have the tokens that it had.
fn check_lossless(json: &[u8], trimmed: &Trimmed, texts: &[String]) -> Result<()> {
    let (before, after) = (Tokenizer::from_json(json)?, Tokenizer::from_json(&trimmed.json)?);
    for text in texts {
        // As the decoder writes it: a sentence begins with a space.
        let text = format!(" {text}");
        let tokens: Option<Vec<u32>> =
            after.encode(&text)?.into_iter().map(|token| trimmed.kept.get(token as usize).copied()).collect();
        if tokens != Some(before.encode(&text)?) {
            let reason = format!("its trimmed vocabulary writes '{}' with other tokens", text.trim());
            return Err(crate::whisper::config::invalid("tokenizer.json", reason));
        }
    }
    Ok(())
}

fn renumbered(generation: &GenerationConfig, trimmed: &Trimmed, is_multilingual: bool) -> GenerationConfig {
    let numbers = trimmed.renumbered();
    // -1 stands for a list that is made of the tokenizer.
    let new = |token: i64| match u32::try_from(token) {
        Ok(token) => numbers.get(&token).map(|new| i64::from(*new)),
        Err(_) => Some(token),
    };
    let list = |tokens: &Option<Vec<i64>>| -> Option<Vec<i64>> {
        tokens.as_ref().map(|tokens| tokens.iter().filter_map(|token| new(*token)).collect())
    };
    let forced = generation.forced_decoder_ids.as_ref().map(|forced| {
        forced.iter().map(|(at, token)| (*at, token.and_then(|token| numbers.get(&token).copied()))).collect()
    });
    GenerationConfig {
        suppress_tokens: list(&generation.suppress_tokens),
        begin_suppress_tokens: list(&generation.begin_suppress_tokens),
        forced_decoder_ids: forced,
        // Told by the size of the vocabulary otherwise, which is another now.
        is_multilingual: Some(generation.is_multilingual.unwrap_or(is_multilingual)),
        ..generation.clone()
    }
}

/// The base's dimensions and what describes the head, as one `config.json`.
fn config_json(files: &WhisperFiles, head: &HeadFiles, n_vocab: usize) -> Result<Value> {
    let mut config = serde_json::to_value(&files.config).map_err(not_json)?;
    config["vocab_size"] = json!(n_vocab);
    // In old numbers; generation_config.json has them in new ones.
    config["suppress_tokens"] = Value::Null;
    config["begin_suppress_tokens"] = Value::Null;
    let spec = &head.spec;
    config["window"] = json!(spec.window.name());
    config["classifier_activation"] = json!(spec.activation.name());
    match spec.pooling {
        HeadPooling::Mean => config["pooling"] = json!("mean"),
        HeadPooling::AttentiveStatistics { position_stride } => {
            config["pooling"] = json!("attentive_statistics");
            config["position_stride"] = json!(position_stride);
        }
    }
    config["rejection_classes"] = json!(head.rejection_classes);
    if !spec.alphabet.is_empty() {
        config["letters"] = json!(spec.alphabet.to_string());
    }
    Ok(config)
}

fn not_json(error: serde_json::Error) -> Error {
    crate::whisper::config::invalid("config.json", error.to_string())
}

/// A stage while it is written.
struct Writer {
    name: StageName,
    bytes: Vec<u8>,
    files: Vec<StoredFile>,
    tensors: Vec<StoredEntry>,
}

/// A tensor, encoded.
struct Encoded {
    encoding: Encoding,
    bytes: Vec<u8>,
}

impl Writer {
    fn new(name: StageName) -> Self {
        Self { name, bytes: Vec::new(), files: Vec::new(), tensors: Vec::new() }
    }

    fn file(&mut self, name: &str, bytes: &[u8]) {
        let offset = self.bytes.len() as u64;
        self.files.push(StoredFile { name: name.to_owned(), offset, bytes: bytes.len() as u64 });
        self.bytes.extend_from_slice(bytes);
    }

    fn json(&mut self, name: &str, value: &Value) -> Result<()> {
        self.file(name, &serde_json::to_vec(value).map_err(not_json)?);
        Ok(())
    }

    fn tensors(&mut self, source: &dyn WeightSource, expected: &[(String, Vec<usize>)], dtype: Delivery) -> Result<()> {
        let checkpoint = Checkpoint::new(source, expected, |_| true)?;
        let encoded: Vec<Encoded> = expected
            .par_iter()
            .map(|(name, shape)| Ok(encode(name, shape, &checkpoint.take(name)?, dtype)))
            .collect::<Result<_>>()?;
        for ((name, shape), encoded) in expected.iter().zip(encoded) {
            self.push(name, shape.clone(), encoded);
        }
        Ok(())
    }

    fn tensor(&mut self, name: &str, shape: Vec<usize>, values: &[f32], dtype: Delivery) {
        let encoded = encode(name, &shape, values, dtype);
        self.push(name, shape, encoded);
    }

    fn push(&mut self, name: &str, shape: Vec<usize>, encoded: Encoded) {
        let Encoded { encoding, bytes } = encoded;
        let offset = self.bytes.len() as u64;
        self.tensors.push(StoredEntry { name: name.to_owned(), shape, encoding, offset, bytes: bytes.len() as u64 });
        self.bytes.extend(bytes);
    }

    /// Cuts it into parts.
    fn cut(self, parts: &mut Vec<(String, Vec<u8>)>) -> Stage {
        let Self { name, bytes, files, tensors } = self;
        let chunks = bytes.chunks(MAX_PART_BYTES as usize).enumerate();
        let of_stage = chunks
            .map(|(at, chunk)| {
                let sha256 = hex(&Sha256::digest(chunk));
                // A name of its own for each content: caches may keep it for ever.
                let file = format!("{}-{at:02}-{}.bin", name.name(), &sha256[..16]);
                parts.push((file.clone(), chunk.to_vec()));
                Part { file, bytes: chunk.len() as u64, sha256 }
            })
            .collect();
        Stage { name, purpose: name.purpose().to_owned(), bytes: bytes.len() as u64, parts: of_stage, files, tensors }
    }
}

/// Smaller tensors are not worth the error: norms, biases, what weighs layers.
const MIN_QUANTISED: usize = 256;

fn encode(name: &str, shape: &[usize], values: &[f32], dtype: Delivery) -> Encoded {
    if name == "model.encoder.embed_positions.weight" && are_sinusoids(shape, values) {
        return Encoded { encoding: Encoding::Sinusoids, bytes: Vec::new() };
    }
    let is_matrix = shape.len() >= 2 && values.len() >= MIN_QUANTISED;
    match dtype {
        Delivery::Int4 if is_matrix && fits_blocks(shape) => {
            let (mut bytes, scales) = to_int4(values);
            bytes.extend(scales.iter().flat_map(|scale| scale.to_le_bytes()));
            Encoded { encoding: Encoding::Int4, bytes }
        }
        Delivery::Int4 | Delivery::Int8 if is_matrix => {
            let (mut bytes, scales) = to_int8(values, shape[0]);
            bytes.extend(scales.iter().flat_map(|scale| scale.to_le_bytes()));
            Encoded { encoding: Encoding::Int8, bytes }
        }
        _ => {
            let bytes = values.iter().flat_map(|v| f16::from_f32(*v).to_le_bytes()).collect();
            Encoded { encoding: Encoding::F16, bytes }
        }
    }
}

fn are_sinusoids(shape: &[usize], values: &[f32]) -> bool {
    let [length, channels] = shape[..] else { return false };
    Encoding::Sinusoids.bytes(shape).is_some()
        && sinusoids(length, channels).iter().zip(values).all(|(a, b)| (a - b).abs() <= SINUSOID_TOLERANCE)
}
