//! What cleans up when nobody else does.
//!
//! A small shell of its own process group listens on a pipe whose other end only this process
//! holds. However this process ends, the pipe closes, and the shell ends the servers and removes
//! the folders. (`PR_SET_PDEATHSIG` would fire when the *thread* ends that started a server.)
//!
//! PostgreSQL gets SIGQUIT first: a postmaster that dies of SIGKILL leaves its shared memory
//! segment behind.

use std::{
    io::Write,
    os::unix::process::CommandExt,
    path::Path,
    process::{Child, ChildStdin, Command, Stdio},
    sync::Mutex,
};

use anyhow::{Context, Result};

const SCRIPT: &str = r#"
trap '' INT TERM HUP
postgres= programs= folders=
without() { for one in $1; do [ "$one" = "$2" ] || printf '%s ' "$one"; done; }
alive() { [ -r "/proc/$1/status" ] && ! grep -q '^State:.[ZX]' "/proc/$1/status"; }
while read -r verb what; do
  case $verb in
    postgres) postgres="$postgres $what" ;;
    program) programs="$programs $what" ;;
    forget) postgres=$(without "$postgres" "$what"); programs=$(without "$programs" "$what") ;;
    folder) folders="$folders $what" ;;
  esac
done
for pid in $programs; do kill -KILL "$pid" 2>/dev/null; done
for pid in $postgres; do kill -CONT "$pid" 2>/dev/null; kill -QUIT "$pid" 2>/dev/null; done
tries=0
for pid in $postgres $programs; do
  while alive "$pid" && [ $tries -lt 100 ]; do sleep 0.05; tries=$((tries + 1)); done
  alive "$pid" && kill -KILL "$pid" 2>/dev/null
done
for folder in $folders; do rm -rf "$folder" || { sleep 0.5; rm -rf "$folder"; }; done
"#;

/// The reaper of one stack.
pub(crate) struct Reaper {
    shell: Mutex<Option<(Child, ChildStdin)>>,
}

/// How a process is to be ended.
#[derive(Clone, Copy)]
pub(crate) enum ProcessKind {
    /// A postmaster.
    Postgres,
    /// Anything else.
    Program,
}

impl Reaper {
    /// Starts the shell.
    pub(crate) fn start() -> Result<Self> {
        let mut shell = Command::new("/bin/sh")
            .args(["-c", SCRIPT])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .context("starting /bin/sh, which cleans up behind a stack")?;
        let pipe = shell.stdin.take().context("the reaper has no pipe")?;
        Ok(Self { shell: Mutex::new(Some((shell, pipe))) })
    }

    /// Names a process that must not outlive this one.
    pub(crate) fn adopt(&self, kind: ProcessKind, pid: u32) {
        let verb = match kind {
            ProcessKind::Postgres => "postgres",
            ProcessKind::Program => "program",
        };
        self.tell(format_args!("{verb} {pid}"));
    }

    /// Takes a process back that has ended.
    pub(crate) fn forget(&self, pid: u32) {
        self.tell(format_args!("forget {pid}"));
    }

    /// Names a folder that must not stay.
    pub(crate) fn folder(&self, path: &Path) {
        self.tell(format_args!("folder {}", path.display()));
    }

    /// A reaper that is gone cannot be told anything, and nothing better can be done about it.
    fn tell(&self, line: std::fmt::Arguments<'_>) {
        if let Ok(mut shell) = self.shell.lock()
            && let Some((_, pipe)) = shell.as_mut()
        {
            let _ = writeln!(pipe, "{line}");
        }
    }

    /// Lets it do its work now, and waits for it.
    pub(crate) fn finish(&self) {
        let shell = self.shell.lock().ok().and_then(|mut shell| shell.take());
        if let Some((mut child, pipe)) = shell {
            drop(pipe);
            let _ = child.wait();
        }
    }
}

impl Drop for Reaper {
    fn drop(&mut self) {
        self.finish();
    }
}
