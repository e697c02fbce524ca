//! A sound file, as anybody may send it: `audio::decode`.

use okyeame_core::audio::{DecodeLimits, SAMPLE_RATE_HZ, Waveform, decode, find_speech};

use crate::check;

const LIMIT_S: f64 = 5.0;
/// What `decode` lets pass beyond the limit for a codec's padding, and half a sample for each change of the rate.
const SLACK_S: f64 = 0.5;
/// Codes of what is wrong with a sound.
const REFUSALS: [&str; 5] =
    ["empty_audio", "unsupported_audio", "malformed_audio", "audio_too_long", "invalid_samples"];
/// Resampling may lift a sample of the largest size that is read a little above it.
const READABLE: f32 = 1e9;

/// Says whether it was read.
pub(crate) fn run(input: &[u8]) -> bool {
    match decode(input, &DecodeLimits { max_duration_s: LIMIT_S }) {
        Ok(sound) => {
            holds(&sound);
            true
        }
        Err(error) => check::refused(&error, &REFUSALS),
    }
}

fn holds(sound: &Waveform) {
    let samples = sound.samples();
    assert!(!samples.is_empty() && samples.iter().all(|sample| sample.is_finite()));
    assert!(sound.duration_s() <= LIMIT_S + SLACK_S, "{} s passed a limit of {LIMIT_S} s", sound.duration_s());
    if let Some(span) = find_speech(samples) {
        assert!(span.start_sample <= span.end_sample && span.end_sample <= samples.len(), "{span:?}");
    }
    // Written down as it is, it is read as it was.
    if samples.iter().all(|sample| sample.abs() < READABLE) {
        let again = decode(&float_wav(samples), &DecodeLimits { max_duration_s: 2.0 * LIMIT_S });
        assert_eq!(again.expect("a plain WAV file").samples(), samples);
    }
}

/// 16 kHz, mono, 32-bit floats.
fn float_wav(samples: &[f32]) -> Vec<u8> {
    let n_bytes = (samples.len() * 4) as u32; // at most 11 s
    let mut file = b"RIFF".to_vec();
    file.extend((36 + n_bytes).to_le_bytes());
    file.extend(b"WAVEfmt \x10\0\0\0\x03\0\x01\0");
    file.extend(SAMPLE_RATE_HZ.to_le_bytes());
    file.extend((SAMPLE_RATE_HZ * 4).to_le_bytes());
    file.extend(b"\x04\0\x20\0data");
    file.extend(n_bytes.to_le_bytes());
    file.extend(samples.iter().flat_map(|sample| sample.to_le_bytes()));
    file
}
