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

use futures_util::{StreamExt, stream::FuturesUnordered};
use tokio::{sync::mpsc, task::JoinHandle};

use crate::{
    metrics,
    outbox::{send::Outbox, turns::AbandonedPublish},
};

/// The task. Dropping it ends it.
#[derive(Debug)]
pub(crate) struct Finisher(JoinHandle<()>);

impl Finisher {
    /// Begins to finish what is abandoned.
    pub(crate) fn open(
        outbox: &Arc<Outbox>,
        mut abandoned: mpsc::UnboundedReceiver<AbandonedPublish>,
    ) -> Self {
        // Weak, so that what ends with the producer is not kept by an idle task.
        let outbox = Arc::downgrade(outbox);
        Self(tokio::spawn(async move {
            let mut under_way = FuturesUnordered::new();
            loop {
                tokio::select! {
                    Some(publish) = abandoned.recv() => {
                        let Some(outbox) = outbox.upgrade() else { return };
                        under_way.push(finish(outbox, publish));
                    }
                    Some(()) = under_way.next() => {}
                    else => return,
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
