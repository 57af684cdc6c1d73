//! `farwrite.history`: the takeovers of this database, and of the branches that it comes from.

use farwrite_schemas::{Epoch, Timeline};
use sqlx::PgConnection;

/// Whether this server's history holds a takeover.
pub(crate) async fn holds(
    connection: &mut PgConnection,
    epoch: Epoch,
) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar("SELECT EXISTS (SELECT FROM farwrite.history WHERE epoch = $1)")
        .bind(epoch.0)
        .fetch_one(connection)
        .await
}

/// Whether a takeover of this database was on this timeline.
pub(crate) async fn was_on(
    connection: &mut PgConnection,
    epoch: Epoch,
    timeline: Timeline,
) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar(
        "SELECT EXISTS (SELECT FROM farwrite.history
                        WHERE epoch = $1 AND timeline = $2 AND identity = (SELECT farwrite.identity()))",
    )
    .bind(epoch.0)
    .bind(timeline.0.cast_signed())
    .fetch_one(connection)
    .await
}

/// Writes a takeover down: what came before it, and how far the log was flushed then.
pub(crate) async fn begin_epoch(
    connection: &mut PgConnection,
    epoch: Epoch,
    before: Option<Epoch>,
    flushed_lsn: Option<&str>,
    timeline: Timeline,
) -> Result<(), sqlx::Error> {
    sqlx::query("SELECT farwrite.begin_epoch($1, $2, $3::pg_lsn, $4)")
        .bind(epoch.0)
        .bind(before.map(|epoch| epoch.0))
        .bind(flushed_lsn)
        .bind(timeline.0.cast_signed())
        .execute(connection)
        .await
        .map(drop)
}
