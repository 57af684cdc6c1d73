//! A batch: what a lane takes at once.

use std::{
    collections::HashMap,
    time::{Duration, SystemTime},
};

use farwrite_schemas::{CommandId, Envelope, Fingerprint};

use crate::{
    apply::{handler::Meta, work::Work},
    stream::delivery::{Delivery, Place},
};

/// One command of a batch.
pub(crate) struct Item {
    pub(crate) delivery: Delivery,
    pub(crate) work: Work,
    /// The same id again, in the same batch: answered with this one's outcome.
    pub(crate) echoes: Vec<Delivery>,
    /// How often it was tried alone and failed by chance.
    pub(crate) attempts: u32,
    /// Where it was parked.
    pub(crate) parked: Option<Parked>,
    /// When it is no longer to be applied, in Unix nanoseconds.
    pub(crate) expires_ns: Option<i64>,
}

/// What is known of a command that was parked.
#[derive(Clone, Debug)]
pub(crate) struct Parked {
    /// How long it has waited for something that is not there, or behind others.
    pub(crate) lacks_for: Duration,
    /// How often it was tried alone and failed by chance.
    pub(crate) attempts: u32,
    /// Whether it was run before, and is parked for what came of it: it is run alone, for what
    /// stands behind it would only fail with it.
    pub(crate) tried: bool,
}

impl Item {
    pub(crate) fn new(
        delivery: Delivery,
        work: Work,
        parked: Option<Parked>,
        expires_ns: Option<i64>,
    ) -> Self {
        let attempts = parked.as_ref().map_or(0, |parked| parked.attempts);
        Self { delivery, work, echoes: Vec::new(), attempts, parked, expires_ns }
    }

    /// The id and fingerprint that the ledger knows this command by; `None` where it cannot.
    pub(crate) fn ledger_entry(&self) -> Option<(CommandId, Fingerprint)> {
        match (&self.work, &self.delivery.envelope) {
            (Work::DeadLetter { in_ledger: false, .. }, _) | (_, Err(_)) => None,
            (_, Ok(envelope)) => Some((envelope.id, envelope.fingerprint)),
        }
    }

    /// What a handler is told beside the body; `None` for a message that is no command.
    pub(crate) fn meta(&self) -> Option<Meta> {
        let Envelope { id, key, name, version, origin, context, .. } =
            self.delivery.envelope.clone().ok()?;
        let at = Duration::from_nanos(self.delivery.at_ns.unsigned_abs());
        let published_at = SystemTime::UNIX_EPOCH + at;
        let sequence = self.delivery.sequence;
        Some(Meta { id, key, origin, name, version, sequence, published_at, context })
    }
}

/// A run of commands that share a transaction.
pub(crate) struct Batch {
    pub(crate) items: Vec<Item>,
    pub(crate) source: Source,
}

/// Where a batch comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// The stream, up to and including this place; echoes count. The lane's position moves there.
    Stream { end: Place },
    /// The parked table. The lane's position stays.
    Parked,
}

/// Puts commands of the stream together, repetitions within the batch as echoes, and cuts where a
/// command wants a transaction of its own.
pub(crate) fn cut(items: impl Iterator<Item = Item>) -> Vec<Batch> {
    let mut batches: Vec<Batch> = Vec::with_capacity(1);
    let left = items.size_hint().0;
    let mut seen: HashMap<CommandId, usize> = HashMap::with_capacity(left);
    let mut cut_next = true;
    for item in items {
        let id = item.delivery.envelope.as_ref().ok().map(|envelope| envelope.id);
        let tried = item.parked.as_ref().is_some_and(|parked| parked.tried);
        let alone = tried || item.work.is_alone();
        let source = match item.parked {
            Some(_) => Source::Parked,
            None => Source::Stream { end: item.delivery.place() },
        };
        if let (Some(batch), Some(&first)) = (batches.last_mut(), id.and_then(|id| seen.get(&id))) {
            batch.items[first].echoes.push(item.delivery);
            batch.source = source;
            continue;
        }
        if cut_next || alone {
            // Most often all of them are one batch.
            let room = if batches.is_empty() && !alone { left } else { 0 };
            batches.push(Batch { items: Vec::with_capacity(room), source });
            seen.clear();
        }
        cut_next = alone;
        if let Some(batch) = batches.last_mut() {
            if let Some(id) = id {
                seen.insert(id, batch.items.len());
            }
            batch.items.push(item);
            batch.source = source;
        }
    }
    batches
}
