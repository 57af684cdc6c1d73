//! How long an act may wait for the lanes, and hold them.

/// How long it may take to get hold of the lanes, at a time.
pub(super) const HOLD_WITHIN_S: u64 = 3;
/// How often the lanes are asked for: a batch runs for 30 seconds at most, by default.
pub(super) const HOLD_TRIES: u64 = 20;
