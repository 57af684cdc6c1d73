//! The app's three verbs, end to end: accepted, committed, visible.

use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context, Result, ensure};
use farwrite_primary_worker::failpoint::VARIABLE;
use farwrite_producer::SubmitError;
use farwrite_schemas::{CommandId, Outcome, OutcomeAnswer};
use futures_util::future::try_join_all;

use crate::support::{Append, Case, DEADLINE, Message};

#[tokio::test]
async fn every_write_is_read_back_on_a_replica_30_ms_away() -> Result<()> {
    const KEYS: usize = 60;
    const WRITES: i32 = 50;
    let case = Case::new("read_your_writes", &[]).await?;
    let _worker = case.serving_worker().await?;
    let producer = case.producer("jfk").await?;
    let stale = AtomicUsize::new(0);
    let writing = (0..KEYS).map(async |key| {
        let key = format!("key {key}");
        for n in 0..WRITES {
            let written = producer.write(&Append { key: key.clone(), n }).await?;
            ensure!(written.output.place == n + 1, "{written:?}");
            let rows: i64 =
                sqlx::query_scalar("SELECT count(*) FROM app.effects WHERE command_id = $1")
                    .bind(written.id.uuid())
                    .fetch_one(producer.reads()?)
                    .await?;
            stale.fetch_add(usize::from(rows != 1), Ordering::Relaxed);
        }
        anyhow::Ok(())
    });
    try_join_all(writing).await?;
    let stale = stale.into_inner();
    ensure!(stale == 0, "{stale} of {} reads after a write were stale", KEYS * WRITES as usize);
    case.check_model().await
}

#[tokio::test]
async fn a_publish_is_accepted_without_a_worker_and_applied_when_one_comes() -> Result<()> {
    let case = Case::new("fire_and_forget", &[]).await?;
    let producer = case.producer("jfk").await?;
    for n in 0..20 {
        let accepted = producer.publish(&Append { key: "a".to_owned(), n }).await?;
        ensure!(!accepted.duplicate && accepted.sequence == u64::try_from(n)? + 1, "{accepted:?}");
    }
    drop(producer);
    let _worker = case.worker()?;
    case.check_model().await?;
    ensure!(case.count("SELECT count(*) FROM app.effects").await? == 20);
    Ok(())
}

#[tokio::test]
async fn a_submit_whose_worker_dies_between_commit_and_reply_is_answered_all_the_same() -> Result<()>
{
    let case = Case::new("lost_reply", &[]).await?;
    let dying = case.spawn("run", &[], &[(VARIABLE, "before_reply")])?;
    let producer = case.producer("jfk").await?;
    let command = Append { key: "a".to_owned(), n: 1 };
    let submitting = producer.submit(&command);
    let replacing = async {
        dying.wait(DEADLINE).await?;
        case.serving_worker().await
    };
    let (committed, replaced) = tokio::join!(submitting, replacing);
    let _worker = replaced?;
    let committed = committed?;
    ensure!(committed.output.place == 1, "{committed:?}");
    ensure!(case.effects().await? == [("a".to_owned(), vec![1])].into());
    producer.wait_within(&committed.bookmark, DEADLINE).await?;
    Ok(())
}

#[tokio::test]
async fn a_rejected_submit_says_why_and_leaves_the_key_free() -> Result<()> {
    let case = Case::new("rejected_submit", &[]).await?;
    let _worker = case.serving_worker().await?;
    let producer = case.producer("ewr").await?;
    let refused = Message::refused("a", 1);
    let body = serde_json::value::RawValue::from_string(refused.body.clone())?;
    let raw = farwrite_producer::RawCommand::new(&refused.name, body).key("a".parse()?);
    let error = producer.call_raw(raw).submit().await.err().context("it was not rejected")?;
    let SubmitError::Rejected { id, rejection, .. } = error else { anyhow::bail!("{error}") };
    ensure!(rejection.code == "P0001" && rejection.message == "refused: by test", "{rejection:?}");
    let known = producer.outcome(id).await?;
    ensure!(
        matches!(&known, OutcomeAnswer::Known(reply) if matches!(reply.outcome, Outcome::Rejected(_))),
        "{known:?}"
    );
    ensure!(producer.submit(&Append { key: "a".to_owned(), n: 2 }).await?.output.place == 1);
    Ok(())
}

#[tokio::test]
async fn the_same_id_submitted_again_is_answered_with_the_first_outcome() -> Result<()> {
    let case = Case::new("submitted_twice", &[]).await?;
    let _worker = case.serving_worker().await?;
    let (here, there) = (case.producer("jfk").await?, case.producer("ewr").await?);
    let id = CommandId::derived("test", "twice");
    let command = Append { key: "a".to_owned(), n: 1 };
    let first = here.call(&command).id(id).submit().await?;
    // Another process, another region, within the broker's duplicate window: no second message.
    let second = there.call(&command).id(id).write().await?;
    ensure!(first.output == second.output, "{first:?} {second:?}");
    let other = there.call(&Append { key: "a".to_owned(), n: 2 }).id(id).submit().await;
    let is_refused = matches!(&other, Err(SubmitError::Rejected { rejection, .. }) if rejection.code == "id_reused");
    ensure!(is_refused, "{other:?}");
    ensure!(case.effects().await? == [("a".to_owned(), vec![1])].into());
    Ok(())
}

#[tokio::test]
async fn the_outcome_service_is_found_by_its_name_and_knows_nothing_of_unknown_ids() -> Result<()> {
    let case = Case::new("discovered", &[]).await?;
    let _worker = case.serving_worker().await?;
    let name = format!("farwrite-outcome-{}", case.name);
    let mut answer = None;
    case.until("the service answers", async || {
        answer = case.client.request(format!("$SRV.INFO.{name}"), "".into()).await.ok();
        Ok(answer.is_some())
    })
    .await?;
    let answer = answer.context("no answer")?;
    let info: serde_json::Value = serde_json::from_slice(&answer.payload)?;
    // The endpoints come in no particular order.
    let endpoints = info["endpoints"].as_array().context("no list of endpoints")?;
    for word in ["outcome", "lag"] {
        let subject = format!("farwrite.{}.{word}", case.name);
        ensure!(endpoints.iter().any(|endpoint| endpoint["subject"] == subject), "{info}");
    }
    let producer = case.producer("jfk").await?;
    let known = producer.outcome(CommandId::now()).await?;
    ensure!(matches!(known, OutcomeAnswer::Pending(_)), "{known:?}");
    Ok(())
}
