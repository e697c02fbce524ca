//! Every format that a caller may send, decoded and compared with the same utterance as plain
//! 16 kHz WAV; and every way in which such a file may be broken.
//!
//! The files are made by `tests/audio/make_fixtures.sh` (ffmpeg, espeak-ng) and, for the real
//! MediaRecorder file, by `tests/audio/record_mediarecorder.mjs` (Chromium).

#![allow(clippy::unwrap_used)]

use std::path::PathBuf;

use okyeame_core::Error;
use okyeame_core::audio::{DecodeLimits, Waveform, decode, to_16khz};

/// Samples per second of what is compared.
const RATE_HZ: f64 = 16_000.0;

/// A file and how far its sound may be from the reference.
struct Fixture {
    name: &'static str,
    /// Where in the reference it starts, in seconds.
    start_s: f64,
    /// Length in samples at 16 kHz, and how far the real one may be off.
    len: (usize, usize),
    /// Samples at 16 kHz by which its sound may come late (or early).
    max_lag: usize,
    /// Correlation with the reference at the best lag.
    min_correlation: f64,
    /// Its level relative to the reference's.
    gain: f64,
}

/// Samples of `speech.wav`.
const WHOLE: usize = 21_688;

const fn lossless(name: &'static str, start_s: f64, len: usize) -> Fixture {
    Fixture { name, start_s, len: (len, 0), max_lag: 0, min_correlation: 0.999_999, gain: 1.0 }
}

#[rustfmt::skip]
static FIXTURES: [Fixture; 21] = [
    lossless("speech.wav", 0.0, WHOLE),
    lossless("speech.flac", 0.0, WHOLE),
    lossless("wav_s16_piped.wav", 0.3, 6400),
    lossless("wav_s24.wav", 0.3, 6400),
    lossless("wav_s32.wav", 0.3, 4800),
    lossless("wav_f32.wav", 0.3, 4800),
    lossless("wav_f64.wav", 0.3, 2400),
    Fixture { name: "wav_u8.wav", start_s: 0.3, len: (9600, 0), max_lag: 0, min_correlation: 0.995, gain: 1.0 },
    Fixture { name: "wav_alaw.wav", start_s: 0.3, len: (9600, 0), max_lag: 0, min_correlation: 0.999, gain: 1.0 },
    Fixture { name: "wav_mulaw.wav", start_s: 0.3, len: (9600, 0), max_lag: 0, min_correlation: 0.999, gain: 1.0 },
    // One channel speaks, the others are silent: the equal-weight mean is 1/2 and 1/6 of it.
    Fixture { name: "wav_s16_44100_stereo.wav", start_s: 0.3, len: (2400, 0), max_lag: 1, min_correlation: 0.99, gain: 0.5 },
    Fixture { name: "wav_s16_48000_51.wav", start_s: 0.3, len: (960, 0), max_lag: 1, min_correlation: 0.99, gain: 1.0 / 6.0 },
    Fixture { name: "speech.mp3", start_s: 0.0, len: (WHOLE, 64), max_lag: 4, min_correlation: 0.98, gain: 0.95 },
    Fixture { name: "speech_vorbis.ogg", start_s: 0.0, len: (WHOLE, 64), max_lag: 4, min_correlation: 0.98, gain: 1.0 },
    Fixture { name: "speech_opus.ogg", start_s: 0.0, len: (WHOLE, 4), max_lag: 4, min_correlation: 0.98, gain: 0.98 },
    Fixture { name: "speech_opus_voip.ogg", start_s: 0.0, len: (WHOLE, 4), max_lag: 4, min_correlation: 0.92, gain: 0.93 },
    // symphonia does not tell Matroska's discard padding: up to one packet of 20 ms is left at the end.
    Fixture { name: "speech_opus.webm", start_s: 0.0, len: (WHOLE, 320), max_lag: 4, min_correlation: 0.98, gain: 0.98 },
    // ffmpeg splits mono into two channels of 0.707 each.
    Fixture { name: "speech_opus_stereo.mkv", start_s: 0.0, len: (WHOLE, 320), max_lag: 4, min_correlation: 0.98, gain: 0.7 },
    Fixture { name: "speech_opus.mp4", start_s: 0.0, len: (WHOLE, 320), max_lag: 4, min_correlation: 0.98, gain: 0.98 },
    // symphonia does not follow MP4's edit list: AAC's 1024 samples of delay are left at the start
    // (512 at 16 kHz from 32 kHz, 341 from 48 kHz), and up to a frame of padding at the end.
    Fixture { name: "speech.m4a", start_s: 0.0, len: (WHOLE + 512, 512), max_lag: 516, min_correlation: 0.96, gain: 1.0 },
    Fixture { name: "speech_fragmented.mp4", start_s: 0.0, len: (WHOLE + 341, 341), max_lag: 345, min_correlation: 0.95, gain: 0.99 },
];

/// Recorded by Chromium: its encoder's delay of 6.5 ms is not declared, and it started and stopped
/// when the page did.
static MEDIARECORDER: Fixture = Fixture {
    name: "mediarecorder.webm",
    start_s: 0.0,
    len: (21_120, 1600),
    max_lag: 800,
    min_correlation: 0.97,
    gain: 0.98,
};

fn load(name: &str) -> Vec<u8> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tests/audio").join(name);
    std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

fn all_fixtures() -> impl Iterator<Item = &'static Fixture> {
    FIXTURES.iter().chain(std::iter::once(&MEDIARECORDER))
}

fn decoded(bytes: &[u8]) -> Result<Waveform, Error> {
    decode(bytes, &DecodeLimits::default())
}

/// The samples of a 16-bit mono WAV file with the usual header of 44 bytes, read without the decoder.
fn plain_wav(name: &str) -> Vec<f32> {
    let bytes = load(name);
    assert_eq!(&bytes[36..40], b"data", "{name}");
    bytes[44..].chunks_exact(2).map(|s| f32::from(i16::from_le_bytes([s[0], s[1]])) / 32_768.0).collect()
}

/// The best correlation of `got` with `reference` where `got` comes up to `max_lag` samples late or
/// early; the lag, and the level of `got` relative to the reference there.
fn correlate(reference: &[f32], got: &[f32], max_lag: usize) -> (f64, isize, f64) {
    let max_lag = max_lag as isize;
    (-max_lag..=max_lag)
        .map(|lag| {
            let reference = &reference[usize::try_from(-lag).unwrap_or(0)..];
            let got = &got[usize::try_from(lag).unwrap_or(0)..];
            let (mut rr, mut gg, mut rg) = (0.0, 0.0, 0.0);
            for (r, g) in reference.iter().zip(got) {
                let (r, g) = (f64::from(*r), f64::from(*g));
                rr += r * r;
                gg += g * g;
                rg += r * g;
            }
            (rg / (rr * gg).sqrt(), lag, (gg / rr).sqrt())
        })
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .unwrap()
}

fn assert_is_the_utterance(fixture: &Fixture) {
    let name = fixture.name;
    let reference = plain_wav("speech.wav");
    let reference = &reference[(fixture.start_s * RATE_HZ).round() as usize..];
    let got = decoded(&load(name)).unwrap_or_else(|e| panic!("{name}: {e}"));
    let got = got.samples();
    let (len, tolerance) = fixture.len;
    assert!(got.len().abs_diff(len) <= tolerance, "{name}: {} samples, expected {len} ± {tolerance}", got.len());
    let (correlation, lag, gain) = correlate(reference, got, fixture.max_lag);
    assert!(correlation >= fixture.min_correlation, "{name}: correlation {correlation} at lag {lag}");
    assert!((gain / fixture.gain - 1.0).abs() < 0.05, "{name}: level {gain}, expected {}", fixture.gain);
}

#[test]
fn every_format_gives_the_same_utterance() {
    assert_eq!(plain_wav("speech.wav").len(), WHOLE);
    for fixture in &FIXTURES {
        assert_is_the_utterance(fixture);
    }
}

#[test]
fn what_a_browser_records_is_read() {
    let bytes = load(MEDIARECORDER.name);
    // What makes it unlike ffmpeg's WebM: Segment and Cluster of unknown size.
    let has = |element: [u8; 12]| bytes.windows(12).any(|w| w == element);
    assert!(has([0x18, 0x53, 0x80, 0x67, 0x01, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]));
    assert!(has([0x1f, 0x43, 0xb6, 0x75, 0x01, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]));
    assert_is_the_utterance(&MEDIARECORDER);
}

#[test]
fn lossless_formats_are_exact() {
    let reference = plain_wav("speech.wav");
    for fixture in FIXTURES.iter().filter(|f| f.max_lag == 0 && f.min_correlation > 0.9999) {
        let start = (fixture.start_s * RATE_HZ).round() as usize;
        let got = decoded(&load(fixture.name)).unwrap();
        for (i, (got, expected)) in got.samples().iter().zip(&reference[start..]).enumerate() {
            assert!((got - expected).abs() < 1e-6, "{}: sample {i} is {got}, not {expected}", fixture.name);
        }
    }
}

/// The pure Rust decoder against libopus, in CELT and in SILK and hybrid mode.
#[test]
fn opus_is_decoded_as_libopus_does() {
    // 0.3 s to 0.6 s at 48 kHz, brought to 16 kHz by the same resampler.
    const START: usize = 4800;
    const EDGE: usize = 500; // where the cut rings in the resampler
    for name in ["speech_opus", "speech_opus_voip"] {
        let expected = to_16khz(&plain_wav(&format!("{name}_decoded_48000.wav")), 48_000).unwrap();
        let got = decoded(&load(&format!("{name}.ogg"))).unwrap();
        let (mut signal, mut difference) = (0.0, 0.0);
        for i in EDGE..expected.len() - EDGE {
            let expected = f64::from(expected[i]);
            signal += expected.powi(2);
            difference += (f64::from(got.samples()[START + i]) - expected).powi(2);
        }
        // Both round to 16 bits.
        let snr_db = 10.0 * (signal / difference).log10();
        assert!(snr_db > 40.0, "{name}: {snr_db} dB from libopus");
    }
}

#[test]
fn sizes_that_lie_do_not_matter_to_wav() {
    let honest = load("speech.wav");
    let expected = decoded(&honest).unwrap();
    for riff_len in [0, 4, 36, 1000, u32::MAX - 1, u32::MAX] {
        for data_len in [u32::MAX, u32::MAX - 7, 0x7fff_ffff, 1 << 20] {
            let mut bytes = honest.clone();
            bytes[4..8].copy_from_slice(&riff_len.to_le_bytes());
            bytes[40..44].copy_from_slice(&data_len.to_le_bytes());
            assert_eq!(decoded(&bytes).unwrap(), expected, "RIFF length {riff_len}, data length {data_len}");
        }
    }
}

#[test]
fn ogg_files_strung_together_are_read_one_after_the_other() {
    let mut bytes = load("speech_opus.ogg");
    bytes.extend(load("speech_opus.ogg"));
    let got = decoded(&bytes).unwrap();
    assert!(got.samples().len().abs_diff(2 * WHOLE) < 16, "{} samples", got.samples().len());
}

// Hostile input. Whatever comes, the answer is a waveform or one of these, and no panic.
const DECODE_CODES: [&str; 5] =
    ["empty_audio", "unsupported_audio", "malformed_audio", "audio_too_long", "invalid_samples"];

fn assert_survives(bytes: &[u8], what: &str) {
    match decoded(bytes) {
        Ok(waveform) => assert!(waveform.samples().iter().all(|s| s.is_finite()), "{what}"),
        Err(error) => assert!(DECODE_CODES.contains(&error.code()), "{what}: {error}"),
    }
}

/// A small generator, so that a failure comes back with the same seed.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        self.0 >> 33
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit as u64) as usize
    }

    fn bytes(&mut self, n: usize) -> Vec<u8> {
        (0..n).map(|_| self.next() as u8).collect()
    }
}

#[test]
fn truncated_files_do_no_harm() {
    for fixture in all_fixtures() {
        let bytes = load(fixture.name);
        let in_the_header = 0..bytes.len().min(100);
        let all_over = (1..24).map(|part| bytes.len() * part / 24);
        for len in in_the_header.step_by(3).chain(all_over) {
            assert_survives(&bytes[..len], &format!("{} cut to {len} bytes", fixture.name));
        }
    }
}

#[test]
fn truncated_files_give_what_is_there() {
    // Ogg comes in pages of a second: the last one is lost.
    for (name, kept) in [
        ("speech.wav", 0.7),
        ("wav_s16_piped.wav", 0.7),
        ("speech.flac", 0.7),
        ("speech.mp3", 0.7),
        ("speech_opus.webm", 0.7),
        ("mediarecorder.webm", 0.7),
        ("speech_opus.ogg", 0.95),
        ("speech_vorbis.ogg", 0.95),
    ] {
        let bytes = load(name);
        let whole = decoded(&bytes).unwrap().duration_s();
        let len = (bytes.len() as f64 * kept) as usize;
        let part = decoded(&bytes[..len]).unwrap_or_else(|e| panic!("{name}: {e}")).duration_s();
        assert!(part > 0.4 * whole && part < 0.98 * whole, "{name}: {part} s of {whole} s");
    }
}

#[test]
fn flipped_bytes_do_no_harm() {
    for fixture in all_fixtures() {
        let bytes = load(fixture.name);
        for seed in 0..24 {
            let mut random = Random(seed);
            let mut flipped = bytes.clone();
            // Every third time in the header only, where a byte does the most.
            let reach = if seed % 3 == 0 { bytes.len().min(200) } else { bytes.len() };
            for _ in 0..=random.below(16) {
                let at = random.below(reach);
                flipped[at] ^= 1_u8 << random.below(8);
            }
            assert_survives(&flipped, &format!("{}, seed {seed}", fixture.name));
        }
    }
}

#[test]
fn a_damaged_packet_costs_only_itself() {
    // The middle of the file, overwritten: a few packets of 20 ms, or one page of Ogg.
    for name in ["speech.mp3", "speech_opus.webm", "mediarecorder.webm"] {
        let mut bytes = load(name);
        let whole = decoded(&bytes).unwrap().duration_s();
        let middle = bytes.len() / 2;
        bytes[middle..middle + 12].copy_from_slice(&Random(7).bytes(12));
        let damaged = decoded(&bytes).unwrap_or_else(|e| panic!("{name}: {e}")).duration_s();
        assert!(damaged > 0.4 * whole, "{name}: {damaged} s left of {whole} s");
    }
}

#[test]
fn random_bytes_do_no_harm() {
    let starts: [&[u8]; 8] = [
        b"",
        b"RIFF\0\0\0\0WAVE",
        b"RIFF\xff\xff\xff\xffWAVEfmt \x10\0\0\0\x01\0\x01\0\x80\x3e\0\0\0\x7d\0\0\x02\0\x10\0data\xff\xff\xff\xff",
        b"fLaC\0\0\0\x22",
        b"OggS\0\x02\0\0\0\0\0\0\0\0",
        b"\x1a\x45\xdf\xa3\x9f\x42\x86\x81\x01",
        b"\0\0\0\x1cftypM4A \0\0\0\0",
        b"\xff\xfb\x90\x64",
    ];
    for start in starts {
        for seed in 0..40 {
            let mut random = Random(seed);
            let mut bytes = start.to_vec();
            let n = random.below(4000);
            bytes.extend(random.bytes(n));
            assert_survives(&bytes, &format!("{start:02x?}, seed {seed}"));
        }
    }
}

#[test]
fn nothing_and_noise_are_told_apart() {
    assert_eq!(decoded(&[]).unwrap_err().code(), "empty_audio");
    assert_eq!(decoded(&load("make_fixtures.sh")).unwrap_err().code(), "unsupported_audio");
    assert_eq!(decoded(b"\x89PNG\r\n\x1a\n").unwrap_err().code(), "unsupported_audio");
    assert_eq!(decoded(b"OggS").unwrap_err().code(), "malformed_audio");
    // An MP4 whose index, at the end of the file, was lost.
    let m4a = load("speech.m4a");
    assert_eq!(decoded(&m4a[..m4a.len() / 2]).unwrap_err().code(), "malformed_audio");
}

/// One page of Ogg: RFC 3533.
fn ogg_page(flags: u8, granule: u64, sequence: u32, packets: &[&[u8]]) -> Vec<u8> {
    let mut page = b"OggS\0".to_vec();
    page.push(flags);
    page.extend(granule.to_le_bytes());
    page.extend(7_u32.to_le_bytes()); // serial number
    page.extend(sequence.to_le_bytes());
    page.extend([0; 4]); // CRC, below
    page.push(u8::try_from(packets.len()).unwrap());
    page.extend(packets.iter().map(|packet| u8::try_from(packet.len()).unwrap()));
    for packet in packets {
        assert!(packet.len() < 255);
        page.extend(*packet);
    }
    let crc = page.iter().fold(0_u32, |crc, &byte| {
        (0..8).fold(crc ^ (u32::from(byte) << 24), |crc, _| {
            if crc & 0x8000_0000 == 0 { crc << 1 } else { (crc << 1) ^ 0x04c1_1db7 }
        })
    });
    page[22..26].copy_from_slice(&crc.to_le_bytes());
    page
}

/// An Ogg Opus file of nothing but this packet.
fn ogg_of_one_packet(packet: &[u8], packet_s: f64, duration_s: f64) -> Vec<u8> {
    const PER_PAGE: usize = 255;
    let head: &[u8] = b"OpusHead\x01\x01\x38\x01\x80\xbb\0\0\0\0\0";
    let tags: &[u8] = b"OpusTags\x04\0\0\0test\0\0\0\0";
    let mut bytes = ogg_page(2, 0, 0, &[head]);
    bytes.extend(ogg_page(0, 0, 1, &[tags]));
    let n_pages = (duration_s / packet_s / PER_PAGE as f64).ceil() as u32;
    for page in 1..=n_pages {
        let granule = (f64::from(page) * PER_PAGE as f64 * packet_s * 48_000.0) as u64;
        let flags = if page == n_pages { 4 } else { 0 };
        bytes.extend(ogg_page(flags, granule, page + 1, &[packet; PER_PAGE]));
    }
    bytes
}

#[test]
fn an_hour_of_silence_in_a_small_file_is_stopped_at_the_limit() {
    // Two empty SILK frames of 60 ms: one byte for 120 ms. And libopus's own packet of digital
    // silence: three bytes for 20 ms, that go through the codec.
    for (packet, packet_s) in [(&[0x59][..], 0.12), (&[0xf8, 0xff, 0xfe][..], 0.02)] {
        let short = ogg_of_one_packet(packet, packet_s, 10.0);
        let waveform = decoded(&short).unwrap_or_else(|e| panic!("{packet:02x?}: {e}"));
        assert!(waveform.duration_s() > 9.9, "{packet:02x?}: {} s", waveform.duration_s());
        assert!(waveform.samples().iter().all(|s| s.abs() < 1e-3), "{packet:02x?} is not silence");

        let hour = ogg_of_one_packet(packet, packet_s, 3600.0);
        assert!(hour.len() < 1_000_000);
        let error = decode(&hour, &DecodeLimits { max_duration_s: 30.0 }).unwrap_err();
        assert!(matches!(error, Error::AudioTooLong { limit_s } if limit_s == 30.0), "{error:?}");
    }
}

#[test]
fn an_hour_that_its_container_declares_away_is_not_decoded() {
    // All granule positions are zero: but for the first page, every sample is to be trimmed.
    let packet: &[u8] = &[0x59]; // 120 ms
    let head: &[u8] = b"OpusHead\x01\x01\0\0\x80\xbb\0\0\0\0\0";
    let tags: &[u8] = b"OpusTags\x04\0\0\0test\0\0\0\0";
    let mut bytes = ogg_page(2, 0, 0, &[head]);
    bytes.extend(ogg_page(0, 0, 1, &[tags]));
    for page in 0..600 {
        bytes.extend(ogg_page(0, 0, page + 2, &[packet; 50]));
    }
    let error = decode(&bytes, &DecodeLimits { max_duration_s: 30.0 }).unwrap_err();
    assert_eq!(error.code(), "audio_too_long", "{error}");
}
