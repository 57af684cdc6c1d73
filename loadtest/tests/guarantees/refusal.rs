//! What a worker refuses to begin with: it says what to change, with a status of its own.

use anyhow::{Result, ensure};
use async_nats::jetstream::stream::{Config, DiscardPolicy, StorageType};

use crate::support::{Case, DEADLINE, Message};

/// The worker ends with `status`, and its message names `reason`.
async fn refuses(
    case: &Case,
    environment: &[(&str, &str)],
    status: i32,
    reason: &str,
) -> Result<()> {
    let worker = case.spawn("run", &[], environment)?;
    let ended = worker.wait(DEADLINE).await?;
    ensure!(ended.code() == Some(status), "{ended}, not {status}\n{}", worker.log_tail());
    ensure!(worker.log().contains(reason), "{reason:?} is not in:\n{}", worker.log_tail());
    Ok(())
}

#[tokio::test]
async fn a_replica_is_refused() -> Result<()> {
    let case = Case::new("on_replica", &[]).await?;
    let replica = case.stack.replica("jfk")?;
    replica.wait_caught_up(case.stack.primary(), DEADLINE).await?;
    let url = replica.url(&case.name);
    refuses(&case, &[("FARWRITE_DATABASE_URL", &url)], 2, "the server is a replica").await
}

#[tokio::test]
async fn asynchronous_commits_are_refused() -> Result<()> {
    let case = Case::new("asynchronous", &[]).await?;
    let url = case.stack.primary().url(&case.name);
    let mark = if url.contains('?') { '&' } else { '?' };
    let url = format!("{url}{mark}options=-c%20synchronous_commit%3Doff");
    refuses(&case, &[("FARWRITE_DATABASE_URL", &url)], 2, "synchronous_commit is off").await
}

#[tokio::test]
async fn a_database_that_was_not_migrated_is_refused() -> Result<()> {
    let case = Case::new("not_migrated", &[]).await?;
    case.stack.primary().execute(&case.name, "DROP SCHEMA farwrite CASCADE").await?;
    refuses(&case, &[], 2, "run `farwrite worker migrate`").await
}

#[tokio::test]
async fn a_stream_that_could_lose_commands_is_refused() -> Result<()> {
    type Change = fn(&mut Config);
    let changes: [(Change, &str); 3] = [
        (|config| config.storage = StorageType::Memory, "storage is memory"),
        (|config| config.discard = DiscardPolicy::Old, "discard is old"),
        (|config| config.max_age = std::time::Duration::from_secs(3_600), "max_age is set"),
    ];
    for (change, reason) in changes {
        let case = Case::new("contract", &[]).await?;
        let name = format!("farwrite-{}", case.name);
        let mut config = case.context.get_stream(&name).await?.cached_info().config.clone();
        case.context.delete_stream(&name).await?;
        change(&mut config);
        case.context.create_stream(config).await?;
        refuses(&case, &[], 2, reason).await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_stream_that_was_made_again_stops_the_worker_before_it_reads() -> Result<()> {
    let case = Case::new("made_again", &[]).await?;
    let worker = case.serving_worker().await?;
    case.publish(&Message::append("a", 1)).await?;
    case.settled().await?;
    ensure!(worker.terminate(DEADLINE).await?.success());
    let name = format!("farwrite-{}", case.name);
    let config = case.context.get_stream(&name).await?.cached_info().config.clone();
    case.context.delete_stream(&name).await?;
    // With the same identity in its metadata: only the time of creation tells.
    case.context.create_stream(config).await?;
    case.publish(&Message::append("a", 2)).await?;
    refuses(&case, &[], 4, "not the one that this database knows").await?;
    ensure!(case.effects().await? == [("a".to_owned(), vec![1])].into());
    Ok(())
}

#[tokio::test]
async fn a_stream_whose_highest_message_differs_stops_the_worker_before_it_reads() -> Result<()> {
    let case = Case::new("other_message", &[]).await?;
    let worker = case.serving_worker().await?;
    case.publish(&Message::append("a", 1)).await?;
    case.settled().await?;
    ensure!(worker.terminate(DEADLINE).await?.success());
    // As after a store that was put back from an older copy: the same place, another message.
    let sql = "UPDATE farwrite.lanes SET sequence_id = gen_random_uuid() WHERE sequence = 1";
    case.stack.primary().execute(&case.name, sql).await?;
    case.publish(&Message::append("a", 2)).await?;
    refuses(&case, &[], 4, "is another one than the one that was applied").await?;
    ensure!(case.effects().await? == [("a".to_owned(), vec![1])].into());
    Ok(())
}

#[tokio::test]
async fn a_stream_whose_unapplied_commands_are_gone_stops_the_worker() -> Result<()> {
    let case = Case::new("purged", &[]).await?;
    for n in 0..3 {
        case.publish(&Message::append("a", n)).await?;
    }
    case.context.get_stream(format!("farwrite-{}", case.name)).await?.purge().await?;
    case.publish(&Message::append("a", 3)).await?;
    refuses(&case, &[], 4, "commands from 1 to 3 are not applied").await
}

#[tokio::test]
async fn a_wrong_setting_is_named_before_anything_is_touched() -> Result<()> {
    let case = Case::new("settings", &[]).await?;
    refuses(&case, &[("FARWRITE_LANES", "0")], 2, "lanes: between 1 and 64").await?;
    refuses(&case, &[("FARWRITE_DATABASE", "a b")], 2, "database name").await?;
    refuses(&case, &[("FARWRITE_FAILPOINT", "nowhere")], 2, "FARWRITE_FAILPOINT=nowhere").await
}
