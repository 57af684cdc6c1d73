//! The connection to the replica: one, of its own, asked with one prepared statement.
//!
//! Not a pool: acquiring from one costs 200 to 340 µs, which is more than the answer. A connection
//! that failed or was silent is dropped, never used again, and the next question makes a new one.
//! The server's start is read on every new connection, and the connection ends with the server, so
//! one connection sees one start.

use std::{future::Future, sync::Arc, time::Duration};

use farwrite_schemas::{Lsn, Progress};
use sqlx::{Connection, PgConnection, postgres::PgConnectOptions};
use tokio::time::{Instant, timeout};

use crate::{GoneReason, metrics};

/// How often the age of the last replayed commit is read for the metrics: it costs little, but it
/// serves only a graph.
const AGE_INTERVAL: Duration = Duration::from_secs(1);

const START: &str = "SELECT (extract(epoch FROM pg_postmaster_start_time()) * 1000000)::int8";
/// On a promoted server the replay position stands still: both are asked together, the position
/// first.
const ASK: &str = "SELECT pg_last_wal_replay_lsn()::text, pg_is_in_recovery(), NULL::float8";
const ASK_WITH_AGE: &str = "SELECT pg_last_wal_replay_lsn()::text, pg_is_in_recovery(), \
     extract(epoch FROM clock_timestamp() - pg_last_xact_replay_timestamp())::float8";

/// What a server said of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sight {
    /// `None` on a server that never was a replica.
    pub(crate) replayed: Option<Lsn>,
    /// `pg_postmaster_start_time()` in microseconds since 1970.
    pub(crate) server_start_us: i64,
    pub(crate) in_recovery: bool,
}

impl From<Sight> for Progress {
    fn from(sight: Sight) -> Self {
        let Sight { replayed, server_start_us, in_recovery } = sight;
        Self { replayed, server_start_us, in_recovery }
    }
}

/// Whatever can be asked how far it has come.
pub(crate) trait Server: Send {
    /// Asks once, over a new connection if there is none. After an error there is none.
    fn ask(&mut self) -> impl Future<Output = Result<Sight, GoneReason>> + Send;
}

#[derive(Debug)]
pub(crate) struct Replica {
    options: PgConnectOptions,
    connect_timeout: Duration,
    query_timeout: Duration,
    link: Option<Link>,
}

#[derive(Debug)]
struct Link {
    connection: PgConnection,
    server_start_us: i64,
    age_read_at: Option<Instant>,
}

impl Replica {
    pub(crate) fn new(
        options: PgConnectOptions,
        connect_timeout: Duration,
        query_timeout: Duration,
    ) -> Self {
        // A query that nobody waits for any more is not left running on the replica.
        let statement_timeout = query_timeout.as_millis().max(1).to_string();
        let options = options
            .application_name("farwrite lsn-watcher")
            .options([("statement_timeout", statement_timeout)]);
        Self { options, connect_timeout, query_timeout, link: None }
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
}

impl Link {
    async fn open(options: &PgConnectOptions) -> Result<Self, sqlx::Error> {
        let mut connection = PgConnection::connect_with(options).await?;
        let server_start_us = sqlx::query_scalar(START).fetch_one(&mut connection).await?;
        Ok(Self { connection, server_start_us, age_read_at: None })
    }

    async fn ask(&mut self) -> Result<Sight, sqlx::Error> {
        let wants_age = self.age_read_at.is_none_or(|then| then.elapsed() >= AGE_INTERVAL);
        let query = if wants_age { ASK_WITH_AGE } else { ASK };
        let (replayed, in_recovery, age_seconds): (Option<String>, bool, Option<f64>) =
            sqlx::query_as(query).fetch_one(&mut self.connection).await?;
        if wants_age {
            self.age_read_at = Some(Instant::now());
            metrics::last_replayed_commit_age(age_seconds);
        }
        let replayed = replayed.map(|text| text.parse()).transpose();
        let replayed = replayed.map_err(|error| sqlx::Error::Decode(Box::new(error)))?;
        Ok(Sight { replayed, server_start_us: self.server_start_us, in_recovery })
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
