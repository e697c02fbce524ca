//! A folder that holds a wav2vec 2.0 with a CTC layer, and the adapter of one language if it has adapters.

use std::sync::Arc;

use serde_json::Value;

use super::files::{Files, not_found};
use super::{Body, ModelFolder, OpenOptions, Wav2Vec2Files, architecture, limits, text};
use crate::error::Result;
use crate::wav2vec2::{CtcVocabulary, Wav2Vec2Config, features_from_json};
use crate::weights::WeightSource;
use crate::weights::overlay::Overlay;

pub(super) fn open_wav2vec2(
    files: &Files,
    json: &Value,
    weights: Arc<dyn WeightSource>,
    options: &OpenOptions,
) -> Result<ModelFolder> {
    let config = Wav2Vec2Config::from_json(json.to_string().as_bytes())?;
    let (do_normalize, mut fallbacks) =
        features_from_json(files.features()?.map(|json| json.to_string().into_bytes()).as_deref())?;
    let tokenizer_config = files.read("tokenizer_config.json")?;
    let adapter = match &options.adapter {
        Some(language) => Some(language.clone()),
        None => tokenizer_config
            .as_deref()
            .and_then(|json| serde_json::from_slice::<Value>(json).ok())
            .and_then(|json| text(&json, "target_lang").map(str::to_owned)),
    };
    let vocabulary = files.read("vocab.json")?.ok_or_else(|| not_found("vocab.json"))?;
    let (vocabulary, notes) = CtcVocabulary::new(
        &vocabulary,
        tokenizer_config.as_deref(),
        files.read("special_tokens_map.json")?.as_deref(),
        config.pad_token_id,
        adapter.as_deref(),
    )?;
    fallbacks.extend(notes);
    let weight_format = weights.format();
    let mut in_use = None;
    let mut weights = weights;
    if config.adapter_attn_dim.is_some()
        && let Some(language) = adapter
    {
        match files.adapter(&language, limits(Some(json)).as_ref())? {
            Some(adapter) => weights = Arc::new(Overlay::new(adapter, weights)),
            None if options.adapter.is_some() => {
                return Err(not_found(&format!("the adapter of the language '{language}'")));
            }
            None => fallbacks.push(format!("no adapter file for '{language}': the adapter inside the weights")),
        }
        in_use = Some(language);
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
