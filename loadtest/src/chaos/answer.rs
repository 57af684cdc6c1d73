//! What the caller of a command was told, as the history has it.

use farwrite_checker::CommandEnd;
use farwrite_producer::{
    Bookmark, Committed, Known, PublishError, SubmitError, Visible, WriteError,
};

/// What a call told.
pub(super) struct CallAnswer {
    pub(super) end: CommandEnd,
    pub(super) visible: bool,
    pub(super) bookmark: Option<Bookmark>,
}

impl CallAnswer {
    pub(super) const fn only(end: CommandEnd) -> Self {
        Self { end, visible: false, bookmark: None }
    }

    fn with(end: CommandEnd, bookmark: Bookmark) -> Self {
        Self { end, visible: false, bookmark: Some(bookmark) }
    }

    pub(super) fn published(result: Result<(), PublishError>) -> Self {
        Self::only(match result {
            Ok(()) => CommandEnd::Accepted,
            Err(error) => match error.known() {
                Known::NotAccepted => CommandEnd::Refused,
                Known::MaybeAccepted => CommandEnd::Unknown,
            },
        })
    }

    pub(super) fn submitted<T>(result: Result<Committed<T>, SubmitError>) -> Self {
        match result {
            Ok(committed) => Self::with(CommandEnd::Applied, committed.bookmark),
            Err(error) => Self::not_submitted(error),
        }
    }

    pub(super) fn written<T>(result: Result<Visible<T>, WriteError<T>>) -> Self {
        match result {
            Ok(done) => Self { visible: true, ..Self::with(CommandEnd::Applied, done.bookmark) },
            Err(WriteError::NotVisible { committed, .. }) => {
                Self::with(CommandEnd::Applied, committed.bookmark)
            }
            Err(WriteError::NotEverywhere { visible, .. }) => {
                Self::with(CommandEnd::Applied, visible.bookmark)
            }
            Err(WriteError::Submit(error)) => Self::not_submitted(error),
            Err(WriteError::NoReads { .. }) => Self::only(CommandEnd::Refused),
            Err(_) => Self::only(CommandEnd::Unknown),
        }
    }

    fn not_submitted(error: SubmitError) -> Self {
        match error {
            SubmitError::Publish(error) => Self::published(Err(error)),
            SubmitError::TimedOut { .. } => Self::only(CommandEnd::Accepted),
            SubmitError::Rejected { bookmark, .. } => Self::with(CommandEnd::Rejected, bookmark),
            SubmitError::Expired { bookmark, .. } => Self::with(CommandEnd::Expired, bookmark),
            SubmitError::DeadLettered { bookmark, .. } => {
                Self::with(CommandEnd::DeadLettered, bookmark)
            }
            SubmitError::OutputNotRead { bookmark, .. } | SubmitError::Output { bookmark, .. } => {
                Self::with(CommandEnd::Applied, bookmark)
            }
            _ => Self::only(CommandEnd::Unknown),
        }
    }
}
