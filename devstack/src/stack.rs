//! A whole stack: one NATS server, one primary, one replica in each other region, links between.

use std::{
    collections::BTreeMap,
    os::unix::fs::PermissionsExt,
    path::Path,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use tempfile::TempDir;
use tokio::runtime::{Handle, Runtime};

use crate::{
    account::Account,
    link::{Link, Target},
    nats::Nats,
    postgres::{Postgres, Template},
    program::Program,
    reaper::{Kind, Reaper},
    tools::Tools,
};

/// What every server is set to; a stack's own settings come after these and win.
const SETTINGS: [(&str, &str); 14] = [
    ("wal_level", "replica"),
    ("hot_standby", "on"),
    ("max_connections", "200"),
    ("max_wal_senders", "20"),
    ("max_replication_slots", "20"),
    ("shared_buffers", "128MB"),
    ("max_wal_size", "2GB"),
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
    nats_config: String,
}

impl Builder {
    /// The regions; the first is the primary's. Default: one, `home`.
    #[must_use]
    pub fn regions<R: Into<String>>(mut self, regions: impl IntoIterator<Item = R>) -> Self {
        self.regions = regions.into_iter().map(Into::into).collect();
        self
    }

    /// The round trip between the primary's region and each other one. Default: none.
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

    /// Text that is added to nats-server's configuration, such as accounts.
    #[must_use]
    pub fn nats_config(mut self, text: impl Into<String>) -> Self {
        self.nats_config = text.into();
        self
    }

    /// Starts everything.
    ///
    /// # Errors
    /// When a program does not start: the message says which, and has the end of its log. Nothing
    /// stays behind.
    pub async fn start(self) -> Result<Devstack> {
        let regions =
            if self.regions.is_empty() { vec!["home".to_owned()] } else { self.regions.clone() };
        check_regions(&regions)?;
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
            reaper: &reaper,
        };
        let nats = Nats::start_new(
            &tools.nats_server,
            &folder.path().join("nats"),
            &self.nats_config,
            &reaper,
        )
        .await?;
        let primary = Postgres::primary(&template, &regions[0]).await?;
        let mut far = BTreeMap::new();
        for region in &regions {
            let links = Links::open(&proxies, &nats, &primary)?;
            far.insert(region.clone(), Far { replica: None, links });
        }
        for region in &regions[1..] {
            let port = far[region].links.replication.addr().port();
            primary.keep_for(region).await?;
            let replica = Postgres::replica(&template, region, port).await?;
            if let Some(far) = far.get_mut(region) {
                far.links.set_rtt(self.rtt);
                far.replica = Some(replica);
            }
        }
        let major = tools.pg_major()?;
        Ok(Devstack {
            far,
            regions,
            primary,
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

/// The links of one region to the primary's.
pub(crate) struct Links {
    nats: Link,
    pub(crate) replication: Link,
    pub(crate) primary: Link,
}

impl Links {
    fn open(proxies: &Proxies, nats: &Nats, primary: &Postgres) -> Result<Self> {
        let handle = proxies.handle()?;
        Ok(Self {
            nats: Link::open(handle, Target::Tcp(nats.addr()))?,
            replication: Link::open(handle, Target::Unix(primary.socket()))?,
            primary: Link::open(handle, Target::Unix(primary.socket()))?,
        })
    }

    fn set_rtt(&self, rtt: Duration) {
        for link in [&self.nats, &self.replication, &self.primary] {
            link.set_rtt(rtt);
        }
    }
}

pub(crate) struct Far {
    replica: Option<Postgres>,
    pub(crate) links: Links,
}

/// A running stack. When it is dropped, or its process ends in any way, everything is stopped and
/// removed.
pub struct Devstack {
    // Fields are dropped in this order: replicas before the primary, servers before the folder.
    far: BTreeMap<String, Far>,
    regions: Vec<String>,
    primary: Postgres,
    nats: Nats,
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

    /// The regions, the primary's first.
    #[must_use]
    pub fn regions(&self) -> &[String] {
        &self.regions
    }

    /// PostgreSQL's major version.
    #[must_use]
    pub const fn pg_major(&self) -> u32 {
        self.major
    }

    /// The server that was the primary when the stack started.
    #[must_use]
    pub const fn primary(&self) -> &Postgres {
        &self.primary
    }

    /// The replica of a region.
    ///
    /// # Errors
    /// When there is no such region, or it is the primary's.
    pub fn replica(&self, region: &str) -> Result<&Postgres> {
        let far = self.far(region)?;
        far.replica
            .as_ref()
            .with_context(|| format!("{region} is the primary's region: it has no replica"))
    }

    /// The NATS server.
    #[must_use]
    pub const fn nats(&self) -> &Nats {
        &self.nats
    }

    /// The server of a region, whatever its role is now.
    ///
    /// # Errors
    /// When there is no such region.
    pub fn server(&self, region: &str) -> Result<&Postgres> {
        Ok(self.far(region)?.replica.as_ref().unwrap_or(&self.primary))
    }

    pub(crate) fn far(&self, region: &str) -> Result<&Far> {
        match self.far.get(region) {
            Some(far) => Ok(far),
            None => bail!("there is no region {region:?}, only {}", self.regions.join(", ")),
        }
    }

    /// The link between a region and NATS.
    ///
    /// # Errors
    /// When there is no such region.
    pub fn nats_link(&self, region: &str) -> Result<&Link> {
        Ok(&self.far(region)?.links.nats)
    }

    /// The link between a region's replica and the primary.
    ///
    /// # Errors
    /// When there is no such region.
    pub fn replication_link(&self, region: &str) -> Result<&Link> {
        Ok(&self.far(region)?.links.replication)
    }

    /// The link between a region's apps and the primary.
    ///
    /// # Errors
    /// When there is no such region.
    pub fn primary_link(&self, region: &str) -> Result<&Link> {
        Ok(&self.far(region)?.links.primary)
    }

    /// The URL of NATS as a region reaches it.
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
        for far in self.far.values_mut() {
            far.replica = None;
        }
        if let Some(program) = self.primary.program() {
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
