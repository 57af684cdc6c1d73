//! Publishes that go alone for a moment while a producer gathers, timed: what one costs the server,
//! and how long each waited for it.
//!
//! Where the server is near, each waits for those in front of it; where it is far, most are on the
//! way, and acknowledgements come one after the other as they are stored, or in clusters. So the
//! larger of two costs is taken. The way is what the quickest of them took, and not the quickest
//! ever: it may have become longer since. Pure, like [`pace`](crate::outbox::pace).

use std::time::Duration;

use tokio::time::Instant;

use crate::outbox::pace::{Left, MANY, factor};

/// Publishes that are timed before it is decided: their average is. A broker that stores 5,000 a
/// second is held up for 25 ms.
const ENOUGH: u32 = 128;

/// What was timed since probing began.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Probe {
    /// The last publish that left before.
    after: u64,
    timed: u32,
    /// How long they were under way, at least and altogether, and among how many when they left.
    quickest: Duration,
    took: Duration,
    among: u32,
    /// How long after another one an acknowledgement came, while many were under way.
    gaps: Duration,
    last_at: Option<Instant>,
}

/// What enough of them showed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Probed {
    /// What one costs the server.
    pub(crate) cost: Duration,
    /// How long one waited, on the average, beyond the way.
    pub(crate) waited: Duration,
    /// The way there and back.
    pub(crate) way: Duration,
}

impl Probe {
    /// Of what leaves after this publish.
    pub(crate) const fn after(last: u64) -> Self {
        Self {
            after: last,
            timed: 0,
            quickest: Duration::MAX,
            took: Duration::ZERO,
            among: 0,
            gaps: Duration::ZERO,
            last_at: None,
        }
    }

    /// A publish was acknowledged so long after it left, while so many are under way alone. Answers
    /// when enough were.
    pub(crate) fn acknowledged(
        &mut self,
        left: Left,
        alone: usize,
        after: Duration,
        now: Instant,
    ) -> Option<Probed> {
        // What left before was beside batches.
        if left.number <= self.after {
            return None;
        }
        if alone < MANY {
            self.last_at = None;
            return None;
        }
        let last_at = self.last_at.replace(now).unwrap_or(now);
        self.gaps += now.saturating_duration_since(last_at);
        self.timed += 1;
        self.quickest = self.quickest.min(after);
        self.took += after;
        self.among += factor(left.among);
        if self.timed < ENOUGH {
            return None;
        }
        let way = self.quickest;
        let waited = self.took.saturating_sub(way * self.timed);
        let cost = (self.gaps / self.timed).max(waited / self.among.max(1));
        Some(Probed { cost, waited: waited / self.timed, way })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Acknowledgements, each so long after it left and after the one before it.
    fn probed(
        among: usize,
        alone: usize,
        times: impl IntoIterator<Item = (Duration, Duration)>,
    ) -> Option<Probed> {
        let (mut probe, mut now, mut number) = (Probe::after(0), Instant::now(), 0);
        times.into_iter().find_map(|(after, gap)| {
            number += 1;
            now += gap;
            probe.acknowledged(Left { number, among }, alone, after, now)
        })
    }

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn near_the_server_each_waits_for_those_in_front_of_it() {
        let first = std::iter::once((MS / 5, MS / 5));
        let shown = probed(64, 64, first.chain(std::iter::repeat_n((MS * 13, MS / 5), 200)));
        let shown = shown.expect("enough");
        assert!((195..=205).contains(&shown.cost.as_micros()), "{shown:?}");
        assert_eq!(shown.way, MS / 5);
        assert!(shown.waited > MS * 12);
    }

    #[test]
    fn far_from_it_the_way_is_no_wait_and_clusters_are_no_speed() {
        let far = MS * 80;
        let shown = probed(32, 32, std::iter::repeat_n((far, far / 32), 200)).expect("enough");
        assert_eq!((shown.waited, shown.way), (Duration::ZERO, far));
        // A hundred behind each other, told at once.
        let cluster = (1..=200).map(|place| (far + MS / 5 * place, Duration::ZERO));
        let shown = probed(64, 64, cluster).expect("enough");
        assert!(shown.cost >= MS / 6, "{shown:?}");
    }

    #[test]
    fn what_left_before_and_what_comes_when_few_are_under_way_is_not_timed() {
        let times = || std::iter::repeat_n((MS, MS), 1_000);
        assert_eq!(probed(64, MANY - 1, times()), None);
        assert!(probed(64, MANY, times()).is_some());
        let mut probe = Probe::after(1_000);
        for number in 1..=1_000 {
            let left = Left { number, among: 64 };
            assert_eq!(probe.acknowledged(left, 64, MS, Instant::now()), None);
        }
        assert_eq!(probe.timed, 0);
    }
}
