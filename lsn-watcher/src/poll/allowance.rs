//! How many polls may come sooner than the average allows.

use tokio::time::Instant;

use super::intervals::PollIntervals;

/// Polls that may come sooner than the eager interval: one is saved up in each such interval, and
/// every poll takes one.
#[derive(Debug)]
pub(crate) struct Allowance {
    /// Until then all are taken, at one an eager interval.
    taken_until: Instant,
}

impl Allowance {
    /// With everything saved up.
    pub(crate) const fn full(now: Instant) -> Self {
        Self { taken_until: now }
    }

    /// When the next poll may come.
    pub(crate) fn next(&self, intervals: &PollIntervals) -> Instant {
        let saved_up = intervals.eager * (PollIntervals::BURST - 1);
        self.taken_until.checked_sub(saved_up).unwrap_or(self.taken_until)
    }

    /// A poll is made.
    pub(crate) fn take(&mut self, now: Instant, intervals: &PollIntervals) {
        self.taken_until = self.taken_until.max(now) + intervals.eager;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_was_saved_up_is_used_up_and_comes_back_one_an_interval() {
        let intervals = PollIntervals::default();
        let began = Instant::now();
        let mut allowance = Allowance::full(began);
        let take = |allowance: &mut Allowance, now: Instant| {
            let at = now.max(allowance.next(&intervals));
            allowance.take(at, &intervals);
            at - began
        };
        for _ in 0..PollIntervals::BURST {
            assert_eq!(take(&mut allowance, began), Duration::ZERO);
        }
        assert_eq!(take(&mut allowance, began), PollIntervals::EAGER);
        assert_eq!(take(&mut allowance, began), PollIntervals::EAGER * 2);
        // While nobody asks they come back, and no more than there were.
        for idle in [PollIntervals::EAGER * PollIntervals::BURST, Duration::from_secs(3_600)] {
            let now = allowance.taken_until + idle;
            let at_once =
                (0..2 * PollIntervals::BURST).filter(|_| take(&mut allowance, now) == now - began);
            assert_eq!(at_once.count(), PollIntervals::BURST as usize);
        }
    }
}
