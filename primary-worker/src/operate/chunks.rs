//! How much an act does in one transaction, and how it holds the lanes meanwhile.
//!
//! An act that touches what is parked holds the rows of all lanes, so every batch waits for it. It
//! must let go before a lane gives up waiting (ten seconds), or a batch would fail for an
//! operator's sake: the time to get hold of the lanes and the time for the act are bounded, and
//! together below that.

use std::time::Duration;

use sqlx::{AssertSqlSafe, Connection, PgConnection};

use super::{
    error::OperateError,
    limits::{HOLD_TRIES, HOLD_WITHIN_S},
};

/// Most rows in one transaction.
pub(super) const CHUNK_ROWS: i64 = 1_000;
/// Most bytes of bodies in one transaction, and in this program's memory.
pub(super) const CHUNK_BYTES: i64 = 8 << 20;
/// How long an act may take that holds them.
const ACT_WITHIN_S: u64 = 6;
/// How long the lanes are left alone in between.
const PAUSE: Duration = Duration::from_millis(200);

/// Acts in one transaction, in which no batch runs.
pub(super) async fn held<T>(
    connection: &mut PgConnection,
    mut act: impl AsyncFnMut(&mut PgConnection) -> Result<T, sqlx::Error>,
) -> Result<T, OperateError> {
    for _ in 0..HOLD_TRIES {
        let mut tx = connection.begin().await?;
        limit(&mut tx, HOLD_WITHIN_S).await?;
        let held = sqlx::query("SELECT farwrite.hold_lanes()").execute(&mut *tx).await;
        let done = match held {
            Ok(_) => {
                limit(&mut tx, ACT_WITHIN_S).await?;
                act(&mut tx).await
            }
            Err(error) if is_busy(&error) => {
                tx.rollback().await?;
                tokio::time::sleep(PAUSE).await;
                continue;
            }
            Err(error) => Err(error),
        };
        let done = done?;
        tx.commit().await?;
        return Ok(done);
    }
    Err(OperateError::Busy)
}

async fn limit(connection: &mut PgConnection, seconds: u64) -> Result<(), sqlx::Error> {
    let sql = AssertSqlSafe(format!("SET LOCAL statement_timeout = '{seconds}s'"));
    sqlx::query(sql).execute(connection).await.map(drop)
}

/// Somebody holds a lane: a statement that took too long, a lock that was not given, a deadlock.
fn is_busy(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(|error| error.code());
    matches!(code.as_deref(), Some("57014" | "55P03" | "40P01"))
}
