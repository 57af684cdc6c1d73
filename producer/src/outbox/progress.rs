//! How far one message has come on its way into the stream.
//!
//! What was learnt lives here, outside of what is timed, so that a deadline never takes it away.

use farwrite_schemas::CommandId;

use crate::{journal::JournalHold, outbox::failure::AttemptFailure};

/// How far a message has come.
#[derive(Debug, Default)]
pub(crate) struct PublishProgress {
    pub(crate) stage: PublishStage,
    pub(crate) tries: Tries,
    /// Its hold on the journal, where there is one.
    pub(crate) kept: Option<JournalHold>,
}

impl PublishProgress {
    /// Of a message that is in the journal already.
    pub(crate) fn of_kept(kept: JournalHold) -> Self {
        Self { stage: PublishStage::default(), tries: Tries::default(), kept: Some(kept) }
    }
}

impl Drop for PublishProgress {
    /// A publish that is dropped leaves what was sent in the journal, and nothing else.
    fn drop(&mut self) {
        if self.tries.in_doubt()
            && let Some(kept) = self.kept.take()
        {
            kept.in_doubt();
        }
    }
}

/// What a publish is doing.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) enum PublishStage {
    /// An earlier call of its key is not over.
    #[default]
    Queued,
    /// The message that blocks its key is being sent again.
    Resolving(CommandId),
    /// Its own attempts.
    Sending,
}

/// What the attempts at one message have taught.
#[derive(Debug, Default)]
pub(crate) struct Tries {
    /// An attempt is out and has not been answered.
    pub(super) is_out: bool,
    /// An attempt may have stored the message.
    pub(super) maybe_stored: bool,
    /// How the last attempt that is over failed.
    pub(super) last: Option<AttemptFailure>,
}

impl Tries {
    /// Whether the message may have been stored.
    pub(crate) const fn in_doubt(&self) -> bool {
        self.is_out || self.maybe_stored
    }
}

/// Whether a message may be in the stream already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Attempted {
    Never,
    Before,
}

/// Why no acknowledgement came.
#[derive(Debug)]
pub(crate) enum Unsent {
    /// The time is up.
    OutOfTime,
    /// An attempt failed in a way that another one would repeat.
    Final(AttemptFailure),
}
