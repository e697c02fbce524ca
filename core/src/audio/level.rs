//! Levels of short frames in a frequency band: what `speech` and `endpoint` look at.
//!
//! Butterworth high-passes as second-order sections after Robert Bristow-Johnson's audio EQ
//! cookbook, in f64. Not for spectra: that is `log_mel`.

use super::waveform::SAMPLE_RATE_HZ;

/// A frame, 20 ms: long enough to hold two periods of a low voice.
pub(super) const FRAME_LEN: usize = SAMPLE_RATE_HZ as usize / 50; // 320 samples
/// From frame to frame, 10 ms.
pub(super) const FRAME_HOP: usize = FRAME_LEN / 2; // 160 samples
/// Quality factors of the second-order sections of a Butterworth filter of the second order.
pub(super) const BUTTERWORTH_2_Q: [f64; 1] = [std::f64::consts::FRAC_1_SQRT_2];
/// Those of the fourth order: 24 dB an octave.
pub(super) const BUTTERWORTH_4_Q: [f64; 2] = [0.541_196_100_146_197, 1.306_562_964_876_377];

/// Low edge of the band that counts: above mains hum (50 Hz: -56 dB, 100 Hz: -32 dB), below the
/// first formant of every vowel. In four poles.
pub(super) const VOICE_BAND_HZ: f64 = 250.0;

/// The mean power of each frame in dBFS; the last frames are shorter, so that every sample counts.
pub(super) fn levels_db(samples: &[f64]) -> Vec<f32> {
    (0..samples.len())
        .step_by(FRAME_HOP)
        .map(|start| {
            let frame = &samples[start..samples.len().min(start + FRAME_LEN)];
            level_db(frame.iter().map(|s| s * s).sum::<f64>() / frame.len() as f64)
        })
        .collect()
}

/// A mean power in dBFS, -120 at least.
pub(super) fn level_db(mean_power: f64) -> f32 {
    const SMALLEST_POWER: f64 = 1e-12;
    (10.0 * mean_power.max(SMALLEST_POWER).log10()) as f32
}

/// A microphone's DC offset would be a step, and so a click, for the filter.
pub(super) fn without_offset(samples: &[f32]) -> Vec<f64> {
    let mean = samples.iter().map(|s| f64::from(*s)).sum::<f64>() / samples.len().max(1) as f64;
    samples.iter().map(|s| f64::from(*s) - mean).collect()
}

/// A Butterworth high-pass over a whole recording.
pub(super) fn high_pass<const N: usize>(samples: &[f64], edge_hz: f64, sections_q: &[f64; N]) -> Vec<f64> {
    let mut filter = HighPass::new(edge_hz, sections_q);
    samples.iter().map(|sample| filter.next(*sample)).collect()
}

/// The same, sample by sample: the sections one after the other.
#[derive(Debug, Clone)]
pub(super) struct HighPass<const N: usize> {
    sections: [Section; N],
}

impl<const N: usize> HighPass<N> {
    pub(super) fn new(edge_hz: f64, sections_q: &[f64; N]) -> Self {
        Self { sections: sections_q.map(|q| Section::new(edge_hz, q)) }
    }

    pub(super) fn next(&mut self, sample: f64) -> f64 {
        self.sections.iter_mut().fold(sample, |sample, section| section.next(sample))
    }
}

/// Two poles, in transposed direct form II.
#[derive(Debug, Clone)]
struct Section {
    b0: f64,
    b1: f64,
    a1: f64,
    a2: f64,
    z1: f64,
    z2: f64,
}

impl Section {
    fn new(edge_hz: f64, q: f64) -> Self {
        let (sin, cos) = (std::f64::consts::TAU * edge_hz / f64::from(SAMPLE_RATE_HZ)).sin_cos();
        let alpha = sin / (2.0 * q);
        let a0 = 1.0 + alpha;
        let b0 = (1.0 + cos) / 2.0 / a0;
        Self { b0, b1: -2.0 * b0, a1: -2.0 * cos / a0, a2: (1.0 - alpha) / a0, z1: 0.0, z2: 0.0 }
    }

    fn next(&mut self, x: f64) -> f64 {
        let y = self.b0 * x + self.z1;
        self.z1 = self.b1 * x - self.a1 * y + self.z2;
        self.z2 = self.b0 * x - self.a2 * y;
        y
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn tone(hz: f64) -> Vec<f64> {
        let step = std::f64::consts::TAU * hz / f64::from(SAMPLE_RATE_HZ);
        (0..SAMPLE_RATE_HZ).map(|i| (step * f64::from(i)).sin()).collect()
    }

    /// The level of the middle of a tone of 0 dBFS peak behind a high-pass, relative to before.
    fn response_db<const N: usize>(hz: f64, edge_hz: f64, sections_q: &[f64; N]) -> f32 {
        let before = levels_db(&tone(hz));
        let after = levels_db(&high_pass(&tone(hz), edge_hz, sections_q));
        after[50] - before[50]
    }

    #[test]
    fn a_high_pass_is_3_db_down_at_its_edge_and_steep_below() {
        assert!((response_db(250.0, 250.0, &BUTTERWORTH_4_Q) + 3.0).abs() < 0.1);
        assert!((response_db(3000.0, 3000.0, &BUTTERWORTH_2_Q) + 3.0).abs() < 0.1);
        // 24 dB an octave: (250 / 50)⁴ is 56 dB.
        assert!((response_db(50.0, 250.0, &BUTTERWORTH_4_Q) + 56.0).abs() < 1.0);
        assert!(response_db(1000.0, 250.0, &BUTTERWORTH_4_Q).abs() < 0.1);
    }

    #[test]
    fn levels_are_in_dbfs_and_cover_every_sample() {
        assert!(levels_db(&[]).is_empty());
        assert_eq!(levels_db(&[1.0]), [0.0]);
        assert_eq!(levels_db(&[0.0; FRAME_HOP + 1]).len(), 2);
        assert_eq!(levels_db(&[0.0; 10]), [-120.0]);
        // A sine is 3 dB below its peak.
        assert!((levels_db(&tone(1000.0))[10] + 3.01).abs() < 0.01);
    }

    #[test]
    fn an_offset_is_taken_out() {
        assert!(without_offset(&[]).is_empty());
        assert!(without_offset(&[0.5; 100]).iter().all(|s| s.abs() < 1e-12));
    }
}
