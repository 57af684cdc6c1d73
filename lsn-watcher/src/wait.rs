//! One caller's wait: a future that puts itself on the board and takes itself off again.
//!
//! pending → reached | not a replica | too many waiters | closed. It has no deadline of its own:
//! the handle puts one around it, and dropping it at any moment leaves nothing behind.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};

use farwrite_schemas::Lsn;
use tokio::time::Instant;

use crate::{Reached, WaitError, board::Board, metrics};

#[derive(Debug)]
pub(crate) struct Wait<'a> {
    board: &'a Board,
    target: Lsn,
    began: Instant,
    refusals_before: u64,
    /// The key of its entry; the entry itself may have been taken in order to wake it.
    id: Option<u64>,
}

impl<'a> Wait<'a> {
    /// A wait for `target`, and how many answers were heard before it.
    pub(crate) fn new(board: &'a Board, target: Lsn) -> (Self, u64) {
        let state = board.lock();
        let refusals_before = state.refusals;
        let began = Instant::now();
        (Self { board, target, began, refusals_before, id: None }, state.answers)
    }

    pub(crate) fn began(&self) -> Instant {
        self.began
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
        if state.refusals > self.refusals_before {
            return Poll::Ready(Err(WaitError::NotAReplica));
        }
        if let Some(mark) = state.visible(self.target, self.began, &board.limits) {
            let waited = self.began.elapsed();
            let server_start_us = mark.server_start_us;
            return Poll::Ready(Ok(Reached { lsn: mark.lsn, server_start_us, waited }));
        }
        let entry = self.id.and_then(|id| state.waiters.get_mut(&(self.target, id)));
        if let Some(waker) = entry {
            waker.clone_from(context.waker());
            return Poll::Pending;
        }
        // Who was woken by a mark that was forgotten again before it could look comes back, and
        // is not counted against the limit a second time.
        let limit = board.limits.max_waiters;
        if self.id.is_none() && state.waiters.len() >= limit {
            return Poll::Ready(Err(WaitError::TooManyWaiters { limit }));
        }
        self.id = Some(state.register(self.target, context.waker().clone()));
        drop(state);
        board.announce();
        Poll::Pending
    }
}

impl Drop for Wait<'_> {
    fn drop(&mut self) {
        let Some(id) = self.id else { return };
        if self.board.lock().waiters.remove(&(self.target, id)).is_some() {
            metrics::waiters_left(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, time::Duration};

    use super::*;
    use crate::{board::Limits, poll::Audience, replica::Sight};

    const LIMITS: Limits = Limits {
        max_waiters: 10_000,
        fresh_for: Duration::from_millis(10),
        forget_after: Duration::from_secs(1),
        answer_within: Duration::from_millis(100),
    };

    fn sight(server_start_us: i64, lsn: u64) -> Sight {
        Sight { replayed: Some(Lsn(lsn)), server_start_us, in_recovery: true }
    }

    fn wait(board: &Board, lsn: u64) -> Wait<'_> {
        Wait::new(board, Lsn(lsn)).0
    }

    /// Polls once, as an executor would.
    fn poll(wait: &mut Wait<'_>) -> Poll<Result<Reached, WaitError>> {
        Pin::new(wait).poll(&mut Context::from_waker(std::task::Waker::noop()))
    }

    #[tokio::test(start_paused = true)]
    async fn an_advance_wakes_only_those_whom_it_reaches() {
        let board = Board::new(LIMITS);
        let mut waits: Vec<_> = (1..=10).map(|lsn| wait(&board, lsn * 10)).collect();
        waits.iter_mut().for_each(|wait| assert!(poll(wait).is_pending()));
        board.saw(sight(1, 55)).await;
        assert_eq!(board.waiters(), 5);
        for (index, wait) in waits.iter_mut().enumerate() {
            assert_eq!(poll(wait).is_ready(), index < 5, "waiter {index}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_dropped_wait_leaves_nothing() {
        let board = Board::new(LIMITS);
        let mut one = wait(&board, 10);
        let mut other = wait(&board, 10);
        assert!(poll(&mut one).is_pending() && poll(&mut other).is_pending());
        assert!(poll(&mut one).is_pending(), "polled again, it keeps its one entry");
        assert_eq!(board.waiters(), 2);
        drop(one);
        assert_eq!(board.waiters(), 1);
        board.saw(sight(1, 10)).await;
        drop(other);
        assert_eq!((board.waiters(), board.demand()), (0, None));
    }

    #[tokio::test(start_paused = true)]
    async fn a_mark_is_forgotten_on_a_new_start_of_the_server() {
        let board = Board::new(LIMITS);
        board.saw(sight(1, 100)).await;
        board.saw(sight(2, 60)).await;
        assert_eq!(board.reached(), Some(Lsn(60)));
        assert!(poll(&mut wait(&board, 100)).is_pending());
        assert!(poll(&mut wait(&board, 60)).is_ready());
        // A word of the start before, which was on its way when the server crashed.
        board.saw(sight(1, 100)).await;
        assert_eq!(board.reached(), Some(Lsn(60)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_waiter_whose_mark_is_lost_before_it_could_look_waits_on() {
        let board = Board::new(LIMITS);
        let mut wait = wait(&board, 100);
        assert!(poll(&mut wait).is_pending());
        board.saw(sight(1, 100)).await;
        board.lost(crate::GoneReason::ToldByWatcher).await;
        assert!(poll(&mut wait).is_pending());
        assert_eq!(board.waiters(), 1);
        board.saw(sight(2, 100)).await;
        assert!(poll(&mut wait).is_ready());
    }

    #[tokio::test(start_paused = true)]
    async fn a_stale_mark_answers_nobody_but_a_late_waiter_is_not_late_for_its_own_mark() {
        let board = Board::new(LIMITS);
        let mut early = wait(&board, 100);
        assert!(poll(&mut early).is_pending());
        board.saw(sight(1, 100)).await;
        tokio::time::advance(Duration::from_secs(60)).await;
        assert!(poll(&mut early).is_ready(), "heard while it waited");
        assert!(poll(&mut wait(&board, 100)).is_pending(), "asks anew");
    }

    #[tokio::test(start_paused = true)]
    async fn not_a_replica_is_told_at_once_to_those_who_wait_and_not_to_those_who_come_later() {
        let board = Board::new(LIMITS);
        let mut early = wait(&board, 100);
        assert!(poll(&mut early).is_pending());
        board.saw(Sight { replayed: Some(Lsn(200)), server_start_us: 1, in_recovery: false }).await;
        assert!(matches!(poll(&mut early), Poll::Ready(Err(WaitError::NotAReplica))));
        assert_eq!(board.reached(), None, "its replay position stands still: it is no mark");
        assert!(poll(&mut wait(&board, 100)).is_pending(), "the server is asked anew");
    }

    #[tokio::test(start_paused = true)]
    async fn waiters_are_bounded_and_end_when_the_watcher_does() {
        let board = Board::new(Limits { max_waiters: 1, ..LIMITS });
        let mut first = wait(&board, 1);
        assert!(poll(&mut first).is_pending());
        let refused = poll(&mut wait(&board, 1));
        assert!(matches!(refused, Poll::Ready(Err(WaitError::TooManyWaiters { limit: 1 }))));
        board.close();
        assert!(matches!(poll(&mut first), Poll::Ready(Err(WaitError::Closed))));
        assert!(matches!(poll(&mut wait(&board, 1)), Poll::Ready(Err(WaitError::Closed))));
    }

    #[tokio::test(start_paused = true)]
    async fn of_10_000_waiters_half_are_cancelled_and_one_advance_wakes_the_others() {
        let board = Arc::new(Board::new(LIMITS));
        let mut tasks = Vec::new();
        for lsn in 1..=10_000 {
            let board = Arc::clone(&board);
            tasks.push(tokio::spawn(async move { wait(&board, lsn).await }));
        }
        while board.waiters() < 10_000 {
            tokio::task::yield_now().await;
        }
        let (cancelled, kept): (Vec<_>, Vec<_>) =
            tasks.into_iter().enumerate().partition(|(index, _)| index % 2 == 0);
        for (_, task) in cancelled {
            task.abort();
            assert!(task.await.is_err_and(|error| error.is_cancelled()));
        }
        assert_eq!(board.waiters(), 5_000);
        board.saw(sight(1, 10_000)).await;
        for (_, task) in kept {
            assert_eq!(task.await.unwrap().unwrap().lsn, Lsn(10_000));
        }
        assert_eq!(board.waiters(), 0);
    }

    /// Looking and registering race with the advance on real threads; a wake-up lost in between
    /// would leave a wait pending for ever, since nothing advances twice.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn no_wake_up_is_lost_between_looking_and_registering() {
        // A starved machine may run the waiter long after the advance: here, where nobody asks the
        // replica anew, the mark must not grow stale meanwhile.
        let limits = Limits { fresh_for: Duration::from_secs(3_600), ..LIMITS };
        for round in 1..=20_000 {
            let board = Arc::new(Board::new(limits));
            let waiting = tokio::spawn({
                let board = Arc::clone(&board);
                async move { wait(&board, round).await }
            });
            board.saw(sight(1, round)).await;
            waiting.await.unwrap().unwrap();
            assert_eq!(board.waiters(), 0);
        }
    }
}
