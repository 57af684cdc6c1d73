//! Where a database stands: its owner, how far it has come in its streams, and what waits.
//!
//! The position is the database's, the end of the stream is JetStream's. While NATS is away, or the
//! stream is not the one that the database knows, the rest is told all the same.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_nats::jetstream::stream::{RawMessageErrorKind, Stream};
use serde::{Deserialize, Serialize};
use sqlx::{PgConnection, types::Json};

use crate::{
    life::schema::{self, PROTOCOL},
    stream::{client, error::StreamError, find, identity},
};

use super::{
    End, OperateError,
    filter::utc,
    is_replica,
    pauses::{self, Pause},
    print::{Printer, age, plain},
};

/// How long NATS may take to answer.
const NATS_WITHIN: Duration = Duration::from_secs(5);

#[derive(Debug, Serialize)]
struct Status {
    schema: Schema,
    /// Whether a replica was asked, which may be behind.
    replica: bool,
    owner: Option<Owner>,
    /// Why the ends of the streams are not known.
    nats_error: Option<String>,
    streams: Vec<StreamStatus>,
    parked: Vec<Count>,
    dead_letters: Vec<Count>,
    pauses: Vec<Pause>,
}

#[derive(Debug, Serialize)]
struct Schema {
    version: i64,
    program_version: i64,
    required_protocol: i32,
    program_protocol: i32,
}

/// The worker that took over last.
#[derive(Debug, Serialize, Deserialize)]
struct Owner {
    database: String,
    worker: String,
    epoch: String,
    taken_at: String,
    age_seconds: f64,
    /// When it stopped in good order; null while it works, and after it went without a word.
    released_at: Option<String>,
    /// Its lanes' connections; null where this role may not see them.
    lane_connections: Option<i64>,
}

#[derive(Debug, Serialize, Deserialize)]
struct StreamStatus {
    #[serde(skip_serializing)]
    stream_id: i32,
    stream: String,
    lanes: i64,
    /// Everything up to here is settled or parked.
    low_water: i64,
    /// Something up to here is.
    high_water: i64,
    /// The stream's last sequence; null while NATS does not tell.
    #[serde(default)]
    last_sequence: Option<u64>,
    #[serde(default)]
    lag_commands: Option<u64>,
    #[serde(default)]
    lag_seconds: Option<f64>,
    /// What is wrong with the stream.
    #[serde(default)]
    problem: Option<String>,
}

/// How many wait for one reason.
#[derive(Debug, Serialize, Deserialize)]
struct Count {
    stream: Option<String>,
    reason: String,
    commands: i64,
    oldest_age_seconds: f64,
}

pub(super) async fn status(
    connection: &mut PgConnection,
    version: i64,
    nats_url: &str,
    stream: Option<&str>,
    printer: &mut Printer,
) -> Result<End, OperateError> {
    let mut streams = read_streams(connection, stream).await?;
    // The positions were read first: the streams' ends are not behind them.
    let nats_error = look_at_streams(connection, nats_url, &mut streams).await?;
    let status = Status {
        schema: Schema {
            version,
            program_version: schema::newest(),
            required_protocol: sqlx::query_scalar("SELECT farwrite.requires_protocol()")
                .fetch_one(&mut *connection)
                .await?,
            program_protocol: PROTOCOL,
        },
        replica: is_replica(connection).await?,
        owner: read_owner(connection).await?,
        nats_error,
        parked: counts(connection, PARKED, &streams).await?,
        dead_letters: counts(connection, DEAD_LETTERS, &streams).await?,
        pauses: pauses::read(connection).await?,
        streams,
    };
    let is_whole =
        status.nats_error.is_none() && status.streams.iter().all(|stream| stream.problem.is_none());
    printer.say(&status, &status.in_full())?;
    Ok(if is_whole { End::Done } else { End::Partly })
}

async fn read_owner(connection: &mut PgConnection) -> Result<Option<Owner>, sqlx::Error> {
    let row: Option<(Json<Owner>,)> = sqlx::query_as(concat!(
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
             SELECT s.stream_id, s.name AS stream, s.lanes,
                 coalesce(min(l.sequence), s.low_water) AS low_water, coalesce(max(l.sequence), s.low_water) AS high_water
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
) -> Result<Vec<Count>, sqlx::Error> {
    let ids: Vec<i32> = streams.iter().map(|stream| stream.stream_id).collect();
    let rows: Vec<(Json<Count>,)> = sqlx::query_as(sql).bind(ids).fetch_all(connection).await?;
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
        let info = stream.cached_info();
        identity::check_identity(connection, info).await?;
        let last = info.state.last_sequence;
        let first = if info.state.messages == 0 { last + 1 } else { info.state.first_sequence };
        let low_water = self.low_water.unsigned_abs();
        self.last_sequence = Some(last);
        self.lag_commands = Some(last.saturating_sub(low_water));
        if last <= low_water {
            self.lag_seconds = Some(0.0);
        } else {
            self.lag_seconds = oldest_age(&stream, low_water + 1).await?;
        }
        if last < low_water {
            self.problem = Some(format!(
                "it ends at sequence {last}, and commands up to {low_water} are settled: its tail is lost"
            ));
        } else if first > low_water + 1 {
            self.problem = Some(format!(
                "it begins at sequence {first}, and commands from {} on are not settled: they are gone from it",
                low_water + 1
            ));
        }
        Ok(())
    }

    fn in_full(&self) -> String {
        let Self { stream, lanes, low_water, high_water, .. } = self;
        let mut text = format!("stream        {stream}\n");
        text.push_str(&format!(
            "  position    {low_water} (the furthest of {lanes} lanes: {high_water})\n"
        ));
        if let Some(last) = self.last_sequence {
            text.push_str(&format!("  last        {last}\n"));
        }
        if let Some(lag) = self.lag_commands {
            let old = self.lag_seconds.map_or_else(
                || "none of them is in the stream any more".to_owned(),
                |seconds| format!("the oldest {} old", age(seconds)),
            );
            let old = if lag == 0 { String::new() } else { format!(", {old}") };
            text.push_str(&format!("  lag         {lag} commands{old}\n"));
        }
        if let Some(problem) = &self.problem {
            text.push_str(&format!("  PROBLEM     {}\n", plain(problem)));
        }
        text
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

impl Status {
    fn in_full(&self) -> String {
        let Schema { version, program_version, required_protocol, program_protocol } = &self.schema;
        let mut text = format!(
            "schema        version {version} (this program's: {program_version}), for workers of protocol {required_protocol} (this program's: {program_protocol})\n"
        );
        if self.replica {
            text.push_str("server        a replica: it may be behind the primary\n");
        }
        text.push_str(&match &self.owner {
            Some(owner) => owner.in_full(),
            None => "owner         none yet\n".to_owned(),
        });
        if let Some(error) = &self.nats_error {
            text.push_str(&format!("NATS          PROBLEM: {}\n", plain(error)));
        }
        text.extend(self.streams.iter().map(StreamStatus::in_full));
        text.push_str(&section("parked", &self.parked));
        text.push_str(&section("dead letters", &self.dead_letters));
        if self.pauses.is_empty() {
            text.push_str("paused        nothing\n");
        }
        for pause in &self.pauses {
            text.push_str(&format!("paused        {}: {}\n", pause.target(), pause.why()));
        }
        text
    }
}

fn section(name: &str, counts: &[Count]) -> String {
    if counts.is_empty() {
        return format!("{name:<14}none\n");
    }
    let line = |count: &Count| {
        let Count { reason, commands, oldest_age_seconds, .. } = count;
        format!(
            "{name:<14}{commands} {}, the oldest for {}\n",
            plain(reason),
            age(*oldest_age_seconds)
        )
    };
    counts.iter().map(line).collect()
}

impl Owner {
    fn in_full(&self) -> String {
        let state = match (&self.released_at, self.lane_connections) {
            (Some(at), _) => format!("stopped in good order at {at}"),
            (None, Some(0)) => {
                "it has no connections: it is starting again, or gone without a word".to_owned()
            }
            (None, Some(lanes)) => format!("{lanes} lanes are connected"),
            (None, None) => "not stopped".to_owned(),
        };
        format!(
            "owner         {}, of the database {}, since {} ({})\n              {state}\n",
            plain(&self.worker),
            self.database,
            self.taken_at,
            age(self.age_seconds)
        )
    }
}
