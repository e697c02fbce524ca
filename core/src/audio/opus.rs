//! Opus packets, which symphonia 0.6 demuxes but does not decode.
//!
//! The codec is the `opus-decoder` crate (a pure Rust port of libopus). Around it, from RFC 6716 and
//! RFC 7845: the identification header, the pre-skip, the output gain, and the packing of several
//! frames into one packet, which is undone here so that
//! - a frame of at most one byte (DTX: nobody speaks) is silence, as it has to be, and not noise;
//! - a packet of several frames may be longer than the 1500 bytes that the crate takes at once.
//!
//! It decodes at 48 kHz, the rate at which the crate passes the RFC's test vectors, and leaves 16 kHz
//! to the resampler; times in Opus streams count 48 kHz samples whatever the rate.
//!
//! Not for surround sound: `opus-decoder` 0.1.1 has a multistream decoder, but splits its packets in
//! a way that RFC 6716 (appendix B) does not know. Nobody records commands in surround.

use opus_decoder::{OpusDecoder, OpusError};
use symphonia::core::codecs::audio::AudioCodecParameters;

use super::decode::guarded;
use super::pcm_sink::count_invalid;
use super::resample::StreamResampler;
use crate::error::{Error, Result};

/// The rate at which Opus is decoded here.
pub(super) const OPUS_RATE_HZ: u32 = 48_000;
/// No packet is longer: 120 ms.
const MAX_PACKET_FRAMES: usize = 5760;
/// The bits of a packet's first byte that say how many frames it packs.
const PACKING_MASK: u8 = 0b11;

/// The decoder of one stream.
pub(super) struct OpusStream {
    head: Head,
    decoder: OpusDecoder,
    /// What is left of the pre-skip, in samples per channel.
    skip_left: usize,
    /// One frame as a packet of its own.
    packet: Vec<u8>,
}

/// What the identification header says.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Head {
    channels: usize,
    pre_skip: usize,
    gain: f32,
}

impl OpusStream {
    /// # Errors
    /// [`Error::UnsupportedAudio`] for more than one stream or two channels,
    /// [`Error::MalformedAudio`] for a header that is cut short.
    pub(super) fn new(params: &AudioCodecParameters) -> Result<Self> {
        let head = match params.extra_data.as_deref() {
            Some(extra) => parse_head(extra)?,
            // Matroska files of some recorders lack it; the track says how many channels.
            None => Head { channels: params.channels.as_ref().map_or(1, |c| c.count()), pre_skip: 0, gain: 1.0 },
        };
        let decoder = new_decoder(head.channels)?;
        Ok(Self { head, decoder, skip_left: head.pre_skip, packet: Vec::new() })
    }

    pub(super) fn channels(&self) -> usize {
        self.head.channels
    }

    /// Starts anew after the decoder's state has been lost; the pre-skip does not come again.
    pub(super) fn renew(&mut self) -> Result<()> {
        self.decoder = new_decoder(self.head.channels)?;
        Ok(())
    }

    /// Decodes one packet into interleaved samples at 48 kHz and says how many samples per channel
    /// at its start belong to the pre-skip.
    pub(super) fn decode(
        &mut self,
        packet: &[u8],
        interleaved: &mut Vec<f32>,
    ) -> std::result::Result<usize, OpusError> {
        interleaved.clear();
        let frames = split_frames(packet).ok_or(OpusError::InvalidPacket)?;
        let first_byte = packet[0];
        let frame_len = samples_per_frame(first_byte);
        if frames.len() * frame_len > MAX_PACKET_FRAMES {
            return Err(OpusError::InvalidPacket);
        }
        for frame in frames {
            let start = interleaved.len();
            interleaved.resize(start + frame_len * self.head.channels, 0.0);
            if frame.len() <= 1 {
                continue; // DTX
            }
            self.packet.clear();
            self.packet.push(first_byte & !PACKING_MASK);
            self.packet.extend_from_slice(frame);
            let n_samples = self.decoder.decode_float(&self.packet, &mut interleaved[start..], false)?;
            interleaved.truncate(start + n_samples * self.head.channels);
        }
        if self.head.gain != 1.0 {
            for sample in interleaved.iter_mut() {
                *sample *= self.head.gain;
            }
        }
        let n_skip = self.skip_left.min(interleaved.len() / self.head.channels);
        self.skip_left -= n_skip;
        Ok(n_skip)
    }
}

/// Opus packets without a file around them, one after the other as a microphone's encoder makes them, to 16 kHz mono.
///
/// Not for files: there [`decode`](super::decode()) knows where the sound begins, and takes the encoder's delay away.
pub struct OpusPackets {
    stream: OpusStream,
    resampler: StreamResampler,
    at_48_khz: Vec<f32>,
}

impl OpusPackets {
    /// At the beginning of a stream.
    ///
    /// # Errors
    /// None that is known: what makes the decoder could fail for other layouts.
    pub fn new() -> Result<Self> {
        // One channel: the decoder makes one of two.
        let stream = OpusStream::new(&AudioCodecParameters::new())?;
        Ok(Self { stream, resampler: StreamResampler::new(OPUS_RATE_HZ)?, at_48_khz: Vec::new() })
    }

    /// Decodes one packet and appends what can be said of its sound so far to `samples`, 16 kHz; the last 60 ms or so come
    /// with the packets after it.
    ///
    /// # Errors
    /// [`Error::MalformedAudio`] for what is no packet; the next one can be pushed all the same.
    pub fn push(&mut self, packet: &[u8], samples: &mut Vec<f32>) -> Result<()> {
        let Self { stream, resampler, at_48_khz } = self;
        match guarded("an Opus packet", || stream.decode(packet, at_48_khz)) {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => return Err(Error::MalformedAudio { reason: format!("an Opus packet: {error}") }),
            Err(panicked) => {
                stream.renew()?;
                return Err(panicked);
            }
        }
        if count_invalid(at_48_khz) > 0 {
            return Err(Error::MalformedAudio {
                reason: "an Opus packet decodes to something that is no sound".to_owned(),
            });
        }
        resampler.push(at_48_khz, samples)
    }
}

impl std::fmt::Debug for OpusPackets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OpusPackets").finish_non_exhaustive()
    }
}

fn new_decoder(channels: usize) -> Result<OpusDecoder> {
    OpusDecoder::new(OPUS_RATE_HZ, channels)
        .map_err(|_| Error::UnsupportedAudio { reason: format!("Opus with {channels} channels") })
}

/// Reads an identification header: RFC 7845, section 5.1.
fn parse_head(extra: &[u8]) -> Result<Head> {
    const LEN: usize = 19;
    let fixed = extra.get(..LEN).filter(|head| head.starts_with(b"OpusHead"));
    let Some(fixed) = fixed else {
        return Err(Error::MalformedAudio { reason: "its Opus header is cut short".to_owned() });
    };
    // symphonia makes this header of an MP4 file's `dOps` box by putting the magic before it, but
    // that box has version 0 and big-endian numbers, while Ogg's and Matroska's header is version 1
    // and little-endian.
    let big_endian = fixed[8] == 0;
    let u16_at = |at: usize| {
        let field = [fixed[at], fixed[at + 1]];
        if big_endian { u16::from_be_bytes(field) } else { u16::from_le_bytes(field) }
    };
    let mut channels = usize::from(fixed[9]);
    let pre_skip = usize::from(u16_at(10));
    let gain_db = f32::from(u16_at(16).cast_signed()) / 256.0; // Q7.8
    let mapping_family = fixed[18];
    if mapping_family != 0 {
        // How many streams, and how many of them are stereo.
        let (Some(&n_streams), Some(&n_coupled)) = (extra.get(LEN), extra.get(LEN + 1)) else {
            return Err(Error::MalformedAudio { reason: "its Opus channel map is cut short".to_owned() });
        };
        if n_streams != 1 {
            return Err(Error::UnsupportedAudio { reason: format!("Opus with {channels} channels") });
        }
        // What the map makes of them does not matter: the mean is taken anyway.
        channels = if n_coupled == 0 { 1 } else { 2 };
    }
    Ok(Head { channels, pre_skip, gain: 10_f32.powf(gain_db / 20.0) })
}

/// Samples at 48 kHz in each frame of a packet, by its first byte: RFC 6716, table 2.
fn samples_per_frame(first_byte: u8) -> usize {
    const MS: usize = OPUS_RATE_HZ as usize / 1000;
    let config = first_byte >> 3;
    match config {
        // SILK: 10, 20, 40, 60 ms
        0..=11 => [10 * MS, 20 * MS, 40 * MS, 60 * MS][usize::from(config % 4)],
        // hybrid: 10, 20 ms
        12..=15 => [10 * MS, 20 * MS][usize::from(config % 2)],
        // CELT: 2.5, 5, 10, 20 ms
        _ => [5 * MS / 2, 5 * MS, 10 * MS, 20 * MS][usize::from(config % 4)],
    }
}

/// The frames of a packet: RFC 6716, section 3.2. None if it breaks the rules.
fn split_frames(packet: &[u8]) -> Option<Vec<&[u8]>> {
    let (&first_byte, body) = packet.split_first()?;
    match first_byte & PACKING_MASK {
        0 => Some(vec![body]),
        1 => {
            let half = body.len() / 2;
            body.len().is_multiple_of(2).then(|| vec![&body[..half], &body[half..]])
        }
        2 => {
            let (len, rest) = split_len(body)?;
            let (first, second) = rest.split_at_checked(len)?;
            Some(vec![first, second])
        }
        _ => split_many(body),
    }
}

/// Code 3: any number of frames, with padding or without.
fn split_many(body: &[u8]) -> Option<Vec<&[u8]>> {
    const VARIABLE: u8 = 0x80;
    const PADDED: u8 = 0x40;
    let (&count_byte, mut rest) = body.split_first()?;
    let n_frames = usize::from(count_byte & 0x3f);
    if n_frames == 0 {
        return None;
    }
    if count_byte & PADDED != 0 {
        let mut n_padding = 0;
        loop {
            let (&byte, after) = rest.split_first()?;
            rest = after;
            // 255 stands for 254 bytes of padding, and another byte follows.
            n_padding += usize::from(byte.min(254));
            if byte != 255 {
                break;
            }
        }
        rest = &rest[..rest.len().checked_sub(n_padding)?];
    }
    if count_byte & VARIABLE == 0 {
        if !rest.len().is_multiple_of(n_frames) {
            return None;
        }
        let len = rest.len() / n_frames;
        return Some((0..n_frames).map(|i| &rest[i * len..(i + 1) * len]).collect());
    }
    let mut lens = Vec::with_capacity(n_frames);
    for _ in 1..n_frames {
        let (len, after) = split_len(rest)?;
        rest = after;
        lens.push(len);
    }
    let mut frames = Vec::with_capacity(n_frames);
    for len in lens {
        let (frame, after) = rest.split_at_checked(len)?;
        rest = after;
        frames.push(frame);
    }
    frames.push(rest);
    Some(frames)
}

/// A frame's length, in one byte or two, and what follows it.
fn split_len(bytes: &[u8]) -> Option<(usize, &[u8])> {
    match *bytes {
        [short @ 0..=251, ref rest @ ..] => Some((usize::from(short), rest)),
        [low, high, ref rest @ ..] => Some((usize::from(high) * 4 + usize::from(low), rest)),
        _ => None,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// `first byte << 3 | stereo << 2 | packing`
    fn first_byte(config: u8, packing: u8) -> u8 {
        (config << 3) | packing
    }

    #[test]
    fn frames_last_as_long_as_the_rfc_says() {
        let by_config: Vec<usize> = (0..32).map(|config| samples_per_frame(first_byte(config, 0)) * 10 / 48).collect();
        let silk = [100, 200, 400, 600];
        let celt = [25, 50, 100, 200];
        let expected: Vec<usize> = [silk, silk, silk, [100, 200, 100, 200], celt, celt, celt, celt].concat();
        assert_eq!(by_config, expected); // in tenths of a millisecond
    }

    #[test]
    fn every_packing_is_undone() {
        let cases: [(&[u8], &[&[u8]]); 8] = [
            (&[0, 1, 2, 3], &[&[1, 2, 3]]),
            (&[0], &[&[]]),
            (&[1, 1, 2, 3, 4], &[&[1, 2], &[3, 4]]),
            (&[2, 1, 9, 8, 7], &[&[9], &[8, 7]]),
            (&[3, 3, 1, 2, 3], &[&[1], &[2], &[3]]),                // constant
            (&[3, 0x80 | 3, 2, 0, 1, 2, 3], &[&[1, 2], &[], &[3]]), // variable
            (&[3, 0x40 | 2, 3, 1, 2, 0, 0, 0], &[&[1], &[2]]),      // padded
            (&[3, 0xc0 | 2, 1, 1, 7, 8, 9, 0], &[&[7], &[8, 9]]),   // variable and padded
        ];
        for (packet, expected) in cases {
            assert_eq!(split_frames(packet).unwrap(), expected, "{packet:?}");
        }
        let mut long = vec![2, 253, 1]; // 253 + 4 = 257 bytes
        long.extend([5; 300]);
        let frames = split_frames(&long).unwrap();
        assert_eq!((frames[0].len(), frames[1].len()), (257, 43));
    }

    #[test]
    fn broken_packings_are_none() {
        let cases: [&[u8]; 9] = [
            &[],
            &[1, 1, 2, 3],
            &[2],
            &[2, 5, 1],
            &[2, 252],
            &[3],
            &[3, 0],
            &[3, 2, 1, 2, 3],
            &[3, 0x40 | 1, 255, 255],
        ];
        for packet in cases {
            assert_eq!(split_frames(packet), None, "{packet:?}");
        }
    }

    #[test]
    fn headers_are_read_in_both_byte_orders() {
        // As Chromium's MediaRecorder writes it, but for pre-skip 312 and -6 dB.
        let mut head = b"OpusHead\x01\x01\x38\x01\x80\xbb\0\0\0\xfa\0".to_vec();
        let expected = Head { channels: 1, pre_skip: 312, gain: 10_f32.powf(-6.0 / 20.0) };
        assert_eq!(parse_head(&head).unwrap(), expected);
        // The same from an MP4 file's dOps box.
        head[8] = 0;
        head[10..12].copy_from_slice(&312_u16.to_be_bytes());
        head[16..18].copy_from_slice(&(-6_i16 * 256).to_be_bytes());
        assert_eq!(parse_head(&head).unwrap(), expected);
        for cut in 0..head.len() {
            assert_eq!(parse_head(&head[..cut]).unwrap_err().code(), "malformed_audio");
        }
    }

    #[test]
    fn surround_sound_is_refused_and_a_single_mapped_stream_is_not() {
        let mut head = b"OpusHead\x01\x06\0\0\x80\xbb\0\0\0\0\x01".to_vec();
        head.extend([4, 2, 0, 4, 1, 2, 3, 5]);
        assert_eq!(parse_head(&head).unwrap_err().code(), "unsupported_audio");
        head[9] = 2;
        head[19..21].copy_from_slice(&[1, 1]);
        assert_eq!(parse_head(&head).unwrap().channels, 2);
    }

    #[test]
    fn frames_without_content_are_silence() {
        let mut params = AudioCodecParameters::new();
        params.with_extra_data(b"OpusHead\x01\x01\x38\x01\x80\xbb\0\0\0\0\0".to_vec().into_boxed_slice());
        let mut stream = OpusStream::new(&params).unwrap();
        let mut samples = Vec::new();
        // Wide-band SILK, 20 ms.
        let n_skip = stream.decode(&[first_byte(9, 0)], &mut samples).unwrap();
        assert_eq!((n_skip, samples.len()), (312, 960));
        assert!(samples.iter().all(|&s| s == 0.0));
        let n_skip = stream.decode(&[first_byte(9, 1), 0, 0], &mut samples).unwrap();
        assert_eq!((n_skip, samples.len()), (0, 1920));
        // 7 × 20 ms is more than a packet may hold.
        assert!(stream.decode(&[first_byte(9, 3), 7], &mut samples).is_err());
    }

    #[test]
    fn packets_that_come_alone_are_the_sound_of_the_file() {
        let file = include_bytes!("../../../tests/audio/speech_opus.ogg");
        let packets = packets_of_ogg(file);
        let mut stream = OpusPackets::new().unwrap();
        let mut got = Vec::new();
        for packet in &packets[2..] {
            stream.push(packet, &mut got).unwrap();
        }
        let expected = super::super::decode(file, &super::super::DecodeLimits::default()).unwrap().into_samples();
        // The file says how much at its beginning is the encoder's delay, a multiple of three.
        let pre_skip = parse_head(&packets[0]).unwrap().pre_skip;
        assert_eq!(pre_skip % 3, 0);
        let got = &got[pre_skip / 3..];
        assert!(expected.len() > 16_000 && got.len() + 1600 > expected.len(), "{} of {}", got.len(), expected.len());
        let compared = 1600..got.len().min(expected.len()) - 1600;
        let worst = got[compared.clone()].iter().zip(&expected[compared]).map(|(a, b)| (a - b).abs());
        let worst = worst.fold(0.0, f32::max);
        assert!(worst < 1e-3, "{worst}");
    }

    /// The packets of an Ogg file with one stream: RFC 3533, section 6.
    fn packets_of_ogg(mut pages: &[u8]) -> Vec<Vec<u8>> {
        let (mut packets, mut packet) = (Vec::new(), Vec::new());
        while !pages.is_empty() {
            assert!(pages.starts_with(b"OggS"));
            let n_segments = usize::from(pages[26]);
            let (segments, mut body) = pages[27..].split_at(n_segments);
            for len in segments {
                let (segment, rest) = body.split_at(usize::from(*len));
                packet.extend_from_slice(segment);
                body = rest;
                if *len < 255 {
                    packets.push(std::mem::take(&mut packet));
                }
            }
            pages = body;
        }
        packets
    }

    #[test]
    fn a_damaged_packet_costs_itself_only() {
        let mut stream = OpusPackets::new().unwrap();
        let mut samples = Vec::new();
        let broken: [&[u8]; 4] = [&[], &[3, 0], &[first_byte(9, 3), 7], &[first_byte(9, 2), 252]];
        for broken in broken {
            assert_eq!(stream.push(broken, &mut samples).unwrap_err().code(), "malformed_audio", "{broken:?}");
        }
        assert!(samples.is_empty());
        for _ in 0..50 {
            stream.push(&[first_byte(9, 0)], &mut samples).unwrap();
        }
        // One second, but for what is still in the resampler.
        assert!((14_000..=16_000).contains(&samples.len()), "{}", samples.len());
        assert!(samples.iter().all(|sample| *sample == 0.0));
    }

    proptest! {
        #[test]
        fn no_packet_makes_a_stream_panic(
            packets in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..64), 1..8),
        ) {
            let mut stream = OpusPackets::new().unwrap();
            let mut samples = Vec::new();
            for packet in packets {
                if let Err(error) = stream.push(&packet, &mut samples) {
                    prop_assert_eq!(error.code(), "malformed_audio");
                }
            }
            prop_assert!(samples.iter().all(|sample| sample.is_finite()));
        }

        #[test]
        fn no_packet_makes_the_splitter_panic(packet in prop::collection::vec(any::<u8>(), 0..64)) {
            if let Some(frames) = split_frames(&packet) {
                prop_assert!(frames.iter().map(|f| f.len()).sum::<usize>() < packet.len());
            }
        }
    }
}
