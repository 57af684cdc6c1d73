//! A broker that lost something, or is another one: the worker stops, and an operator decides.

use anyhow::{Result, ensure};
use farwrite_devstack::{Devstack, Program};

use crate::support::{Case, CopiedStore, DEADLINE, Message};

/// A stack of its own, whose broker is stopped and tampered with. The reaper ends it with this
/// process.
pub(crate) async fn new_case(name: &str) -> Result<&'static Case> {
    let stack = Devstack::builder().regions(["home"]).start().await?;
    let case = Case::on(Box::leak(Box::new(stack)), name, &[]).await?;
    Ok(Box::leak(Box::new(case)))
}

async fn publish(case: &Case, numbers: std::ops::Range<i32>) -> Result<()> {
    for n in numbers {
        case.publish(&Message::append("a", n)).await?;
    }
    Ok(())
}

/// The worker ends with status 4, and says why.
pub(crate) async fn stops(worker: &Program, reason: &str) -> Result<()> {
    let status = worker.wait(DEADLINE).await?;
    ensure!(status.code() == Some(4), "{status}\n{}", worker.log_tail());
    ensure!(worker.log().contains(reason), "{reason:?} is not in:\n{}", worker.log_tail());
    ensure!(worker.log().contains("adopt-stream"), "{}", worker.log_tail());
    Ok(())
}

async fn effects(case: &Case) -> Result<Vec<i32>> {
    Ok(case.effects().await?.remove("a").unwrap_or_default())
}

/// Ten commands are in a copy of the broker's store, ten more were applied after it was taken.
pub(crate) async fn ten_and_ten(case: &'static Case) -> Result<CopiedStore> {
    publish(case, 0..10).await?;
    case.settled().await?;
    let copied = CopiedStore::of(case, "copy").await?;
    publish(case, 10..20).await?;
    case.settled().await?;
    Ok(copied)
}

/// The copy is put back while the worker runs.
async fn put_back(name: &str) -> Result<(&'static Case, Program)> {
    let case = new_case(name).await?;
    let worker = case.serving_worker().await?;
    ten_and_ten(case).await?.put_back().await?;
    Ok((case, worker))
}

#[tokio::test]
async fn a_store_that_lost_its_tail_stops_a_worker_that_runs() -> Result<()> {
    let (case, worker) = put_back("tail").await?;
    stops(&worker, "its tail is lost").await?;
    // Sequences come a second time: nobody reads them before the operator has decided.
    publish(case, 20..25).await?;
    let again = case.worker()?;
    stops(&again, "its tail is lost").await?;
    ensure!(effects(case).await? == (0..20).collect::<Vec<_>>());
    let adopted = case.run("adopt-stream", &["--from", "first", "--reason", "restored"]).await?;
    let adopted = adopted.ended(0)?;
    ensure!(adopted.out.contains("goes on from sequence 1"), "{adopted:?}");
    let _worker = case.serving_worker().await?;
    case.settled().await?;
    ensure!(effects(case).await? == (0..25).collect::<Vec<_>>());
    let acts = "SELECT count(*) FROM farwrite.operations WHERE act = 'adopt_stream' AND reason = 'restored'";
    ensure!(case.count(acts).await? == 1);
    Ok(())
}

#[tokio::test]
async fn a_store_that_re_uses_sequences_stops_a_worker_that_runs() -> Result<()> {
    let case = new_case("re_used").await?;
    let worker = case.serving_worker().await?;
    let copied = ten_and_ten(case).await?;
    // While it cannot look, the store is put back and grows past where it was.
    worker.suspend()?;
    copied.put_back().await?;
    publish(case, 20..40).await?;
    worker.resume()?;
    stops(&worker, "is another one than the one").await?;
    ensure!(effects(case).await? == (0..20).collect::<Vec<_>>(), "it applied beside the gap");
    case.run("adopt-stream", &["--from", "first", "--reason", "by test"]).await?.ended(0)?;
    let _worker = case.serving_worker().await?;
    case.settled().await?;
    ensure!(effects(case).await? == (0..40).collect::<Vec<_>>());
    Ok(())
}

/// What was never applied has the sequences of what was: those may go, these must not.
#[tokio::test]
async fn a_store_that_re_uses_sequences_is_not_trimmed() -> Result<()> {
    let case = new_case("not_trimmed").await?;
    let gate = "
        CREATE FUNCTION gate() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN PERFORM pg_advisory_xact_lock_shared(7); RETURN NEW; END $$;
        CREATE TRIGGER gate BEFORE UPDATE OF trim_floor ON farwrite.streams
        FOR EACH ROW EXECUTE FUNCTION gate();";
    case.execute(gate).await?;
    let flags = ["--required-standbys", "none", "--trim-min-age-s", "0"];
    let worker = case.serving(&flags).await?;
    let copied = ten_and_ten(case).await?;
    let mut held = case.primary().await?;
    sqlx::query("SELECT pg_advisory_lock(7)").execute(&mut held).await?;
    let mut n = 20;
    case.until("it is about to trim", async || {
        publish(case, n..n + 1).await?;
        n += 1;
        let waits = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted";
        Ok(case.count(waits).await? == 1)
    })
    .await?;
    case.settled().await?;
    worker.suspend()?;
    sqlx::query("SELECT pg_advisory_unlock(7)").execute(&mut held).await?;
    copied.put_back().await?;
    publish(case, n..3 * n).await?;
    worker.resume()?;
    stops(&worker, "is another one than the one").await?;
    case.run("adopt-stream", &["--from", "first", "--reason", "by test"]).await?.ended(0)?;
    let _worker = case.serving(&flags).await?;
    case.settled().await?;
    ensure!(effects(case).await? == (0..3 * n).collect::<Vec<_>>());
    Ok(())
}

#[tokio::test]
async fn a_stream_that_is_gone_is_made_again_and_numbered_on() -> Result<()> {
    let case = new_case("gone").await?;
    let worker = case.serving_worker().await?;
    publish(case, 0..10).await?;
    case.settled().await?;
    let owned = case.run("adopt-stream", &["--from", "first", "--reason", "by test"]).await?;
    ensure!(owned.ended(1)?.err.contains("stop it first"));
    ensure!(worker.terminate(DEADLINE).await?.success());
    let exists = case.run("adopt-stream", &["--recreate", "--reason", "by test"]).await?;
    ensure!(exists.ended(1)?.err.contains("leave --recreate out"));
    let beyond = case.run("adopt-stream", &["--from", "17", "--reason", "by test"]).await?;
    ensure!(beyond.ended(2)?.err.contains("holds 1 to 10: go on from 1 to 11"));
    case.context.delete_stream(format!("farwrite-{}", case.name)).await?;
    let waiting = case.worker()?;
    case.until("it waits for the stream", async || Ok(waiting.log().contains("waiting, then")))
        .await?;
    ensure!(waiting.terminate(DEADLINE).await?.success());
    let missing = case.run("adopt-stream", &["--from", "first", "--reason", "by test"]).await?;
    ensure!(missing.ended(1)?.err.contains("say --recreate"));
    let silent = case.run("adopt-stream", &["--recreate", "--reason", " "]).await?;
    ensure!(silent.ended(2)?.err.contains("say why"));
    case.run("adopt-stream", &["--recreate", "--reason", "lost"]).await?.ended(0)?;
    let _worker = case.serving_worker().await?;
    let ack = case.publish(&Message::append("a", 10)).await?;
    ensure!(ack.sequence == 11, "{ack:?}");
    case.settled().await?;
    ensure!(effects(case).await? == (0..11).collect::<Vec<_>>());
    Ok(())
}

#[tokio::test]
async fn dead_letters_keep_their_place_when_sequences_come_again() -> Result<()> {
    let case = new_case("renumbered").await?;
    let worker = case.serving_worker().await?;
    let broken = || Message { body: "{".to_owned(), ..Message::append("a", 0) };
    publish(case, 1..3).await?;
    case.publish(&broken()).await?;
    let waits = Message::append("b", 1).at(farwrite_schemas::headers::NOT_BEFORE, 3_600_000);
    case.publish(&waits).await?;
    case.until("they have their places", async || {
        Ok(case.count("SELECT count(*) FROM farwrite.dead_letters").await? == 1
            && case.count("SELECT count(*) FROM farwrite.parked").await? == 1)
    })
    .await?;
    ensure!(worker.terminate(DEADLINE).await?.success());
    let name = format!("farwrite-{}", case.name);
    let config = case.context.get_stream(&name).await?.cached_info().config.clone();
    case.context.delete_stream(&name).await?;
    case.context.create_stream(config).await?;
    let other = case.worker()?;
    stops(&other, "not the one that this database knows").await?;
    let adopted = case.run("adopt-stream", &["--from", "first", "--reason", "by test"]).await?;
    ensure!(adopted.ended(0)?.out.contains("2 parked commands and dead letters were renumbered"));
    let _worker = case.serving_worker().await?;
    publish(case, 3..5).await?;
    case.publish(&broken()).await?;
    let later = Message::append("b", 2).at(farwrite_schemas::headers::NOT_BEFORE, 3_600_000);
    case.publish(&later).await?;
    case.until("both are there", async || {
        Ok(case.count("SELECT count(*) FROM farwrite.dead_letters").await? == 2
            && case.count("SELECT count(*) FROM farwrite.parked").await? == 2)
    })
    .await?;
    ensure!(effects(case).await? == [1, 2, 3, 4]);
    // What was renumbered is released like anything else.
    case.run("parked", &["release", "--all"]).await?.ended(0)?;
    case.settled().await?;
    ensure!(case.effects().await?["b"] == [1, 2]);
    Ok(())
}
