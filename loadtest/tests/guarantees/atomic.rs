//! Atomic batches: one message, all or none, an outcome for each command.

use anyhow::{Result, ensure};
use farwrite_schemas::{ATOMIC_NAME, CommandId};
use serde_json::{Value, json};

use crate::support::{Case, Message};

/// A batch of `app.append`, each with its own id; a refusal where `refuse` says so.
fn batch(key: &str, ns: &[i32], refuse: Option<i32>) -> (Message, Vec<CommandId>) {
    let ids: Vec<CommandId> = ns.iter().map(|_| CommandId::now()).collect();
    let commands: Vec<Value> = ns
        .iter()
        .zip(&ids)
        .map(|(n, id)| {
            let body = if refuse == Some(*n) {
                json!({"n": n, "refuse": "by test"})
            } else {
                json!({"n": n})
            };
            json!({"id": id, "name": "app.append", "body": body})
        })
        .collect();
    let body = json!({ "commands": commands }).to_string();
    (Message { body, ..Message::append(key, 0) }.named(ATOMIC_NAME), ids)
}

#[tokio::test]
async fn an_atomic_batch_is_applied_as_a_whole_and_each_command_has_its_outcome() -> Result<()> {
    let case = Case::new("atomic", &[]).await?;
    let _worker = case.serving(&[]).await?;
    case.publish(&Message::append("a", 1)).await?;
    let (whole, members) = batch("a", &[2, 3, 4], None);
    case.publish(&whole).await?;
    case.publish(&whole).await?;
    case.publish(&Message::append("a", 5)).await?;
    case.settled().await?;
    ensure!(case.effects().await?["a"] == [1, 2, 3, 4, 5]);
    for id in members.iter().chain([&whole.id]) {
        ensure!(case.ended(*id).await?.0 == "applied");
    }
    let output: String = sqlx::query_scalar(
        "SELECT answer #>> '{commands,2,output,place}' FROM farwrite.outcome_of($1)",
    )
    .bind(whole.id.uuid())
    .fetch_one(&mut case.primary().await?)
    .await?;
    ensure!(output == "4", "{output}");
    // A command that was applied in a batch is not applied again by itself.
    let alone = Message { id: members[1], ..Message::append("a", 3) };
    case.publish(&alone).await?;
    case.settled().await?;
    ensure!(case.effects().await?["a"] == [1, 2, 3, 4, 5]);
    Ok(())
}

#[tokio::test]
async fn one_refusal_rejects_an_atomic_batch_as_a_whole() -> Result<()> {
    let case = Case::new("atomic_refused", &[]).await?;
    let _worker = case.serving(&[]).await?;
    let (whole, members) = batch("a", &[1, 2, 3], Some(2));
    case.publish(&whole).await?;
    case.publish(&Message::append("a", 4)).await?;
    case.settled().await?;
    ensure!(case.effects().await?["a"] == [4]);
    let rejected = |code: &str| ("rejected".to_owned(), code.to_owned());
    ensure!(case.ended(whole.id).await? == rejected("P0001"));
    ensure!(case.ended(members[0]).await? == rejected("batch_rejected"));
    ensure!(case.ended(members[1]).await? == rejected("P0001"));
    ensure!(case.ended(members[2]).await? == rejected("batch_rejected"));
    // One of its commands was applied by itself before: it keeps that outcome, and its effect.
    let before = Message::append("b", 1);
    case.publish(&before).await?;
    let commands = json!([
        {"id": before.id, "name": "app.append", "body": {"n": 1}},
        {"id": CommandId::now(), "name": "app.append", "body": {"n": 2}},
    ]);
    let body = json!({ "commands": commands }).to_string();
    let whole = Message { body, ..Message::append("b", 0) }.named(ATOMIC_NAME);
    case.publish(&whole).await?;
    case.settled().await?;
    ensure!(case.ended(whole.id).await?.0 == "applied");
    ensure!(case.effects().await?["b"] == [1, 2]);
    Ok(())
}

#[tokio::test]
async fn an_atomic_batch_waits_for_the_last_of_its_functions_and_a_wrong_one_is_rejected()
-> Result<()> {
    let case = Case::new("atomic_waits", &[]).await?;
    let _worker = case.spawn("run", &[], &[("FARWRITE_UNKNOWN_KEEP_S", "3600")])?;
    let (mut whole, _) = batch("a", &[1, 2], None);
    whole.body = whole.body.replacen("app.append", "app.later", 1);
    case.publish(&whole).await?;
    case.publish(&Message::append("a", 3)).await?;
    case.parked("unknown_command", 1).await?;
    case.execute("SELECT farwrite.register('app.later', 'app.append(jsonb, farwrite.meta)')")
        .await?;
    case.settled().await?;
    ensure!(case.effects().await?["a"] == [1, 2, 3]);
    let many: Vec<i32> = (0..101).collect();
    for (body, _) in [batch("a", &[], None), batch("a", &many, None)] {
        case.publish(&body).await?;
        ensure!(case.ended(body.id).await? == ("rejected".to_owned(), "bad_body".to_owned()));
    }
    Ok(())
}

#[tokio::test]
async fn an_atomic_batch_with_an_id_that_is_too_old_is_rejected_and_holds_nobody_up() -> Result<()>
{
    let case = Case::new("atomic_old", &[]).await?;
    let _worker = case.serving(&["--lanes", "1"]).await?;
    // Refused for itself too: what the ledger could not hold is the other member's outcome.
    let (mut whole, members) = batch("a", &[1, 2], Some(2));
    let old = "01700000-0000-7000-8000-000000000000";
    whole.body = whole.body.replace(&members[0].to_string(), old);
    case.publish(&whole).await?;
    let after = Message::append("a", 3);
    case.publish(&after).await?;
    ensure!(case.ended(after.id).await?.0 == "applied");
    let ended = case.ended(whole.id).await?;
    ensure!(ended == ("rejected".to_owned(), "id_too_old".to_owned()), "{ended:?}");
    ensure!(case.effects().await?["a"] == [3]);
    Ok(())
}

/// `app.slow` applies after a second.
const SLOW: &str = "
    CREATE FUNCTION app.slow(body jsonb, meta farwrite.meta) RETURNS jsonb LANGUAGE plpgsql AS $$
    BEGIN
        PERFORM pg_sleep(1);
        RETURN app.append(body, meta);
    END $$;
    SELECT farwrite.register('app.slow', 'app.slow(jsonb, farwrite.meta)')";

#[tokio::test]
async fn a_member_that_another_lane_applies_while_its_batch_runs_has_one_effect() -> Result<()> {
    let case = Case::new("atomic_race", &[]).await?;
    case.execute(SLOW).await?;
    let _worker = case.serving(&["--lanes", "8"]).await?;
    // Keys of all lanes: some race with the batch's.
    for key in ["b", "c", "d", "e"] {
        let (whole, members) = batch("a", &[1, 2], None);
        let body = whole.body.replacen("app.append", "app.slow", 1);
        case.publish(&Message { body, ..whole.clone() }).await?;
        let runs = "SELECT count(*) FROM pg_stat_activity
                    WHERE wait_event = 'PgSleep' AND datname = current_database()";
        case.until("the batch runs", async || Ok(case.count(runs).await? == 1)).await?;
        case.publish(&Message { id: members[1], ..Message::append(key, 2) }).await?;
        case.settled().await?;
        let effects: i64 =
            sqlx::query_scalar("SELECT count(*) FROM app.effects WHERE command_id = $1")
                .bind(members[1].uuid())
                .fetch_one(&mut case.primary().await?)
                .await?;
        ensure!(effects == 1, "{effects} effects of one id");
        let (word, code) = case.ended(whole.id).await?;
        let is_whole = (word.as_str(), code.as_str()) == ("rejected", "id_reused");
        ensure!(is_whole || word == "applied", "{word} {code}");
    }
    let counted =
        "SELECT count(*) FROM farwrite.ledger WHERE outcome = 'dead_lettered' OR attempts > 1";
    ensure!(case.count(counted).await? == 0, "an attempt was spent");
    Ok(())
}

#[tokio::test]
async fn a_pause_of_a_name_reaches_the_members_of_atomic_batches() -> Result<()> {
    let case = Case::new("atomic_pause", &[]).await?;
    case.execute("SELECT farwrite.register('app.other', 'app.append(jsonb, farwrite.meta)')")
        .await?;
    let _worker = case.serving(&[]).await?;
    case.run("pause", &["--command", "app.other", "--reason", "by test"]).await?.ended(0)?;
    let (whole, _) = batch("a", &[1, 2], None);
    let at = whole.body.rfind("app.append").unwrap_or_default();
    let body = format!("{}app.other{}", &whole.body[..at], &whole.body[at + "app.append".len()..]);
    case.publish(&Message { body, ..whole }).await?;
    let (free, _) = batch("b", &[3, 4], None);
    case.publish(&free).await?;
    case.parked("paused", 1).await?;
    case.applied("b", 4).await?;
    ensure!(!case.effects().await?.contains_key("a"), "it ran while it was paused");
    case.run("resume", &["--command", "app.other"]).await?.ended(0)?;
    case.settled().await?;
    ensure!(case.effects().await?["a"] == [1, 2]);
    Ok(())
}

#[tokio::test]
async fn what_an_app_answers_is_told_as_it_wrote_it_however_large_or_deep() -> Result<()> {
    let case = Case::new("raw_json", &[]).await?;
    case.execute(
        "CREATE FUNCTION app.say(body jsonb) RETURNS json LANGUAGE sql AS $$ SELECT (body->>'text')::json $$;
         SELECT farwrite.register('app.say', 'app.say(jsonb)')",
    )
    .await?;
    let _worker = case.serving(&[]).await?;
    let deep = format!("{}{}", "[".repeat(150), "]".repeat(150));
    for text in ["1e400", "1.10", "123456789012345678901234", deep.as_str(), "[1,\n 2]"] {
        let said = |id| json!({"id": id, "name": "app.say", "body": {"text": text}});
        let ids = [CommandId::now(), CommandId::now()];
        let body = json!({ "commands": ids.map(said) }).to_string();
        let whole = Message { body, ..Message::append("a", 0) }.named(ATOMIC_NAME);
        case.publish(&whole).await?;
        let body = json!({ "text": text }).to_string();
        let alone = Message { body, ..Message::append("a", 0) }.named("app.say");
        case.publish(&alone).await?;
        case.settled().await?;
        let told = case.run("find", &[&alone.id.to_string(), "--json"]).await?.ended(0)?;
        let line = text.replace('\n', " ");
        ensure!(told.out.contains(&format!("\"output\":{line}")), "{told:?}");
        let told = case.run("find", &[&whole.id.to_string(), "--json"]).await?.ended(0)?;
        ensure!(told.out.matches(&format!("\"output\":{line}}}")).count() == 2, "{told:?}");
        let flags = ["--origin", "ewr", &alone.id.to_string()];
        let told = case.run("outcome", &flags).await?.ended(0)?;
        ensure!(told.out.contains(&format!("\"detail\":{line},")), "{told:?}");
    }
    Ok(())
}
