//! The end of a run: everything settles, and is dumped behind the history.

use std::{
    sync::PoisonError,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use futures_util::TryStreamExt;
use uuid::Uuid;

use farwrite_checker::{HistoryOutcome, HistoryWriter};

use super::{
    app::{DATABASE, PATIENCE},
    stage::ChaosStage,
    stream_copy::StreamCopy,
};

/// How a run ended.
pub(super) struct ChaosEnd {
    /// How many commands were applied.
    pub(super) applied: u64,
    /// What the workers say of a stream that does not settle.
    pub(super) unsettled: Option<String>,
}

/// Waits until every command of the stream has ended, and writes the end state. A stream that does
/// not settle is written too: the checker names the commands without an outcome.
pub(super) async fn settle_and_dump(
    stage: &ChaosStage,
    copy: Option<StreamCopy>,
    history: &HistoryWriter,
) -> Result<ChaosEnd> {
    let unsettled = wait(stage).await?;
    if let Some(copy) = copy {
        let messages = copy.finish().await?;
        let batches = stage.batches.lock().unwrap_or_else(PoisonError::into_inner);
        let is_ordered = |id: &Uuid| !batches.wholes.contains(id) && !batches.members.contains(id);
        for (sequence, (id, key)) in messages.into_iter().filter(|(_, (id, _))| is_ordered(id)) {
            history.message(sequence, id, &key)?;
        }
    }
    let wholes = {
        let batches = stage.batches.lock().unwrap_or_else(PoisonError::into_inner);
        batches.wholes.clone()
    };
    let mut connection = stage.primary().await?;
    let mut applied = 0;
    let sql = "SELECT command_id, outcome::text FROM farwrite.ledger
               UNION ALL SELECT command_id, outcome::text FROM farwrite.ledger_derived";
    let mut rows = sqlx::query_as::<_, (Uuid, String)>(sql).fetch(&mut connection);
    while let Some((id, outcome)) = rows.try_next().await? {
        let outcome = match outcome.as_str() {
            "applied" => HistoryOutcome::Applied,
            "rejected" => HistoryOutcome::Rejected,
            "expired" => HistoryOutcome::Expired,
            "dead_lettered" => HistoryOutcome::DeadLettered,
            other => bail!("an outcome {other:?} in the ledger"),
        };
        applied += u64::from(outcome == HistoryOutcome::Applied);
        // A batch has no effect of its own.
        if !wholes.contains(&id) {
            history.outcome(id, outcome)?;
        }
    }
    drop(rows);
    let sql = "SELECT key, n, id FROM effects ORDER BY key, n";
    let mut rows = sqlx::query_as::<_, (String, i64, Uuid)>(sql).fetch(&mut connection);
    while let Some((key, n, id)) = rows.try_next().await? {
        history.effect(&key, n.unsigned_abs(), id)?;
    }
    Ok(ChaosEnd { applied, unsettled })
}

/// Waits until every command that the stream holds has ended.
pub(super) async fn settle(stage: &ChaosStage) -> Result<()> {
    let unsettled = wait(stage).await?;
    ensure!(unsettled.is_none(), "{}", unsettled.unwrap_or_default());
    Ok(())
}

/// Waits until every command that the stream holds has ended; else says what the workers do.
async fn wait(stage: &ChaosStage) -> Result<Option<String>> {
    let context = async_nats::jetstream::new(async_nats::connect(stage.stack.nats().url()).await?);
    let stream = context.get_stream(format!("farwrite-{DATABASE}")).await?;
    let last = stream.cached_info().state.last_sequence.cast_signed();
    let began = Instant::now();
    loop {
        stage.workers.lock().await.check()?;
        let mut connection = stage.primary().await?;
        let sql =
            "SELECT bool_and(sequence >= $1) AND NOT EXISTS (SELECT FROM farwrite.parked), count(*)
                   FROM farwrite.lanes";
        let (settled, lanes): (Option<bool>, i64) =
            sqlx::query_as(sql).bind(last).fetch_one(&mut connection).await.context("settling")?;
        if settled == Some(true) && lanes > 0 {
            return Ok(None);
        }
        if began.elapsed() > PATIENCE {
            let logs = stage.workers.lock().await.end().await?;
            let logs = logs.join("\n---\n");
            return Ok(Some(format!("the stream's commands up to {last} do not settle\n{logs}")));
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
