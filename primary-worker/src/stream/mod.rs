//! The command stream: what it must be, which one it is, and reading it.

pub(crate) mod client;
pub(crate) mod contract;
pub(crate) mod delivery;
pub(crate) mod error;
pub(crate) mod find;
pub(crate) mod forecast;
pub(crate) mod identity;
pub(crate) mod key;
pub(crate) mod position;
pub(crate) mod reader;
pub(crate) mod sink;
pub(crate) mod stored;
pub(crate) mod unreadable;
