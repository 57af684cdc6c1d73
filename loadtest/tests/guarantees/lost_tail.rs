//! A broker that lost its tail while lanes were apart: what any lane has passed, applied or moved
//! along, is proven before anything is read, and a refusal lasts until an operator decides.

use anyhow::{Result, ensure};
use farwrite_devstack::{Devstack, Program};
use farwrite_primary_worker::failpoint::VARIABLE;
use sqlx::PgConnection;

use crate::{
    broker::{new_case, stops, ten_and_ten},
    support::{Case, CopiedStore, DEADLINE, Message},
};

/// The first sequence that the older copy of the store does not hold.
const FIRST_LOST: u64 = 7;
/// The last one before the tail is lost.
const LAST: i64 = 26;

/// One lane is behind by twenty commands, and the others have moved along past them.
struct Apart {
    case: &'static Case,
    worker: Program,
    /// The store before the twenty commands.
    older: CopiedStore,
    /// Holds the row that the twenty commands need.
    holder: PgConnection,
}

async fn lanes_apart(name: &str) -> Result<Apart> {
    let case = new_case(name).await?;
    let before = case.serving_worker().await?;
    case.publish(&Message::append("held", 0)).await?;
    for n in 0..5 {
        case.publish(&Message::append("a", n)).await?;
    }
    case.settled().await?;
    ensure!(before.terminate(DEADLINE).await?.success());
    // The broker knows of the takeover before the last one.
    let older = CopiedStore::of(case, "older").await?;
    let worker = case.serving_worker().await?;
    let mut holder = case.primary().await?;
    let hold = "BEGIN; SELECT FROM app.keys WHERE key = 'held' FOR UPDATE";
    sqlx::raw_sql(hold).execute(&mut holder).await?;
    for n in 1..=20 {
        case.publish(&Message::append("held", n)).await?;
    }
    case.until("all lanes but one have moved along", async || {
        let moved = format!("SELECT count(*) FROM farwrite.lanes WHERE sequence = {LAST}");
        let mut connection = case.primary().await?;
        let moved: i64 =
            sqlx::query_scalar(sqlx::AssertSqlSafe(moved)).fetch_one(&mut connection).await?;
        Ok(moved == 7)
    })
    .await?;
    ensure!(case.count("SELECT min(sequence) FROM farwrite.lanes").await? == 6);
    Ok(Apart { case, worker, older, holder })
}

impl Apart {
    /// The worker's machine loses its power: what a lane had sent is not run to its end either.
    async fn kill_worker(&mut self) -> Result<()> {
        self.worker.kill().await?;
        let end = "SELECT pg_terminate_backend(pid, 60000) FROM pg_stat_activity
                   WHERE application_name LIKE 'farwrite-%' AND datname = current_database()";
        sqlx::raw_sql(end).execute(&mut self.holder).await?;
        Ok(())
    }
}

/// New commands of many keys, numbered.
async fn publish_new(case: &Case, numbers: std::ops::Range<i32>) -> Result<()> {
    for n in numbers {
        case.publish(&Message::append(&format!("new {}", n % 10), n)).await?;
    }
    Ok(())
}

/// The numbers that were applied of the new commands.
async fn applied_new(case: &Case) -> Result<Vec<i32>> {
    let effects = case.effects().await?.into_iter().filter(|(key, _)| key.starts_with("new "));
    let mut numbers: Vec<i32> = effects.flat_map(|(_, numbers)| numbers).collect();
    numbers.sort_unstable();
    Ok(numbers)
}

#[tokio::test]
async fn commands_that_take_the_sequences_of_a_lost_tail_are_never_skipped() -> Result<()> {
    let mut apart = lanes_apart("skipped").await?;
    apart.case.stack.nats().kill().await?;
    apart.kill_worker().await?;
    let Apart { case, older, .. } = apart;
    older.put_back().await?;
    publish_new(case, 0..30).await?;
    stops(&case.worker()?, "its message 26 is another one than the one").await?;
    publish_new(case, 30..60).await?;
    stops(&case.worker()?, "stays refused until an operator decides").await?;
    ensure!(applied_new(case).await?.is_empty());
    let status = case.run("status", &[]).await?.ended(1)?;
    ensure!(status.out.contains("PROBLEM") && status.out.contains("adopt-stream"), "{status:?}");
    // The broker away, or another one, hides nothing.
    let away = [("FARWRITE_NATS_URL", "nats://127.0.0.1:1")];
    let status = case.run_with("status", &[], &away).await?.ended(1)?;
    ensure!(status.out.contains("its message 26 is another one"), "{status:?}");
    let from = FIRST_LOST.to_string();
    let adopt = ["--from", &from, "--reason", "the broker's disk was lost"];
    case.run("adopt-stream", &adopt).await?.ended(0)?;
    let worker = case.serving_worker().await?;
    case.settled().await?;
    ensure!(applied_new(case).await? == (0..60).collect::<Vec<_>>());
    ensure!(case.effects().await?["a"] == [0, 1, 2, 3, 4]);
    case.check_model().await?;
    case.run("status", &[]).await?.ended(0)?;
    ensure!(worker.terminate(DEADLINE).await?.success());
    let _worker = case.serving_worker().await?;
    Ok(())
}

#[tokio::test]
async fn what_a_running_worker_has_read_of_a_lost_tail_is_applied_before_it_refuses_the_stream()
-> Result<()> {
    let Apart { case, worker, older, holder } = lanes_apart("read_out").await?;
    older.put_back().await?;
    let refuses = "what was read of the stream before is applied";
    case.until("it has noticed", async || Ok(worker.log().contains(refuses))).await?;
    drop(holder);
    stops(&worker, "it ends at sequence 6, and commands up to 26").await?;
    ensure!(case.effects().await?["held"] == (0..=20).collect::<Vec<_>>());
    publish_new(case, 0..30).await?;
    stops(&case.worker()?, "its tail is lost").await?;
    case.run("adopt-stream", &["--from", "first", "--reason", "by test"]).await?.ended(0)?;
    let _worker = case.serving_worker().await?;
    case.settled().await?;
    ensure!(applied_new(case).await? == (0..30).collect::<Vec<_>>());
    ensure!(case.effects().await?["held"] == (0..=20).collect::<Vec<_>>());
    Ok(())
}

#[tokio::test]
async fn another_number_of_lanes_forgets_nothing_that_was_passed() -> Result<()> {
    let mut apart = lanes_apart("relaned").await?;
    apart.kill_worker().await?;
    let Apart { case, older, .. } = apart;
    let lanes = ["--lanes", "3"];
    let takes_over = case.spawn("run", &lanes, &[(VARIABLE, "after_takeover:1")])?;
    takes_over.wait(DEADLINE).await?;
    let highest = case.count("SELECT max(sequence) FROM farwrite.lanes").await?;
    ensure!(highest == 6, "{highest}\n{}", takes_over.log_tail());
    older.put_back().await?;
    stops(&case.spawn("run", &lanes, &[])?, "it ends at sequence 6, and commands up to 26").await?;
    publish_new(case, 0..30).await?;
    case.run("adopt-stream", &["--from", "first", "--reason", "by test"]).await?.ended(0)?;
    let _worker = case.serving(&lanes).await?;
    case.settled().await?;
    ensure!(applied_new(case).await? == (0..30).collect::<Vec<_>>());
    case.check_model().await
}

#[tokio::test]
async fn a_refusal_lasts_until_an_operator_adopts_however_the_stream_looks() -> Result<()> {
    let case = new_case("refused").await?;
    let worker = case.serving_worker().await?;
    let older = ten_and_ten(case).await?;
    ensure!(worker.terminate(DEADLINE).await?.success());
    let right = CopiedStore::of(case, "right").await?;
    older.put_back().await?;
    stops(&case.worker()?, "its tail is lost").await?;
    right.put_back().await?;
    stops(&case.worker()?, "stays refused until an operator decides").await?;
    case.run("status", &[]).await?.ended(1)?;
    let checked = case.run("migrate", &["--check"]).await?.ended(4)?;
    ensure!(checked.out.contains("stays refused"), "{checked:?}");
    case.run("migrate", &[]).await?.ended(0)?;
    stops(&case.worker()?, "its tail is lost").await?;
    case.run("adopt-stream", &["--from", "21", "--reason", "by test"]).await?.ended(0)?;
    let worker = case.serving_worker().await?;
    case.publish(&Message::append("a", 20)).await?;
    case.settled().await?;
    ensure!(case.effects().await?["a"] == (0..=20).collect::<Vec<_>>());
    ensure!(worker.terminate(DEADLINE).await?.success());
    let _worker = case.serving_worker().await?;
    Ok(())
}

#[tokio::test]
async fn a_worker_with_another_brokers_url_refuses_nothing_for_the_owner() -> Result<()> {
    let case = new_case("beside").await?;
    let worker = case.serving_worker().await?;
    let older = ten_and_ten(case).await?;
    let other = Devstack::builder().regions(["home"]).start().await?;
    other.nats().stop().await?;
    older.put_into(&other.nats().store())?;
    other.nats().start().await?;
    let there = other.nats_urls();
    stops(&case.spawn("run", &[], &[("FARWRITE_NATS_URL", &there)])?, "its tail is lost").await?;
    ensure!(
        case.count("SELECT count(*) FROM farwrite.streams WHERE refused IS NOT NULL").await? == 0
    );
    case.publish(&Message::append("a", 20)).await?;
    case.settled().await?;
    ensure!(worker.terminate(DEADLINE).await?.success());
    let _worker = case.serving_worker().await?;
    Ok(())
}
