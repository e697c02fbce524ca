//! The sound of a stream: frames in, utterances out.
//!
//! What is kept is the utterance that is being heard, or the little before it that may still belong to one, as 16 bits; and
//! of the last message what is not yet listened to.

use axum::body::Bytes;
use okyeame_core::Result as CoreResult;
use okyeame_core::audio::{
    EndpointEvent, EndpointOptions, Endpointer, OpusPackets, SAMPLE_RATE_HZ, Utterance, Waveform,
};

use super::messages::{Format, Span};

/// New speech that is worth a new guess, half a second.
const GUESS_EVERY: u64 = SAMPLE_RATE_HZ as u64 / 2; // 8000 samples
const FULL_SCALE: f32 = 32_768.0;

/// What was heard.
#[derive(Debug)]
pub(super) enum Heard {
    Started { utterance: u64, at_s: f64 },
    Ended(Spoken),
}

/// An utterance as it was heard.
#[derive(Debug)]
pub(super) struct Spoken {
    pub(super) span: Span,
    /// As a file, so that it goes the way of all clips.
    pub(super) wav: Bytes,
    /// Since the utterance before it.
    pub(super) bytes_sent: u64,
}

enum Decoder {
    /// The first byte of a sample whose second is in the next message.
    Pcm16 { half: Option<u8> },
    Opus {
        packets: Box<OpusPackets>,
        /// Of damaged packets in a row, the first is told.
        is_damaged: bool,
    },
}

/// Listens to one stream.
pub(super) struct Ear {
    decoder: Decoder,
    endpointer: Endpointer,
    /// Decoded, of the last message.
    samples: Vec<f32>,
    /// How many of them the end-pointer has heard.
    n_heard: usize,
    /// From the sample [`Endpointer::held_from`] on.
    held: Vec<i16>,
    held_from: u64,
    n_utterances: u64,
    bytes_sent: u64,
    /// Up to which sample was guessed.
    guessed_to: u64,
}

impl Ear {
    pub(super) fn new(format: Format, options: EndpointOptions) -> CoreResult<Self> {
        let decoder = match format {
            Format::Pcm16 => Decoder::Pcm16 { half: None },
            Format::Opus => Decoder::Opus { packets: Box::new(OpusPackets::new()?), is_damaged: false },
        };
        Ok(Self {
            decoder,
            endpointer: Endpointer::new(options),
            samples: Vec::new(),
            n_heard: 0,
            held: Vec::new(),
            held_from: 0,
            n_utterances: 0,
            bytes_sent: 0,
            guessed_to: 0,
        })
    }

    /// Takes a message, once the last one has been listened to.
    ///
    /// # Errors
    /// A damaged Opus packet; it is left out.
    pub(super) fn take(&mut self, message: &[u8]) -> CoreResult<()> {
        self.bytes_sent += message.len() as u64;
        match &mut self.decoder {
            _ if message.is_empty() => Ok(()),
            Decoder::Pcm16 { half } => {
                decode_pcm16(message, half, &mut self.samples);
                Ok(())
            }
            Decoder::Opus { packets, is_damaged } => {
                let decoded = packets.push(message, &mut self.samples);
                let was_damaged = std::mem::replace(is_damaged, decoded.is_err());
                if was_damaged { Ok(()) } else { decoded }
            }
        }
    }

    /// Listens on to the next that happens; nothing once all is heard.
    pub(super) fn listen(&mut self) -> Option<Heard> {
        let unheard = &self.samples[self.n_heard..];
        let (taken, event) = self.endpointer.push(unheard);
        self.held.extend(unheard[..taken].iter().copied().map(to_16_bits));
        self.n_heard += taken;
        if self.n_heard == self.samples.len() {
            self.samples.clear();
            self.n_heard = 0;
        }
        let heard = event.map(|event| match event {
            EndpointEvent::Start { start_sample } => {
                self.n_utterances += 1;
                self.guessed_to = self.endpointer.n_heard();
                Heard::Started { utterance: self.n_utterances, at_s: seconds(start_sample) }
            }
            EndpointEvent::End(utterance) => Heard::Ended(self.cut(utterance)),
        });
        self.forget();
        heard
    }

    /// Ends the utterance by hand; without one, what is held is taken for one. `None` if there is nothing.
    pub(super) fn end(&mut self) -> Option<Spoken> {
        if let Decoder::Pcm16 { half } = &mut self.decoder {
            *half = None; // of a sample that is not to come
        }
        let was_found = self.endpointer.is_speaking();
        let utterance = self.endpointer.end()?;
        if !was_found {
            self.n_utterances += 1;
        }
        let spoken = self.cut(utterance);
        self.forget();
        Some(spoken)
    }

    pub(super) fn is_speaking(&self) -> bool {
        self.endpointer.is_speaking()
    }

    /// Utterances that have begun.
    pub(super) fn n_utterances(&self) -> u64 {
        self.n_utterances
    }

    /// The utterance so far, if enough was said since this was last asked.
    pub(super) fn so_far(&mut self) -> Option<(Span, Waveform)> {
        let now = self.endpointer.n_heard();
        if !self.is_speaking() || now - self.guessed_to < GUESS_EVERY {
            return None;
        }
        self.guessed_to = now;
        let samples = self.held.iter().map(|sample| f32::from(*sample) / FULL_SCALE).collect();
        let span = self.span(Utterance { start_sample: self.held_from, end_sample: now });
        Some((span, Waveform::new(samples).ok()?))
    }

    fn span(&self, utterance: Utterance) -> Span {
        let (start_s, end_s) = (seconds(utterance.start_sample), seconds(utterance.end_sample));
        Span { utterance: self.n_utterances, start_s, end_s }
    }

    /// An utterance that ends here.
    fn cut(&mut self, utterance: Utterance) -> Spoken {
        let start = utterance.start_sample.saturating_sub(self.held_from) as usize;
        let samples = self.held.get(start..).unwrap_or_default();
        let bytes_sent = std::mem::take(&mut self.bytes_sent);
        Spoken { wav: wav(samples).into(), bytes_sent, span: self.span(utterance) }
    }

    /// Drops what belongs to no utterance any more.
    fn forget(&mut self) {
        let held_from = self.endpointer.held_from();
        let n_past = held_from.saturating_sub(self.held_from) as usize;
        self.held.drain(..n_past.min(self.held.len()));
        self.held_from = held_from;
    }
}

fn seconds(sample: u64) -> f64 {
    sample as f64 / f64::from(SAMPLE_RATE_HZ)
}

fn to_16_bits(sample: f32) -> i16 {
    // `as` saturates.
    (sample * FULL_SCALE).round() as i16
}

/// Appends the samples of a message, whose first byte may belong to the one before it, as its last may to the next.
fn decode_pcm16(mut bytes: &[u8], half: &mut Option<u8>, samples: &mut Vec<f32>) {
    let sample = |low: u8, high: u8| f32::from(i16::from_le_bytes([low, high])) / FULL_SCALE;
    if let (Some(low), Some((high, rest))) = (*half, bytes.split_first()) {
        samples.push(sample(low, *high));
        *half = None;
        bytes = rest;
    }
    let pairs = bytes.chunks_exact(2);
    if let [low] = pairs.remainder() {
        *half = Some(*low);
    }
    samples.extend(pairs.map(|pair| sample(pair[0], pair[1])));
}

/// A WAV file, 16 kHz mono.
fn wav(samples: &[i16]) -> Vec<u8> {
    const HEADER_LEN: usize = 44;
    let n_bytes = samples.len() * 2;
    // Half a minute is a megabyte.
    let size = |n_bytes: usize| u32::try_from(n_bytes).unwrap_or(u32::MAX).to_le_bytes();
    let mut file = Vec::with_capacity(HEADER_LEN + n_bytes);
    file.extend_from_slice(b"RIFF");
    file.extend_from_slice(&size(HEADER_LEN - 8 + n_bytes));
    file.extend_from_slice(b"WAVEfmt \x10\0\0\0\x01\0\x01\0"); // 16 bytes: PCM, one channel
    file.extend_from_slice(&SAMPLE_RATE_HZ.to_le_bytes());
    file.extend_from_slice(&(SAMPLE_RATE_HZ * 2).to_le_bytes());
    file.extend_from_slice(b"\x02\0\x10\0data"); // 2 bytes a sample, 16 bits
    file.extend_from_slice(&size(n_bytes));
    file.extend(samples.iter().flat_map(|sample| sample.to_le_bytes()));
    file
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use okyeame_core::audio::{DecodeLimits, decode};

    use super::*;

    #[test]
    fn samples_are_the_same_however_they_are_cut() {
        let bytes: Vec<u8> = (0..=255).collect();
        let in_pieces = |size: usize| {
            let (mut half, mut samples) = (None, Vec::new());
            for piece in bytes[..255].chunks(size) {
                decode_pcm16(piece, &mut half, &mut samples);
                decode_pcm16(&[], &mut half, &mut samples);
            }
            (half, samples)
        };
        let (half, samples) = in_pieces(255);
        assert_eq!((half, samples.len(), samples[1]), (Some(254), 127, f32::from(0x0302_i16) / FULL_SCALE));
        for size in [1, 2, 3, 7, 64] {
            assert_eq!(in_pieces(size), (half, samples.clone()), "{size}");
        }
    }

    #[test]
    fn a_wav_file_holds_the_samples() {
        let samples: Vec<i16> = vec![0, 1, -1, i16::MAX, i16::MIN, 12_345];
        let read = decode(&wav(&samples), &DecodeLimits::default()).unwrap();
        let read: Vec<i16> = read.samples().iter().copied().map(to_16_bits).collect();
        assert_eq!(read, samples);
    }

    #[test]
    fn what_is_silent_is_not_kept() {
        let mut ear = Ear::new(Format::Pcm16, EndpointOptions::default()).unwrap();
        for _ in 0..100 {
            ear.take(&[0; 32_000]).unwrap();
            assert!(ear.listen().is_none());
            assert!(ear.held.len() <= SAMPLE_RATE_HZ as usize && ear.samples.is_empty());
        }
        assert!(ear.so_far().is_none());
        let spoken = ear.end().unwrap();
        assert_eq!((spoken.span.utterance, spoken.span.end_s, spoken.bytes_sent), (1, 100.0, 3_200_000));
        assert!(spoken.span.start_s > 99.0 && ear.held.is_empty());
        assert!(ear.end().is_none());
    }

    #[test]
    fn a_row_of_damaged_packets_is_told_once() {
        let mut ear = Ear::new(Format::Opus, EndpointOptions::default()).unwrap();
        let good = [9 << 3];
        for round in 0..2 {
            assert!(ear.take(&[3, 0]).is_err(), "{round}");
            assert!(ear.take(&[3, 0]).is_ok() && ear.take(&good).is_ok() && ear.take(&[]).is_ok(), "{round}");
        }
    }
}
