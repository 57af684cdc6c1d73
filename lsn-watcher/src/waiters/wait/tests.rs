//! Waits on a board that a test feeds by hand, most of them on paused time.

use std::{sync::Arc, time::Duration};

use farwrite_schemas::{Branch, BranchKnown, Epoch, Timeline};
use sqlx::types::Uuid;

use super::*;
use crate::{
    answer::GoneReason,
    poll::{Audience, HistoryAnswer, ServerReport},
    waiters::BoardLimits,
};

const LIMITS: BoardLimits = BoardLimits {
    max_waiters: 10_000,
    fresh_for: Duration::from_millis(10),
    forget_after: Duration::from_secs(1),
    answer_within: Duration::from_millis(100),
};

fn sight(server_start_us: i64, lsn: u64) -> ServerReport {
    let timeline = Some(Timeline(1));
    let (replayed, identity) = (Some(Lsn(lsn)), None);
    ServerReport { replayed, server_start_us, in_recovery: true, timeline, identity }
}

fn wait(board: &Board, lsn: u64) -> Wait<'_> {
    Wait::new(board, Lsn(lsn).into())
}

const EPOCH: Epoch = Epoch(Uuid::from_u128(7));

/// A wait for a position of the epoch on timeline 1.
fn wait_on_branch(board: &Board, lsn: u64) -> Wait<'_> {
    let branch = Some(BranchName { epoch: EPOCH, timeline: Timeline(1) });
    Wait::new(board, WaitTarget { lsn: Lsn(lsn), branch })
}

fn told(ends: Option<u64>) -> HistoryAnswer {
    let known = BranchKnown::Held { timeline: Timeline(1), ends: ends.map(Lsn), proven: None };
    HistoryAnswer { branches: vec![Branch { epoch: EPOCH, known }], unreadable: None }
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
    board.lost(GoneReason::ToldByWatcher).await;
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
    board.saw(ServerReport { in_recovery: false, ..sight(1, 200) }).await;
    assert!(matches!(poll(&mut early), Poll::Ready(Err(WaitError::NotAReplica))));
    assert!(poll(&mut wait(&board, 100)).is_pending(), "the server is asked anew");
}

#[tokio::test(start_paused = true)]
async fn who_waits_on_a_branch_is_told_once_the_branch_is_known() {
    let board = Board::new(LIMITS);
    let mut wait = wait_on_branch(&board, 100);
    assert!(poll(&mut wait).is_pending());
    assert_eq!(board.epochs(), [EPOCH], "asked before it is needed");
    board.saw(sight(1, 100)).await;
    assert!(poll(&mut wait).is_pending(), "reached, and in doubt");
    assert_eq!(board.waiters(), 1);
    board.told(told(None)).await;
    assert!(poll(&mut wait).is_ready());
    assert!(poll(&mut wait_on_branch(&board, 100)).is_ready(), "known by now");
    assert!(board.epochs().is_empty());
    drop(wait);
    assert_eq!((board.waiters(), board.demand()), (0, None));
}

#[tokio::test(start_paused = true)]
async fn a_change_of_the_timeline_brings_all_into_doubt_and_its_end_decides() {
    let board = Board::new(LIMITS);
    board.saw(sight(1, 10)).await;
    board.told(told(None)).await;
    let (mut lost, mut kept) = (wait_on_branch(&board, 100), wait_on_branch(&board, 40));
    assert!(poll(&mut lost).is_pending() && poll(&mut kept).is_pending());
    let turned = |lsn| ServerReport { timeline: Some(Timeline(2)), ..sight(1, lsn) };
    board.saw(turned(30)).await;
    assert!(poll(&mut lost).is_pending() && poll(&mut kept).is_pending());
    board.saw(turned(300)).await;
    assert!(poll(&mut lost).is_pending() && poll(&mut kept).is_pending(), "never by position");
    assert_eq!(board.epochs(), [EPOCH]);
    board.told(told(None)).await;
    assert_eq!(board.epochs(), [EPOCH], "no news: asked again");
    board.told(told(Some(50))).await;
    assert!(matches!(poll(&mut lost), Poll::Ready(Err(WaitError::Superseded { .. }))));
    assert!(matches!(poll(&mut kept), Poll::Ready(Ok(_))));
}

#[tokio::test(start_paused = true)]
async fn what_a_server_told_of_its_branches_is_forgotten_with_it() {
    let board = Board::new(LIMITS);
    board.saw(sight(1, 100)).await;
    board.told(told(None)).await;
    assert!(poll(&mut wait_on_branch(&board, 100)).is_ready());
    board.saw(sight(2, 100)).await;
    assert!(poll(&mut wait_on_branch(&board, 100)).is_pending(), "another start");
    board.told(told(None)).await;
    board.lost(GoneReason::ToldByWatcher).await;
    board.saw(sight(2, 100)).await;
    assert!(poll(&mut wait_on_branch(&board, 100)).is_pending(), "another connection");
}

#[tokio::test(start_paused = true)]
async fn a_primary_shows_its_own_commits() {
    let board = Board::new(LIMITS);
    let mut wait = wait_on_branch(&board, 100);
    assert!(poll(&mut wait).is_pending());
    board.saw(ServerReport { in_recovery: false, ..sight(1, 100) }).await;
    board.told(told(None)).await;
    let Poll::Ready(Ok(reached)) = poll(&mut wait) else { panic!("not visible") };
    assert!(!reached.in_recovery);
}

#[tokio::test(start_paused = true)]
async fn waiters_are_bounded_and_end_when_the_watcher_does() {
    let board = Board::new(BoardLimits { max_waiters: 1, ..LIMITS });
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
    let limits = BoardLimits { fresh_for: Duration::from_secs(3_600), ..LIMITS };
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
