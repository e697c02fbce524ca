//! A head and adapters on the encoder's last layers, fitted together, after the head was fitted alone.
//!
//! The loop, its checkpoints and its early stop are [`super::fit`]'s. What differs is what a step computes: the states
//! below the first adapted layer come from the cache, averaged, as for a head alone; what enters that layer comes from a
//! second cache at full rate ([`super::features::FeatureMaker::at_full_rate`]), passes through [`LoraLayers`], and is
//! averaged only then. The adapters' learning rate is a share of the head's.
//!
//! Deviation from what is served: a clip of more than 20 s is cut, as in [`super::fit`], and here its beginning does not
//! attend to what was cut off.
//!
//! Attention's scores are kept for the way back, a square of each clip's length: long clips go in smaller steps
//! ([`MAX_SCORES`]).

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use burn::lr_scheduler::module_lr_scheduler::{ModuleLearningRate, ModuleLrScheduler};
use burn::module::{Module, ParamGroup};
use burn::tensor::{Device, Tensor, TensorData};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::batches::{MAX_POSITIONS, Regularisation, assemble};
use super::feature_store::{FeatureKey, FeatureStore};
use super::fit::{
    FitEvent, FitOptions, Fitted, RecordAnswer, Trainee, TrainingSet, answers, bytes_of, fit_any, in_memory,
};
use super::lora::{FrozenLayers, LoraLayers, padding};
use super::model::{Batch, HeadShape, Heard, NamedTensor, TrainableHead};
use crate::error::{Error, Result};
use crate::intent::pooling::normalise_positions;
use crate::intent::reader::Alphabet;
use crate::weights::WeightSource;
use crate::weights::lora::{LORA_PREFIX, LoraSpec};
use crate::weights::renamed::Renamed;
use crate::weights::safetensors::Safetensors;

/// Numbers in one layer's attention scores: 64 MB each of the few copies that are kept for the way back.
pub const MAX_SCORES: usize = 1 << 24;

/// What adapters are made and trained with.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LoraOptions {
    /// Encoder layers that are adapted, the last ones.
    pub layers: usize,
    /// Rows of A, columns of B.
    pub rank: usize,
    /// Divided by the rank, what B A is multiplied by.
    pub alpha: f32,
    /// The adapters' learning rate, as a share of the head's.
    pub rate_share: f64,
    /// The loop. Its seed is the run's.
    pub fit: FitOptions,
}

impl LoraOptions {
    /// What is sensible after a head was trained with `head`: a quarter of its learning rate, fewer clips a step.
    #[must_use]
    pub fn after(head: &FitOptions, layers: usize, rank: usize, epochs: usize) -> Self {
        let fit = FitOptions {
            epochs,
            patience: head.patience.min(3),
            batch_size: head.batch_size.min(32),
            learning_rate: head.learning_rate / 4.0,
            warmup_epochs: 0.5,
            ..head.clone()
        };
        Self { layers, rank, alpha: 2.0 * rank as f32, rate_share: 0.5, fit }
    }

    /// Where the adapters are, on an encoder of `n_layer` layers of width `n_state`.
    ///
    /// # Errors
    /// [`Error::InvalidParameter`].
    pub fn on(&self, n_state: usize, n_layer: usize) -> Result<LoraSpec> {
        self.fit.check()?;
        let wrong = |name, allowed| Err(Error::InvalidParameter { name, allowed });
        if !(1..=n_layer).contains(&self.layers) {
            return wrong("lora", format!("0 to {n_layer}, the encoder's layers"));
        }
        if !(self.rate_share > 0.0 && self.rate_share <= 100.0) {
            return wrong("rate_share", "above 0, up to 100".to_owned());
        }
        let layers = (n_layer - self.layers..n_layer).collect();
        let spec = LoraSpec { rank: self.rank, alpha: self.alpha, layers };
        match spec.problem(n_state, n_layer) {
            Some(problem) => wrong("lora", problem),
            None => Ok(spec),
        }
    }
}

/// What enters the first adapted layer for each clip, and the layers themselves.
#[derive(Debug)]
pub struct LoraInputs {
    /// Records of one state, every position.
    store: FeatureStore,
    /// The key of a clip's averaged record, to that of its record here.
    of: HashMap<FeatureKey, FeatureKey>,
    frozen: FrozenLayers,
}

impl LoraInputs {
    /// Puts it together. `of` gives the key in `store` for the key of each clip's averaged states.
    ///
    /// # Errors
    /// [`Error::ShapeMismatch`] if the records are not of one state of the encoder's width.
    pub fn new(store: FeatureStore, of: HashMap<FeatureKey, FeatureKey>, frozen: FrozenLayers) -> Result<Self> {
        let (expected, got) = ([1, frozen.n_state()], [store.n_layers(), store.n_state()]);
        if got != expected {
            let (expected, got) = (expected.to_vec(), got.to_vec());
            return Err(Error::ShapeMismatch { tensor: "the states that enter the adapted layers", expected, got });
        }
        Ok(Self { store, of, frozen })
    }
}

/// The head that was trained alone.
#[derive(Debug, Clone, Copy)]
pub struct LoraStart<'a> {
    /// Its parameters.
    pub tensors: &'a [NamedTensor],
    /// Its widths.
    pub shape: &'a HeadShape,
    /// Layers of the encoder that it stands on.
    pub n_encoder_layers: usize,
    /// Positions that are averaged into one.
    pub position_stride: usize,
}

/// Trains a head on together with adapters. With a folder for `checkpoints`, goes on where an earlier run of the same
/// head with the same options ended. The tensors are the head's, then the adapters'.
///
/// # Errors
/// As [`super::fit::fit`]; [`Error::InvalidParameter`] for adapters that the encoder cannot have.
pub fn fit_lora(
    start: &LoraStart<'_>,
    options: &LoraOptions,
    seed: u64,
    data: &TrainingSet<'_>,
    inputs: &LoraInputs,
    checkpoints: Option<&Path>,
    on_event: &mut dyn FnMut(FitEvent),
) -> Result<Fitted> {
    let adapted = Adapted::new(start, options, data.store, inputs)?;
    fit_any(&adapted, &FitOptions { seed, ..options.fit.clone() }, data, checkpoints, on_event)
}

/// What a head and adapters as [`fit_lora`] gave them hear in records, in the records' order. An empty record, in which
/// nobody speaks, gets zeros.
///
/// # Errors
/// As [`fit_lora`].
pub fn lora_answers(
    start: &LoraStart<'_>,
    options: &LoraOptions,
    store: &FeatureStore,
    inputs: &LoraInputs,
    tensors: &[NamedTensor],
    alphabet: &Alphabet,
    items: &[(FeatureKey, usize)],
) -> Result<Vec<RecordAnswer>> {
    let adapted = Adapted::new(start, options, store, inputs)?;
    let model = adapted.read(in_memory(tensors)?, &Device::flex())?;
    answers(&adapted, &model, alphabet, options.fit.batch_size, items)
}

/// A head and adapters, on their way through the loop.
struct Adapted<'a> {
    start: LoraStart<'a>,
    spec: LoraSpec,
    rate_share: f64,
    store: &'a FeatureStore,
    inputs: &'a LoraInputs,
}

#[derive(Module, Debug)]
struct AdaptedHead {
    head: TrainableHead,
    layers: LoraLayers,
}

/// Clips of one step.
struct AdaptedBatch {
    /// With the states below the adapted layers alone.
    head: Batch,
    /// `[batch, n_ctx, n_state]`, `n_ctx` a whole number of averaged positions
    input: Tensor<3>,
    /// `[batch, 1, 1, n_ctx]`, for attention
    padding: Tensor<4>,
    /// `[batch, n_ctx, 1]`: a position's part in its average
    shares: Tensor<3>,
}

/// What a checkpoint must have been of.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct AdaptedPlan {
    head: HeadShape,
    lora: LoraSpec,
    rate_share: f64,
    position_stride: usize,
    /// BLAKE3 of the head to begin with.
    start: String,
}

impl<'a> Adapted<'a> {
    fn new(
        start: &LoraStart<'a>,
        options: &LoraOptions,
        store: &'a FeatureStore,
        inputs: &'a LoraInputs,
    ) -> Result<Self> {
        start.shape.check()?;
        let spec = options.on(start.shape.n_state, start.n_encoder_layers)?;
        if options.layers > start.shape.n_layers {
            let allowed = format!("0 to {}, the states that the head sums", start.shape.n_layers);
            return Err(Error::InvalidParameter { name: "lora", allowed });
        }
        let expected = [start.shape.n_layers, start.shape.n_state, options.layers];
        let got = [store.n_layers(), inputs.frozen.n_state(), inputs.frozen.n_layers()];
        if got != expected || start.position_stride == 0 {
            let (expected, got) = (expected.to_vec(), got.to_vec());
            return Err(Error::ShapeMismatch { tensor: "the encoder under the adapters", expected, got });
        }
        Ok(Self { start: *start, spec, rate_share: options.rate_share, store, inputs })
    }

    /// The record of a clip at full rate, and its positions.
    fn input(&self, key: FeatureKey) -> Result<(FeatureKey, usize)> {
        let averaged = self.store.n_positions(key).unwrap_or(0);
        let found = self.inputs.of.get(&key).and_then(|key| Some((*key, self.inputs.store.n_positions(*key)?)));
        let positions = found.map_or(0, |(_, n)| n.div_ceil(self.start.position_stride));
        match found {
            Some(input) if positions == averaged => Ok(input),
            _ => Err(Error::ShapeMismatch {
                tensor: "a clip's states that enter the adapted layers",
                expected: vec![averaged],
                got: vec![positions],
            }),
        }
    }
}

impl Trainee for Adapted<'_> {
    type Model = AdaptedHead;
    type Batch = AdaptedBatch;
    type Plan = AdaptedPlan;

    fn shape(&self) -> &HeadShape {
        self.start.shape
    }

    fn plan(&self) -> AdaptedPlan {
        AdaptedPlan {
            head: *self.start.shape,
            lora: self.spec.clone(),
            rate_share: self.rate_share,
            position_stride: self.start.position_stride,
            start: blake3::hash(&bytes_of(self.start.tensors)).to_string(),
        }
    }

    fn store(&self) -> &FeatureStore {
        self.store
    }

    fn begin(&self, seed: u64, device: &Device) -> Result<AdaptedHead> {
        let shape = self.start.shape;
        Ok(AdaptedHead {
            head: shape.read(&in_memory(self.start.tensors)?, device)?,
            layers: LoraLayers::init(&self.spec, shape.n_state, seed, device)?,
        })
    }

    fn read(&self, weights: Safetensors, device: &Device) -> Result<AdaptedHead> {
        let shape = self.start.shape;
        let source: Arc<dyn WeightSource> = Arc::new(weights);
        let view = |of_adapters: bool| {
            let names = source.names().into_iter().filter(|name| name.starts_with(LORA_PREFIX) == of_adapters);
            Renamed::new(Arc::clone(&source), names.map(|name| (name.clone(), name)).collect())
        };
        Ok(AdaptedHead {
            head: shape.read(&view(false), device)?,
            layers: LoraLayers::read(&self.spec, shape.n_state, &view(true), device)?,
        })
    }

    fn tensors(&self, model: &AdaptedHead) -> Result<Vec<NamedTensor>> {
        let mut tensors = model.head.tensors()?;
        tensors.extend(model.layers.tensors(&self.spec)?);
        Ok(tensors)
    }

    fn at_once(&self, n_positions: usize) -> usize {
        let n_ctx = n_positions.clamp(1, MAX_POSITIONS) * self.start.position_stride;
        MAX_SCORES / (n_ctx * n_ctx * self.inputs.frozen.n_head())
    }

    fn assemble(
        &self,
        items: &[(FeatureKey, usize)],
        regularisation: Option<(Regularisation, &mut fastrand::Rng)>,
        device: &Device,
    ) -> Result<AdaptedBatch> {
        let HeadShape { n_layers, n_state, n_classes, .. } = *self.start.shape;
        let n_below = n_layers - self.spec.layers.len();
        let head = assemble(self.store, n_below, items, n_classes, regularisation, device)?;
        let [n_clips, n_positions, _] = head.mask.dims();
        let stride = self.start.position_stride;
        let n_ctx = n_positions * stride;
        let records: Vec<(FeatureKey, usize)> = items.iter().map(|(key, _)| self.input(*key)).collect::<Result<_>>()?;
        let store = &self.inputs.store;
        let mut input = vec![0.0f32; n_clips * n_ctx * n_state];
        input.par_chunks_mut(n_ctx * n_state).zip(&records).try_for_each(|(row, (key, n))| {
            let mut state = vec![0.0f32; n * n_state];
            store.read_layer(*key, 0, &mut state)?;
            let n = state.len().min(row.len());
            row[..n].copy_from_slice(&state[..n]);
            Ok::<(), Error>(())
        })?;
        let lengths: Vec<usize> = records.iter().map(|(_, n)| (*n).min(n_ctx)).collect();
        let mut shares = vec![0.0f32; n_clips * n_ctx];
        for (row, length) in shares.chunks_mut(n_ctx).zip(&lengths) {
            // The last average may be of fewer.
            row[..*length].chunks_mut(stride).for_each(|part| part.fill(1.0 / part.len() as f32));
        }
        Ok(AdaptedBatch {
            head,
            input: Tensor::from_data(TensorData::new(input, [n_clips, n_ctx, n_state]), device),
            padding: padding(&lengths, n_ctx, device),
            shares: Tensor::from_data(TensorData::new(shares, [n_clips, n_ctx, 1]), device),
        })
    }

    fn targets(&self, batch: &AdaptedBatch) -> Tensor<2> {
        batch.head.targets.clone()
    }

    fn forward(&self, model: &AdaptedHead, batch: &AdaptedBatch) -> Heard {
        let [n_clips, n_ctx, n_state] = batch.input.dims();
        let stride = self.start.position_stride;
        let n_positions = n_ctx / stride;
        let (scale, frozen) = (self.spec.scale(), &self.inputs.frozen);
        let above = model.layers.forward(frozen, scale, batch.input.clone(), Some(&batch.padding));
        let mut states = batch.head.states.clone();
        states.extend(above.into_iter().map(|state| {
            let parts = (state * batch.shares.clone()).reshape([n_clips, n_positions, stride, n_state]);
            let averaged = parts.sum_dim(2).reshape([n_clips, n_positions, n_state]);
            normalise_positions(averaged).reshape([n_clips * n_positions, n_state])
        }));
        model.head.forward(&Batch { states, ..batch.head.clone() })
    }

    /// Attention that nobody learns from need not be kept for the way back.
    fn at_rest(&self, model: &AdaptedHead) -> AdaptedHead {
        model.valid()
    }

    fn rates(&self, model: &AdaptedHead, rate: f64) -> ModuleLearningRate {
        let adapters = ParamGroup::ids_from_module(model.layers.clone());
        ModuleLrScheduler::new(rate).with_group(adapters, rate * self.rate_share).step()
    }
}

#[cfg(test)]
mod tests;
