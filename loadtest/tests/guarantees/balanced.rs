//! Two replicas behind one address: a pool that was given a load balancer's shows no less than was promised.

use std::time::Duration;

use anyhow::{Result, ensure};
use farwrite_devstack::Devstack;
use farwrite_producer::{Bookmark, Limits, Producer, ReadsFrom, sqlx::postgres::PgPoolOptions};
use futures_util::future::try_join_all;

use crate::support::{Append, Case, DEADLINE};

const REPLICAS: [&str; 2] = ["jfk", "lga"];
/// Connections of the pool.
const CONNECTIONS: u32 = 8;

/// Reads on as many connections at once, each of which must show so many effects.
async fn read(producer: &Producer, effects: i64) -> Result<()> {
    let pool = producer.reads()?;
    let reading = (0..CONNECTIONS).map(async |_| {
        let mut connection = pool.acquire().await?;
        let seen: i64 = sqlx::query_scalar("SELECT count(*) FROM app.effects")
            .fetch_one(&mut *connection)
            .await?;
        ensure!(seen >= effects, "{seen} effects are shown, and {effects} were visible before");
        anyhow::Ok(())
    });
    try_join_all(reading).await.map(drop)
}

async fn write(producer: &Producer, n: i32) -> Result<Bookmark> {
    let bookmark = producer.write(&Append { key: "a".to_owned(), n }).await?.bookmark;
    read(producer, i64::from(n) + 1).await?;
    Ok(bookmark)
}

#[tokio::test]
async fn a_pool_over_two_replicas_shows_no_less_than_was_promised() -> Result<()> {
    let regions = ["ewr"].into_iter().chain(REPLICAS);
    let stack = Box::leak(Box::new(Devstack::builder().regions(regions).start().await?));
    let case = Case::on(stack, "balanced", &[]).await?;
    let _worker = case.serving_worker().await?;
    let replicas = REPLICAS.map(|region| stack.replica(region));
    let [jfk, lga] = replicas;
    let (jfk, lga) = (jfk?, lga?);
    for replica in [jfk, lga] {
        replica.wait_caught_up(stack.primary(), DEADLINE).await?;
    }
    let balancer = stack.balancer(&REPLICAS)?;
    let url = format!("postgres://postgres@{}/{}", balancer.addr(), case.name);
    let builder = Producer::builder(case.name.parse()?, "jfk".parse()?)
        .nats_url(stack.nats().url())
        .reads(ReadsFrom::replica(url))
        .pool(PgPoolOptions::new().max_connections(CONNECTIONS))
        .limits(Limits::default().timeout(DEADLINE));
    let producer = builder.connect().await?;
    // Before anything is promised the pool has connections to both.
    let opening = (0..CONNECTIONS)
        .map(async |_| producer.reads()?.acquire().await.map_err(anyhow::Error::from));
    drop(try_join_all(opening).await?);
    let mut n = 0;
    for _ in 0..3 {
        write(&producer, n).await?;
        n += 1;
    }
    // One of the two stands still: the one that the watcher hears, or the other one.
    for stands in [jfk, lga] {
        stands.pause_replay().await?;
        for _ in 0..10 {
            let pending = producer.submit(&Append { key: "a".to_owned(), n }).await?;
            n += 1;
            // In vain where the watcher hears the one that stands still.
            let visible = producer.wait_within(&pending.bookmark, Duration::from_millis(200));
            if visible.await.is_ok() {
                read(&producer, i64::from(n)).await?;
            }
        }
        stands.resume_replay().await?;
        producer.wait_within(&write(&producer, n).await?, DEADLINE).await?;
        n += 1;
    }
    Ok(())
}
