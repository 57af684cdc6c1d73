//! The stream is trimmed only behind the replicas, and a failover finds in it what it lacks.

use anyhow::{Context, Result, ensure};
use farwrite_devstack::{Devstack, Program};
use futures_util::StreamExt;
use sqlx::PgConnection;

use crate::support::{Case, DEADLINE, Message};

/// A stack of its own, whose links are cut and whose primary may be lost. The reaper ends it with
/// this process.
async fn stack(regions: &[&str]) -> Result<&'static Devstack> {
    let stack = Devstack::builder().regions(regions.iter().copied()).start().await?;
    Ok(Box::leak(Box::new(stack)))
}

/// A worker that is given all servers of the stack, and serves.
async fn worker(case: &Case, flags: &[&str]) -> Result<Program> {
    let servers = case.stack.regions().iter().map(|region| case.stack.server(region));
    let urls = servers.map(|server| Ok(server?.url(&case.name))).collect::<Result<Vec<_>>>()?;
    let worker = case.spawn("run", flags, &[("FARWRITE_DATABASE_URL", &urls.join(","))])?;
    let serves = case.until("it serves", async || Ok(worker.log().contains(" serving epoch=")));
    serves.await.with_context(|| worker.log_tail())?;
    Ok(worker)
}

async fn publish(case: &Case, numbers: std::ops::Range<i32>) -> Result<()> {
    for n in numbers {
        case.publish(&Message::append("a", n)).await?;
    }
    Ok(())
}

/// The first and the last sequence of the stream.
async fn extent(case: &Case) -> Result<(u64, u64)> {
    let mut stream = case.context.get_stream(format!("farwrite-{}", case.name)).await?;
    let state = &stream.info().await?.state;
    Ok((state.first_sequence, state.last_sequence))
}

async fn trimmed_to(case: &Case, first: u64) -> Result<()> {
    case.until("the stream is trimmed", async || Ok(extent(case).await?.0 == first)).await
}

/// Outlives two rounds of trimming: every round of upkeep that saw something new has told the hints.
async fn outlive_trimming(case: &Case, from: i32) -> Result<i32> {
    let mut hints = case.context.get_stream(format!("farwrite-{}-hints", case.name)).await?;
    let before = hints.info().await?.state.last_sequence;
    let mut n = from;
    case.until("two rounds of trimming are over", async || {
        publish(case, n..n + 1).await?;
        n += 1;
        Ok(hints.info().await?.state.last_sequence >= before + 11)
    })
    .await?;
    Ok(n)
}

#[tokio::test]
async fn a_command_stays_until_every_required_standby_holds_it() -> Result<()> {
    let case = Case::on(stack(&["ewr", "jfk", "lga"]).await?, "required", &[]).await?;
    let flags = ["--required-standbys", "jfk,lga", "--trim-min-age-s", "0"];
    let _worker = worker(&case, &flags).await?;
    publish(&case, 0..20).await?;
    // The last one proves the stream, and stays.
    trimmed_to(&case, 20).await?;
    let floor = case.count("SELECT trim_floor FROM farwrite.streams").await?;
    ensure!(floor == 20, "{floor}");
    let link = case.stack.replication_link("lga")?;
    link.cut();
    let n = outlive_trimming(&case, 20).await?;
    // What was on the way when the link was cut may have come.
    let (first, last) = extent(&case).await?;
    ensure!(first < last, "{first} of {last}");
    let held = first;
    let n = outlive_trimming(&case, n).await?;
    ensure!(extent(&case).await?.0 == held, "trimmed behind a standby that is away");
    link.heal();
    case.settled().await?;
    trimmed_to(&case, n.unsigned_abs().into()).await?;
    ensure!(case.effects().await? == [("a".to_owned(), (0..n).collect())].into());
    Ok(())
}

#[tokio::test]
async fn nothing_is_trimmed_for_a_standby_that_nobody_knows_or_before_its_time() -> Result<()> {
    let unknown = Case::new("unknown_standby", &[]).await?;
    let flags = ["--required-standbys", "jfk,nowhere", "--trim-min-age-s", "0"];
    let worker = unknown.serving(&flags).await?;
    let young = Case::new("young", &[]).await?;
    let _young = young.serving(&["--required-standbys", "none"]).await?;
    let unsaid = Case::new("unsaid", &[]).await?;
    let silent = unsaid.serving(&["--trim-min-age-s", "0"]).await?;
    for case in [&unknown, &young, &unsaid] {
        outlive_trimming(case, 0).await?;
        ensure!(extent(case).await?.0 == 1, "{} was trimmed", case.name);
    }
    ensure!(worker.log().contains("names=[\"nowhere\"]"), "{}", worker.log_tail());
    ensure!(silent.log().contains("nothing is trimmed"), "{}", silent.log_tail());
    Ok(())
}

#[tokio::test]
async fn a_scheduled_command_survives_the_trimming_of_its_message() -> Result<()> {
    let case = Case::new("trimmed_parked", &[]).await?;
    let _worker = case.serving(&["--required-standbys", "none", "--trim-min-age-s", "0"]).await?;
    let later = Message::append("a", 0).at(farwrite_schemas::headers::NOT_BEFORE, 15_000);
    case.publish(&later).await?;
    publish(&case, 1..10).await?;
    trimmed_to(&case, 10).await?;
    ensure!(case.effects().await? == [("a".to_owned(), (1..10).collect())].into());
    case.settled().await?;
    ensure!(case.effects().await?["a"].last() == Some(&0));
    Ok(())
}

/// A worker that trimmed behind `required`; then commits that no replica has, and the primary is
/// lost. Answers how many commands there were.
async fn lose_the_primary(case: &Case, required: &str) -> Result<i32> {
    let flags = ["--required-standbys", required, "--trim-min-age-s", "0"];
    let worker = worker(case, &flags).await?;
    publish(case, 0..50).await?;
    trimmed_to(case, 50).await?;
    case.stack.replica("jfk")?.wait_caught_up(case.stack.primary(), DEADLINE).await?;
    case.stack.replication_link("jfk")?.cut();
    publish(case, 50..80).await?;
    case.settled().await?;
    if required == "none" {
        trimmed_to(case, 80).await?;
    }
    case.stack.primary().kill().await?;
    case.stack.promote("jfk").await?;
    case.stack.set_primary("jfk")?;
    worker.kill().await?;
    Ok(80)
}

async fn effects(case: &Case, region: &str) -> Result<i64> {
    let mut there: PgConnection = case.stack.server(region)?.connect(&case.name).await?;
    Ok(sqlx::query_scalar("SELECT count(*) FROM app.effects").fetch_one(&mut there).await?)
}

#[tokio::test]
async fn a_failover_to_a_required_standby_loses_nothing_that_was_acknowledged() -> Result<()> {
    let case = Case::on(stack(&["ewr", "jfk"]).await?, "failed_over", &[]).await?;
    let all = lose_the_primary(&case, "jfk").await?;
    ensure!(effects(&case, "jfk").await? == 50, "the failover lost nothing, which is no test");
    // It finds the new primary by itself, and goes on from that one's position.
    let _worker = worker(&case, &[]).await?;
    publish(&case, all..all + 5).await?;
    case.settled().await?;
    ensure!(case.effects().await? == [("a".to_owned(), (0..all + 5).collect())].into());
    Ok(())
}

#[tokio::test]
async fn an_answer_to_a_command_that_expires_waits_for_the_required_standby() -> Result<()> {
    let case = Case::on(stack(&["ewr", "jfk"]).await?, "confirmed", &[]).await?;
    let _worker = worker(&case, &["--required-standbys", "jfk"]).await?;
    let inbox = format!("farwrite.{}.reply.jfk.test", case.name);
    let mut replies = case.client.subscribe(inbox.clone()).await?;
    let mut next = async || {
        let reply = tokio::time::timeout(DEADLINE, replies.next()).await?.context("no reply")?;
        anyhow::Ok(farwrite_schemas::Reply::decode(&reply.payload)?.id)
    };
    let expiring = |n| {
        let message = Message { reply: Some(inbox.clone()), ..Message::append("a", n) };
        message.at(farwrite_schemas::headers::EXPIRES_AT, 600_000)
    };
    let first = expiring(1);
    case.publish(&first).await?;
    ensure!(next().await? == first.id);
    case.stack.replica("jfk")?.wait_caught_up(case.stack.primary(), DEADLINE).await?;
    case.stack.replication_link("jfk")?.cut();
    let held = expiring(2);
    case.publish(&held).await?;
    let free = Message { reply: Some(inbox.clone()), ..Message::append("a", 3) };
    case.publish(&free).await?;
    // The later one is answered first: it may be lost, and applied again, but never expires.
    ensure!(next().await? == free.id);
    ensure!(case.count("SELECT count(*) FROM app.effects").await? == 3);
    ensure!(case.outcome(held.id).await?.is_none(), "told before it was safe");
    ensure!(case.outcome(free.id).await?.is_some());
    case.stack.replication_link("jfk")?.heal();
    ensure!(next().await? == held.id);
    case.until("it is told when asked, too", async || Ok(case.outcome(held.id).await?.is_some()))
        .await
}

#[tokio::test]
async fn a_running_worker_follows_the_primary_by_itself() -> Result<()> {
    let case = Case::on(stack(&["ewr", "jfk"]).await?, "followed", &[]).await?;
    let flags = ["--required-standbys", "jfk", "--trim-min-age-s", "0"];
    let worker = worker(&case, &flags).await?;
    let standby = {
        let urls = [case.stack.server("jfk")?, case.stack.server("ewr")?];
        let urls = urls.map(|server| server.url(&case.name)).join(",");
        case.spawn("run", &flags, &[("FARWRITE_DATABASE_URL", &urls)])?
    };
    case.until("it stands by", async || Ok(standby.log().contains("standing by"))).await?;
    publish(&case, 0..50).await?;
    case.settled().await?;
    case.stack.replica("jfk")?.wait_caught_up(case.stack.primary(), DEADLINE).await?;
    case.stack.replication_link("jfk")?.cut();
    publish(&case, 50..80).await?;
    case.settled().await?;
    case.stack.primary().kill().await?;
    publish(&case, 80..90).await?;
    case.stack.promote("jfk").await?;
    case.stack.set_primary("jfk")?;
    case.settled().await?;
    ensure!(case.effects().await? == [("a".to_owned(), (0..90).collect())].into());
    // One of them applies, and neither has ended.
    ensure!(worker.status()?.is_none() && standby.status()?.is_none());
    Ok(())
}

#[tokio::test]
async fn a_failover_to_a_standby_that_was_not_required_stops_the_worker_with_the_range()
-> Result<()> {
    let case = Case::on(stack(&["ewr", "jfk"]).await?, "not_required", &[]).await?;
    lose_the_primary(&case, "none").await?;
    let url = case.stack.server("jfk")?.url(&case.name);
    let refused = case.spawn("run", &[], &[("FARWRITE_DATABASE_URL", &url)])?;
    let status = refused.wait(DEADLINE).await?;
    ensure!(status.code() == Some(4), "{status}\n{}", refused.log_tail());
    ensure!(
        refused.log().contains("commands from 51 to 79 are not applied"),
        "{}",
        refused.log_tail()
    );
    ensure!(effects(&case, "jfk").await? == 50);
    // The operator's word: those commands are gone, and the rest is to go on.
    let flags = ["--from", "first", "--reason", "the standby lacked them"];
    let adopted = case.run("adopt-stream", &flags).await?.ended(0)?;
    ensure!(adopted.out.contains("goes on from sequence 80"), "{adopted:?}");
    let _worker = worker(&case, &[]).await?;
    publish(&case, 80..82).await?;
    case.settled().await?;
    ensure!(case.effects().await?["a"] == (0..50).chain(79..82).collect::<Vec<i32>>());
    Ok(())
}
