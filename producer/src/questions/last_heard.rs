//! What the outcome service said last, as errors tell it.

use std::fmt;

use crate::link::question::Unanswered;

/// What the outcome service said last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum LastHeard {
    /// It was not asked yet, or has not answered.
    Nothing,
    /// No worker serves it.
    NoWorker,
    /// The command is not in the ledger yet.
    Pending,
    /// The command is parked: it is scheduled, waits for another try, or stands behind one of its
    /// key that does.
    Parked,
    /// The command has ended, and how is not told yet: it expires, and not every required standby
    /// has its commit.
    Unconfirmed,
    /// It may not be asked, or its answer cannot be read; the log says which.
    Unusable,
}

impl fmt::Display for LastHeard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Nothing => "the outcome service has not answered",
            Self::NoWorker => "no worker answers questions for outcomes",
            Self::Pending => "the worker has not applied it yet",
            Self::Parked => "it is parked: the worker applies it when it is due",
            Self::Unconfirmed => {
                "it has ended, and how is told when every required standby has its commit"
            }
            Self::Unusable => "the outcome service may not be asked, or cannot be understood",
        })
    }
}

impl From<&Unanswered> for LastHeard {
    fn from(unanswered: &Unanswered) -> Self {
        match unanswered {
            Unanswered::NoService => Self::NoWorker,
            Unanswered::NotPermitted(_) | Unanswered::Unreadable => Self::Unusable,
            Unanswered::NotConnected | Unanswered::Closed | Unanswered::Silence => Self::Nothing,
        }
    }
}
