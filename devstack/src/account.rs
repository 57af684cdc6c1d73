//! The account that PostgreSQL runs under: it refuses to be root.

use std::{
    os::unix::{
        fs::{MetadataExt, chown},
        process::CommandExt,
    },
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};

use crate::tools::Tools;

/// Whose processes and files PostgreSQL's are; `None` for our own.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Account {
    other: Option<(u32, u32)>,
}

impl Account {
    /// Our own, or `nobody` when we are root.
    pub(crate) fn choose() -> Result<Self> {
        if !rustix::process::geteuid().is_root() {
            return Ok(Self { other: None });
        }
        let passwd = std::fs::read_to_string("/etc/passwd").context("reading /etc/passwd")?;
        let nobody = passwd.lines().find_map(|line| {
            let mut fields = line.strip_prefix("nobody:")?.split(':').skip(1);
            Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
        });
        match nobody {
            Some(ids) => Ok(Self { other: Some(ids) }),
            None => bail!(
                "PostgreSQL refuses to run as root, and /etc/passwd has no account `nobody` for it"
            ),
        }
    }

    /// A command under this account.
    pub(crate) fn command(self, program: &Path) -> Command {
        let mut command = Command::new(program);
        if let Some((uid, gid)) = self.other {
            command.uid(uid).gid(gid);
        }
        // The folder that we stand in may be one that the account cannot enter.
        command.current_dir("/");
        command
    }

    /// Gives a folder to this account.
    pub(crate) fn own(self, path: &Path) -> Result<()> {
        let Some((uid, gid)) = self.other else { return Ok(()) };
        chown(path, Some(uid), Some(gid)).with_context(|| format!("chown {}", path.display()))
    }

    /// PostgreSQL's programs where this account can run them: as they are, or copied into `folder`
    /// when they lie where only root may enter.
    pub(crate) fn reachable(self, tools: &Tools, folder: &Path) -> Result<PathBuf> {
        if self.other.is_none() || is_reachable(&tools.pg_bin)? {
            return Ok(tools.pg_bin.clone());
        }
        let copy = folder.join("pg");
        crate::program::run(
            {
                let mut command = Command::new("cp");
                command.arg("-a").arg(&tools.pg_root).arg(&copy);
                command
            },
            "copying PostgreSQL to where its account may enter",
        )?;
        let within = tools
            .pg_bin
            .strip_prefix(&tools.pg_root)
            .context("PostgreSQL's programs lie outside of its folder")?;
        Ok(copy.join(within))
    }
}

/// Whether everybody may enter every folder on the way.
fn is_reachable(path: &Path) -> Result<bool> {
    for folder in path.ancestors() {
        let metadata =
            folder.metadata().with_context(|| format!("looking at {}", folder.display()))?;
        if metadata.mode() & 0o001 == 0 {
            return Ok(false);
        }
    }
    Ok(true)
}
