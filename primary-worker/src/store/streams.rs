//! `farwrite.streams`: the streams that the database knows, and how far it has come in them.

use farwrite_schemas::Epoch;
use sqlx::{PgConnection, types::Uuid};

use crate::stream::position::{MessageProof, StreamPosition};

use super::lanes;

/// A stream's row.
#[derive(Clone, Debug)]
pub(crate) struct StreamRow {
    pub(crate) stream_id: i32,
    /// Raised whenever the lanes change.
    pub(crate) generation: i32,
    pub(crate) lanes: u32,
    pub(crate) hash_version: i32,
    pub(crate) low_water: u64,
    /// The highest position of the lanes that there were before their number changed.
    pub(crate) highest: StreamPosition,
}

/// Id, generation, lanes, hash version and low-water mark; then the highest position.
type Row = (i32, i32, i32, i32, i64, i64, Option<i64>, Option<Uuid>);

/// A stream by its name.
pub(crate) async fn by_name(
    connection: &mut PgConnection,
    name: &str,
) -> Result<Option<StreamRow>, sqlx::Error> {
    let row: Option<Row> = sqlx::query_as(
        "SELECT stream_id, generation, lanes, hash_version, low_water, high_water, high_water_at, high_water_id
         FROM farwrite.streams WHERE name = $1",
    )
    .bind(name)
    .fetch_optional(connection)
    .await?;
    Ok(row.map(|(stream_id, generation, lanes, hash_version, low_water, high, at_ns, id)| {
        let (lanes, low_water) = (lanes.unsigned_abs(), low_water.unsigned_abs());
        let highest = lanes::position(high, at_ns, id);
        StreamRow { stream_id, generation, lanes, hash_version, low_water, highest }
    }))
}

/// When a stream was created and its identity, as they were registered.
pub(crate) async fn identity(
    connection: &mut PgConnection,
    name: &str,
) -> Result<Option<(String, Uuid)>, sqlx::Error> {
    sqlx::query_as("SELECT created, identity FROM farwrite.streams WHERE name = $1")
        .bind(name)
        .fetch_optional(connection)
        .await
}

/// When and why a stream was refused; `None` for one that is not, or that an operator adopted since.
pub(crate) async fn refusal(
    connection: &mut PgConnection,
    name: &str,
) -> Result<Option<(String, String)>, sqlx::Error> {
    sqlx::query_as(
        "SELECT to_char(refused_at AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS \"UTC\"'), refused
         FROM farwrite.streams WHERE name = $1 AND refused IS NOT NULL",
    )
    .bind(name)
    .fetch_optional(connection)
    .await
}

/// Writes down why a stream is refused, unless it is already: what was found first stays.
pub(crate) async fn refuse(
    connection: &mut PgConnection,
    name: &str,
    reason: &str,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "UPDATE farwrite.streams SET refused = $2, refused_at = now() WHERE name = $1 AND refused IS NULL",
    )
    .bind(name)
    .bind(reason)
    .execute(connection)
    .await
    .map(drop)
}

/// Registers a stream that is not registered yet.
pub(crate) async fn register(
    connection: &mut PgConnection,
    name: &str,
    created: &str,
    identity: Uuid,
    low_water: u64,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "INSERT INTO farwrite.streams (name, created, identity, low_water)
         VALUES ($1, $2, $3, $4) ON CONFLICT (name) DO NOTHING",
    )
    .bind(name)
    .bind(created)
    .bind(identity)
    .bind(low_water.cast_signed())
    .execute(connection)
    .await
    .map(drop)
}

/// Notes that a stream's lanes are new ones, and how far those before them had come.
pub(crate) async fn set_lanes(
    connection: &mut PgConnection,
    stream_id: i32,
    generation: i32,
    lanes: usize,
    hash_version: i32,
    highest: StreamPosition,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "UPDATE farwrite.streams SET generation = $2, lanes = $3, hash_version = $4,
             high_water = $5, high_water_at = $6, high_water_id = $7
         WHERE stream_id = $1",
    )
    .bind(stream_id)
    .bind(generation)
    .bind(lanes as i32)
    .bind(hash_version)
    .bind(highest.sequence.cast_signed())
    .bind(highest.message.map(|message| message.at_ns))
    .bind(highest.message.and_then(|message| message.id))
    .execute(connection)
    .await
    .map(drop)
}

/// A stream's lowest and highest position: of its lanes, or its low-water mark without lanes.
pub(crate) async fn positions(
    connection: &mut PgConnection,
    name: &str,
) -> Result<Option<(i32, u64, u64)>, sqlx::Error> {
    let row: Option<(i32, i64, i64)> = sqlx::query_as(
        "SELECT s.stream_id, coalesce(min(l.sequence), s.low_water), greatest(max(l.sequence), s.low_water, s.high_water)
         FROM farwrite.streams s LEFT JOIN farwrite.lanes l USING (stream_id)
         WHERE s.name = $1 GROUP BY s.stream_id",
    )
    .bind(name)
    .fetch_optional(connection)
    .await?;
    Ok(row.map(|(stream_id, low, high)| (stream_id, low.unsigned_abs(), high.unsigned_abs())))
}

/// Has the database go on from a sequence with a stream that has another identity now; `before` is
/// the message before that sequence, where the stream holds one. Answers how many parked commands and
/// dead letters got another number.
pub(crate) async fn adopt(
    connection: &mut PgConnection,
    stream_id: i32,
    from: u64,
    before: Option<MessageProof>,
    (created, identity): (String, Uuid),
    reason: &str,
) -> Result<u64, sqlx::Error> {
    let renumbered: i64 =
        sqlx::query_scalar("SELECT farwrite.adopt_stream($1, $2, $3, $4, $5, $6, $7)")
            .bind(stream_id)
            .bind(from.cast_signed())
            .bind(before.map(|message| message.at_ns))
            .bind(before.and_then(|message| message.id))
            .bind(created)
            .bind(identity)
            .bind(reason)
            .fetch_one(connection)
            .await?;
    Ok(renumbered.unsigned_abs())
}

/// Notes the time of a stream's oldest message, where nothing was ever applied from it.
pub(crate) async fn begin_low_water(
    connection: &mut PgConnection,
    stream_id: i32,
    oldest_unix_s: Option<f64>,
) -> Result<(), sqlx::Error> {
    sqlx::query("UPDATE farwrite.streams SET low_water_at = to_timestamp($2) WHERE stream_id = $1 AND low_water_at IS NULL")
        .bind(stream_id)
        .bind(oldest_unix_s)
        .execute(connection)
        .await
        .map(drop)
}

/// The lowest position of a stream's lanes, and the time of the message there: everything that is
/// not settled is younger. Writes nothing when nothing moved, so that an idle database stays idle.
pub(crate) async fn write_low_water(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    sqlx::query(
        "UPDATE farwrite.streams s
         SET low_water = l.sequence, low_water_at = coalesce(to_timestamp(l.sequence_at / 1e9), s.low_water_at)
         FROM (SELECT DISTINCT ON (stream_id) stream_id, sequence, sequence_at
               FROM farwrite.lanes ORDER BY stream_id, sequence) l
         WHERE l.stream_id = s.stream_id AND s.low_water < l.sequence",
    )
    .execute(connection)
    .await
    .map(drop)
}

/// Whether the primary has a standby, or ever had one: what is seen is written down. A standby that has a slot is
/// one while it is away; copies that backups stream count, since nothing tells them from a standby.
pub(crate) async fn had_standby(
    connection: &mut PgConnection,
    stream_id: i32,
) -> Result<bool, sqlx::Error> {
    let (had, has): (bool, bool) = sqlx::query_as(
        "SELECT s.had_standby,
                EXISTS (SELECT FROM pg_replication_slots WHERE slot_type = 'physical')
                OR EXISTS (SELECT FROM pg_stat_replication r LEFT JOIN pg_replication_slots l ON l.active_pid = r.pid
                           WHERE r.state IS DISTINCT FROM 'backup' AND l.slot_type IS DISTINCT FROM 'logical')
         FROM farwrite.streams s WHERE s.stream_id = $1",
    )
    .bind(stream_id)
    .fetch_one(&mut *connection)
    .await?;
    if has && !had {
        sqlx::query("UPDATE farwrite.streams SET had_standby = true WHERE stream_id = $1")
            .bind(stream_id)
            .execute(connection)
            .await?;
    }
    Ok(had || has)
}

/// Writes down how far a stream is trimmed, before anything is dropped; false when the epoch is
/// over.
pub(crate) async fn raise_trim_floor(
    connection: &mut PgConnection,
    stream_id: i32,
    floor: u64,
    epoch: Epoch,
) -> Result<bool, sqlx::Error> {
    let raised = sqlx::query(
        "UPDATE farwrite.streams s SET trim_floor = greatest(s.trim_floor, $2) FROM farwrite.owner o
         WHERE s.stream_id = $1 AND o.epoch = $3",
    )
    .bind(stream_id)
    .bind(floor.cast_signed())
    .bind(epoch.0)
    .execute(connection)
    .await?;
    Ok(raised.rows_affected() == 1)
}
