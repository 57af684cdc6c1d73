//! A PostgreSQL server of a stack: a primary or a replica.
//!
//! Servers listen on Unix sockets only: PostgreSQL has no port 0, and a socket's path has no race.
//! What crosses a region goes through a [`WanLink`](crate::WanLink) on TCP.

use std::{
    path::{Path, PathBuf},
    process::Command,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use rustix::process::Signal;
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, PgConnection, postgres::PgConnectOptions};

use crate::{
    account::Account,
    program::{self, Program},
    reaper::{ProcessKind, Reaper},
};

/// The port that is a part of the socket's name.
const PORT: u16 = 5432;
/// How long a server may take to accept connections: longer than any recovery here takes.
const START_WITHIN: Duration = Duration::from_secs(60);
/// How long a server may take to stop.
const STOP_WITHIN: Duration = Duration::from_secs(30);

/// One server. Its methods block no runtime and work from any.
pub struct Postgres {
    name: String,
    slot: String,
    bin: PathBuf,
    data: PathBuf,
    sockets: PathBuf,
    log: PathBuf,
    account: Account,
    settings: Vec<(String, String)>,
    environment: Vec<(String, String)>,
    reaper: Arc<Reaper>,
    running: Mutex<Option<Arc<Program>>>,
}

/// What all servers of a stack share.
pub(crate) struct Template<'a> {
    pub(crate) bin: &'a Path,
    pub(crate) folder: &'a Path,
    pub(crate) account: Account,
    pub(crate) settings: &'a [(String, String)],
    pub(crate) environment: &'a [(String, String)],
    pub(crate) reaper: &'a Arc<Reaper>,
}

impl Postgres {
    /// The server of a region, with nothing in its folder yet.
    pub(crate) fn new(template: &Template<'_>, region: &str) -> Result<Self> {
        let folder = template.folder.join(region);
        std::fs::create_dir(&folder).with_context(|| format!("making {}", folder.display()))?;
        template.account.own(&folder)?;
        Ok(Self {
            name: format!("PostgreSQL in {region}"),
            slot: region.replace('-', "_"),
            bin: template.bin.to_path_buf(),
            data: folder.join("data"),
            log: template.folder.join(format!("{region}.log")),
            sockets: folder,
            account: template.account,
            settings: template.settings.to_vec(),
            environment: template.environment.to_vec(),
            reaper: Arc::clone(template.reaper),
            running: Mutex::new(None),
        })
    }

    /// Makes a primary of it, which is not started.
    pub(crate) fn init(&self) -> Result<()> {
        let mut command = self.command("initdb");
        command.args([
            "--locale=C",
            "--encoding=UTF8",
            "--auth=trust",
            "--username=postgres",
            "--no-instructions",
            "--no-sync",
        ]);
        command.arg("--pgdata").arg(&self.data);
        // Replicas come through a proxy, which connects on the socket: as `local`.
        program::run(command, "initdb")
    }

    /// Makes a replica of it, which is not started: a copy of the server behind `port` on the
    /// loopback, where its slot is made too.
    pub(crate) async fn copy(&self, port: u16) -> Result<()> {
        let mut command = self.command("pg_basebackup");
        command.args([
            "--host=127.0.0.1",
            "--username=postgres",
            "--no-password",
            "--write-recovery-conf",
            "--wal-method=stream",
            "--checkpoint=fast",
            "--create-slot",
            "--no-sync",
        ]);
        command.arg(format!("--slot={}", self.slot)).arg(format!("--port={port}"));
        command.arg("--pgdata").arg(&self.data);
        tokio::task::spawn_blocking(move || program::run(command, "pg_basebackup")).await?
    }

    fn command(&self, program: &str) -> Command {
        self.account.command(&self.bin.join(program))
    }

    /// The URL of a database on it, through its socket.
    #[must_use]
    pub fn url(&self, database: &str) -> String {
        format!("postgres://postgres@localhost:{PORT}/{database}?host={}", self.sockets.display())
    }

    /// The replication slot that keeps, on the server that it follows, what it will need when it
    /// was away.
    pub(crate) fn slot(&self) -> &str {
        &self.slot
    }

    /// Its data folder.
    pub(crate) fn data(&self) -> &Path {
        &self.data
    }

    /// The socket itself.
    pub(crate) fn socket(&self) -> PathBuf {
        self.sockets.join(format!(".s.PGSQL.{PORT}"))
    }

    /// Starts it, and waits until it accepts connections.
    ///
    /// # Errors
    /// When it does not start; the message has the end of its log.
    pub async fn start(&self) -> Result<()> {
        let mut command = self.command("postgres");
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command.arg("-D").arg(&self.data).arg("-k").arg(&self.sockets);
        let fixed = [
            ("listen_addresses", ""),
            ("port", "5432"),
            ("unix_socket_permissions", "0700"),
            // Also what it is called where it is a standby.
            ("cluster_name", self.slot.as_str()),
        ];
        let own = self.settings.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        for (name, value) in fixed.into_iter().chain(own) {
            command.arg("-c").arg(format!("{name}={value}"));
        }
        let program = Program::start(
            command,
            &self.name,
            self.log.clone(),
            ProcessKind::Postgres,
            &self.reaper,
        )?;
        let program = Arc::new(program);
        *self.running()? = Some(Arc::clone(&program));
        let began = Instant::now();
        loop {
            program.check_running()?;
            let error = match self.connect("postgres").await {
                Ok(connection) => return Ok(connection.close().await?),
                Err(error) => error,
            };
            if began.elapsed() > START_WITHIN {
                bail!(
                    "{} accepts no connections ({error}); the end of its log:\n{}",
                    self.name,
                    program.log_tail()
                );
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    fn running(&self) -> Result<std::sync::MutexGuard<'_, Option<Arc<Program>>>> {
        self.running.lock().map_err(|_| anyhow::anyhow!("{}: poisoned", self.name))
    }

    fn take(&self) -> Result<Arc<Program>> {
        self.running()?.take().with_context(|| format!("{} is not running", self.name))
    }

    /// Stops it in order (SIGINT: sessions are ended, a checkpoint is written).
    ///
    /// # Errors
    /// When it is not running, or does not stop.
    pub async fn stop_fast(&self) -> Result<()> {
        let program = self.take()?;
        program.signal(Signal::INT)?;
        program.wait(STOP_WITHIN).await.map(drop)
    }

    /// Stops it as a crash would, but cleans its shared memory up (SIGQUIT).
    ///
    /// # Errors
    /// When it is not running, or does not stop.
    pub async fn stop_immediate(&self) -> Result<()> {
        let program = self.take()?;
        program.signal(Signal::QUIT)?;
        program.wait(STOP_WITHIN).await.map(drop)
    }

    /// Crashes it (SIGKILL), and waits until its processes, which notice only afterwards, are gone.
    ///
    /// # Errors
    /// When it is not running, or its processes stay.
    pub async fn kill(&self) -> Result<()> {
        let program = self.take()?;
        let pid = program.pid();
        let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
        let children = children.unwrap_or_default();
        let segment = self.shared_memory();
        program.kill().await?;
        let began = Instant::now();
        while children.split_whitespace().any(is_alive) {
            if began.elapsed() > STOP_WITHIN {
                bail!("{}: processes {children} outlive their postmaster", self.name);
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        // It could not remove its segment itself, and may never be started again.
        if let Some(segment) = segment {
            let _ = Command::new("ipcrm").args(["-m", &segment]).output();
        }
        Ok(())
    }

    /// The System V segment that a running server holds: the seventh line of `postmaster.pid`.
    fn shared_memory(&self) -> Option<String> {
        let text = std::fs::read_to_string(self.data.join("postmaster.pid")).ok()?;
        Some(text.lines().nth(6)?.split_whitespace().nth(1)?.to_owned())
    }

    /// Stops it in order and starts it again.
    ///
    /// # Errors
    /// When it is not running, or does not start.
    pub async fn restart(&self) -> Result<()> {
        self.stop_fast().await?;
        self.start().await
    }

    /// Holds replay on a replica; what is streamed is kept.
    ///
    /// # Errors
    /// When it is not a replica, or cannot be asked.
    pub async fn pause_replay(&self) -> Result<()> {
        self.execute("postgres", "SELECT pg_wal_replay_pause()").await
    }

    /// Lets replay go on.
    ///
    /// # Errors
    /// When it is not a replica, or cannot be asked.
    pub async fn resume_replay(&self) -> Result<()> {
        self.execute("postgres", "SELECT pg_wal_replay_resume()").await
    }

    /// Makes a database.
    ///
    /// # Errors
    /// When it exists, or the server is a replica.
    pub async fn create_database(&self, name: &str) -> Result<()> {
        self.execute("postgres", &format!("CREATE DATABASE \"{}\"", name.replace('"', ""))).await
    }

    /// Runs statements.
    ///
    /// # Errors
    /// The server's.
    pub async fn execute(&self, database: &str, sql: &str) -> Result<()> {
        let mut connection = self.connect(database).await?;
        sqlx::raw_sql(AssertSqlSafe(sql.to_owned()))
            .execute(&mut connection)
            .await
            .with_context(|| format!("{}: {sql}", self.name))?;
        Ok(connection.close().await?)
    }

    /// A connection to a database of it.
    ///
    /// # Errors
    /// The server's.
    pub async fn connect(&self, database: &str) -> Result<PgConnection> {
        let options: PgConnectOptions = self.url(database).parse()?;
        let options = options.disable_statement_logging();
        PgConnection::connect_with(&options)
            .await
            .with_context(|| format!("connecting to {}", self.name))
    }

    /// Waits until it, a replica, has replayed all that `primary` has flushed by now.
    ///
    /// # Errors
    /// When it has not within `limit`.
    pub async fn wait_caught_up(&self, primary: &Self, limit: Duration) -> Result<()> {
        let mut there = primary.connect("postgres").await?;
        let target: String = sqlx::query_scalar("SELECT pg_current_wal_flush_lsn()::text")
            .fetch_one(&mut there)
            .await?;
        let mut here = self.connect("postgres").await?;
        let began = Instant::now();
        loop {
            let reached: Option<bool> =
                sqlx::query_scalar("SELECT pg_last_wal_replay_lsn() >= $1::pg_lsn")
                    .bind(&target)
                    .fetch_one(&mut here)
                    .await?;
            if reached == Some(true) {
                return Ok(());
            }
            if began.elapsed() > limit {
                bail!("{} has not replayed {target} within {} s", self.name, limit.as_secs());
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    /// Whether it is a replica that replays, and not a primary.
    ///
    /// # Errors
    /// When it is not running, or cannot be asked.
    pub async fn is_in_recovery(&self) -> Result<bool> {
        let mut connection = self.connect("postgres").await?;
        let sql = "SELECT pg_is_in_recovery()";
        let answer = sqlx::query_scalar(sql).fetch_one(&mut connection).await?;
        connection.close().await?;
        Ok(answer)
    }

    /// The timeline that it writes to, or receives as a replica; `None` for a replica that receives
    /// nothing now.
    ///
    /// # Errors
    /// When it is not running, or cannot be asked.
    pub async fn timeline(&self) -> Result<Option<u32>> {
        // What `pg_control_checkpoint()` says is old until the next checkpoint.
        let sql = "SELECT CASE WHEN pg_is_in_recovery()
                          THEN (SELECT received_tli FROM pg_stat_wal_receiver)
                          ELSE ('x' || left(pg_walfile_name(pg_current_wal_lsn()), 8))::bit(32)::int
                          END";
        let mut connection = self.connect("postgres").await?;
        let timeline: Option<i32> = sqlx::query_scalar(sql).fetch_one(&mut connection).await?;
        connection.close().await?;
        Ok(timeline.map(i32::cast_unsigned))
    }

    /// Its process, while it runs.
    #[must_use]
    pub fn program(&self) -> Option<Arc<Program>> {
        self.running.lock().ok()?.clone()
    }

    /// Where its log is.
    #[must_use]
    pub fn log(&self) -> &Path {
        &self.log
    }
}

fn is_alive(pid: &str) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    status
        .lines()
        .any(|line| line.starts_with("State:") && !line.contains('Z') && !line.contains('X'))
}
