//! What a producer asks: the worker's service, and where that is silent the database that is read.
//!
//! The ledger is authoritative, and both only read it out. A question that is not answered changes
//! nothing and leaves nothing behind.

pub(crate) mod ask;
pub(crate) mod lag;
pub(crate) mod last_heard;
pub(crate) mod ledger;
pub(crate) mod outcome;
