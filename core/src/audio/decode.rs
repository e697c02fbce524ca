//! Bytes of a sound file to a [`Waveform`].
//!
//! Reads WAV (PCM of 8 to 32 bits, float, A-law, µ-law, ADPCM), FLAC, MP3, Ogg (Vorbis, Opus, FLAC),
//! WebM and Matroska as browsers record them, MP4 and M4A (AAC-LC, Opus), and bare AAC frames.
//! symphonia 0.6 demuxes and decodes, but for Opus packets (see `opus`).
//!
//! What a player does, so does this: a damaged packet is left out and the next one is tried; a file
//! that is cut short gives what is there (but for the last fragment of a fragmented MP4, which symphonia
//! drops whole). Only a file of which nothing can be decoded is an error.
//! A change of sample rate or channel count on the way is followed; only MP3's is not (symphonia
//! skips such frames).
//!
//! Codecs read bytes from strangers, so:
//! - samples are counted while they are decoded, and the limit stops an hour in a small file early;
//! - the work per byte of input is bounded, whatever the file claims (`MAX_FRUITLESS_PACKETS` etc.);
//! - a panic inside a codec crate is caught, packet by packet, and counts as damage. In wasm a panic
//!   aborts instead: there the page's module has to be loaded anew.

use std::panic::{self, AssertUnwindSafe};

use symphonia::core::codecs::CodecParameters;
use symphonia::core::codecs::audio::well_known::{
    CODEC_ID_OPUS, CODEC_ID_PCM_F32BE, CODEC_ID_PCM_F32LE, CODEC_ID_PCM_F64BE, CODEC_ID_PCM_F64LE,
};
use symphonia::core::codecs::audio::{AudioCodecParameters, AudioDecoder, AudioDecoderOptions};
use symphonia::core::errors::Error as SymphoniaError;
use symphonia::core::formats::{FormatReader, TrackFlags};
use symphonia::core::packet::Packet;

use super::container;
use super::opus::{OPUS_RATE_HZ, OpusStream};
use super::pcm_sink::{PcmSink, Trim, count_invalid};
use super::waveform::Waveform;
use crate::error::{Error, Result};

/// A packet takes at least one byte of the file; only small files have fewer bytes than this.
const MIN_PACKET_BUDGET: usize = 65_536;
/// Packets in a row that bring no sound: other tracks, damage, empty packets without end.
const MAX_FRUITLESS_PACKETS: usize = 16_384;
/// Errors of the demuxer in a row: it may find its way back, or stand still.
const MAX_DEMUX_ERRORS: usize = 32;
/// Ogg files may be strung together; each link costs a search.
const MAX_CHAINED_STREAMS: usize = 64;
/// Each caught panic prints a message: a file that causes this many is given up.
const MAX_PANICS: usize = 8;

/// What a caller allows.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct DecodeLimits {
    /// The longest recording in seconds; more than 0.
    pub max_duration_s: f64,
}

impl Default for DecodeLimits {
    /// Ten minutes.
    fn default() -> Self {
        Self { max_duration_s: 600.0 }
    }
}

/// Decodes a sound file to 16 kHz mono.
///
/// The channels are averaged, each with the same weight; any sample rate from
/// [`MIN_RATE_HZ`](super::MIN_RATE_HZ) to [`MAX_RATE_HZ`](super::MAX_RATE_HZ) is resampled.
///
/// # Errors
/// - [`Error::EmptyAudio`] without bytes or without samples;
/// - [`Error::UnsupportedAudio`] if the bytes are no format that is read;
/// - [`Error::MalformedAudio`] if nothing in them can be decoded, or they claim to be impossible;
/// - [`Error::AudioTooLong`] past `limits`, as soon as it is passed;
/// - [`Error::InvalidSamples`] for a float WAV with samples that are not finite numbers;
/// - [`Error::InvalidParameter`] for a limit that is not positive.
pub fn decode(bytes: &[u8], limits: &DecodeLimits) -> Result<Waveform> {
    let limit_s = limits.max_duration_s;
    if limit_s.is_nan() || limit_s <= 0.0 {
        return Err(Error::InvalidParameter {
            name: "max_duration_s",
            allowed: format!("more than 0 seconds; got {limit_s}"),
        });
    }
    if bytes.is_empty() {
        return Err(Error::EmptyAudio);
    }
    let mut reader = guarded("its header", || container::open(bytes))??;
    let mut decoding =
        Decoding { sink: PcmSink::new(limit_s), interleaved: Vec::new(), n_invalid: 0, n_panics: 0, damage: None };
    decoding.read_all(&mut *reader, bytes.len())?;
    decoding.finish()
}

/// Calls into a codec crate. Whatever the call touched is dropped or renewed after a panic, so no
/// broken invariant is seen: that is what `AssertUnwindSafe` claims.
pub(super) fn guarded<T>(reading: &str, call: impl FnOnce() -> T) -> Result<T> {
    panic::catch_unwind(AssertUnwindSafe(call))
        .map_err(|_| Error::MalformedAudio { reason: format!("the decoder gave up on {reading}") })
}

/// The state of one call of [`decode`].
struct Decoding {
    sink: PcmSink,
    interleaved: Vec<f32>,
    n_invalid: usize,
    n_panics: usize,
    /// The first thing that went wrong; only told if nothing went right.
    damage: Option<String>,
}

impl Decoding {
    fn read_all(&mut self, reader: &mut dyn FormatReader, n_bytes: usize) -> Result<()> {
        let mut track = guarded("its codec header", || TrackDecoder::open(&*reader))??;
        let mut n_fruitless = 0;
        let mut n_demux_errors = 0;
        let mut n_chained = 0;
        for _ in 0..n_bytes.max(MIN_PACKET_BUDGET) {
            let packet = match guarded("a packet", || reader.next_packet()) {
                Ok(Ok(Some(packet))) => packet,
                Ok(Ok(None)) => return Ok(()),
                Ok(Err(SymphoniaError::ResetRequired)) if n_chained < MAX_CHAINED_STREAMS => {
                    n_chained += 1;
                    match guarded("its codec header", || TrackDecoder::open(&*reader)) {
                        Ok(Ok(next)) => track = next,
                        Ok(Err(error)) | Err(error) => {
                            self.note(error.to_string());
                            return Ok(());
                        }
                    }
                    continue;
                }
                Ok(Err(error @ SymphoniaError::DecodeError(_))) if n_demux_errors < MAX_DEMUX_ERRORS => {
                    n_demux_errors += 1;
                    self.note(container::describe(&error));
                    continue;
                }
                // The end of a file that is cut short, or of one that does not say where it ends.
                Ok(Err(error)) => {
                    self.note(container::describe(&error));
                    return Ok(());
                }
                Err(error) => {
                    self.note(error.to_string());
                    return Ok(());
                }
            };
            n_demux_errors = 0;
            if packet.track_id == track.id && self.decode_packet(&mut track, &packet)? {
                n_fruitless = 0;
            } else {
                n_fruitless += 1;
            }
            if n_fruitless > MAX_FRUITLESS_PACKETS || self.n_panics > MAX_PANICS {
                self.note("it holds too many packets without sound".to_owned());
                return Ok(());
            }
        }
        Ok(())
    }

    /// Says whether the packet brought any sound.
    fn decode_packet(&mut self, track: &mut TrackDecoder, packet: &Packet) -> Result<bool> {
        let interleaved = &mut self.interleaved;
        let decoded = match guarded("a packet", || track.decode(packet, interleaved)) {
            Ok(Ok(decoded)) => decoded,
            Ok(Err(reason)) => {
                self.note(reason);
                return Ok(false);
            }
            Err(error) => {
                self.note(error.to_string());
                self.n_panics += 1;
                guarded("its codec header", || track.renew())??;
                return Ok(false);
            }
        };
        let n_invalid = count_invalid(&self.interleaved);
        if n_invalid > 0 {
            if track.is_float_pcm {
                // Counted to the end, so that the error says how many there are.
                self.n_invalid += n_invalid;
                return Ok(true);
            }
            self.note("a packet decodes to something that is no sound".to_owned());
            return Ok(false);
        }
        if self.interleaved.is_empty() {
            return Ok(false);
        }
        self.sink.push(&self.interleaved, decoded.channels, decoded.rate_hz, decoded.trim)
    }

    fn note(&mut self, damage: String) {
        self.damage.get_or_insert(damage);
    }

    fn finish(self) -> Result<Waveform> {
        if self.n_invalid > 0 {
            return Err(Error::InvalidSamples { count: self.n_invalid });
        }
        let samples = self.sink.finish()?;
        match self.damage {
            Some(reason) if samples.is_empty() => Err(Error::MalformedAudio { reason }),
            _ => Waveform::new(samples),
        }
    }
}

/// One packet's samples are in the caller's buffer; this is their layout.
struct Decoded {
    channels: usize,
    rate_hz: u32,
    trim: Trim,
}

/// The decoder of the one track that is listened to.
struct TrackDecoder {
    id: u32,
    params: AudioCodecParameters,
    codec: Codec,
    is_float_pcm: bool,
}

enum Codec {
    Symphonia(Box<dyn AudioDecoder>),
    Opus(Box<OpusStream>),
}

impl TrackDecoder {
    /// The default audio track if its codec is known, or else the first whose codec is.
    fn open(reader: &dyn FormatReader) -> Result<Self> {
        let codecs = symphonia::default::get_codecs();
        let (track, params) = reader
            .tracks()
            .iter()
            .filter_map(|track| match &track.codec_params {
                Some(CodecParameters::Audio(params)) => Some((track, params)),
                _ => None,
            })
            .filter(|(_, params)| params.codec == CODEC_ID_OPUS || codecs.get_audio_decoder(params.codec).is_some())
            .min_by_key(|(track, _)| !track.flags.contains(TrackFlags::DEFAULT))
            .ok_or_else(|| Error::UnsupportedAudio {
                reason: format!("{} without a sound track in a known codec", reader.format_info().short_name),
            })?;
        let is_float_pcm =
            [CODEC_ID_PCM_F32LE, CODEC_ID_PCM_F32BE, CODEC_ID_PCM_F64LE, CODEC_ID_PCM_F64BE].contains(&params.codec);
        Ok(Self { id: track.id, params: params.clone(), codec: make_codec(params)?, is_float_pcm })
    }

    /// Decodes into `interleaved`; an error says in words what is wrong with the packet.
    fn decode(&mut self, packet: &Packet, interleaved: &mut Vec<f32>) -> std::result::Result<Decoded, String> {
        interleaved.clear();
        match &mut self.codec {
            Codec::Symphonia(decoder) => {
                // symphonia trims by itself what its decoders delay.
                let audio = decoder.decode(packet).map_err(|e| container::describe(&e))?;
                let (channels, rate_hz) = (audio.num_planes(), audio.spec().rate());
                if !audio.is_empty() && channels > 0 {
                    audio.copy_to_vec_interleaved(interleaved);
                }
                Ok(Decoded { channels, rate_hz, trim: Trim::default() })
            }
            Codec::Opus(stream) => {
                let n_skip = stream.decode(&packet.data, interleaved).map_err(|e| e.to_string())?;
                // Only Ogg says where the sound ends, in samples at 48 kHz. Matroska's discard
                // padding is not told by symphonia: its files keep up to 20 ms at the end.
                let n_padding = usize::try_from(packet.trim_end.get()).unwrap_or(usize::MAX);
                let trim = Trim { start: n_skip, end: n_padding };
                Ok(Decoded { channels: stream.channels(), rate_hz: OPUS_RATE_HZ, trim })
            }
        }
    }

    /// A decoder that panicked may be left half way through anything.
    fn renew(&mut self) -> Result<()> {
        match &mut self.codec {
            Codec::Symphonia(_) => self.codec = make_codec(&self.params)?,
            Codec::Opus(stream) => stream.renew()?,
        }
        Ok(())
    }
}

fn make_codec(params: &AudioCodecParameters) -> Result<Codec> {
    if params.codec == CODEC_ID_OPUS {
        return Ok(Codec::Opus(Box::new(OpusStream::new(params)?)));
    }
    let decoder = symphonia::default::get_codecs()
        .make_audio_decoder(params, &AudioDecoderOptions::default())
        .map_err(|e| container::opening_failed(&e))?;
    Ok(Codec::Symphonia(decoder))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn wav(tag: u16, channels: u16, rate_hz: u32, bits: u16, data: &[u8]) -> Vec<u8> {
        let frame_len = channels * bits / 8;
        let mut bytes = b"RIFF".to_vec();
        bytes.extend((36 + data.len() as u32).to_le_bytes());
        bytes.extend(b"WAVEfmt \x10\0\0\0");
        bytes.extend(tag.to_le_bytes());
        bytes.extend(channels.to_le_bytes());
        bytes.extend(rate_hz.to_le_bytes());
        bytes.extend((rate_hz * u32::from(frame_len)).to_le_bytes());
        bytes.extend(frame_len.to_le_bytes());
        bytes.extend(bits.to_le_bytes());
        bytes.extend(b"data");
        bytes.extend((data.len() as u32).to_le_bytes());
        bytes.extend(data);
        bytes
    }

    fn code(bytes: &[u8]) -> &'static str {
        decode(bytes, &DecodeLimits::default()).unwrap_err().code()
    }

    #[test]
    fn sixteen_bit_samples_arrive_as_they_are() {
        let samples = [0_i16, 16_384, -16_384, 32_767, -32_768];
        let data: Vec<u8> = samples.iter().flat_map(|s| s.to_le_bytes()).collect();
        let got = decode(&wav(1, 1, 16_000, 16, &data), &DecodeLimits::default()).unwrap();
        let expected: Vec<f32> = samples.iter().map(|&s| f32::from(s) / 32_768.0).collect();
        assert_eq!(got.samples(), expected);
    }

    #[test]
    fn a_last_frame_that_is_cut_in_two_is_left_out() {
        let got = decode(&wav(1, 2, 16_000, 16, &[0, 64, 0, 64, 0, 64]), &DecodeLimits::default()).unwrap();
        assert_eq!(got.samples(), [0.5]);
    }

    #[test]
    fn samples_that_are_no_numbers_are_counted() {
        let data: Vec<u8> = [0.5, f32::NAN, f32::INFINITY, 0.25].iter().flat_map(|s: &f32| s.to_le_bytes()).collect();
        let error = decode(&wav(3, 1, 16_000, 32, &data), &DecodeLimits::default()).unwrap_err();
        assert!(matches!(error, Error::InvalidSamples { count: 2 }), "{error:?}");
    }

    #[test]
    fn nothing_is_empty() {
        assert_eq!(code(&[]), "empty_audio");
        assert_eq!(code(&wav(1, 1, 16_000, 16, &[])), "empty_audio");
        // Less than one frame.
        assert_eq!(code(&wav(1, 2, 16_000, 16, &[0, 0])), "empty_audio");
    }

    #[test]
    fn the_unknown_and_the_impossible_have_their_own_codes() {
        assert_eq!(code(b"hello"), "unsupported_audio");
        assert_eq!(code(&wav(0x4242, 1, 16_000, 16, &[0; 8])), "unsupported_audio");
        assert_eq!(code(&wav(1, 0, 16_000, 16, &[0; 8])), "malformed_audio");
        assert_eq!(code(&wav(1, 1, 0, 16, &[0; 8])), "malformed_audio");
        assert_eq!(code(&wav(1, 1, 1_000_000, 16, &[0; 8])), "malformed_audio");
    }

    #[test]
    fn the_limit_is_exact_but_for_codec_padding() {
        let second = wav(1, 1, 8_000, 8, &[128; 8_000]);
        assert!(decode(&second, &DecodeLimits { max_duration_s: 1.0 }).is_ok());
        let error = decode(&second, &DecodeLimits { max_duration_s: 0.5 }).unwrap_err();
        assert!(matches!(error, Error::AudioTooLong { limit_s } if limit_s == 0.5), "{error:?}");
        for max_duration_s in [0.0, -1.0, f64::NAN] {
            let error = decode(&second, &DecodeLimits { max_duration_s }).unwrap_err();
            assert_eq!(error.code(), "invalid_parameter");
        }
    }
}
