//! Reading at a bookmark: here if it is visible in time, else on the primary.
//!
//! A short wait beats a read across the world, and a long one does not. So the server next door has
//! a budget. A read that runs out of it goes to the primary, if the producer has one.

use std::fmt;

use farwrite_lsn_watcher::{Reached, WaitError};
use farwrite_schemas::Bookmark;
use sqlx::PgPool;

use crate::{
    metrics,
    reads::{
        role::{NoReads, ServerRole},
        wait::{BookmarkError, Reads},
    },
};

/// A pool that shows what a bookmark stands for.
#[derive(Clone, Copy)]
#[non_exhaustive]
#[must_use = "reads belong to this pool"]
pub struct ReadAt<'a> {
    /// The pool to read with.
    pub pool: &'a PgPool,
    /// Which server it reads, by that server's own word.
    pub from: ServerRole,
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
#[non_exhaustive]
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

impl Reads {
    /// A pool that shows what a bookmark stands for, and which server it reads.
    pub(crate) async fn read_at(&self, bookmark: &Bookmark) -> Result<ReadAt<'_>, ReadAtError> {
        self.check(bookmark)?;
        let pool = self.pool()?;
        let Some(fallback) = self.fallback() else {
            let reached = self.wait_unchecked(bookmark, self.timeout).await;
            let reached = reached.map_err(|error| BookmarkError::Wait(Box::new(error)))?;
            return Ok(ReadAt::new(pool, reached));
        };
        let budget = self.patience.allows(self.budget);
        let here = match self.wait_unchecked(bookmark, budget).await {
            Ok(reached) => {
                self.patience.reached();
                return Ok(ReadAt::new(pool, reached));
            }
            Err(error) => Box::new(error),
        };
        self.patience.missed(budget);
        match fallback.wait(bookmark, self.timeout).await {
            Ok((pool, reached)) => Ok(ReadAt::new(pool, reached)),
            Err(primary) => Err(ReadAtError::Nowhere { here, primary: Box::new(primary) }),
        }
    }
}

impl<'a> ReadAt<'a> {
    fn new(pool: &'a PgPool, reached: Reached) -> Self {
        let from = if reached.in_recovery { ServerRole::Replica } else { ServerRole::Primary };
        metrics::read_at(from.as_str());
        Self { pool, from, reached }
    }
}
