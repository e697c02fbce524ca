//! A folder that holds a Whisper, in Hugging Face's layout or CTranslate2's, with its intent head if there is one.

use std::sync::Arc;

use serde::Deserialize;
use serde_json::Value;

use super::files::{Files, not_found};
use super::layout::{HeadNames, Names};
use super::{Base, Body, HeadFiles, ModelFolder, OpenOptions, WhisperFiles, architecture, text, unsupported};
use crate::error::{Result, printable};
use crate::intent::calibration::{CALIBRATION_FILE, Calibration, RejectionClass};
use crate::intent::head::{HeadActivation, HeadPooling, HeadSpec, HeadWindow, MAX_POSITION_STRIDE};
use crate::intent::label_files::{Labels, read_labels};
use crate::intent::lexicon::SENTENCES_FILE;
use crate::intent::reader::Alphabet;
use crate::tokenizer;
use crate::weights::WeightSource;
use crate::weights::ctranslate2::Ctranslate2;
use crate::weights::lora::{LoraMerged, LoraSpec};
use crate::weights::renamed::Renamed;
use crate::whisper::config::invalid;
use crate::whisper::model::encoder_tensors;
use crate::whisper::{GenerationConfig, WhisperConfig};

/// A folder in Hugging Face's layout, on its way to a [`ModelFolder`].
pub(super) struct Opened<'a> {
    pub(super) files: &'a Files,
    pub(super) config: &'a Value,
    pub(super) weights: Arc<dyn WeightSource>,
}

impl Opened<'_> {
    pub(super) fn whisper(
        self,
        body: Names,
        has_decoder: bool,
        projection: Option<&str>,
        head: Option<HeadNames>,
    ) -> Result<ModelFolder> {
        let mut fallbacks = Vec::new();
        let config = whisper_config(self.config, &mut fallbacks)?;
        self.check_tied(&body, projection, &mut fallbacks)?;
        check_features(self.files, config.num_mel_bins, &mut fallbacks)?;
        let generation = self.generation(&config, has_decoder, &mut fallbacks)?;
        let tokenizer_json = if has_decoder { Some(tokenizer_of(self.files, &mut fallbacks)?) } else { None };
        let head = match head {
            Some(head) => Some(self.head(head, &body, &config, &mut fallbacks)?),
            None => {
                fallbacks.extend(traces_of_a_head(self.files, self.config));
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

    /// The output projection is the token embedding here. A checkpoint that holds another one must not mean it.
    fn check_tied(&self, body: &Names, projection: Option<&str>, fallbacks: &mut Vec<String>) -> Result<()> {
        let Some(projection) = projection else { return Ok(()) };
        let embedding = body.get("model.decoder.embed_tokens.weight").map(String::as_str).unwrap_or_default();
        let same = self.weights.shape(projection) == self.weights.shape(embedding)
            && matches!((self.weights.get(projection), self.weights.get(embedding)), (Some(a), Some(b)) if a.is_same(&b));
        if same {
            return Ok(());
        }
        if self.config.get("tie_word_embeddings").and_then(Value::as_bool) == Some(false) {
            let reason = "its output projection is not its token embedding (tie_word_embeddings is false)";
            return Err(unsupported(self.config, reason));
        }
        fallbacks.push(
            "proj_out.weight is not the token embedding, which is used in its place, as transformers does".to_owned(),
        );
        Ok(())
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
        fallbacks: &mut Vec<String>,
    ) -> Result<HeadFiles> {
        let window = window(self.config)?;
        let has_hidden = head.names.contains_key("head.hidden.weight");
        let mut described = || -> Result<Described> {
            let sentences = self.files.read(SENTENCES_FILE)?;
            Ok(Described {
                labels: self.labels()?,
                activation: activation(self.config, has_hidden, fallbacks)?,
                pooling: pooling(self.config)?,
                alphabet: alphabet(self.config, sentences.as_deref(), fallbacks)?,
                sentences,
                rejection_classes: rejection_classes(self.config)?,
                calibration: self.files.read(CALIBRATION_FILE)?.map(|json| Calibration::parse(&json)).transpose()?,
            })
        };
        let (described, problem) = match described() {
            Ok(described) => (described, None),
            Err(problem) => (Described::default(), Some(problem)),
        };
        let Described { labels, activation, pooling, alphabet, sentences, rejection_classes, calibration } = described;
        match &labels {
            Some(labels) => fallbacks.extend(labels.notes.iter().cloned()),
            None => fallbacks.push("no labels: nothing names the intent head's classes".to_owned()),
        }
        let n_classes =
            head.names.get("head.classifier.weight").and_then(|name| self.weights.shape(name)?.first().copied());
        let n_labels = n_classes.map(|n| n.saturating_sub(rejection_classes.len()));
        fallbacks.extend(contradictions(self.config, &head.names, n_labels));
        let own_encoder = match head.own_encoder {
            Some(own) if same_tensors(&*self.weights, &own, body, &encoder_tensors(config)) => None,
            Some(own) => {
                let source: Arc<dyn WeightSource> = Arc::new(Renamed::new(Arc::clone(&self.weights), own));
                Some(source)
            }
            None => None,
        };
        Ok(HeadFiles {
            spec: HeadSpec {
                n_state: config.d_model,
                n_layer: config.encoder_layers,
                window,
                activation,
                pooling,
                alphabet,
            },
            labels,
            rejection_classes,
            calibration,
            sentences,
            problem,
            weights: Arc::new(Renamed::new(Arc::clone(&self.weights), head.names)),
            own_encoder,
        })
    }

    fn labels(&self) -> Result<Option<Labels>> {
        let (intent_labels, label_map) = (self.files.read("intent_labels.json")?, self.files.read("label_map.json")?);
        read_labels(intent_labels.as_deref(), label_map.as_deref(), self.config)
    }

    /// The base's encoder with a head's adapters added in; `None` if it has none.
    fn adapted(&self, lora: Names, base: &WhisperFiles) -> Result<Option<Arc<dyn WeightSource>>> {
        let spec = match (self.config.get("lora").filter(|lora| !lora.is_null()), lora.is_empty()) {
            (Some(spec), _) => LoraSpec::deserialize(spec).map_err(|e| invalid("config.json", format!("lora: {e}")))?,
            (None, true) => return Ok(None),
            (None, false) => {
                let reason = "the weights hold adapters (lora.…), which it does not describe: \"lora\" is missing";
                return Err(invalid("config.json", reason.to_owned()));
            }
        };
        let adapters = Renamed::new(Arc::clone(&self.weights), lora);
        let merged = LoraMerged::new(Arc::clone(&base.weights), Arc::new(adapters), &spec, &base.config)?;
        Ok(Some(Arc::new(merged)))
    }

    pub(super) fn head_alone(
        self,
        mut head: HeadNames,
        options: &OpenOptions,
        find_base: &mut dyn FnMut(Option<&str>) -> Result<Base>,
    ) -> Result<ModelFolder> {
        let named = ["_name_or_path", "base_model_name_or_path"].iter().find_map(|key| text(self.config, key));
        let Base { name: base, folder } = find_base(named)?;
        let mut folder = ModelFolder::open_with(&folder, options, &mut |_| {
            Err(invalid("config.json", format!("the base '{base}' is an intent head itself")))
        })?;
        let Body::Whisper(files) = &folder.body else {
            return Err(invalid("config.json", format!("the base '{base}' is no Whisper")));
        };
        for (key, of_base) in [("d_model", files.config.d_model), ("encoder_layers", files.config.encoder_layers)] {
            if let Some(n) = self.config.get(key).and_then(Value::as_u64).filter(|n| *n != of_base as u64) {
                let reason =
                    format!("the head was made for another base: its {key} is {n}, that of '{base}' {of_base}");
                return Err(invalid("config.json", reason));
            }
        }
        let own_encoder = self.adapted(std::mem::take(&mut head.lora), files)?;
        let no_body = Names::new();
        let head = self.head(head, &no_body, &files.config, &mut folder.fallbacks)?;
        folder.head = Some(HeadFiles { own_encoder, ..head });
        folder.base = Some(base);
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
    fallbacks.extend(traces_of_a_head(files, json.unwrap_or(&Value::Null)));
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
        fallbacks.push(format!("the dimensions are those of '{}' in config.json", printable(key)));
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
    let added = files.read("added_tokens.json")?;
    let and_added = if added.is_some() { " and added_tokens.json" } else { "; there is no added_tokens.json" };
    fallbacks.push(format!("no tokenizer.json: made of vocab.json with merges.txt{and_added}"));
    tokenizer::json_from_parts(&vocab, &merges, added.as_deref())
}

/// Holds `preprocessor_config.json` against the one way in which features are made here.
fn check_features(files: &Files, n_mels: usize, fallbacks: &mut Vec<String>) -> Result<()> {
    const FILE: &str = "preprocessor_config.json";
    let Some(json) = files.features()? else {
        fallbacks.push(format!("no {FILE}: Whisper's own numbers (16 kHz, n_fft 400, hop length 160)"));
        return Ok(());
    };
    if !json.is_object() {
        return Err(invalid(FILE, "it is not a JSON object".to_owned()));
    }
    if json.get("do_normalize").and_then(Value::as_bool) == Some(true) {
        return Err(invalid(
            FILE,
            "do_normalize is true: samples are not brought to mean 0 and variance 1 for Whisper".to_owned(),
        ));
    }
    for (key, known) in [("feature_size", n_mels), ("sampling_rate", 16_000), ("n_fft", 400), ("hop_length", 160)] {
        if let Some(value) = json.get(key).filter(|v| v.as_u64() != Some(known as u64)) {
            return Err(invalid(FILE, format!("{key} is {value}, but the model needs {known}")));
        }
    }
    Ok(())
}

/// What the files beside a head's tensors say of it.
#[derive(Default)]
struct Described {
    labels: Option<Labels>,
    activation: HeadActivation,
    pooling: HeadPooling,
    alphabet: Alphabet,
    sentences: Option<Vec<u8>>,
    rejection_classes: Vec<RejectionClass>,
    calibration: Option<Calibration>,
}

fn window(config: &Value) -> Result<HeadWindow> {
    match text(config, "window") {
        Some("fitted") => Ok(HeadWindow::Fitted),
        None | Some("full") => Ok(HeadWindow::Full),
        Some(other) => {
            Err(invalid("config.json", format!("window '{}' is not known, only 'fitted' and 'full'", printable(other))))
        }
    }
}

fn pooling(config: &Value) -> Result<HeadPooling> {
    match text(config, "pooling") {
        None | Some("mean") => Ok(HeadPooling::Mean),
        Some("attentive_statistics") => {
            let stride = config.get("position_stride").map_or(Some(1), Value::as_u64).map(|n| n as usize);
            match stride.filter(|n| (1..=MAX_POSITION_STRIDE).contains(n)) {
                Some(position_stride) => Ok(HeadPooling::AttentiveStatistics { position_stride }),
                None => {
                    Err(invalid("config.json", format!("position_stride must be a number, 1 to {MAX_POSITION_STRIDE}")))
                }
            }
        }
        Some(other) => Err(invalid(
            "config.json",
            format!("pooling '{}' is not known, only 'mean' and 'attentive_statistics'", printable(other)),
        )),
    }
}

/// The letters that a head writes, and the words that it makes of them.
fn alphabet(config: &Value, sentences: Option<&[u8]>, fallbacks: &mut Vec<String>) -> Result<Alphabet> {
    let alphabet = match config.get("letters").filter(|letters| !letters.is_null()) {
        None => Alphabet::default(),
        Some(Value::String(letters)) => Alphabet::new(letters)?,
        Some(_) => return Err(invalid("config.json", "letters must be a string, a letter for each class".to_owned())),
    };
    match sentences {
        Some(_) if alphabet.is_empty() => {
            fallbacks.push(format!("{SENTENCES_FILE} is not used: the head writes no letters"));
            Ok(alphabet)
        }
        Some(sentences) => alphabet.with_sentences(sentences),
        None => Ok(alphabet),
    }
}

fn rejection_classes(config: &Value) -> Result<Vec<RejectionClass>> {
    let Some(classes) = config.get("rejection_classes").filter(|classes| !classes.is_null()) else {
        return Ok(Vec::new());
    };
    let wrong = "rejection_classes must be a list of 'out_of_scope' and 'no_speech', each once at most";
    let classes: Vec<RejectionClass> =
        serde_json::from_value(classes.clone()).map_err(|_| invalid("config.json", wrong.to_owned()))?;
    match classes[..] {
        [a, b] if a == b => Err(invalid("config.json", wrong.to_owned())),
        [] | [_] | [_, _] => Ok(classes),
        _ => Err(invalid("config.json", wrong.to_owned())),
    }
}

/// The activation between a head's two layers. The tensors cannot tell it.
fn activation(config: &Value, has_hidden: bool, fallbacks: &mut Vec<String>) -> Result<HeadActivation> {
    let stated = ["classifier_activation", "head_activation"].iter().find_map(|key| text(config, key));
    match stated {
        Some("relu") => Ok(HeadActivation::Relu),
        Some("gelu") => Ok(HeadActivation::Gelu),
        Some("tanh") => Ok(HeadActivation::Tanh),
        Some(other) => {
            Err(invalid("config.json", format!("classifier_activation '{}' is not known", printable(other))))
        }
        None => {
            if has_hidden {
                fallbacks
                    .push("no classifier_activation in config.json: relu between the head's two layers".to_owned());
            }
            Ok(HeadActivation::Relu)
        }
    }
}

/// Whether both hold the same bytes under every name of `expected`. Shapes come first: nothing of another size is read.
fn same_tensors(weights: &dyn WeightSource, a: &Names, b: &Names, expected: &[(String, Vec<usize>)]) -> bool {
    expected.iter().all(|(shown, shape)| {
        let of = |names: &Names| {
            let name = names.get(shown)?;
            (weights.shape(name).as_ref() == Some(shape)).then(|| weights.get(name)).flatten()
        };
        matches!((of(a), of(b)), (Some(a), Some(b)) if a.is_same(&b))
    })
}

/// What speaks of an intent head, for a model that has none.
fn traces_of_a_head(files: &Files, config: &Value) -> Option<String> {
    let label_file = ["intent_labels.json", "label_map.json"].into_iter().find(|file| files.has(file));
    let named = match label_file {
        Some(file) => file,
        None if speaks_of_a_head(config) => "config.json",
        None => return None,
    };
    Some(format!("{named} speaks of an intent head, but the weights hold none"))
}

/// Whether `config.json` says that the model tells intents: by its task, its class, or labels of its own.
fn speaks_of_a_head(config: &Value) -> bool {
    let is_true = |key: &str| config.get(key).and_then(Value::as_bool) == Some(true);
    let any = |key: &str| match config.get(key) {
        Some(Value::Array(list)) => list.iter().any(names_a_head),
        Some(value) => names_a_head(value),
        None => false,
    };
    ["task_types", "architectures", "model_type", "custom_model"].into_iter().any(any)
        || is_true("custom_model")
        || config.get("num_labels").is_some()
        || read_labels(None, None, config).is_ok_and(|labels| labels.is_some())
}

fn names_a_head(value: &Value) -> bool {
    value.as_str().is_some_and(|text| {
        let text = text.to_ascii_lowercase();
        ["intent", "classif", "multitask", "multi_task"].iter().any(|word| text.contains(word))
    })
}

/// Where `config.json` says otherwise than a head's tensors, which are believed.
fn contradictions(config: &Value, head: &Names, n_labels: Option<usize>) -> Vec<String> {
    let mut notes = Vec::new();
    let stated = config.get("num_labels").and_then(Value::as_u64);
    if let (Some(stated), Some(n)) = (stated, n_labels)
        && stated != n as u64
    {
        notes.push(format!("config.json: num_labels is {stated}, but the head has {n} classes"));
    }
    if let Some(tasks) = config.get("task_types").and_then(Value::as_array)
        && !tasks.iter().any(names_a_head)
    {
        notes.push("config.json: task_types names no intents, but the weights hold an intent head".to_owned());
    }
    let has_layer_weights = head.contains_key("head.layer_weights");
    if let Some(stated) = config.get("use_weighted_layer_sum").and_then(Value::as_bool)
        && stated != has_layer_weights
    {
        let (is, holds) = if stated { ("true", "no") } else { ("false", "the") };
        notes.push(format!("config.json: use_weighted_layer_sum is {is}, but the weights hold {holds} layer_weights"));
    }
    notes
}
