//! Whisper's features: the log-mel spectrogram.
//!
//! Follows openai/whisper `audio.py` (`log_mel_spectrogram`) and transformers'
//! `WhisperFeatureExtractor`: frames of 400 samples every 160, centred, with reflected edges; a
//! periodic Hann window; the power spectrum; the last frame dropped; 80 or 128 mel energies;
//! `log10(max(x, 1e-10))`; nothing more than 8 below the loudest value; `(x + 4) / 4`. Golden
//! vectors made by the reference hold it to 1e-4.
//!
//! Deviations: frames that see only the zero padding are filled in without an FFT (most of a full
//! window is padding after a short command); the window and the filters are computed in f64.
//!
//! Not for long audio: the reference normalises each 30 s window by its own loudest value, so cut
//! first, then extract each window.

use std::sync::Arc;

use rayon::prelude::*;
use realfft::num_complex::Complex;
use realfft::{RealFftPlanner, RealToComplex};

use super::mel::{MelFilterBank, N_BINS};
use super::waveform::SAMPLE_RATE_HZ;
use crate::error::{Error, Result};

/// Samples that one frame sees: 25 ms.
pub const N_FFT: usize = 400;
/// Samples from one frame to the next: 10 ms.
pub const HOP_LENGTH: usize = 160;
/// The length of a full window in seconds.
pub const CHUNK_LENGTH_S: usize = 30;
/// Samples in a full window.
pub const N_SAMPLES: usize = CHUNK_LENGTH_S * SAMPLE_RATE_HZ as usize; // 480000 samples in a 30-second chunk
/// Mel frames in a full window, before the encoder's convolutions halve them.
pub const N_FRAMES: usize = N_SAMPLES / HOP_LENGTH; // 3000 frames

/// A centred frame reaches this far to either side of its middle.
const HALF_FRAME: usize = N_FFT / 2; // 200 samples
/// Energies below this count as this.
const SMALLEST_ENERGY: f32 = 1e-10;
/// In log10 of power: 80 dB below the loudest value of the window is as quiet as it gets.
const DYNAMIC_RANGE_LOG10: f32 = 8.0;
/// From this many frames on, threads pay for themselves (one frame takes about 4 µs).
const PARALLEL_FROM_FRAMES: usize = 512;
/// Frames that one thread takes at a time.
const BLOCK_FRAMES: usize = 128;

/// Features of one window.
#[derive(Debug, Clone, PartialEq)]
pub struct LogMel {
    /// Rows: 80 or 128.
    pub n_mels: usize,
    /// Columns: one for every 10 ms.
    pub n_frames: usize,
    /// `[n_mels, n_frames]`, row-major; values roughly in `-1.5..=1.5`.
    pub data: Vec<f32>,
}

/// Makes [`LogMel`]s; keep one, its tables are made once.
#[derive(Clone)]
pub struct LogMelExtractor {
    filters: MelFilterBank,
    window: Vec<f32>,
    fft: Arc<dyn RealToComplex<f32>>,
}

impl LogMelExtractor {
    /// An extractor of `n_mels` rows: 80 for Whisper up to large-v2, 128 from large-v3 on.
    #[must_use]
    pub fn new(n_mels: usize) -> Self {
        let window =
            (0..N_FFT).map(|i| (0.5 - 0.5 * (std::f64::consts::TAU * i as f64 / N_FFT as f64).cos()) as f32).collect();
        Self {
            filters: MelFilterBank::slaney(n_mels),
            window,
            fft: RealFftPlanner::<f32>::new().plan_fft_forward(N_FFT),
        }
    }

    /// Rows of what [`extract_padded`](Self::extract_padded) returns.
    #[must_use]
    pub fn n_mels(&self) -> usize {
        self.filters.n_mels()
    }

    /// The features of `samples` (16 kHz), zero-padded or cut to `n_samples`: [`N_SAMPLES`] for a
    /// full window, or any other multiple of [`HOP_LENGTH`] for a window that fits the clip.
    ///
    /// # Shapes
    /// Returns `[n_mels, n_samples / HOP_LENGTH]`.
    ///
    /// # Errors
    /// [`Error::InvalidParameter`] if `n_samples` is zero or no multiple of [`HOP_LENGTH`].
    pub fn extract_padded(&self, samples: &[f32], n_samples: usize) -> Result<LogMel> {
        if n_samples == 0 || !n_samples.is_multiple_of(HOP_LENGTH) {
            return Err(Error::InvalidParameter {
                name: "n_samples",
                allowed: format!("a multiple of {HOP_LENGTH}, at least {HOP_LENGTH}; got {n_samples}"),
            });
        }
        let samples = &samples[..samples.len().min(n_samples)];
        let n_frames = n_samples / HOP_LENGTH;
        let n_mels = self.n_mels();

        // Frame t sees the samples from 160 t - 200 on. Once that is past the end of the sound, it
        // sees zeros only: also what is reflected at the window's end lies behind the frame's start.
        let n_sounding = (samples.len() + HALF_FRAME).div_ceil(HOP_LENGTH).min(n_frames);
        let by_frame = self.log_energies(samples, n_samples, n_sounding); // [n_sounding, n_mels]

        let silence = SMALLEST_ENERGY.log10(); // -10, by the same function as every other value
        let mut loudest = if n_sounding < n_frames { silence } else { f32::NEG_INFINITY };
        loudest = by_frame.iter().copied().fold(loudest, f32::max);
        let floor = loudest - DYNAMIC_RANGE_LOG10;
        let scale = |log_energy: f32| (log_energy.max(floor) + 4.0) / 4.0;

        let mut data = vec![scale(silence); n_mels * n_frames];
        for (mel, row) in data.chunks_exact_mut(n_frames).enumerate() {
            for (frame, value) in row[..n_sounding].iter_mut().enumerate() {
                *value = scale(by_frame[frame * n_mels + mel]);
            }
        }
        Ok(LogMel { n_mels, n_frames, data })
    }

    /// log10 of the mel energies of the first `n_frames` frames, `[n_frames, n_mels]`.
    fn log_energies(&self, samples: &[f32], n_samples: usize, n_frames: usize) -> Vec<f32> {
        let n_mels = self.n_mels();
        let mut by_frame = vec![0.0; n_frames * n_mels];
        if n_mels == 0 {
            return by_frame;
        }
        let fill = |(block, rows): (usize, &mut [f32])| {
            let mut scratch = Scratch::new(&*self.fft);
            for (i, row) in rows.chunks_exact_mut(n_mels).enumerate() {
                self.log_energies_of_frame(samples, n_samples, block * BLOCK_FRAMES + i, &mut scratch, row);
            }
        };
        if n_frames >= PARALLEL_FROM_FRAMES {
            by_frame.par_chunks_mut(BLOCK_FRAMES * n_mels).enumerate().for_each(fill);
        } else {
            by_frame.chunks_mut(BLOCK_FRAMES * n_mels).enumerate().for_each(fill);
        }
        by_frame
    }

    fn log_energies_of_frame(
        &self,
        samples: &[f32],
        n_samples: usize,
        frame: usize,
        scratch: &mut Scratch,
        energies: &mut [f32],
    ) {
        match (frame * HOP_LENGTH).checked_sub(HALF_FRAME) {
            Some(start) if start + N_FFT <= samples.len() => {
                let seen = &samples[start..start + N_FFT];
                for ((slot, sample), weight) in scratch.frame.iter_mut().zip(seen).zip(&self.window) {
                    *slot = sample * weight;
                }
            }
            _ => {
                let first = (frame * HOP_LENGTH) as isize - HALF_FRAME as isize;
                for (i, (slot, weight)) in scratch.frame.iter_mut().zip(&self.window).enumerate() {
                    let at = reflect(first + i as isize, n_samples);
                    *slot = samples.get(at).copied().unwrap_or(0.0) * weight;
                }
            }
        }
        self.fft
            .process_with_scratch(&mut scratch.frame, &mut scratch.spectrum, &mut scratch.fft)
            .expect("the buffers were made for this transform");
        for (power, bin) in scratch.power.iter_mut().zip(&scratch.spectrum) {
            *power = bin.norm_sqr();
        }
        self.filters.apply(&scratch.power, energies);
        for energy in energies {
            *energy = energy.max(SMALLEST_ENERGY).log10();
        }
    }
}

/// What one thread works in.
struct Scratch {
    frame: Vec<f32>,
    spectrum: Vec<Complex<f32>>,
    fft: Vec<Complex<f32>>,
    power: Vec<f32>,
}

impl Scratch {
    fn new(fft: &dyn RealToComplex<f32>) -> Self {
        Self {
            frame: fft.make_input_vec(),
            spectrum: fft.make_output_vec(),
            fft: fft.make_scratch_vec(),
            power: vec![0.0; N_BINS],
        }
    }
}

/// The index into `0..len` that `index` mirrors to, the edge sample not repeated (numpy's and
/// torch's `reflect`). Where the padding is longer than the sound it mirrors again, as numpy does.
fn reflect(index: isize, len: usize) -> usize {
    let period = 2 * (len as isize - 1);
    if period <= 0 {
        return 0;
    }
    let folded = index.rem_euclid(period);
    folded.min(period - folded) as usize
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn tone(hz: f64, amplitude: f64, n: usize) -> Vec<f32> {
        let step = std::f64::consts::TAU * hz / f64::from(SAMPLE_RATE_HZ);
        (0..n).map(|i| (amplitude * (step * i as f64).sin()) as f32).collect()
    }

    /// The definition, in f64, without any short cut.
    fn by_definition(samples: &[f32], n_samples: usize, n_mels: usize) -> Vec<f64> {
        let filters = MelFilterBank::slaney(n_mels);
        let n_frames = n_samples / HOP_LENGTH;
        let angle = |step: usize| std::f64::consts::TAU * step as f64 / N_FFT as f64;
        let turn: Vec<(f64, f64)> = (0..N_FFT).map(|step| angle(step).sin_cos()).collect();
        let mut logs = vec![0.0; n_mels * n_frames];
        for frame in 0..n_frames {
            let seen: Vec<f64> = (0..N_FFT)
                .map(|i| {
                    let at = reflect((frame * HOP_LENGTH + i) as isize - HALF_FRAME as isize, n_samples);
                    f64::from(samples.get(at).copied().unwrap_or(0.0)) * (0.5 - 0.5 * turn[i].1)
                })
                .collect();
            let power: Vec<f32> = (0..N_BINS)
                .map(|bin| {
                    let (mut re, mut im) = (0.0, 0.0);
                    for (i, x) in seen.iter().enumerate() {
                        let (sin, cos) = turn[bin * i % N_FFT];
                        re += x * cos;
                        im -= x * sin;
                    }
                    (re * re + im * im) as f32
                })
                .collect();
            let mut energies = vec![0.0; n_mels];
            filters.apply(&power, &mut energies);
            for (mel, energy) in energies.into_iter().enumerate() {
                logs[mel * n_frames + frame] = f64::from(energy.max(SMALLEST_ENERGY)).log10();
            }
        }
        let loudest = logs.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        logs.into_iter().map(|x| (x.max(loudest - 8.0) + 4.0) / 4.0).collect()
    }

    fn assert_close(got: &LogMel, expected: &[f64], tolerance: f64) {
        assert_eq!(got.data.len(), expected.len());
        let (worst, difference) = got
            .data
            .iter()
            .zip(expected)
            .map(|(a, b)| (f64::from(*a) - b).abs())
            .enumerate()
            .max_by(|a, b| a.1.total_cmp(&b.1))
            .unwrap();
        let (mel, frame) = (worst / got.n_frames, worst % got.n_frames);
        assert!(difference < tolerance, "mel {mel}, frame {frame}: off by {difference}");
    }

    #[test]
    fn agrees_with_the_definition() {
        let mut samples = tone(440.0, 0.3, 5000);
        for (i, sample) in samples.iter_mut().enumerate() {
            // Some noise, so that no energy hangs on rounding errors alone.
            *sample += ((i * 7919 % 1009) as f32 / 1009.0 - 0.5) * 0.02;
        }
        for n_mels in [80, 128] {
            let extractor = LogMelExtractor::new(n_mels);
            // Padded a lot, padded a little, exactly full, and cut.
            for n_samples in [16_000, 5120, 4960, 1600] {
                let got = extractor.extract_padded(&samples, n_samples).unwrap();
                assert_eq!((got.n_mels, got.n_frames), (n_mels, n_samples / HOP_LENGTH));
                assert_close(&got, &by_definition(&samples, n_samples, n_mels), 1e-4);
            }
        }
    }

    #[test]
    fn the_parallel_path_agrees_with_the_definition() {
        let samples: Vec<f32> = (0..100_000).map(|i| ((i * 7919 % 1009) as f32 / 1009.0 - 0.5) * 0.2).collect();
        let n_samples = 100_000 / HOP_LENGTH * HOP_LENGTH;
        let got = LogMelExtractor::new(80).extract_padded(&samples, n_samples).unwrap();
        assert!(got.n_frames >= PARALLEL_FROM_FRAMES);
        assert_close(&got, &by_definition(&samples, n_samples, 80), 1e-4);
    }

    #[test]
    fn silence_is_flat() {
        let extractor = LogMelExtractor::new(80);
        for samples in [vec![], vec![0.0; 1000]] {
            let got = extractor.extract_padded(&samples, N_SAMPLES).unwrap();
            assert_eq!(got.n_frames, N_FRAMES);
            // (-10 + 4) / 4
            assert!(got.data.iter().all(|&v| (v + 1.5).abs() < 1e-6 && v == got.data[0]));
        }
    }

    #[test]
    fn a_tone_is_loudest_in_its_own_filter() {
        let got = LogMelExtractor::new(80).extract_padded(&tone(1000.0, 0.5, 16_000), 16_000).unwrap();
        let middle: Vec<f32> = (0..80).map(|mel| got.data[mel * got.n_frames + 50]).collect();
        let loudest = middle.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1)).unwrap().0;
        assert!((24..=27).contains(&loudest), "1 kHz fell into filter {loudest}");
    }

    #[test]
    fn odd_window_lengths_are_refused() {
        let extractor = LogMelExtractor::new(80);
        for n_samples in [0, 1, 159, 161, N_SAMPLES - 1] {
            let error = extractor.extract_padded(&[0.0; 10], n_samples).unwrap_err();
            assert_eq!(error.code(), "invalid_parameter");
        }
    }

    #[test]
    fn reflect_is_numpys() {
        // np.pad(np.arange(5), 7, mode="reflect")
        let padded: Vec<usize> = (-7..12).map(|i| reflect(i, 5)).collect();
        assert_eq!(padded, [1, 2, 3, 4, 3, 2, 1, 0, 1, 2, 3, 4, 3, 2, 1, 0, 1, 2, 3]);
        assert_eq!(reflect(-3, 1), 0);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn any_length_gives_finite_values_of_the_promised_shape(len in 0_usize..3000, hops in 1_usize..30, gain in 0.0_f32..2.0) {
            let samples: Vec<f32> = (0..len).map(|i| ((i * 31 % 101) as f32 / 50.0 - 1.0) * gain).collect();
            let got = LogMelExtractor::new(80).extract_padded(&samples, hops * HOP_LENGTH).unwrap();
            prop_assert_eq!(got.data.len(), 80 * hops);
            prop_assert!(got.data.iter().all(|v| v.is_finite()));
        }
    }
}
