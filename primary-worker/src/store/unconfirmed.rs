//! `farwrite.unconfirmed`: outcomes that are not told yet, since not every required standby has them.

use sqlx::{PgConnection, types::Uuid};

/// Some of them, at most so many.
pub(crate) async fn some(
    connection: &mut PgConnection,
    most: usize,
) -> Result<Vec<Uuid>, sqlx::Error> {
    sqlx::query_scalar("SELECT command_id FROM farwrite.unconfirmed LIMIT $1")
        .bind(most as i64)
        .fetch_all(connection)
        .await
}

/// Every required standby has these: from now on they are told.
pub(crate) async fn confirm(
    connection: &mut PgConnection,
    ids: &[Uuid],
) -> Result<(), sqlx::Error> {
    sqlx::query("DELETE FROM farwrite.unconfirmed WHERE command_id = ANY ($1)")
        .bind(ids)
        .execute(connection)
        .await?;
    Ok(())
}

/// No standby is required any more: all are told.
pub(crate) async fn confirm_all(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    sqlx::query("DELETE FROM farwrite.unconfirmed").execute(connection).await?;
    Ok(())
}
