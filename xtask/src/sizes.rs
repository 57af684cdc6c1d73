//! Files that are too long to be read in one go.

use std::{fs, path::Path};

use crate::source;

/// Lines of one file at most. The style asks for about 150; this is where a file has become two.
const LINES_MAX: usize = 500;

/// Texts that a program makes.
const MADE: [&str; 1] = ["schemas/sql/schema.sql"];

/// A line for each file that is too long.
pub(crate) fn find(root: &Path) -> anyhow::Result<Vec<String>> {
    let mut found = Vec::new();
    for file in source::files(root, &["rs", "sql", "py", "sh"])? {
        let name = file.strip_prefix(root)?;
        let lines = fs::read_to_string(&file)?.lines().count();
        if lines > LINES_MAX && !MADE.iter().any(|made| name == Path::new(made)) {
            found.push(format!("{}: {lines} lines, {LINES_MAX} are allowed", name.display()));
        }
    }
    Ok(found)
}
