//! A training between two epochs, in memory and on disk.
//!
//! A checkpoint is a folder: what was trained by which options, the parameters, the best ones so far, and the optimiser's
//! moments. It is written beside the last one, which then makes way: a kill leaves one of the two whole.

use std::fs;
use std::path::Path;

use burn::optim::{AdamWConfig, ModuleOptimizer, OptimizerRecord};
use burn::tensor::{Bytes, Device};
use serde::{Deserialize, Serialize};

use super::evaluation::EpochPoint;
use super::fit::{FitOptions, Trainee, bytes_of};
use super::model::NamedTensor;
use crate::error::{Error, Result};
use crate::weights::safetensors::Safetensors;

/// What a checkpoint says of itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct RunState<P> {
    pub(super) options: FitOptions,
    /// What is trained: a head's widths, or a [`Trainee::Plan`] that says more.
    shape: P,
    pub(super) history: Vec<EpochPoint>,
    pub(super) best_epoch: usize,
}

/// A training, between two epochs.
pub(super) struct Run<T: Trainee> {
    pub(super) state: RunState<T::Plan>,
    pub(super) model: T::Model,
    pub(super) optimiser: ModuleOptimizer,
    pub(super) best: Vec<NamedTensor>,
}

pub(super) const STATE: &str = "state.json";
pub(super) const HEAD: &str = "head.safetensors";
pub(super) const BEST: &str = "best.safetensors";
pub(super) const OPTIMISER: &str = "optimiser.burnpack";
pub(super) const CURRENT: &str = "checkpoint";

impl<T: Trainee> Run<T> {
    pub(super) fn begin(trainee: &T, options: &FitOptions, device: &Device) -> Result<Self> {
        let model = trainee.begin(options.seed, device)?;
        let state = RunState { options: options.clone(), shape: trainee.plan(), history: Vec::new(), best_epoch: 0 };
        Ok(Self { best: trainee.tensors(&model)?, state, model, optimiser: optimiser(options) })
    }

    pub(super) fn is_done(&self, options: &FitOptions) -> bool {
        let n_epochs = self.state.history.len();
        n_epochs >= options.epochs || n_epochs >= self.state.best_epoch + options.patience.max(1)
    }

    pub(super) fn add(&mut self, trainee: &T, point: EpochPoint) -> Result<()> {
        let loss = |p: &EpochPoint| p.validation_loss.unwrap_or(f64::INFINITY);
        if self.state.history.iter().all(|p| loss(&point) < loss(p)) {
            self.state.best_epoch = point.epoch;
            self.best = trainee.tensors(&self.model)?;
        }
        self.state.history.push(point);
        Ok(())
    }

    /// Written beside the last checkpoint, which then makes way: a kill leaves one of the two whole.
    pub(super) fn save(&self, trainee: &T, folder: &Path) -> Result<()> {
        let io = |source| Error::Io { what: "writing a checkpoint".to_owned(), source };
        let (next, old, current) = (folder.join("next"), folder.join("old"), folder.join(CURRENT));
        let record = self.optimiser.to_record().into_bytes().map_err(|e| io(std::io::Error::other(e.to_string())))?;
        for folder in [&next, &old] {
            if folder.exists() {
                fs::remove_dir_all(folder).map_err(io)?;
            }
        }
        fs::create_dir_all(&next).map_err(io)?;
        fs::write(next.join(HEAD), bytes_of(&trainee.tensors(&self.model)?)).map_err(io)?;
        fs::write(next.join(BEST), bytes_of(&self.best)).map_err(io)?;
        fs::write(next.join(OPTIMISER), &record[..]).map_err(io)?;
        let state = serde_json::to_vec_pretty(&self.state).map_err(|e| io(e.into()))?;
        fs::write(next.join(STATE), state).map_err(io)?;
        if current.exists() {
            fs::rename(&current, &old).map_err(io)?;
        }
        fs::rename(&next, &current).map_err(io)?;
        if old.exists() {
            fs::remove_dir_all(&old).map_err(io)?;
        }
        Ok(())
    }

    /// `None` if there is no checkpoint, or one of other options.
    pub(super) fn resume(trainee: &T, folder: &Path, options: &FitOptions, device: &Device) -> Result<Option<Self>> {
        let Some(current) = [CURRENT, "next", "old"].iter().map(|n| folder.join(n)).find(|f| f.join(STATE).is_file())
        else {
            return Ok(None);
        };
        let read = |file: &str| {
            fs::read(current.join(file)).map_err(|source| Error::Io { what: format!("reading {file}"), source })
        };
        let state: RunState<T::Plan> = serde_json::from_slice(&read(STATE)?)
            .map_err(|e| Error::InvalidConfig { file: STATE.to_owned(), reason: e.to_string() })?;
        if state.options != *options || state.shape != trainee.plan() {
            return Ok(None);
        }
        let damaged = |reason: String| Error::DamagedWeights { file: OPTIMISER.to_owned(), reason };
        let model = trainee.read(Safetensors::from_bytes(read(HEAD)?, HEAD)?, device)?;
        let best = trainee.tensors(&trainee.read(Safetensors::from_bytes(read(BEST)?, BEST)?, device)?)?;
        let record =
            OptimizerRecord::from_bytes(Bytes::from_bytes_vec(read(OPTIMISER)?)).map_err(|e| damaged(e.to_string()))?;
        Ok(Some(Self { state, model, optimiser: optimiser(options).load_record(record), best }))
    }
}

fn optimiser(options: &FitOptions) -> ModuleOptimizer {
    AdamWConfig::new().with_weight_decay(options.weight_decay).with_epsilon(1e-8).init()
}
