//! The verb `write`: this region's replica has replayed the command's commit.
//!
//! A submit, and then a wait with what is left of the time. A wait that fails takes nothing away:
//! the command is committed, and the error carries its output and its bookmark.

use std::{fmt, time::Duration};

use farwrite_lsn_watcher::WaitError;
use farwrite_schemas::{Bookmark, CommandId, DatabaseName, Origin};
use serde::de::DeserializeOwned;
use tokio::time::Instant;

use crate::{
    call::Awaiting,
    limits::TIMEOUT_MAX,
    metrics,
    producer::{Inner, Producer},
    reads::elsewhere::{MissingRegion, list},
    submit::{Committed, SubmitError},
};

/// This region's replica shows the command's effects: read them here, now.
#[derive(Clone)]
pub struct Visible<O> {
    /// The command id.
    pub id: CommandId,
    /// What the command answered.
    pub output: O,
    /// A position at or behind the commit.
    pub bookmark: Bookmark,
}

/// Without the output: what it holds is the app's, and has no place in a log.
impl<O> fmt::Debug for Visible<O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { id, bookmark, .. } = self;
        write!(f, "Visible {{ id: {id}, bookmark: {bookmark}, .. }}")
    }
}

/// Why a write is not known to be visible here.
#[derive(thiserror::Error)]
pub enum WriteError<O> {
    /// It is not known to be committed, or it had no effects.
    #[error(transparent)]
    Submit(#[from] SubmitError),
    /// It is committed, and the replica was not seen to show it. Read from the primary, or wait
    /// for the bookmark.
    #[error("the command {} is committed, and not known to be visible here: {source}", committed.id)]
    NotVisible {
        /// What is known: the output and the bookmark.
        committed: Committed<O>,
        /// Why the wait ended.
        source: Box<WaitError>,
    },
    /// It is committed and visible here, and not known to be visible in other regions that the call
    /// named.
    #[error("the command {} is visible here, and not known to be in {}", visible.id, list(missing))]
    NotEverywhere {
        /// What is known: the output and the bookmark.
        visible: Visible<O>,
        /// The regions that were not seen to show it.
        missing: Vec<MissingRegion>,
    },
    /// The producer was built without a replica, a watcher or reads on the primary: there is
    /// nowhere for the command to be visible. Nothing was sent.
    #[error("the command {id} was not sent: the producer has no reads to make it visible to")]
    NoReads {
        /// The command id.
        id: CommandId,
    },
}

impl<O> fmt::Debug for WriteError<O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Submit(error) => f.debug_tuple("Submit").field(error).finish(),
            Self::NotVisible { committed, source } => f
                .debug_struct("NotVisible")
                .field("committed", committed)
                .field("source", source)
                .finish(),
            Self::NotEverywhere { visible, missing } => f
                .debug_struct("NotEverywhere")
                .field("visible", visible)
                .field("missing", missing)
                .finish(),
            Self::NoReads { id } => f.debug_struct("NoReads").field("id", id).finish(),
        }
    }
}

impl<O> WriteError<O> {
    /// The command id.
    #[must_use]
    pub const fn id(&self) -> CommandId {
        match self {
            Self::Submit(error) => error.id(),
            Self::NotVisible { committed, .. } => committed.id,
            Self::NotEverywhere { visible, .. } => visible.id,
            Self::NoReads { id } => *id,
        }
    }
}

/// Why a bookmark was not reached here.
#[derive(Debug, thiserror::Error)]
pub enum BookmarkError {
    /// It belongs to another database.
    #[error("the bookmark belongs to the database {theirs}, and this producer to {ours}")]
    OtherDatabase {
        /// The bookmark's.
        theirs: DatabaseName,
        /// The producer's.
        ours: DatabaseName,
    },
    /// The producer was built without a replica, a watcher or reads on the primary.
    #[error("the producer has no reads to wait for")]
    NoReads,
    /// The replica was not seen to reach it.
    #[error(transparent)]
    Wait(Box<WaitError>),
}

impl Producer {
    /// Waits until this region's replica has replayed a bookmark, from wherever it came, for the
    /// default time ([`Limits::timeout`](crate::Limits::timeout)). See [`Self::wait`].
    ///
    /// # Errors
    /// As [`Self::wait`].
    pub async fn wait_for(&self, bookmark: &Bookmark) -> Result<(), BookmarkError> {
        self.wait(bookmark, self.inner.limits.timeout).await
    }

    /// Waits until this region's replica has replayed a bookmark, from wherever it came. Where
    /// reads go to the primary it has been reached already, unless a failover lost it.
    ///
    /// Waiting here, and not on a watcher of your own, also binds the pool of [`Producer::reads`]:
    /// it refuses connections to a replica that came back behind what was said to be visible.
    ///
    /// # Errors
    /// When the bookmark is another database's, or is not reached in time.
    pub async fn wait(&self, bookmark: &Bookmark, timeout: Duration) -> Result<(), BookmarkError> {
        self.check_bookmark(bookmark)?;
        let waited = self.inner.reads.wait(bookmark, timeout.min(TIMEOUT_MAX)).await;
        waited.map(drop).map_err(|error| BookmarkError::Wait(Box::new(error)))
    }

    /// Whether a bookmark is of this producer's database, and there is something to wait for.
    pub(crate) fn check_bookmark(&self, bookmark: &Bookmark) -> Result<(), BookmarkError> {
        self.check_database(bookmark)?;
        if self.inner.reads.shows_writes() { Ok(()) } else { Err(BookmarkError::NoReads) }
    }

    /// Whether a bookmark is of this producer's database.
    pub(crate) fn check_database(&self, bookmark: &Bookmark) -> Result<(), BookmarkError> {
        let ours = self.inner.subjects.database();
        if bookmark.database != *ours {
            let (theirs, ours) = (bookmark.database.clone(), ours.clone());
            return Err(BookmarkError::OtherDatabase { theirs, ours });
        }
        Ok(())
    }
}

impl Inner {
    /// Writes a call that has its place.
    pub(crate) async fn write<O: DeserializeOwned>(
        &self,
        awaiting: Awaiting,
        also_in: &[Origin],
    ) -> Result<Visible<O>, WriteError<O>> {
        let deadline = awaiting.entered.deadline;
        // What the stream has stored is committed a moment later.
        let committed = self.submit(awaiting, || self.reads.expect_wait()).await?.committed()?;
        let began = Instant::now();
        let left = deadline.saturating_duration_since(began);
        // The other regions are asked at once, not one after the other.
        let here = self.reads.wait(&committed.bookmark, left);
        let elsewhere = async {
            if also_in.is_empty() {
                return Vec::new();
            }
            self.missing(&committed.bookmark, also_in, deadline).await
        };
        let (here, missing) = tokio::join!(here, elsewhere);
        match here {
            Ok(_) => {
                metrics::visible(began.elapsed());
                let Committed { id, output, bookmark } = committed;
                let visible = Visible { id, output, bookmark };
                if missing.is_empty() {
                    Ok(visible)
                } else {
                    Err(WriteError::NotEverywhere { visible, missing })
                }
            }
            Err(error) => Err(WriteError::NotVisible { committed, source: Box::new(error) }),
        }
    }
}
