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
///
/// ```
/// use std::time::Duration;
/// use farwrite_producer::Limits;
///
/// let limits = Limits::default().timeout(Duration::from_secs(5)).max_pending(1_000);
/// ```
#[derive(Clone, Debug)]
#[must_use = "give it to a builder"]
pub struct Limits {
    pub(crate) timeout: Duration,
    pub(crate) read_budget: Duration,
    pub(crate) ack_timeout: Duration,
    pub(crate) max_in_flight: usize,
    pub(crate) max_pending: usize,
    pub(crate) max_blocked_keys: usize,
    pub(crate) max_blocked_bytes: usize,
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
#[non_exhaustive]
pub struct LimitError {
    /// Its name.
    pub field: &'static str,
    /// What it must be.
    pub rule: &'static str,
}

impl Limits {
    /// How long a call may take from the verb to the answer, unless it says otherwise. 10 s: longer
    /// than a takeover of the worker or a restart of the broker, shorter than a user's patience.
    pub const fn timeout(self, timeout: Duration) -> Self {
        Self { timeout, ..self }
    }

    /// How long [`Producer::read_at`](crate::Producer::read_at) waits for this region's replica
    /// before it reads on the primary. 20 ms: a commit shows on a nearby replica within a
    /// millisecond, and a read on the primary from another region takes longer than this.
    pub const fn read_budget(self, read_budget: Duration) -> Self {
        Self { read_budget, ..self }
    }

    /// How long one attempt waits for the stream's acknowledgement. 2 s: ten times the slowest
    /// round trip on earth, so that a silent attempt means loss rather than distance.
    pub const fn ack_timeout(self, ack_timeout: Duration) -> Self {
        Self { ack_timeout, ..self }
    }

    /// Publishes that wait for their acknowledgement at one time; further ones queue up. 1,000:
    /// where the measured throughput of a replicated stream levels off.
    pub const fn max_in_flight(self, max_in_flight: usize) -> Self {
        Self { max_in_flight, ..self }
    }

    /// Calls that are pending at one time (queued, in flight, waiting for a reply or a replica);
    /// further ones are refused at once. 10,000: ten times what can be in flight.
    pub const fn max_pending(self, max_pending: usize) -> Self {
        Self { max_pending, ..self }
    }

    /// Keys that may be blocked by an unresolved publish at one time; beyond, publishes of other
    /// keys are refused. 10,000: as many as there can be pending calls.
    pub const fn max_blocked_keys(self, max_blocked_keys: usize) -> Self {
        Self { max_blocked_keys, ..self }
    }

    /// Bytes of bodies that are kept for blocked keys, so that they can be sent again; beyond,
    /// publishes of other keys are refused. 64 MiB: 10,000 ordinary commands, but not 10,000 of
    /// the largest.
    pub const fn max_blocked_bytes(self, max_blocked_bytes: usize) -> Self {
        Self { max_blocked_bytes, ..self }
    }

    /// Checks every limit.
    ///
    /// # Errors
    /// With the first limit that breaks its rule.
    pub(crate) fn validate(&self) -> Result<(), LimitError> {
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
        let limits = Limits::default().max_in_flight(0);
        assert_eq!(limits.validate().unwrap_err().field, "max_in_flight");
        let limits = Limits::default().timeout(Duration::MAX);
        assert_eq!(limits.validate().unwrap_err().rule, "at most a day");
        let limits = Limits::default().ack_timeout(Duration::ZERO);
        assert_eq!(limits.validate().unwrap_err().field, "ack_timeout");
    }
}
