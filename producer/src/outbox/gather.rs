//! Where publishes wait for each other, so as to leave together.
//!
//! ```text
//! enter ─▶ nothing holds it up ───────────────────▶ alone
//!    │
//!    └─▶ waiting ─▶ few ──────────────────────────▶ alone
//!           │   └─▶ many ─▶ batch ─▶ stored
//!           │                  ├───▶ refused ──────▶ alone, at once
//!           │                  └───▶ no answer ────▶ in doubt: sent again, alone
//!           └─▶ dropped: gone
//! ```
//!
//! Nobody lingers: what waits does so only while something else is under way, and leaves when that
//! has ended. What may leave is [`Pace`]'s to say. A caller that is dropped takes its message out
//! unless it has left; a batch that is on its way belongs to the one task here, which ends with the
//! producer. The queue needs no bound of its own: who waits holds one of the places in flight.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError, atomic::Ordering},
    time::Duration,
};

use async_nats::{Statistics, connection::State};
use futures_util::{StreamExt, stream::FuturesUnordered};
use tokio::{
    sync::{Notify, oneshot},
    task::JoinHandle,
    time::Instant,
};
use uuid::Uuid;

use crate::{
    metrics,
    outbox::{
        answer::{Acknowledgement, StoredBatch},
        failure::AttemptFailure,
        gathered::{BatchEnd, Why, Wire},
        message::Message,
        pace::{Gather, Leave, Left, Pace},
    },
};

/// A larger body goes alone: writing it costs more than the sync that a batch would save.
const LARGE_BYTES: usize = 64 << 10;

/// Bytes of a batch. As many as sixteen of the largest, or 512 of 2 kB.
const BATCH_BYTES: usize = 1 << 20;

/// What a message's headers take at most, a batch's included. A message that comes this close to
/// the server's limit goes alone, so that it cannot spoil a batch.
const HEADERS_BYTES: usize = 8 << 10;

/// How waiting ended.
#[derive(Debug)]
pub(crate) enum End {
    /// It is to be sent alone, now; nothing was stored.
    Alone(Option<Place>),
    /// It is stored.
    Stored(Acknowledgement),
    /// It left in a batch, and may have been stored.
    InDoubt(AttemptFailure),
}

/// How a message leaves.
#[derive(Debug)]
pub(crate) enum Way {
    /// Alone, at once.
    Alone(Option<Place>),
    /// It has to wait.
    Waiting(Waiting),
}

#[derive(Debug)]
struct Waiter {
    number: u64,
    message: Arc<Message>,
    end: oneshot::Sender<End>,
}

#[derive(Debug)]
struct Queue {
    pace: Pace,
    /// Which connection of the client's this is about.
    connection: u64,
    alone: usize,
    batches: usize,
    /// When a batch ended last.
    batch_ended_at: Option<Instant>,
    last_number: u64,
    waiting: VecDeque<Waiter>,
}

#[derive(Debug)]
struct Shared {
    wire: Wire,
    statistics: Arc<Statistics>,
    queue: Mutex<Queue>,
    wake: Notify,
}

/// The place where publishes wait, of one producer.
#[derive(Debug)]
pub(crate) struct Gatherer {
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

impl Gatherer {
    /// Opens it. Nothing is sent before something enters.
    pub(crate) fn open(wish: Gather, wire: Wire) -> Self {
        let queue = Queue {
            pace: Pace::new(wish, false),
            // No connection has this number, so that the first one is looked at.
            connection: u64::MAX,
            alone: 0,
            batches: 0,
            batch_ended_at: None,
            last_number: 0,
            waiting: VecDeque::new(),
        };
        let statistics = wire.client.statistics();
        let queue = Mutex::new(queue);
        let shared = Arc::new(Shared { wire, statistics, queue, wake: Notify::new() });
        let task = tokio::spawn(run(Arc::clone(&shared)));
        Self { shared, task }
    }

    /// Takes a message that is to be sent for the first time.
    pub(crate) fn enter(&self, message: &Arc<Message>) -> Way {
        let shared = &self.shared;
        let limit = LARGE_BYTES.min(shared.wire.client.max_payload().saturating_sub(HEADERS_BYTES));
        // Where a subject has no stream, or is forbidden, its own answer has to say so first.
        if !message.target.is_answered() || message.bytes() > limit {
            return Way::Alone(None);
        }
        let mut queue = shared.queue();
        let Queue { pace, alone, batches, .. } = &*queue;
        if queue.waiting.is_empty() && matches!(pace.leave(*alone, *batches, 0), Leave::Alone(_)) {
            return Way::Alone(Some(shared.place(&mut queue)));
        }
        queue.last_number += 1;
        let number = queue.last_number;
        let (end, ended) = oneshot::channel();
        queue.waiting.push_back(Waiter { number, message: Arc::clone(message), end });
        if queue.next() != Leave::Nothing {
            shared.wake.notify_one();
        }
        Way::Waiting(Waiting { shared: Arc::clone(shared), number, ended })
    }

    /// A message that went out alone, and left at this time, was acknowledged; one without a place
    /// tells how long the way is, and not whether it is crowded.
    pub(crate) fn acknowledged(&self, place: Option<Place>, left: Instant) {
        let now = Instant::now();
        let mut queue = self.shared.queue();
        let here = place.as_ref().filter(|place| place.connection == queue.connection);
        let (after, told) = (now.saturating_duration_since(left), here.map(|place| place.left));
        let Queue { pace, alone, .. } = &mut *queue;
        pace.acknowledged(told, *alone, after, now);
        if let Some(place) = place {
            place.give_back(queue);
        }
    }
}

impl Drop for Gatherer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Queue {
    fn next(&self) -> Leave {
        match self.waiting.len() {
            0 => Leave::Nothing,
            waiting => self.pace.leave(self.alone, self.batches, waiting),
        }
    }
}

impl Shared {
    /// The queue, as of the present connection.
    fn queue(&self) -> MutexGuard<'_, Queue> {
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        let connection = self.statistics.connects.load(Ordering::Relaxed);
        if queue.connection != connection {
            let knows_batches = self.wire.client.is_server_compatible(2, 12, 0);
            if !knows_batches {
                tracing::info!("NATS is older than 2.12: every command is published alone");
            }
            queue.pace.connected(knows_batches);
            // What is under way on the last one holds nobody up on this one.
            (queue.connection, queue.alone, queue.batches) = (connection, 0, 0);
        }
        queue
    }

    fn place(self: &Arc<Self>, queue: &mut Queue) -> Place {
        queue.alone += 1;
        let left = queue.pace.left_alone(queue.alone);
        let connection = queue.connection;
        Place { shared: Arc::clone(self), connection, left, is_given_back: false }
    }

    /// A batch has ended, on this connection or an earlier one.
    /// What is learnt of it depends on how long ago the one before it ended.
    fn ended(&self, connection: u64, learn: impl FnOnce(&mut Pace, Duration)) {
        let mut queue = self.queue();
        let now = Instant::now();
        let before = queue.batch_ended_at.replace(now);
        let since_last =
            before.map_or(Duration::MAX, |before| now.saturating_duration_since(before));
        if queue.connection == connection {
            queue.batches -= 1;
            learn(&mut queue.pace, since_last);
        }
    }

    /// Lets those go that may leave alone, and takes what may leave as a batch.
    fn take(self: &Arc<Self>) -> Option<Batch> {
        let is_connected = self.wire.client.connection_state() == State::Connected;
        let mut queue = self.queue();
        if !is_connected {
            // They find that out for themselves, and try again.
            queue.waiting.drain(..).for_each(|waiter| waiter.end(End::Alone(None)));
            return None;
        }
        loop {
            match queue.next() {
                Leave::Nothing => return None,
                // Who is in the queue still waits, so that no place comes back while it is locked.
                Leave::Alone(count) => {
                    for _ in 0..count {
                        let Some(waiter) = queue.waiting.pop_front() else { break };
                        let place = self.place(&mut queue);
                        waiter.end(End::Alone(Some(place)));
                    }
                }
                Leave::Together(count) => {
                    let mut bytes = 0;
                    let fits = |waiter: &&Waiter| {
                        bytes += waiter.message.bytes();
                        bytes <= BATCH_BYTES
                    };
                    let count = queue.waiting.iter().take(count).take_while(fits).count();
                    let count = count.max(1);
                    let waiters = queue.waiting.drain(..count).collect();
                    queue.batches += 1;
                    return Some(Batch { waiters, connection: queue.connection });
                }
            }
        }
    }
}

/// The one task: lets go what may leave, and sends the batches.
async fn run(shared: Arc<Shared>) {
    // Unique among the batches that are under way, of whichever producer; short, because the stream
    // keeps it with every message.
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
            () = shared.wire.routes.connected.notified() => {}
        }
    }
}

/// Messages that leave together.
#[derive(Debug)]
struct Batch {
    waiters: Vec<Waiter>,
    connection: u64,
}

impl Batch {
    /// Sends it and tells everyone how it ended.
    async fn end(self, shared: &Shared, id: String) {
        let Self { waiters, connection } = self;
        let (count, left) = (waiters.len(), Instant::now());
        let messages: Vec<_> = waiters.iter().map(|waiter| Arc::clone(&waiter.message)).collect();
        let end = shared.wire.send(&id, &messages).await;
        let result = match &end {
            BatchEnd::Stored(_) => "stored",
            BatchEnd::Refused(_) => "refused",
            BatchEnd::InDoubt(_) => "in_doubt",
        };
        metrics::batch_ended(result, count);
        tracing::debug!(id, count, result, "batch");
        shared.ended(connection, |pace, since_last| match &end {
            BatchEnd::Stored(_) => pace.stored(count, left.elapsed(), since_last),
            BatchEnd::Refused(Why::TooMany) => pace.too_many(),
            BatchEnd::Refused(Why::Impossible) => {
                if pace.impossible() {
                    let stream = "the stream does not take atomic batches (allow_atomic)";
                    tracing::info!("{stream}: every command is published alone");
                }
            }
            BatchEnd::Refused(Why::Other) | BatchEnd::InDoubt(_) => pace.refused(),
        });
        match end {
            BatchEnd::Stored(StoredBatch { stream, first_sequence }) => {
                for (waiter, sequence) in waiters.into_iter().zip(first_sequence..) {
                    let (stream, duplicate) = (stream.clone(), false);
                    waiter.end(End::Stored(Acknowledgement { stream, sequence, duplicate }));
                }
            }
            BatchEnd::Refused(_) => {
                waiters.into_iter().for_each(|waiter| waiter.end(End::Alone(None)));
            }
            BatchEnd::InDoubt(failure) => {
                waiters.into_iter().for_each(|waiter| waiter.end(End::InDoubt(failure.clone())));
            }
        }
    }
}

impl Waiter {
    /// Tells its caller, if that is still there.
    fn end(self, end: End) {
        drop(self.end.send(end));
    }
}

/// A message among those that wait.
#[derive(Debug)]
pub(crate) struct Waiting {
    shared: Arc<Shared>,
    number: u64,
    ended: oneshot::Receiver<End>,
}

impl Waiting {
    /// How it ends. Where this is dropped before, `is_out` says whether the message had left.
    pub(crate) async fn end(self, is_out: &mut bool) -> End {
        let mut caller = Caller { waiting: self, is_out, was_told: false };
        let end = (&mut caller.waiting.ended).await;
        caller.was_told = true;
        // The task only ends with the producer, or by a fault: then nothing is known.
        end.unwrap_or(End::InDoubt(AttemptFailure::Unanswered))
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
        // A place that nobody takes is given back here.
        matches!(self.ended.try_recv(), Ok(End::Alone(_)))
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.take_out();
    }
}

/// A caller that waits.
struct Caller<'a> {
    waiting: Waiting,
    is_out: &'a mut bool,
    was_told: bool,
}

impl Drop for Caller<'_> {
    fn drop(&mut self) {
        *self.is_out = !self.was_told && !self.waiting.take_out();
    }
}

/// One publish that is under way alone. Its end lets others go.
#[derive(Debug)]
pub(crate) struct Place {
    shared: Arc<Shared>,
    connection: u64,
    left: Left,
    is_given_back: bool,
}

impl Place {
    /// Gives it back to the queue, which is locked already.
    fn give_back(mut self, queue: MutexGuard<'_, Queue>) {
        self.end(queue);
        self.is_given_back = true;
    }

    fn end(&self, mut queue: MutexGuard<'_, Queue>) {
        if queue.connection == self.connection {
            queue.alone -= 1;
            if queue.next() != Leave::Nothing {
                self.shared.wake.notify_one();
            }
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if !self.is_given_back {
            self.end(self.shared.queue());
        }
    }
}
