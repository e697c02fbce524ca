//! Low-rank adapters (Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models", 2021) on the query and value
//! projections of encoder layers: what a head's `config.json` says of them, their names, and the encoder with them
//! added in.
//!
//! `"lora": {"rank": 8, "alpha": 16.0, "layers": [4, 5]}` in `config.json` speaks of these tensors, and of no other:
//!
//! | tensor | shape |
//! |---|---|
//! | `lora.layers.{i}.q_proj.a`, `lora.layers.{i}.v_proj.a` | `[rank, n_state]` |
//! | `lora.layers.{i}.q_proj.b`, `lora.layers.{i}.v_proj.b` | `[n_state, rank]` |
//!
//! The projection's weight becomes `W + alpha / rank · B A`. That is done here once, when a model is loaded, so that the
//! encoder's own code knows nothing of adapters. The encoder that writes the words keeps its weights.
//!
//! Not PEFT's files: those adapt whichever modules they name, and are refused ([`super::folder`]).

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::{Checkpoint, StoredData, StoredTensor, StoredType, WeightSource};
use crate::error::Result;
use crate::whisper::WhisperConfig;
use crate::whisper::config::invalid;

/// Highest rank: far above what adapters have, and it bounds the work of adding them in.
pub const MAX_RANK: usize = 128;
/// Highest `alpha`; with a rank of 1, what an adapter's product is multiplied by.
pub const MAX_ALPHA: f32 = 10_000.0;
/// What every adapter's name begins with.
pub const LORA_PREFIX: &str = "lora.";
/// The projections that are adapted.
pub const PROJECTIONS: [&str; 2] = ["q_proj", "v_proj"];

const ENCODER_PREFIX: &str = "model.encoder.";

/// `"lora"` in a head's `config.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LoraSpec {
    /// Rows of A, columns of B.
    pub rank: usize,
    /// Divided by the rank, what B A is multiplied by.
    pub alpha: f32,
    /// The encoder layers that are adapted, from 0, ascending.
    pub layers: Vec<usize>,
}

impl LoraSpec {
    /// What is wrong with it, for an encoder of `n_layer` layers of width `n_state`.
    #[must_use]
    pub fn problem(&self, n_state: usize, n_layer: usize) -> Option<String> {
        let max_rank = MAX_RANK.min(n_state);
        if !(1..=max_rank).contains(&self.rank) {
            return Some(format!("rank is {}, expected 1 to {max_rank}", self.rank));
        }
        if !(self.alpha > 0.0 && self.alpha <= MAX_ALPHA) {
            return Some(format!("alpha is {}, expected more than 0, at most {MAX_ALPHA}", self.alpha));
        }
        let ascending = self.layers.windows(2).all(|pair| pair[0] < pair[1]);
        if !ascending || self.layers.last().is_none_or(|last| *last >= n_layer) {
            return Some(format!(
                "layers must name some of the encoder's layers 0 to {}, ascending",
                n_layer.saturating_sub(1)
            ));
        }
        None
    }

    /// What B A is multiplied by.
    #[must_use]
    pub fn scale(&self) -> f32 {
        self.alpha / self.rank as f32
    }

    /// The name of a projection's A and of its B.
    #[must_use]
    pub fn names(layer: usize, projection: &str) -> [String; 2] {
        ["a", "b"].map(|factor| format!("{LORA_PREFIX}layers.{layer}.{projection}.{factor}"))
    }

    /// Every tensor of adapters on an encoder of width `n_state`.
    #[must_use]
    pub fn expected_tensors(&self, n_state: usize) -> Vec<(String, Vec<usize>)> {
        let mut tensors = Vec::with_capacity(4 * self.layers.len());
        for layer in &self.layers {
            for projection in PROJECTIONS {
                let [a, b] = Self::names(*layer, projection);
                tensors.push((a, vec![self.rank, n_state]));
                tensors.push((b, vec![n_state, self.rank]));
            }
        }
        tensors
    }
}

/// An encoder's tensors with adapters added in; what is not the encoder's is not shown.
///
/// A product is made each time that its tensor is asked for, and not kept: weights are asked for while a model is
/// loaded, and a second copy of them would outlive that.
pub struct LoraMerged {
    base: Arc<dyn WeightSource>,
    adapters: Arc<dyn WeightSource>,
    scale: f32,
    rank: usize,
    n_state: usize,
    /// The name of an adapted weight, to those of its A and B.
    adapted: BTreeMap<String, [String; 2]>,
}

impl std::fmt::Debug for LoraMerged {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LoraMerged")
            .field("base", &self.base.file())
            .field("adapters", &self.adapters.file())
            .field("rank", &self.rank)
            .finish_non_exhaustive()
    }
}

impl LoraMerged {
    /// Adds `adapters`, which hold the tensors of `spec` and no other, to the encoder in `base`.
    ///
    /// # Errors
    /// - [`crate::Error::InvalidConfig`] for a rank, an alpha or layers that cannot be;
    /// - [`crate::Error::WeightMismatch`] with every adapter that is missing, unused or of the wrong shape.
    pub fn new(
        base: Arc<dyn WeightSource>,
        adapters: Arc<dyn WeightSource>,
        spec: &LoraSpec,
        config: &WhisperConfig,
    ) -> Result<Self> {
        let n_state = config.d_model;
        if let Some(problem) = spec.problem(n_state, config.encoder_layers) {
            return Err(invalid("config.json", format!("lora: {problem}")));
        }
        Checkpoint::new(&*adapters, &spec.expected_tensors(n_state), |_| false)?;
        let adapted = spec
            .layers
            .iter()
            .flat_map(|layer| {
                PROJECTIONS.map(|projection| {
                    let weight = format!("{ENCODER_PREFIX}layers.{layer}.self_attn.{projection}.weight");
                    (weight, LoraSpec::names(*layer, projection))
                })
            })
            .collect();
        Ok(Self { base, adapters, scale: spec.scale(), rank: spec.rank, n_state, adapted })
    }

    /// `W + scale · B A`, row by row.
    fn add(&self, weight: &mut [f32], a: &[f32], b: &[f32]) {
        weight.par_chunks_mut(self.n_state).zip(b.par_chunks(self.rank)).for_each(|(row, b)| {
            for (b, a) in b.iter().zip(a.chunks(self.n_state)) {
                let factor = self.scale * b;
                row.iter_mut().zip(a).for_each(|(w, a)| *w += factor * a);
            }
        });
    }
}

impl WeightSource for LoraMerged {
    fn names(&self) -> Vec<String> {
        self.base.names().into_iter().filter(|name| name.starts_with(ENCODER_PREFIX)).collect()
    }

    fn get(&self, name: &str) -> Option<StoredTensor<'_>> {
        if !name.starts_with(ENCODER_PREFIX) {
            return None;
        }
        let stored = self.base.get(name)?;
        let Some([a, b]) = self.adapted.get(name) else { return Some(stored) };
        // Whoever loads the encoder reports such a tensor; it must not be multiplied before.
        if stored.shape != [self.n_state; 2] || matches!(stored.data, StoredData::Other { .. }) {
            return Some(stored);
        }
        let mut values = stored.to_f32();
        self.add(&mut values, &self.adapters.get(a)?.to_f32(), &self.adapters.get(b)?.to_f32());
        let mut bytes = Vec::with_capacity(4 * values.len());
        values.iter().for_each(|v| bytes.extend_from_slice(&v.to_le_bytes()));
        let data = StoredData::Float { dtype: StoredType::F32, bytes: Cow::Owned(bytes) };
        Some(StoredTensor { shape: stored.shape, data })
    }

    fn shape(&self, name: &str) -> Option<Vec<usize>> {
        if name.starts_with(ENCODER_PREFIX) { self.base.shape(name) } else { None }
    }

    fn format(&self) -> &'static str {
        self.base.format()
    }

    fn file(&self) -> &str {
        self.base.file()
    }

    fn file_of(&self, name: &str) -> &str {
        match self.adapted.get(name) {
            Some([a, _]) => self.adapters.file_of(a),
            None => self.base.file_of(name),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::error::Error;
    use crate::weights::safetensors::Safetensors;
    use crate::weights::to_safetensors;

    const QUERY: &str = "model.encoder.layers.1.self_attn.q_proj.weight";
    const VALUE: &str = "model.encoder.layers.1.self_attn.v_proj.weight";
    const KEY: &str = "model.encoder.layers.1.self_attn.k_proj.weight";

    type Named = (String, Vec<usize>, Vec<f32>);

    /// An encoder of two layers of width 4.
    fn config() -> WhisperConfig {
        let json = r#"{"d_model":4,"encoder_layers":2,"encoder_attention_heads":2,"encoder_ffn_dim":8,"decoder_layers":1,
            "decoder_attention_heads":2,"decoder_ffn_dim":8,"num_mel_bins":80,"max_source_positions":10,
            "max_target_positions":10,"vocab_size":20}"#;
        WhisperConfig::from_json(json.as_bytes()).unwrap()
    }

    fn spec() -> LoraSpec {
        LoraSpec { rank: 2, alpha: 6.0, layers: vec![1] }
    }

    fn numbers(n: usize, seed: u64) -> Vec<f32> {
        let mut rng = fastrand::Rng::with_seed(seed);
        (0..n).map(|_| rng.f32() - 0.5).collect()
    }

    fn source(tensors: &[Named], file: &str) -> Arc<dyn WeightSource> {
        let named: Vec<(&str, Vec<usize>, Vec<f32>)> =
            tensors.iter().map(|(name, shape, values)| (name.as_str(), shape.clone(), values.clone())).collect();
        Arc::new(Safetensors::from_bytes(to_safetensors(&named), file).unwrap())
    }

    fn base() -> Arc<dyn WeightSource> {
        let weight = |name: &str, seed| (name.to_owned(), vec![4, 4], numbers(16, seed));
        let of_words = weight("model.decoder.layers.1.self_attn.q_proj.weight", 4);
        source(&[weight(QUERY, 1), weight(VALUE, 2), weight(KEY, 3), of_words], "model.safetensors")
    }

    fn adapters() -> Vec<Named> {
        let expected = spec().expected_tensors(4);
        expected.into_iter().zip(10..).map(|((name, shape), seed)| (name, shape, numbers(8, seed))).collect()
    }

    fn refused(spec: &LoraSpec, adapters: &[Named]) -> Error {
        LoraMerged::new(base(), source(adapters, "adapters"), spec, &config()).unwrap_err()
    }

    #[test]
    fn the_product_is_added_to_what_is_adapted_and_to_nothing_else() {
        let (base, adapters) = (base(), adapters());
        let merged = LoraMerged::new(Arc::clone(&base), source(&adapters, "adapters"), &spec(), &config()).unwrap();
        let mut names = merged.names();
        names.sort();
        assert_eq!(names, [KEY, QUERY, VALUE], "the decoder is not shown");
        assert!(merged.get("model.decoder.layers.1.self_attn.q_proj.weight").is_none());
        assert!(merged.get(KEY).unwrap().is_same(&base.get(KEY).unwrap()));
        for (name, a, b) in [(QUERY, &adapters[0].2, &adapters[1].2), (VALUE, &adapters[2].2, &adapters[3].2)] {
            let (got, before) = (merged.get(name).unwrap(), base.get(name).unwrap().to_f32());
            assert_eq!(got.shape, [4, 4]);
            let got = got.to_f32();
            for (row, column) in (0..16).map(|at| (at / 4, at % 4)) {
                let product = b[2 * row] * a[column] + b[2 * row + 1] * a[4 + column];
                let expected = before[4 * row + column] + 3.0 * product;
                assert!((got[4 * row + column] - expected).abs() < 1e-6, "{name} {row} {column}");
                assert!((got[4 * row + column] - before[4 * row + column]).abs() > 0.0, "{name} was not adapted");
            }
        }
        assert_eq!((merged.file(), merged.file_of(KEY)), ("model.safetensors", "model.safetensors"));
        assert_eq!(merged.file_of(QUERY), "adapters");
    }

    #[test]
    fn impossible_ranks_and_layers_are_named() {
        let good = spec();
        for (bad, named) in [
            (LoraSpec { rank: 0, ..good.clone() }, "rank is 0"),
            (LoraSpec { rank: 5, ..good.clone() }, "1 to 4"),
            (LoraSpec { rank: usize::MAX, ..good.clone() }, "rank"),
            (LoraSpec { alpha: 0.0, ..good.clone() }, "alpha"),
            (LoraSpec { alpha: f32::NAN, ..good.clone() }, "alpha"),
            (LoraSpec { alpha: f32::INFINITY, ..good.clone() }, "alpha"),
            (LoraSpec { layers: Vec::new(), ..good.clone() }, "layers"),
            (LoraSpec { layers: vec![2], ..good.clone() }, "layers"),
            (LoraSpec { layers: vec![1, 1], ..good.clone() }, "layers"),
            (LoraSpec { layers: vec![1, 0], ..good.clone() }, "layers"),
        ] {
            let error = refused(&bad, &adapters());
            assert_eq!(error.code(), "invalid_config");
            assert!(error.to_string().contains(named), "{error}");
        }
        for json in [r#"{"rank":-1,"alpha":1,"layers":[1]}"#, r#"{"rank":1,"alpha":1,"layers":[1],"dropout":0.1}"#] {
            assert!(serde_json::from_str::<LoraSpec>(json).is_err(), "{json}");
        }
    }

    #[test]
    fn every_adapter_that_does_not_belong_is_named() {
        let mut wrong = adapters();
        wrong[0].0 = "lora.layers.1.k_proj.a".to_owned();
        wrong[1].1 = vec![2, 4];
        match refused(&spec(), &wrong) {
            Error::WeightMismatch { missing, unused, misshapen } => {
                assert_eq!(missing, ["lora.layers.1.q_proj.a"]);
                assert_eq!(unused, ["lora.layers.1.k_proj.a"]);
                assert_eq!(misshapen, ["lora.layers.1.q_proj.b: expected [4, 2], got [2, 4]"]);
            }
            other => panic!("{other}"),
        }
    }

    #[test]
    fn values_that_are_not_finite_are_the_adapters_damage() {
        let mut adapters = adapters();
        adapters[0].2[0] = f32::NAN;
        let merged = LoraMerged::new(base(), source(&adapters, "adapters"), &spec(), &config()).unwrap();
        let checkpoint = Checkpoint::new(&merged, &[(QUERY.to_owned(), vec![4, 4])], |_| true).unwrap();
        match checkpoint.take(QUERY).unwrap_err() {
            Error::DamagedWeights { file, .. } => assert_eq!(file, "adapters"),
            other => panic!("{other}"),
        }
    }

    /// The encoder's loader names it; here it must not panic.
    #[test]
    fn a_base_of_another_shape_is_shown_as_it_is() {
        let base = source(&[(QUERY.to_owned(), vec![2, 4], numbers(8, 1))], "model.safetensors");
        let merged = LoraMerged::new(Arc::clone(&base), source(&adapters(), "adapters"), &spec(), &config()).unwrap();
        assert!(merged.get(QUERY).unwrap().is_same(&base.get(QUERY).unwrap()));
    }
}
