//! Failovers of real servers: promotion, another upstream, a cascade, a server made anew.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use farwrite_devstack::{Devstack, Postgres};
use sqlx::AssertSqlSafe;

/// How long anything may take that must happen.
const DEADLINE: Duration = Duration::from_secs(30);

async fn ask<T>(server: &Postgres, sql: &str) -> Result<T>
where
    T: for<'r> sqlx::Decode<'r, sqlx::Postgres> + sqlx::Type<sqlx::Postgres> + Send + Unpin,
{
    let mut connection = server.connect("postgres").await?;
    let asking = sqlx::query_scalar(AssertSqlSafe(sql.to_owned()));
    Ok(asking.fetch_one(&mut connection).await?)
}

async fn until(what: &str, mut is_so: impl AsyncFnMut() -> Result<bool>) -> Result<()> {
    let began = Instant::now();
    while !is_so().await? {
        ensure!(began.elapsed() < DEADLINE, "waited in vain: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    Ok(())
}

const TIMELINE: &str =
    "SELECT ('x' || left(pg_walfile_name(pg_current_wal_lsn()), 8))::bit(32)::int";
const RECEIVED: &str = "SELECT coalesce(max(received_tli), 0) FROM pg_stat_wal_receiver";

#[tokio::test]
async fn a_promoted_replica_lacks_what_it_never_received_and_the_others_follow_it() -> Result<()> {
    let stack = Devstack::builder().regions(["ewr", "jfk", "lga"]).start().await?;
    let (old, new, other) = (stack.primary(), stack.replica("jfk")?, stack.replica("lga")?);
    old.execute("postgres", "CREATE TABLE kept AS SELECT 1 AS n").await?;
    // A cascade: the other one hears of it through the first.
    stack.follow("lga", "jfk").await?;
    other.wait_caught_up(old, DEADLINE).await?;
    stack.replication_link("jfk")?.cut();
    old.execute("postgres", "CREATE TABLE lost AS SELECT 1 AS n").await?;
    stack.promote("jfk").await?;
    ensure!(ask::<i32>(new, TIMELINE).await? == 2);
    ensure!(
        ask::<bool>(new, "SELECT to_regclass('lost') IS NULL AND to_regclass('kept') IS NOT NULL")
            .await?
    );
    until("the cascade is on timeline 2", async || Ok(ask::<i32>(other, RECEIVED).await? == 2))
        .await?;
    new.execute("postgres", "CREATE TABLE newer AS SELECT 1 AS n").await?;
    other.wait_caught_up(new, DEADLINE).await?;
    ensure!(ask::<bool>(other, "SELECT to_regclass('newer') IS NOT NULL").await?);

    // What leads to the primary leads to the new one, once it is said.
    stack.lead("jfk")?;
    let url = stack.primary_url_from("lga", "postgres")?;
    let mut connection = <sqlx::PgConnection as sqlx::Connection>::connect(&url).await?;
    let timeline: i32 = sqlx::query_scalar(TIMELINE).fetch_one(&mut connection).await?;
    ensure!(timeline == 2);

    // The old primary comes back as a replica of the new one, without what only it had.
    stack.rebuild("ewr", "jfk").await?;
    let back = stack.server("ewr")?;
    back.wait_caught_up(new, DEADLINE).await?;
    ensure!(ask::<bool>(back, "SELECT pg_is_in_recovery() AND to_regclass('lost') IS NULL").await?);
    Ok(())
}

#[tokio::test]
async fn two_replicas_that_are_promoted_apart_have_the_same_timeline() -> Result<()> {
    let stack = Devstack::builder().regions(["ewr", "jfk", "lga"]).start().await?;
    for region in ["jfk", "lga"] {
        stack.promote(region).await?;
        ensure!(ask::<i32>(stack.server(region)?, TIMELINE).await? == 2);
    }
    Ok(())
}
