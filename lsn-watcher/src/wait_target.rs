//! What somebody waits for: a position, and the branch of history that it lies on.

use farwrite_schemas::{Bookmark, Epoch, Lsn, Timeline};

/// What to wait for.
///
/// Positions of different branches of history do not compare: after a failover a replica can have
/// replayed past the position of a commit that it does not hold. A [`Bookmark`] names its branch,
/// and is only ever told visible where that commit is. A bare [`Lsn`] names none: it is for
/// positions that the caller took itself, on a server whose history it knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WaitTarget {
    pub(crate) lsn: Lsn,
    pub(crate) branch: Option<BranchName>,
}

/// A branch of history, as a bookmark names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BranchName {
    pub(crate) epoch: Epoch,
    pub(crate) timeline: Timeline,
}

impl From<Lsn> for WaitTarget {
    fn from(lsn: Lsn) -> Self {
        Self { lsn, branch: None }
    }
}

impl From<&Bookmark> for WaitTarget {
    fn from(bookmark: &Bookmark) -> Self {
        let Bookmark { epoch, timeline, lsn, .. } = *bookmark;
        Self { lsn, branch: Some(BranchName { epoch, timeline }) }
    }
}
