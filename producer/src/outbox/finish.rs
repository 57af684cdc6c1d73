//! What becomes of a publish whose call was dropped while its message was out.
//!
//! The message may be stored, now or a little later. So its key waits for it, as for one that ended
//! in doubt (`turns.rs`), and the message is sent again with its id: by the next call of the key, and
//! here, until the stream answers or the dropped call's own time is up. Then the key stays blocked
//! until its next call resolves it.
//!
//! One task does it for all. What it holds is bounded with the keys that may be blocked. It ends with
//! the producer: another producer is another order.

use std::sync::Arc;

use futures_util::{StreamExt, stream, stream::FuturesUnordered};
use tokio::{
    sync::mpsc,
    task::JoinHandle,
    time::{Duration, Instant},
};

use crate::{
    metrics,
    outbox::{message::Message, send::Outbox, turns::AbandonedPublish},
};

/// Messages of blocked keys that are sent again at one time: a few, since calls go on meanwhile.
const FREED_AT_ONCE: usize = 64;

/// How long one of them may take. As long as two attempts, and the pause between them.
const FREED_WITHIN: Duration = Duration::from_secs(5);

/// The task. Dropping it ends it.
#[derive(Debug)]
pub(crate) struct Finisher(JoinHandle<()>);

impl Finisher {
    /// Begins to finish what is abandoned.
    pub(crate) fn open(
        outbox: &Arc<Outbox>,
        mut abandoned: mpsc::UnboundedReceiver<AbandonedPublish>,
    ) -> Self {
        let turns = Arc::clone(&outbox.turns);
        // Weak, so that what ends with the producer is not kept by an idle task.
        let outbox = Arc::downgrade(outbox);
        Self(tokio::spawn(async move {
            let mut under_way = FuturesUnordered::new();
            let mut freeing = FuturesUnordered::new();
            loop {
                tokio::select! {
                    Some(publish) = abandoned.recv() => {
                        let Some(outbox) = outbox.upgrade() else { return };
                        under_way.push(finish(outbox, publish));
                    }
                    () = turns.was_full.notified(), if freeing.is_empty() => {
                        let Some(outbox) = outbox.upgrade() else { return };
                        freeing.push(free(outbox, turns.unresolved()));
                    }
                    Some(()) = under_way.next() => {}
                    Some(()) = freeing.next() => {}
                }
            }
        }))
    }
}

impl Drop for Finisher {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn finish(outbox: Arc<Outbox>, publish: AbandonedPublish) {
    let AbandonedPublish { message, deadline } = publish;
    let result = match outbox.resolve(&message, deadline).await {
        Ok(Ok(())) => "resolved",
        Ok(Err(_)) | Err(_) => "in_doubt",
    };
    metrics::abandoned(result);
    tracing::debug!(id = %message.id, result, "a publish whose call was dropped");
}

/// Sends again what blocks keys, until one is not answered: then the broker is away.
async fn free(outbox: Arc<Outbox>, messages: Vec<Arc<Message>>) {
    let sending = messages.into_iter().map(|message| {
        let outbox = Arc::clone(&outbox);
        async move {
            let deadline = Instant::now() + FREED_WITHIN;
            matches!(outbox.resolve(&message, deadline).await, Ok(Ok(())))
        }
    });
    let mut answered = stream::iter(sending).buffer_unordered(FREED_AT_ONCE);
    while answered.next().await == Some(true) {}
}
