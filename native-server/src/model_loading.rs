//! Loads a model and has it answer a clip, so that the first customer does not pay for cold caches; and keeps the books of
//! it: whether one is being loaded, and why the last one could not be.
//!
//! Not for which model, that is [`crate::model_choice`], nor for handing it work, that is [`crate::inference_worker`].

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use okyeame_core::audio::{SAMPLE_RATE_HZ, Waveform};
use okyeame_core::{Error as CoreError, RecognizeOptions, Result as CoreResult};
use serde::Serialize;
use utoipa::ToSchema;

use crate::engine::Engine;
use crate::error::ApiError;
use crate::inference_worker::{LoadedModel, panic_message};
use crate::model_choice::ModelChoice;

/// Loads the model that somebody chose; blocks its thread.
pub(crate) type Loader = dyn Fn(&ModelChoice) -> CoreResult<Box<dyn Engine>> + Send + Sync;

/// Said instead of a sentence that would tell about this machine.
const SEE_THE_LOG: &str = "the server's log says why";

/// Why a model could not be loaded.
#[derive(Debug, Clone)]
pub(crate) struct LoadFailure {
    /// The core's, or `internal_error`.
    pub(crate) code: &'static str,
    /// For clients: no path of this machine.
    pub(crate) detail: String,
    /// For the log.
    pub(crate) cause: String,
}

impl LoadFailure {
    /// A failure of this server, not of the model.
    pub(crate) fn inside(cause: String) -> Self {
        Self { code: "internal_error", detail: SEE_THE_LOG.to_owned(), cause }
    }
}

impl From<CoreError> for LoadFailure {
    fn from(error: CoreError) -> Self {
        let cause = error.to_string();
        // What the file system says stays here, whatever it is about.
        let stays_here = matches!(error, CoreError::Io { .. }) || cause.split_whitespace().any(is_path);
        Self { code: error.code(), detail: if stays_here { SEE_THE_LOG.to_owned() } else { cause.clone() }, cause }
    }
}

impl From<LoadFailure> for ApiError {
    fn from(failure: LoadFailure) -> Self {
        match failure {
            LoadFailure { code: "internal_error", cause, .. } => Self::Internal { cause },
            LoadFailure { code, detail, .. } => Self::NotLoaded { code, reason: detail },
        }
    }
}

/// Whether a word of a sentence is a path. A repository's `owner/name` and the address of a hub are none.
fn is_path(word: &str) -> bool {
    let word = word.trim_matches(|c: char| !c.is_alphanumeric() && !matches!(c, '/' | '\\' | '.' | '~'));
    let is_address = word.starts_with("http://") || word.starts_with("https://");
    let is_rooted = word.len() > 1 && ["/", "./", "../", "~/"].iter().any(|root| word.starts_with(root));
    !is_address && (is_rooted || word.contains('\\') || word.matches('/').count() > 1)
}

/// Loads a model and has it answer a clip. A panic in either is a failure like another.
pub(crate) fn load(loader: &Loader, choice: ModelChoice) -> Result<LoadedModel, LoadFailure> {
    let started = Instant::now();
    let engine = match catch_unwind(AssertUnwindSafe(|| load_and_warm_up(loader, &choice))) {
        Ok(engine) => engine?,
        Err(panic) => {
            return Err(LoadFailure::inside(format!("loading panicked: {}", panic_message(panic.as_ref()))));
        }
    };
    let model = LoadedModel::new(choice, engine, started.elapsed());
    for fallback in &model.info.fallbacks {
        tracing::info!("fall-back: {fallback}");
    }
    tracing::info!(
        model = model.info.name,
        device = model.info.device,
        dtype = model.info.dtype,
        why = model.info.device_reason,
        ms = model.load_time.as_millis(),
        "the model is loaded and warm"
    );
    Ok(model)
}

fn load_and_warm_up(loader: &Loader, choice: &ModelChoice) -> CoreResult<Box<dyn Engine>> {
    let engine = loader(choice)?;
    // The words are not asked for: of a clip that holds none, decoding could take seconds.
    let options = RecognizeOptions { transcribe: false, ..RecognizeOptions::default() };
    engine.recognize(&warm_up_clip()?, &options)?;
    Ok(engine)
}

/// One second of a hum that swells four times, as syllables do, so that trimming to speech keeps it.
fn warm_up_clip() -> CoreResult<Waveform> {
    use std::f64::consts::TAU;
    let rate = f64::from(SAMPLE_RATE_HZ);
    let sample = |i: u32| {
        let t = f64::from(i) / rate;
        let loudness = 0.5 - 0.5 * (TAU * 4.0 * t).cos();
        let voice: f64 = (1..=8).map(f64::from).map(|k| (TAU * 140.0 * k * t).sin() / k).sum();
        (0.2 * loudness * voice) as f32
    };
    Waveform::new((0..SAMPLE_RATE_HZ).map(sample).collect())
}

/// A load that goes on.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = BegunLoad)]
pub(crate) struct Begun {
    /// The repository, or the folder's name.
    model: String,
    /// Seconds since 1970.
    started_at: u64,
}

/// A load that failed, as anybody who may ask is told.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = FailedLoad)]
pub(crate) struct Failed {
    model: String,
    /// Seconds since 1970.
    failed_at: u64,
    code: &'static str,
    detail: String,
}

/// What is known of loads.
#[derive(Debug, Clone, Default, Serialize, ToSchema)]
pub(crate) struct LoadsNow {
    #[schema(required = true)]
    loading: Option<Begun>,
    /// The last one, unless a later one succeeded.
    #[schema(required = true)]
    last_failure: Option<Failed>,
}

/// The books: one load at a time.
#[derive(Default)]
pub(crate) struct Loads(Mutex<LoadsNow>);

impl Loads {
    fn lock(&self) -> MutexGuard<'_, LoadsNow> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Enters a load, unless one goes on.
    pub(crate) fn begin(&self, choice: &ModelChoice) -> Result<(), ApiError> {
        let mut now = self.lock();
        if now.loading.is_some() {
            return Err(ApiError::ModelLoading);
        }
        now.loading = Some(Begun { model: choice.label(), started_at: since_1970(SystemTime::now()) });
        Ok(())
    }

    /// The load that went on is over, and `in_place` lets everybody see what came of it: whoever sees that may begin another.
    pub(crate) fn end(&self, failure: Option<&LoadFailure>, in_place: impl FnOnce()) {
        let mut now = self.lock();
        in_place();
        let model = now.loading.take().map(|begun| begun.model).unwrap_or_default();
        now.last_failure = failure.map(|LoadFailure { code, detail, .. }| Failed {
            model,
            failed_at: since_1970(SystemTime::now()),
            code,
            detail: detail.clone(),
        });
    }

    /// The books as they are.
    pub(crate) fn now(&self) -> LoadsNow {
        self.lock().clone()
    }
}

/// Whole seconds since 1970.
pub(crate) fn since_1970(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_warm_up_clip_is_one_second_of_sound() {
        let clip = warm_up_clip().unwrap();
        assert!((clip.duration_s() - 1.0).abs() < 1e-9);
        let peak = clip.samples().iter().fold(0.0_f32, |peak, s| peak.max(s.abs()));
        assert!((0.1..=1.0).contains(&peak), "{peak}");
    }

    #[test]
    fn a_client_is_told_why_but_no_path() {
        let not_found = |what: &str| CoreError::ModelNotFound { what: what.to_owned() };
        let io = CoreError::Io { what: "reading config.json".to_owned(), source: std::io::Error::other("denied") };
        for (error, code) in [
            (not_found("the folder '/home/shop/secret'"), "model_not_found"),
            (not_found("the folder '../secret/model'"), "model_not_found"),
            (not_found("the folder 'C:\\secret'"), "model_not_found"),
            (not_found("the folder 'a/secret/b'"), "model_not_found"),
            (io, "io"),
        ] {
            let failure = LoadFailure::from(error);
            assert_eq!((failure.code, failure.detail.as_str()), (code, SEE_THE_LOG), "{}", failure.cause);
        }
        let hub =
            |reason: &str| CoreError::Hub { code: "hub_not_found", repo: "shop/twi".into(), reason: reason.into() };
        for error in [
            not_found("model.safetensors or pytorch_model.bin"),
            CoreError::OutOfMemory { needed_mb: 9000, available_mb: 12 },
            hub("https://hub.example/api/models has no such repository."),
            hub("letters, digits, '.', '_', '-' and '/'"),
        ] {
            let sentence = error.to_string();
            assert_eq!(LoadFailure::from(error).detail, sentence);
        }
    }

    #[test]
    fn one_load_goes_on_at_a_time_and_the_last_failure_is_kept_until_one_succeeds() {
        let loads = Loads::default();
        let choice = ModelChoice::default();
        loads.begin(&choice).unwrap();
        assert!(matches!(loads.begin(&choice), Err(ApiError::ModelLoading)));
        loads.end(Some(&CoreError::OutOfMemory { needed_mb: 2, available_mb: 1 }.into()), || {});
        loads.begin(&choice).unwrap();
        let json = serde_json::to_value(loads.now()).unwrap();
        assert_eq!(json["last_failure"]["code"], "out_of_memory");
        assert_eq!(json["loading"]["model"], choice.label());
        loads.end(None, || {});
        let json = serde_json::to_value(loads.now()).unwrap();
        assert!(json["last_failure"].is_null() && json["loading"].is_null(), "{json}");
    }
}
