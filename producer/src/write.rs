//! The verb `write`: this region's replica has replayed the command's commit.
//!
//! A submit, and then a wait with what is left of the time. A wait that fails takes nothing away:
//! the command is committed, and the error carries its output and its bookmark.

use std::fmt;

use farwrite_lsn_watcher::WaitError;
use farwrite_schemas::{Bookmark, CommandId, Origin};
use serde::de::DeserializeOwned;
use tokio::time::Instant;

use crate::{
    metrics,
    producer::Parts,
    reads::elsewhere::{MissingRegion, list},
    submit::{Awaiting, Committed},
    submit_error::SubmitError,
};

/// This region's replica shows the command's effects: read them here, now.
#[derive(Clone)]
#[non_exhaustive]
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
#[non_exhaustive]
pub enum WriteError<O> {
    /// It is not known to be committed, or it had no effects.
    #[error(transparent)]
    Submit(#[from] SubmitError),
    /// It is committed, and the replica was not seen to show it. Read from the primary, or wait
    /// for the bookmark.
    #[error("the command {} is committed, and not known to be visible here: {cause}", committed.id)]
    NotVisible {
        /// What is known: the output and the bookmark.
        committed: Committed<O>,
        /// Why the wait ended.
        cause: Box<WaitError>,
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
            Self::NotVisible { committed, cause } => f
                .debug_struct("NotVisible")
                .field("committed", committed)
                .field("cause", cause)
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

impl Parts {
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
        let here = self.reads.wait_unchecked(&committed.bookmark, left);
        let elsewhere = async {
            if also_in.is_empty() {
                return Vec::new();
            }
            self.others.missing(&committed.bookmark, also_in, deadline).await
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
            Err(error) => Err(WriteError::NotVisible { committed, cause: Box::new(error) }),
        }
    }
}
