//! How a call ended, for the script that made it.

use std::process::ExitCode;

/// What the exit status says.
#[derive(Clone, Copy)]
pub(super) enum CallEnd {
    /// As the verb promises.
    Done = 0,
    /// Not accepted, visible or told; it may be tried again with the same id.
    Failed = 1,
    /// The command line, or the command, is not one.
    Unusable = 2,
    /// Rejected, expired or dead-lettered.
    Refused = 3,
    /// The time was up, or the command has not ended.
    OutOfTime = 4,
}

impl From<CallEnd> for ExitCode {
    fn from(end: CallEnd) -> Self {
        Self::from(end as u8)
    }
}
