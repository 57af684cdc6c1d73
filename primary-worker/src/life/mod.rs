//! A worker's life: prepare, take over, serve, and begin again.
//!
//! `worker` has the states. Not here: what runs while a worker serves (`lane`, `keep`, `answers`).

pub(crate) mod adopt;
pub(crate) mod adopt_database;
pub(crate) mod compare;
pub(crate) mod end;
mod install;
pub(crate) mod lease;
pub(crate) mod may_answer;
pub(crate) mod migrate;
mod pauses;
pub(crate) mod refusal;
pub(crate) mod schema;
pub(crate) mod serving;
pub(crate) mod take_over;
pub(crate) mod takeover;
pub(crate) mod veto;
pub(crate) mod worker;
