//! What a committed batch came to. A type without logic: only a committed attempt makes one, so that
//! answering before the commit does not compile.

use farwrite_schemas::Outcome;

use crate::stream::position::StreamPosition;

/// What became of one command of a committed batch.
#[derive(Debug)]
pub(crate) enum Settled {
    /// It ended.
    Ended {
        outcome: Outcome,
        /// The ledger knew the id: it was not applied now.
        repeated: bool,
    },
    /// It is parked, for this reason.
    Parked(&'static str),
    /// Nothing was done about it: it is parked already, or stands behind a command that waits.
    Untouched,
}

impl Settled {
    /// Whether it was found now that the command is rejected.
    pub(crate) fn is_rejected(&self) -> bool {
        matches!(self, Self::Ended { outcome: Outcome::Rejected(_), repeated: false })
    }
}

/// A batch, or the first commands of one, that is committed. Only this can be answered for.
pub(crate) struct CommittedBatch {
    /// What became of the first commands, in order.
    pub(crate) settled: Vec<Settled>,
    /// Where the lane stands now.
    pub(crate) position: StreamPosition,
    /// Whether something of the lane waits.
    pub(crate) waits: bool,
    pub(crate) _only_after_commit: OnlyAfterCommit,
}

/// Made by the two ways of committing, and nowhere else.
pub(crate) struct OnlyAfterCommit(());

impl OnlyAfterCommit {
    /// To be called straight after a commit.
    pub(crate) const fn committed() -> Self {
        Self(())
    }
}
