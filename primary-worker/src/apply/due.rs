//! What of a lane waits in PostgreSQL, and reading the commands that are due.

use std::time::Duration;

use sqlx::PgConnection;

use crate::{life::takeover::Takeover, stream::delivery::Delivery};

use super::{item::ParkedBefore, work::ParkReason};

/// What a lane must know about what waits.
pub(crate) struct LaneWaits {
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
) -> Result<LaneWaits, sqlx::Error> {
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
    Ok(LaneWaits { any: parked > 0 || paused, parked: parked.unsigned_abs(), next, registry })
}

type DueRow =
    (i64, String, i32, f64, String, sqlx::types::Json<Vec<(String, String)>>, Vec<u8>, i64);

/// The commands of a lane that are due, one key queue after the other.
pub(crate) async fn due(
    connection: &mut PgConnection,
    takeover: &Takeover,
    lane: u32,
    max_commands: usize,
    max_bytes: usize,
) -> Result<Vec<(Delivery, ParkedBefore)>, sqlx::Error> {
    let rows: Vec<DueRow> = sqlx::query_as(
        "SELECT sequence, reason, attempts, lacks_seconds, subject, headers, body, published_at
         FROM farwrite.due_commands($1, $2, $3, $4, $5, $6)",
    )
    .bind(takeover.stream_id)
    .bind(lane.cast_signed())
    .bind(takeover.lanes.len() as i32)
    .bind(takeover.epoch.0)
    .bind(max_commands as i32)
    .bind(max_bytes as i64)
    .fetch_all(connection)
    .await?;
    let after_a_try = [ParkReason::Retry, ParkReason::NotReady, ParkReason::Later];
    let kept = |(sequence, reason, attempts, seconds, subject, headers, body, at_ns): DueRow| {
        let lacks_for = Duration::from_secs_f64(seconds.max(0.0));
        let tried = after_a_try.iter().any(|tried| tried.as_str() == reason);
        let parked = ParkedBefore { lacks_for, attempts: attempts.unsigned_abs(), tried };
        let delivery = Delivery::kept(subject, headers.0, body, sequence.unsigned_abs(), at_ns);
        (delivery, parked)
    };
    Ok(rows.into_iter().map(kept).collect())
}
