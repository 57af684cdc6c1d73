//! The command line: the program `farwrite`, and every worker program with handlers of its own.
//!
//! It is the only place of Farwrite that reads flags, prints for people and chooses exit statuses.
//! The crates below it are libraries.
//!
//! | folder | what |
//! |---|---|
//! | `worker` | what serves beside the primary: `migrate`, `run`, `adopt-stream`, `adopt-database` |
//! | `watcher` | what serves beside a replica: `run` |
//! | `verbs` | what an app does, for scripts: `publish`, `submit`, `write`, `outcome`, `wait`, `lag` |
//! | `operate` | what an operator asks for and does on the database |
//!
//! A setting that is not usable ends the program with status 2 before it touches the network.

mod operate;
mod program;
mod runtime;
mod settings;
mod tree;
mod verbs;
mod watcher;
mod worker;

pub use program::main;
#[doc(hidden)]
pub use tree::command;
