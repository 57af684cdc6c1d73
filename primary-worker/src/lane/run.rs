//! A lane: one connection, one queue, one command after another.
//!
//! Lanes are what makes order and speed go together. A command's key chooses its lane, a lane is
//! sequential, lanes are parallel: one key, one lane, stream order (invariant 4). A lane takes what
//! waits, never lingering for more, applies it as one transaction, and only then settles it.
//!
//! When a batch fails it is run again in chunks: first with subtransactions, where a command's own
//! fault becomes its rejection; where even that fails, one command at a time, and what a command
//! does alone is what counts.
//!
//! ```text
//! taken => plain attempt => committed => settled
//!             | a command failed
//!             v
//!          guarded attempts => committed => settled      (until the batch is done)
//!             | still
//!             v
//!          alone => committed => settled
//!             | failed: judged, and what was decided is recorded
//! ```
//!
//! What cannot be applied yet is parked in the batch's own transaction, so the lane goes on; when
//! it is due the lane reads it from PostgreSQL and applies it like any batch, by turns with what
//! the stream brings. After an unclean end (this worker's or another's) the first commands run
//! alone, each counted before it runs: one that takes its backend down every time is found.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::sync::OwnedSemaphorePermit;

use crate::{
    apply::{attempt::move_along, due},
    failpoint::Failpoint,
    life::end::ServingEnd,
    metrics,
};

use super::{
    ends::{end_of, unavailable},
    open::Lane,
    queue::Queued,
};

/// How long a lane has nothing to do before it is moved along to what was read past it, and looks
/// whether something was put into its key queues.
const IDLE: Duration = Duration::from_millis(500);

impl Lane {
    /// Applies what comes until it is asked to stop; what then waits in the queue is read again by
    /// the next takeover.
    pub(crate) async fn run(mut self) -> ServingEnd {
        let mut taken = Vec::with_capacity(self.shared.config.batch_max_commands);
        let mut last_received = Instant::now();
        loop {
            let now = Instant::now();
            if self.look_at <= now
                && let Err(end) = self.apply_due().await
            {
                return end;
            }
            let wait = self.look_at.saturating_duration_since(Instant::now());
            let max = self.shared.config.batch_max_commands;
            let waiting = tokio::time::timeout(wait, self.queue.recv_many(&mut taken, max));
            // Stopping comes first: the position is in PostgreSQL, nothing here is worth keeping.
            let received = tokio::select! {
                biased;
                () = self.stop.cancelled() => return ServingEnd::Stopped,
                received = waiting => received,
            };
            let ended = match received {
                Ok(0) => return ServingEnd::Stopped,
                Ok(_) => {
                    last_received = Instant::now();
                    self.take(&mut taken).await
                }
                Err(_) if last_received.elapsed() >= IDLE => self.move_along().await,
                Err(_) => Ok(()),
            };
            if let Err(end) = ended {
                return end;
            }
        }
    }

    /// Applies and settles what was taken from the queue.
    pub(super) async fn take(&mut self, taken: &mut Vec<Queued>) -> Result<(), ServingEnd> {
        metrics::lane_queue(self.number, self.queue.len());
        // What a changed number of lanes makes this lane read again, below its own position.
        let position = self.position.sequence;
        // Kept until they are applied, and given back at once.
        let mut room: Option<OwnedSemaphorePermit> = None;
        let mut deliveries = Vec::with_capacity(taken.len());
        for (delivery, permit) in taken.drain(..) {
            if delivery.sequence > position {
                deliveries.push((delivery, None));
                match &mut room {
                    Some(room) => room.merge(permit),
                    None => room = Some(permit),
                }
            }
        }
        Failpoint::BeforeApply.pass();
        self.apply_all(deliveries).await
    }

    /// Applies parked commands that are due, one batch of them, and sees when to look again: at
    /// once while more is due, so that the stream and the key queues take turns.
    pub(super) async fn apply_due(&mut self) -> Result<(), ServingEnd> {
        let takeover = Arc::clone(&self.shared.takeover);
        let waiting = due::look(&mut self.connection, &takeover, self.number).await;
        let waiting = waiting.map_err(unavailable)?;
        metrics::parked(self.number, waiting.parked);
        self.functions.expect(waiting.registry);
        self.waits = waiting.any;
        self.look_at = Instant::now() + waiting.next.map_or(IDLE, |next| next.min(IDLE));
        if waiting.next != Some(Duration::ZERO) {
            return Ok(());
        }
        let max = self.shared.config.batch_max_commands;
        let due =
            due::due(&mut self.connection, &takeover, self.number, max, self.shared.memory.due);
        let due = due.await;
        let due = due.map_err(|error| end_of(error.into()))?;
        let due = due.into_iter().map(|(delivery, parked)| (delivery, Some(parked))).collect();
        self.apply_all(due).await
    }

    /// Nothing waits in the queue: the lane moves along to where reading stands.
    pub(super) async fn move_along(&mut self) -> Result<(), ServingEnd> {
        let Some(to) = self.read_to.of_lane(self.number) else { return Ok(()) };
        // What was read up to there is either applied or in the queue; so the queue is looked at
        // after the sequence.
        if to.sequence <= self.position.sequence || !self.queue.is_empty() {
            return Ok(());
        }
        let fence = self.fence(to);
        let moved = move_along(&mut self.connection, &fence).await;
        self.waits = moved.map_err(end_of)?;
        self.position = to;
        Ok(())
    }
}
