//! What a web bundle says of itself: `manifest.json`.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result, printable};
use crate::weights::n_elements;
use crate::whisper::config::invalid;

/// The file's name.
pub const MANIFEST_FILE: &str = "manifest.json";
/// `format` of every manifest.
pub const FORMAT: &str = "okyeame-web-bundle";
/// The newest version that this program reads.
pub const VERSION: u32 = 1;
/// No part is longer, so that what a bad line loses is soon fetched again, and every cache takes it.
pub const MAX_PART_BYTES: u64 = 4 << 20;

/// Larger than any stage of any Whisper by a wide margin.
const MAX_STAGE_BYTES: u64 = 4 << 30;
const MAX_ENTRIES: usize = 20_000;
/// Numbers of a table that is computed on arrival, of no bytes in the bundle: large-v3 has 1.9 million.
const MAX_SINUSOIDS: u64 = 1 << 24;

/// How weights travel. On arrival they are unpacked to what the device computes in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Delivery {
    /// IEEE half.
    F16,
    /// Matrices in a signed byte a number, one scale for each output channel; the rest as f16.
    Int8,
    /// Matrices in four bits a number, one scale for each 32 of them; what fits no block as `int8`; the rest as f16.
    Int4,
}

impl Delivery {
    /// All, the most exact first.
    pub const ALL: [Self; 3] = [Self::F16, Self::Int8, Self::Int4];

    /// `f16`, `int8` or `int4`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::F16 => "f16",
            Self::Int8 => "int8",
            Self::Int4 => "int4",
        }
    }
}

impl std::str::FromStr for Delivery {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        Self::ALL
            .into_iter()
            .find(|delivery| delivery.name() == text.trim().to_ascii_lowercase())
            .ok_or_else(|| Error::InvalidParameter { name: "dtype", allowed: "'f16', 'int8' or 'int4'".to_owned() })
    }
}

/// `manifest.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// [`FORMAT`].
    pub format: String,
    /// Of this schema.
    pub version: u32,
    /// Which program wrote it.
    pub made_by: String,
    /// What the model is called.
    pub model: String,
    /// The repository of the base, for a head that stands on one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base: Option<String>,
    /// How the matrices travel.
    pub dtype: Delivery,
    /// Whose work is in it.
    pub licences: Vec<Licence>,
    /// In the order in which they are needed; the first is enough for the intent.
    pub stages: Vec<Stage>,
    /// What an engine must answer to a known sound before it is trusted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub check: Option<Check>,
    /// What was left out of the vocabulary.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vocabulary: Option<Vocabulary>,
    /// What the delivery dtype costs, as it was measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub loss: Option<Loss>,
}

/// Whose work is in a bundle.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Licence {
    /// The work: a repository's name.
    pub of: String,
    /// SPDX expression.
    pub licence: String,
}

/// What a stage is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StageName {
    /// Encoder and intent head: enough for the intent.
    Intent,
    /// Decoder and tokenizer: the words.
    Words,
}

impl StageName {
    /// `intent` or `words`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Intent => "intent",
            Self::Words => "words",
        }
    }

    /// For people.
    #[must_use]
    pub fn purpose(self) -> &'static str {
        match self {
            Self::Intent => "audio encoder and intent head: enough for the intent",
            Self::Words => "text decoder and tokenizer: the words of a clip, after the intent stage",
        }
    }
}

/// Parts that are loaded together. Their bytes, one part behind the other, hold the stage's files and tensors.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stage {
    /// Which.
    pub name: StageName,
    /// For people.
    pub purpose: String,
    /// Of all parts together.
    pub bytes: u64,
    /// In order.
    pub parts: Vec<Part>,
    /// Small files as a model folder has them.
    pub files: Vec<StoredFile>,
    /// Weights.
    pub tensors: Vec<StoredEntry>,
}

/// One file of a bundle.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// Its name beside the manifest.
    pub file: String,
    /// Its length.
    pub bytes: u64,
    /// Its digest, in hex.
    pub sha256: String,
}

/// A small file inside a stage.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredFile {
    /// `config.json` and the like.
    pub name: String,
    /// From the stage's beginning.
    pub offset: u64,
    /// Its length.
    pub bytes: u64,
}

/// How one tensor is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Encoding {
    /// IEEE half, little-endian.
    F16,
    /// `shape.product()` signed bytes, then an f32 for each row: `value = byte / scale`.
    Int8,
    /// Two numbers a byte, the low half first, each 8 too high; then an f16 for each block: `value = (half - 8) * scale`.
    Int4,
    /// No bytes at all: the fixed sinusoids of Whisper's encoder positions, computed on arrival.
    Sinusoids,
}

/// One tensor inside a stage.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredEntry {
    /// Under the house's names: `model.encoder.…`, `model.decoder.…`, `head.…`.
    pub name: String,
    /// Row-major.
    pub shape: Vec<usize>,
    /// How.
    pub encoding: Encoding,
    /// From the stage's beginning.
    pub offset: u64,
    /// Its length, scales included.
    pub bytes: u64,
}

/// A known sound's answer: [`crate::recognizer::Recognizer::probe`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Check {
    /// Probability of each class, labels and rejection classes, on the CPU by these very weights.
    pub probabilities: Vec<f32>,
    /// No class may be farther off.
    pub tolerance: f32,
}

impl Check {
    /// Whether an engine answers the known sound as it should. No answer, or one that is no number, is none.
    ///
    /// # Errors
    /// [`Error::Device`] if it does not.
    pub fn hold(&self, answer: &[f32]) -> Result<()> {
        let near = |(a, b): (&f32, &f32)| a.is_finite() && (a - b).abs() <= self.tolerance;
        let agrees = answer.len() == self.probabilities.len() && answer.iter().zip(&self.probabilities).all(near);
        if agrees { Ok(()) } else { Err(Error::Device { stage: "check of the loaded model" }) }
    }
}

/// What was left out of the vocabulary.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Vocabulary {
    /// Tokens of the model as it was.
    pub of: usize,
    /// Tokens that are left.
    pub kept: usize,
    /// By which rule.
    pub rule: String,
    /// Texts of the shop's languages that were held against it; every one has the same tokens as before.
    pub n_texts: usize,
}

/// What the delivery dtype costs, against the model as it was.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Loss {
    /// Sounds that both heard.
    pub n_clips: usize,
    /// What they were.
    pub clips: String,
    /// Root mean square of the logits' difference, over that of the logits themselves.
    pub logits_relative_rms: f64,
    /// Largest difference of a probability.
    pub probability_max: f64,
    /// Clips with the same first intent.
    pub same_intent: f64,
    /// Clips accepted or rejected alike.
    pub same_verdict: f64,
    /// Accuracy of the model as it was, where the clips have labels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accuracy_before: Option<f64>,
    /// Accuracy of the bundle.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accuracy: Option<f64>,
}

impl Manifest {
    /// Reads and checks a manifest: that it is of a version that is known, and that its stages, files and tensors lie
    /// inside their parts.
    ///
    /// # Errors
    /// [`Error::UnsupportedBundle`] for a newer version, [`Error::InvalidConfig`] for anything else.
    pub fn parse(json: &[u8]) -> Result<Self> {
        /// What is the same in every version.
        #[derive(Deserialize)]
        struct Kind {
            format: String,
            version: u32,
        }
        let bad = |reason: String| invalid(MANIFEST_FILE, reason);
        let kind: Kind = serde_json::from_slice(json).map_err(|e| bad(e.to_string()))?;
        if kind.format != FORMAT {
            return Err(bad(format!("its format is '{}', not '{FORMAT}'", printable(&kind.format))));
        }
        if kind.version > VERSION {
            return Err(Error::UnsupportedBundle { version: kind.version, supported: VERSION });
        }
        let manifest: Self = serde_json::from_slice(json).map_err(|e| bad(e.to_string()))?;
        manifest.check().map_err(bad)?;
        Ok(manifest)
    }

    /// A stage, if the bundle has it.
    #[must_use]
    pub fn stage(&self, name: StageName) -> Option<&Stage> {
        self.stages.iter().find(|stage| stage.name == name)
    }

    fn check(&self) -> std::result::Result<(), String> {
        if self.stage(StageName::Intent).is_none() {
            return Err("it has no intent stage".to_owned());
        }
        let mut files = BTreeSet::new();
        let mut stages = BTreeSet::new();
        for stage in &self.stages {
            if !stages.insert(stage.name) {
                return Err(format!("it has two stages '{}'", stage.name.name()));
            }
            stage.check()?;
            if let Some(part) = stage.parts.iter().find(|part| !files.insert(&part.file)) {
                return Err(format!("it names {} twice", printable(&part.file)));
            }
        }
        Ok(())
    }
}

impl Stage {
    fn check(&self) -> std::result::Result<(), String> {
        let name = self.name.name();
        if self.parts.len().max(self.files.len()).max(self.tensors.len()) > MAX_ENTRIES {
            return Err(format!("the stage '{name}' has more than {MAX_ENTRIES} entries"));
        }
        let mut sum: u64 = 0;
        for part in &self.parts {
            let file = printable(&part.file);
            let plain = !part.file.is_empty()
                && part.file.len() <= 100
                && part.file.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_'))
                && !part.file.starts_with('.');
            if !plain {
                return Err(format!("'{file}' is no plain file name"));
            }
            if part.bytes == 0 || part.bytes > MAX_PART_BYTES {
                return Err(format!("{file} is to have {} bytes, not 1 to {MAX_PART_BYTES}", part.bytes));
            }
            if part.sha256.len() != 64 || !part.sha256.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
                return Err(format!("{file} has no SHA-256"));
            }
            sum += part.bytes;
        }
        if sum != self.bytes || sum > MAX_STAGE_BYTES {
            return Err(format!("the stage '{name}' is to have {} bytes, its parts {sum}", self.bytes));
        }
        let inside = |offset: u64, bytes: u64| offset.checked_add(bytes).is_some_and(|end| end <= self.bytes);
        if let Some(file) = self.files.iter().find(|file| !inside(file.offset, file.bytes)) {
            return Err(format!("{} lies outside of the stage '{name}'", printable(&file.name)));
        }
        let mut names = BTreeSet::new();
        for entry in &self.tensors {
            let tensor = printable(&entry.name);
            if !names.insert(&entry.name) {
                return Err(format!("it has {tensor} twice"));
            }
            let needed = entry.encoding.bytes(&entry.shape);
            if needed != Some(entry.bytes) || !inside(entry.offset, entry.bytes) {
                return Err(format!("{tensor} does not fit its place in the stage '{name}'"));
            }
        }
        Ok(())
    }
}

/// Numbers that share a scale in [`Encoding::Int4`].
pub(crate) const BLOCK: usize = 32;

impl Encoding {
    /// Bytes of a tensor; `None` if it cannot be stored so. No tensor is empty, so that none has more rows than numbers.
    #[must_use]
    pub fn bytes(self, shape: &[usize]) -> Option<u64> {
        let n = Some(n_elements(shape)).filter(|n| (1..=MAX_STAGE_BYTES).contains(n))?;
        let rows = *shape.first().unwrap_or(&1) as u64;
        let is_table = matches!(shape, [_, channels] if *channels >= 4 && channels.is_multiple_of(2));
        match self {
            Self::F16 => Some(2 * n),
            Self::Int8 => Some(n + 4 * rows),
            Self::Int4 if fits_blocks(shape) => Some(n / 2 + 2 * (n / BLOCK as u64)),
            Self::Sinusoids if is_table && n <= MAX_SINUSOIDS => Some(0),
            Self::Int4 | Self::Sinusoids => None,
        }
    }
}

/// Whether each row of a matrix is whole blocks.
pub(crate) fn fits_blocks(shape: &[usize]) -> bool {
    shape.len() >= 2 && !shape.contains(&0) && n_elements(&shape[1..]).is_multiple_of(BLOCK as u64)
}
