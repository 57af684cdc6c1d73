//! What a worker that serves says of its stream: full, changed, or not to be read.

use anyhow::{Context, Result, ensure};
use async_nats::{HeaderMap, jetstream::stream::Config};
use farwrite_devstack::{Devstack, Program};

use crate::support::{Case, DEADLINE, Message};

const METRICS: [&str; 2] = ["--metrics-addr", "127.0.0.1:0"];

/// A stack of its own, without standbys. The reaper ends it with this process.
async fn stack() -> Result<&'static Devstack> {
    Ok(Box::leak(Box::new(Devstack::builder().start().await?)))
}

/// Waits until `/ready` says something, or nothing any more.
async fn ready_says(case: &Case, worker: &Program, what: &str, says: bool) -> Result<()> {
    case.until(&format!("/ready says {what}: {says}"), async || {
        let answer = case.http(worker, "/ready").await?;
        ensure!(worker.status()?.is_none(), "it ended\n{}", worker.log_tail());
        Ok(answer.contains(what) == says && answer.starts_with("HTTP/1.1 503") == says)
    })
    .await
}

async fn change(case: &Case, change: impl FnOnce(&mut Config)) -> Result<()> {
    let mut stream = case.context.get_stream(format!("farwrite-{}", case.name)).await?;
    let mut config = stream.info().await?.config.clone();
    change(&mut config);
    case.context.update_stream(config).await?;
    Ok(())
}

#[tokio::test]
async fn a_stream_that_fills_up_is_told_before_it_is_full_and_a_larger_limit_is_applied()
-> Result<()> {
    let case = Case::new("fills", &["--stream-max-bytes", "1000000"]).await?;
    let worker = case.serving(&METRICS).await?;
    let body = format!(r#"{{"n": 1, "pad": "{}"}}"#, "x".repeat(100_000));
    for _ in 0..8 {
        case.publish(&Message { body: body.clone(), ..Message::append("a", 1) }).await?;
    }
    ready_says(&case, &worker, "% full", true).await?;
    let metrics = case.http(&worker, "/metrics").await?;
    ensure!(metrics.contains("farwrite_worker_stream_max_bytes 1000000"), "{metrics}");
    let status = case.run("status", &[]).await?;
    ensure!(status.out.contains("(of 1000000, 8"), "{}", status.out);
    let migrated = case.run("migrate", &["--stream-max-bytes", "10000000"]).await?;
    ensure!(migrated.code == Some(0), "{}", migrated.err);
    ready_says(&case, &worker, "% full", false).await?;
    // It is raised, and never lowered.
    case.run("migrate", &["--stream-max-bytes", "1000"]).await?;
    let stream = case.context.get_stream(format!("farwrite-{}", case.name)).await?;
    ensure!(stream.cached_info().config.max_bytes == 10_000_000);
    Ok(())
}

#[tokio::test]
async fn a_stream_whose_settings_are_changed_under_a_worker_is_told_at_once() -> Result<()> {
    let case = Case::new("changed", &[]).await?;
    let worker = case.serving(&METRICS).await?;
    change(&case, |config| config.allow_rollup = true).await?;
    ready_says(&case, &worker, "allow_rollup_hdrs is on", true).await?;
    // It goes on meanwhile.
    case.publish(&Message::append("a", 1)).await?;
    case.applied("a", 1).await?;
    change(&case, |config| config.allow_rollup = false).await?;
    ready_says(&case, &worker, "allow_rollup_hdrs is on", false).await
}

#[tokio::test]
async fn a_primary_that_never_had_a_standby_waits_for_none_before_it_trims() -> Result<()> {
    let case = Case::on(stack().await?, "alone", &[]).await?;
    let _worker = case.serving(&["--trim-min-age-s", "0"]).await?;
    for n in 0..20 {
        case.publish(&Message::append("a", n)).await?;
    }
    let first = async || {
        let mut stream = case.context.get_stream(format!("farwrite-{}", case.name)).await?;
        anyhow::Ok(stream.info().await?.state.first_sequence)
    };
    case.until("it is trimmed", async || Ok(first().await? == 20)).await?;
    // A slot is a standby, also while it is away; and one that there was once is not forgotten.
    case.execute("SELECT pg_create_physical_replication_slot('away')").await?;
    case.until("the standby is noted", async || {
        Ok(case.count("SELECT count(*) FROM farwrite.streams WHERE had_standby").await? == 1)
    })
    .await?;
    case.execute("SELECT pg_drop_replication_slot('away')").await
}

#[tokio::test]
async fn a_broker_that_is_away_is_told_and_one_that_comes_back_is_read_again() -> Result<()> {
    let case = Case::on(stack().await?, "away", &[]).await?;
    let worker = case.serving(&METRICS).await?;
    case.stack.nats().stop().await?;
    ready_says(&case, &worker, "the stream", true).await?;
    case.stack.nats().start().await?;
    ready_says(&case, &worker, "the stream", false).await?;
    case.publish(&Message::append("a", 1)).await?;
    case.applied("a", 1).await
}

#[tokio::test]
async fn a_stream_of_one_consumer_is_read_soon_after_a_worker_was_killed() -> Result<()> {
    let case = Case::new("one_consumer", &[]).await?;
    change(&case, |config| config.max_consumers = 1).await?;
    let before = case.serving_worker().await?;
    case.publish(&Message::append("a", 1)).await?;
    case.applied("a", 1).await?;
    before.kill().await?;
    let _after = case.serving_worker().await?;
    case.publish(&Message::append("a", 2)).await?;
    // JetStream itself would forget the old consumer after a minute.
    let began = std::time::Instant::now();
    case.applied("a", 2).await?;
    ensure!(began.elapsed() < DEADLINE / 2);
    Ok(())
}

#[tokio::test]
async fn a_question_with_a_line_break_in_it_is_answered_with_what_is_wrong() -> Result<()> {
    let case = Case::new("questions", &[]).await?;
    let worker = case.serving_worker().await?;
    // The service begins a moment after the worker serves.
    let known = Message::append("a", 1);
    case.publish(&known).await?;
    case.until("it answers", async || Ok(case.outcome(known.id).await?.is_some())).await?;
    let subject = format!("farwrite.{}.outcome", case.name);
    for question in ["{\"id\": \"a\\r\\nb\"}", "{\"a\\nb\": 1, \"id\": {}}", "\r\n"] {
        let answer = tokio::time::timeout(
            DEADLINE,
            case.client.request(subject.clone(), question.to_owned().into()),
        );
        let answer = answer.await??;
        let code = answer.headers.as_ref().and_then(|h| h.get("Nats-Service-Error-Code"));
        ensure!(code.is_some_and(|code| code.as_str() == "400"), "{answer:?}");
    }
    ensure!(!worker.log().contains("panicked"), "{}", worker.log_tail());
    Ok(())
}

#[tokio::test]
async fn a_header_that_only_looks_like_ours_and_a_body_nested_too_deeply_are_no_commands()
-> Result<()> {
    let case = Case::new("lookalikes", &[]).await?;
    let _worker = case.serving_worker().await?;
    let late = Message::append("a", 1);
    let mut headers: HeaderMap = late.headers()?;
    headers.insert("farwrite-expires-at", "1");
    let publishing = case.context.publish_with_headers(
        case.subject("app.append"),
        headers,
        late.body.clone().into(),
    );
    publishing.await?.await?;
    let deep = format!("{{\"n\": 1, \"deep\": {}{}}}", "[".repeat(400_000), "]".repeat(400_000));
    let deep = Message { body: deep, ..Message::append("a", 2) };
    case.publish(&deep).await?;
    case.publish(&Message::append("a", 3)).await?;
    case.applied("a", 3).await?;
    for (id, reason) in [(late.id, "bad_header"), (deep.id, "too_deep")] {
        let ended = case.ended(id).await?;
        ensure!(ended == ("dead_lettered".to_owned(), reason.to_owned()), "{ended:?}");
    }
    ensure!(case.effects().await?.get("a").context("no effects")? == &[3]);
    Ok(())
}
