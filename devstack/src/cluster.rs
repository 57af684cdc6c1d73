//! Several NATS servers that are one JetStream cluster: their start, and who leads.
//!
//! What a node says about the others is its own view, and may be an old one: the followers of a
//! node that was killed go on naming it until they elect another, and a node that was suspended
//! wakes up as the leader that it was. So a leader counts only when it says so itself and most
//! nodes agree. The nodes' monitoring pages are asked, because they need no account.

use std::{
    net::SocketAddr,
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    runtime::Handle,
};

use crate::{
    link::{LinkTarget, WanLink},
    nats::{Membership, NatsServer, Setup},
};

/// How long an election and catching up may take: an election alone takes up to ten seconds.
const WITHIN: Duration = Duration::from_secs(60);
/// How long one node may take to answer; one that is suspended never does.
const ANSWER_WITHIN: Duration = Duration::from_secs(1);
const LOOK: Duration = Duration::from_millis(20);

/// Starts the nodes, and waits until all are current.
pub(crate) async fn start(
    setup: &Setup<'_>,
    folder: &Path,
    nodes: usize,
    proxies: &Handle,
) -> Result<Vec<NatsServer>> {
    // Nothing listens on port 0: until its node listens, a link leads nowhere.
    let nowhere = || LinkTarget::Tcp(SocketAddr::from(([127, 0, 0, 1], 0)));
    let routes =
        (0..nodes).map(|_| WanLink::open(proxies, nowhere())).collect::<Result<Vec<_>>>()?;
    let addrs: Vec<SocketAddr> = routes.iter().map(WanLink::addr).collect();
    let cluster = folder.file_name().map(|name| name.to_string_lossy().into_owned());
    let cluster = cluster.context("the stack's folder has no name")?;
    let mut servers = Vec::with_capacity(nodes);
    for (index, route) in routes.into_iter().enumerate() {
        let others = addrs.iter().filter(|addr| **addr != route.addr()).copied().collect();
        let name = format!("nats-{index}");
        let folder = folder.join(&name);
        let membership = Membership { cluster: cluster.clone(), name, route, others };
        servers.push(NatsServer::start_new(setup, &folder, Some(membership)).await?);
    }
    wait_current(&servers).await?;
    Ok(servers)
}

/// The index of the node that leads a stream. While there is an election this waits for its end.
pub(crate) async fn stream_leader(nodes: &[NatsServer], stream: &str) -> Result<usize> {
    let began = Instant::now();
    loop {
        let answers = ask_all(nodes, "/jsz?accounts=true&streams=true").await;
        let views: Vec<Option<String>> = answers
            .iter()
            .map(|page| Some(stream_in(page.as_ref()?, stream)?["leader"].as_str()?.to_owned()))
            .collect();
        if let Some(leader) = agreed(nodes, &views) {
            return Ok(leader);
        }
        ensure!(
            began.elapsed() < WITHIN,
            "no node leads the stream {stream} within {} s; the nodes name {views:?}",
            WITHIN.as_secs()
        );
        tokio::time::sleep(LOOK).await;
    }
}

/// Waits until the nodes have a leader, all agree on it, and it finds all of them current.
pub(crate) async fn wait_current(nodes: &[NatsServer]) -> Result<()> {
    let began = Instant::now();
    loop {
        let pages = ask_all(nodes, "/jsz").await;
        if are_current(nodes, &pages) {
            return Ok(());
        }
        if began.elapsed() > WITHIN {
            let metas = pages.iter().map(|page| page.as_ref().map(|page| &page["meta_cluster"]));
            bail!(
                "the nodes of the cluster are not current within {} s; they say {:?}",
                WITHIN.as_secs(),
                metas.collect::<Vec<_>>()
            );
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// Whether all nodes name one leader, and that one finds all others current.
fn are_current(nodes: &[NatsServer], pages: &[Option<Value>]) -> bool {
    let views: Vec<Option<String>> = pages
        .iter()
        .map(|page| Some(page.as_ref()?["meta_cluster"]["leader"].as_str()?.to_owned()))
        .collect();
    let Some(leader) = agreed(nodes, &views) else { return false };
    let is_unanimous = views.iter().all(|view| *view == views[leader]);
    let Some(meta) = pages[leader].as_ref().map(|page| &page["meta_cluster"]) else { return false };
    let others = meta["replicas"].as_array().map_or(&[][..], Vec::as_slice);
    let is_current = |peer: &Value| peer["current"] == true && peer["offline"] != true;
    is_unanimous
        && meta["cluster_size"] == nodes.len()
        && others.len() + 1 == nodes.len()
        && others.iter().all(is_current)
}

/// The node that names itself and is named by most.
fn agreed(nodes: &[NatsServer], views: &[Option<String>]) -> Option<usize> {
    let votes = |name: Option<&str>| views.iter().filter(|view| view.as_deref() == name).count();
    let mut leading = nodes.iter().zip(views).enumerate().filter(|(_, (node, view))| {
        view.is_some() && node.name() == view.as_deref() && votes(node.name()) * 2 > nodes.len()
    });
    leading.next().map(|(index, _)| index)
}

/// What a node says about a stream's replicas, in any account.
fn stream_in<'a>(page: &'a Value, stream: &str) -> Option<&'a Value> {
    let accounts = page["account_details"].as_array()?;
    let mut streams = accounts.iter().filter_map(|account| account["stream_detail"].as_array());
    streams
        .find_map(|details| details.iter().find(|detail| detail["name"] == stream))
        .map(|detail| &detail["cluster"])
}

/// Asks all nodes at once; `None` for one that does not answer.
async fn ask_all(nodes: &[NatsServer], path: &'static str) -> Vec<Option<Value>> {
    let asking = nodes.iter().map(|node| {
        let monitor = node.monitor();
        tokio::spawn(async move {
            let answer = tokio::time::timeout(ANSWER_WITHIN, ask(monitor?, path));
            answer.await.ok()?.ok()
        })
    });
    let asking: Vec<_> = asking.collect();
    let mut answers = Vec::with_capacity(asking.len());
    for answer in asking {
        answers.push(answer.await.ok().flatten());
    }
    answers
}

/// Asks for a page of JSON, in the version of HTTP that needs no client.
async fn ask(monitor: SocketAddr, path: &str) -> Result<Value> {
    let mut stream = TcpStream::connect(monitor).await?;
    stream.write_all(format!("GET {path} HTTP/1.0\r\nHost: nats\r\n\r\n").as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    let (_, body) = answer.split_once("\r\n\r\n").context("no answer in HTTP")?;
    Ok(serde_json::from_str(body)?)
}
