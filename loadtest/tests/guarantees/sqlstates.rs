//! Every error that PostgreSQL has, by its own list, raised by commands: nobody else's command waits for
//! it, and no accepted command is lost (invariants 5 and 6).

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use farwrite_devstack::Devstack;
use farwrite_schemas::{ATOMIC_NAME, CommandId};
use serde_json::json;

use crate::support::{Append, Case, DEADLINE, Message};

/// Keys of commands that do nothing wrong, over all lanes.
const INNOCENT_KEYS: i32 = 16;
/// The bound is 2 s for one key; this machine may be held for longer.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// A command that fails by chance stays parked, and is not tried a third time.
const PATIENT: [&str; 6] =
    ["--attempts-max", "1000", "--retry-pause-ms", "300000", "--unknown-keep-s", "3600"];
/// The next failure is the last one.
const IMPATIENT: [&str; 4] = ["--attempts-max", "1", "--unknown-keep-s", "0"];

/// Servers of a test's own: takeovers are counted, and the primary is ended.
async fn stack() -> Result<&'static Devstack> {
    Ok(Box::leak(Box::new(Devstack::builder().start().await?)))
}

const RAISE: &str = "
    CREATE FUNCTION app.raise(body jsonb, meta farwrite.meta) RETURNS void LANGUAGE plpgsql AS $$
    BEGIN
        PERFORM app.append(body || '{\"n\": -1}', meta);
        RAISE EXCEPTION 'by test' USING ERRCODE = body->>'code';
    END $$;
    SELECT farwrite.register('app.raise', 'app.raise(jsonb, farwrite.meta)');";

/// The codes of PostgreSQL's own list.
async fn codes(case: &Case) -> Result<Vec<String>> {
    let list: String = sqlx::query_scalar(
        "SELECT pg_read_file(setting || '/errcodes.txt') FROM pg_config WHERE name = 'SHAREDIR'",
    )
    .fetch_one(&mut case.primary().await?)
    .await?;
    let is_code = |line: &&str| !line.starts_with('#') && line.contains("ERRCODE_");
    let codes = list.lines().filter(is_code).filter_map(|line| line.split_whitespace().next());
    let codes: Vec<String> = codes.map(ToOwned::to_owned).collect();
    ensure!(codes.len() > 200 && codes.iter().all(|code| code.len() == 5), "{codes:?}");
    Ok(codes)
}

/// A command that raises a code.
fn raising(key: &str, code: &str) -> Message {
    let body = json!({ "code": code }).to_string();
    Message { body, ..Message::append(key, 0) }.named("app.raise")
}

/// An atomic batch whose second member raises a code.
fn raising_within(key: &str, code: &str) -> Message {
    let commands = json!([
        { "id": CommandId::now(), "name": "app.append", "body": { "n": -1 } },
        { "id": CommandId::now(), "name": "app.raise", "body": { "code": code } },
    ]);
    let body = json!({ "commands": commands }).to_string();
    Message { body, ..Message::append(key, 0) }.named(ATOMIC_NAME)
}

/// How long the innocent commands took at most, sent one after the other over their keys until
/// `trouble` is through.
pub(crate) async fn longest_pause(
    case: &Case,
    trouble: impl Future<Output = Result<()>>,
) -> Result<Duration> {
    let producer = case.producer(case.stack.primary_region()).await?;
    let (mut longest, mut n) = (Duration::ZERO, 0);
    tokio::pin!(trouble);
    let mut is_over = false;
    while !is_over || n < INNOCENT_KEYS {
        let command = Append { key: format!("timed {}", n % INNOCENT_KEYS), n };
        let began = Instant::now();
        let submitting = producer.submit(&command);
        tokio::pin!(submitting);
        loop {
            tokio::select! {
                submitted = &mut submitting => { submitted?; break }
                over = &mut trouble, if !is_over => { over?; is_over = true }
            }
        }
        longest = longest.max(began.elapsed());
        n += 1;
    }
    println!("longest pause of an innocent key: {longest:?} over {n} commands");
    ensure!(longest < LONGEST_PAUSE, "an innocent command took {longest:?}");
    Ok(longest)
}

/// How often a worker has taken over.
async fn takeovers(case: &Case) -> Result<i64> {
    case.count("SELECT count(*) FROM farwrite.history").await
}

#[tokio::test]
async fn whatever_a_command_raises_others_go_on_and_it_ends_once() -> Result<()> {
    let case = Case::on(stack().await?, "sqlstates", &[]).await?;
    case.execute(RAISE).await?;
    let codes = codes(&case).await?;
    // In batches with innocents, and as a member of an atomic batch.
    let (mut ids, mut n) = (Vec::new(), 0);
    for code in &codes {
        let alone = raising(&format!("alone {code}"), code);
        let atomic = raising_within(&format!("atomic {code}"), code);
        for bad in [alone, atomic] {
            ids.push(bad.id);
            case.publish(&bad).await?;
            case.publish(&Message::append(&format!("key {}", n % INNOCENT_KEYS), n)).await?;
            n += 1;
        }
    }
    let worker = case.serving(&PATIENT).await?;
    case.read().await?;
    // Every innocent is through, while what fails by chance still waits.
    let effects = case.effects().await?;
    for key in 0..INNOCENT_KEYS {
        let expected: Vec<i32> = (0..n).filter(|n| n % INNOCENT_KEYS == key).collect();
        let found = effects.get(&format!("key {key}"));
        ensure!(found == Some(&expected), "key {key}: {found:?}\n{}", worker.log_tail());
    }
    ensure!(effects.len() == INNOCENT_KEYS as usize, "a command that failed has an effect");
    let parked = case.count("SELECT count(DISTINCT key_queue) FROM farwrite.parked").await?;
    ensure!(parked > 100, "only {parked} commands wait");
    let taken = takeovers(&case).await?;
    ensure!(taken == 1, "{taken} takeovers\n{}", worker.log_tail());

    // A few at a time, while innocents are timed.
    let few_by_few = async {
        for some in codes.chunks(4) {
            for code in some {
                let alone = raising(&format!("later {code}"), code);
                ids.push(alone.id);
                case.publish(&alone).await?;
            }
            case.read().await?;
        }
        Ok(())
    };
    longest_pause(&case, few_by_few).await?;
    let taken = takeovers(&case).await?;
    ensure!(taken == 1, "{taken} takeovers\n{}", worker.log_tail());
    ensure!(worker.status()?.is_none(), "{}", worker.log_tail());

    // Each ends, and once.
    worker.terminate(DEADLINE).await?;
    let worker = case.serving(&IMPATIENT).await?;
    case.execute("SELECT farwrite.release(stream_id, array_agg(sequence), 'by test') FROM farwrite.parked GROUP BY stream_id").await?;
    case.settled().await.with_context(|| worker.log_tail())?;
    let ids: Vec<_> = ids.iter().map(|id| id.uuid()).collect();
    let ended: i64 = sqlx::query_scalar(
        "SELECT count(*) FROM unnest($1::uuid[]) AS id, farwrite.outcome_of(id) o WHERE o.status IN ('rejected', 'dead_lettered')",
    )
    .bind(&ids)
    .fetch_one(&mut case.primary().await?)
    .await?;
    ensure!(ended == i64::try_from(ids.len())?, "{ended} of {} have ended", ids.len());
    case.check_model().await
}

/// `app.end_session` ends its own session, as an administrator does or as a limit of the server does.
const END_SESSION: &str = "
    CREATE FUNCTION app.end_session(body jsonb) RETURNS void LANGUAGE plpgsql AS $$
    BEGIN
        IF body ? 'limit' THEN
            PERFORM set_config('transaction_timeout', '20', true), pg_sleep(0);
        ELSE
            PERFORM pg_terminate_backend(pg_backend_pid());
        END IF;
        PERFORM pg_sleep(10);
    END $$;
    SELECT farwrite.register('app.end_session', 'app.end_session(jsonb)');";

#[tokio::test]
async fn a_command_that_ends_its_own_session_is_found_and_others_go_on() -> Result<()> {
    let case = Case::on(stack().await?, "ends_session", &[]).await?;
    case.execute(END_SESSION).await?;
    let worker = case.serving(&[]).await?;
    // A session has had a limit of its transactions since PostgreSQL 17.
    let bodies: &[&str] =
        if case.stack.pg_major() >= 17 { &["{}", "{\"limit\": 1}"] } else { &["{}"] };
    for &body in bodies {
        let bad = Message { body: body.to_owned(), ..Message::append("bad", 0) };
        let bad = bad.named("app.end_session");
        case.publish(&bad).await?;
        let found = async {
            let ended = case.ended(bad.id).await?;
            ensure!(ended.1 == "took_the_primary_down", "{ended:?}\n{}", worker.log_tail());
            Ok(())
        };
        longest_pause(&case, found).await?;
    }
    // The server's own end is no command's, however often.
    let before = case.count("SELECT count(*) FROM farwrite.dead_letters").await?;
    let slow = "CREATE FUNCTION app.slow(body jsonb, meta farwrite.meta) RETURNS jsonb LANGUAGE plpgsql AS $$
                BEGIN PERFORM pg_sleep(0.5); RETURN app.append(body, meta); END $$;
                SELECT farwrite.register('app.slow', 'app.slow(jsonb, farwrite.meta)')";
    case.execute(slow).await?;
    for n in 0..8 {
        case.publish(&Message::append(&format!("slow {n}"), n).named("app.slow")).await?;
    }
    for _ in 0..4 {
        case.until("a slow command runs", async || {
            let running = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep' AND datname = current_database()";
            Ok(case.count(running).await? > 0)
        })
        .await?;
        case.stack.primary().restart().await?;
    }
    case.settled().await?;
    ensure!(case.count("SELECT count(*) FROM farwrite.dead_letters").await? == before);
    let effects = case.effects().await?;
    ensure!((0..8).all(|n| effects.get(&format!("slow {n}")) == Some(&vec![n])), "{effects:?}");
    Ok(())
}
