//! A program that a stack has started: its process, its log, its signals.

use std::{
    fs::File,
    io::Read,
    os::unix::process::CommandExt,
    path::PathBuf,
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process, waitid};

use crate::reaper::{ProcessKind, Reaper};

/// Lines of a log that an error shows.
const LOG_LINES: usize = 20;
/// How often a process is looked at while it is waited for.
const LOOK: Duration = Duration::from_millis(5);

/// A running program. Killed when it is dropped; the reaper knows it too.
pub struct Program {
    name: String,
    pid: u32,
    kind: ProcessKind,
    child: Mutex<Child>,
    log: PathBuf,
    reaper: Arc<Reaper>,
}

impl Program {
    /// Starts a program in a process group of its own, its output in `log`.
    pub(crate) fn start(
        mut command: Command,
        name: &str,
        log: PathBuf,
        kind: ProcessKind,
        reaper: &Arc<Reaper>,
    ) -> Result<Self> {
        let file = File::options().create(true).append(true).open(&log);
        let file = file.with_context(|| format!("opening {}", log.display()))?;
        let errors = file.try_clone().context("the log")?;
        let path = command.get_program().to_owned();
        let child = command
            .stdin(Stdio::null())
            .stdout(file)
            .stderr(errors)
            .process_group(0)
            .spawn()
            .with_context(|| format!("starting {name} ({})", path.display()))?;
        reaper.adopt(kind, child.id());
        let (pid, child) = (child.id(), Mutex::new(child));
        Ok(Self { name: name.to_owned(), pid, kind, child, log, reaper: Arc::clone(reaper) })
    }

    /// Its process id.
    #[must_use]
    pub const fn pid(&self) -> u32 {
        self.pid
    }

    /// How it ended; `None` while it runs.
    ///
    /// # Errors
    /// When the system does not say.
    pub fn status(&self) -> Result<Option<ExitStatus>> {
        let mut child =
            self.child.lock().map_err(|_| anyhow::anyhow!("{}: poisoned", self.name))?;
        let status = child.try_wait().with_context(|| format!("waiting for {}", self.name))?;
        if status.is_some() {
            self.reaper.forget(self.pid);
        }
        Ok(status)
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// When it does not end within `limit`.
    pub async fn wait(&self, limit: Duration) -> Result<ExitStatus> {
        let began = Instant::now();
        loop {
            if let Some(status) = self.status()? {
                return Ok(status);
            }
            if began.elapsed() > limit {
                bail!(
                    "{} (process {}) did not end within {} s",
                    self.name,
                    self.pid,
                    limit.as_secs()
                );
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Sends a signal; a process that has ended is no error.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        if self.status()?.is_some() {
            return Ok(());
        }
        let pid = Pid::from_raw(self.pid.cast_signed()).context("process 0")?;
        kill_process(pid, signal).with_context(|| format!("signalling {}", self.name))
    }

    /// Ends it at once (SIGKILL), and waits until it is gone.
    ///
    /// # Errors
    /// When the system refuses.
    pub async fn kill(&self) -> Result<()> {
        self.signal(Signal::KILL)?;
        self.wait(Duration::from_secs(10)).await.map(drop)
    }

    /// Asks it to end (SIGTERM), and waits for how it does.
    ///
    /// # Errors
    /// When it does not end within `limit`.
    pub async fn terminate(&self, limit: Duration) -> Result<ExitStatus> {
        self.signal(Signal::TERM)?;
        self.wait(limit).await
    }

    /// Stops it where it stands (SIGSTOP), and waits until all of its threads do: until then one of
    /// them may still answer somebody.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn suspend(&self) -> Result<()> {
        self.signal(Signal::STOP)?;
        let pid = Pid::from_raw(self.pid.cast_signed()).context("process 0")?;
        // Left to be waited for: how it ended is for `status` to tell.
        let any = WaitIdOptions::STOPPED | WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
        match waitid(WaitId::Pid(pid), any) {
            // It had ended before.
            Ok(_) | Err(rustix::io::Errno::CHILD) => Ok(()),
            Err(error) => Err(error).with_context(|| format!("suspending {}", self.name)),
        }
    }

    /// Lets it go on (SIGCONT).
    ///
    /// # Errors
    /// When the system refuses.
    pub fn resume(&self) -> Result<()> {
        self.signal(Signal::CONT)
    }

    /// What it has written so far.
    #[must_use]
    pub fn log(&self) -> String {
        let mut bytes = Vec::new();
        let read = File::open(&self.log).and_then(|mut file| file.read_to_end(&mut bytes));
        match read {
            Ok(_) => String::from_utf8_lossy(&bytes).into_owned(),
            Err(error) => format!("({}: {error})", self.log.display()),
        }
    }

    /// The last lines of it, for an error's message.
    #[must_use]
    pub fn log_tail(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(LOG_LINES)..].join("\n")
    }

    /// An error when it has ended already, with the end of its log.
    pub(crate) fn check_running(&self) -> Result<()> {
        match self.status()? {
            None => Ok(()),
            Some(status) => bail!(
                "{} ended at once ({status}); the end of its log:\n{}",
                self.name,
                self.log_tail()
            ),
        }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let signal = match self.kind {
            ProcessKind::Postgres => Signal::QUIT,
            ProcessKind::Program => Signal::KILL,
        };
        let _ = self.signal(Signal::CONT);
        let _ = self.signal(signal);
        let began = Instant::now();
        while let Ok(None) = self.status() {
            if began.elapsed() > Duration::from_secs(5) {
                let _ = self.signal(Signal::KILL);
                if let Ok(mut child) = self.child.lock() {
                    let _ = child.wait();
                }
                self.reaper.forget(self.pid);
                return;
            }
            std::thread::sleep(LOOK);
        }
    }
}

/// Runs a program to its end; its output is shown when it fails.
pub(crate) fn run(mut command: Command, name: &str) -> Result<()> {
    let path = command.get_program().to_owned();
    let output = command.stdin(Stdio::null()).output();
    let output = output.with_context(|| format!("starting {name} ({})", path.display()))?;
    if output.status.success() {
        return Ok(());
    }
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().collect();
    let tail = lines[lines.len().saturating_sub(LOG_LINES)..].join("\n");
    bail!("{name} failed ({}); the end of its output:\n{tail}", output.status)
}
