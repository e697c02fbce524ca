//! One clip, from bytes to an answer: cache, decode, model, and the fields that only the server knows.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::Bytes;
use okyeame_core::audio::{self, DecodeLimits, Waveform};
use okyeame_core::{Error as CoreError, Recognition, RecognizeOptions, RunWhere, TimingsMs};

use crate::answer_cache::CacheKey;
use crate::error::ApiError;
use crate::inference_worker::{Answered, panic_message};
use crate::queue::Admission;
use crate::request_id;
use crate::routes::upload::UploadedFile;
use crate::state::Server;
use crate::traces;

/// Why an answer was made here; a client that knows better says so in its own copy.
pub(super) const RUN_REASON: &str = "sent_to_server";

/// Answers a clip within the server's time limit, counted from `started`, and counts the outcome.
///
/// Dropping the future takes the clip out of the queue.
///
/// # Errors
/// Every error of a clip, see [`ApiError`].
pub(crate) async fn recognize(
    server: &Server,
    file: UploadedFile,
    options: &RecognizeOptions,
    admission: Admission,
    started: Instant,
) -> Result<Recognition, ApiError> {
    let work = recognize_unbounded(server, file, options, admission, started, true);
    counted(server, started, |recognition: &Recognition| recognition.cached, work).await
}

/// As [`recognize`], of a clip that is asked about once more: what is kept of it (`--store-audio`) is that answer.
///
/// # Errors
/// As [`recognize`].
pub(super) async fn recognize_for_now(
    server: &Server,
    file: UploadedFile,
    options: &RecognizeOptions,
    admission: Admission,
    started: Instant,
) -> Result<Recognition, ApiError> {
    let work = recognize_unbounded(server, file, options, admission, started, false);
    counted(server, started, |recognition: &Recognition| recognition.cached, work).await
}

/// Work within the server's time limit, counted from `started`.
pub(super) async fn in_time<T>(
    server: &Server,
    started: Instant,
    work: impl Future<Output = Result<T, ApiError>>,
) -> Result<T, ApiError> {
    let deadline = tokio::time::Instant::from_std(started + server.config.request_timeout());
    tokio::time::timeout_at(deadline, work)
        .await
        .unwrap_or(Err(ApiError::Timeout { limit_s: server.config.request_timeout_s }))
}

/// Work [`in_time`], and in the statistics.
pub(super) async fn counted<T>(
    server: &Server,
    started: Instant,
    is_cached: impl Fn(&T) -> bool,
    work: impl Future<Output = Result<T, ApiError>>,
) -> Result<T, ApiError> {
    let answer = in_time(server, started, work).await;
    match &answer {
        Ok(answer) => server.stats.succeeded(started.elapsed(), is_cached(answer)),
        Err(_) => server.stats.failed(),
    }
    answer
}

async fn recognize_unbounded(
    server: &Server,
    file: UploadedFile,
    options: &RecognizeOptions,
    admission: Admission,
    started: Instant,
    keep: bool,
) -> Result<Recognition, ApiError> {
    let UploadedFile { filename, bytes } = file;
    if bytes.is_empty() {
        return Err(CoreError::EmptyAudio.into());
    }
    let bytes_sent = bytes.len() as u64;
    // The one model of this answer: a batch's file, and one that was long on its way, may find another than at its start.
    let model = server.worker.model()?;
    model.options_check.check(options)?;
    let key = CacheKey::new(&model.fingerprint, options, &bytes);

    let kept = server.store.as_ref().filter(|_| keep).map(|store| (store, bytes.clone()));
    let cached = server.cache.get(&key).await;
    if server.cache.is_enabled() {
        server.metrics.lookup(cached.as_ref().map(|(_, level)| *level));
    }
    let mut recognition = if let Some((mut recognition, _)) = cached {
        // The time that the first answer took is not this one's.
        recognition.timings_ms = TimingsMs::default();
        recognition
    } else {
        server.worker.check_room(admission)?;
        let (waveform, decoding) = decode(server, bytes).await?;
        let asked = server.worker.recognize(&model, waveform, options.clone(), admission);
        let Answered { answer: mut recognition, queued } = asked.await?;
        recognition.run.place = RunWhere::Remote;
        recognition.run.reason = RUN_REASON.to_owned();
        recognition.run.bytes_sent = bytes_sent;
        recognition.timings_ms.decode_audio = millis(decoding);
        recognition.timings_ms.queue = millis(queued);
        server.metrics.clip(&recognition.timings_ms);
        traces::stages(&recognition.timings_ms);
        server.cache.insert(key, recognition.clone());
        recognition
    };
    server.metrics.command(&recognition);
    recognition.filename = filename;
    recognition.request_id = request_id::current();
    if let Some((store, bytes)) = kept.filter(|_| !recognition.cached) {
        store.keep(bytes, &recognition);
    }
    recognition.processing_time_ms = millis(started.elapsed());
    Ok(recognition)
}

/// Decodes on a blocking thread, at most as many clips at once as there are cores. A decoder that
/// panics has met bytes that nobody foresaw: damaged audio.
pub(super) async fn decode(server: &Server, bytes: Bytes) -> Result<(Waveform, Duration), ApiError> {
    let permit = Arc::clone(&server.decoders)
        .acquire_owned()
        .await
        .map_err(|closed| ApiError::Internal { cause: closed.to_string() })?;
    let limits = DecodeLimits { max_duration_s: server.config.max_audio_s };
    let task = tokio::task::spawn_blocking(move || {
        // Here, not in the future: a client that goes must not let a second clip in beside this one.
        let _permit = permit;
        let started = Instant::now();
        let waveform = catch_unwind(AssertUnwindSafe(|| audio::decode(&bytes, &limits)));
        (waveform, started.elapsed())
    });
    let (waveform, took) = task.await.map_err(|error| ApiError::Internal { cause: error.to_string() })?;
    traces::ended("decode_audio", took);
    match waveform {
        Ok(waveform) => Ok((waveform?, took)),
        Err(panic) => {
            let request_id = request_id::current();
            tracing::error!(request_id, cause = panic_message(panic.as_ref()), "an audio decoder panicked");
            Err(CoreError::MalformedAudio { reason: "the decoder could not make sense of it".to_owned() }.into())
        }
    }
}

/// Milliseconds, to the microsecond.
pub(super) fn millis(duration: Duration) -> f64 {
    duration.as_micros() as f64 / 1e3
}
