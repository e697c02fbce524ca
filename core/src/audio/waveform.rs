//! 16 kHz mono samples: the one form in which sound travels through this crate.

use crate::error::{Error, Result};

/// Samples per second of every [`Waveform`].
pub const SAMPLE_RATE_HZ: u32 = 16_000;

/// Mono sound at 16 kHz, samples nominally in `-1.0..=1.0`, all of them finite, at least one.
#[derive(Debug, Clone, PartialEq)]
pub struct Waveform {
    samples: Vec<f32>,
}

impl Waveform {
    /// Takes 16 kHz mono samples.
    ///
    /// # Errors
    /// [`Error::EmptyAudio`] without samples, [`Error::InvalidSamples`] if any is NaN or infinite.
    pub fn new(samples: Vec<f32>) -> Result<Self> {
        if samples.is_empty() {
            return Err(Error::EmptyAudio);
        }
        let count = samples.iter().filter(|s| !s.is_finite()).count();
        if count > 0 {
            return Err(Error::InvalidSamples { count });
        }
        Ok(Self { samples })
    }

    /// The samples, 16 kHz mono.
    #[must_use]
    pub fn samples(&self) -> &[f32] {
        &self.samples
    }

    /// Takes the samples out.
    #[must_use]
    pub fn into_samples(self) -> Vec<f32> {
        self.samples
    }

    /// Length in seconds.
    #[must_use]
    pub fn duration_s(&self) -> f64 {
        self.samples.len() as f64 / f64::from(SAMPLE_RATE_HZ)
    }
}
