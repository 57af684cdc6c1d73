//! The highest position that a region's apps have lately asked for.
//!
//! Apps repeat an interest while it lasts and fall silent when it is over, so an interest that is not
//! repeated must fade. Only the highest one matters, and keeping it must cost the same for one app
//! and for a thousand: two windows of `ttl` each, the highest interest of either. An interest is kept
//! for one to two `ttl` after it was last said.

use std::time::Duration;

use farwrite_schemas::Lsn;
use tokio::time::Instant;

#[derive(Debug)]
pub(super) struct HighestInterest {
    ttl: Duration,
    window_began: Instant,
    current: Option<Lsn>,
    previous: Option<Lsn>,
}

impl HighestInterest {
    pub(super) fn new(ttl: Duration, now: Instant) -> Self {
        Self { ttl, window_began: now, current: None, previous: None }
    }

    /// Notes an interest; whether it is higher than all that are known.
    pub(super) fn add(&mut self, lsn: Lsn, now: Instant) -> bool {
        let is_higher = self.highest(now).is_none_or(|highest| lsn > highest);
        self.current = self.current.max(Some(lsn));
        is_higher
    }

    /// The highest interest that has not faded.
    pub(super) fn highest(&mut self, now: Instant) -> Option<Lsn> {
        let age = now.saturating_duration_since(self.window_began);
        if age >= 2 * self.ttl {
            (self.previous, self.current, self.window_began) = (None, None, now);
        } else if age >= self.ttl {
            self.previous = self.current.take();
            self.window_began += self.ttl;
        }
        self.previous.max(self.current)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_highest_interest_holds_until_it_is_not_repeated() {
        let began = Instant::now();
        let at = |ms| began + Duration::from_millis(ms);
        let mut interests = HighestInterest::new(Duration::from_secs(2), began);
        assert_eq!(interests.highest(at(0)), None);
        assert!(interests.add(Lsn(90), at(0)));
        assert!(!interests.add(Lsn(50), at(1)));
        assert_eq!(interests.highest(at(1_999)), Some(Lsn(90)));
        // The lower interest is repeated, the higher one is not: it fades.
        for ms in (500..4_500).step_by(500) {
            interests.add(Lsn(50), at(ms));
        }
        assert_eq!(interests.highest(at(4_500)), Some(Lsn(50)));
        assert!(interests.add(Lsn(51), at(4_600)));
        assert_eq!(interests.highest(at(20_000)), None);
        assert!(interests.add(Lsn(1), at(20_000)));
    }
}
