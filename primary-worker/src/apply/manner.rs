//! How an attempt at a batch is made: data, and nothing else.

use std::time::Duration;

/// Commands that share a subtransaction of a guarded batch: fewer after failures, more only where the
/// batch is large.
pub(crate) const GROUP: i32 = 8;
/// Commands in one staged transaction with savepoints, one for each at most: more than 64 slow
/// down every snapshot, on standbys too.
pub(crate) const GUARDED_MAX: usize = 60;
/// How carefully an attempt is made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Care {
    /// Without subtransactions: the first command that fails fails the batch.
    Plain,
    /// With subtransactions: a command's own fault becomes its rejection.
    Guarded,
}

/// How much may wait.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    /// In the lane.
    pub(crate) parked_max: u64,
    /// In one key queue.
    pub(crate) key_queue_max: u64,
}

/// How an attempt is made.
#[derive(Clone, Copy)]
pub(crate) struct Manner {
    pub(crate) care: Care,
    /// Whether something of the lane is known to wait.
    pub(crate) staged: bool,
    pub(crate) bounds: Bounds,
    pub(crate) statement_timeout: Duration,
}
