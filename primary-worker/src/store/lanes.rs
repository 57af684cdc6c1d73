//! `farwrite.lanes`: where each lane stands, under which epoch, and which commands are suspects.

use farwrite_schemas::Epoch;
use sqlx::{PgConnection, types::Uuid};

use crate::{
    stream::position::{LanePosition, MessageProof, StreamPosition},
    verdict::Blame,
};

/// A lane's row, under the epoch that may write it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LaneKey {
    pub(crate) stream_id: i32,
    pub(crate) lane: u32,
    pub(crate) epoch: Epoch,
}

/// Position, time and id of the message there, then suspects.
type LaneRow = (i64, Option<i64>, Option<Uuid>, Vec<i64>);

/// A position as a row has it: sequence, and time and id of the message there.
pub(super) fn position(sequence: i64, at_ns: Option<i64>, id: Option<Uuid>) -> StreamPosition {
    let message = at_ns.map(|at_ns| MessageProof { at_ns, id });
    StreamPosition { sequence: sequence.unsigned_abs(), message }
}

/// The positions of a stream's lanes, of one generation or of all, by number.
pub(crate) async fn positions(
    connection: &mut PgConnection,
    stream_id: i32,
    generation: Option<i32>,
) -> Result<Vec<LanePosition>, sqlx::Error> {
    let rows: Vec<LaneRow> = sqlx::query_as(
        "SELECT sequence, sequence_at, sequence_id, suspects FROM farwrite.lanes
         WHERE stream_id = $1 AND generation = coalesce($2, generation) ORDER BY lane",
    )
    .bind(stream_id)
    .bind(generation)
    .fetch_all(connection)
    .await?;
    let lanes = rows.into_iter().map(|(sequence, at_ns, id, suspects)| LanePosition {
        position: position(sequence, at_ns, id),
        suspects,
    });
    Ok(lanes.collect())
}

/// Writes the epoch into every lane of the database, and so waits for the batches in flight.
pub(crate) async fn claim_all(
    connection: &mut PgConnection,
    epoch: Epoch,
) -> Result<(), sqlx::Error> {
    sqlx::query("UPDATE farwrite.lanes SET epoch = $1")
        .bind(epoch.0)
        .execute(connection)
        .await
        .map(drop)
}

/// Puts new lanes in the place of a stream's.
pub(crate) async fn replace(
    connection: &mut PgConnection,
    stream_id: i32,
    generation: i32,
    lanes: &[LanePosition],
    epoch: Epoch,
) -> Result<(), sqlx::Error> {
    sqlx::query("DELETE FROM farwrite.lanes WHERE stream_id = $1")
        .bind(stream_id)
        .execute(&mut *connection)
        .await?;
    for (number, lane) in lanes.iter().enumerate() {
        let StreamPosition { sequence, message } = lane.position;
        sqlx::query(
            "INSERT INTO farwrite.lanes (stream_id, lane, generation, epoch, sequence, sequence_at, sequence_id)
             VALUES ($1, $2, $3, $4, $5, $6, $7)",
        )
        .bind(stream_id)
        .bind(number as i32)
        .bind(generation)
        .bind(epoch.0)
        .bind(sequence.cast_signed())
        .bind(message.map(|message| message.at_ns))
        .bind(message.and_then(|message| message.id))
        .execute(&mut *connection)
        .await?;
    }
    Ok(())
}

/// Writes a lane's row as it is. False where the lane is another epoch's, or stands elsewhere.
pub(crate) async fn touch(
    connection: &mut PgConnection,
    lane: LaneKey,
    sequence: u64,
) -> Result<bool, sqlx::Error> {
    let touched = sqlx::query(
        "UPDATE farwrite.lanes SET epoch = epoch
         WHERE stream_id = $1 AND lane = $2 AND epoch = $3 AND sequence = $4",
    )
    .bind(lane.stream_id)
    .bind(lane.lane.cast_signed())
    .bind(lane.epoch.0)
    .bind(sequence.cast_signed())
    .execute(connection)
    .await?;
    Ok(touched.rows_affected() == 1)
}

/// Counts that a command is about to run alone, in the worker itself or in the database, in halves of a run,
/// and remembers at most so many halves. Answers how many were counted before; `None` when the lane is another epoch's.
pub(crate) async fn count_suspect(
    connection: &mut PgConnection,
    lane: LaneKey,
    sequence: i64,
    in_worker: bool,
    remembered_max: i32,
) -> Result<Option<i32>, sqlx::Error> {
    sqlx::query_scalar(
        "UPDATE farwrite.lanes
         SET suspects = (suspects || ARRAY[$4, $4]::bigint[])[greatest(1, cardinality(suspects) + 3 - $5):],
             suspect_in_worker = $6
         WHERE stream_id = $1 AND lane = $2 AND epoch = $3
         RETURNING cardinality(array_positions(suspects, $4)) - 2",
    )
    .bind(lane.stream_id)
    .bind(lane.lane.cast_signed())
    .bind(lane.epoch.0)
    .bind(sequence)
    .bind(remembered_max)
    .bind(in_worker)
    .fetch_optional(connection)
    .await
}

/// Forgets a suspect: it took nothing down.
pub(crate) async fn acquit_suspect(
    connection: &mut PgConnection,
    lane: LaneKey,
    sequence: i64,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "UPDATE farwrite.lanes SET suspects = array_remove(suspects, $4)
         WHERE stream_id = $1 AND lane = $2 AND epoch = $3",
    )
    .bind(lane.stream_id)
    .bind(lane.lane.cast_signed())
    .bind(lane.epoch.0)
    .bind(sequence)
    .execute(connection)
    .await
    .map(drop)
}

/// Takes the last run back of the suspects of these lanes, or of all, but for what it is to blame.
pub(crate) async fn exonerate(
    connection: &mut PgConnection,
    stream_id: i32,
    lanes: Option<&[u32]>,
    blame: Blame,
) -> Result<(), sqlx::Error> {
    let lanes: Option<Vec<i32>> =
        lanes.map(|lanes| lanes.iter().map(|lane| lane.cast_signed()).collect());
    let halves = match blame {
        Blame::None => 2,
        Blame::Half => 1,
        Blame::Full => return Ok(()),
    };
    sqlx::query(
        "UPDATE farwrite.lanes SET suspects = trim_array(suspects, least($3, cardinality(suspects)))
         WHERE stream_id = $1 AND ($2::integer[] IS NULL OR lane = ANY ($2)) AND suspects <> '{}'",
    )
    .bind(stream_id)
    .bind(lanes)
    .bind(halves)
    .execute(connection)
    .await
    .map(drop)
}

/// Takes the last run back of all suspects that ran in the database: the worker fell, and not the server.
pub(crate) async fn exonerate_functions(
    connection: &mut PgConnection,
    stream_id: i32,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "UPDATE farwrite.lanes SET suspects = trim_array(suspects, least(2, cardinality(suspects)))
         WHERE stream_id = $1 AND NOT suspect_in_worker AND suspects <> '{}'",
    )
    .bind(stream_id)
    .execute(connection)
    .await
    .map(drop)
}

/// The lowest sequence that a stream's lanes have come to; 0 without lanes.
pub(crate) async fn low_water(
    connection: &mut PgConnection,
    stream_id: i32,
) -> Result<u64, sqlx::Error> {
    let low_water: i64 = sqlx::query_scalar(
        "SELECT coalesce(min(sequence), 0) FROM farwrite.lanes WHERE stream_id = $1",
    )
    .bind(stream_id)
    .fetch_one(connection)
    .await?;
    Ok(low_water.unsigned_abs())
}

/// How far a stream's lanes have come, at a time of the primary's clock.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LanesReached {
    /// Everything up to here (inclusive) is settled or parked.
    pub(crate) low_water: u64,
    /// The highest position that names its message, which proves what lies below; 0 before anything was
    /// passed.
    pub(crate) proven: u64,
    pub(crate) now_ns: i64,
}

/// How far a stream's lanes have come; `None` without lanes.
pub(crate) async fn reached(
    connection: &mut PgConnection,
    stream_id: i32,
) -> Result<Option<LanesReached>, sqlx::Error> {
    let row: Option<(i64, i64, i64)> = sqlx::query_as(
        "SELECT min(l.sequence), greatest(max(l.sequence) FILTER (WHERE l.sequence_at IS NOT NULL), max(s.high_water), 0),
                (extract(epoch FROM clock_timestamp()) * 1e9)::bigint
         FROM farwrite.lanes l JOIN farwrite.streams s USING (stream_id) WHERE stream_id = $1 HAVING count(*) > 0",
    )
    .bind(stream_id)
    .fetch_optional(connection)
    .await?;
    Ok(row.map(|(low_water, proven, now_ns)| LanesReached {
        low_water: low_water.unsigned_abs(),
        proven: proven.unsigned_abs(),
        now_ns,
    }))
}

/// What is settled of a stream, at a time of the primary's clock.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LanesSettled {
    /// Everything up to here (inclusive) is settled or parked.
    pub(crate) passed: u64,
    /// The same, before the first parked command that has an expiry.
    pub(crate) settled: u64,
    pub(crate) now_ns: i64,
}

/// What is settled of a stream; `None` without lanes.
pub(crate) async fn settled(
    connection: &mut PgConnection,
    stream_id: i32,
) -> Result<Option<LanesSettled>, sqlx::Error> {
    let row: Option<(i64, i64, i64)> = sqlx::query_as(
        "SELECT min(l.sequence), least(min(l.sequence), (SELECT min(p.sequence) - 1 FROM farwrite.parked p
                                        WHERE p.stream_id = $1 AND p.headers::text ILIKE '%farwrite-expires-at%')),
                (extract(epoch FROM clock_timestamp()) * 1e9)::bigint
         FROM farwrite.lanes l WHERE l.stream_id = $1 HAVING count(*) > 0",
    )
    .bind(stream_id)
    .fetch_optional(connection)
    .await?;
    Ok(row.map(|(passed, settled, now_ns)| LanesSettled {
        passed: passed.unsigned_abs(),
        settled: settled.unsigned_abs(),
        now_ns,
    }))
}
