//! What is known under a command's name and version, found without an owned copy of either.

use std::collections::{BTreeMap, HashMap};

use farwrite_schemas::CommandName;

/// Something for each command name and version.
#[derive(Clone)]
pub(crate) struct ByName<T> {
    versions: HashMap<CommandName, BTreeMap<u32, T>>,
}

impl<T> ByName<T> {
    pub(crate) fn get(&self, name: &CommandName, version: u32) -> Option<&T> {
        self.versions.get(name)?.get(&version)
    }

    /// All names and versions.
    pub(crate) fn entries(&self) -> impl Iterator<Item = (&CommandName, u32)> {
        let versions = |(name, versions)| {
            let versions: &BTreeMap<u32, T> = versions;
            versions.keys().map(move |version| (name, *version))
        };
        self.versions.iter().flat_map(versions)
    }

    /// Puts it in the place of what was there.
    pub(crate) fn insert(&mut self, name: CommandName, version: u32, value: T) {
        self.versions.entry(name).or_default().insert(version, value);
    }

    pub(crate) fn clear(&mut self) {
        self.versions.clear();
    }
}

impl<T> Default for ByName<T> {
    fn default() -> Self {
        Self { versions: HashMap::new() }
    }
}
