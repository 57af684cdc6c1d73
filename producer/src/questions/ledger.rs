//! Reading outcomes in the database that this producer reads: its region's replica, or the primary.
//!
//! An outcome that is found on a replica is visible there. Its bookmark, which may travel on, is that
//! of the read: see `position.rs`.
//!
//! What is not found on a replica is unknown *here*. Only the primary knows that a command has not
//! ended. An outcome that not every required standby has is not told, here or anywhere: it counts as
//! parked.

use farwrite_lsn_watcher::WaitError;
use farwrite_schemas::{
    Bookmark, CommandId, CommandStatus, OUTCOMES_QUERY, Outcome, OutcomeRow, ParkedCommand,
    Recorded, Reply,
};
use serde_json::value::RawValue;
use sqlx::PgConnection;
use tokio::time::{Instant, sleep, timeout_at};

use crate::{
    backoff, metrics,
    questions::ask::Questions,
    reads::{
        position::{self, ServerPosition},
        role::NoReads,
    },
};

/// Why an output that is too large for a message could not be read from the database.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OutputError {
    /// The producer has no pool to read with.
    #[error(transparent)]
    NoReads(#[from] NoReads),
    /// The replica was not seen to reach the bookmark.
    #[error("the replica has not reached it: {0}")]
    NotVisible(Box<WaitError>),
    /// The database failed, or does not let this user read the ledger.
    #[error(transparent)]
    Sql(#[from] sqlx::Error),
    /// The time was up.
    #[error("the time was up")]
    TimedOut,
    /// The ledger does not hold it any more, or what it holds is not an output.
    #[error("the ledger does not hold it")]
    NotFound,
}

/// What the database that is read says of a command.
#[derive(Debug)]
pub(crate) enum LedgerAnswer {
    /// It ended.
    Ended(Reply),
    /// It has not, at this position of this server. On the primary that is a fact.
    NotEnded { parked: Option<ParkedCommand>, is_fact: bool },
}

impl Questions {
    /// Looks for an outcome; `None` where the producer has nothing to read with.
    pub(crate) async fn read_outcome(
        &self,
        id: CommandId,
    ) -> Option<Result<LedgerAnswer, sqlx::Error>> {
        let pool = self.reads.pool().ok()?;
        let looking = async {
            let mut connection = pool.acquire().await?;
            self.look(&mut connection, id).await
        };
        let seen = looking.await;
        metrics::outcome_read(match &seen {
            Ok(LedgerAnswer::Ended(_)) => "found",
            Ok(LedgerAnswer::NotEnded { .. }) => "not_found",
            Err(_) => "failed",
        });
        Some(seen)
    }

    async fn look(
        &self,
        connection: &mut PgConnection,
        id: CommandId,
    ) -> Result<LedgerAnswer, sqlx::Error> {
        let recorded = recorded(connection, id).await?;
        // After the row: see `position.rs`.
        let ServerPosition { in_recovery, bookmark } =
            position::ask(connection, self.reads.database()).await?;
        // Another database's rows, such as a copy's, have no bookmark and say nothing.
        let is_fact = !in_recovery && self.reads.are_on_primary() && bookmark.is_some();
        let (outcome, record) = match recorded.map(|recorded| recorded.status) {
            Some(CommandStatus::Ended { outcome, record }) => (outcome, record),
            Some(CommandStatus::Parked(parked)) => {
                return Ok(LedgerAnswer::NotEnded { parked: Some(parked), is_fact });
            }
            None => return Ok(LedgerAnswer::NotEnded { parked: None, is_fact }),
        };
        let bookmark = bookmark.ok_or(sqlx::Error::RowNotFound)?;
        Ok(LedgerAnswer::Ended(Reply { id, outcome, bookmark, record }))
    }

    /// Reads the output of a command that was applied, once its bookmark is visible here.
    pub(crate) async fn read_output(
        &self,
        id: CommandId,
        bookmark: &Bookmark,
        deadline: Instant,
    ) -> Result<Box<RawValue>, OutputError> {
        let reading = async {
            let pool = self.reads.pool()?;
            let left = deadline.saturating_duration_since(Instant::now());
            let visible = self.reads.wait_unchecked(bookmark, left).await;
            visible.map_err(|error| OutputError::NotVisible(Box::new(error)))?;
            let mut connection = pool.acquire().await?;
            let mut backoff = backoff::publishing();
            loop {
                match recorded(&mut connection, id).await?.map(|recorded| recorded.status) {
                    Some(CommandStatus::Ended { outcome: Outcome::Applied { output }, .. }) => {
                        return Ok(output);
                    }
                    // It is told at the primary already, and here in a moment.
                    Some(status) if status.is_unconfirmed() => sleep(backoff.next_pause()).await,
                    Some(_) | None => return Err(OutputError::NotFound),
                }
            }
        };
        let read = timeout_at(deadline, reading).await.unwrap_or(Err(OutputError::TimedOut));
        metrics::outcome_read(match &read {
            Ok(_) => "found",
            Err(OutputError::NotFound) => "not_found",
            Err(_) => "failed",
        });
        read
    }
}

async fn recorded(
    connection: &mut PgConnection,
    id: CommandId,
) -> Result<Option<Recorded>, sqlx::Error> {
    let row: Option<OutcomeRow> =
        sqlx::query_as(OUTCOMES_QUERY).bind(vec![id.uuid()]).fetch_optional(connection).await?;
    let recorded = row.map(Recorded::from_row).transpose();
    recorded.map_err(|error| sqlx::Error::Decode(Box::new(error)))
}
