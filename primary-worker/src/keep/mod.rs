//! What a worker keeps up while it serves: hints, trimming, heartbeats, the ledger's days, and
//! answers that wait for standbys.

pub(crate) mod confirm;
pub(crate) mod heartbeat;
pub(crate) mod hint_book;
pub(crate) mod hints;
pub(crate) mod hints_stream;
pub(crate) mod horizon;
pub(crate) mod keeper;
pub(crate) mod standbys;
pub(crate) mod stream_watch;
pub(crate) mod trim;
pub(crate) mod upkeep;
