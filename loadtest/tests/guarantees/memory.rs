//! The worker's memory is bounded in bytes, whatever commands and answers are as large as.

use anyhow::{Context, Result, ensure};
use farwrite_devstack::Program;
use farwrite_schemas::Outcome;
use sqlx::Connection;

use crate::{
    sqlstates::longest_pause,
    support::{Case, Message},
};

/// Bytes of one body, a little less than the most that a command may have.
const BODY: usize = 950_000;
/// Commands in a test: a quarter of a gigabyte.
const COMMANDS: i32 = 270;
/// Mebibytes that the worker may hold.
const MEMORY_MB: &str = "16";
/// Mebibytes that its process may have had at most: what it holds and a few copies of what is applied, beside
/// 60 for an unoptimised program.
const PROCESS_MB: u64 = 120;

/// The most that a process has had in memory, in mebibytes.
fn peak_mb(program: &Program) -> Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{}/status", program.pid()))?;
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kb = peak.and_then(|peak| peak.split_whitespace().next()).context("no VmHWM")?;
    Ok(kb.parse::<u64>()? / 1_024)
}

async fn case(name: &str) -> Result<Case> {
    Case::new(name, &["--stream-max-bytes", "400000000"]).await
}

#[tokio::test]
async fn large_bodies_that_wait_are_not_in_the_workers_memory() -> Result<()> {
    let case = case("large_bodies").await?;
    let pad = "x".repeat(BODY);
    for n in 0..COMMANDS {
        let body = format!(r#"{{"n": {n}, "pad": "{pad}"}}"#);
        case.publish(&Message { body, ..Message::append(&format!("key {}", n % 40), n) }).await?;
    }
    // All lanes stand still, so that all of them are skipped and have readers of their own.
    let mut holder = case.primary().await?;
    let mut tx = holder.begin().await?;
    sqlx::raw_sql("LOCK TABLE app.keys").execute(&mut *tx).await?;
    let worker = case.serving(&["--memory-mb", MEMORY_MB, "--metrics-addr", "127.0.0.1:0"]).await?;
    case.until("most lanes are skipped", async || {
        let metrics = case.http(&worker, "/metrics").await?;
        let skipped =
            |line: &&str| line.starts_with("farwrite_worker_lane_skipped{") && line.ends_with(" 1");
        Ok(metrics.lines().filter(skipped).count() >= 6)
    })
    .await?;
    case.until("what is held is told", async || {
        let metrics = case.http(&worker, "/metrics").await?;
        let held = "farwrite_worker_held_bytes{holder=\"lanes\"} ";
        let held = metrics.lines().find_map(|line| line.strip_prefix(held));
        Ok(held.and_then(|held| held.parse::<f64>().ok()).is_some_and(|held| held > 1e6))
    })
    .await?;
    tx.rollback().await?;
    case.settled().await?;
    let effects: usize = case.effects().await?.values().map(Vec::len).sum();
    ensure!(effects == COMMANDS as usize, "{effects}");
    let peak = peak_mb(&worker)?;
    ensure!(peak < PROCESS_MB, "{peak} MiB at most\n{}", worker.log_tail());
    Ok(())
}

#[tokio::test]
async fn large_answers_are_not_all_in_the_workers_memory_and_can_be_asked_for() -> Result<()> {
    let case = case("large_answers").await?;
    case.execute(
        "CREATE FUNCTION app.tell(body jsonb) RETURNS text LANGUAGE sql AS $$ SELECT repeat('x', 900000) $$;
         SELECT farwrite.register('app.tell', 'app.tell(jsonb)')",
    )
    .await?;
    let reply = Some(format!("farwrite.{}.reply.jfk.nobody", case.name));
    let mut ids = Vec::new();
    for n in 0..COMMANDS {
        let told = Message::append(&format!("key {}", n % 40), n).named("app.tell");
        ids.push(told.id);
        case.publish(&Message { reply: reply.clone(), ..told }).await?;
    }
    let worker = case.serving(&["--memory-mb", MEMORY_MB]).await?;
    case.settled().await?;
    // Again: now they are answered from the ledger.
    for id in [ids[0], ids[COMMANDS as usize - 1]] {
        let reply = case.outcome(id).await?.map(|reply| reply.outcome);
        let told =
            matches!(&reply, Some(Outcome::Applied { output }) if output.get().len() > 900_000);
        ensure!(told, "the outcome is not told in whole");
    }
    let peak = peak_mb(&worker)?;
    ensure!(peak < PROCESS_MB, "{peak} MiB at most\n{}", worker.log_tail());
    Ok(())
}

#[tokio::test]
async fn large_bodies_of_one_key_hold_innocent_keys_up_for_a_moment_only() -> Result<()> {
    let case = case("large_beside").await?;
    let _worker = case.serving(&["--memory-mb", MEMORY_MB]).await?;
    let pad = "x".repeat(BODY);
    let trouble = async {
        for n in 0..COMMANDS / 3 {
            let body = format!(r#"{{"n": {n}, "pad": "{pad}"}}"#);
            case.publish(&Message { body, ..Message::append("large", n) }).await?;
        }
        case.applied("large", COMMANDS / 3 - 1).await
    };
    longest_pause(&case, trouble).await?;
    Ok(())
}

#[tokio::test]
async fn why_a_command_was_refused_is_told_however_full_the_room_is() -> Result<()> {
    let case = Case::new("refusals", &[]).await?;
    let told: Vec<Option<String>> = sqlx::query_scalar(
        "SELECT farwrite.shortened(ARRAY[repeat('x', 4194300), '{\"code\": \"refused\"}', '12345', NULL],
                                   ARRAY['applied', 'rejected', 'applied', NULL])",
    )
    .fetch_one(&mut case.primary().await?)
    .await?;
    ensure!(told[0].as_ref().is_some_and(|output| output.len() == 4_194_300), "it fits");
    let rest: Vec<_> = told[1..].iter().map(Option::as_deref).collect();
    ensure!(rest == [Some("{\"code\": \"refused\"}"), Some("#5"), None], "{rest:?}");
    Ok(())
}
