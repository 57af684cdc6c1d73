//! How often the replica is asked while somebody waits.

use std::time::Duration;

use crate::config_error::WatcherConfigError;

/// The intervals between two polls. A poll costs the replica 30 to 60 µs of one core. So it is asked
/// eagerly while an answer is likely, and less often when nothing moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PollIntervals {
    pub(super) quick: Duration,
    pub(super) eager: Duration,
    calm: Duration,
    patient: Duration,
    eager_for: Duration,
    calm_for: Duration,
}

impl PollIntervals {
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
    /// 20 ms: a replica that stood still for half a second is lagging or paused; a caller who waits for it
    /// will not notice 20 ms, and the replica needs its time for replay.
    pub const PATIENT: Duration = Duration::from_millis(20);
    /// 50 ms: the usual way of a commit to a replica in another region, one and a half round trips
    /// of 30 ms.
    pub const EAGER_FOR: Duration = Duration::from_millis(50);
    /// 500 ms: longer than the way round the world and back.
    pub const CALM_FOR: Duration = Duration::from_millis(500);

    /// The interval while a caller is young or the replica is making progress, and polls were saved up
    /// before: [`BURST`](Self::BURST) of them at most.
    #[must_use]
    pub const fn quick(mut self, interval: Duration) -> Self {
        self.quick = interval;
        self
    }

    /// The same when none are left: on the average there is no more than one poll in so long.
    #[must_use]
    pub const fn eager(mut self, interval: Duration) -> Self {
        self.eager = interval;
        self
    }

    /// The interval when neither was so for [`eager_for`](Self::eager_for).
    #[must_use]
    pub const fn calm(mut self, interval: Duration) -> Self {
        self.calm = interval;
        self
    }

    /// The interval when neither was so for [`calm_for`](Self::calm_for).
    #[must_use]
    pub const fn patient(mut self, interval: Duration) -> Self {
        self.patient = interval;
        self
    }

    /// How long a caller counts as young, and progress as recent.
    #[must_use]
    pub const fn eager_for(mut self, age: Duration) -> Self {
        self.eager_for = age;
        self
    }

    /// After how long without a new caller and without progress the replica is asked patiently.
    #[must_use]
    pub const fn calm_for(mut self, age: Duration) -> Self {
        self.calm_for = age;
        self
    }

    /// The interval to the next poll, as long as some are left of those that were saved up.
    ///
    /// `youngest` is the age of the youngest caller, `still` the time since the last progress.
    pub(super) fn next(&self, youngest: Duration, still: Duration) -> Duration {
        let calm = youngest.min(still);
        if calm < self.eager_for {
            self.quick
        } else if calm < self.calm_for {
            self.calm
        } else {
            self.patient
        }
    }

    /// The first rule that the intervals break.
    pub(crate) fn validate(&self) -> Result<(), WatcherConfigError> {
        let broken = [
            (
                self.quick < Duration::from_micros(100),
                "intervals.quick",
                "at least 100 µs: less takes the replica's CPU from replay",
            ),
            (self.eager < self.quick, "intervals.eager", "not shorter than intervals.quick"),
            (self.calm < self.eager, "intervals.calm", "not shorter than intervals.eager"),
            (self.patient < self.calm, "intervals.patient", "not shorter than intervals.calm"),
            (self.patient > Duration::from_secs(1), "intervals.patient", "at most 1 s"),
            (
                self.calm_for < self.eager_for,
                "intervals.calm_for",
                "not shorter than intervals.eager_for",
            ),
        ];
        match broken.into_iter().find(|(is_broken, ..)| *is_broken) {
            Some((_, field, rule)) => Err(WatcherConfigError::new(field, rule)),
            None => Ok(()),
        }
    }
}

impl Default for PollIntervals {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slows_down_only_when_neither_a_caller_is_young_nor_the_replica_moves() {
        let intervals = PollIntervals::default();
        let interval = |youngest, still| {
            intervals.next(Duration::from_millis(youngest), Duration::from_millis(still))
        };
        assert_eq!(interval(0, 10_000), PollIntervals::QUICK);
        assert_eq!(interval(10_000, 0), PollIntervals::QUICK);
        assert_eq!(interval(49, 10_000), PollIntervals::QUICK);
        assert_eq!(interval(50, 50), PollIntervals::CALM);
        assert_eq!(interval(499, 10_000), PollIntervals::CALM);
        assert_eq!(interval(500, 500), PollIntervals::PATIENT);
    }

    #[test]
    fn intervals_in_the_wrong_order_are_named() {
        let good = PollIntervals::default();
        assert_eq!(good.validate(), Ok(()));
        let field = |intervals: PollIntervals| intervals.validate().unwrap_err().field;
        assert_eq!(field(good.quick(Duration::ZERO)), "intervals.quick");
        assert_eq!(field(good.eager(Duration::from_micros(200))), "intervals.eager");
        assert_eq!(field(good.patient(Duration::from_millis(2))), "intervals.patient");
        assert_eq!(field(good.patient(Duration::from_secs(2))), "intervals.patient");
    }
}
