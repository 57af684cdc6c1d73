//! The history of takeovers is bounded, what looks it up reads a few rows however many there were, and
//! a bookmark of a takeover that it has forgotten is told neither visible nor lost: invariants 7 and 10.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use farwrite_producer::{BookmarkError, Doubt, WaitError};
use farwrite_schemas::{BRANCHES_QUERY, OutcomeAnswer};
use serde_json::Value;
use sqlx::{AssertSqlSafe, PgConnection};

use crate::support::{Append, Case, DEADLINE};

/// Long enough for a false answer to come.
const A_WHILE: Duration = Duration::from_secs(2);
/// Far more rows than the history keeps.
const TAKEOVERS: i64 = 100_000;
/// What it keeps: `c_rows` of `farwrite.begin_epoch`.
const KEPT: i64 = 10_000;

/// Writes so many takeovers behind the one that there is, each the child of the one before it, and
/// makes the last one the owner's.
const FILL: &str = "
    WITH one AS (SELECT h FROM farwrite.history h ORDER BY h.number DESC LIMIT 1)
    INSERT INTO farwrite.history OVERRIDING USER VALUE
    SELECT (jsonb_populate_record(one.h, jsonb_build_object(
               'epoch', md5(n::text)::uuid,
               'parent', CASE WHEN n = 1 THEN (one.h).epoch ELSE md5((n - 1)::text)::uuid END,
               'begin_lsn', pg_current_wal_flush_lsn()))).*
    FROM one, generate_series(1, $1) n ORDER BY n";

fn append(n: i32) -> Append {
    Append { key: "a".to_owned(), n }
}

/// How many pages a question reads, once the session knows the tables.
async fn pages(connection: &mut PgConnection, question: &str) -> Result<i64> {
    let explain = format!("EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {question}");
    let ask = || sqlx::query_scalar::<_, Value>(AssertSqlSafe(explain.clone()));
    ask().fetch_one(&mut *connection).await?;
    let plan = ask().fetch_one(connection).await?;
    let blocks = |name: &str| plan[0]["Plan"][name].as_i64().context("no such count");
    Ok(blocks("Shared Hit Blocks")? + blocks("Shared Read Blocks")?)
}

#[tokio::test]
async fn the_history_is_bounded_its_questions_do_not_grow_and_what_it_forgot_is_not_told_lost()
-> Result<()> {
    let case = Case::new("long_history", &[]).await?;
    let worker = case.serving_worker().await?;
    let producer = case.producer("jfk").await?;
    let old = producer.write(&append(1)).await?;
    worker.terminate(DEADLINE).await?;

    let mut connection = case.primary().await?;
    sqlx::query(FILL).bind(TAKEOVERS).execute(&mut connection).await?;
    let sql = format!(
        "UPDATE farwrite.owner SET epoch = md5('{TAKEOVERS}')::uuid; ANALYZE farwrite.history"
    );
    case.execute(&sql).await?;
    let last = format!("ARRAY[md5('{TAKEOVERS}')::uuid, gen_random_uuid()]");
    let read = pages(&mut connection, &BRANCHES_QUERY.replace("$1", &last)).await?;
    ensure!(read < 50, "{read} pages were read for two branches of {TAKEOVERS} takeovers");
    let of_read = "SELECT epoch FROM farwrite.history WHERE begin_lsn <= pg_current_wal_flush_lsn()
                   ORDER BY begin_lsn DESC, taken_at DESC LIMIT 1";
    let read = pages(&mut connection, of_read).await?;
    ensure!(read < 50, "{read} pages were read for the branch of a position");

    let _worker = case.serving_worker().await?;
    let rows = case.count("SELECT count(*) FROM farwrite.history").await?;
    ensure!(rows == KEPT, "the history holds {rows} rows");
    // A caller of its own: one that has seen nothing of the server yet.
    let producer = case.producer("jfk").await?;
    let error = match producer.wait_within(&old.bookmark, A_WHILE).await {
        Err(BookmarkError::Wait(error)) => *error,
        other => bail!("not a failed wait: {other:?}"),
    };
    let WaitError::TimedOut { seen, .. } = &error else { bail!("{error:?}") };
    ensure!(seen.doubt == Some(Doubt::HistoryForgotten), "{seen:?}");
    ensure!(matches!(producer.outcome(old.id).await?, OutcomeAnswer::Known(_)));
    // What is written now is visible as ever.
    producer.write(&append(2)).await?;
    Ok(())
}
