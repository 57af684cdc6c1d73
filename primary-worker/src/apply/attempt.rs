//! One attempt at a batch: a transaction, from the fence to the commit.
//!
//! Two ways. When every command is a function of the database, nothing of the lane waits, and no id
//! is known already, the whole batch is one statement (`one_statement`), which is its own
//! transaction. Otherwise it is `staged`. Both begin with the fence and end with the ledger. Only a
//! committed attempt gives a [`CommittedBatch`], and nothing else can be settled: answering before
//! the commit does not compile.

use std::{panic::AssertUnwindSafe, time::Duration};

use farwrite_schemas::Rejection;
use futures_util::FutureExt;
use sqlx::PgConnection;

use crate::verdict::{Blame, Happened};

use super::{
    failure::Failure, fence::Fence, item::BatchItem, manner::Manner, one_statement,
    settled::CommittedBatch, staged,
};

/// How much longer than the server's own limit an attempt may take before its connection is given
/// up: then the server, or the way to it, has gone.
const GRACE: Duration = Duration::from_secs(10);

/// Attempts a batch once.
pub(crate) async fn attempt(
    connection: &mut PgConnection,
    items: &[BatchItem],
    fence: &Fence,
    manner: Manner,
) -> Result<CommittedBatch, Failure> {
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
    // connection is given up, and the fence decides what came of the attempt.
    let statements = if items.len() > 1 { 10 } else { 2 };
    let limit = manner.statement_timeout * statements + GRACE;
    // A panic is the affair of what was attempted: it fails like a batch whose command fails.
    let attempt = AssertUnwindSafe(attempt).catch_unwind();
    let attempted = tokio::time::timeout(limit, attempt).await;
    let panicked = |_| {
        let message = "applying it panicked; the worker's log says where";
        Failure::of(Happened::Panicked, Rejection::new("panicked", message))
    };
    attempted.map(|result| result.unwrap_or_else(|cause| Err(panicked(cause)))).unwrap_or_else(
        |_| {
            let reason = Rejection::new("silent", format!("no answer for {} s", limit.as_secs()));
            Err(Failure::Unavailable { reason, blame: Blame::Full, own: None })
        },
    )
}

/// Moves a lane that has nothing to do along to what was read past it: only the fence, committed.
/// Answers whether something of the lane waits.
pub(crate) async fn move_along(
    connection: &mut PgConnection,
    fence: &Fence,
) -> Result<bool, Failure> {
    let statement = sqlx::query_as(
        "SELECT parked > 0 OR paused FROM farwrite.fence($1, $2, $3, $4, $5, $6, $7)",
    );
    let (waits,): (bool,) = fence.bind(statement).fetch_one(connection).await?;
    Ok(waits)
}
