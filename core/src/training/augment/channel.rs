//! What happens to sound between the microphone and us: its colour, an amplifier that is too hot, coarse steps, a
//! telephone, a codec, packets that never arrive.

use std::f64::consts::FRAC_1_SQRT_2;

use super::filters::{Biquad, FRAME, by_frames, filtered, low_pass_kernel, peak, uniform};
use crate::audio::SAMPLE_RATE_HZ;

/// Fractions of the peak at which an amplifier clips.
pub(super) const CLIP_RANGE: [f32; 2] = [0.01, 1.0];
/// Bits of a sample.
pub(super) const BITS_RANGE: [u32; 2] = [2, 16];

/// The band of a telephone (ITU-T G.712).
const TELEPHONE_BAND_HZ: [f64; 2] = [300.0, 3400.0];
/// Half a response here, none from 3771 Hz on: what is made of 8 kHz holds mirror images above 4 kHz.
const TELEPHONE_IMAGE_HZ: f64 = 3600.0;
/// Taps of its filters: an edge of 170 Hz to either side.
const TELEPHONE_TAPS: usize = 257;
/// G.711's offset, so that each segment is twice as long as the one before.
const MU_LAW_BIAS: i32 = 0x84;
/// G.711's largest magnitude.
const MU_LAW_LIMIT: i32 = 32_635;

/// The bands of CELT (RFC 6716, table 55) in Hz.
const CODEC_BANDS_HZ: [f32; 18] = [
    0.0, 200.0, 400.0, 600.0, 800.0, 1000.0, 1200.0, 1400.0, 1600.0, 2000.0, 2400.0, 2800.0, 3200.0, 4000.0, 4800.0,
    5600.0, 6800.0, 8000.0,
];
/// A band's level is kept in steps of this.
const CODEC_LEVEL_STEP_DB: f32 = 1.5;

/// A packet of speech on the net, 20 ms.
const PACKET: usize = SAMPLE_RATE_HZ as usize / 50; // 320 samples
/// The edges of a gap are this long, 1 ms: a receiver that conceals nothing at least does not crackle.
const GAP_EDGE: usize = SAMPLE_RATE_HZ as usize / 1000; // 16 samples
/// At most this part of a clip is lost: a command has to stay one.
const MAX_LOST: usize = 10;

/// A microphone's colour: the gains in dB of a low shelf at 250 Hz, a bump or dip at 1.8 kHz and a high shelf at 4 kHz.
#[must_use]
pub fn colour(samples: &[f32], gains_db: [f32; 3]) -> Vec<f32> {
    let [low, middle, high] = gains_db.map(|db| if db.is_nan() { 0.0 } else { f64::from(db.clamp(-24.0, 24.0)) });
    let mut out = samples.to_vec();
    Biquad::low_shelf(250.0, low).run(&mut out);
    Biquad::peak(1800.0, FRAC_1_SQRT_2, middle).run(&mut out);
    Biquad::high_shelf(4000.0, high).run(&mut out);
    out
}

/// An amplifier that cannot go further than this fraction of the peak: what is above is flat.
#[must_use]
pub fn clip(samples: &[f32], level: f32) -> Vec<f32> {
    let level = if level.is_nan() { 1.0 } else { level.clamp(CLIP_RANGE[0], CLIP_RANGE[1]) };
    let limit = level * peak(samples);
    samples.iter().map(|s| s.clamp(-limit, limit)).collect()
}

/// Samples of so many bits, rounded without dither.
#[must_use]
pub fn quantise(samples: &[f32], bits: u32) -> Vec<f32> {
    let step = 2.0 / (1_u32 << bits.clamp(BITS_RANGE[0], BITS_RANGE[1])) as f32;
    samples.iter().map(|s| ((s / step).round() * step).clamp(-1.0, 1.0 - step)).collect()
}

/// A telephone: 300 to 3400 Hz at 8 kHz, each sample one byte of G.711's mu-law, and back. Full scale is 1. Not a
/// mobile telephone's codec: that is [`codec`].
#[must_use]
pub fn telephone(samples: &[f32]) -> Vec<f32> {
    let [low_hz, high_hz] = TELEPHONE_BAND_HZ;
    let band: Vec<f32> = low_pass_kernel(high_hz, TELEPHONE_TAPS)
        .iter()
        .zip(low_pass_kernel(low_hz, TELEPHONE_TAPS))
        .map(|(below_high, below_low)| below_high - below_low)
        .collect();
    let mut line = filtered(samples, &band);
    for (i, sample) in line.iter_mut().enumerate() {
        // Every second sample travels; the zero between is filled by the filter, at half the level.
        *sample = if i % 2 == 0 {
            let wanted = (*sample * 32_768.0).round() as i16; // saturates
            2.0 * f32::from(from_mu_law(to_mu_law(wanted))) / 32_768.0
        } else {
            0.0
        };
    }
    filtered(&line, &low_pass_kernel(TELEPHONE_IMAGE_HZ, TELEPHONE_TAPS))
}

/// ITU-T G.711's mu-law: a sign, three bits of segment, four bits within it, all inverted.
fn to_mu_law(sample: i16) -> u8 {
    let sign = if sample < 0 { 0x80 } else { 0 };
    let magnitude = i32::from(sample).abs().min(MU_LAW_LIMIT) + MU_LAW_BIAS; // 132..=32767
    let segment = magnitude.ilog2() - 7; // 0..=7
    let within = (magnitude >> (segment + 3)) & 0xf;
    !(sign | ((segment as u8) << 4) | within as u8)
}

fn from_mu_law(code: u8) -> i16 {
    let code = !code;
    let (segment, within) = ((code >> 4) & 7, i32::from(code & 0xf));
    let magnitude = (((within << 3) + MU_LAW_BIAS) << segment) - MU_LAW_BIAS; // 0..=32124
    (if code & 0x80 == 0 { magnitude } else { -magnitude }) as i16
}

/// What a codec at a low bit rate does: in each of CELT's bands the spectrum of each frame in steps of `coarseness`
/// (about 0.5 to 1.8) times the band's level, most bins at 0 from 1.4 on; the level itself in steps of 1.5 dB; nothing
/// above `cutoff_hz`.
///
/// It sounds like one: watery, with holes. It is none: frames of an FFT and not of an MDCT, twice as many numbers as
/// samples, no linear prediction as in AMR and SILK, no bits counted.
#[must_use]
pub fn codec(samples: &[f32], coarseness: f32, cutoff_hz: f32) -> Vec<f32> {
    let coarseness = if coarseness.is_nan() { 1.0 } else { coarseness.clamp(0.01, 4.0) };
    let bin_of = |hz: f32| (hz * FRAME as f32 / SAMPLE_RATE_HZ as f32).round() as usize;
    by_frames(samples, |spectrum| {
        let cutoff = bin_of(cutoff_hz.max(0.0)).min(spectrum.len());
        // The last bin, half the sample rate, belongs to no band.
        spectrum[cutoff.min(bin_of(8000.0))..].fill(Default::default());
        for edges in CODEC_BANDS_HZ.windows(2) {
            let end = bin_of(edges[1]).min(cutoff);
            let band = &mut spectrum[bin_of(edges[0]).min(end)..end];
            let n = band.len().max(1) as f32;
            let rms = (band.iter().map(|bin| bin.norm_sqr()).sum::<f32>() / n).sqrt();
            if rms < 1e-9 {
                continue;
            }
            let level_db = (20.0 * rms.log10() / CODEC_LEVEL_STEP_DB).round() * CODEC_LEVEL_STEP_DB;
            let level = 10_f32.powf(level_db / 20.0);
            let step = coarseness * rms;
            let stepped = |value: f32| (value / step).round() * step;
            let mut sum = 0.0_f32;
            for bin in band.iter() {
                sum += stepped(bin.re).powi(2) + stepped(bin.im).powi(2);
            }
            let kept = (sum / n).sqrt();
            for bin in band {
                // A band of bins that are all alike may round to nothing, and stays as it was.
                if kept > 0.0 {
                    (bin.re, bin.im) = (stepped(bin.re) * level / kept, stepped(bin.im) * level / kept);
                } else {
                    *bin *= level / rms;
                }
            }
        }
    })
}

/// Silence where one to three runs of one to four packets of 20 ms were lost, a tenth of the clip at most. Also how
/// many packets: 0 for a clip under 0.2 s.
#[must_use]
pub fn drop_packets(samples: &[f32], rng: &mut fastrand::Rng) -> (Vec<f32>, usize) {
    let mut out = samples.to_vec();
    let n_packets = samples.len() / PACKET;
    let mut left = n_packets / MAX_LOST;
    let mut lost = vec![false; n_packets];
    for _ in 0..rng.usize(1..=3) {
        let run = rng.usize(1..=4).min(left);
        let first = rng.usize(0..=n_packets - run);
        lost[first..first + run].fill(true);
        left -= run;
    }
    for packet in (0..n_packets).filter(|packet| lost[*packet]) {
        let is_lost = |neighbour: Option<usize>| neighbour.and_then(|at| lost.get(at)).is_some_and(|lost| *lost);
        let (before, after) = (is_lost(packet.checked_sub(1)), is_lost(Some(packet + 1)));
        for (i, sample) in out[packet * PACKET..(packet + 1) * PACKET].iter_mut().enumerate() {
            let edge = |from_edge: usize, inside: bool| {
                if inside { 0.0 } else { 1.0 - from_edge.min(GAP_EDGE) as f32 / GAP_EDGE as f32 }
            };
            *sample *= edge(i, before).max(edge(PACKET - 1 - i, after));
        }
    }
    (out, lost.iter().filter(|lost| **lost).count())
}

/// Gains for [`colour`] of up to so many dB.
pub(super) fn any_colour(strength_db: f32, rng: &mut fastrand::Rng) -> [f32; 3] {
    [(); 3].map(|()| uniform([-strength_db, strength_db], rng))
}

#[cfg(test)]
mod tests {
    use realfft::RealFftPlanner;

    use super::super::filters::{gauss, power};
    use super::*;

    fn noise(n: usize, rms: f32, seed: u64) -> Vec<f32> {
        let mut rng = fastrand::Rng::with_seed(seed);
        (0..n).map(|_| rms * gauss(&mut rng)).collect()
    }

    fn tone(hz: f32, n: usize) -> Vec<f32> {
        (0..n).map(|i| 0.5 * (std::f64::consts::TAU * f64::from(hz) * i as f64 / 16_000.0).sin() as f32).collect()
    }

    /// The energy of 16384 samples between two frequencies, in dB of all of it; a Hann window keeps it in its place.
    fn share_db(samples: &[f32], from_hz: f32, to_hz: f32) -> f32 {
        let n = 16_384;
        let fft = RealFftPlanner::<f32>::new().plan_fft_forward(n);
        let mut input = fft.make_input_vec();
        for (i, (slot, sample)) in input.iter_mut().zip(samples).enumerate() {
            *slot = sample * (0.5 - 0.5 * (std::f32::consts::TAU * i as f32 / n as f32).cos());
        }
        let mut spectrum = fft.make_output_vec();
        fft.process(&mut input, &mut spectrum).expect("buffers of its own");
        let bin = |hz: f32| (hz / 16_000.0 * n as f32) as usize;
        let energy = |bins: &[realfft::num_complex::Complex<f32>]| bins.iter().map(|b| b.norm_sqr()).sum::<f32>();
        10.0 * (energy(&spectrum[bin(from_hz)..bin(to_hz)]) / energy(&spectrum)).log10()
    }

    #[test]
    fn mu_law_is_g_711s() {
        // The corners of the standard's table, and that each code names a value that it is the code of.
        for (sample, code) in [(0, 0xff), (i16::MAX, 0x80), (i16::MIN, 0x00), (-8, 0x7e), (8, 0xfe)] {
            assert_eq!(to_mu_law(sample), code, "{sample}");
        }
        for (code, sample) in [(0xff, 0), (0x80, 32_124), (0x00, -32_124), (0xfe, 8), (0x8f, 16_764)] {
            assert_eq!(from_mu_law(code), sample, "{code:#x}");
        }
        for code in (0..=255_u8).filter(|code| *code != 0x7f) {
            assert_eq!(to_mu_law(from_mu_law(code)), code); // 0x7f is the other zero
        }
    }

    #[test]
    fn a_telephone_has_its_band_and_nothing_else() {
        let heard = telephone(&noise(16_384, 0.1, 1));
        assert_eq!(heard.len(), 16_384);
        assert!(share_db(&heard, 3800.0, 8000.0) < -30.0, "{} dB", share_db(&heard, 3800.0, 8000.0));
        assert!(share_db(&heard, 0.0, 150.0) < -30.0, "{} dB", share_db(&heard, 0.0, 150.0));
        // In the band: as loud as before, and mu-law's noise 35 dB below.
        let before = tone(1000.0, 16_384);
        let heard = telephone(&before);
        let error: Vec<f32> = heard.iter().zip(&before).map(|(a, b)| a - b).collect();
        let snr_db = 10.0 * (power(&before[1000..15_000]) / power(&error[1000..15_000])).log10();
        assert!((30.0..50.0).contains(&snr_db), "{snr_db} dB");
    }

    #[test]
    fn a_codec_does_damage_below_its_cut_off_and_leaves_nothing_above() {
        let before = noise(16_384, 0.1, 2);
        let mut snrs_db = Vec::new();
        for coarseness in [0.2, 0.7, 1.5] {
            let after = codec(&before, coarseness, 4000.0);
            assert!(share_db(&after, 4500.0, 8000.0) < -40.0, "{} dB", share_db(&after, 4500.0, 8000.0));
            // What the cut-off alone would have left.
            let cut = codec(&before, 0.01, 4000.0);
            let error: Vec<f32> = after.iter().zip(&cut).map(|(a, b)| a - b).collect();
            snrs_db.push(10.0 * (power(&cut) / power(&error)).log10());
        }
        assert!(snrs_db.windows(2).all(|pair| pair[0] > pair[1] + 2.0), "{snrs_db:?}");
        assert!(snrs_db[0] > 12.0 && snrs_db[2] > 0.0, "{snrs_db:?}");
    }

    #[test]
    fn clipping_is_flat_at_its_level() {
        let before = tone(200.0, 1600);
        let after = clip(&before, 0.4);
        assert!((peak(&after) - 0.2).abs() < 1e-3);
        for (a, b) in after.iter().zip(&before) {
            assert_eq!(*a, b.clamp(-peak(&after), peak(&after)));
        }
        // A sine is above 0.4 of its peak for 74 % of the time: 1 - asin(0.4) · 2 / π.
        let flat = after.iter().filter(|s| s.abs() == peak(&after)).count();
        assert!((flat as f32 / 1600.0 - 0.738).abs() < 0.02, "{flat} samples");
    }

    #[test]
    fn quantised_samples_are_multiples_of_a_step_six_db_a_bit() {
        let before = noise(20_000, 0.2, 3);
        let noise_db = |bits| {
            let after = quantise(&before, bits);
            let step = 2.0 / (1_u32 << bits) as f32;
            assert!(after.iter().all(|s| (s / step).fract() == 0.0 && (-1.0..1.0).contains(s)));
            let error: Vec<f32> = after.iter().zip(&before).map(|(a, b)| a - b).collect();
            10.0 * power(&error).log10()
        };
        assert!((noise_db(6) - noise_db(10) - 24.08).abs() < 0.5);
    }

    #[test]
    fn a_colour_is_heard_where_it_is_applied() {
        let gain_db = |hz, gains_db| {
            let before = tone(hz, 8000);
            10.0 * (power(&colour(&before, gains_db)[4000..]) / power(&before[4000..])).log10()
        };
        assert!((gain_db(40.0, [6.0, 0.0, 0.0]) - 6.0).abs() < 0.5);
        assert!((gain_db(1800.0, [0.0, -6.0, 0.0]) + 6.0).abs() < 0.5);
        assert!((gain_db(7500.0, [0.0, 0.0, 6.0]) - 6.0).abs() < 0.5);
        assert!(gain_db(1000.0, [0.0; 3]).abs() < 0.01);
    }

    #[test]
    fn lost_packets_are_silent_and_the_rest_is_untouched() {
        let before = vec![0.5; 32_000];
        let mut most = 0_usize;
        for seed in 0..50 {
            let (after, n_lost) = drop_packets(&before, &mut fastrand::Rng::with_seed(seed));
            let gone = |packet: &&[f32]| packet[GAP_EDGE..PACKET - GAP_EDGE].iter().all(|s| *s == 0.0);
            assert_eq!(after.chunks_exact(PACKET).filter(gone).count(), n_lost);
            let whole = |packet: &&[f32]| packet.iter().all(|s| *s == 0.5);
            assert_eq!(after.chunks_exact(PACKET).filter(whole).count(), 100 - n_lost);
            assert!((1..=10).contains(&n_lost));
            let steepest = after.windows(2).map(|w| (w[1] - w[0]).abs()).fold(0.0, f32::max);
            assert!(steepest < 0.05, "a step of {steepest}");
            most = most.max(n_lost);
        }
        assert!(most > 4, "never more than {most} packets");
        assert_eq!(drop_packets(&[0.5; 3000], &mut fastrand::Rng::with_seed(1)), (vec![0.5; 3000], 0));
    }

    #[test]
    fn empty_and_one_sample_survive() {
        for n in [0, 1, 2] {
            let samples = vec![0.7; n];
            let mut rng = fastrand::Rng::with_seed(1);
            assert_eq!(telephone(&samples).len(), n);
            assert_eq!(codec(&samples, f32::NAN, f32::NAN).len(), n);
            assert_eq!(clip(&samples, 0.0).len(), n);
            assert_eq!(quantise(&samples, 0).len(), n);
            assert_eq!(colour(&samples, [f32::NAN; 3]).len(), n);
            assert_eq!(drop_packets(&samples, &mut rng).0.len(), n);
        }
    }
}
