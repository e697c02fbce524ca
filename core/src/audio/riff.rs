//! WAV headers, made honest before symphonia reads them.
//!
//! A WAV file states its length twice (RIFF and `data` chunk), and both are often wrong: a recorder
//! that was stopped leaves zeros, a pipe leaves 0xffffffff, an upload is cut short. symphonia 0.6
//! refuses a chunk that claims to be longer than its parent, and is strict about the length of the
//! `fmt ` chunk. So the two chunks that matter are found here and put behind a header of our own;
//! the other chunks (names, cover art, cue points) are of no use and are not read at all.
//!
//! Not for RF64 and RIFX: nobody records commands of 4 GB.

use super::pcm_sink::check_layout;
use crate::error::{Error, Result};

const WAVE_FORMAT_PCM: u16 = 0x0001;
const WAVE_FORMAT_IEEE_FLOAT: u16 = 0x0003;
const WAVE_FORMAT_ALAW: u16 = 0x0006;
const WAVE_FORMAT_MULAW: u16 = 0x0007;
const WAVE_FORMAT_EXTENSIBLE: u16 = 0xfffe;

/// `WAVEFORMAT`: what every `fmt ` chunk begins with.
const FMT_LEN: usize = 16;
/// `WAVEFORMATEX`: with the length of an extension.
const FMT_EX_LEN: usize = 18;
/// `WAVEFORMATEXTENSIBLE`: with channel mask and sub-format.
const FMT_EXTENSIBLE_LEN: usize = 40;
/// More than any codec's extension needs.
const FMT_MAX_LEN: usize = 256;

/// A WAV file as a truthful header and the bytes of its samples.
#[derive(Debug)]
pub(super) struct Wav<'a> {
    pub(super) header: Vec<u8>,
    pub(super) data: &'a [u8],
}

/// Finds format and samples of a file that starts with `RIFF….WAVE`.
///
/// # Errors
/// [`Error::MalformedAudio`] without a `fmt ` and a `data` chunk or with an impossible format,
/// [`Error::EmptyAudio`] if there are no samples.
pub(super) fn rewrite(bytes: &[u8]) -> Result<Wav<'_>> {
    let (fmt, data) = find_chunks(bytes)?;
    if fmt.len() < FMT_LEN {
        return Err(malformed("its format chunk is cut short"));
    }
    let field = |at: usize| u16::from_le_bytes([fmt[at], fmt[at + 1]]);
    let (tag, channels) = (field(0), field(2));
    let rate_hz = u32::from_le_bytes([fmt[4], fmt[5], fmt[6], fmt[7]]);
    check_layout(usize::from(channels), rate_hz)?;
    if data.is_empty() {
        return Err(Error::EmptyAudio);
    }

    let mut fmt = fmt.to_vec();
    // The lengths that symphonia accepts for each format.
    match tag {
        WAVE_FORMAT_PCM | WAVE_FORMAT_IEEE_FLOAT => fmt.truncate(FMT_LEN),
        WAVE_FORMAT_ALAW | WAVE_FORMAT_MULAW => {
            fmt.truncate(FMT_LEN);
            fmt.resize(FMT_EX_LEN, 0);
        }
        WAVE_FORMAT_EXTENSIBLE => fmt.resize(FMT_EXTENSIBLE_LEN, 0),
        _ => fmt.truncate(FMT_MAX_LEN),
    }

    let mut header = Vec::with_capacity(28 + fmt.len());
    header.extend_from_slice(b"RIFF");
    // Unknown: symphonia then holds no chunk against it.
    header.extend_from_slice(&u32::MAX.to_le_bytes());
    header.extend_from_slice(b"WAVEfmt ");
    header.extend_from_slice(&(fmt.len() as u32).to_le_bytes());
    header.extend_from_slice(&fmt);
    if !fmt.len().is_multiple_of(2) {
        header.push(0);
    }
    header.extend_from_slice(b"data");
    header.extend_from_slice(&u32::try_from(data.len()).unwrap_or(u32::MAX).to_le_bytes());
    Ok(Wav { header, data })
}

/// The bodies of the `fmt ` and the `data` chunk, as much of them as there is.
fn find_chunks(bytes: &[u8]) -> Result<(&[u8], &[u8])> {
    let u32_at = |at: usize| -> Option<usize> {
        let field = bytes.get(at..at + 4)?;
        Some(u32::from_le_bytes([field[0], field[1], field[2], field[3]]) as usize)
    };
    let mut fmt = None;
    let mut at = 12; // behind "RIFF", its length and "WAVE"
    while let (Some(tag), Some(len)) = (bytes.get(at..at + 4), u32_at(at + 4)) {
        let body = at + 8;
        let rest = &bytes[body..];
        match tag {
            b"fmt " => fmt = Some(&rest[..len.min(rest.len())]),
            b"data" => {
                let fmt = fmt.ok_or_else(|| malformed("it has no format chunk before its samples"))?;
                // A length of zero in a file that claims to end here was never filled in.
                let unfinished = len == 0 && u32_at(4).is_some_and(|riff_len| riff_len + 8 <= body);
                return Ok((fmt, if unfinished { rest } else { &rest[..len.min(rest.len())] }));
            }
            _ => {}
        }
        // Chunks start at even positions.
        at = body.saturating_add(len).saturating_add(len & 1);
        if at >= bytes.len() {
            break;
        }
    }
    Err(malformed("it ends before its samples"))
}

fn malformed(reason: &str) -> Error {
    Error::MalformedAudio { reason: reason.to_owned() }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// 16-bit mono at 8 kHz.
    fn wav(riff_len: u32, fmt_extra: &[u8], between: &[u8], data_len: u32, data: &[u8]) -> Vec<u8> {
        let mut bytes = b"RIFF".to_vec();
        bytes.extend(riff_len.to_le_bytes());
        bytes.extend(b"WAVEfmt ");
        bytes.extend((16 + fmt_extra.len() as u32).to_le_bytes());
        bytes.extend([1, 0, 1, 0, 0x40, 0x1f, 0, 0, 0x80, 0x3e, 0, 0, 2, 0, 16, 0]);
        bytes.extend(fmt_extra);
        bytes.extend(between);
        bytes.extend(b"data");
        bytes.extend(data_len.to_le_bytes());
        bytes.extend(data);
        bytes
    }

    #[test]
    fn lengths_that_lie_are_put_right() {
        let data = [1, 0, 2, 0, 3, 0];
        // (RIFF length, data length): honest, a pipe's, never filled in, too long, RIFF too short.
        for (riff_len, data_len) in [(42, 6), (u32::MAX, u32::MAX), (0, 0), (36, 0), (42, 60_000), (4, 6)] {
            let bytes = wav(riff_len, &[], &[], data_len, &data);
            let got = rewrite(&bytes).unwrap();
            assert_eq!(got.data, data, "RIFF length {riff_len}, data length {data_len}");
            assert_eq!(got.header.len(), 44);
            assert_eq!(got.header[40..], 6_u32.to_le_bytes());
        }
    }

    #[test]
    fn other_chunks_are_left_out() {
        let mut list = b"LIST".to_vec();
        list.extend([5, 0, 0, 0, b'I', b'N', b'F', b'O', b'x', 0]); // odd length, padded
        let bytes = wav(60, &[], &list, 2, &[7, 0, b'L', b'I', b'S', b'T', 0, 0, 0, 0]);
        assert_eq!(rewrite(&bytes).unwrap().data, [7, 0]);
    }

    #[test]
    fn a_format_chunk_of_unusual_length_is_cut_to_size() {
        let bytes = wav(100, &[0, 0, 9, 9], &[], 2, &[7, 0]);
        let got = rewrite(&bytes).unwrap();
        assert_eq!(got.header[16..20], 16_u32.to_le_bytes());
        assert_eq!(got.data, [7, 0]);
    }

    #[test]
    fn what_is_missing_is_named() {
        let no_samples = wav(36, &[], &[], 0, &[]);
        assert_eq!(rewrite(&no_samples).unwrap_err().code(), "empty_audio");
        for cut in [12, 20, 30, 36, 40, 43] {
            assert_eq!(rewrite(&no_samples[..cut]).unwrap_err().code(), "malformed_audio", "cut at {cut}");
        }
        let mut no_channels = wav(42, &[], &[], 2, &[7, 0]);
        no_channels[22] = 0;
        assert_eq!(rewrite(&no_channels).unwrap_err().code(), "malformed_audio");
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(tail in prop::collection::vec(any::<u8>(), 0..200)) {
            let mut bytes = b"RIFF\0\0\0\0WAVE".to_vec();
            bytes.extend(tail);
            let _ = rewrite(&bytes);
        }

        #[test]
        fn no_chunk_length_makes_it_panic(riff_len: u32, data_len: u32, list_len: u32) {
            let mut list = b"LIST".to_vec();
            list.extend(list_len.to_le_bytes());
            let _ = rewrite(&wav(riff_len, &[], &list, data_len, &[1, 2, 3]));
        }
    }
}
