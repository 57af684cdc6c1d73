//! How long a producer pauses between attempts and between questions.

use std::time::Duration;

use farwrite_internal::Backoff;

/// How long a reply may take before the outcome is asked for: 1 s, many times a healthy worker's
/// answer from the other side of the earth.
pub(crate) const FIRST_QUESTION: Duration = Duration::from_secs(1);

/// Between two attempts to publish: 50 ms, a WAN's round trip, doubling to 1 s, which bounds how
/// late a producer notices that the broker is back.
pub(crate) const fn publishing() -> Backoff {
    Backoff::new(Duration::from_millis(50), Duration::from_secs(1))
}

/// Between two questions for an outcome: 1 s, because a healthy worker has answered long before,
/// doubling to 5 s, because a worker that is away gets a question from every caller.
pub(crate) const fn asking() -> Backoff {
    Backoff::new(FIRST_QUESTION, Duration::from_secs(5))
}
