//! The poll loop: asks a server while its audience wants to know, and tells it what was seen.
//!
//! ```text
//! idle     => polling     somebody waits
//! polling  => polling     after the pace's interval, or at once for a new caller; or, where the
//!                         server waits by itself, when it has replayed what comes next
//! polling  => backing off the server could not be asked
//! backing off => polling  the pause is over
//! any      => idle        nobody waits any more
//! ```
//!
//! It never ends by itself; its owner drops it. What is done with an answer is the audience's
//! affair: the board of an app wakes waiters, a region's watcher broadcasts.

use std::{convert::Infallible, future::Future, sync::Arc, time::Duration};

use farwrite_internal::{Alarm, Backoff};
use farwrite_schemas::{Epoch, Lsn};
use tokio::time::Instant;

use crate::{
    GoneReason, Pace,
    branches::Told,
    metrics,
    pace::Allowance,
    replica::{Server, Sight},
};

/// The first pause after a failure: a server that is restarting accepts connections again within 50
/// to 500 ms.
const PAUSE_FIRST: Duration = Duration::from_millis(50);
/// The longest pause: it bounds how late callers notice that the replica is back.
const PAUSE_LONGEST: Duration = Duration::from_secs(1);

/// That somebody waits for something that was not seen yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Demand {
    /// When the youngest caller came.
    pub(crate) youngest: Instant,
    /// Somebody wants an answer now, whatever the pace.
    pub(crate) at_once: bool,
}

/// Whoever wants to know how far the server has come.
pub(crate) trait Audience: Send + Sync {
    /// Whether anybody waits.
    fn demand(&self) -> Option<Demand>;
    /// Resolves when the demand may have changed; a change while nobody listens is kept.
    fn demanded(&self) -> impl Future<Output = ()> + Send;
    /// The lowest position above what was seen that would be news, if it is for a position alone
    /// that somebody waits.
    fn next(&self) -> Option<Lsn>;
    /// A question is about to be asked.
    fn asking(&self);
    /// The server answered.
    fn saw(&self, sight: Sight) -> impl Future<Output = ()> + Send;
    /// Epochs whose branch somebody needs to know.
    fn epochs(&self) -> Vec<Epoch>;
    /// What the server's history says of them, asked after the last answer.
    fn told(&self, told: Told) -> impl Future<Output = ()> + Send;
    /// The server could not be asked: what had been seen on its connection no longer counts.
    fn lost(&self, reason: GoneReason) -> impl Future<Output = ()> + Send;
}

pub(crate) struct PollLoop<S, A> {
    server: S,
    audience: Arc<A>,
    pace: Pace,
    allowance: Allowance,
    alarm: Alarm,
    backoff: Backoff,
    /// Before this the server is left alone.
    not_before: Instant,
    asked_at: Instant,
    moved_at: Instant,
    last: Option<Sight>,
}

impl<S: Server, A: Audience> PollLoop<S, A> {
    /// To be made within a runtime.
    pub(crate) fn new(server: S, audience: Arc<A>, pace: Pace, alarm: Alarm) -> Self {
        let now = Instant::now();
        let (not_before, asked_at, moved_at) = (now, now, now);
        let (allowance, backoff, last) =
            (Allowance::full(now), Backoff::new(PAUSE_FIRST, PAUSE_LONGEST), None);
        Self {
            server,
            audience,
            pace,
            allowance,
            alarm,
            backoff,
            not_before,
            asked_at,
            moved_at,
            last,
        }
    }

    pub(crate) async fn run(mut self) -> Infallible {
        // Once at the start, so that a wrong address is seen in the log and the first caller finds
        // a connection. A replica that is not there yet is no error.
        self.poll().await;
        loop {
            let Some(demand) = self.audience.demand() else {
                self.audience.demanded().await;
                continue;
            };
            if self.is_answered(demand)
                && let Some(next) = self.audience.next()
                && self.last.is_some_and(|sight| sight.in_recovery)
                && self.server.can_await()
            {
                self.await_replay(next).await;
                continue;
            }
            let due = self.due(demand);
            // A poll that is due comes before a new caller's arrival, which can only hasten it:
            // otherwise a stream of arrivals would put it off for ever.
            tokio::select! {
                biased;
                () = self.alarm.at(due) => self.poll().await,
                () = self.audience.demanded() => {}
            }
        }
    }

    /// Whether the server was asked since the last caller came.
    fn is_answered(&self, demand: Demand) -> bool {
        !demand.at_once && demand.youngest <= self.asked_at
    }

    /// Leaves the waiting to the server, and then asks it, as often as is allowed. Callers that come
    /// meanwhile are not heard, so it is short.
    async fn await_replay(&mut self, next: Lsn) {
        if let Err(reason) = self.server.await_replay(next, self.pace.calm).await {
            return self.failed(reason).await;
        }
        let due = self.asked_at + self.pace.eager / 2;
        self.alarm.at(due.max(self.allowance.next(&self.pace))).await;
        self.poll().await;
    }

    /// When to ask next. However many come, there are no more questions than are allowed.
    fn due(&self, demand: Demand) -> Instant {
        let now = Instant::now();
        let since = |then: Instant| now.saturating_duration_since(then);
        let interval = if self.is_answered(demand) {
            self.pace.interval(since(demand.youngest), since(self.moved_at))
        } else {
            // Somebody came after the last question.
            self.pace.quick
        };
        (self.asked_at + interval).max(self.allowance.next(&self.pace)).max(self.not_before)
    }

    async fn poll(&mut self) {
        self.asked_at = Instant::now();
        self.allowance.take(self.asked_at, &self.pace);
        self.audience.asking();
        metrics::polled();
        let asked = match self.server.ask().await {
            Ok(sight) => {
                self.seen(sight).await;
                self.ask_history(sight).await
            }
            Err(reason) => Err(reason),
        };
        if let Err(reason) = asked {
            self.failed(reason).await;
        }
    }

    /// Asks about the branches that somebody waits on, which is once for each in the life of a
    /// connection unless there is doubt.
    async fn ask_history(&mut self, sight: Sight) -> Result<(), GoneReason> {
        let epochs = self.audience.epochs();
        if let Some(at) = sight.replayed
            && !epochs.is_empty()
        {
            metrics::asked_history();
            let told = self.server.history(&epochs, at).await?;
            self.audience.told(told).await;
        }
        Ok(())
    }

    async fn seen(&mut self, sight: Sight) {
        if self.backoff.is_failing() {
            tracing::info!("the replica answers again");
            metrics::reconnected();
        }
        self.backoff.reset();
        let before = self.last.replace(sight);
        if before != Some(sight) {
            self.moved_at = Instant::now();
        }
        match before.map(|before| before.in_recovery) {
            Some(true) if !sight.in_recovery => tracing::warn!("the replica was promoted"),
            None if !sight.in_recovery => {
                tracing::info!("the server is a primary: it shows its own commits");
            }
            Some(_) | None => {}
        }
        self.audience.saw(sight).await;
    }

    async fn failed(&mut self, reason: GoneReason) {
        // Logged once a failure, not once an attempt.
        if self.backoff.is_failing() {
            tracing::debug!(%reason, "the replica still cannot be asked");
        } else {
            tracing::warn!(%reason, "the replica cannot be asked; trying again while callers wait");
        }
        self.not_before = Instant::now() + self.backoff.next_pause();
        self.last = None;
        self.audience.lost(reason).await;
    }
}

#[cfg(test)]
mod tests {
    use std::{
        collections::VecDeque,
        sync::{Mutex, PoisonError},
        time::Duration,
    };

    use farwrite_schemas::Lsn;

    use super::*;
    use crate::{
        WaitError,
        board::{Board, Limits},
        wait::Wait,
    };

    /// A server that answers from a script, and with its last line for ever; it notes when.
    #[derive(Clone, Debug)]
    struct Scripted(Arc<Mutex<Script>>);

    #[derive(Debug)]
    struct Script {
        /// How long it takes to replay what it is left to wait for, if it waits by itself.
        replays_ms: Option<u64>,
        lines: VecDeque<Result<Sight, GoneReason>>,
        asked_ms: Vec<u128>,
        began: Instant,
    }

    impl Scripted {
        fn new(lines: impl IntoIterator<Item = Result<Sight, GoneReason>>) -> Self {
            let (asked_ms, began) = (Vec::new(), Instant::now());
            let lines = lines.into_iter().collect();
            let replays_ms = None;
            Self(Arc::new(Mutex::new(Script { replays_ms, lines, asked_ms, began })))
        }

        fn asked_ms(&self) -> Vec<u128> {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).asked_ms.clone()
        }
    }

    impl Server for Scripted {
        async fn ask(&mut self) -> Result<Sight, GoneReason> {
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

        fn can_await(&self) -> bool {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).replays_ms.is_some()
        }

        async fn await_replay(&mut self, _next: Lsn, at_most: Duration) -> Result<(), GoneReason> {
            let replays_ms = self.0.lock().unwrap_or_else(PoisonError::into_inner).replays_ms;
            tokio::time::sleep(Duration::from_millis(replays_ms.unwrap_or(0)).min(at_most)).await;
            Ok(())
        }

        async fn history(&mut self, _epochs: &[Epoch], _at: Lsn) -> Result<Told, GoneReason> {
            Ok(Told::default())
        }
    }

    fn at(lsn: u64) -> Result<Sight, GoneReason> {
        let replayed = Some(Lsn(lsn));
        Ok(Sight { replayed, timeline: None, server_start_us: 1, in_recovery: true })
    }

    fn away() -> Result<Sight, GoneReason> {
        Err(GoneReason::Hung { limit: Duration::from_millis(500) })
    }

    struct Stage {
        board: Arc<Board>,
        server: Scripted,
        _loop: tokio::task::JoinHandle<Infallible>,
    }

    /// Starts the loop; it has asked once when this returns.
    async fn stage(lines: impl IntoIterator<Item = Result<Sight, GoneReason>>) -> Stage {
        let board = Arc::new(Board::new(Limits {
            max_waiters: 10,
            fresh_for: Duration::from_millis(10),
            forget_after: Duration::from_secs(1),
            answer_within: Duration::from_millis(100),
        }));
        let server = Scripted::new(lines);
        let polls =
            PollLoop::new(server.clone(), Arc::clone(&board), Pace::default(), Alarm::of_runtime());
        let running = tokio::spawn(polls.run());
        tokio::task::yield_now().await;
        Stage { board, server, _loop: running }
    }

    impl Stage {
        async fn wait(&self, lsn: u64, ms: u64) -> Result<crate::Reached, WaitError> {
            let target = Lsn(lsn).into();
            let wait = Wait::new(&self.board, target);
            crate::wait::Timed::new(wait, Duration::from_millis(ms)).await
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
        assert_eq!(stage.server.asked_ms(), [0, 1_000, 2_005], "whoever comes has that answer");
    }

    #[tokio::test(start_paused = true)]
    async fn asks_eagerly_at_first_and_patiently_when_nothing_moves() {
        let stage = stage([at(5)]).await;
        tokio::time::sleep(Duration::from_secs(10)).await;
        let error = stage.wait(6, 2_000).await.unwrap_err();
        let asked: Vec<_> =
            stage.server.asked_ms().into_iter().skip(1).map(|ms| ms - 10_000).collect();
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
    async fn a_server_that_waits_by_itself_is_asked_when_it_returns() {
        let stage = stage([at(5), at(5), at(5), at(7)]).await;
        stage.server.0.lock().unwrap_or_else(PoisonError::into_inner).replays_ms = Some(3);
        tokio::time::sleep(Duration::from_secs(1)).await;
        let reached = stage.wait(6, 1_000).await.unwrap();
        assert_eq!(reached.lsn, Lsn(7));
        assert_eq!(stage.server.asked_ms(), [0, 1_000, 1_003, 1_006]);
        // What it is not asked for it is not left to wait for: a mark that is stale is renewed.
        tokio::time::sleep(Duration::from_secs(1)).await;
        stage.wait(7, 1_000).await.unwrap();
        assert_eq!(stage.server.asked_ms().len(), 5);
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_returns_at_once_is_asked_no_more_often_and_callers_do_not_pay_for_it() {
        let stage = stage([at(5)]).await;
        stage.server.0.lock().unwrap_or_else(PoisonError::into_inner).replays_ms = Some(0);
        stage.wait(9, 2_000).await.unwrap_err();
        let asked = stage.server.asked_ms().len();
        let most = 2_000 * 1_000 / usize::try_from(Pace::EAGER.as_micros()).unwrap();
        assert!(asked <= most + Pace::BURST as usize + 1, "{asked} questions in 2 s");
        let began = Instant::now();
        stage.wait(5, 1_000).await.unwrap();
        assert!(began.elapsed() < Duration::from_millis(5), "{:?}", began.elapsed());
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
        let promoted = at(9).map(|sight| Sight { in_recovery: false, ..sight });
        let stage = stage([at(5), at(5), promoted]).await;
        let began = Instant::now();
        let error = stage.wait(8, 60_000).await.unwrap_err();
        assert!(matches!(error, WaitError::NotAReplica), "{error}");
        assert!(began.elapsed() < Duration::from_millis(10));
    }
}
