//! A trained head as a model folder: what [`crate::weights::folder`] reads and `okyeame upload` sends.
//!
//! `model.safetensors` (half precision), `config.json`, `intent_labels.json`, `calibration.json`, `sentences.txt` where it
//! makes words of its letters; with adapters on the
//! encoder, their tensors and their description beside the head's ([`crate::weights::lora`]). Numbers are rounded to
//! half precision before anything is measured on them, so that what is measured is what is written.

use std::fs;
use std::path::Path;

use half::f16;
use safetensors::tensor::{Dtype, TensorView, serialize};
use serde_json::json;

use super::model::{HeadShape, NamedTensor};
use crate::error::{Error, Result};
use crate::intent::calibration::{CALIBRATION_FILE, Calibration, RejectionClass};
use crate::intent::lexicon::SENTENCES_FILE;
use crate::intent::reader::Alphabet;
use crate::weights::folder::HEAD_MODEL_TYPE;
use crate::weights::lora::LoraSpec;

/// The classes behind the labels, in their order.
pub const REJECTION_CLASSES: [RejectionClass; 2] = [RejectionClass::OutOfScope, RejectionClass::NoSpeech];

/// A head and everything that describes it.
#[derive(Debug, Clone)]
pub struct TrainedHead {
    /// Its parameters.
    pub tensors: Vec<NamedTensor>,
    /// What reads its letters ([`super::read_fit::reader_tensors`]); empty for a head that writes none.
    pub reader: Vec<NamedTensor>,
    /// The letters that it writes, and the words that it makes of them.
    pub alphabet: Alphabet,
    /// What these words are from, a sentence on each line; empty for a head that makes no words.
    pub sentences: String,
    /// Its widths.
    pub shape: HeadShape,
    /// Layers of the encoder that it stands on; the head sums the last [`HeadShape::n_layers`] of their states.
    pub n_encoder_layers: usize,
    /// Positions that are averaged into one.
    pub position_stride: usize,
    /// In class order.
    pub labels: Vec<String>,
    /// The repository or folder of its base.
    pub base: String,
    /// What its numbers are worth.
    pub calibration: Calibration,
    /// Adapters on the base's encoder, where it was trained with them.
    pub lora: Option<TrainedLora>,
}

/// Adapters that belong to a head.
#[derive(Debug, Clone, PartialEq)]
pub struct TrainedLora {
    /// Where they are, and how they are added in.
    pub spec: LoraSpec,
    /// [`LoraSpec::expected_tensors`].
    pub tensors: Vec<NamedTensor>,
}

/// Rounds parameters to half precision.
#[must_use]
pub fn rounded(mut tensors: Vec<NamedTensor>) -> Vec<NamedTensor> {
    for (_, _, values) in &mut tensors {
        values.iter_mut().for_each(|v| *v = f16::from_f32(*v).to_f32());
    }
    tensors
}

impl TrainedHead {
    /// Writes the folder.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn write(&self, folder: &Path) -> Result<()> {
        let io = |source| Error::Io { what: "writing the head".to_owned(), source };
        fs::create_dir_all(folder).map_err(io)?;
        let json = |name: &str, value: &serde_json::Value| {
            let mut text = serde_json::to_string_pretty(value).map_err(|e| io(e.into()))?;
            text.push('\n');
            fs::write(folder.join(name), text).map_err(io)
        };
        fs::write(folder.join("model.safetensors"), self.safetensors()).map_err(io)?;
        let mut config = json!({
            "model_type": HEAD_MODEL_TYPE,
            "architectures": ["OkyeameIntentHead"],
            "_name_or_path": self.base,
            "d_model": self.shape.n_state,
            "encoder_layers": self.n_encoder_layers,
            "window": "fitted",
            "pooling": "attentive_statistics",
            "position_stride": self.position_stride,
            "classifier_activation": "relu",
            "num_labels": self.labels.len(),
            "rejection_classes": REJECTION_CLASSES,
        });
        if !self.alphabet.is_empty() {
            config["letters"] = json!(self.alphabet.to_string());
        }
        if let Some(lora) = &self.lora {
            config["lora"] = serde_json::to_value(&lora.spec).map_err(|e| io(e.into()))?;
        }
        json("config.json", &config)?;
        let sentences = folder.join(SENTENCES_FILE);
        match self.sentences.is_empty() {
            false => fs::write(sentences, &self.sentences).map_err(io)?,
            // Those of an earlier head.
            true if sentences.exists() => fs::remove_file(sentences).map_err(io)?,
            true => {}
        }
        json("intent_labels.json", &json!({ "labels": self.labels }))?;
        json(CALIBRATION_FILE, &serde_json::to_value(&self.calibration).map_err(|e| io(e.into()))?)
    }

    fn safetensors(&self) -> Vec<u8> {
        let adapters = self.lora.iter().flat_map(|lora| &lora.tensors);
        let tensors: Vec<&NamedTensor> = self.tensors.iter().chain(&self.reader).chain(adapters).collect();
        let halves: Vec<Vec<u8>> = tensors
            .iter()
            .map(|(_, _, values)| values.iter().flat_map(|v| f16::from_f32(*v).to_le_bytes()).collect())
            .collect();
        let views = tensors.iter().zip(&halves).map(|((name, shape, _), bytes)| {
            (name.as_str(), TensorView::new(Dtype::F16, shape.clone(), bytes).expect("a value per element"))
        });
        serialize(views, None).expect("names and shapes are plain")
    }
}

#[cfg(test)]
mod tests;
