//! Functions of the database that are defined more than once.

use std::{collections::BTreeMap, fs, path::Path};

use crate::source;

/// A line for each function (its name and parameters) that several places define.
pub(crate) fn find(root: &Path) -> anyhow::Result<Vec<String>> {
    let folder = root.join("schemas/sql");
    if !folder.is_dir() {
        return Ok(Vec::new());
    }
    let mut places: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for file in source::files(&folder, &["sql"])? {
        let name = file.strip_prefix(root)?.display().to_string();
        if name == "schemas/sql/schema.sql" {
            continue;
        }
        for function in functions(&fs::read_to_string(&file)?) {
            places.entry(function).or_default().push(name.clone());
        }
    }
    let twice = places.into_iter().filter(|(_, places)| places.len() > 1);
    Ok(twice.map(|(name, places)| format!("{name} is defined in {}", places.join(", "))).collect())
}

/// The functions that a text creates: name and parameters, white space folded.
fn functions(text: &str) -> Vec<String> {
    let code: Vec<&str> = text.lines().map(|line| line.split("--").next().unwrap_or("")).collect();
    let words: Vec<String> =
        code.join(" ").split_whitespace().map(str::to_ascii_lowercase).collect();
    let code = words.join(" ");
    let starts = ["create function ", "create or replace function ", "create procedure "];
    let mut found = Vec::new();
    for start in starts {
        for (at, _) in code.match_indices(start) {
            found.extend(signature(&code[at + start.len()..]));
        }
    }
    found
}

/// The text up to the parenthesis that closes the parameters.
fn signature(text: &str) -> Option<String> {
    let mut depth = 0;
    for (at, character) in text.char_indices() {
        match character {
            '(' => depth += 1,
            ')' if depth == 1 => return Some(text[..=at].to_owned()),
            ')' => depth -= 1,
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_function_is_its_name_and_parameters() {
        let text =
            "CREATE FUNCTION f.a(x numeric(1, 2),\n  y text) -- CREATE FUNCTION f.b()\nRETURNS";
        assert_eq!(functions(text), ["f.a(x numeric(1, 2), y text)"]);
    }

    #[test]
    fn overloads_are_two() {
        let text = "create or replace function f.a() x; CREATE FUNCTION f.a(x int) y";
        assert_eq!(functions(text), ["f.a(x int)", "f.a()"]);
    }
}
