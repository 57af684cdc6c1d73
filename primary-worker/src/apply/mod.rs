//! Applying commands: from what a lane took to a committed transaction.
//!
//! ```text
//! resolve    how each command is applied (`work`), or why not
//! attempt    one transaction: one_statement, or staged (open, sort, run, parking, ledger)
//! judge      what becomes of a command that failed alone, by the table in `verdict`
//! ```
//!
//! The fence comes first in every transaction, and only a committed one makes a `CommittedBatch`.
//! Not here: taking commands, and telling who waits (`lane`).

pub(crate) mod atomic;
pub(crate) mod attempt;
pub(crate) mod by_name;
pub(crate) mod columns;
pub(crate) mod due;
pub(crate) mod facts;
pub(crate) mod failure;
pub(crate) mod fence;
pub(crate) mod functions;
pub(crate) mod handler;
pub(crate) mod handler_call;
pub(crate) mod item;
pub(crate) mod json_schema;
pub(crate) mod judge;
pub(crate) mod ledger;
pub(crate) mod manner;
pub(crate) mod members;
pub(crate) mod one_statement;
pub(crate) mod open;
pub(crate) mod parking;
pub(crate) mod resolve;
pub(crate) mod run;
pub(crate) mod session;
pub(crate) mod settled;
pub(crate) mod sort;
pub(crate) mod staged;
pub(crate) mod trial;
pub(crate) mod work;
