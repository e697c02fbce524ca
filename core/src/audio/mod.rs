//! Sound in, features out: everything between the bytes that a caller sends and the log-mel frames
//! that a model reads. Nothing here knows of tensors, models or files.
//!
//! Read in this order:
//! 1. `waveform`: 16 kHz mono, the one form in which sound travels;
//! 2. `decode`: bytes to a [`Waveform`], by way of `container` (which format is it?), `riff` (WAV
//!    headers that lie), `opus` (the codec that symphonia lacks) and `pcm_sink` (downmix and limit);
//! 3. `resample`: any rate to 16 kHz;
//! 4. `speech`: where in a recording somebody speaks, by its levels (`level`); `endpoint`: the same of a
//!    stream, while it comes;
//! 5. `mel` and `log_mel`: Whisper's features.

mod container;
mod decode;
mod endpoint;
mod level;
mod log_mel;
mod mel;
mod opus;
mod pcm_sink;
mod resample;
mod riff;
mod speech;
mod waveform;

pub use decode::{DecodeLimits, decode};
pub use endpoint::{EndpointEvent, EndpointOptions, Endpointer, Utterance};
pub use log_mel::{CHUNK_LENGTH_S, HOP_LENGTH, LogMel, LogMelExtractor, N_FFT, N_FRAMES, N_SAMPLES};
pub use opus::OpusPackets;
pub use resample::{MAX_RATE_HZ, MIN_RATE_HZ, to_16khz};
pub use speech::{SpeechSpan, find_speech};
pub use waveform::{SAMPLE_RATE_HZ, Waveform};
