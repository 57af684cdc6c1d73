//! Who waits for which position, and what is known of the replica.
//!
//! One lock holds both, so that a caller cannot look, find its position missing, and be put down
//! only after the advance that it wanted: looking and registering are one step, and so are moving
//! the mark and collecting whom it reached. Wakers are called outside the lock, in chunks.
//!
//! A [`Wait`](crate::wait::Wait) owns its entry: it puts it in, and takes it out when it is
//! dropped. The board only ever removes an entry to wake it. A waiter costs one entry of a queue,
//! about 80 bytes.

use std::{
    collections::BTreeMap,
    num::NonZeroU64,
    sync::{Mutex, MutexGuard, PoisonError},
    task::Waker,
    time::Duration,
};

use farwrite_schemas::{Epoch, Lsn};
use tokio::{sync::Notify, time::Instant};

use crate::{
    GoneReason, Seen, WaitError,
    branches::{Branches, Told},
    mark::Mark,
    metrics,
    poll::{Audience, Demand},
    replica::Sight,
    target::Target,
    visible::{Judgement, answers, judge},
};

/// Waiters woken before the source yields, and collected under one lock: about 50 µs of work.
const WAKE_CHUNK: usize = 1_024;

/// How long after an answer a server that is asked again answers quickly: 75 µs after 0.3 ms and
/// 200 to 300 after a pause, in which its process and its connection's were asleep.
const AWAKE_FOR: Duration = Duration::from_millis(10);

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
    made: Instant,
    /// Told at every registration; the one source listens.
    registered: Notify,
}

/// What a board's callers wait for, in short.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Wanted {
    /// The highest position.
    pub(crate) highest: Lsn,
    /// Somebody waits only because the mark is not fresh: it must be heard anew, by a question
    /// that is asked after this moment.
    pub(crate) renew_after: Option<Instant>,
    /// Epochs whose branch must be known.
    pub(crate) epochs: Vec<Epoch>,
}

/// What wakes a waiter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Queue {
    /// A bare position: the mark reaches it, or the server turns out not to be a replica.
    Bare,
    /// A position of a branch: the mark reaches it, or the server changes its timeline.
    Branch,
    /// In doubt: something is learnt of a branch, or the server changes its timeline.
    Doubt,
}

/// What is counted so that a caller knows what happened while it waited. Only differences matter.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counts {
    answers: u32,
    /// How often the server was found not to be a replica. A count and not a state: a caller is
    /// refused by a verdict that was made while it waits, never by an old one.
    pub(crate) refusals: u32,
}

/// Where a waiter's entry is: its number, and in the last two bits its queue.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place(NonZeroU64);

impl Place {
    pub(crate) fn queue(self) -> Queue {
        match self.0.get() & 3 {
            0 => Queue::Bare,
            1 => Queue::Branch,
            _ => Queue::Doubt,
        }
    }
}

impl Queue {
    const ALL: [Self; 3] = [Self::Bare, Self::Branch, Self::Doubt];
}

#[derive(Debug, Default)]
pub(crate) struct State {
    mark: Option<Mark>,
    pub(crate) branches: Branches,
    /// Why the replica cannot be asked at present.
    gone: Option<GoneReason>,
    /// When the oldest question went out that nobody has answered yet.
    asked_at: Option<Instant>,
    heard_at: Option<Instant>,
    pub(crate) counts: Counts,
    polls: u64,
    pub(crate) closed: bool,
    youngest: Option<Instant>,
    /// Somebody will come soon: since when that is known, until the next question.
    expected: Option<Instant>,
    /// Of the last waiter that came.
    number: u64,
    queues: [BTreeMap<(Lsn, u64), Waker>; 3],
}

impl State {
    /// Judges what a caller that began at `began` waits for, and the mark that it was judged on.
    pub(crate) fn judge(
        &self,
        target: &Target,
        began: Instant,
        limits: &Limits,
    ) -> Option<(Judgement, Mark)> {
        let now = Instant::now();
        let mark = self.mark.filter(|mark| answers(mark, began, now, limits.fresh_for))?;
        let known = target.branch.and_then(|name| self.branches.get(name.epoch));
        Some((judge(target, &mark, known), mark))
    }

    pub(crate) fn waiters(&self) -> usize {
        self.queues.iter().map(BTreeMap::len).sum()
    }

    /// Puts a waiter into a queue and returns its place.
    pub(crate) fn register(&mut self, queue: Queue, target: Lsn, waker: Waker) -> Place {
        self.number += 1;
        let place = Place(NonZeroU64::MIN.saturating_add((self.number << 2 | queue as u64) - 1));
        self.youngest = Some(Instant::now());
        self.queues[queue as usize].insert((target, place.0.get()), waker);
        metrics::waiters_came();
        place
    }

    /// A waiter's entry.
    pub(crate) fn entry(&mut self, target: Lsn, place: Place) -> Option<&mut Waker> {
        self.queues[place.queue() as usize].get_mut(&(target, place.0.get()))
    }

    /// Takes a waiter's entry out, where it still is.
    pub(crate) fn leave(&mut self, target: Lsn, place: Place) {
        let queue = &mut self.queues[place.queue() as usize];
        if queue.remove(&(target, place.0.get())).is_some() {
            metrics::waiters_left(1);
        }
    }

    /// Removes up to a chunk of a queue's waiters at or below `up_to`.
    fn take(&mut self, queue: Queue, up_to: Lsn) -> Vec<Waker> {
        let waiters = &mut self.queues[queue as usize];
        let mut taken = Vec::new();
        while taken.len() < WAKE_CHUNK
            && let Some(first) = waiters.first_entry()
            && first.key().0 <= up_to
        {
            taken.push(first.remove());
        }
        metrics::waiters_left(taken.len());
        taken
    }

    /// The lowest and the highest position that somebody waits for.
    fn span(&self) -> Option<(Lsn, Lsn)> {
        let keys = || self.queues.iter().filter(|queue| !queue.is_empty());
        let lowest = keys().filter_map(|queue| queue.first_key_value()).map(|(key, _)| key.0).min();
        let highest = keys().filter_map(|queue| queue.last_key_value()).map(|(key, _)| key.0).max();
        lowest.zip(highest)
    }
}

impl Board {
    pub(crate) fn new(limits: Limits) -> Self {
        let made = Instant::now();
        Self { limits, state: Mutex::default(), made, registered: Notify::new() }
    }

    /// The time since it was made, in nanoseconds: half the size of an instant.
    pub(crate) fn now_ns(&self) -> u64 {
        u64::try_from(self.made.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    /// The moment so many nanoseconds after it was made.
    pub(crate) fn at_ns(&self, ns: u64) -> Instant {
        self.made + Duration::from_nanos(ns)
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing panics while it holds the lock half-way through a change.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells the source that somebody has registered.
    pub(crate) fn announce(&self) {
        self.registered.notify_one();
    }

    /// Has the server asked once, for somebody who will come in a moment, unless it is awake.
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
    pub(crate) fn wanted(&self) -> Option<Wanted> {
        let state = self.lock();
        let (lowest, highest) = state.span()?;
        let is_stale = state.mark.is_some_and(|mark| mark.lsn >= lowest);
        let renew_after = state.youngest.filter(|_| is_stale);
        Some(Wanted { highest, renew_after, epochs: state.branches.wanted().to_vec() })
    }

    /// The way to whoever is asked is open again: whether it answers is to be seen.
    pub(crate) fn way_is_open(&self) {
        let mut state = self.lock();
        if matches!(state.gone, Some(GoneReason::NatsDown)) {
            state.gone = None;
        }
    }

    /// Why a wait that ran out of time was in vain.
    pub(crate) fn missed(&self, target: &Target, began: Instant, before: Counts) -> WaitError {
        let state = self.lock();
        let seen = self.seen(&state, target, began, before);
        let silent = |then: Instant| Instant::now().saturating_duration_since(then);
        let unanswered =
            state.asked_at.map(silent).filter(|for_| *for_ > self.limits.answer_within);
        let unanswered = unanswered.map(|silent| GoneReason::Unanswered { silent });
        let target = target.lsn;
        match state.gone.clone().or(unanswered) {
            Some(reason) => WaitError::ReplicaGone { target, seen, reason },
            None => WaitError::TimedOut { target, seen },
        }
    }

    /// What is known of the server, for a caller that is told why not.
    pub(crate) fn seen(
        &self,
        state: &State,
        target: &Target,
        began: Instant,
        before: Counts,
    ) -> Box<Seen> {
        let now = Instant::now();
        let since = |then: Instant| now.saturating_duration_since(then);
        let reached = state.mark.map(|mark| mark.lsn);
        let doubt = match state.judge(target, began, &self.limits) {
            Some((Judgement::InDoubt(doubt), _)) => Some(doubt),
            Some(_) | None => None,
        };
        Box::new(Seen {
            reached,
            missing_bytes: reached.map(|reached| target.lsn.bytes_since(reached)),
            waited: since(began),
            answers: u64::from(state.counts.answers.wrapping_sub(before.answers)),
            heard_ago: state.heard_at.map(since),
            timeline: state.mark.and_then(|mark| mark.timeline),
            doubt,
            unreadable: target.branch.and_then(|_| state.branches.unreadable()),
        })
    }

    /// Ends every wait, those to come too.
    pub(crate) fn close(&self) {
        self.lock().closed = true;
        for queue in Queue::ALL {
            loop {
                let taken = self.lock().take(queue, Lsn(u64::MAX));
                if taken.is_empty() {
                    break;
                }
                taken.into_iter().for_each(Waker::wake);
            }
        }
    }

    async fn wake(&self, queue: Queue, up_to: Lsn) {
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

impl Audience for Board {
    fn demand(&self) -> Option<Demand> {
        let state = self.lock();
        let youngest = state.youngest.filter(|_| state.waiters() > 0);
        Some(Demand { youngest: youngest.max(state.expected)?, at_once: false })
    }

    async fn demanded(&self) {
        self.registered.notified().await;
    }

    fn next(&self) -> Option<Lsn> {
        let state = self.lock();
        let (lowest, _) = state.span()?;
        state.mark.filter(|mark| lowest > mark.lsn).map(|_| lowest)
    }

    fn asking(&self) {
        let mut state = self.lock();
        state.polls += 1;
        state.expected = None;
        state.asked_at.get_or_insert_with(Instant::now);
    }

    async fn saw(&self, sight: Sight) {
        const EVERYBODY: Lsn = Lsn(u64::MAX);
        let (reached, turned) = {
            let mut state = self.lock();
            let heard_at = Instant::now();
            let forget = self.limits.forget_after;
            let start = sight.server_start_us;
            let known = state.mark;
            if known.is_some_and(|mark| mark.is_outdated(start, heard_at, forget)) {
                return;
            }
            state.counts.answers = state.counts.answers.wrapping_add(1);
            (state.gone, state.asked_at, state.heard_at) = (None, None, Some(heard_at));
            if known.is_some_and(|mark| mark.server_start_us != start) {
                state.branches.forget();
            }
            let Sight { replayed, timeline, in_recovery, .. } = sight;
            if !in_recovery {
                state.counts.refusals = state.counts.refusals.wrapping_add(1);
            }
            state.mark = replayed.map(|lsn| {
                let heard = Mark { server_start_us: start, lsn, timeline, in_recovery, heard_at };
                Mark::merge(known, heard, forget)
            });
            if let Some(mark) = state.mark {
                metrics::replayed(mark.lsn);
            }
            let timeline = |mark: Option<Mark>| mark.and_then(|mark| mark.timeline);
            (state.mark.map(|mark| mark.lsn), timeline(known) != timeline(state.mark))
        };
        if let Some(reached) = reached {
            self.wake(Queue::Branch, if turned { EVERYBODY } else { reached }).await;
        }
        if turned {
            self.wake(Queue::Doubt, EVERYBODY).await;
        }
        if !sight.in_recovery {
            self.wake(Queue::Bare, EVERYBODY).await;
        } else if let Some(reached) = reached {
            self.wake(Queue::Bare, reached).await;
        }
    }

    fn epochs(&self) -> Vec<Epoch> {
        self.lock().branches.wanted().to_vec()
    }

    async fn told(&self, told: Told) {
        let is_news = self.lock().branches.learn(&told);
        if is_news {
            self.wake(Queue::Doubt, Lsn(u64::MAX)).await;
        }
    }

    async fn lost(&self, reason: GoneReason) {
        let mut state = self.lock();
        (state.mark, state.asked_at) = (None, None);
        state.branches.forget();
        state.gone = Some(reason);
    }
}
