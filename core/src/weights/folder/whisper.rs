//! A folder that holds a Whisper, in Hugging Face's layout or CTranslate2's, with its intent head if there is one.

use std::path::PathBuf;
use std::sync::Arc;

use serde_json::Value;

use super::files::{Files, not_found};
use super::layout::{HeadNames, Names};
use super::{Body, HeadFiles, ModelFolder, OpenOptions, WhisperFiles, architecture, text, unsupported};
use crate::error::Result;
use crate::intent::head::{HeadActivation, HeadSpec, HeadWindow};
use crate::intent::label_files::read_labels;
use crate::tokenizer;
use crate::weights::WeightSource;
use crate::weights::ctranslate2::Ctranslate2;
use crate::weights::renamed::Renamed;
use crate::whisper::config::invalid;
use crate::whisper::{GenerationConfig, WhisperConfig};

/// A folder in Hugging Face's layout, on its way to a [`ModelFolder`].
pub(super) struct Opened<'a> {
    pub(super) files: &'a Files,
    pub(super) config: &'a Value,
    pub(super) weights: Arc<dyn WeightSource>,
}

impl Opened<'_> {
    pub(super) fn whisper(self, body: Names, has_decoder: bool, head: Option<HeadNames>) -> Result<ModelFolder> {
        let mut fallbacks = Vec::new();
        let config = whisper_config(self.config, &mut fallbacks)?;
        self.check_tied(&body)?;
        check_features(self.files, config.num_mel_bins, &mut fallbacks)?;
        let generation = self.generation(&config, has_decoder, &mut fallbacks)?;
        let tokenizer_json = if has_decoder { Some(tokenizer_of(self.files, &mut fallbacks)?) } else { None };
        let head = match head {
            Some(head) => Some(self.head(head, &body, &config, HeadWindow::Full, &mut fallbacks)?),
            None => {
                if speaks_of_a_head(self.config) {
                    fallbacks.push("config.json speaks of an intent head, but the weights hold none".to_owned());
                }
                None
            }
        };
        if !has_decoder && head.is_none() {
            return Err(unsupported(
                self.config,
                "it is a Whisper encoder alone, with neither a decoder for words nor a classifier for intents",
            ));
        }
        let fallback_name =
            if has_decoder { "WhisperForConditionalGeneration" } else { "WhisperForAudioClassification" };
        Ok(ModelFolder {
            name: self.files.name(),
            architecture: architecture(self.config).unwrap_or(fallback_name).to_owned(),
            weight_format: self.weights.format(),
            body: Body::Whisper(Box::new(WhisperFiles {
                config,
                generation,
                tokenizer_json,
                weights: Arc::new(Renamed::new(self.weights, body)),
            })),
            head,
            base: None,
            fallbacks,
        })
    }

    /// The output projection is the token embedding here. A checkpoint that says otherwise must not mean it.
    fn check_tied(&self, body: &Names) -> Result<()> {
        if self.config.get("tie_word_embeddings").and_then(Value::as_bool) != Some(false) {
            return Ok(());
        }
        let embedding = body.get("model.decoder.embed_tokens.weight").and_then(|name| self.weights.get(name));
        let projection = self.weights.names().into_iter().find(|name| name.ends_with("proj_out.weight"));
        let projection = projection.as_ref().and_then(|name| self.weights.get(name));
        match (embedding, projection) {
            (Some(embedding), Some(projection)) if !projection.is_same(&embedding) => {
                Err(unsupported(self.config, "its output projection is not its token embedding (tie_word_embeddings)"))
            }
            _ => Ok(()),
        }
    }

    fn generation(
        &self,
        config: &WhisperConfig,
        has_decoder: bool,
        fallbacks: &mut Vec<String>,
    ) -> Result<GenerationConfig> {
        if let Some(generation) = self.files.json("generation_config.json")? {
            return Ok(generation);
        }
        if has_decoder {
            fallbacks.push("no generation_config.json: suppressed tokens from config.json".to_owned());
        }
        Ok(GenerationConfig {
            suppress_tokens: config.suppress_tokens.clone(),
            begin_suppress_tokens: config.begin_suppress_tokens.clone(),
            ..GenerationConfig::default()
        })
    }

    /// A head on a Whisper whose tensors are `body`.
    fn head(
        &self,
        head: HeadNames,
        body: &Names,
        config: &WhisperConfig,
        window: HeadWindow,
        fallbacks: &mut Vec<String>,
    ) -> Result<HeadFiles> {
        let read = |file: &str| self.files.read(file);
        let (intent_labels, label_map) = (read("intent_labels.json")?, read("label_map.json")?);
        let labels = read_labels(intent_labels.as_deref(), label_map.as_deref(), self.config)?;
        match &labels {
            Some(labels) => fallbacks.extend(labels.notes.iter().cloned()),
            None => fallbacks.push("no labels: nothing names the intent head's classes".to_owned()),
        }
        let own_encoder = match head.own_encoder {
            Some(own) if same_tensors(&*self.weights, &own, body) => None,
            Some(own) => {
                let source: Arc<dyn WeightSource> = Arc::new(Renamed::new(Arc::clone(&self.weights), own));
                Some(source)
            }
            None => None,
        };
        let activation = activation(self.config, head.names.contains_key("head.hidden.weight"), fallbacks)?;
        Ok(HeadFiles {
            spec: HeadSpec { n_state: config.d_model, n_layer: config.encoder_layers, window, activation },
            labels,
            weights: Arc::new(Renamed::new(Arc::clone(&self.weights), head.names)),
            own_encoder,
        })
    }

    pub(super) fn head_alone(
        self,
        head: HeadNames,
        options: &OpenOptions,
        find_base: &mut dyn FnMut(&str) -> Result<PathBuf>,
    ) -> Result<ModelFolder> {
        let base = ["_name_or_path", "base_model_name_or_path"]
            .iter()
            .find_map(|key| text(self.config, key))
            .ok_or_else(|| invalid("config.json", "an intent head must name its base in _name_or_path".to_owned()))?;
        let mut folder = ModelFolder::open_with(&find_base(base)?, options, &mut |_| {
            Err(invalid("config.json", format!("the base '{base}' is an intent head itself")))
        })?;
        let Body::Whisper(files) = &folder.body else {
            return Err(invalid("config.json", format!("the base '{base}' is no Whisper")));
        };
        for (key, of_base) in [("d_model", files.config.d_model), ("encoder_layers", files.config.encoder_layers)] {
            if self.config.get(key).and_then(Value::as_u64).is_some_and(|n| n != of_base as u64) {
                return Err(invalid(
                    "config.json",
                    format!(
                        "the head was made for another base: its {key} is {}, that of '{base}' {of_base}",
                        self.config[key]
                    ),
                ));
            }
        }
        let window = match text(self.config, "window") {
            Some("fitted") => HeadWindow::Fitted,
            None | Some("full") => HeadWindow::Full,
            Some(other) => {
                return Err(invalid("config.json", format!("window '{other}' is not known, only 'fitted' and 'full'")));
            }
        };
        let no_body = Names::new();
        folder.head = Some(self.head(head, &no_body, &files.config, window, &mut folder.fallbacks)?);
        folder.base = Some(base.to_owned());
        folder.name = self.files.name();
        folder.architecture = architecture(self.config).unwrap_or("OkyeameIntentHead").to_owned();
        Ok(folder)
    }
}

pub(super) fn open_ctranslate2(files: &Files, json: Option<&Value>, weights: Ctranslate2) -> Result<ModelFolder> {
    let mut fallbacks = Vec::new();
    if json.is_none() {
        fallbacks.push("no config.json: no token is suppressed".to_owned());
    }
    let config = weights.dimensions()?;
    check_features(files, config.num_mel_bins, &mut fallbacks)?;
    // `config.json` beside a CTranslate2 model has other names for the same lists.
    let field = |key: &str| json.and_then(|json| json.get(key)).filter(|value| !value.is_null()).cloned();
    let list = |key: &str| -> Result<Option<Vec<i64>>> {
        field(key).map(serde_json::from_value).transpose().map_err(|e| invalid("config.json", format!("{key}: {e}")))
    };
    let generation = GenerationConfig {
        suppress_tokens: list("suppress_ids")?,
        begin_suppress_tokens: list("suppress_ids_begin")?,
        alignment_heads: field("alignment_heads")
            .map(serde_json::from_value)
            .transpose()
            .map_err(|e| invalid("config.json", format!("alignment_heads: {e}")))?,
        ..GenerationConfig::default()
    };
    let tokenizer_json = Some(tokenizer_of(files, &mut fallbacks)?);
    Ok(ModelFolder {
        name: files.name(),
        architecture: "WhisperForConditionalGeneration".to_owned(),
        weight_format: weights.format(),
        body: Body::Whisper(Box::new(WhisperFiles { config, generation, tokenizer_json, weights: Arc::new(weights) })),
        head: None,
        base: None,
        fallbacks,
    })
}

/// Dimensions from the top of `config.json`, or from the one object in it that has them: modules that wrap a
/// Whisper nest its configuration.
pub(super) fn whisper_config(json: &Value, fallbacks: &mut Vec<String>) -> Result<WhisperConfig> {
    if json.get("d_model").is_none()
        && let Some((key, nested)) = json.as_object().and_then(|o| o.iter().find(|(_, v)| v.get("d_model").is_some()))
    {
        fallbacks.push(format!("the dimensions are those of '{key}' in config.json"));
        return WhisperConfig::from_value(nested);
    }
    WhisperConfig::from_value(json)
}

/// `tokenizer.json`, or one made of the files that stand in for it.
fn tokenizer_of(files: &Files, fallbacks: &mut Vec<String>) -> Result<Vec<u8>> {
    if let Some(json) = files.read("tokenizer.json")? {
        return Ok(json);
    }
    let (Some(vocab), Some(merges)) = (files.read("vocab.json")?, files.read("merges.txt")?) else {
        return Err(not_found("tokenizer.json (or vocab.json with merges.txt)"));
    };
    fallbacks.push("no tokenizer.json: made of vocab.json, merges.txt and added_tokens.json".to_owned());
    tokenizer::json_from_parts(&vocab, &merges, files.read("added_tokens.json")?.as_deref())
}

/// Holds `preprocessor_config.json` against the one way in which features are made here.
fn check_features(files: &Files, n_mels: usize, fallbacks: &mut Vec<String>) -> Result<()> {
    const FILE: &str = "preprocessor_config.json";
    let Some(json) = files.features()? else {
        fallbacks.push(format!("no {FILE}: Whisper's own numbers (16 kHz, n_fft 400, hop length 160)"));
        return Ok(());
    };
    for (key, known) in [("feature_size", n_mels), ("sampling_rate", 16_000), ("n_fft", 400), ("hop_length", 160)] {
        if let Some(value) = json.get(key).filter(|v| v.as_u64() != Some(known as u64)) {
            return Err(invalid(FILE, format!("{key} is {value}, but the model needs {known}")));
        }
    }
    Ok(())
}

/// The activation between a head's two layers. The tensors cannot tell it.
fn activation(config: &Value, has_hidden: bool, fallbacks: &mut Vec<String>) -> Result<HeadActivation> {
    let stated = ["classifier_activation", "head_activation"].iter().find_map(|key| text(config, key));
    match stated {
        Some("relu") => Ok(HeadActivation::Relu),
        Some("gelu") => Ok(HeadActivation::Gelu),
        Some("tanh") => Ok(HeadActivation::Tanh),
        Some(other) => Err(invalid("config.json", format!("classifier_activation '{other}' is not known"))),
        None => {
            if has_hidden {
                fallbacks
                    .push("no classifier_activation in config.json: relu between the head's two layers".to_owned());
            }
            Ok(HeadActivation::Relu)
        }
    }
}

/// Whether every tensor of `a` is in `b` with the same bytes.
fn same_tensors(weights: &dyn WeightSource, a: &Names, b: &Names) -> bool {
    a.iter().all(|(shown, name)| match (weights.get(name), b.get(shown).and_then(|name| weights.get(name))) {
        (Some(a), Some(b)) => a.is_same(&b),
        _ => false,
    })
}

/// Whether `config.json` says that the model tells intents.
fn speaks_of_a_head(config: &Value) -> bool {
    let names_it = |value: &Value| {
        value.as_str().is_some_and(|text| {
            let text = text.to_ascii_lowercase();
            ["intent", "classif", "multitask", "multi_task"].iter().any(|word| text.contains(word))
        })
    };
    let any = |key: &str| config.get(key).and_then(Value::as_array).is_some_and(|list| list.iter().any(names_it));
    any("task_types") || any("architectures") || config.get("model_type").is_some_and(names_it)
}
