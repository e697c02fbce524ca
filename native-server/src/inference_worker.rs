//! The model on threads of its own, behind the bounded queue.
//!
//! A thread loads the model ([`crate::model_loading`]). Then two take work from the queue, each with a pool of its own for
//! the arithmetic: one the commands, several in one pass where several wait, the other whatever writes words. A panic in the
//! model is caught: that client gets an error, the next one is answered. Whoever waits for an answer owns the job's place;
//! when it goes (disconnected, or out of time), a job that has not begun is never run.
//!
//! Another model may take the place of the one that answers ([`InferenceWorker::replace`]). A handler takes the present model
//! once, checks the request's options with it, looks into the cache under its name, and hands it on with the job: so each
//! answer is wholly of one model, and of the one that the request was checked for, however long it waits. A pass is of one
//! model. Whoever works for the old one keeps it alive; its memory is free when the last of them is done.

use std::any::Any;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use okyeame_core::audio::Waveform;
use okyeame_core::{
    Error as CoreError, IntentInfo, ModelInfo, Recognition, RecognizeOptions, Result as CoreResult, Task,
};
use prometheus_client::metrics::histogram::Histogram;
use rayon::{ThreadPool, ThreadPoolBuilder};
use tokio::sync::{oneshot, watch};
use uuid::Uuid;

use crate::config::{ServerConfig, duration};
use crate::cores;
use crate::engine::{CheckOptions, Engine, MemoryProbe};
use crate::error::ApiError;
use crate::memory;
use crate::model_choice::ModelChoice;
use crate::model_loading::{LoadFailure, Loader, Loads, LoadsNow, load};
use crate::queue::{Admission, BatchLimits, Lane, NoRoom, Queue};

/// So many server faults in a row make the server report itself unhealthy; one good answer heals it.
const UNHEALTHY_AFTER: u64 = 3;
/// Bounds of `Retry-After`, seconds.
const RETRY_AFTER_S: std::ops::RangeInclusive<u64> = 1..=120;
/// Seconds of audio that share a pass: a clip of half a minute does not make nine others wait for it.
const MAX_BATCH_AUDIO_S: usize = 30;
/// After so long without a job a lane gives the memory of its last ones back. Fetching it again costs the next job a few
/// milliseconds, so not between the commands of one customer.
const QUIET: Duration = Duration::from_secs(2);
/// Weight of the newest job in the running mean of the model's time.
const MEAN_WEIGHT: f64 = 0.2;

/// A loaded model, and what is known of it.
pub(crate) struct LoadedModel {
    /// As it was asked for.
    pub(crate) choice: ModelChoice,
    pub(crate) info: ModelInfo,
    pub(crate) intents: Vec<IntentInfo>,
    pub(crate) options_check: CheckOptions,
    pub(crate) memory_probe: Option<MemoryProbe>,
    pub(crate) fingerprint: String,
    pub(crate) loaded_at: SystemTime,
    /// With the warm-up clip.
    pub(crate) load_time: Duration,
    engine: Box<dyn Engine>,
    faults_in_a_row: AtomicU64,
}

impl LoadedModel {
    /// A model that was loaded a moment ago.
    pub(crate) fn new(choice: ModelChoice, engine: Box<dyn Engine>, load_time: Duration) -> Self {
        Self {
            choice,
            info: engine.info().clone(),
            intents: engine.intents().to_vec(),
            options_check: engine.options_check(),
            memory_probe: engine.memory_probe(),
            fingerprint: engine.fingerprint(),
            loaded_at: SystemTime::now(),
            load_time,
            engine,
            faults_in_a_row: AtomicU64::new(0),
        }
    }
}

impl fmt::Debug for LoadedModel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LoadedModel").field("choice", &self.choice).finish_non_exhaustive()
    }
}

/// How far the thread is.
#[derive(Debug, Clone)]
pub(crate) enum Phase {
    Loading,
    Ready(Arc<LoadedModel>),
    /// The sentence is for the operator, not for clients.
    Failed(Arc<str>),
}

/// What `/health` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Health {
    Healthy,
    Loading,
    Unhealthy,
}

/// An answer and how long it waited for the model.
pub(crate) struct Answered<T> {
    pub(crate) answer: T,
    pub(crate) queued: Duration,
}

/// Why the model gave no answer.
enum Failure {
    Core(CoreError),
    Panicked(String),
}

/// What came of a job, as far as the model's health is concerned.
enum Ran {
    Answered,
    /// A client's mistake says nothing about the model.
    Refused,
    Faulted,
    /// The client went between our taking the job and now.
    NobodyWaited,
}

/// A piece of work for the model.
enum Work {
    /// A clip that may share a pass with others.
    Clip {
        waveform: Waveform,
        options: RecognizeOptions,
        reply: ReplyTo<Recognition>,
    },
    Other(OtherWork),
}

/// What it gives back sends the answer, once the books are kept: whoever has an answer finds it counted.
type OtherWork = Box<dyn FnOnce(&dyn Engine, Duration) -> (Ran, Reply) + Send>;
type Reply = Box<dyn FnOnce() + Send>;
/// What came of loading a model in another's place.
type Replaced = Result<Arc<LoadedModel>, LoadFailure>;
type ReplyTo<T> = oneshot::Sender<Result<Answered<T>, Failure>>;

struct Job {
    /// Whose answer is wanted: the model that the request was checked for.
    model: Arc<LoadedModel>,
    work: Work,
    enqueued: Instant,
}

/// What the threads and the handlers share.
struct Shared {
    queue: Arc<Queue<Job>>,
    phase: watch::Sender<Phase>,
    /// Running mean of the model's time per job, microseconds; 0 before the first.
    mean_us: AtomicU64,
    loader: Box<Loader>,
    loads: Loads,
    /// Jobs that the model has.
    at_work: AtomicU64,
    /// Threads of the arithmetic, for each lane.
    threads: usize,
    batches: BatchLimits,
    batch_sizes: Histogram,
    /// Other processes meet this one's fingerprints.
    shares_answers: bool,
}

impl Shared {
    /// From now on this model answers.
    fn put(&self, model: Arc<LoadedModel>) {
        self.loads.end(None, || {
            self.phase.send_replace(Phase::Ready(model));
        });
    }
}

/// The handlers' side. Dropping the last one ends the thread after the jobs that it has.
pub(crate) struct InferenceWorker {
    shared: Arc<Shared>,
}

impl Drop for InferenceWorker {
    fn drop(&mut self) {
        self.shared.queue.close();
    }
}

impl InferenceWorker {
    /// Starts the thread, which loads the configuration's model with `loader`.
    pub(crate) fn spawn<L>(config: &ServerConfig, batch_sizes: Histogram, loader: L) -> std::io::Result<Self>
    where
        L: Fn(&ModelChoice) -> CoreResult<Box<dyn Engine>> + Send + Sync + 'static,
    {
        let shared = Arc::new(Shared {
            queue: Arc::new(Queue::new(config.queue_len, config.queue_audio_s.max(config.max_audio_s))),
            phase: watch::Sender::new(Phase::Loading),
            mean_us: AtomicU64::new(0),
            loader: Box::new(loader),
            loads: Loads::default(),
            at_work: AtomicU64::new(0),
            threads: config.threads,
            batches: BatchLimits {
                max_jobs: config.max_batch.max(1),
                max_audio_s: MAX_BATCH_AUDIO_S,
                wait: duration(config.batch_wait_ms / 1e3),
            },
            batch_sizes,
            shares_answers: config.cache.is_some(),
        });
        let (on_thread, choice) = (Arc::clone(&shared), config.model.clone());
        // Before the thread runs: nobody else can have begun a load.
        let _ = shared.loads.begin(&choice);
        std::thread::Builder::new().name("model".to_owned()).spawn(move || run(&on_thread, choice))?;
        Ok(Self { shared })
    }

    /// The model.
    ///
    /// # Errors
    /// 503 while it loads, or if it could not be loaded.
    pub(crate) fn model(&self) -> Result<Arc<LoadedModel>, ApiError> {
        match &*self.shared.phase.borrow() {
            Phase::Ready(model) => Ok(Arc::clone(model)),
            Phase::Loading => Err(ApiError::Loading),
            Phase::Failed(_) => Err(ApiError::ModelUnavailable),
        }
    }

    /// Whether the server can do its work.
    pub(crate) fn health(&self) -> Health {
        match &*self.shared.phase.borrow() {
            Phase::Loading => Health::Loading,
            Phase::Failed(_) => Health::Unhealthy,
            Phase::Ready(model) if model.faults_in_a_row.load(Ordering::Relaxed) >= UNHEALTHY_AFTER => {
                Health::Unhealthy
            }
            Phase::Ready(_) => Health::Healthy,
        }
    }

    /// Waits until the model is loaded, or could not be.
    pub(crate) async fn loaded(&self) -> Phase {
        let mut phases = self.shared.phase.subscribe();
        // The sender lives in `self.shared`, so the channel cannot close meanwhile.
        let _ = phases.wait_for(|phase| !matches!(phase, Phase::Loading)).await;
        phases.borrow().clone()
    }

    /// Loads another model, or the same one again, while the present one answers, and puts it in its place. One that cannot
    /// be loaded changes nothing. The load goes on if the future is dropped.
    ///
    /// # Errors
    /// 409 while one is being loaded; why it could not be loaded; 503 if the first one could not be.
    pub(crate) async fn replace(&self, choice: ModelChoice) -> Result<Arc<LoadedModel>, ApiError> {
        let loaded = self.begin_to_replace(choice)?;
        match loaded.await {
            Ok(loaded) => loaded.map_err(ApiError::from),
            Err(_) => Err(ApiError::Internal { cause: "the loading thread is gone".to_owned() }),
        }
    }

    fn begin_to_replace(&self, choice: ModelChoice) -> Result<oneshot::Receiver<Replaced>, ApiError> {
        if matches!(&*self.shared.phase.borrow(), Phase::Failed(_)) {
            return Err(ApiError::ModelUnavailable);
        }
        self.shared.loads.begin(&choice)?;
        let (reply, loaded) = oneshot::channel();
        let shared = Arc::clone(&self.shared);
        let on_thread = move || {
            // Whoever asked may be gone.
            let _ = reply.send(put_in_place(&shared, choice));
        };
        if let Err(error) = std::thread::Builder::new().name("loading".to_owned()).spawn(on_thread) {
            let failure = LoadFailure::inside(error.to_string());
            self.shared.loads.end(Some(&failure), || {});
            return Err(failure.into());
        }
        Ok(loaded)
    }

    /// Whether a model is being loaded, and why the last one could not be.
    pub(crate) fn loads(&self) -> LoadsNow {
        self.shared.loads.now()
    }

    /// Jobs that wait, and the most that may.
    pub(crate) fn queue_len(&self) -> (usize, usize) {
        (self.shared.queue.len(), self.shared.queue.max_len())
    }

    /// Refuses what would be refused anyway, before work goes into it: a flood then costs the accepted little.
    ///
    /// # Errors
    /// 429 if nothing more may wait (only with [`Admission::Refuse`]).
    pub(crate) fn check_room(&self, admission: Admission) -> Result<(), ApiError> {
        match admission {
            Admission::Refuse if self.shared.queue.is_full() => Err(self.overloaded()),
            Admission::Refuse | Admission::Wait => Ok(()),
        }
    }

    /// Has `model`, for which the options were checked, answer a clip, perhaps together with others.
    ///
    /// Dropping the future takes the clip out of the queue.
    ///
    /// # Errors
    /// As [`InferenceWorker::ask`].
    pub(crate) async fn recognize(
        &self,
        model: &Arc<LoadedModel>,
        waveform: Waveform,
        options: RecognizeOptions,
        admission: Admission,
    ) -> Result<Answered<Recognition>, ApiError> {
        let hears = model.info.task == Task::Multi;
        let lane = if hears && !options.transcribe { Lane::Commands } else { Lane::Words };
        let audio_s = waveform.duration_s();
        self.enqueue(model, lane, audio_s, admission, |reply| Work::Clip { waveform, options, reply }).await
    }

    /// Has `model`, for which the request was checked, do a piece of work on `audio_s` seconds.
    ///
    /// Dropping the future takes the work out of the queue.
    ///
    /// # Errors
    /// 429 without room (only with [`Admission::Refuse`]), what the core says, 500 for a panic.
    pub(crate) async fn ask<T: Send + 'static>(
        &self,
        model: &Arc<LoadedModel>,
        lane: Lane,
        audio_s: f64,
        admission: Admission,
        work: impl FnOnce(&dyn Engine) -> CoreResult<T> + Send + 'static,
    ) -> Result<Answered<T>, ApiError> {
        self.enqueue(model, lane, audio_s, admission, |reply| Work::Other(boxed(work, reply))).await
    }

    async fn enqueue<T>(
        &self,
        model: &Arc<LoadedModel>,
        lane: Lane,
        audio_s: f64,
        admission: Admission,
        work: impl FnOnce(ReplyTo<T>) -> Work,
    ) -> Result<Answered<T>, ApiError> {
        let queue = &self.shared.queue;
        let enqueued = Instant::now();
        let room = queue.room(audio_s, admission).await.map_err(|no_room| match no_room {
            NoRoom::Full => self.overloaded(),
            NoRoom::Closed => ApiError::Draining,
        })?;
        let (reply, answer) = oneshot::channel();
        let job = Job { model: Arc::clone(model), work: work(reply), enqueued };
        let _place = queue.push(lane, job, room).ok_or(ApiError::Draining)?;
        match answer.await {
            Ok(Ok(answered)) => Ok(answered),
            Ok(Err(Failure::Core(error))) => Err(error.into()),
            Ok(Err(Failure::Panicked(message))) => {
                Err(ApiError::Internal { cause: format!("the model panicked: {message}") })
            }
            Err(_) => Err(ApiError::Internal { cause: "the model's thread is gone".to_owned() }),
        }
    }

    /// With the seconds until the queue has likely moved on: its length times the mean time of a job.
    fn overloaded(&self) -> ApiError {
        let jobs = self.shared.queue.len() as u64 + self.shared.at_work.load(Ordering::Relaxed);
        let wait_us = jobs.saturating_mul(self.shared.mean_us.load(Ordering::Relaxed));
        let retry_after_s = wait_us.div_ceil(1_000_000).clamp(*RETRY_AFTER_S.start(), *RETRY_AFTER_S.end());
        ApiError::Overloaded { retry_after_s }
    }
}

/// The thread.
fn run(shared: &Shared, choice: ModelChoice) {
    let (commands, words) = match (pool(shared.threads, "commands"), pool(shared.threads, "words")) {
        (Ok(commands), Ok(words)) => (commands, words),
        (Err(error), _) | (_, Err(error)) => return fail(shared, &LoadFailure::inside(error.to_string())),
    };
    match commands.install(|| load(&*shared.loader, choice)) {
        Ok(model) => {
            if model.info.device == "cpu" {
                commands.install(cores::keep_apart);
                words.install(cores::keep_apart);
            }
            shared.put(Arc::new(model));
        }
        Err(failure) => return fail(shared, &failure),
    }
    std::thread::scope(|scope| {
        let writing = || run_lane(shared, &words, Lane::Words, BatchLimits::ONE);
        if let Err(error) = std::thread::Builder::new().name("words".to_owned()).spawn_scoped(scope, writing) {
            return fail(shared, &LoadFailure::inside(error.to_string()));
        }
        run_lane(shared, &commands, Lane::Commands, shared.batches);
    });
}

/// Loads a model, on a thread of its own, and has it answer whoever asks from now on.
fn put_in_place(shared: &Shared, choice: ModelChoice) -> Replaced {
    let name = choice.label();
    // The lanes' own threads are at work meanwhile.
    let loaded = match pool(shared.threads, "loading") {
        Ok(threads) => threads.install(|| load(&*shared.loader, choice)),
        Err(error) => Err(LoadFailure::inside(error.to_string())),
    };
    match loaded {
        Ok(mut model) => {
            // What a model says of itself may be the same for other weights: no answer of theirs is this one's. Where replicas
            // share answers, its files are in the fingerprint already.
            if !shared.shares_answers {
                model.fingerprint = format!("{}-{}", model.fingerprint, Uuid::new_v4());
            }
            let model = Arc::new(model);
            shared.put(Arc::clone(&model));
            // The model before, unless somebody still works for it, and what loading needed.
            memory::give_back();
            Ok(model)
        }
        Err(failure) => {
            tracing::error!(
                model = name,
                cause = failure.cause,
                "the model could not be loaded: the one before goes on"
            );
            shared.loads.end(Some(&failure), || {});
            Err(failure)
        }
    }
}

/// Threads for one lane's arithmetic, or for a load beside both. In one pool for all, a thread that waits for a part of a command
/// could take up a whole transcript meanwhile. All arithmetic is in such a pool: what fell out of them would start rayon's own,
/// whose threads nobody counts (`tests/threads.rs`).
fn pool(threads: usize, lane: &'static str) -> Result<ThreadPool, rayon::ThreadPoolBuildError> {
    ThreadPoolBuilder::new().num_threads(threads).thread_name(move |i| format!("{lane} {i}")).build()
}

/// Does a lane's work until the queue is closed and the lane empty.
fn run_lane(shared: &Shared, pool: &ThreadPool, lane: Lane, limits: BatchLimits) {
    loop {
        // Before the first job, what loading needed.
        if shared.queue.stays_empty(lane, QUIET) {
            memory::give_back_of(pool);
        }
        let Some(taken) = shared.queue.pop(lane, limits) else { return };
        let n_jobs = taken.len() as u64;
        shared.at_work.fetch_add(n_jobs, Ordering::Relaxed);
        // The audio's room is free again only after the work.
        let (jobs, _room): (Vec<Job>, Vec<_>) = taken.into_iter().map(|taken| (taken.job, taken.room)).unzip();
        pool.install(|| run_jobs(shared, jobs));
        shared.at_work.fetch_sub(n_jobs, Ordering::Relaxed);
    }
}

/// A clip, its way back, and how long it waited.
type Clip = (Waveform, RecognizeOptions, ReplyTo<Recognition>, Duration);

fn run_jobs(shared: &Shared, jobs: Vec<Job>) {
    // Each of one model: around the moment when another takes its place, clips of both wait.
    let mut passes: Vec<(Arc<LoadedModel>, Vec<Clip>)> = Vec::new();
    for Job { model, work, enqueued } in jobs {
        match work {
            // Whose client is gone is not run.
            Work::Clip { reply, .. } if reply.is_closed() => {}
            Work::Clip { waveform, options, reply } => {
                let clip = (waveform, options, reply, enqueued.elapsed());
                match passes.last_mut() {
                    Some((of, clips)) if Arc::ptr_eq(of, &model) => clips.push(clip),
                    _ => passes.push((model, vec![clip])),
                }
            }
            Work::Other(work) => {
                let started = Instant::now();
                let (ran, reply) = work(model.engine.as_ref(), enqueued.elapsed());
                if keep_books(&model, ran) {
                    count(shared, started.elapsed());
                }
                reply();
            }
        }
    }
    for (model, clips) in passes {
        run_clips(shared, &model, clips);
    }
}

/// Answers clips in one pass. If the model panics, each goes alone, so that one clip costs no other its answer.
fn run_clips(shared: &Shared, model: &LoadedModel, clips: Vec<Clip>) {
    let engine = model.engine.as_ref();
    let started = Instant::now();
    let asked: Vec<_> = clips.iter().map(|(waveform, options, ..)| (waveform, options)).collect();
    let together = catch_unwind(AssertUnwindSafe(|| engine.recognize_all(&asked)));
    let answers: Vec<_> = match together {
        Ok(answers) => answers.into_iter().map(Ok).collect(),
        Err(panic) if asked.len() == 1 => vec![Err(panic)],
        Err(_) => {
            let alone = |(waveform, options): &(&Waveform, &RecognizeOptions)| {
                catch_unwind(AssertUnwindSafe(|| engine.recognize(waveform, options)))
            };
            asked.iter().map(alone).collect()
        }
    };
    shared.batch_sizes.observe(clips.len() as f64);
    let each = started.elapsed() / u32::try_from(clips.len()).unwrap_or(u32::MAX);
    for ((.., reply, queued), answer) in clips.into_iter().zip(answers) {
        let (ran, outcome) = outcome(answer, queued);
        if keep_books(model, ran) {
            count(shared, each);
        }
        // A client that went meanwhile is no error.
        let _ = reply.send(outcome);
    }
}

/// Work with its way back. An engine keeps no state between clips, so work that panicked leaves nothing half-done behind.
fn boxed<T: Send + 'static>(
    work: impl FnOnce(&dyn Engine) -> CoreResult<T> + Send + 'static,
    reply: ReplyTo<T>,
) -> OtherWork {
    Box::new(move |engine, queued| {
        if reply.is_closed() {
            return (Ran::NobodyWaited, Box::new(|| {}));
        }
        let (ran, outcome) = outcome(catch_unwind(AssertUnwindSafe(|| work(engine))), queued);
        let send = move || {
            // A client that went meanwhile is no error.
            let _ = reply.send(outcome);
        };
        (ran, Box::new(send))
    })
}

/// What the model's health and the client are told of what came of some work.
fn outcome<T>(answer: std::thread::Result<CoreResult<T>>, queued: Duration) -> (Ran, Result<Answered<T>, Failure>) {
    match answer {
        Ok(Ok(answer)) => (Ran::Answered, Ok(Answered { answer, queued })),
        Ok(Err(error)) => {
            let of_the_server = matches!(
                error,
                CoreError::NotFinite { .. } | CoreError::Device { .. } | CoreError::ShapeMismatch { .. }
            );
            (if of_the_server { Ran::Faulted } else { Ran::Refused }, Err(Failure::Core(error)))
        }
        Err(panic) => (Ran::Faulted, Err(Failure::Panicked(panic_message(panic.as_ref())))),
    }
}

/// Whether work was done at all, and how the model does.
fn keep_books(model: &LoadedModel, ran: Ran) -> bool {
    match ran {
        Ran::NobodyWaited => return false,
        Ran::Answered => model.faults_in_a_row.store(0, Ordering::Relaxed),
        Ran::Refused => {}
        Ran::Faulted => {
            model.faults_in_a_row.fetch_add(1, Ordering::Relaxed);
        }
    }
    true
}

/// Updates the running mean. Two threads write it: one of two values at once may be lost, which a mean can bear.
fn count(shared: &Shared, took: Duration) {
    let took_us = took.as_secs_f64() * 1e6;
    let before = shared.mean_us.load(Ordering::Relaxed) as f64;
    let mean = if before == 0.0 { took_us } else { before + MEAN_WEIGHT * (took_us - before) };
    shared.mean_us.store(mean.max(1.0) as u64, Ordering::Relaxed);
}

/// Ends the thread without a model.
fn fail(shared: &Shared, failure: &LoadFailure) {
    tracing::error!(cause = failure.cause, "the model could not be loaded");
    shared.loads.end(Some(failure), || {
        shared.phase.send_replace(Phase::Failed(Arc::from(failure.cause.as_str())));
    });
    shared.queue.close();
}

/// What a panic said.
pub(crate) fn panic_message(panic: &(dyn Any + Send)) -> String {
    panic
        .downcast_ref::<&str>()
        .map(|message| (*message).to_owned())
        .or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "no message".to_owned())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn panics_of_both_kinds_are_read() {
        let said = |panic: fn()| panic_message(catch_unwind(panic).unwrap_err().as_ref());
        assert_eq!(said(|| panic!("plain")), "plain");
        assert_eq!(said(|| panic!("{}", 7)), "7");
    }

    #[tokio::test]
    async fn a_model_that_cannot_be_loaded_is_reported() {
        for panics in [false, true] {
            let worker = InferenceWorker::spawn(&ServerConfig::default(), Histogram::new([1.0]), move |_| {
                assert!(!panics, "broken weights");
                Err(CoreError::ModelNotFound { what: "config.json".to_owned() })
            })
            .unwrap();
            assert!(matches!(worker.loaded().await, Phase::Failed(_)));
            assert_eq!(worker.health(), Health::Unhealthy);
            assert!(matches!(worker.model(), Err(ApiError::ModelUnavailable)));
        }
    }
}
