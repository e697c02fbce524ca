//! Where in a stream somebody begins and ends to speak, while the sound still comes: `speech` for a microphone.
//!
//! The numbers are those of the SDK's microphone (`js-sdk/src/microphone/endpoint.ts`), frame by frame of 20 ms: a command
//! begins when 5 of the last 8 frames are voice, with what was heard 400 ms before; it ends after 700 ms without voice, or
//! when it is too long. There a network listens for the voice; here it is an energy detector after `speech`: levels above
//! 250 Hz, against a floor that is the lowest of the last two seconds, with hysteresis. Sound without contrast (steady
//! noise, a held tone, hum) is no voice. Where noise begins out of digital silence it is taken for voice until the floor has
//! risen to it: later stages reject it by what it says.
//!
//! A state machine: no audio is kept, no clock is read, and the size of the pieces that it is fed changes nothing.
//! Not for recordings, where [`find_speech`](super::find_speech) sees both ends: soft consonants have no band of their own
//! here, as the 400 ms before and the 700 ms after hold them.

use super::level::{BUTTERWORTH_4_Q, FRAME_LEN, HighPass, VOICE_BAND_HZ, level_db};
use super::waveform::SAMPLE_RATE_HZ;

const SAMPLES_PER_MS: u64 = SAMPLE_RATE_HZ as u64 / 1000;
/// A command begins when so many of the last eight frames (160 ms) are voice: a click or a cough is shorter.
const START_FRAMES: u32 = 5;
/// What was heard before that belongs to it: a first consonant is no voice, 400 ms.
const PRE_ROLL: u64 = 400 * SAMPLES_PER_MS; // 6400 samples

/// Nothing below this is voice, nor a floor: dither, a muted microphone, the zeros of a noise gate.
const QUIET_LEVEL_DB: f32 = -65.0;
/// Below this contrast the sound is steady, and nothing can be said about its parts.
const MIN_CONTRAST_DB: f32 = 6.0;
/// A frame begins to be voice if it is this part of the contrast above the floor, within these bounds in dB. The lower one
/// is above what 20 ms of noise differ by from the quietest of two seconds.
const ENTER: (f32, f32, f32) = (0.35, 6.0, 12.0);
/// While somebody speaks, this is enough.
const STAY: (f32, f32, f32) = (0.25, 4.0, 8.0);
/// Levels are remembered for so many parts of so many frames, 1.9 s: longer than anybody speaks without a gap.
const PARTS: usize = 8;
const PART_FRAMES: usize = 12;

/// When an utterance ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EndpointOptions {
    /// Silence that ends a command, ms: less cuts people off who think, more makes everybody wait.
    pub end_silence_ms: u32,
    /// The longest command, ms.
    pub max_ms: u32,
}

impl Default for EndpointOptions {
    fn default() -> Self {
        Self { end_silence_ms: 700, max_ms: 12_000 }
    }
}

/// A stretch of a stream, in samples from its beginning: `start_sample..end_sample`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Utterance {
    /// The first sample that belongs to it.
    pub start_sample: u64,
    /// The first sample that no longer does.
    pub end_sample: u64,
}

/// What happens in a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EndpointEvent {
    /// Somebody speaks.
    Start {
        /// The first sample that belongs to it, which has come before.
        start_sample: u64,
    },
    /// It is over.
    End(Utterance),
}

/// Somebody who speaks.
#[derive(Debug, Clone, Copy)]
struct Speaking {
    start_sample: u64,
    /// Since the last voice.
    silent_samples: u64,
}

/// Finds the utterances of one stream.
#[derive(Debug, Clone)]
pub struct Endpointer {
    end_silence: u64,
    max_len: u64,
    filter: HighPass<2>,
    /// Of the frame that is being heard: the sum of squares, and how much of it has come.
    energy: f64,
    n_in_frame: usize,
    n_frames: u64,
    levels: RecentLevels,
    /// Whether each of the last eight frames was voice, the latest in the lowest bit.
    voice: u8,
    speaking: Option<Speaking>,
    /// Before this sample everything belongs to earlier utterances.
    free_from: u64,
}

impl Endpointer {
    /// At the beginning of a stream.
    #[must_use]
    pub fn new(options: EndpointOptions) -> Self {
        let at_least_a_frame = |ms: u32| (u64::from(ms) * SAMPLES_PER_MS).max(FRAME_LEN as u64);
        Self {
            end_silence: at_least_a_frame(options.end_silence_ms),
            max_len: at_least_a_frame(options.max_ms),
            filter: HighPass::new(VOICE_BAND_HZ, &BUTTERWORTH_4_Q),
            energy: 0.0,
            n_in_frame: 0,
            n_frames: 0,
            levels: RecentLevels::new(),
            voice: 0,
            speaking: None,
            free_from: 0,
        }
    }

    /// Hears 16 kHz samples up to the next event; says how many it took. The rest is for the next call.
    pub fn push(&mut self, samples: &[f32]) -> (usize, Option<EndpointEvent>) {
        for (at, sample) in samples.iter().enumerate() {
            // What is no number would stay in the filter for ever, and what is no sound for long.
            let sample = if sample.is_nan() { 0.0 } else { f64::from(sample.clamp(-1.0, 1.0)) };
            let filtered = self.filter.next(sample);
            self.energy += filtered * filtered;
            self.n_in_frame += 1;
            if self.n_in_frame == FRAME_LEN {
                let level_db = level_db(self.energy / FRAME_LEN as f64);
                (self.energy, self.n_in_frame) = (0.0, 0);
                if let Some(event) = self.hear(level_db) {
                    return (at + 1, Some(event));
                }
            }
        }
        (samples.len(), None)
    }

    /// Whether an utterance is being heard.
    #[must_use]
    pub fn is_speaking(&self) -> bool {
        self.speaking.is_some()
    }

    /// Samples heard since the beginning.
    #[must_use]
    pub fn n_heard(&self) -> u64 {
        self.n_frames * FRAME_LEN as u64 + self.n_in_frame as u64
    }

    /// The first sample that may still belong to an utterance: what came before it need not be kept.
    #[must_use]
    pub fn held_from(&self) -> u64 {
        match self.speaking {
            Some(speaking) => speaking.start_sample,
            None => (self.n_frames * FRAME_LEN as u64).saturating_sub(PRE_ROLL).max(self.free_from),
        }
    }

    /// Ends the utterance by hand, as a button does that is let go. If none was found, what is still held is one; nothing if
    /// that is empty.
    pub fn end(&mut self) -> Option<Utterance> {
        let utterance = Utterance { start_sample: self.held_from(), end_sample: self.n_heard() };
        self.begin_again(utterance.end_sample);
        (utterance.start_sample < utterance.end_sample).then_some(utterance)
    }

    /// One more frame.
    fn hear(&mut self, level_db: f32) -> Option<EndpointEvent> {
        let is_voice = self.levels.is_voice(level_db, self.is_speaking());
        let held_from = self.held_from();
        self.n_frames += 1;
        let heard = self.n_heard();
        let Some(speaking) = &mut self.speaking else {
            self.voice = (self.voice << 1) | u8::from(is_voice);
            if self.voice.count_ones() < START_FRAMES {
                return None;
            }
            self.speaking = Some(Speaking { start_sample: held_from, silent_samples: 0 });
            return Some(EndpointEvent::Start { start_sample: held_from });
        };
        speaking.silent_samples = if is_voice { 0 } else { speaking.silent_samples + FRAME_LEN as u64 };
        let Speaking { start_sample, silent_samples } = *speaking;
        if silent_samples < self.end_silence && heard - start_sample < self.max_len {
            return None;
        }
        self.begin_again(heard);
        Some(EndpointEvent::End(Utterance { start_sample, end_sample: heard }))
    }

    fn begin_again(&mut self, free_from: u64) {
        self.free_from = free_from;
        self.speaking = None;
        self.voice = 0;
    }
}

/// The lowest and the highest level of each of the last parts of a stream, the latest first.
#[derive(Debug, Clone)]
struct RecentLevels {
    parts: [(f32, f32); PARTS],
    n_in_part: usize,
}

impl RecentLevels {
    const NOTHING: (f32, f32) = (f32::INFINITY, f32::NEG_INFINITY);

    fn new() -> Self {
        Self { parts: [Self::NOTHING; PARTS], n_in_part: 0 }
    }

    /// Takes a frame's level and says whether it is voice.
    fn is_voice(&mut self, level_db: f32, is_speaking: bool) -> bool {
        if self.n_in_part == PART_FRAMES {
            self.parts.rotate_right(1);
            self.parts[0] = Self::NOTHING;
            self.n_in_part = 0;
        }
        self.n_in_part += 1;
        let (lowest, highest) = &mut self.parts[0];
        (*lowest, *highest) = (lowest.min(level_db), highest.max(level_db));

        let extremes = |(low, high): (f32, f32), part: &(f32, f32)| (low.min(part.0), high.max(part.1));
        let (lowest_db, loudest_db) = self.parts.iter().fold(Self::NOTHING, extremes);
        let floor_db = lowest_db.max(QUIET_LEVEL_DB);
        let contrast_db = loudest_db - floor_db;
        if contrast_db < MIN_CONTRAST_DB {
            return false;
        }
        let (part, least, most) = if is_speaking { STAY } else { ENTER };
        level_db >= floor_db + (part * contrast_db).clamp(least, most)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::audio::speech::tests::{noise, recording, speech_like};

    const SECOND: usize = SAMPLE_RATE_HZ as usize;

    /// All events of a stream that comes in pieces of these sizes, over and over.
    fn events_in_pieces(options: EndpointOptions, samples: &[f32], sizes: &[usize]) -> Vec<EndpointEvent> {
        let mut endpointer = Endpointer::new(options);
        let (mut events, mut rest) = (Vec::new(), samples);
        for size in sizes.iter().cycle() {
            let (mut piece, after) = rest.split_at((*size).min(rest.len()));
            while !piece.is_empty() {
                let (taken, event) = endpointer.push(piece);
                assert!(taken > 0 && endpointer.held_from() <= endpointer.n_heard());
                piece = &piece[taken..];
                events.extend(event);
            }
            rest = after;
            if rest.is_empty() {
                break;
            }
        }
        assert_eq!(endpointer.n_heard(), samples.len() as u64);
        events
    }

    fn events(samples: &[f32]) -> Vec<EndpointEvent> {
        events_in_pieces(EndpointOptions::default(), samples, &[SECOND])
    }

    /// The utterances; each has been said to begin where it does.
    fn utterances(events: &[EndpointEvent]) -> Vec<Utterance> {
        let (mut begun, mut utterances) = (None, Vec::new());
        for event in events {
            match *event {
                EndpointEvent::Start { start_sample } => assert_eq!(begun.replace(start_sample), None),
                EndpointEvent::End(utterance) => {
                    assert_eq!(begun.take(), Some(utterance.start_sample));
                    utterances.push(utterance);
                }
            }
        }
        utterances
    }

    #[track_caller]
    fn assert_holds(utterance: Utterance, start: usize, end: usize) {
        let (first, last) = (utterance.start_sample as usize, utterance.end_sample as usize);
        assert!(first <= start && end <= last, "{utterance:?} cuts into {start}..{end}");
        assert!(first + SECOND / 2 >= start && last <= end + SECOND, "{utterance:?} is far beyond {start}..{end}");
    }

    #[test]
    fn nobody_speaks() {
        assert_eq!(events(&[]), []);
        for level in [0.0, 0.5] {
            assert_eq!(events(&vec![level; 3 * SECOND]), [], "{level}");
        }
        // Dither, a quiet room, a loud one.
        for rms in [1e-5, 1e-3, 1e-2, 0.1] {
            assert_eq!(events(&noise(6 * SECOND, rms, 1)), [], "rms {rms}");
        }
        let tone = |hz: f32| {
            let sample = |i: usize| 0.2 * (std::f32::consts::TAU * hz * i as f32 / SECOND as f32).sin();
            (0..3 * SECOND).map(sample).collect::<Vec<f32>>()
        };
        for hz in [50.0, 440.0] {
            assert_eq!(events(&tone(hz)), [], "{hz} Hz");
        }
    }

    #[test]
    fn an_utterance_is_held_with_what_is_around_it() {
        for snr_db in [15.0, 30.0, 60.0] {
            let speech = speech_like(120.0, 5);
            let samples = recording(&speech, 2 * SECOND, 2 * SECOND, snr_db, 2);
            let found = utterances(&events(&samples));
            assert_eq!(found.len(), 1, "{snr_db} dB: {found:?}");
            assert_holds(found[0], 2 * SECOND, 2 * SECOND + speech.len());
        }
    }

    #[test]
    fn two_utterances_are_two_and_a_short_pause_is_none() {
        let word = speech_like(140.0, 3);
        let apart = |pause: usize| {
            let both = [word.clone(), vec![0.0; pause], word.clone()].concat();
            utterances(&events(&recording(&both, SECOND, 2 * SECOND, 40.0, 3)))
        };
        let found = apart(SECOND);
        assert_eq!(found.len(), 2, "{found:?}");
        assert_holds(found[0], SECOND, SECOND + word.len());
        assert_holds(found[1], 2 * SECOND + word.len(), 2 * SECOND + 2 * word.len());
        assert!(found[0].end_sample <= found[1].start_sample);
        assert_eq!(apart(SECOND / 2).len(), 1);
    }

    #[test]
    fn a_stream_may_begin_in_the_middle_of_a_word() {
        let speech = speech_like(120.0, 4);
        let found = utterances(&events(&recording(&speech[SECOND / 8..], 0, SECOND, 30.0, 4)));
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].end_sample >= (speech.len() - SECOND / 8) as u64);
    }

    #[test]
    fn a_click_is_no_utterance() {
        let mut samples = noise(3 * SECOND, 1e-4, 5);
        for at in [0, SECOND, 2 * SECOND] {
            // 50 ms of a tone, as a key makes.
            for (i, sample) in samples[at..at + 800].iter_mut().enumerate() {
                *sample = 0.5 * (0.4 * i as f32).sin();
            }
        }
        assert_eq!(events(&samples), []);
    }

    #[test]
    fn whoever_does_not_stop_is_cut_and_nothing_is_lost() {
        let options = EndpointOptions { max_ms: 1500, ..EndpointOptions::default() };
        let samples = recording(&speech_like(120.0, 24), SECOND, 2 * SECOND, 40.0, 6);
        let found = utterances(&events_in_pieces(options, &samples, &[1000]));
        assert!(found.len() >= 4, "{found:?}");
        let longest = found.iter().map(|utterance| utterance.end_sample - utterance.start_sample).max().unwrap();
        assert!((1500 * SAMPLES_PER_MS..=1520 * SAMPLES_PER_MS).contains(&longest), "{longest}");
        for pair in found.windows(2) {
            assert_eq!(pair[0].end_sample, pair[1].start_sample, "{found:?}");
        }
    }

    #[test]
    fn an_utterance_can_be_ended_by_hand() {
        let mut endpointer = Endpointer::new(EndpointOptions::default());
        assert_eq!(endpointer.end(), None);
        // Nobody was heard to speak: what is held, at most 400 ms and a frame.
        endpointer.push(&vec![0.0; SECOND + 7]);
        let held = endpointer.end().unwrap();
        assert_eq!(held.end_sample, SECOND as u64 + 7);
        assert_eq!(held.start_sample, endpointer.n_frames * FRAME_LEN as u64 - PRE_ROLL);
        assert_eq!(endpointer.end(), None);

        let speech = speech_like(120.0, 4);
        let (taken, event) = endpointer.push(&speech);
        assert!(matches!(event, Some(EndpointEvent::Start { .. })), "{event:?}");
        assert_eq!(endpointer.push(&speech[taken..]), (speech.len() - taken, None));
        assert!(endpointer.is_speaking());
        let ended = endpointer.end().unwrap();
        assert_eq!((ended.start_sample, ended.end_sample), (held.end_sample, endpointer.n_heard()));
        assert!(!endpointer.is_speaking());
    }

    #[test]
    fn what_is_no_sound_passes() {
        let mut samples = recording(&speech_like(120.0, 4), SECOND, SECOND, 40.0, 7);
        samples[100] = f32::NAN;
        samples[200] = f32::INFINITY;
        samples[300] = f32::MAX;
        assert_eq!(utterances(&events(&samples)).len(), 1);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]
        #[test]
        fn the_size_of_the_pieces_changes_nothing(
            f0_hz in 90.0_f64..250.0,
            n_syllables in 1_usize..6,
            lead in 0_usize..SECOND,
            snr_db in 10.0_f64..60.0,
            seed in any::<u64>(),
            sizes in prop::collection::vec(prop_oneof![Just(1), 1_usize..700, Just(SECOND)], 1..8),
        ) {
            let options = EndpointOptions { max_ms: 1000, ..EndpointOptions::default() };
            let samples = recording(&speech_like(f0_hz, n_syllables), lead, SECOND, snr_db, seed);
            let whole = events_in_pieces(options, &samples, &[samples.len()]);
            prop_assert_eq!(events_in_pieces(options, &samples, &sizes), whole);
        }

        #[test]
        fn no_levels_make_it_panic(samples in prop::collection::vec(any::<f32>(), 0..4000)) {
            utterances(&events(&samples));
        }
    }
}
