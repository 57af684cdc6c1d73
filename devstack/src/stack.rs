//! A running stack: one NATS server or a cluster, one primary, one replica in each other region, and
//! links between them.

use std::{
    path::Path,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicUsize, Ordering},
    },
};

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;

use crate::{
    cluster,
    link::{LinkTarget, WanLink},
    nats::NatsServer,
    postgres::Postgres,
    program::Program,
    proxies::Proxies,
    reaper::{ProcessKind, Reaper},
    region::Home,
};

/// A running stack. When it is dropped, or its process ends in any way, everything is stopped and
/// removed.
pub struct Devstack {
    // Fields are dropped in this order: servers before the folder.
    pub(crate) homes: Vec<Home>,
    pub(crate) regions: Vec<String>,
    /// The index of the region that the links called "primary" lead to.
    pub(crate) primary: AtomicUsize,
    /// One server, or the nodes of a cluster.
    pub(crate) nats: Vec<NatsServer>,
    pub(crate) major: u32,
    pub(crate) programs: AtomicU32,
    pub(crate) proxies: Proxies,
    pub(crate) folder: Option<TempDir>,
    pub(crate) reaper: Arc<Reaper>,
}

impl Devstack {
    /// The regions, as they were named: that of the first primary comes first.
    #[must_use]
    pub fn regions(&self) -> &[String] {
        &self.regions
    }

    /// PostgreSQL's major version.
    #[must_use]
    pub const fn pg_major(&self) -> u32 {
        self.major
    }

    /// The primary: that of the first region, until [`set_primary`](Self::set_primary) names
    /// another.
    #[must_use]
    pub fn primary(&self) -> &Postgres {
        &self.homes[self.primary.load(Ordering::Relaxed)].server
    }

    /// The region of the [`primary`](Self::primary).
    #[must_use]
    pub fn primary_region(&self) -> &str {
        &self.regions[self.primary.load(Ordering::Relaxed)]
    }

    /// The server of a region that is not the [`primary`](Self::primary)'s.
    ///
    /// # Errors
    /// When there is no such region, or it is the primary's.
    pub fn replica(&self, region: &str) -> Result<&Postgres> {
        let index = self.index(region)?;
        ensure!(
            index != self.primary.load(Ordering::Relaxed),
            "{region} is the primary's region: it has no replica"
        );
        Ok(&self.homes[index].server)
    }

    /// The server of a region, whichever role it has.
    ///
    /// # Errors
    /// When there is no such region.
    pub fn server(&self, region: &str) -> Result<&Postgres> {
        Ok(&self.home(region)?.server)
    }

    /// The NATS server; of a cluster, its first node.
    #[must_use]
    pub fn nats(&self) -> &NatsServer {
        &self.nats[0]
    }

    /// All NATS servers: one, or the nodes of a cluster.
    #[must_use]
    pub fn nats_nodes(&self) -> &[NatsServer] {
        &self.nats
    }

    /// A node of the cluster, counted from 0.
    ///
    /// # Errors
    /// When there are fewer.
    pub fn nats_node(&self, index: usize) -> Result<&NatsServer> {
        let nodes = self.nats.len();
        self.nats.get(index).with_context(|| format!("there is no node {index}, only {nodes}"))
    }

    /// Waits until the cluster has a leader, all nodes agree on it, and it finds all of them
    /// current. That a node has all of a stream is not asked: the stream's own information says so.
    ///
    /// # Errors
    /// When the stack has no cluster, or not within a minute; a node that is stopped or suspended
    /// is not current.
    pub async fn wait_nats_current(&self) -> Result<()> {
        cluster::wait_current(self.cluster()?).await
    }

    /// The index of the node that leads a stream: it says so itself, and most nodes agree. While
    /// there is an election this waits for its end.
    ///
    /// # Errors
    /// When the stack has no cluster, or no node leads a stream of that name within a minute.
    pub async fn stream_leader(&self, stream: &str) -> Result<usize> {
        cluster::stream_leader(self.cluster()?, stream).await
    }

    fn cluster(&self) -> Result<&[NatsServer]> {
        let nodes = self.nats_nodes();
        ensure!(nodes.len() > 1, "this stack has no cluster: see DevstackBuilder::nats_nodes");
        Ok(nodes)
    }

    /// The URLs of all NATS servers, joined by commas, without a link between.
    #[must_use]
    pub fn nats_urls(&self) -> String {
        self.nats.iter().map(NatsServer::url).collect::<Vec<_>>().join(",")
    }

    pub(crate) fn index(&self, region: &str) -> Result<usize> {
        let index = self.regions.iter().position(|known| known == region);
        index.with_context(|| {
            format!("there is no region {region:?}, only {}", self.regions.join(", "))
        })
    }

    fn home(&self, region: &str) -> Result<&Home> {
        Ok(&self.homes[self.index(region)?])
    }

    /// The link between a region and NATS. Of a cluster it leads to one node, whose index is the
    /// region's modulo the nodes' number: the first region's leads to the first node.
    ///
    /// # Errors
    /// When there is no such region.
    pub fn nats_link(&self, region: &str) -> Result<&WanLink> {
        Ok(&self.home(region)?.links.nats)
    }

    /// The link between a region's replica and the server that it follows now. There is one for
    /// each pair of regions, and each keeps its own delay and cut.
    ///
    /// # Errors
    /// When there is no such region.
    pub fn replication_link(&self, region: &str) -> Result<&WanLink> {
        let home = self.home(region)?;
        Ok(&home.links.replication[home.upstream.load(Ordering::Relaxed)])
    }

    /// The link between a region's apps and the [`primary`](Self::primary).
    ///
    /// # Errors
    /// When there is no such region.
    pub fn primary_link(&self, region: &str) -> Result<&WanLink> {
        Ok(&self.home(region)?.links.primary)
    }

    /// Opens a link without delay that leads each new connection to the next of these regions'
    /// servers, as a load balancer before replicas does. It works while it is held.
    ///
    /// # Errors
    /// When a region does not exist, or none is named.
    pub fn balancer(&self, regions: &[&str]) -> Result<WanLink> {
        let target = |region: &&str| Ok(LinkTarget::Unix(self.server(region)?.socket()));
        let targets = regions.iter().map(target).collect::<Result<_>>()?;
        WanLink::open_to(self.proxies.handle()?, targets)
    }

    /// The URL of NATS as a region reaches it, through its [`nats_link`](Self::nats_link). A client
    /// that has only this URL loses NATS when that node does; see [`nats_urls`](Self::nats_urls).
    ///
    /// # Errors
    /// When there is no such region.
    pub fn nats_url(&self, region: &str) -> Result<String> {
        Ok(format!("nats://{}", self.nats_link(region)?.addr()))
    }

    /// The URL of the primary as a region reaches it.
    ///
    /// # Errors
    /// When there is no such region.
    pub fn primary_url_from(&self, region: &str, database: &str) -> Result<String> {
        let addr = self.primary_link(region)?.addr();
        Ok(format!("postgres://postgres@{addr}/{database}?sslmode=disable"))
    }

    /// Starts another program that must not outlive the stack; its output goes to a file of the
    /// stack's folder.
    ///
    /// # Errors
    /// When it does not start.
    pub fn spawn(&self, command: Command, name: &str) -> Result<Program> {
        let number = self.programs.fetch_add(1, Ordering::Relaxed);
        let log = self.folder()?.join(format!("{name}-{number}.log"));
        Program::start(command, name, log, ProcessKind::Program, &self.reaper)
    }

    /// The stack's folder; removed with it.
    ///
    /// # Errors
    /// While it is being dropped.
    pub fn folder(&self) -> Result<&Path> {
        self.folder.as_ref().map(TempDir::path).context("the stack is being dropped")
    }

    /// Stops everything and removes the folder. Dropping does the same, and blocks meanwhile.
    ///
    /// # Errors
    /// When the stack's thread fails.
    pub async fn shutdown(self) -> Result<()> {
        Ok(tokio::task::spawn_blocking(move || drop(self)).await?)
    }
}

impl Drop for Devstack {
    fn drop(&mut self) {
        for program in self.homes.iter().filter_map(|home| home.server.program()) {
            let _ = program.signal(rustix::process::Signal::CONT);
            let _ = program.signal(rustix::process::Signal::QUIT);
        }
        self.proxies.stop();
        // The reaper ends what is left and removes the folder, here as after a crash.
        self.reaper.finish();
        if let Some(folder) = self.folder.take() {
            let _ = folder.close();
        }
    }
}
