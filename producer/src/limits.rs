//! The bounds of a producer, each with the reason for its number.
//!
//! Everything that a producer holds is bounded by one of these: calls, publishes in flight, keys
//! that wait for an unresolved publish, bytes kept for those, command names whose subject is
//! remembered, time.

use std::time::Duration;

/// Longest time that one call may be given. A longer one is cut to it: a deadline must be a point
/// in time that the clock can express, and nobody waits for longer than a day.
pub const TIMEOUT_MAX: Duration = Duration::from_hours(24);

/// Command names whose subject is remembered; an app has dozens. Further names work, and have
/// their subject made for each call.
pub(crate) const REMEMBERED_NAMES: usize = 1_024;

/// What a producer may hold and how long it tries.
#[derive(Clone, Debug)]
pub struct Limits {
    /// How long a call may take from the verb to the answer, unless it says otherwise. 10 s: longer
    /// than a takeover of the worker or a restart of the broker, shorter than a user's patience.
    pub timeout: Duration,
    /// How long [`Producer::read_at`](crate::Producer::read_at) waits for this region's replica
    /// before it reads on the primary. 20 ms: a commit shows on a nearby replica within a
    /// millisecond, and a read on the primary from another region takes longer than this.
    pub read_budget: Duration,
    /// How long one attempt waits for the stream's acknowledgement. 2 s: ten times the slowest
    /// round trip on earth, so that a silent attempt means loss rather than distance.
    pub ack_timeout: Duration,
    /// Publishes that wait for their acknowledgement at one time; further ones queue up. 1,000:
    /// where the measured throughput of a replicated stream levels off.
    pub max_in_flight: usize,
    /// Calls that are pending at one time (queued, in flight, waiting for a reply or a replica);
    /// further ones are refused at once. 10,000: ten times what can be in flight.
    pub max_pending: usize,
    /// Keys that may be blocked by an unresolved publish at one time; beyond, publishes of other
    /// keys are refused. 10,000: as many as there can be pending calls.
    pub max_blocked_keys: usize,
    /// Bytes of bodies that are kept for blocked keys, so that they can be sent again; beyond,
    /// publishes of other keys are refused. 64 MiB: 10,000 ordinary commands, but not 10,000 of
    /// the largest.
    pub max_blocked_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            timeout: Duration::from_secs(10),
            read_budget: Duration::from_millis(20),
            ack_timeout: Duration::from_secs(2),
            max_in_flight: 1_000,
            max_pending: 10_000,
            max_blocked_keys: 10_000,
            max_blocked_bytes: 64 << 20,
        }
    }
}

/// A limit breaks its rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the limit {field} must be {rule}")]
pub struct LimitError {
    /// Its name.
    pub field: &'static str,
    /// What it must be.
    pub rule: &'static str,
}

impl Limits {
    /// Checks every limit.
    ///
    /// # Errors
    /// With the first limit that breaks its rule.
    pub fn validate(&self) -> Result<(), LimitError> {
        let positive = "greater than zero";
        let rules = [
            ("timeout", !self.timeout.is_zero(), positive),
            ("timeout", self.timeout <= TIMEOUT_MAX, "at most a day"),
            ("read_budget", self.read_budget <= TIMEOUT_MAX, "at most a day"),
            ("ack_timeout", !self.ack_timeout.is_zero(), positive),
            ("max_in_flight", self.max_in_flight > 0, positive),
            // A semaphore's own limit; nobody needs as many.
            ("max_in_flight", self.max_in_flight <= 1 << 20, "at most 1048576"),
            ("max_pending", self.max_pending > 0, positive),
            ("max_blocked_keys", self.max_blocked_keys > 0, positive),
            ("max_blocked_bytes", self.max_blocked_bytes > 0, positive),
        ];
        match rules.into_iter().find(|(_, holds, _)| !holds) {
            Some((field, _, rule)) => Err(LimitError { field, rule }),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_the_limit_that_breaks_its_rule() {
        assert_eq!(Limits::default().validate(), Ok(()));
        let limits = Limits { max_in_flight: 0, ..Limits::default() };
        assert_eq!(limits.validate().unwrap_err().field, "max_in_flight");
        let limits = Limits { timeout: Duration::MAX, ..Limits::default() };
        assert_eq!(limits.validate().unwrap_err().rule, "at most a day");
        let limits = Limits { ack_timeout: Duration::ZERO, ..Limits::default() };
        assert_eq!(limits.validate().unwrap_err().field, "ack_timeout");
    }
}
