//! Batches straight to the primary: what Farwrite's worker would do if it had nothing else to do.
//!
//! A transaction a batch, with a row for each id, by which a repetition is known, and the app's
//! function called for what is new. The rest of a command's cost is the stream, the fence, the
//! lane's position, the ledger's outcomes, tidying between commands, and the answers.

use anyhow::{Result, ensure};
use farwrite_primary_worker::Config;
use sqlx::PgConnection;
use uuid::Uuid;

use crate::bench::put::Puts;

/// One batch, as many commands as in the worker's; how many were applied.
pub(super) async fn apply(connection: &mut PgConnection, puts: &mut Puts) -> Result<u64> {
    let ids: Vec<Uuid> = (0..Config::BATCH_MAX_COMMANDS).map(|_| Uuid::now_v7()).collect();
    let bodies = ids.iter().map(|_| serde_json::to_vec(&puts.next()));
    store(connection, &ids, &bodies.collect::<Result<Vec<_>, _>>()?).await
}

/// Stores one batch of new ids; how many were stored. Bodies travel as one value, as the worker's
/// do: PostgreSQL copies the elements of an array.
pub(super) async fn store(
    connection: &mut PgConnection,
    ids: &[Uuid],
    bodies: &[impl AsRef<[u8]>],
) -> Result<u64> {
    let (mut starts, mut all) = (vec![1_i32], Vec::new());
    for body in bodies {
        all.extend_from_slice(body.as_ref());
        starts.push(i32::try_from(all.len() + 1)?);
    }
    let applied: i64 = sqlx::query_scalar(
        "WITH new AS (
             INSERT INTO bench.seen SELECT unnest($1) ON CONFLICT DO NOTHING RETURNING id
         )
         SELECT count(bench.put(convert_from(substring($2, $3[n], $3[n + 1] - $3[n]), 'UTF8')::jsonb))
         FROM unnest($1) WITH ORDINALITY AS u (id, n) JOIN new USING (id)",
    )
    .bind(ids)
    .bind(all)
    .bind(starts)
    .fetch_one(connection)
    .await?;
    ensure!(usize::try_from(applied)? == ids.len(), "{applied} of {} were applied", ids.len());
    Ok(u64::try_from(applied)?)
}
