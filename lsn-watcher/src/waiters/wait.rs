//! One caller's wait: a future that puts itself on the board and takes itself off again.
//!
//! pending → reached | not a replica | too many waiters | closed. It has no deadline of its own:
//! a [`TimedWait`](super::TimedWait) puts one around it, and dropping it at any moment leaves nothing behind.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};

use farwrite_schemas::Lsn;
use tokio::time::Instant;

use super::{
    board::Board,
    entry::{BoardEntry, WaitQueue},
    state::BoardCounts,
};
use crate::{
    answer::{Reached, WaitError},
    visible::Judgement,
    wait_target::{BranchName, WaitTarget},
};

/// A hundred thousand of these may wait at once, so each is small: what it waits for, since when,
/// and where its entry is.
#[derive(Debug)]
pub(crate) struct Wait<'a> {
    board: &'a Board,
    lsn: Lsn,
    /// Apart, because a bare position has none.
    branch: Option<Box<BranchName>>,
    /// Since the board was made, in nanoseconds.
    began_ns: u64,
    /// The board's counts when it began.
    before: BoardCounts,
    /// Where its entry is; the entry itself may have been taken in order to wake it.
    entry: Option<BoardEntry>,
}

impl<'a> Wait<'a> {
    /// A wait for `target`.
    pub(crate) fn new(board: &'a Board, target: WaitTarget) -> Self {
        let WaitTarget { lsn, branch } = target;
        let before = board.lock().counts;
        let began_ns = board.now_ns();
        Self { board, lsn, branch: branch.map(Box::new), began_ns, before, entry: None }
    }

    fn target(&self) -> WaitTarget {
        WaitTarget { lsn: self.lsn, branch: self.branch.as_deref().copied() }
    }

    /// When it began.
    pub(crate) fn began(&self) -> Instant {
        self.board.at_ns(self.began_ns)
    }

    /// Why it was in vain, when its time is up.
    pub(crate) fn missed(&self) -> WaitError {
        let board = self.board;
        board.lock().missed(&self.target(), self.began(), self.before, &board.limits)
    }
}

impl Future for Wait<'_> {
    type Output = Result<Reached, WaitError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let board = self.board;
        // Looking and registering happen under one lock: no advance fits in between.
        let mut state = board.lock();
        if state.closed {
            return Poll::Ready(Err(WaitError::Closed));
        }
        let (target, began) = (self.target(), self.began());
        if target.branch.is_none() && state.counts.refusals != self.before.refusals {
            return Poll::Ready(Err(WaitError::NotAReplica));
        }
        let judged = state.judge(&target, began, &board.limits);
        let seen = || state.report(&target, began, self.before, &board.limits);
        let queue = match judged {
            Some((Judgement::Visible, mark)) => {
                let waited = began.elapsed();
                let (server_start_us, in_recovery) = (mark.server_start_us, mark.in_recovery);
                let reached = Reached { lsn: mark.lsn, in_recovery, server_start_us, waited };
                return Poll::Ready(Ok(reached));
            }
            Some((Judgement::Lost, _)) => {
                let (target, seen) = (target.lsn, seen());
                return Poll::Ready(Err(WaitError::Superseded { target, seen }));
            }
            Some((Judgement::Implausible, _)) => {
                let (target, seen) = (target.lsn, seen());
                return Poll::Ready(Err(WaitError::Implausible { target, seen }));
            }
            Some((Judgement::InDoubt(_), _)) => WaitQueue::Doubt,
            Some((Judgement::NotYet | Judgement::NotAReplica, _)) | None => match target.branch {
                Some(_) => WaitQueue::Branch,
                None => WaitQueue::Bare,
            },
        };
        // What is not known of its branch is asked before it is needed.
        if let Some(name) = target.branch
            && (queue == WaitQueue::Doubt || state.branches.get(name.epoch).is_none())
        {
            state.branches.want(name.epoch);
        }
        if let Some(entry) = self.entry {
            if entry.queue() == queue
                && let Some(waker) = state.waker(target.lsn, entry)
            {
                waker.clone_from(context.waker());
                return Poll::Pending;
            }
            state.leave(target.lsn, entry);
        }
        // A caller that was woken by a mark, which was forgotten before the caller could look, comes
        // back. It is not counted against the limit a second time.
        let limit = board.limits.max_waiters;
        if self.entry.is_none() && state.waiters() >= limit {
            return Poll::Ready(Err(WaitError::TooManyWaiters { limit }));
        }
        let entry = state.register(queue, target.lsn, context.waker().clone());
        drop(state);
        self.entry = Some(entry);
        board.announce();
        Poll::Pending
    }
}

impl Drop for Wait<'_> {
    fn drop(&mut self) {
        if let Some(entry) = self.entry {
            self.board.lock().leave(self.lsn, entry);
        }
    }
}

#[cfg(test)]
mod tests;
