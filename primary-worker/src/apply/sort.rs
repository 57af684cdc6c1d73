//! What becomes of each command of a staged batch before anything runs: a pure function of what
//! the database knows.
//!
//! This is where the order of a key is kept while some of its commands wait (invariant 4). A command
//! of the stream goes to the end of its key queue, where that holds any. Of a key queue only the
//! command at its front is run.

use std::collections::HashMap;

use farwrite_schemas::{Envelope, Outcome, Rejection};

use crate::stream::key::key_queue;

use super::{
    facts::{Facts, Full, ItemFate, ParkedNow},
    item::BatchItem,
    manner::Bounds,
    work::{CommandWork, Park, ParkReason},
};

/// Sorts a batch.
pub(crate) fn sort(
    items: &[BatchItem],
    facts: &Facts,
    bounds: Bounds,
) -> Result<Vec<ItemFate>, Full> {
    let mut queues = KeyQueues { facts, added: HashMap::new(), left: HashMap::new(), parked: 0 };
    let mut fates = Vec::with_capacity(items.len());
    for (index, item) in items.iter().enumerate() {
        let known = facts.known.get(index).cloned().flatten();
        let fate = match (item.ledger_entry(), &item.delivery.envelope, known) {
            (None, ..) | (_, Err(_), _) => ItemFate::Run,
            (Some(_), Ok(envelope), Some(outcome)) => {
                // Ended as a member of an atomic batch, it leaves its key queue now; cancelled, it has left.
                if queues.place_of(item, envelope).is_some() {
                    queues.leave(envelope);
                }
                ItemFate::Known(outcome)
            }
            (Some(_), Ok(envelope), None) => match item.parked {
                None => queues.of_stream(item, envelope, bounds),
                Some(_) => queues.of_key_queue(item, envelope),
            },
        };
        fates.push(fate);
    }
    if queues.parked > 0 && facts.parked_commands + queues.parked > bounds.parked_max {
        return Err(Full);
    }
    Ok(fates)
}

struct KeyQueues<'a> {
    facts: &'a Facts,
    /// How many commands this batch adds to a key queue.
    added: HashMap<String, u64>,
    /// How many commands leave a key queue in this batch, all from its front.
    left: HashMap<String, u64>,
    /// Commands that this batch parks.
    parked: u64,
}

impl KeyQueues<'_> {
    /// A command that comes from the stream.
    fn of_stream(&mut self, item: &BatchItem, envelope: &Envelope, bounds: Bounds) -> ItemFate {
        if let Some(parked) = self.facts.parked.get(&envelope.id.uuid()) {
            return if parked.fingerprint == envelope.fingerprint.as_uuid() {
                ItemFate::Nothing
            } else {
                ItemFate::Known(Outcome::Rejected(id_reused()))
            };
        }
        if self.is_expired(item) {
            return ItemFate::Settle(Outcome::Expired);
        }
        if let Some(not_before_ms) = envelope.not_before_ms
            && !item.work.is_ended()
        {
            let until_ns = not_before_ms.saturating_mul(1_000_000);
            if until_ns > self.facts.now_ns {
                self.parked += 1;
                let reason = ParkReason::Scheduled { until_ns };
                return ItemFate::Park(Park { reason, wait: None, error: None });
            }
        }
        let queue = key_queue(envelope);
        let held = self.facts.held.get(&queue).copied().unwrap_or(0)
            + self.added.get(&queue).copied().unwrap_or(0);
        let park = if held >= bounds.key_queue_max {
            let letter = farwrite_schemas::DeadLetter {
                reason: "key_overflow".to_owned(),
                message: format!("{held} commands of its key wait already, which is the bound"),
            };
            return ItemFate::Settle(Outcome::DeadLettered(letter));
        } else if held > 0 {
            Some(Park {
                reason: ParkReason::Behind,
                wait: Some(std::time::Duration::ZERO),
                error: None,
            })
        } else {
            self.waits(item, envelope)
        };
        let Some(park) = park else { return ItemFate::Run };
        *self.added.entry(queue).or_default() += 1;
        self.parked += 1;
        ItemFate::Park(park)
    }

    /// A command that is parked and due: it runs only when all that stood before it have left. A
    /// command that is not parked any more was taken away by an operator.
    fn of_key_queue(&mut self, item: &BatchItem, envelope: &Envelope) -> ItemFate {
        let there = self.place_of(item, envelope);
        let left = self.left.get(&key_queue(envelope)).copied().unwrap_or(0);
        if there.is_none_or(|parked| parked.ahead != left) {
            return ItemFate::Nothing;
        }
        let fate = if self.is_expired(item) {
            ItemFate::Settle(Outcome::Expired)
        } else if let Some(park) = self.waits(item, envelope) {
            return ItemFate::Park(park);
        } else {
            ItemFate::Run
        };
        self.leave(envelope);
        fate
    }

    /// Where a command that was read from its key queue stands; `None` when it is not parked any more.
    fn place_of(&self, item: &BatchItem, envelope: &Envelope) -> Option<ParkedNow> {
        let there = self.facts.parked.get(&envelope.id.uuid()).copied();
        there.filter(|parked| item.parked.is_some() && parked.sequence == item.delivery.sequence)
    }

    fn leave(&mut self, envelope: &Envelope) {
        *self.left.entry(key_queue(envelope)).or_default() += 1;
    }

    /// Whether it waits for its own sake.
    fn waits(&self, item: &BatchItem, envelope: &Envelope) -> Option<Park> {
        let names = &self.facts.paused_names;
        let of_members = match &item.work {
            CommandWork::Atomic { atomic, .. } => {
                atomic.members.iter().any(|member| names.contains(member.name.as_str()))
            }
            _ => false,
        };
        let is_paused = of_members
            || names.contains(envelope.name.as_str())
            || envelope
                .key
                .as_ref()
                .is_some_and(|key| self.facts.paused_keys.contains(key.as_str()));
        match &item.work {
            _ if is_paused => Some(Park { reason: ParkReason::Paused, wait: None, error: None }),
            CommandWork::Park(park) => Some(park.clone()),
            CommandWork::Function(_)
            | CommandWork::Handler(_)
            | CommandWork::Atomic { .. }
            | CommandWork::Reject(_)
            | CommandWork::DeadLetter { .. } => None,
        }
    }

    /// Its time has passed, and nothing was decided about it before.
    fn is_expired(&self, item: &BatchItem) -> bool {
        !item.work.is_ended()
            && item.expires_ns.is_some_and(|expires_ns| expires_ns <= self.facts.now_ns)
    }
}

pub(crate) fn id_reused() -> Rejection {
    Rejection::new(
        "id_reused",
        "this command id was used for another command (its name, version, key or body differs); nothing was applied",
    )
}
