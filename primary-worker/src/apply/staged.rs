//! A batch in stages, in one transaction: open it (fence, and all that is known), sort it, run what
//! is to be run, record. For Rust handlers, for commands that end without being run, and while
//! something of the lane waits.

use std::{collections::HashMap, time::Instant};

use farwrite_schemas::{CommandId, DeadLetter, Outcome};
use sqlx::{Connection, PgConnection};

use crate::{
    failpoint::Failpoint,
    store::dead_letters::{self, NewDeadLetter},
    stream::position::StreamPosition,
};

use super::{
    facts::{Full, ItemFate},
    failure::Failure,
    fence::Fence,
    item::BatchItem,
    ledger::LedgerEntries,
    manner::{Care, GUARDED_MAX, Manner},
    open::open,
    parking::Parking,
    run::{BatchClock, BatchRun, NOT_RUN},
    session,
    settled::{CommittedBatch, OnlyAfterCommit, Settled},
    sort::sort,
    work::CommandWork,
};

pub(crate) async fn attempt(
    connection: &mut PgConnection,
    items: &[BatchItem],
    fence: &Fence,
    manner: Manner,
) -> Result<CommittedBatch, Failure> {
    // With a savepoint each, no more commands than subtransactions that do no harm.
    let (items, to) = match items.get(..GUARDED_MAX) {
        Some(first) if manner.care == Care::Guarded && first.len() < items.len() => {
            let to = first.last().map_or(fence.to, |item| stay_or(fence, item));
            (first, to)
        }
        _ => (items, fence.to),
    };
    let fence = &Fence { to, ..*fence };
    let mut tx = connection.begin().await?;
    // Before the database reads its clock: what is counted from here is never too little.
    let read_at = Instant::now();
    let (xid, facts) = open(&mut tx, items, fence).await?;
    let fates = sort(items, &facts, manner.bounds).map_err(|Full| Failure::Full)?;
    let nothing = vec![None; items.len()];
    let clock = Some(BatchClock { now_ns: facts.now_ns, read_at });
    let (care, outputs) = (manner.care, HashMap::new());
    let mut outcomes = BatchRun { items, care, clock, outcomes: nothing, outputs };
    outcomes.run(&mut tx, &fates).await?;
    let BatchRun { outcomes: mut ended, outputs, .. } = outcomes;
    let mut ledger = LedgerEntries::default();
    let mut parking = Parking::default();
    let mut settled = Vec::with_capacity(items.len());
    for (index, (item, fate)) in items.iter().zip(fates).enumerate() {
        let outcome = match fate {
            ItemFate::Run => ended[index].take(),
            ItemFate::Settle(outcome) => Some(outcome),
            ItemFate::Known(outcome) => {
                parking.leave(item);
                settled.push(Settled::Ended { outcome, repeated: true });
                continue;
            }
            ItemFate::Nothing => {
                settled.push(Settled::Untouched);
                continue;
            }
            ItemFate::Park(park) => {
                settled.push(Settled::Parked(park.reason.as_str()));
                parking.park(item, &park);
                continue;
            }
        };
        let Some(outcome) = outcome else { return Err(Failure::internal(NOT_RUN)) };
        if let Outcome::DeadLettered(letter) = &outcome {
            dead_letter(&mut tx, item, letter, fence.stream_id).await?;
        }
        ledger.record(item, &outcome);
        if let CommandWork::Atomic { atomic, refused } = &item.work {
            let outputs = outputs.get(&index);
            let members = atomic.ended(&mut tx, &outcome, outputs, refused.as_ref()).await?;
            for (id, fingerprint, outcome) in members {
                ledger.push(item, id, fingerprint, &outcome);
            }
        }
        parking.leave(item);
        settled.push(Settled::Ended { outcome, repeated: false });
    }
    parking.write(&mut tx, fence).await?;
    ledger.close(&mut tx, &xid, fence).await?;
    Failpoint::BeforeCommit.pass();
    tx.commit().await?;
    let only_after_commit = OnlyAfterCommit::committed();
    let is_paused = !(facts.paused_names.is_empty() && facts.paused_keys.is_empty());
    let waits = is_paused || parking.remaining(facts.parked_commands) > 0;
    Ok(CommittedBatch { settled, position: to, waits, _only_after_commit: only_after_commit })
}

/// Runs one command, in the transaction that is open, and records nothing.
pub(crate) async fn run_alone(tx: &mut PgConnection, item: &BatchItem) -> Result<Outcome, Failure> {
    let items = std::slice::from_ref(item);
    let (outcomes, outputs) = (vec![None], HashMap::new());
    let mut running = BatchRun { items, care: Care::Plain, clock: None, outcomes, outputs };
    running.run(tx, &[ItemFate::Run]).await?;
    session::check_deferred(tx).await?;
    running.outcomes.pop().flatten().ok_or_else(|| Failure::internal(NOT_RUN))
}

/// Where the lane stands after this item: parked ones do not move it.
fn stay_or(fence: &Fence, item: &BatchItem) -> StreamPosition {
    if item.parked.is_some() { fence.to } else { item.delivery.position() }
}

/// Keeps a message that nobody can apply, with its raw bytes.
async fn dead_letter(
    tx: &mut PgConnection,
    item: &BatchItem,
    letter: &DeadLetter,
    stream_id: i32,
) -> Result<(), sqlx::Error> {
    let delivery = &item.delivery;
    let envelope = delivery.envelope.as_ref().ok();
    let new = NewDeadLetter {
        stream_id,
        sequence: delivery.sequence.cast_signed(),
        id: delivery.message_id().and_then(|id| id.parse().ok()).map(CommandId::uuid),
        letter,
        subject: delivery.message.subject.as_str(),
        headers: delivery.headers_json(),
        body: delivery.body(),
        at_ns: delivery.at_ns,
        name: envelope.map(|envelope| envelope.name.as_str()),
        key: envelope.and_then(|envelope| envelope.key.as_ref()).map(|key| key.as_str()),
    };
    dead_letters::insert(tx, &new).await
}
