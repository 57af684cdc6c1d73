//! The real worker program, killed at every failpoint, compared with the stream's order.

use std::{os::unix::process::ExitStatusExt, time::Duration};

use anyhow::{Result, ensure};
use farwrite_primary_worker::failpoint::{Failpoint, VARIABLE};
use futures_util::future::try_join_all;

use crate::{
    sqlstates::longest_pause,
    support::{Case, DEADLINE, Message},
};

/// Publishes to 20 keys at once, 30 commands each. Every third is published again at once, as by a
/// producer that missed the acknowledgement. Some are refused. Some are unknown, so that their
/// batches run step by step.
async fn publish(case: &Case) -> Result<()> {
    let publishing = (0..20).map(async |key| {
        for n in 0..30 {
            let key = format!("key {key}");
            let message = match n % 11 {
                5 => Message::refused(&key, n),
                7 => Message { name: "app.unknown".to_owned(), ..Message::append(&key, n) },
                _ => Message::append(&key, n),
            };
            case.publish(&message).await?;
            if n % 3 == 0 {
                case.publish(&message).await?;
            }
        }
        anyhow::Ok(())
    });
    try_join_all(publishing).await.map(drop)
}

/// Kills the worker at a failpoint, again and again, while commands are published; then lets one
/// finish, and compares.
async fn killed_at(point: Failpoint) -> Result<()> {
    let case = Case::new(point.name(), &["--duplicate-window-ms", "100"]).await?;
    let publishing = publish(&case);
    let killing = async {
        // As often as a command may run alone when the worker dies, and no more: the fourth time it
        // would be taken for the cause.
        for pass in [1, 4, 9] {
            // A takeover is passed once in a life.
            let pass = if point == Failpoint::AfterTakeover { 1 } else { pass };
            let armed = format!("{}:{pass}", point.name());
            let worker = case.spawn("run", &[], &[(VARIABLE, &armed)])?;
            // `BeforeReply` is passed only where a caller waits.
            let reply = Some(format!("farwrite.{}.reply.jfk.nobody", case.name));
            let (mut n, mut status) = (1_000, None);
            while status.is_none() {
                case.publish(&Message { reply: reply.clone(), ..Message::append("waited for", n) })
                    .await?;
                n += 1;
                status = worker.wait(Duration::from_millis(50)).await.ok();
                ensure!(n < 3_000, "the worker never passed {armed}:\n{}", worker.log_tail());
            }
            let signal = status.and_then(|status| status.signal());
            ensure!(
                signal == Some(9),
                "the worker did not die at {armed}: {status:?}\n{}",
                worker.log_tail()
            );
        }
        anyhow::Ok(())
    };
    tokio::try_join!(publishing, killing)?;
    let worker = case.serving_worker().await?;
    case.check_model().await?;
    let doubled =
        case.count("SELECT count(*) - count(DISTINCT command_id) FROM app.effects").await?;
    ensure!(doubled == 0, "{doubled} effects twice");
    ensure!(worker.terminate(DEADLINE).await?.success());
    Ok(())
}

#[tokio::test]
async fn killed_before_a_batch_is_sent_nothing_is_lost_or_doubled() -> Result<()> {
    killed_at(Failpoint::BeforeApply).await
}

#[tokio::test]
async fn killed_before_the_commit_nothing_is_lost_or_doubled() -> Result<()> {
    killed_at(Failpoint::BeforeCommit).await
}

#[tokio::test]
async fn killed_between_commit_and_settling_nothing_is_lost_or_doubled() -> Result<()> {
    killed_at(Failpoint::AfterCommit).await
}

#[tokio::test]
async fn killed_between_position_and_reply_nothing_is_lost_or_doubled() -> Result<()> {
    killed_at(Failpoint::BeforeReply).await
}

#[tokio::test]
async fn killed_after_the_replies_nothing_is_lost_or_doubled() -> Result<()> {
    killed_at(Failpoint::AfterReply).await
}

#[tokio::test]
async fn killed_after_the_takeover_nothing_is_lost_or_doubled() -> Result<()> {
    killed_at(Failpoint::AfterTakeover).await
}

/// Panics once at a failpoint while commands are applied; the worker goes on.
async fn panicked_at(point: Failpoint) -> Result<()> {
    const COMMANDS: i32 = 40;
    let case = Case::new(&format!("panic_{}", point.name()), &[]).await?;
    let armed = format!("{}:2:panic", point.name());
    // A takeover is passed once, unless the worker begins again.
    let armed = armed.replace("after_takeover:2", "after_takeover:1");
    let worker = case.spawn("run", &[], &[(VARIABLE, &armed)])?;
    let reply = Some(format!("farwrite.{}.reply.jfk.nobody", case.name));
    let mut ids = Vec::new();
    for n in 0..COMMANDS {
        let append = Message::append(&format!("key {}", n % 4), n);
        ids.push(append.id);
        case.publish(&Message { reply: reply.clone(), ..append }).await?;
    }
    case.until("it has panicked", async || {
        case.outcome(ids[0]).await?;
        Ok(worker.log().contains(&format!("the failpoint {}", point.name())))
    })
    .await?;
    case.settled().await?;
    // Only what was being read is its own fault.
    let lost = i64::from(point == Failpoint::Reading);
    let letters = case.count("SELECT count(*) FROM farwrite.dead_letters").await?;
    let effects = case.count("SELECT count(*) FROM app.effects").await?;
    ensure!((letters, effects) == (lost, i64::from(COMMANDS) - lost), "{letters} {effects}");
    let doubled =
        case.count("SELECT count(*) - count(DISTINCT command_id) FROM app.effects").await?;
    ensure!(doubled == 0, "{doubled} effects twice");
    ensure!(worker.status()?.is_none(), "it ended\n{}", worker.log_tail());
    ensure!(worker.terminate(DEADLINE).await?.success());
    Ok(())
}

#[tokio::test]
async fn after_a_panic_anywhere_the_worker_goes_on_and_nothing_is_lost_or_doubled() -> Result<()> {
    try_join_all(Failpoint::ALL.map(panicked_at)).await.map(drop)
}

#[tokio::test]
async fn a_panic_of_a_lane_holds_innocent_keys_up_for_a_moment_only() -> Result<()> {
    let case = Case::new("panics_timed", &[]).await?;
    let armed = format!("{}:40:panic", Failpoint::BeforeApply.name());
    let worker = case.spawn("run", &[], &[(VARIABLE, &armed)])?;
    let panics = case
        .until("it has panicked", async || Ok(worker.log().contains("the failpoint before_apply")));
    longest_pause(&case, panics).await?;
    ensure!(worker.status()?.is_none(), "it ended\n{}", worker.log_tail());
    Ok(())
}
