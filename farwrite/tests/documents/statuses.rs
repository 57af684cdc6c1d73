//! Exit statuses: tables in the documents against what the help says.

use std::collections::BTreeSet;

use clap::Command;

use crate::{commands::leaves, sources::documents};

/// The statuses of a subcommand, from its help.
fn statuses(command: &Command) -> BTreeSet<u8> {
    let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
    let lines = help.lines().skip_while(|line| !line.contains("Exit status"));
    let numbers =
        lines.filter_map(|line| line.strip_prefix("  ")?.split_once("  ")?.0.parse().ok());
    numbers.collect()
}

/// The subcommands that a column's head means: named ones, or a group of them.
fn meant<'a>(head: &str, leaves: &'a [(String, Command)]) -> Vec<&'a (String, Command)> {
    let verbs = ["publish", "submit", "write", "outcome", "wait", "lag"];
    let serves = |name: &str| name.starts_with("worker ") || name.starts_with("watcher ");
    let is_meant = |name: &str| match head {
        "the verbs" => verbs.contains(&name),
        "operators'" => !verbs.contains(&name) && !serves(name),
        head => head.split('`').skip(1).step_by(2).any(|code| code == name),
    };
    leaves.iter().filter(|(name, _)| is_meant(name)).collect()
}

#[test]
fn the_tables_of_exit_statuses_say_what_the_help_says() {
    let leaves = leaves(&farwrite::cli::command());
    let mut compared = BTreeSet::new();
    for document in documents() {
        for table in document.tables() {
            let [head, rows @ ..] = table.as_slice() else { continue };
            if head[0] != "status" {
                continue;
            }
            for (column, title) in head.iter().enumerate().skip(1) {
                let told = rows.iter().filter(|row| row.get(column).is_some_and(|c| !c.is_empty()));
                let told: BTreeSet<u8> = told.filter_map(|row| row[0].parse().ok()).collect();
                for (name, command) in meant(title, &leaves) {
                    assert_eq!(told, statuses(command), "{}: {name}", document.path);
                    compared.insert(name);
                }
            }
        }
    }
    let all: Vec<_> =
        leaves.iter().map(|(name, _)| name).filter(|it| !compared.contains(it)).collect();
    assert!(all.is_empty(), "no table has the statuses of {all:?}");
}
