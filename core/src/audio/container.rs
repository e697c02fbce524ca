//! Which format is it, and a demuxer for it.
//!
//! The first bytes decide, not symphonia's probe alone: that one searches a megabyte for anything
//! that looks like a frame of MPEG audio, and finds it in pictures and archives.
//!
//! All formats but MP4 are read as a stream that cannot seek, as a player reads a live source. That
//! skips symphonia's look-ahead (the last pages of an Ogg file, the index of a Matroska file, the
//! guess at the length of an MP3), which fails on truncated files and, for MP3, cuts the end off.
//! MP4 may keep its index at the end, so it has to seek.

use std::io::{Cursor, Read};

use symphonia::core::errors::Error as SymphoniaError;
use symphonia::core::formats::probe::Hint;
use symphonia::core::formats::{FormatOptions, FormatReader};
use symphonia::core::io::{MediaSource, MediaSourceStream, MediaSourceStreamOptions, ReadOnlySource};
use symphonia::core::meta::MetadataOptions;

use super::riff;
use crate::error::{Error, Result};

/// The formats that are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Container {
    Wav,
    Flac,
    Ogg,
    /// Matroska and WebM.
    Matroska,
    /// MP4, M4A and the rest of the ISO family.
    Mp4,
    /// MP3 and AAC without a container: frames, each with its own header.
    MpegFrames,
}

/// Opens the file that these bytes are.
///
/// # Errors
/// [`Error::UnsupportedAudio`] if they are no format that is read, [`Error::MalformedAudio`] if they
/// start like one and go on like none, [`Error::EmptyAudio`] for a WAV file without samples.
pub(super) fn open(bytes: &[u8]) -> Result<Box<dyn FormatReader + '_>> {
    let bytes = skip_id3(bytes);
    let Some(container) = sniff(bytes) else {
        let start: Vec<String> = bytes.iter().take(4).map(|b| format!("{b:02x}")).collect();
        return Err(Error::UnsupportedAudio { reason: format!("it starts with the bytes {}", start.join(" ")) });
    };
    let source: Box<dyn MediaSource + '_> = match container {
        Container::Wav => {
            let wav = riff::rewrite(bytes)?;
            Box::new(ReadOnlySource::new(Cursor::new(wav.header).chain(wav.data)))
        }
        Container::Mp4 => Box::new(Cursor::new(bytes)),
        Container::Flac | Container::Ogg | Container::Matroska | Container::MpegFrames => {
            Box::new(ReadOnlySource::new(bytes))
        }
    };
    let stream = MediaSourceStream::new(source, MediaSourceStreamOptions::default());
    symphonia::default::get_probe()
        .probe(&Hint::new(), stream, FormatOptions::default(), MetadataOptions::default())
        .map_err(|e| opening_failed(&e))
}

/// What an error of symphonia means before the first packet was read.
pub(super) fn opening_failed(error: &SymphoniaError) -> Error {
    match error {
        // The signature was that of a known format: what the probe cannot find, and what is
        // missing, is damage.
        SymphoniaError::Unsupported(what) if !what.starts_with("core (probe)") && !what.contains("missing") => {
            Error::UnsupportedAudio { reason: (*what).to_owned() }
        }
        other => Error::MalformedAudio { reason: describe(other) },
    }
}

/// In words that a caller understands.
pub(super) fn describe(error: &SymphoniaError) -> String {
    match error {
        SymphoniaError::IoError(e) if e.kind() == std::io::ErrorKind::UnexpectedEof => "it ends too early".to_owned(),
        other => other.to_string(),
    }
}

/// Tells the format by its first bytes.
fn sniff(bytes: &[u8]) -> Option<Container> {
    let tag = |at: usize| bytes.get(at..at + 4);
    match tag(0)? {
        b"RIFF" if tag(8) == Some(&b"WAVE"[..]) => Some(Container::Wav),
        b"fLaC" => Some(Container::Flac),
        b"OggS" => Some(Container::Ogg),
        b"\x1a\x45\xdf\xa3" => Some(Container::Matroska),
        _ if tag(4) == Some(&b"ftyp"[..]) => Some(Container::Mp4),
        // Eleven set bits; AAC's header (ADTS) begins with twelve of them.
        [0xff, second, ..] if second & 0xe0 == 0xe0 => Some(Container::MpegFrames),
        _ => None,
    }
}

/// Leaves out the ID3v2 tags (title, cover) that MP3 files start with, and the zeros that some
/// taggers leave behind them: symphonia is built without its ID3 reader here.
fn skip_id3(mut bytes: &[u8]) -> &[u8] {
    const HEADER_LEN: usize = 10;
    const HAS_FOOTER: u8 = 0x10;
    let whole = bytes;
    while let [b'I', b'D', b'3', _, _, flags, a, b, c, d, ..] = *bytes {
        // Four times seven bits, so that no byte looks like a frame's start.
        let len = [a, b, c, d].iter().fold(0, |len, byte| (len << 7) | usize::from(byte & 0x7f));
        let footer = if flags & HAS_FOOTER != 0 { HEADER_LEN } else { 0 };
        bytes = bytes.get(HEADER_LEN + len + footer..).unwrap_or_default();
    }
    if bytes.len() < whole.len() {
        let n_zeros = bytes.iter().take_while(|&&byte| byte == 0).count();
        bytes = &bytes[n_zeros..];
    }
    bytes
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn formats_are_told_by_their_first_bytes() {
        let cases: [(&[u8], Option<Container>); 11] = [
            (b"RIFF\0\0\0\0WAVEfmt ", Some(Container::Wav)),
            (b"RIFF\0\0\0\0AVI LIST", None),
            (b"fLaC\0\0\0\x22", Some(Container::Flac)),
            (b"OggS\0\x02", Some(Container::Ogg)),
            (b"\x1a\x45\xdf\xa3\x9f\x42", Some(Container::Matroska)),
            (b"\0\0\0\x1cftypM4A ", Some(Container::Mp4)),
            (b"\xff\xfb\x90\x64", Some(Container::MpegFrames)),
            (b"\xff\xf1\x50\x80", Some(Container::MpegFrames)),
            (b"\xff\xd8\xff\xe0", None), // JPEG
            (b"#!AMR\n", None),
            (b"RIF", None),
        ];
        for (bytes, expected) in cases {
            assert_eq!(sniff(bytes), expected, "{bytes:?}");
        }
    }

    #[test]
    fn id3_tags_are_skipped() {
        let mut bytes = b"ID3\x04\0\0\0\0\x01\x02".to_vec(); // 130 bytes
        bytes.extend([0xaa; 130]);
        bytes.extend(b"ID3\x04\0\x10\0\0\0\0"); // empty, with a footer
        bytes.extend([0xbb; 10]);
        bytes.extend([0, 0, 0, 0xff, 0xfb]);
        assert_eq!(skip_id3(&bytes), [0xff, 0xfb]);
        // Longer than the file, cut short, and none at all.
        assert!(skip_id3(b"ID3\x04\0\0\x7f\x7f\x7f\x7f\xff\xfb").is_empty());
        assert_eq!(skip_id3(b"ID3\x04"), b"ID3\x04");
        assert_eq!(skip_id3(b"\0\0fLaC"), b"\0\0fLaC");
    }

    #[test]
    fn no_audio_is_said_to_be_none() {
        for bytes in [&b"<!doctype html><html></html>"[..], b"\x89PNG\r\n\x1a\n", b"a", b"%PDF-1.7"] {
            let error = open(bytes).err().unwrap();
            assert_eq!(error.code(), "unsupported_audio", "{bytes:?}");
        }
    }
}
