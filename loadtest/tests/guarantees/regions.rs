//! Writes that are visible in several regions, and the watchers that tell so.

use std::{collections::BTreeSet, time::Duration};

use anyhow::{Context, Result, bail, ensure};
use farwrite_devstack::{Devstack, Program};
use farwrite_producer::{ElsewhereError, Limits, Origin, Producer, ReadsFrom, WriteError};
use futures_util::StreamExt;
use serde_json::Value;

use crate::support::{Append, Case, DEADLINE};

/// Long enough for a region that shows it; short enough to wait for one that does not.
const A_WHILE: Duration = Duration::from_secs(3);

/// A stack of its own: its replicas are held. The reaper ends it with this process.
async fn case(name: &str) -> Result<Case> {
    let rtt = Duration::from_millis(10);
    let stack = Devstack::builder().regions(["ewr", "jfk", "lga"]).rtt(rtt).start().await?;
    Case::on(Box::leak(Box::new(stack)), name, &[]).await
}

fn append(n: i32) -> Append {
    Append { key: "a".to_owned(), n }
}

fn regions(names: &[&str]) -> Result<Vec<Origin>> {
    Ok(names.iter().map(|name| Origin::new(*name)).collect::<Result<_, _>>()?)
}

async fn ready(case: &Case, watcher: &Program) -> Result<()> {
    case.until("the watcher is ready", async || {
        let Some(addr) = address(watcher) else { return Ok(false) };
        Ok(get(&addr, "/ready").await.is_ok_and(|answer| answer.starts_with("HTTP/1.1 200")))
    })
    .await
}

fn address(watcher: &Program) -> Option<String> {
    let log = watcher.log();
    let line = log.lines().find(|line| line.contains("metrics and readiness are served"))?;
    Some(line.split("addr=").nth(1)?.split_whitespace().next()?.to_owned())
}

async fn get(addr: &str, path: &str) -> Result<String> {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut connection = tokio::net::TcpStream::connect(addr).await?;
    let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    connection.write_all(request.as_bytes()).await?;
    let mut text = String::new();
    connection.read_to_string(&mut text).await?;
    Ok(text)
}

/// Everybody who answers a request to all.
async fn everybody(case: &Case, subject: String, count: usize) -> Result<Vec<Value>> {
    let inbox = case.client.new_inbox();
    let mut answers = case.client.subscribe(inbox.clone()).await?;
    case.client.publish_with_reply(subject, inbox, "".into()).await?;
    let mut found = Vec::new();
    while found.len() < count {
        let answer = tokio::time::timeout(DEADLINE, answers.next()).await?.context("no answer")?;
        found.push(serde_json::from_slice(&answer.payload)?);
    }
    Ok(found)
}

#[tokio::test]
async fn a_write_can_wait_for_other_regions_and_says_who_is_missing() -> Result<()> {
    let case = case("everywhere").await?;
    let _worker = case.serving_worker().await?;
    let lga = case.stack.replica("lga")?;
    let (near, far) = (case.watcher("jfk")?, case.watcher("lga")?);
    for watcher in [&near, &far] {
        ready(&case, watcher).await?;
    }
    let producer = Producer::builder(case.name.parse()?, "ewr".parse()?)
        .nats_url(case.stack.nats_url("ewr")?)
        .reads(ReadsFrom::primary(case.stack.primary().url(&case.name)))
        .regions(regions(&["ewr", "jfk", "lga"])?)
        .limits(Limits::default().timeout(DEADLINE))
        .connect()
        .await?;
    let count = "SELECT count(*) FROM app.effects";
    for n in 1..20 {
        producer.call(&append(n)).visible_everywhere().write().await?;
        for region in ["jfk", "lga"] {
            let mut there = case.stack.replica(region)?.connect(&case.name).await?;
            let shown: i64 = sqlx::query_scalar(count).fetch_one(&mut there).await?;
            ensure!(shown == i64::from(n), "{shown} of {n} in {region}");
        }
    }

    // One region is late: the write is visible here, and it is said where it is not.
    lga.pause_replay().await?;
    let late = producer.call(&append(20)).timeout(A_WHILE).visible_everywhere().write().await;
    let Err(WriteError::NotEverywhere { visible, missing }) = late else { bail!("{late:?}") };
    ensure!(missing.len() == 1 && missing[0].region.as_str() == "lga", "{missing:?}");
    ensure!(missing[0].why.contains("has not replayed"), "{missing:?}");
    let jfk = regions(&["jfk"])?;
    producer.wait_in_within(&visible.bookmark, &jfk, A_WHILE).await?;

    // Its watcher is away, and comes back: who waits is told then, or why not.
    far.kill().await?;
    let both = regions(&["jfk", "lga"])?;
    let error = producer.wait_in_within(&visible.bookmark, &both, A_WHILE).await;
    let Err(ElsewhereError::Missing { visible: shown, missing }) = error else {
        bail!("{error:?}")
    };
    ensure!(shown == jfk && missing[0].why.contains("no watcher runs there"), "{missing:?}");
    let waiting = tokio::spawn({
        let (producer, bookmark) = (producer.clone(), visible.bookmark.clone());
        async move { producer.wait_in_within(&bookmark, &both, DEADLINE).await }
    });
    let back = case.watcher("lga")?;
    ready(&case, &back).await?;
    lga.resume_replay().await?;
    waiting.await??;
    Ok(())
}

#[tokio::test]
async fn the_watchers_of_all_regions_are_found_with_their_statistics_and_are_ready_or_not()
-> Result<()> {
    let case = case("discovery").await?;
    let watchers = [case.watcher("jfk")?, case.watcher("lga")?];
    for watcher in &watchers {
        ready(&case, watcher).await?;
    }
    let name = format!("farwrite-watcher-{}", case.name);
    let infos = everybody(&case, format!("$SRV.INFO.{name}"), 2).await?;
    let found: BTreeSet<_> = infos.iter().map(|info| info["metadata"]["region"].as_str()).collect();
    ensure!(found == BTreeSet::from([Some("jfk"), Some("lga")]), "{infos:?}");
    let stats = everybody(&case, format!("$SRV.STATS.{name}"), 2).await?;
    ensure!(stats.iter().all(|stats| stats["endpoints"][0]["num_requests"] == 0), "{stats:?}");

    let metrics = get(&address(&watchers[0]).context("no address")?, "/metrics").await?;
    ensure!(metrics.contains("farwrite_watcher_polls_total"), "{metrics}");
    // Without its replica it is not ready; it does not end, and is ready again by itself.
    let replica = case.stack.replica("jfk")?;
    replica.kill().await?;
    let producer = case.producer("ewr").await?;
    let _worker = case.serving_worker().await?;
    let written = producer.write(&append(1)).await?;
    let jfk = regions(&["jfk"])?;
    ensure!(producer.wait_in_within(&written.bookmark, &jfk, A_WHILE).await.is_err());
    let answer = get(&address(&watchers[0]).context("no address")?, "/ready").await?;
    ensure!(answer.starts_with("HTTP/1.1 503") && answer.contains("the replica"), "{answer}");
    replica.start().await?;
    producer.wait_in_within(&written.bookmark, &jfk, DEADLINE).await?;
    ready(&case, &watchers[0]).await
}
