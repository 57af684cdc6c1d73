//! Pauses between tries: doubling, bounded, and shortened at random, so that producers that failed
//! together do not come back together.

use std::{
    hash::{BuildHasher, RandomState},
    time::Duration,
};

/// A row of pauses.
#[derive(Debug)]
pub(crate) struct Backoff {
    next: Duration,
    longest: Duration,
    random: RandomState,
    count: u32,
}

impl Backoff {
    /// How long a reply may take before the outcome is asked for: 1 s, many times a healthy
    /// worker's answer from the other side of the earth.
    pub(crate) const FIRST_QUESTION: Duration = Duration::from_secs(1);

    /// Between two attempts to publish: 50 ms, a WAN's round trip, doubling to 1 s, which bounds
    /// how late a producer notices that the broker is back.
    pub(crate) fn publishing() -> Self {
        Self::new(Duration::from_millis(50), Duration::from_secs(1))
    }

    /// Between two questions for an outcome: 1 s, because a healthy worker has answered long
    /// before, doubling to 5 s, because a worker that is away gets a question from every caller.
    pub(crate) fn asking() -> Self {
        Self::new(Self::FIRST_QUESTION, Duration::from_secs(5))
    }

    fn new(first: Duration, longest: Duration) -> Self {
        Self { next: first, longest, random: RandomState::new(), count: 0 }
    }

    /// The next pause: between half of its length and all of it.
    pub(crate) fn next(&mut self) -> Duration {
        let pause = self.next;
        self.next = (pause * 2).min(self.longest);
        self.count = self.count.wrapping_add(1);
        let share = (self.random.hash_one(self.count) % 512) as f64 / 1024.0;
        pause.mul_f64(1.0 - share)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubles_to_its_bound_with_jitter() {
        let mut backoff = Backoff::publishing();
        for longest_ms in [50, 100, 200, 400, 800, 1_000, 1_000] {
            let longest = Duration::from_millis(longest_ms);
            let pause = backoff.next();
            assert!(longest / 2 <= pause && pause <= longest, "{pause:?} of {longest:?}");
        }
    }
}
