//! What was seen of the replica while a caller waited in vain.
//!
//! "It timed out" helps nobody. A caller wants to know how far the replica had come, and whether it
//! was heard at all.

use std::{fmt, sync::Arc, time::Duration};

use farwrite_schemas::{Lsn, Timeline};

use super::doubt::Doubt;

/// What was seen of the replica by the time that a wait ended in vain.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct WaitReport {
    /// The furthest position seen on the present start of the server; `None` when none was, or
    /// when the connection was lost since.
    pub reached: Option<Lsn>,
    /// Bytes of log from `reached` to what was waited for.
    pub missing_bytes: Option<u64>,
    /// How long the caller waited.
    pub waited: Duration,
    /// Answers of the replica (or of the region's watcher) during the wait.
    pub answers: u64,
    /// How long ago the last answer came, whenever that was; `None` when there never was one.
    pub heard_ago: Option<Duration>,
    /// The timeline that the server was on, where it tells.
    pub timeline: Option<Timeline>,
    /// Why the position, though it may be reached, could not be told to be on its branch.
    pub doubt: Option<Doubt>,
    /// Why the server's history could not be read.
    pub unreadable: Option<Arc<str>>,
}

impl fmt::Display for WaitReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.reached, self.missing_bytes) {
            (Some(reached), Some(missing)) => write!(f, "seen {reached}, {missing} bytes short")?,
            _ => write!(f, "no position seen")?,
        }
        write!(f, "; waited {:?}, {} answers", self.waited, self.answers)?;
        match self.heard_ago {
            Some(ago) => write!(f, ", the last one {ago:?} ago")?,
            None => write!(f, ", never heard")?,
        }
        if let Some(timeline) = self.timeline {
            write!(f, ", on timeline {}", timeline.0)?;
        }
        if let Some(doubt) = self.doubt {
            write!(f, "; {doubt}")?;
        }
        match &self.unreadable {
            Some(why) => write!(f, "; its history cannot be read: {why}"),
            None => Ok(()),
        }
    }
}
