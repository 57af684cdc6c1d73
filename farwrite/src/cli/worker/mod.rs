//! `farwrite worker`: what serves beside the primary, and what prepares the database for it.

mod adopt;
mod adopt_database;
mod flags;
mod migrate;
mod run;
mod settings;

pub(crate) use flags::{command, start};
