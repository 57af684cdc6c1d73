//! Connections to the primary: which server it is, and whether it is one that a worker can work on.
//!
//! Several URLs name the servers of which one is the primary; which, is asked of each, at every
//! start. Where two can be written to, one was promoted while the other lived: the newer timeline
//! wins, and the log says so. One that holds another database's rows is chosen last: its timeline does
//! not compare.

use std::{str::FromStr, time::Duration};

use farwrite_schemas::Epoch;
use futures_util::future::join_all;
use sqlx::{ConnectOptions, Connection, PgConnection, postgres::PgConnectOptions};
use tracing::warn;

use crate::{
    config::server_urls,
    store::{owner, server},
    verdict::Happened,
};

/// How long a connection may take to be made.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long one of several servers may take to say whether it is the primary: all are waited for.
const ASK_WITHIN: Duration = Duration::from_secs(2);
/// How long a transaction may stand idle: a worker that was stopped in the middle of one keeps the
/// lane's row locked for no longer.
const IDLE_IN_TRANSACTION: Duration = Duration::from_secs(10);
/// How long a statement waits for a lock that somebody else holds.
const LOCK_TIMEOUT: Duration = Duration::from_secs(10);

/// A commit that does not wait for the disk may be lost, and its position says nothing.
const SYNCHRONOUS_COMMIT: &str = "synchronous_commit";

/// What lane connections are called in `pg_stat_activity`: a takeover ends those of other epochs.
pub(crate) const LANE_APPLICATION: &str = "farwrite-lane-";

/// The server is not one that a worker can work on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PrimaryError {
    /// It cannot be reached, or failed.
    #[error("the primary: {0}")]
    Sql(sqlx::Error),
    /// A connection took too long.
    #[error("the server did not accept a connection in time")]
    ConnectTimeout,
    /// The URL is not one.
    #[error("database-url is not a PostgreSQL URL: {0}")]
    Url(String),
    /// A connection of a takeover led to another server, or to another start of it, than the first.
    #[error("{server} leads to another server than a moment ago: a failover is under way there")]
    OtherServer {
        /// Host and port.
        server: String,
    },
    /// None of several servers can be written to: a failover may be under way.
    #[error("none of {} servers can be written to: {}", tried.len(), tried.join("; "))]
    NoPrimary {
        /// Each server and what it said.
        tried: Vec<String>,
    },
    /// It is a replica.
    #[error(
        "the server is a replica (pg_is_in_recovery() is true): give the worker the primary's URL"
    )]
    Replica,
    /// Its commits may be lost by a crash, and its flush position means nothing.
    #[error(
        "synchronous_commit is off in the worker's session, so a commit may be lost and its position says nothing: \
             leave it out of database-url, and of what a connection pooler sets"
    )]
    AsynchronousCommit,
    /// It holds the rows of another database.
    #[error(
        "another database wrote the rows of this one: they are of {recorded}, and this is {here} (system identifier, database, table). \
         It is a dump, a copy, a logical subscriber, or of an upgraded cluster. Nothing is applied here. \
         If it is to be gone on with, run `farwrite worker adopt-database`"
    )]
    OtherDatabase {
        /// The identity in its rows.
        recorded: String,
        /// What the server says.
        here: String,
    },
    /// It has lost commits without a failover.
    #[error(
        "this database held everything up to sequence {told} of stream {stream} on this very timeline, and holds it up to {found} only: \
         the server was put back from an older copy (a snapshot), or lost commits that it had acknowledged. Nothing is applied here. \
         If it is to be gone on with, run `farwrite worker adopt-database --new-incarnation --replace`: what it lacks is applied again from the stream"
    )]
    PutBack {
        /// The stream.
        stream: String,
        /// How far the database was, as the broker was told.
        told: u64,
        /// How far it is.
        found: u64,
    },
    /// It is too old.
    #[error("PostgreSQL {0} is too old: Farwrite needs 15 or newer")]
    TooOld(i32),
    /// `migrate` was not run, or by an older program.
    #[error(
        "the farwrite schema is at version {found}, this program needs {needed}: run `farwrite worker migrate`"
    )]
    NotMigrated {
        /// The newest migration found; 0 for none.
        found: i64,
        /// The newest that this program knows.
        needed: i64,
    },
    /// The functions are of an older program.
    #[error(
        "the functions of the farwrite schema are not this program's, nor of a newer one that was installed after them: run `farwrite worker migrate`"
    )]
    FunctionsPending,
    /// A newer program's `migrate` made the schema into one that this program cannot work on.
    #[error(
        "the farwrite schema wants workers of protocol {required}, this program speaks {spoken}: upgrade the worker"
    )]
    TooNew {
        /// The lowest protocol that the schema allows.
        required: i32,
        /// The one that this program speaks.
        spoken: i32,
    },
}

impl From<sqlx::Error> for PrimaryError {
    fn from(error: sqlx::Error) -> Self {
        Self::Sql(error)
    }
}

impl PrimaryError {
    /// Whether the server, the database or the role has as many connections as it may.
    pub(crate) fn is_of_too_many(&self) -> bool {
        let code = match self {
            Self::Sql(sqlx::Error::Database(error)) => error.code(),
            _ => None,
        };
        code.is_some_and(|code| code == "53300")
    }

    /// Whether it may pass by itself, and waiting is right.
    pub fn may_pass(&self) -> bool {
        match self {
            Self::Sql(error) => Happened::of(error).verdict().may_pass(),
            Self::ConnectTimeout | Self::NoPrimary { .. } | Self::OtherServer { .. } => true,
            Self::Url(_)
            | Self::Replica
            | Self::AsynchronousCommit
            | Self::OtherDatabase { .. }
            | Self::PutBack { .. }
            | Self::TooOld(_)
            | Self::NotMigrated { .. }
            | Self::FunctionsPending
            | Self::TooNew { .. } => false,
        }
    }
}

/// What a connection is for: its name in `pg_stat_activity`.
pub(crate) enum Purpose {
    /// Takeover, heartbeat, outcomes, upkeep.
    Control,
    /// Applying batches, under an epoch.
    Lane(Epoch),
    /// What an operator asks for or does.
    Operator,
}

/// A server, and how its connections are set up.
#[derive(Clone)]
pub(crate) struct PrimaryServer {
    options: PgConnectOptions,
    statement_timeout: Duration,
}

/// Finds the server that can be written to, and connects to it. Of a single one nothing is asked:
/// whether it can is told by [`check_server`].
pub(crate) async fn find(
    database_url: &str,
    statement_timeout: Duration,
    purpose: &Purpose,
) -> Result<(PrimaryServer, PgConnection), PrimaryError> {
    let parsed = server_urls(database_url).map(|url| PrimaryServer::parse(url, statement_timeout));
    let servers: Vec<PrimaryServer> = parsed.collect::<Result<_, _>>()?;
    if let [server] = &servers[..] {
        return Ok((server.clone(), server.connect(purpose).await?));
    }
    let asked = join_all(servers.into_iter().map(|server| server.ask(purpose))).await;
    let (mut primaries, mut tried) = (Vec::new(), Vec::new());
    for (server, said) in asked {
        match said {
            Ok(Some((rank, connection))) => primaries.push((rank, server, connection)),
            Ok(None) => tried.push(format!("{}: a replica", server.name())),
            Err(error) => tried.push(format!("{}: {error}", server.name())),
        }
    }
    if primaries.len() > 1 {
        let named = |(rank, server, _): &((bool, u32), PrimaryServer, _)| {
            format!("{} on timeline {}", server.name(), rank.1)
        };
        let servers: Vec<String> = primaries.iter().map(named).collect();
        warn!(
            ?servers,
            "more than one server can be written to: the newest timeline is the primary's; stop the others before an app writes there"
        );
    }
    let newest = primaries.into_iter().max_by_key(|(rank, ..)| *rank);
    newest
        .map(|(_, server, connection)| (server, connection))
        .ok_or(PrimaryError::NoPrimary { tried })
}

impl PrimaryServer {
    fn parse(url: &str, statement_timeout: Duration) -> Result<Self, PrimaryError> {
        let options = PgConnectOptions::from_str(url)
            .map_err(|error| PrimaryError::Url(error.to_string()))?;
        Ok(Self { options, statement_timeout })
    }

    /// Host and port.
    pub(crate) fn name(&self) -> String {
        format!("{}:{}", self.options.get_host(), self.options.get_port())
    }

    /// Whether it wrote the rows that it holds, and its timeline, when it can be written to.
    async fn ask(
        self,
        purpose: &Purpose,
    ) -> (Self, Result<Option<((bool, u32), PgConnection)>, PrimaryError>) {
        let asking = async {
            let mut connection = self.connect(purpose).await?;
            if server::is_replica(&mut connection).await? {
                return Ok(None);
            }
            // Before `migrate` there are no rows.
            let here = owner::identity(&mut connection).await;
            let is_own = here.is_ok_and(|here| here.is_own());
            Ok(Some(((is_own, server::timeline(&mut connection).await?.0), connection)))
        };
        let said = tokio::time::timeout(ASK_WITHIN, asking).await;
        (self, said.unwrap_or(Err(PrimaryError::ConnectTimeout)))
    }

    /// Connects to the very server that `first` is a connection to: a name may lead elsewhere by now.
    pub(crate) async fn connect_as(
        &self,
        first: &PrimaryStart,
        purpose: &Purpose,
    ) -> Result<PgConnection, PrimaryError> {
        let mut connection = self.connect(purpose).await?;
        if PrimaryStart::of(&mut connection).await? != *first {
            return Err(PrimaryError::OtherServer { server: self.name() });
        }
        Ok(connection)
    }

    /// Connects. The statements and their parameters are never logged.
    pub(crate) async fn connect(&self, purpose: &Purpose) -> Result<PgConnection, PrimaryError> {
        connect(&self.options, self.statement_timeout, purpose).await
    }
}

/// One start of one server: no two begin in the same microsecond.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PrimaryStart(String);

impl PrimaryStart {
    pub(crate) async fn of(connection: &mut PgConnection) -> Result<Self, sqlx::Error> {
        server::start(connection).await.map(Self)
    }
}

/// Sessions of one start of the primary.
#[derive(Clone)]
pub(crate) struct PrimarySessions {
    pub(crate) server: PrimaryServer,
    pub(crate) start: PrimaryStart,
}

impl PrimarySessions {
    /// A session for anything but a lane.
    pub(crate) async fn control(&self) -> Result<PgConnection, PrimaryError> {
        self.server.connect_as(&self.start, &Purpose::Control).await
    }

    /// A session for a lane of a takeover.
    pub(crate) async fn lane(&self, epoch: Epoch) -> Result<PgConnection, PrimaryError> {
        self.server.connect_as(&self.start, &Purpose::Lane(epoch)).await
    }
}

async fn connect(
    options: &PgConnectOptions,
    statement_timeout: Duration,
    purpose: &Purpose,
) -> Result<PgConnection, PrimaryError> {
    let application = match purpose {
        Purpose::Control => "farwrite-worker".to_owned(),
        Purpose::Lane(epoch) => format!("{LANE_APPLICATION}{epoch}"),
        Purpose::Operator => "farwrite-operator".to_owned(),
    };
    let milliseconds = |duration: Duration| duration.as_millis().to_string();
    // What a session is given at its start stays, whatever the server, the database or the role is set
    // to later, and is what RESET brings back. A URL may name a stricter value.
    let names_commit = options.get_options().is_some_and(|all| all.contains(SYNCHRONOUS_COMMIT));
    let commit = (!names_commit).then_some((SYNCHRONOUS_COMMIT, "on"));
    let options = options
        .clone()
        .options(commit)
        .application_name(&application)
        .options([
            ("default_transaction_isolation", "read committed"),
            ("statement_timeout", &milliseconds(statement_timeout)),
            ("lock_timeout", &milliseconds(LOCK_TIMEOUT)),
            ("idle_in_transaction_session_timeout", &milliseconds(IDLE_IN_TRANSACTION)),
            // What a command says beside its outcome has no reader here, and may hold its caller's data.
            ("client_min_messages", "error"),
            ("idle_session_timeout", "0"),
        ])
        .disable_statement_logging();
    let connecting = PgConnection::connect_with(&options);
    match tokio::time::timeout(CONNECT_TIMEOUT, connecting).await {
        Ok(connection) => Ok(connection?),
        Err(_) => Err(PrimaryError::ConnectTimeout),
    }
}

/// Checks that this is a primary whose commits are durable, of a version that works.
pub(crate) async fn check_server(connection: &mut PgConnection) -> Result<(), PrimaryError> {
    let facts = server::facts(connection).await?;
    if facts.version < 150_000 {
        Err(PrimaryError::TooOld(facts.version / 10_000))
    } else if facts.is_replica {
        Err(PrimaryError::Replica)
    } else if facts.synchronous_commit == "off" {
        Err(PrimaryError::AsynchronousCommit)
    } else {
        Ok(())
    }
}

/// Checks that this database wrote the rows that it holds.
pub(crate) async fn check_identity(connection: &mut PgConnection) -> Result<(), PrimaryError> {
    let here = owner::identity(connection).await?;
    if here.is_own() {
        return Ok(());
    }
    let recorded = here.recorded.unwrap_or_default();
    Err(PrimaryError::OtherDatabase { recorded, here: here.home })
}
