//! Every position that is handed out is reached by a replica, although nobody else writes.
//!
//! On a stack of its own: one other commit would push the log on and hide what is looked for.

use std::time::Duration;

use anyhow::{Context, Result};
use farwrite_devstack::{Devstack, Program};
use farwrite_producer::Producer;
use farwrite_schemas::{Bookmark, CommandId, Lsn};
use sqlx::PgConnection;
use tokio::sync::{Mutex, MutexGuard, OnceCell};

use crate::support::{Append, Case};

static QUIET: OnceCell<Devstack> = OnceCell::const_new();
/// One test at a time: each would write for the other.
static TURN: Mutex<()> = Mutex::const_new(());
/// A position that is not reached after this is stuck. The measured stalls last 10 s and more,
/// until PostgreSQL writes something of its own accord.
const STUCK: Duration = Duration::from_secs(3);

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
        .wait_within(bookmark, STUCK)
        .await
        .with_context(|| format!("{bookmark} was handed out and is not reached"))
}

/// A worker with one lane, serving: others would be moved along, which are commits too.
async fn one_lane(case: &Case) -> Result<Program> {
    let worker = case.spawn("run", &["--lanes", "1"], &[])?;
    case.until("the worker serves", async || Ok(worker.log().contains(" serving epoch="))).await?;
    Ok(worker)
}

#[tokio::test]
async fn thousands_of_positions_are_reached_although_nobody_writes_after_them() -> Result<()> {
    let (_turn, case) = quiet("one_at_a_time").await?;
    let worker = one_lane(&case).await?;
    let producer = case.producer("jfk").await?;
    for n in 0..4_000 {
        // Keys of many lengths let commits end everywhere in a page, at its very end too.
        let key = format!("{n:x>width$}", width = usize::try_from(n % 97)? + 1);
        let committed = producer.submit(&Append { key, n }).await?;
        // Stopped, so that its own heartbeat does not push the log on.
        worker.suspend()?;
        reached(&producer, &committed.bookmark)
            .await
            .with_context(|| format!("after {n} others"))?;
        worker.resume()?;
    }
    Ok(())
}

/// A transaction of another session that writes and does not end. Its log is flushed to the end of
/// a page, in the middle of a record.
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

/// Waits until the worker has written its low-water mark: from then on it has nothing to write.
async fn worker_is_silent(case: &Case) -> Result<()> {
    let mut observer = case.primary().await?;
    case.until("the low-water mark is written", async || {
        let sql = "SELECT s.low_water = l.sequence FROM farwrite.streams s JOIN farwrite.lanes l USING (stream_id)";
        Ok(sqlx::query_scalar(sql).fetch_one(&mut observer).await?)
    })
    .await
}

#[tokio::test]
async fn an_outcome_that_is_asked_for_late_has_a_position_that_is_reached() -> Result<()> {
    let (_turn, case) = quiet("asked_late").await?;
    let _worker = one_lane(&case).await?;
    let producer = case.producer("jfk").await?;
    let id = CommandId::now();
    producer.call(&Append { key: "a".to_owned(), n: 1 }).id(id).submit().await?;
    worker_is_silent(&case).await?;
    for round in 0..5 {
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
async fn a_burst_is_followed_by_a_commit_that_pushes_every_replica_past_it() -> Result<()> {
    let (_turn, case) = quiet("heartbeat").await?;
    let _worker = one_lane(&case).await?;
    let producer = case.producer("jfk").await?;
    for n in 0..4 {
        let committed = producer.submit(&Append { key: "a".to_owned(), n }).await?;
        // The low-water mark, which moves every five seconds, could help once, but not each time.
        let past = Bookmark { lsn: Lsn(committed.bookmark.lsn.0 + 1), ..committed.bookmark };
        reached(&producer, &past).await.with_context(|| format!("round {n}"))?;
    }
    Ok(())
}
