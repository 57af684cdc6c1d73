//! What a stack is to be like, and its start.

use std::{
    os::unix::fs::PermissionsExt,
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicUsize},
    },
    time::Duration,
};

use anyhow::{Context, Result, ensure};

use crate::{
    account::Account,
    cluster,
    nats::{NatsServer, Setup},
    postgres::{Postgres, Template},
    proxies::Proxies,
    reaper::Reaper,
    region::{Home, RegionLinks},
    stack::Devstack,
    tools::Tools,
    topology::{check_regions, from_the_top, upstreams},
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
pub struct DevstackBuilder {
    regions: Vec<String>,
    rtt: Duration,
    settings: Vec<(String, String)>,
    environment: Vec<(String, String)>,
    nats_config: String,
    nats_sync: Option<Duration>,
    nats_nodes: Option<usize>,
    cascades: Vec<(String, String)>,
}

impl DevstackBuilder {
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
            vec![NatsServer::start_new(&setup, &folder.path().join("nats"), None).await?]
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
            let links = RegionLinks::open(&proxies, &nats[index % nodes], &sockets)?;
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

impl Devstack {
    /// A stack to be described.
    #[must_use]
    pub fn builder() -> DevstackBuilder {
        DevstackBuilder::default()
    }
}
