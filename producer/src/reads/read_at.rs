//! Reading at a bookmark: here if it is visible in time, else on the primary.
//!
//! A short wait beats a read across the world, and a long one does not. So the server next door has
//! a budget, and whoever runs out of it reads on the primary, if the producer has one. A server
//! that has used up the budget a few times in a row is only looked at for a while.

use std::{
    fmt,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use farwrite_lsn_watcher::{Reached, WaitError};
use farwrite_schemas::Bookmark;
use sqlx::PgPool;
use tokio::time::Instant;

use crate::{
    metrics,
    producer::Producer,
    reads::servers::{NoReads, ReadFrom},
    write::BookmarkError,
};

/// Budgets that run out in a row before the server next door is only looked at.
const MISSES: u32 = 3;
/// For how long it is only looked at then.
const PASSED_OVER_FOR: Duration = Duration::from_secs(1);
/// How long a look may take: one question to the server next door.
const LOOK: Duration = Duration::from_millis(2);

/// A pool that shows what a bookmark stands for.
#[derive(Clone, Copy)]
#[must_use = "reads belong to this pool"]
pub struct ReadAt<'a> {
    /// The pool to read with.
    pub pool: &'a PgPool,
    /// Which server it reads, by that server's own word.
    pub from: ReadFrom,
    /// What was seen of it.
    pub reached: Reached,
}

impl fmt::Debug for ReadAt<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { from, reached, .. } = self;
        f.debug_struct("ReadAt")
            .field("from", from)
            .field("reached", reached)
            .finish_non_exhaustive()
    }
}

/// No server shows what a bookmark stands for.
#[derive(Debug, thiserror::Error)]
pub enum ReadAtError {
    /// The bookmark is not this producer's, or is not visible here and there is no primary to read.
    #[error(transparent)]
    Bookmark(#[from] BookmarkError),
    /// The producer has no pool to read with.
    #[error(transparent)]
    NoReads(#[from] NoReads),
    /// It is not visible here in time, and not on the primary either.
    #[error("not visible here ({here}), and not on the primary: {primary}")]
    Nowhere {
        /// Why not here.
        here: Box<WaitError>,
        /// Why not on the primary.
        primary: Box<WaitError>,
    },
}

impl ReadAtError {
    /// Whether the commit is known not to be in any history that can be read: a failover lost it.
    #[must_use]
    pub fn is_superseded(&self) -> bool {
        let is = |error: &WaitError| matches!(error, WaitError::Superseded { .. });
        match self {
            Self::Bookmark(BookmarkError::Wait(error)) => is(error),
            Self::Nowhere { primary, .. } => is(primary),
            Self::Bookmark(_) | Self::NoReads(_) => false,
        }
    }
}

/// How often the server next door was too late of late.
#[derive(Debug, Default)]
pub(crate) struct Patience(Mutex<Misses>);

#[derive(Debug, Default)]
struct Misses {
    in_a_row: u32,
    last: Option<Instant>,
}

impl Patience {
    fn lock(&self) -> std::sync::MutexGuard<'_, Misses> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How long to wait, of a budget.
    fn allows(&self, budget: Duration) -> Duration {
        let misses = self.lock();
        let is_recent = misses.last.is_some_and(|last| last.elapsed() < PASSED_OVER_FOR);
        if misses.in_a_row >= MISSES && is_recent { budget.min(LOOK) } else { budget }
    }

    fn reached(&self) {
        self.lock().in_a_row = 0;
    }

    /// A wait ran out of time. A look alone says nothing.
    fn missed(&self, waited: Duration) {
        if waited > LOOK {
            let mut misses = self.lock();
            misses.in_a_row = misses.in_a_row.saturating_add(1);
            misses.last = Some(Instant::now());
        }
    }
}

impl Producer {
    /// A pool that shows what a bookmark stands for: this region's, if that has reached it within
    /// [`Limits::read_budget`](crate::Limits::read_budget), else the primary's, and it says which.
    ///
    /// Without a primary ([`Builder::primary`](crate::Builder::primary)) the budget is the whole
    /// timeout.
    ///
    /// # Errors
    /// When the bookmark is another database's, or no server shows it: the error says what was seen
    /// of each.
    pub async fn read_at(&self, bookmark: &Bookmark) -> Result<ReadAt<'_>, ReadAtError> {
        let inner = &self.inner;
        self.check_bookmark(bookmark)?;
        let pool = inner.reads.pool()?;
        let limits = &inner.limits;
        let Some(fallback) = inner.reads.fallback() else {
            let reached = inner.reads.wait(bookmark, limits.timeout).await;
            let reached = reached.map_err(|error| BookmarkError::Wait(Box::new(error)))?;
            return Ok(ReadAt::new(pool, reached));
        };
        let budget = inner.patience.allows(limits.read_budget);
        let here = match inner.reads.wait(bookmark, budget).await {
            Ok(reached) => {
                inner.patience.reached();
                return Ok(ReadAt::new(pool, reached));
            }
            Err(error) => Box::new(error),
        };
        inner.patience.missed(budget);
        match fallback.wait(bookmark, limits.timeout).await {
            Ok((pool, reached)) => Ok(ReadAt::new(pool, reached)),
            Err(primary) => Err(ReadAtError::Nowhere { here, primary: Box::new(primary) }),
        }
    }
}

impl<'a> ReadAt<'a> {
    fn new(pool: &'a PgPool, reached: Reached) -> Self {
        let from = if reached.in_recovery { ReadFrom::Replica } else { ReadFrom::Primary };
        metrics::read_at(from);
        Self { pool, from, reached }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_server_that_is_late_again_and_again_is_passed_over_for_a_while() {
        let patience = Patience::default();
        let budget = Duration::from_millis(20);
        for _ in 0..MISSES {
            assert_eq!(patience.allows(budget), budget);
            patience.missed(budget);
        }
        assert_eq!(patience.allows(budget), LOOK);
        patience.missed(LOOK);
        tokio::time::advance(PASSED_OVER_FOR).await;
        assert_eq!(patience.allows(budget), budget, "tried again");
        patience.missed(budget);
        assert_eq!(patience.allows(budget), LOOK, "still late");
        patience.reached();
        assert_eq!(patience.allows(budget), budget, "caught up");
    }
}
