//! What must be done from time to time: hints, trimming, the low-water mark, the ledger's days.
//!
//! The ledger's partitions reach from as far back as an id can come again to two days ahead. How
//! far back is counted from what is not settled yet, and not from now: a worker that was away for
//! ten days finds the days that it needs.

use sqlx::PgConnection;
use tracing::{info, warn};

use crate::{
    config::Config,
    life::takeover::Takeover,
    memory::Memory,
    store::{ledger, streams},
    stream::error::StreamError,
    verdict::{Happened, Verdict},
};

use super::{
    keeper::{self, HintKeeper},
    stream_watch::StreamWatch,
    trim::Trimmer,
};

/// Every how many rounds the low-water mark is written: about five seconds.
const LOW_WATER_EVERY: u32 = 5;
/// Every how many rounds the stream is trimmed: about five seconds.
const TRIM_EVERY: u32 = 5;
/// Every how many rounds the stream's settings and size are looked at: about two seconds.
const WATCH_EVERY: u32 = 2;
/// Every how many rounds the ledger's days are looked at: about ten minutes.
const DAYS_EVERY: u32 = 600;

/// Makes the days that the first batches may need. Runs before anything is read.
pub(crate) async fn prepare(
    connection: &mut PgConnection,
    stream: &async_nats::jetstream::stream::Stream,
    takeover: &Takeover,
    config: &Config,
) -> Result<(), StreamError> {
    let info = stream.get_info().await.map_err(|error| StreamError::JetStream {
        stream: config.stream.clone(),
        reason: error.to_string(),
    })?;
    // A stream that was never applied from begins with its first message, however old.
    let oldest =
        (info.state.messages > 0).then(|| info.state.first_timestamp.unix_timestamp() as f64);
    streams::begin_low_water(connection, takeover.stream_id, oldest).await?;
    make_days(connection, config).await?;
    takeover.horizon.read(connection).await?;
    Ok(())
}

/// Keeps house until the database fails.
pub(crate) async fn run(
    mut connection: PgConnection,
    config: &Config,
    mut keeper: HintKeeper,
    mut trimmer: Trimmer,
    mut watch: StreamWatch,
    takeover: &Takeover,
    memory: &Memory,
) -> sqlx::Error {
    let mut rounds: u32 = 0;
    loop {
        tokio::time::sleep(keeper::EVERY).await;
        rounds = rounds.wrapping_add(1);
        memory.report();
        if rounds.is_multiple_of(WATCH_EVERY) {
            watch.tick(config).await;
        }
        let hinted = keeper.tick(&mut connection, takeover.stream_id).await;
        let kept = async {
            hinted?;
            let now = rounds.is_multiple_of(TRIM_EVERY);
            trimmer.tick(&mut connection, takeover, &keeper, now).await?;
            keep_house(&mut connection, config, takeover, rounds).await
        };
        let kept = kept.await;
        if let Err(error) = kept {
            // Somebody holds a lock on the ledger: there is time until the next round.
            if Happened::of(&error).verdict() == Verdict::Retry {
                warn!(%error, "upkeep is put off");
            } else {
                return error;
            }
        }
    }
}

async fn keep_house(
    connection: &mut PgConnection,
    config: &Config,
    takeover: &Takeover,
    rounds: u32,
) -> Result<(), sqlx::Error> {
    if rounds.is_multiple_of(LOW_WATER_EVERY) {
        streams::write_low_water(connection).await?;
    }
    if rounds.is_multiple_of(DAYS_EVERY) {
        make_days(connection, config).await?;
        drop_days(connection, config).await?;
        takeover.horizon.read(connection).await?;
    }
    Ok(())
}

async fn make_days(connection: &mut PgConnection, config: &Config) -> Result<(), sqlx::Error> {
    let made = ledger::make_days(connection, config.ledger_keep).await?;
    if made > 0 {
        info!(made, "the ledger has new days");
    }
    Ok(())
}

async fn drop_days(connection: &mut PgConnection, config: &Config) -> Result<(), sqlx::Error> {
    let dropped = ledger::drop_days(connection, config.ledger_keep).await?;
    if dropped > 0 {
        info!(dropped, "days of the ledger that are older than it keeps are dropped");
    }
    Ok(())
}
