//! A copy of the broker's store, to be put back: what a broker has that lost what came after it.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Result, ensure};

use super::case::Case;

/// A copy of the broker's store.
pub(crate) struct CopiedStore {
    case: &'static Case,
    folder: PathBuf,
}

impl CopiedStore {
    /// The store as it is; the broker is stopped meanwhile.
    pub(crate) async fn of(case: &'static Case, name: &str) -> Result<Self> {
        let nats = case.stack.nats();
        let folder = nats.store().with_file_name(name);
        nats.stop().await?;
        copy(&nats.store(), &folder)?;
        nats.start().await?;
        Ok(Self { case, folder })
    }

    /// The broker goes on from the copy.
    pub(crate) async fn put_back(&self) -> Result<()> {
        let nats = self.case.stack.nats();
        if nats.pid().is_ok() {
            nats.stop().await?;
        }
        self.put_into(&nats.store())?;
        nats.start().await
    }

    /// Copies it into another broker's store, which is stopped.
    pub(crate) fn put_into(&self, store: &Path) -> Result<()> {
        std::fs::remove_dir_all(store)?;
        copy(&self.folder, store)
    }
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    let status = Command::new("cp").arg("-a").arg(from).arg(to).status()?;
    ensure!(status.success(), "cp: {status}");
    Ok(())
}
