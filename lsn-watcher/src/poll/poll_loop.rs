//! The poll loop: asks a server while its audience wants to know, and tells it what was seen.
//!
//! ```text
//! idle     => polling     somebody waits
//! polling  => polling     after an interval, or at once for a new caller
//! polling  => backing off the server could not be asked
//! backing off => polling  the pause is over
//! any      => idle        nobody waits any more
//! ```
//!
//! It never ends by itself; its owner drops it. What is done with an answer is the audience's
//! affair: the board of an app wakes waiters, a region's watcher broadcasts.

use std::{convert::Infallible, sync::Arc, time::Duration};

use farwrite_internal::{Alarm, Backoff};
use tokio::time::Instant;

use super::{
    allowance::Allowance,
    audience::{Audience, Demand},
    intervals::PollIntervals,
    server::{PolledServer, ServerReport},
};
use crate::{answer::GoneReason, metrics};

/// The first pause after a failure: a server that is restarting accepts connections again within 50
/// to 500 ms.
const PAUSE_FIRST: Duration = Duration::from_millis(50);
/// The longest pause: it bounds how late callers notice that the replica is back.
const PAUSE_LONGEST: Duration = Duration::from_secs(1);

pub(crate) struct PollLoop<S, A> {
    server: S,
    audience: Arc<A>,
    intervals: PollIntervals,
    allowance: Allowance,
    alarm: Alarm,
    backoff: Backoff,
    /// Before this the server is left alone.
    not_before: Instant,
    asked_at: Instant,
    moved_at: Instant,
    last: Option<ServerReport>,
}

impl<S: PolledServer, A: Audience> PollLoop<S, A> {
    /// To be made within a runtime.
    pub(crate) fn new(server: S, audience: Arc<A>, intervals: PollIntervals, alarm: Alarm) -> Self {
        let now = Instant::now();
        let (not_before, asked_at, moved_at) = (now, now, now);
        let (allowance, backoff, last) =
            (Allowance::full(now), Backoff::new(PAUSE_FIRST, PAUSE_LONGEST), None);
        Self {
            server,
            audience,
            intervals,
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

    /// When to ask next. However many come, there are no more questions than are allowed.
    fn due(&self, demand: Demand) -> Instant {
        let now = Instant::now();
        let since = |then: Instant| now.saturating_duration_since(then);
        let interval = if self.is_answered(demand) {
            self.intervals.next(since(demand.youngest), since(self.moved_at))
        } else {
            // Somebody came after the last question.
            self.intervals.quick
        };
        (self.asked_at + interval).max(self.allowance.next(&self.intervals)).max(self.not_before)
    }

    async fn poll(&mut self) {
        self.asked_at = Instant::now();
        self.allowance.take(self.asked_at, &self.intervals);
        self.audience.asking();
        metrics::polled();
        let asked = match self.server.ask().await {
            Ok(report) => {
                self.seen(report).await;
                self.ask_history(report).await
            }
            Err(reason) => Err(reason),
        };
        if let Err(reason) = asked {
            self.failed(reason).await;
        }
    }

    /// Asks about the branches that somebody waits on, which is once for each in the life of a
    /// connection unless there is doubt.
    async fn ask_history(&mut self, report: ServerReport) -> Result<(), GoneReason> {
        let epochs = self.audience.epochs();
        if let Some(at) = report.replayed
            && !epochs.is_empty()
        {
            metrics::asked_history();
            let answer = self.server.history(&epochs, at).await?;
            self.audience.told(answer).await;
        }
        Ok(())
    }

    async fn seen(&mut self, report: ServerReport) {
        if self.backoff.is_failing() {
            tracing::info!("the replica answers again");
            metrics::reconnected();
        }
        self.backoff.reset();
        let before = self.last.replace(report);
        if before != Some(report) {
            self.moved_at = Instant::now();
        }
        match before.map(|before| before.in_recovery) {
            Some(true) if !report.in_recovery => tracing::warn!("the replica was promoted"),
            None if !report.in_recovery => {
                tracing::info!("the server is a primary: it shows its own commits");
            }
            Some(_) | None => {}
        }
        self.audience.saw(report).await;
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
mod tests;
