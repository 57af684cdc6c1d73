//! A batch: what a lane takes at once, and how each command of it is to be applied.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, SystemTime},
};

use farwrite_schemas::{CommandId, DeadLetter, Envelope, Fingerprint, Rejection};

use crate::{
    functions::{Function, Functions},
    handler::{AnyHandler, Handlers, Meta},
    stream::{Delivery, Place},
};

/// How far an id's time may lie after the stream's time of its message: a producer whose clock is
/// ahead by more is told so. The ledger's partitions reach at least this far.
pub(crate) const ID_MAX_AHEAD: Duration = Duration::from_secs(86_400);

/// One command of a batch.
pub(crate) struct Item {
    pub(crate) delivery: Delivery,
    pub(crate) work: Work,
    /// The same id again, in the same batch: answered with this one's outcome.
    pub(crate) echoes: Vec<Delivery>,
}

/// How a command is applied, or why it is not.
#[derive(Clone)]
pub(crate) enum Work {
    /// By a function of the database.
    Function(Function),
    /// By a Rust handler.
    Handler(Arc<dyn AnyHandler>),
    /// Not: it was found to be its own fault.
    Reject(Rejection),
    /// Not: nobody can. `in_ledger` tells whether the ledger can hold its id.
    DeadLetter { letter: DeadLetter, in_ledger: bool },
}

impl Work {
    fn dead_letter(reason: &str, message: impl Into<String>, in_ledger: bool) -> Self {
        let letter = DeadLetter { reason: reason.to_owned(), message: message.into() };
        Self::DeadLetter { letter, in_ledger }
    }

    /// Whether it is only to be recorded: nothing of the app's runs any more.
    pub(crate) fn is_settled(&self) -> bool {
        matches!(self, Self::Reject(_) | Self::DeadLetter { .. })
    }

    fn is_alone(&self) -> bool {
        matches!(self, Self::Function(Function { alone: true, .. }))
    }
}

impl Item {
    /// The id and fingerprint that the ledger knows this command by; `None` where it cannot.
    pub(crate) fn ledger_entry(&self) -> Option<(CommandId, Fingerprint)> {
        match (&self.work, &self.delivery.envelope) {
            (Work::DeadLetter { in_ledger: false, .. }, _) | (_, Err(_)) => None,
            (_, Ok(envelope)) => Some((envelope.id, envelope.fingerprint)),
        }
    }

    /// What a handler is told beside the body; `None` for a message that is no command.
    pub(crate) fn meta(&self) -> Option<Meta> {
        let Envelope { id, key, name, version, origin, .. } =
            self.delivery.envelope.clone().ok()?;
        let at = Duration::from_nanos(self.delivery.at_ns.unsigned_abs());
        let published_at = SystemTime::UNIX_EPOCH + at;
        Some(Meta {
            id,
            key,
            origin,
            name,
            version,
            sequence: self.delivery.sequence,
            published_at,
        })
    }
}

/// A run of commands that share a transaction, in stream order.
pub(crate) struct Batch {
    pub(crate) items: Vec<Item>,
    /// Where its last message is, echoes included.
    pub(crate) end: Place,
}

/// Sorts what a lane took into batches: one, unless a command wants a transaction of its own.
/// `None` where a command is unknown and `last_word` is false: the registry is to be read again.
pub(crate) fn assemble(
    deliveries: &[Delivery],
    handlers: &Handlers,
    functions: &Functions,
    ledger_keep: Duration,
    last_word: bool,
) -> Option<Vec<Work>> {
    deliveries
        .iter()
        .map(|delivery| {
            let work = work_of(delivery, handlers, functions, ledger_keep);
            match work {
                Some(work) => Some(work),
                None if last_word => Some(unknown(delivery)),
                None => None,
            }
        })
        .collect()
}

/// How a command is to be applied; `None` when its name is not known.
fn work_of(
    delivery: &Delivery,
    handlers: &Handlers,
    functions: &Functions,
    ledger_keep: Duration,
) -> Option<Work> {
    let envelope = match &delivery.envelope {
        Ok(envelope) => envelope,
        Err(error) => return Some(Work::dead_letter(error.code(), error.to_string(), false)),
    };
    if let Some(refusal) = refuse_by_age(envelope.id, delivery.at_ns, ledger_keep) {
        return Some(refusal);
    }
    let name = (envelope.name.clone(), envelope.version);
    if let Some(handler) = handlers.get(&name) {
        return Some(Work::Handler(Arc::clone(handler)));
    }
    functions.get(&name).map(Work::Function)
}

fn unknown(delivery: &Delivery) -> Work {
    let name = delivery.envelope.as_ref().map_or_else(
        |_| delivery.message.subject.to_string(),
        |envelope| format!("{} version {}", envelope.name, envelope.version),
    );
    let message = format!(
        "no handler and no function is registered as {name}: register one with farwrite.register, or upgrade the worker"
    );
    Work::dead_letter("unknown_command", message, true)
}

/// An id's own time must lie near the stream's: before it by no more than the ledger keeps, or a
/// repetition would not be known; after it by no more than [`ID_MAX_AHEAD`]. Compared with the
/// stream's time of the message and not with the clock, so that a worker that was away for ten
/// days refuses nobody.
fn refuse_by_age(id: CommandId, at_ns: i64, ledger_keep: Duration) -> Option<Work> {
    let id_ms = i128::from(id.unix_ms()?);
    let stream_ms = i128::from(at_ns / 1_000_000);
    let keep_ms = ledger_keep.as_millis().cast_signed();
    let ahead_ms = ID_MAX_AHEAD.as_millis().cast_signed();
    if id_ms < stream_ms - keep_ms {
        let message = format!(
            "the command id is {} hours older than its publication, more than the ledger keeps ({} hours): whether it was applied before is not known",
            (stream_ms - id_ms) / 3_600_000,
            keep_ms / 3_600_000
        );
        Some(Work::dead_letter("id_too_old", message, false))
    } else if id_ms > stream_ms + ahead_ms {
        let message = "the command id carries a time more than a day after its publication: the producer's clock is wrong";
        Some(Work::dead_letter("id_in_future", message, false))
    } else {
        None
    }
}

/// Puts deliveries and their work together, repetitions within the batch as echoes, and cuts where
/// a command wants a transaction of its own.
pub(crate) fn cut(deliveries: Vec<Delivery>, works: Vec<Work>) -> Vec<Batch> {
    let mut batches: Vec<Batch> = Vec::with_capacity(1);
    let mut seen: HashMap<CommandId, usize> = HashMap::with_capacity(deliveries.len());
    let mut cut_next = true;
    for (delivery, work) in deliveries.into_iter().zip(works) {
        let id = delivery.envelope.as_ref().ok().map(|envelope| envelope.id);
        let alone = work.is_alone();
        let place = delivery.place();
        if let (Some(batch), Some(&first)) = (batches.last_mut(), id.and_then(|id| seen.get(&id))) {
            batch.items[first].echoes.push(delivery);
            batch.end = place;
            continue;
        }
        if cut_next || alone {
            batches.push(Batch { items: Vec::new(), end: place });
            seen.clear();
        }
        cut_next = alone;
        if let Some(batch) = batches.last_mut() {
            if let Some(id) = id {
                seen.insert(id, batch.items.len());
            }
            batch.items.push(Item { delivery, work, echoes: Vec::new() });
            batch.end = place;
        }
    }
    batches
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(id_ms: u64, stream_ms: i64) -> Option<String> {
        let id = CommandId::from_uuid(
            uuid::Builder::from_unix_timestamp_millis(id_ms, &[0; 10]).into_uuid(),
        );
        match refuse_by_age(id, stream_ms * 1_000_000, Duration::from_secs(7 * 86_400))? {
            Work::DeadLetter { letter, .. } => Some(letter.reason),
            _ => None,
        }
    }

    #[test]
    fn an_id_is_refused_by_the_streams_time_and_not_by_the_clock() {
        let day = 86_400_000;
        let stream = 1_763_871_600_000;
        assert_eq!(refused(stream, stream as i64), None);
        assert_eq!(refused(stream - 7 * day, stream as i64), None);
        assert_eq!(refused(stream - 7 * day - 1, stream as i64).as_deref(), Some("id_too_old"));
        assert_eq!(refused(stream + day, stream as i64), None);
        assert_eq!(refused(stream + day + 1, stream as i64).as_deref(), Some("id_in_future"));
    }

    #[test]
    fn a_derived_id_has_no_age() {
        let id = CommandId::derived("a", "b");
        assert!(refuse_by_age(id, 0, Duration::from_secs(1)).is_none());
    }
}
