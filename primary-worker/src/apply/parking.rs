//! What a staged batch parks, keeps parked and takes out, written in its transaction.

use sqlx::{PgConnection, types::Uuid};

use crate::stream::key::{key_queue, lane_hash};

use super::{
    failure::Failure,
    fence::Fence,
    item::BatchItem,
    work::{Park, ParkReason},
};

/// What a batch changes about what is parked, as parallel arrays.
#[derive(Default)]
pub(crate) struct Parking<'a> {
    new: NewlyParked<'a>,
    kept: StillParked,
    /// Sequences of parked commands that are settled.
    gone: Vec<i64>,
}

#[derive(Default)]
struct NewlyParked<'a> {
    sequences: Vec<i64>,
    ids: Vec<Uuid>,
    fingerprints: Vec<Uuid>,
    names: Vec<&'a str>,
    versions: Vec<i32>,
    keys: Vec<Option<&'a str>>,
    key_queues: Vec<String>,
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
struct StillParked {
    sequences: Vec<i64>,
    reasons: Vec<&'static str>,
    errors: Vec<Option<String>>,
    attempts: Vec<i32>,
    waits: Vec<Option<f64>>,
}

impl<'a> Parking<'a> {
    /// A command waits, or goes on waiting.
    pub(crate) fn park(&mut self, item: &'a BatchItem, park: &Park) {
        let error = park.error.as_ref().and_then(|error| serde_json::to_string(error).ok());
        let attempts = item.attempts.cast_signed();
        let wait = park.wait.map(|wait| wait.as_secs_f64());
        let sequence = item.delivery.sequence.cast_signed();
        if item.parked.is_some() {
            self.kept.sequences.push(sequence);
            self.kept.reasons.push(park.reason.as_str());
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
        new.key_queues.push(key_queue(envelope));
        new.lane_hashes.push(lane_hash(envelope));
        new.subjects.push(item.delivery.message.subject.as_str());
        new.headers.push(item.delivery.headers_json());
        new.bodies.push(item.delivery.body());
        new.at_ns.push(item.delivery.at_ns);
        new.reasons.push(park.reason.as_str());
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
    pub(crate) fn leave(&mut self, item: &BatchItem) {
        if item.parked.is_some() {
            self.gone.push(item.delivery.sequence.cast_signed());
        }
    }

    /// How many are parked afterwards, of so many before.
    pub(crate) fn remaining(&self, before: u64) -> u64 {
        (before + self.new.sequences.len() as u64).saturating_sub(self.gone.len() as u64)
    }

    /// Writes it all. Those that are gone come first: their key queues go on with what stood behind them.
    pub(crate) async fn write(&self, tx: &mut PgConnection, fence: &Fence) -> Result<(), Failure> {
        let stream_id = fence.stream_id;
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
            .bind(&new.key_queues)
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
