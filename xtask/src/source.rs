//! The files of the workspace: which crates there are, and which files belong to each.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::Context;

/// A crate's name and the folder of its sources.
pub(crate) struct Crate {
    pub(crate) name: String,
    pub(crate) src: PathBuf,
}

/// Folders that hold nothing of ours.
const SKIPPED: [&str; 5] = ["target", ".git", ".tools", "node_modules", "corpus"];

/// Every crate below the root that has a `src` folder.
pub(crate) fn crates(root: &Path) -> anyhow::Result<Vec<Crate>> {
    let mut crates = Vec::new();
    for manifest in files(root, &["toml"])? {
        if manifest.file_name().is_none_or(|name| name != "Cargo.toml") {
            continue;
        }
        let folder = manifest.parent().context("a manifest stands in a folder")?;
        let src = folder.join("src");
        if src.is_dir() {
            let name = folder.strip_prefix(root)?.display().to_string();
            crates.push(Crate { name, src });
        }
    }
    Ok(crates)
}

/// Every file below a folder that ends in one of these extensions, in order of their paths.
pub(crate) fn files(folder: &Path, extensions: &[&str]) -> anyhow::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    walk(folder, extensions, &mut found)?;
    found.sort();
    Ok(found)
}

fn walk(folder: &Path, extensions: &[&str], found: &mut Vec<PathBuf>) -> anyhow::Result<()> {
    let entries = fs::read_dir(folder).with_context(|| folder.display().to_string())?;
    for entry in entries {
        let entry = entry?;
        let path = entry.path();
        let name = entry.file_name();
        if entry.file_type()?.is_dir() {
            if !SKIPPED.iter().any(|skipped| name == *skipped) {
                walk(&path, extensions, found)?;
            }
        } else if path.extension().is_some_and(|end| extensions.iter().any(|other| end == *other)) {
            found.push(path);
        }
    }
    Ok(())
}
