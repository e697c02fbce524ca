//! A room around the speaker: the direct sound, a few early reflections, and a tail that dies away.
//!
//! The tail is noise under an exponential, after Moorer ("About this reverberation business", 1979): 60 dB in the
//! reverberation time, at every frequency alike, though duller than the direct sound. It is no model of a given room:
//! no geometry, no modes, no seats.

use super::filters::{Biquad, convolve, gauss, power, uniform};
use crate::audio::SAMPLE_RATE_HZ;

/// Reverberation times are believed within these: a wardrobe, a church.
pub(super) const RT60_RANGE_S: [f32; 2] = [0.05, 3.0];
/// How far the direct sound is above everything else, as drawn for a clip: across the room, and close by.
pub(super) const DIRECT_RANGE_DB: [f32; 2] = [0.0, 12.0];

/// First echoes of walls, table and ceiling.
const N_EARLY: usize = 6;
/// When they come.
const EARLY_RANGE_S: [f32; 2] = [0.002, 0.04];
/// Their share of what is not the direct sound's energy.
const EARLY_SHARE: f64 = 0.4;
/// From here on reflections are too many to be told apart.
const TAIL_FROM_S: f32 = 0.015;
/// Walls and air take high frequencies first.
const TAIL_EDGE_HZ: f64 = 4500.0;

/// A room's impulse response, as long as its reverberation time; the direct sound is the first sample, of value 1, and
/// `direct_db` above the energy of all the rest.
#[must_use]
pub fn room_impulse(rt60_s: f32, direct_db: f32, rng: &mut fastrand::Rng) -> Vec<f32> {
    let rt60_s = if rt60_s.is_nan() { RT60_RANGE_S[0] } else { rt60_s.clamp(RT60_RANGE_S[0], RT60_RANGE_S[1]) };
    let direct_db = if direct_db.is_nan() { 0.0 } else { direct_db.clamp(-60.0, 60.0) };
    let rate = SAMPLE_RATE_HZ as f32;
    let n = (rt60_s * rate) as usize;
    // 60 dB are a factor of 1000 in amplitude.
    let decay = |at: usize| 10_f32.powf(-3.0 * at as f32 / n as f32);

    let mut tail: Vec<f32> = (0..n).map(|_| gauss(rng)).collect();
    Biquad::low_pass(TAIL_EDGE_HZ, std::f64::consts::FRAC_1_SQRT_2).run(&mut tail);
    for (at, sample) in tail.iter_mut().enumerate() {
        *sample *= if at < (TAIL_FROM_S * rate) as usize { 0.0 } else { decay(at) };
    }
    let mut early = vec![0.0_f32; n];
    for _ in 0..N_EARLY {
        let at = ((uniform(EARLY_RANGE_S, rng) * rate) as usize).clamp(1, n - 1);
        let sign = if rng.bool() { 1.0 } else { -1.0 };
        early[at] += sign * uniform([0.5, 1.0], rng) * decay(at);
    }

    let energy = f64::from(10_f32.powf(-direct_db / 10.0));
    scale_to(&mut early, energy * EARLY_SHARE);
    scale_to(&mut tail, energy * (1.0 - EARLY_SHARE));
    let mut impulse: Vec<f32> = early.iter().zip(&tail).map(|(a, b)| a + b).collect();
    impulse[0] = 1.0;
    impulse
}

/// Sets the sum of squares.
fn scale_to(samples: &mut [f32], energy: f64) {
    let before = power(samples) * samples.len() as f64;
    let factor = if before > 0.0 { (energy / before).sqrt() as f32 } else { 0.0 };
    samples.iter_mut().for_each(|s| *s *= factor);
}

/// The samples as heard in a room: convolved with its impulse response, as loud as before. What would ring on behind
/// the last sample is cut off: put silence there first.
#[must_use]
pub fn reverberate(samples: &[f32], impulse: &[f32]) -> Vec<f32> {
    if impulse.is_empty() {
        return samples.to_vec();
    }
    let mut out = convolve(samples, impulse);
    out.truncate(samples.len());
    let energy = power(samples) * samples.len() as f64;
    scale_to(&mut out, energy);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    const LATE: usize = SAMPLE_RATE_HZ as usize * 6 / 100; // 60 ms: behind the early reflections

    /// By Schroeder's backward integration: the slope from -5 to -25 dB, drawn out to 60 dB (ISO 3382's T20).
    fn measured_rt60_s(tail: &[f32]) -> f64 {
        let mut left: Vec<f64> = tail
            .iter()
            .rev()
            .scan(0.0, |sum: &mut f64, s| {
                *sum += f64::from(*s).powi(2);
                Some(*sum)
            })
            .collect();
        left.reverse();
        let crossing = |db: f64| left.iter().position(|e| *e < left[0] * 10_f64.powf(db / 10.0)).expect("it decays");
        3.0 * (crossing(-25.0) - crossing(-5.0)) as f64 / f64::from(SAMPLE_RATE_HZ)
    }

    #[test]
    fn the_tail_dies_away_in_the_reverberation_time() {
        for (seed, rt60_s) in [(1, 0.2), (2, 0.4), (3, 0.8), (4, 1.5)] {
            let impulse = room_impulse(rt60_s, 3.0, &mut fastrand::Rng::with_seed(seed));
            let got = measured_rt60_s(&impulse[LATE..]);
            assert!((got / f64::from(rt60_s) - 1.0).abs() < 0.2, "{got} s, not {rt60_s} s");
        }
    }

    #[test]
    fn the_direct_sound_is_as_far_above_the_rest_as_was_asked() {
        for direct_db in [0.0, 6.0, 12.0] {
            let impulse = room_impulse(0.5, direct_db, &mut fastrand::Rng::with_seed(5));
            assert_eq!(impulse[0], 1.0);
            let rest = power(&impulse[1..]) * (impulse.len() - 1) as f64;
            // Early reflections and tail add up without regard for their signs.
            assert!((10.0 * rest.log10() + f64::from(direct_db)).abs() < 1.0, "{} dB", -10.0 * rest.log10());
        }
    }

    #[test]
    fn a_room_rings_on_and_is_as_loud_as_before() {
        let mut rng = fastrand::Rng::with_seed(6);
        let mut samples: Vec<f32> = (0..4000).map(|_| 0.1 * gauss(&mut rng)).collect();
        samples.resize(12_000, 0.0);
        let got = reverberate(&samples, &room_impulse(0.6, 3.0, &mut rng));
        assert_eq!(got.len(), samples.len());
        assert!((power(&got) / power(&samples) - 1.0).abs() < 0.01);
        let level_db = |part: &[f32]| 10.0 * power(part).log10();
        let fall = level_db(&got[4800..5600]) - level_db(&got[9600..10_400]);
        // 4800 samples are 0.3 s: half the reverberation time, 30 dB.
        assert!((fall - 30.0).abs() < 5.0, "{fall} dB");
    }

    #[test]
    fn odd_rooms_and_clips_survive() {
        let mut rng = fastrand::Rng::with_seed(7);
        for rt60_s in [0.0, -1.0, f32::NAN, f32::INFINITY] {
            assert!(room_impulse(rt60_s, f32::NAN, &mut rng).iter().all(|s| s.is_finite()));
        }
        assert!(reverberate(&[], &[1.0, 0.5]).is_empty());
        assert_eq!(reverberate(&[0.5], &[]), [0.5]);
        assert_eq!(reverberate(&[0.0; 9], &[1.0, 0.5]), [0.0; 9]);
    }
}
