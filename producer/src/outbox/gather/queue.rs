//! The queue of one producer's publishes that wait for each other.
//!
//! ```text
//! enter ─▶ nothing holds it up ───────────────────▶ alone
//!    │
//!    └─▶ waiting ─▶ one ──────────────────────────▶ alone
//!           │   └─▶ several ─▶ batch ─▶ stored
//!           │                    ├────▶ refused ───▶ alone, at once
//!           │                    └────▶ no answer ─▶ in doubt: sent again, alone
//!           └─▶ dropped: gone
//! ```
//!
//! No publish lingers: one that waits does so only while another one, or a batch, is under way. The
//! [`GatherRule`] says what may leave. A caller that is dropped takes its message out, unless it has
//! left. A batch that is on its way belongs to the one task here, which ends with the producer. The
//! queue needs no bound of its own: each that waits holds one of the permits in flight.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError, atomic::Ordering},
    time::Duration,
};

use async_nats::Statistics;
use futures_util::{StreamExt, stream::FuturesUnordered};
use tokio::{
    sync::{Notify, oneshot},
    task::JoinHandle,
    time::Instant,
};
use uuid::Uuid;

use super::{
    batch::{BatchEnd, WhyRefused, send_batch},
    rule::{Gather, GatherRule, Leave},
};
use crate::{
    link::nats::NatsLink,
    metrics,
    outbox::{
        answer::{Acknowledgement, StoredBatch},
        failure::AttemptFailure,
        message::Message,
    },
};

/// A larger body goes alone: writing it costs more than the sync that a batch would save.
const LARGE_BYTES: usize = 64 << 10;

/// Bytes of a batch. As many as sixteen of the largest bodies, or 512 of 2 kB.
const BATCH_BYTES: usize = 1 << 20;

/// What a message's headers take at most, a batch's included. A message that comes this close to
/// the server's limit goes alone, so that it cannot spoil a batch.
const HEADERS_BYTES: usize = 8 << 10;

/// How waiting ended.
#[derive(Debug)]
pub(crate) enum WaitEnd {
    /// It is to be sent alone, now; nothing was stored.
    Alone(Option<Slot>),
    /// It is stored.
    Stored(Acknowledgement),
    /// It left in a batch, and may have been stored.
    InDoubt(AttemptFailure),
}

/// How a message leaves.
#[derive(Debug)]
pub(crate) enum Departure {
    /// Alone, at once.
    Alone(Option<Slot>),
    /// It has to wait.
    Later(WaitingMessage),
}

#[derive(Debug)]
struct Waiter {
    number: u64,
    message: Arc<Message>,
    end: oneshot::Sender<WaitEnd>,
}

#[derive(Debug)]
struct GatherQueue {
    rule: GatherRule,
    /// Which connection of the client's the rule is about.
    connection: u64,
    last_number: u64,
    waiting: VecDeque<Waiter>,
}

#[derive(Debug)]
struct SharedQueue {
    link: Arc<NatsLink>,
    statistics: Arc<Statistics>,
    queue: Mutex<GatherQueue>,
    wake: Notify,
}

/// The place where publishes wait, of one producer.
#[derive(Debug)]
pub(crate) struct Gatherer {
    shared: Arc<SharedQueue>,
    task: JoinHandle<()>,
}

impl Gatherer {
    /// Opens it. Nothing is sent before something enters.
    pub(crate) fn open(gather: Gather, link: Arc<NatsLink>) -> Self {
        let queue = GatherQueue {
            rule: GatherRule::new(gather, false),
            // No connection has this number, so that the first one is looked at.
            connection: u64::MAX,
            last_number: 0,
            waiting: VecDeque::new(),
        };
        let statistics = link.client.statistics();
        let (queue, wake) = (Mutex::new(queue), Notify::new());
        let shared = Arc::new(SharedQueue { link, statistics, queue, wake });
        let task = tokio::spawn(run(Arc::clone(&shared)));
        Self { shared, task }
    }

    /// Takes a message that is to be sent for the first time.
    pub(crate) fn enter(&self, message: &Arc<Message>) -> Departure {
        let shared = &self.shared;
        let max_payload = shared.link.client.max_payload();
        let limit = LARGE_BYTES.min(max_payload.saturating_sub(HEADERS_BYTES));
        // Where a subject has no stream, or is forbidden, its own answer has to say so first.
        if !message.target.is_answered() || message.bytes() > limit {
            return Departure::Alone(None);
        }
        let mut queue = shared.queue();
        if queue.waiting.is_empty() && matches!(queue.rule.leave(1), Leave::Alone(_)) {
            return Departure::Alone(Some(shared.slot(&mut queue)));
        }
        queue.last_number += 1;
        let number = queue.last_number;
        let (end, ended) = oneshot::channel();
        queue.waiting.push_back(Waiter { number, message: Arc::clone(message), end });
        shared.wake_for(&queue);
        Departure::Later(WaitingMessage { shared: Arc::clone(shared), number, ended })
    }

    /// A message that left alone at this time was acknowledged. One without a slot tells how long
    /// the way is, and nothing else.
    pub(crate) fn acknowledged(&self, slot: Option<Slot>, left: Instant) {
        let took = left.elapsed();
        let mut queue = self.shared.queue();
        let here = slot.as_ref().filter(|slot| slot.connection == queue.connection);
        let among = here.map(|slot| slot.among);
        queue.rule.acknowledged(among, took);
        if let Some(slot) = slot {
            slot.give_back(queue);
        }
    }
}

impl Drop for Gatherer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl SharedQueue {
    /// The queue, as of the present connection.
    fn queue(&self) -> MutexGuard<'_, GatherQueue> {
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        let connection = self.statistics.connects.load(Ordering::Relaxed);
        if queue.connection != connection {
            let has_batches = self.link.client.is_server_compatible(2, 12, 0);
            if !has_batches {
                tracing::info!("NATS is older than 2.12: every command is published alone");
            }
            // What is under way on the last connection holds nothing up on this one.
            queue.rule.connected(has_batches);
            queue.connection = connection;
        }
        queue
    }

    /// Wakes the task where something may leave.
    fn wake_for(&self, queue: &GatherQueue) {
        if queue.rule.leave(queue.waiting.len()) != Leave::Nothing {
            self.wake.notify_one();
        }
    }

    fn slot(self: &Arc<Self>, queue: &mut GatherQueue) -> Slot {
        let among = queue.rule.left_alone();
        let connection = queue.connection;
        Slot { shared: Arc::clone(self), connection, among, is_given_back: false }
    }

    /// Lets those go that may leave alone, and takes what may leave as a batch.
    fn take(self: &Arc<Self>) -> Option<GatheredBatch> {
        let is_connected = self.link.is_connected();
        let mut queue = self.queue();
        if !is_connected {
            // Each finds that out for itself, and tries again.
            queue.waiting.drain(..).for_each(|waiter| waiter.end(WaitEnd::Alone(None)));
            return None;
        }
        loop {
            match queue.rule.leave(queue.waiting.len()) {
                Leave::Nothing => return None,
                // What is in the queue still waits, so that no slot comes back while it is locked.
                Leave::Alone(count) => {
                    for _ in 0..count {
                        let Some(waiter) = queue.waiting.pop_front() else { break };
                        let slot = self.slot(&mut queue);
                        waiter.end(WaitEnd::Alone(Some(slot)));
                    }
                }
                Leave::Together(count) => {
                    let mut bytes = 0;
                    let fits = |waiter: &&Waiter| {
                        bytes += waiter.message.bytes();
                        bytes <= BATCH_BYTES
                    };
                    let count = queue.waiting.iter().take(count).take_while(fits).count();
                    let waiters = queue.waiting.drain(..count.max(1)).collect();
                    queue.rule.left_together();
                    return Some(GatheredBatch { waiters, connection: queue.connection });
                }
            }
        }
    }

    /// A batch of so many has ended after so long, on this connection or an earlier one.
    fn ended(&self, connection: u64, count: usize, took: Duration, end: &BatchEnd) {
        let mut queue = self.queue();
        if queue.connection != connection {
            return;
        }
        queue.rule.batch_ended(matches!(end, BatchEnd::Stored(_)), count, took);
        match end {
            BatchEnd::Refused(WhyRefused::TooMany) => queue.rule.too_many(),
            BatchEnd::Refused(WhyRefused::Impossible) => {
                tracing::info!(
                    "the stream takes no atomic batches (allow_atomic): every command is published alone"
                );
                queue.rule.impossible();
            }
            BatchEnd::Stored(_) | BatchEnd::Refused(WhyRefused::Other) | BatchEnd::InDoubt(_) => {}
        }
    }
}

/// The one task: lets go what may leave, and sends the batches.
async fn run(shared: Arc<SharedQueue>) {
    // Unique among the batches that are under way, of all producers; short, because the stream keeps
    // it with every message.
    let (random, _) = Uuid::new_v4().as_u64_pair();
    let mut number = 0_u64;
    let mut under_way = FuturesUnordered::new();
    loop {
        while let Some(batch) = shared.take() {
            number += 1;
            let id = format!("{random:x}-{number:x}");
            under_way.push(batch.end(&shared, id));
        }
        tokio::select! {
            // What has ended makes room for what was woken for.
            biased;
            Some(()) = under_way.next() => {}
            () = shared.wake.notified() => {}
            () = shared.link.routes.connected.notified() => {}
        }
    }
}

/// Messages that leave together.
#[derive(Debug)]
struct GatheredBatch {
    waiters: Vec<Waiter>,
    connection: u64,
}

impl GatheredBatch {
    /// Sends it and tells each caller how it ended.
    async fn end(self, shared: &SharedQueue, id: String) {
        let Self { waiters, connection } = self;
        let (count, left) = (waiters.len(), Instant::now());
        let messages: Vec<_> = waiters.iter().map(|waiter| Arc::clone(&waiter.message)).collect();
        let end = send_batch(&shared.link, &id, &messages).await;
        let result = match &end {
            BatchEnd::Stored(_) => "stored",
            BatchEnd::Refused(_) => "refused",
            BatchEnd::InDoubt(_) => "in_doubt",
        };
        metrics::batch_ended(result, count);
        tracing::debug!(id, count, result, "batch");
        shared.ended(connection, count, left.elapsed(), &end);
        match end {
            BatchEnd::Stored(StoredBatch { stream, first_sequence }) => {
                for (waiter, sequence) in waiters.into_iter().zip(first_sequence..) {
                    let (stream, duplicate) = (stream.clone(), false);
                    waiter.end(WaitEnd::Stored(Acknowledgement { stream, sequence, duplicate }));
                }
            }
            BatchEnd::Refused(_) => {
                waiters.into_iter().for_each(|waiter| waiter.end(WaitEnd::Alone(None)));
            }
            BatchEnd::InDoubt(failure) => {
                let in_doubt = || WaitEnd::InDoubt(failure.clone());
                waiters.into_iter().for_each(|waiter| waiter.end(in_doubt()));
            }
        }
    }
}

impl Waiter {
    /// Tells its caller, if that is still there.
    fn end(self, end: WaitEnd) {
        drop(self.end.send(end));
    }
}

/// A message among those that wait.
#[derive(Debug)]
pub(crate) struct WaitingMessage {
    shared: Arc<SharedQueue>,
    number: u64,
    ended: oneshot::Receiver<WaitEnd>,
}

impl WaitingMessage {
    /// How it ends. Where this is dropped before, `is_out` says whether the message had left.
    pub(crate) async fn end(self, is_out: &mut bool) -> WaitEnd {
        let mut caller = WaitingCaller { waiting: self, is_out, was_told: false };
        let end = (&mut caller.waiting.ended).await;
        caller.was_told = true;
        // The task only ends with the producer, or by a fault: then nothing is known.
        end.unwrap_or(WaitEnd::InDoubt(AttemptFailure::Unanswered))
    }

    /// Takes it out. True when it was there, or was let go without having left.
    fn take_out(&mut self) -> bool {
        let mut queue = self.shared.queue();
        if let Ok(index) = queue.waiting.binary_search_by_key(&self.number, |waiter| waiter.number)
        {
            queue.waiting.remove(index);
            return true;
        }
        drop(queue);
        // A slot that no caller takes is given back here.
        matches!(self.ended.try_recv(), Ok(WaitEnd::Alone(_)))
    }
}

impl Drop for WaitingMessage {
    fn drop(&mut self) {
        self.take_out();
    }
}

/// A caller that waits.
struct WaitingCaller<'a> {
    waiting: WaitingMessage,
    is_out: &'a mut bool,
    was_told: bool,
}

impl Drop for WaitingCaller<'_> {
    fn drop(&mut self) {
        *self.is_out = !self.was_told && !self.waiting.take_out();
    }
}

/// One publish that is under way alone. Its end lets others go.
#[derive(Debug)]
pub(crate) struct Slot {
    shared: Arc<SharedQueue>,
    connection: u64,
    /// How many were under way alone when it left, itself included.
    among: usize,
    is_given_back: bool,
}

impl Slot {
    /// Gives it back to the queue, which is locked already.
    fn give_back(mut self, queue: MutexGuard<'_, GatherQueue>) {
        self.end(queue);
        self.is_given_back = true;
    }

    fn end(&self, mut queue: MutexGuard<'_, GatherQueue>) {
        if queue.connection == self.connection {
            queue.rule.alone_ended();
        }
        self.shared.wake_for(&queue);
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        if !self.is_given_back {
            self.end(self.shared.queue());
        }
    }
}
