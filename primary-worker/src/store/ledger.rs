//! `farwrite.ledger`: how commands ended, by day.

use std::{collections::HashMap, time::Duration};

use farwrite_schemas::{CommandId, OUTCOMES_QUERY, OutcomeRow, Recorded};
use sqlx::{PgConnection, types::Uuid};
use tracing::warn;

/// Makes the days from as far back as an id can come again to two days ahead. Answers how many were
/// made. How far back is counted from what is not settled yet.
pub(crate) async fn make_days(
    connection: &mut PgConnection,
    keep: Duration,
) -> Result<i32, sqlx::Error> {
    sqlx::query_scalar(
        "SELECT farwrite.make_ledger_days(
             least(now(), (SELECT min(low_water_at) FROM farwrite.streams), (SELECT to_timestamp(min(published_at) / 1e9) FROM farwrite.parked)) - make_interval(secs => $1),
             now() + interval '2 days')",
    )
    .bind(keep.as_secs_f64())
    .fetch_one(connection)
    .await
}

/// Drops the days before that. Answers how many.
pub(crate) async fn drop_days(
    connection: &mut PgConnection,
    keep: Duration,
) -> Result<i32, sqlx::Error> {
    sqlx::query_scalar(
        "SELECT farwrite.drop_ledger_days(
             least(now(), (SELECT min(low_water_at) FROM farwrite.streams), (SELECT to_timestamp(min(published_at) / 1e9) FROM farwrite.parked)) - make_interval(secs => $1))",
    )
    .bind(keep.as_secs_f64())
    .fetch_one(connection)
    .await
}

/// What is known of these commands; a command of which nothing is known is left out.
pub(crate) async fn recorded(
    connection: &mut PgConnection,
    ids: &[Uuid],
) -> Result<HashMap<CommandId, Recorded>, sqlx::Error> {
    let rows: Vec<OutcomeRow> =
        sqlx::query_as(OUTCOMES_QUERY).bind(ids).fetch_all(connection).await?;
    let mut known = HashMap::with_capacity(rows.len());
    for row in rows {
        let id = row.0;
        match Recorded::from_row(row) {
            Ok(recorded) => {
                known.insert(recorded.id, recorded);
            }
            Err(error) => warn!(%id, %error, "what is known of a command cannot be read"),
        }
    }
    Ok(known)
}
