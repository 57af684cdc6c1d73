//! How one attempt to publish can fail, and what follows from it.
//!
//! Two questions are asked of every failure: may the message have been stored all the same, and is
//! it worth sending again? One pure function answers both, [`AttemptFailure::verdict`]. A retry
//! carries the same id, so that sending again is always safe. It is pointless where the answer would
//! be the same.

use async_nats::Subject;

use crate::journal::Unjournaled;

/// An attempt ended without the message being acknowledged.
#[derive(Clone, Debug)]
pub(crate) enum AttemptFailure {
    /// The client is not connected: nothing was sent.
    NotConnected,
    /// The client's own queue stayed full: nothing was sent.
    NotSent,
    /// The client was closed and never comes back: nothing was sent.
    Closed,
    /// It was sent, and no answer came in time.
    Unanswered,
    /// An answer came that cannot be read.
    Garbled,
    /// No stream listens to the subject.
    NoStream,
    /// The server takes no message of this size; `limit_bytes` is its limit with headers.
    OverServerLimit { limit_bytes: usize },
    /// The server does not let this connection publish to the subject.
    Denied,
    /// The server does not let this connection listen to its own inbox, so that no answer can
    /// come. `sent` says whether the message went out before that was known.
    Deaf { inbox: Subject, sent: bool },
    /// The stream refused it.
    Refused(Refusal),
    /// It could not be written down in the journal first: nothing was sent.
    Unjournaled(Unjournaled),
}

/// The stream's own words for not storing a message.
#[derive(Clone, Debug)]
pub(crate) struct Refusal {
    pub(crate) reason: Reason,
    pub(crate) code: u64,
    pub(crate) description: String,
}

/// What a refusal means for the next attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reason {
    /// The stream holds as much as it may, and discards new messages.
    Full,
    /// The stream's limit for one message.
    TooLarge,
    /// The server or its disk has a bad time; it says so itself.
    Unavailable,
    /// The same id is being stored at this moment: the answer to the other copy decides.
    BeingStored,
    /// Anything else, for example a stream that is sealed.
    Other,
}

/// What follows from a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FailureVerdict {
    /// Whether the same message may be sent again with another result.
    pub(crate) again: bool,
    /// Whether this attempt may have stored the message all the same.
    pub(crate) maybe_stored: bool,
    /// Whether the server has spoken about this very message: then no copy sent before it is
    /// still under way, and the key's order is safe.
    pub(crate) settled: bool,
}

const AGAIN: FailureVerdict = FailureVerdict { again: true, maybe_stored: false, settled: false };
const IN_DOUBT: FailureVerdict = FailureVerdict { again: true, maybe_stored: true, settled: false };
const FINAL: FailureVerdict = FailureVerdict { again: false, maybe_stored: false, settled: true };
const HOPELESS: FailureVerdict =
    FailureVerdict { again: false, maybe_stored: false, settled: false };

impl AttemptFailure {
    /// What follows. No wildcard: a new failure must be judged.
    pub(crate) fn verdict(&self) -> FailureVerdict {
        match self {
            Self::NotConnected | Self::NotSent | Self::NoStream => AGAIN,
            Self::Unanswered | Self::Garbled => IN_DOUBT,
            Self::Closed | Self::Unjournaled(_) => HOPELESS,
            Self::Deaf { sent, .. } => FailureVerdict { maybe_stored: *sent, ..HOPELESS },
            Self::OverServerLimit { .. } | Self::Denied => FINAL,
            Self::Refused(refusal) => match refusal.reason {
                Reason::Full | Reason::Unavailable => AGAIN,
                Reason::BeingStored => IN_DOUBT,
                Reason::TooLarge | Reason::Other => FINAL,
            },
        }
    }

    /// As a metric's label.
    pub(crate) const fn as_str(&self) -> &'static str {
        match self {
            Self::NotConnected => "not_connected",
            Self::NotSent => "not_sent",
            Self::Closed => "closed",
            Self::Unanswered => "unanswered",
            Self::Garbled => "garbled",
            Self::NoStream => "no_stream",
            Self::OverServerLimit { .. } => "too_large",
            Self::Unjournaled(_) => "unjournaled",
            Self::Denied | Self::Deaf { .. } => "not_permitted",
            Self::Refused(refusal) => match refusal.reason {
                Reason::Full => "full",
                Reason::TooLarge => "too_large",
                Reason::Unavailable => "unavailable",
                Reason::BeingStored => "being_stored",
                Reason::Other => "refused",
            },
        }
    }
}
