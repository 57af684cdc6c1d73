//! The connection to the replica: one, of its own, asked with one prepared statement.
//!
//! Not a pool: acquiring from one costs 200 to 340 µs, which is more than the answer. A connection
//! that failed or was silent is dropped, never used again, and the next question makes a new one.
//! The server's start is read on every new connection, and the connection ends with the server, so
//! one connection sees one start.

use std::{future::Future, sync::Arc, time::Duration};

use farwrite_schemas::{
    BRANCHES_QUERY, Branch, BranchKnown, BranchRow, Epoch, Lsn, Progress, SERVER_START_QUERY,
    Timeline,
};
use sqlx::{AssertSqlSafe, Connection, PgConnection, postgres::PgConnectOptions, types::Uuid};
use tokio::time::{Instant, timeout};

use crate::{GoneReason, branches::Told, metrics, shown::Shown};

/// How often the age of the last replayed commit is read for the metrics: it costs little, but it
/// serves only a graph.
const AGE_INTERVAL: Duration = Duration::from_secs(1);

/// The first version with `WAIT FOR LSN`, as `server_version_num` has it
/// (<https://www.postgresql.org/docs/19/sql-wait-for.html>).
const AWAITS_SINCE: u32 = 190_000;
/// Role, position, the receiver's state and timeline, in this order: each is read from the one before
/// it, so that none is read earlier. A server that is promoted in between tells the position where
/// replay ended.
///
/// The timeline of a replica is that of the log it receives, which is never behind the one that it
/// replays, while it streams; in every other state of the receiver, replay may have gone on from an
/// archive, and the timeline is not known. A receiver that begins anew after its state was read can
/// only tell a later timeline. Fields of a call, and not a query of it, because that takes the server
/// a fifth less for the whole. What a server that is no replica shows is another question (`shown.rs`).
const ASK: &str = "\
    SELECT p.lsn::text, p.in_recovery,
           CASE WHEN p.in_recovery AND p.lsn IS NOT NULL AND (pg_stat_get_wal_receiver()).status = 'streaming'
                THEN (pg_stat_get_wal_receiver()).received_tli END,
           CASE WHEN $1 THEN extract(epoch FROM clock_timestamp() - pg_last_xact_replay_timestamp())::float8 END
    FROM (SELECT r.in_recovery, pg_last_wal_replay_lsn() AS lsn
          FROM (SELECT pg_is_in_recovery() AS in_recovery OFFSET 0) r OFFSET 0) p";

/// SQLSTATEs of a history that cannot be read here: no such schema, table, column or function, or no
/// right to it.
const UNREADABLE: [&str; 5] = ["3F000", "42P01", "42703", "42883", "42501"];

/// What a server said of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sight {
    /// How far it has replayed, or how far it shows its own commits when it is no replica; `None` on
    /// a replica that has replayed nothing, and on a primary that has shown nothing yet.
    pub(crate) replayed: Option<Lsn>,
    /// The timeline that it was on after `replayed` was read, where it tells.
    pub(crate) timeline: Option<Timeline>,
    /// `pg_postmaster_start_time()` in microseconds since 1970.
    pub(crate) server_start_us: i64,
    pub(crate) in_recovery: bool,
}

impl From<Sight> for Progress {
    fn from(sight: Sight) -> Self {
        let Sight { replayed, timeline, server_start_us, in_recovery } = sight;
        let (branches, unreadable) = (Vec::new(), None);
        Self { replayed, server_start_us, in_recovery, timeline, branches, unreadable }
    }
}

/// Whatever can be asked how far it has come.
pub(crate) trait Server: Send {
    /// Asks once, over a new connection if there is none. After an error there is none.
    fn ask(&mut self) -> impl Future<Output = Result<Sight, GoneReason>> + Send;
    /// Whether it can be left to wait for a position by itself, on the connection there is.
    fn can_await(&self) -> bool;
    /// Lets the server wait until it has replayed `target`, or for so long. That it returns says
    /// nothing: only an answer to [`ask`](Self::ask) is believed.
    fn await_replay(
        &mut self,
        target: Lsn,
        at_most: Duration,
    ) -> impl Future<Output = Result<(), GoneReason>> + Send;
    /// Asks what its history says of some epochs, having replayed up to `at`.
    fn history(
        &mut self,
        epochs: &[Epoch],
        at: Lsn,
    ) -> impl Future<Output = Result<Told, GoneReason>> + Send;
}

#[derive(Debug)]
pub(crate) struct Replica {
    options: PgConnectOptions,
    connect_timeout: Duration,
    query_timeout: Duration,
    /// A server that can is left to wait for the position.
    server_waits: bool,
    link: Option<Link>,
}

#[derive(Debug)]
struct Link {
    connection: PgConnection,
    server_start_us: i64,
    age_read_at: Option<Instant>,
    /// What it shows of its own commits, once it has said that it is no replica: it will not be one
    /// again without a new connection.
    shown: Option<Shown>,
}

impl Replica {
    pub(crate) fn new(
        options: PgConnectOptions,
        connect_timeout: Duration,
        query_timeout: Duration,
        server_waits: bool,
    ) -> Self {
        // A query that nobody waits for any more is not left running on the replica.
        let statement_timeout = query_timeout.as_millis().max(1).to_string();
        let options = options
            .application_name("farwrite lsn-watcher")
            .options([("statement_timeout", statement_timeout)]);
        Self { options, connect_timeout, query_timeout, server_waits, link: None }
    }
}

impl Server for Replica {
    async fn ask(&mut self) -> Result<Sight, GoneReason> {
        // Taken out, and put back only after an answer: a connection whose query failed, hung or
        // was cancelled is dropped, which closes it.
        let mut link = match self.link.take() {
            Some(link) => link,
            None => within(self.connect_timeout, Link::open(&self.options)).await?,
        };
        let sight = within(self.query_timeout, link.ask()).await?;
        self.link = Some(link);
        Ok(sight)
    }

    fn can_await(&self) -> bool {
        let version = self.link.as_ref().and_then(|link| link.connection.server_version_num());
        self.server_waits && version.is_some_and(|version| version >= AWAITS_SINCE)
    }

    async fn await_replay(&mut self, target: Lsn, at_most: Duration) -> Result<(), GoneReason> {
        let Some(mut link) = self.link.take() else { return Ok(()) };
        // Well within the statement's own limit.
        let at_most = at_most.min(self.query_timeout / 2);
        let awaited = timeout(self.query_timeout, link.await_replay(target, at_most)).await;
        match awaited {
            Ok(Ok(())) => {}
            // Whatever it has against the statement, it can be asked all the same.
            Ok(Err(sqlx::Error::Database(error))) => {
                tracing::warn!(%error, "the server does not wait for a position; polling instead");
                self.server_waits = false;
            }
            Ok(Err(error)) => return Err(GoneReason::Connection(Arc::new(error))),
            Err(_) => return Err(GoneReason::Hung { limit: self.query_timeout }),
        }
        self.link = Some(link);
        Ok(())
    }

    async fn history(&mut self, epochs: &[Epoch], at: Lsn) -> Result<Told, GoneReason> {
        // Without a connection nothing can be said of the server that was seen on it.
        let Some(mut link) = self.link.take() else { return Ok(Told::default()) };
        let told = within(self.query_timeout, link.history(epochs, at)).await?;
        self.link = Some(link);
        Ok(told)
    }
}

impl Link {
    async fn open(options: &PgConnectOptions) -> Result<Self, sqlx::Error> {
        let mut connection = PgConnection::connect_with(options).await?;
        let server_start_us =
            sqlx::query_scalar(SERVER_START_QUERY).fetch_one(&mut connection).await?;
        let (age_read_at, shown) = (None, None);
        Ok(Self { connection, server_start_us, age_read_at, shown })
    }

    async fn await_replay(&mut self, target: Lsn, at_most: Duration) -> Result<(), sqlx::Error> {
        // It takes no parameters, and must be a statement of its own.
        let wait = format!(
            "WAIT FOR LSN '{target}' WITH (MODE 'standby_replay', TIMEOUT '{}ms', NO_THROW)",
            at_most.as_millis().max(1),
        );
        sqlx::raw_sql(AssertSqlSafe(wait)).execute(&mut self.connection).await.map(drop)
    }

    async fn ask(&mut self) -> Result<Sight, sqlx::Error> {
        if self.shown.is_some() {
            return self.ask_primary().await;
        }
        let wants_age = self.age_read_at.is_none_or(|then| then.elapsed() >= AGE_INTERVAL);
        let (replayed, in_recovery, timeline, age_seconds): (
            Option<String>,
            bool,
            Option<i32>,
            Option<f64>,
        ) = sqlx::query_as(ASK).bind(wants_age).fetch_one(&mut self.connection).await?;
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
        Ok(Sight { replayed, timeline, server_start_us: self.server_start_us, in_recovery })
    }

    async fn ask_primary(&mut self) -> Result<Sight, sqlx::Error> {
        let shown = self.shown.get_or_insert_default();
        let (replayed, timeline) = shown.ask(&mut self.connection).await?;
        let (server_start_us, in_recovery) = (self.server_start_us, false);
        Ok(Sight { replayed, timeline, server_start_us, in_recovery })
    }

    async fn history(&mut self, epochs: &[Epoch], at: Lsn) -> Result<Told, sqlx::Error> {
        let ids: Vec<Uuid> = epochs.iter().map(|epoch| epoch.0).collect();
        let asking = sqlx::query_as(BRANCHES_QUERY).bind(ids).fetch_all(&mut self.connection);
        let rows: Vec<BranchRow> = match asking.await {
            Ok(rows) => rows,
            Err(sqlx::Error::Database(error))
                if error.code().is_some_and(|code| UNREADABLE.contains(&&*code)) =>
            {
                let unreadable = Some(error.message().into());
                return Ok(Told { branches: Vec::new(), unreadable });
            }
            Err(error) => return Err(error),
        };
        let branches: Result<Vec<_>, _> = rows.into_iter().map(Branch::from_row).collect();
        let mut branches = branches.map_err(|error| sqlx::Error::Decode(Box::new(error)))?;
        let is_held = |epoch: &Epoch| branches.iter().any(|branch| branch.epoch == *epoch);
        let known = BranchKnown::Absent { absent_at: at };
        let absent: Vec<_> = epochs.iter().filter(|epoch| !is_held(epoch)).copied().collect();
        branches.extend(absent.into_iter().map(|epoch| Branch { epoch, known }));
        Ok(Told { branches, unreadable: None })
    }
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
