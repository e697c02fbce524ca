//! The training loop: AdamW (Loshchilov and Hutter, "Decoupled Weight Decay Regularization", 2019), a warm-up and a
//! cosine, the best epoch by the loss on held-out clips, and a checkpoint after each epoch from which a killed run goes
//! on to the same result.
//!
//! The loop knows what it trains as a `Trainee`: a head alone ([`fit`]), or a head with adapters on the encoder
//! ([`super::lora_fit`]).

mod step;

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use burn::lr_scheduler::module_lr_scheduler::ModuleLearningRate;
use burn::module::Module;
use burn::optim::GradientsAccumulator;
use burn::tensor::{Device, Tensor};
use rayon::prelude::*;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::batches::{MAX_POSITIONS, Regularisation, TrainingClip, assemble, order};
use super::calibrate::negative_log_likelihood;
use super::checkpoint::Run;
use super::ctc::{Spelled, ctc_loss};
use super::evaluation::EpochPoint;
use super::feature_store::{FeatureKey, FeatureStore};
use super::model::{Batch, HeadShape, Heard, NamedTensor, TrainableHead, values};
use crate::error::{Error, Result};
use crate::intent::reader::Alphabet;
use crate::weights::safetensors::Safetensors;
use crate::weights::to_safetensors;
use step::Step;

/// The learning rate ends at this share of its height.
const LAST_RATE: f64 = 0.01;

/// What a run is made with.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FitOptions {
    /// Of the first weights, the order of clips, copies, masks and dropout.
    pub seed: u64,
    /// Most epochs.
    pub epochs: usize,
    /// Ends after so many epochs without a better one.
    pub patience: usize,
    /// Clips of one step.
    pub batch_size: usize,
    /// At its height.
    pub learning_rate: f64,
    /// Epochs in which the rate rises.
    pub warmup_epochs: f64,
    /// AdamW's.
    pub weight_decay: f32,
    /// Probability that belongs to all other classes together.
    pub label_smoothing: f32,
    /// Share of the pooled channels that are set to 0.
    pub dropout: f32,
    /// Probability that a span of a clip is left out.
    pub p_mask: f32,
    /// What a letter's loss counts beside a clip's. It means nothing to a head that writes no letters.
    pub letters_weight: f32,
}

impl Default for FitOptions {
    fn default() -> Self {
        Self {
            seed: 1,
            epochs: 40,
            patience: 8,
            batch_size: 128,
            learning_rate: 2e-3,
            warmup_epochs: 1.0,
            weight_decay: 0.02,
            label_smoothing: 0.05,
            dropout: 0.3,
            p_mask: 0.3,
            letters_weight: 1.0,
        }
    }
}

impl FitOptions {
    /// # Errors
    /// [`Error::InvalidParameter`], naming the option.
    pub fn check(&self) -> Result<()> {
        let share = |v: f32| (0.0..1.0).contains(&v);
        let wrong = |name, allowed: &str| Err(Error::InvalidParameter { name, allowed: allowed.to_owned() });
        match self {
            _ if !(1..=10_000).contains(&self.epochs) => wrong("epochs", "1 to 10000"),
            _ if !(1..=4096).contains(&self.batch_size) => wrong("batch_size", "1 to 4096"),
            _ if !(self.learning_rate > 0.0 && self.learning_rate <= 1.0) => wrong("learning_rate", "above 0, up to 1"),
            _ if !(0.0..=1.0).contains(&self.weight_decay) => wrong("weight_decay", "0 to 1"),
            _ if !share(self.label_smoothing) => wrong("label_smoothing", "0 up to, but not, 1"),
            _ if !share(self.dropout) => wrong("dropout", "0 up to, but not, 1"),
            _ if !(0.0..=1.0).contains(&self.p_mask) => wrong("p_mask", "0 to 1"),
            _ if !(0.0..=100.0).contains(&self.letters_weight) => wrong("letters_weight", "0 to 100"),
            _ if !(self.warmup_epochs >= 0.0 && self.warmup_epochs.is_finite()) => wrong("warmup_epochs", "0 or more"),
            _ => Ok(()),
        }
    }
}

/// What to learn from.
#[derive(Debug)]
pub struct TrainingSet<'a> {
    /// Where the states are.
    pub store: &'a FeatureStore,
    /// Learned from.
    pub train: Vec<TrainingClip>,
    /// Decides when to stop.
    pub validation: Vec<TrainingClip>,
    /// The classes of the letters that are said in a record, where that is known.
    pub letters: &'a HashMap<FeatureKey, Vec<usize>>,
}

/// How far a run is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum FitEvent {
    /// A run that was cut off goes on behind this epoch.
    Resumed {
        /// The last epoch that is done.
        epoch: usize,
    },
    /// A step is done.
    Step {
        /// From 1.
        epoch: usize,
        /// Steps of this epoch that are done.
        step: usize,
        /// Steps of an epoch.
        n_steps: usize,
        /// Of this step.
        loss: f32,
    },
    /// An epoch is done.
    Epoch(EpochPoint),
    /// A step of the reader's training, which follows ([`super::read_fit`]).
    Reading {
        /// Steps that are done.
        step: usize,
        /// Of so many.
        n_steps: usize,
        /// Of this step.
        loss: f32,
    },
}

/// A trained head.
#[derive(Debug, Clone)]
pub struct Fitted {
    /// The best epoch's parameters.
    pub tensors: Vec<NamedTensor>,
    /// Every epoch.
    pub history: Vec<EpochPoint>,
    /// The best one, from 1.
    pub best_epoch: usize,
}

/// What the loop trains: its parameters, and what they make of clips. The loop itself knows clips by their keys.
pub(super) trait Trainee: Sync {
    /// The parameters.
    type Model: Module;
    /// Clips of one step.
    type Batch;
    /// What a checkpoint must have been of, beside the options, to be gone on from.
    type Plan: Clone + PartialEq + Serialize + DeserializeOwned;

    /// The head's widths.
    fn shape(&self) -> &HeadShape;
    /// What tells it from another training.
    fn plan(&self) -> Self::Plan;
    /// Where the averaged states are; their lengths order the clips.
    fn store(&self) -> &FeatureStore;
    /// The first parameters.
    fn begin(&self, seed: u64, device: &Device) -> Result<Self::Model>;
    /// Parameters as [`Trainee::tensors`] gave them.
    fn read(&self, weights: Safetensors, device: &Device) -> Result<Self::Model>;
    /// All parameters under their public names.
    fn tensors(&self, model: &Self::Model) -> Result<Vec<NamedTensor>>;
    /// How many clips of `n_positions` fit into one step.
    fn at_once(&self, _n_positions: usize) -> usize {
        usize::MAX
    }
    /// Puts records into a batch.
    fn assemble(
        &self,
        items: &[(FeatureKey, usize)],
        regularisation: Option<(Regularisation, &mut fastrand::Rng)>,
        device: &Device,
    ) -> Result<Self::Batch>;
    /// `[batch, n_classes]`, each row sums to 1.
    fn targets(&self, batch: &Self::Batch) -> Tensor<2>;
    /// What is heard in a batch.
    fn forward(&self, model: &Self::Model, batch: &Self::Batch) -> Heard;
    /// The parameters for answers that are not learned from.
    fn at_rest(&self, model: &Self::Model) -> Self::Model {
        model.clone()
    }
    /// The learning rate of each parameter.
    fn rates(&self, _model: &Self::Model, rate: f64) -> ModuleLearningRate {
        rate.into()
    }
}

/// A head on the frozen encoder's states.
struct HeadAlone<'a> {
    shape: &'a HeadShape,
    store: &'a FeatureStore,
}

impl Trainee for HeadAlone<'_> {
    type Model = TrainableHead;
    type Batch = Batch;
    type Plan = HeadShape;

    fn shape(&self) -> &HeadShape {
        self.shape
    }

    fn plan(&self) -> HeadShape {
        *self.shape
    }

    fn store(&self) -> &FeatureStore {
        self.store
    }

    fn begin(&self, seed: u64, device: &Device) -> Result<TrainableHead> {
        self.shape.init(seed, device)
    }

    fn read(&self, weights: Safetensors, device: &Device) -> Result<TrainableHead> {
        self.shape.read(&weights, device)
    }

    fn tensors(&self, model: &TrainableHead) -> Result<Vec<NamedTensor>> {
        model.tensors()
    }

    fn assemble(
        &self,
        items: &[(FeatureKey, usize)],
        regularisation: Option<(Regularisation, &mut fastrand::Rng)>,
        device: &Device,
    ) -> Result<Batch> {
        assemble(self.store, self.store.n_layers(), items, self.shape.n_classes, regularisation, device)
    }

    fn targets(&self, batch: &Batch) -> Tensor<2> {
        batch.targets.clone()
    }

    fn forward(&self, model: &TrainableHead, batch: &Batch) -> Heard {
        model.forward(batch)
    }
}

/// Trains a head of `shape`. With a folder for `checkpoints`, goes on where an earlier run with the same options ended.
///
/// # Errors
/// [`Error::InvalidParameter`]; [`Error::NotFinite`] if the loss is no number any more; [`Error::Io`] and
/// [`Error::DamagedWeights`] of a checkpoint.
pub fn fit(
    shape: &HeadShape,
    options: &FitOptions,
    data: &TrainingSet<'_>,
    checkpoints: Option<&Path>,
    on_event: &mut dyn FnMut(FitEvent),
) -> Result<Fitted> {
    options.check()?;
    shape.check()?;
    fit_any(&HeadAlone { shape, store: data.store }, options, data, checkpoints, on_event)
}

/// The loop; options and widths are checked. What it needs of `data.store` it asks `trainee` for.
pub(super) fn fit_any<T: Trainee>(
    trainee: &T,
    options: &FitOptions,
    data: &TrainingSet<'_>,
    checkpoints: Option<&Path>,
    on_event: &mut dyn FnMut(FitEvent),
) -> Result<Fitted> {
    let (device, shape) = (Device::flex().autodiff(), trainee.shape());
    let heard = |clips: &[TrainingClip]| -> Vec<TrainingClip> {
        let heard = |key: &FeatureKey| data.store.n_positions(*key).is_some_and(|n| n > 0);
        clips
            .iter()
            .map(|clip| TrainingClip { keys: clip.keys.iter().copied().filter(heard).collect(), class: clip.class })
            .filter(|clip| !clip.keys.is_empty() && clip.class < shape.n_classes)
            .collect()
    };
    let (train, validation) = (heard(&data.train), heard(&data.validation));
    if train.is_empty() || validation.is_empty() {
        return Err(Error::InvalidParameter {
            name: "data",
            allowed: "give clips to train on and clips to stop by; nobody speaks in those that there are".to_owned(),
        });
    }
    let validation: Vec<(FeatureKey, usize)> =
        validation.iter().flat_map(|clip| clip.keys.iter().map(|key| (*key, clip.class))).collect();
    let mut run = match checkpoints.map(|folder| Run::resume(trainee, folder, options, &device)).transpose()?.flatten()
    {
        Some(run) => {
            on_event(FitEvent::Resumed { epoch: run.state.history.len() });
            run
        }
        None => Run::begin(trainee, options, &device)?,
    };
    let regularisation = Regularisation {
        label_smoothing: options.label_smoothing,
        dropout: options.dropout,
        p_mask: options.p_mask,
        d_pooled: 2 * shape.d_projector,
    };
    let pool = threads()?;
    while !run.is_done(options) {
        let epoch = run.state.history.len() + 1;
        let mut rng = fastrand::Rng::with_seed(options.seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ epoch as u64);
        let items = train.iter().map(|clip| (clip.keys[rng.usize(..clip.keys.len())], clip.class)).collect();
        let batches: Vec<Vec<(FeatureKey, usize)>> = order(data.store, items, options.batch_size, &mut rng)
            .iter()
            .flat_map(|batch| batch.chunks(at_once(trainee, batch)).map(<[_]>::to_vec))
            .collect();
        let (mut loss_sum, mut n_right, n_steps) = (0.0, 0, batches.len());
        for (step, items) in batches.iter().enumerate() {
            let step_of = Step {
                trainee,
                data,
                letters_weight: options.letters_weight,
                regularisation,
                device: &device,
                pool: &pool,
            };
            let parts = step_of.parts(&run.model, items, &mut rng)?;
            let value: f32 = parts.iter().map(|part| part.loss).sum();
            if !value.is_finite() {
                return Err(Error::NotFinite { stage: "training loss; try a smaller learning rate" });
            }
            loss_sum += f64::from(value) * items.len() as f64;
            n_right += parts.iter().map(|part| part.n_right).sum::<usize>();
            let mut gradients = GradientsAccumulator::new();
            parts.into_iter().for_each(|part| gradients.accumulate(&run.model, part.gradients));
            let done = (epoch - 1) as f64 + (step as f64 + 0.5) / n_steps as f64;
            let rates = trainee.rates(&run.model, rate(options, done));
            run.model = run.optimiser.step(rates, run.model.clone(), gradients.grads());
            on_event(FitEvent::Step { epoch, step: step + 1, n_steps, loss: value });
        }
        let n_train = train.len() as f64;
        let (validation_loss, validation_accuracy) = held_out(trainee, &run.model, options, data, &validation)?;
        let point = EpochPoint {
            epoch,
            train_loss: six_digits(loss_sum / n_train),
            train_accuracy: six_digits(n_right as f64 / n_train),
            validation_loss: Some(six_digits(validation_loss)),
            validation_accuracy: Some(six_digits(validation_accuracy)),
        };
        run.add(trainee, point)?;
        if let Some(folder) = checkpoints {
            run.save(trainee, folder)?;
        }
        on_event(FitEvent::Epoch(point));
    }
    Ok(Fitted { tensors: run.best, best_epoch: run.state.best_epoch, history: run.state.history })
}

/// Threads for the parts of every step, as many as rayon's own pool has. They stay: the memory that a thread frees is its
/// own to use again.
fn threads() -> Result<rayon::ThreadPool> {
    rayon::ThreadPoolBuilder::new()
        .num_threads(rayon::current_num_threads())
        .build()
        .map_err(|error| Error::Io { what: "starting threads".to_owned(), source: std::io::Error::other(error) })
}

/// Clips of which it is known what is said.
fn n_spelled(clips: &[Spelled<'_>]) -> usize {
    clips.iter().filter(|clip| clip.letters.is_some()).count()
}

/// As it will be read again from a checkpoint: JSON's shortest form of any f64 is not always read back to the last bit.
fn six_digits(value: f64) -> f64 {
    (value * 1e6).round() / 1e6
}

/// What is said in the clips of a step.
fn spelled<'a>(data: &'a TrainingSet<'_>, items: &[(FeatureKey, usize)]) -> Vec<Spelled<'a>> {
    let clip = |(key, _): &(FeatureKey, usize)| Spelled {
        letters: data.letters.get(key).map(Vec::as_slice),
        n_positions: data.store.n_positions(*key).unwrap_or(0).min(MAX_POSITIONS),
    };
    items.iter().map(clip).collect()
}

/// How many of these clips fit into one step.
fn at_once<T: Trainee>(trainee: &T, items: &[(FeatureKey, usize)]) -> usize {
    let longest = items.iter().filter_map(|(key, _)| trainee.store().n_positions(*key)).max().unwrap_or(0);
    trainee.at_once(longest).max(1)
}

/// The learning rate after `done` epochs.
fn rate(options: &FitOptions, done: f64) -> f64 {
    if done < options.warmup_epochs {
        return options.learning_rate * done / options.warmup_epochs;
    }
    let rest = (options.epochs as f64 - options.warmup_epochs).max(1e-9);
    let share = ((done - options.warmup_epochs) / rest).min(1.0);
    options.learning_rate * cosine(share)
}

/// What is left of a learning rate after a share of the way: from 1 along a cosine to [`LAST_RATE`].
pub(super) fn cosine(share: f64) -> f64 {
    LAST_RATE + (1.0 - LAST_RATE) * (1.0 + (std::f64::consts::PI * share).cos()) / 2.0
}

fn n_right_of(logits: &[f32], items: &[(FeatureKey, usize)], n_classes: usize) -> usize {
    logits.chunks(n_classes).zip(items).filter(|(row, (_, class))| best_class(row) == *class).count()
}

fn best_class(row: &[f32]) -> usize {
    row.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1)).map_or(0, |(class, _)| class)
}

/// Loss and accuracy on clips that are not learned from.
fn held_out<T: Trainee>(
    trainee: &T,
    model: &T::Model,
    options: &FitOptions,
    data: &TrainingSet<'_>,
    items: &[(FeatureKey, usize)],
) -> Result<(f64, f64)> {
    let n_classes = trainee.shape().n_classes;
    // Sums over a batch: of the loss, of right answers, of the letters' loss, of clips that have one.
    let of_batch = |placed: &[Placed], heard: Heard| {
        let (mut loss, mut n_right, mut of_letters) = (0.0, 0, (0.0, 0.0));
        for (row, (_, (_, class))) in values(heard.logits)?.chunks(n_classes).zip(placed) {
            loss += negative_log_likelihood(row, *class, 1.0);
            n_right += usize::from(best_class(row) == *class);
        }
        if let Some(scores) = heard.letters {
            let items: Vec<(FeatureKey, usize)> = placed.iter().map(|(_, item)| *item).collect();
            let clips = spelled(data, &items);
            let n = n_spelled(&clips) as f64;
            of_letters = (n * f64::from(ctc_loss(scores, &clips, &Device::flex())?.0), n);
        }
        Ok((loss, n_right, of_letters))
    };
    let (mut loss, mut n_right, mut letters_loss, mut n_with_letters) = (0.0, 0, 0.0, 0.0);
    for (of_batch, right, of_letters) in of_each_batch(trainee, model, options.batch_size, items, &of_batch)? {
        (loss, n_right) = (loss + of_batch, n_right + right);
        (letters_loss, n_with_letters) = (letters_loss + of_letters.0, n_with_letters + of_letters.1);
    }
    let n = items.len().max(1) as f64;
    let of_letters = f64::from(options.letters_weight) * letters_loss / f64::max(n_with_letters, 1.0);
    Ok((loss / n + of_letters, n_right as f64 / n))
}

/// What is heard in one record.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct RecordAnswer {
    /// `[n_classes]`, of the sound alone
    pub logits: Vec<f32>,
    /// What it spells; empty from a head that writes no letters.
    pub letters: String,
}

/// What a head hears in records, in their order. An empty record, in which nobody speaks, gets zeros.
///
/// # Errors
/// As [`fit`].
pub fn answers_of(
    head: &TrainableHead,
    shape: &HeadShape,
    alphabet: &Alphabet,
    batch_size: usize,
    store: &FeatureStore,
    items: &[(FeatureKey, usize)],
) -> Result<Vec<RecordAnswer>> {
    answers(&HeadAlone { shape, store }, head, alphabet, batch_size, items)
}

/// As [`answers_of`], of whatever is trained.
pub(super) fn answers<T: Trainee>(
    trainee: &T,
    model: &T::Model,
    alphabet: &Alphabet,
    batch_size: usize,
    items: &[(FeatureKey, usize)],
) -> Result<Vec<RecordAnswer>> {
    let (store, n_classes) = (trainee.store(), trainee.shape().n_classes);
    let of_batch = |placed: &[Placed], heard: Heard| {
        let rows = values(heard.logits)?;
        let letters = match heard.letters {
            None => vec![String::new(); placed.len()],
            Some(scores) => {
                let [_, n_positions, n_letters] = scores.dims();
                let spell = |((_, (key, _)), scores): (&Placed, &[f32])| {
                    let n = store.n_positions(*key).unwrap_or(0).min(n_positions);
                    alphabet.spell(&scores[..n * n_letters])
                };
                placed.iter().zip(values(scores)?.chunks(n_positions * n_letters)).map(spell).collect()
            }
        };
        let answer = |((at, _), (row, letters)): (&Placed, (&[f32], String))| {
            (*at, RecordAnswer { logits: row.to_vec(), letters })
        };
        Ok(placed.iter().zip(rows.chunks(n_classes).zip(letters)).map(answer).collect::<Vec<_>>())
    };
    let nobody = RecordAnswer { logits: vec![0.0; n_classes], letters: String::new() };
    let mut answers = vec![nobody; items.len()];
    for (at, answer) in of_each_batch(trainee, model, batch_size, items, &of_batch)?.into_iter().flatten() {
        answers[at] = answer;
    }
    Ok(answers)
}

/// A record of a step, with its place among all.
type Placed = (usize, (FeatureKey, usize));

/// Puts records through a model, those of like length together, and takes what `of_batch` makes of each batch, in order;
/// empty records are left out. Batches go side by side.
fn of_each_batch<T: Trainee, R: Send>(
    trainee: &T,
    model: &T::Model,
    batch_size: usize,
    items: &[(FeatureKey, usize)],
    of_batch: &(dyn Fn(&[Placed], Heard) -> Result<R> + Sync),
) -> Result<Vec<R>> {
    let store = trainee.store();
    let model = trainee.at_rest(model);
    let mut sorted: Vec<Placed> = items.iter().copied().enumerate().collect();
    sorted.retain(|(_, (key, _))| store.n_positions(*key).is_some_and(|n| n > 0));
    sorted.sort_by_key(|(_, (key, _))| store.n_positions(*key));
    let records = |placed: &[Placed]| placed.iter().map(|(_, item)| *item).collect::<Vec<_>>();
    let batches: Vec<&[Placed]> =
        sorted.chunks(batch_size.max(1)).flat_map(|chunk| chunk.chunks(at_once(trainee, &records(chunk)))).collect();
    let answer = |model: &mut T::Model, placed: &&[Placed]| {
        of_batch(placed, trainee.forward(model, &trainee.assemble(&records(placed), None, &Device::flex())?))
    };
    batches.par_iter().map_with(model, answer).collect()
}

/// Parameters as a weight file that is nowhere on disk.
///
/// # Errors
/// [`Error::DamagedWeights`] if they contradict themselves.
pub(super) fn in_memory(tensors: &[NamedTensor]) -> Result<Safetensors> {
    Safetensors::from_bytes(bytes_of(tensors), "model.safetensors")
}

pub(super) fn bytes_of(tensors: &[NamedTensor]) -> Vec<u8> {
    let named: Vec<(&str, Vec<usize>, Vec<f32>)> =
        tensors.iter().map(|(name, shape, values)| (name.as_str(), shape.clone(), values.clone())).collect();
    to_safetensors(&named)
}

/// A run's folder of checkpoints.
#[must_use]
pub fn checkpoint_folder(run: &Path) -> PathBuf {
    run.join("checkpoints")
}

#[cfg(test)]
mod tests;
