//! Documents and sources, read from the repository's root.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

/// A document: its path from the root, and its text.
pub(crate) struct Document {
    pub(crate) path: String,
    pub(crate) text: String,
}

/// All documents. The changelog tells of what was, decisions of what was thought.
pub(crate) fn documents() -> Vec<Document> {
    let found = files(&root(), &["md"]);
    let documents = found.into_iter().filter(|document| {
        document.path != "CHANGELOG.md" && !document.path.starts_with("docs/decisions")
    });
    let documents: Vec<_> = documents.collect();
    assert!(documents.len() > 10, "the documents were not found");
    documents
}

/// Sources under a folder of the root, each up to its tests.
pub(crate) fn sources(folder: &str, extensions: &[&str]) -> Vec<Document> {
    let mut found = files(&root().join(folder), extensions);
    for source in &mut found {
        let end = source.text.find("#[cfg(test)]").unwrap_or(source.text.len());
        source.text.truncate(end);
    }
    found
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("a repository").to_owned()
}

fn files(folder: &Path, extensions: &[&str]) -> Vec<Document> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry")) {
        let (path, name) = (entry.path(), entry.file_name().to_string_lossy().into_owned());
        let kind = entry.file_type().expect("a type");
        if kind.is_dir() && name != "target" && (!name.starts_with('.') || name == ".github") {
            found.extend(files(&path, extensions));
        } else if kind.is_file() && extensions.iter().any(|it| name.ends_with(&format!(".{it}"))) {
            let from_root = path.strip_prefix(root()).expect("below the root");
            let text = fs::read_to_string(&path).expect("text");
            found.push(Document { path: from_root.display().to_string(), text });
        }
    }
    found
}

impl Document {
    /// What stands between backticks within a line; fenced blocks are no part of it.
    pub(crate) fn inline_code(&self) -> Vec<&str> {
        let mut fenced = false;
        let lines = self.text.lines().filter(|line| {
            let is_fence = line.trim_start().starts_with("```");
            fenced ^= is_fence;
            !fenced && !is_fence
        });
        lines.flat_map(|line| line.split('`').skip(1).step_by(2)).collect()
    }

    /// The lines of the blocks of a language, with those that a backslash continues put together.
    pub(crate) fn blocks(&self, language: &str) -> Vec<String> {
        let mut lines: Vec<String> = Vec::new();
        let (mut inside, mut continued) = (false, false);
        for line in self.text.lines() {
            if let Some(fence) = line.trim_start().strip_prefix("```") {
                inside = !inside && fence.trim() == language;
            } else if inside {
                let text = line.trim_end_matches('\\');
                match lines.last_mut() {
                    Some(last) if continued => last.push_str(text),
                    _ => lines.push(text.to_owned()),
                }
                continued = text.len() < line.len();
            }
        }
        lines
    }

    /// The tables: the cells of each row, the head first.
    pub(crate) fn tables(&self) -> Vec<Vec<Vec<&str>>> {
        let mut tables: Vec<Vec<Vec<&str>>> = vec![Vec::new()];
        for line in self.text.lines() {
            match line.trim().strip_prefix('|') {
                Some(row) if row.starts_with("---") => {}
                Some(row) => {
                    tables.last_mut().expect("one").push(cells(row.trim_end_matches('|')));
                }
                None => tables.push(Vec::new()),
            }
        }
        tables.into_iter().filter(|table| table.len() > 1).collect()
    }
}

/// The cells of a row. A bar between backticks is none.
fn cells(row: &str) -> Vec<&str> {
    let mut in_code = false;
    let is_bar = |c| {
        in_code ^= c == '`';
        c == '|' && !in_code
    };
    row.split(is_bar).map(str::trim).collect()
}

/// The words of a text that are made of these characters and begin with a prefix.
pub(crate) fn words(text: &str, prefix: &str, of: impl Fn(char) -> bool) -> BTreeSet<String> {
    let words = text.split(|c| !of(c)).filter(|word| word.starts_with(prefix));
    words.map(str::to_owned).collect()
}
