//! One effect per id, order per key, and every command's outcome.

use anyhow::{Context, Result, ensure};
use async_nats::HeaderMap;
use farwrite_schemas::{CommandId, Outcome, headers};
use futures_util::{StreamExt, future::try_join_all};

use crate::support::{Case, DEADLINE, Message};

#[tokio::test]
async fn one_id_has_one_effect_however_often_it_is_published() -> Result<()> {
    let case = Case::new("duplicates", &["--duplicate-window-ms", "100"]).await?;
    let messages: Vec<Message> = (0..50)
        .map(|n| {
            let id = if n % 2 == 0 {
                CommandId::now()
            } else {
                CommandId::derived("test", &n.to_string())
            };
            Message { id, ..Message::append(&format!("key {}", n % 7), n) }
        })
        .collect();
    for message in &messages {
        ensure!(!case.publish(message).await?.duplicate);
    }
    // Twice in the stream before the worker comes, and once more after it has applied them.
    try_join_all(messages.iter().map(|message| case.publish_past_window(message))).await?;
    let worker = case.serving_worker().await?;
    case.settled().await?;
    try_join_all(messages.iter().map(|message| case.publish_past_window(message))).await?;
    case.check_model().await?;
    ensure!(case.count("SELECT count(*) FROM app.effects").await? == 50);
    ensure!(case.count("SELECT count(DISTINCT command_id) FROM app.effects").await? == 50);
    ensure!(worker.terminate(DEADLINE).await?.success());
    Ok(())
}

#[tokio::test]
async fn commands_of_a_key_are_applied_in_the_streams_order() -> Result<()> {
    let case = Case::new("order", &[]).await?;
    let _worker = case.serving_worker().await?;
    let publishing = (0..100).map(async |key| {
        for n in 0..40_i32 {
            // Bodies of one batch lie behind each other, and their places are counted in bytes.
            let note = "Zürich 日本".repeat(usize::try_from(n % 3)?);
            let body = serde_json::json!({ "note": note, "n": n }).to_string();
            case.publish(&Message { body, ..Message::append(&format!("key {key}"), n) }).await?;
        }
        anyhow::Ok(())
    });
    try_join_all(publishing).await?;
    case.check_model().await?;
    let effects = case.effects().await?;
    ensure!(effects.len() == 100);
    ensure!(effects.values().all(|numbers| numbers.iter().copied().eq(0..40)), "{effects:?}");
    Ok(())
}

#[tokio::test]
async fn a_command_without_a_key_is_applied_too() -> Result<()> {
    let case = Case::new("keyless", &[]).await?;
    for n in 0..50 {
        case.publish(&Message { key: None, ..Message::append("", n) }).await?;
    }
    let _worker = case.worker()?;
    case.check_model().await?;
    ensure!(case.count("SELECT count(*) FROM app.effects").await? == 50);
    Ok(())
}

#[tokio::test]
async fn a_rejected_command_leaves_nothing_and_its_neighbours_are_applied() -> Result<()> {
    let case = Case::new("rejected", &[]).await?;
    let mut refused = Vec::new();
    for n in 0..300 {
        let key = format!("key {}", n % 10);
        if n % 10 == 3 {
            let message = Message::refused(&key, n);
            refused.push(message.id);
            case.publish(&message).await?;
        } else {
            case.publish(&Message::append(&key, n)).await?;
        }
    }
    let _worker = case.worker()?;
    case.check_model().await?;
    ensure!(case.count("SELECT count(*) FROM app.effects").await? == 270);
    for id in refused {
        let reply = case.outcome(id).await?.context("no outcome")?;
        let Outcome::Rejected(rejection) = reply.outcome else { anyhow::bail!("{reply:?}") };
        ensure!(
            rejection.code == "P0001" && rejection.message == "refused: by test",
            "{rejection:?}"
        );
    }
    Ok(())
}

#[tokio::test]
async fn a_reply_holds_the_output_and_goes_only_to_the_origins_own_inbox() -> Result<()> {
    let case = Case::new("reply", &[]).await?;
    let own = format!("farwrite.{}.reply.jfk.test", case.name);
    let foreign = format!("farwrite.{}.reply.lga.test", case.name);
    let mut inbox = case.client.subscribe(format!("farwrite.{}.reply.>", case.name)).await?;
    let _worker = case.serving_worker().await?;
    case.publish(&Message { reply: Some(foreign), ..Message::append("a", 1) }).await?;
    case.settled().await?;
    let message = Message { reply: Some(own.clone()), ..Message::append("a", 2) };
    case.publish(&message).await?;
    let reply = tokio::time::timeout(DEADLINE, inbox.next()).await?.context("no reply")?;
    ensure!(reply.subject.as_str() == own, "a reply went to {}", reply.subject);
    let reply = farwrite_schemas::Reply::decode(&reply.payload)?;
    let Outcome::Applied { output } = reply.outcome else { anyhow::bail!("{reply:?}") };
    ensure!(reply.id == message.id && output.get() == "{\"place\": 2}", "{output}");
    ensure!(reply.bookmark.database.as_str() == case.name);
    Ok(())
}

#[tokio::test]
async fn an_id_that_is_used_for_another_command_is_refused_by_name() -> Result<()> {
    let case = Case::new("reused", &["--duplicate-window-ms", "100"]).await?;
    let _worker = case.serving_worker().await?;
    let inbox = format!("farwrite.{}.reply.jfk.test", case.name);
    let mut replies = case.client.subscribe(inbox.clone()).await?;
    let first = Message { reply: Some(inbox), ..Message::append("a", 1) };
    let other = Message { body: "{\"n\": 2}".to_owned(), ..first.clone() };
    case.publish(&first).await?;
    case.publish_past_window(&other).await?;
    let mut outcomes = Vec::new();
    while outcomes.len() < 2 {
        let reply = tokio::time::timeout(DEADLINE, replies.next()).await?.context("no reply")?;
        outcomes.push(farwrite_schemas::Reply::decode(&reply.payload)?.outcome);
    }
    ensure!(matches!(&outcomes[0], Outcome::Applied { .. }), "{outcomes:?}");
    ensure!(
        matches!(&outcomes[1], Outcome::Rejected(rejection) if rejection.code == "id_reused"),
        "{outcomes:?}"
    );
    ensure!(case.effects().await? == [("a".to_owned(), vec![1])].into());
    Ok(())
}

#[tokio::test]
async fn a_command_that_comes_alone_and_was_applied_before_is_answered_and_not_judged() -> Result<()>
{
    let case = Case::new("alone", &["--duplicate-window-ms", "100"]).await?;
    let name = &case.name;
    case.execute(&format!(
        "ALTER DATABASE {name} SET track_functions = 'all';
         CREATE SEQUENCE app.runs;
         CREATE FUNCTION app.once(body jsonb) RETURNS bigint LANGUAGE sql AS $$
             SELECT (body->>'n')::bigint * nextval('app.runs') $$;
         SELECT farwrite.register('app.once', 'app.once(jsonb)');"
    ))
    .await?;
    let worker = case.serving(&["--lanes", "1"]).await?;
    let inbox = format!("farwrite.{name}.reply.jfk.test");
    let mut replies = case.client.subscribe(inbox.clone()).await?;
    let message = Message { reply: Some(inbox), ..Message::append("a", 7).named("app.once") };
    case.publish(&message).await?;
    for _ in 0..2 {
        let reply = tokio::time::timeout(DEADLINE, replies.next()).await?.context("no reply")?;
        let outcome = farwrite_schemas::Reply::decode(&reply.payload)?.outcome;
        let output = match &outcome {
            Outcome::Applied { output } => output.get(),
            _ => "",
        };
        ensure!(output == "7", "{outcome:?}");
        case.publish_past_window(&message).await?;
    }
    case.settled().await?;
    // Not even what no rollback undoes: a command that took its server down must not run again.
    ensure!(case.count("SELECT last_value FROM app.runs").await? == 1);
    // What is counted is told at the latest when the sessions end.
    ensure!(worker.terminate(DEADLINE).await?.success());
    case.until("the repeated ones were staged", async || {
        let as_expected =
            "SELECT count(*) FROM pg_stat_user_functions WHERE schemaname = 'farwrite'
                           AND (funcname::text, calls) IN (('apply_plain', 3), ('open_batch', 2))";
        Ok(case.count(as_expected).await? == 2)
    })
    .await?;
    Ok(())
}

#[tokio::test]
async fn what_is_no_command_is_kept_with_its_bytes_and_blocks_nobody() -> Result<()> {
    let case = Case::new("dead_letters", &[]).await?;
    let _worker = case.serving_worker().await?;
    case.publish(&Message::append("a", 1)).await?;
    let no_json = Message { body: "{\"n\": ".to_owned(), ..Message::append("a", 2) };
    let unknown = Message { name: "app.unknown".to_owned(), ..Message::append("a", 3) };
    case.publish(&no_json).await?;
    case.publish(&unknown).await?;
    case.publish(&Message::append("a", 4)).await?;
    case.settled().await?;
    ensure!(case.effects().await? == [("a".to_owned(), vec![1, 4])].into());
    let letters: Vec<(String, Vec<u8>)> =
        sqlx::query_as("SELECT reason, body FROM farwrite.dead_letters ORDER BY sequence")
            .fetch_all(&mut case.primary().await?)
            .await?;
    let expected = [("not_json", &no_json.body), ("unknown_command", &unknown.body)];
    ensure!(
        letters == expected.map(|(reason, body)| (reason.to_owned(), body.clone().into_bytes())),
        "{letters:?}"
    );
    for id in [no_json.id, unknown.id] {
        let reply = case.outcome(id).await?.context("no outcome")?;
        ensure!(matches!(reply.outcome, Outcome::DeadLettered(_)), "{reply:?}");
    }
    Ok(())
}

#[tokio::test]
async fn what_no_text_can_hold_is_kept_and_blocks_nobody() -> Result<()> {
    let case = Case::new("nul", &[]).await?;
    let worker = case.serving(&["--lanes", "1"]).await?;
    case.client.publish(case.subject("app.a\0b"), "{}".into()).await?;
    let mut with_nul = HeaderMap::new();
    with_nul.insert(headers::COMMAND_ID, "a\0b");
    let subject = case.subject("app.append");
    case.context.publish_with_headers(subject, with_nul.clone(), "{}".into()).await?.await?;
    case.publish(&Message::append("a", 1)).await?;
    case.settled().await?;
    ensure!(case.effects().await?["a"] == [1]);
    let letters = case.count("SELECT count(*) FROM farwrite.dead_letters").await?;
    ensure!(letters == 2, "{letters} dead letters");
    // As the last message that was applied, it proves the stream at the next start.
    with_nul.insert(headers::COMMAND_ID, "b\0");
    let subject = case.subject("app.append");
    case.context.publish_with_headers(subject, with_nul, "{}".into()).await?.await?;
    case.settled().await?;
    ensure!(worker.terminate(DEADLINE).await?.success());
    let _worker = case.serving(&["--lanes", "1"]).await?;
    case.publish(&Message::append("a", 2)).await?;
    case.settled().await?;
    ensure!(case.effects().await?["a"] == [1, 2]);
    Ok(())
}

#[tokio::test]
async fn a_function_that_is_registered_while_the_worker_runs_is_found() -> Result<()> {
    let case = Case::new("registered", &[]).await?;
    let _worker = case.serving_worker().await?;
    case.publish(&Message::append("a", 1)).await?;
    case.settled().await?;
    case.stack
        .primary()
        .execute(
            &case.name,
            "SELECT farwrite.register('app.later', 'app.append(jsonb, farwrite.meta)')",
        )
        .await?;
    case.publish(&Message { name: "app.later".to_owned(), ..Message::append("a", 2) }).await?;
    case.settled().await?;
    ensure!(case.effects().await? == [("a".to_owned(), vec![1, 2])].into());
    Ok(())
}

#[tokio::test]
async fn the_number_of_lanes_may_change_at_any_start() -> Result<()> {
    let case = Case::new("lanes", &[]).await?;
    for (round, lanes) in ["1", "7", "3"].into_iter().enumerate() {
        for n in 0..60 {
            let n = i32::try_from(round)? * 60 + n;
            case.publish(&Message::append(&format!("key {}", n % 9), n)).await?;
        }
        let worker = case.spawn("run", &["--lanes", lanes], &[])?;
        case.settled().await?;
        ensure!(worker.terminate(DEADLINE).await?.success());
    }
    case.check_model().await?;
    ensure!(case.count("SELECT count(*) FROM app.effects").await? == 180);
    ensure!(case.count("SELECT count(*) FROM farwrite.lanes").await? == 3);
    Ok(())
}
