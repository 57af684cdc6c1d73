//! What hands messages to lanes, in the stream's order.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use crate::{
    config::LANE_MAX_BYTES,
    metrics,
    stream::{Delivery, Place, Sink},
};

use super::line::lane_of;

/// Commands that wait for one lane beyond the batch being applied: two full batches.
const QUEUE_MAX_COMMANDS: usize = 512;

/// A message in a lane's queue, with the room that it takes there.
pub(super) type Queued = (Delivery, OwnedSemaphorePermit);

/// How far reading has come: what was read up to there is in its lane's queue, or beyond it.
#[derive(Clone)]
pub(super) struct ReadTo(Arc<Mutex<Place>>);

impl ReadTo {
    pub(super) fn new(sequence: u64) -> Self {
        Self(Arc::new(Mutex::new(Place { sequence, at_ns: 0 })))
    }

    pub(super) fn get(&self) -> Place {
        *self.lock()
    }

    /// What is in it is whole whatever happened to its last holder.
    fn lock(&self) -> MutexGuard<'_, Place> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Hands messages to lanes.
pub(crate) struct Dispatcher {
    queues: Vec<(mpsc::Sender<Queued>, Arc<Semaphore>)>,
    read_to: ReadTo,
}

impl Dispatcher {
    pub(super) fn new(read_to: ReadTo) -> Self {
        Self { queues: Vec::new(), read_to }
    }

    /// Adds the queue of the next lane.
    pub(super) fn add(&mut self) -> mpsc::Receiver<Queued> {
        let (sender, queue) = mpsc::channel(QUEUE_MAX_COMMANDS);
        self.queues.push((sender, Arc::new(Semaphore::new(LANE_MAX_BYTES))));
        queue
    }
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
        *self.read_to.lock() = place;
        true
    }

    fn remaining(&mut self, messages: u64) {
        metrics::backlog(messages);
    }
}
