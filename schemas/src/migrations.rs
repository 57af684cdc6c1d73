//! The `farwrite` schema's migrations, as SQL text.
//!
//! `primary-worker migrate` applies them, in order and once each, and remembers them in
//! [`TABLE`]: a table of Farwrite's own, so that an app that uses sqlx's migrations on the same
//! database does not collide. A migration that was released never changes: a change is a new one.

/// The table that remembers what was applied.
pub const TABLE: &str = "farwrite.migrations";

/// The schema that everything of Farwrite's lives in.
pub const SCHEMA: &str = "farwrite";

/// One step of the schema.
#[derive(Clone, Copy, Debug)]
pub struct Migration {
    /// Its number; steps are applied in this order.
    pub version: i64,
    /// What it brings.
    pub description: &'static str,
    /// The statements, run in one transaction.
    pub sql: &'static str,
}

/// Every step, oldest first.
pub const ALL: &[Migration] = &[
    Migration {
        version: 1,
        description: "positions and ledger",
        sql: include_str!("../migrations/0001_positions_and_ledger.sql"),
    },
    Migration {
        version: 2,
        description: "functions",
        sql: include_str!("../migrations/0002_functions.sql"),
    },
    Migration {
        version: 3,
        description: "apply",
        sql: include_str!("../migrations/0003_apply.sql"),
    },
    Migration {
        version: 4,
        description: "parked",
        sql: include_str!("../migrations/0004_parked.sql"),
    },
    Migration {
        version: 5,
        description: "batches",
        sql: include_str!("../migrations/0005_batches.sql"),
    },
    Migration {
        version: 6,
        description: "operations",
        sql: include_str!("../migrations/0006_operations.sql"),
    },
    Migration {
        version: 7,
        description: "row commands",
        sql: include_str!("../migrations/0007_row_commands.sql"),
    },
    Migration {
        version: 8,
        description: "outcomes",
        sql: include_str!("../migrations/0008_outcomes.sql"),
    },
    Migration {
        version: 9,
        description: "branches",
        sql: include_str!("../migrations/0009_branches.sql"),
    },
    Migration {
        version: 10,
        description: "lease",
        sql: include_str!("../migrations/0010_lease.sql"),
    },
    Migration {
        version: 11,
        description: "trimming",
        sql: include_str!("../migrations/0011_trimming.sql"),
    },
    Migration {
        version: 12,
        description: "adoption",
        sql: include_str!("../migrations/0012_adoption.sql"),
    },
    Migration {
        version: 13,
        description: "plans",
        sql: include_str!("../migrations/0013_plans.sql"),
    },
    Migration {
        version: 14,
        description: "lean",
        sql: include_str!("../migrations/0014_lean.sql"),
    },
    Migration { version: 15, description: "one", sql: include_str!("../migrations/0015_one.sql") },
    Migration {
        version: 16,
        description: "bodies",
        sql: include_str!("../migrations/0016_bodies.sql"),
    },
    Migration {
        version: 17,
        description: "dispatcher",
        sql: include_str!("../migrations/0017_dispatcher.sql"),
    },
    Migration {
        version: 18,
        description: "plain",
        sql: include_str!("../migrations/0018_plain.sql"),
    },
    Migration {
        version: 19,
        description: "guarded",
        sql: include_str!("../migrations/0019_guarded.sql"),
    },
    Migration {
        version: 20,
        description: "places",
        sql: include_str!("../migrations/0020_places.sql"),
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_numbered_without_a_gap() {
        for (index, migration) in ALL.iter().enumerate() {
            assert_eq!(migration.version, index as i64 + 1);
        }
    }
}
