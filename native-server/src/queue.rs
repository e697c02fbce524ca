//! The bounded queue in front of the model.
//!
//! A channel would keep the jobs of clients that are gone until the model reaches them. Here a job
//! belongs to a [`Place`], which the waiting client holds: when the client goes, its job, its audio and
//! its room in the queue are free at once.
//!
//! There are two lanes, so that a transcript of seconds never stands before a command of milliseconds; each has a thread that
//! takes from it, the commands several at a time.
//!
//! Two bounds hold together, for both lanes: the number of waiting jobs, and the seconds of audio that they and the
//! running job keep in memory.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{AcquireError, OwnedSemaphorePermit, Semaphore, TryAcquireError};

/// Room for one job, taken before the job is made.
#[derive(Debug)]
pub(crate) struct Room {
    /// Given back when the job leaves the queue.
    slot: OwnedSemaphorePermit,
    /// Given back when the job's audio is dropped.
    audio: OwnedSemaphorePermit,
}

/// How to behave when there is no room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Admission {
    /// Say so at once.
    Refuse,
    /// Wait for room, first come, first served.
    Wait,
}

/// Why there is no room.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum NoRoom {
    Full,
    Closed,
}

/// Which line a job stands in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lane {
    /// Tens of milliseconds: intents from the sound, and from what was typed.
    Commands = 0,
    /// As long as there are words.
    Words = 1,
}

/// How many jobs are taken together.
#[derive(Debug, Clone, Copy)]
pub(crate) struct BatchLimits {
    /// At least 1.
    pub(crate) max_jobs: usize,
    /// Seconds of audio; the first job is taken in any case.
    pub(crate) max_audio_s: usize,
    /// How long the first waits for more.
    pub(crate) wait: Duration,
}

impl BatchLimits {
    /// Each by itself.
    pub(crate) const ONE: Self = Self { max_jobs: 1, max_audio_s: 0, wait: Duration::ZERO };
}

/// A job that left the queue; its audio still counts until this is dropped.
pub(crate) struct Taken<T> {
    pub(crate) job: T,
    /// Of its audio.
    pub(crate) room: OwnedSemaphorePermit,
}

struct Entry<T> {
    id: u64,
    job: T,
    room: Room,
}

struct State<T> {
    lanes: [VecDeque<Entry<T>>; 2],
    next_id: u64,
    closed: bool,
}

/// First in, first out, in each lane.
pub(crate) struct Queue<T> {
    state: Mutex<State<T>>,
    arrived: Condvar,
    slots: Arc<Semaphore>,
    audio_s: Arc<Semaphore>,
    max_len: usize,
    max_audio_s: u32,
}

/// A client's hold on its job in the queue. Dropping it takes the job out, unless the model has it.
pub(crate) struct Place<T> {
    queue: Arc<Queue<T>>,
    lane: Lane,
    id: u64,
}

impl<T> Drop for Place<T> {
    fn drop(&mut self) {
        let mut state = self.queue.lock();
        // Ids grow from front to back.
        let entries = &mut state.lanes[self.lane as usize];
        if let Ok(index) = entries.binary_search_by_key(&self.id, |entry| entry.id) {
            let entry = entries.remove(index);
            drop(state); // the permits wake a waiter: not under the lock
            drop(entry);
        }
    }
}

impl<T> Queue<T> {
    /// A queue of at most `max_len` jobs (at least 1) and `max_audio_s` seconds of audio.
    pub(crate) fn new(max_len: usize, max_audio_s: f64) -> Self {
        let max_len = max_len.clamp(1, 1 << 20);
        let max_audio_s = seconds(max_audio_s);
        Self {
            state: Mutex::new(State { lanes: Default::default(), next_id: 0, closed: false }),
            arrived: Condvar::new(),
            slots: Arc::new(Semaphore::new(max_len)),
            audio_s: Arc::new(Semaphore::new(max_audio_s as usize)),
            max_len,
            max_audio_s,
        }
    }

    fn lock(&self) -> MutexGuard<'_, State<T>> {
        // Nothing below panics while it holds the lock, and a half-made change is not possible.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Jobs that wait.
    pub(crate) fn len(&self) -> usize {
        self.lock().lanes.iter().map(VecDeque::len).sum()
    }

    /// The most jobs that may wait.
    pub(crate) fn max_len(&self) -> usize {
        self.max_len
    }

    /// Whether there is no room at all at this moment.
    pub(crate) fn is_full(&self) -> bool {
        self.slots.available_permits() == 0 || self.audio_s.available_permits() == 0
    }

    /// Takes room for a job with `duration_s` seconds of audio. A clip longer than the whole bound
    /// counts as the whole bound: it gets its turn alone.
    pub(crate) async fn room(&self, duration_s: f64, admission: Admission) -> Result<Room, NoRoom> {
        let wanted_s = seconds(duration_s).min(self.max_audio_s);
        let (slots, audio_s) = (Arc::clone(&self.slots), Arc::clone(&self.audio_s));
        match admission {
            Admission::Refuse => {
                let slot = slots.try_acquire_owned().map_err(NoRoom::from)?;
                let audio = audio_s.try_acquire_many_owned(wanted_s).map_err(NoRoom::from)?;
                Ok(Room { slot, audio })
            }
            Admission::Wait => {
                let slot = slots.acquire_owned().await.map_err(NoRoom::from)?;
                let audio = audio_s.acquire_many_owned(wanted_s).await.map_err(NoRoom::from)?;
                Ok(Room { slot, audio })
            }
        }
    }

    /// Puts a job at the end of its lane. `None` if the queue was closed meanwhile.
    pub(crate) fn push(self: &Arc<Self>, lane: Lane, job: T, room: Room) -> Option<Place<T>> {
        let mut state = self.lock();
        if state.closed {
            return None;
        }
        let id = state.next_id;
        state.next_id += 1;
        state.lanes[lane as usize].push_back(Entry { id, job, room });
        drop(state);
        // Each lane's thread waits here, and so may one that waits for more.
        self.arrived.notify_all();
        Some(Place { queue: Arc::clone(self), lane, id })
    }

    /// Waits for a job of a lane, at most so long; blocks the thread. Whether none came, and the queue is still open.
    pub(crate) fn stays_empty(&self, lane: Lane, wait: Duration) -> bool {
        let waits = |state: &mut State<T>| state.lanes[lane as usize].is_empty() && !state.closed;
        let waited = self.arrived.wait_timeout_while(self.lock(), wait, waits);
        waited.unwrap_or_else(PoisonError::into_inner).1.timed_out()
    }

    /// Waits for the next jobs of a lane, at least one; blocks the thread. `None` when the queue is closed and the lane empty.
    pub(crate) fn pop(&self, lane: Lane, limits: BatchLimits) -> Option<Vec<Taken<T>>> {
        let is_empty = |state: &State<T>| state.lanes[lane as usize].is_empty();
        let mut state = self.lock();
        // Once more if whoever was waited with went meanwhile.
        loop {
            let waits = |state: &mut State<T>| is_empty(state) && !state.closed;
            state = self.arrived.wait_while(state, waits).unwrap_or_else(PoisonError::into_inner);
            if is_empty(&state) {
                return None; // closed
            }
            let wants_more = |state: &mut State<T>| {
                (1..limits.max_jobs).contains(&state.lanes[lane as usize].len()) && !state.closed
            };
            let waited = self.arrived.wait_timeout_while(state, limits.wait, wants_more);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
            if !is_empty(&state) {
                break;
            }
        }
        let entries = &mut state.lanes[lane as usize];
        let mut taken = Vec::new();
        let mut audio_s = 0;
        while let Some(entry) = entries.front() {
            audio_s += entry.room.audio.num_permits();
            if !taken.is_empty() && (taken.len() >= limits.max_jobs || audio_s > limits.max_audio_s) {
                break;
            }
            taken.extend(entries.pop_front());
        }
        drop(state); // the permits wake a waiter: not under the lock
        let out = |Entry { job, room: Room { slot, audio }, .. }| {
            drop(slot);
            Taken { job, room: audio }
        };
        Some(taken.into_iter().map(out).collect())
    }

    /// Takes no more jobs; what waits is still handed out.
    pub(crate) fn close(&self) {
        self.lock().closed = true;
        self.slots.close();
        self.audio_s.close();
        self.arrived.notify_all();
    }
}

/// Whole seconds, at least one, at most what a semaphore counts.
fn seconds(duration_s: f64) -> u32 {
    // `as` saturates, and NaN becomes 0.
    (duration_s.ceil() as u32).clamp(1, 1 << 24)
}

impl From<TryAcquireError> for NoRoom {
    fn from(error: TryAcquireError) -> Self {
        match error {
            TryAcquireError::NoPermits => Self::Full,
            TryAcquireError::Closed => Self::Closed,
        }
    }
}

impl From<AcquireError> for NoRoom {
    fn from(_: AcquireError) -> Self {
        Self::Closed
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    async fn push(queue: &Arc<Queue<u32>>, job: u32) -> Result<Place<u32>, NoRoom> {
        let room = queue.room(1.0, Admission::Refuse).await?;
        Ok(queue.push(Lane::Commands, job, room).unwrap())
    }

    fn pop(queue: &Queue<u32>) -> Option<u32> {
        queue.pop(Lane::Commands, BatchLimits::ONE).map(|taken| taken[0].job)
    }

    fn pop_all(queue: &Queue<u32>, limits: BatchLimits) -> Vec<u32> {
        queue.pop(Lane::Commands, limits).unwrap().into_iter().map(|taken| taken.job).collect()
    }

    #[tokio::test]
    async fn jobs_leave_in_order_and_a_full_queue_refuses() {
        let queue = Arc::new(Queue::new(2, 100.0));
        let _a = push(&queue, 1).await.unwrap();
        let _b = push(&queue, 2).await.unwrap();
        assert!(queue.is_full());
        assert_eq!(push(&queue, 3).await.err(), Some(NoRoom::Full));
        assert_eq!(pop(&queue).unwrap(), 1);
        assert!(!queue.is_full());
        let _c = push(&queue, 3).await.unwrap();
        assert_eq!(pop(&queue).unwrap(), 2);
        assert_eq!(pop(&queue).unwrap(), 3);
    }

    #[tokio::test]
    async fn a_client_that_goes_frees_its_place_at_once() {
        let queue = Arc::new(Queue::new(2, 100.0));
        let _a = push(&queue, 1).await.unwrap();
        let b = push(&queue, 2).await.unwrap();
        drop(b);
        assert_eq!(queue.len(), 1);
        let _c = push(&queue, 3).await.unwrap();
        assert_eq!((pop(&queue).unwrap(), pop(&queue).unwrap()), (1, 3));
    }

    #[tokio::test]
    async fn audio_counts_until_the_job_is_done() {
        let queue = Arc::new(Queue::new(10, 10.0));
        let room = queue.room(8.0, Admission::Refuse).await.unwrap();
        let _place = queue.push(Lane::Commands, 1, room);
        assert_eq!(queue.room(4.0, Admission::Refuse).await.err(), Some(NoRoom::Full));
        let taken = queue.pop(Lane::Commands, BatchLimits::ONE).unwrap();
        assert_eq!(queue.room(4.0, Admission::Refuse).await.err(), Some(NoRoom::Full));
        drop(taken);
        // Longer than the bound: alone, but not never.
        assert!(queue.room(1e9, Admission::Refuse).await.is_ok());
    }

    #[tokio::test]
    async fn a_waiter_gets_the_room_that_comes_free() {
        let queue = Arc::new(Queue::new(1, 100.0));
        let first = push(&queue, 1).await.unwrap();
        let waiting = tokio::spawn({
            let queue = Arc::clone(&queue);
            async move { queue.room(1.0, Admission::Wait).await.is_ok() }
        });
        tokio::task::yield_now().await;
        drop(first);
        assert!(waiting.await.unwrap());
    }

    #[tokio::test]
    async fn a_closed_queue_hands_out_what_it_has_and_then_ends() {
        let queue = Arc::new(Queue::new(4, 100.0));
        let _a = push(&queue, 1).await.unwrap();
        queue.close();
        assert_eq!(push(&queue, 2).await.err(), Some(NoRoom::Closed));
        assert_eq!(pop(&queue).unwrap(), 1);
        assert!(pop(&queue).is_none());
        let patient = BatchLimits { max_jobs: 2, max_audio_s: 30, wait: Duration::from_secs(20) };
        assert!(queue.pop(Lane::Commands, patient).is_none());
        assert!(queue.pop(Lane::Words, BatchLimits::ONE).is_none());
    }

    #[tokio::test]
    async fn a_lane_stays_empty_until_it_has_a_job_or_is_closed() {
        let (queue, moment, long) = (Arc::new(Queue::new(4, 100.0)), Duration::from_millis(5), Duration::from_secs(60));
        assert!(queue.stays_empty(Lane::Commands, moment));
        let job = push(&queue, 1).await.unwrap();
        assert!(!queue.stays_empty(Lane::Commands, long));
        assert!(queue.stays_empty(Lane::Words, moment), "the other lane's job is none");
        drop(job);
        assert!(queue.stays_empty(Lane::Commands, moment));
        queue.close();
        assert!(!queue.stays_empty(Lane::Commands, long));
    }

    #[tokio::test]
    async fn jobs_are_taken_together_up_to_both_limits() {
        let queue = Arc::new(Queue::new(20, 1000.0));
        let mut places = Vec::new();
        for (job, audio_s) in [(1, 3.0), (2, 3.0), (3, 3.0), (4, 25.0), (5, 600.0), (6, 1.0), (7, 1.0)] {
            let room = queue.room(audio_s, Admission::Refuse).await.unwrap();
            places.push(queue.push(Lane::Commands, job, room).unwrap());
        }
        let limits = BatchLimits { max_jobs: 2, max_audio_s: 30, wait: Duration::ZERO };
        assert_eq!(pop_all(&queue, limits), [1, 2]);
        assert_eq!(pop_all(&queue, limits), [3, 4]);
        assert_eq!(pop_all(&queue, limits), [5], "longer than the bound: alone, but not never");
        drop(places.remove(5));
        assert_eq!(pop_all(&queue, limits), [7]);
    }

    #[tokio::test]
    async fn a_lane_does_not_wait_for_the_other() {
        let queue = Arc::new(Queue::new(4, 100.0));
        let room = queue.room(1.0, Admission::Refuse).await.unwrap();
        let _words = queue.push(Lane::Words, 1, room).unwrap();
        let _command = push(&queue, 2).await.unwrap();
        assert_eq!((queue.len(), pop(&queue).unwrap(), queue.len()), (2, 2, 1));
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn the_first_waits_for_more_but_not_for_ever() {
        let queue = Arc::new(Queue::new(4, 100.0));
        let limits = |ms| BatchLimits { max_jobs: 2, max_audio_s: 30, wait: Duration::from_millis(ms) };
        let _alone = push(&queue, 1).await.unwrap();
        assert_eq!(pop_all(&queue, limits(20)), [1]);

        let _first = push(&queue, 2).await.unwrap();
        let taking = tokio::task::spawn_blocking({
            let queue = Arc::clone(&queue);
            move || pop_all(&queue, limits(20_000))
        });
        let _second = push(&queue, 3).await.unwrap();
        assert_eq!(taking.await.unwrap(), [2, 3]);
    }

    #[test]
    fn lengths_become_whole_seconds() {
        assert_eq!([0.0, 0.2, 1.0, 1.1, f64::NAN, f64::INFINITY].map(seconds), [1, 1, 1, 2, 1, 1 << 24]);
    }
}
