//! Opening a staged batch: the fence, and all that is known of its commands, in one statement.

use std::collections::HashMap;

use farwrite_schemas::Outcome;
use sqlx::{FromRow, PgConnection, Row, postgres::PgRow, types::Uuid};

use crate::stream::key::key_queue;

use super::{
    facts::{Facts, ParkedNow},
    failure::Failure,
    fence::Fence,
    item::BatchItem,
};

/// What `farwrite.open_batch` answers; an array without elements is null.
struct OpenedBatch {
    xid: String,
    now_ns: i64,
    outcomes: Vec<Option<String>>,
    answers: Vec<Option<String>>,
    parked: i64,
    parked_ids: Option<Vec<Uuid>>,
    parked_fingerprints: Option<Vec<Uuid>>,
    parked_sequences: Option<Vec<i64>>,
    parked_ahead: Option<Vec<i64>>,
    held_key_queues: Option<Vec<String>>,
    held_commands: Option<Vec<i64>>,
    paused_names: Option<Vec<String>>,
    paused_keys: Option<Vec<String>>,
}

impl FromRow<'_, PgRow> for OpenedBatch {
    fn from_row(row: &PgRow) -> Result<Self, sqlx::Error> {
        Ok(Self {
            xid: row.try_get("xid")?,
            now_ns: row.try_get("now_ns")?,
            outcomes: row.try_get("outcomes")?,
            answers: row.try_get("answers")?,
            parked: row.try_get("parked")?,
            parked_ids: row.try_get("parked_ids")?,
            parked_fingerprints: row.try_get("parked_fingerprints")?,
            parked_sequences: row.try_get("parked_sequences")?,
            parked_ahead: row.try_get("parked_ahead")?,
            held_key_queues: row.try_get("held_key_queues")?,
            held_commands: row.try_get("held_commands")?,
            paused_names: row.try_get("paused_names")?,
            paused_keys: row.try_get("paused_keys")?,
        })
    }
}

impl OpenedBatch {
    fn parked(&mut self) -> HashMap<Uuid, ParkedNow> {
        let count = |numbers: Option<Vec<i64>>| {
            numbers.unwrap_or_default().into_iter().map(i64::unsigned_abs)
        };
        let ids = self.parked_ids.take().unwrap_or_default();
        let fingerprints = self.parked_fingerprints.take().unwrap_or_default();
        let places = count(self.parked_sequences.take()).zip(count(self.parked_ahead.take()));
        (ids.into_iter().zip(fingerprints).zip(places))
            .map(|((id, fingerprint), (sequence, ahead))| {
                (id, ParkedNow { fingerprint, sequence, ahead })
            })
            .collect()
    }
}

/// The fence and the look-ups: answers the transaction's id and what is known.
pub(crate) async fn open(
    tx: &mut PgConnection,
    items: &[BatchItem],
    fence: &Fence,
) -> Result<(String, Facts), Failure> {
    let entries = || {
        let entry = |(index, item): (usize, &_)| Some((index, BatchItem::ledger_entry(item)?));
        items.iter().enumerate().filter_map(entry)
    };
    let ids: Vec<Uuid> = entries().map(|(_, (id, _))| id.uuid()).collect();
    let fingerprints: Vec<Uuid> = entries().map(|(_, (_, print))| print.as_uuid()).collect();
    let queues: Vec<String> = items
        .iter()
        .filter_map(|item| Some(key_queue(item.delivery.envelope.as_ref().ok()?)))
        .collect();
    let statement = sqlx::query_as(
        "SELECT xid, now_ns, outcomes, answers, parked, parked_ids, parked_fingerprints, parked_sequences, parked_ahead,
                held_key_queues, held_commands, paused_names, paused_keys
         FROM farwrite.open_batch($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
    );
    let mut opened: OpenedBatch =
        fence.bind(statement).bind(&ids).bind(&fingerprints).bind(&queues).fetch_one(tx).await?;
    let mut known = vec![None; items.len()];
    let answers = opened.outcomes.iter().zip(&opened.answers);
    for ((index, _), (outcome, answer)) in entries().zip(answers) {
        if let Some(word) = outcome {
            let outcome = Outcome::from_ledger(word, answer.clone());
            known[index] = Some(outcome.map_err(Failure::unreadable)?);
        }
    }
    let held = opened.held_commands.take().unwrap_or_default();
    let facts = Facts {
        now_ns: opened.now_ns,
        known,
        parked: opened.parked(),
        parked_commands: opened.parked.unsigned_abs(),
        held: (opened.held_key_queues.take().unwrap_or_default().into_iter())
            .zip(held.into_iter().map(i64::unsigned_abs))
            .collect(),
        paused_names: opened.paused_names.take().unwrap_or_default().into_iter().collect(),
        paused_keys: opened.paused_keys.take().unwrap_or_default().into_iter().collect(),
    };
    Ok((opened.xid, facts))
}
