//! Every command line in a document, up to its subcommand and the names of its flags.

use std::collections::BTreeSet;

use clap::Command;

use crate::sources::documents;

/// Subcommands without subcommands, by their whole names, such as `parked list`.
pub(crate) fn leaves(command: &Command) -> Vec<(String, Command)> {
    let inner = command.get_subcommands().flat_map(|sub| {
        let name = sub.get_name().to_owned();
        match leaves(sub) {
            found if found.is_empty() => vec![(name, sub.clone())],
            found => found.into_iter().map(|(leaf, sub)| (format!("{name} {leaf}"), sub)).collect(),
        }
    });
    inner.collect()
}

/// Names the flags of a command has.
pub(crate) fn flags(command: &Command) -> BTreeSet<String> {
    let own = command.get_arguments().filter_map(|arg| arg.get_long());
    own.chain(["help", "version"]).map(|flag| format!("--{flag}")).collect()
}

/// What is wrong with the words behind `farwrite`.
fn fault(words: &[&str]) -> Option<String> {
    let mut command = farwrite::cli::command();
    let mut rest = words;
    while let [name, more @ ..] = rest
        && command.get_subcommands().next().is_some()
    {
        if name.starts_with('-') {
            break;
        }
        // `list|show` stands for each of them.
        let found: Option<Vec<_>> =
            name.split('|').map(|name| command.find_subcommand(name).cloned()).collect();
        let Some(sub) = found.and_then(|mut found| found.pop()) else {
            return Some(format!("{name} is no subcommand of {}", command.get_name()));
        };
        (command, rest) = (sub, more);
    }
    let known = flags(&command);
    let given = rest.iter().filter(|word| word.starts_with("--") && word.len() > 2);
    let given = given.map(|word| word.split('=').next().unwrap_or(word));
    let unknown = given.filter(|flag| !known.contains(*flag)).collect::<Vec<_>>();
    (!unknown.is_empty()).then(|| format!("{} has no {unknown:?}", command.get_name()))
}

/// The words behind `farwrite`, up to what a shell does with its output; values in quotes are one.
fn words(line: &str) -> Option<Vec<String>> {
    let line = line.split(" #").next().unwrap_or_default();
    let mut words = vec![String::new()];
    let mut quote = None;
    for c in line.chars() {
        match quote {
            Some(open) if c == open => quote = None,
            None if c == '\'' || c == '"' => quote = Some(c),
            None if c.is_whitespace() => words.push(String::new()),
            _ => words.last_mut()?.push(c),
        }
    }
    let from = words.iter().position(|word| word == "farwrite" || word.ends_with("/farwrite"))?;
    let ends = |word: &String| ["|", "&", "&&", ";", ">", "2>", "||"].contains(&word.as_str());
    let words = words.into_iter().skip(from + 1).take_while(|word| !ends(word));
    let words = words.map(|word| word.trim_matches(['[', ']']).to_owned());
    Some(words.filter(|word| !word.is_empty()).collect())
}

#[test]
fn every_command_line_in_a_document_is_one() {
    let mut seen = 0;
    for document in documents() {
        // A block without a language shows the form of a command: `status [--json]`.
        let blocks = document.blocks("sh").into_iter().chain(document.blocks(""));
        let inline =
            document.inline_code().into_iter().filter(|code| code.starts_with("farwrite "));
        for line in blocks.chain(inline.map(str::to_owned)) {
            let Some(words) = words(&line) else { continue };
            let words: Vec<&str> = words.iter().map(String::as_str).collect();
            // `FARWRITE_X=1 cargo run -p farwrite`, and a package's name, are no calls.
            if line.contains("cargo") {
                continue;
            }
            let fault = fault(&words);
            assert!(fault.is_none(), "{}: {line}: {}", document.path, fault.unwrap_or_default());
            seen += 1;
        }
    }
    assert!(seen > 15, "only {seen} command lines were found");
}

#[test]
fn every_subcommand_is_named_in_a_document() {
    let documents = documents();
    for (leaf, _) in leaves(&farwrite::cli::command()) {
        let named = documents.iter().any(|document| {
            let inline = document.inline_code();
            inline.iter().any(|code| *code == leaf || *code == format!("farwrite {leaf}"))
        });
        assert!(named, "no document names `{leaf}`");
    }
}

#[test]
fn the_names_of_programs_that_are_gone_begin_no_command_line() {
    let gone = ["primary-worker", "lsn-watcher", "producer"];
    let verbs = [
        "run",
        "migrate",
        "status",
        "parked",
        "dead-letters",
        "publish",
        "adopt-stream",
        "adopt-database",
    ];
    for document in documents() {
        let inline = document.inline_code().into_iter().map(str::to_owned);
        for line in document.blocks("sh").into_iter().chain(inline) {
            let mut words = line.split_whitespace();
            let (first, second) = (words.next().unwrap_or_default(), words.next());
            let is_call = gone.contains(&first) && second.is_some_and(|it| verbs.contains(&it));
            assert!(!is_call, "{}: {line}", document.path);
        }
    }
}
