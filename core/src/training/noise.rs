//! Synthetic sound in which nobody speaks: background for [`augment`](super::augment::augment), and clips that a head
//! has to reject.
//!
//! Pink noise by Paul Kellet's filter ("economy" version, musicdsp.org); everything else is put together here from
//! filtered noise, tables of harmonics and decaying resonances. Imitations, not recordings: they have the spectra and
//! the rhythms of what they are named after, and no more.

use std::f64::consts::{FRAC_1_SQRT_2, TAU};

use serde::{Deserialize, Serialize};

use super::augment::filters::{Biquad, from_db, gauss, peak, power, uniform};
use crate::audio::SAMPLE_RATE_HZ;

const RATE: f32 = SAMPLE_RATE_HZ as f32;
/// Level of what is made.
const RMS: [f32; 2] = [0.05, 0.1];
/// Digital silence, or a converter's own noise of at most this level.
const SILENCE_RMS: f32 = 3e-4;
/// Music changes its chord this often.
const CHORD_SAMPLES: usize = SAMPLE_RATE_HZ as usize / 2;
/// Values of one period in a table; between them lines are drawn.
const TABLE: usize = 2048;

/// A sound without speech.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NoiseKind {
    /// Digital zero, or next to nothing.
    Silence,
    /// All frequencies alike.
    White,
    /// 3 dB less an octave.
    Pink,
    /// 6 dB less an octave.
    Brown,
    /// 50 Hz mains and its harmonics.
    Hum,
    /// Air, and the tone of the blades.
    Fan,
    /// Traffic that comes and goes, engines that pass.
    Street,
    /// Taps, keys, cutlery.
    Clicks,
    /// Chords, a beat.
    Music,
}

impl NoiseKind {
    /// Every kind, silence first.
    pub const ALL: [Self; 9] = [
        Self::Silence,
        Self::White,
        Self::Pink,
        Self::Brown,
        Self::Hum,
        Self::Fan,
        Self::Street,
        Self::Clicks,
        Self::Music,
    ];

    /// In lower case.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Silence => "silence",
            Self::White => "white",
            Self::Pink => "pink",
            Self::Brown => "brown",
            Self::Hum => "hum",
            Self::Fan => "fan",
            Self::Street => "street",
            Self::Clicks => "clicks",
            Self::Music => "music",
        }
    }
}

/// `n_samples` at 16 kHz with an RMS of 0.05 to 0.1, less where single peaks would pass 1; silence at most 0.0003.
#[must_use]
pub fn make(kind: NoiseKind, n_samples: usize, rng: &mut fastrand::Rng) -> Vec<f32> {
    let mut out = match kind {
        NoiseKind::Silence => return silence(n_samples, rng),
        NoiseKind::White => white(n_samples, rng),
        NoiseKind::Pink => pink(n_samples, rng),
        NoiseKind::Brown => brown(n_samples, rng),
        NoiseKind::Hum => hum(n_samples, rng),
        NoiseKind::Fan => fan(n_samples, rng),
        NoiseKind::Street => street(n_samples, rng),
        NoiseKind::Clicks => clicks(n_samples, rng),
        NoiseKind::Music => music(n_samples, rng),
    };
    level(&mut out, uniform(RMS, rng));
    out
}

/// Several people at once: each of `n_talkers` says clips one after the other, drawn at random, all about as loud. As
/// loud as other noise. Zeros if nothing is heard in any of the clips.
#[must_use]
pub fn babble(clips: &[&[f32]], n_samples: usize, n_talkers: usize, rng: &mut fastrand::Rng) -> Vec<f32> {
    let mut out = vec![0.0_f32; n_samples];
    let audible: Vec<(&[f32], f32)> = clips
        .iter()
        .map(|clip| (*clip, power(clip).sqrt() as f32))
        .filter(|(_, rms)| rms.is_finite() && *rms > 1e-5)
        .collect();
    if audible.is_empty() {
        return out;
    }
    for _ in 0..n_talkers {
        let talker = from_db(uniform([-4.0, 4.0], rng));
        let mut at = 0;
        while at < n_samples {
            let (clip, rms) = audible[rng.usize(0..audible.len())];
            // Somebody was already talking before we listened.
            let clip = if at == 0 { &clip[rng.usize(0..clip.len())..] } else { clip };
            for (sum, sample) in out[at..].iter_mut().zip(clip) {
                *sum += talker / rms * sample;
            }
            at += clip.len();
        }
    }
    level(&mut out, uniform(RMS, rng));
    out
}

/// Scales to an RMS, or to a peak of 1 if that is less.
fn level(samples: &mut [f32], rms: f32) {
    let now = power(samples).sqrt() as f32;
    if now > 0.0 {
        let factor = (rms / now).min(1.0 / peak(samples));
        samples.iter_mut().for_each(|s| *s = (*s * factor).clamp(-1.0, 1.0));
    }
}

fn silence(n: usize, rng: &mut fastrand::Rng) -> Vec<f32> {
    if rng.bool() {
        return vec![0.0; n];
    }
    let rms = SILENCE_RMS * uniform([0.1, 0.9], rng);
    (0..n).map(|_| rms * gauss(rng)).collect()
}

fn white(n: usize, rng: &mut fastrand::Rng) -> Vec<f32> {
    (0..n).map(|_| gauss(rng)).collect()
}

fn pink(n: usize, rng: &mut fastrand::Rng) -> Vec<f32> {
    // Three low-passes an even way apart on a logarithmic scale; within 0.5 dB from a thousandth of the rate on.
    let mut states = [0.0_f32; 3];
    (0..n)
        .map(|_| {
            let white = gauss(rng);
            let poles = [(0.997_65, 0.099_046), (0.963, 0.296_516_4), (0.57, 1.052_691_3)];
            for (state, (pole, gain)) in states.iter_mut().zip(poles) {
                *state = pole * *state + gain * white;
            }
            states.iter().sum::<f32>() + 0.1848 * white
        })
        .collect()
}

fn brown(n: usize, rng: &mut fastrand::Rng) -> Vec<f32> {
    // A sum that leaks, or it would wander off: flat below 5 Hz.
    let mut sum = 0.0_f32;
    (0..n)
        .map(|_| {
            sum = 0.998 * sum + gauss(rng);
            sum
        })
        .collect()
}

/// One period of a sound, to be read at any speed.
struct Wavetable([f32; TABLE]);

impl Wavetable {
    /// Harmonics from the first on, of random phases, together of RMS 1.
    fn new(amplitudes: &[f32], rng: &mut fastrand::Rng) -> Self {
        let mut table = [0.0_f32; TABLE];
        for (harmonic, amplitude) in amplitudes.iter().enumerate() {
            let phase = TAU * rng.f64();
            let step = TAU * (harmonic + 1) as f64 / TABLE as f64;
            for (i, value) in table.iter_mut().enumerate() {
                *value += amplitude * (step * i as f64 + phase).sin() as f32;
            }
        }
        let rms = power(&table).sqrt() as f32;
        Self(table.map(|value| value / rms.max(1e-9)))
    }

    /// `turns` in periods, 0 or more.
    fn at(&self, turns: f64) -> f32 {
        let place = turns.fract() * TABLE as f64;
        let (i, part) = (place as usize % TABLE, place.fract() as f32);
        self.0[i] * (1.0 - part) + self.0[(i + 1) % TABLE] * part
    }
}

fn hum(n: usize, rng: &mut fastrand::Rng) -> Vec<f32> {
    let hz = f64::from(uniform([49.8, 50.2], rng));
    // What rectifiers make of it: even harmonics are often the louder ones.
    let amplitudes: Vec<f32> = (1..=20).map(|h| uniform([0.2, 1.0], rng) / (h as f32).powf(0.8)).collect();
    let table = Wavetable::new(&amplitudes, rng);
    (0..n).map(|i| table.at(hz * i as f64 / f64::from(RATE)) + 0.02 * gauss(rng)).collect()
}

fn fan(n: usize, rng: &mut fastrand::Rng) -> Vec<f32> {
    let mut air = pink(n, rng);
    Biquad::low_pass(f64::from(uniform([600.0, 2500.0], rng)), FRAC_1_SQRT_2).run(&mut air);
    level(&mut air, 0.2);
    let turns_per_s = f64::from(uniform([8.0, 40.0], rng));
    let n_blades = rng.u32(3..=7);
    let blades = Wavetable::new(&[1.0, 0.5, 0.3, 0.15], rng);
    let (tone, swell) = (uniform([0.02, 0.12], rng), uniform([0.05, 0.3], rng));
    air.iter()
        .enumerate()
        .map(|(i, air)| {
            let turns = turns_per_s * i as f64 / f64::from(RATE);
            let slow = 1.0 + swell * (TAU * turns).sin() as f32;
            air * slow + tone * blades.at(turns * f64::from(n_blades))
        })
        .collect()
}

/// A value that wanders between random ones, `step` samples apart.
fn wander(n: usize, step: usize, range: [f32; 2], rng: &mut fastrand::Rng) -> Vec<f32> {
    let knots: Vec<f32> = (0..n / step + 2).map(|_| uniform(range, rng)).collect();
    (0..n)
        .map(|i| {
            let part = (i % step) as f32 / step as f32;
            knots[i / step] * (1.0 - part) + knots[i / step + 1] * part
        })
        .collect()
}

fn street(n: usize, rng: &mut fastrand::Rng) -> Vec<f32> {
    let mut out = pink(n, rng);
    Biquad::low_pass(f64::from(uniform([800.0, 3000.0], rng)), FRAC_1_SQRT_2).run(&mut out);
    level(&mut out, 0.1);
    for (sample, db) in out.iter_mut().zip(wander(n, SAMPLE_RATE_HZ as usize * 3 / 4, [-6.0, 6.0], rng)) {
        *sample *= from_db(db);
    }
    // About an engine every three seconds.
    for _ in 0..=n / (3 * SAMPLE_RATE_HZ as usize) {
        let amplitudes: Vec<f32> = (1..=16).map(|h| uniform([0.3, 1.0], rng) / h as f32).collect();
        let engine = Wavetable::new(&amplitudes, rng);
        let (middle, width_s) = (uniform([0.0, n as f32], rng), uniform([0.3, 1.2], rng));
        let (hz, loudness) = (uniform([40.0, 120.0], rng), uniform([0.05, 0.3], rng));
        let mut turns = 0.0;
        for (i, sample) in out.iter_mut().enumerate() {
            // Widths before (negative) or behind the moment at which it is nearest.
            let away = (i as f32 - middle) / (width_s * RATE);
            if away.abs() < 4.0 {
                *sample += loudness / (1.0 + 4.0 * away * away) * engine.at(turns);
                // Lower once it goes away: Doppler's effect at 40 km/h is 3 % either way.
                let doppler = 1.0 - 0.03 * away / (1.0 + away * away).sqrt();
                turns += f64::from(hz * doppler / RATE);
            }
        }
    }
    out
}

fn clicks(n: usize, rng: &mut fastrand::Rng) -> Vec<f32> {
    let mut out: Vec<f32> = (0..n).map(|_| 0.002 * gauss(rng)).collect();
    let per_s = uniform([3.0, 9.0], rng);
    let n_clicks = 1 + (n as f32 / RATE * per_s) as usize;
    // One thing is tapped on with several: keys sound alike, and not like spoons.
    let (lowest_hz, longest_s) = (uniform([500.0, 3000.0], rng), uniform([0.004, 0.04], rng));
    for _ in 0..n_clicks {
        let at = rng.usize(0..n.max(1));
        for _ in 0..rng.usize(1..=3) {
            let hz = uniform([lowest_hz, 2.2 * lowest_hz], rng);
            let tau_s = uniform([0.2 * longest_s, longest_s], rng);
            ring(&mut out[at.min(n)..], hz, tau_s, uniform([0.2, 1.0], rng));
        }
        // The knock itself, 1 ms.
        let knock = uniform([0.1, 0.6], rng);
        for sample in out.iter_mut().skip(at).take(16) {
            *sample += knock * gauss(rng);
        }
    }
    out
}

/// Adds a tone that dies away with the time constant `tau_s`, until nothing is left of it.
fn ring(out: &mut [f32], hz: f32, tau_s: f32, amplitude: f32) {
    let n = (7.0 * tau_s * RATE) as usize; // e⁻⁷ is -61 dB
    let decay = f64::from(-1.0 / (tau_s * RATE)).exp();
    let (sin, cos) = (TAU * f64::from(hz / RATE)).sin_cos();
    let (mut re, mut im) = (f64::from(amplitude), 0.0);
    for sample in out.iter_mut().take(n) {
        *sample += im as f32;
        (re, im) = (decay * (re * cos - im * sin), decay * (re * sin + im * cos));
    }
}

fn music(n: usize, rng: &mut fastrand::Rng) -> Vec<f32> {
    // Semitones above the key note: the four chords of most songs, in any order.
    const CHORDS: [[i32; 3]; 4] = [[0, 4, 7], [5, 9, 12], [7, 11, 14], [9, 12, 16]];
    // Organ, strings, clarinet, flute: the first harmonics.
    const TIMBRES: [&[f32]; 4] = [
        &[1.0, 0.7, 0.2, 0.5, 0.0, 0.1, 0.0, 0.2],
        &[1.0, 0.5, 0.33, 0.25, 0.2, 0.17, 0.14, 0.12],
        &[1.0, 0.02, 0.4, 0.02, 0.25, 0.02, 0.12],
        &[1.0, 0.15, 0.05],
    ];
    let key_hz = 110.0 * 2_f32.powf(rng.u32(0..12) as f32 / 12.0);
    let tables: Vec<Wavetable> = TIMBRES.iter().map(|amplitudes| Wavetable::new(amplitudes, rng)).collect();
    let (melody, accompaniment) = (&tables[rng.usize(0..4)], &tables[rng.usize(0..4)]);
    let (attack_s, tau_s, beat) = (uniform([0.004, 0.05], rng), uniform([0.15, 0.8], rng), uniform([0.1, 0.8], rng));
    let mut out = vec![0.0_f32; n];
    for start in (0..n).step_by(CHORD_SAMPLES) {
        let chord = CHORDS[rng.usize(0..CHORDS.len())];
        for semitones in chord {
            add_note(&mut out[start..], accompaniment, key_hz, semitones, [attack_s, tau_s, 0.15]);
        }
        // Two notes of a tune an octave higher, and two beats with something bright between them.
        for half in [start, start + CHORD_SAMPLES / 2] {
            if let Some(rest) = out.get_mut(half..) {
                add_note(rest, melody, key_hz, 12 + chord[rng.usize(0..3)], [attack_s, tau_s / 2.0, 0.25]);
                for (i, sample) in rest.iter_mut().take(400).enumerate() {
                    *sample += 0.15 * beat * gauss(rng) * (1.0 - i as f32 / 400.0).powi(2);
                }
            }
        }
        ring(&mut out[start..], uniform([50.0, 80.0], rng), 0.06, beat);
    }
    out
}

/// `[attack_s, tau_s, loudness]`: rises in a line, dies away, and ends with the chord.
fn add_note(out: &mut [f32], table: &Wavetable, key_hz: f32, semitones: i32, shape: [f32; 3]) {
    let [attack_s, tau_s, loudness] = shape;
    let hz = f64::from(key_hz) * 2_f64.powf(f64::from(semitones) / 12.0);
    let decay = (-1.0 / (tau_s * RATE)).exp();
    let mut envelope = loudness;
    for (i, sample) in out.iter_mut().take(CHORD_SAMPLES).enumerate() {
        let rise = (i as f32 / (attack_s * RATE)).min(1.0);
        // 10 ms to its end, or it would click.
        let fall = ((CHORD_SAMPLES - i) as f32 / (0.01 * RATE)).min(1.0);
        *sample += envelope * rise * fall * table.at(hz * i as f64 / f64::from(RATE));
        envelope *= decay;
    }
}

#[cfg(test)]
mod tests;
