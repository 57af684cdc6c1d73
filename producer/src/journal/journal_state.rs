//! What a journal holds at a moment, as the app sees it.

use std::fmt;

/// What a journal holds at a moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct JournalState {
    /// Commands that were sent and whose outcome is not known here.
    pub commands: usize,
    /// Bytes that count against [`JournalLimits::max_bytes`](crate::JournalLimits::max_bytes).
    pub bytes: usize,
    /// Commands that were found in the file when it was opened.
    pub recovered: usize,
    /// Bytes at the end of the file that were no whole record when it was opened: what a crash
    /// interrupted. It was not published, unless the machine crashed (see [`FileSync`](crate::FileSync)).
    pub torn_bytes: u64,
    /// Bytes before others that are whole, and that could not be read: the file was damaged. They
    /// may have held commands.
    pub damaged_bytes: u64,
}

impl fmt::Display for JournalState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} commands, {} bytes", self.commands, self.bytes)
    }
}
