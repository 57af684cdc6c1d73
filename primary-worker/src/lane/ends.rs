//! What ends a lane: failures that are no command's, as ends of the service.

use tracing::info;

use crate::{
    apply::failure::{FailedCommand, Failure},
    life::end::{ServiceEnd, WorkerError},
};

/// The database failed where no command ran.
pub(super) fn unavailable(error: sqlx::Error) -> ServiceEnd {
    ServiceEnd::again(error)
}

/// A failure ends the lane.
pub(super) fn end_of(failure: Failure) -> ServiceEnd {
    match failure {
        Failure::Fenced => ServiceEnd::Taken,
        Failure::Unavailable { reason, blames } => ServiceEnd::Again { reason, blames },
        Failure::TransactionEnded(reason) => ServiceEnd::Fatal(WorkerError::Broken(reason)),
        Failure::Full => ServiceEnd::again("the lane's key queues changed"),
        Failure::Command(FailedCommand { rejection, .. }) => {
            info!(code = rejection.code, "the fence failed");
            ServiceEnd::again(rejection)
        }
    }
}
