//! What the effects and the synthetic noises are made of: second-order filters, convolution by FFT, frames that are
//! changed in the frequency domain, random numbers of a given range or of a bell shape.
//!
//! Second-order sections after Robert Bristow-Johnson's audio EQ cookbook, as in `audio::level`; overlap-add as in any
//! textbook. For whole clips, not for streams.

use std::f64::consts::{FRAC_1_SQRT_2, PI, TAU};

use realfft::RealFftPlanner;
use realfft::num_complex::Complex;

use crate::audio::SAMPLE_RATE_HZ;

/// A frame of [`by_frames`], 32 ms.
pub(crate) const FRAME: usize = 512;
/// From frame to frame, 16 ms.
pub(crate) const HOP: usize = FRAME / 2;
/// Bins of a frame's spectrum.
pub(crate) const N_BINS: usize = FRAME / 2 + 1; // 257 bins of 31.25 Hz

/// No shorter transforms than this: below it the work around them is most of it.
const SMALLEST_FFT: usize = 4096;
/// Why a transform cannot fail.
const FITS: &str = "the buffers were made for this transform, and the ends of the spectrum are real";

/// A second-order filter.
#[derive(Debug, Clone)]
pub(crate) struct Biquad {
    b: [f64; 3],
    a: [f64; 2],
}

impl Biquad {
    fn new(b: [f64; 3], a: [f64; 3]) -> Self {
        Self { b: b.map(|v| v / a[0]), a: [a[1] / a[0], a[2] / a[0]] }
    }

    /// cos w0 and the cookbook's alpha.
    fn angle(hz: f64, q: f64) -> (f64, f64) {
        let (sin, cos) = (TAU * hz / f64::from(SAMPLE_RATE_HZ)).sin_cos();
        (cos, sin / (2.0 * q))
    }

    /// 12 dB an octave above `hz`.
    pub(crate) fn low_pass(hz: f64, q: f64) -> Self {
        let (cos, alpha) = Self::angle(hz, q);
        let edge = (1.0 - cos) / 2.0;
        Self::new([edge, 2.0 * edge, edge], [1.0 + alpha, -2.0 * cos, 1.0 - alpha])
    }

    /// A bump or a dip around `hz`.
    pub(crate) fn peak(hz: f64, q: f64, gain_db: f64) -> Self {
        let (cos, alpha) = Self::angle(hz, q);
        let a = 10_f64.powf(gain_db / 40.0);
        Self::new([1.0 + alpha * a, -2.0 * cos, 1.0 - alpha * a], [1.0 + alpha / a, -2.0 * cos, 1.0 - alpha / a])
    }

    /// What is below `hz`, louder or softer.
    pub(crate) fn low_shelf(hz: f64, gain_db: f64) -> Self {
        Self::shelf(hz, gain_db, 1.0)
    }

    /// What is above `hz`, louder or softer.
    pub(crate) fn high_shelf(hz: f64, gain_db: f64) -> Self {
        Self::shelf(hz, gain_db, -1.0)
    }

    /// The cookbook's two shelves differ in the sign of the cosine, and of the middle coefficients.
    fn shelf(hz: f64, gain_db: f64, side: f64) -> Self {
        let (cos, alpha) = Self::angle(hz, FRAC_1_SQRT_2);
        let cos = side * cos;
        let a = 10_f64.powf(gain_db / 40.0);
        let slope = 2.0 * a.sqrt() * alpha;
        let (up, down) = (a + 1.0, a - 1.0);
        Self::new(
            [a * (up - down * cos + slope), side * 2.0 * a * (down - up * cos), a * (up - down * cos - slope)],
            [up + down * cos + slope, -side * 2.0 * (down + up * cos), up + down * cos - slope],
        )
    }

    /// Filters in place, from rest.
    pub(crate) fn run(&self, samples: &mut [f32]) {
        // Transposed direct form II.
        let ([b0, b1, b2], [a1, a2]) = (self.b, self.a);
        let (mut z1, mut z2) = (0.0, 0.0);
        for sample in samples {
            let x = f64::from(*sample);
            let y = b0 * x + z1;
            z1 = b1 * x - a1 * y + z2;
            z2 = b2 * x - a2 * y;
            *sample = y as f32;
        }
    }
}

/// The linear-phase low-pass of `n_taps` (odd) taps whose response is a half at `edge_hz`: a sinc under Blackman's
/// window, -74 dB from `2.75 · 16000 / n_taps` Hz above the edge on.
pub(crate) fn low_pass_kernel(edge_hz: f64, n_taps: usize) -> Vec<f32> {
    let middle = (n_taps / 2) as f64;
    let edge = 2.0 * edge_hz / f64::from(SAMPLE_RATE_HZ);
    let taps: Vec<f64> = (0..n_taps)
        .map(|i| {
            let t = i as f64 - middle;
            let sinc = if t == 0.0 { edge } else { (PI * edge * t).sin() / (PI * t) };
            // One more than there are taps at each end: the window's own ends are zero.
            let phase = TAU * (i + 1) as f64 / (n_taps + 1) as f64;
            sinc * (0.42 - 0.5 * phase.cos() + 0.08 * (2.0 * phase).cos())
        })
        .collect();
    let sum: f64 = taps.iter().sum();
    taps.iter().map(|tap| (tap / sum) as f32).collect()
}

/// The full convolution, `samples.len() + kernel.len() - 1` samples; none if either is empty.
pub(crate) fn convolve(samples: &[f32], kernel: &[f32]) -> Vec<f32> {
    if samples.is_empty() || kernel.is_empty() {
        return Vec::new();
    }
    let n_out = samples.len() + kernel.len() - 1;
    // Four kernels long wastes a quarter of each block on the overlap.
    let n_fft = n_out.min((4 * kernel.len()).max(SMALLEST_FFT)).max(16).next_power_of_two();
    let hop = n_fft + 1 - kernel.len();
    let mut planner = RealFftPlanner::<f32>::new();
    let (forward, inverse) = (planner.plan_fft_forward(n_fft), planner.plan_fft_inverse(n_fft));
    let mut block = forward.make_input_vec();
    let mut response = forward.make_output_vec();
    let mut spectrum = forward.make_output_vec();
    let mut forward_scratch = forward.make_scratch_vec();
    let mut inverse_scratch = inverse.make_scratch_vec();

    block[..kernel.len()].copy_from_slice(kernel);
    forward.process_with_scratch(&mut block, &mut response, &mut forward_scratch).expect(FITS);
    let scale = 1.0 / n_fft as f32;
    let mut out = vec![0.0_f32; n_out];
    for start in (0..samples.len()).step_by(hop) {
        let part = &samples[start..samples.len().min(start + hop)];
        // The transform before has used it as a scratch pad.
        block.fill(0.0);
        block[..part.len()].copy_from_slice(part);
        forward.process_with_scratch(&mut block, &mut spectrum, &mut forward_scratch).expect(FITS);
        for (bin, gain) in spectrum.iter_mut().zip(&response) {
            *bin *= *gain;
        }
        make_ends_real(&mut spectrum);
        inverse.process_with_scratch(&mut spectrum, &mut block, &mut inverse_scratch).expect(FITS);
        for (sum, value) in out[start..].iter_mut().zip(&block[..part.len() + kernel.len() - 1]) {
            *sum += value * scale;
        }
    }
    out
}

/// Behind a linear-phase filter of an odd number of taps, without its delay: as many samples as before.
pub(crate) fn filtered(samples: &[f32], kernel: &[f32]) -> Vec<f32> {
    let mut out = convolve(samples, kernel);
    out.drain(..(kernel.len() / 2).min(out.len()));
    out.truncate(samples.len());
    out
}

/// Cuts the samples into overlapping frames, lets `change` have each frame's spectrum ([`N_BINS`] bins, not scaled),
/// and puts them together again. A sine window before and after: what is not changed comes back as it was.
pub(crate) fn by_frames(samples: &[f32], mut change: impl FnMut(&mut [Complex<f32>])) -> Vec<f32> {
    let mut planner = RealFftPlanner::<f32>::new();
    let (forward, inverse) = (planner.plan_fft_forward(FRAME), planner.plan_fft_inverse(FRAME));
    let window: Vec<f32> = (0..FRAME).map(|i| (PI * (i as f64 + 0.5) / FRAME as f64).sin() as f32).collect();
    let mut frame = forward.make_input_vec();
    let mut spectrum = forward.make_output_vec();
    let mut forward_scratch = forward.make_scratch_vec();
    let mut inverse_scratch = inverse.make_scratch_vec();

    // A hop of zeros before, so that the first samples, too, lie in two frames.
    let n_frames = samples.len().div_ceil(HOP) + 1;
    let mut padded = vec![0.0_f32; (n_frames + 1) * HOP];
    padded[HOP..HOP + samples.len()].copy_from_slice(samples);
    let mut out = vec![0.0_f32; padded.len()];
    for start in (0..n_frames).map(|i| i * HOP) {
        for ((slot, sample), weight) in frame.iter_mut().zip(&padded[start..]).zip(&window) {
            *slot = sample * weight;
        }
        forward.process_with_scratch(&mut frame, &mut spectrum, &mut forward_scratch).expect(FITS);
        change(&mut spectrum);
        make_ends_real(&mut spectrum);
        inverse.process_with_scratch(&mut spectrum, &mut frame, &mut inverse_scratch).expect(FITS);
        for ((sum, sample), weight) in out[start..].iter_mut().zip(&frame).zip(&window) {
            *sum += sample * weight / FRAME as f32;
        }
    }
    out.drain(..HOP);
    out.truncate(samples.len());
    out
}

/// The spectrum of real samples is real at 0 Hz and at half the sample rate; realfft refuses anything else.
fn make_ends_real(spectrum: &mut [Complex<f32>]) {
    if let [first, .., last] = spectrum {
        (first.im, last.im) = (0.0, 0.0);
    }
}

/// The mean square; 0 without samples.
pub(crate) fn power(samples: &[f32]) -> f64 {
    samples.iter().map(|s| f64::from(*s).powi(2)).sum::<f64>() / samples.len().max(1) as f64
}

/// The largest magnitude; 0 without samples.
pub(crate) fn peak(samples: &[f32]) -> f32 {
    samples.iter().fold(0.0, |peak: f32, s| peak.max(s.abs()))
}

/// As a factor of amplitudes.
pub(crate) fn from_db(db: f32) -> f32 {
    10_f32.powf(db / 20.0)
}

/// Uniform in `low..=high`.
pub(crate) fn uniform([low, high]: [f32; 2], rng: &mut fastrand::Rng) -> f32 {
    (low + (high - low) * rng.f32()).clamp(low.min(high), high.max(low))
}

/// Nearly normal, of variance 1: four uniform numbers added up. No logarithm, so it is the same on every machine.
pub(crate) fn gauss(rng: &mut fastrand::Rng) -> f32 {
    let bits = rng.u64(..);
    let sum: u64 = (0..4).map(|lane| (bits >> (16 * lane)) & 0xffff).sum();
    // Each is uniform on 0..=1 with the variance 1/12.
    (sum as f32 / 65_535.0 - 2.0) * 3_f32.sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tone(hz: f64, n: usize) -> Vec<f32> {
        (0..n).map(|i| (TAU * hz * i as f64 / f64::from(SAMPLE_RATE_HZ)).sin() as f32).collect()
    }

    fn gain_db(filter: &Biquad, hz: f64) -> f64 {
        let mut samples = tone(hz, 16_000);
        filter.run(&mut samples);
        10.0 * (power(&samples[8000..]) / 0.5).log10()
    }

    #[test]
    fn filters_do_what_their_names_say() {
        let near = |filter: &Biquad, hz, expected: f64| {
            let got = gain_db(filter, hz);
            assert!((got - expected).abs() < 0.3, "{got} dB at {hz} Hz, not {expected}");
        };
        let low = Biquad::low_pass(1000.0, FRAC_1_SQRT_2);
        near(&low, 100.0, 0.0);
        near(&low, 1000.0, -3.0);
        assert!(gain_db(&low, 4000.0) < -24.0);
        let peak = Biquad::peak(1000.0, 1.0, 6.0);
        near(&peak, 1000.0, 6.0);
        near(&peak, 50.0, 0.0);
        let shelf = Biquad::low_shelf(300.0, 6.0);
        near(&shelf, 20.0, 6.0);
        near(&shelf, 300.0, 3.0);
        near(&shelf, 5000.0, 0.0);
        let shelf = Biquad::high_shelf(3000.0, -6.0);
        near(&shelf, 100.0, 0.0);
        near(&shelf, 3000.0, -3.0);
        near(&shelf, 7500.0, -6.0);
    }

    #[test]
    fn convolution_by_fft_is_the_sum_that_defines_it() {
        let mut rng = fastrand::Rng::with_seed(1);
        for (n, k) in [(1_usize, 1_usize), (1, 7), (7, 1), (100, 33), (9000, 50), (6000, 1500), (40, 900)] {
            let samples: Vec<f32> = (0..n).map(|_| gauss(&mut rng)).collect();
            let kernel: Vec<f32> = (0..k).map(|_| gauss(&mut rng)).collect();
            let got = convolve(&samples, &kernel);
            assert_eq!(got.len(), n + k - 1);
            let largest = (n.min(k) as f64).sqrt();
            for (at, value) in got.iter().enumerate().step_by(1 + got.len() / 200) {
                let expected: f64 = (0..k)
                    .filter(|tap| *tap <= at && at - tap < n)
                    .map(|tap| f64::from(kernel[tap]) * f64::from(samples[at - tap]))
                    .sum();
                assert!((f64::from(*value) - expected).abs() < 1e-4 * largest.max(1.0), "{n}, {k}: sample {at}");
            }
        }
        assert!(convolve(&[], &[1.0]).is_empty() && convolve(&[1.0], &[]).is_empty());
    }

    #[test]
    fn unchanged_frames_give_the_samples_back() {
        let mut rng = fastrand::Rng::with_seed(2);
        for n in [0, 1, 255, 256, 257, 5000] {
            let samples: Vec<f32> = (0..n).map(|_| gauss(&mut rng)).collect();
            let got = by_frames(&samples, |spectrum| assert_eq!(spectrum.len(), N_BINS));
            assert_eq!(got.len(), n);
            assert!(got.iter().zip(&samples).all(|(a, b)| (a - b).abs() < 1e-4), "{n} samples");
        }
    }

    #[test]
    fn a_low_pass_kernel_passes_and_stops_and_delays_nothing() {
        let kernel = low_pass_kernel(3400.0, 257);
        let inner = |hz| filtered(&tone(hz, 8000), &kernel)[1000..7000].to_vec();
        let passed = inner(3000.0);
        let worst = passed.iter().zip(&tone(3000.0, 8000)[1000..]).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(worst < 2e-3, "off by {worst}");
        assert!((10.0 * (power(&inner(3400.0)) / 0.5).log10() + 6.0).abs() < 0.2);
        assert!(10.0 * (power(&inner(3600.0)) / 0.5).log10() < -60.0);
    }

    #[test]
    fn gauss_has_mean_0_and_variance_1() {
        let mut rng = fastrand::Rng::with_seed(3);
        let values: Vec<f32> = (0..100_000).map(|_| gauss(&mut rng)).collect();
        let mean = values.iter().map(|v| f64::from(*v)).sum::<f64>() / 1e5;
        assert!(mean.abs() < 0.02 && (power(&values) - 1.0).abs() < 0.02);
    }
}
