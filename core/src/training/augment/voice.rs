//! Another speaker: faster or slower, higher or lower, with a longer or shorter vocal tract.
//!
//! Time is stretched by WSOLA (Verhelst and Roelands, "An overlap-add technique based on waveform similarity (WSOLA)
//! for high quality time-scale modification of speech", 1993). The vocal tract is a warp of the spectral envelope, as
//! in vocal tract length perturbation (Jaitly and Hinton, 2013), on the sound rather than on its features; the
//! envelope is what is left of the spectrum's logarithm below a short quefrency.
//!
//! Not for music: a frame holds one pitch, and fades take the place of lost onsets.

use std::f64::consts::TAU;

use realfft::num_complex::Complex;
use realfft::{ComplexToReal, RealFftPlanner, RealToComplex};

use super::filters::{FRAME, N_BINS, by_frames};
use crate::audio::{SAMPLE_RATE_HZ, to_16khz};

/// Factors of speed and of lengths are believed within these.
pub(super) const FACTOR_RANGE: [f32; 2] = [0.25, 4.0];

/// The resampler's rate is a multiple of this: its blocks are short then, and a factor is off by 0.2 % at most.
const RATE_STEP_HZ: f32 = 50.0;
/// WSOLA's frame, 32 ms: two periods of the lowest voice.
const STRETCH_FRAME: usize = 512;
/// From frame to frame in the output.
const STRETCH_HOP: usize = STRETCH_FRAME / 2;
/// A frame is looked for as far as this to either side, 10 ms: together a period of a voice of 50 Hz.
const STRETCH_SEARCH: usize = 160;
/// Quefrencies up to this are the envelope, 2 ms: above the period of a voice of 330 Hz it would follow the harmonics.
const ENVELOPE_QUEFRENCY: usize = 32;
/// Up to here they fade out.
const LAST_QUEFRENCY: usize = 48;
/// No bin is made louder or softer by more than this, in nepers (17 dB).
const MAX_WARP_NEPER: f32 = 2.0;

/// Plays the samples `factor` times as fast, as a tape does: pitch and formants rise with the speed. The factor is
/// rounded to steps of 1/320; `round(len / factor)` samples. Samples have to be finite.
#[must_use]
pub fn change_speed(samples: &[f32], factor: f32) -> Vec<f32> {
    let rate_hz = (believed(factor) * SAMPLE_RATE_HZ as f32 / RATE_STEP_HZ).round() * RATE_STEP_HZ;
    to_16khz(samples, rate_hz as u32).expect("4 to 64 kHz is a rate, and the samples are finite")
}

/// Speaks `factor` times as fast at the same pitch: `round(len / factor)` samples.
#[must_use]
pub fn change_tempo(samples: &[f32], factor: f32) -> Vec<f32> {
    stretch_to(samples, (samples.len() as f64 / f64::from(believed(factor))).round() as usize)
}

/// Raises the voice by so many semitones, its formants with it, as a smaller speaker's: resampled, then stretched to
/// the length that it had.
#[must_use]
pub fn shift_pitch(samples: &[f32], semitones: f32) -> Vec<f32> {
    stretch_to(&change_speed(samples, 2_f32.powf(semitones / 12.0)), samples.len())
}

/// Moves the formants to `factor` times their frequencies and leaves the pitch: a vocal tract of `1 / factor` times
/// the length.
#[must_use]
pub fn shift_formants(samples: &[f32], factor: f32) -> Vec<f32> {
    let factor = believed(factor);
    let mut envelope = Envelope::new();
    by_frames(samples, |spectrum| {
        let log_envelope = envelope.of(spectrum);
        for (i, bin) in spectrum.iter_mut().enumerate() {
            let from = (i as f32 / factor).min((N_BINS - 1) as f32);
            let (below, part) = (from as usize, from.fract());
            let above = (below + 1).min(N_BINS - 1);
            let wanted = log_envelope[below] * (1.0 - part) + log_envelope[above] * part;
            let change = (wanted - log_envelope[i]).clamp(-MAX_WARP_NEPER, MAX_WARP_NEPER);
            *bin *= change.exp();
        }
    })
}

/// A factor that is no number changes nothing.
fn believed(factor: f32) -> f32 {
    if factor.is_nan() { 1.0 } else { factor.clamp(FACTOR_RANGE[0], FACTOR_RANGE[1]) }
}

/// Spectral envelopes by the cepstrum.
struct Envelope {
    forward: std::sync::Arc<dyn RealToComplex<f32>>,
    inverse: std::sync::Arc<dyn ComplexToReal<f32>>,
    log_spectrum: Vec<Complex<f32>>,
    cepstrum: Vec<f32>,
    forward_scratch: Vec<Complex<f32>>,
    inverse_scratch: Vec<Complex<f32>>,
}

impl Envelope {
    fn new() -> Self {
        let mut planner = RealFftPlanner::<f32>::new();
        let (forward, inverse) = (planner.plan_fft_forward(FRAME), planner.plan_fft_inverse(FRAME));
        Self {
            log_spectrum: inverse.make_input_vec(),
            cepstrum: inverse.make_output_vec(),
            forward_scratch: forward.make_scratch_vec(),
            inverse_scratch: inverse.make_scratch_vec(),
            forward,
            inverse,
        }
    }

    /// The natural logarithm of the envelope of each bin's amplitude.
    fn of(&mut self, spectrum: &[Complex<f32>]) -> [f32; N_BINS] {
        const FITS: &str = "the buffers were made for this transform, and the logarithm of a power is real";
        const SMALLEST_POWER: f32 = 1e-12;
        // Nothing is more than 80 dB below the loudest bin: holes would pull the envelope down between them.
        let loudest = spectrum.iter().fold(0.0, |loudest: f32, bin| loudest.max(bin.norm_sqr()));
        let floor = (loudest * 1e-8).max(SMALLEST_POWER);
        for (slot, bin) in self.log_spectrum.iter_mut().zip(spectrum) {
            *slot = Complex::new(0.5 * bin.norm_sqr().max(floor).ln(), 0.0);
        }
        self.inverse
            .process_with_scratch(&mut self.log_spectrum, &mut self.cepstrum, &mut self.inverse_scratch)
            .expect(FITS);
        // The cepstrum is even: what is kept at the front is kept at the back.
        for (i, value) in self.cepstrum.iter_mut().enumerate() {
            let quefrency = i.min(FRAME - i);
            let fade = quefrency.saturating_sub(ENVELOPE_QUEFRENCY) as f32;
            let weight = 1.0 - fade / (LAST_QUEFRENCY - ENVELOPE_QUEFRENCY) as f32;
            *value *= weight.max(0.0) / FRAME as f32;
        }
        self.forward
            .process_with_scratch(&mut self.cepstrum, &mut self.log_spectrum, &mut self.forward_scratch)
            .expect(FITS);
        let mut out = [0.0; N_BINS];
        for (slot, bin) in out.iter_mut().zip(&self.log_spectrum) {
            *slot = bin.re;
        }
        out
    }
}

/// WSOLA: frames of the input at another distance, each from where it continues the one before best.
fn stretch_to(samples: &[f32], n_out: usize) -> Vec<f32> {
    if samples.is_empty() || n_out == 0 {
        return vec![0.0; n_out];
    }
    let factor = samples.len() as f64 / n_out as f64;
    let window: Vec<f32> =
        (0..STRETCH_FRAME).map(|i| (0.5 - 0.5 * (TAU * i as f64 / STRETCH_FRAME as f64).cos()) as f32).collect();
    let lead = STRETCH_FRAME + STRETCH_SEARCH;
    // The last frame begins at most a hop of the input behind its end.
    let tail = 2 * STRETCH_FRAME + STRETCH_SEARCH + (factor * STRETCH_HOP as f64).ceil() as usize;
    let mut padded = vec![0.0_f32; lead + samples.len() + tail];
    padded[lead..lead + samples.len()].copy_from_slice(samples);

    // A hop of output before the first sample, which is cut off: the first frame's middle is the first sample.
    let n_frames = n_out.div_ceil(STRETCH_HOP) + 1;
    let mut out = vec![0.0_f32; (n_frames + 1) * STRETCH_HOP];
    let mut from = lead - STRETCH_HOP;
    for i in 0..n_frames {
        if i > 0 {
            let continuation = &padded[from + STRETCH_HOP..from + 2 * STRETCH_HOP];
            let middle = lead + ((i * STRETCH_HOP) as f64 * factor).round() as usize;
            from = most_alike(&padded, continuation, middle - STRETCH_HOP);
        }
        let frame = &padded[from..from + STRETCH_FRAME];
        for ((sum, sample), weight) in out[i * STRETCH_HOP..].iter_mut().zip(frame).zip(&window) {
            *sum += sample * weight;
        }
    }
    out.drain(..STRETCH_HOP);
    out.truncate(n_out);
    out
}

/// Where around `near` the samples are most like `wanted`, by the normalised correlation; `near` itself in silence.
fn most_alike(samples: &[f32], wanted: &[f32], near: usize) -> usize {
    const SMALLEST_ENERGY: f32 = 1e-9;
    const N_PLACES: usize = 2 * STRETCH_SEARCH + 1;
    let first = near - STRETCH_SEARCH;
    let square = |at: usize| f64::from(samples[at]).powi(2);
    // From one place to the next the energy gains a sample and loses one.
    let mut energy: f64 = (first..first + wanted.len()).map(square).sum();
    let mut energies = [0.0_f32; N_PLACES];
    for (i, slot) in energies.iter_mut().enumerate() {
        *slot = energy as f32;
        energy += square(first + i + wanted.len()) - square(first + i);
    }
    let likeness = |place: usize| {
        let candidate = &samples[first + place..first + place + wanted.len()];
        let energy = energies[place];
        if energy > SMALLEST_ENERGY { dot(candidate, wanted) / energy.sqrt() } else { 0.0 }
    };
    let better = |best: (usize, f32), place: usize| {
        let likeness = likeness(place);
        if likeness > best.1 { (place, likeness) } else { best }
    };
    // Every second place, then the two beside the best.
    let best = (0..N_PLACES).step_by(2).fold((STRETCH_SEARCH, likeness(STRETCH_SEARCH)), better);
    let beside = [best.0.saturating_sub(1), (best.0 + 1).min(N_PLACES - 1)];
    first + beside.into_iter().fold(best, better).0
}

/// Eight sums at a time: one would wait for itself at each step.
fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut sums = [0.0_f32; 8];
    for (a, b) in a.chunks_exact(8).zip(b.chunks_exact(8)) {
        for ((sum, a), b) in sums.iter_mut().zip(a).zip(b) {
            *sum += a * b;
        }
    }
    let n_rest = a.len() / 8 * 8;
    let rest: f32 = a[n_rest..].iter().zip(&b[n_rest..]).map(|(a, b)| a * b).sum();
    sums.iter().sum::<f32>() + rest
}

#[cfg(test)]
mod tests {
    use super::super::filters::{Biquad, power};
    use super::*;

    fn tone(hz: f64, n: usize) -> Vec<f32> {
        (0..n).map(|i| 0.5 * (TAU * hz * i as f64 / f64::from(SAMPLE_RATE_HZ)).sin() as f32).collect()
    }

    /// The amplitude at a frequency, by the definition of the Fourier transform, under a Hann window.
    fn amplitude(samples: &[f32], hz: f64) -> f64 {
        let step = TAU * hz / f64::from(SAMPLE_RATE_HZ);
        let (mut re, mut im) = (0.0_f64, 0.0_f64);
        for (i, sample) in samples.iter().enumerate() {
            let weight = 0.5 - 0.5 * (TAU * i as f64 / samples.len() as f64).cos();
            let (sin, cos) = (step * i as f64).sin_cos();
            re += weight * f64::from(*sample) * cos;
            im += weight * f64::from(*sample) * sin;
        }
        (re * re + im * im).sqrt() * 4.0 / samples.len() as f64
    }

    /// Where the amplitude is largest, to a quarter of a hertz.
    fn loudest_hz(samples: &[f32], range: std::ops::Range<u32>) -> f64 {
        let candidates = (range.start * 4..range.end * 4).map(|quarter| f64::from(quarter) / 4.0);
        let measured = candidates.map(|hz| (hz, amplitude(samples, hz)));
        measured.fold((0.0, 0.0), |best, next| if next.1 > best.1 { next } else { best }).0
    }

    #[test]
    fn speed_changes_length_and_pitch() {
        for factor in [0.8, 1.0, 1.25] {
            let got = change_speed(&tone(200.0, 16_000), factor);
            let expected = 16_000.0 / f64::from(factor);
            assert!((got.len() as f64 / expected - 1.0).abs() < 0.002, "{factor}: {} samples", got.len());
            let hz = loudest_hz(&got[1000..11_000], 140..280);
            assert!((hz / (200.0 * f64::from(factor)) - 1.0).abs() < 0.005, "{factor}: {hz} Hz");
        }
    }

    #[test]
    fn tempo_changes_the_length_alone() {
        for factor in [0.8, 0.95, 1.25] {
            let before = tone(200.0, 16_000);
            let got = change_tempo(&before, factor);
            assert_eq!(got.len(), (16_000.0 / factor).round() as usize);
            let inner = &got[1000..11_000];
            let hz = loudest_hz(inner, 140..280);
            assert!((hz - 200.0).abs() < 1.0, "{factor}: {hz} Hz");
            // Frames that do not fit together would cancel each other.
            let loss = 10.0 * (power(inner) / power(&before)).log10();
            assert!(loss.abs() < 0.3, "{factor}: {loss} dB");
        }
    }

    #[test]
    fn an_unstretched_clip_is_what_it_was() {
        let mut rng = fastrand::Rng::with_seed(4);
        let samples: Vec<f32> = (0..5000).map(|_| rng.f32() - 0.5).collect();
        let got = change_tempo(&samples, 1.0);
        assert!(got.len() == 5000 && got.iter().zip(&samples).all(|(a, b)| (a - b).abs() < 1e-5));
    }

    #[test]
    fn a_stretched_click_goes_where_it_belongs() {
        for factor in [0.8, 1.25] {
            let mut samples = vec![0.0; 16_000];
            samples[8000..8016].fill(0.9);
            let got = change_tempo(&samples, factor);
            let at = got.iter().position(|s| s.abs() > 0.2).map(|at| at as f32);
            let expected = 8000.0 / factor;
            let room = (STRETCH_SEARCH + STRETCH_HOP) as f32;
            assert!(at.is_some_and(|at| (at - expected).abs() < room), "{factor}: {at:?}, not {expected}");
        }
    }

    #[test]
    fn pitch_moves_by_semitones_and_the_length_stays() {
        for semitones in [-3.0_f32, -1.0, 2.0, 3.0] {
            let before = tone(200.0, 24_000);
            let got = shift_pitch(&before, semitones);
            assert_eq!(got.len(), before.len());
            let expected = 200.0 * 2_f64.powf(f64::from(semitones) / 12.0);
            let hz = loudest_hz(&got[4000..20_000], 140..280);
            assert!((hz / expected - 1.0).abs() < 0.006, "{semitones}: {hz} Hz, not {expected}"); // 0.1 semitones
            let loss = 10.0 * (power(&got[4000..20_000]) / power(&before)).log10();
            assert!(loss.abs() < 0.3, "{semitones}: {loss} dB");
        }
    }

    #[test]
    fn formants_move_and_the_pitch_stays() {
        // A voice of 200 Hz with one formant at 1500 Hz.
        let mut vowel: Vec<f32> = (0..16_000).map(|i| if i % 80 == 0 { 0.05 } else { 0.0 }).collect();
        Biquad::peak(1500.0, 3.0, 30.0).run(&mut vowel);
        // The middle of the formant, weighing the harmonics around it by their power.
        let formant_hz = |samples: &[f32]| {
            let (mut sum, mut weights) = (0.0_f64, 0.0_f64);
            for hz in (4..=11).map(|harmonic| 200.0 * f64::from(harmonic)) {
                let weight = amplitude(samples, hz).powi(2);
                (sum, weights) = (sum + weight * hz, weights + weight);
            }
            sum / weights
        };
        let before_hz = formant_hz(&vowel[3200..12_800]);
        for factor in [0.85_f32, 1.0, 1.15] {
            let got = shift_formants(&vowel, factor);
            assert_eq!(got.len(), vowel.len());
            let inner = &got[3200..12_800];
            // Between the harmonics there is next to nothing.
            assert!(amplitude(inner, 1300.0) < 0.1 * amplitude(inner, 1400.0), "{factor}: the pitch moved");
            let moved = formant_hz(inner) / before_hz;
            assert!((moved / f64::from(factor) - 1.0).abs() < 0.025, "{factor}: the formant moved by {moved}");
        }
    }

    #[test]
    fn the_shortest_clips_survive() {
        for n in [0, 1, 2, 300] {
            let samples = vec![0.5; n];
            assert_eq!(shift_pitch(&samples, 3.0).len(), n);
            assert_eq!(shift_formants(&samples, 1.2).len(), n);
            assert!(change_tempo(&samples, 4.0).len() <= n && change_tempo(&samples, 0.25).len() == 4 * n);
            assert!(change_speed(&samples, f32::NAN).len() == n);
        }
    }
}
