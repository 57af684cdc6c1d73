//! Where a database stands: its owner, how far it has come in its streams, and what waits.
//!
//! The position is the database's, the end of the stream is JetStream's. While NATS is away, or the
//! stream is not the one that the database knows, the rest is told all the same.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_nats::jetstream::{
    self,
    stream::{RawMessageErrorKind, Stream},
};
use serde::{Deserialize, Serialize};
use sqlx::{PgConnection, types::Json};

use crate::{
    life::{
        compare::compare,
        schema::{self, PROTOCOL},
    },
    stream::{client, error::StreamError, find, identity},
};

use super::{error::OperateError, filter::utc, operator::Operator, pauses::Pause};

/// How long NATS may take to answer.
const NATS_WITHIN: Duration = Duration::from_secs(5);

/// Where a database stands.
#[derive(Debug, Serialize)]
#[non_exhaustive]
pub struct DatabaseStatus {
    /// The schema's version, and this program's.
    pub schema: SchemaStatus,
    /// Whether a replica was asked, which may be behind.
    pub replica: bool,
    /// The worker that took over last; `None` before the first one.
    pub owner: Option<OwnerStatus>,
    /// Why the ends of the streams are not known.
    pub nats_error: Option<String>,
    /// The streams that the database knows, or the one that was asked for.
    pub streams: Vec<StreamStatus>,
    /// What is parked, by stream and reason.
    pub parked: Vec<WaitingCount>,
    /// The dead letters, by stream and reason.
    pub dead_letters: Vec<WaitingCount>,
    /// What is paused.
    pub pauses: Vec<Pause>,
}

/// The version of the schema `farwrite`, and what it asks of workers.
#[derive(Debug, Serialize)]
#[non_exhaustive]
pub struct SchemaStatus {
    /// The database's.
    pub version: i64,
    /// The one that this program brings.
    pub program_version: i64,
    /// The protocol that the database asks for.
    pub required_protocol: i32,
    /// The one that this program speaks.
    pub program_protocol: i32,
}

/// The worker that took over last.
#[derive(Debug, Serialize, Deserialize)]
#[non_exhaustive]
pub struct OwnerStatus {
    /// Farwrite's name of the database.
    pub database: String,
    /// Host and process of the worker.
    pub worker: String,
    /// Its epoch.
    pub epoch: String,
    /// When it took over.
    pub taken_at: String,
    /// How long ago.
    pub age_seconds: f64,
    /// When it stopped in good order; `None` while it works, and after it went without a word.
    pub released_at: Option<String>,
    /// Its lanes' connections; `None` where this role may not see them.
    pub lane_connections: Option<i64>,
}

/// How far the database has come in a stream.
#[derive(Debug, Serialize, Deserialize)]
#[non_exhaustive]
pub struct StreamStatus {
    #[serde(skip_serializing)]
    stream_id: i32,
    /// JetStream's name of it.
    pub stream: String,
    /// How many lanes apply it.
    pub lanes: i64,
    /// Everything up to here is settled or parked.
    pub low_water: i64,
    /// Something up to here is.
    pub high_water: i64,
    /// The stream's last sequence; `None` while NATS does not tell.
    #[serde(default)]
    pub last_sequence: Option<u64>,
    /// How many sequences the position is behind it.
    #[serde(default)]
    pub lag_commands: Option<u64>,
    /// The age of the first message behind the position; 0 when there is none.
    #[serde(default)]
    pub lag_seconds: Option<f64>,
    /// Bytes of the stream.
    #[serde(default)]
    pub bytes: Option<u64>,
    /// Bytes at which it refuses every write; 0 for no limit.
    #[serde(default)]
    pub max_bytes: Option<u64>,
    /// Messages below this sequence may be trimmed; `None` while nothing was.
    #[serde(default)]
    pub trim_floor: Option<i64>,
    /// What is wrong with the stream.
    #[serde(default)]
    pub problem: Option<String>,
}

/// How many wait for one reason.
#[derive(Debug, Serialize, Deserialize)]
#[non_exhaustive]
pub struct WaitingCount {
    /// The stream that they came from.
    pub stream: Option<String>,
    /// Why they wait.
    pub reason: String,
    /// How many.
    pub commands: i64,
    /// How long the oldest of them waits.
    pub oldest_age_seconds: f64,
}

impl Operator {
    /// Where the database stands in one stream, or in all.
    ///
    /// # Errors
    /// When the database knows no such stream, or fails. NATS being away is told in the answer.
    pub async fn status(
        &mut self,
        nats_url: &str,
        stream: Option<&str>,
    ) -> Result<DatabaseStatus, OperateError> {
        let replica = self.is_replica().await?;
        let pauses = self.pauses().await?;
        let connection = &mut self.connection;
        let mut streams = read_streams(connection, stream).await?;
        // The positions were read first: the streams' ends are not behind them.
        let nats_error = look_at_streams(connection, nats_url, &mut streams).await?;
        Ok(DatabaseStatus {
            schema: SchemaStatus {
                version: self.schema_version,
                program_version: schema::newest(),
                required_protocol: sqlx::query_scalar("SELECT farwrite.requires_protocol()")
                    .fetch_one(&mut *connection)
                    .await?,
                program_protocol: PROTOCOL,
            },
            replica,
            owner: read_owner(connection).await?,
            nats_error,
            parked: counts(connection, PARKED, &streams).await?,
            dead_letters: counts(connection, DEAD_LETTERS, &streams).await?,
            pauses,
            streams,
        })
    }
}

impl DatabaseStatus {
    /// Whether everything is known, and no stream has a problem.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.nats_error.is_none() && self.streams.iter().all(|stream| stream.problem.is_none())
    }
}

async fn read_owner(connection: &mut PgConnection) -> Result<Option<OwnerStatus>, sqlx::Error> {
    let row: Option<(Json<OwnerStatus>,)> = sqlx::query_as(concat!(
        "SELECT to_json(r) FROM (
             SELECT o.database_name AS database, o.worker, o.epoch, round(extract(epoch FROM clock_timestamp() - o.taken_at), 3) AS age_seconds, ",
        utc!("o.taken_at"), " AS taken_at, ", utc!("o.released_at"), " AS released_at,
             CASE WHEN NOT pg_is_in_recovery() THEN
                 (SELECT count(*) FROM pg_stat_activity a
                  WHERE a.datname = current_database() AND a.application_name = 'farwrite-lane-' || replace(o.epoch::text, '-', '')) END AS lane_connections
             FROM farwrite.owner o) r"
    ))
    .fetch_optional(connection)
    .await?;
    Ok(row.map(|(owner,)| owner.0))
}

async fn read_streams(
    connection: &mut PgConnection,
    stream: Option<&str>,
) -> Result<Vec<StreamStatus>, OperateError> {
    let rows: Vec<(Json<StreamStatus>,)> = sqlx::query_as(
        "SELECT to_json(r) FROM (
             SELECT s.stream_id, s.name AS stream, s.lanes, s.refused AS problem, s.trim_floor,
                 coalesce(min(l.sequence), s.low_water) AS low_water, greatest(max(l.sequence), s.low_water, s.high_water) AS high_water
             FROM farwrite.streams s LEFT JOIN farwrite.lanes l USING (stream_id)
             WHERE $1::text IS NULL OR s.name = $1 GROUP BY s.stream_id ORDER BY s.stream_id) r",
    )
    .bind(stream)
    .fetch_all(connection)
    .await?;
    match stream {
        Some(name) if rows.is_empty() => Err(OperateError::UnknownStream(name.to_owned())),
        _ => Ok(rows.into_iter().map(|(stream,)| stream.0).collect()),
    }
}

const PARKED: &str = "SELECT to_json(r) FROM (
    SELECT s.name AS stream, p.reason, count(*) AS commands,
        round(extract(epoch FROM clock_timestamp() - min(p.parked_at)), 3) AS oldest_age_seconds
    FROM farwrite.parked p LEFT JOIN farwrite.streams s USING (stream_id)
    WHERE p.stream_id = ANY ($1) GROUP BY 1, 2 ORDER BY 1, 2) r";

const DEAD_LETTERS: &str = "SELECT to_json(r) FROM (
    SELECT s.name AS stream, d.reason, count(*) AS commands,
        round(extract(epoch FROM clock_timestamp() - min(d.dead_lettered_at)), 3) AS oldest_age_seconds
    FROM farwrite.dead_letters d LEFT JOIN farwrite.streams s USING (stream_id)
    WHERE d.stream_id = ANY ($1) GROUP BY 1, 2 ORDER BY 1, 2) r";

async fn counts(
    connection: &mut PgConnection,
    sql: &'static str,
    streams: &[StreamStatus],
) -> Result<Vec<WaitingCount>, sqlx::Error> {
    let ids: Vec<i32> = streams.iter().map(|stream| stream.stream_id).collect();
    let rows: Vec<(Json<WaitingCount>,)> =
        sqlx::query_as(sql).bind(ids).fetch_all(connection).await?;
    Ok(rows.into_iter().map(|(count,)| count.0).collect())
}

/// Asks JetStream for the streams' ends. Answers why it could not be asked.
async fn look_at_streams(
    connection: &mut PgConnection,
    nats_url: &str,
    streams: &mut [StreamStatus],
) -> Result<Option<String>, OperateError> {
    let client = match tokio::time::timeout(NATS_WITHIN, client::connect(nats_url)).await {
        Ok(Ok(client)) => client,
        Ok(Err(error)) => return Ok(Some(error.to_string())),
        Err(_) => return Ok(Some(format!("NATS did not answer within {NATS_WITHIN:?}"))),
    };
    for status in streams {
        let looked = tokio::time::timeout(NATS_WITHIN, status.look(connection, &client)).await;
        match looked {
            Ok(Ok(())) => {}
            Ok(Err(StreamError::Sql(error))) => return Err(error.into()),
            Ok(Err(error)) => status.problem = Some(error.to_string()),
            Err(_) => {
                status.problem = Some(format!("JetStream did not answer within {NATS_WITHIN:?}"))
            }
        }
    }
    Ok(None)
}

impl StreamStatus {
    async fn look(
        &mut self,
        connection: &mut PgConnection,
        client: &async_nats::Client,
    ) -> Result<(), StreamError> {
        let Some(stream) = find::look_for(client, &self.stream).await? else {
            let (stream, reason) = (self.stream.clone(), "there is none of this name".to_owned());
            return Err(StreamError::JetStream { stream, reason });
        };
        let state = &stream.cached_info().state;
        identity::check_identity(connection, stream.cached_info()).await?;
        let low_water = self.low_water.unsigned_abs();
        self.last_sequence = Some(state.last_sequence);
        self.bytes = Some(state.bytes);
        self.max_bytes = Some(u64::try_from(stream.cached_info().config.max_bytes).unwrap_or(0));
        if state.last_sequence >= low_water {
            self.lag_commands = Some(state.last_sequence - low_water);
            self.lag_seconds = if state.last_sequence == low_water {
                Some(0.0)
            } else {
                oldest_age(&stream, low_water + 1).await?
            };
        }
        compare(connection, &jetstream::new(client.clone()), &stream).await.map(drop)
    }
}

/// The age of the first message from `sequence` on; what is missing is passed over. `None` where
/// the stream holds none.
async fn oldest_age(stream: &Stream, sequence: u64) -> Result<Option<f64>, StreamError> {
    let message = match stream.get_first_raw_message_by_subject(">", sequence).await {
        Ok(message) => message,
        Err(error) if error.kind() == RawMessageErrorKind::NoMessageFound => return Ok(None),
        Err(error) => {
            let stream = stream.cached_info().config.name.clone();
            return Err(StreamError::JetStream { stream, reason: error.to_string() });
        }
    };
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
    let at = message.time.unix_timestamp_nanos() as f64 / 1e9;
    Ok(Some(((now - at).max(0.0) * 1e3).round() / 1e3))
}
