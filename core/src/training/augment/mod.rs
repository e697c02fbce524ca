//! Augmented copies of a clip: the same words by another voice, in another place, over another line.
//!
//! Plain samples, 16 kHz mono, no tensors. Read in this order: this file (what is drawn, and in which order it
//! happens), `voice`, `room`, `mix`, `channel`, and `filters`, which they are made of.
//!
//! Everything that is drawn comes from the generator that is passed in, so that a seed says what happens on every
//! machine; the samples are the same to within the rounding of its FFT and its sines.
//!
//! Not for streams; not for measuring how robust a model is: real rooms and real telephones are for that.

mod channel;
pub(super) mod filters;
mod mix;
mod room;
mod voice;

use serde::{Deserialize, Serialize};

pub use channel::{clip, codec, colour, drop_packets, quantise, telephone};
pub use mix::{active_power, mix_at_snr};
pub use room::{reverberate, room_impulse};
pub use voice::{change_speed, change_tempo, shift_formants, shift_pitch};

use self::filters::{from_db, peak, power, uniform};
use super::noise::{self, NoiseKind};
use crate::audio::{N_SAMPLES, SAMPLE_RATE_HZ};

/// What is longer than Whisper's window, 30 s, is cut, before silence is put around it.
const MAX_SAMPLES: usize = N_SAMPLES;
/// How many people talk at once, in babble.
const TALKERS: std::ops::RangeInclusive<usize> = 2..=6;
/// Steps of the codec, see [`codec`].
const COARSENESS: [f32; 2] = [0.6, 1.6];
/// Where its band ends: between a narrow-band telephone's and all there is.
const CODEC_CUTOFF_HZ: [f32; 2] = [3000.0, 7500.0];

const SILENCE_RANGE_S: [f32; 2] = [0.0, 5.0];
const GAIN_RANGE_DB: [f32; 2] = [-60.0, 30.0];
const PITCH_RANGE: [f32; 2] = [-12.0, 12.0];
const FORMANT_RANGE: [f32; 2] = [0.5, 2.0];
const COLOUR_RANGE_DB: [f32; 2] = [0.0, 24.0];

/// How copies differ. A pair is the least and the most of what is drawn, uniformly; `p_…` is the share of copies that
/// get it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AugmentOptions {
    /// Share with another speed, half of them by another tempo at the same pitch.
    pub p_speed: f32,
    /// Factors.
    pub speed: [f32; 2],
    /// Share with another pitch.
    pub p_pitch: f32,
    /// Up or down.
    pub pitch_semitones: [f32; 2],
    /// Share with another vocal tract.
    pub p_formant: f32,
    /// Factors of the formants' frequencies.
    pub formant: [f32; 2],
    /// Silence at each end, in seconds, drawn for each.
    pub silence_s: [f32; 2],
    /// Share in a room.
    pub p_reverb: f32,
    /// Its reverberation time in seconds.
    pub reverb_rt60_s: [f32; 2],
    /// Share with noise.
    pub p_noise: f32,
    /// Ratio of the speech's active level to the noise's.
    pub snr_db: [f32; 2],
    /// Where there are recordings of noise: the share of noise that is synthetic all the same.
    pub p_synthetic: f32,
    /// Share with another microphone's colour.
    pub p_filter: f32,
    /// The most that a band is louder or softer then.
    pub filter_db: f32,
    /// Gain of every copy; what would pass full scale is scaled down.
    pub gain_db: [f32; 2],
    /// Share that is clipped.
    pub p_clipping: f32,
    /// At this fraction of the peak.
    pub clip_level: [f32; 2],
    /// Share with fewer bits a sample.
    pub p_quantise: f32,
    /// So many.
    pub quantise_bits: [u32; 2],
    /// Share over a telephone.
    pub p_telephone: f32,
    /// Share with the damage of a codec.
    pub p_codec: f32,
    /// Share with lost packets.
    pub p_dropout: f32,
}

impl Default for AugmentOptions {
    /// Strong enough that few copies are as the clip was, weak enough that a person understands each.
    fn default() -> Self {
        Self {
            p_speed: 0.5,
            speed: [0.85, 1.2],
            p_pitch: 0.4,
            pitch_semitones: [-3.0, 3.0],
            p_formant: 0.3,
            formant: [0.88, 1.14],
            silence_s: [0.0, 0.5],
            p_reverb: 0.3,
            reverb_rt60_s: [0.15, 0.7],
            p_noise: 0.8,
            snr_db: [0.0, 25.0],
            p_synthetic: 0.6,
            p_filter: 0.4,
            filter_db: 6.0,
            gain_db: [-15.0, 6.0],
            p_clipping: 0.08,
            clip_level: [0.15, 0.7],
            p_quantise: 0.05,
            quantise_bits: [8, 12],
            p_telephone: 0.25,
            p_codec: 0.2,
            p_dropout: 0.08,
        }
    }
}

impl AugmentOptions {
    /// Copies that are the clip itself.
    #[must_use]
    pub fn none() -> Self {
        Self {
            p_speed: 0.0,
            p_pitch: 0.0,
            p_formant: 0.0,
            silence_s: [0.0; 2],
            p_reverb: 0.0,
            p_noise: 0.0,
            p_filter: 0.0,
            gain_db: [0.0; 2],
            p_clipping: 0.0,
            p_quantise: 0.0,
            p_telephone: 0.0,
            p_codec: 0.0,
            p_dropout: 0.0,
            ..Self::default()
        }
    }

    /// # Errors
    /// A sentence that names the option and what it may be.
    pub fn check(&self) -> Result<(), String> {
        let shares = [
            ("p_speed", self.p_speed),
            ("p_pitch", self.p_pitch),
            ("p_formant", self.p_formant),
            ("p_reverb", self.p_reverb),
            ("p_noise", self.p_noise),
            ("p_synthetic", self.p_synthetic),
            ("p_filter", self.p_filter),
            ("p_clipping", self.p_clipping),
            ("p_quantise", self.p_quantise),
            ("p_telephone", self.p_telephone),
            ("p_codec", self.p_codec),
            ("p_dropout", self.p_dropout),
        ];
        let ranges = [
            ("speed", self.speed, voice::FACTOR_RANGE),
            ("pitch_semitones", self.pitch_semitones, PITCH_RANGE),
            ("formant", self.formant, FORMANT_RANGE),
            ("silence_s", self.silence_s, SILENCE_RANGE_S),
            ("reverb_rt60_s", self.reverb_rt60_s, room::RT60_RANGE_S),
            ("snr_db", self.snr_db, mix::SNR_RANGE_DB),
            ("filter_db", [0.0, self.filter_db], COLOUR_RANGE_DB),
            ("gain_db", self.gain_db, GAIN_RANGE_DB),
            ("clip_level", self.clip_level, channel::CLIP_RANGE),
            // Far fewer than f32 can count.
            ("quantise_bits", self.quantise_bits.map(|b| b as f32), channel::BITS_RANGE.map(|b| b as f32)),
        ];
        for (name, share) in shares {
            if !(0.0..=1.0).contains(&share) {
                return Err(format!("{name} is {share}; a share of copies is 0 to 1"));
            }
        }
        for (name, [low, high], [least, most]) in ranges {
            // Not so either if one of them is no number.
            if ![least, low, high, most].is_sorted() {
                return Err(format!("{name} is {low} to {high}; it may be {least} to {most}, the smaller value first"));
            }
        }
        Ok(())
    }
}

/// What was done to one copy; none: not that.
#[derive(Debug, Clone, PartialEq, Serialize, Default)]
pub struct Applied {
    /// Factor, pitch and formants with it.
    pub speed: Option<f32>,
    /// Factor, at the same pitch.
    pub tempo: Option<f32>,
    /// Up.
    pub pitch_semitones: Option<f32>,
    /// Factor of the formants' frequencies.
    pub formant: Option<f32>,
    /// Before and after the clip.
    pub silence_s: Option<[f32; 2]>,
    /// Reverberation time.
    pub reverb_rt60_s: Option<f32>,
    /// The kind of synthetic noise, `recording` and its place in the list, or `babble`.
    pub noise: Option<String>,
    /// Its ratio.
    pub snr_db: Option<f32>,
    /// Of the microphone: low, middle, high.
    pub filter_db: Option<[f32; 3]>,
    /// As drawn, before what would pass full scale was scaled down.
    pub gain_db: Option<f32>,
    /// Fraction of the peak.
    pub clip_level: Option<f32>,
    /// Bits of a sample.
    pub quantise_bits: Option<u32>,
    /// Over a telephone.
    pub telephone: bool,
    /// The codec's upper limit.
    pub codec_cutoff_hz: Option<f32>,
    /// Packets lost.
    pub packets_lost: Option<usize>,
}

/// An augmented copy of 16 kHz samples, and what was done. The order is that of the world: the voice (speed, pitch,
/// vocal tract), silence around it, the room, noise, the microphone (colour, gain, clipping, bits), the line
/// (telephone, codec, lost packets).
///
/// `noises` are recordings of noise or of other people; without them all noise is synthetic. Three or more also make
/// babble, in half of the copies that get one of them.
///
/// The copy is finite, within ±1 (scaled, not wrapped) and at most 30 s long, plus the silence at its ends. Samples
/// that are no numbers count as 0. An empty clip stays empty. Options outside of what
/// [`check`](AugmentOptions::check) allows count as the nearest that it does.
pub fn augment(
    samples: &[f32],
    options: &AugmentOptions,
    noises: &[&[f32]],
    rng: &mut fastrand::Rng,
) -> (Vec<f32>, Applied) {
    let mut applied = Applied::default();
    if samples.is_empty() {
        return (Vec::new(), applied);
    }
    let mut sound = finite(&samples[..samples.len().min(MAX_SAMPLES)]);
    limit(&mut sound);

    if chance(options.p_speed, rng) {
        let factor = draw(options.speed, voice::FACTOR_RANGE, rng);
        if rng.bool() {
            (sound, applied.speed) = (change_speed(&sound, factor), Some(factor));
        } else {
            (sound, applied.tempo) = (change_tempo(&sound, factor), Some(factor));
        }
        // The shortest clip may have been rounded away.
        sound.resize(sound.len().clamp(1, MAX_SAMPLES), 0.0);
    }
    if chance(options.p_pitch, rng) {
        let semitones = draw(options.pitch_semitones, PITCH_RANGE, rng);
        (sound, applied.pitch_semitones) = (shift_pitch(&sound, semitones), Some(semitones));
    }
    if chance(options.p_formant, rng) {
        let factor = draw(options.formant, FORMANT_RANGE, rng);
        (sound, applied.formant) = (shift_formants(&sound, factor), Some(factor));
    }

    let silence_s = [(); 2].map(|()| draw(options.silence_s, SILENCE_RANGE_S, rng));
    if silence_s != [0.0; 2] {
        let [before, after] = silence_s.map(|s| (s * SAMPLE_RATE_HZ as f32) as usize);
        let mut longer = vec![0.0; before];
        longer.append(&mut sound);
        longer.resize(longer.len() + after, 0.0);
        sound = longer;
        applied.silence_s = Some(silence_s);
    }
    if chance(options.p_reverb, rng) {
        let rt60_s = draw(options.reverb_rt60_s, room::RT60_RANGE_S, rng);
        let direct_db = uniform(room::DIRECT_RANGE_DB, rng);
        sound = reverberate(&sound, &room_impulse(rt60_s, direct_db, rng));
        applied.reverb_rt60_s = Some(rt60_s);
    }
    if chance(options.p_noise, rng) {
        let snr_db = draw(options.snr_db, mix::SNR_RANGE_DB, rng);
        let (name, noise) = background(sound.len(), noises, options.p_synthetic, rng);
        sound = mix_at_snr(&sound, &noise, snr_db);
        (applied.noise, applied.snr_db) = (Some(name), Some(snr_db));
    }
    microphone(&mut sound, options, &mut applied, rng);
    line(&mut sound, options, &mut applied, rng);
    (sound, applied)
}

/// Colour, gain, clipping, bits.
fn microphone(sound: &mut Vec<f32>, options: &AugmentOptions, applied: &mut Applied, rng: &mut fastrand::Rng) {
    if chance(options.p_filter, rng) {
        let strength_db = draw([options.filter_db; 2], COLOUR_RANGE_DB, rng);
        let gains_db = channel::any_colour(strength_db, rng);
        (*sound, applied.filter_db) = (colour(sound, gains_db), Some(gains_db));
    }
    let gain_db = draw(options.gain_db, GAIN_RANGE_DB, rng);
    if gain_db != 0.0 {
        let gain = from_db(gain_db);
        sound.iter_mut().for_each(|s| *s *= gain);
        applied.gain_db = Some(gain_db);
    }
    limit(sound);
    if chance(options.p_clipping, rng) {
        let level = draw(options.clip_level, channel::CLIP_RANGE, rng);
        (*sound, applied.clip_level) = (clip(sound, level), Some(level));
    }
    if chance(options.p_quantise, rng) {
        let [a, b] = options.quantise_bits.map(|b| b.clamp(channel::BITS_RANGE[0], channel::BITS_RANGE[1]));
        let bits = rng.u32(a.min(b)..=a.max(b));
        (*sound, applied.quantise_bits) = (quantise(sound, bits), Some(bits));
    }
}

/// Telephone, codec, lost packets.
fn line(sound: &mut Vec<f32>, options: &AugmentOptions, applied: &mut Applied, rng: &mut fastrand::Rng) {
    if chance(options.p_telephone, rng) {
        (*sound, applied.telephone) = (telephone(sound), true);
    }
    if chance(options.p_codec, rng) {
        let (coarseness, cutoff_hz) = (uniform(COARSENESS, rng), uniform(CODEC_CUTOFF_HZ, rng));
        (*sound, applied.codec_cutoff_hz) = (codec(sound, coarseness, cutoff_hz), Some(cutoff_hz));
    }
    if chance(options.p_dropout, rng) {
        let (rest, n_lost) = drop_packets(sound, rng);
        (*sound, applied.packets_lost) = (rest, Some(n_lost));
    }
    limit(sound);
}

/// Noise for `n` samples, and what to call it.
fn background(n: usize, noises: &[&[f32]], p_synthetic: f32, rng: &mut fastrand::Rng) -> (String, Vec<f32>) {
    let synthetic = chance(p_synthetic, rng);
    if !synthetic && noises.len() > *TALKERS.start() && rng.bool() {
        let babble = noise::babble(noises, n, rng.usize(TALKERS), rng);
        if peak(&babble) > 0.0 {
            return ("babble".to_owned(), babble);
        }
    }
    if !synthetic && !noises.is_empty() {
        let at = rng.usize(0..noises.len());
        let recording = noises[at];
        let start = rng.usize(0..=recording.len().saturating_sub(n));
        let piece = finite(&recording[start..recording.len().min(start + n)]);
        // A silent stretch of a recording is no noise.
        if power(&piece) > 1e-10 {
            return (format!("recording {at}"), piece);
        }
    }
    // The first kind is silence.
    let kind = NoiseKind::ALL[rng.usize(1..NoiseKind::ALL.len())];
    (kind.name().to_owned(), noise::make(kind, n, rng))
}

/// Samples that are no numbers as 0.
fn finite(samples: &[f32]) -> Vec<f32> {
    samples.iter().map(|s| if s.is_finite() { *s } else { 0.0 }).collect()
}

/// Scales down what passes full scale.
fn limit(sound: &mut [f32]) {
    let peak = peak(sound);
    if peak > 1.0 {
        // A quotient may round up.
        sound.iter_mut().for_each(|s| *s = (*s / peak).clamp(-1.0, 1.0));
    }
}

/// True in this share of calls. Always one draw, so that a share that is changed leaves the other draws alone as far
/// as can be.
fn chance(share: f32, rng: &mut fastrand::Rng) -> bool {
    rng.f32() < share
}

/// Uniform in `range`, as far as that is within `limits`.
fn draw(range: [f32; 2], limits: [f32; 2], rng: &mut fastrand::Rng) -> f32 {
    uniform(range.map(|v| if v.is_nan() { limits[0] } else { v.clamp(limits[0], limits[1]) }), rng)
}

#[cfg(test)]
mod tests;
