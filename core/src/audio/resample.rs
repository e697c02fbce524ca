//! Any sample rate to 16 kHz.
//!
//! rubato's FFT resampler wherever the two rates have a workable common divisor (every rate that
//! sound cards and phones use); its windowed-sinc resampler for the odd rest. Both low-pass before
//! they decimate. The resampler's delay is cut off and the output has `round(len · 16000 / rate)`
//! samples, so that a time in the output is the same time in the input: exactly with the FFT, to
//! within two samples (0.1 ms) with the sinc, whose delay is no whole number of samples.
//!
//! Not for streams in real time: a block is 30 to 80 ms.

use rubato::audioadapter_buffers::direct::InterleavedSlice;
use rubato::{
    Async, Fft, FixedAsync, FixedSync, Resampler, SincInterpolationParameters, SincInterpolationType, WindowFunction,
    calculate_cutoff,
};

use super::waveform::SAMPLE_RATE_HZ;
use crate::error::{Error, Result};

/// The lowest sample rate that is believed: below it there is nothing left of a voice.
pub const MIN_RATE_HZ: u32 = 1_000;
/// The highest sample rate that is believed: that of the fastest converters sold.
pub const MAX_RATE_HZ: u32 = 768_000;

/// The window of the low-pass filter: about -100 dB outside the band.
const WINDOW: WindowFunction = WindowFunction::BlackmanHarris2;
/// The FFT resampler works in blocks of a multiple of `rate / gcd(rate, 16000)`. Above this, its
/// blocks, and with them its delay and memory, grow out of proportion (11127 Hz: 2 s).
const MAX_FFT_UNIT: u32 = 4096;
/// FFT blocks are this part of a second, or the next longer that fits. The low-pass is as long as
/// a block: 500 taps at 16 kHz put its edge at 7.8 kHz.
const BLOCKS_PER_S: u32 = 32;
/// No shorter blocks than this, or the filter gets too blunt at low rates.
const MIN_BLOCK: u32 = 256;
/// Taps of the sinc filter, counted at the lower of the two rates.
const SINC_LEN: usize = 256;
/// Input samples in a block of the sinc resampler.
const SINC_BLOCK: usize = 1024;

/// Converts a whole recording to 16 kHz.
///
/// # Errors
/// [`Error::InvalidParameter`] if `rate_hz` is below [`MIN_RATE_HZ`] or above [`MAX_RATE_HZ`];
/// [`Error::InvalidSamples`] if a sample is NaN or infinite.
pub fn to_16khz(samples: &[f32], rate_hz: u32) -> Result<Vec<f32>> {
    let count = samples.iter().filter(|s| !s.is_finite()).count();
    if count > 0 {
        return Err(Error::InvalidSamples { count });
    }
    let mut resampler = StreamResampler::new(rate_hz)?;
    let expected = resampled_len(samples.len() as u64, rate_hz);
    let mut out = Vec::with_capacity(usize::try_from(expected).unwrap_or(0));
    resampler.push(samples, &mut out)?;
    resampler.finish(&mut out)?;
    Ok(out)
}

/// `round(len · 16000 / rate)`.
fn resampled_len(len: u64, rate_hz: u32) -> u64 {
    let rate = u128::from(rate_hz);
    let scaled = u128::from(len) * u128::from(SAMPLE_RATE_HZ) + rate / 2;
    u64::try_from(scaled / rate).unwrap_or(u64::MAX)
}

/// The same, piece by piece: a decoder need not hold the whole recording at its own rate.
/// Samples have to be finite.
pub(super) struct StreamResampler {
    rate_hz: u32,
    /// None at 16 kHz: there is nothing to do.
    inner: Option<Box<dyn Resampler<f32>>>,
    /// Input that does not fill a block yet.
    pending: Vec<f32>,
    /// One resampled block.
    block: Vec<f32>,
    /// How much of the output is still the resampler's own delay.
    delay_left: usize,
    n_in: u64,
    n_out: u64,
}

impl StreamResampler {
    /// # Errors
    /// [`Error::InvalidParameter`] if `rate_hz` is below [`MIN_RATE_HZ`] or above [`MAX_RATE_HZ`].
    pub(super) fn new(rate_hz: u32) -> Result<Self> {
        if !(MIN_RATE_HZ..=MAX_RATE_HZ).contains(&rate_hz) {
            return Err(Error::InvalidParameter {
                name: "rate_hz",
                allowed: format!("{MIN_RATE_HZ} to {MAX_RATE_HZ} Hz; got {rate_hz}"),
            });
        }
        let inner = if rate_hz == SAMPLE_RATE_HZ { None } else { Some(make(rate_hz)?) };
        let delay_left = inner.as_ref().map_or(0, |r| r.output_delay());
        Ok(Self { rate_hz, inner, pending: Vec::new(), block: Vec::new(), delay_left, n_in: 0, n_out: 0 })
    }

    /// Appends what can be said so far to `out`.
    pub(super) fn push(&mut self, samples: &[f32], out: &mut Vec<f32>) -> Result<()> {
        self.n_in += samples.len() as u64;
        let Some(block_len) = self.inner.as_ref().map(|r| r.input_frames_next()) else {
            out.extend_from_slice(samples);
            self.n_out += samples.len() as u64;
            return Ok(());
        };
        let mut rest = samples;
        while !rest.is_empty() {
            if self.pending.is_empty() && rest.len() >= block_len {
                let (whole, after) = rest.split_at(block_len);
                self.resample(whole, out)?;
                rest = after;
            } else {
                let (start, after) = rest.split_at(rest.len().min(block_len - self.pending.len()));
                self.pending.extend_from_slice(start);
                rest = after;
                if self.pending.len() == block_len {
                    self.resample_pending(out)?;
                }
            }
        }
        Ok(())
    }

    /// Appends the rest. The resampler is spent afterwards.
    pub(super) fn finish(mut self, out: &mut Vec<f32>) -> Result<()> {
        let Some(block_len) = self.inner.as_ref().map(|r| r.input_frames_next()) else { return Ok(()) };
        let expected = resampled_len(self.n_in, self.rate_hz);
        while self.n_out < expected {
            // Silence pushes the last samples out of the filter.
            self.pending.resize(block_len, 0.0);
            self.resample_pending(out)?;
        }
        let excess = usize::try_from(self.n_out - expected).unwrap_or(0);
        out.truncate(out.len().saturating_sub(excess));
        Ok(())
    }

    fn resample_pending(&mut self, out: &mut Vec<f32>) -> Result<()> {
        let mut pending = std::mem::take(&mut self.pending);
        let result = self.resample(&pending, out);
        pending.clear();
        self.pending = pending;
        result
    }

    /// Takes exactly one block.
    fn resample(&mut self, input: &[f32], out: &mut Vec<f32>) -> Result<()> {
        let inner = self.inner.as_mut().expect("only called where there is something to resample");
        let n_next = inner.output_frames_next();
        self.block.resize(n_next.max(self.block.len()), 0.0);
        let n_block = self.block.len();
        let source = InterleavedSlice::new(input, 1, input.len()).expect("one channel, as long as the slice");
        let mut target = InterleavedSlice::new_mut(self.block.as_mut_slice(), 1, n_block)
            .expect("one channel, as long as the slice");
        let (_, n_out) = inner
            .process_into_buffer(&source, &mut target, None)
            .map_err(|e| Error::MalformedAudio { reason: format!("it cannot be resampled: {e}") })?;
        let n_delay = self.delay_left.min(n_out);
        self.delay_left -= n_delay;
        out.extend_from_slice(&self.block[n_delay..n_out]);
        self.n_out += (n_out - n_delay) as u64;
        Ok(())
    }
}

/// The resampler that suits the rate.
fn make(rate_hz: u32) -> Result<Box<dyn Resampler<f32>>> {
    let failed = |e: rubato::ResamplerConstructionError| Error::InvalidParameter {
        name: "rate_hz",
        allowed: format!("a rate that can be resampled: {e}"),
    };
    // The input block must be a multiple of this for the output block to be a whole number.
    let unit = rate_hz / gcd(rate_hz, SAMPLE_RATE_HZ);
    if unit <= MAX_FFT_UNIT {
        // An even number of units, so that half a block, the delay, is a whole number of samples.
        let n_units = ((rate_hz / BLOCKS_PER_S).max(MIN_BLOCK) / unit).max(1).next_multiple_of(2);
        let block = (n_units * unit) as usize;
        let fft =
            Fft::<f32>::new_custom(rate_hz as usize, SAMPLE_RATE_HZ as usize, block, 1, 1, WINDOW, FixedSync::Both)
                .map_err(failed)?;
        return Ok(Box::new(fft));
    }
    let ratio = f64::from(SAMPLE_RATE_HZ) / f64::from(rate_hz);
    // A filter of a given sharpness at 16 kHz has proportionally more taps at a higher input rate.
    let sinc_len = (SINC_LEN as f64 * (1.0 / ratio).max(1.0)) as usize;
    let parameters = SincInterpolationParameters {
        sinc_len,
        f_cutoff: Some(calculate_cutoff::<f32>(SINC_LEN, WINDOW)),
        oversampling_factor: 128,
        interpolation: SincInterpolationType::Cubic,
        window: WINDOW,
    };
    let sinc = Async::<f32>::new_sinc(ratio, 1.0, &parameters, SINC_BLOCK, 1, FixedAsync::Input).map_err(failed)?;
    Ok(Box::new(sinc))
}

fn gcd(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const COMMON_RATES_HZ: [u32; 12] =
        [4_000, 8_000, 11_025, 12_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000, 96_000, 192_000];
    /// Whose greatest common divisor with 16000 is small.
    const ODD_RATES_HZ: [u32; 4] = [11_127, 44_056, 44_101, 767_999];

    fn tone(hz: f64, rate_hz: u32, n: usize) -> Vec<f32> {
        let step = std::f64::consts::TAU * hz / f64::from(rate_hz);
        (0..n).map(|i| (step * i as f64).sin() as f32).collect()
    }

    fn rms(samples: &[f32]) -> f64 {
        (samples.iter().map(|s| f64::from(*s).powi(2)).sum::<f64>() / samples.len() as f64).sqrt()
    }

    #[test]
    fn a_tone_keeps_amplitude_and_phase() {
        for rate_hz in COMMON_RATES_HZ {
            let got = to_16khz(&tone(1000.0, rate_hz, rate_hz as usize), rate_hz).unwrap();
            let expected = tone(1000.0, SAMPLE_RATE_HZ, 16_000);
            assert_eq!(got.len(), expected.len(), "{rate_hz} Hz");
            // The edges ring: the tone does not go on there.
            let worst = (2000..14_000).map(|i| (got[i] - expected[i]).abs()).fold(0.0, f32::max);
            assert!(worst < 2e-3, "{rate_hz} Hz: off by {worst}");
        }
    }

    #[test]
    fn a_tone_keeps_its_amplitude_at_odd_rates() {
        for rate_hz in ODD_RATES_HZ {
            let got = to_16khz(&tone(1000.0, rate_hz, rate_hz as usize), rate_hz).unwrap();
            assert_eq!(got.len(), 16_000, "{rate_hz} Hz");
            let level = rms(&got[2000..14_000]) * std::f64::consts::SQRT_2;
            assert!((level - 1.0).abs() < 0.01, "{rate_hz} Hz: amplitude {level}");
        }
    }

    #[test]
    fn what_16_khz_cannot_hold_is_filtered_out() {
        for (rate_hz, hz) in [(48_000, 10_000.0), (44_100, 9_000.0), (44_100, 20_000.0), (44_101, 10_000.0)] {
            let got = to_16khz(&tone(hz, rate_hz, rate_hz as usize), rate_hz).unwrap();
            let level_db = 20.0 * (rms(&got[2000..14_000]) * std::f64::consts::SQRT_2).log10();
            assert!(level_db < -50.0, "{hz} Hz at {rate_hz} Hz came through at {level_db} dB");
        }
    }

    #[test]
    fn a_click_stays_in_its_place() {
        for rate_hz in COMMON_RATES_HZ {
            let mut samples = vec![0.0; rate_hz as usize];
            samples[rate_hz as usize / 2] = 1.0;
            let got = to_16khz(&samples, rate_hz).unwrap();
            let at = got.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1)).unwrap().0;
            assert!(at.abs_diff(8000) <= 1, "{rate_hz} Hz: the click went to sample {at}");
        }
    }

    #[test]
    fn sixteen_khz_is_left_alone() {
        let samples = tone(440.0, SAMPLE_RATE_HZ, 999);
        assert_eq!(to_16khz(&samples, SAMPLE_RATE_HZ).unwrap(), samples);
    }

    #[test]
    fn pieces_give_what_the_whole_gives() {
        for rate_hz in [8_000, 44_100, 48_000, 44_101] {
            let samples = tone(700.0, rate_hz, 30_000);
            let whole = to_16khz(&samples, rate_hz).unwrap();
            let mut resampler = StreamResampler::new(rate_hz).unwrap();
            let mut pieces = Vec::new();
            for piece in samples.chunks(1237) {
                resampler.push(piece, &mut pieces).unwrap();
            }
            resampler.finish(&mut pieces).unwrap();
            assert_eq!(pieces, whole, "{rate_hz} Hz");
        }
    }

    #[test]
    fn impossible_input_is_refused() {
        for rate_hz in [0, MIN_RATE_HZ - 1, MAX_RATE_HZ + 1, u32::MAX] {
            assert_eq!(to_16khz(&[0.0; 10], rate_hz).unwrap_err().code(), "invalid_parameter");
        }
        assert_eq!(to_16khz(&[0.0, f32::NAN], 8000).unwrap_err().code(), "invalid_samples");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn the_length_is_the_rounded_ratio(
            len in 0_usize..6000,
            rate_hz in prop_oneof![prop::sample::select(COMMON_RATES_HZ.to_vec()), MIN_RATE_HZ..200_000],
        ) {
            let got = to_16khz(&vec![0.25; len], rate_hz).unwrap();
            let expected = (len as f64 * 16_000.0 / f64::from(rate_hz)).round() as usize;
            prop_assert_eq!(got.len(), expected);
            prop_assert!(got.iter().all(|s| s.is_finite()));
        }
    }
}
