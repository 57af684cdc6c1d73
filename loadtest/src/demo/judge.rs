//! The judge: loads what the file says and what the broker holds, and has SQL compare them with
//! what the worker made of it (`demo/judge.sql`).

use std::{fmt::Write, time::Duration};

use anyhow::{Context, Result};
use async_nats::jetstream::{self, consumer::pull::OrderedConfig};
use farwrite_producer::CommandId;
use farwrite_schemas::headers;
use futures_util::StreamExt;
use serde::Serialize;
use sqlx::{AssertSqlSafe, PgConnection};

use super::{
    file::FlightsFile,
    plan::DemoPlan,
    text::{counted, grouped},
};

/// Rows that are sent in one piece of a COPY.
const CHUNK: usize = 10_000;
/// How long the broker may take for its next message.
const NEXT_WITHIN: Duration = Duration::from_secs(30);
/// Faults of one verdict that are shown.
const SHOWN: i64 = 5;

/// A claim, and whether it holds.
#[derive(Debug, Serialize)]
pub(super) struct DemoVerdict {
    pub(super) claim: &'static str,
    pub(super) holds: bool,
    /// What was looked at, or what is wrong.
    pub(super) found: String,
    /// The first faults.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) faults: Vec<String>,
}

/// What the broker holds.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct StreamCount {
    pub(super) messages: u64,
    pub(super) distinct_ids: u64,
}

/// The claims that SQL judges, and the view that lists the faults of each.
const CLAIMS: [(&str, &str); 4] = [
    ("every row applied once", "not_applied_once"),
    ("miles and legs per aircraft as in the file", "wrong_miles_or_legs"),
    ("order kept per aircraft and origin", "out_of_order"),
    ("each aircraft where the stream's order left it", "elsewhere"),
];

/// Loads the file and the stream beside the app's tables; call it when everything is settled.
pub(super) async fn load(
    connection: &mut PgConnection,
    client: &async_nats::Client,
    stream: &str,
    file: &FlightsFile,
    plan: &DemoPlan,
    ids: &[CommandId],
) -> Result<StreamCount> {
    sqlx::raw_sql(include_str!("../../demo/judge.sql")).execute(&mut *connection).await?;
    load_file(connection, file, plan, ids).await.context("loading the file for the judge")?;
    load_stream(connection, client, stream).await.context("reading the stream for the judge")?;
    // The tables were filled a moment ago: without statistics the comparisons are planned badly.
    sqlx::raw_sql(
        "INSERT INTO judge.accepted SELECT command_id, min(sequence) FROM judge.stream GROUP BY command_id;
         ANALYZE",
    )
    .execute(&mut *connection)
    .await?;
    let (messages, distinct_ids): (i64, i64) = sqlx::query_as(
        "SELECT (SELECT count(*) FROM judge.stream), (SELECT count(*) FROM judge.accepted)",
    )
    .fetch_one(connection)
    .await?;
    let (messages, distinct_ids) = (messages.cast_unsigned(), distinct_ids.cast_unsigned());
    Ok(StreamCount { messages, distinct_ids })
}

/// No field holds a character that COPY's text form would read differently: the file was checked.
async fn load_file(
    connection: &mut PgConnection,
    file: &FlightsFile,
    plan: &DemoPlan,
    ids: &[CommandId],
) -> Result<()> {
    let mut copy = connection.copy_in_raw("COPY judge.file FROM STDIN").await?;
    for (rows, ids) in file.rows.chunks(CHUNK).zip(ids.chunks(CHUNK)) {
        let mut text = String::new();
        for (row, id) in rows.iter().zip(ids) {
            let (f, region) = (row.flight(), &plan.regions[plan.region(row)]);
            writeln!(
                text,
                "{}\t{id}\t{region}\t{}\t{}\t{}\t{}\t{}\t{}\t{}\t{}",
                f.line,
                f.aircraft,
                f.day,
                f.carrier,
                f.flight,
                f.origin,
                f.dest,
                f.distance,
                row.departed()
            )?;
        }
        copy.send(text.into_bytes()).await?;
    }
    copy.finish().await?;
    Ok(())
}

async fn load_stream(
    connection: &mut PgConnection,
    client: &async_nats::Client,
    stream: &str,
) -> Result<()> {
    let mut stream = jetstream::new(client.clone()).get_stream(stream).await?;
    let messages = stream.info().await?.state.messages;
    let config = OrderedConfig { headers_only: true, ..OrderedConfig::default() };
    let mut reading = stream.create_consumer(config).await?.messages().await?;
    let mut copy = connection.copy_in_raw("COPY judge.stream FROM STDIN").await?;
    let mut text = String::new();
    for _ in 0..messages {
        let message = tokio::time::timeout(NEXT_WITHIN, reading.next()).await?;
        let message = message.context("the stream ended")??;
        let sequence = message.info().map_err(anyhow::Error::from_boxed)?.stream_sequence;
        let headers = message.headers.as_ref();
        let id = headers.and_then(|headers| headers.get(headers::COMMAND_ID));
        let id: CommandId = id.context("a message without an id")?.as_str().parse()?;
        writeln!(text, "{sequence}\t{id}")?;
        if text.len() > CHUNK * 50 {
            copy.send(std::mem::take(&mut text).into_bytes()).await?;
        }
    }
    copy.send(text.into_bytes()).await?;
    copy.finish().await?;
    Ok(())
}

/// Has SQL judge.
pub(super) async fn verdicts(connection: &mut PgConnection) -> Result<Vec<DemoVerdict>> {
    let (rows, aircraft): (i64, i64) = sqlx::query_as(
        "SELECT count(*), count(DISTINCT aircraft) FILTER (WHERE departed) FROM judge.file",
    )
    .fetch_one(&mut *connection)
    .await?;
    let mut verdicts = Vec::new();
    for (claim, view) in CLAIMS {
        let question = format!("SELECT fault, count(*) OVER () FROM judge.{view} LIMIT {SHOWN}");
        let faults: Vec<(String, i64)> =
            sqlx::query_as(AssertSqlSafe(question)).fetch_all(&mut *connection).await?;
        let count = faults.first().map_or(0, |(_, count)| *count);
        let of = if matches!(view, "not_applied_once" | "out_of_order") {
            counted(rows, "row")
        } else {
            format!("{} aircraft", grouped(aircraft))
        };
        verdicts.push(DemoVerdict {
            claim,
            holds: count == 0,
            found: if count == 0 { of } else { format!("{} in {of}", counted(count, "fault")) },
            faults: faults.into_iter().map(|(fault, _)| fault).collect(),
        });
    }
    Ok(verdicts)
}
