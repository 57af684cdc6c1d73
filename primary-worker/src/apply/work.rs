//! How a command that a lane took is applied, or why it is not: data, and little else.

use std::{sync::Arc, time::Duration};

use farwrite_schemas::{DeadLetter, Rejection};

use super::{
    functions::Function,
    handler::AnyHandler,
    members::{Atomic, Refused},
};

/// How a command is applied, or why it is not.
#[derive(Clone)]
pub(crate) enum CommandWork {
    /// By a function of the database.
    Function(Function),
    /// By a Rust handler.
    Handler(Arc<dyn AnyHandler>),
    /// As an atomic batch; `refused` once one of its commands was.
    Atomic { atomic: Arc<Atomic>, refused: Option<Refused> },
    /// Not now: it waits in its key queue.
    Park(Park),
    /// Not: it was found to be its own fault.
    Reject(Rejection),
    /// Not: nobody can. `in_ledger` tells whether the ledger can hold its id.
    DeadLetter { letter: DeadLetter, in_ledger: bool },
}

/// A command's wait.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Park {
    pub(crate) reason: ParkReason,
    /// How long until its key queue is tried; `None` until somebody resumes it.
    pub(crate) wait: Option<Duration>,
    /// What went wrong, for people.
    pub(crate) error: Option<Rejection>,
}

/// Why a command is parked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ParkReason {
    /// Its time has not come: until then it is in no key queue. Unix time in nanoseconds.
    Scheduled { until_ns: i64 },
    /// Another command of its key waits.
    Behind,
    /// An operator has paused its name or its key.
    Paused,
    /// It failed by chance.
    Retry,
    /// No handler or function has its name and version.
    Unknown,
    /// Something that it needs is not there: a table, a function, a privilege.
    NotReady,
    /// It asked to be tried later.
    Later,
}

impl ParkReason {
    /// Its name in the database, in messages and as a metric's label.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Scheduled { .. } => "scheduled",
            Self::Behind => "behind",
            Self::Paused => "paused",
            Self::Retry => "retry",
            Self::Unknown => "unknown_command",
            Self::NotReady => "not_ready",
            Self::Later => "later",
        }
    }
}

impl CommandWork {
    pub(crate) fn dead_letter(reason: &str, message: impl Into<String>, in_ledger: bool) -> Self {
        let letter = DeadLetter { reason: reason.to_owned(), message: message.into() };
        Self::DeadLetter { letter, in_ledger }
    }

    /// Whether it is only to be recorded: nothing of the app's runs (any more).
    pub(crate) fn is_settled(&self) -> bool {
        self.is_ended() || matches!(self, Self::Park(_))
    }

    /// Whether how it ends is decided.
    pub(crate) fn is_ended(&self) -> bool {
        match self {
            Self::Reject(_) | Self::DeadLetter { .. } | Self::Atomic { refused: Some(_), .. } => {
                true
            }
            Self::Function(_)
            | Self::Handler(_)
            | Self::Atomic { refused: None, .. }
            | Self::Park(_) => false,
        }
    }

    /// Whether something of it runs in the worker itself, and not in the database.
    pub(crate) fn runs_in_worker(&self) -> bool {
        match self {
            Self::Handler(_) => true,
            Self::Atomic { atomic, .. } => atomic.has_handler(),
            Self::Function(_) | Self::Reject(_) | Self::DeadLetter { .. } | Self::Park(_) => false,
        }
    }

    /// Whether it wants a transaction of its own.
    pub(crate) fn is_alone(&self) -> bool {
        matches!(self, Self::Function(Function { alone: true, .. }) | Self::Atomic { .. })
    }
}
