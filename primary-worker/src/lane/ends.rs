//! What ends a lane: failures that are no command's, as ends of the service.

use tracing::info;

use crate::{
    apply::failure::{FailedCommand, Failure},
    life::end::{ServingEnd, WorkerError},
};

/// The database failed where no command ran.
pub(super) fn unavailable(error: sqlx::Error) -> ServingEnd {
    ServingEnd::again(error)
}

/// A failure ends the lane.
pub(super) fn end_of(failure: Failure) -> ServingEnd {
    match failure {
        Failure::Fenced => ServingEnd::Taken,
        Failure::Unavailable { reason, blame, .. } => {
            ServingEnd::Again { reason: reason.message, blame }
        }
        Failure::TransactionEnded(reason) => ServingEnd::Fatal(WorkerError::Broken(reason)),
        Failure::Full => ServingEnd::again("the lane's key queues changed"),
        Failure::Command(FailedCommand { rejection, .. }) => {
            info!(code = rejection.code, "the fence failed");
            ServingEnd::again(rejection)
        }
    }
}
