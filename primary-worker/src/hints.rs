//! How far commands had been applied, kept in the broker: a hint, never a truth.
//!
//! A failover can take commits back; then the commands come again from the stream, and the time of
//! one may have passed meanwhile though it was applied in time before. So the worker tells the
//! broker from time to time how far it has come and when, and a command that comes again and was
//! certainly settled before its time is applied whatever the clock says (invariant 8). Where the
//! samples do not tell, the clock decides.

use crate::stream::Delivery;

/// At this time, everything up to this sequence (inclusive) was settled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Sample {
    sequence: u64,
    at_ns: i64,
}

/// The samples that the broker had at the takeover, oldest first.
#[derive(Clone, Debug, Default)]
pub(crate) struct Hints {
    samples: Vec<Sample>,
}

impl Hints {
    /// When a command is no longer to be applied, in Unix nanoseconds; `None` when it has no such
    /// time, or was certainly settled before it.
    pub(crate) fn expiry_of(&self, delivery: &Delivery) -> Option<i64> {
        let expires_ms = delivery.envelope.as_ref().ok()?.expires_at_ms?;
        let expires_ns = expires_ms.saturating_mul(1_000_000);
        if self.was_settled(delivery.sequence, expires_ns) { None } else { Some(expires_ns) }
    }

    /// Whether everything up to `sequence` was settled before this time.
    fn was_settled(&self, sequence: u64, before_ns: i64) -> bool {
        let index = self.samples.partition_point(|sample| sample.sequence < sequence);
        self.samples.get(index).is_some_and(|sample| sample.at_ns < before_ns)
    }
}
