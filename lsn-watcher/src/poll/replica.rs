//! The connection to the replica: one, of its own, asked with one prepared statement.
//!
//! Not a pool: acquiring from one costs 200 to 340 µs, which is more than the answer. A connection
//! that failed or was silent is dropped, never used again, and the next question makes a new one.
//! The server's start is read on every new connection, and the connection ends with the server, so
//! one connection sees one start.

use std::{future::Future, sync::Arc, time::Duration};

use farwrite_schemas::{
    BRANCHES_QUERY, Branch, BranchRow, Epoch, IDENTITY_QUERY, IdentityDigest, Lsn,
    SERVER_START_QUERY, Timeline,
};
use sqlx::{Connection, PgConnection, postgres::PgConnectOptions, types::Uuid};
use tokio::time::{Instant, timeout};

use super::{
    primary::ShownCommits,
    server::{HistoryAnswer, PolledServer, ServerReport},
};
use crate::{answer::GoneReason, metrics};

/// How often the age of the last replayed commit is read for the metrics: it costs little, but it
/// serves only a graph.
const AGE_INTERVAL: Duration = Duration::from_secs(1);

/// Role, position, the receiver's state and timeline, in this order: each is read from the one before
/// it, so that none is read earlier. A server that is promoted in between tells the position where
/// replay ended.
///
/// The timeline of a replica is that of the log it receives, which is never behind the one that it
/// replays, while it streams; in every other state of the receiver, replay may have gone on from an
/// archive, and the timeline is not known. A receiver that begins anew after its state was read can
/// only tell a later timeline. Fields of a call, and not a query of it, because that takes the server
/// a fifth less for the whole. What a server that is no replica shows is another question (`primary.rs`).
const ASK: &str = "\
    SELECT p.lsn::text, p.in_recovery,
           CASE WHEN p.in_recovery AND p.lsn IS NOT NULL AND (pg_stat_get_wal_receiver()).status = 'streaming'
                THEN (pg_stat_get_wal_receiver()).received_tli END,
           CASE WHEN $1 THEN extract(epoch FROM clock_timestamp() - pg_last_xact_replay_timestamp())::float8 END,
           $2 <> 0 AND pg_table_is_visible($2::oid) IS NULL
    FROM (SELECT r.in_recovery, pg_last_wal_replay_lsn() AS lsn
          FROM (SELECT pg_is_in_recovery() AS in_recovery OFFSET 0) r OFFSET 0) p";

/// SQLSTATEs of a history that cannot be read here: no such schema, table, column or function, no
/// right to it, or it is another database's (FW004).
const UNREADABLE: [&str; 6] = ["3F000", "42P01", "42703", "42883", "42501", "FW004"];

/// A server to ask, over a connection that is made when it is needed. Not `Debug`: its options hold a
/// password.
pub(crate) struct Replica {
    options: PgConnectOptions,
    connect_timeout: Duration,
    query_timeout: Duration,
    link: Option<ReplicaLink>,
}

#[derive(Debug)]
struct ReplicaLink {
    connection: PgConnection,
    server_start_us: i64,
    age_read_at: Option<Instant>,
    /// What it shows of its own commits, once it has said that it is no replica: it will not be one
    /// again without a new connection.
    shown: Option<ShownCommits>,
    /// Which database it shows, as it was read with the history last.
    shows: ShownDatabase,
}

/// Which database a connection shows.
#[derive(Clone, Copy, Debug, Default)]
struct ShownDatabase {
    identity: Option<IdentityDigest>,
    /// The table of takeovers, 0 where it is not known. While it is there, what its rows say is final; a
    /// schema that is restored in place has another one.
    history: i64,
}

impl Replica {
    pub(crate) fn new(
        options: PgConnectOptions,
        connect_timeout: Duration,
        query_timeout: Duration,
    ) -> Self {
        // A query that nobody waits for any more is not left running on the replica.
        let statement_timeout = query_timeout.as_millis().max(1).to_string();
        let options = options.application_name("farwrite watcher").options([
            ("statement_timeout", &*statement_timeout),
            // Whatever the role or the database is set to: no standby takes a serializable transaction.
            ("default_transaction_isolation", "read committed"),
            ("idle_session_timeout", "0"),
        ]);
        Self { options, connect_timeout, query_timeout, link: None }
    }
}

impl PolledServer for Replica {
    async fn ask(&mut self) -> Result<ServerReport, GoneReason> {
        // Taken out, and put back only after an answer: a connection whose query failed, hung or
        // was cancelled is dropped, which closes it.
        let mut link = match self.link.take() {
            Some(link) => link,
            None => within(self.connect_timeout, ReplicaLink::open(&self.options)).await?,
        };
        let report = within(self.query_timeout, link.ask()).await?;
        self.link = Some(link);
        Ok(report)
    }

    async fn history(&mut self, epochs: &[Epoch], at: Lsn) -> Result<HistoryAnswer, GoneReason> {
        // Without a connection nothing can be said of the server that was seen on it.
        let Some(mut link) = self.link.take() else { return Ok(HistoryAnswer::default()) };
        let answer = within(self.query_timeout, link.history(epochs, at)).await?;
        self.link = Some(link);
        Ok(answer)
    }
}

impl ReplicaLink {
    async fn open(options: &PgConnectOptions) -> Result<Self, sqlx::Error> {
        let mut connection = PgConnection::connect_with(options).await?;
        let server_start_us =
            sqlx::query_scalar(SERVER_START_QUERY).fetch_one(&mut connection).await?;
        let (age_read_at, shown, shows) = (None, None, ShownDatabase::default());
        let mut link = Self { connection, server_start_us, age_read_at, shown, shows };
        link.read_identity().await?;
        Ok(link)
    }

    async fn ask(&mut self) -> Result<ServerReport, sqlx::Error> {
        if self.shown.is_some() {
            return self.ask_primary().await;
        }
        let wants_age = self.age_read_at.is_none_or(|then| then.elapsed() >= AGE_INTERVAL);
        let (replayed, in_recovery, timeline, age_seconds, is_dropped): (
            Option<String>,
            bool,
            Option<i32>,
            Option<f64>,
            bool,
        ) = sqlx::query_as(ASK)
            .bind(wants_age)
            .bind(self.shows.history)
            .fetch_one(&mut self.connection)
            .await?;
        if is_dropped {
            return Err(dropped());
        }
        if wants_age {
            self.age_read_at = Some(Instant::now());
            metrics::last_replayed_commit_age(age_seconds);
        }
        let replayed = replayed.map(|text| text.parse()).transpose();
        let replayed = replayed.map_err(|error| sqlx::Error::Decode(Box::new(error)))?;
        let timeline = timeline.map(|timeline| Timeline(timeline.unsigned_abs()));
        if !in_recovery {
            return self.ask_primary().await;
        }
        let (server_start_us, identity) = (self.server_start_us, self.shows.identity);
        Ok(ServerReport { replayed, timeline, server_start_us, in_recovery, identity })
    }

    async fn ask_primary(&mut self) -> Result<ServerReport, sqlx::Error> {
        let shown = self.shown.get_or_insert_default();
        let asking = shown.ask(&mut self.connection, self.shows.history);
        let (replayed, timeline) = asking.await?.ok_or_else(dropped)?;
        let (server_start_us, in_recovery) = (self.server_start_us, false);
        let identity = self.shows.identity;
        Ok(ServerReport { replayed, timeline, server_start_us, in_recovery, identity })
    }

    /// Reads which database this is, before its rows are: an answer is then never believed for longer
    /// than its rows are there.
    async fn read_identity(&mut self) -> Result<(), sqlx::Error> {
        let asking = sqlx::query_scalar(IDENTITY_QUERY).fetch_one(&mut self.connection);
        let identity: Option<String> = match asking.await {
            Ok(identity) => identity,
            Err(error) if unreadable(&error).is_some() => None,
            Err(error) => return Err(error),
        };
        let table = identity.as_deref().and_then(|identity| identity.split('/').nth(2));
        let history = table.and_then(|oid| oid.parse().ok()).unwrap_or_default();
        self.shows =
            ShownDatabase { identity: identity.as_deref().map(IdentityDigest::of), history };
        Ok(())
    }

    async fn history(&mut self, epochs: &[Epoch], at: Lsn) -> Result<HistoryAnswer, sqlx::Error> {
        self.read_identity().await?;
        let ids: Vec<Uuid> = epochs.iter().map(|epoch| epoch.0).collect();
        let asking = sqlx::query_as(BRANCHES_QUERY).bind(ids).fetch_all(&mut self.connection);
        let rows: Vec<BranchRow> = match asking.await {
            Ok(rows) => rows,
            Err(error) => match unreadable(&error) {
                Some(why) => {
                    let unreadable = Some(why.into());
                    return Ok(HistoryAnswer { branches: Vec::new(), unreadable });
                }
                None => return Err(error),
            },
        };
        let branches: Result<Vec<_>, _> =
            rows.into_iter().map(|row| Branch::from_row(row, at)).collect();
        let branches = branches.map_err(|error| sqlx::Error::Decode(Box::new(error)))?;
        Ok(HistoryAnswer { branches, unreadable: None })
    }
}

/// Why the history cannot be read here, if that is what an error says.
fn unreadable(error: &sqlx::Error) -> Option<&str> {
    let error = error.as_database_error()?;
    let code = error.code()?;
    UNREADABLE.contains(&&*code).then(|| error.message())
}

/// What was known of the branches is no more: the connection is given up, and everything with it.
fn dropped() -> sqlx::Error {
    sqlx::Error::Protocol("the table farwrite.history was dropped".to_owned())
}

async fn within<T>(
    limit: Duration,
    asked: impl Future<Output = Result<T, sqlx::Error>>,
) -> Result<T, GoneReason> {
    match timeout(limit, asked).await {
        Ok(answer) => answer.map_err(|error| GoneReason::Connection(Arc::new(error))),
        Err(_) => Err(GoneReason::Hung { limit }),
    }
}
