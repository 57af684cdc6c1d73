//! The `farwrite` schema as SQL text: steps of the tables, and functions.
//!
//! **Tables** grow by numbered steps (`sql/tables`), applied in order and once each, and remembered
//! in [`STEPS_TABLE`]: a table of Farwrite's own, so that an app that uses sqlx's migrations on the
//! same database does not collide. A step that was released never changes: a change is a new one.
//!
//! **Functions** stand once each in `sql/functions/<room>/<name>.sql`, in their newest text. All of
//! them are installed together whenever [`functions_hash`] is not the installed one. So a step of
//! the tables calls no function of Farwrite's.
//!
//! A function `x_template` is the text that a dispatcher `x` is made from: its comments with names
//! of holes are replaced by calls of the registered functions.
//!
//! `sql/functions/compat` would hold overloads that only a worker of an older protocol calls, each
//! with the version that removes it. There are none.

use xxhash_rust::xxh3::Xxh3;

/// The schema that everything of Farwrite's lives in.
pub const SCHEMA: &str = "farwrite";

/// The table that remembers which steps of the tables were applied.
pub const STEPS_TABLE: &str = "farwrite.migrations";

/// One step of the tables.
#[derive(Clone, Copy, Debug)]
pub struct TableStep {
    /// Its number; steps are applied in this order.
    pub version: i64,
    /// What it brings.
    pub description: &'static str,
    /// The statements, run in one transaction.
    pub text: &'static str,
}

/// One function.
#[derive(Clone, Copy, Debug)]
pub struct FunctionFile {
    /// What it belongs to: the folder that its file is in.
    pub room: &'static str,
    /// Its name, without the schema.
    pub name: &'static str,
    /// The statement that creates or replaces it.
    pub text: &'static str,
}

include!(concat!(env!("OUT_DIR"), "/sql.rs"));

/// The revision of all functions' text. A release whose text differs from the last one's raises it,
/// also where the release takes a change back: a program leaves functions of a higher revision be.
pub const FUNCTIONS_REVISION: i32 = 1;

/// A hash of the text of all functions.
#[must_use]
pub fn functions_hash() -> String {
    let mut hash = Xxh3::new();
    FUNCTIONS.iter().for_each(|function| hash.update(function.text.as_bytes()));
    format!("{:032x}", hash.digest128())
}

/// The text of all functions, to be run as one statement or many.
#[must_use]
pub fn functions_text() -> String {
    FUNCTIONS.iter().map(|function| function.text).collect()
}

impl FunctionFile {
    /// Name and argument types, as `to_regprocedure` reads them. `None` where the text is not the
    /// one statement that it must be.
    #[must_use]
    pub fn signature(&self) -> Option<String> {
        let (name, rest) =
            self.text.split_once("CREATE OR REPLACE FUNCTION ")?.1.split_once('(')?;
        let mut types = Vec::new();
        for argument in split_arguments(rest)? {
            let argument = argument.split(" DEFAULT ").next()?.trim();
            let (first, rest) = argument.split_once(' ')?;
            match first {
                "OUT" => {}
                "INOUT" | "IN" => types.push(rest.split_once(' ')?.1.to_owned()),
                _ => types.push(rest.to_owned()),
            }
        }
        Some(format!("{name}({})", types.join(",")))
    }

    /// The signature of the dispatcher that is made from this function, if it is a template.
    #[must_use]
    pub fn made_from_it(&self) -> Option<String> {
        let made = self.name.strip_suffix("_template")?;
        let signature = self.signature()?;
        Some(signature.replacen(self.name, made, 1))
    }
}

/// The arguments of a function, from what follows the opening parenthesis.
fn split_arguments(text: &str) -> Option<Vec<String>> {
    let (mut depth, mut arguments, mut argument) = (0_u32, Vec::new(), String::new());
    for c in text.split_whitespace().collect::<Vec<_>>().join(" ").chars() {
        match c {
            ')' if depth == 0 => {
                if !argument.trim().is_empty() {
                    arguments.push(argument);
                }
                return Some(arguments);
            }
            ',' if depth == 0 => arguments.push(std::mem::take(&mut argument)),
            _ => {
                depth = match c {
                    '(' => depth + 1,
                    ')' => depth - 1,
                    _ => depth,
                };
                argument.push(c);
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    #[test]
    fn steps_of_the_tables_are_numbered_without_a_gap() {
        for (index, step) in TABLES.iter().enumerate() {
            assert_eq!(step.version, index as i64 + 1);
        }
    }

    #[test]
    fn a_file_holds_the_one_function_that_it_is_named_after() {
        for function in FUNCTIONS {
            let at = format!("functions/{}/{}.sql", function.room, function.name);
            let is_head = |line: &&str| line.starts_with("CREATE ");
            assert_eq!(function.text.lines().filter(is_head).count(), 1, "{at}");
            let signature = function.signature().unwrap_or_else(|| panic!("{at}: no signature"));
            let name = signature.strip_prefix("farwrite.").and_then(|name| name.split_once('('));
            let (name, _) = name.unwrap_or_else(|| panic!("{at}: {signature}"));
            // There may be several overloads of one name for older workers.
            let is_overload = function.room == "compat" && function.name.starts_with(name);
            assert!(name == function.name || is_overload, "{at}: {name}");
            assert!(function.text.starts_with("-- "), "{at}: what it is stands at its head");
            assert!(function.text.ends_with(";\n"), "{at}");
        }
    }

    #[test]
    fn a_function_is_defined_once() {
        let mut seen = HashMap::new();
        for function in FUNCTIONS {
            let signature = function.signature().unwrap();
            let before = seen.insert(signature.clone(), function.room);
            assert_eq!(before, None, "{signature} is defined twice");
        }
    }

    #[test]
    fn a_step_of_the_tables_calls_no_function_of_farwrites() {
        for step in TABLES {
            for function in FUNCTIONS {
                let call = format!("{SCHEMA}.{}(", function.name);
                let code = step.text.lines().map(|line| line.split("--").next().unwrap_or(""));
                let calls = code.filter(|code| code.contains(&call)).count();
                assert_eq!(calls, 0, "step {} calls {call}…)", step.version);
            }
            let defines = step.text.contains("FUNCTION farwrite.");
            assert!(!defines, "step {} defines a function", step.version);
        }
    }

    #[test]
    fn a_signature_is_made_of_the_types_of_what_goes_in() {
        let of = |text| FunctionFile { room: "x", name: "f", text }.signature();
        let text = "-- f\nCREATE OR REPLACE FUNCTION farwrite.f(\n    a integer, b text[] DEFAULT NULL,\n    INOUT c numeric(4, 2), OUT d text)\nRETURNS x";
        assert_eq!(of(text).as_deref(), Some("farwrite.f(integer,text[],numeric(4, 2))"));
        assert_eq!(
            of("CREATE OR REPLACE FUNCTION farwrite.f() RETURNS").as_deref(),
            Some("farwrite.f()")
        );
        assert_eq!(of("CREATE OR REPLACE FUNCTION farwrite.f(a integer"), None);
    }
}
