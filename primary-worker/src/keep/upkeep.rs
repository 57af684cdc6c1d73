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
    stream::StreamError,
    verdict::{Happened, Verdict},
};

use super::{
    hints::{self, Keeper},
    trim::Trimmer,
};

/// Every how many rounds the low-water mark is written: about five seconds.
const LOW_WATER_EVERY: u32 = 5;
/// Every how many rounds the stream is trimmed: about five seconds.
const TRIM_EVERY: u32 = 5;
/// Every how many rounds the ledger's days are looked at: about ten minutes.
const DAYS_EVERY: u32 = 600;

/// Makes the days that the first batches may need. Runs before anything is read.
pub(crate) async fn prepare(
    connection: &mut PgConnection,
    stream: &async_nats::jetstream::stream::Stream,
    stream_id: i32,
    config: &Config,
) -> Result<(), StreamError> {
    let info = stream.get_info().await.map_err(|error| StreamError::JetStream {
        stream: config.stream.clone(),
        reason: error.to_string(),
    })?;
    // A stream that was never applied from begins with its first message, however old.
    let oldest =
        (info.state.messages > 0).then(|| info.state.first_timestamp.unix_timestamp() as f64);
    sqlx::query("UPDATE farwrite.streams SET low_water_at = to_timestamp($2) WHERE stream_id = $1 AND low_water_at IS NULL")
        .bind(stream_id)
        .bind(oldest)
        .execute(&mut *connection)
        .await?;
    make_days(connection, config).await?;
    Ok(())
}

/// Keeps house until the database fails.
pub(crate) async fn run(
    mut connection: PgConnection,
    config: &Config,
    mut keeper: Keeper,
    mut trimmer: Trimmer,
    takeover: &Takeover,
) -> sqlx::Error {
    let mut rounds: u32 = 0;
    loop {
        tokio::time::sleep(hints::EVERY).await;
        rounds = rounds.wrapping_add(1);
        let hinted = keeper.tick(&mut connection, takeover.stream_id).await;
        let kept = async {
            hinted?;
            let now = rounds.is_multiple_of(TRIM_EVERY);
            trimmer.tick(&mut connection, takeover, &keeper, now).await?;
            keep_house(&mut connection, config, rounds).await
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
    rounds: u32,
) -> Result<(), sqlx::Error> {
    if rounds.is_multiple_of(LOW_WATER_EVERY) {
        write_low_water(connection).await?;
    }
    if rounds.is_multiple_of(DAYS_EVERY) {
        make_days(connection, config).await?;
        drop_days(connection, config).await?;
    }
    Ok(())
}

/// The lowest position of a stream's lanes, and the time of the message there: everything that is
/// not settled is younger. Writes nothing when nothing moved, so that an idle database stays idle.
async fn write_low_water(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    sqlx::query(
        "UPDATE farwrite.streams s
         SET low_water = l.sequence, low_water_at = coalesce(to_timestamp(l.sequence_at / 1e9), s.low_water_at)
         FROM (SELECT DISTINCT ON (stream_id) stream_id, sequence, sequence_at
               FROM farwrite.lanes ORDER BY stream_id, sequence) l
         WHERE l.stream_id = s.stream_id AND s.low_water < l.sequence",
    )
    .execute(connection)
    .await?;
    Ok(())
}

async fn make_days(connection: &mut PgConnection, config: &Config) -> Result<(), sqlx::Error> {
    let made: i32 = sqlx::query_scalar(
        "SELECT farwrite.make_ledger_days(
             least(now(), (SELECT min(low_water_at) FROM farwrite.streams), (SELECT to_timestamp(min(published_at) / 1e9) FROM farwrite.parked)) - make_interval(secs => $1),
             now() + interval '2 days')",
    )
    .bind(config.ledger_keep.as_secs_f64())
    .fetch_one(connection)
    .await?;
    if made > 0 {
        info!(made, "the ledger has new days");
    }
    Ok(())
}

async fn drop_days(connection: &mut PgConnection, config: &Config) -> Result<(), sqlx::Error> {
    let dropped: i32 = sqlx::query_scalar(
        "SELECT farwrite.drop_ledger_days(
             least(now(), (SELECT min(low_water_at) FROM farwrite.streams), (SELECT to_timestamp(min(published_at) / 1e9) FROM farwrite.parked)) - make_interval(secs => $1))",
    )
    .bind(config.ledger_keep.as_secs_f64())
    .fetch_one(connection)
    .await?;
    if dropped > 0 {
        info!(dropped, "days of the ledger that are older than it keeps are dropped");
    }
    Ok(())
}
