//! Parked commands: writing them in a batch's transaction, and reading those that are due.

use std::time::Duration;

use sqlx::{PgConnection, types::Uuid};

use crate::{
    lane::batch::{Item, Parked},
    life::takeover::Takeover,
    stream::{
        delivery::Delivery,
        key::{lane_hash, line},
    },
};

use super::{
    attempt::{Failure, Fence},
    work::{Park, ParkReason},
};

/// Bytes of parked bodies that are read at once.
const DUE_MAX_BYTES: i64 = 8 << 20;

/// What a batch changes about what is parked, as parallel arrays.
#[derive(Default)]
pub(crate) struct Parking<'a> {
    new: New<'a>,
    kept: Kept,
    /// Sequences of parked commands that are settled.
    gone: Vec<i64>,
}

#[derive(Default)]
struct New<'a> {
    sequences: Vec<i64>,
    ids: Vec<Uuid>,
    fingerprints: Vec<Uuid>,
    names: Vec<&'a str>,
    versions: Vec<i32>,
    keys: Vec<Option<&'a str>>,
    lines: Vec<String>,
    lane_hashes: Vec<i64>,
    subjects: Vec<&'a str>,
    headers: Vec<String>,
    bodies: Vec<&'a [u8]>,
    at_ns: Vec<i64>,
    reasons: Vec<&'static str>,
    errors: Vec<Option<String>>,
    attempts: Vec<i32>,
    scheduled_ns: Vec<Option<i64>>,
    waits: Vec<Option<f64>>,
}

#[derive(Default)]
struct Kept {
    sequences: Vec<i64>,
    reasons: Vec<&'static str>,
    errors: Vec<Option<String>>,
    attempts: Vec<i32>,
    waits: Vec<Option<f64>>,
}

impl<'a> Parking<'a> {
    /// A command waits, or goes on waiting.
    pub(crate) fn park(&mut self, item: &'a Item, park: &Park) {
        let error = park.error.as_ref().and_then(|error| serde_json::to_string(error).ok());
        let attempts = item.attempts.cast_signed();
        let wait = park.wait.map(|wait| wait.as_secs_f64());
        let sequence = item.delivery.sequence.cast_signed();
        if item.parked.is_some() {
            self.kept.sequences.push(sequence);
            self.kept.reasons.push(park.reason.word());
            self.kept.errors.push(error);
            self.kept.attempts.push(attempts);
            self.kept.waits.push(wait);
            return;
        }
        let Ok(envelope) = &item.delivery.envelope else { return };
        let new = &mut self.new;
        new.sequences.push(sequence);
        new.ids.push(envelope.id.uuid());
        new.fingerprints.push(envelope.fingerprint.as_uuid());
        new.names.push(envelope.name.as_str());
        new.versions.push(envelope.version.cast_signed());
        new.keys.push(envelope.key.as_ref().map(|key| key.as_str()));
        new.lines.push(line(envelope));
        new.lane_hashes.push(lane_hash(envelope));
        new.subjects.push(item.delivery.message.subject.as_str());
        new.headers.push(item.delivery.headers_json());
        new.bodies.push(item.delivery.body());
        new.at_ns.push(item.delivery.at_ns);
        new.reasons.push(park.reason.word());
        new.errors.push(error);
        new.attempts.push(attempts);
        new.scheduled_ns.push(match park.reason {
            ParkReason::Scheduled { until_ns } => Some(until_ns),
            ParkReason::Behind
            | ParkReason::Paused
            | ParkReason::Retry
            | ParkReason::Unknown
            | ParkReason::NotReady
            | ParkReason::Later => None,
        });
        new.waits.push(wait);
    }

    /// A command is settled: if it was parked, it is not any more.
    pub(crate) fn leave(&mut self, item: &Item) {
        if item.parked.is_some() {
            self.gone.push(item.delivery.sequence.cast_signed());
        }
    }

    /// How many are parked afterwards, of so many before.
    pub(crate) fn remaining(&self, before: u64) -> u64 {
        (before + self.new.sequences.len() as u64).saturating_sub(self.gone.len() as u64)
    }

    /// Writes it all. Those that are gone come first: a line goes on with what stood behind them.
    pub(crate) async fn write(
        &self,
        tx: &mut PgConnection,
        fence: &Fence<'_>,
    ) -> Result<(), Failure> {
        let stream_id = fence.takeover.stream_id;
        let lane = fence.lane.cast_signed();
        if !self.gone.is_empty() {
            sqlx::query("SELECT farwrite.unpark($1, $2, $3)")
                .bind(stream_id)
                .bind(lane)
                .bind(&self.gone)
                .execute(&mut *tx)
                .await?;
        }
        if !self.kept.sequences.is_empty() {
            let kept = &self.kept;
            sqlx::query("SELECT farwrite.keep_parked($1, $2, $3, $4, $5, $6)")
                .bind(stream_id)
                .bind(&kept.sequences)
                .bind(&kept.reasons)
                .bind(&kept.errors)
                .bind(&kept.attempts)
                .bind(&kept.waits)
                .execute(&mut *tx)
                .await?;
        }
        if !self.new.sequences.is_empty() {
            let new = &self.new;
            sqlx::query(
                "SELECT farwrite.park($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19)",
            )
            .bind(stream_id)
            .bind(lane)
            .bind(&new.sequences)
            .bind(&new.ids)
            .bind(&new.fingerprints)
            .bind(&new.names)
            .bind(&new.versions)
            .bind(&new.keys)
            .bind(&new.lines)
            .bind(&new.lane_hashes)
            .bind(&new.subjects)
            .bind(&new.headers)
            .bind(&new.bodies)
            .bind(&new.at_ns)
            .bind(&new.reasons)
            .bind(&new.errors)
            .bind(&new.attempts)
            .bind(&new.scheduled_ns)
            .bind(&new.waits)
            .execute(tx)
            .await?;
        }
        Ok(())
    }
}

/// What a lane must know about what waits.
pub(crate) struct Waiting {
    /// Whether anything of the lane is parked or paused.
    pub(crate) any: bool,
    /// How many are parked.
    pub(crate) parked: u64,
    /// How long until the next is due; zero when it is; `None` when nothing is.
    pub(crate) next: Option<Duration>,
    /// How often the registry of functions has changed.
    pub(crate) registry: i64,
}

/// Looks at what waits.
pub(crate) async fn look(
    connection: &mut PgConnection,
    takeover: &Takeover,
    lane: u32,
) -> Result<Waiting, sqlx::Error> {
    let row: Option<(i64, bool, Option<f64>, i64)> = sqlx::query_as(
        "SELECT parked, paused, seconds, registry FROM farwrite.next_due($1, $2, $3)",
    )
    .bind(takeover.stream_id)
    .bind(lane.cast_signed())
    .bind(takeover.lanes.len() as i32)
    .fetch_optional(connection)
    .await?;
    let (parked, paused, seconds, registry) = row.unwrap_or((0, false, None, 0));
    // Bounded, since a float may be anything; a lane looks again long before.
    let next = seconds.map(|seconds| Duration::from_secs_f64(seconds.clamp(0.0, 86_400.0)));
    Ok(Waiting { any: parked > 0 || paused, parked: parked.unsigned_abs(), next, registry })
}

type DueRow =
    (i64, String, i32, f64, String, sqlx::types::Json<Vec<(String, String)>>, Vec<u8>, i64);

/// The commands of a lane that are due, line by line.
pub(crate) async fn due(
    connection: &mut PgConnection,
    takeover: &Takeover,
    lane: u32,
    max_commands: usize,
) -> Result<Vec<(Delivery, Parked)>, sqlx::Error> {
    let rows: Vec<DueRow> = sqlx::query_as(
        "SELECT sequence, reason, attempts, lacks_seconds, subject, headers, body, published_at
         FROM farwrite.due_commands($1, $2, $3, $4, $5, $6)",
    )
    .bind(takeover.stream_id)
    .bind(lane.cast_signed())
    .bind(takeover.lanes.len() as i32)
    .bind(takeover.epoch.0)
    .bind(max_commands as i32)
    .bind(DUE_MAX_BYTES)
    .fetch_all(connection)
    .await?;
    let after_a_try = [ParkReason::Retry, ParkReason::NotReady, ParkReason::Later];
    let kept = |(sequence, reason, attempts, seconds, subject, headers, body, at_ns): DueRow| {
        let lacks_for = Duration::from_secs_f64(seconds.max(0.0));
        let tried = after_a_try.iter().any(|tried| tried.word() == reason);
        let parked = Parked { lacks_for, attempts: attempts.unsigned_abs(), tried };
        let delivery = Delivery::kept(subject, headers.0, body, sequence.unsigned_abs(), at_ns);
        (delivery, parked)
    };
    Ok(rows.into_iter().map(kept).collect())
}
