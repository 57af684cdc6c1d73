//! The NATS server of a stack, with JetStream on disk.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

use crate::{
    program::Program,
    reaper::{Kind, Reaper},
};

/// How long it may take to listen.
const START_WITHIN: Duration = Duration::from_secs(30);

/// One server. Acknowledges only what is on disk (`sync_interval: always`).
pub struct Nats {
    program: PathBuf,
    folder: PathBuf,
    addr: SocketAddr,
    reaper: Arc<Reaper>,
    running: Mutex<Option<Arc<Program>>>,
}

impl Nats {
    /// Starts a server in `folder`; `extra` is added to its configuration.
    pub(crate) async fn start_new(
        program: &Path,
        folder: &Path,
        extra: &str,
        reaper: &Arc<Reaper>,
    ) -> Result<Self> {
        std::fs::create_dir(folder).with_context(|| format!("making {}", folder.display()))?;
        let config = format!(
            "jetstream {{ store_dir: \"{}\", sync_interval: always }}\n{extra}\n",
            store_in(folder).display()
        );
        std::fs::write(folder.join("nats.conf"), config).context("writing nats.conf")?;
        let mut server = Self {
            program: program.to_path_buf(),
            folder: folder.to_path_buf(),
            addr: SocketAddr::from(([127, 0, 0, 1], 0)),
            reaper: Arc::clone(reaper),
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
            Kind::Program,
            &self.reaper,
        )?;
        let program = Arc::new(program);
        *self.slot()? = Some(Arc::clone(&program));
        let began = Instant::now();
        loop {
            program.check_running()?;
            if let Some(addr) = listening(&ports) {
                return Ok(addr);
            }
            if began.elapsed() > START_WITHIN {
                bail!("nats-server does not listen; the end of its log:\n{}", program.log_tail());
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    fn slot(&self) -> Result<std::sync::MutexGuard<'_, Option<Arc<Program>>>> {
        self.running.lock().map_err(|_| anyhow::anyhow!("nats-server: poisoned"))
    }

    fn running(&self) -> Result<Arc<Program>> {
        self.slot()?.clone().context("nats-server is not running")
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

    /// Starts it again after it was stopped or killed.
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

/// Reads the ports file, `{"nats": ["nats://127.0.0.1:4222"], …}`, once it is written whole.
fn listening(ports: &Path) -> Option<SocketAddr> {
    let file = ports.read_dir().ok()?.find_map(|entry| Some(entry.ok()?.path()))?;
    let text = std::fs::read_to_string(file).ok()?;
    address_in(&text)
}

fn address_in(text: &str) -> Option<SocketAddr> {
    let (_, rest) = text.split_once("nats://")?;
    let (addr, _) = rest.split_once('"')?;
    addr.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ports_file_is_read_once_it_is_whole() {
        let whole = r#"{"nats": ["nats://127.0.0.1:40123"], "monitoring": []}"#;
        assert_eq!(address_in(whole).unwrap().port(), 40_123);
        assert_eq!(address_in(&whole[..30]), None);
        assert_eq!(address_in(""), None);
    }
}
