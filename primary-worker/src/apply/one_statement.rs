//! A batch of function commands as one statement, its own transaction, in one round trip:
//! `farwrite.apply_plain` for a first attempt with nothing to look at but the functions, and
//! `farwrite.apply_guarded` for one of which a command may be refused.

use farwrite_schemas::Outcome;
use sqlx::{
    Connection, FromRow, PgConnection, Postgres,
    postgres::{PgArguments, PgRow},
    query::QueryAs,
};

use crate::failpoint::Failpoint;

use super::{
    columns::Columns,
    failure::Failure,
    fence::Fence,
    item::BatchItem,
    manner::{Care, GROUP},
    settled::{CommittedBatch, OnlyAfterCommit, Settled},
    work::CommandWork,
};

/// Whether a command needs nothing but its function: no schedule, and not parked.
pub(crate) fn fits(item: &BatchItem) -> bool {
    matches!(item.work, CommandWork::Function(_))
        && item.parked.is_none()
        && item.delivery.envelope.as_ref().is_ok_and(|envelope| envelope.not_before_ms.is_none())
}

/// `None` where nothing was done, since there is more to look at than the functions, or the lane is
/// not where it is said to be: the batch is to be staged.
pub(crate) async fn attempt(
    connection: &mut PgConnection,
    items: &[BatchItem],
    fence: &Fence,
    care: Care,
) -> Result<Option<CommittedBatch>, Failure> {
    let columns = Columns::of(items.iter());
    match care {
        Care::Plain => attempt_plain(connection, &columns, fence).await,
        Care::Guarded => attempt_guarded(connection, items, &columns, fence).await,
    }
}

type GuardedRow =
    (Option<i32>, Option<Vec<Option<String>>>, Option<Vec<Option<String>>>, Option<Vec<bool>>);

/// Applies a batch in subtransactions, where a command's own fault becomes its rejection.
async fn attempt_guarded(
    connection: &mut PgConnection,
    items: &[BatchItem],
    columns: &Columns<'_>,
    fence: &Fence,
) -> Result<Option<CommittedBatch>, Failure> {
    let statement = sqlx::query_as(
        "SELECT done, outcomes, answers, repeated FROM farwrite.apply_guarded(
             $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, $22)",
    );
    let statement = columns
        .bind(fence.bind(statement))
        .bind(&columns.expires_ns)
        .bind(&columns.contexts)
        .bind(GROUP)
        .bind(&columns.unconfirmed);
    let row: GuardedRow = commit(connection, statement).await?;
    let (Some(done), Some(outcomes), Some(answers), Some(repeated)) = row else { return Ok(None) };
    let only_after_commit = OnlyAfterCommit::committed();
    let done = usize::try_from(done).unwrap_or(0).min(items.len());
    let mut settled = Vec::with_capacity(done);
    for ((outcome, answer), repeated) in outcomes.into_iter().zip(answers).zip(repeated).take(done)
    {
        let outcome = Outcome::from_ledger(outcome.as_deref().unwrap_or(""), answer);
        settled.push(Settled::Ended { outcome: outcome.map_err(Failure::unreadable)?, repeated });
    }
    let position = match items[..done].last() {
        Some(last) if done < items.len() => last.delivery.position(),
        _ => fence.to,
    };
    let waits = false;
    Ok(Some(CommittedBatch { settled, position, waits, _only_after_commit: only_after_commit }))
}

/// Applies a batch with nothing to look at but its functions.
async fn attempt_plain(
    connection: &mut PgConnection,
    columns: &Columns<'_>,
    fence: &Fence,
) -> Result<Option<CommittedBatch>, Failure> {
    let Some((lowest, highest)) = columns.plain_ids() else { return Ok(None) };
    let statement = sqlx::query_as(
        "SELECT farwrite.apply_plain(
             $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20)",
    );
    let statement = columns.bind(fence.bind(statement)).bind(lowest).bind(highest);
    let (answers,): (Option<Vec<Option<String>>>,) = commit(connection, statement).await?;
    let Some(answers) = answers else { return Ok(None) };
    if answers.len() != columns.ids.len() {
        let counts = format!("{} answers for {} commands", answers.len(), columns.ids.len());
        return Err(Failure::unreadable(counts));
    }
    let only_after_commit = OnlyAfterCommit::committed();
    let mut settled = Vec::with_capacity(answers.len());
    for answer in answers {
        let outcome = Outcome::from_ledger("applied", answer).map_err(Failure::unreadable)?;
        settled.push(Settled::Ended { outcome, repeated: false });
    }
    let (position, waits) = (fence.to, false);
    Ok(Some(CommittedBatch { settled, position, waits, _only_after_commit: only_after_commit }))
}

/// Runs a statement that is its own transaction.
async fn commit<R>(
    connection: &mut PgConnection,
    statement: QueryAs<'_, Postgres, R, PgArguments>,
) -> Result<R, sqlx::Error>
where
    R: for<'r> FromRow<'r, PgRow> + Send + Unpin,
{
    if Failpoint::BeforeCommit.is_armed() {
        // The same statement in a transaction that is held open, so that a test can die within.
        let mut tx = connection.begin().await?;
        let row = statement.fetch_one(&mut *tx).await?;
        Failpoint::BeforeCommit.pass();
        tx.commit().await?;
        return Ok(row);
    }
    // Reads to the end of the answer, the commit included: sqlx does so to see what a deferred
    // constraint says.
    statement.fetch_one(connection).await
}
