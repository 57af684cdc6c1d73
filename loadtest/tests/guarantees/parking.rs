//! Commands that must wait: why, for how long, and that nobody else does.

use anyhow::{Result, ensure};
use farwrite_schemas::headers::{EXPIRES_AT, NOT_BEFORE};
use sqlx::Connection;

use crate::support::{Case, DEADLINE, Message};

/// `app.guarded` appends like `app.append`, but wants the one row of `app.guard`, at once.
const GUARDED: &str = "
    CREATE TABLE app.guard (only_row boolean PRIMARY KEY);
    INSERT INTO app.guard VALUES (true);
    CREATE FUNCTION app.guarded(body jsonb, meta farwrite.meta) RETURNS jsonb LANGUAGE plpgsql AS $$
    BEGIN
        PERFORM FROM app.guard FOR UPDATE NOWAIT;
        RETURN app.append(body, meta);
    END $$;
    SELECT farwrite.register('app.guarded', 'app.guarded(jsonb, farwrite.meta)');";

/// Flags that make waiting short.
const QUICK: [&str; 2] = ["--retry-pause-ms", "20"];

#[tokio::test]
async fn a_lock_that_somebody_holds_parks_its_command_and_what_is_behind_it_and_nobody_else()
-> Result<()> {
    let case = Case::new("locked", &[]).await?;
    case.execute(GUARDED).await?;
    let mut holder = case.primary().await?;
    let mut lock = holder.begin().await?;
    sqlx::query("SELECT FROM app.guard FOR UPDATE").execute(&mut *lock).await?;
    let worker = case.serving(&[&QUICK[..], &["--attempts-max", "1000"]].concat()).await?;
    let first = Message::append("a", 1).named("app.guarded");
    case.publish(&first).await?;
    for n in 2..20 {
        case.publish(&Message::append("a", n)).await?;
        case.publish(&Message::append("b", n)).await?;
    }
    case.applied("b", 19).await?;
    case.parked("behind", 18).await?;
    case.parked("retry", 1).await?;
    // Waiting survives a kill, and a worker with another number of lanes.
    worker.kill().await?;
    let _worker =
        case.serving(&[&QUICK[..], &["--attempts-max", "1000", "--lanes", "3"]].concat()).await?;
    case.publish(&Message::append("a", 20)).await?;
    case.parked("behind", 19).await?;
    ensure!(!case.effects().await?.contains_key("a"));
    lock.rollback().await?;
    case.settled().await?;
    ensure!(case.effects().await?["a"] == (1..=20).collect::<Vec<i32>>());
    let attempts: i32 =
        sqlx::query_scalar("SELECT attempts FROM farwrite.ledger WHERE command_id = $1")
            .bind(first.id.uuid())
            .fetch_one(&mut holder)
            .await?;
    ensure!(attempts > 1, "{attempts} attempts");
    Ok(())
}

#[tokio::test]
async fn attempts_that_are_used_up_dead_letter_a_command_and_its_key_goes_on() -> Result<()> {
    let case = Case::new("used_up", &[]).await?;
    case.execute(GUARDED).await?;
    let mut holder = case.primary().await?;
    let mut lock = holder.begin().await?;
    sqlx::query("SELECT FROM app.guard FOR UPDATE").execute(&mut *lock).await?;
    let _worker = case.serving(&[&QUICK[..], &["--attempts-max", "4"]].concat()).await?;
    let first = Message::append("a", 1).named("app.guarded");
    case.publish(&first).await?;
    case.publish(&Message::append("a", 2)).await?;
    let ended = case.ended(first.id).await?;
    ensure!(ended == ("dead_lettered".to_owned(), "attempts_used_up".to_owned()), "{ended:?}");
    case.settled().await?;
    ensure!(case.effects().await?["a"] == [2]);
    lock.rollback().await?;
    Ok(())
}

#[tokio::test]
async fn a_deploy_in_either_order_loses_nothing() -> Result<()> {
    let case = Case::new("deploy", &[]).await?;
    let _worker = case.spawn("run", &[], &[("FARWRITE_UNKNOWN_KEEP_S", "3600")])?;
    // The app comes first: nobody knows its command, then the function wants a table that the next
    // migration brings.
    case.publish(&Message::append("a", 1).named("app.later")).await?;
    case.publish(&Message::append("a", 2)).await?;
    case.publish(&Message::append("b", 1)).await?;
    case.applied("b", 1).await?;
    case.parked("unknown_command", 1).await?;
    let sql = "CREATE FUNCTION app.later(body jsonb, meta farwrite.meta) RETURNS jsonb LANGUAGE plpgsql AS $$
               BEGIN INSERT INTO app.brought VALUES ((body->>'n')::integer); RETURN app.append(body, meta); END $$;
               SELECT farwrite.register('app.later', 'app.later(jsonb, farwrite.meta)')";
    case.execute(sql).await?;
    case.parked("not_ready", 1).await?;
    case.parked("behind", 1).await?;
    case.execute("CREATE TABLE app.brought (n integer)").await?;
    case.settled().await?;
    ensure!(case.effects().await?["a"] == [1, 2]);
    // The database comes first: the app's old version goes on beside the new one.
    let sql = "CREATE FUNCTION app.append_2(body jsonb, meta farwrite.meta) RETURNS jsonb LANGUAGE sql AS
                   $$ SELECT app.append(jsonb_build_object('n', (body->>'number')::integer * 10), meta) $$;
               SELECT farwrite.register('app.append', 'app.append_2(jsonb, farwrite.meta)', version => 2)";
    case.execute(sql).await?;
    case.publish(&Message::append("a", 3)).await?;
    let mut new = Message::append("a", 0);
    new.body = "{\"number\": 4}".to_owned();
    new.headers.push((farwrite_schemas::headers::VERSION, "2".to_owned()));
    case.publish(&new).await?;
    case.publish(&Message::append("a", 5)).await?;
    case.settled().await?;
    ensure!(case.effects().await?["a"] == [1, 2, 3, 40, 5]);
    // A function that is taken away while commands come: they wait for it too.
    case.execute(
        "SELECT farwrite.unregister('app.append'); DROP FUNCTION app.later(jsonb, farwrite.meta)",
    )
    .await?;
    let waiting = Message::append("a", 6);
    case.publish(&waiting).await?;
    case.parked("unknown_command", 1).await?;
    case.execute("SELECT farwrite.register('app.append', 'app.append(jsonb, farwrite.meta)')")
        .await?;
    case.settled().await?;
    ensure!(case.effects().await?["a"] == [1, 2, 3, 40, 5, 6]);
    Ok(())
}

#[tokio::test]
async fn a_function_that_asks_to_be_tried_later_spends_no_attempt() -> Result<()> {
    let case = Case::new("later", &[]).await?;
    let sql = "CREATE TABLE app.ready (only_row boolean);
               CREATE FUNCTION app.patient(body jsonb, meta farwrite.meta) RETURNS jsonb LANGUAGE plpgsql AS $$
               BEGIN
                   IF NOT EXISTS (SELECT FROM app.ready) THEN
                       PERFORM farwrite.try_later('20 ms');
                   END IF;
                   RETURN app.append(body, meta);
               END $$;
               SELECT farwrite.register('app.patient', 'app.patient(jsonb, farwrite.meta)')";
    case.execute(sql).await?;
    let _worker = case.serving(&["--attempts-max", "1"]).await?;
    let patient = Message::append("a", 1).named("app.patient");
    case.publish(&patient).await?;
    case.publish(&Message::append("a", 2)).await?;
    case.publish(&Message::append("b", 2)).await?;
    case.applied("b", 2).await?;
    case.parked("later", 1).await?;
    case.execute("INSERT INTO app.ready VALUES (true)").await?;
    case.settled().await?;
    ensure!(case.effects().await?["a"] == [1, 2]);
    let ended = case.ended(patient.id).await?;
    ensure!(ended.0 == "applied", "{ended:?}");
    Ok(())
}

#[tokio::test]
async fn a_scheduled_command_holds_nobody_back_and_enters_its_keys_order_when_it_is_due()
-> Result<()> {
    let case = Case::new("scheduled", &[]).await?;
    case.execute(GUARDED).await?;
    let worker = case.serving(&QUICK).await?;
    case.publish(&Message::append("a", 1).at(NOT_BEFORE, -1_000)).await?;
    case.publish(&Message::append("a", 3).at(NOT_BEFORE, 1_500)).await?;
    case.publish(&Message::append("a", 2)).await?;
    case.applied("a", 2).await?;
    case.parked("scheduled", 1).await?;
    ensure!(case.effects().await?["a"] == [1, 2]);
    worker.kill().await?;
    let _worker = case.serving(&QUICK).await?;
    case.applied("a", 3).await?;
    case.publish(&Message::append("a", 4)).await?;
    case.settled().await?;
    ensure!(case.effects().await?["a"] == [1, 2, 3, 4]);
    // Due while its key waits: it goes behind what waits already.
    let mut holder = case.primary().await?;
    let mut lock = holder.begin().await?;
    sqlx::query("SELECT FROM app.guard FOR UPDATE").execute(&mut *lock).await?;
    case.publish(&Message::append("b", 3).at(NOT_BEFORE, 400)).await?;
    case.publish(&Message::append("b", 1).named("app.guarded")).await?;
    case.publish(&Message::append("b", 2)).await?;
    case.parked("due", 1).await?;
    lock.rollback().await?;
    case.settled().await?;
    ensure!(case.effects().await?["b"] == [1, 2, 3]);
    Ok(())
}

#[tokio::test]
async fn what_has_expired_is_not_applied_whichever_way_it_came() -> Result<()> {
    let case = Case::new("expired", &[]).await?;
    case.execute(GUARDED).await?;
    // In the stream, while no worker runs.
    let queued = Message::append("a", 1).at(EXPIRES_AT, 50);
    case.publish(&queued).await?;
    let in_time = Message::append("a", 2).at(EXPIRES_AT, 60_000);
    case.publish(&in_time).await?;
    tokio::time::sleep(std::time::Duration::from_millis(60)).await;
    let mut holder = case.primary().await?;
    let mut lock = holder.begin().await?;
    sqlx::query("SELECT FROM app.guard FOR UPDATE").execute(&mut *lock).await?;
    let _worker = case.serving(&[&QUICK[..], &["--attempts-max", "1000"]].concat()).await?;
    ensure!(case.ended(queued.id).await?.0 == "expired");
    ensure!(case.ended(in_time.id).await?.0 == "applied");
    // In its key queue, at its front and behind.
    let head = Message::append("b", 1).named("app.guarded").at(EXPIRES_AT, 500);
    let behind = Message::append("b", 2).at(EXPIRES_AT, 500);
    let after = Message::append("b", 3);
    for message in [&head, &behind, &after] {
        case.publish(message).await?;
    }
    for message in [&head, &behind] {
        ensure!(case.ended(message.id).await?.0 == "expired");
    }
    ensure!(case.ended(after.id).await?.0 == "applied");
    // One that nothing here would run, and that would wait for a deploy.
    let unknown = Message::append("e", 1).named("app.deployed_never").at(EXPIRES_AT, -1);
    case.publish(&unknown).await?;
    ensure!(case.ended(unknown.id).await?.0 == "expired");
    // Scheduled for after its end.
    let never = Message::append("c", 1).at(NOT_BEFORE, 200).at(EXPIRES_AT, 100);
    case.publish(&never).await?;
    ensure!(case.ended(never.id).await?.0 == "expired");
    // Dead-lettered, and put back when its time had passed.
    case.execute("SELECT farwrite.unregister('app.guarded')").await?;
    let requeued = Message::append("d", 1).named("app.guarded").at(EXPIRES_AT, 3_000);
    case.publish(&requeued).await?;
    let ended = case.ended(requeued.id).await?;
    ensure!(ended.1 == "unknown_command", "{ended:?}");
    lock.rollback().await?;
    Ok(())
}

#[tokio::test]
async fn one_key_with_many_parked_commands_does_not_starve_the_rest() -> Result<()> {
    let case = Case::new("fair", &[]).await?;
    // One lane, and small batches, so that all of them compete.
    let flags = ["--lanes", "1", "--batch-max-commands", "16"];
    let worker = case.serving(&flags).await?;
    case.execute("SELECT farwrite.pause(NULL, 'hot', 'by test')").await?;
    for n in 0..2_000 {
        case.publish(&Message::append("hot", n)).await?;
    }
    case.parked("behind", 1_999).await?;
    worker.suspend()?;
    case.execute("SELECT farwrite.resume(NULL, 'hot')").await?;
    for n in 0..10 {
        case.publish(&Message::append(&format!("cold {n}"), n)).await?;
    }
    worker.resume()?;
    let mut connection = case.primary().await?;
    case.settled().await?;
    // Commit order is the order of xmin: by then only a part of the hot ones was done.
    let before: i64 = sqlx::query_scalar(
        "SELECT count(*) FROM app.effects WHERE key = 'hot' AND xmin::text::bigint <
             (SELECT max(xmin::text::bigint) FROM app.effects WHERE key LIKE 'cold %')",
    )
    .fetch_one(&mut connection)
    .await?;
    ensure!(before < 200, "{before} of the hot key were applied before the last of the others");
    ensure!(case.effects().await?["hot"] == (0..2_000).collect::<Vec<i32>>());
    Ok(())
}

#[tokio::test]
async fn a_key_with_too_many_parked_commands_overflows_into_dead_letters() -> Result<()> {
    let case = Case::new("overflow", &[]).await?;
    let _worker = case.serving(&["--parked-max-per-key", "5"]).await?;
    case.execute("SELECT farwrite.pause(NULL, 'a', 'by test')").await?;
    let mut ids = Vec::new();
    for n in 0..8 {
        let message = Message::append("a", n);
        ids.push(message.id);
        case.publish(&message).await?;
    }
    for id in &ids[5..] {
        let ended = case.ended(*id).await?;
        ensure!(ended == ("dead_lettered".to_owned(), "key_overflow".to_owned()), "{ended:?}");
    }
    case.execute("SELECT farwrite.resume(NULL, 'a')").await?;
    case.settled().await?;
    ensure!(case.effects().await?["a"] == [0, 1, 2, 3, 4]);
    Ok(())
}

#[tokio::test]
async fn a_lane_whose_lines_are_full_stops_and_says_so_and_goes_on_when_there_is_room() -> Result<()>
{
    let case = Case::new("full", &[]).await?;
    let flags = ["--parked-max", "10", "--parked-max-per-key", "10", "--lanes", "1"];
    let worker = case.serving(&[&flags[..], &["--metrics-addr", "127.0.0.1:0"]].concat()).await?;
    let ready = case.http(&worker, "/ready").await?;
    ensure!(ready.starts_with("HTTP/1.1 200"), "{ready}");
    case.execute("SELECT farwrite.pause('app.paused', NULL, 'by test')").await?;
    for n in 0..15 {
        case.publish(&Message::append(["a", "b", "c"][n as usize % 3], n).named("app.paused"))
            .await?;
    }
    case.until("the lane says that it is full", async || {
        Ok(worker.log().contains("as many commands are parked as may be"))
    })
    .await?;
    let ready = case.http(&worker, "/ready").await?;
    ensure!(ready.starts_with("HTTP/1.1 503") && ready.contains("lane 0: as many"), "{ready}");
    case.until("its metrics say so too", async || {
        let metrics = case.http(&worker, "/metrics").await?;
        Ok(metrics.contains("farwrite_worker_lane_full{lane=\"0\"} 1")
            && metrics.contains("farwrite_worker_parked_commands{lane=\"0\"} 10"))
    })
    .await?;
    let sql = "SELECT farwrite.register('app.paused', 'app.append(jsonb, farwrite.meta)');
               SELECT farwrite.resume('app.paused', NULL)";
    case.execute(sql).await?;
    case.settled().await?;
    let ready = case.http(&worker, "/ready").await?;
    ensure!(ready.starts_with("HTTP/1.1 200"), "{ready}");
    for (key, first) in [("a", 0), ("b", 1), ("c", 2)] {
        ensure!(case.effects().await?[key] == (first..15).step_by(3).collect::<Vec<i32>>());
    }
    ensure!(worker.terminate(DEADLINE).await?.success());
    Ok(())
}

#[tokio::test]
async fn a_lane_that_stands_still_is_skipped_and_catches_up_in_order() -> Result<()> {
    let case = Case::new("skipped", &[]).await?;
    case.execute("SELECT farwrite.pause('app.paused', NULL, 'by test')").await?;
    // Each waits for its own sake, one in its lane: the second fills it, and far more come than its
    // queue holds.
    let stuck = |n| Message { key: Some("stuck".to_owned()), ..Message::append("stuck", n) };
    for n in 0..1_200 {
        case.publish(&stuck(n).named("app.paused")).await?;
        if n % 100 == 99 {
            for key in 0..8 {
                case.publish(&Message::append(&format!("key {key}"), n)).await?;
            }
        }
    }
    // Only now, so that the lane stands still with a whole batch in its hands, decided upon.
    let worker =
        case.serving(&["--parked-max", "2", "--parked-max-per-key", "2", "--lanes", "2"]).await?;
    case.until("the lane is skipped", async || Ok(worker.log().contains("it is skipped"))).await?;
    // Some of eight keys are of the other lane.
    case.until("the other lane goes on to the end", async || {
        Ok(case.effects().await?.iter().any(|(_, effects)| effects.contains(&1_199)))
    })
    .await?;
    ensure!(!case.effects().await?.contains_key("stuck"));
    let sql = "SELECT farwrite.register('app.paused', 'app.append(jsonb, farwrite.meta)');
               SELECT farwrite.resume('app.paused', NULL)";
    case.execute(sql).await?;
    case.until("the lane has caught up", async || {
        Ok(worker.log().contains("has caught up with the others"))
    })
    .await?;
    case.publish(&stuck(1_200)).await?;
    case.settled().await?;
    let dead = case.count("SELECT count(*) FROM farwrite.dead_letters").await?;
    let effects = case.effects().await?;
    ensure!(dead == 0, "{dead} dead letters");
    ensure!(effects["stuck"] == (0..=1_200).collect::<Vec<i32>>());
    for key in 0..8 {
        let expected: Vec<i32> = (99..1_200).step_by(100).collect();
        ensure!(effects[&format!("key {key}")] == expected, "key {key}");
    }
    Ok(())
}

#[tokio::test]
async fn a_failover_that_takes_a_commit_back_does_not_make_its_command_expire() -> Result<()> {
    let case = Case::new("hinted", &[]).await?;
    let worker = case.serving(&[]).await?;
    let expired = Message::append("a", 0).at(EXPIRES_AT, -1);
    let in_time = Message::append("a", 1).at(EXPIRES_AT, 4_000);
    case.publish(&expired).await?;
    case.publish(&in_time).await?;
    case.settled().await?;
    ensure!(case.ended(expired.id).await?.0 == "expired");
    ensure!(case.ended(in_time.id).await?.0 == "applied");
    let hints = case.context.get_stream(format!("farwrite-{}-hints", case.name)).await?;
    let subject = format!("farwrite.{0}.hint.farwrite-{0}", case.name);
    case.until("the broker holds a hint", async || {
        let last = hints.get_last_raw_message_by_subject(&subject).await;
        Ok(last.is_ok_and(|last| last.payload.windows(12).any(|text| text == b"\"sequence\":2")))
    })
    .await?;
    ensure!(worker.terminate(DEADLINE).await?.success());
    // What promoting a standby that had none of it leaves behind: effects, ledger and positions
    // are gone together, and its timeline is a newer one.
    let sql = "TRUNCATE app.effects, app.keys;
               DELETE FROM farwrite.ledger;
               UPDATE farwrite.lanes SET sequence = 0, sequence_at = NULL, sequence_id = NULL;
               UPDATE farwrite.streams SET low_water = 0; UPDATE farwrite.history SET timeline = 0";
    case.execute(sql).await?;
    case.until("its time has passed", async || {
        let expires_ms: i64 = in_time.headers[0].1.parse()?;
        let passed: bool = sqlx::query_scalar("SELECT clock_timestamp() > to_timestamp($1 / 1e3)")
            .bind(expires_ms)
            .fetch_one(&mut case.primary().await?)
            .await?;
        Ok(passed)
    })
    .await?;
    let _worker = case.serving(&[]).await?;
    case.settled().await?;
    ensure!(case.effects().await?["a"] == [1]);
    ensure!(case.ended(expired.id).await?.0 == "expired");
    ensure!(case.ended(in_time.id).await?.0 == "applied");
    Ok(())
}

#[tokio::test]
async fn a_parked_command_expires_whatever_the_hints_say_of_what_is_behind_it() -> Result<()> {
    let case = Case::new("hinted_parked", &[]).await?;
    case.execute("SELECT farwrite.pause('app.append', NULL, 'a test')").await?;
    let worker = case.serving(&[]).await?;
    let waits = Message::append("a", 1).at(EXPIRES_AT, 5_000);
    case.publish(&waits).await?;
    case.parked("paused", 1).await?;
    // The position has passed it, and the broker is told so before its time.
    tokio::time::sleep(std::time::Duration::from_secs(3)).await;
    ensure!(worker.terminate(DEADLINE).await?.success());
    let _worker = case.serving(&[]).await?;
    tokio::time::sleep(std::time::Duration::from_secs(3)).await;
    case.execute("SELECT farwrite.resume('app.append', NULL)").await?;
    let ended = case.ended(waits.id).await?;
    ensure!(ended.0 == "expired", "{ended:?}");
    Ok(())
}

#[tokio::test]
async fn a_command_that_waited_for_something_else_waits_for_its_function_too() -> Result<()> {
    let case = Case::new("waited", &[]).await?;
    let _worker = case.serving(&["--unknown-keep-s", "2"]).await?;
    let scheduled = Message::append("a", 1).named("app.soon").at(NOT_BEFORE, 3_000);
    case.publish(&scheduled).await?;
    case.parked("scheduled", 1).await?;
    case.parked("unknown_command", 1).await?;
    case.execute("SELECT farwrite.register('app.soon', 'app.append(jsonb, farwrite.meta)')")
        .await?;
    let ended = case.ended(scheduled.id).await?;
    ensure!(ended.0 == "applied", "{ended:?}");
    Ok(())
}

#[tokio::test]
async fn an_id_that_waits_under_one_key_holds_no_other_key_up() -> Result<()> {
    let case = Case::new("two_keys", &["--duplicate-window-ms", "100"]).await?;
    let _worker = case.serving(&["--lanes", "8"]).await?;
    let first = Message::append("a", 1).at(NOT_BEFORE, 3_600_000);
    case.publish(&first).await?;
    case.parked("scheduled", 1).await?;
    // Keys of other lanes, most of which have nothing parked.
    for key in ["b", "c", "d"] {
        let again = Message { key: Some(key.to_owned()), ..first.clone() };
        case.publish_past_window(&again).await?;
        let after = Message::append(key, 2);
        case.publish(&after).await?;
        ensure!(case.ended(after.id).await?.0 == "applied");
    }
    ensure!(case.count("SELECT count(*) FROM farwrite.parked").await? == 1);
    Ok(())
}
