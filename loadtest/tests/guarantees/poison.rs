//! Commands that take their backend down, or its memory; and a primary that fails while innocent
//! commands run. On servers of their own: these go down with them.

use std::time::Duration;

use anyhow::{Result, ensure};
use farwrite_devstack::{Devstack, Program};
use farwrite_schemas::CommandId;
use tokio::sync::OnceCell;

use crate::support::{Case, Message};

static STACK: OnceCell<Devstack> = OnceCell::const_new();

async fn stack() -> Result<&'static Devstack> {
    STACK.get_or_try_init(|| Devstack::builder().start()).await
}

/// `app.crash` kills its backend, and the whole server restarts with it.
const CRASH: &str = "
    CREATE TABLE app.nothing (n integer);
    CREATE FUNCTION app.crash(body jsonb) RETURNS void LANGUAGE plpgsql AS $$
    BEGIN COPY app.nothing TO PROGRAM 'kill -9 $PPID'; END $$;
    SELECT farwrite.register('app.crash', 'app.crash(jsonb)');";

/// Publishes a poisonous command among good ones: before it, behind it in its key, and of other
/// keys. All others are applied, and the poisonous one is found.
async fn is_found(case: &Case, poison: &str) -> Result<()> {
    let mut poisonous = None;
    for n in 0..30 {
        case.publish(&Message::append("a", n)).await?;
        case.publish(&Message::append("b", n)).await?;
        if n == 20 {
            let message = Message::append("a", n).named(poison);
            poisonous = Some(message.id);
            case.publish(&message).await?;
        }
    }
    let worker = case.worker()?;
    let Some(id) = poisonous else { anyhow::bail!("nothing was published") };
    let ended = found(case, &worker, id).await?;
    ensure!(
        ended == ("dead_lettered".to_owned(), "took_the_primary_down".to_owned()),
        "{ended:?}\n{}",
        worker.log_tail()
    );
    case.settled().await?;
    for key in ["a", "b"] {
        ensure!(case.effects().await?[key] == (0..30).collect::<Vec<i32>>());
    }
    ensure!(case.count("SELECT count(*) FROM farwrite.dead_letters").await? == 1);
    Ok(())
}

#[tokio::test]
async fn a_command_that_kills_its_backend_and_one_that_eats_its_memory_are_found() -> Result<()> {
    let case = Case::on(stack().await?, "crashes", &[]).await?;
    case.execute(CRASH).await?;
    is_found(&case, "app.crash").await?;
    // Out of shared memory is out of memory (53200): the table of locks is full.
    let case = Case::on(stack().await?, "memory", &[]).await?;
    let sql = "CREATE FUNCTION app.hoard(body jsonb) RETURNS void LANGUAGE plpgsql AS $$
               BEGIN PERFORM pg_advisory_xact_lock(n) FROM generate_series(1, 1000000) n; END $$;
               SELECT farwrite.register('app.hoard', 'app.hoard(jsonb)')";
    case.execute(sql).await?;
    is_found(&case, "app.hoard").await
}

#[tokio::test]
async fn what_is_under_way_in_other_lanes_is_not_blamed_for_a_poisonous_command() -> Result<()> {
    // Not the one that the others take down.
    let stack = Box::leak(Box::new(Devstack::builder().start().await?));
    let case = Case::on(stack, "innocents", &[]).await?;
    case.execute(CRASH).await?;
    let slow = "CREATE FUNCTION app.slow(body jsonb, meta farwrite.meta) RETURNS jsonb LANGUAGE plpgsql AS $$
                BEGIN PERFORM pg_sleep(0.3); RETURN app.append(body, meta); END $$;
                SELECT farwrite.register('app.slow', 'app.slow(jsonb, farwrite.meta)')";
    case.execute(slow).await?;
    let poison = Message::append("poison", 0).named("app.crash");
    case.publish(&poison).await?;
    // The first command of every lane, in all likelihood.
    for key in 0..24 {
        case.publish(&Message::append(&format!("key {key}"), 0).named("app.slow")).await?;
    }
    let worker = case.worker()?;
    let ended = found(&case, &worker, poison.id).await?;
    ensure!(ended.1 == "took_the_primary_down", "{ended:?}\n{}", worker.log_tail());
    case.settled().await?;
    let letters = case.count("SELECT count(*) FROM farwrite.dead_letters").await?;
    ensure!(letters == 1, "{letters} commands were blamed\n{}", worker.log_tail());
    ensure!(case.effects().await?.len() == 24);
    Ok(())
}

/// How a command ended. The connection that asks goes down with the server.
async fn found(case: &Case, worker: &Program, id: CommandId) -> Result<(String, String)> {
    let mut ended = case.ended(id).await;
    while ended.as_ref().is_err_and(|error| error.is::<sqlx::Error>()) && worker.status()?.is_none()
    {
        ended = case.ended(id).await;
    }
    ended
}

/// `app.poll` asks to be tried later, for as long as `app.open` is empty.
const POLL: &str = "
    CREATE TABLE app.open (n integer);
    CREATE FUNCTION app.poll(body jsonb, meta farwrite.meta) RETURNS jsonb LANGUAGE plpgsql AS $$
    BEGIN
        IF NOT EXISTS (SELECT FROM app.open) THEN
            PERFORM farwrite.try_later('50 milliseconds');
        END IF;
        RETURN app.append(body, meta);
    END $$;
    SELECT farwrite.register('app.poll', 'app.poll(jsonb, farwrite.meta)');";

#[tokio::test]
async fn a_command_that_came_to_an_end_before_each_kill_is_not_blamed_for_them() -> Result<()> {
    let case = Case::new("polls", &[]).await?;
    case.execute(POLL).await?;
    let polls = Message::append("a", 1).named("app.poll");
    case.publish(&polls).await?;
    for _ in 0..6 {
        let worker = case.serving(&["--lanes", "1"]).await?;
        tokio::time::sleep(Duration::from_millis(600)).await;
        worker.kill().await?;
    }
    let _worker = case.serving(&["--lanes", "1"]).await?;
    case.execute("INSERT INTO app.open VALUES (1)").await?;
    let ended = case.ended(polls.id).await?;
    ensure!(ended.0 == "applied", "{ended:?}");
    Ok(())
}

#[tokio::test]
async fn a_poisonous_command_is_found_beside_one_that_is_tried_again_and_again() -> Result<()> {
    // Not the one that the others take down.
    let stack = Box::leak(Box::new(Devstack::builder().start().await?));
    let case = Case::on(stack, "two_suspects", &[]).await?;
    case.execute(POLL).await?;
    case.execute(CRASH).await?;
    let worker = case.serving(&["--lanes", "1"]).await?;
    case.publish(&Message::append("a", 1).named("app.poll")).await?;
    case.parked("later", 1).await?;
    let poison = Message::append("b", 1).named("app.crash");
    case.publish(&poison).await?;
    let ended = found(&case, &worker, poison.id).await?;
    ensure!(ended.1 == "took_the_primary_down", "{ended:?}\n{}", worker.log_tail());
    Ok(())
}

/// `app.linger` says that it runs, and takes its time until `app.open` has a row.
const LINGER: &str = "
    CREATE TABLE app.open (n integer);
    CREATE FUNCTION app.linger(body jsonb, meta farwrite.meta) RETURNS jsonb LANGUAGE plpgsql AS $$
    BEGIN
        WHILE NOT EXISTS (SELECT FROM app.open) LOOP
            PERFORM pg_sleep(0.01);
        END LOOP;
        RETURN app.append(body, meta);
    END $$;
    SELECT farwrite.register('app.linger', 'app.linger(jsonb, farwrite.meta)');";

#[tokio::test]
async fn a_function_is_not_blamed_for_a_worker_that_falls_while_it_runs() -> Result<()> {
    let case = Case::new("falls", &[]).await?;
    case.execute(LINGER).await?;
    let lingers = Message::append("a", 1).named("app.linger");
    case.publish(&lingers).await?;
    for fall in 0..5 {
        let worker = case.serving(&["--lanes", "1"]).await?;
        case.until("it runs, alone after the first fall", async || {
            let running = case.count(
                "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()
                 AND wait_event = 'PgSleep'",
            );
            let counted = case.count("SELECT count(*) FROM farwrite.lanes WHERE suspects <> '{}'");
            Ok(running.await? == 1 && (fall == 0 || counted.await? == 1))
        })
        .await?;
        worker.kill().await?;
    }
    let _worker = case.serving(&["--lanes", "1"]).await?;
    case.execute("INSERT INTO app.open VALUES (1)").await?;
    let ended = case.ended(lingers.id).await?;
    ensure!(ended.0 == "applied", "{ended:?}");
    Ok(())
}
