//! What an operator asks for or does, as the flags say it.

use farwrite_schemas::CommandId;

use crate::worker::operate::{Filter, PauseTarget};

/// What an operator asks for or does.
#[derive(Debug)]
pub(super) enum Operation {
    ListDeadLetters(Filter),
    ShowDeadLetters(Filter),
    Requeue { filter: Filter, reason: String },
    Discard { filter: Filter, reason: String },
    ListParked(Filter),
    ShowParked(Filter),
    Release { filter: Filter, reason: String },
    Pause { target: PauseTarget, reason: String },
    Resume { target: PauseTarget },
    Pauses,
    Cancel { id: CommandId, reason: String },
    Find { id: CommandId },
    Status { nats_url: String },
}

impl Operation {
    /// Whether it changes something: on the primary, then.
    pub(super) const fn is_act(&self) -> bool {
        match self {
            Self::Requeue { .. }
            | Self::Discard { .. }
            | Self::Release { .. }
            | Self::Pause { .. }
            | Self::Resume { .. }
            | Self::Cancel { .. } => true,
            Self::ListDeadLetters(_)
            | Self::ShowDeadLetters(_)
            | Self::ListParked(_)
            | Self::ShowParked(_)
            | Self::Pauses
            | Self::Find { .. }
            | Self::Status { .. } => false,
        }
    }
}

/// How an operation ended that did not fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum OperationEnd {
    /// Everything that was asked for.
    Done,
    /// Not all of it, or what was asked for is not there; what was printed says why.
    Partly,
}
