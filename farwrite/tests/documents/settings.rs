//! Settings: flags, names in the environment, defaults.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    commands::leaves,
    sources::{documents, sources, words},
};

/// Flags of settings, with their names in the environment and their defaults.
fn settings() -> BTreeMap<String, (String, BTreeSet<String>)> {
    let mut found: BTreeMap<String, (String, BTreeSet<String>)> = BTreeMap::new();
    for (_, command) in leaves(&farwrite::cli::command()) {
        for arg in command.get_arguments() {
            let (Some(flag), Some(name)) = (arg.get_long(), arg.get_env()) else { continue };
            let name = name.to_string_lossy().into_owned();
            let defaults = arg.get_default_values().iter().map(|it| it.to_string_lossy().into());
            let (_, known) = found.entry(format!("--{flag}")).or_insert((name, BTreeSet::new()));
            known.extend(defaults);
        }
    }
    found
}

#[test]
fn every_setting_stands_in_a_table_with_its_variable_and_its_default() {
    let settings = settings();
    assert!(settings.len() > 25, "the settings were not found: {settings:?}");
    let mut told = BTreeSet::new();
    for document in documents() {
        for table in document.tables() {
            let [head, rows @ ..] = table.as_slice() else { continue };
            let default = head.iter().position(|cell| *cell == "default");
            for row in rows {
                let code = |cell: &str| cell.trim_matches('`').to_owned();
                let [flag, variable, ..] = row.as_slice() else { continue };
                let (flag, variable) = (code(flag), code(variable));
                if !flag.starts_with("--") || !variable.starts_with("FARWRITE_") {
                    continue;
                }
                let at = format!("{}: {flag}", document.path);
                let (name, defaults) = settings.get(&flag).unwrap_or_else(|| panic!("{at}: none"));
                assert_eq!(*name, variable, "{at}");
                // A default that is told in words stands for none.
                if let Some(told) = default.and_then(|column| row.get(column))
                    && told.starts_with(|c: char| c.is_ascii_digit())
                {
                    assert!(defaults.contains(&code(told)), "{at}: {told} and not {defaults:?}");
                }
                told.insert(flag);
            }
        }
    }
    let missing: Vec<_> = settings.keys().filter(|flag| !told.contains(*flag)).collect();
    assert!(missing.is_empty(), "no table has {missing:?}");
}

#[test]
fn every_variable_in_a_document_is_read_somewhere() {
    let is_of_name = |c: char| c.is_ascii_uppercase() || c == '_';
    let names = |text: &str| words(text, "FARWRITE_", is_of_name);
    let mut read: BTreeSet<String> = settings().into_values().map(|(name, _)| name).collect();
    for folder in ["producer/src", "devstack/src", "internal/src", "primary-worker/src"] {
        read.extend(sources(folder, &["rs"]).iter().flat_map(|source| names(&source.text)));
    }
    read.extend(sources("loadtest", &["rs"]).iter().flat_map(|source| names(&source.text)));
    for document in documents() {
        for name in names(&document.text) {
            // What devstack prints for a region ends in the region's name.
            let of_region = ["FARWRITE_NATS_URL_", "FARWRITE_REPLICA_URL_"];
            let is_of_region = of_region.iter().any(|prefix| name.starts_with(prefix));
            let is_known = read.contains(&name) || is_of_region || name == "FARWRITE_NAME";
            assert!(is_known, "{}: nobody reads {name}", document.path);
        }
    }
}
