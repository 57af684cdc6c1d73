//! Files that a program leaves behind.

use std::{fs, path::Path};

use anyhow::{Context, Result};

/// Writes a file, and the folders on the way to it.
pub(crate) fn write_file(path: &Path, text: &str) -> Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
    }
    fs::write(path, text).with_context(|| format!("writing {}", path.display()))
}
