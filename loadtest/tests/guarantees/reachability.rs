//! Every position that is handed out is reached by a replica, although nobody else writes.
//!
//! On a stack of its own: one other commit would push the log on and hide what is looked for.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use farwrite_devstack::Devstack;
use farwrite_producer::Producer;
use farwrite_schemas::{Bookmark, CommandId, Lsn};
use sqlx::PgConnection;
use tokio::sync::{Mutex, MutexGuard, OnceCell};

use crate::support::{Append, Case, DEADLINE};

static QUIET: OnceCell<Devstack> = OnceCell::const_new();
/// One test at a time: each is the other's somebody else.
static TURN: Mutex<()> = Mutex::const_new(());
/// A position that is not reached after this is stuck: the measured stalls last 10 s and more,
/// until PostgreSQL writes something of its own accord.
const STUCK: Duration = Duration::from_secs(5);

async fn quiet(test: &str) -> Result<(MutexGuard<'static, ()>, Case)> {
    let turn = TURN.lock().await;
    // What PostgreSQL writes by itself is put off: checkpoints, and the snapshot of running
    // transactions, which the background writer adds after any commit.
    let stack = QUIET.get_or_try_init(|| {
        let builder = Devstack::builder().regions(["ewr", "jfk"]);
        builder
            .setting("checkpoint_timeout", "1h")
            .setting("autovacuum", "off")
            .setting("bgwriter_delay", "10s")
            .start()
    });
    let case = Case::on(stack.await?, test, &[]).await?;
    Ok((turn, case))
}

async fn reached(producer: &Producer, bookmark: &Bookmark) -> Result<()> {
    producer
        .wait(bookmark, STUCK)
        .await
        .with_context(|| format!("{bookmark} was handed out and is not reached"))
}

#[tokio::test]
async fn thousands_of_positions_one_at_a_time_are_all_reached() -> Result<()> {
    let (_turn, case) = quiet("one_at_a_time").await?;
    let _worker = case.serving_worker().await?;
    let producer = case.producer("jfk").await?;
    for n in 0..4_000 {
        // Nothing is written between the commit and the wait's end; keys of many lengths let
        // commits end everywhere in a page, at its very end too.
        let key = format!("{:width$}", n, width = usize::try_from(n % 97)? + 1).replace(' ', "x");
        let committed = producer.submit(&Append { key, n }).await?;
        reached(&producer, &committed.bookmark)
            .await
            .with_context(|| format!("after {n} others"))?;
    }
    Ok(())
}

/// A transaction of somebody else that writes and does not end, its log flushed to the end of a
/// page in the middle of a record.
async fn open_writer(case: &Case) -> Result<PgConnection> {
    let mut writer = case.primary().await?;
    sqlx::raw_sql("BEGIN; CREATE TABLE app.open (t text);").execute(&mut writer).await?;
    sqlx::query(
        "INSERT INTO app.open SELECT repeat(md5(i::text), 60) FROM generate_series(1, 200) i",
    )
    .execute(&mut writer)
    .await?;
    let mut observer = case.primary().await?;
    // The log writer comes by within a fraction of a second and flushes whole pages.
    let began = flush_lsn(&mut observer).await?;
    case.until("the log writer flushes the open transaction", async || {
        Ok(flush_lsn(&mut observer).await? > began)
    })
    .await?;
    Ok(writer)
}

async fn flush_lsn(connection: &mut PgConnection) -> Result<Lsn> {
    let text: String =
        sqlx::query_scalar("SELECT pg_current_wal_flush_lsn()::text").fetch_one(connection).await?;
    Ok(text.parse()?)
}

#[tokio::test]
async fn an_outcome_that_is_asked_for_late_has_a_position_that_is_reached() -> Result<()> {
    let (_turn, case) = quiet("asked_late").await?;
    let _worker = case.serving_worker().await?;
    let producer = case.producer("jfk").await?;
    for round in 0..5 {
        let id = CommandId::now();
        let committed =
            producer.call(&Append { key: "a".to_owned(), n: round }).id(id).submit().await?;
        reached(&producer, &committed.bookmark).await?;
        let writer = open_writer(&case).await?;
        let reply = case.outcome(id).await?.context("no outcome")?;
        reached(&producer, &reply.bookmark)
            .await
            .with_context(|| format!("round {round}, beside an open transaction"))?;
        drop(writer);
        case.stack.primary().execute(&case.name, "SELECT pg_switch_wal()").await?;
        let reply = case.outcome(id).await?.context("no outcome")?;
        reached(&producer, &reply.bookmark)
            .await
            .with_context(|| format!("round {round}, after a switch of segments"))?;
    }
    Ok(())
}

#[tokio::test]
async fn a_commit_is_followed_by_a_heartbeat_and_then_by_silence() -> Result<()> {
    let (_turn, case) = quiet("heartbeat").await?;
    let _worker = case.serving_worker().await?;
    let producer = case.producer("jfk").await?;
    let mut observer = case.primary().await?;
    for n in 0..5 {
        let committed = producer.submit(&Append { key: "a".to_owned(), n }).await?;
        // Whatever position the commit was answered with, the log moves past it.
        case.until("a heartbeat follows", async || {
            Ok(flush_lsn(&mut observer).await? > committed.bookmark.lsn)
        })
        .await?;
    }
    ensure!(case.count("SELECT count(*) FROM app.effects").await? == 5, "{DEADLINE:?}");
    Ok(())
}
