//! Which database is this? Copies, dumps, clones, subscribers and upgraded clusters hold the rows of a
//! database without being it: a row of the table in `docs/failover.md` each.

use std::{process::Stdio, time::Duration};

use anyhow::{Context, Result, bail, ensure};
use farwrite_devstack::{Devstack, Program, Tools};
use farwrite_producer::{Bookmark, BookmarkError, Limits, Producer, ReadsFrom, WaitError};
use sqlx::AssertSqlSafe;

use crate::support::{Append, Case, DEADLINE};

/// Long enough for a false answer to come.
const A_WHILE: Duration = Duration::from_secs(1);

const SERVES: &str = " serving epoch=";
const ANOTHER: &str = "another database wrote the rows of this one";
/// What the broker's record makes a worker say.
const NAMED: &str = "a worker has served another database of this name";

fn append(n: i32) -> Append {
    Append { key: "a".to_owned(), n }
}

/// A worker on a database of the primary's server, which has another name there than in subjects.
fn worker_on(case: &Case, url: &str) -> Result<Program> {
    case.spawn("run", &[], &[("FARWRITE_DATABASE_URL", url)])
}

async fn said(case: &Case, worker: &Program, what: &str) -> Result<()> {
    case.until(what, async || Ok(worker.log().contains(what)))
        .await
        .with_context(|| worker.log_tail())
}

/// It ends, and says why.
async fn refuses(case: &Case, url: &str, what: &str) -> Result<()> {
    let worker = worker_on(case, url)?;
    let status = worker.wait(DEADLINE).await?;
    ensure!(status.code() == Some(2), "{status}\n{}", worker.log_tail());
    ensure!(worker.log().contains(what), "{}", worker.log_tail());
    Ok(())
}

/// `adopt-database` on a URL, which ends with a status and says something.
async fn adopt(case: &Case, url: &str, flags: &[&str], code: i32, says: &str) -> Result<()> {
    let flags: Vec<&str> = ["--reason", "a test"].iter().chain(flags).copied().collect();
    let environment = [("FARWRITE_DATABASE_URL", url)];
    let ran = case.run_with("adopt-database", &flags, &environment).await?.ended(code)?;
    ensure!(format!("{ran:?}").contains(says), "{says:?} is not in {ran:?}");
    Ok(())
}

/// A producer whose reads are on a URL.
async fn reading(case: &Case, url: &str) -> Result<Producer> {
    let builder = Producer::builder(case.name.parse()?, "ewr".parse()?)
        .nats_url(case.stack.nats().url())
        .reads(ReadsFrom::primary(url.to_owned()))
        .limits(Limits::default().timeout(DEADLINE));
    Ok(builder.connect().await?)
}

/// What a failed wait ended with.
async fn why(producer: &Producer, bookmark: &Bookmark, within: Duration) -> Result<WaitError> {
    match producer.wait_within(bookmark, within).await {
        Err(BookmarkError::Wait(error)) => Ok(*error),
        other => bail!("not a failed wait: {other:?}"),
    }
}

/// The rows are not believed, and it is said why.
async fn is_not_believed(case: &Case, url: &str, bookmark: &Bookmark) -> Result<()> {
    let producer = reading(case, url).await?;
    let error = why(&producer, bookmark, A_WHILE).await?;
    let WaitError::TimedOut { seen, .. } = &error else { bail!("{error:?}") };
    let unreadable = seen.unreadable.as_deref().unwrap_or_default();
    ensure!(unreadable.contains("another database wrote these rows"), "{error:?}");
    let mut connection = producer.reads()?.acquire().await?;
    ensure!(producer.bookmark(&mut connection).await?.is_none(), "a bookmark of another database");
    Ok(())
}

/// How many commands had effects in a database.
async fn effects(case: &Case, database: &str) -> Result<i64> {
    let mut there = case.stack.primary().connect(database).await?;
    Ok(sqlx::query_scalar("SELECT count(*) FROM app.effects").fetch_one(&mut there).await?)
}

/// What `pg_dump` writes of a database, as statements.
async fn dump(case: &Case) -> Result<String> {
    let mut command = tokio::process::Command::new(Tools::locate()?.pg_bin.join("pg_dump"));
    command.args(["--inserts", "--no-owner", &case.stack.primary().url(&case.name)]);
    let output = command.stdin(Stdio::null()).output().await?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout)?;
    let statements = text.lines().filter(|line| !line.starts_with('\\'));
    Ok(statements.collect::<Vec<_>>().join("\n"))
}

async fn restore(case: &Case, database: &str, dump: &str) -> Result<()> {
    let mut there = case.stack.primary().connect(database).await?;
    sqlx::raw_sql(AssertSqlSafe(dump.to_owned())).execute(&mut there).await?;
    Ok(())
}

#[tokio::test]
async fn a_copy_and_a_dump_are_other_databases_and_leave_the_original_alone() -> Result<()> {
    let case = Case::new("copied", &[]).await?;
    let worker = case.serving_worker().await?;
    let producer = case.producer("ewr").await?;
    producer.submit(&append(1)).await?;
    let dumped = dump(&case).await?;
    drop(producer);
    ensure!(worker.terminate(DEADLINE).await?.success());
    let (copy, dump) = (format!("{}_copy", case.name), format!("{}_dump", case.name));
    let primary = case.stack.primary();
    let sql = format!(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{}'",
        case.name
    );
    primary.execute("postgres", &sql).await?;
    let sql = format!("CREATE DATABASE \"{copy}\" TEMPLATE \"{}\"", case.name);
    primary.execute("postgres", &sql).await?;
    primary.create_database(&dump).await?;
    restore(&case, &dump, &dumped).await?;
    // Of several servers the one that wrote its rows is the primary.
    let both = format!("{},{}", primary.url(&case.name), primary.url(&copy));
    let worker = worker_on(&case, &both)?;
    said(&case, &worker, SERVES).await?;
    ensure!(worker.terminate(DEADLINE).await?.success());
    let worker = case.serving_worker().await?;
    let producer = case.producer("ewr").await?;
    let written = producer.write(&append(2)).await?.bookmark;
    for other in [&copy, &dump] {
        let url = primary.url(other);
        is_not_believed(&case, &url, &written).await?;
        refuses(&case, &url, ANOTHER).await?;
        adopt(&case, &url, &[], 1, "the broker names another database").await?;
        ensure!(effects(&case, other).await? == 1);
    }
    producer.write(&append(3)).await?;
    ensure!(!worker.log().contains("the broker names another worker"), "{}", worker.log_tail());
    // An operator may do it all the same; the original takes its name back.
    let url = primary.url(&copy);
    adopt(&case, &url, &["--replace"], 0, "bookmarks of that are superseded").await?;
    let there = worker_on(&case, &url)?;
    said(&case, &there, SERVES).await?;
    said(&case, &worker, NAMED).await?;
    case.until("the copy has applied all", async || Ok(effects(&case, &copy).await? == 3)).await?;
    there.kill().await?;
    adopt(&case, &primary.url(&case.name), &["--replace"], 0, "the broker names it").await?;
    producer.write(&append(4)).await?;
    ensure!(effects(&case, &case.name).await? == 4);
    Ok(())
}

#[tokio::test]
async fn a_dump_that_is_restored_into_the_same_name_waits_for_an_operator_and_loses_nothing()
-> Result<()> {
    for (test, is_new_database) in [("restored", false), ("recreated", true)] {
        let case = Case::new(test, &[]).await?;
        let primary = case.stack.primary();
        let url = primary.url(&case.name);
        let worker = case.serving_worker().await?;
        let producer = case.producer("ewr").await?;
        producer.write(&append(1)).await?;
        let dumped = dump(&case).await?;
        let before = producer.write(&append(2)).await?.bookmark;
        ensure!(worker.terminate(DEADLINE).await?.success());
        // It has watched the database all the time, and goes on.
        let witness = producer;
        witness.wait_within(&before, DEADLINE).await?;
        if is_new_database {
            let sql = format!("DROP DATABASE \"{}\" WITH (FORCE)", case.name);
            primary.execute("postgres", &sql).await?;
            primary.create_database(&case.name).await?;
        } else {
            case.execute("DROP SCHEMA farwrite CASCADE; DROP SCHEMA app CASCADE").await?;
        }
        restore(&case, &case.name, &dumped).await?;
        let error = why(&witness, &before, A_WHILE).await?;
        ensure!(matches!(error, WaitError::TimedOut { .. }), "{error:?}");
        is_not_believed(&case, &url, &before).await?;
        refuses(&case, &url, ANOTHER).await?;
        adopt(&case, &url, &[], 1, "the broker names another database").await?;
        adopt(&case, &url, &["--replace"], 0, "bookmarks of that are superseded").await?;
        let _worker = case.serving_worker().await?;
        let written = witness.write(&append(3)).await?;
        ensure!(written.output.place == 3, "what the dump lacks was not applied again first");
        let error = why(&witness, &before, DEADLINE).await?;
        ensure!(matches!(error, WaitError::Superseded { .. }), "{error:?}");
        // Also where a replica is read.
        let near = case.producer("jfk").await?;
        near.write(&append(4)).await?;
        let error = why(&near, &before, DEADLINE).await?;
        ensure!(matches!(error, WaitError::Superseded { .. }), "{error:?}");
    }
    Ok(())
}

#[tokio::test]
async fn after_a_failover_and_an_upgrade_timelines_begin_anew_and_every_write_is_visible()
-> Result<()> {
    let case = Case::new("upgraded", &[]).await?;
    let primary = case.stack.primary();
    let worker = case.serving_worker().await?;
    let producer = case.producer("ewr").await?;
    let before = producer.write(&append(1)).await?.bookmark;
    ensure!(worker.terminate(DEADLINE).await?.success());
    drop(producer);
    // A takeover after a failover. A cluster that was upgraded afterwards is on timeline 1 again.
    case.execute(
        "SELECT farwrite.begin_epoch(gen_random_uuid(), epoch, NULL, 2) FROM farwrite.owner",
    )
    .await?;
    let upgraded = format!("{}_new", case.name);
    let sql = format!(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{}'",
        case.name
    );
    primary.execute("postgres", &sql).await?;
    let sql = format!("CREATE DATABASE \"{upgraded}\" TEMPLATE \"{}\"", case.name);
    primary.execute("postgres", &sql).await?;
    let url = primary.url(&upgraded);
    refuses(&case, &url, ANOTHER).await?;
    adopt(&case, &url, &["--replace"], 0, "the broker names it").await?;
    let worker = worker_on(&case, &url)?;
    said(&case, &worker, SERVES).await?;
    let producer = reading(&case, &url).await?;
    for n in 2..5 {
        producer.write(&append(n)).await?;
    }
    let error = why(&producer, &before, DEADLINE).await?;
    ensure!(matches!(error, WaitError::Superseded { .. }), "{error:?}");
    Ok(())
}

#[tokio::test]
async fn a_logical_subscriber_is_no_replica_and_a_clone_gives_the_name_back() -> Result<()> {
    let stack = Devstack::builder().regions(["ewr", "jfk"]).setting("wal_level", "logical");
    let stack = Box::leak(Box::new(stack.start().await?));
    let case = Case::on(stack, "cloned", &[]).await?;
    let (ewr, jfk) = (stack.server("ewr")?, stack.server("jfk")?);
    let worker = case.serving_worker().await?;
    let producer = case.producer("ewr").await?;
    producer.write(&append(1)).await?;
    // A subscriber of everything that a replica would show.
    let subscriber = format!("{}_sub", case.name);
    let url = ewr.url(&subscriber);
    ewr.create_database(&subscriber).await?;
    case.run_with("migrate", &[], &[("FARWRITE_DATABASE_URL", &url)]).await?.ended(0)?;
    ewr.execute(&subscriber, "CREATE SCHEMA app; CREATE TABLE app.effects (key text, place integer, command_id uuid, n integer)").await?;
    case.execute("CREATE PUBLICATION p FOR TABLE farwrite.owner, farwrite.history, app.effects")
        .await?;
    case.execute("SELECT pg_create_logical_replication_slot('s', 'pgoutput')").await?;
    let sockets = stack.primary().url(&case.name);
    let host = sockets.split("host=").nth(1).context("no socket")?;
    let sql = format!(
        "CREATE SUBSCRIPTION s CONNECTION 'host={host} dbname={} user=postgres' PUBLICATION p WITH (create_slot = false)",
        case.name
    );
    ewr.execute(&subscriber, &sql).await?;
    let mut there = ewr.connect(&subscriber).await?;
    case.until("the subscriber has all rows", async || {
        let sql = "SELECT (SELECT count(*) FROM app.effects) = 1 AND (SELECT count(*) FROM farwrite.owner) = 1
                   AND (SELECT count(*) FROM farwrite.history) = 1";
        Ok(sqlx::query_scalar(sql).fetch_one(&mut there).await?)
    })
    .await?;
    ewr.execute(&subscriber, "ALTER SUBSCRIPTION s DISABLE").await?;
    let written = producer.write(&append(2)).await?.bookmark;
    is_not_believed(&case, &url, &written).await?;

    // A replica that was promoted for another purpose, which is what a failover looks like.
    jfk.wait_caught_up(ewr, DEADLINE).await?;
    stack.promote("jfk").await?;
    let clone = worker_on(&case, &jfk.url(&case.name))?;
    said(&case, &clone, SERVES).await?;
    said(&case, &worker, "has served timeline 2").await?;
    producer.submit(&append(3)).await?;
    clone.kill().await?;
    // It was not: the original takes its name back, and applies what the stream holds.
    adopt(&case, &ewr.url(&case.name), &[], 0, "the broker names it").await?;
    case.until("the original goes on", async || Ok(effects(&case, &case.name).await? == 3)).await?;
    producer.write(&append(4)).await?;
    // A clone that an operator has called another database is one everywhere.
    let theirs = jfk.url(&case.name);
    adopt(&case, &theirs, &["--new-incarnation"], 1, "the broker names another database").await?;
    jfk.execute(&case.name, "SELECT farwrite.adopt_database(true, 'staging')").await?;
    let clone = worker_on(&case, &theirs)?;
    said(&case, &clone, NAMED).await?;
    let reader = reading(&case, &theirs).await?;
    let error = why(&reader, &written, DEADLINE).await?;
    ensure!(matches!(error, WaitError::Superseded { .. }), "{error:?}");
    producer.write(&append(5)).await?;
    ensure!(effects(&case, &case.name).await? == 5);
    Ok(())
}

#[tokio::test]
async fn a_server_that_was_put_back_on_its_own_timeline_waits_for_an_operator_and_loses_nothing()
-> Result<()> {
    let case = Case::new("put_back", &[]).await?;
    let url = case.stack.primary().url(&case.name);
    let worker = case.serving_worker().await?;
    let producer = case.producer("ewr").await?;
    producer.write(&append(1)).await?;
    // What a snapshot of the server's disk would hold, here of the tables that matter.
    case.settled().await?;
    case.execute("CREATE TABLE lanes AS TABLE farwrite.lanes").await?;
    producer.submit(&append(2)).await?;
    let lost = producer.submit(&append(3)).await?.bookmark;
    let hints = case.context.get_stream(format!("farwrite-{}-hints", case.name)).await?;
    case.until("the broker is told", async || {
        let subject = format!("farwrite.{0}.hint.farwrite-{0}", case.name);
        let told = hints.get_last_raw_message_by_subject(&subject).await;
        Ok(told.is_ok_and(|told| String::from_utf8_lossy(&told.payload).contains("\"passed\":3}}")))
    })
    .await?;
    ensure!(worker.terminate(DEADLINE).await?.success());
    case.execute(
        "BEGIN; DELETE FROM farwrite.lanes; INSERT INTO farwrite.lanes TABLE lanes;
         DELETE FROM farwrite.ledger WHERE sequence > 1; DELETE FROM app.effects WHERE place > 1;
         UPDATE app.keys SET effects = 1; COMMIT",
    )
    .await?;
    refuses(&case, &url, "the server was put back from an older copy").await?;
    ensure!(effects(&case, &case.name).await? == 1);
    let flags = ["--new-incarnation", "--replace"];
    adopt(&case, &url, &flags, 0, "bookmarks of that are superseded").await?;
    let _worker = case.serving_worker().await?;
    let written = producer.write(&append(4)).await?;
    ensure!(written.output.place == 4, "what was lost was not applied again first");
    // As after the server's start, which a copy of its disk goes through.
    let producer = case.producer("ewr").await?;
    let error = why(&producer, &lost, DEADLINE).await?;
    ensure!(matches!(error, WaitError::Superseded { .. }), "{error:?}");
    Ok(())
}

#[tokio::test]
async fn a_watcher_of_another_database_that_speaks_for_a_region_is_passed_over() -> Result<()> {
    let stack = Devstack::builder().regions(["ewr", "jfk"]).start().await?;
    let stack = Box::leak(Box::new(stack));
    let (case, other) =
        (Case::on(stack, "heard", &[]).await?, Case::on(stack, "other", &[]).await?);
    let (_worker, _theirs) = (case.serving_worker().await?, other.serving_worker().await?);
    let (ewr, jfk) = (stack.server("ewr")?, stack.server("jfk")?);
    jfk.wait_caught_up(ewr, DEADLINE).await?;
    let _watcher = case.watcher("jfk")?;
    let app = async || {
        let builder = Producer::builder(case.name.parse()?, "jfk".parse()?)
            .nats_url(stack.nats_url("jfk")?)
            .reads(ReadsFrom::replica(jfk.url(&case.name)).over_nats())
            .limits(Limits::default().timeout(DEADLINE));
        anyhow::Ok(builder.connect().await?)
    };
    let producer = app().await?;
    let first = producer.write(&append(1)).await?.bookmark;
    // Watchers by mistake: of another database, ahead of the replica, and of none. And a message of nobody.
    let mut strangers = Vec::new();
    for database in [&other.name, "postgres"] {
        let mut command = std::process::Command::new(farwrite_loadtest::kit::program("farwrite")?);
        command.args(["watcher", "run", "--database", &case.name, "--region", "jfk"]);
        command.args(["--nats-url", &stack.nats_urls(), "--metrics-addr", "127.0.0.1:0"]);
        command.args(["--replica-url", &ewr.url(database)]);
        let stranger = stack.spawn(command, &format!("watcher-{database}"))?;
        said(&case, &stranger, "are served addr=").await?;
        strangers.push(stranger);
    }
    let subject = format!("farwrite.{}.progress.jfk", case.name);
    let mut heard = case.client.subscribe(subject.clone()).await?;
    jfk.pause_replay().await?;
    let written = producer.submit(&append(2)).await?.bookmark;
    let forging = async {
        while let Some(message) = futures_util::StreamExt::next(&mut heard).await {
            let mut progress: serde_json::Value = serde_json::from_slice(&message.payload)?;
            if progress["in_recovery"] == true && progress["replayed"] != "FFFFFFF/0" {
                progress["replayed"] = "FFFFFFF/0".into();
                case.client.publish(subject.clone(), progress.to_string().into()).await?;
            }
        }
        anyhow::Ok(())
    };
    let error = tokio::select! {
        ended = forging => bail!("{ended:?}"),
        error = why(&producer, &written, A_WHILE) => error?,
    };
    ensure!(matches!(error, WaitError::TimedOut { .. }), "{error:?}");
    jfk.resume_replay().await?;
    for bookmark in [&first, &written] {
        producer.wait_within(bookmark, DEADLINE).await?;
    }
    producer.write(&append(3)).await?;
    // An app that has heard nobody yet.
    for _ in 0..10 {
        let newcomer = app().await?;
        newcomer.wait_within(&written, DEADLINE).await?;
    }
    ensure!(strangers.iter().all(|stranger| stranger.status().is_ok_and(|ended| ended.is_none())));
    Ok(())
}
