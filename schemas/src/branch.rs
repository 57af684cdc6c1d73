//! What a server's history says of the branch that a bookmark names.
//!
//! Asked of rows that were written with the commits and that a failover takes back with them: see
//! `farwrite.branches`.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{
    bookmark::{Epoch, Timeline},
    lsn::{Lsn, LsnError},
};

/// Asks what a server's history says of some epochs: one parameter, the epochs (`uuid[]`), and a
/// [`BranchRow`] for each one. The user needs `USAGE` on the schema `farwrite`
/// and `SELECT` on `history` and `owner`.
pub const BRANCHES_QUERY: &str = "SELECT epoch, timeline, ends::text, proven::text, forgotten::text, elsewhere, latest FROM farwrite.branches($1)";

/// A row of [`BRANCHES_QUERY`], in the order of its columns.
pub type BranchRow =
    (Uuid, Option<i32>, Option<String>, Option<String>, Option<String>, bool, Option<i32>);

/// What a server's history says of an epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Branch {
    /// Which epoch.
    pub epoch: Epoch,
    /// What is known of it.
    #[serde(flatten)]
    pub known: BranchKnown,
}

/// What is known of an epoch on a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum BranchKnown {
    /// The server's history holds it.
    Held {
        /// The timeline that its commits are on.
        timeline: Timeline,
        /// The last position of that timeline that survives here; `None` while it goes on.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        ends: Option<Lsn>,
        /// A position of that timeline that is replayed here for certain.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        proven: Option<Lsn>,
    },
    /// The server does not hold it, having replayed up to a position: no commit of that epoch at
    /// or below the position, and past what it has forgotten, is on its branch. Which branch a failover
    /// lost, the epoch's or the server's, the timelines tell.
    Absent {
        /// The position.
        absent_at: Lsn,
        /// The server keeps no takeovers from before this position (inclusive); `None` where it
        /// keeps all.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        forgotten: Option<Lsn>,
        /// The timeline of the last takeover that it holds; `None` where it holds none.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        latest: Option<Timeline>,
    },
    /// The server's history holds it as one of another database, which this one was before an operator
    /// adopted it: no commit of that epoch is on its branch.
    Elsewhere {
        /// Always true: it tells this form from the others.
        elsewhere: bool,
    },
}

impl Branch {
    /// Reads a row of a server that had replayed up to `at` before it was asked.
    ///
    /// # Errors
    /// When a position in it is none.
    pub fn from_row(row: BranchRow, at: Lsn) -> Result<Self, LsnError> {
        let (epoch, timeline, ends, proven, forgotten, elsewhere, latest) = row;
        let named = |timeline: i32| Timeline(timeline.unsigned_abs());
        let lsn = |text: Option<String>| text.map(|text| text.parse()).transpose();
        let known = match timeline.map(named) {
            Some(timeline) => {
                BranchKnown::Held { timeline, ends: lsn(ends)?, proven: lsn(proven)? }
            }
            None if elsewhere => BranchKnown::Elsewhere { elsewhere },
            None => BranchKnown::Absent {
                absent_at: at,
                forgotten: lsn(forgotten)?,
                latest: latest.map(named),
            },
        };
        Ok(Self { epoch: Epoch(epoch), known })
    }
}
