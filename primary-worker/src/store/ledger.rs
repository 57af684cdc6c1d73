//! `farwrite.ledger`: how commands ended, by day.

use std::{collections::HashMap, time::Duration};

use farwrite_schemas::{CommandId, OUTCOMES_QUERY, OutcomeRow, Recorded};
use sqlx::{PgConnection, types::Uuid};
use tracing::warn;

/// SQL: as far back as an id may come again, or an operator may put one back. Counted from what is not
/// settled yet; $1 is how long the ledger keeps an outcome, in seconds.
macro_rules! needed_from {
    () => {
        "least(now(), (SELECT min(low_water_at) FROM farwrite.streams),
             (SELECT to_timestamp(min(published_at) / 1e9) FROM farwrite.parked),
             (SELECT min(published_at) FROM farwrite.dead_letters)) - make_interval(secs => $1)"
    };
}

/// Makes the days from as far back as an id can come again to two days ahead. Answers how many were
/// made.
pub(crate) async fn make_days(
    connection: &mut PgConnection,
    keep: Duration,
) -> Result<i32, sqlx::Error> {
    sqlx::query_scalar(concat!(
        "SELECT farwrite.make_ledger_days(",
        needed_from!(),
        ", now() + interval '2 days')"
    ))
    .bind(keep.as_secs_f64())
    .fetch_one(connection)
    .await
}

/// Drops the days before that. Answers how many.
pub(crate) async fn drop_days(
    connection: &mut PgConnection,
    keep: Duration,
) -> Result<i32, sqlx::Error> {
    sqlx::query_scalar(concat!("SELECT farwrite.drop_ledger_days(", needed_from!(), ")"))
        .bind(keep.as_secs_f64())
        .fetch_one(connection)
        .await
}

/// Since when the ledger knows every command, by the time of its id, in Unix milliseconds.
pub(crate) async fn horizon_ms(connection: &mut PgConnection) -> Result<i64, sqlx::Error> {
    let sql =
        "SELECT coalesce((extract(epoch FROM nullif(known_from, '-infinity')) * 1000)::bigint, 0)
               FROM farwrite.ledger_horizon";
    sqlx::query_scalar(sql).fetch_one(connection).await
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
