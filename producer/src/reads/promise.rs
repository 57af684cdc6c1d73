//! What was said to be visible, and whether a connection shows it.
//!
//! Beside the pool stands one position, the furthest that was ever said to be visible to this
//! process. A replica that crashed can come back *behind* it and serve reads at once. Its crash
//! ended every connection, so each new one is compared with that position before the app gets it.
//!
//! That is not enough where a caller hears late that a position was reached. Meanwhile the server may
//! have crashed, and connections to the next start may have been compared with less. So the promise
//! knows on which start of the server its position was seen. All living connections are to one
//! start, the last that any of them was made to. While that start is the promise's, nothing needs
//! to be asked. Otherwise each connection that the pool gives out is compared once more.
//!
//! A server that was made anew after a failover is behind the promise, too. There the promise is
//! lowered to where the timeline ended, as the server's own rows say.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use farwrite_lsn_watcher::Reached;
use farwrite_schemas::{
    BRANCHES_QUERY, Branch, BranchKnown, BranchRow, Epoch, Lsn, SERVER_START_QUERY,
};
use sqlx::{PgConnection, postgres::PgPoolOptions};
use tokio::time::{Instant, sleep};

use crate::metrics;

/// How long a connection waits for a replica that came back behind. 5 s: a restarted replica
/// replays what it has on its own disk within that; one that takes longer is better refused, so
/// that the app's own timeout and fallback apply.
const CATCH_UP: Duration = Duration::from_secs(5);
/// How often it is asked meanwhile. Only after a crash of the replica, so that it may be slow.
const CATCH_UP_PAUSE: Duration = Duration::from_millis(20);

/// A promoted replica's replay position stands still, and what it commits itself is past it.
const SHOWN: &str = "SELECT (CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() \
                     ELSE pg_current_wal_lsn() END)::text";

/// A connection shows less than was promised.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the replica shows {shown} only, and {promised} was visible before: it came back behind its own past"
)]
struct Behind {
    shown: Lsn,
    promised: Lsn,
}

/// The furthest position that was said to be visible, and which server the pool's connections are to.
#[derive(Debug, Default)]
pub(crate) struct Promise(Mutex<PromiseState>);

#[derive(Debug, Default)]
struct PromiseState {
    furthest: Option<Furthest>,
    pool: Option<ServerStart>,
}

#[derive(Clone, Copy, Debug)]
struct Furthest {
    lsn: Lsn,
    /// Of the bookmark that it was said of.
    epoch: Epoch,
    /// The start of the server that showed it last, in microseconds since 1970.
    shown_on_us: i64,
}

/// A start of the server, in microseconds since 1970, and when a connection was asked for it. The
/// server's clock may have been set back, so that two starts are ordered by when they were asked
/// for, and not by what they say.
#[derive(Clone, Copy, Debug)]
struct ServerStart {
    us: i64,
    asked_at: Instant,
}

impl Promise {
    fn state(&self) -> std::sync::MutexGuard<'_, PromiseState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A position of an epoch was seen.
    pub(crate) fn raise(&self, reached: &Reached, epoch: Epoch) {
        let &Reached { lsn, server_start_us: shown_on_us, .. } = reached;
        let furthest = &mut self.state().furthest;
        if furthest.is_none_or(|known| lsn > known.lsn) {
            *furthest = Some(Furthest { lsn, epoch, shown_on_us });
        }
    }

    /// Whether there is anything to compare with.
    fn is_given(&self) -> bool {
        self.state().furthest.is_some()
    }

    /// Whether every living connection of the pool shows it.
    fn is_kept(&self) -> bool {
        let state = self.state();
        let start = state.pool.map(|start| start.us);
        state.furthest.is_none_or(|furthest| start == Some(furthest.shown_on_us))
    }

    /// Compares it with what a connection shows; what is missing.
    fn compare(&self, shown: Lsn, start: ServerStart) -> Option<Furthest> {
        let mut state = self.state();
        if state.pool.is_none_or(|known| start.asked_at >= known.asked_at) {
            state.pool = Some(start);
        }
        let furthest = state.furthest.as_mut()?;
        if shown < furthest.lsn {
            return Some(*furthest);
        }
        furthest.shown_on_us = start.us;
        None
    }

    /// A failover has ended the promise's timeline before it: what lies past the end is no more.
    fn lower(&self, from: Lsn, to: Lsn) {
        if let Some(furthest) = self.state().furthest.as_mut().filter(|known| known.lsn == from) {
            furthest.lsn = to;
        }
    }

    /// A pool that gives out no connection that shows less.
    pub(crate) fn guard(self: &Arc<Self>, pool: PgPoolOptions) -> PgPoolOptions {
        let (new, old) = (Arc::clone(self), Arc::clone(self));
        let pool = pool.after_connect(move |connection, _| {
            let promise = Arc::clone(&new);
            Box::pin(async move {
                if promise.is_given() { promise.keep(connection).await } else { Ok(()) }
            })
        });
        pool.before_acquire(move |connection, _| {
            let promise = Arc::clone(&old);
            Box::pin(async move {
                if !promise.is_kept() {
                    promise.keep(connection).await?;
                }
                Ok(true)
            })
        })
    }

    /// Lets a connection pass once it shows what was promised.
    async fn keep(&self, connection: &mut PgConnection) -> Result<(), sqlx::Error> {
        let asked_at = Instant::now();
        let us: i64 = sqlx::query_scalar(SERVER_START_QUERY).fetch_one(&mut *connection).await?;
        let start = ServerStart { us, asked_at };
        loop {
            let shown = shown(connection).await?;
            let Some(Furthest { lsn, epoch, .. }) = self.compare(shown, start) else {
                return Ok(());
            };
            if let Some(end) = end_of(connection, epoch).await
                && end < lsn
            {
                self.lower(lsn, end);
                continue;
            }
            if asked_at.elapsed() >= CATCH_UP {
                metrics::read_refused();
                let behind = Behind { shown, promised: lsn };
                tracing::warn!(%behind, "a connection to the replica was refused");
                return Err(sqlx::Error::Configuration(Box::new(behind)));
            }
            sleep(CATCH_UP_PAUSE).await;
        }
    }
}

async fn shown(connection: &mut PgConnection) -> Result<Lsn, sqlx::Error> {
    let shown: Option<String> = sqlx::query_scalar(SHOWN).fetch_one(connection).await?;
    // A standby that has replayed nothing yet has no position.
    shown.map_or(Ok(Lsn::default()), |text| {
        text.parse().map_err(|error| sqlx::Error::Decode(Box::new(error)))
    })
}

/// Where an epoch's timeline ended on this server, if it did and the user may see it.
async fn end_of(connection: &mut PgConnection, epoch: Epoch) -> Option<Lsn> {
    let rows: Result<Vec<BranchRow>, _> =
        sqlx::query_as(BRANCHES_QUERY).bind(vec![epoch.0]).fetch_all(connection).await;
    match Branch::from_row(rows.ok()?.pop()?, Lsn::default()).ok()?.known {
        BranchKnown::Held { ends, .. } => ends,
        BranchKnown::Absent { .. } | BranchKnown::Elsewhere { .. } => None,
    }
}

#[cfg(test)]
mod tests {
    use sqlx::types::Uuid;

    use super::*;

    fn reached(lsn: u64, server_start_us: i64) -> Reached {
        let waited = Duration::ZERO;
        Reached::new(Lsn(lsn), true, server_start_us, waited)
    }

    #[tokio::test(start_paused = true)]
    async fn a_promise_is_kept_by_the_start_that_it_was_seen_on_or_that_was_compared_with_it() {
        let (promise, epoch) = (Promise::default(), Epoch(Uuid::from_u128(7)));
        let start = |us| ServerStart { us, asked_at: Instant::now() };
        let missing = |shown, start| promise.compare(Lsn(shown), start).map(|missing| missing.lsn);
        assert!(promise.is_kept(), "nothing was promised");
        promise.raise(&reached(100, 1), epoch);
        assert!(!promise.is_kept(), "which server the pool has is not known");
        let first = start(1);
        assert_eq!(missing(100, first), None);
        promise.raise(&reached(200, 1), epoch);
        assert!(promise.is_kept(), "another position of the same start");

        tokio::time::advance(Duration::from_secs(1)).await;
        // A later start, by a clock that was set back.
        let second = start(0);
        assert_eq!(missing(150, second), Some(Lsn(200)));
        assert_eq!(missing(200, second), None);
        assert!(promise.is_kept());
        promise.raise(&reached(300, 1), epoch);
        assert!(!promise.is_kept(), "a late word of the start before");
        assert_eq!(
            missing(100, first),
            Some(Lsn(300)),
            "a late word of a connection that is no more"
        );
        assert!(!promise.is_kept());
        promise.raise(&reached(250, 0), epoch);
        assert!(!promise.is_kept(), "less than that is no proof");
        promise.raise(&reached(400, 0), epoch);
        assert!(promise.is_kept(), "the pool's start showed more");
    }
}
