//! A lane: one connection, one queue, one command after another.
//!
//! Lanes are what makes order and speed go together. A command's key chooses its lane, a lane is
//! sequential, lanes are parallel: one key, one lane, stream order (invariant 4). A lane takes what
//! waits, never lingering for more, applies it as one transaction, and only then settles it.
//!
//! When a batch fails it is run again in parts: first with subtransactions, where a command's own
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
//!             | reject, or attempts used up: recorded as such
//! ```
//!
//! Not here yet: parking, and a lane that is full being skipped by the reader, which for now waits
//! for the fullest lane.

mod apply;
mod batch;
mod settle;

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use sqlx::PgConnection;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use xxhash_rust::xxh3::xxh3_64;

use crate::{
    config::{Config, LANE_MAX_BYTES},
    failpoint::Failpoint,
    functions::Functions,
    handler::Handlers,
    heartbeat::Pulse,
    metrics,
    stream::{Anchor, Delivery, Place, Sink},
    takeover::{LanePosition, Takeover},
    verdict::Verdict,
};

use apply::{Care, Committed, Failure, Fence, GUARDED_MAX};
use batch::{Batch, Item, Work};
use settle::Settler;

/// Which hash of the key chooses the lane: 1 is XXH3, 64 bits. A new one is a new generation of
/// lanes.
pub(crate) const HASH_VERSION: i32 = 1;
/// Commands that wait for one lane beyond the batch being applied: two full batches.
const QUEUE_MAX_COMMANDS: usize = 512;
/// How long a lane has nothing to do before it is moved along to what was read past it.
const IDLE: Duration = Duration::from_millis(500);
/// Attempts of a command that fails alone by chance, before it is dead-lettered.
const ATTEMPTS_MAX: u32 = 5;
/// First and longest pause between them; doubles each time.
const RETRY_PAUSE: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(5));

/// The pause after so many attempts.
fn retry_pause(attempts: u32) -> Duration {
    let doubled = 2_u32.saturating_pow(attempts.saturating_sub(1));
    RETRY_PAUSE.0.saturating_mul(doubled).min(RETRY_PAUSE.1)
}

/// The lane that a message belongs to: by its key, so that a key keeps its order; by its id where
/// it has no key, so that a repetition meets the first in one lane.
fn lane_of(delivery: &Delivery, lanes: usize) -> usize {
    let hash = match &delivery.envelope {
        Ok(envelope) => match &envelope.key {
            Some(key) => xxh3_64(key.as_str().as_bytes()),
            None => xxh3_64(envelope.id.uuid().as_bytes()),
        },
        Err(_) => delivery.sequence,
    };
    (hash % lanes as u64) as usize
}

/// A message in a lane's queue, with the room that it takes there.
type Queued = (Delivery, OwnedSemaphorePermit);

/// What is in it is whole whatever happened to its last holder.
fn lock(read_to: &Mutex<Place>) -> MutexGuard<'_, Place> {
    read_to.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Hands messages to lanes, in the stream's order.
pub(crate) struct Dispatcher {
    queues: Vec<(mpsc::Sender<Queued>, Arc<Semaphore>)>,
    read_to: Arc<Mutex<Place>>,
}

impl Sink for Dispatcher {
    async fn take(&mut self, delivery: Delivery) -> bool {
        let place = delivery.place();
        let (queue, room) = &self.queues[lane_of(&delivery, self.queues.len())];
        // One message never asks for more than there is: the stream bounds its size.
        let bytes = u32::try_from(delivery.bytes().min(LANE_MAX_BYTES)).unwrap_or(u32::MAX);
        let Ok(permit) = Arc::clone(room).acquire_many_owned(bytes).await else { return false };
        if queue.send((delivery, permit)).await.is_err() {
            return false;
        }
        // After the message is in its queue: a lane that sees this sequence and an empty queue has
        // nothing left up to it.
        *lock(&self.read_to) = place;
        true
    }

    fn remaining(&mut self, messages: u64) {
        metrics::backlog(messages);
    }
}

/// Why a lane ended.
#[derive(Debug)]
pub(crate) enum LaneEnd {
    /// It was asked to, or nothing is read any more.
    Drained,
    /// Somebody else has taken over.
    Fenced,
    /// The primary, or the way to it.
    World(String),
    /// A handler broke its promise, and going on could lose commands.
    Broken(String),
}

/// One lane.
pub(crate) struct Lane {
    number: u32,
    config: Arc<Config>,
    takeover: Arc<Takeover>,
    handlers: Arc<Handlers>,
    functions: Functions,
    connection: PgConnection,
    queue: mpsc::Receiver<Queued>,
    read_to: Arc<Mutex<Place>>,
    position: u64,
    anchor: Option<Anchor>,
    settler: Settler,
}

/// What all lanes of a takeover share.
pub(crate) struct Shared {
    pub(crate) config: Arc<Config>,
    pub(crate) takeover: Arc<Takeover>,
    pub(crate) handlers: Arc<Handlers>,
    pub(crate) client: async_nats::Client,
    pub(crate) pulse: Arc<Pulse>,
}

/// Makes the lanes of a takeover over their connections, and what hands messages to them.
pub(crate) fn open(shared: &Shared, connections: Vec<PgConnection>) -> (Dispatcher, Vec<Lane>) {
    let sequence = shared.takeover.position().low_water;
    let read_to = Arc::new(Mutex::new(Place { sequence, at_ns: 0 }));
    let mut queues = Vec::with_capacity(connections.len());
    let mut lanes = Vec::with_capacity(connections.len());
    let positions = shared.takeover.lanes.iter().zip(connections).enumerate();
    for (number, (LanePosition { sequence, anchor }, connection)) in positions {
        let (sender, queue) = mpsc::channel(QUEUE_MAX_COMMANDS);
        queues.push((sender, Arc::new(Semaphore::new(LANE_MAX_BYTES))));
        lanes.push(Lane {
            number: u32::try_from(number).unwrap_or(u32::MAX),
            config: Arc::clone(&shared.config),
            takeover: Arc::clone(&shared.takeover),
            handlers: Arc::clone(&shared.handlers),
            functions: Functions::default(),
            connection,
            queue,
            read_to: Arc::clone(&read_to),
            position: *sequence,
            anchor: anchor.clone(),
            settler: Settler::new(shared),
        });
    }
    (Dispatcher { queues, read_to }, lanes)
}

impl Lane {
    /// Applies what comes until it is asked to stop; what then waits in the queue is read again by
    /// the next takeover.
    pub(crate) async fn run(mut self, stop: CancellationToken) -> LaneEnd {
        let mut taken = Vec::with_capacity(self.config.batch_max_commands);
        loop {
            let waiting = tokio::time::timeout(
                IDLE,
                self.queue.recv_many(&mut taken, self.config.batch_max_commands),
            );
            // Stopping comes first: the position is in PostgreSQL, nothing here is worth keeping.
            let received = tokio::select! {
                biased;
                () = stop.cancelled() => return LaneEnd::Drained,
                received = waiting => received,
            };
            let ended = match received {
                Ok(0) => return LaneEnd::Drained,
                Ok(_) => self.take(&mut taken).await,
                Err(_) => self.move_along().await,
            };
            if let Err(end) = ended {
                return end;
            }
        }
    }

    /// Applies and settles what was taken from the queue.
    async fn take(&mut self, taken: &mut Vec<Queued>) -> Result<(), LaneEnd> {
        metrics::lane_queue(self.number, self.queue.len());
        // What a changed number of lanes makes this lane read again, below its own position.
        let position = self.position;
        let (deliveries, _room): (Vec<Delivery>, Vec<OwnedSemaphorePermit>) =
            taken.drain(..).filter(|(delivery, _)| delivery.sequence > position).unzip();
        if deliveries.is_empty() {
            return Ok(());
        }
        Failpoint::BeforeApply.pass();
        let works = self.assemble(&deliveries).await?;
        for batch in batch::cut(deliveries, works) {
            self.apply(batch).await?;
        }
        Ok(())
    }

    /// Finds how each command is to be applied; reads the registry again before one is unknown.
    async fn assemble(&mut self, deliveries: &[Delivery]) -> Result<Vec<Work>, LaneEnd> {
        let keep = self.config.ledger_keep;
        let known = batch::assemble(deliveries, &self.handlers, &self.functions, keep, false);
        if let Some(works) = known {
            return Ok(works);
        }
        let refreshed = self.functions.refresh(&mut self.connection).await;
        refreshed.map_err(|error| LaneEnd::World(error.to_string()))?;
        let works = batch::assemble(deliveries, &self.handlers, &self.functions, keep, true);
        Ok(works.unwrap_or_default())
    }

    /// Applies a batch, whatever becomes of each of its commands.
    async fn apply(&mut self, mut batch: Batch) -> Result<(), LaneEnd> {
        let end = batch.end;
        let items = &mut batch.items[..];
        match self.attempt(items, end, Care::Plain).await? {
            Ok(committed) => {
                self.settle(items, committed).await?;
                Ok(())
            }
            Err(failed) => {
                metrics::batch_retried();
                self.apply_in_parts(items, end, failed).await
            }
        }
    }

    /// A batch that failed plain: guarded, and where that fails too, one by one.
    async fn apply_in_parts(
        &mut self,
        mut items: &mut [Item],
        end: Place,
        failed: FailedCommand,
    ) -> Result<(), LaneEnd> {
        if let [item] = items {
            return self.apply_alone(item, end, Some(failed)).await;
        }
        while !items.is_empty() {
            let done = match self.attempt(items, end, Care::Guarded).await? {
                Ok(committed) => {
                    let done = committed.settled.len();
                    self.settle(&items[..done], committed).await?;
                    done
                }
                Err(_) => {
                    let part = items.len().min(GUARDED_MAX);
                    for index in 0..part {
                        let is_last = index + 1 == items.len();
                        let to = if is_last { end } else { items[index].delivery.place() };
                        self.apply_alone(&mut items[index], to, None).await?;
                    }
                    part
                }
            };
            items = &mut items[done..];
        }
        Ok(())
    }

    /// One command in a transaction of its own: what happens to it now is its own doing.
    async fn apply_alone(
        &mut self,
        item: &mut Item,
        to: Place,
        failed: Option<FailedCommand>,
    ) -> Result<(), LaneEnd> {
        let mut attempts = u32::from(failed.is_some());
        let mut last = failed;
        loop {
            if let Some(failed) = last.take() {
                self.judge(item, failed, attempts);
                // The first attempt at recording what was found does not wait; everything that
                // fails twice does, longer each time.
                if attempts > 1 || !item.work.is_settled() {
                    tokio::time::sleep(retry_pause(attempts)).await;
                }
            }
            attempts += 1;
            match self.attempt(std::slice::from_ref(item), to, Care::Plain).await? {
                Ok(committed) => {
                    self.settle(std::slice::from_ref(item), committed).await?;
                    return Ok(());
                }
                Err(failed) => last = Some(failed),
            }
        }
    }

    /// What becomes of a command that failed alone: the one clear place. Either it is tried again,
    /// or from now on it is recorded instead of run.
    fn judge(&self, item: &mut Item, failed: FailedCommand, attempts: u32) {
        let FailedCommand { verdict, rejection } = failed;
        let sequence = item.delivery.sequence;
        let id = item.delivery.message_id().unwrap_or("none");
        let code = rejection.code.clone();
        let dead_letter = |reason: &str| {
            let message = format!("{} ({})", rejection.message, rejection.code);
            let letter = farwrite_schemas::DeadLetter { reason: reason.to_owned(), message };
            Work::DeadLetter { letter, in_ledger: true }
        };
        let work = match verdict {
            Verdict::Reject => Work::Reject(rejection),
            Verdict::Retry if attempts < ATTEMPTS_MAX || item.work.is_settled() => {
                warn!(
                    lane = self.number,
                    sequence, id, attempts, code, "failed by chance: trying again"
                );
                return;
            }
            Verdict::Retry => dead_letter("attempts_used_up"),
            Verdict::DeadLetter | Verdict::Wait | Verdict::Fenced => dead_letter("cannot_apply"),
        };
        // A rejection is told to its caller; an operator has to look at a dead letter.
        if matches!(work, Work::DeadLetter { .. }) {
            warn!(lane = self.number, sequence, id, attempts, code, "dead-lettered");
        }
        item.work = work;
    }

    /// One attempt; a failure that is not a command's ends the lane.
    async fn attempt(
        &mut self,
        items: &[Item],
        to: Place,
        care: Care,
    ) -> Result<Result<Committed, FailedCommand>, LaneEnd> {
        let fence = Fence {
            takeover: &self.takeover,
            lane: self.number,
            from: self.position,
            to,
            anchor: self.anchor.as_ref(),
        };
        let began = Instant::now();
        let timeout = self.config.statement_timeout;
        match apply::attempt(&mut self.connection, items, &fence, care, timeout).await {
            Ok(committed) => {
                metrics::applied(committed.settled.len(), began.elapsed());
                Ok(Ok(committed))
            }
            Err(Failure::Command { verdict, rejection }) => {
                Ok(Err(FailedCommand { verdict, rejection }))
            }
            Err(failure) => Err(end_of(failure)),
        }
    }

    /// Moves on to where a committed batch ends, and tells everybody.
    async fn settle(&mut self, items: &[Item], committed: Committed) -> Result<(), LaneEnd> {
        self.position = committed.position;
        if let Some(item) = items.last() {
            let id = item.delivery.message_id().map(ToOwned::to_owned);
            let Delivery { sequence, at_ns, .. } = item.delivery;
            self.anchor = Some(Anchor { sequence, at_ns, id });
        }
        Failpoint::AfterCommit.pass();
        let settled = self.settler.settle(&mut self.connection, items, &committed).await;
        settled.map_err(|error| LaneEnd::World(error.to_string()))?;
        Failpoint::AfterReply.pass();
        Ok(())
    }

    /// Nothing waits: the lane stands wherever reading stands.
    async fn move_along(&mut self) -> Result<(), LaneEnd> {
        let to = *lock(&self.read_to);
        // What was read up to there is either applied or in the queue; so the queue is looked at
        // after the sequence.
        if to.sequence <= self.position || !self.queue.is_empty() {
            return Ok(());
        }
        let fence = Fence {
            takeover: &self.takeover,
            lane: self.number,
            from: self.position,
            to,
            anchor: self.anchor.as_ref(),
        };
        apply::move_along(&mut self.connection, &fence).await.map_err(end_of)?;
        self.position = to.sequence;
        Ok(())
    }
}

/// A command failed, or one of a batch did.
struct FailedCommand {
    verdict: Verdict,
    rejection: farwrite_schemas::Rejection,
}

fn end_of(failure: Failure) -> LaneEnd {
    match failure {
        Failure::Fenced => LaneEnd::Fenced,
        Failure::World(reason) => LaneEnd::World(reason),
        Failure::TransactionEnded(reason) => LaneEnd::Broken(reason),
        Failure::Command { rejection, .. } => {
            info!(code = rejection.code, "the fence failed");
            LaneEnd::World(rejection.to_string())
        }
    }
}
