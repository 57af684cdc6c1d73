//! The loop with a server that answers from a script, on paused time.

use std::{
    collections::VecDeque,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use farwrite_internal::Alarm;
use farwrite_schemas::{Epoch, Lsn};

use super::*;
use crate::{
    answer::WaitError,
    poll::HistoryAnswer,
    waiters::{Board, BoardLimits, TimedWait},
};

/// A server that answers from a script, and with its last line for ever; it notes when.
#[derive(Clone, Debug)]
struct Scripted(Arc<Mutex<Script>>);

#[derive(Debug)]
struct Script {
    lines: VecDeque<Result<ServerReport, GoneReason>>,
    asked_ms: Vec<u128>,
    began: Instant,
}

impl Scripted {
    fn new(lines: impl IntoIterator<Item = Result<ServerReport, GoneReason>>) -> Self {
        let (asked_ms, began) = (Vec::new(), Instant::now());
        let lines = lines.into_iter().collect();
        Self(Arc::new(Mutex::new(Script { lines, asked_ms, began })))
    }

    fn asked_ms(&self) -> Vec<u128> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).asked_ms.clone()
    }
}

impl PolledServer for Scripted {
    async fn ask(&mut self) -> Result<ServerReport, GoneReason> {
        let mut script = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let asked_ms = script.began.elapsed().as_millis();
        script.asked_ms.push(asked_ms);
        let next = if script.lines.len() > 1 {
            script.lines.pop_front()
        } else {
            script.lines.front().cloned()
        };
        next.unwrap_or(Err(GoneReason::NatsDown))
    }

    async fn history(&mut self, _epochs: &[Epoch], _at: Lsn) -> Result<HistoryAnswer, GoneReason> {
        Ok(HistoryAnswer::default())
    }
}

fn at(lsn: u64) -> Result<ServerReport, GoneReason> {
    let replayed = Some(Lsn(lsn));
    let identity = None;
    Ok(ServerReport { replayed, timeline: None, server_start_us: 1, in_recovery: true, identity })
}

fn away() -> Result<ServerReport, GoneReason> {
    Err(GoneReason::Hung { limit: Duration::from_millis(500) })
}

struct LoopStage {
    board: Arc<Board>,
    server: Scripted,
    _loop: tokio::task::JoinHandle<Infallible>,
}

/// Starts the loop; it has asked once when this returns.
async fn stage(lines: impl IntoIterator<Item = Result<ServerReport, GoneReason>>) -> LoopStage {
    let board = Arc::new(Board::new(BoardLimits {
        max_waiters: 10,
        fresh_for: Duration::from_millis(10),
        forget_after: Duration::from_secs(1),
        answer_within: Duration::from_millis(100),
    }));
    let server = Scripted::new(lines);
    let polls = PollLoop::new(
        server.clone(),
        Arc::clone(&board),
        PollIntervals::default(),
        Alarm::of_runtime(),
    );
    let running = tokio::spawn(polls.run());
    tokio::task::yield_now().await;
    LoopStage { board, server, _loop: running }
}

impl LoopStage {
    async fn wait(&self, lsn: u64, ms: u64) -> Result<crate::answer::Reached, WaitError> {
        let target = Lsn(lsn).into();
        TimedWait::new(&self.board, target, Duration::from_millis(ms)).await
    }
}

#[tokio::test(start_paused = true)]
async fn nobody_waits_and_nobody_asks() {
    let stage = stage([at(5)]).await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(stage.server.asked_ms(), [0], "once, at the start");
    stage.wait(5, 100).await.unwrap();
    assert_eq!(stage.server.asked_ms(), [0, 60_000], "at once, for a mark that was stale");
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(stage.server.asked_ms().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn who_is_expected_finds_a_server_that_is_awake() {
    let stage = stage([at(5)]).await;
    let sleep = |ms| tokio::time::sleep(Duration::from_millis(ms));
    sleep(1_000).await;
    stage.board.expect();
    sleep(5).await;
    assert_eq!(stage.server.asked_ms(), [0, 1_000], "once");
    stage.board.expect();
    sleep(1_000).await;
    assert_eq!(stage.server.asked_ms(), [0, 1_000], "it is awake");
    stage.board.expect();
    stage.wait(5, 100).await.unwrap();
    sleep(1_000).await;
    assert_eq!(stage.server.asked_ms(), [0, 1_000, 2_005], "the caller finds that answer");
}

#[tokio::test(start_paused = true)]
async fn asks_eagerly_at_first_and_patiently_when_nothing_moves() {
    let stage = stage([at(5)]).await;
    tokio::time::sleep(Duration::from_secs(10)).await;
    let error = stage.wait(6, 2_000).await.unwrap_err();
    let asked: Vec<_> = stage.server.asked_ms().into_iter().skip(1).map(|ms| ms - 10_000).collect();
    assert_eq!(asked[..5], [0, 1, 2, 3, 4]);
    assert_eq!(asked.iter().filter(|ms| **ms < 50).count(), 50);
    assert_eq!(asked.iter().filter(|ms| (50..500).contains(*ms)).count(), 450 / 5);
    let patient = asked.iter().filter(|ms| **ms >= 500).count();
    assert!((74..=76).contains(&patient), "{patient} polls in 1.5 s");
    let WaitError::TimedOut { seen, .. } = error else { panic!("{error}") };
    assert_eq!((seen.reached, seen.missing_bytes), (Some(Lsn(5)), Some(1)));
    assert_eq!(seen.answers, asked.len() as u64);
}

#[tokio::test(start_paused = true)]
async fn a_wait_survives_a_server_that_is_away_and_comes_back_behind() {
    let stage = stage([at(5), at(5), away(), away(), away(), at(3), at(4), at(8)]).await;
    let reached = stage.wait(8, 10_000).await.unwrap();
    assert_eq!(reached.lsn, Lsn(8));
    assert!(reached.waited >= Duration::from_millis(25 + 50 + 100), "it backed off");
}

#[tokio::test(start_paused = true)]
async fn a_server_that_stays_away_is_told_apart_from_a_slow_one() {
    let stage = stage([at(5), away()]).await;
    let error = stage.wait(8, 5_000).await.unwrap_err();
    let WaitError::ReplicaGone { reason: GoneReason::Hung { .. }, seen, .. } = error else {
        panic!("{error}")
    };
    assert_eq!(seen.reached, None, "what was seen on the lost connection does not count");
    let asked = stage.server.asked_ms().len();
    assert!((7..=16).contains(&asked), "{asked} attempts in 5 s");
    // Impatient callers in a row do not make it knock more often.
    for _ in 0..50 {
        stage.wait(8, 20).await.unwrap_err();
    }
    assert!(stage.server.asked_ms().len() <= asked + 3);
}

#[tokio::test(start_paused = true)]
async fn a_server_that_is_no_replica_is_told_at_once() {
    let promoted = at(9).map(|sight| ServerReport { in_recovery: false, ..sight });
    let stage = stage([at(5), at(5), promoted]).await;
    let began = Instant::now();
    let error = stage.wait(8, 60_000).await.unwrap_err();
    assert!(matches!(error, WaitError::NotAReplica), "{error}");
    assert!(began.elapsed() < Duration::from_millis(10));
}
