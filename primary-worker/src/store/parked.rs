//! `farwrite.parked` and `farwrite.key_queues`: commands that wait, and their key queues.

use sqlx::PgConnection;

/// Counts what is parked for the lanes as they are now.
pub(crate) async fn count(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    sqlx::query("SELECT farwrite.count_parked()").execute(connection).await.map(drop)
}

/// Has commands that nobody knew looked at again.
pub(crate) async fn retry_unknown(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    sqlx::query(
        "UPDATE farwrite.key_queues l SET due_at = clock_timestamp() FROM farwrite.parked p
         WHERE p.stream_id = l.stream_id AND p.key_queue = l.key_queue AND p.reason = 'unknown_command'",
    )
    .execute(connection)
    .await
    .map(drop)
}
