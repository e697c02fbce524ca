//! A folder that holds a wav2vec 2.0 with a CTC layer, and the adapter of one language if it has adapters.

use std::sync::Arc;

use serde_json::Value;

use super::files::{Files, not_found};
use super::{Body, ModelFolder, OpenOptions, Wav2Vec2Files, architecture, no_adapters, text, unsupported};
use crate::error::{Error, Result, printable};
use crate::wav2vec2::{CtcVocabulary, VocabularyFiles, Wav2Vec2Config, features_from_json};
use crate::weights::WeightSource;
use crate::weights::overlay::Overlay;
use crate::weights::pytorch::PytorchLimits;

pub(super) fn open_wav2vec2(
    files: &Files,
    json: &Value,
    weights: Arc<dyn WeightSource>,
    limits: Option<&PytorchLimits>,
    options: &OpenOptions,
) -> Result<ModelFolder> {
    let config = Wav2Vec2Config::from_value(json)?;
    let (do_normalize, mut fallbacks) =
        features_from_json(files.features()?.map(|json| json.to_string().into_bytes()).as_deref())?;
    let tokenizer_config = files.read("tokenizer_config.json")?;
    let settings: Value =
        tokenizer_config.as_deref().and_then(|json| serde_json::from_slice(json).ok()).unwrap_or_default();
    if text(&settings, "tokenizer_class") == Some("Wav2Vec2PhonemeCTCTokenizer") {
        return Err(unsupported(json, "its classes are phonemes, not letters"));
    }
    let names_lm = |json: &Value| text(json, "processor_class") == Some("Wav2Vec2ProcessorWithLM");
    let mut has_lm = names_lm(&settings);
    // Each may be the only one that says it; what else is wrong with them is no matter here.
    for file in ["preprocessor_config.json", "processor_config.json"] {
        let json = files.read(file)?.and_then(|json| serde_json::from_slice(&json).ok());
        has_lm |= json.as_ref().is_some_and(names_lm);
    }
    if has_lm {
        fallbacks.push("its language model is not used: words are decoded without it".to_owned());
    }
    let vocab = files.read("vocab.json")?.ok_or_else(|| not_found("vocab.json"))?;
    let languages = CtcVocabulary::languages_in(&vocab)?;
    let has_adapters = config.adapter_attn_dim.is_some() || !languages.is_empty();
    if !has_adapters {
        no_adapters(options)?;
    }
    if let Some(asked) = options.adapter.as_ref().filter(|asked| !languages.is_empty() && !languages.contains(asked)) {
        const SHOWN: usize = 12;
        let more = if languages.len() > SHOWN { ", …" } else { "" };
        let some = languages.iter().take(SHOWN).map(|l| printable(l)).collect::<Vec<_>>().join(", ");
        return Err(Error::InvalidParameter {
            name: "adapter",
            allowed: format!(
                "'{}' is none of this model's {} languages ({some}{more})",
                printable(asked),
                languages.len()
            ),
        });
    }
    let language = match &options.adapter {
        Some(language) => Some(language.clone()),
        None if config.adapter_attn_dim.is_some() => akan(files, limits, &languages)?,
        None => None,
    };
    if let (None, Some(language)) = (&options.adapter, &language) {
        fallbacks.push(format!("no language was named: '{language}'; --adapter names another"));
    }
    let (vocabulary, notes) = CtcVocabulary::new(
        &VocabularyFiles {
            vocab: &vocab,
            tokenizer_config: tokenizer_config.as_deref(),
            special_tokens_map: files.read("special_tokens_map.json")?.as_deref(),
            added_tokens: files.read("added_tokens.json")?.as_deref(),
        },
        config.pad_token_id,
        language.as_deref(),
    )?;
    fallbacks.extend(notes);
    let adapter = language.or_else(|| vocabulary.language().map(str::to_owned));
    let weight_format = weights.format();
    let mut in_use = None;
    let mut weights = weights;
    if config.adapter_attn_dim.is_some()
        && let Some(language) = adapter
    {
        match files.adapter(&language, limits)? {
            Some(adapter) => weights = Arc::new(Overlay::new(adapter, weights)),
            None if options.adapter.is_some() => {
                return Err(not_found(&format!("the adapter of the language '{language}'")));
            }
            None => fallbacks.push(format!("no adapter file for '{language}': the adapter inside the weights")),
        }
        in_use = Some(language);
    }
    // Behind the adapter, which brings its own head.
    if let Some(n_classes) = weights.shape("lm_head.weight").and_then(|shape| shape.first().copied()) {
        fallbacks.extend(vocabulary.check_fits(n_classes)?);
    }
    Ok(ModelFolder {
        name: files.name(),
        architecture: architecture(json).unwrap_or("Wav2Vec2ForCTC").to_owned(),
        body: Body::Wav2Vec2(Box::new(Wav2Vec2Files { config, vocabulary, do_normalize, adapter: in_use, weights })),
        head: None,
        base: None,
        weight_format,
        fallbacks,
    })
}

/// The language of a Twi shop, where nobody named one and the model has it: ISO 639-3 knows Akan and, in it, Twi.
fn akan(files: &Files, limits: Option<&PytorchLimits>, languages: &[String]) -> Result<Option<String>> {
    for language in ["aka", "twi"] {
        let is_there = languages.iter().any(|l| l == language);
        if is_there && files.adapter(language, limits)?.is_some() {
            return Ok(Some(language.to_owned()));
        }
    }
    Ok(None)
}
