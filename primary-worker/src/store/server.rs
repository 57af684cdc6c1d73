//! What PostgreSQL itself says: which server this is, its log, its sessions and its standbys.

use farwrite_schemas::{Epoch, Lsn, Timeline};
use sqlx::{Connection, PgConnection};

/// Whether the server is a replica.
pub(crate) async fn is_replica(connection: &mut PgConnection) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar("SELECT pg_is_in_recovery()").fetch_one(connection).await
}

/// What a worker must know of a server before it works on it.
#[derive(Clone, Debug)]
pub(crate) struct ServerFacts {
    pub(crate) is_replica: bool,
    pub(crate) synchronous_commit: String,
    /// As `server_version_num`, such as 150004.
    pub(crate) version: i32,
}

/// Reads what a worker must know.
pub(crate) async fn facts(connection: &mut PgConnection) -> Result<ServerFacts, sqlx::Error> {
    let (is_replica, synchronous_commit, version) = sqlx::query_as(
        "SELECT pg_is_in_recovery(), current_setting('synchronous_commit'),
                current_setting('server_version_num')::int",
    )
    .fetch_one(connection)
    .await?;
    Ok(ServerFacts { is_replica, synchronous_commit, version })
}

/// When the server was started, as text: no two starts are in the same microsecond.
pub(crate) async fn start(connection: &mut PgConnection) -> Result<String, sqlx::Error> {
    let sql = "SELECT extract(epoch FROM pg_postmaster_start_time())::text";
    sqlx::query_scalar(sql).fetch_one(connection).await
}

/// The log's position up to which it is safe on disk. Read straight after a commit, it is at or
/// behind the commit's end and a position that replicas reach; the insert position is not (it can
/// point past a page header that nobody writes).
///
/// It says so only of a session whose commits wait for the disk; in another one this fails.
pub(crate) async fn flush_lsn(connection: &mut PgConnection) -> Result<Lsn, sqlx::Error> {
    let bytes: Option<i64> = sqlx::query_scalar(
        "SELECT CASE WHEN current_setting('synchronous_commit') <> 'off'
                     THEN (pg_current_wal_flush_lsn() - '0/0'::pg_lsn)::bigint END",
    )
    .fetch_one(connection)
    .await?;
    let bytes = bytes.ok_or_else(|| {
        sqlx::Error::Protocol(
            "synchronous_commit was turned off in this session: its commits may be lost".to_owned(),
        )
    })?;
    Ok(Lsn(bytes.unsigned_abs()))
}

/// The primary's timeline, from the name of the file being written: the control file is stale
/// until the next checkpoint.
pub(crate) async fn timeline(connection: &mut PgConnection) -> Result<Timeline, sqlx::Error> {
    let timeline: i32 = sqlx::query_scalar(
        "SELECT ('x' || left(pg_walfile_name(pg_current_wal_lsn()), 8))::bit(32)::int",
    )
    .fetch_one(connection)
    .await?;
    Ok(Timeline(timeline.unsigned_abs()))
}

/// Whether there is room on the disk: for rows of our own, enough for new pages, which are rolled back.
pub(crate) async fn has_room(connection: &mut PgConnection) -> Result<bool, sqlx::Error> {
    let mut tx = connection.begin().await?;
    sqlx::query(
        "INSERT INTO farwrite.ledger_derived (command_id, outcome, answer, fingerprint, stream_id, sequence)
         SELECT gen_random_uuid(), 'applied', to_json(repeat(md5(n::text), 50)), gen_random_uuid(), 0, 0
         FROM generate_series(1, 20) AS n",
    )
    .execute(&mut *tx)
    .await?;
    tx.rollback().await.map(|()| true)
}

/// Whether a constraint of this name may be deferred, or any trigger may.
pub(crate) async fn may_be_deferred(
    connection: &mut PgConnection,
    constraint: Option<&str>,
) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar(
        "SELECT EXISTS (SELECT FROM pg_catalog.pg_constraint WHERE condeferrable AND (contype = 't' OR conname = $1))",
    )
    .bind(constraint)
    .fetch_one(connection)
    .await
}

/// Ends the lane connections of other epochs; their names begin with `application`. Answers how
/// many.
pub(crate) async fn end_other_lanes(
    connection: &mut PgConnection,
    application: &str,
    epoch: Epoch,
) -> Result<i64, sqlx::Error> {
    sqlx::query_scalar(
        "SELECT count(*) FILTER (WHERE pg_terminate_backend(pid)) FROM pg_stat_activity
         WHERE datname = current_database() AND usename = current_user
           AND starts_with(application_name, $1) AND application_name <> $1 || $2",
    )
    .bind(application)
    .bind(epoch.to_string())
    .fetch_one(connection)
    .await
}

/// How far each of these standbys has flushed the log; `None` for one of which nothing is known, and
/// for a name that two connections have: neither speaks for the other. The server itself is left out,
/// and so are subscribers of logical replication, which hold no copy of the log.
pub(crate) async fn standbys(
    connection: &mut PgConnection,
    names: &[String],
) -> Result<Vec<(String, Option<Lsn>)>, sqlx::Error> {
    let rows: Vec<(String, Option<i64>)> = sqlx::query_as(
        "SELECT n.name,
                ((SELECT CASE WHEN count(*) = 1 THEN min(r.flush_lsn) END FROM pg_stat_replication r
                  LEFT JOIN pg_replication_slots s ON s.active_pid = r.pid
                  WHERE n.name IN (r.application_name, s.slot_name) AND r.state <> 'backup'
                    AND s.slot_type IS DISTINCT FROM 'logical') - '0/0'::pg_lsn)::bigint
         FROM unnest($1) n (name) WHERE n.name <> current_setting('cluster_name')",
    )
    .bind(names)
    .fetch_all(connection)
    .await?;
    let standbys =
        rows.into_iter().map(|(name, lsn)| (name, lsn.map(|lsn| Lsn(lsn.unsigned_abs()))));
    Ok(standbys.collect())
}
