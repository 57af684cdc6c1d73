//! A worker's life: prepare, take over, serve, and begin again.

pub(crate) mod adopt;
pub(crate) mod lease;
pub(crate) mod migrate;
pub(crate) mod schema;
pub(crate) mod serving;
pub(crate) mod takeover;
pub(crate) mod veto;
pub(crate) mod worker;
