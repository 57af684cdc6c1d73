//! What is known when a staged batch is opened, and what becomes of its commands: data, and nothing
//! else.

use std::collections::{HashMap, HashSet};

use farwrite_schemas::Outcome;
use sqlx::types::Uuid;

use super::work::Park;

/// What is known when a batch is opened. It holds until the batch's transaction ends.
#[derive(Debug, Default)]
pub(crate) struct Facts {
    /// The database's clock, in Unix nanoseconds.
    pub(crate) now_ns: i64,
    /// What the ledger answers, for each command.
    pub(crate) known: Vec<Option<Outcome>>,
    /// The ids of the batch that are parked.
    pub(crate) parked: HashMap<Uuid, ParkedNow>,
    /// The key queues of the batch that something waits in, and how many commands wait there.
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
    /// How many stand before it in its key queue.
    pub(crate) ahead: u64,
}

/// What becomes of one command.
#[derive(Debug)]
pub(crate) enum ItemFate {
    /// It is run, or what was decided about it is recorded.
    Run,
    /// It ended before: answered, nothing else.
    Known(Outcome),
    /// Nothing is done now: it is parked already, or not any more, or stands behind a command that waits.
    Nothing,
    /// It is parked, or stays so.
    Park(Park),
    /// It ends without being run.
    Settle(Outcome),
}

/// As many commands as may be are parked in this lane: the batch cannot be applied.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Full;
