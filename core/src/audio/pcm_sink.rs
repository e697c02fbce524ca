//! What decoded samples run into: downmix, the limit on the length, resampling.
//!
//! **Downmix**: the plain mean of all channels, whatever their positions. A voice command is spoken
//! into one microphone, so the channels of a recording are copies of it, or one of them is silent;
//! a mean serves both, cannot clip, and needs no channel map (many files carry a wrong one). The
//! LFE channel of a 5.1 file counts like any other: it is silent or nearly so under speech, and to
//! leave it out would make the level depend on the map.
//!
//! Samples are counted while they come, so a small file that decodes to hours is stopped at the
//! limit, and only 16 kHz mono is kept, so memory is bounded by the limit whatever rate and channel
//! count the file claims.

use super::resample::{MAX_RATE_HZ, MIN_RATE_HZ, StreamResampler};
use crate::error::{Error, Result};

/// More channels than any recorder has.
const MAX_CHANNELS: usize = 32;
/// Codecs pad the end of a recording by up to two of their frames (AAC at 16 kHz: 128 ms); that is
/// not the caller's doing and does not count against the limit.
const CODEC_PADDING_S: f64 = 0.15;
/// What is decoded but cut away (a codec's delay and padding) may be this many times the limit,
/// and [`DISCARD_SLACK_S`]: so a file cannot hide endless work behind trimming.
const MAX_DECODED_TO_KEPT: f64 = 2.0;
const DISCARD_SLACK_S: f64 = 10.0;
/// The largest sample that is believed. 1.0 is full scale, but floats written as 32-bit integers
/// are still sound; what is beyond overflows a power spectrum and is no sound at all.
const MAX_MAGNITUDE: f32 = 4_294_967_296.0; // 2^32

/// Frames to cut from both ends of a packet.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Trim {
    pub(super) start: usize,
    pub(super) end: usize,
}

/// Collects packets of any layout into 16 kHz mono.
pub(super) struct PcmSink {
    limit_s: f64,
    current: Option<Segment>,
    /// Seconds kept and seconds decoded before the current segment.
    kept_s: f64,
    decoded_s: f64,
    mono: Vec<f32>,
    out: Vec<f32>,
}

/// A stretch of one sample rate.
struct Segment {
    rate_hz: u32,
    resampler: StreamResampler,
    n_kept: u64,
    n_decoded: u64,
}

impl PcmSink {
    pub(super) fn new(limit_s: f64) -> Self {
        Self { limit_s, current: None, kept_s: 0.0, decoded_s: 0.0, mono: Vec::new(), out: Vec::new() }
    }

    /// Takes one packet of interleaved finite samples and says whether any of them was kept.
    ///
    /// # Errors
    /// [`Error::MalformedAudio`] for an impossible rate or channel count, [`Error::AudioTooLong`]
    /// past the limit.
    pub(super) fn push(&mut self, interleaved: &[f32], channels: usize, rate_hz: u32, trim: Trim) -> Result<bool> {
        check_layout(channels, rate_hz)?;
        let n_frames = interleaved.len() / channels;
        let start = trim.start.min(n_frames);
        let end = n_frames.saturating_sub(trim.end).max(start);

        self.enter_segment(rate_hz)?;
        let segment = self.current.as_mut().expect("entered above");
        segment.n_decoded += n_frames as u64;
        segment.n_kept += (end - start) as u64;
        let rate = f64::from(rate_hz);
        let kept_s = self.kept_s + segment.n_kept as f64 / rate;
        let decoded_s = self.decoded_s + segment.n_decoded as f64 / rate;
        if kept_s > self.limit_s + CODEC_PADDING_S || decoded_s > self.limit_s * MAX_DECODED_TO_KEPT + DISCARD_SLACK_S {
            return Err(Error::AudioTooLong { limit_s: self.limit_s });
        }

        downmix(&interleaved[start * channels..end * channels], channels, &mut self.mono);
        segment.resampler.push(&self.mono, &mut self.out)?;
        Ok(end > start)
    }

    /// The whole recording, 16 kHz mono.
    pub(super) fn finish(mut self) -> Result<Vec<f32>> {
        self.close_segment()?;
        Ok(self.out)
    }

    fn enter_segment(&mut self, rate_hz: u32) -> Result<()> {
        if self.current.as_ref().is_some_and(|segment| segment.rate_hz == rate_hz) {
            return Ok(());
        }
        self.close_segment()?;
        let resampler = StreamResampler::new(rate_hz)?;
        self.current = Some(Segment { rate_hz, resampler, n_kept: 0, n_decoded: 0 });
        Ok(())
    }

    fn close_segment(&mut self) -> Result<()> {
        if let Some(segment) = self.current.take() {
            self.kept_s += segment.n_kept as f64 / f64::from(segment.rate_hz);
            self.decoded_s += segment.n_decoded as f64 / f64::from(segment.rate_hz);
            segment.resampler.finish(&mut self.out)?;
        }
        Ok(())
    }
}

/// Whether this can be sound at all.
pub(super) fn check_layout(channels: usize, rate_hz: u32) -> Result<()> {
    if channels == 0 || channels > MAX_CHANNELS {
        return Err(Error::MalformedAudio { reason: format!("it claims {channels} channels") });
    }
    if !(MIN_RATE_HZ..=MAX_RATE_HZ).contains(&rate_hz) {
        return Err(Error::MalformedAudio { reason: format!("it claims a sample rate of {rate_hz} Hz") });
    }
    Ok(())
}

/// How many samples are NaN, infinite or beyond [`MAX_MAGNITUDE`].
pub(super) fn count_invalid(samples: &[f32]) -> usize {
    samples.iter().filter(|s| s.is_nan() || s.abs() > MAX_MAGNITUDE).count()
}

/// The mean of the channels of each frame, into `mono`.
fn downmix(interleaved: &[f32], channels: usize, mono: &mut Vec<f32>) {
    mono.clear();
    if channels == 1 {
        mono.extend_from_slice(interleaved);
        return;
    }
    let weight = 1.0 / channels as f32;
    mono.extend(interleaved.chunks_exact(channels).map(|frame| frame.iter().sum::<f32>() * weight));
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn channels_are_averaged() {
        let mut sink = PcmSink::new(1.0);
        sink.push(&[0.5, -0.5, 0.2, 0.4, 1.0, 1.0], 2, 16_000, Trim::default()).unwrap();
        let got = sink.finish().unwrap();
        for (got, expected) in got.iter().zip([0.0, 0.3, 1.0]) {
            assert!((got - expected).abs() < 1e-6);
        }
    }

    #[test]
    fn trimming_cuts_frames_not_samples_and_never_more_than_there_are() {
        let mut sink = PcmSink::new(1.0);
        let stereo = [0.1, 0.1, 0.2, 0.2, 0.3, 0.3, 0.4, 0.4];
        assert!(sink.push(&stereo, 2, 16_000, Trim { start: 1, end: 1 }).unwrap());
        assert!(!sink.push(&stereo, 2, 16_000, Trim { start: 3, end: 3 }).unwrap());
        assert!(!sink.push(&stereo, 2, 16_000, Trim { start: 0, end: usize::MAX }).unwrap());
        let got = sink.finish().unwrap();
        assert_eq!(got.len(), 2);
        assert!((got[0] - 0.2).abs() < 1e-6 && (got[1] - 0.3).abs() < 1e-6);
    }

    #[test]
    fn the_limit_holds_across_rates() {
        let mut sink = PcmSink::new(1.0);
        sink.push(&[0.0; 4800], 1, 8_000, Trim::default()).unwrap();
        sink.push(&[0.0; 19_200], 1, 48_000, Trim::default()).unwrap();
        let error = sink.push(&[0.0; 16_000], 1, 16_000, Trim::default()).unwrap_err();
        assert!(matches!(error, Error::AudioTooLong { limit_s } if limit_s == 1.0));
    }

    #[test]
    fn a_change_of_rate_keeps_the_time() {
        let mut sink = PcmSink::new(10.0);
        sink.push(&[0.0; 4000], 1, 8_000, Trim::default()).unwrap();
        sink.push(&[0.0; 48_000], 2, 48_000, Trim::default()).unwrap();
        assert_eq!(sink.finish().unwrap().len(), 16_000);
    }

    #[test]
    fn work_hidden_behind_trimming_is_bounded() {
        let mut sink = PcmSink::new(1.0);
        let all = Trim { start: usize::MAX, end: 0 };
        let error = (0..100).find_map(|_| sink.push(&[0.0; 16_000], 1, 16_000, all).err());
        assert!(matches!(error, Some(Error::AudioTooLong { .. })));
    }

    #[test]
    fn impossible_layouts_are_refused() {
        for (channels, rate_hz) in [(0, 16_000), (33, 16_000), (1, 0), (1, 999), (1, 768_001)] {
            let error = check_layout(channels, rate_hz).unwrap_err();
            assert_eq!(error.code(), "malformed_audio");
        }
    }

    #[test]
    fn what_is_no_sound_is_counted() {
        let samples = [0.0, f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 1e30, -1e30, 2.0, f32::MIN_POSITIVE];
        assert_eq!(count_invalid(&samples), 5);
    }
}
