//! How often the replica is asked while somebody waits.

use std::time::Duration;

use tokio::time::Instant;

/// The intervals between two polls. A poll costs the replica 30 to 60 µs of one core, so the pace
/// is eager while an answer is likely, and slows down when nothing moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// The interval while a caller is young or the replica is making progress, and polls were
    /// saved up before: [`BURST`](Self::BURST) of them at most.
    pub quick: Duration,
    /// The same when none are left: on the average there is no more than one poll in so long.
    pub eager: Duration,
    /// The interval when neither was so for [`eager_for`](Self::eager_for).
    pub calm: Duration,
    /// The interval when neither was so for [`calm_for`](Self::calm_for).
    pub patient: Duration,
    /// How long a caller counts as young, and progress as recent.
    pub eager_for: Duration,
    /// After how long without a new caller and without progress the pace becomes patient.
    pub calm_for: Duration,
}

impl Pace {
    /// 0.25 ms: a write's reply and its commit arrive at about the same time, and the replica then
    /// replays it within 0.3 to 0.8 ms. A poll itself takes 0.1 to 0.2 ms.
    pub const QUICK: Duration = Duration::from_micros(250);
    /// Polls that are saved up while nobody waits. 16: 4 ms of quick ones, after which a write that is
    /// alone has nearly always been seen.
    pub const BURST: u32 = 16;
    /// 1.25 ms: a commit shows on a nearby replica 0.3 to 0.8 ms after it returned, and asking 800
    /// times a second costs 3 to 5 % of one core.
    pub const EAGER: Duration = Duration::from_micros(1_250);
    /// 5 ms: half the cost of 1 ms, and still far below any network round trip between regions.
    pub const CALM: Duration = Duration::from_millis(5);
    /// 20 ms: a replica that stood still for half a second is lagging or paused; who waits for it
    /// will not notice 20 ms, and the replica needs its time for replay.
    pub const PATIENT: Duration = Duration::from_millis(20);
    /// 50 ms: the usual way of a commit to a replica in another region, one and a half round trips
    /// of 30 ms.
    pub const EAGER_FOR: Duration = Duration::from_millis(50);
    /// 500 ms: longer than the way round the world and back.
    pub const CALM_FOR: Duration = Duration::from_millis(500);

    /// The interval to the next poll, as long as some are left of those that were saved up.
    ///
    /// `youngest` is the age of the youngest caller, `still` the time since the last progress.
    #[must_use]
    pub fn interval(&self, youngest: Duration, still: Duration) -> Duration {
        let calm = youngest.min(still);
        if calm < self.eager_for {
            self.quick
        } else if calm < self.calm_for {
            self.calm
        } else {
            self.patient
        }
    }

    /// The rule that the intervals break, if they break one.
    pub(crate) fn broken_rule(&self) -> Option<(&'static str, &'static str)> {
        if self.quick < Duration::from_micros(100) {
            return Some((
                "pace.quick",
                "at least 100 µs: less takes the replica's CPU from replay",
            ));
        }
        if self.eager < self.quick {
            return Some(("pace.eager", "not shorter than pace.quick"));
        }
        if self.calm < self.eager {
            return Some(("pace.calm", "not shorter than pace.eager"));
        }
        if self.patient < self.calm {
            return Some(("pace.patient", "not shorter than pace.calm"));
        }
        if self.patient > Duration::from_secs(1) {
            return Some(("pace.patient", "at most 1 s"));
        }
        if self.calm_for < self.eager_for {
            return Some(("pace.calm_for", "not shorter than pace.eager_for"));
        }
        None
    }
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            quick: Self::QUICK,
            eager: Self::EAGER,
            calm: Self::CALM,
            patient: Self::PATIENT,
            eager_for: Self::EAGER_FOR,
            calm_for: Self::CALM_FOR,
        }
    }
}

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
    pub(crate) fn next(&self, pace: &Pace) -> Instant {
        let saved_up = pace.eager * (Pace::BURST - 1);
        self.taken_until.checked_sub(saved_up).unwrap_or(self.taken_until)
    }

    /// A poll is made.
    pub(crate) fn take(&mut self, now: Instant, pace: &Pace) {
        self.taken_until = self.taken_until.max(now) + pace.eager;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slows_down_only_when_neither_a_caller_is_young_nor_the_replica_moves() {
        let pace = Pace::default();
        let interval = |youngest, still| {
            pace.interval(Duration::from_millis(youngest), Duration::from_millis(still))
        };
        assert_eq!(interval(0, 10_000), Pace::QUICK);
        assert_eq!(interval(10_000, 0), Pace::QUICK);
        assert_eq!(interval(49, 10_000), Pace::QUICK);
        assert_eq!(interval(50, 50), Pace::CALM);
        assert_eq!(interval(499, 10_000), Pace::CALM);
        assert_eq!(interval(500, 500), Pace::PATIENT);
    }

    #[test]
    fn intervals_in_the_wrong_order_are_named() {
        assert_eq!(Pace::default().broken_rule(), None);
        let zero = Pace { quick: Duration::ZERO, ..Pace::default() };
        assert_eq!(zero.broken_rule().map(|(field, _)| field), Some("pace.quick"));
        let hasty = Pace { eager: Duration::from_micros(200), ..Pace::default() };
        assert_eq!(hasty.broken_rule().map(|(field, _)| field), Some("pace.eager"));
        let short = Pace { patient: Duration::from_millis(2), ..Pace::default() };
        assert_eq!(short.broken_rule().map(|(field, _)| field), Some("pace.patient"));
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_saved_up_is_used_up_and_comes_back_one_an_interval() {
        let pace = Pace::default();
        let began = Instant::now();
        let mut allowance = Allowance::full(began);
        let take = |allowance: &mut Allowance, now: Instant| {
            let at = now.max(allowance.next(&pace));
            allowance.take(at, &pace);
            at - began
        };
        for _ in 0..Pace::BURST {
            assert_eq!(take(&mut allowance, began), Duration::ZERO);
        }
        assert_eq!(take(&mut allowance, began), Pace::EAGER);
        assert_eq!(take(&mut allowance, began), Pace::EAGER * 2);
        // While nobody asks they come back, and no more than there were.
        for idle in [Pace::EAGER * Pace::BURST, Duration::from_secs(3_600)] {
            let now = allowance.taken_until + idle;
            let at_once = (0..2 * Pace::BURST).filter(|_| take(&mut allowance, now) == now - began);
            assert_eq!(at_once.count(), Pace::BURST as usize);
        }
    }
}
