//! `farwrite.owner`: the one row that says which worker owns the database.

use std::time::Duration;

use farwrite_schemas::{DatabaseName, Epoch};
use sqlx::{PgConnection, types::Uuid};

/// What the primary says of the owner.
#[derive(Clone, Debug)]
pub(crate) struct OwnerState {
    pub(crate) liveness: OwnerLiveness,
    /// The epoch of its takeover; `None` where nobody has ever taken over.
    pub(crate) epoch: Option<Epoch>,
    /// Host and process, for people.
    pub(crate) worker: String,
    pub(crate) silent_seconds: f64,
}

/// How an owner fares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OwnerLiveness {
    /// Nobody has ever taken over.
    None,
    /// It ended in good order.
    Released,
    /// Its session is no more.
    Gone,
    /// Its session has said nothing for a lease.
    Silent,
    /// It works.
    Alive,
}

impl OwnerLiveness {
    /// Whether another worker may take over.
    pub(crate) fn is_free(self) -> bool {
        match self {
            Self::None | Self::Released | Self::Gone | Self::Silent => true,
            Self::Alive => false,
        }
    }

    fn of(word: &str) -> Self {
        match word {
            "none" => Self::None,
            "released" => Self::Released,
            "gone" => Self::Gone,
            "silent" => Self::Silent,
            // A word that this program does not know is no reason to take over.
            _ => Self::Alive,
        }
    }
}

/// The owner before a takeover.
#[derive(Debug, Default)]
pub(crate) struct FormerOwner {
    pub(crate) epoch: Option<Epoch>,
    /// It ended without a word.
    pub(crate) unclean: bool,
    /// How far its last heartbeat had seen the log flushed.
    pub(crate) flushed_lsn: Option<String>,
    /// The server has not crashed since it took over, and is the same one.
    pub(crate) server_stood: bool,
}

/// Which database this is.
#[derive(Clone, Debug)]
pub(crate) struct DatabaseIdentity {
    /// What the server says of it.
    pub(crate) home: String,
    /// What the last takeover wrote: the same, and an incarnation. `None` before the first one.
    pub(crate) recorded: Option<String>,
}

impl DatabaseIdentity {
    /// Whether an identity is of a database that is here.
    pub(crate) fn is_here(&self, identity: &str) -> bool {
        identity
            .strip_prefix(&self.home)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }

    /// Whether this database wrote the rows that it holds.
    pub(crate) fn is_own(&self) -> bool {
        self.recorded.as_deref().is_none_or(|recorded| self.is_here(recorded))
    }

    /// Whether another identity is this database's.
    pub(crate) fn is(&self, other: &str) -> bool {
        self.recorded.as_deref().map_or_else(|| self.is_here(other), |recorded| recorded == other)
    }
}

/// Asks which database this is.
pub(crate) async fn identity(
    connection: &mut PgConnection,
) -> Result<DatabaseIdentity, sqlx::Error> {
    let sql = "SELECT farwrite.home(), (SELECT identity FROM farwrite.owner)";
    let (home, recorded) = sqlx::query_as(sql).fetch_one(connection).await?;
    Ok(DatabaseIdentity { home, recorded })
}

/// Makes the database the one that its rows are of, or another one (`new`). Answers its identity.
pub(crate) async fn adopt(
    connection: &mut PgConnection,
    new: bool,
    reason: &str,
) -> Result<String, sqlx::Error> {
    sqlx::query_scalar("SELECT farwrite.adopt_database($1, $2)")
        .bind(new)
        .bind(reason)
        .fetch_one(connection)
        .await
}

/// Asks the primary how the owner fares.
pub(crate) async fn state(connection: &mut PgConnection) -> Result<OwnerState, sqlx::Error> {
    let (state, epoch, worker, silent): (String, Option<Uuid>, Option<String>, Option<f64>) =
        sqlx::query_as("SELECT state, epoch, worker, silent_seconds FROM farwrite.owner_state()")
            .fetch_one(connection)
            .await?;
    Ok(OwnerState {
        liveness: OwnerLiveness::of(&state),
        epoch: epoch.map(Epoch),
        worker: worker.unwrap_or_default(),
        silent_seconds: silent.unwrap_or_default(),
    })
}

/// The owner's epoch.
pub(crate) async fn epoch(connection: &mut PgConnection) -> Result<Option<Epoch>, sqlx::Error> {
    let epoch: Option<Uuid> =
        sqlx::query_scalar("SELECT epoch FROM farwrite.owner").fetch_optional(connection).await?;
    Ok(epoch.map(Epoch))
}

/// Keeps others from becoming the owner until the transaction ends: takeovers queue up here.
pub(crate) async fn lock(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    sqlx::query("LOCK TABLE farwrite.owner IN SHARE ROW EXCLUSIVE MODE")
        .execute(connection)
        .await
        .map(drop)
}

/// The owner so far.
pub(crate) async fn former(connection: &mut PgConnection) -> Result<FormerOwner, sqlx::Error> {
    let row: Option<(Uuid, bool, Option<String>, bool)> = sqlx::query_as(
        "SELECT epoch, released_at IS NULL, flushed_lsn::text,
                EXISTS (SELECT FROM farwrite.since_crash s WHERE s.epoch = o.epoch)
         FROM farwrite.owner o",
    )
    .fetch_optional(connection)
    .await?;
    Ok(row.map_or_else(FormerOwner::default, |(epoch, unclean, flushed_lsn, server_stood)| {
        FormerOwner { epoch: Some(Epoch(epoch)), unclean, flushed_lsn, server_stood }
    }))
}

/// Writes down which epoch took over, for as long as the server does not crash.
pub(crate) async fn mark_server(
    connection: &mut PgConnection,
    epoch: Epoch,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "INSERT INTO farwrite.since_crash (epoch) VALUES ($1)
         ON CONFLICT (only_row) DO UPDATE SET epoch = excluded.epoch",
    )
    .bind(epoch.0)
    .execute(connection)
    .await
    .map(drop)
}

/// Ends the owner's session: if it is alive, it learns of it at once.
pub(crate) async fn end_session(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    sqlx::query(
        "SELECT pg_terminate_backend(a.pid) FROM pg_stat_activity a JOIN farwrite.owner o
             ON a.pid = o.pid AND a.backend_start = o.session_began
         WHERE a.pid <> pg_backend_pid() AND a.usename = current_user AND a.datname = current_database()",
    )
    .execute(connection)
    .await
    .map(drop)
}

/// Makes this session the owner's; answers the database's identity, which the first one mints.
pub(crate) async fn claim(
    connection: &mut PgConnection,
    database: &DatabaseName,
    epoch: Epoch,
    worker: &str,
    lease: Duration,
) -> Result<String, sqlx::Error> {
    sqlx::query_scalar(
        "INSERT INTO farwrite.owner (database_name, epoch, worker, taken_at, pid, session_began, lease, identity)
         SELECT $1, $2, $3, now(), a.pid, a.backend_start, make_interval(secs => $4),
                farwrite.home() || '/' || gen_random_uuid()
         FROM pg_stat_activity a WHERE a.pid = pg_backend_pid()
         ON CONFLICT (only_row) DO UPDATE SET database_name = excluded.database_name,
             epoch = excluded.epoch, worker = excluded.worker, taken_at = excluded.taken_at, released_at = NULL,
             flushed_lsn = NULL, pid = excluded.pid, session_began = excluded.session_began, lease = excluded.lease
         RETURNING identity",
    )
    .bind(database.as_str())
    .bind(epoch.0)
    .bind(worker)
    .bind(lease.as_secs_f64())
    .fetch_one(connection)
    .await
}

/// Writes down that this epoch ended in good order: the next takeover need not be careful.
pub(crate) async fn release(
    connection: &mut PgConnection,
    epoch: Epoch,
) -> Result<(), sqlx::Error> {
    sqlx::query("UPDATE farwrite.owner SET released_at = clock_timestamp() WHERE epoch = $1")
        .bind(epoch.0)
        .execute(connection)
        .await
        .map(drop)
}

/// A commit that changes next to nothing. It pushes the log on, so that every replica reaches a
/// position that was handed out in the middle of another session's record. It notes how far the log
/// was flushed: a replica that shows the row has come so far on this epoch's branch. An epoch that
/// is over writes nothing: the takeover that ended it did.
pub(crate) async fn heartbeat(
    connection: &mut PgConnection,
    epoch: Epoch,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "UPDATE farwrite.owner SET flushed_lsn = pg_current_wal_flush_lsn() WHERE epoch = $1",
    )
    .bind(epoch.0)
    .execute(connection)
    .await
    .map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_is_of_the_server_that_says_the_same_and_of_one_incarnation() {
        let at = |recorded: Option<&str>| DatabaseIdentity {
            home: "1/2/3".to_owned(),
            recorded: recorded.map(str::to_owned),
        };
        assert!(at(None).is_own() && at(None).is("1/2/3/a") && at(None).is("1/2/3"));
        assert!(!at(None).is("1/2/30/a") && !at(None).is(""));
        assert!(at(Some("1/2/3/a")).is_own() && at(Some("1/2/3/a")).is("1/2/3/a"));
        assert!(!at(Some("1/2/3/a")).is("1/2/3/b"));
        assert!(!at(Some("9/2/3/a")).is_own());
    }

    #[test]
    fn only_what_says_that_nobody_works_lets_another_take_over() {
        for (word, is_free) in [
            ("none", true),
            ("released", true),
            ("gone", true),
            ("silent", true),
            ("alive", false),
            ("a word of tomorrow", false),
        ] {
            assert_eq!(OwnerLiveness::of(word).is_free(), is_free, "{word}");
        }
    }
}
