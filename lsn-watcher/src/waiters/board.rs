//! What a watcher knows, in one place: who waits, and what is known of the replica.
//!
//! One lock holds both. A caller looks and registers in one step, so that no advance fits in between
//! and is missed. Moving the mark and collecting whom it reached are one step, too. Wakers are called
//! outside the lock, in chunks.
//!
//! A wait owns its entry: it puts the entry in, and takes it out when it is dropped. The board only
//! ever removes an entry to wake it. A waiter costs one entry of a queue, about 80 bytes.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    task::Waker,
    time::Duration,
};

use farwrite_schemas::{Epoch, Lsn};
use tokio::{sync::Notify, time::Instant};

use super::{
    entry::WaitQueue,
    limits::BoardLimits,
    state::{BoardState, WAKE_CHUNK},
};
use crate::answer::GoneReason;

/// How long after an answer a server that is asked again answers quickly: 75 µs after 0.3 ms and
/// 200 to 300 after a pause, in which its process and its connection's were asleep.
const AWAKE_FOR: Duration = Duration::from_millis(10);

#[derive(Debug)]
pub(crate) struct Board {
    pub(crate) limits: BoardLimits,
    state: Mutex<BoardState>,
    made: Instant,
    /// Told at every registration; the one source listens.
    pub(super) registered: Notify,
}

/// What a board's callers wait for, in short.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct BoardDemand {
    /// The highest position.
    pub(crate) highest: Lsn,
    /// Somebody waits only because the mark is not fresh: it must be heard anew, by a question
    /// that is asked after this moment.
    pub(crate) renew_after: Option<Instant>,
    /// Epochs whose branch must be known.
    pub(crate) epochs: Vec<Epoch>,
}

impl Board {
    pub(crate) fn new(limits: BoardLimits) -> Self {
        let made = Instant::now();
        Self { limits, state: Mutex::default(), made, registered: Notify::new() }
    }

    /// The time since it was made, in nanoseconds: half the size of an instant.
    pub(super) fn now_ns(&self) -> u64 {
        u64::try_from(self.made.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    /// The moment so many nanoseconds after it was made.
    pub(super) fn at_ns(&self, ns: u64) -> Instant {
        self.made + Duration::from_nanos(ns)
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, BoardState> {
        // Nothing panics while it holds the lock half-way through a change.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells the source that somebody has registered.
    pub(super) fn announce(&self) {
        self.registered.notify_one();
    }

    /// Has the server asked once, unless it is awake, for a caller who will come in a moment.
    pub(crate) fn expect(&self) {
        let mut state = self.lock();
        let now = Instant::now();
        let is_awake = state.heard_at.is_some_and(|then| now - then < AWAKE_FOR);
        if is_awake || state.asked_at.is_some() || state.waiters() > 0 {
            return;
        }
        state.expected = Some(now);
        drop(state);
        self.announce();
    }

    pub(crate) fn waiters(&self) -> usize {
        self.lock().waiters()
    }

    pub(crate) fn polls(&self) -> u64 {
        self.lock().polls
    }

    pub(crate) fn reached(&self) -> Option<Lsn> {
        self.lock().mark.map(|mark| mark.lsn)
    }

    /// On which start of the server the mark was seen.
    pub(crate) fn server_start_us(&self) -> Option<i64> {
        self.lock().mark.map(|mark| mark.server_start_us)
    }

    /// What there is to ask for; `None` when nobody waits.
    pub(crate) fn wanted(&self) -> Option<BoardDemand> {
        let state = self.lock();
        let (lowest, highest) = state.span()?;
        let is_stale = state.mark.is_some_and(|mark| mark.lsn >= lowest);
        let renew_after = state.youngest.filter(|_| is_stale);
        Some(BoardDemand { highest, renew_after, epochs: state.branches.wanted().to_vec() })
    }

    /// NATS is connected again: whether the watcher answers is to be seen.
    pub(crate) fn way_is_open(&self) {
        let mut state = self.lock();
        if matches!(state.gone, Some(GoneReason::NatsDown)) {
            state.gone = None;
        }
    }

    /// Ends every wait, those to come too.
    pub(crate) fn close(&self) {
        self.lock().closed = true;
        for queue in WaitQueue::ALL {
            loop {
                let taken = self.lock().take(queue, Lsn(u64::MAX));
                if taken.is_empty() {
                    break;
                }
                taken.into_iter().for_each(Waker::wake);
            }
        }
    }

    pub(super) async fn wake(&self, queue: WaitQueue, up_to: Lsn) {
        loop {
            let taken = self.lock().take(queue, up_to);
            let is_last = taken.len() < WAKE_CHUNK;
            taken.into_iter().for_each(Waker::wake);
            if is_last {
                return;
            }
            tokio::task::yield_now().await;
        }
    }
}
