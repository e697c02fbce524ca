//! A step of the training, in parts that run side by side.

use std::sync::{Mutex, PoisonError};

use burn::module::Module;
use burn::optim::GradientsParams;
use burn::tensor::Device;
use rayon::ThreadPool;

use super::{Trainee, TrainingSet, n_right_of, n_spelled, spelled};
use crate::error::Result;
use crate::training::batches::Regularisation;
use crate::training::ctc::ctc_loss;
use crate::training::feature_store::FeatureKey;
use crate::training::model::{Heard, cross_entropy, values};

/// Clips whose gradients are computed at once. The parts of a step are shared out among the cores; their gradients are
/// summed in order, so that the number of cores changes nothing.
const CLIPS_AT_ONCE: usize = 16;

/// What the parts of a step have in common.
pub(super) struct Step<'a, T: Trainee> {
    pub(super) trainee: &'a T,
    pub(super) data: &'a TrainingSet<'a>,
    pub(super) letters_weight: f32,
    pub(super) regularisation: Regularisation,
    pub(super) device: &'a Device,
    /// The threads that the parts run on.
    pub(super) pool: &'a ThreadPool,
}

/// A part of a step, by its share in the step's loss.
pub(super) struct StepPart {
    pub(super) loss: f32,
    pub(super) n_right: usize,
    pub(super) gradients: GradientsParams,
}

impl<T: Trainee> Step<'_, T> {
    pub(super) fn parts(
        &self,
        model: &T::Model,
        items: &[(FeatureKey, usize)],
        rng: &mut fastrand::Rng,
    ) -> Result<Vec<StepPart>> {
        let (n_clips, n_spelled) = (items.len(), n_spelled(&spelled(self.data, items)));
        // Each part draws for itself, and has parameters of its own to differentiate by: their graphs share nothing.
        let work: Vec<_> = items
            .chunks(CLIPS_AT_ONCE)
            .map(|items| (items, fastrand::Rng::with_seed(rng.u64(..)), model.clone().fork(self.device)))
            .collect();
        let n_threads = self.pool.current_num_threads();
        let queues: Vec<Mutex<Vec<_>>> = (0..n_threads).map(|_| Mutex::default()).collect();
        for (at, part) in work.into_iter().enumerate() {
            queues[at % n_threads].lock().unwrap_or_else(PoisonError::into_inner).push((at, part));
        }
        // Each thread has a queue of its own: one that waits for a product must not take up another part.
        let done = self.pool.broadcast(|thread| {
            let queue = std::mem::take(&mut *queues[thread.index()].lock().unwrap_or_else(PoisonError::into_inner));
            let part = |(at, (items, rng, model))| (at, self.part(&model, items, rng, n_clips, n_spelled));
            queue.into_iter().map(part).collect::<Vec<_>>()
        });
        let mut done: Vec<(usize, Result<StepPart>)> = done.into_iter().flatten().collect();
        done.sort_by_key(|(at, _)| *at);
        done.into_iter().map(|(_, part)| part).collect()
    }

    /// `n_clips` and `n_spelled` are of the whole step.
    fn part(
        &self,
        model: &T::Model,
        items: &[(FeatureKey, usize)],
        mut rng: fastrand::Rng,
        n_clips: usize,
        n_spelled_in_step: usize,
    ) -> Result<StepPart> {
        let batch = self.trainee.assemble(items, Some((self.regularisation, &mut rng)), self.device)?;
        let Heard { logits, letters } = self.trainee.forward(model, &batch);
        let share = items.len() as f32 / n_clips as f32;
        let mut to_differentiate = cross_entropy(logits.clone(), self.trainee.targets(&batch)) * share;
        let mut loss = values(to_differentiate.clone())?[0];
        if let Some(scores) = letters {
            let clips = spelled(self.data, items);
            let share = self.letters_weight * n_spelled(&clips) as f32 / n_spelled_in_step.max(1) as f32;
            let (of_letters, surrogate) = ctc_loss(scores, &clips, self.device)?;
            to_differentiate = to_differentiate + surrogate * share;
            loss += share * of_letters;
        }
        let n_right = n_right_of(&values(logits)?, items, self.trainee.shape().n_classes);
        let gradients = GradientsParams::from_grads(to_differentiate.backward(), model);
        Ok(StepPart { loss, n_right, gradients })
    }
}
