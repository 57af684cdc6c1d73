//! When a position counts as visible. **The only place that decides it.**
//!
//! Today: the mark of the present server start has reached the position, and the mark was heard
//! after the caller began to wait, or so shortly before that no server can have come back in
//! between. Timelines and bookmark epochs come here: LSN reached, then same timeline, then epoch
//! replayed and not superseded below it; everything else is "unknown".

use std::time::Duration;

use farwrite_schemas::Lsn;
use tokio::time::Instant;

use crate::mark::Mark;

/// Whether a caller that began at `began` and waits for `target` may be told "visible".
///
/// `fresh_for` bounds how old a mark may be that answers a caller who came after it.
pub(crate) fn is_visible(
    mark: &Mark,
    target: Lsn,
    began: Instant,
    now: Instant,
    fresh_for: Duration,
) -> bool {
    // A waiter that was woken by an advance may be scheduled late: what was heard while it waited
    // answers it however old it has become.
    let heard_while_waiting = mark.heard_at >= began;
    let is_fresh = now.saturating_duration_since(mark.heard_at) <= fresh_for;
    mark.lsn >= target && (heard_while_waiting || is_fresh)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_answers_those_who_waited_for_it_and_those_who_come_at_once() {
        let heard_at = Instant::now();
        let later = |ms| heard_at + Duration::from_millis(ms);
        let mark = Mark { server_start_us: 1, lsn: Lsn(100), heard_at };
        let is_visible = |target, began, now| {
            is_visible(&mark, Lsn(target), began, now, Duration::from_millis(10))
        };
        assert!(is_visible(100, later(0), later(0)));
        assert!(is_visible(100, later(0), later(9_000)), "waited when it was heard");
        assert!(is_visible(99, later(10), later(10)), "came while it was fresh");
        assert!(!is_visible(99, later(11), later(11)), "came when it was stale");
        assert!(!is_visible(101, later(0), later(0)), "not reached");
    }
}
