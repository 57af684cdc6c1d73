//! How often the replica is asked while somebody waits.

use std::time::Duration;

/// The intervals between two polls. A poll costs the replica 18 to 38 µs of one core, so the pace
/// is eager while an answer is likely, and slows down when nothing moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// The interval while a caller is young or the replica is making progress.
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
    /// 1 ms: a commit shows on a nearby replica 0.3 to 0.8 ms after it returned, and asking a
    /// thousand times a second costs 3 to 4 % of one core.
    pub const EAGER: Duration = Duration::from_millis(1);
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

    /// The interval to the next poll.
    ///
    /// `youngest` is the age of the youngest caller, `still` the time since the last progress.
    #[must_use]
    pub fn interval(&self, youngest: Duration, still: Duration) -> Duration {
        let calm = youngest.min(still);
        if calm < self.eager_for {
            self.eager
        } else if calm < self.calm_for {
            self.calm
        } else {
            self.patient
        }
    }

    /// The rule that the intervals break, if they break one.
    pub(crate) fn broken_rule(&self) -> Option<(&'static str, &'static str)> {
        if self.eager < Duration::from_micros(100) {
            return Some((
                "pace.eager",
                "at least 100 µs: less takes the replica's CPU from replay",
            ));
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
        let pace = Pace::default();
        let interval = |youngest, still| {
            pace.interval(Duration::from_millis(youngest), Duration::from_millis(still))
        };
        assert_eq!(interval(0, 10_000), Pace::EAGER);
        assert_eq!(interval(10_000, 0), Pace::EAGER);
        assert_eq!(interval(49, 10_000), Pace::EAGER);
        assert_eq!(interval(50, 50), Pace::CALM);
        assert_eq!(interval(499, 10_000), Pace::CALM);
        assert_eq!(interval(500, 500), Pace::PATIENT);
    }

    #[test]
    fn intervals_in_the_wrong_order_are_named() {
        assert_eq!(Pace::default().broken_rule(), None);
        let zero = Pace { eager: Duration::ZERO, ..Pace::default() };
        assert_eq!(zero.broken_rule().map(|(field, _)| field), Some("pace.eager"));
        let short = Pace { patient: Duration::from_millis(2), ..Pace::default() };
        assert_eq!(short.broken_rule().map(|(field, _)| field), Some("pace.patient"));
    }
}
