//! Dead letters are requeued and discarded: nothing is lost or doubled, and no key loses its order.

use std::collections::BTreeSet;

use anyhow::{Result, ensure};
use async_nats::HeaderMap;
use farwrite_schemas::CommandId;
use serde_json::{Value, json};
use sqlx::Connection;

use crate::support::{
    ALL_WAIT, Case, DEAD, DEADLINE, Message, NOBODY_WAITS, PARKED, WAITS_FOR_ITS_LANE,
};

const FORGET: &str =
    "DELETE FROM farwrite.functions WHERE name = 'app.append'; SELECT farwrite.make_dispatcher()";
const KNOW: &str = "SELECT farwrite.register('app.append', 'app.append(jsonb, farwrite.meta)')";

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
    let ran = case.run("find", &[&id, "--json"]).await?.ended(0)?;
    ensure!(ran.objects()?[0]["status"] == "dead_lettered", "{ran:?}");
    ensure!(case.count(DEAD).await? == 2);
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
             ARRAY[version], ARRAY[order_key], ARRAY[key_queue], ARRAY[lane_hash], 'a test') FROM app.was",
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
