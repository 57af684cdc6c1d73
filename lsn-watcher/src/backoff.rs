//! How long to leave a replica alone that could not be asked.

use std::{
    hash::{BuildHasher, RandomState},
    time::Duration,
};

/// The first pause: a server that is restarting accepts connections again within 50 to 500 ms.
const FIRST: Duration = Duration::from_millis(50);
/// The longest pause: it bounds how late callers notice that the replica is back.
const LONGEST: Duration = Duration::from_secs(1);

/// Pauses of 50 ms, doubling to 1 s, each shortened by up to a half at random, so that the apps of
/// a region do not all knock at the same moment.
#[derive(Debug, Default)]
pub(crate) struct Backoff {
    failures: u32,
    jitter: RandomState,
}

impl Backoff {
    /// The pause after one more failure.
    pub(crate) fn next(&mut self) -> Duration {
        let longest = FIRST.saturating_mul(1 << self.failures.min(10)).min(LONGEST);
        self.failures = self.failures.saturating_add(1);
        let random = self.jitter.hash_one(self.failures) % 512;
        longest.mul_f64(1.0 - random as f64 / 1024.0)
    }

    /// It answered: the next failure starts over.
    pub(crate) fn reset(&mut self) {
        self.failures = 0;
    }

    /// Whether the last attempt failed.
    pub(crate) fn is_failing(&self) -> bool {
        self.failures > 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubles_to_a_second_and_starts_over() {
        let mut backoff = Backoff::default();
        for longest_ms in [50, 100, 200, 400, 800, 1_000, 1_000, 1_000] {
            let longest = Duration::from_millis(longest_ms);
            let pause = backoff.next();
            assert!(longest / 2 <= pause && pause <= longest, "{pause:?} of {longest:?}");
        }
        backoff.reset();
        assert!(!backoff.is_failing() && backoff.next() <= FIRST);
        for _ in 0..100 {
            assert!(backoff.next() <= LONGEST);
        }
    }
}
