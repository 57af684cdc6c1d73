//! What operators do by hand: nothing is lost or doubled by it, and no key loses its order.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use async_nats::HeaderMap;
use farwrite_primary_worker::Config;
use farwrite_schemas::{CommandId, Outcome, headers};
use serde_json::{Value, json};
use sqlx::Connection;

use crate::support::{Case, DEADLINE, Message};

/// Commands that nobody knows are dead-lettered at once.
const NOBODY_WAITS: [&str; 2] = ["--unknown-keep-s", "0"];
/// Commands that nobody knows stay parked.
const ALL_WAIT: [&str; 2] = ["--unknown-keep-s", "3600"];

const FORGET: &str =
    "DELETE FROM farwrite.functions WHERE name = 'app.append'; SELECT farwrite.make_dispatcher()";
const KNOW: &str = "SELECT farwrite.register('app.append', 'app.append(jsonb, farwrite.meta)')";
const DEAD: &str = "SELECT count(*) FROM farwrite.dead_letters";
const PARKED: &str = "SELECT count(*) FROM farwrite.parked";
/// Batches that somebody who acts on the lanes holds up.
const WAITS_FOR_ITS_LANE: &str = "SELECT count(*) FROM pg_stat_activity
    WHERE wait_event_type = 'Lock' AND datname = current_database() AND query LIKE '%farwrite.apply_plain(%'";

impl Case {
    /// Waits until every lane has passed the stream's end, whatever is parked.
    async fn read(&self) -> Result<()> {
        let mut stream = self.context.get_stream(format!("farwrite-{}", self.name)).await?;
        let last = stream.info().await?.state.last_sequence.cast_signed();
        self.until("every lane has passed the stream's end", async || {
            Ok(self.count("SELECT coalesce(min(sequence), -1) FROM farwrite.lanes").await? >= last)
        })
        .await
    }

    async fn until_count(&self, sql: &'static str, wanted: i64) -> Result<()> {
        self.until(&format!("{sql}: {wanted}"), async || Ok(self.count(sql).await? == wanted)).await
    }

    /// What happened to one key.
    async fn effects_of(&self, key: &str) -> Result<Vec<i32>> {
        Ok(self.effects().await?.remove(key).unwrap_or_default())
    }
}

#[tokio::test]
async fn three_thousand_dead_letters_are_requeued_with_their_ids_in_their_keys_order() -> Result<()>
{
    const SMALL: i32 = 3_000;
    const LARGE: i32 = 12;
    let case = Case::new("requeue", &[]).await?;
    case.execute(FORGET).await?;
    let mut ids = BTreeSet::new();
    for n in 0..SMALL {
        let message = Message::append(&format!("key {}", n % 20), n);
        ids.insert(message.id.to_string());
        case.publish(&message).await?;
    }
    // More bytes than one transaction takes.
    let pad = "x".repeat(900_000);
    for n in 0..LARGE {
        let body = json!({ "n": n, "pad": pad }).to_string();
        let message = Message { body, ..Message::append("large", n) };
        ids.insert(message.id.to_string());
        case.publish(&message).await?;
    }
    let worker = case.serving(&NOBODY_WAITS).await?;
    case.read().await?;
    ensure!(case.count(DEAD).await? == i64::from(SMALL + LARGE));
    worker.terminate(DEADLINE).await?;

    // The program is killed when its first transaction is committed, and its second is not.
    let mut holder = case.primary().await?;
    sqlx::query("BEGIN").execute(&mut holder).await?;
    sqlx::query("SELECT FROM farwrite.dead_letters WHERE sequence = 1500 FOR UPDATE")
        .execute(&mut holder)
        .await?;
    let killed = case.spawn("dead-letters", &["requeue", "--code", "unknown_command"], &[])?;
    case.until_count(DEAD, i64::from(SMALL + LARGE) - 1_000).await?;
    killed.kill().await?;
    sqlx::query("ROLLBACK").execute(&mut holder).await?;
    ensure!(case.count(PARKED).await? == 1_000);

    let _worker = case.serving(&ALL_WAIT).await?;
    let ran =
        case.run("dead-letters", &["requeue", "--code", "unknown_command"]).await?.ended(0)?;
    ensure!(ran.out == "requeued 2012 dead letters\n", "{ran:?}");
    ensure!(case.count(DEAD).await? == 0);
    ensure!(case.count("SELECT count(*) FROM farwrite.operations WHERE act = 'requeue' AND reason = 'by hand' AND subject = 'unknown_command'").await? == i64::from(SMALL + LARGE));
    ensure!(case.count("SELECT count(*) FROM app.effects").await? == 0);

    case.execute(KNOW).await?;
    case.check_model().await?;
    let applied: Vec<String> = sqlx::query_scalar(
        "SELECT e.command_id::text FROM app.effects e JOIN farwrite.ledger l USING (command_id) WHERE l.outcome = 'applied'",
    )
    .fetch_all(&mut case.primary().await?)
    .await?;
    ensure!(applied.len() == ids.len() && applied.into_iter().collect::<BTreeSet<_>>() == ids);
    ensure!(case.count("SELECT count(*) FROM farwrite.ledger").await? == i64::from(SMALL + LARGE));
    Ok(())
}

#[tokio::test]
async fn what_is_no_command_is_not_requeued_and_said_by_sequence() -> Result<()> {
    let case = Case::new("requeue_undecodable", &[]).await?;
    case.execute(FORGET).await?;
    let broken = Message { body: "{\"n\":".to_owned(), ..Message::append("a", 1) };
    let broken_at = case.publish(&broken).await?.sequence;
    let subject = case.subject("app.append");
    let ack = case.context.publish_with_headers(subject, HeaderMap::new(), "{}".into()).await?;
    let nameless_at = ack.await?.sequence;
    let good = Message::append("a", 2);
    case.publish(&good).await?;
    let worker = case.serving(&NOBODY_WAITS).await?;
    case.until_count(DEAD, 3).await?;
    worker.terminate(DEADLINE).await?;
    case.execute(KNOW).await?;
    let _worker = case.worker()?;
    let ran = case.run("dead-letters", &["requeue", "--all", "--json"]).await?.ended(1)?;
    let objects = ran.objects()?;
    ensure!(objects.len() == 3, "{ran:?}");
    ensure!(objects[0]["sequence"] == broken_at && objects[0]["id"] == broken.id.to_string());
    ensure!(
        objects[0]["left"].as_str().is_some_and(|why| why.starts_with("not_json: ")),
        "{ran:?}"
    );
    ensure!(objects[1]["sequence"] == nameless_at && objects[1]["id"] == Value::Null);
    ensure!(objects[1]["left"].as_str().is_some_and(|why| why.starts_with("bad_id: ")), "{ran:?}");
    ensure!(objects[2] == json!({ "act": "requeue", "done": 1, "left": 2 }), "{ran:?}");
    case.settled().await?;
    ensure!(case.effects_of("a").await? == [2]);
    ensure!(case.count(DEAD).await? == 2);

    // Shown: whole, and only here.
    let at = broken_at.to_string();
    let ran = case.run("dead-letters", &["show", "--sequence", &at, "--json"]).await?.ended(0)?;
    let shown = &ran.objects()?[0];
    ensure!(shown["body_hex"] == "7b226e223a" && shown["command"] == "app.append", "{ran:?}");
    ensure!(shown["headers"].as_array().is_some_and(|headers| headers.len() == 2), "{ran:?}");
    let ran = case.run("dead-letters", &["list", "--json"]).await?.ended(0)?;
    ensure!(ran.objects()?.len() == 2 && !ran.out.contains("body_hex"), "{ran:?}");
    let ran = case.run("dead-letters", &["list", "--code", "bad_id"]).await?.ended(0)?;
    ensure!(ran.out.lines().count() == 2 && ran.out.starts_with("AGE "), "{ran:?}");
    case.run("dead-letters", &["show", "--sequence", "99"]).await?.ended(1)?;
    Ok(())
}

#[tokio::test]
async fn of_letters_with_one_id_one_is_requeued_at_a_time_and_applied_once() -> Result<()> {
    let case = Case::new("requeue_twins", &["--duplicate-window-ms", "100"]).await?;
    // Older than the ledger keeps: it cannot hold the id, and both are letters.
    let eight_days_ago = std::time::SystemTime::now() - std::time::Duration::from_secs(8 * 86_400);
    let at = eight_days_ago.duration_since(std::time::UNIX_EPOCH)?.as_millis();
    let id = uuid::Builder::from_unix_timestamp_millis(u64::try_from(at)?, &[7; 10]).into_uuid();
    let message = Message { id: CommandId::from_uuid(id), ..Message::append("a", 1) };
    let _worker = case.serving_worker().await?;
    case.publish(&message).await?;
    // Not in one batch, where the second would be the first's echo.
    case.until_count(DEAD, 1).await?;
    case.publish_past_window(&message).await?;
    case.until_count(DEAD, 2).await?;
    let ran = case.run("dead-letters", &["requeue", "--id", &id.to_string()]).await?.ended(1)?;
    ensure!(ran.out.contains("requeued 1 dead letters; 1 stay where they are"), "{ran:?}");
    case.settled().await?;
    ensure!(case.effects_of("a").await? == [1]);
    case.run("dead-letters", &["requeue", "--id", &id.to_string()]).await?.ended(0)?;
    case.settled().await?;
    ensure!(case.count(DEAD).await? == 0);
    ensure!(case.effects_of("a").await? == [1]);
    Ok(())
}

#[tokio::test]
async fn discarding_wants_a_reason_and_leaves_the_outcome() -> Result<()> {
    let case = Case::new("discard", &[]).await?;
    case.execute(FORGET).await?;
    let messages: Vec<Message> = (0..3).map(|n| Message::append("a", n)).collect();
    for message in &messages {
        case.publish(message).await?;
    }
    let _worker = case.serving(&NOBODY_WAITS).await?;
    case.until_count(DEAD, 3).await?;
    let ran = case.run("dead-letters", &["discard", "--all"]).await?.ended(2)?;
    ensure!(ran.err.contains("--reason"), "{ran:?}");
    case.run("dead-letters", &["discard", "--reason", "none"]).await?.ended(2)?;
    ensure!(case.count(DEAD).await? == 3);
    let id = messages[0].id.to_string();
    let flags = ["discard", "--id", &id, "--reason", "sent by mistake"];
    let ran = case.run("dead-letters", &flags).await?.ended(0)?;
    ensure!(ran.out == "discarded 1 dead letters\n", "{ran:?}");
    case.run("dead-letters", &flags).await?.ended(1)?;
    let noted: Vec<(String, String, String)> = sqlx::query_as(
        "SELECT command_id::text, subject, reason FROM farwrite.operations WHERE act = 'discard'",
    )
    .fetch_all(&mut case.primary().await?)
    .await?;
    ensure!(noted == [(id.clone(), "unknown_command".into(), "sent by mistake".into())]);
    let ran = case.run("outcome", &[&id, "--json"]).await?.ended(0)?;
    ensure!(ran.objects()?[0]["status"] == "dead_lettered", "{ran:?}");
    ensure!(case.count(DEAD).await? == 2);
    Ok(())
}

#[tokio::test]
async fn a_pause_holds_exactly_its_commands_in_order_over_a_restart() -> Result<()> {
    let case = Case::new("pause", &[]).await?;
    case.execute("SELECT farwrite.register('app.other', 'app.append(jsonb, farwrite.meta)')")
        .await?;
    let other = |key, n| Message { name: "app.other".to_owned(), ..Message::append(key, n) };
    let worker = case.serving_worker().await?;
    case.publish(&Message::append("a", 1)).await?;
    case.settled().await?;

    let pause = |flag, what| ["pause", flag, what, "--reason", "the vendor is away"];
    let [act, flags @ ..] = pause("--command", "app.other");
    let ran = case.run(act, &flags).await?.ended(0)?;
    ensure!(ran.out == "command app.other is paused\n", "{ran:?}");
    let ran = case.run(act, &flags).await?.ended(0)?;
    ensure!(ran.out.contains("was paused already"), "{ran:?}");
    let [act, flags @ ..] = pause("--key", "d");
    case.run(act, &flags).await?.ended(0)?;
    for message in [
        Message::append("a", 2),
        other("a", 3),
        Message::append("a", 4),
        Message::append("b", 5),
        other("c", 6),
        Message::append("d", 7),
        other("d", 8),
        Message::append("b", 9),
    ] {
        case.publish(&message).await?;
    }
    case.read().await?;
    ensure!(case.effects_of("a").await? == [1, 2]);
    ensure!(case.effects_of("b").await? == [5, 9]);
    ensure!(case.count("SELECT count(*) FROM app.effects").await? == 4);
    let ran = case.run("parked", &["list", "--json"]).await?.ended(0)?;
    let parked: Vec<String> = ran
        .objects()?
        .iter()
        .map(|row| format!("{} {} {}", row["key"], row["reason"], row["due_at"]))
        .collect();
    ensure!(
        parked.iter().map(String::as_str).eq([
            "\"a\" \"paused\" null",
            "\"a\" \"behind\" null",
            "\"c\" \"paused\" null",
            "\"d\" \"paused\" null",
            "\"d\" \"behind\" null"
        ]),
        "{parked:?}"
    );
    let ran = case.run("pauses", &["--json"]).await?.ended(0)?;
    let pauses = ran.objects()?;
    ensure!(pauses.len() == 2 && pauses[0]["command"] == "app.other", "{ran:?}");
    ensure!(pauses[1]["key"] == "d" && pauses[1]["reason"] == "the vendor is away", "{ran:?}");

    worker.terminate(DEADLINE).await?;
    let _worker = case.serving_worker().await?;
    case.publish(&Message::append("a", 10)).await?;
    case.read().await?;
    ensure!(case.effects_of("a").await? == [1, 2]);
    case.run("resume", &["--command", "app.other"]).await?.ended(0)?;
    case.until_count(PARKED, 2).await?;
    ensure!(case.effects_of("a").await? == [1, 2, 3, 4, 10]);
    ensure!(case.effects_of("c").await? == [6]);
    ensure!(case.effects_of("d").await?.is_empty());
    case.run("resume", &["--key", "d"]).await?.ended(0)?;
    case.settled().await?;
    ensure!(case.effects_of("d").await? == [7, 8]);
    case.run("resume", &["--key", "d"]).await?.ended(1)?;
    ensure!(case.run("pauses", &["--json"]).await?.ended(0)?.out.is_empty());
    Ok(())
}

#[tokio::test]
async fn a_command_is_cancelled_wherever_it_is_unless_it_has_ended() -> Result<()> {
    let case = Case::new("cancel", &[]).await?;
    let _worker = case.serving(&ALL_WAIT).await?;
    let unknown = Message { name: "app.unknown".to_owned(), ..Message::append("a", 1) };
    case.publish(&unknown).await?;
    case.publish(&Message::append("a", 2)).await?;
    let ended = Message::append("b", 3);
    case.publish(&ended).await?;
    case.read().await?;
    ensure!(case.count(PARKED).await? == 2);
    let cancel = async |message: &Message, status| {
        let id = message.id.to_string();
        case.run("cancel", &[&id, "--reason", "a test"]).await?.ended(status)
    };
    let outcome = async |message: &Message| {
        let known = case.outcome(message.id).await?.context("no outcome")?;
        Ok::<_, anyhow::Error>(match known.outcome {
            Outcome::Rejected(rejection) => rejection.code,
            outcome => outcome.word().to_owned(),
        })
    };

    let ran = cancel(&unknown, 0).await?;
    ensure!(ran.out.contains("is cancelled"), "{ran:?}");
    case.settled().await?;
    ensure!(case.effects_of("a").await? == [2]);
    ensure!(outcome(&unknown).await? == "cancelled");

    let unpublished = Message::append("a", 4);
    cancel(&unpublished, 0).await?;
    case.publish(&unpublished).await?;
    case.publish(&Message::append("a", 5)).await?;
    case.settled().await?;
    ensure!(case.effects_of("a").await? == [2, 5]);
    ensure!(outcome(&unpublished).await? == "cancelled");

    let ran = cancel(&ended, 1).await?;
    ensure!(ran.out.contains("it had ended before, as applied"), "{ran:?}");
    ensure!(case.effects_of("b").await? == [3]);
    ensure!(
        case.count("SELECT count(*) FROM farwrite.operations WHERE act = 'cancel'").await? == 2
    );
    Ok(())
}

#[tokio::test]
async fn what_is_requeued_while_a_batch_waits_for_that_comes_before_it() -> Result<()> {
    let case = Case::new("requeue_waits", &[]).await?;
    let first = Message::append("a", 1).named("app.first");
    // Parked, so that it is known how; and then dead.
    let worker = case.serving(&[&ALL_WAIT[..], &["--lanes", "1"]].concat()).await?;
    case.publish(&first).await?;
    case.until_count(PARKED, 1).await?;
    case.execute("CREATE TABLE app.was AS SELECT * FROM farwrite.parked").await?;
    worker.terminate(DEADLINE).await?;
    let _worker = case.serving(&[&NOBODY_WAITS[..], &["--lanes", "1"]].concat()).await?;
    case.until_count(DEAD, 1).await?;
    case.execute("SELECT farwrite.register('app.first', 'app.append(jsonb, farwrite.meta)')")
        .await?;

    let mut operator = case.primary().await?;
    let mut act = operator.begin().await?;
    let requeued: i32 = sqlx::query_scalar(
        "SELECT farwrite.requeue(stream_id, ARRAY[sequence], ARRAY[command_id], ARRAY[fingerprint], ARRAY[name],
             ARRAY[version], ARRAY[order_key], ARRAY[line], ARRAY[lane_hash], 'a test') FROM app.was",
    )
    .fetch_one(&mut *act)
    .await?;
    ensure!(requeued == 1);
    case.publish(&Message::append("a", 2)).await?;
    case.until_count(WAITS_FOR_ITS_LANE, 1).await?;
    act.commit().await?;
    case.settled().await?;
    let effects = case.effects_of("a").await?;
    ensure!(effects == [1, 2], "{effects:?}");
    Ok(())
}

#[tokio::test]
async fn a_command_that_is_cancelled_while_its_batch_waits_for_that_does_not_run() -> Result<()> {
    let case = Case::new("cancel_waits", &[]).await?;
    // Not even what no rollback undoes: one that takes its server down is cancelled for that.
    case.execute(
        "CREATE SEQUENCE app.runs;
         CREATE FUNCTION app.once(body jsonb) RETURNS bigint LANGUAGE sql AS $$ SELECT nextval('app.runs') $$;
         SELECT farwrite.register('app.once', 'app.once(jsonb)');",
    )
    .await?;
    let _worker = case.serving(&["--lanes", "1"]).await?;
    let command = Message::append("a", 1).named("app.once");
    let mut operator = case.primary().await?;
    let mut act = operator.begin().await?;
    sqlx::query("SELECT farwrite.cancel($1, 'a test')")
        .bind(command.id.uuid())
        .execute(&mut *act)
        .await?;
    case.publish(&command).await?;
    case.until_count(WAITS_FOR_ITS_LANE, 1).await?;
    act.commit().await?;
    case.settled().await?;
    ensure!(case.ended(command.id).await?.1 == "cancelled");
    ensure!(case.count("SELECT count(*) FROM app.runs WHERE is_called").await? == 0);
    Ok(())
}

#[tokio::test]
async fn a_cancelled_command_leaves_what_stood_behind_it_in_order() -> Result<()> {
    let case = Case::new("cancel_order", &[]).await?;
    // It cancels between the moment when the lane reads what is due and the batch that applies it.
    let sql = "CREATE FUNCTION app.cancel(body jsonb) RETURNS text LANGUAGE sql
               AS $$ SELECT farwrite.cancel((body->>'id')::uuid, 'a test') $$";
    case.execute(sql).await?;
    let _worker = case.serving(&[&ALL_WAIT[..], &["--lanes", "1"]].concat()).await?;
    let cancelled = Message::append("a", 1).named("app.first");
    let cancels = Message {
        body: serde_json::json!({ "id": cancelled.id }).to_string(),
        ..Message::append("x", 0).named("app.cancel")
    };
    for message in [&cancels, &cancelled, &Message::append("a", 2), &Message::append("a", 3)] {
        case.publish(message).await?;
    }
    case.until_count(PARKED, 4).await?;
    // From here on all four are due, and are read from their lines together.
    case.execute(
        "SELECT farwrite.register('app.cancel', 'app.cancel(jsonb)', alone => true);
         SELECT farwrite.register('app.first', 'app.append(jsonb, farwrite.meta)')",
    )
    .await?;
    case.settled().await?;
    let effects = case.effects_of("a").await?;
    ensure!(effects == [2, 3], "{effects:?}");
    ensure!(case.ended(cancelled.id).await?.1 == "cancelled");
    Ok(())
}

#[tokio::test]
async fn a_scheduled_command_is_released_before_its_time() -> Result<()> {
    let case = Case::new("release", &[]).await?;
    let _worker = case.serving_worker().await?;
    let late = |n| Message {
        headers: vec![(headers::NOT_BEFORE, "4102444800000".to_owned())],
        ..Message::append("a", n)
    };
    let (released, stays) = (late(1), late(2));
    case.publish(&released).await?;
    case.publish(&stays).await?;
    case.publish(&Message::append("a", 3)).await?;
    case.until_count(PARKED, 2).await?;
    case.read().await?;
    ensure!(case.effects_of("a").await? == [3]);
    let ran = case.run("parked", &["list", "--code", "scheduled", "--json"]).await?.ended(0)?;
    let due: Vec<Value> = ran.objects()?.iter().map(|row| row["due_at"].clone()).collect();
    ensure!(due == [json!("2100-01-01T00:00:00.000Z"), json!("2100-01-01T00:00:00.000Z")]);
    let id = released.id.to_string();
    let ran = case.run("parked", &["show", "--id", &id, "--json"]).await?.ended(0)?;
    ensure!(ran.objects()?[0]["body"] == json!({ "n": 1 }), "{ran:?}");
    let ran = case.run("parked", &["release", "--id", &id]).await?.ended(0)?;
    ensure!(ran.out == "released 1 parked commands\n", "{ran:?}");
    case.until_count(PARKED, 1).await?;
    ensure!(case.effects_of("a").await? == [3, 1]);
    Ok(())
}

#[tokio::test]
async fn status_and_outcome_say_where_everything_stands() -> Result<()> {
    let case = Case::new("status", &[]).await?;
    let worker = case.serving(&ALL_WAIT).await?;
    let applied = Message::append("a", 1);
    let refused = Message::refused("a", 2);
    let waiting = Message { name: "app.unknown".to_owned(), ..Message::append("b", 3) };
    let broken = Message { body: "{".to_owned(), ..Message::append("c", 4) };
    for message in [&applied, &refused, &waiting, &broken] {
        case.publish(message).await?;
    }
    case.read().await?;
    case.run("pause", &["--key", "z", "--reason", "why not"]).await?.ended(0)?;

    let outcome = async |message: &Message, environment: &[(&str, &str)]| {
        let id = message.id.to_string();
        let ran = case.run_with("outcome", &[&id, "--json"], environment).await?.ended(0)?;
        ran.objects()?.pop().context("nothing")
    };
    let known = outcome(&applied, &[]).await?;
    ensure!(known["status"] == "applied" && known["output"] == json!({ "place": 1 }), "{known}");
    ensure!(known["sequence"] == 1 && known["attempts"] == 1, "{known}");
    ensure!(known["stream"] == format!("farwrite-{}", case.name), "{known}");
    ensure!(known["published_at"].is_string() && known["settled_at"].is_string(), "{known}");
    let known = outcome(&refused, &[]).await?;
    ensure!(known["status"] == "rejected" && known["error"]["code"] == "P0001", "{known}");
    let known = outcome(&waiting, &[]).await?;
    ensure!(known["status"] == "parked" && known["reason"] == "unknown_command", "{known}");
    let known = outcome(&broken, &[]).await?;
    ensure!(known["status"] == "dead_lettered" && known["error"]["reason"] == "not_json");
    let replica = case.stack.replica("jfk")?;
    replica.wait_caught_up(case.stack.primary(), DEADLINE).await?;
    let url = replica.url(&case.name);
    let there = [("FARWRITE_DATABASE_URL", url.as_str())];
    ensure!(outcome(&applied, &there).await?["status"] == "applied");
    let nobody = CommandId::now().to_string();
    let ran = case.run_with("outcome", &[&nobody], &there).await?.ended(1)?;
    ensure!(ran.out.contains("is not known here") && ran.out.contains("replica"), "{ran:?}");
    // An act on a replica is refused before it is tried.
    case.run_with("cancel", &[&nobody, "--reason", "no"], &there).await?.ended(2)?;

    let status = async |code, environment: &[(&str, &str)]| {
        let ran = case.run_with("status", &["--json"], environment).await?.ended(code)?;
        ran.objects()?.pop().context("nothing")
    };
    let now = status(0, &[]).await?;
    ensure!(
        now["owner"]["lane_connections"] == Config::LANES && now["owner"]["released_at"].is_null(),
        "{now}"
    );
    ensure!(now["streams"][0]["last_sequence"] == 4, "{now}");
    ensure!(now["streams"][0]["lag_commands"] == 0 && now["streams"][0]["lag_seconds"] == 0.0);
    ensure!(now["parked"][0]["reason"] == "unknown_command" && now["parked"][0]["commands"] == 1);
    ensure!(now["dead_letters"][0]["reason"] == "not_json", "{now}");
    ensure!(now["pauses"][0]["key"] == "z" && now["schema"]["required_protocol"] == 2, "{now}");

    worker.terminate(DEADLINE).await?;
    for n in 5..8 {
        case.publish(&Message::append("a", n)).await?;
    }
    let now = status(0, &[]).await?;
    ensure!(now["owner"]["released_at"].is_string(), "{now}");
    ensure!(now["streams"][0]["lag_commands"] == 3, "{now}");
    ensure!(now["streams"][0]["lag_seconds"].as_f64().is_some_and(|lag| lag > 0.0), "{now}");
    let away = status(1, &[("FARWRITE_NATS_URL", "nats://127.0.0.1:1")]).await?;
    ensure!(away["nats_error"].is_string() && away["streams"][0]["low_water"] == 4, "{away}");
    ensure!(away["streams"][0]["last_sequence"].is_null(), "{away}");
    ensure!(away["parked"][0]["commands"] == 1, "{away}");
    let ran = case.run("status", &[]).await?.ended(0)?;
    ensure!(ran.out.contains("lag         3 commands, the oldest "), "{ran:?}");

    let stream = case.context.get_stream(format!("farwrite-{}", case.name)).await?;
    stream.purge().sequence(7).await?;
    let now = status(1, &[]).await?;
    ensure!(now["streams"][0]["lag_seconds"].is_number(), "{now}");
    let problem = now["streams"][0]["problem"].as_str().unwrap_or_default();
    ensure!(problem.contains("begins at sequence 7"), "{now}");
    stream.purge().await?;
    let now = status(1, &[]).await?;
    ensure!(now["streams"][0]["lag_seconds"].is_null(), "{now}");
    Ok(())
}

#[tokio::test]
async fn migrate_check_says_what_there_is_to_do_and_does_none_of_it() -> Result<()> {
    let case = Case::new("check", &[]).await?;
    let ran = case.run("migrate", &["--check"]).await?.ended(0)?;
    ensure!(ran.out.ends_with("up to date\n"), "{ran:?}");

    let empty = format!("{}_empty", case.name);
    case.stack.primary().create_database(&empty).await?;
    let url = case.stack.primary().url(&empty);
    let ran = case
        .run_with("migrate", &["--check"], &[("FARWRITE_DATABASE_URL", &url)])
        .await?
        .ended(5)?;
    ensure!(ran.out.contains("version 0") && ran.out.contains("pending   1 "), "{ran:?}");
    let mut connection = case.stack.primary().connect(&empty).await?;
    let schemas: i64 =
        sqlx::query_scalar("SELECT count(*) FROM pg_namespace WHERE nspname = 'farwrite'")
            .fetch_one(&mut connection)
            .await?;
    ensure!(schemas == 0);

    let other = [("FARWRITE_STREAM", "not-there")];
    let ran = case.run_with("migrate", &["--check"], &other).await?.ended(5)?;
    ensure!(ran.out.contains("not-there: is missing"), "{ran:?}");
    ensure!(case.context.get_stream("not-there").await.is_err());

    let away = [("FARWRITE_NATS_URL", "nats://127.0.0.1:1")];
    case.run_with("migrate", &["--check"], &away).await?.ended(1)?;

    let name = format!("farwrite-{}", case.name);
    let mut config = case.context.get_stream(&name).await?.cached_info().config.clone();
    config.max_age = std::time::Duration::from_secs(3_600);
    case.context.update_stream(&config).await?;
    let ran = case.run("migrate", &["--check"]).await?.ended(2)?;
    ensure!(ran.out.contains("max_age is set"), "{ran:?}");

    // Made again: another stream of that name.
    case.context.delete_stream(&name).await?;
    config.max_age = std::time::Duration::ZERO;
    case.context.create_stream(&config).await?;
    case.run("migrate", &["--check"]).await?.ended(4)?;
    Ok(())
}

#[tokio::test]
async fn a_worker_runs_on_a_newer_schema_unless_that_refuses_it() -> Result<()> {
    let case = Case::new("newer", &[]).await?;
    case.execute(
        "INSERT INTO farwrite.migrations (version, description, success, checksum, execution_time)
         VALUES (1000, 'of a newer program', true, '\\x00', 1)",
    )
    .await?;
    let worker = case.serving_worker().await?;
    case.publish(&Message::append("a", 1)).await?;
    case.check_model().await?;
    worker.terminate(DEADLINE).await?;
    case.run("migrate", &["--check"]).await?.ended(0)?;

    case.execute("CREATE OR REPLACE FUNCTION farwrite.requires_protocol() RETURNS integer LANGUAGE sql IMMUTABLE PARALLEL SAFE RETURN 3").await?;
    let worker = case.worker()?;
    let status = worker.wait(DEADLINE).await?;
    ensure!(status.code() == Some(2), "{status}\n{}", worker.log_tail());
    ensure!(worker.log().contains("upgrade the worker"), "{}", worker.log_tail());
    case.run("dead-letters", &["list"]).await?.ended(2)?;
    case.run("migrate", &["--check"]).await?.ended(2)?;
    Ok(())
}

#[tokio::test]
async fn an_act_waits_for_a_long_batch_and_fails_none() -> Result<()> {
    let case = Case::new("busy", &[]).await?;
    case.execute(
        "CREATE FUNCTION app.slow(body jsonb) RETURNS void LANGUAGE plpgsql AS $$
         BEGIN PERFORM pg_sleep(5); END $$;
         SELECT farwrite.register('app.slow', 'app.slow(jsonb)')",
    )
    .await?;
    let _worker = case.serving_worker().await?;
    case.publish(&Message { name: "app.slow".to_owned(), ..Message::append("slow", 0) }).await?;
    let sleeping = "SELECT count(*) FROM pg_stat_activity
        WHERE wait_event = 'PgSleep' AND datname = current_database()";
    case.until_count(sleeping, 1).await?;
    let flags = ["--key", "z", "--reason", "a test"];
    let pause = case.run("pause", &flags);
    let publish = async {
        for n in 0..40 {
            case.publish(&Message::append(&format!("key {n}"), n)).await?;
        }
        Ok::<_, anyhow::Error>(())
    };
    let (paused, published) = tokio::join!(pause, publish);
    published?;
    let ran = paused?.ended(0)?;
    ensure!(ran.out == "key z is paused\n", "{ran:?}");
    case.check_model().await?;
    let sql = "SELECT count(*) FROM farwrite.ledger WHERE outcome <> 'applied' OR attempts > 1";
    ensure!(case.count(sql).await? == 0);
    Ok(())
}
