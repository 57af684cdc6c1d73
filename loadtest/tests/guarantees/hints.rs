//! The stream of hints is no truth: it may be deleted at any time. What keeps two primaries apart in it
//! is written again by the worker that serves.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use farwrite_devstack::{Devstack, Program};

use crate::support::{Append, Case, DEADLINE, Message};

/// Waits until a worker has said something so many times.
async fn said(case: &Case, worker: &Program, what: &str, times: usize) -> Result<()> {
    let is_so = async || Ok(worker.log().matches(what).count() >= times);
    case.until(what, is_so).await.with_context(|| worker.log_tail())
}

fn hints_of(case: &Case) -> String {
    format!("farwrite-{}-hints", case.name)
}

/// The last message of the hints' stream on a subject; `None` where there is none.
async fn last(case: &Case, subject: &str) -> Option<String> {
    let stream = case.context.get_stream(hints_of(case)).await.ok()?;
    let subject = format!("farwrite.{0}.{subject}.farwrite-{0}", case.name);
    let message = stream.get_last_raw_message_by_subject(&subject).await.ok()?;
    String::from_utf8(message.payload.to_vec()).ok()
}

#[tokio::test]
async fn the_stream_of_hints_may_be_deleted_and_no_answer_and_no_takeover_waits_for_it()
-> Result<()> {
    let case = Case::new("no_hints", &[]).await?;
    let worker = case.serving(&["--metrics-addr", "127.0.0.1:0"]).await?;
    let producer = case.producer("ewr").await?;
    let mut n = 0;
    let mut submit = async || {
        let append = Append { key: "a".to_owned(), n };
        n += 1;
        anyhow::Ok(producer.submit(&append).await?.output.place)
    };
    submit().await?;
    case.until("the broker holds a hint", async || Ok(last(&case, "hint").await.is_some())).await?;
    let record = last(&case, "served").await.context("no record")?;
    case.context.delete_stream(hints_of(&case)).await?;
    // Longer than a record may be unreadable before nobody is answered.
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(8) {
        submit().await?;
    }
    ensure!(last(&case, "served").await == Some(record.clone()), "{}", worker.log_tail());
    case.until("it holds a hint again", async || Ok(last(&case, "hint").await.is_some())).await?;
    let log = worker.log();
    ensure!(log.contains("the stream of hints was gone, and is made again"), "{log}");
    ensure!(!log.contains("nobody is answered"), "{log}");
    // Idle: what was sampled before is sent once more.
    case.context.delete_stream(hints_of(&case)).await?;
    case.until("an idle worker makes it again", async || {
        Ok(last(&case, "hint").await.is_some() && last(&case, "served").await.is_some())
    })
    .await?;
    // Only the record.
    case.context.get_stream(hints_of(&case)).await?.purge().await?;
    case.until("the record is written again", async || {
        Ok(last(&case, "served").await == Some(record.clone()))
    })
    .await?;
    let metrics = case.http(&worker, "/metrics").await?;
    ensure!(metrics.contains("farwrite_worker_hints_made_again_total 3"), "{metrics}");
    ensure!(worker.log().matches(" serving epoch=").count() == 1, "{}", worker.log_tail());
    ensure!(worker.terminate(DEADLINE).await?.success());
    case.context.delete_stream(hints_of(&case)).await?;
    let worker = case.serving_worker().await?;
    submit().await?;
    ensure!(worker.log().contains("no hints"), "{}", worker.log_tail());
    ensure!(last(&case, "served").await.is_some_and(|now| now != record));
    case.check_model().await
}

#[tokio::test]
async fn a_worker_on_a_lost_branch_gains_nothing_by_the_loss_of_the_record() -> Result<()> {
    let stack = Devstack::builder().regions(["ewr", "jfk"]).start().await?;
    let case = Case::on(Box::leak(Box::new(stack)), "lost_record", &[]).await?;
    let on = |region: &str| {
        let url = case.stack.server(region)?.url(&case.name);
        case.spawn("run", &[], &[("FARWRITE_DATABASE_URL", &url)])
    };
    let old = on("ewr")?;
    said(&case, &old, " serving epoch=", 1).await?;
    case.publish(&Message::append("a", 1)).await?;
    case.settled().await?;
    case.stack.replica("jfk")?.wait_caught_up(case.stack.primary(), DEADLINE).await?;
    case.stack.promote("jfk").await?;
    let new = on("jfk")?;
    said(&case, &new, " serving epoch=", 1).await?;
    case.stack.set_primary("jfk")?;
    said(&case, &old, "has served timeline 2", 1).await?;
    old.kill().await?;
    case.context.delete_stream(hints_of(&case)).await?;
    // It looks before the record is written again, or after.
    let old = on("ewr")?;
    said(&case, &old, "has served timeline 2", 1).await?;
    case.publish(&Message::append("a", 2)).await?;
    case.settled().await?;
    ensure!(case.effects().await? == [("a".to_owned(), vec![1, 2])].into());
    let mut there = case.stack.server("ewr")?.connect(&case.name).await?;
    let effects: i64 =
        sqlx::query_scalar("SELECT count(*) FROM app.effects").fetch_one(&mut there).await?;
    ensure!(effects == 1, "{effects} effects on the lost branch");
    ensure!(!old.log().contains(" serving epoch="), "{}", old.log_tail());
    ensure!(new.log().matches(" serving epoch=").count() == 1, "{}", new.log_tail());
    Ok(())
}
