//! A server that can be asked how far it has come, and what it answers.

use std::{future::Future, sync::Arc};

use farwrite_schemas::{Branch, Epoch, IdentityDigest, Lsn, ReplicaProgress, Timeline};

use crate::answer::GoneReason;

/// What a server said of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ServerReport {
    /// How far it has replayed, or how far it shows its own commits when it is no replica; `None` on
    /// a replica that has replayed nothing, and on a primary that has shown nothing yet.
    pub(crate) replayed: Option<Lsn>,
    /// The timeline that it was on after `replayed` was read, where it tells.
    pub(crate) timeline: Option<Timeline>,
    /// `pg_postmaster_start_time()` in microseconds since 1970.
    pub(crate) server_start_us: i64,
    pub(crate) in_recovery: bool,
    /// Which database it shows, if it has one of its own and tells.
    pub(crate) identity: Option<IdentityDigest>,
}

impl From<ServerReport> for ReplicaProgress {
    fn from(report: ServerReport) -> Self {
        let ServerReport { replayed, timeline, server_start_us, in_recovery, identity } = report;
        let (branches, unreadable) = (Vec::new(), None);
        Self { replayed, server_start_us, in_recovery, timeline, identity, branches, unreadable }
    }
}

/// What a server's history says of the epochs that it was asked about.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct HistoryAnswer {
    pub(crate) branches: Vec<Branch>,
    /// Why the history could not be read.
    pub(crate) unreadable: Option<Arc<str>>,
}

/// A server that the poll loop asks.
pub(crate) trait PolledServer: Send {
    /// Asks once, over a new connection if there is none. After an error there is none.
    fn ask(&mut self) -> impl Future<Output = Result<ServerReport, GoneReason>> + Send;
    /// Asks what its history says of some epochs, having replayed up to `at`.
    fn history(
        &mut self,
        epochs: &[Epoch],
        at: Lsn,
    ) -> impl Future<Output = Result<HistoryAnswer, GoneReason>> + Send;
}
