//! Cached encoder states as the batches that training and evaluation step through.
//!
//! Clips of like length share a batch, so that little of it is padding. What is drawn (order, copies, masks, dropout)
//! comes from a generator that the caller seeds by run and epoch: a run that was killed goes on with the same batches.

use burn::tensor::{Device, Tensor, TensorData};
use rayon::prelude::*;

use super::feature_store::{FeatureKey, FeatureStore};
use super::model::Batch;
use crate::error::Result;
use crate::kernels::layer_norm::normalise_row;

/// Batches whose clips are sorted by length together.
const SORTED_BATCHES: usize = 8;
/// The longest clip that a batch holds, in averaged positions; what is behind is not heard. 20 s at a stride of 2.
pub(super) const MAX_POSITIONS: usize = 500;

/// One clip to learn from: its record, or those of its copies, and its class.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrainingClip {
    /// The clip as it is first, then its augmented copies.
    pub keys: Vec<FeatureKey>,
    /// A label, or a rejection class behind them.
    pub class: usize,
}

/// How training differs from the plain states.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Regularisation {
    /// Probability that belongs to all other classes together.
    pub(super) label_smoothing: f32,
    /// Share of the pooled channels that are set to 0.
    pub(super) dropout: f32,
    /// Probability that a span of positions is left out.
    pub(super) p_mask: f32,
    /// Width of what dropout meets.
    pub(super) d_pooled: usize,
}

/// The records in an order for one epoch, cut into batches.
pub(super) fn order(
    store: &FeatureStore,
    mut items: Vec<(FeatureKey, usize)>,
    batch_size: usize,
    rng: &mut fastrand::Rng,
) -> Vec<Vec<(FeatureKey, usize)>> {
    rng.shuffle(&mut items);
    let length = |key: FeatureKey| store.n_positions(key).unwrap_or(0);
    let mut batches: Vec<Vec<(FeatureKey, usize)>> = items
        .chunks_mut(batch_size * SORTED_BATCHES)
        .flat_map(|pool| {
            pool.sort_by_key(|(key, _)| length(*key));
            pool.chunks(batch_size).map(<[_]>::to_vec).collect::<Vec<_>>()
        })
        .collect();
    rng.shuffle(&mut batches);
    batches
}

/// Puts the first `n_layers` states of records into a batch on `device`.
///
/// # Errors
/// [`crate::Error::ShapeMismatch`] if a record is not there.
pub(super) fn assemble(
    store: &FeatureStore,
    n_layers: usize,
    items: &[(FeatureKey, usize)],
    n_classes: usize,
    regularisation: Option<(Regularisation, &mut fastrand::Rng)>,
    device: &Device,
) -> Result<Batch> {
    let n_state = store.n_state();
    let lengths: Vec<usize> = items.iter().map(|(key, _)| store.n_positions(*key).unwrap_or(0)).collect();
    let n_positions = lengths.iter().copied().max().unwrap_or(0).clamp(1, MAX_POSITIONS);
    let width = n_positions * n_state;
    let mut states = vec![vec![0.0f32; items.len() * width]; n_layers];
    for (layer, values) in states.iter_mut().enumerate() {
        values.par_chunks_mut(width).zip(items).zip(&lengths).try_for_each(|((row, (key, _)), length)| {
            let mut state = vec![0.0f32; length * n_state];
            store.read_layer(*key, layer, &mut state)?;
            let n = state.len().min(row.len());
            row[..n].copy_from_slice(&state[..n]);
            // As `intent::pooling::normalise_positions`.
            row[..n].chunks_mut(n_state).for_each(|position| normalise_row(position, None));
            Ok::<(), crate::Error>(())
        })?;
    }
    let mut mask = vec![0.0f32; items.len() * n_positions];
    for (row, length) in mask.chunks_mut(n_positions).zip(&lengths) {
        row[..(*length).min(n_positions)].fill(1.0);
    }
    let mut dropout = None;
    let mut smoothing = 0.0;
    if let Some((regularisation, rng)) = regularisation {
        smoothing = regularisation.label_smoothing;
        for (row, length) in mask.chunks_mut(n_positions).zip(&lengths) {
            leave_out(row, (*length).min(n_positions), regularisation.p_mask, rng);
        }
        let values = dropped_out(items.len() * regularisation.d_pooled, regularisation.dropout, rng);
        let shape = [items.len(), 1, regularisation.d_pooled];
        dropout = Some(Tensor::from_data(TensorData::new(values, shape), device));
    }
    let targets = smoothed(items.iter().map(|(_, class)| *class), n_classes, smoothing);
    Ok(Batch {
        states: states
            .into_iter()
            .map(|values| Tensor::from_data(TensorData::new(values, [items.len() * n_positions, n_state]), device))
            .collect(),
        mask: Tensor::from_data(TensorData::new(mask, [items.len(), n_positions, 1]), device),
        targets: Tensor::from_data(TensorData::new(targets, [items.len(), n_classes]), device),
        dropout,
    })
}

/// `n` factors for values of which a share is left out at random: 0, or what keeps their mean.
pub(super) fn dropped_out(n: usize, share: f32, rng: &mut fastrand::Rng) -> Vec<f32> {
    let keep = 1.0 - share;
    (0..n).map(|_| if rng.f32() < keep { 1.0 / keep } else { 0.0 }).collect()
}

/// A row of `n_classes` for each class: `smoothing` belongs to all the others together.
pub(super) fn smoothed(classes: impl Iterator<Item = usize>, n_classes: usize, smoothing: f32) -> Vec<f32> {
    let other = smoothing / (n_classes - 1).max(1) as f32;
    let row = |class| (0..n_classes).map(move |at| if at == class { 1.0 - smoothing } else { other });
    classes.flat_map(row).collect()
}

/// Masks a span of up to a fifth of a clip, as if somebody had coughed.
fn leave_out(mask: &mut [f32], length: usize, p: f32, rng: &mut fastrand::Rng) {
    let longest = length / 5;
    if longest == 0 || rng.f32() >= p {
        return;
    }
    let n = rng.usize(1..=longest);
    let start = rng.usize(0..=length - n);
    mask[start..start + n].fill(0.0);
}
