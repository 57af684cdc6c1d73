//! A lane: one connection, one queue, one command after another.

pub(crate) mod batch;
pub(crate) mod chunks;
pub(crate) mod queue;
pub(crate) mod run;
pub(crate) mod settle;
pub(crate) mod suspects;
pub(crate) mod trial;
