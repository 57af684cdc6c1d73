//! The codes of rejections and dead letters.

use std::collections::BTreeSet;

use crate::sources::{documents, sources};

/// What a code stands behind, in Rust and in SQL.
const MARKS: [&str; 5] =
    ["Rejection::new(", "dead_letter(", "reason: ", "farwrite.reject(", "'code', "];

/// Where they are given.
const FOLDERS: [&str; 3] = ["schemas/src", "schemas/sql/functions", "primary-worker/src"];

fn is_code(text: &str) -> bool {
    text.contains('_') && text.chars().all(|c| c.is_ascii_lowercase() || c == '_')
}

/// The literal at the beginning of a text.
fn literal(text: &str) -> Option<&str> {
    let text = text.trim_start();
    let quote = text.chars().next().filter(|c| *c == '"' || *c == '\'')?;
    text[1..].split(quote).next()
}

/// The codes that the program gives.
fn given() -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for source in FOLDERS.iter().flat_map(|folder| sources(folder, &["rs", "sql"])) {
        for mark in MARKS {
            let behind = source.text.split(mark).skip(1);
            found.extend(behind.filter_map(literal).map(str::to_owned));
        }
        // A function that answers a code answers nothing else.
        for function in source.text.split("fn code(&self)").skip(1) {
            let body = function.split("\n    }\n").next().unwrap_or_default();
            found.extend(body.split('"').skip(1).step_by(2).map(str::to_owned));
        }
    }
    found.into_iter().filter(|code| is_code(code)).collect()
}

#[test]
fn every_code_is_told_and_no_other_is() {
    let given = given();
    assert!(given.len() > 15, "the codes were not found: {given:?}");
    let documents = documents();
    for code in &given {
        let told = documents.iter().any(|document| document.inline_code().contains(&code.as_str()));
        assert!(told, "no document tells of the code `{code}`");
    }
    let texts: Vec<_> = FOLDERS.iter().flat_map(|folder| sources(folder, &["rs", "sql"])).collect();
    let is_literal = |code: &str| {
        let literals = [format!("\"{code}\""), format!("'{code}'")];
        texts.iter().any(|it| literals.iter().any(|literal| it.text.contains(literal)))
    };
    for document in &documents {
        for table in document.tables() {
            let column = table[0].iter().position(|head| head.ends_with("code"));
            let cells = table[1..].iter().filter_map(|row| row.get(column?));
            for code in cells.flat_map(|cell| cell.split('`').skip(1).step_by(2)) {
                let is_known = !is_code(code) || is_literal(code);
                assert!(is_known, "{}: the program gives no `{code}`", document.path);
            }
        }
    }
}
