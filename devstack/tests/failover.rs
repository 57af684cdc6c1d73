//! Replicas that are promoted, follow another server, or are made anew.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use farwrite_devstack::{Devstack, DevstackBuilder, Postgres};
use sqlx::{AssertSqlSafe, Connection, PgConnection};

use crate::support::{DEADLINE, count, processes, until};

mod support;

const RTT: Duration = Duration::from_millis(20);

/// A stack whose servers all have a table `kept` with one row.
async fn start(builder: DevstackBuilder) -> Result<Devstack> {
    let stack = builder.start().await?;
    write(stack.primary(), "CREATE TABLE kept AS SELECT 'first' AS what").await?;
    for region in &stack.regions()[1..] {
        stack.replica(region)?.wait_caught_up(stack.primary(), DEADLINE).await?;
    }
    Ok(stack)
}

async fn write(server: &Postgres, sql: &str) -> Result<()> {
    server.execute("postgres", sql).await
}

async fn insert(server: &Postgres, what: &str) -> Result<()> {
    write(server, &format!("INSERT INTO kept VALUES ('{what}')")).await
}

async fn has(server: &Postgres, what: &str) -> Result<bool> {
    Ok(count(server, &format!("kept WHERE what = '{what}'")).await? == 1)
}

async fn comes(server: &Postgres, what: &str) -> Result<()> {
    until(&format!("the row {what}"), async || has(server, what).await).await
}

async fn receives(server: &Postgres, timeline: u32) -> Result<()> {
    until(&format!("timeline {timeline}"), async || Ok(server.timeline().await? == Some(timeline)))
        .await
}

/// The port that a replica streams from now.
async fn sender(server: &Postgres) -> Result<Option<u16>> {
    let sql = "SELECT sender_port FROM pg_stat_wal_receiver WHERE status = 'streaming'";
    let mut connection = server.connect("postgres").await?;
    let port: Option<i32> = sqlx::query_scalar(sql).fetch_optional(&mut connection).await?;
    Ok(port.map(u16::try_from).transpose()?)
}

/// Through the link of a region to the primary.
async fn insert_from(stack: &Devstack, region: &str, what: &str) -> Result<()> {
    let url = stack.primary_url_from(region, "postgres")?;
    let mut connection = PgConnection::connect(&url).await?;
    let sql = format!("INSERT INTO kept VALUES ('{what}')");
    sqlx::query(AssertSqlSafe(sql)).execute(&mut connection).await?;
    Ok(connection.close().await?)
}

async fn round_trip(stack: &Devstack, region: &str) -> Result<Duration> {
    let url = stack.primary_url_from(region, "postgres")?;
    let mut connection = PgConnection::connect(&url).await?;
    let mut shortest = DEADLINE;
    for _ in 0..5 {
        let began = Instant::now();
        connection.ping().await?;
        shortest = shortest.min(began.elapsed());
    }
    Ok(shortest)
}

#[tokio::test]
async fn a_promoted_replica_lacks_what_never_reached_it_and_the_old_primary_can_follow_it()
-> Result<()> {
    let stack = start(Devstack::builder().regions(["ewr", "jfk"]).rtt(RTT)).await?;
    let folder = stack.folder()?.to_path_buf();
    let (old, new) = (stack.server("ewr")?, stack.server("jfk")?);
    ensure!(old.timeline().await? == Some(1) && !old.is_in_recovery().await?);
    ensure!(new.is_in_recovery().await?);
    ensure!(stack.promote("ewr").await.is_err(), "it is no replica");

    stack.replication_link("jfk")?.cut();
    insert(old, "lost").await?;
    stack.promote("jfk").await?;
    ensure!(!new.is_in_recovery().await? && new.timeline().await? == Some(2));
    ensure!(has(new, "first").await? && !has(new, "lost").await?);
    stack.replication_link("jfk")?.heal();
    insert(new, "new").await?;
    insert(old, "lost too").await?;
    ensure!(old.timeline().await? == Some(1) && !has(old, "new").await?);
    ensure!(!has(new, "lost too").await?);

    // Apps are led to the old primary until they are led elsewhere, at the same address.
    insert_from(&stack, "jfk", "led to the old").await?;
    ensure!(has(old, "led to the old").await? && std::ptr::eq(stack.primary(), old));
    let url = stack.primary_url_from("jfk", "postgres")?;
    let mut open = PgConnection::connect(&url).await?;
    stack.set_primary("jfk")?;
    ensure!(open.ping().await.is_err(), "a connection to the old primary stayed");
    ensure!(stack.primary_url_from("jfk", "postgres")? == url);
    for region in ["ewr", "jfk"] {
        insert_from(&stack, region, region).await?;
        ensure!(has(new, region).await? && !has(old, region).await?);
    }
    ensure!(std::ptr::eq(stack.primary(), new) && std::ptr::eq(stack.replica("ewr")?, old));
    ensure!(stack.replica("jfk").is_err());
    let (far, near) = (round_trip(&stack, "ewr").await?, round_trip(&stack, "jfk").await?);
    ensure!(far >= RTT * 9 / 10 && near < RTT / 2, "{far:?} {near:?}");

    // The old primary runs when it is made anew; afterwards, it crashed.
    stack.rebuild("ewr", "jfk").await?;
    ensure!(old.is_in_recovery().await? && !has(old, "lost").await? && has(old, "new").await?);
    ensure!(insert(old, "refused").await.is_err());
    insert(new, "after").await?;
    comes(old, "after").await?;
    receives(old, 2).await?;
    ensure!(sender(old).await? == Some(stack.replication_link("ewr")?.addr().port()));

    // And back again: the slots of the first time are met.
    stack.promote("ewr").await?;
    stack.set_primary("ewr")?;
    ensure!(old.timeline().await? == Some(3));
    new.kill().await?;
    stack.rebuild("jfk", "ewr").await?;
    insert_from(&stack, "jfk", "home").await?;
    comes(new, "home").await?;
    receives(new, 3).await?;
    let (far, near) = (round_trip(&stack, "jfk").await?, round_trip(&stack, "ewr").await?);
    ensure!(far >= RTT * 9 / 10 && near < RTT / 2, "{far:?} {near:?}");

    stack.shutdown().await?;
    ensure!(!folder.exists() && processes(&folder)?.is_empty(), "{:?}", processes(&folder)?);
    Ok(())
}

#[tokio::test]
async fn a_replica_follows_the_promoted_one_unless_it_has_replayed_what_was_lost() -> Result<()> {
    let stack = start(Devstack::builder().regions(["ewr", "jfk", "lga", "sfo"])).await?;
    let (old, new) = (stack.server("ewr")?, stack.server("jfk")?);
    let (lga, sfo) = (stack.server("lga")?, stack.server("sfo")?);
    stack.replication_link("jfk")?.cut();
    stack.replication_link("lga")?.cut();
    insert(old, "lost").await?;
    comes(sfo, "lost").await?;
    old.kill().await?;
    stack.promote("jfk").await?;
    insert(new, "new").await?;
    ensure!(lga.timeline().await? == Some(1));

    let before = stack.replication_link("lga")?.addr();
    stack.follow("lga", "jfk").await?;
    comes(lga, "new").await?;
    ensure!(!has(lga, "lost").await?);
    receives(lga, 2).await?;
    let link = stack.replication_link("lga")?;
    ensure!(link.addr() != before && sender(lga).await? == Some(link.addr().port()));
    link.cut();
    insert(new, "held").await?;
    ensure!(lga.wait_caught_up(new, Duration::from_millis(200)).await.is_err());
    link.heal();
    comes(lga, "held").await?;

    stack.follow("sfo", "jfk").await?;
    let program = sfo.program().context("not running")?;
    let refusal = "forked off current database system timeline 1 before current recovery point";
    until("the refusal", async || Ok(program.log().contains(refusal))).await?;
    ensure!(has(sfo, "lost").await? && !has(sfo, "new").await?);
    stack.rebuild("sfo", "jfk").await?;
    ensure!(!has(sfo, "lost").await? && has(sfo, "new").await?);
    insert(new, "for all").await?;
    comes(sfo, "for all").await?;
    comes(lga, "for all").await?;

    let error = stack.follow("jfk", "lga").await.err().context("a primary follows")?;
    ensure!(error.to_string().contains("only be rebuilt"), "{error}");
    ensure!(stack.follow("lga", "ewr").await.is_err(), "it is not running");
    ensure!(sender(lga).await? == Some(link.addr().port()));
    stack.shutdown().await
}

#[tokio::test]
async fn a_replica_follows_another_one() -> Result<()> {
    let builder = Devstack::builder().regions(["ewr", "lga", "jfk"]).cascade("lga", "jfk").rtt(RTT);
    let stack = start(builder).await?;
    let (primary, jfk, lga) = (stack.primary(), stack.server("jfk")?, stack.server("lga")?);
    let port = |region| anyhow::Ok(stack.replication_link(region)?.addr().port());
    let from_jfk = stack.replication_link("lga")?;
    ensure!(sender(lga).await? == Some(from_jfk.addr().port()));
    ensure!(sender(jfk).await? == Some(port("jfk")?));

    // What is cut between the two holds the lower one only, until it follows the primary; also one
    // whose replay is held changes over at once.
    from_jfk.cut();
    insert(primary, "past the cut").await?;
    comes(jfk, "past the cut").await?;
    ensure!(lga.wait_caught_up(primary, Duration::from_millis(200)).await.is_err());
    lga.pause_replay().await?;
    tokio::time::timeout(DEADLINE, stack.follow("lga", "ewr")).await??;
    ensure!(stack.replication_link("lga")?.addr() != from_jfk.addr());
    ensure!(sender(lga).await? != Some(from_jfk.addr().port()));
    lga.resume_replay().await?;
    comes(lga, "past the cut").await?;
    ensure!(sender(lga).await? == Some(port("lga")?));

    // A stopped one finds it when it starts.
    lga.stop_fast().await?;
    stack.follow("lga", "jfk").await?;
    insert(primary, "while stopped").await?;
    lga.start().await?;
    ensure!(!has(lga, "while stopped").await?);
    from_jfk.heal();
    comes(lga, "while stopped").await?;
    ensure!(sender(lga).await? == Some(from_jfk.addr().port()));

    // One in the middle is made anew; the lower one is elsewhere meanwhile.
    stack.follow("lga", "ewr").await?;
    insert(primary, "from above").await?;
    comes(lga, "from above").await?;
    stack.rebuild("jfk", "ewr").await?;
    lga.wait_caught_up(primary, DEADLINE).await?;
    stack.follow("lga", "jfk").await?;
    insert(primary, "through the copy").await?;
    comes(lga, "through the copy").await?;
    ensure!(sender(lga).await? == Some(from_jfk.addr().port()));

    for (region, upstream) in [("jfk", "lga"), ("jfk", "jfk")] {
        ensure!(stack.follow(region, upstream).await.is_err(), "{region} follows {upstream}");
    }
    let error = stack.rebuild("ewr", "lga").await.err().context("the only primary is gone")?;
    ensure!(error.to_string().contains("in a circle"), "{error}");
    from_jfk.cut();
    let error = stack.rebuild("lga", "jfk").await.err().context("it is cut")?;
    ensure!(error.to_string().contains("is cut"), "{error}");
    from_jfk.heal();
    insert(primary, "nothing was removed").await?;
    comes(lga, "nothing was removed").await?;

    // The lower one comes along to the new timeline.
    stack.promote("jfk").await?;
    insert(jfk, "promoted").await?;
    comes(lga, "promoted").await?;
    receives(lga, 2).await?;
    stack.shutdown().await
}

#[tokio::test]
async fn two_replicas_promoted_from_one_parent_have_one_timeline_and_two_histories() -> Result<()> {
    let stack = start(Devstack::builder().regions(["ewr", "jfk", "lga"])).await?;
    let (primary, jfk, lga) = (stack.primary(), stack.server("jfk")?, stack.server("lga")?);
    // What was received counts, though replay was held.
    lga.pause_replay().await?;
    insert(primary, "received").await?;
    let mut connection = lga.connect("postgres").await?;
    let end: String = sqlx::query_scalar("SELECT pg_current_wal_flush_lsn()::text")
        .fetch_one(&mut primary.connect("postgres").await?)
        .await?;
    until("the row is received", async || {
        let sql = "SELECT pg_last_wal_receive_lsn() >= $1::pg_lsn";
        Ok(sqlx::query_scalar(sql).bind(&end).fetch_one(&mut connection).await?)
    })
    .await?;
    ensure!(!has(lga, "received").await?);
    stack.promote("jfk").await?;
    stack.promote("lga").await?;
    ensure!(has(lga, "received").await?);
    ensure!(jfk.timeline().await? == Some(2) && lga.timeline().await? == Some(2));
    insert(jfk, "here").await?;
    insert(lga, "there").await?;
    ensure!(!has(jfk, "there").await? && !has(lga, "here").await?);
    stack.shutdown().await
}

#[tokio::test]
async fn a_cascade_that_cannot_be_is_refused() -> Result<()> {
    let regions = || Devstack::builder().regions(["ewr", "jfk", "lga"]);
    for (builder, why) in [
        (regions().cascade("jfk", "lga").cascade("lga", "jfk"), "in a circle"),
        (regions().cascade("jfk", "jfk"), "in a circle"),
        (regions().cascade("ewr", "jfk"), "ewr is the primary's region"),
        (regions().cascade("sfo", "jfk"), "no region \"sfo\""),
    ] {
        let error = builder.start().await.err().context("it started")?;
        ensure!(error.to_string().contains(why), "{error}");
    }
    Ok(())
}
