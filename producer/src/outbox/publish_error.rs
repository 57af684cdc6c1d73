//! Why a publish failed, told apart by what there is to do, and what is known all the same.

use std::{fmt, io, sync::Arc};

use farwrite_schemas::{BODY_MAX_BYTES, CommandId};

use crate::outbox::invalid::InvalidCommand;

/// What is known of a command whose publish failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Known {
    /// The stream has not stored what this call sent, if it sent anything, and will not. What an
    /// earlier call under the same id sent this one does not know.
    NotAccepted,
    /// An attempt was sent and not answered: it may be stored, now or a little later. Publish it
    /// again with the same id, or ask for its outcome.
    MaybeAccepted,
}

impl fmt::Display for Known {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotAccepted => "it was not accepted",
            Self::MaybeAccepted => "it may have been accepted: try again with the same id",
        })
    }
}

/// Why a command was not, or not for certain, accepted.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PublishError {
    /// It is no valid command: nothing was sent. Mend the command.
    #[error("the command {id} is not valid: {cause}")]
    Invalid {
        /// The command id.
        id: CommandId,
        /// What is wrong with it.
        cause: InvalidCommand,
    },
    /// Its body is larger than Farwrite, the server or the stream takes. Make it smaller: put the
    /// bulk elsewhere and its address into the command.
    #[error("the command {id} has a body of {bytes} bytes, more than {limit}; {known}")]
    TooLarge {
        /// The command id.
        id: CommandId,
        /// Its body's length.
        bytes: usize,
        /// Whose limit, and how much where that is known.
        limit: SizeLimit,
        /// What is known.
        known: Known,
    },
    /// The connection's credentials do not allow it. Have the subject allowed to this region.
    ///
    /// Told apart on connections that the producer made; with a client that the app brought the
    /// same ends as [`TimedOut`](Self::TimedOut).
    #[error("not permitted to use the subject {subject:?} for the command {id}; {known}")]
    NotPermitted {
        /// The command id.
        id: CommandId,
        /// What is not permitted: publishing to the command's subject, or listening to the inbox.
        subject: String,
        /// What is known.
        known: Known,
    },
    /// No stream listens to the subject, until the deadline. Run `farwrite worker migrate`, or
    /// check the database's name.
    #[error("no stream takes the subject {subject:?} of the command {id}; {known}")]
    UnknownStream {
        /// The command id.
        id: CommandId,
        /// The command's subject.
        subject: String,
        /// What is known.
        known: Known,
    },
    /// The stream is full, until the deadline: the worker does not keep up, or is away. Slow down
    /// and try again later.
    #[error("the queue is full ({description}), the command {id} found no room; {known}")]
    QueueFull {
        /// The command id.
        id: CommandId,
        /// The stream's words.
        description: String,
        /// What is known.
        known: Known,
    },
    /// NATS was not connected when the time was up. Try again with the same id.
    #[error("no connection to NATS for the command {id}; {known}")]
    NoConnection {
        /// The command id.
        id: CommandId,
        /// What is known.
        known: Known,
    },
    /// The time was up. Try again with the same id.
    #[error("the time for publishing the command {id} was up ({waiting}); {known}")]
    TimedOut {
        /// The command id.
        id: CommandId,
        /// What it was waiting for.
        waiting: WaitingFor,
        /// What is known.
        known: Known,
    },
    /// The stream refused it for a reason that waiting does not mend, or said until the deadline
    /// that it is in trouble. The code is JetStream's.
    #[error("the stream refused the command {id} ({code}: {description}); {known}")]
    Refused {
        /// The command id.
        id: CommandId,
        /// JetStream's error code.
        code: u64,
        /// The stream's words.
        description: String,
        /// What is known.
        known: Known,
    },
    /// An earlier publish of its key has an unknown result, and could not be resolved in time.
    /// This command was not sent. Try again later with the same id, or resolve the other.
    #[error(
        "the command {id} was not sent: the command {unresolved} before it, of the same key, is unresolved"
    )]
    KeyBlocked {
        /// The command id.
        id: CommandId,
        /// The command that blocks the key.
        unresolved: CommandId,
    },
    /// As many keys are blocked by unresolved publishes as may be. This command was not sent.
    /// The broker has been away for long: try again when it is back. The producer then sends what
    /// blocks the keys again.
    #[error("the command {id} was not sent: {blocked} keys are blocked by unresolved publishes")]
    TooManyBlockedKeys {
        /// The command id.
        id: CommandId,
        /// How many there are.
        blocked: usize,
    },
    /// As many calls are pending as may be. This command was not sent. Slow down.
    #[error("the command {id} was not sent: {limit} calls are pending, which is the limit")]
    TooManyPending {
        /// The command id.
        id: CommandId,
        /// The limit.
        limit: usize,
    },
    /// The journal holds as much as it may. This command was not sent. Run
    /// [`Producer::reconcile`](crate::Producer::reconcile), which forgets what has ended, or give
    /// the journal more room ([`JournalLimits`](crate::JournalLimits)).
    #[error(
        "the command {id} was not sent: the journal is full with {commands} commands of {bytes} bytes; reconcile, or raise its limits"
    )]
    JournalFull {
        /// The command id.
        id: CommandId,
        /// Commands in the journal.
        commands: usize,
        /// What they take of its limit.
        bytes: usize,
    },
    /// The journal's file cannot be written. This command was not sent. Mend the disk and try
    /// again: the next publish writes the whole file anew.
    #[error("the command {id} was not sent: the journal cannot be written: {cause}")]
    JournalFailed {
        /// The command id.
        id: CommandId,
        /// What the operating system said.
        cause: Arc<io::Error>,
    },
    /// The NATS client was closed for good. Make a new producer.
    #[error("the NATS client was closed, the command {id} was not acknowledged; {known}")]
    Closed {
        /// The command id.
        id: CommandId,
        /// What is known.
        known: Known,
    },
}

/// Whose limit a body exceeds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SizeLimit {
    /// Farwrite's own, [`BODY_MAX_BYTES`].
    Body,
    /// The server's, for headers and body together.
    Server {
        /// The limit, in bytes.
        bytes: usize,
    },
    /// The stream's, which it does not tell.
    Stream,
}

impl fmt::Display for SizeLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Body => write!(f, "the {BODY_MAX_BYTES} bytes that a command may have"),
            Self::Server { bytes } => write!(f, "the server's {bytes} bytes with headers"),
            Self::Stream => f.write_str("the stream's limit for one message"),
        }
    }
}

/// What a publish was waiting for when its time was up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum WaitingFor {
    /// Earlier calls of the same key.
    Turn,
    /// A place among the publishes in flight, or in the client's own queue.
    Slot,
    /// The stream's acknowledgement.
    Acknowledgement,
}

impl fmt::Display for WaitingFor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Turn => "waiting for earlier calls of its key",
            Self::Slot => "waiting for a place among the publishes in flight",
            Self::Acknowledgement => "waiting for the stream's acknowledgement",
        })
    }
}

impl PublishError {
    /// The command id.
    #[must_use]
    pub const fn id(&self) -> CommandId {
        match self {
            Self::Invalid { id, .. }
            | Self::TooLarge { id, .. }
            | Self::NotPermitted { id, .. }
            | Self::UnknownStream { id, .. }
            | Self::QueueFull { id, .. }
            | Self::NoConnection { id, .. }
            | Self::TimedOut { id, .. }
            | Self::Refused { id, .. }
            | Self::KeyBlocked { id, .. }
            | Self::TooManyBlockedKeys { id, .. }
            | Self::TooManyPending { id, .. }
            | Self::JournalFull { id, .. }
            | Self::JournalFailed { id, .. }
            | Self::Closed { id, .. } => *id,
        }
    }

    /// What is known of the command.
    #[must_use]
    pub const fn known(&self) -> Known {
        match self {
            Self::TooLarge { known, .. }
            | Self::NotPermitted { known, .. }
            | Self::UnknownStream { known, .. }
            | Self::QueueFull { known, .. }
            | Self::NoConnection { known, .. }
            | Self::TimedOut { known, .. }
            | Self::Refused { known, .. }
            | Self::Closed { known, .. } => *known,
            Self::Invalid { .. }
            | Self::KeyBlocked { .. }
            | Self::TooManyBlockedKeys { .. }
            | Self::TooManyPending { .. }
            | Self::JournalFull { .. }
            | Self::JournalFailed { .. } => Known::NotAccepted,
        }
    }

    /// As a metric's label.
    pub(crate) const fn as_str(&self) -> &'static str {
        match self {
            Self::Invalid { .. } => "invalid",
            Self::TooLarge { .. } => "too_large",
            Self::NotPermitted { .. } => "not_permitted",
            Self::UnknownStream { .. } => "unknown_stream",
            Self::QueueFull { .. } => "queue_full",
            Self::NoConnection { .. } => "no_connection",
            Self::TimedOut { .. } => "timed_out",
            Self::Refused { .. } => "refused",
            Self::KeyBlocked { .. } => "key_blocked",
            Self::TooManyBlockedKeys { .. } => "too_many_blocked_keys",
            Self::TooManyPending { .. } => "too_many_pending",
            Self::JournalFull { .. } => "journal_full",
            Self::JournalFailed { .. } => "journal_failed",
            Self::Closed { .. } => "closed",
        }
    }
}
