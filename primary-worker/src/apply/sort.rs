//! What becomes of each command of a staged batch before anything runs: a pure function of what
//! the database knows.
//!
//! This is where the order of a key is kept while some of it waits (invariant 4): a command of the
//! stream whose key has a line goes to the end of that line, and of a line only what stands at its
//! front is run.

use std::collections::{HashMap, HashSet};

use farwrite_schemas::{Envelope, Outcome, Rejection};
use uuid::Uuid;

use crate::{lane::batch::Item, stream::key::line};

use super::work::{Park, ParkReason, Work};

/// What is known when a batch is opened. It holds until the batch's transaction ends.
#[derive(Debug, Default)]
pub(crate) struct Facts {
    /// The database's clock, in Unix nanoseconds.
    pub(crate) now_ns: i64,
    /// What the ledger answers, for each command.
    pub(crate) known: Vec<Option<Outcome>>,
    /// Those of the ids that are parked.
    pub(crate) parked: HashMap<Uuid, ParkedNow>,
    /// Those of the lines that something waits in, and how much.
    pub(crate) held: HashMap<String, u64>,
    /// Paused names and keys.
    pub(crate) paused_names: HashSet<String>,
    pub(crate) paused_keys: HashSet<String>,
    /// How many commands of the lane are parked.
    pub(crate) parked_commands: u64,
}

/// A command that is parked when the batch is opened.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ParkedNow {
    pub(crate) fingerprint: Uuid,
    pub(crate) sequence: u64,
    /// How many stand before it in its line.
    pub(crate) ahead: u64,
}

/// How much may wait.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    /// In the lane.
    pub(crate) parked_max: u64,
    /// In one line.
    pub(crate) line_max: u64,
}

/// What becomes of one command.
#[derive(Debug)]
pub(crate) enum Fate {
    /// It is run, or what was decided about it is recorded.
    Run,
    /// It ended before: answered, nothing else.
    Known(Outcome),
    /// Nothing is done now: it is parked already, or not any more, or stands behind one that waits.
    Nothing,
    /// It is parked, or stays so.
    Park(Park),
    /// It ends without being run.
    Settle(Outcome),
}

/// As many commands as may be are parked in this lane: the batch cannot be applied.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Full;

/// Sorts a batch.
pub(crate) fn sort(items: &[Item], facts: &Facts, bounds: Bounds) -> Result<Vec<Fate>, Full> {
    let mut lines = Lines { facts, added: HashMap::new(), left: HashMap::new(), parked: 0 };
    let mut fates = Vec::with_capacity(items.len());
    for (index, item) in items.iter().enumerate() {
        let known = facts.known.get(index).cloned().flatten();
        let fate = match (item.ledger_entry(), &item.delivery.envelope, known) {
            (None, ..) | (_, Err(_), _) => Fate::Run,
            (Some(_), Ok(envelope), Some(outcome)) => {
                // Ended as a part of an atomic batch, it leaves its line now; cancelled, it has left.
                if lines.place_of(item, envelope).is_some() {
                    lines.leave(envelope);
                }
                Fate::Known(outcome)
            }
            (Some(_), Ok(envelope), None) => match item.parked {
                None => lines.of_stream(item, envelope, bounds),
                Some(_) => lines.of_line(item, envelope),
            },
        };
        fates.push(fate);
    }
    if lines.parked > 0 && facts.parked_commands + lines.parked > bounds.parked_max {
        return Err(Full);
    }
    Ok(fates)
}

struct Lines<'a> {
    facts: &'a Facts,
    /// What this batch adds to a line.
    added: HashMap<String, u64>,
    /// How many commands leave a line in this batch, all from its front.
    left: HashMap<String, u64>,
    /// Commands that this batch parks.
    parked: u64,
}

impl Lines<'_> {
    /// A command that comes from the stream.
    fn of_stream(&mut self, item: &Item, envelope: &Envelope, bounds: Bounds) -> Fate {
        if let Some(parked) = self.facts.parked.get(&envelope.id.uuid()) {
            return if parked.fingerprint == envelope.fingerprint.as_uuid() {
                Fate::Nothing
            } else {
                Fate::Known(Outcome::Rejected(id_reused()))
            };
        }
        if self.is_expired(item) {
            return Fate::Settle(Outcome::Expired);
        }
        if let Some(not_before_ms) = envelope.not_before_ms
            && !item.work.is_ended()
        {
            let until_ns = not_before_ms.saturating_mul(1_000_000);
            if until_ns > self.facts.now_ns {
                self.parked += 1;
                let reason = ParkReason::Scheduled { until_ns };
                return Fate::Park(Park { reason, wait: None, error: None });
            }
        }
        let line = line(envelope);
        let held = self.facts.held.get(&line).copied().unwrap_or(0)
            + self.added.get(&line).copied().unwrap_or(0);
        let park = if held >= bounds.line_max {
            let letter = farwrite_schemas::DeadLetter {
                reason: "key_overflow".to_owned(),
                message: format!("{held} commands of its key wait already, which is the bound"),
            };
            return Fate::Settle(Outcome::DeadLettered(letter));
        } else if held > 0 {
            Some(Park {
                reason: ParkReason::Behind,
                wait: Some(std::time::Duration::ZERO),
                error: None,
            })
        } else {
            self.waits(item, envelope)
        };
        let Some(park) = park else { return Fate::Run };
        *self.added.entry(line).or_default() += 1;
        self.parked += 1;
        Fate::Park(park)
    }

    /// A command that is parked, and is due: done only when all that stood before it has left. One
    /// that is not parked any more was taken away by an operator.
    fn of_line(&mut self, item: &Item, envelope: &Envelope) -> Fate {
        let there = self.place_of(item, envelope);
        let left = self.left.get(&line(envelope)).copied().unwrap_or(0);
        if there.is_none_or(|parked| parked.ahead != left) {
            return Fate::Nothing;
        }
        let fate = if self.is_expired(item) {
            Fate::Settle(Outcome::Expired)
        } else if let Some(park) = self.waits(item, envelope) {
            return Fate::Park(park);
        } else {
            Fate::Run
        };
        self.leave(envelope);
        fate
    }

    /// Where a command that was read from its line stands; `None` when it is not parked any more.
    fn place_of(&self, item: &Item, envelope: &Envelope) -> Option<ParkedNow> {
        let there = self.facts.parked.get(&envelope.id.uuid()).copied();
        there.filter(|parked| item.parked.is_some() && parked.sequence == item.delivery.sequence)
    }

    fn leave(&mut self, envelope: &Envelope) {
        *self.left.entry(line(envelope)).or_default() += 1;
    }

    /// Whether it waits for its own sake.
    fn waits(&self, item: &Item, envelope: &Envelope) -> Option<Park> {
        let is_paused = self.facts.paused_names.contains(envelope.name.as_str())
            || envelope
                .key
                .as_ref()
                .is_some_and(|key| self.facts.paused_keys.contains(key.as_str()));
        match &item.work {
            _ if is_paused => Some(Park { reason: ParkReason::Paused, wait: None, error: None }),
            Work::Park(park) => Some(park.clone()),
            Work::Function(_)
            | Work::Handler(_)
            | Work::Atomic { .. }
            | Work::Reject(_)
            | Work::DeadLetter { .. } => None,
        }
    }

    /// Its time has passed, and nothing was decided about it before.
    fn is_expired(&self, item: &Item) -> bool {
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
