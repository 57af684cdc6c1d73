//! A guard that is left out on purpose, to see that chaos finds what it prevents.
//!
//! `FARWRITE_SABOTAGE` names the guard, for programs that were built with the feature `sabotage`.
//! Functions of the database are replaced here; the programs leave out the other guards themselves.

use anyhow::{Result, ensure};
use farwrite_devstack::Devstack;
use sqlx::AssertSqlSafe;

use super::app::DATABASE;

const VARIABLE: &str = "FARWRITE_SABOTAGE";
const GUARDS: [&str; 5] = ["fence", "ledger", "anchor", "timeline", "pool"];

/// What is replaced in a function of the database: its name, a part of its text, and another one.
type Change = (&'static str, &'static str, &'static str);

/// No batch is held to its epoch and position.
const FENCE: [Change; 6] = [
    ("fence", "AND l.epoch = p_epoch AND l.sequence = p_from", ""),
    ("apply_plain", "AND l.epoch = p_epoch AND l.sequence = p_from", ""),
    ("apply_guarded", "AND l.epoch = p_epoch AND l.sequence = p_from", ""),
    ("fence", "IF NOT FOUND", "IF false"),
    ("due_commands", "AND l.epoch = p_epoch", ""),
    ("due_commands", "IF NOT FOUND", "IF false"),
];

/// What the ledger knows is not looked up, nor does its key keep a second row out.
const LEDGER: [Change; 5] = [
    ("apply_plain", " OR farwrite.is_any_known(p_ids, p_lowest, p_highest)", ""),
    ("apply_plain", "AS i (answer, place)", "AS i (answer, place) ON CONFLICT DO NOTHING"),
    ("known", "outcomes[r.place] := r.outcome", "NULL"),
    (
        "record",
        "AND farwrite.is_dated(i.id);",
        "AND farwrite.is_dated(i.id) ON CONFLICT DO NOTHING;",
    ),
    (
        "record",
        "AND NOT farwrite.is_dated(i.id);",
        "AND NOT farwrite.is_dated(i.id) ON CONFLICT DO NOTHING;",
    ),
];

/// Leaves the guard out that the environment names.
pub(super) async fn apply(stack: &Devstack) -> Result<()> {
    let Ok(guard) = std::env::var(VARIABLE) else { return Ok(()) };
    ensure!(
        cfg!(feature = "sabotage"),
        "{VARIABLE} is set, and this program was built without the feature sabotage"
    );
    ensure!(
        GUARDS.contains(&guard.as_str()),
        "{VARIABLE}={guard}: not one of {}",
        GUARDS.join(", ")
    );
    println!("SABOTAGE: {guard} is left out, and laws will be violated");
    let changes: &[Change] = match guard.as_str() {
        "fence" => &FENCE,
        "ledger" => &LEDGER,
        _ => &[],
    };
    let mut connection = stack.primary().connect(DATABASE).await?;
    for (function, part, other) in changes {
        let sql = "SELECT pg_get_functiondef(oid) FROM pg_proc
                   WHERE pronamespace = 'farwrite'::regnamespace AND proname = $1";
        let text: String =
            sqlx::query_scalar(sql).bind(function).fetch_one(&mut connection).await?;
        let changed = text.replace(part, other);
        ensure!(changed != text, "farwrite.{function} has no {part:?}");
        sqlx::raw_sql(AssertSqlSafe(changed)).execute(&mut connection).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use super::{FENCE, LEDGER};

    /// A change of a function shows here, before the guards are left out one by one.
    #[test]
    fn what_is_replaced_in_a_function_is_in_its_text() {
        let rooms = Path::new(env!("CARGO_MANIFEST_DIR")).join("../schemas/sql/functions");
        for (function, part, _) in FENCE.iter().chain(&LEDGER) {
            let rooms = fs::read_dir(&rooms).unwrap().map(|room| room.unwrap().path());
            let mut texts = rooms
                .filter_map(|room| fs::read_to_string(room.join(format!("{function}.sql"))).ok());
            let text = texts.next().unwrap_or_else(|| panic!("{function} is in no room"));
            assert!(text.contains(part), "{function} has no {part:?}");
        }
    }
}
