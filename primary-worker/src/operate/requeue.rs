//! Putting dead letters back: parked at the ends of their key queues, in order of sequence, with
//! their ids, and applied like any command.
//!
//! A letter is read again from its raw bytes, as it was when it came. One that is still no command
//! stays a dead letter. Of several letters with one id only the first is put back at a time, and
//! none while a command with its id is parked: two of one id in one key queue would wait for each other.

use std::collections::HashMap;

use farwrite_schemas::CommandId;
use serde::Serialize;
use sqlx::{PgConnection, types::Uuid};

use crate::stream::{
    delivery::Delivery,
    key::{key_queue, lane_hash},
};

use super::{
    chunks::{self, CHUNK_BYTES, CHUNK_ROWS},
    error::OperateError,
    filter::{Chosen, Cursor, chosen},
    operator::Operator,
};

/// A chunk of one stream: $12 is the most bytes of bodies, which a single letter may exceed.
const CHUNK: &str = concat!(
    "SELECT c.stream_id, c.sequence, c.subject, c.headers::text, c.body
     FROM (SELECT l.*, sum(octet_length(l.body)) OVER w AS bytes, first_value(l.stream_id) OVER w AS first
           FROM (SELECT t.* FROM farwrite.dead_letters t WHERE",
    chosen!("dead_lettered_at", "t.reason = $4"),
    ") l WINDOW w AS (ORDER BY l.stream_id, l.sequence)) c
     WHERE c.stream_id = c.first AND (c.bytes <= $12 OR c.bytes = octet_length(c.body))
     ORDER BY c.sequence"
);

type LetterRow = (i32, i64, String, String, Vec<u8>);

/// A letter that stays where it is.
#[derive(Debug, Serialize)]
#[non_exhaustive]
pub struct LetterLeft {
    /// Its sequence in the stream.
    pub sequence: i64,
    /// Its command id, where it has one.
    pub id: Option<Uuid>,
    /// Why it stays.
    pub left: String,
}

/// What became of some of the letters.
#[derive(Debug)]
#[non_exhaustive]
pub struct Requeued {
    /// How many were put back.
    pub done: i64,
    /// Those that stay, in order of sequence.
    pub left: Vec<LetterLeft>,
}

/// Letters that are to be put back, as the arrays of `farwrite.requeue`.
#[derive(Debug, Default)]
struct LettersBack {
    sequences: Vec<i64>,
    ids: Vec<Uuid>,
    fingerprints: Vec<Uuid>,
    names: Vec<String>,
    versions: Vec<i32>,
    keys: Vec<Option<String>>,
    lines: Vec<String>,
    lane_hashes: Vec<i64>,
}

impl Operator {
    /// Puts back the next of the dead letters that were chosen, in one transaction; `None` when
    /// there are no more.
    ///
    /// # Errors
    /// When a lane stays busy, or the database fails: these letters are as they were.
    pub async fn requeue(
        &mut self,
        chosen: &mut Chosen,
        reason: &str,
    ) -> Result<Option<Requeued>, OperateError> {
        let limit = CHUNK_ROWS.min(chosen.acted_on() - chosen.seen);
        let query = chosen.bind(sqlx::query_as(CHUNK), chosen.after, limit).bind(CHUNK_BYTES);
        let letters: Vec<LetterRow> = query.fetch_all(&mut self.connection).await?;
        let Some(last) = letters.last().map(|(stream_id, sequence, ..)| (*stream_id, *sequence))
        else {
            return Ok(None);
        };
        chosen.passed(last, letters.len() as i64);
        let (back, mut left) = LettersBack::read(letters);
        let mut done = 0;
        if !back.ids.is_empty() {
            let (count, not_now) = put_back(&mut self.connection, last, &back, reason).await?;
            done = i64::from(count);
            left.extend(not_now);
        }
        left.sort_by_key(|left| left.sequence);
        Ok(Some(Requeued { done, left }))
    }
}

/// One transaction: all of these, or none. Answers how many, and those that cannot go back now.
async fn put_back(
    connection: &mut PgConnection,
    (stream_id, _): Cursor,
    back: &LettersBack,
    reason: &str,
) -> Result<(i32, Vec<LetterLeft>), OperateError> {
    chunks::held(connection, async |tx| {
        let parked: Vec<(Uuid, i64)> = sqlx::query_as(
            "SELECT command_id, sequence FROM farwrite.parked WHERE command_id = ANY ($1)",
        )
        .bind(&back.ids)
        .fetch_all(&mut *tx)
        .await?;
        let horizon: Option<Uuid> = sqlx::query_scalar(
            "SELECT farwrite.first_id_at(nullif(known_from, '-infinity')) FROM farwrite.ledger_horizon",
        )
        .fetch_one(&mut *tx)
        .await?;
        let parked: HashMap<Uuid, i64> = parked.into_iter().collect();
        let (back, left) = back.without(&parked, horizon);
        let count: i32 =
            sqlx::query_scalar("SELECT farwrite.requeue($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)")
                .bind(stream_id)
                .bind(back.sequences)
                .bind(back.ids)
                .bind(back.fingerprints)
                .bind(back.names)
                .bind(back.versions)
                .bind(back.keys)
                .bind(back.lines)
                .bind(back.lane_hashes)
                .bind(reason)
                .fetch_one(tx)
                .await?;
        Ok((count, left))
    })
    .await
}

impl LettersBack {
    /// Reads letters again, as commands.
    fn read(letters: Vec<LetterRow>) -> (Self, Vec<LetterLeft>) {
        let (mut back, mut left) = (Self::default(), Vec::new());
        let mut first: HashMap<Uuid, i64> = HashMap::new();
        for (_, sequence, subject, headers, body) in letters {
            let headers: Vec<(String, String)> = match serde_json::from_str(&headers) {
                Ok(headers) => headers,
                Err(error) => {
                    let why = format!("its headers cannot be read: {error}");
                    left.push(LetterLeft { sequence, id: None, left: why });
                    continue;
                }
            };
            let delivery = Delivery::kept(subject, headers, body, sequence.unsigned_abs(), 0);
            match &delivery.envelope {
                Err(error) => {
                    let id = delivery.message_id().and_then(|id| Uuid::try_parse(id).ok());
                    left.push(LetterLeft {
                        sequence,
                        id,
                        left: format!("{}: {error}", error.code()),
                    });
                }
                Ok(envelope) => {
                    let id = envelope.id.uuid();
                    if let Some(first) = first.get(&id) {
                        left.push(LetterLeft { sequence, id: Some(id), left: behind(*first) });
                        continue;
                    }
                    first.insert(id, sequence);
                    back.sequences.push(sequence);
                    back.ids.push(id);
                    back.fingerprints.push(envelope.fingerprint.as_uuid());
                    back.names.push(envelope.name.to_string());
                    back.versions.push(envelope.version.cast_signed());
                    back.keys.push(envelope.key.as_ref().map(|key| key.as_str().to_owned()));
                    back.lines.push(key_queue(envelope));
                    back.lane_hashes.push(lane_hash(envelope));
                }
            }
        }
        (back, left)
    }

    /// Those whose id is not parked and that the ledger can know, and why the others stay.
    fn without(
        &self,
        parked: &HashMap<Uuid, i64>,
        horizon: Option<Uuid>,
    ) -> (Self, Vec<LetterLeft>) {
        let (mut back, mut left) = (Self::default(), Vec::new());
        for (index, id) in self.ids.iter().enumerate() {
            let sequence = self.sequences[index];
            if let Some(first) = parked.get(id) {
                left.push(LetterLeft { sequence, id: Some(*id), left: behind(*first) });
                continue;
            }
            let is_dated = CommandId::from_uuid(*id).unix_ms().is_some();
            if is_dated && horizon.is_some_and(|horizon| *id < horizon) {
                let left_for = "its id is older than the ledger knows: whether it was applied before is not known; send it again under a new id".to_owned();
                left.push(LetterLeft { sequence, id: Some(*id), left: left_for });
                continue;
            }
            back.sequences.push(sequence);
            back.ids.push(*id);
            back.fingerprints.push(self.fingerprints[index]);
            back.names.push(self.names[index].clone());
            back.versions.push(self.versions[index]);
            back.keys.push(self.keys[index].clone());
            back.lines.push(self.lines[index].clone());
            back.lane_hashes.push(self.lane_hashes[index]);
        }
        (back, left)
    }
}

fn behind(first: i64) -> String {
    format!(
        "a command with its id is parked, at sequence {first}: requeue it when that one has ended"
    )
}
