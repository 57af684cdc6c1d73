//! Batches straight to the primary: what Farwrite's worker would do if it had nothing else to do.
//!
//! A transaction a batch, with a row for each id, by which a repetition is known, and the app's
//! function called for what is new. The rest of a command's cost is what the stream, the fence and
//! the lane's position, the ledger's outcomes, tidying between commands and the answers take.

use anyhow::{Result, ensure};
use farwrite_primary_worker::Config;
use sqlx::{PgConnection, Postgres};
use uuid::Uuid;

use crate::bench::put::Puts;

/// One batch, as many commands as in the worker's; how many were applied.
pub(super) async fn apply(connection: &mut PgConnection, puts: &mut Puts) -> Result<u64> {
    let ids: Vec<Uuid> = (0..Config::BATCH_MAX_COMMANDS).map(|_| Uuid::now_v7()).collect();
    let bodies = ids.iter().map(|_| serde_json::to_string(&puts.next()));
    store(connection, &ids, &bodies.collect::<Result<Vec<_>, _>>()?).await
}

/// One batch of these, none of which was stored before; how many they are.
pub(super) async fn store<B>(
    connection: &mut PgConnection,
    ids: &[Uuid],
    bodies: &[B],
) -> Result<u64>
where
    for<'b> &'b [B]: sqlx::Encode<'b, Postgres> + sqlx::Type<Postgres>,
{
    let applied: i64 = sqlx::query_scalar(
        "WITH new AS (
             INSERT INTO bench.seen SELECT unnest($1) ON CONFLICT DO NOTHING RETURNING id
         )
         SELECT count(bench.put(body::jsonb)) FROM unnest($1, $2) AS u (id, body) JOIN new USING (id)",
    )
    .bind(ids)
    .bind(bodies)
    .fetch_one(connection)
    .await?;
    ensure!(usize::try_from(applied)? == ids.len(), "{applied} of {} were applied", ids.len());
    Ok(u64::try_from(applied)?)
}
