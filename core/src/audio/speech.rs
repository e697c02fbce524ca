//! Where in a recording somebody speaks.
//!
//! A command of one second often comes with seconds of silence around it, and the encoder's cost
//! grows with the length. So the silence at both ends is cut, and a recording in which nobody
//! speaks is told before any model runs.
//!
//! An energy detector, not a network: levels of 20 ms frames above an adaptive noise floor, with
//! hysteresis, in two bands. It errs on the side of keeping:
//! - what is louder than [`QUIET_PEAK`] and has no clear contrast (loud noise, a held tone, music)
//!   is returned whole; later stages reject it by what it says, not by how loud it is;
//! - a second band above 3 kHz, with a floor of its own, holds on to s, f and h, which are weak
//!   beside any vowel;
//! - the span reaches [`PADDING`] beyond the last trace of sound on either side.
//!
//! Mains hum and DC offset are filtered out first; a click is too short to be speech.
//!
//! Not for cutting long recordings into sentences, and not for streams: it looks at the whole clip. Streams: `endpoint`.

use super::level::{
    BUTTERWORTH_2_Q, BUTTERWORTH_4_Q, FRAME_HOP, FRAME_LEN, VOICE_BAND_HZ, high_pass, levels_db, without_offset,
};
use super::waveform::SAMPLE_RATE_HZ;

/// Kept before the first and after the last trace of sound, 200 ms.
const PADDING: usize = SAMPLE_RATE_HZ as usize / 5; // 3200 samples

/// Nothing louder than this, -60 dBFS, is speech: dither, a muted microphone, hiss.
const QUIET_PEAK: f64 = 0.001;
/// Nor is anything whose level stays below this; a click alone does not raise it.
const QUIET_LEVEL_DB: f32 = -65.0;
/// Speech lasts: this many frames (70 ms) have to be loud. A click fills three or four.
const MIN_BURST_FRAMES: usize = 6;
/// Loud frames with no more than this between them (50 ms: the closure of a p, t or k) are one burst.
const MERGE_FRAMES: usize = 5;
/// A weaker trace of sound belongs to a burst if it is no further away than this, 150 ms.
const HANG_FRAMES: usize = 15;
/// Clips shorter than this (120 ms) are too short to know their own noise floor.
const MIN_CLIP_FRAMES: usize = 2 * MIN_BURST_FRAMES;

/// The noise floor is the level that this part of all frames stays below.
const FLOOR_QUANTILE: f64 = 0.1;
/// But no lower than this below the loudest frames: in digital silence, everything is loud.
const MAX_CONTRAST_DB: f32 = 60.0;
/// Below this contrast the sound is steady, and nothing can be said about its parts.
const MIN_CONTRAST_DB: f32 = 6.0;
/// A frame is loud if it is this part of the contrast above the floor, within these bounds in dB.
const ENTER: (f32, f32, f32) = (0.35, 4.0, 12.0);
/// A frame still holds a trace of sound above this.
const STAY: (f32, f32, f32) = (0.2, 3.0, 6.0);

/// Low edge of the band of fricatives.
const FRICATIVE_BAND_HZ: f64 = 3000.0;

/// A stretch of a recording, in samples: `start_sample..end_sample`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SpeechSpan {
    /// The first sample that belongs to it.
    pub start_sample: usize,
    /// The first sample that no longer does.
    pub end_sample: usize,
}

impl SpeechSpan {
    /// That part of the samples in which the span was found.
    #[must_use]
    pub fn of<'a>(&self, samples: &'a [f32]) -> &'a [f32] {
        &samples[self.start_sample.min(samples.len())..self.end_sample.min(samples.len())]
    }

    /// Its length in seconds.
    #[must_use]
    pub fn duration_s(&self) -> f64 {
        self.end_sample.saturating_sub(self.start_sample) as f64 / f64::from(SAMPLE_RATE_HZ)
    }
}

/// Finds the one stretch from the first to the last speech in 16 kHz samples, with some room around
/// it. None if nobody speaks: silence, with dither, faint hiss, mains hum or single clicks.
#[must_use]
pub fn find_speech(samples: &[f32]) -> Option<SpeechSpan> {
    let everything = SpeechSpan { start_sample: 0, end_sample: samples.len() };
    let voice = high_pass(&without_offset(samples), VOICE_BAND_HZ, &BUTTERWORTH_4_Q);
    let peak = voice.iter().fold(0.0, |peak: f64, s| peak.max(s.abs()));
    if peak < QUIET_PEAK {
        return None;
    }
    let voice_db = levels_db(&voice);
    if voice_db.len() < MIN_CLIP_FRAMES {
        return Some(everything);
    }
    let loudest_db = sustained_peak(&voice_db);
    if loudest_db < QUIET_LEVEL_DB {
        return None;
    }

    let Some(voice_band) = Band::new(voice_db, loudest_db) else { return Some(everything) };
    let fricatives = high_pass(&voice, FRICATIVE_BAND_HZ, &BUTTERWORTH_2_Q);
    let fricative_band = Band::new(levels_db(&fricatives), loudest_db);
    let either = |above: fn(&Band, usize) -> bool, frame: usize| {
        above(&voice_band, frame) || fricative_band.as_ref().is_some_and(|band| above(band, frame))
    };
    let n_frames = voice_band.levels_db.len();
    let loud: Vec<bool> = (0..n_frames).map(|frame| either(Band::is_loud, frame)).collect();
    let Some((first, last)) = first_and_last_burst(&loud) else {
        // Only clicks. In a noisy place they may hide somebody; in a quiet one nobody spoke.
        return (voice_band.floor_db > QUIET_LEVEL_DB).then_some(everything);
    };

    let has_trace = |frame: usize| either(Band::has_trace, frame);
    let first = reach(first, (0..first).rev(), has_trace);
    let last = reach(last, last + 1..n_frames, has_trace);
    Some(SpeechSpan {
        start_sample: (first * FRAME_HOP).saturating_sub(PADDING),
        end_sample: (last * FRAME_HOP + FRAME_LEN + PADDING).min(samples.len()),
    })
}

/// The levels of one frequency band, and what counts as loud in it.
struct Band {
    levels_db: Vec<f32>,
    floor_db: f32,
    enter_db: f32,
    stay_db: f32,
}

impl Band {
    /// None if the band is too steady to tell sound from noise.
    fn new(levels_db: Vec<f32>, loudest_db: f32) -> Option<Self> {
        let floor_db = quantile(&levels_db, FLOOR_QUANTILE).max(loudest_db - MAX_CONTRAST_DB);
        let contrast_db = sustained_peak(&levels_db) - floor_db;
        if contrast_db < MIN_CONTRAST_DB {
            return None;
        }
        let above = |(part, least, most): (f32, f32, f32)| floor_db + (part * contrast_db).clamp(least, most);
        Some(Self { floor_db, enter_db: above(ENTER), stay_db: above(STAY), levels_db })
    }

    fn is_loud(&self, frame: usize) -> bool {
        self.levels_db[frame] >= self.enter_db
    }

    fn has_trace(&self, frame: usize) -> bool {
        self.levels_db[frame] >= self.stay_db
    }
}

/// The first frame of the first burst that is long enough, and the last frame of the last.
fn first_and_last_burst(loud: &[bool]) -> Option<(usize, usize)> {
    let mut found: Option<(usize, usize)> = None;
    let mut burst: Option<(usize, usize, usize)> = None; // first frame, last frame, loud frames
    let mut close = |burst: Option<(usize, usize, usize)>| {
        if let Some((first, last, n_loud)) = burst
            && n_loud >= MIN_BURST_FRAMES
        {
            found = Some((found.map_or(first, |(earliest, _)| earliest), last));
        }
    };
    for (frame, _) in loud.iter().enumerate().filter(|(_, loud)| **loud) {
        burst = match burst {
            Some((first, last, n_loud)) if frame - last <= MERGE_FRAMES + 1 => Some((first, frame, n_loud + 1)),
            ended => {
                close(ended);
                Some((frame, frame, 1))
            }
        };
    }
    close(burst);
    found
}

/// The furthest frame on the way that holds a trace of sound, with no longer gap than the hang.
fn reach(from: usize, way: impl Iterator<Item = usize>, has_trace: impl Fn(usize) -> bool) -> usize {
    let mut edge = from;
    for frame in way {
        if has_trace(frame) {
            edge = frame;
        } else if frame.abs_diff(edge) > HANG_FRAMES {
            break;
        }
    }
    edge
}

/// The level that is reached or passed for as long as a burst lasts; a click does not raise it.
fn sustained_peak(levels_db: &[f32]) -> f32 {
    let rank = levels_db.len().saturating_sub(MIN_BURST_FRAMES);
    sorted(levels_db).get(rank).copied().unwrap_or(f32::NEG_INFINITY)
}

fn quantile(levels_db: &[f32], part: f64) -> f32 {
    let rank = (levels_db.len() as f64 * part) as usize;
    sorted(levels_db).get(rank).copied().unwrap_or(f32::NEG_INFINITY)
}

fn sorted(levels_db: &[f32]) -> Vec<f32> {
    let mut sorted = levels_db.to_vec();
    sorted.sort_by(f32::total_cmp);
    sorted
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: usize = SAMPLE_RATE_HZ as usize;
    const SYLLABLE: usize = SECOND / 4;

    /// White noise of the given RMS, the same for the same seed.
    pub(in crate::audio) fn noise(n: usize, rms: f64, seed: u64) -> Vec<f32> {
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        (0..n)
            .map(|_| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                let uniform = (state >> 33) as f64 / f64::from(1_u32 << 30) - 1.0;
                (uniform * rms * 3_f64.sqrt()) as f32
            })
            .collect()
    }

    /// A harmonic tone up to 3.5 kHz whose loudness rises and falls four times a second; RMS 0.1.
    pub(in crate::audio) fn speech_like(f0_hz: f64, n_syllables: usize) -> Vec<f32> {
        let n = n_syllables * SYLLABLE;
        let mut samples: Vec<f64> = (0..n)
            .map(|i| {
                let t = i as f64 / SECOND as f64;
                let tone: f64 = (1..)
                    .map(f64::from)
                    .take_while(|h| h * f0_hz < 3500.0)
                    .map(|h| (std::f64::consts::TAU * f0_hz * h * t + h * h).sin() / h.powf(0.7))
                    .sum();
                tone * (std::f64::consts::PI * i as f64 / SYLLABLE as f64).sin().abs()
            })
            .collect();
        let rms = (samples.iter().map(|s| s * s).sum::<f64>() / n as f64).sqrt();
        samples.iter_mut().for_each(|s| *s *= 0.1 / rms);
        samples.into_iter().map(|s| s as f32).collect()
    }

    /// `speech` after `lead` samples of noise and before `trail` more, at the given ratio.
    pub(in crate::audio) fn recording(speech: &[f32], lead: usize, trail: usize, snr_db: f64, seed: u64) -> Vec<f32> {
        let mut samples = noise(lead + speech.len() + trail, 0.1 * 10_f64.powf(-snr_db / 20.0), seed);
        for (sample, s) in samples[lead..].iter_mut().zip(speech) {
            *sample += s;
        }
        samples
    }

    fn assert_holds(span: Option<SpeechSpan>, start: usize, end: usize) {
        let span = span.expect("there is speech in it");
        assert!(span.start_sample <= start && end <= span.end_sample, "{span:?} cuts into {start}..{end}");
    }

    #[test]
    fn silence_is_trimmed_from_speech() {
        let speech = speech_like(120.0, 5);
        for snr_db in [20.0, 30.0, 60.0] {
            let samples = recording(&speech, SECOND, SECOND, snr_db, 1);
            let span = find_speech(&samples);
            assert_holds(span, SECOND, SECOND + speech.len());
            let span = span.unwrap();
            let room = PADDING + (HANG_FRAMES + 2) * FRAME_HOP;
            assert!(span.start_sample >= SECOND - room, "{snr_db} dB: {span:?}");
            assert!(span.end_sample <= SECOND + speech.len() + room, "{snr_db} dB: {span:?}");
            assert_eq!(span.of(&samples).len(), span.end_sample - span.start_sample);
        }
    }

    #[test]
    fn speech_in_noise_is_kept_whole() {
        let speech = speech_like(100.0, 4);
        let samples = recording(&speech, SECOND / 2, SECOND, 10.0, 2);
        assert_holds(find_speech(&samples), SECOND / 2, SECOND / 2 + speech.len());
    }

    #[test]
    fn a_faint_recording_is_trimmed_like_a_loud_one() {
        let speech = speech_like(180.0, 4);
        let loud = recording(&speech, SECOND, SECOND, 30.0, 3);
        let faint: Vec<f32> = loud.iter().map(|s| s * 10_f32.powf(-30.0 / 20.0)).collect();
        assert_eq!(find_speech(&loud), find_speech(&faint));
    }

    #[test]
    fn an_offset_changes_nothing() {
        let speech = speech_like(140.0, 3);
        let samples: Vec<f32> = recording(&speech, SECOND, SECOND, 30.0, 4).iter().map(|s| s + 0.3).collect();
        let span = find_speech(&samples).unwrap();
        assert_holds(Some(span), SECOND, SECOND + speech.len());
        assert!(span.start_sample > 0, "the offset was taken for sound");
    }

    #[test]
    fn hum_is_neither_speech_nor_in_its_way() {
        let hum: Vec<f32> =
            (0..3 * SECOND).map(|i| 0.1 * (std::f32::consts::TAU * 50.0 * i as f32 / SECOND as f32).sin()).collect();
        assert_eq!(find_speech(&hum), None);
        let speech = speech_like(140.0, 4);
        let mut samples = hum;
        for (sample, s) in samples[SECOND..].iter_mut().zip(&speech) {
            *sample += s;
        }
        let span = find_speech(&samples).unwrap();
        assert_holds(Some(span), SECOND, 2 * SECOND);
        assert!(span.start_sample > SECOND / 2 && span.end_sample < 2 * SECOND + SECOND / 2, "{span:?}");
    }

    #[test]
    fn soft_consonants_at_the_edges_are_kept() {
        // 0.4 s of hiss above 4 kHz, 18 dB below the vowels, before and after them.
        let fricative: Vec<f64> = noise(2 * SECOND / 5, 0.1, 5).iter().map(|s| f64::from(*s)).collect();
        let fricative = high_pass(&fricative, 4000.0, &BUTTERWORTH_4_Q);
        let mut word: Vec<f32> = fricative.iter().map(|s| (s * 10_f64.powf(-18.0 / 20.0)) as f32).collect();
        let edge = word.clone();
        word.extend(speech_like(130.0, 3));
        word.extend(edge);
        let samples = recording(&word, SECOND, SECOND, 35.0, 6);
        assert_holds(find_speech(&samples), SECOND, SECOND + word.len());
    }

    #[test]
    fn nobody_spoke() {
        assert_eq!(find_speech(&[]), None);
        for n in [1, 10, 1000, 3 * SECOND] {
            assert_eq!(find_speech(&vec![0.0; n]), None, "{n} zeros");
            assert_eq!(find_speech(&vec![0.5; n]), None, "{n} equal samples");
        }
        // One bit of dither at 16 bits; hiss that peaks at -62 dBFS.
        for peak in [1.0 / 32_768.0, 0.000_8] {
            assert_eq!(find_speech(&noise(3 * SECOND, peak / 3_f64.sqrt(), 7)), None, "peak {peak}");
        }
    }

    #[test]
    fn a_click_is_not_speech() {
        for at in [0, 100, SECOND, 2 * SECOND - 1] {
            let mut samples = noise(2 * SECOND, 1e-5, 8);
            for sample in samples[at..].iter_mut().take(16) {
                *sample = 0.9;
            }
            assert_eq!(find_speech(&samples), None, "click at {at}");
        }
        let speech = speech_like(120.0, 4);
        let mut samples = recording(&speech, 2 * SECOND, SECOND, 40.0, 9);
        samples[SECOND / 2] = 1.0;
        let span = find_speech(&samples).unwrap();
        assert_holds(Some(span), 2 * SECOND, 3 * SECOND);
        assert!(span.start_sample > SECOND, "the click was taken for speech: {span:?}");
    }

    #[test]
    fn what_cannot_be_told_is_kept() {
        let everything = |n| Some(SpeechSpan { start_sample: 0, end_sample: n });
        let loud_noise = noise(2 * SECOND, 0.1, 10);
        assert_eq!(find_speech(&loud_noise), everything(2 * SECOND));
        let tone: Vec<f32> =
            (0..SECOND).map(|i| 0.2 * (std::f32::consts::TAU * 440.0 * i as f32 / SECOND as f32).sin()).collect();
        assert_eq!(find_speech(&tone), everything(SECOND));
        for n in [10, 100, 1600] {
            assert_eq!(find_speech(&noise(n, 0.1, 11)), everything(n), "{n} samples");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]
        #[test]
        fn speech_is_never_cut_into(
            f0_hz in 90.0_f64..250.0,
            n_syllables in 1_usize..7,
            lead in 0_usize..SECOND,
            trail in 0_usize..SECOND,
            snr_db in 10.0_f64..50.0,
            gain_db in -30.0_f32..0.0,
            seed in any::<u64>(),
        ) {
            let speech = speech_like(f0_hz, n_syllables);
            let gain = 10_f32.powf(gain_db / 20.0);
            let samples: Vec<f32> = recording(&speech, lead, trail, snr_db, seed).iter().map(|s| s * gain).collect();
            let span = find_speech(&samples).unwrap();
            prop_assert!(span.start_sample <= lead, "{:?} starts after {}", span, lead);
            prop_assert!(span.end_sample >= lead + speech.len(), "{:?} ends before {}", span, lead + speech.len());
            prop_assert!(span.end_sample <= samples.len());
        }

        #[test]
        fn no_samples_make_it_panic(samples in prop::collection::vec(-1.0_f32..1.0, 0..2000)) {
            if let Some(span) = find_speech(&samples) {
                prop_assert!(span.start_sample < span.end_sample && span.end_sample <= samples.len());
            }
        }
    }
}
