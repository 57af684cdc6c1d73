//! Who waits for which position, and what is known of the replica.
//!
//! One lock holds both, so that a caller cannot look, find its position missing, and be put down
//! only after the advance that it wanted: looking and registering are one step, and so are moving
//! the mark and collecting whom it reached. Wakers are called outside the lock, in chunks.
//!
//! A [`Wait`](crate::wait::Wait) owns its entry: it puts it in, and takes it out when it is
//! dropped. The board only ever removes an entry to wake it. A waiter costs one entry of the map,
//! about 80 bytes.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
    task::Waker,
    time::Duration,
};

use farwrite_schemas::Lsn;
use tokio::{sync::Notify, time::Instant};

use crate::{
    GoneReason, Seen, WaitError,
    mark::Mark,
    metrics,
    poll::{Audience, Demand},
    replica::Sight,
    visible::is_visible,
};

/// Waiters woken before the source yields, and collected under one lock: about 50 µs of work.
const WAKE_CHUNK: usize = 1_024;

/// The bounds of a board.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    pub(crate) max_waiters: usize,
    /// How old a mark may be that answers a caller who came after it.
    pub(crate) fresh_for: Duration,
    /// After what silence a mark says nothing about its successor.
    pub(crate) forget_after: Duration,
    /// How long a question may stay unanswered before the replica counts as gone.
    pub(crate) answer_within: Duration,
}

#[derive(Debug)]
pub(crate) struct Board {
    pub(crate) limits: Limits,
    state: Mutex<State>,
    /// Told at every registration; the one source listens.
    registered: Notify,
}

/// What a board's callers wait for, in short.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Wanted {
    /// The highest position.
    pub(crate) highest: Lsn,
    /// Somebody waits only because the mark is not fresh: it must be heard anew, by a question
    /// that is asked after this moment.
    pub(crate) renew_after: Option<Instant>,
}

#[derive(Debug, Default)]
pub(crate) struct State {
    mark: Option<Mark>,
    /// Why the replica cannot be asked at present.
    gone: Option<GoneReason>,
    /// When the oldest question went out that nobody has answered yet.
    asked_at: Option<Instant>,
    heard_at: Option<Instant>,
    pub(crate) answers: u64,
    polls: u64,
    /// How often the server was found not to be a replica. A count and not a state: a caller is
    /// refused by a verdict that was made while it waits, never by an old one.
    pub(crate) refusals: u64,
    pub(crate) closed: bool,
    youngest: Option<Instant>,
    next_id: u64,
    pub(crate) waiters: BTreeMap<(Lsn, u64), Waker>,
}

impl State {
    /// The mark, if it makes `target` visible to a caller that began at `began`.
    pub(crate) fn visible(&self, target: Lsn, began: Instant, limits: &Limits) -> Option<Mark> {
        let now = Instant::now();
        self.mark.filter(|mark| is_visible(mark, target, began, now, limits.fresh_for))
    }

    /// Puts a waiter on the board and returns its id.
    pub(crate) fn register(&mut self, target: Lsn, waker: Waker) -> u64 {
        let id = self.next_id;
        self.next_id += 1;
        self.youngest = Some(Instant::now());
        self.waiters.insert((target, id), waker);
        metrics::waiters_came();
        id
    }

    /// Removes up to a chunk of waiters at or below `up_to`.
    fn take(&mut self, up_to: Lsn) -> Vec<Waker> {
        let mut taken = Vec::new();
        while taken.len() < WAKE_CHUNK
            && let Some(first) = self.waiters.first_entry()
            && first.key().0 <= up_to
        {
            taken.push(first.remove());
        }
        metrics::waiters_left(taken.len());
        taken
    }
}

impl Board {
    pub(crate) fn new(limits: Limits) -> Self {
        Self { limits, state: Mutex::default(), registered: Notify::new() }
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing panics while it holds the lock half-way through a change.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells the source that somebody has registered.
    pub(crate) fn announce(&self) {
        self.registered.notify_one();
    }

    pub(crate) fn waiters(&self) -> usize {
        self.lock().waiters.len()
    }

    pub(crate) fn polls(&self) -> u64 {
        self.lock().polls
    }

    pub(crate) fn reached(&self) -> Option<Lsn> {
        self.lock().mark.map(|mark| mark.lsn)
    }

    /// What there is to ask for; `None` when nobody waits.
    pub(crate) fn wanted(&self) -> Option<Wanted> {
        let state = self.lock();
        let (highest, _) = *state.waiters.last_key_value()?.0;
        let (lowest, _) = *state.waiters.first_key_value()?.0;
        let is_stale = state.mark.is_some_and(|mark| mark.lsn >= lowest);
        Some(Wanted { highest, renew_after: state.youngest.filter(|_| is_stale) })
    }

    /// The way to whoever is asked is open again: whether it answers is to be seen.
    pub(crate) fn way_is_open(&self) {
        let mut state = self.lock();
        if matches!(state.gone, Some(GoneReason::NatsDown)) {
            state.gone = None;
        }
    }

    /// Why a wait that ran out of time was in vain.
    pub(crate) fn missed(&self, target: Lsn, began: Instant, answers_before: u64) -> WaitError {
        let state = self.lock();
        let now = Instant::now();
        let since = |then: Instant| now.saturating_duration_since(then);
        let reached = state.mark.map(|mark| mark.lsn);
        let seen = Seen {
            reached,
            missing_bytes: reached.map(|reached| target.bytes_since(reached)),
            waited: since(began),
            answers: state.answers - answers_before,
            heard_ago: state.heard_at.map(since),
        };
        let unanswered = state.asked_at.map(since).filter(|for_| *for_ > self.limits.answer_within);
        let unanswered = unanswered.map(|silent| GoneReason::Unanswered { silent });
        match state.gone.clone().or(unanswered) {
            Some(reason) => WaitError::ReplicaGone { target, seen, reason },
            None => WaitError::TimedOut { target, seen },
        }
    }

    /// Ends every wait, those to come too.
    pub(crate) fn close(&self) {
        self.lock().closed = true;
        loop {
            let taken = self.lock().take(Lsn(u64::MAX));
            if taken.is_empty() {
                break;
            }
            taken.into_iter().for_each(Waker::wake);
        }
    }

    async fn wake(&self, up_to: Lsn) {
        loop {
            let taken = self.lock().take(up_to);
            let is_last = taken.len() < WAKE_CHUNK;
            taken.into_iter().for_each(Waker::wake);
            if is_last {
                return;
            }
            tokio::task::yield_now().await;
        }
    }
}

impl Audience for Board {
    fn demand(&self) -> Option<Demand> {
        let state = self.lock();
        let youngest = state.youngest.filter(|_| !state.waiters.is_empty())?;
        Some(Demand { youngest, at_once: false })
    }

    async fn demanded(&self) {
        self.registered.notified().await;
    }

    fn asking(&self) {
        let mut state = self.lock();
        state.polls += 1;
        state.asked_at.get_or_insert_with(Instant::now);
    }

    async fn saw(&self, sight: Sight) {
        let up_to = {
            let mut state = self.lock();
            let heard_at = Instant::now();
            let forget = self.limits.forget_after;
            let start = sight.server_start_us;
            if state.mark.is_some_and(|mark| mark.is_outdated(start, heard_at, forget)) {
                return;
            }
            state.answers += 1;
            (state.gone, state.asked_at, state.heard_at) = (None, None, Some(heard_at));
            match sight.replayed.filter(|_| sight.in_recovery) {
                Some(lsn) => {
                    let heard = Mark { server_start_us: start, lsn, heard_at };
                    let mark = Mark::merge(state.mark, heard, forget);
                    state.mark = Some(mark);
                    metrics::replayed(mark.lsn);
                    mark.lsn
                }
                None => {
                    state.mark = None;
                    state.refusals += 1;
                    Lsn(u64::MAX)
                }
            }
        };
        self.wake(up_to).await;
    }

    async fn lost(&self, reason: GoneReason) {
        let mut state = self.lock();
        (state.mark, state.asked_at) = (None, None);
        state.gone = Some(reason);
    }
}
