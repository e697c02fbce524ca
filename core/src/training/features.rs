//! What a head is trained on: the states of the frozen encoder, for each clip as it is and in augmented copies.
//!
//! States are averaged over [`FeatureOptions::position_stride`] positions, as the head does later: a record is that
//! much smaller. Adapters on the encoder ([`super::lora_fit`]) need one state more, at full rate:
//! [`FeatureMaker::at_full_rate`]. Everything that changes a record is in its key.

use std::path::PathBuf;

use half::f16;
use half::slice::HalfFloatSliceExt;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::augment::{AugmentOptions, augment};
use super::feature_store::{FeatureKey, FeatureStore};
use super::noise::{self, NoiseKind};
use crate::audio::{DecodeLimits, decode};
use crate::error::{Error, Result};
use crate::intent::pooling::average_positions;
use crate::recognizer::CommandEncoder;
use crate::weights::Checkpoint;
use crate::weights::folder::WhisperFiles;
use crate::whisper::model::encoder_tensors;

/// Records that are computed before they are written: enough for every core, few enough to lose by a kill.
const CHUNK: usize = 64;

/// What the records are made with.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FeatureOptions {
    /// Encoder positions (20 ms each) that are averaged into one.
    pub position_stride: usize,
    /// Hidden states that are kept, the last ones; more than there are: all.
    pub n_states: usize,
    /// How augmented copies differ from the clip.
    pub augment: AugmentOptions,
    /// Of the augmentation.
    pub seed: u64,
}

/// A sound that states are made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sound {
    /// A clip on disk.
    File {
        /// Where.
        path: PathBuf,
        /// BLAKE3 of its samples.
        content: [u8; 32],
    },
    /// A sound that is no speech, made when it is needed.
    Noise {
        /// What it imitates.
        kind: NoiseKind,
        /// How long.
        n_samples: usize,
        /// Of its random numbers.
        seed: u64,
    },
}

/// One record to be made: a sound as it is (`copy` 0), or its n-th augmented copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wanted<'a> {
    /// What is heard.
    pub sound: &'a Sound,
    /// 0: as it is.
    pub copy: usize,
}

impl Sound {
    /// What tells it from every other sound.
    fn id(&self) -> Vec<u8> {
        match self {
            Self::File { content, .. } => content.to_vec(),
            Self::Noise { kind, n_samples, seed } => format!("{}/{n_samples}/{seed}", kind.name()).into_bytes(),
        }
    }

    /// Its samples, 16 kHz mono.
    ///
    /// # Errors
    /// [`Error::Io`], and what is wrong with the file.
    pub fn samples(&self) -> Result<Vec<f32>> {
        match self {
            Self::File { path, .. } => {
                let io = |source| Error::Io { what: "reading a clip".to_owned(), source };
                Ok(decode(&std::fs::read(path).map_err(io)?, &DecodeLimits::default())?.into_samples())
            }
            Self::Noise { kind, n_samples, seed } => {
                Ok(noise::make(*kind, *n_samples, &mut fastrand::Rng::with_seed(*seed)))
            }
        }
    }
}

/// What makes records: the encoder, and everything that changes what comes out.
#[derive(Debug)]
pub struct FeatureMaker<'a> {
    /// The frozen encoder.
    pub encoder: &'a CommandEncoder,
    /// Names the encoder's weights: [`encoder_id`].
    pub encoder_id: [u8; 32],
    /// Stride, augmentation, seed.
    pub options: &'a FeatureOptions,
    /// Recordings that are mixed in as noise, other people's talk above all.
    pub noises: Vec<Vec<f32>>,
    noises_id: [u8; 32],
    /// The one state that is kept, at full rate; `None`: all of them, averaged.
    only: Option<usize>,
}

impl<'a> FeatureMaker<'a> {
    /// Puts it together.
    #[must_use]
    pub fn new(
        encoder: &'a CommandEncoder,
        encoder_id: [u8; 32],
        options: &'a FeatureOptions,
        noises: Vec<Vec<f32>>,
    ) -> Self {
        let mut hasher = blake3::Hasher::new();
        for noise in &noises {
            hasher.update(&(noise.len() as u64).to_le_bytes());
            noise.iter().for_each(|v| {
                hasher.update(&v.to_le_bytes());
            });
        }
        Self { encoder, encoder_id, options, noises, noises_id: *hasher.finalize().as_bytes(), only: None }
    }

    /// Makes records of one state, what enters encoder layer `layer`, with every position: `[1, n_positions, n_state]`.
    #[must_use]
    pub fn at_full_rate(self, layer: usize) -> Self {
        Self { only: Some(layer), ..self }
    }

    /// The name of a record in the store.
    #[must_use]
    pub fn key(&self, wanted: &Wanted<'_>) -> FeatureKey {
        // What is kept: all states at this stride, or this one at full rate.
        let (kind, kept) = match self.only {
            None => ("last states", [self.options.position_stride, self.n_states()]),
            Some(layer) => ("full rate", [layer, 1]),
        };
        let (kind, kept) = (kind.as_bytes(), kept.map(usize::to_le_bytes).concat());
        let id = wanted.sound.id();
        if wanted.copy == 0 {
            return FeatureKey::new(&[kind, &self.encoder_id, &id, &kept]);
        }
        let options = serde_json::to_vec(&self.options.augment).expect("plain numbers are JSON");
        let (seed, copy) = (self.options.seed.to_le_bytes(), wanted.copy.to_le_bytes());
        FeatureKey::new(&[kind, &self.encoder_id, &id, &kept, &options, &self.noises_id, &seed, &copy])
    }

    /// Hidden states in a record that is averaged.
    #[must_use]
    pub fn n_states(&self) -> usize {
        self.options.n_states.clamp(1, self.encoder.n_layer + 1)
    }

    /// The samples of one record.
    fn samples(&self, wanted: &Wanted<'_>) -> Result<Vec<f32>> {
        let samples = wanted.sound.samples()?;
        if wanted.copy == 0 {
            return Ok(samples);
        }
        // A clip's copies depend on the clip alone, not on the order in which the work is done.
        let seed = FeatureKey::new(&[&wanted.sound.id(), &self.options.seed.to_le_bytes(), &wanted.copy.to_le_bytes()]);
        let mut rng = fastrand::Rng::with_seed(seed.as_u64());
        let noises: Vec<&[f32]> = match wanted.sound {
            // Where nobody speaks, nobody is mixed in.
            Sound::Noise { .. } => Vec::new(),
            Sound::File { .. } => self.noises.iter().map(Vec::as_slice).collect(),
        };
        Ok(augment(&samples, &self.options.augment, &noises, &mut rng).0)
    }

    /// Puts every record of `wanted` that is not there yet into the store. `progress` is told how many are done.
    ///
    /// A sound in which nobody speaks gives an empty record: a head never sees it, it is rejected before.
    ///
    /// # Errors
    /// What is wrong with a clip or says the device; what was computed before stays in the store.
    pub fn add(&self, store: &mut FeatureStore, wanted: &[Wanted<'_>], progress: &mut dyn FnMut(usize)) -> Result<()> {
        let missing: Vec<&Wanted<'_>> = wanted.iter().filter(|w| !store.contains(self.key(w))).collect();
        let mut n_done = wanted.len() - missing.len();
        progress(n_done);
        for chunk in missing.chunks(CHUNK) {
            let records: Vec<(FeatureKey, Vec<f16>)> = chunk
                .par_iter()
                .map(|wanted| {
                    let states = self.record(&self.samples(wanted)?)?;
                    Ok((self.key(wanted), states))
                })
                .collect::<Result<_>>()?;
            for (key, states) in &records {
                store.add(*key, states)?;
            }
            store.flush()?;
            n_done += chunk.len();
            progress(n_done);
        }
        store.flush()
    }

    /// `[n_states, n_positions, n_state]` in half precision, or what [`Self::at_full_rate`] says; empty if nobody
    /// speaks.
    fn record(&self, samples: &[f32]) -> Result<Vec<f16>> {
        let Some(mut states) = self.encoder.forward(samples)? else { return Ok(Vec::new()) };
        let mut stride = self.options.position_stride;
        match self.only {
            Some(layer) => (states, stride) = (vec![states.swap_remove(layer)], 1),
            None => drop(states.drain(..states.len() - self.n_states())),
        }
        let mut record = Vec::new();
        for state in states {
            // Training runs on the CPU, where nothing has to be waited for.
            let values = average_positions(state, stride).into_data().try_into_vec::<f32>();
            let values = values.map_err(|_| Error::Device { stage: "encoder" })?;
            if values.iter().any(|v| !v.is_finite()) {
                return Err(Error::NotFinite { stage: "encoder" });
            }
            let start = record.len();
            record.resize(start + values.len(), f16::ZERO);
            record[start..].convert_from_f32_slice(&values);
        }
        Ok(record)
    }
}

/// Names an encoder by the bytes of its weights.
///
/// # Errors
/// [`Error::WeightMismatch`], [`Error::DamagedWeights`].
pub fn encoder_id(files: &WhisperFiles) -> Result<[u8; 32]> {
    let tensors = encoder_tensors(&files.config);
    let checkpoint = Checkpoint::new(&*files.weights, &tensors, |_| true)?;
    let mut hasher = blake3::Hasher::new();
    for (name, _) in &tensors {
        hasher.update(name.as_bytes());
        let bytes: Vec<u8> = checkpoint.take(name)?.iter().flat_map(|v| v.to_le_bytes()).collect();
        hasher.update(&bytes);
    }
    Ok(*hasher.finalize().as_bytes())
}
