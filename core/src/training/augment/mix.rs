//! Noise under speech at a given ratio.
//!
//! The level of the speech is that of its active parts, in the manner of ITU-T P.56, so that pauses and silent ends do
//! not make the noise softer. Not P.56 itself, which follows an envelope with a hang-over: here it is frames.

use std::f32::consts::FRAC_PI_2;

use super::filters::power;
use crate::audio::SAMPLE_RATE_HZ;

/// 20 ms.
const ACTIVITY_FRAME: usize = SAMPLE_RATE_HZ as usize / 50; // 320 samples
/// Frames this far below the loud ones are pauses, as a factor of power: 20 dB.
const PAUSE: f64 = 0.01;
/// The loud ones: the third loudest frame, which a click of up to 20 ms does not reach.
const LOUD_RANK: usize = 2;
/// A piece of noise that starts again fades over this long, 50 ms.
const MAX_FADE: usize = SAMPLE_RATE_HZ as usize / 20; // 800 samples
/// Below this mean square, -120 dBFS, there is nothing to mix.
const SMALLEST_POWER: f64 = 1e-12;
/// Ratios are believed within these.
pub(super) const SNR_RANGE_DB: [f32; 2] = [-30.0, 100.0];

/// The mean square of the 20 ms frames that are at most 20 dB below the third loudest; 0 for silence.
#[must_use]
pub fn active_power(speech: &[f32]) -> f64 {
    let powers: Vec<f64> = speech.chunks(ACTIVITY_FRAME).map(power).collect();
    let mut sorted = powers.clone();
    sorted.sort_by(|a, b| b.total_cmp(a));
    let Some(&loudest) = sorted.first() else { return 0.0 };
    // What is shorter than three frames, or a click in silence, is all there is.
    let loud = sorted.get(LOUD_RANK).copied().filter(|p| *p > SMALLEST_POWER).unwrap_or(loudest);
    let active = speech.chunks(ACTIVITY_FRAME).zip(&powers).filter(|(_, p)| **p >= PAUSE * loud);
    let (sum, n) =
        active.fold((0.0_f64, 0_usize), |(sum, n), (frame, p)| (sum + p * frame.len() as f64, n + frame.len()));
    sum / n.max(1) as f64
}

/// `speech` with `noise` under it. `snr_db` is the ratio of the speech's [`active_power`] to the mean square of the
/// noise over the whole length of the speech. Longer noise is cut; shorter noise starts again, and fades over from its
/// end to its start without a change of power. Samples have to be finite; the sum may pass 1.
///
/// The speech as it is if either is silent (below -120 dBFS) or the ratio is no number.
#[must_use]
pub fn mix_at_snr(speech: &[f32], noise: &[f32], snr_db: f32) -> Vec<f32> {
    let noise = looped(noise, speech.len());
    let (speech_power, noise_power) = (active_power(speech), power(&noise));
    let audible = |power: f64| power.is_finite() && power > SMALLEST_POWER;
    if !audible(speech_power) || !audible(noise_power) || snr_db.is_nan() {
        return speech.to_vec();
    }
    let snr_db = f64::from(snr_db.clamp(SNR_RANGE_DB[0], SNR_RANGE_DB[1]));
    let gain = (speech_power / noise_power / 10_f64.powf(snr_db / 10.0)).sqrt();
    speech.iter().zip(&noise).map(|(s, n)| (f64::from(*s) + gain * f64::from(*n)) as f32).collect()
}

/// Exactly `n` samples of noise; none if there is none.
pub(super) fn looped(noise: &[f32], n: usize) -> Vec<f32> {
    if noise.is_empty() || noise.len() >= n {
        return noise[..noise.len().min(n)].to_vec();
    }
    let fade = (noise.len() / 4).min(MAX_FADE);
    let period = noise.len() - fade;
    let mut out = vec![0.0_f32; n];
    for start in (0..n).step_by(period) {
        for (i, (sum, sample)) in out[start..].iter_mut().zip(noise).enumerate() {
            // Sine and cosine: the squares of the two weights add up to 1.
            let part = |i: usize| FRAC_PI_2 * (i as f32 + 0.5) / fade as f32;
            let weight = match i {
                i if i >= period => part(i - period).cos(),
                i if i < fade && start > 0 => part(i).sin(),
                _ => 1.0,
            };
            *sum += sample * weight;
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::super::filters::gauss;
    use super::*;

    const SECOND: usize = SAMPLE_RATE_HZ as usize;

    fn noise(n: usize, rms: f32, seed: u64) -> Vec<f32> {
        let mut rng = fastrand::Rng::with_seed(seed);
        (0..n).map(|_| rms * gauss(&mut rng)).collect()
    }

    /// Half a second of tone, half a second of nothing, three times over.
    fn speech() -> Vec<f32> {
        let tone = |i: usize| 0.3 * (std::f32::consts::TAU * 300.0 * (i % SECOND) as f32 / SECOND as f32).sin();
        (0..3 * SECOND).map(|i| if i % SECOND < SECOND / 2 { tone(i) } else { 0.0 }).collect()
    }

    #[test]
    fn the_ratio_is_what_was_asked() {
        let speech = speech();
        let speech_power = 0.3 * 0.3 / 2.0; // of the tone, by definition
        for (snr_db, n, rms) in [(0.0_f32, 4 * SECOND, 0.02), (10.0, SECOND / 3, 0.5), (30.0, 3 * SECOND, 1e-3)] {
            let mixed = mix_at_snr(&speech, &noise(n, rms, 1), snr_db);
            let added: Vec<f32> = mixed.iter().zip(&speech).map(|(m, s)| m - s).collect();
            let got = 10.0 * (speech_power / power(&added)).log10();
            assert!((got - f64::from(snr_db)).abs() < 0.5, "{got} dB, not {snr_db} dB");
        }
    }

    #[test]
    fn pauses_silent_ends_and_clicks_do_not_count() {
        let speech = speech();
        let expected = active_power(&speech);
        assert!((expected / 0.045 - 1.0).abs() < 0.02, "{expected}");
        let mut longer = vec![0.0; 5 * SECOND];
        longer.extend(&speech);
        longer.extend(vec![0.0; 3 * SECOND]);
        assert!((active_power(&longer) / expected - 1.0).abs() < 1e-6);
        // A click that is 20 dB above every frame of the speech would make pauses of them all, and a level 250 times as
        // high; so it is one active frame of seventy-six.
        longer[100] = 60.0;
        let with_click = active_power(&longer);
        assert!(with_click < 5.0 * expected, "{with_click}");
    }

    #[test]
    fn short_noise_goes_on_without_steps_or_dips() {
        let short = noise(SECOND / 2, 0.1, 2);
        let long = looped(&short, 4 * SECOND);
        assert_eq!(long.len(), 4 * SECOND);
        assert_eq!(long[..SECOND / 4], short[..SECOND / 4]);
        for piece in long.chunks_exact(400) {
            assert!((10.0 * (power(piece) / 0.01).log10()).abs() < 1.5, "{} dB", 10.0 * (power(piece) / 0.01).log10());
        }
        // A slow wave that does not fit its length would jump by up to twice its height.
        let wave: Vec<f32> = (0..5000).map(|i| (i as f32 * 0.0123).sin()).collect();
        let worst = looped(&wave, 30_000).windows(2).map(|w| (w[1] - w[0]).abs()).fold(0.0, f32::max);
        assert!(worst < 0.03, "a step of {worst}");
    }

    #[test]
    fn nothing_to_mix_changes_nothing() {
        let speech = speech();
        for noise in [&[][..], &[0.0; 100], &[f32::NAN; 9], &[f32::INFINITY]] {
            assert_eq!(mix_at_snr(&speech, noise, 10.0), speech);
        }
        assert_eq!(mix_at_snr(&speech, &[0.1], f32::NAN), speech);
        assert_eq!(mix_at_snr(&[0.0; 50], &[0.1], 0.0), [0.0; 50]);
        assert!(mix_at_snr(&[], &[0.1], 0.0).is_empty());
        assert_eq!(mix_at_snr(&[0.5], &[0.25], 0.0), [1.0]);
    }
}
