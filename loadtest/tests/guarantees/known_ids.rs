//! What an id that may have been applied, or waits, comes to when it comes again: one effect, and a
//! named refusal where nobody can know.

use std::time::{Duration, SystemTime};

use anyhow::{Result, ensure};
use farwrite_schemas::{CommandId, headers};
use uuid::{NoContext, Timestamp, Uuid};

use crate::support::{Case, DEAD, DEADLINE, Message};

/// An id of so many hours ago.
fn id_of(hours_ago: u64) -> CommandId {
    let now = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
    let then = now.saturating_sub(Duration::from_secs(hours_ago * 3_600));
    let time = Timestamp::from_unix(NoContext, then.as_secs(), then.subsec_nanos());
    CommandId::from_uuid(Uuid::new_v7(time))
}

#[tokio::test]
async fn ids_whose_days_the_ledger_dropped_are_refused_whatever_is_adopted_or_set() -> Result<()> {
    let case = Case::new("horizon", &[]).await?;
    let worker = case.serving_worker().await?;
    let derived = Message { id: CommandId::derived("order", "4711"), ..Message::append("b", 1) };
    for n in 1..=5 {
        case.publish(&Message { id: id_of(72), ..Message::append("a", n) }).await?;
    }
    case.publish(&derived).await?;
    case.publish(&Message::append("c", 1)).await?;
    case.settled().await?;
    worker.terminate(DEADLINE).await?;
    ensure!(
        case.count("SELECT farwrite.drop_ledger_days(now() - interval '1 day')::bigint").await? > 0
    );
    let adopt = ["--from", "first", "--reason", "by test"];
    let said = case.run("adopt-stream", &[&adopt[..], &["--dry-run"]].concat()).await?.ended(0)?;
    let forecast = "5 messages, between the sequences 1 and 5, have ids that are older";
    ensure!(said.out.contains("would be adopted") && said.out.contains(forecast), "{said:?}");
    let said = case.run("adopt-stream", &adopt).await?.ended(0)?;
    ensure!(said.out.contains("is adopted") && said.out.contains(forecast), "{said:?}");
    let worker = case.serving(&["--ledger-keep-hours", "720"]).await?;
    case.settled().await?;
    ensure!(case.effects().await?["a"] == [1, 2, 3, 4, 5], "{:?}", case.effects().await?);
    ensure!(case.effects().await?["b"] == [1] && case.effects().await?["c"] == [1]);
    let refused = "SELECT count(*) FROM farwrite.dead_letters WHERE reason = 'id_too_old'";
    ensure!(case.count(refused).await? == 5);
    // An operator cannot have them applied either, and one more restart changes nothing.
    let put_back = case.run("dead-letters", &["requeue", "--all", "--reason", "by test"]).await?;
    ensure!(put_back.out.contains("older than the ledger knows"), "{put_back:?}");
    worker.terminate(DEADLINE).await?;
    let _worker = case.serving(&["--ledger-keep-hours", "720"]).await?;
    case.publish(&Message { id: id_of(71), ..Message::append("a", 6) }).await?;
    case.settled().await?;
    ensure!(case.effects().await?["a"].len() == 5);
    ensure!(case.count(refused).await? == 6);
    Ok(())
}

#[tokio::test]
async fn what_is_parked_or_dead_lettered_holds_the_ledgers_horizon() -> Result<()> {
    let case = Case::new("horizon_held", &[]).await?;
    let flags = ["--ledger-keep-hours", "1"];
    let worker = case.serving(&flags).await?;
    case.publish(&Message::append("a", 1).named("app.unknown")).await?;
    case.until_count(DEAD, 1).await?;
    case.settled().await?;
    worker.terminate(DEADLINE).await?;
    // Ten days later.
    case.execute(
        "UPDATE farwrite.dead_letters SET published_at = published_at - interval '10 days'",
    )
    .await?;
    let _worker = case.serving(&flags).await?;
    let below = "SELECT count(*) FROM farwrite.ledger_horizon, farwrite.dead_letters WHERE known_from > published_at";
    ensure!(case.count(below).await? == 0);
    Ok(())
}

#[tokio::test]
async fn an_id_that_waits_under_one_key_is_refused_under_another() -> Result<()> {
    let case = Case::new("two_keys", &["--duplicate-window-ms", "100"]).await?;
    let _worker = case.serving(&["--lanes", "8"]).await?;
    let scheduled = Message::append("a", 1).at(headers::NOT_BEFORE, 3_600_000);
    case.publish(&scheduled).await?;
    case.parked("scheduled", 1).await?;
    case.run("pause", &["--key", "b", "--reason", "by test"]).await?.ended(0)?;
    let paused = Message::append("b", 2);
    case.publish(&paused).await?;
    case.parked("paused", 1).await?;
    // Many keys: one of every lane.
    for (n, key) in ('c'..'k').enumerate() {
        let n = 10 + i32::try_from(n)?;
        for id in [scheduled.id, paused.id] {
            case.publish_past_window(&Message { id, ..Message::append(&key.to_string(), n) })
                .await?;
        }
    }
    case.publish(&Message::append("z", 1)).await?;
    case.read().await?;
    let effects = case.effects().await?;
    ensure!(effects.keys().all(|key| key == "z"), "{effects:?}");
    // As a member of an atomic batch it is not applied either.
    let body = serde_json::json!({ "commands": [{"id": scheduled.id, "name": "app.append", "body": {"n": 7}}] });
    let whole = Message { body: body.to_string(), ..Message::append("c", 0) }
        .named(farwrite_schemas::ATOMIC_NAME);
    case.publish(&whole).await?;
    ensure!(case.ended(whole.id).await? == ("rejected".to_owned(), "id_reused".to_owned()));
    case.run("resume", &["--key", "b"]).await?.ended(0)?;
    case.run("parked", &["release", "--id", &scheduled.id.to_string()]).await?.ended(0)?;
    case.settled().await?;
    ensure!(case.ended(scheduled.id).await?.0 == "applied");
    ensure!(case.ended(paused.id).await?.0 == "applied");
    ensure!(case.effects().await?["a"] == [1] && case.effects().await?["b"] == [2]);
    Ok(())
}

#[tokio::test]
async fn an_id_of_a_far_year_is_refused_by_name_and_upkeep_goes_on() -> Result<()> {
    let case = Case::new("far_year", &[]).await?;
    let _worker = case.serving_worker().await?;
    let far = CommandId::from_uuid(
        uuid::Builder::from_unix_timestamp_millis((1 << 48) - 1, &[7; 10]).into_uuid(),
    );
    case.publish(&Message { id: far, ..Message::append("a", 1) }).await?;
    case.until_count(DEAD, 1).await?;
    let reason = "SELECT count(*) FROM farwrite.dead_letters WHERE reason = 'id_in_future'";
    ensure!(case.count(reason).await? == 1);
    let said = case.run("cancel", &[&far.to_string(), "--reason", "by test"]).await?;
    ensure!(said.code != Some(0) && said.err.contains("two days from now"), "{said:?}");
    // A day of that year that is there all the same goes by its bounds, not by its name.
    case.execute("SELECT farwrite.make_ledger_days('10889-07-01', '10889-07-02')").await?;
    let kept = "SELECT count(*) FROM pg_inherits WHERE inhparent = 'farwrite.ledger'::regclass";
    let before = case.count(kept).await?;
    let dropped =
        case.count("SELECT farwrite.drop_ledger_days(now() - interval '300 days')::bigint").await?;
    ensure!(dropped == 0 && case.count(kept).await? == before, "{dropped}");
    case.publish(&Message::append("a", 2)).await?;
    case.settled().await?;
    ensure!(case.effects().await?["a"] == [2]);
    Ok(())
}
