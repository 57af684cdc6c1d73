//! The bounds of a board.

use std::time::Duration;

/// The bounds of a board.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BoardLimits {
    pub(crate) max_waiters: usize,
    /// How old a mark may be that answers a caller who came after it.
    pub(crate) fresh_for: Duration,
    /// After what silence a mark says nothing about its successor.
    pub(crate) forget_after: Duration,
    /// How long a question may stay unanswered before the replica counts as gone.
    pub(crate) answer_within: Duration,
}
