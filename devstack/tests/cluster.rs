//! Three NATS servers that are one JetStream cluster: its leader, its quorum, and its end.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use async_nats::jetstream::{self, message::PublishMessage, publish::PublishAck, stream};
use farwrite_devstack::Devstack;

use crate::support::{processes, until};

// Not `count`: nothing here is PostgreSQL's.
#[allow(dead_code)]
mod support;

/// How long one publish waits for its acknowledgement, where it is expected to come in the end.
const ATTEMPT: Duration = Duration::from_secs(1);

async fn three() -> Result<Devstack> {
    Devstack::builder().nats_nodes(3).start().await
}

/// JetStream as a client of all nodes sees it.
async fn jetstream(stack: &Devstack) -> Result<jetstream::Context> {
    let urls = stack.nats_urls();
    let urls: Vec<async_nats::ServerAddr> =
        urls.split(',').map(str::parse).collect::<Result<_, _>>()?;
    let mut context = jetstream::new(async_nats::connect(&urls[..]).await?);
    context.set_timeout(ATTEMPT);
    Ok(context)
}

/// A stream with a replica on each node.
async fn kept(stack: &Devstack) -> Result<jetstream::Context> {
    let context = jetstream(stack).await?;
    let config = stream::Config {
        name: "kept".to_owned(),
        subjects: vec!["kept".to_owned()],
        num_replicas: 3,
        ..Default::default()
    };
    context.create_stream(config).await?;
    Ok(context)
}

/// One attempt to publish, which may fail right after the stream was made: the nodes tell each other
/// of it a moment later. The same number again is the same message.
async fn publish(context: &jetstream::Context, n: u32) -> Result<PublishAck> {
    let message = PublishMessage::build().message_id(n.to_string()).payload("kept".into());
    Ok(context.send_publish("kept", message).await?.await?)
}

/// Publishes until it is acknowledged.
async fn acknowledged(context: &jetstream::Context, n: u32) -> Result<()> {
    until(&format!("{n} is acknowledged"), async || Ok(publish(context, n).await.is_ok())).await
}

/// Waits until every replica has all of so many messages.
async fn replicated(context: &jetstream::Context, messages: u64) -> Result<()> {
    until(&format!("every replica has {messages} messages"), async || {
        let Ok(stream) = context.get_stream_no_info("kept").await else { return Ok(false) };
        let Ok(info) = stream.get_info().await else { return Ok(false) };
        let replicas = info.cluster.map(|cluster| cluster.replicas).unwrap_or_default();
        let is_current = |peer: &stream::PeerInfo| {
            peer.current && !peer.offline && peer.lag.is_none_or(|lag| lag == 0)
        };
        Ok(info.state.messages == messages
            && replicas.len() == 2
            && replicas.iter().all(is_current))
    })
    .await
}

#[tokio::test]
async fn a_stream_outlives_its_leader_and_the_node_that_returns_catches_up() -> Result<()> {
    let stack = three().await?;
    let context = kept(&stack).await?;
    acknowledged(&context, 1).await?;
    let killed = stack.stream_leader("kept").await?;
    let node = stack.nats_node(killed)?;
    let url = node.url();
    node.kill().await?;
    acknowledged(&context, 2).await?;
    ensure!(stack.stream_leader("kept").await? != killed);
    node.start().await?;
    ensure!(node.url() == url);
    stack.wait_nats_current().await?;
    replicated(&context, 2).await?;
    // It has them indeed: the stream goes on when another node is gone.
    let other = stack.stream_leader("kept").await?;
    stack.nats_node(other)?.kill().await?;
    acknowledged(&context, 3).await?;
    stack.shutdown().await
}

#[tokio::test]
async fn without_a_quorum_nothing_is_acknowledged_and_with_it_everything_is_again() -> Result<()> {
    let stack = three().await?;
    let context = kept(&stack).await?;
    acknowledged(&context, 1).await?;
    let leader = stack.stream_leader("kept").await?;
    let others: Vec<_> = (0..3).filter(|index| *index != leader).collect();

    for index in &others {
        stack.nats_node(*index)?.kill().await?;
    }
    ensure!(publish(&context, 2).await.is_err(), "acknowledged by one node of three");
    for index in &others {
        stack.nats_node(*index)?.start().await?;
    }
    stack.wait_nats_current().await?;
    acknowledged(&context, 2).await?;
    replicated(&context, 2).await?;

    let leader = stack.stream_leader("kept").await?;
    let others: Vec<_> = (0..3).filter(|index| *index != leader).collect();
    for index in &others {
        stack.nats_node(*index)?.suspend()?;
    }
    // Of the node that answers: a client of one that is suspended hears nothing at all.
    let alone = jetstream::new(async_nats::connect(stack.nats_node(leader)?.url()).await?);
    ensure!(publish(&alone, 3).await.is_err(), "acknowledged by one node of three");
    for index in &others {
        stack.nats_node(*index)?.resume()?;
    }
    stack.wait_nats_current().await?;
    acknowledged(&alone, 3).await?;
    replicated(&alone, 3).await?;
    stack.shutdown().await
}

#[tokio::test]
async fn a_leader_that_is_suspended_is_replaced_and_goes_on_as_a_follower() -> Result<()> {
    let stack = three().await?;
    let context = kept(&stack).await?;
    acknowledged(&context, 1).await?;
    let suspended = stack.stream_leader("kept").await?;
    stack.nats_node(suspended)?.suspend()?;
    let leader = stack.stream_leader("kept").await?;
    ensure!(leader != suspended);
    let there = jetstream::new(async_nats::connect(stack.nats_node(leader)?.url()).await?);
    acknowledged(&there, 2).await?;
    stack.nats_node(suspended)?.resume()?;
    stack.wait_nats_current().await?;
    replicated(&there, 2).await?;
    stack.shutdown().await
}

#[tokio::test]
async fn each_region_has_its_node_and_nothing_outlives_the_stack() -> Result<()> {
    let stack = Devstack::builder().regions(["ewr", "jfk"]).nats_nodes(3).start().await?;
    for (region, node) in [("ewr", "nats-0"), ("jfk", "nats-1")] {
        let client = async_nats::connect(stack.nats_url(region)?).await?;
        ensure!(client.server_info().server_name == node, "{:?}", client.server_info());
        // A client that is told of the others would go round the link.
        ensure!(client.server_info().connect_urls.is_empty(), "{:?}", client.server_info());
    }
    ensure!(stack.nats().name() == stack.nats_node(0)?.name());
    ensure!(stack.nats_node(3).is_err());
    let missing = tokio::time::timeout(ATTEMPT, stack.stream_leader("missing")).await;
    ensure!(missing.is_err(), "a stream that is not there has a leader");
    let folder = stack.folder()?.to_path_buf();
    ensure!(processes(&folder)?.iter().filter(|line| line.contains("nats.conf")).count() == 3);
    stack.nats_node(2)?.suspend()?;
    stack.nats_node(1)?.kill().await?;
    stack.shutdown().await?;
    ensure!(!folder.exists() && processes(&folder)?.is_empty(), "{:?}", processes(&folder)?);

    let refused = Devstack::builder().nats_nodes(2).start().await.err().context("it started")?;
    ensure!(refused.to_string() == "nats_nodes: 1 or 3, not 2", "{refused:#}");
    Ok(())
}
