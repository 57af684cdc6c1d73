//! An outcome of a command that expires is told by nobody before every required standby has it,
//! whoever is asked.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use farwrite_devstack::Devstack;
use farwrite_producer::{
    CommandId, LastHeard, NotEnded, Outcome, OutcomeAnswer, OutcomeError, Producer, RawCommand,
    ReadsFrom, SubmitError,
};
use farwrite_schemas::{ATOMIC_NAME, headers};
use futures_util::StreamExt;
use serde_json::{json, value::to_raw_value};

use crate::support::{Case, DEADLINE, Message};

const SHORT: Duration = Duration::from_secs(3);

/// A stack of its own, whose links are cut and whose primary may be lost.
async fn stack(regions: &[&str]) -> Result<&'static Devstack> {
    let stack = Devstack::builder().regions(regions.iter().copied()).start().await?;
    Ok(Box::leak(Box::new(stack)))
}

fn expiring(key: &str, n: i32) -> Message {
    Message::append(key, n).at(headers::EXPIRES_AT, 600_000)
}

/// What the database says on a server, and what `farwrite find` says.
async fn status(case: &Case, region: &str, id: CommandId) -> Result<String> {
    let mut there = case.stack.server(region)?.connect(&case.name).await?;
    let status: Option<String> = sqlx::query_scalar("SELECT status FROM farwrite.outcome_of($1)")
        .bind(id.uuid())
        .fetch_optional(&mut there)
        .await?;
    let url = case.stack.server(region)?.url(&case.name);
    let flags = [&id.to_string()[..], "--json"];
    let found = case.run_with("find", &flags, &[("FARWRITE_DATABASE_URL", &url)]).await?;
    let found = &found.objects()?[0];
    let status = status.unwrap_or_else(|| "unknown".to_owned());
    ensure!(found["status"] == status[..], "{found} and not {status}");
    if status == "unconfirmed" {
        ensure!(found["output"].is_null() && found["error"].is_null(), "{found}");
    }
    Ok(status)
}

/// What a producer reads where no worker answers.
async fn read(case: &Case, reads: ReadsFrom, id: CommandId) -> Result<Option<Outcome>> {
    let producer = Producer::builder(case.name.parse()?, "jfk".parse()?)
        .nats_url(case.stack.nats_urls())
        .reads(reads)
        .connect()
        .await?;
    let parked = match producer.outcome_within(id, SHORT).await {
        Ok(OutcomeAnswer::Known(reply)) => return Ok(Some(reply.outcome)),
        Ok(OutcomeAnswer::Pending(NotEnded { parked, .. }))
        | Err(OutcomeError::UnknownHere { parked, .. }) => parked,
        Err(error) => return Err(error.into()),
    };
    ensure!(parked.is_some_and(|parked| parked.is_unconfirmed()), "it has ended");
    Ok(None)
}

#[tokio::test]
async fn no_way_of_asking_tells_what_a_required_standby_lacks() -> Result<()> {
    let case =
        Case::on(stack(&["ewr", "jfk", "lga"]).await?, "untold", &["--duplicate-window-ms", "100"])
            .await?;
    let worker = case.serving(&["--required-standbys", "jfk", "--unknown-keep-s", "0"]).await?;
    let safe = expiring("a", 0);
    case.publish(&safe).await?;
    case.until("a standby next door confirms it", async || {
        Ok(case.outcome(safe.id).await?.is_some())
    })
    .await?;
    case.stack.replica("jfk")?.wait_caught_up(case.stack.primary(), DEADLINE).await?;
    case.stack.replication_link("jfk")?.cut();

    let alone = expiring("a", 1);
    let refused = Message { id: CommandId::now(), ..Message::refused("r", 1) };
    let refused = refused.at(headers::EXPIRES_AT, 600_000);
    let derived = Message { id: CommandId::derived("order", "4711"), ..expiring("d", 1) };
    let parked = expiring("b", 1).at(headers::NOT_BEFORE, 1_000);
    let dead = expiring("c", 1).named("app.nobody");
    let member = CommandId::now();
    let commands = json!([{"id": member, "name": "app.append", "body": {"n": 2}}]);
    let body = json!({ "commands": commands }).to_string();
    let whole = Message { body, ..expiring("a", 0) }.named(ATOMIC_NAME);
    let free = Message::append("a", 3);
    for message in [&alone, &refused, &derived, &parked, &dead, &whole, &free] {
        case.publish(message).await?;
    }
    // A second copy, which does not expire, and one behind it whose answer waits for nothing.
    let inbox = format!("farwrite.{}.reply.jfk.test", case.name);
    let mut replies = case.client.subscribe(inbox.clone()).await?;
    let mut next = async || {
        let reply = tokio::time::timeout(DEADLINE, replies.next()).await?.context("no reply")?;
        anyhow::Ok(farwrite_schemas::Reply::decode(&reply.payload)?.id)
    };
    let answered = |message| Message { reply: Some(inbox.clone()), ..message };
    let copy = answered(Message { id: alone.id, ..Message::append("a", 1) });
    case.publish_past_window(&copy).await?;
    let behind = answered(Message::append("a", 4));
    case.publish(&behind).await?;
    ensure!(next().await? == behind.id, "a second copy was told of the first");
    case.settled().await?;
    case.stack.replica("lga")?.wait_caught_up(case.stack.primary(), DEADLINE).await?;
    let held = [alone.id, refused.id, derived.id, parked.id, dead.id, whole.id, member];

    // The service, a call of an app with the same id, and what a person reads anywhere.
    ensure!(case.outcome(free.id).await?.is_some());
    let submitting = Producer::builder(case.name.parse()?, "jfk".parse()?)
        .nats_url(case.stack.nats_urls())
        .connect()
        .await?;
    let again = RawCommand::new("app.append", to_raw_value(&json!({"n": 1}))?);
    let again = submitting.call_raw(again.key("a".parse()?)).id(alone.id).timeout(SHORT);
    let error = again.submit().await.err().context("it was told")?;
    ensure!(
        matches!(error, SubmitError::TimedOut { last_heard: LastHeard::Unconfirmed, .. }),
        "{error:?}"
    );
    for id in held {
        ensure!(case.outcome(id).await?.is_none(), "{id}: the service told it");
        for region in ["ewr", "lga"] {
            let status = status(&case, region, id).await?;
            ensure!(status == "unconfirmed", "{id} in {region}: {status}");
        }
        // Whether NATS or the database answers first.
        let url = case.stack.primary().url(&case.name);
        let flags = ["--origin", "jfk", "--timeout-ms", "3000", &id.to_string()];
        let told = case.run_with("outcome", &flags, &[("DATABASE_URL", &url)]).await?.ended(4)?;
        let told = &told.objects()?[0];
        ensure!(told["known"] == "pending" && told["parked"]["reason"] == "unconfirmed", "{told}");
    }
    ensure!(status(&case, "lga", free.id).await? == "applied");
    let flags = [&alone.id.to_string()[..], "--reason", "test"];
    let cancelled = case.run("cancel", &flags).await?;
    ensure!(cancelled.out.contains("unconfirmed"), "{cancelled:?}");
    ensure!(!cancelled.out.contains("applied"), "{cancelled:?}");

    // Nobody answers: the database is read.
    ensure!(worker.terminate(DEADLINE).await?.success());
    let primary = || ReadsFrom::primary(case.stack.primary().url(&case.name));
    let replica = case.stack.replica("lga")?.url(&case.name);
    let replica = || ReadsFrom::from(ReadsFrom::replica(&replica));
    for id in held {
        for reads in [primary(), replica()] {
            let told = read(&case, reads, id).await?;
            ensure!(told.is_none(), "{id}: {told:?}");
        }
    }
    ensure!(read(&case, replica(), free.id).await?.is_some());

    // A later worker finds them.
    let _worker = case.serving(&["--required-standbys", "jfk"]).await?;
    ensure!(case.outcome(alone.id).await?.is_none());
    case.publish_past_window(&copy).await?;
    case.stack.replication_link("jfk")?.heal();
    ensure!(next().await? == copy.id);
    for id in held {
        case.until("it is told", async || Ok(case.outcome(id).await?.is_some())).await?;
    }
    case.until("all are confirmed", async || {
        Ok(case.count("SELECT count(*) FROM farwrite.unconfirmed").await? == 0)
    })
    .await?;
    case.stack.replica("lga")?.wait_caught_up(case.stack.primary(), DEADLINE).await?;
    for (id, expected) in held.into_iter().zip([
        "applied",
        "rejected",
        "applied",
        "applied",
        "dead_lettered",
        "applied",
        "applied",
    ]) {
        ensure!(status(&case, "lga", id).await? == expected);
    }
    Ok(())
}

#[tokio::test]
async fn what_was_told_of_a_command_that_expires_is_so_after_a_failover_too() -> Result<()> {
    let case = Case::on(stack(&["ewr", "jfk"]).await?, "told", &[]).await?;
    let servers = [case.stack.server("ewr")?, case.stack.server("jfk")?];
    let urls = servers.map(|server| server.url(&case.name)).join(",");
    let worker =
        case.spawn("run", &["--required-standbys", "jfk"], &[("FARWRITE_DATABASE_URL", &urls)])?;
    let first = Message::append("a", 0).at(headers::EXPIRES_AT, 600_000);
    case.publish(&first).await?;
    case.until("it is told", async || Ok(case.outcome(first.id).await?.is_some())).await?;
    case.stack.replica("jfk")?.wait_caught_up(case.stack.primary(), DEADLINE).await?;
    case.stack.replication_link("jfk")?.cut();
    let lost = Message::append("a", 1).at(headers::EXPIRES_AT, 20_000);
    case.publish(&lost).await?;
    case.settled().await?;
    ensure!(status(&case, "ewr", lost.id).await? == "unconfirmed");
    case.stack.primary().kill().await?;
    case.stack.promote("jfk").await?;
    case.stack.set_primary("jfk")?;
    // The first one's outcome survived. The second one's was never told, and ends anew.
    case.until("the new primary serves", async || Ok(case.outcome(first.id).await?.is_some()))
        .await
        .with_context(|| worker.log_tail())?;
    ensure!(status(&case, "jfk", first.id).await? == "applied");
    case.settled().await
}

#[tokio::test]
async fn a_worker_that_requires_no_standby_tells_what_another_one_held() -> Result<()> {
    let case = Case::on(stack(&["ewr", "jfk"]).await?, "released", &[]).await?;
    let requiring = case.serving(&["--required-standbys", "nowhere"]).await?;
    let held = expiring("a", 1);
    case.publish(&held).await?;
    case.settled().await?;
    ensure!(status(&case, "ewr", held.id).await? == "unconfirmed");
    ensure!(requiring.terminate(DEADLINE).await?.success());
    let _worker = case.serving(&["--required-standbys", "none"]).await?;
    case.until("it is told", async || Ok(case.outcome(held.id).await?.is_some())).await?;
    ensure!(status(&case, "ewr", held.id).await? == "applied");
    Ok(())
}
