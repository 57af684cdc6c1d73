//! Pauses between attempts: doubling, bounded, and shortened at random, so that clients that failed
//! together do not come back together.

use std::{
    hash::{BuildHasher, RandomState},
    time::Duration,
};

/// The pauses after failures in a row.
#[derive(Debug, Clone)]
pub struct Backoff {
    first: Duration,
    longest: Duration,
    failures: u32,
}

impl Backoff {
    /// Pauses from `first`, doubling to `longest`.
    #[must_use]
    pub const fn new(first: Duration, longest: Duration) -> Self {
        Self { first, longest, failures: 0 }
    }

    /// The pause after one more failure: between half of its length and all of it.
    pub fn next_pause(&mut self) -> Duration {
        let doubled = self.first.saturating_mul(1 << self.failures.min(30));
        self.failures = self.failures.saturating_add(1);
        shortened(doubled.min(self.longest), 0.5)
    }

    /// An attempt succeeded: the next failure is the first of its row.
    pub const fn reset(&mut self) {
        self.failures = 0;
    }

    /// Whether the last attempt failed.
    #[must_use]
    pub const fn is_failing(&self) -> bool {
        self.failures > 0
    }
}

/// The pause, shortened at random by up to this share of it.
#[must_use]
pub fn shortened(pause: Duration, share: f64) -> Duration {
    // A new state has other keys each time, which is random enough to spread attempts.
    let random = RandomState::new().hash_one(()) % 1_024;
    pause.mul_f64(1.0 - share * random as f64 / 1_024.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubles_to_its_bound_with_jitter_and_starts_over() {
        let (first, longest) = (Duration::from_millis(50), Duration::from_secs(1));
        let mut backoff = Backoff::new(first, longest);
        for longest_ms in [50, 100, 200, 400, 800, 1_000, 1_000, 1_000] {
            let longest = Duration::from_millis(longest_ms);
            let pause = backoff.next_pause();
            assert!(longest / 2 <= pause && pause <= longest, "{pause:?} of {longest:?}");
        }
        for _ in 0..100 {
            assert!(backoff.next_pause() <= longest);
        }
        backoff.reset();
        assert!(!backoff.is_failing());
        assert!(backoff.next_pause() <= first && backoff.is_failing());
    }

    #[test]
    fn a_pause_is_shortened_by_no_more_than_its_share_and_not_always_equally() {
        let pause = Duration::from_secs(1);
        let all: Vec<_> = (0..100).map(|_| shortened(pause, 0.2)).collect();
        assert!(all.iter().all(|short| pause.mul_f64(0.79) <= *short && *short <= pause));
        assert!(all.iter().any(|short| *short != all[0]));
    }
}
