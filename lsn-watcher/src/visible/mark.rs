//! The furthest position seen on one start of the server.
//!
//! The invariant is that a mark never outlives what it was seen on. It is forgotten when the
//! replica's connection is lost (the board does that), replaced when a later start of the server
//! is heard, and replaced by the first word after a silence.
//!
//! Over NATS several watchers of one region may speak at once, each in its own order but
//! interleaved with the others, so what is heard can be a little older than what is known:
//!
//! - the same start of the server: the further position holds, the other is merely late;
//! - a later start: it holds, for the server was restarted, and may have come back behind;
//! - an earlier start: it is late, and ignored. If it is not late but the server's clock was set
//!   back, then the known start falls silent, and after `forget_after` the earlier one holds.
//!
//! A server whose backends crashed, but not its postmaster, comes back behind *without* a new
//! start. Its watcher says so with a `ReplicaProgress` that has no position, which forgets the mark.

use std::{cmp::Ordering, time::Duration};

use farwrite_schemas::{Lsn, Timeline};
use tokio::time::Instant;

/// A replayed position, on which start of the server, and when it was heard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ReplayMark {
    /// `pg_postmaster_start_time()` in microseconds since 1970.
    pub(crate) server_start_us: i64,
    pub(crate) lsn: Lsn,
    /// The timeline that the server was on after `lsn` was read, where it told.
    pub(crate) timeline: Option<Timeline>,
    pub(crate) in_recovery: bool,
    pub(crate) heard_at: Instant,
}

impl ReplayMark {
    /// Whether `heard` comes from an earlier start than `known`, which is still being heard.
    pub(crate) fn is_outdated(self, heard_start_us: i64, now: Instant, forget: Duration) -> bool {
        heard_start_us < self.server_start_us && !self.is_silent(now, forget)
    }

    /// What holds after `heard` was heard.
    pub(crate) fn merge(known: Option<Self>, heard: Self, forget_after: Duration) -> Self {
        let Some(known) = known else { return heard };
        if known.is_silent(heard.heard_at, forget_after)
            || heard.server_start_us > known.server_start_us
        {
            heard
        } else if heard.server_start_us == known.server_start_us {
            // Position and timeline belong together: a late word of a lower position on the
            // timeline before says nothing of the further one.
            let further = match heard.lsn.cmp(&known.lsn) {
                Ordering::Greater => heard,
                Ordering::Less => known,
                Ordering::Equal => {
                    Self { timeline: lower(known.timeline, heard.timeline), ..heard }
                }
            };
            Self { heard_at: heard.heard_at, ..further }
        } else {
            known
        }
    }

    fn is_silent(self, now: Instant, forget_after: Duration) -> bool {
        now.saturating_duration_since(self.heard_at) > forget_after
    }
}

/// The timeline of a position that was heard twice: the lower one. It proves more, namely that the
/// position was reached before the server left that timeline.
fn lower(one: Option<Timeline>, other: Option<Timeline>) -> Option<Timeline> {
    match (one, other) {
        (Some(one), Some(other)) => Some(Timeline(one.0.min(other.0))),
        (one, other) => one.or(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_keeps_its_timeline() {
        let now = Instant::now();
        let mark = |lsn, timeline: Option<u32>| ReplayMark {
            server_start_us: 7,
            lsn: Lsn(lsn),
            timeline: timeline.map(Timeline),
            in_recovery: true,
            heard_at: now,
        };
        let cases = [
            (mark(150, Some(2)), mark(90, Some(1)), mark(150, Some(2)), "a late word of before"),
            (mark(150, None), mark(90, Some(1)), mark(150, None), "that it does not vouch for"),
            (mark(90, Some(1)), mark(150, None), mark(150, None), "further, and it is not told"),
            (mark(90, None), mark(90, Some(1)), mark(90, Some(1)), "told by now"),
            (mark(90, Some(1)), mark(90, Some(2)), mark(90, Some(1)), "reached on the first"),
        ];
        for (known, heard, holds, why) in cases {
            assert_eq!(
                ReplayMark::merge(Some(known), heard, Duration::from_secs(1)),
                holds,
                "{why}"
            );
        }
    }

    #[test]
    fn of_one_start_the_further_holds_and_of_two_starts_the_later() {
        let base = Instant::now();
        let mark = |server_start_us, lsn, ms| ReplayMark {
            server_start_us,
            lsn: Lsn(lsn),
            timeline: None,
            in_recovery: true,
            heard_at: base + Duration::from_millis(ms),
        };
        let known = mark(7, 100, 0);
        let cases = [
            (None, mark(1, 5, 0), mark(1, 5, 0), "the first one"),
            (Some(known), mark(7, 120, 1), mark(7, 120, 1), "an advance"),
            (Some(known), mark(7, 90, 1), mark(7, 100, 1), "another watcher, a little late"),
            (Some(known), mark(8, 60, 1), mark(8, 60, 1), "restarted, came back behind"),
            (Some(known), mark(6, 200, 1), known, "a late word of the start before"),
            (Some(known), mark(6, 60, 1_001), mark(6, 60, 1_001), "the clock was set back"),
            (Some(known), mark(7, 60, 1_001), mark(7, 60, 1_001), "unheard for long"),
        ];
        for (known, heard, holds, why) in cases {
            assert_eq!(ReplayMark::merge(known, heard, Duration::from_secs(1)), holds, "{why}");
        }
    }
}
