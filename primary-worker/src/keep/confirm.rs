//! Answers that wait until the required standbys hold the commit.
//!
//! A command that expires is applied again after a failover that lost its commit, perhaps too late:
//! then it would end as expired though its caller was told that it was applied. So where standbys
//! are required, its answer leaves only when all of them have flushed its commit (invariant 8). The
//! primary is asked only while such answers wait.

use std::{collections::VecDeque, time::Duration};

use bytes::Bytes;
use farwrite_schemas::Lsn;
use futures_util::FutureExt;
use sqlx::PgConnection;
use tokio::{
    sync::mpsc,
    time::{Instant, sleep},
};

use crate::metrics::{self, ReplyResult};

use super::standbys::{Flushed, flushed};

/// Answers that wait at once; further ones are dropped, and can be asked for.
const WAITING_MAX: usize = 4_096;
/// How often the primary is asked: first, while a standby next door answers, and at last, when one
/// is away.
const ASK_EVERY: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(100));

/// An answer that must not leave before its commit is safe.
#[derive(Debug)]
pub(crate) struct Unconfirmed {
    /// Where the commit's log ends, or later.
    pub(crate) lsn: Lsn,
    pub(crate) inbox: String,
    pub(crate) payload: Bytes,
}

/// Where lanes leave such answers, and where they come out.
pub(crate) fn channel() -> (mpsc::Sender<Unconfirmed>, mpsc::Receiver<Unconfirmed>) {
    mpsc::channel(WAITING_MAX)
}

/// Sends answers as their commits become safe, until the database fails or nobody leaves any more.
pub(crate) async fn run(
    mut answers: mpsc::Receiver<Unconfirmed>,
    mut connection: PgConnection,
    client: async_nats::Client,
    required: &[String],
) -> Result<(), sqlx::Error> {
    let mut waiting: VecDeque<Unconfirmed> = VecDeque::new();
    let mut pause = ASK_EVERY.0;
    loop {
        if waiting.is_empty() {
            let Some(answer) = answers.recv().await else { return Ok(()) };
            waiting.push_back(answer);
            pause = ASK_EVERY.0;
        }
        while waiting.len() < WAITING_MAX
            && let Ok(answer) = answers.try_recv()
        {
            waiting.push_back(answer);
        }
        if let Flushed::All(lsn) = flushed(&mut connection, required).await? {
            // Lanes leave them in any order.
            waiting.retain(|answer| {
                let is_safe = answer.lsn <= lsn;
                if is_safe {
                    send(&client, answer);
                }
                !is_safe
            });
        }
        if !waiting.is_empty() {
            sleep(pause).await;
            pause = (pause * 2).min(ASK_EVERY.1);
        }
    }
}

fn send(client: &async_nats::Client, answer: &Unconfirmed) {
    let publish = client.publish(answer.inbox.clone(), answer.payload.clone());
    let sent = matches!(publish.now_or_never(), Some(Ok(())));
    metrics::reply(if sent { ReplyResult::Sent } else { ReplyResult::Dropped });
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
