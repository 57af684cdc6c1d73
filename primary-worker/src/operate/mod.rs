//! What operators ask for and do by hand: dead letters, parked commands, pauses, cancelling, how a
//! command ended, and how far the database has come.
//!
//! **Who is authoritative.** The SQL functions of the schema's step 6 do every act, in one
//! transaction each, and write it down in `farwrite.operations`; what is here chooses, reads and
//! prints. An act on many rows is done in chunks, each a transaction of its own, in order of
//! sequence: a program that is killed has done a first part of it, and whoever runs it again does
//! the rest.
//!
//! **What happens on failure.** Nothing waits for ever: a lane that is busy is asked for again a
//! few times, then the act ends undone and says so. None of the acts is in the stream: a failover
//! that loses commits loses them too.

mod cancel;
mod chunks;
mod dead_letters;
mod filter;
mod outcome;
mod parked;
mod pauses;
mod print;
mod requeue;
mod status;

use std::time::Duration;

use farwrite_schemas::CommandId;
use sqlx::PgConnection;

use crate::{
    life::schema,
    primary::{self, PrimaryError, Purpose},
};

pub(crate) use filter::{Filter, LIMIT_MAX};
pub(crate) use pauses::Target;
use print::Printer;

/// How long one statement of an operator's may run: reading a million parked commands takes
/// seconds.
const STATEMENT_TIMEOUT: Duration = Duration::from_secs(60);

/// What an operator asks for or does.
#[derive(Debug)]
pub(crate) enum Operation {
    ListDeadLetters(Filter),
    ShowDeadLetters(Filter),
    Requeue { filter: Filter, reason: String },
    Discard { filter: Filter, reason: String },
    ListParked(Filter),
    ShowParked(Filter),
    Release { filter: Filter, reason: String },
    Pause { target: Target, reason: String },
    Resume { target: Target },
    Pauses,
    Cancel { id: CommandId, reason: String },
    Outcome { id: CommandId },
    Status { nats_url: String },
}

/// How an operation ended that did not fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// Everything that was asked for.
    Done,
    /// Not all of it, or what was asked for is not there; what was printed says why.
    Partly,
}

/// An operation did not succeed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OperateError {
    /// The server is not one to work on, or its schema is not this program's.
    #[error(transparent)]
    Primary(#[from] PrimaryError),
    /// The database failed.
    #[error("the primary: {0}")]
    Sql(#[from] sqlx::Error),
    /// A batch, or another operator, held the lanes the whole time.
    #[error(
        "a batch holds its lane for longer than {} s: nothing (more) was done; try again",
        chunks::HOLD_TRIES * chunks::HOLD_WITHIN_S
    )]
    Busy,
    /// The database knows no such stream.
    #[error("stream: this database knows no stream {0:?}")]
    UnknownStream(String),
    /// What is to be printed has no JSON form.
    #[error("printing: {0}")]
    Json(#[from] serde_json::Error),
    /// Nobody reads what is printed.
    #[error("printing: {0}")]
    Output(#[from] std::io::Error),
}

impl OperateError {
    /// Whether the configuration is to be changed, rather than the operation repeated.
    pub(crate) fn is_configuration(&self) -> bool {
        match self {
            Self::Primary(error) => !error.may_pass(),
            Self::UnknownStream(_) => true,
            Self::Sql(_) | Self::Busy | Self::Json(_) | Self::Output(_) => false,
        }
    }
}

impl Operation {
    /// Whether it changes something: on the primary, then.
    const fn is_act(&self) -> bool {
        match self {
            Self::Requeue { .. }
            | Self::Discard { .. }
            | Self::Release { .. }
            | Self::Pause { .. }
            | Self::Resume { .. }
            | Self::Cancel { .. } => true,
            Self::ListDeadLetters(_)
            | Self::ShowDeadLetters(_)
            | Self::ListParked(_)
            | Self::ShowParked(_)
            | Self::Pauses
            | Self::Outcome { .. }
            | Self::Status { .. } => false,
        }
    }
}

/// Does it, and prints what it finds: for people, or one JSON object a line.
pub(crate) async fn run(
    operation: Operation,
    database_url: &str,
    stream: Option<&str>,
    json: bool,
) -> Result<End, OperateError> {
    let (_, mut connection) =
        primary::find(database_url, STATEMENT_TIMEOUT, &Purpose::Operator).await?;
    if operation.is_act() {
        primary::check_server(&mut connection).await?;
    }
    let version = schema::check_migrated(&mut connection).await?;
    let mut printer = Printer::new(json);
    let connection = &mut connection;
    let printer = &mut printer;
    match operation {
        Operation::ListDeadLetters(filter) => {
            let filter = filter.begin(connection, stream).await?;
            dead_letters::list(connection, &filter, printer).await
        }
        Operation::ShowDeadLetters(filter) => {
            let filter = filter.begin(connection, stream).await?;
            dead_letters::show(connection, &filter, printer).await
        }
        Operation::Requeue { filter, reason } => {
            let filter = filter.begin(connection, stream).await?;
            requeue::requeue(connection, &filter, &reason, printer).await
        }
        Operation::Discard { filter, reason } => {
            let filter = filter.begin(connection, stream).await?;
            dead_letters::discard(connection, &filter, &reason, printer).await
        }
        Operation::ListParked(filter) => {
            let filter = filter.begin(connection, stream).await?;
            parked::list(connection, &filter, printer).await
        }
        Operation::ShowParked(filter) => {
            let filter = filter.begin(connection, stream).await?;
            parked::show(connection, &filter, printer).await
        }
        Operation::Release { filter, reason } => {
            let filter = filter.begin(connection, stream).await?;
            parked::release(connection, &filter, &reason, printer).await
        }
        Operation::Pause { target, reason } => {
            pauses::pause(connection, &target, &reason, printer).await
        }
        Operation::Resume { target } => pauses::resume(connection, &target, printer).await,
        Operation::Pauses => pauses::list(connection, printer).await,
        Operation::Cancel { id, reason } => cancel::cancel(connection, id, &reason, printer).await,
        Operation::Outcome { id } => outcome::outcome(connection, id, printer).await,
        Operation::Status { nats_url } => {
            status::status(connection, version, &nats_url, stream, printer).await
        }
    }
}

/// Whether the server is a replica, and what it says may be behind the primary.
async fn is_replica(connection: &mut PgConnection) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar("SELECT pg_is_in_recovery()").fetch_one(connection).await
}
