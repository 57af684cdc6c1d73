//! Pauses, cancellations and releases: nothing is lost or doubled by them, and no key loses its order.

use anyhow::{Context, Result, ensure};
use farwrite_schemas::{Outcome, headers};
use serde_json::{Value, json};
use sqlx::Connection;

use crate::support::{ALL_WAIT, Case, DEADLINE, Message, PARKED, WAITS_FOR_ITS_LANE};

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
            outcome => outcome.as_str().to_owned(),
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
    // From here on all four are due, and are read from their key queues together.
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
