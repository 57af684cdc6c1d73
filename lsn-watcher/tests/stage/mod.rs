//! What the tests against real servers share: an app's writes, and waiting for a condition.

#![allow(dead_code, reason = "each test program uses its part")]

use std::time::Duration;

use farwrite_devstack::Postgres;
use farwrite_lsn_watcher::{Reached, WaitError, Watcher};
use farwrite_schemas::Lsn;
use sqlx::{AssertSqlSafe, PgConnection};
use tokio::task::JoinSet;

/// A deadline that only a fault reaches.
pub(crate) const LONG: Duration = Duration::from_secs(60);

/// An app that writes rows of its own table on the primary.
pub(crate) struct Writer {
    connection: PgConnection,
    table: String,
}

impl Writer {
    pub(crate) async fn new(primary: &Postgres, table: &str) -> Self {
        let mut connection = primary.connect("postgres").await.unwrap();
        let create = format!("CREATE TABLE {table} (n bigint PRIMARY KEY)");
        sqlx::query(AssertSqlSafe(create)).execute(&mut connection).await.unwrap();
        Self { connection, table: table.to_owned() }
    }

    /// Commits row `n` and returns a position that covers it.
    pub(crate) async fn write(&mut self, n: i64) -> Lsn {
        let insert = format!("INSERT INTO {} VALUES ({n})", self.table);
        sqlx::query(AssertSqlSafe(insert)).execute(&mut self.connection).await.unwrap();
        flush_lsn(&mut self.connection).await
    }
}

pub(crate) async fn flush_lsn(connection: &mut PgConnection) -> Lsn {
    let text: String = sqlx::query_scalar("SELECT pg_current_wal_flush_lsn()::text")
        .fetch_one(connection)
        .await
        .unwrap();
    text.parse().unwrap()
}

/// Whether the replica shows row `n`.
pub(crate) async fn shows(replica: &mut PgConnection, table: &str, n: i64) -> bool {
    let query = format!("SELECT EXISTS (SELECT FROM {table} WHERE n = {n})");
    sqlx::query_scalar(AssertSqlSafe(query)).fetch_one(replica).await.unwrap()
}

pub(crate) type Waits = JoinSet<Result<Reached, WaitError>>;

/// Starts `count` waits for `lsn`; they are on the board when this returns.
pub(crate) async fn wait_many(watcher: &Watcher, lsn: Lsn, count: usize, limit: Duration) -> Waits {
    let before = watcher.waiters();
    let mut waits = JoinSet::new();
    for _ in 0..count {
        let watcher = watcher.clone();
        waits.spawn(async move { watcher.wait(lsn, limit).await });
    }
    until("all wait", || watcher.waiters() == before + count).await;
    waits
}

/// What all of them ended with.
pub(crate) async fn all(mut waits: Waits) -> Vec<Result<Reached, WaitError>> {
    let mut results = Vec::new();
    while let Some(result) = waits.join_next().await {
        results.push(result.unwrap());
    }
    results
}

/// Looks until something is so.
pub(crate) async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let looking = async {
        while !is_so() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    assert!(tokio::time::timeout(LONG, looking).await.is_ok(), "never so: {what}");
}

/// Lets the mark that was heard last become older than one that may answer a new caller. Only the
/// least time matters.
pub(crate) async fn outlive_the_mark() {
    tokio::time::sleep(Duration::from_millis(100)).await;
}
