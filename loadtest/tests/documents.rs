//! What the documents say of tests is so: every test that `docs/fly-postgres.md` names is there.

use std::{fs, path::Path};

use anyhow::{Context, Result, ensure};

/// Where each letter's tests are.
const PLACES: [(&str, &str); 4] = [
    ("L", "loadtest/tests/guarantees"),
    ("P", "producer/tests/guarantees"),
    ("U", "producer/src,lsn-watcher/src"),
    ("W", "lsn-watcher/tests"),
];

/// The names in the last cell of a table's row, each with its letter.
fn names(row: &str) -> Vec<(String, String)> {
    let cell = row.trim().trim_end_matches('|').rsplit('|').next().unwrap_or_default();
    let mut letter = String::new();
    let mut names = Vec::new();
    for (index, part) in cell.split('`').enumerate() {
        if index % 2 == 1 {
            names.push((letter.clone(), part.to_owned()));
        } else if let Some(found) = part.split([' ', ',']).rfind(|word| !word.is_empty()) {
            letter = found.to_owned();
        }
    }
    names
}

/// The text of a module, wherever below a folder it stands: its file, and the files of its folder.
fn read_module(folder: &Path, module: &str, inside: bool, text: &mut String) -> Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let is_named = path.file_stem().is_some_and(|stem| stem == module);
        if path.is_dir() {
            read_module(&path, module, inside || is_named, text)?;
        } else if inside || is_named {
            text.push_str(&fs::read_to_string(&path)?);
        }
    }
    Ok(())
}

#[test]
fn every_test_that_is_named_beside_a_feature_is_there() -> Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("no repository")?;
    let page = fs::read_to_string(root.join("docs/fly-postgres.md"))?;
    let mut found = 0;
    for row in page.lines().filter(|line| line.starts_with("| ")) {
        for (letter, name) in names(row) {
            let Some((_, folders)) = PLACES.iter().find(|(place, _)| *place == letter) else {
                continue;
            };
            let (module, test) = name.split_once("::").unwrap_or((&name, "*"));
            let mut text = String::new();
            for folder in folders.split(',') {
                read_module(&root.join(folder), module, false, &mut text)?;
            }
            let has_tests = text.contains("#[tokio::test") || text.contains("#[test]");
            let is_there = test == "*" && has_tests || text.contains(&format!("fn {test}("));
            ensure!(is_there, "{letter} {name} is named in the page, and is not there");
            found += 1;
        }
    }
    ensure!(found > 30, "only {found} tests were found in the page");
    Ok(())
}
