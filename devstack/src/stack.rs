//! A whole stack: one NATS server or a cluster, one primary, one replica in each other region, links between.

use std::{
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicUsize, Ordering},
    },
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;
use tokio::runtime::{Handle, Runtime};

use crate::{
    account::Account,
    cluster,
    link::{Link, Target},
    nats::{Nats, Setup},
    postgres::{Postgres, Template},
    program::Program,
    reaper::{Kind, Reaper},
    tools::Tools,
};

/// What every server is set to; a stack's own settings come after these and win.
const SETTINGS: [(&str, &str); 15] = [
    ("wal_level", "replica"),
    ("hot_standby", "on"),
    ("max_connections", "200"),
    ("max_wal_senders", "20"),
    ("max_replication_slots", "20"),
    ("shared_buffers", "128MB"),
    ("max_wal_size", "2GB"),
    // A slot that is made on another server keeps nothing from before, which a replica that comes
    // to follow it may lack.
    ("wal_keep_size", "1GB"),
    ("checkpoint_timeout", "15min"),
    ("jit", "off"),
    ("wal_receiver_status_interval", "1s"),
    ("wal_retrieve_retry_interval", "100ms"),
    ("log_min_messages", "warning"),
    ("log_line_prefix", "%m [%p] "),
    ("timezone", "UTC"),
];

/// What a stack is to be like.
#[derive(Clone, Debug, Default)]
pub struct Builder {
    regions: Vec<String>,
    rtt: Duration,
    settings: Vec<(String, String)>,
    environment: Vec<(String, String)>,
    nats_config: String,
    nats_sync: Option<Duration>,
    nats_nodes: Option<usize>,
    cascades: Vec<(String, String)>,
}

impl Builder {
    /// The regions; the first is the primary's. Default: one, `home`.
    #[must_use]
    pub fn regions<R: Into<String>>(mut self, regions: impl IntoIterator<Item = R>) -> Self {
        self.regions = regions.into_iter().map(Into::into).collect();
        self
    }

    /// The replica of `region` streams from the replica of the region `from`, not from the primary.
    #[must_use]
    pub fn cascade(mut self, region: impl Into<String>, from: impl Into<String>) -> Self {
        self.cascades.push((region.into(), from.into()));
        self
    }

    /// The round trip between the primary's region and each other one, and between two replicas of
    /// which one follows the other. Default: none.
    #[must_use]
    pub const fn rtt(mut self, rtt: Duration) -> Self {
        self.rtt = rtt;
        self
    }

    /// A setting of every PostgreSQL server.
    #[must_use]
    pub fn setting(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.settings.push((name.into(), value.into()));
        self
    }

    /// A variable in the environment of every PostgreSQL server.
    #[must_use]
    pub fn environment(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.environment.push((name.into(), value.into()));
        self
    }

    /// The broker syncs so often, and acknowledges before: a crash of its machine loses what came
    /// since. nats-server's own default is two minutes. Default here: every message, before it is
    /// acknowledged.
    #[must_use]
    pub const fn nats_sync_interval(mut self, interval: Duration) -> Self {
        self.nats_sync = Some(interval);
        self
    }

    /// Text that is added to nats-server's configuration, such as accounts.
    #[must_use]
    pub fn nats_config(mut self, text: impl Into<String>) -> Self {
        self.nats_config = text.into();
        self
    }

    /// How many NATS servers there are: 1, or 3 that are one JetStream cluster, all with the same
    /// configuration. Default: 1.
    #[must_use]
    pub const fn nats_nodes(mut self, nodes: usize) -> Self {
        self.nats_nodes = Some(nodes);
        self
    }

    /// Starts everything. A cluster has a leader then, and all its nodes are current.
    ///
    /// # Errors
    /// When a program does not start: the message says which, and has the end of its log. Nothing
    /// stays behind.
    pub async fn start(self) -> Result<Devstack> {
        let regions =
            if self.regions.is_empty() { vec!["home".to_owned()] } else { self.regions.clone() };
        check_regions(&regions)?;
        let upstreams = upstreams(&regions, &self.cascades)?;
        let nodes = self.nats_nodes.unwrap_or(1);
        ensure!(nodes == 1 || nodes == 3, "nats_nodes: 1 or 3, not {nodes}");
        let tools = tokio::task::spawn_blocking(Tools::locate).await??;
        let folder = tempfile::Builder::new()
            .prefix("farwrite-")
            .tempdir()
            .context("making the stack's folder")?;
        // The account that PostgreSQL runs under must get to its own folder within, and no further.
        std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o711))?;
        let reaper = Arc::new(Reaper::start()?);
        reaper.folder(folder.path());
        let proxies = Proxies::start()?;
        let account = Account::choose()?;
        let bin = account.reachable(&tools, folder.path())?;
        let mut settings: Vec<(String, String)> = SETTINGS
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        settings.extend(self.settings.iter().cloned());
        let template = Template {
            bin: &bin,
            folder: folder.path(),
            account,
            settings: &settings,
            environment: &self.environment,
            reaper: &reaper,
        };
        let sync = self.nats_sync.map(|interval| format!("\"{}ms\"", interval.as_millis()));
        let setup = Setup {
            program: &tools.nats_server,
            extra: &self.nats_config,
            sync: sync.as_deref().unwrap_or("always"),
            reaper: &reaper,
        };
        let nats = if nodes == 1 {
            vec![Nats::start_new(&setup, &folder.path().join("nats"), None).await?]
        } else {
            cluster::start(&setup, folder.path(), nodes, proxies.handle()?).await?
        };
        let servers = regions.iter().map(|region| Postgres::new(&template, region));
        let servers = servers.collect::<Result<Vec<_>>>()?;
        servers[0].init()?;
        servers[0].start().await?;
        let sockets: Vec<_> = servers.iter().map(Postgres::socket).collect();
        let mut homes = Vec::new();
        for (index, (server, upstream)) in servers.into_iter().zip(&upstreams).enumerate() {
            let links = Links::open(&proxies, &nats[index % nodes], &sockets)?;
            homes.push(Home { server, links, upstream: AtomicUsize::new(*upstream) });
        }
        for index in from_the_top(&upstreams) {
            let Home { server, links, .. } = &homes[index];
            server.copy(links.replication[upstreams[index]].addr().port()).await?;
            server.start().await?;
        }
        for (index, home) in homes.iter().enumerate() {
            home.links.set_rtt(index, self.rtt);
        }
        let major = tools.pg_major()?;
        Ok(Devstack {
            homes,
            regions,
            primary: AtomicUsize::new(0),
            nats,
            major,
            programs: AtomicU32::new(0),
            proxies,
            folder: Some(folder),
            reaper,
        })
    }
}

fn check_regions(regions: &[String]) -> Result<()> {
    for (index, region) in regions.iter().enumerate() {
        let form = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        ensure!(
            (1..=32).contains(&region.len()) && region.bytes().all(form),
            "region {region:?}: 1 to 32 lower-case letters, digits or '-'"
        );
        ensure!(!regions[..index].contains(region), "region {region:?} is named twice");
    }
    Ok(())
}

/// Which region each one's server follows at first; the primary's names itself.
fn upstreams(regions: &[String], cascades: &[(String, String)]) -> Result<Vec<usize>> {
    let index = |region: &String| {
        let known = regions.iter().position(|known| known == region);
        known.with_context(|| format!("cascade: there is no region {region:?}"))
    };
    let mut upstreams = vec![0; regions.len()];
    for (region, from) in cascades {
        let (region, from) = (index(region)?, index(from)?);
        ensure!(region != 0, "cascade: {} is the primary's region", regions[0]);
        upstreams[region] = from;
    }
    let reached = from_the_top(&upstreams).len() + 1;
    ensure!(reached == regions.len(), "cascade: replicas follow each other in a circle");
    Ok(upstreams)
}

/// The replicas, each one after what it follows. Those of a circle are missing.
fn from_the_top(upstreams: &[usize]) -> Vec<usize> {
    let mut order = vec![0];
    let mut next = 0;
    while let Some(&upstream) = order.get(next) {
        order.extend((1..upstreams.len()).filter(|&index| upstreams[index] == upstream));
        next += 1;
    }
    order.split_off(1)
}

/// The thread that carries the links. It belongs to the stack and not to the caller's runtime,
/// which a shared stack may outlive.
struct Proxies(Option<Runtime>);

impl Proxies {
    fn start() -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("devstack")
            .enable_all()
            .build();
        Ok(Self(Some(runtime.context("starting the proxies' runtime")?)))
    }

    fn handle(&self) -> Result<&Handle> {
        self.0.as_ref().map(Runtime::handle).context("the proxies are stopped")
    }

    /// In the background: a runtime must not be dropped within another.
    fn stop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

impl Drop for Proxies {
    fn drop(&mut self) {
        self.stop();
    }
}

/// The links that one region has.
pub(crate) struct Links {
    nats: Link,
    /// To the server of each region, in the regions' order.
    pub(crate) replication: Vec<Link>,
    pub(crate) primary: Link,
}

impl Links {
    fn open(proxies: &Proxies, nats: &Nats, sockets: &[PathBuf]) -> Result<Self> {
        let handle = proxies.handle()?;
        let open = |socket: &PathBuf| Link::open(handle, Target::Unix(socket.clone()));
        Ok(Self {
            nats: Link::open(handle, Target::Tcp(nats.addr()))?,
            replication: sockets.iter().map(open).collect::<Result<_>>()?,
            primary: open(&sockets[0])?,
        })
    }

    /// Of the region with that index.
    fn set_rtt(&self, index: usize, rtt: Duration) {
        let others = self.replication.iter().enumerate().filter(|(other, _)| *other != index);
        others.for_each(|(_, link)| link.set_rtt(rtt));
        if index != 0 {
            self.nats.set_rtt(rtt);
            self.primary.set_rtt(rtt);
        }
    }
}

/// What one region has.
pub(crate) struct Home {
    pub(crate) server: Postgres,
    pub(crate) links: Links,
    /// The index of the region whose server its own follows, or followed last.
    pub(crate) upstream: AtomicUsize,
}

/// A running stack. When it is dropped, or its process ends in any way, everything is stopped and
/// removed.
pub struct Devstack {
    // Fields are dropped in this order: servers before the folder.
    pub(crate) homes: Vec<Home>,
    regions: Vec<String>,
    /// The index of the region that the links called "primary" lead to.
    pub(crate) primary: AtomicUsize,
    /// One server, or the nodes of a cluster.
    nats: Vec<Nats>,
    major: u32,
    programs: AtomicU32,
    proxies: Proxies,
    folder: Option<TempDir>,
    reaper: Arc<Reaper>,
}

impl Devstack {
    /// A stack to be described.
    #[must_use]
    pub fn builder() -> Builder {
        Builder::default()
    }

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
    pub fn nats(&self) -> &Nats {
        &self.nats[0]
    }

    /// All NATS servers: one, or the nodes of a cluster.
    #[must_use]
    pub fn nats_nodes(&self) -> &[Nats] {
        &self.nats
    }

    /// A node of the cluster, counted from 0.
    ///
    /// # Errors
    /// When there are fewer.
    pub fn nats_node(&self, index: usize) -> Result<&Nats> {
        let nodes = self.nats.len();
        self.nats.get(index).with_context(|| format!("there is no node {index}, only {nodes}"))
    }

    /// The URLs of all NATS servers, joined by commas, without a link between.
    #[must_use]
    pub fn nats_urls(&self) -> String {
        self.nats.iter().map(Nats::url).collect::<Vec<_>>().join(",")
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
    pub fn nats_link(&self, region: &str) -> Result<&Link> {
        Ok(&self.home(region)?.links.nats)
    }

    /// The link between a region's replica and the server that it follows now. There is one for
    /// each pair of regions, and each keeps its own delay and cut.
    ///
    /// # Errors
    /// When there is no such region.
    pub fn replication_link(&self, region: &str) -> Result<&Link> {
        let home = self.home(region)?;
        Ok(&home.links.replication[home.upstream.load(Ordering::Relaxed)])
    }

    /// The link between a region's apps and the [`primary`](Self::primary).
    ///
    /// # Errors
    /// When there is no such region.
    pub fn primary_link(&self, region: &str) -> Result<&Link> {
        Ok(&self.home(region)?.links.primary)
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
        Program::start(command, name, log, Kind::Program, &self.reaper)
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
