//! Becoming the one worker of a database.
//!
//! A takeover mints a random token, the epoch, and writes it into every lane's row. That is the
//! fence (invariant 2): each batch begins by updating its lane's row under the epoch and from the
//! position that it knows, and fails when either differs. Updating the rows also waits for batches
//! in flight, so that the positions that a takeover reads are final. A token and not a counter: a
//! failover rolls a counter back, and the number would be given twice.
//!
//! Every reconnection is a takeover of one's own. When another worker's database may be taken over
//! is the affair of `lease.rs`; what is written here is right whenever it happens.

use farwrite_internal::sabotage;
use farwrite_schemas::{Bookmark, DatabaseName, Epoch, Lsn, Timeline};
use sqlx::{Connection, PgConnection, PgTransaction};
use tracing::info;
use uuid::Uuid;

use crate::{
    config::Config,
    keep::hints::Hints,
    primary::{self, LANE_APPLICATION},
    stream::{
        StreamError,
        identity::{Anchor, Position},
        key::HASH_VERSION,
    },
};

use super::lease;

/// A takeover that was committed: the right to apply, until somebody else takes over.
#[derive(Clone, Debug)]
pub(crate) struct Takeover {
    /// The fence of every batch.
    pub(crate) epoch: Epoch,
    /// The primary's timeline; bookmarks carry it.
    pub(crate) timeline: Timeline,
    /// The database's row of the stream.
    pub(crate) stream_id: i32,
    /// Where each lane stands, by its number.
    pub(crate) lanes: Vec<LanePosition>,
    /// Whether the epoch before ended without a word: the first commands run alone.
    pub(crate) unclean: bool,
    /// How far commands had been applied, as the broker remembers it.
    pub(crate) hints: Hints,
    database: DatabaseName,
}

/// Where a lane stands.
#[derive(Clone, Debug)]
pub(crate) struct LanePosition {
    /// Every command of the lane up to here (inclusive) is settled.
    pub(crate) sequence: u64,
    /// The last message that it applied, if any.
    pub(crate) anchor: Option<Anchor>,
    /// Commands that ran alone after an unclean end and did not come back, by sequence.
    pub(crate) suspects: Vec<i64>,
}

/// Taking over did not succeed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TakeoverError {
    /// The database failed.
    #[error("taking over: {0}")]
    Sql(#[from] sqlx::Error),
    /// The stream is not registered.
    #[error(transparent)]
    Stream(#[from] StreamError),
    /// Another worker owns the database, and works.
    #[error("another worker owns this database")]
    Owned,
}

impl Takeover {
    /// A bookmark for a position of this epoch.
    pub(crate) fn bookmark(&self, lsn: Lsn) -> Bookmark {
        let database = self.database.clone();
        Bookmark { database, timeline: self.timeline, epoch: self.epoch, lsn }
    }

    /// How far the database has come in the stream.
    pub(crate) fn position(&self) -> Position {
        position(&self.lanes)
    }
}

/// How far lanes have come in all; for a stream without lanes that is nowhere.
fn position(lanes: &[LanePosition]) -> Position {
    let sequences = || lanes.iter().map(|lane| lane.sequence);
    Position {
        low_water: sequences().min().unwrap_or(0),
        high_water: sequences().max().unwrap_or(0),
        anchor: newest_anchor(lanes),
    }
}

fn newest_anchor(lanes: &[LanePosition]) -> Option<Anchor> {
    lanes.iter().filter_map(|lane| lane.anchor.clone()).max_by_key(|anchor| anchor.sequence)
}

/// Reads how far the database has come, without taking over.
pub(crate) async fn read_position(
    connection: &mut PgConnection,
    stream: &str,
) -> Result<Position, TakeoverError> {
    let row = stream_row(connection, stream).await?;
    let lanes = lane_rows(connection, row.stream_id, None).await?;
    Ok(if lanes.is_empty() {
        position(&[LanePosition::at(row.low_water)])
    } else {
        position(&lanes)
    })
}

/// Who takes over, and what it knows.
#[derive(Clone, Debug, Default)]
pub(crate) struct Claim {
    /// The epoch of this worker's last takeover: while the database holds it, it is its own.
    pub(crate) mine: Option<Epoch>,
    /// Whether it takes over from an owner that works, too.
    pub(crate) forced: bool,
    /// Lanes whose command ran when the world failed in a way that is nobody's doing.
    pub(crate) blameless: Vec<u32>,
}

/// Takes over, over the session that will stand for the owner.
pub(crate) async fn take_over(
    connection: &mut PgConnection,
    config: &Config,
    wanted: &Claim,
    hints: Hints,
) -> Result<Takeover, TakeoverError> {
    let epoch = Epoch(Uuid::new_v4());
    let mut tx = connection.begin().await?;
    let before = claim(&mut tx, config, epoch, wanted).await?;
    end_other_lanes(&mut tx, epoch).await?;
    let stream = stream_row(&mut tx, &config.stream).await?;
    let lanes = claim_lanes(&mut tx, &stream, config.lanes, epoch).await?;
    exonerate(&mut tx, stream.stream_id, &wanted.blameless).await?;
    prepare_parked(&mut tx).await?;
    let timeline = primary::timeline(&mut tx).await?;
    sqlx::query("SELECT farwrite.begin_epoch($1, $2, $3::pg_lsn, $4)")
        .bind(epoch.0)
        .bind(before.epoch.map(|epoch| epoch.0))
        .bind(before.flushed_lsn)
        .bind(timeline.0.cast_signed())
        .execute(&mut *tx)
        .await?;
    tx.commit().await?;
    let database = config.database.clone();
    let stream_id = stream.stream_id;
    let unclean = before.unclean;
    let takeover = Takeover { epoch, timeline, stream_id, lanes, unclean, hints, database };
    let position = takeover.position();
    info!(%epoch, timeline = timeline.0, low_water = position.low_water, high_water = position.high_water, "took over");
    Ok(takeover)
}

/// Takes an attempt back that was counted for commands which ran alone when the world failed in a
/// way that is nobody's doing.
async fn exonerate(
    tx: &mut PgTransaction<'_>,
    stream_id: i32,
    lanes: &[u32],
) -> Result<(), sqlx::Error> {
    let lanes: Vec<i32> = lanes.iter().map(|lane| lane.cast_signed()).collect();
    sqlx::query(
        "UPDATE farwrite.lanes SET suspects = trim_array(suspects, 1)
         WHERE stream_id = $1 AND lane = ANY ($2) AND suspects <> '{}'",
    )
    .bind(stream_id)
    .bind(lanes)
    .execute(&mut **tx)
    .await?;
    Ok(())
}

/// Counts what is parked for the lanes as they are now, and has commands that nobody knew looked
/// at again: this worker may know them.
async fn prepare_parked(tx: &mut PgTransaction<'_>) -> Result<(), sqlx::Error> {
    sqlx::query("SELECT farwrite.count_parked()").execute(&mut **tx).await?;
    sqlx::query(
        "UPDATE farwrite.key_queues l SET due_at = clock_timestamp() FROM farwrite.parked p
         WHERE p.stream_id = l.stream_id AND p.key_queue = l.key_queue AND p.reason = 'unknown_command'",
    )
    .execute(&mut **tx)
    .await?;
    Ok(())
}

/// Says that this epoch ended in good order: whoever takes over next need not be careful.
pub(crate) async fn release(
    connection: &mut PgConnection,
    epoch: Epoch,
) -> Result<(), sqlx::Error> {
    sqlx::query("UPDATE farwrite.owner SET released_at = clock_timestamp() WHERE epoch = $1")
        .bind(epoch.0)
        .execute(connection)
        .await?;
    Ok(())
}

/// Who owned the database before.
#[derive(Default)]
struct Before {
    epoch: Option<Epoch>,
    /// It ended without a word.
    unclean: bool,
    /// How far its last heartbeat had seen the log flushed.
    flushed_lsn: Option<String>,
}

/// Writes the owner's row; takeovers queue up here, and the second of two that found the database
/// free finds it owned. The former owner's session is ended: if it is alive, it learns of it at once.
async fn claim(
    tx: &mut PgTransaction<'_>,
    config: &Config,
    epoch: Epoch,
    wanted: &Claim,
) -> Result<Before, TakeoverError> {
    sqlx::query("LOCK TABLE farwrite.owner IN SHARE ROW EXCLUSIVE MODE").execute(&mut **tx).await?;
    let owner = lease::owner(tx).await?;
    let is_mine = wanted.mine.is_some() && wanted.mine == owner.epoch;
    if !owner.state.is_free() && !is_mine && !wanted.forced {
        return Err(TakeoverError::Owned);
    }
    let before: Option<(Uuid, bool, Option<String>)> =
        sqlx::query_as("SELECT epoch, released_at IS NULL, flushed_lsn::text FROM farwrite.owner")
            .fetch_optional(&mut **tx)
            .await?;
    let before = before.map_or_else(Before::default, |(epoch, unclean, flushed_lsn)| Before {
        epoch: Some(Epoch(epoch)),
        unclean,
        flushed_lsn,
    });
    let ends_sessions = !sabotage::leaves_out("fence");
    sqlx::query(
        "SELECT pg_terminate_backend(a.pid) FROM pg_stat_activity a JOIN farwrite.owner o
             ON a.pid = o.pid AND a.backend_start = o.session_began
         WHERE a.pid <> pg_backend_pid() AND a.usename = current_user AND $1",
    )
    .bind(ends_sessions)
    .execute(&mut **tx)
    .await?;
    sqlx::query(
        "INSERT INTO farwrite.owner (database_name, epoch, worker, taken_at, pid, session_began, lease)
         SELECT $1, $2, $3, now(), a.pid, a.backend_start, make_interval(secs => $4)
         FROM pg_stat_activity a WHERE a.pid = pg_backend_pid()
         ON CONFLICT (only_row) DO UPDATE SET database_name = excluded.database_name,
             epoch = excluded.epoch, worker = excluded.worker, taken_at = excluded.taken_at, released_at = NULL,
             flushed_lsn = NULL, pid = excluded.pid, session_began = excluded.session_began, lease = excluded.lease",
    )
    .bind(config.database.as_str())
    .bind(epoch.0)
    .bind(worker_name())
    .bind(config.lease.as_secs_f64())
    .execute(&mut **tx)
    .await?;
    Ok(before)
}

/// Ends the lane connections of former epochs, this worker's own broken ones too: a stopped
/// process keeps its session, and an open transaction in it keeps a lane's row locked. What they
/// were doing rolls back, and is done again from the position that stands.
async fn end_other_lanes(tx: &mut PgTransaction<'_>, epoch: Epoch) -> Result<(), sqlx::Error> {
    if sabotage::leaves_out("fence") {
        return Ok(());
    }
    let ended: i64 = sqlx::query_scalar(
        "SELECT count(*) FILTER (WHERE pg_terminate_backend(pid)) FROM pg_stat_activity
         WHERE datname = current_database() AND usename = current_user
           AND starts_with(application_name, $1) AND application_name <> $1 || $2",
    )
    .bind(LANE_APPLICATION)
    .bind(epoch.to_string())
    .fetch_one(&mut **tx)
    .await?;
    if ended > 0 {
        info!(ended, "ended the lane connections of a former epoch");
    }
    Ok(())
}

struct StreamRow {
    stream_id: i32,
    generation: i32,
    lanes: u32,
    hash_version: i32,
    low_water: u64,
}

async fn stream_row(connection: &mut PgConnection, name: &str) -> Result<StreamRow, TakeoverError> {
    let row: Option<(i32, i32, i32, i32, i64)> = sqlx::query_as(
        "SELECT stream_id, generation, lanes, hash_version, low_water
         FROM farwrite.streams WHERE name = $1",
    )
    .bind(name)
    .fetch_optional(connection)
    .await?;
    let (stream_id, generation, lanes, hash_version, low_water) =
        row.ok_or_else(|| StreamError::NotRegistered(name.to_owned()))?;
    let (lanes, low_water) = (lanes.unsigned_abs(), low_water.unsigned_abs());
    Ok(StreamRow { stream_id, generation, lanes, hash_version, low_water })
}

impl LanePosition {
    const fn at(sequence: u64) -> Self {
        Self { sequence, anchor: None, suspects: Vec::new() }
    }
}

/// Writes the epoch into every lane of the database, and brings the stream's lanes to the wanted
/// number: new rows begin at the lowest old position, where what is read again is known from the
/// ledger.
async fn claim_lanes(
    tx: &mut PgTransaction<'_>,
    stream: &StreamRow,
    wanted: u32,
    epoch: Epoch,
) -> Result<Vec<LanePosition>, TakeoverError> {
    sqlx::query("UPDATE farwrite.lanes SET epoch = $1").bind(epoch.0).execute(&mut **tx).await?;
    let old = lane_rows(tx, stream.stream_id, Some(stream.generation)).await?;
    if stream.lanes == wanted && stream.hash_version == HASH_VERSION && old.len() == wanted as usize
    {
        return Ok(old);
    }
    let low_water = if old.is_empty() { stream.low_water } else { position(&old).low_water };
    // The newest anchor must survive the change: lane 0 keeps it.
    let mut new = vec![LanePosition::at(low_water); wanted as usize];
    if let Some(first) = new.first_mut() {
        first.anchor = newest_anchor(&old);
    }
    replace_lanes(tx, stream, &new, epoch).await?;
    info!(lanes = wanted, from = low_water, "the number of lanes changed");
    Ok(new)
}

async fn replace_lanes(
    tx: &mut PgTransaction<'_>,
    stream: &StreamRow,
    lanes: &[LanePosition],
    epoch: Epoch,
) -> Result<(), sqlx::Error> {
    let generation = stream.generation + 1;
    sqlx::query("DELETE FROM farwrite.lanes WHERE stream_id = $1")
        .bind(stream.stream_id)
        .execute(&mut **tx)
        .await?;
    for (number, lane) in lanes.iter().enumerate() {
        let anchor = lane.anchor.as_ref();
        sqlx::query(
            "INSERT INTO farwrite.lanes (stream_id, lane, generation, epoch, sequence, anchor_sequence, anchor_at, anchor_id)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
        )
        .bind(stream.stream_id)
        .bind(number as i32)
        .bind(generation)
        .bind(epoch.0)
        .bind(lane.sequence.cast_signed())
        .bind(anchor.map_or(0, |anchor| anchor.sequence.cast_signed()))
        .bind(anchor.map(|anchor| anchor.at_ns))
        .bind(anchor.and_then(|anchor| anchor.id.as_deref()))
        .execute(&mut **tx)
        .await?;
    }
    sqlx::query("UPDATE farwrite.streams SET generation = $2, lanes = $3, hash_version = $4 WHERE stream_id = $1")
        .bind(stream.stream_id)
        .bind(generation)
        .bind(lanes.len() as i32)
        .bind(HASH_VERSION)
        .execute(&mut **tx)
        .await?;
    Ok(())
}

async fn lane_rows(
    connection: &mut PgConnection,
    stream_id: i32,
    generation: Option<i32>,
) -> Result<Vec<LanePosition>, sqlx::Error> {
    type Row = (i64, i64, Option<i64>, Option<String>, Vec<i64>);
    let rows: Vec<Row> = sqlx::query_as(
        "SELECT sequence, anchor_sequence, anchor_at, anchor_id, suspects FROM farwrite.lanes
         WHERE stream_id = $1 AND generation = coalesce($2, generation) ORDER BY lane",
    )
    .bind(stream_id)
    .bind(generation)
    .fetch_all(connection)
    .await?;
    let lane = |(sequence, anchor_sequence, anchor_at, id, suspects): Row| {
        let sequence_of_anchor = anchor_sequence.unsigned_abs();
        let anchor = anchor_at.map(|at_ns| Anchor { sequence: sequence_of_anchor, at_ns, id });
        LanePosition { sequence: sequence.unsigned_abs(), anchor, suspects }
    };
    Ok(rows.into_iter().map(lane).collect())
}

/// Host and process, for people who look at the owner's row.
fn worker_name() -> String {
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    format!("{host}:{}", std::process::id())
}
