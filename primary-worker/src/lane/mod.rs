//! A lane: one connection, one queue, one command after another. `run` says how it works.

pub(crate) mod apply;
pub(crate) mod batch;
pub(crate) mod chunks;
pub(crate) mod context;
pub(crate) mod ends;
pub(crate) mod open;
pub(crate) mod queue;
pub(crate) mod run;
pub(crate) mod settle;
pub(crate) mod suspects;
pub(crate) mod turns;
