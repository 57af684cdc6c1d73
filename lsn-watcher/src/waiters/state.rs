//! What a board holds behind its one lock: those who wait, and what was heard of the replica.

use std::{collections::BTreeMap, task::Waker, time::Duration};

use farwrite_schemas::Lsn;
use tokio::time::Instant;

use super::{
    entry::{BoardEntry, WaitQueue},
    limits::BoardLimits,
};
use crate::{
    answer::{GoneReason, WaitError, WaitReport},
    metrics,
    poll::ServerReport,
    visible::{Branches, Judgement, ReplayMark, answers, judge},
    wait_target::WaitTarget,
};

/// Waiters that are collected under one lock, and woken before the source yields: about 50 µs of
/// work.
pub(super) const WAKE_CHUNK: usize = 1_024;

/// What is counted so that a caller knows what happened while it waited. Only differences matter.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct BoardCounts {
    answers: u32,
    /// How often the server was found not to be a replica. A count and not a state: a caller is
    /// refused by a verdict that was made while it waits, never by an old one.
    pub(super) refusals: u32,
}

/// What an answer changed for those who wait.
#[derive(Clone, Copy, Debug)]
pub(super) struct Advance {
    /// The furthest position that is known now.
    pub(super) reached: Option<Lsn>,
    /// The server is on another timeline than before.
    pub(super) timeline_changed: bool,
}

#[derive(Debug, Default)]
pub(super) struct BoardState {
    pub(super) mark: Option<ReplayMark>,
    pub(super) branches: Branches,
    /// Why the replica cannot be asked at present.
    pub(super) gone: Option<GoneReason>,
    /// When the oldest question went out that nobody has answered yet.
    pub(super) asked_at: Option<Instant>,
    pub(super) heard_at: Option<Instant>,
    pub(super) counts: BoardCounts,
    pub(super) polls: u64,
    pub(super) closed: bool,
    pub(super) youngest: Option<Instant>,
    /// Somebody will come soon: since when that is known, until the next question.
    pub(super) expected: Option<Instant>,
    /// Of the last waiter that came.
    number: u64,
    queues: [BTreeMap<(Lsn, u64), Waker>; 3],
}

impl BoardState {
    /// Judges what a caller that began at `began` waits for, and the mark that it was judged on.
    pub(super) fn judge(
        &self,
        target: &WaitTarget,
        began: Instant,
        limits: &BoardLimits,
    ) -> Option<(Judgement, ReplayMark)> {
        let now = Instant::now();
        let mark = self.mark.filter(|mark| answers(mark, began, now, limits.fresh_for))?;
        let known = target.branch.and_then(|name| self.branches.get(name.epoch));
        Some((judge(target, &mark, known), mark))
    }

    pub(super) fn waiters(&self) -> usize {
        self.queues.iter().map(BTreeMap::len).sum()
    }

    /// Puts a waiter into a queue.
    pub(super) fn register(&mut self, queue: WaitQueue, target: Lsn, waker: Waker) -> BoardEntry {
        self.number += 1;
        let entry = BoardEntry::new(queue, self.number);
        self.youngest = Some(Instant::now());
        self.queues[queue as usize].insert((target, entry.key()), waker);
        metrics::waiters_came();
        entry
    }

    /// The waker of an entry that nobody has taken.
    pub(super) fn waker(&mut self, target: Lsn, entry: BoardEntry) -> Option<&mut Waker> {
        self.queues[entry.queue() as usize].get_mut(&(target, entry.key()))
    }

    /// Takes a waiter's entry out, where it still is.
    pub(super) fn leave(&mut self, target: Lsn, entry: BoardEntry) {
        let queue = &mut self.queues[entry.queue() as usize];
        if queue.remove(&(target, entry.key())).is_some() {
            metrics::waiters_left(1);
        }
    }

    /// Notes an answer of the server; what it changes for those who wait. `None` for a late word of a
    /// start before the known one.
    pub(super) fn heard(&mut self, report: ServerReport, forget: Duration) -> Option<Advance> {
        let heard_at = Instant::now();
        let ServerReport { replayed, timeline, server_start_us, in_recovery, .. } = report;
        let known = self.mark;
        if known.is_some_and(|mark| mark.is_outdated(server_start_us, heard_at, forget)) {
            return None;
        }
        self.counts.answers = self.counts.answers.wrapping_add(1);
        (self.gone, self.asked_at, self.heard_at) = (None, None, Some(heard_at));
        if known.is_some_and(|mark| mark.server_start_us != server_start_us) {
            self.branches.forget();
        }
        if !in_recovery {
            self.counts.refusals = self.counts.refusals.wrapping_add(1);
        }
        self.mark = replayed.map(|lsn| {
            let heard = ReplayMark { server_start_us, lsn, timeline, in_recovery, heard_at };
            ReplayMark::merge(known, heard, forget)
        });
        let timeline = |mark: Option<ReplayMark>| mark.and_then(|mark| mark.timeline);
        let reached = self.mark.map(|mark| mark.lsn);
        Some(Advance { reached, timeline_changed: timeline(known) != timeline(self.mark) })
    }

    /// The server was lost: what was seen of it counts no longer.
    pub(super) fn lost(&mut self, reason: GoneReason) {
        (self.mark, self.asked_at) = (None, None);
        self.branches.forget();
        self.gone = Some(reason);
    }

    /// Removes up to a chunk of a queue's waiters at or below `up_to`.
    pub(super) fn take(&mut self, queue: WaitQueue, up_to: Lsn) -> Vec<Waker> {
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
    pub(super) fn span(&self) -> Option<(Lsn, Lsn)> {
        let keys = || self.queues.iter().filter(|queue| !queue.is_empty());
        let lowest = keys().filter_map(|queue| queue.first_key_value()).map(|(key, _)| key.0).min();
        let highest = keys().filter_map(|queue| queue.last_key_value()).map(|(key, _)| key.0).max();
        lowest.zip(highest)
    }

    /// What is known of the server, for a caller that is told why not.
    pub(super) fn report(
        &self,
        target: &WaitTarget,
        began: Instant,
        before: BoardCounts,
        limits: &BoardLimits,
    ) -> Box<WaitReport> {
        let now = Instant::now();
        let since = |then: Instant| now.saturating_duration_since(then);
        let reached = self.mark.map(|mark| mark.lsn);
        let doubt = match self.judge(target, began, limits) {
            Some((Judgement::InDoubt(doubt), _)) => Some(doubt),
            Some(_) | None => None,
        };
        Box::new(WaitReport {
            reached,
            missing_bytes: reached.map(|reached| target.lsn.bytes_since(reached)),
            waited: since(began),
            answers: u64::from(self.counts.answers.wrapping_sub(before.answers)),
            heard_ago: self.heard_at.map(since),
            timeline: self.mark.and_then(|mark| mark.timeline),
            doubt,
            unreadable: target.branch.and_then(|_| self.branches.unreadable()),
        })
    }

    /// Why a wait that ran out of time was in vain.
    pub(super) fn missed(
        &self,
        target: &WaitTarget,
        began: Instant,
        before: BoardCounts,
        limits: &BoardLimits,
    ) -> WaitError {
        let seen = self.report(target, began, before, limits);
        let silent = |then: Instant| Instant::now().saturating_duration_since(then);
        let unanswered = self.asked_at.map(silent).filter(|for_| *for_ > limits.answer_within);
        let unanswered = unanswered.map(|silent| GoneReason::Unanswered { silent });
        let target = target.lsn;
        match self.gone.clone().or(unanswered) {
            Some(reason) => WaitError::ReplicaGone { target, seen, reason },
            None => WaitError::TimedOut { target, seen },
        }
    }
}
