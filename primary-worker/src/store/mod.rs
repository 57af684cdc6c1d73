//! The tables of the `farwrite` schema, one module each: typed functions over a connection.
//!
//! Statements on the hot path, and acts that an operator may see, are functions of the database.
//! What calls them on the hot path stands in `apply`. Everything else stands here.

pub(crate) mod dead_letters;
pub(crate) mod history;
pub(crate) mod lanes;
pub(crate) mod ledger;
pub(crate) mod owner;
pub(crate) mod parked;
pub(crate) mod server;
pub(crate) mod streams;
pub(crate) mod text;
pub(crate) mod unconfirmed;
