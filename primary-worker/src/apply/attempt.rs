//! One attempt at a batch: a transaction, from the fence to the commit.
//!
//! Two ways. When every command is a function of the database, nothing of the lane waits, and no id
//! is known already, the whole batch is one statement (`one_statement`), which is its own
//! transaction. Otherwise it is `staged`. Both begin with the fence and end with the ledger, and only a committed attempt gives
//! a [`Committed`]: nothing else can be settled, so that answering before the commit does not
//! compile.

use std::{borrow::Cow, time::Duration};

use farwrite_schemas::{Outcome, Rejection};
use sqlx::{
    PgConnection, Postgres,
    postgres::{PgArguments, PgDatabaseError},
    query::QueryAs,
};

use crate::{
    lane::batch::Item,
    life::takeover::Takeover,
    stream::{delivery::Place, identity::Anchor},
    verdict::{Happened, Verdict},
};

use super::{handler::HandlerError, one_statement, sort::Bounds, staged};

/// Commands that share a subtransaction of a guarded batch: fewer after failures, more only where the
/// batch is large.
pub(crate) const GROUP: i32 = 8;
/// Commands in one staged transaction with savepoints, one for each at most: more than 64 slow
/// down every snapshot, on standbys too.
pub(crate) const GUARDED_MAX: usize = 60;
/// How much longer than the server's own limit an attempt may take before its connection is given
/// up: then the server, or the way to it, has gone.
const GRACE: Duration = Duration::from_secs(10);

/// How carefully an attempt is made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Care {
    /// Without subtransactions: the first command that fails fails the batch.
    Plain,
    /// With subtransactions: a command's own fault becomes its rejection.
    Guarded,
}

/// Where a lane stands, and under which right it moves on.
pub(crate) struct Fence<'a> {
    pub(crate) takeover: &'a Takeover,
    pub(crate) lane: u32,
    pub(crate) from: u64,
    pub(crate) to: Place,
    /// The last message applied once this is committed.
    pub(crate) anchor: Option<&'a Anchor>,
}

impl Fence<'_> {
    /// Binds what the first statement of every batch begins with, as its first six parameters.
    pub(crate) fn bind<'q, R>(
        &self,
        statement: QueryAs<'q, Postgres, R, PgArguments>,
    ) -> QueryAs<'q, Postgres, R, PgArguments> {
        statement
            .bind(self.takeover.stream_id)
            .bind(self.lane.cast_signed())
            .bind(self.takeover.epoch.0)
            .bind(self.from.cast_signed())
            .bind(self.to.sequence.cast_signed())
            .bind(self.to.at_ns)
    }
}

/// How an attempt is made.
#[derive(Clone, Copy)]
pub(crate) struct Manner {
    pub(crate) care: Care,
    /// Whether something of the lane is known to wait.
    pub(crate) staged: bool,
    pub(crate) bounds: Bounds,
    pub(crate) statement_timeout: Duration,
}

/// What became of one command of a committed batch.
#[derive(Debug)]
pub(crate) enum Settled {
    /// It ended.
    Ended {
        outcome: Outcome,
        /// The ledger knew the id: it was not applied now.
        repeated: bool,
    },
    /// It is parked, for this reason.
    Parked(&'static str),
    /// Nothing was done about it: it is parked already, or stands behind one that waits.
    Untouched,
}

impl Settled {
    /// Whether it was found now that the command is rejected.
    pub(crate) fn is_rejected(&self) -> bool {
        matches!(self, Self::Ended { outcome: Outcome::Rejected(_), repeated: false })
    }
}

/// A batch, or the first part of one, that is committed. Only this can be answered for.
pub(crate) struct Committed {
    /// What became of the first commands, in order.
    pub(crate) settled: Vec<Settled>,
    /// Where the lane stands now.
    pub(crate) position: Place,
    /// Whether something of the lane waits.
    pub(crate) waits: bool,
    pub(crate) _only_after_commit: OnlyAfterCommit,
}

/// Made by the two ways of committing, and nowhere else.
pub(crate) struct OnlyAfterCommit(());

impl OnlyAfterCommit {
    /// To be called straight after a commit.
    pub(crate) const fn committed() -> Self {
        Self(())
    }
}

/// Why an attempt did not commit. Nothing of it stays.
#[derive(Debug)]
pub(crate) enum Failure {
    /// Somebody else has taken over.
    Fenced,
    /// The primary, or the way to it. `blames` tells whether a command that ran alone may be the
    /// cause.
    World { reason: String, blames: bool },
    /// A handler ended the batch's transaction: what it committed is not in the ledger.
    TransactionEnded(String),
    /// As much waits as may.
    Full,
    /// A command of it; which one is known only when it was alone.
    Command(FailedCommand),
}

/// A command failed, or one of a batch did.
#[derive(Debug)]
pub(crate) struct FailedCommand {
    pub(crate) verdict: Verdict,
    pub(crate) rejection: Rejection,
    /// Which part of an atomic batch it was.
    pub(crate) part: Option<usize>,
}

impl FailedCommand {
    /// A batch of which more would have to wait than may.
    pub(crate) fn full() -> Self {
        let rejection = Rejection::new("full", "as many commands are parked as may be");
        Self { verdict: Verdict::Retry, rejection, part: None }
    }
}

impl Failure {
    pub(crate) fn of(happened: Happened, rejection: Rejection) -> Self {
        match happened.verdict() {
            Verdict::Fenced => Self::Fenced,
            Verdict::Broken => Self::TransactionEnded(rejection.message),
            Verdict::Wait => Self::World { reason: rejection.message, blames: false },
            Verdict::Blame => Self::World { reason: rejection.message, blames: true },
            verdict @ (Verdict::Reject
            | Verdict::Retry
            | Verdict::Park
            | Verdict::Refresh
            | Verdict::Later(_)
            | Verdict::DeadLetter) => {
                Self::Command(FailedCommand { verdict, rejection, part: None })
            }
        }
    }

    /// A command is refused.
    pub(crate) fn refused(rejection: Rejection) -> Self {
        Self::of(Happened::Refused, rejection)
    }

    /// A fault of this program.
    pub(crate) fn internal(message: &str) -> Self {
        let rejection = Rejection::new("internal", message);
        Self::Command(FailedCommand { verdict: Verdict::DeadLetter, rejection, part: None })
    }

    /// What PostgreSQL answered is not of the form that it must have.
    pub(crate) fn unreadable(error: impl std::fmt::Display) -> Self {
        Self::World { reason: error.to_string(), blames: false }
    }
}

impl From<sqlx::Error> for Failure {
    fn from(error: sqlx::Error) -> Self {
        Self::of(Happened::of(&error), rejection_of(&error))
    }
}

impl From<HandlerError> for Failure {
    fn from(error: HandlerError) -> Self {
        match error {
            HandlerError::Rejected(rejection) => Self::refused(rejection),
            HandlerError::Later(wait) => {
                let message = format!("asked to be tried again after {} ms", wait.as_millis());
                Self::of(Happened::AskedLater(wait), Rejection::new("later", message))
            }
            HandlerError::Database(error) => error.into(),
        }
    }
}

/// What is recorded of an error: its code, its message and its constraint; never its detail, which
/// may hold another row's data. `farwrite.reject` brings a code of the app's own.
fn rejection_of(error: &sqlx::Error) -> Rejection {
    match error {
        sqlx::Error::Database(error) => {
            let postgres = error.try_downcast_ref::<PgDatabaseError>();
            let code = error.code().unwrap_or(Cow::Borrowed("XX000"));
            let own = postgres.and_then(PgDatabaseError::data_type).filter(|_| code == "P0001");
            Rejection {
                code: own.map_or_else(|| code.into_owned(), ToOwned::to_owned),
                message: error.message().to_owned(),
                constraint: error.constraint().map(ToOwned::to_owned),
            }
        }
        other => Rejection::new("driver", other.to_string()),
    }
}

/// Attempts a batch once.
pub(crate) async fn attempt(
    connection: &mut PgConnection,
    items: &[Item],
    fence: &Fence<'_>,
    manner: Manner,
) -> Result<Committed, Failure> {
    let attempt = async {
        if !manner.staged
            && items.iter().all(one_statement::fits)
            && let Some(committed) =
                one_statement::attempt(connection, items, fence, manner.care).await?
        {
            return Ok(committed);
        }
        staged::attempt(connection, items, fence, manner).await
    };
    // The server ends a statement that takes too long. When even that does not arrive, the
    // connection is given up with whatever it was doing: the fence decides what came of it.
    let statements = if items.len() > 1 { 10 } else { 2 };
    let limit = manner.statement_timeout * statements + GRACE;
    tokio::time::timeout(limit, attempt).await.unwrap_or_else(|_| {
        let reason = format!("no answer for {} s", limit.as_secs());
        Err(Failure::World { reason, blames: true })
    })
}

/// Moves a lane that has nothing to do along to what was read past it: only the fence, committed.
/// Answers whether something of the lane waits.
pub(crate) async fn move_along(
    connection: &mut PgConnection,
    fence: &Fence<'_>,
) -> Result<bool, Failure> {
    let anchor = fence.anchor;
    let statement = sqlx::query_as(
        "SELECT parked > 0 OR paused FROM farwrite.fence($1, $2, $3, $4, $5, $6, $7, $8, $9)",
    );
    let (waits,): (bool,) = fence
        .bind(statement)
        .bind(anchor.map_or(0, |anchor| anchor.sequence.cast_signed()))
        .bind(anchor.map(|anchor| anchor.at_ns))
        .bind(anchor.and_then(|anchor| anchor.id.as_deref()))
        .fetch_one(connection)
        .await?;
    Ok(waits)
}
