//! A batch of function commands as one statement, `farwrite.apply`: its own transaction, one round
//! trip.

use farwrite_schemas::Outcome;
use sqlx::{Connection, PgConnection};

use crate::failpoint::Failpoint;

use super::{
    attempt::{Care, Committed, Failure, Fence, GROUP, OnlyAfterCommit, Settled},
    batch::Item,
    columns::Columns,
};

type Row = (i32, Vec<Option<String>>, Vec<Option<String>>, Vec<bool>);

pub(super) async fn attempt(
    connection: &mut PgConnection,
    items: &[Item],
    fence: &Fence<'_>,
    care: Care,
) -> Result<Committed, Failure> {
    let columns = Columns::of(items.iter());
    let statement = sqlx::query_as(
        "SELECT done, outcomes, answers, repeated FROM farwrite.apply(
             $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20)",
    )
    .bind(fence.takeover.stream_id)
    .bind(fence.lane.cast_signed())
    .bind(fence.takeover.epoch.0)
    .bind(fence.from.cast_signed())
    .bind(fence.to.sequence.cast_signed())
    .bind(fence.to.at_ns)
    .bind(columns.at_ns)
    .bind(if care == Care::Plain { 0 } else { GROUP })
    .bind(columns.ids)
    .bind(columns.fingerprints)
    .bind(columns.sequences)
    .bind(columns.functions)
    .bind(columns.set_forms)
    .bind(columns.names)
    .bind(columns.versions)
    .bind(columns.keys)
    .bind(columns.origins)
    .bind(columns.bodies)
    .bind(columns.expires_ns)
    .bind(columns.contexts);
    let (done, outcomes, answers, repeated): Row = if Failpoint::BeforeCommit.is_armed() {
        // The same statement in a transaction that is held open, so that a test can die within.
        let mut tx = connection.begin().await?;
        let row = statement.fetch_one(&mut *tx).await?;
        Failpoint::BeforeCommit.pass();
        tx.commit().await?;
        row
    } else {
        // Reads to the end of the answer, the commit included: sqlx does so to see what a deferred
        // constraint says.
        statement.fetch_one(connection).await?
    };
    let only_after_commit = OnlyAfterCommit::committed();
    let done = usize::try_from(done).unwrap_or(0).min(items.len());
    let settled = (outcomes.into_iter().zip(answers).zip(repeated).take(done))
        .map(|((outcome, answer), repeated)| {
            Outcome::from_ledger(outcome.as_deref().unwrap_or(""), answer)
                .map(|outcome| Settled::Ended { outcome, repeated })
                .map_err(Failure::unreadable)
        })
        .collect::<Result<Vec<_>, _>>()?;
    let position = match items[..done].last() {
        Some(last) if done < items.len() => last.delivery.place(),
        _ => fence.to,
    };
    Ok(Committed { settled, position, waits: false, _only_after_commit: only_after_commit })
}
