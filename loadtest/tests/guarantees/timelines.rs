//! Failovers, and what is said of positions on a branch of history that was lost: invariant 7.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use farwrite_devstack::{Devstack, Program};
use farwrite_producer::{
    Bookmark, BookmarkError, CommandId, Doubt, Limits, OutcomeAnswer, Producer, ReadsFrom,
    WaitError,
};
use sqlx::{AssertSqlSafe, Connection, PgConnection};

use crate::support::{Append, Case, DEADLINE};

/// Long enough for a false answer to come.
const A_WHILE: Duration = Duration::from_secs(2);

/// A stack of its own: its primary will be lost. The reaper ends it with this process.
async fn stack(regions: &[&str]) -> Result<&'static Devstack> {
    let stack = Devstack::builder().regions(regions.iter().copied()).start().await?;
    Ok(Box::leak(Box::new(stack)))
}

/// The worker, serving on the server of a region.
async fn worker_on(case: &Case, region: &str) -> Result<Program> {
    let url = case.stack.server(region)?.url(&case.name);
    let worker = case.spawn("run", &[], &[("FARWRITE_DATABASE_URL", &url)])?;
    case.until("the worker serves", async || Ok(worker.log().contains(" serving epoch="))).await?;
    Ok(worker)
}

/// A producer whose reads are on a replica's URL.
async fn reading(case: &Case, url: String) -> Result<Producer> {
    let builder = Producer::builder(case.name.parse()?, "lga".parse()?)
        .nats_url(case.stack.nats().url())
        .reads(ReadsFrom::replica(url))
        .limits(Limits::default().timeout(DEADLINE));
    Ok(builder.connect().await?)
}

fn append(n: i32) -> Append {
    Append { key: "a".to_owned(), n }
}

/// What a failed wait ended with.
fn why(result: Result<(), BookmarkError>) -> Result<WaitError> {
    match result {
        Err(BookmarkError::Wait(error)) => Ok(*error),
        other => bail!("not a failed wait: {other:?}"),
    }
}

async fn lsn_of(connection: &mut PgConnection, function: &str) -> Result<farwrite_schemas::Lsn> {
    let sql = AssertSqlSafe(format!("SELECT {function}()::text"));
    let text: String = sqlx::query_scalar(sql).fetch_one(connection).await?;
    Ok(text.parse()?)
}

/// Writes on a server of which no worker knows until its replica has replayed past a position.
async fn outrun(
    case: &Case,
    primary: &str,
    replica: &str,
    lsn: farwrite_schemas::Lsn,
) -> Result<()> {
    let (primary, replica) = (case.stack.server(primary)?, case.stack.server(replica)?);
    primary.execute(&case.name, "CREATE TABLE IF NOT EXISTS noise (text text)").await?;
    let mut there = replica.connect(&case.name).await?;
    case.until("the replica is past the lost position", async || {
        primary.execute(&case.name, "INSERT INTO noise VALUES (repeat('x', 1000))").await?;
        Ok(lsn_of(&mut there, "pg_last_wal_replay_lsn").await? > lsn)
    })
    .await
}

/// A failover that lost a commit: everything about it is on the replica in `lga`, which streamed
/// from the one in `jfk` that was promoted.
struct Lost {
    case: Case,
    /// Visible before the failover.
    kept: Bookmark,
    /// Committed, and lost.
    lost: Bookmark,
    lost_id: CommandId,
}

impl Lost {
    async fn new(name: &str) -> Result<Self> {
        let case = Case::on(stack(&["ewr", "jfk", "lga"]).await?, name, &[]).await?;
        let stack = case.stack;
        // A switch of the upstream, while apps read.
        let worker = worker_on(&case, "ewr").await?;
        let before = case.producer("lga").await?;
        before.write(&append(1)).await?;
        stack.follow("lga", "jfk").await?;
        let kept = before.write(&append(2)).await?.bookmark;
        stack.replica("jfk")?.wait_caught_up(stack.primary(), DEADLINE).await?;
        stack.replication_link("jfk")?.cut();
        let lost = before.submit(&append(3)).await?;
        worker.kill().await?;
        stack.primary().kill().await?;
        stack.promote("jfk").await?;
        outrun(&case, "jfk", "lga", lost.bookmark.lsn).await?;
        Ok(Self { case, kept, lost: lost.bookmark, lost_id: lost.id })
    }

    /// What every watcher of `lga` must say, before and after a worker has taken over.
    async fn check(&self, producer: &Producer) -> Result<()> {
        let Self { case, kept, lost, lost_id } = self;
        // The replica is past the position, and does not hold the commit. Nobody has written yet
        // where the old timeline ended.
        let error = why(producer.wait_within(lost, A_WHILE).await)?;
        let WaitError::TimedOut { seen, .. } = &error else { bail!("{error:?}") };
        ensure!(seen.missing_bytes == Some(0), "{seen:?}");
        ensure!(matches!(seen.doubt, Some(Doubt::OtherTimeline(_))), "{seen:?}");
        // A waiter that waits already is told as soon as the loss is known.
        let waiting = tokio::spawn({
            let (producer, lost) = (producer.clone(), lost.clone());
            async move { producer.wait_within(&lost, DEADLINE).await }
        });
        let _worker = worker_on(case, "jfk").await?;
        let error = why(waiting.await?)?;
        ensure!(matches!(error, WaitError::Superseded { .. }), "{error:?}");
        let error = why(producer.wait_within(lost, DEADLINE).await)?;
        ensure!(matches!(error, WaitError::Superseded { .. }), "{error:?}");
        producer.wait_within(kept, DEADLINE).await.context("what survived")?;
        let error = producer.read_at(lost).await.err().context("read where it is not")?;
        ensure!(error.is_superseded(), "{error:?}");
        // Its command was applied again, and has a bookmark of its own.
        let mut again = None;
        case.until("the outcome is known", async || {
            if let Ok(OutcomeAnswer::Known(reply)) = producer.outcome(*lost_id).await {
                again = Some(reply.bookmark);
            }
            Ok(again.is_some())
        })
        .await?;
        let again = again.context("no bookmark")?;
        ensure!(again.timeline.0 == 2 && again.epoch != lost.epoch, "{again:?}");
        producer.wait_within(&again, DEADLINE).await?;
        let rows: i64 =
            sqlx::query_scalar("SELECT count(*) FROM app.effects WHERE command_id = $1")
                .bind(lost_id.uuid())
                .fetch_one(producer.reads()?)
                .await?;
        ensure!(rows == 1, "{rows} rows of the command that was applied again");
        producer.write(&append(4)).await?;
        Ok(())
    }
}

#[tokio::test]
async fn a_commit_that_a_failover_lost_is_never_visible_on_a_cascading_replica() -> Result<()> {
    let lost = Lost::new("cascade").await?;
    let url = lost.case.stack.replica("lga")?.url(&lost.case.name);
    lost.check(&reading(&lost.case, url).await?).await
}

#[tokio::test]
async fn a_commit_that_a_failover_lost_is_never_visible_through_the_regions_program() -> Result<()>
{
    let lost = Lost::new("cascade_region").await?;
    let case = &lost.case;
    let _watcher = case.watcher("lga")?;
    let producer = Producer::builder(case.name.parse()?, "lga".parse()?)
        .nats_url(case.stack.nats_url("lga")?)
        .reads(ReadsFrom::replica(case.stack.replica("lga")?.url(&case.name)).over_nats())
        .limits(Limits::default().timeout(DEADLINE));
    lost.check(&producer.connect().await?).await
}

#[tokio::test]
async fn a_watched_replica_that_is_promoted_shows_what_it_holds_and_no_more() -> Result<()> {
    let case = Case::on(stack(&["ewr", "jfk", "lga"]).await?, "promoted", &[]).await?;
    let stack = case.stack;
    let worker = worker_on(&case, "ewr").await?;
    let producer = case.producer("jfk").await?;
    let kept = producer.write(&append(1)).await?.bookmark;
    stack.replication_link("jfk")?.cut();
    let lost = producer.submit(&append(2)).await?.bookmark;
    worker.kill().await?;
    stack.primary().kill().await?;
    stack.promote("jfk").await?;
    let error = why(producer.wait_within(&lost, A_WHILE).await)?;
    ensure!(matches!(error, WaitError::TimedOut { .. }), "{error:?}");
    let _worker = worker_on(&case, "jfk").await?;
    let error = why(producer.wait_within(&lost, DEADLINE).await)?;
    ensure!(matches!(error, WaitError::Superseded { .. }), "{error:?}");
    producer.wait_within(&kept, DEADLINE).await?;
    // In the new primary's region a write is visible as soon as it is committed.
    producer.write(&append(3)).await?;
    Ok(())
}

#[tokio::test]
async fn two_branches_of_one_timeline_are_told_apart() -> Result<()> {
    let case = Case::on(stack(&["ewr", "jfk", "lga"]).await?, "twins", &[]).await?;
    let stack = case.stack;
    let worker = worker_on(&case, "ewr").await?;
    let producer = case.producer("lga").await?;
    producer.write(&append(1)).await?;
    worker.kill().await?;
    stack.primary().kill().await?;
    for region in ["jfk", "lga"] {
        stack.promote(region).await?;
    }
    // One worker after the other, on two primaries of timeline 2.
    let there = worker_on(&case, "jfk").await?;
    let theirs = producer.submit(&append(2)).await?.bookmark;
    ensure!(theirs.timeline.0 == 2);
    there.kill().await?;
    stack
        .server("lga")?
        .execute(
            &case.name,
            "CREATE TABLE noise AS SELECT repeat('x', 1000) FROM generate_series(1, 1000)",
        )
        .await?;
    // Until a worker has taken over here, nobody can say which of the two survives.
    let error = why(producer.wait_within(&theirs, A_WHILE).await)?;
    let WaitError::TimedOut { seen, .. } = &error else { bail!("{error:?}") };
    ensure!(seen.doubt == Some(Doubt::LaterTimeline(theirs.timeline)), "{seen:?}");
    // What the broker knows of the other branch speaks against this one, until an operator decides.
    let url = stack.server("lga")?.url(&case.name);
    let settings = [("FARWRITE_DATABASE_URL", url.as_str()), ("FARWRITE_TAKE_OVER", "true")];
    let vetoed = case.spawn("run", &[], &settings[..1])?;
    let refused = async || Ok(vetoed.log().contains("its history lacks that takeover"));
    case.until("the worker refuses", refused).await?;
    vetoed.kill().await?;
    let here = case.spawn("run", &[], &settings)?;
    case.until("the worker serves", async || Ok(here.log().contains(" serving epoch="))).await?;
    let ours = producer.write(&append(3)).await?.bookmark;
    ensure!(ours.timeline.0 == 2 && ours.epoch != theirs.epoch);
    let error = why(producer.wait_within(&theirs, DEADLINE).await)?;
    ensure!(matches!(error, WaitError::Superseded { .. }), "{error:?}");
    Ok(())
}

#[tokio::test]
async fn a_watcher_that_is_not_told_the_timeline_goes_by_what_rows_prove() -> Result<()> {
    let case = Case::new("unprivileged", &[]).await?;
    let _worker = case.serving_worker().await?;
    let role = format!("{}_reader", case.name);
    case.execute(&format!(
        "CREATE ROLE {role} LOGIN; GRANT CONNECT ON DATABASE \"{}\" TO {role}; GRANT USAGE ON SCHEMA farwrite TO {role}",
        case.name
    ))
    .await?;
    let primary = case.stack.primary();
    let replica = case.stack.replica("jfk")?;
    replica.wait_caught_up(primary, DEADLINE).await?;
    let url = replica.url(&case.name).replacen("postgres@", &format!("{role}@"), 1);
    let producer = reading(&case, url).await?;
    let committed = producer.submit(&append(1)).await?;
    // Without a right to the history nothing is ever visible, and it is said why.
    let error = why(producer.wait_within(&committed.bookmark, A_WHILE).await)?;
    let WaitError::TimedOut { seen, .. } = &error else { bail!("{error:?}") };
    ensure!(
        seen.unreadable.as_deref().is_some_and(|why| why.contains("permission denied")),
        "{seen:?}"
    );
    case.execute(&format!("GRANT SELECT ON farwrite.history, farwrite.owner TO {role}")).await?;
    producer.wait_within(&committed.bookmark, DEADLINE).await?;
    let written = producer.write(&append(2)).await?;
    let mut there = PgConnection::connect(&replica.url(&case.name)).await?;
    let proven: bool =
        sqlx::query_scalar("SELECT flushed_lsn >= $1::text::pg_lsn FROM farwrite.owner")
            .bind(written.bookmark.lsn.to_string())
            .fetch_one(&mut there)
            .await?;
    ensure!(proven, "visible without a proof, and without a timeline");
    case.execute(&format!("DROP OWNED BY {role}; DROP ROLE {role}")).await
}

#[tokio::test]
async fn a_replica_on_a_lost_branch_calls_nothing_of_the_surviving_one_lost() -> Result<()> {
    let case = Case::on(stack(&["ewr", "jfk", "lga"]).await?, "lost_replica", &[]).await?;
    let stack = case.stack;
    let worker = worker_on(&case, "ewr").await?;
    let producer = reading(&case, stack.replica("lga")?.url(&case.name)).await?;
    producer.write(&append(1)).await?;
    stack.replica("jfk")?.wait_caught_up(stack.primary(), DEADLINE).await?;
    stack.replication_link("jfk")?.cut();
    let ahead = producer.write(&append(2)).await?.bookmark;
    // Far enough that the new primary does not come there soon.
    stack
        .primary()
        .execute(
            &case.name,
            "CREATE TABLE noise AS SELECT repeat('x', 1000) FROM generate_series(1, 20000)",
        )
        .await?;
    stack.replica("lga")?.wait_caught_up(stack.primary(), DEADLINE).await?;
    worker.kill().await?;
    stack.primary().kill().await?;
    stack.promote("jfk").await?;
    let _worker = worker_on(&case, "jfk").await?;
    let survives = producer.submit(&append(3)).await?.bookmark;
    ensure!(survives.timeline.0 == 2, "{survives:?}");
    let mut there = stack.replica("lga")?.connect(&case.name).await?;
    ensure!(lsn_of(&mut there, "pg_last_wal_replay_lsn").await? > survives.lsn, "not ahead");
    let error = why(producer.wait_within(&survives, A_WHILE).await)?;
    let WaitError::TimedOut { seen, .. } = &error else { bail!("{error:?}") };
    ensure!(seen.doubt == Some(Doubt::LaterTimeline(survives.timeline)), "{seen:?}");
    // Of its own branch it goes on to tell what it shows.
    producer.wait_within(&ahead, DEADLINE).await?;
    Ok(())
}
