//! What hands messages to lanes, in the stream's order.
//!
//! A lane that stays full (its commands take long, or as many are parked as may be) must not hold
//! up the others: after a second it is skipped, and a reader of its own goes on for it from the
//! first message that it missed. When that one has come as far as the common reader, the lane joins
//! the others again:
//!
//! ```text
//! with the others => skipped          full for a second: its own reader begins at the missed message
//! skipped         => with the others  its own reader has read everything that the common one has
//! ```

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use ::metrics::Gauge;
use farwrite_internal::Health;
use tokio::{
    sync::{
        OwnedSemaphorePermit,
        mpsc::{self, Permit},
    },
    task::JoinSet,
};
use tracing::{info, warn};

use crate::{
    memory::{Memory, Room},
    metrics,
    stream::{
        delivery::Delivery,
        key::lane_of,
        position::{StreamPosition, StreamProgress},
        reader::{ReaderEnd, StreamReader},
        sink::{Sink, Verified},
    },
};

/// Commands that wait for one lane beyond the batch being applied: two full batches.
const QUEUE_MAX_COMMANDS: usize = 512;
/// How long a lane may be full before it is skipped: many times what a batch takes, so that lanes
/// that are merely busy keep one reader.
const FULL_FOR: Duration = Duration::from_secs(1);
/// How long before a lane's own reader, which failed, begins again.
const AGAIN_AFTER: Duration = Duration::from_secs(1);

/// A message in a lane's queue, with the room that it takes there.
pub(crate) type Queued = (Delivery, OwnedSemaphorePermit);

/// How far reading has come, and which lanes have a reader of their own.
#[derive(Debug)]
struct ReadProgress {
    /// What was read up to there is in its lane's queue, or beyond it; except for skipped lanes.
    read_to: StreamPosition,
    /// What some lane had passed before anything was read.
    passed: StreamPosition,
    /// By lane.
    skipped: Vec<bool>,
}

/// The progress, as the dispatcher, the lanes and their own readers share it.
#[derive(Clone)]
pub(crate) struct ReadTo(Arc<Mutex<ReadProgress>>);

impl ReadTo {
    pub(crate) fn new(before: StreamProgress, lanes: usize) -> Self {
        let read_to = StreamPosition::unread(before.low_water);
        let skipped = vec![false; lanes];
        let progress = ReadProgress { read_to, passed: before.highest, skipped };
        Self(Arc::new(Mutex::new(progress)))
    }

    /// The highest position that was read, or that a lane has passed.
    fn highest(&self) -> StreamPosition {
        let progress = self.lock();
        progress.read_to.or_higher(progress.passed)
    }

    /// Up to where a lane with an empty queue has nothing left; `None` while it has a reader of its
    /// own.
    pub(crate) fn of_lane(&self, lane: u32) -> Option<StreamPosition> {
        let progress = self.lock();
        let is_skipped = progress.skipped.get(lane as usize).copied().unwrap_or(true);
        (!is_skipped).then_some(progress.read_to)
    }

    /// The progress is whole at any time: a panic of a holder cannot have left half of a change.
    fn lock(&self) -> MutexGuard<'_, ReadProgress> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The way into one lane's queue.
#[derive(Clone)]
struct Inlet {
    sender: mpsc::Sender<Queued>,
    room: Room,
}

impl Inlet {
    /// Waits for room. False when the lane has gone.
    async fn put(&self, delivery: Delivery) -> bool {
        let Some(permit) = self.room.take(delivery.bytes()).await else { return false };
        self.sender.send((delivery, permit)).await.is_ok()
    }

    /// A slot and room for it, where there are; not waited for.
    fn room_now(&self, delivery: &Delivery) -> Option<(Permit<'_, Queued>, OwnedSemaphorePermit)> {
        let room = self.room.take_now(delivery.bytes())?;
        Some((self.sender.try_reserve().ok()?, room))
    }
}

/// Hands messages to lanes.
pub(crate) struct Dispatcher {
    inlets: Vec<Inlet>,
    read_to: ReadTo,
    stream: Verified,
    memory: Memory,
    /// What the names of consumers begin with.
    name: String,
    own_readers: JoinSet<()>,
    /// How many of them there were.
    count: u32,
    backlog: Gauge,
    health: Health,
    /// Whether it is told that the stream cannot be read.
    is_in_trouble: bool,
}

/// Who has the trouble, in the worker's health.
const STREAM: &str = "the stream";

impl Dispatcher {
    pub(crate) fn new(
        read_to: ReadTo,
        stream: Verified,
        memory: Memory,
        health: Health,
        name: String,
    ) -> Self {
        Self {
            inlets: Vec::new(),
            read_to,
            stream,
            memory,
            name,
            own_readers: JoinSet::new(),
            count: 0,
            backlog: metrics::backlog(),
            health,
            is_in_trouble: false,
        }
    }

    /// Adds the queue of the next lane.
    pub(crate) fn add(&mut self) -> mpsc::Receiver<Queued> {
        let (sender, queue) = mpsc::channel(QUEUE_MAX_COMMANDS);
        self.inlets.push(Inlet { sender, room: self.memory.lane(self.inlets.len()) });
        queue
    }

    /// Skips a lane from this message on.
    fn skip(&mut self, lane: usize, first: u64) {
        self.read_to.lock().skipped[lane] = true;
        metrics::lane_skipped(lane, true);
        warn!(lane, first, "the lane is full: it is skipped, and reads for itself");
        self.count += 1;
        let own = OwnReader {
            lane,
            lanes: self.inlets.len(),
            inlet: self.inlets[lane].clone(),
            read_to: self.read_to.clone(),
            next: first,
            pull_max_bytes: self.memory.own_pull,
        };
        let name = format!("{}-lane{lane}-{}", self.name, self.count);
        self.own_readers.spawn(own.run(self.stream.clone(), name));
        while self.own_readers.try_join_next().is_some() {}
    }
}

impl Sink for Dispatcher {
    async fn take(&mut self, delivery: Delivery) -> bool {
        let position = delivery.position();
        let lane = lane_of(&delivery, self.inlets.len());
        {
            let mut progress = self.read_to.lock();
            if progress.skipped[lane] {
                progress.read_to = position;
                return true;
            }
        }
        if let Some((slot, room)) = self.inlets[lane].room_now(&delivery) {
            slot.send((delivery, room));
        } else {
            match tokio::time::timeout(FULL_FOR, self.inlets[lane].put(delivery)).await {
                Ok(true) => {}
                Ok(false) => return false,
                Err(_) => self.skip(lane, position.sequence),
            }
        }
        // After the message is in its queue: a lane that sees this sequence and an empty queue has
        // nothing left up to it.
        self.read_to.lock().read_to = position;
        true
    }

    fn remaining(&mut self, messages: u64) {
        self.backlog.set(messages as f64);
    }

    fn reading(&mut self, trouble: Option<&str>) {
        match trouble {
            Some(reason) => self.health.trouble(STREAM, reason),
            None if self.is_in_trouble => self.health.over(STREAM),
            None => return,
        }
        self.is_in_trouble = trouble.is_some();
        metrics::waiting(self.is_in_trouble);
    }

    fn highest(&self) -> StreamPosition {
        self.read_to.highest()
    }
}

/// Reads for one lane until it has caught up with the common reader.
struct OwnReader {
    lane: usize,
    lanes: usize,
    inlet: Inlet,
    read_to: ReadTo,
    next: u64,
    pull_max_bytes: usize,
}

impl OwnReader {
    async fn run(mut self, stream: Verified, name: String) {
        let mut tries = 0;
        loop {
            tries += 1;
            let name = format!("{name}-{tries}");
            let reader = StreamReader::new(stream.clone(), name, self.next, self.pull_max_bytes);
            match reader.run(&mut self).await {
                ReaderEnd::Closed => return,
                // The common reader meets what does not pass, and stops the worker.
                ReaderEnd::Stream(error) => warn!(lane = self.lane, %error, "reading for one lane"),
                // As the common reader has, with which the worker begins again.
                ReaderEnd::ClientEnded => return,
            }
            tokio::time::sleep(AGAIN_AFTER).await;
        }
    }
}

impl Sink for OwnReader {
    async fn take(&mut self, delivery: Delivery) -> bool {
        let sequence = delivery.sequence;
        if lane_of(&delivery, self.lanes) == self.lane && !self.inlet.put(delivery).await {
            return false;
        }
        self.next = sequence + 1;
        let mut progress = self.read_to.lock();
        if sequence < progress.read_to.sequence {
            return true;
        }
        // Under the lock in which the common reader decides about its next message.
        progress.skipped[self.lane] = false;
        metrics::lane_skipped(self.lane, false);
        info!(lane = self.lane, sequence, "the lane has caught up with the others");
        false
    }

    fn remaining(&mut self, _messages: u64) {}

    /// The common reader has the same trouble.
    fn reading(&mut self, _trouble: Option<&str>) {}

    fn highest(&self) -> StreamPosition {
        self.read_to.highest()
    }
}
