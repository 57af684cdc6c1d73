//! A stream that was found changed is refused from then on: that is written down in the database.
//!
//! What was found may be covered up later: sequences that were lost are used again, and another worker
//! would find messages where it looks for them. So the finding outlives the worker that made it, until
//! an operator decides (`adopt`). What was found first stays.
//!
//! Only who may own the database writes: a worker that was started beside the owner, with another
//! broker's URL perhaps, must not stop it.

use std::time::Duration;

use farwrite_schemas::Epoch;
use tokio::time::{sleep, timeout};
use tracing::{error, warn};

use crate::{
    config::Config,
    primary::{self, PrimaryError, Purpose},
    store::{owner, streams},
    stream::error::StreamError,
};

use super::end::WorkerError;

/// How long writing it down is tried: the primary may be away as well.
const WITHIN: Duration = Duration::from_secs(10);
/// The pause before it is tried again.
const AGAIN_AFTER: Duration = Duration::from_millis(500);

/// Writes down why a worker ends, where that is its stream's change.
pub(crate) async fn write_down(config: &Config, mine: Option<Epoch>, end: &WorkerError) {
    let WorkerError::Stream(StreamError::Changed { stream, reason }) = end else { return };
    let writing = async {
        while let Err(error) = write(config, mine, stream, reason).await {
            warn!(%error, "that the stream is refused is not written down yet");
            sleep(AGAIN_AFTER).await;
        }
    };
    if timeout(WITHIN, writing).await.is_err() {
        error!(
            stream,
            "that the stream is refused could not be written down: start no worker before the stream is adopted"
        );
    }
}

async fn write(
    config: &Config,
    mine: Option<Epoch>,
    stream: &str,
    reason: &str,
) -> Result<(), PrimaryError> {
    let within = config.statement_timeout;
    let (_, mut connection) =
        primary::find(&config.database_url, within, &Purpose::Control).await?;
    let owner = owner::state(&mut connection).await?;
    if owner.liveness.is_free() || (mine.is_some() && owner.epoch == mine) {
        streams::refuse(&mut connection, stream, reason).await?;
    } else {
        warn!(
            worker = owner.worker,
            "another worker owns this database: it judges the stream itself"
        );
    }
    Ok(())
}
