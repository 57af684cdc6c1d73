//! A NATS server of a stack, with JetStream on disk: alone, or a node of a cluster.
//!
//! A node's routes must be in its configuration before any node has a port. So each node is reached
//! by the others through a link, whose port is known and kept: wherever the node listens, now and
//! after a restart, its link leads there. Nothing waits on a port that was free a moment ago.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::{
    link::{LinkTarget, WanLink},
    program::Program,
    reaper::{ProcessKind, Reaper},
};

/// How long it may take to listen.
const START_WITHIN: Duration = Duration::from_secs(30);

/// What every server of a stack has in common.
pub(crate) struct Setup<'a> {
    pub(crate) program: &'a Path,
    /// Text that is added to its configuration.
    pub(crate) extra: &'a str,
    /// How often it syncs what it has acknowledged.
    pub(crate) sync: &'a str,
    pub(crate) reaper: &'a Arc<Reaper>,
}

/// What makes a server a node of a cluster.
pub(crate) struct Membership {
    /// The cluster's name; a node that comes upon another stack's is refused.
    pub(crate) cluster: String,
    /// The server's name, unlike any other's of the cluster.
    pub(crate) name: String,
    /// What the other nodes reach it through.
    pub(crate) route: WanLink,
    /// Where the others are reached.
    pub(crate) others: Vec<SocketAddr>,
}

impl Membership {
    /// Clients are not told of the other nodes: they would find a way round a region's link.
    fn config(&self) -> String {
        let Self { cluster, name, route, others } = self;
        let routes: Vec<String> = others.iter().map(|addr| format!("\"nats://{addr}\"")).collect();
        format!(
            "server_name: \"{name}\"\nhttp: \"127.0.0.1:-1\"\n\
             cluster {{ name: \"{cluster}\", listen: \"127.0.0.1:-1\", advertise: \"{}\", no_advertise: true, routes: [{}] }}\n",
            route.addr(),
            routes.join(", ")
        )
    }
}

/// One server. Acknowledges only what is on disk (`sync_interval: always`), unless the stack was built
/// otherwise.
pub struct NatsServer {
    program: PathBuf,
    folder: PathBuf,
    addr: SocketAddr,
    reaper: Arc<Reaper>,
    membership: Option<Membership>,
    running: Mutex<Option<Running>>,
}

/// A server's process, and what only this process has.
#[derive(Clone)]
struct Running {
    program: Arc<Program>,
    /// Where it tells about itself, once it listens; a node of a cluster only.
    monitor: Option<SocketAddr>,
}

impl NatsServer {
    /// Starts a server in `folder`.
    pub(crate) async fn start_new(
        setup: &Setup<'_>,
        folder: &Path,
        membership: Option<Membership>,
    ) -> Result<Self> {
        std::fs::create_dir(folder).with_context(|| format!("making {}", folder.display()))?;
        let config = format!(
            "jetstream {{ store_dir: \"{}\", sync_interval: {} }}\n{}{}\n",
            store_in(folder).display(),
            setup.sync,
            membership.as_ref().map(Membership::config).unwrap_or_default(),
            setup.extra
        );
        std::fs::write(folder.join("nats.conf"), config).context("writing nats.conf")?;
        let mut server = Self {
            program: setup.program.to_path_buf(),
            folder: folder.to_path_buf(),
            addr: SocketAddr::from(([127, 0, 0, 1], 0)),
            reaper: Arc::clone(setup.reaper),
            membership,
            running: Mutex::new(None),
        };
        server.addr = server.launch(-1).await?;
        Ok(server)
    }

    /// Starts the process and waits until it says where it listens.
    async fn launch(&self, port: i32) -> Result<SocketAddr> {
        let ports = self.folder.join("ports");
        let _ = std::fs::remove_dir_all(&ports);
        std::fs::create_dir(&ports).context("making the ports folder")?;
        let mut command = Command::new(&self.program);
        command.arg("-c").arg(self.folder.join("nats.conf"));
        command.args(["-a", "127.0.0.1", "-p", &port.to_string()]);
        command.arg("--ports_file_dir").arg(&ports);
        let program = Program::start(
            command,
            "nats-server",
            self.folder.join("nats.log"),
            ProcessKind::Program,
            &self.reaper,
        )?;
        let program = Arc::new(program);
        *self.slot()? = Some(Running { program: Arc::clone(&program), monitor: None });
        let began = Instant::now();
        loop {
            program.check_running()?;
            if let Some(listening) = listening(&ports) {
                return self.reached_at(&listening);
            }
            if began.elapsed() > START_WITHIN {
                bail!("nats-server does not listen; the end of its log:\n{}", program.log_tail());
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Takes note of where a new process listens, and leads the other nodes there.
    fn reached_at(&self, listening: &Listening) -> Result<SocketAddr> {
        if let Some(membership) = &self.membership {
            let cluster = listening.cluster.context("nats-server has no port for its cluster")?;
            membership.route.set_target(LinkTarget::Tcp(cluster));
            if let Some(running) = self.slot()?.as_mut() {
                running.monitor = listening.monitor;
            }
        }
        Ok(listening.clients)
    }

    fn slot(&self) -> Result<std::sync::MutexGuard<'_, Option<Running>>> {
        self.running.lock().map_err(|_| anyhow::anyhow!("nats-server: poisoned"))
    }

    fn running(&self) -> Result<Arc<Program>> {
        let running = self.slot()?.as_ref().map(|running| Arc::clone(&running.program));
        running.context("nats-server is not running")
    }

    /// Its process.
    ///
    /// # Errors
    /// When it is not running.
    pub fn pid(&self) -> Result<u32> {
        Ok(self.running()?.pid())
    }

    /// Where a node of a cluster tells about itself; `None` while it does not run.
    pub(crate) fn monitor(&self) -> Option<SocketAddr> {
        self.slot().ok()?.as_ref()?.monitor
    }

    /// The name that a node has in its cluster; a server that is alone has none.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        self.membership.as_ref().map(|membership| membership.name.as_str())
    }

    /// Where it listens; the same after a restart.
    #[must_use]
    pub const fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Where it keeps its streams. To be copied and put back while it is stopped.
    #[must_use]
    pub fn store(&self) -> PathBuf {
        store_in(&self.folder)
    }

    /// Its URL, without a link between.
    #[must_use]
    pub fn url(&self) -> String {
        format!("nats://{}", self.addr)
    }

    /// Starts it again after it was stopped or killed; returns when it listens. That a node has
    /// caught up with its cluster is what
    /// [`wait_nats_current`](crate::Devstack::wait_nats_current) waits for.
    ///
    /// # Errors
    /// When it does not listen; the message has the end of its log.
    pub async fn start(&self) -> Result<()> {
        self.launch(i32::from(self.addr.port())).await.map(drop)
    }

    /// Stops it in order.
    ///
    /// # Errors
    /// When it is not running or does not stop.
    pub async fn stop(&self) -> Result<()> {
        let program = self.running()?;
        program.terminate(Duration::from_secs(30)).await?;
        *self.slot()? = None;
        Ok(())
    }

    /// Kills it (SIGKILL).
    ///
    /// # Errors
    /// When it is not running.
    pub async fn kill(&self) -> Result<()> {
        let program = self.running()?;
        program.kill().await?;
        *self.slot()? = None;
        Ok(())
    }

    /// Stops it in order and starts it again.
    ///
    /// # Errors
    /// When it is not running, or does not start.
    pub async fn restart(&self) -> Result<()> {
        self.stop().await?;
        self.start().await
    }

    /// Stops it where it stands (SIGSTOP).
    ///
    /// # Errors
    /// When it is not running.
    pub fn suspend(&self) -> Result<()> {
        self.running()?.suspend()
    }

    /// Lets it go on (SIGCONT).
    ///
    /// # Errors
    /// When it is not running.
    pub fn resume(&self) -> Result<()> {
        self.running()?.resume()
    }
}

fn store_in(folder: &Path) -> PathBuf {
    folder.join("store")
}

/// Where a server listens.
#[derive(Debug, PartialEq, Eq)]
struct Listening {
    clients: SocketAddr,
    cluster: Option<SocketAddr>,
    monitor: Option<SocketAddr>,
}

/// Reads the ports file, `{"nats": ["nats://127.0.0.1:4222"], …}`, once it is written whole.
fn listening(ports: &Path) -> Option<Listening> {
    let file = ports.read_dir().ok()?.find_map(|entry| Some(entry.ok()?.path()))?;
    let text = std::fs::read_to_string(file).ok()?;
    addresses_in(&text)
}

fn addresses_in(text: &str) -> Option<Listening> {
    let ports: Value = serde_json::from_str(text).ok()?;
    let address = |of: &str| {
        let (_, addr) = ports[of][0].as_str()?.split_once("://")?;
        addr.parse().ok()
    };
    Some(Listening {
        clients: address("nats")?,
        cluster: address("cluster"),
        monitor: address("monitoring"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ports_file_is_read_once_it_is_whole() {
        let whole = r#"{"nats": ["nats://127.0.0.1:40123"], "monitoring": []}"#;
        let alone = addresses_in(whole).unwrap();
        assert_eq!((alone.clients.port(), alone.cluster, alone.monitor), (40_123, None, None));
        for length in 0..whole.len() {
            assert_eq!(addresses_in(&whole[..length]), None);
        }
        let node = r#"{"nats":["nats://127.0.0.1:1"],"monitoring":["http://127.0.0.1:2"],"cluster":["nats://127.0.0.1:3"]}"#;
        let node = addresses_in(node).unwrap();
        assert_eq!(node.monitor.map(|addr| addr.port()), Some(2));
        assert_eq!(node.cluster.map(|addr| addr.port()), Some(3));
    }
}
