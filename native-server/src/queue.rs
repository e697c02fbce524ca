//! The bounded queue in front of the model.
//!
//! A channel would keep the jobs of clients that are gone until the model reaches them. Here a job
//! belongs to a [`Place`], which the waiting client holds: when the client goes, its job, its audio and
//! its room in the queue are free at once.
//!
//! Two bounds hold together: the number of waiting jobs, and the seconds of audio that they and the
//! running job keep in memory.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

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

/// A job that left the queue; its audio still counts until this is dropped.
pub(crate) struct Taken<T> {
    pub(crate) job: T,
    _audio: OwnedSemaphorePermit,
}

struct Entry<T> {
    id: u64,
    job: T,
    room: Room,
}

struct State<T> {
    entries: VecDeque<Entry<T>>,
    next_id: u64,
    closed: bool,
}

/// First in, first out.
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
    id: u64,
}

impl<T> Drop for Place<T> {
    fn drop(&mut self) {
        let mut state = self.queue.lock();
        // Ids grow from front to back.
        if let Ok(index) = state.entries.binary_search_by_key(&self.id, |entry| entry.id) {
            let entry = state.entries.remove(index);
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
            state: Mutex::new(State { entries: VecDeque::new(), next_id: 0, closed: false }),
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
        self.lock().entries.len()
    }

    /// The most jobs that may wait.
    pub(crate) fn max_len(&self) -> usize {
        self.max_len
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

    /// Puts a job at the end. `None` if the queue was closed meanwhile.
    pub(crate) fn push(self: &Arc<Self>, job: T, room: Room) -> Option<Place<T>> {
        let mut state = self.lock();
        if state.closed {
            return None;
        }
        let id = state.next_id;
        state.next_id += 1;
        state.entries.push_back(Entry { id, job, room });
        drop(state);
        self.arrived.notify_one();
        Some(Place { queue: Arc::clone(self), id })
    }

    /// Waits for the next job; blocks the thread. `None` when the queue is closed and empty.
    pub(crate) fn pop(&self) -> Option<Taken<T>> {
        let mut state = self.lock();
        loop {
            if let Some(entry) = state.entries.pop_front() {
                drop(state);
                let Room { slot, audio } = entry.room;
                drop(slot);
                return Some(Taken { job: entry.job, _audio: audio });
            }
            if state.closed {
                return None;
            }
            state = self.arrived.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
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
        Ok(queue.push(job, room).unwrap())
    }

    #[tokio::test]
    async fn jobs_leave_in_order_and_a_full_queue_refuses() {
        let queue = Arc::new(Queue::new(2, 100.0));
        let _a = push(&queue, 1).await.unwrap();
        let _b = push(&queue, 2).await.unwrap();
        assert_eq!(push(&queue, 3).await.err(), Some(NoRoom::Full));
        assert_eq!(queue.pop().unwrap().job, 1);
        let _c = push(&queue, 3).await.unwrap();
        assert_eq!(queue.pop().unwrap().job, 2);
        assert_eq!(queue.pop().unwrap().job, 3);
    }

    #[tokio::test]
    async fn a_client_that_goes_frees_its_place_at_once() {
        let queue = Arc::new(Queue::new(2, 100.0));
        let _a = push(&queue, 1).await.unwrap();
        let b = push(&queue, 2).await.unwrap();
        drop(b);
        assert_eq!(queue.len(), 1);
        let _c = push(&queue, 3).await.unwrap();
        assert_eq!((queue.pop().unwrap().job, queue.pop().unwrap().job), (1, 3));
    }

    #[tokio::test]
    async fn audio_counts_until_the_job_is_done() {
        let queue = Arc::new(Queue::new(10, 10.0));
        let room = queue.room(8.0, Admission::Refuse).await.unwrap();
        let _place = queue.push(1, room);
        assert_eq!(queue.room(4.0, Admission::Refuse).await.err(), Some(NoRoom::Full));
        let taken = queue.pop().unwrap();
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
        assert_eq!(queue.pop().unwrap().job, 1);
        assert!(queue.pop().is_none());
    }

    #[test]
    fn lengths_become_whole_seconds() {
        assert_eq!([0.0, 0.2, 1.0, 1.1, f64::NAN, f64::INFINITY].map(seconds), [1, 1, 1, 2, 1, 1 << 24]);
    }
}
