//! The highest position that a region's apps have lately asked for.
//!
//! Apps repeat a wish while it lasts and fall silent when it is over, so a wish that is not
//! repeated must fade. Only the highest one matters, and keeping it must cost the same for one app
//! and for a thousand: two windows of `ttl` each, the highest wish of either. A wish is kept for
//! one to two `ttl` after it was last said.

use std::time::Duration;

use farwrite_schemas::Lsn;
use tokio::time::Instant;

#[derive(Debug)]
pub(crate) struct Wishes {
    ttl: Duration,
    window_began: Instant,
    current: Option<Lsn>,
    previous: Option<Lsn>,
}

impl Wishes {
    pub(crate) fn new(ttl: Duration, now: Instant) -> Self {
        Self { ttl, window_began: now, current: None, previous: None }
    }

    /// Notes a wish; whether it is higher than all that are known.
    pub(crate) fn add(&mut self, lsn: Lsn, now: Instant) -> bool {
        let is_higher = self.highest(now).is_none_or(|highest| lsn > highest);
        self.current = self.current.max(Some(lsn));
        is_higher
    }

    /// The highest wish that has not faded.
    pub(crate) fn highest(&mut self, now: Instant) -> Option<Lsn> {
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
    fn the_highest_wish_holds_until_it_is_not_repeated() {
        let began = Instant::now();
        let at = |ms| began + Duration::from_millis(ms);
        let mut wishes = Wishes::new(Duration::from_secs(2), began);
        assert_eq!(wishes.highest(at(0)), None);
        assert!(wishes.add(Lsn(90), at(0)));
        assert!(!wishes.add(Lsn(50), at(1)));
        assert_eq!(wishes.highest(at(1_999)), Some(Lsn(90)));
        // The lower wish is repeated, the higher one is not: it fades.
        for ms in (500..4_500).step_by(500) {
            wishes.add(Lsn(50), at(ms));
        }
        assert_eq!(wishes.highest(at(4_500)), Some(Lsn(50)));
        assert!(wishes.add(Lsn(51), at(4_600)));
        assert_eq!(wishes.highest(at(20_000)), None);
        assert!(wishes.add(Lsn(1), at(20_000)));
    }
}
