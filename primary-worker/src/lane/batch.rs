//! A batch: what a lane takes at once.

use std::collections::HashMap;

use farwrite_schemas::CommandId;

use crate::{apply::item::BatchItem, stream::position::StreamPosition};

/// A run of commands that share a transaction.
pub(crate) struct LaneBatch {
    pub(crate) items: Vec<BatchItem>,
    pub(crate) source: Source,
}

/// Where a batch comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// The stream, up to and including this position; echoes count. The lane's position moves there.
    Stream { end: StreamPosition },
    /// The parked table. The lane's position stays.
    Parked,
}

/// Puts commands of the stream together, repetitions within the batch as echoes, and cuts where a
/// command wants a transaction of its own.
pub(crate) fn cut(items: impl Iterator<Item = BatchItem>) -> Vec<LaneBatch> {
    let mut batches: Vec<LaneBatch> = Vec::with_capacity(1);
    let left = items.size_hint().0;
    let mut seen: HashMap<CommandId, usize> = HashMap::with_capacity(left);
    let mut cut_next = true;
    for item in items {
        let id = item.delivery.envelope.as_ref().ok().map(|envelope| envelope.id);
        let tried = item.parked.as_ref().is_some_and(|parked| parked.tried);
        let alone = tried || item.work.is_alone();
        let source = match item.parked {
            Some(_) => Source::Parked,
            None => Source::Stream { end: item.delivery.position() },
        };
        if let (Some(batch), Some(&first)) = (batches.last_mut(), id.and_then(|id| seen.get(&id))) {
            batch.items[first].echoes.push(item.delivery);
            batch.source = source;
            continue;
        }
        if cut_next || alone {
            // Most often all of them are one batch.
            let room = if batches.is_empty() && !alone { left } else { 0 };
            batches.push(LaneBatch { items: Vec::with_capacity(room), source });
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
