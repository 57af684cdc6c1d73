//! Outcomes that are told only when the required standbys hold their commit.
//!
//! A command that expires is applied again after a failover that lost its commit, perhaps too late:
//! then it would end as expired though its caller was told that it was applied. So where standbys
//! are required, its outcome has a row in `farwrite.unconfirmed`, from the same transaction. The row goes
//! when all of them have flushed that, and only then the answer leaves (invariant 8). While the row is
//! there nobody tells the outcome: not the outcome service, and not who reads the ledger on the
//! primary or on a replica.
//!
//! The primary is asked only while something waits. What was recorded before the takeover, or found no
//! room among what waits, is found in the table.

use std::{collections::VecDeque, time::Duration};

use bytes::Bytes;
use farwrite_schemas::{Epoch, Lsn};
use futures_util::FutureExt;
use sqlx::{PgConnection, types::Uuid};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep},
};

use crate::{
    life::may_answer::MayAnswer,
    metrics::{self, ReplyResult},
    store::{owner, server, unconfirmed},
};

use super::standbys::{Flushed, flushed};

/// Outcomes that wait at once. An answer that finds no room is dropped, and can be asked for.
const WAITING_MAX: usize = 4_096;
/// How often the primary is asked: first, while a standby next door answers, and at last, when one
/// is away.
const ASK_EVERY: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(100));

/// An answer that must not leave before its commit is safe.
#[derive(Debug)]
pub(crate) struct HeldAnswer {
    pub(crate) inbox: String,
    pub(crate) payload: Bytes,
}

/// An outcome that must not be told before its commit is safe.
#[derive(Debug)]
struct Unconfirmed {
    id: Uuid,
    /// Where the commit's log ends, or later.
    lsn: Lsn,
    answer: Option<HeldAnswer>,
}

/// Where lanes leave such outcomes.
#[derive(Clone, Debug)]
pub(crate) struct Confirming(mpsc::Sender<Unconfirmed>);

/// Where they come out.
#[derive(Debug)]
pub(crate) struct Confirmations(mpsc::Receiver<Unconfirmed>);

pub(crate) fn channel() -> (Confirming, Confirmations) {
    let (sender, receiver) = mpsc::channel(WAITING_MAX);
    (Confirming(sender), Confirmations(receiver))
}

impl Confirming {
    /// Leaves an answer; false where there is no room.
    pub(crate) fn answer(&self, id: Uuid, lsn: Lsn, answer: HeldAnswer) -> bool {
        self.0.try_send(Unconfirmed { id, lsn, answer: Some(answer) }).is_ok()
    }

    /// Leaves an outcome that nobody waits for. Where there is no room it is found in the table.
    pub(crate) fn recorded(&self, id: Uuid, lsn: Lsn) {
        drop(self.0.try_send(Unconfirmed { id, lsn, answer: None }));
    }
}

impl Confirmations {
    /// Confirms outcomes and sends their answers as their commits become safe, until the database
    /// fails or nobody leaves any more.
    pub(crate) async fn run(
        mut self,
        mut connection: PgConnection,
        client: async_nats::Client,
        required: &[String],
        epoch: Epoch,
        may_answer: &MayAnswer,
    ) -> Result<(), sqlx::Error> {
        let mut waiting: VecDeque<Unconfirmed> = VecDeque::new();
        let mut pause = ASK_EVERY.0;
        loop {
            if waiting.is_empty() {
                waiting = left_over(&mut connection, epoch).await?;
                pause = ASK_EVERY.0;
            }
            if waiting.is_empty() {
                let Some(outcome) = self.0.recv().await else { return Ok(()) };
                waiting.push_back(outcome);
            }
            while waiting.len() < WAITING_MAX
                && let Ok(outcome) = self.0.try_recv()
            {
                waiting.push_back(outcome);
            }
            if may_answer.now()
                && let Flushed::All(lsn) = flushed(&mut connection, required).await?
            {
                // Lanes leave them in any order.
                let (safe, held): (VecDeque<_>, _) =
                    waiting.into_iter().partition(|outcome| outcome.lsn <= lsn);
                waiting = held;
                confirm(&mut connection, &client, safe).await?;
            }
            if !waiting.is_empty() {
                sleep(pause).await;
                pause = (pause * 2).min(ASK_EVERY.1);
            }
        }
    }
}

/// What is in the table and was not left here.
async fn left_over(
    connection: &mut PgConnection,
    epoch: Epoch,
) -> Result<VecDeque<Unconfirmed>, sqlx::Error> {
    let ids = unconfirmed::some(connection, WAITING_MAX).await?;
    if ids.is_empty() {
        return Ok(VecDeque::new());
    }
    // The heartbeat first: the position after it lies behind every commit that was seen.
    owner::heartbeat(connection, epoch).await?;
    let lsn = server::flush_lsn(connection).await?;
    Ok(ids.into_iter().map(|id| Unconfirmed { id, lsn, answer: None }).collect())
}

/// Told is only what is confirmed in the database.
async fn confirm(
    connection: &mut PgConnection,
    client: &async_nats::Client,
    safe: VecDeque<Unconfirmed>,
) -> Result<(), sqlx::Error> {
    if safe.is_empty() {
        return Ok(());
    }
    let ids: Vec<Uuid> = safe.iter().map(|outcome| outcome.id).collect();
    unconfirmed::confirm(connection, &ids).await?;
    for HeldAnswer { inbox, payload } in safe.into_iter().filter_map(|outcome| outcome.answer) {
        let sent = matches!(client.publish(inbox, payload).now_or_never(), Some(Ok(())));
        metrics::reply(if sent { ReplyResult::Sent } else { ReplyResult::Dropped });
    }
    Ok(())
}

/// Waits a little until all required standbys have flushed so much; whether they have.
pub(crate) async fn is_safe(
    connection: &mut PgConnection,
    required: &[String],
    lsn: Lsn,
    within: Duration,
) -> Result<bool, sqlx::Error> {
    let began = Instant::now();
    let mut pause = ASK_EVERY.0;
    loop {
        if let Flushed::All(flushed) = flushed(connection, required).await?
            && flushed >= lsn
        {
            return Ok(true);
        }
        if began.elapsed() >= within {
            return Ok(false);
        }
        sleep(pause).await;
        pause = (pause * 2).min(ASK_EVERY.1);
    }
}
