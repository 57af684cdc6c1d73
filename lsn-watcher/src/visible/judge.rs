//! When a position counts as visible. **The only place that decides it** (invariant 7).
//!
//! Two things are compared: what the server says of itself ([`ReplayMark`]: how far it has come, and on
//! which timeline it was *after* that was read), and what its rows say of the branch that the
//! bookmark names ([`BranchKnown`]). In this order:
//!
//! | the server's history | and the position | is |
//! |---|---|---|
//! | holds the epoch, on another timeline than the bookmark | | lost: no such bookmark was given out |
//! | holds it, and its timeline ended | past the end | lost |
//! | | up to the end, and reached | visible |
//! | holds it, and its timeline goes on | reached on that timeline, or proven by a row | visible |
//! | | reached, and the server is on another timeline, or does not tell | in doubt |
//! | holds it as another database's | | lost |
//! | does not hold it, nor another one of its timeline or a later one | up to where it was looked for | in doubt, unless the server has left the timeline |
//! | does not hold it | up to where it was looked for, past what it has forgotten | lost |
//! | | reached, and not past what it has forgotten | in doubt |
//! | was not asked | reached | in doubt |
//! | any other | | not yet |
//!
//! Of two branches the one with the later timeline survived a failover. So a server that never came to the
//! bookmark's timeline cannot say that the bookmark is lost: its own branch may be. Such doubt ends when the
//! server is made anew.
//!
//! Other doubt ends by asking again: a new primary's worker takes over and writes where the old timeline
//! ended, or a heartbeat proves the position, or the replica tells its timeline. Doubt about a
//! takeover that the history has forgotten does not end; the caller asks for the command's outcome.
//!
//! Why a timeline that equals the bookmark's is enough: a server's timeline only grows while it
//! runs, so one that was on timeline *t* after the position was read had reached it on *t* or
//! before; and the epoch's row, which is on *t*, is there, so it is that *t* and not another
//! branch's of the same number.

use std::time::Duration;

use farwrite_internal::sabotage;
use farwrite_schemas::{BranchKnown, Lsn};
use tokio::time::Instant;

use super::mark::ReplayMark;
use crate::{answer::Doubt, wait_target::WaitTarget};

/// A bookmark further ahead than this, in bytes, is no position that anybody has written: 1 TiB
/// takes a primary that writes a gigabyte a second 17 minutes, and a replica that is so far behind
/// is of no use to a caller.
pub(crate) const FURTHEST: u64 = 1 << 40;

/// What a caller may be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Judgement {
    Visible,
    NotYet,
    /// It may be visible, and cannot be told yet.
    InDoubt(Doubt),
    /// The commit is not in this server's history.
    Lost,
    /// Nobody has written so far.
    Implausible,
    /// A bare position, and the server is not a replica: it cannot be told on which branch it is.
    NotAReplica,
}

/// Judges a position on what is known of a server and of the branch.
pub(crate) fn judge(
    target: &WaitTarget,
    mark: &ReplayMark,
    known: Option<BranchKnown>,
) -> Judgement {
    let reached = mark.lsn >= target.lsn;
    let Some(name) = target.branch else {
        return match (mark.in_recovery, reached) {
            (false, _) => Judgement::NotAReplica,
            (true, true) => Judgement::Visible,
            (true, false) => Judgement::NotYet,
        };
    };
    if sabotage::leaves_out("timeline") {
        return if reached { Judgement::Visible } else { Judgement::NotYet };
    }
    if target.lsn.bytes_since(mark.lsn) > FURTHEST {
        return Judgement::Implausible;
    }
    let is_proven = |proven: Option<Lsn>| proven.is_some_and(|proven| proven >= target.lsn);
    match known {
        Some(BranchKnown::Held { timeline, .. }) if timeline != name.timeline => Judgement::Lost,
        Some(BranchKnown::Held { ends: Some(ends), .. }) if target.lsn > ends => Judgement::Lost,
        Some(BranchKnown::Held { ends: Some(_), .. }) if reached => Judgement::Visible,
        Some(BranchKnown::Held { ends: None, timeline, proven }) => match mark.timeline {
            Some(now) if now == timeline && reached => Judgement::Visible,
            _ if reached && is_proven(proven) => Judgement::Visible,
            // Though it is not reached: it may never be, and the row that says so will come.
            Some(now) if now != timeline => Judgement::InDoubt(Doubt::OtherTimeline(now)),
            None if reached => Judgement::InDoubt(Doubt::TimelineUnknown),
            Some(_) | None => Judgement::NotYet,
        },
        Some(BranchKnown::Elsewhere { .. }) => Judgement::Lost,
        Some(BranchKnown::Absent { absent_at, forgotten, latest }) if target.lsn <= absent_at => {
            let has_come = latest.is_some_and(|latest| latest.0 >= name.timeline.0)
                || mark.timeline.is_some_and(|now| now.0 > name.timeline.0);
            match forgotten {
                _ if !has_come => Judgement::InDoubt(Doubt::LaterTimeline(name.timeline)),
                Some(to) if target.lsn <= to => Judgement::InDoubt(Doubt::HistoryForgotten),
                Some(_) | None => Judgement::Lost,
            }
        }
        Some(BranchKnown::Held { .. } | BranchKnown::Absent { .. }) | None => {
            if reached {
                Judgement::InDoubt(Doubt::HistoryUnread)
            } else {
                Judgement::NotYet
            }
        }
    }
}

/// Whether a caller that began at `began` may be answered from a mark. It was heard while the
/// caller waited, or so shortly before that no server can have come back in between: `fresh_for`.
pub(crate) fn answers(
    mark: &ReplayMark,
    began: Instant,
    now: Instant,
    fresh_for: Duration,
) -> bool {
    // A waiter that was woken by an advance may be scheduled late: what was heard while it waited
    // answers it however old it has become.
    let heard_while_waiting = mark.heard_at >= began;
    heard_while_waiting || now.saturating_duration_since(mark.heard_at) <= fresh_for
}

#[cfg(test)]
mod tests {
    use farwrite_schemas::{Epoch, Timeline};
    use sqlx::types::Uuid;

    use super::*;
    use crate::wait_target::BranchName;

    fn mark(lsn: u64, timeline: Option<u32>) -> ReplayMark {
        let timeline = timeline.map(Timeline);
        let heard_at = Instant::now();
        ReplayMark { server_start_us: 1, lsn: Lsn(lsn), timeline, in_recovery: true, heard_at }
    }

    #[test]
    fn a_mark_answers_those_who_waited_for_it_and_those_who_come_at_once() {
        let mark = mark(100, None);
        let later = |ms| mark.heard_at + Duration::from_millis(ms);
        let answers = |began, now| answers(&mark, began, now, Duration::from_millis(10));
        assert!(answers(later(0), later(0)));
        assert!(answers(later(0), later(9_000)), "waited when it was heard");
        assert!(answers(later(10), later(10)), "came while it was fresh");
        assert!(!answers(later(11), later(11)), "came when it was stale");
    }

    #[test]
    fn every_row_of_the_table() {
        use Judgement::{Implausible, InDoubt, Lost, NotYet, Visible};
        let epoch = Epoch(Uuid::from_u128(7));
        let target = |lsn| WaitTarget {
            lsn: Lsn(lsn),
            branch: Some(BranchName { epoch, timeline: Timeline(1) }),
        };
        let held = |timeline, ends: Option<u64>, proven: Option<u64>| {
            let timeline = Timeline(timeline);
            Some(BranchKnown::Held { timeline, ends: ends.map(Lsn), proven: proven.map(Lsn) })
        };
        let missing = |at, forgotten: Option<u64>, latest: Option<u32>| {
            let (forgotten, latest) = (forgotten.map(Lsn), latest.map(Timeline));
            Some(BranchKnown::Absent { absent_at: Lsn(at), forgotten, latest })
        };
        let (absent, forgot) =
            (|at| missing(at, None, Some(1)), |to| missing(300, Some(to), Some(1)));
        let lost_itself = InDoubt(Doubt::LaterTimeline(Timeline(1)));
        let forgotten = InDoubt(Doubt::HistoryForgotten);
        let goes_on = held(1, None, Some(10));
        let elsewhere = Some(BranchKnown::Elsewhere { elsewhere: true });
        let other = InDoubt(Doubt::OtherTimeline(Timeline(2)));
        let cases = [
            (100, mark(100, Some(1)), held(2, None, None), Lost, "not the epoch's timeline"),
            (100, mark(300, Some(2)), held(1, Some(99), None), Lost, "past the end"),
            (100, mark(50, Some(2)), held(1, Some(99), None), Lost, "past the end, not reached"),
            (100, mark(300, Some(2)), held(1, Some(100), None), Visible, "up to the end"),
            (
                100,
                mark(300, None),
                held(1, Some(100), None),
                Visible,
                "though it does not tell its timeline",
            ),
            (100, mark(100, Some(1)), goes_on, Visible, "reached on its timeline"),
            (100, mark(99, Some(1)), goes_on, NotYet, "not reached"),
            (100, mark(300, Some(1)), elsewhere, Lost, "another database's"),
            (100, mark(50, Some(1)), elsewhere, Lost, "another database's, not reached"),
            (100, mark(300, Some(2)), goes_on, other, "reached on another timeline"),
            (100, mark(50, Some(2)), goes_on, other, "will not be reached on its own"),
            (10, mark(300, Some(2)), goes_on, Visible, "proven by a row"),
            (100, mark(300, None), goes_on, InDoubt(Doubt::TimelineUnknown), "does not tell"),
            (100, mark(99, None), goes_on, NotYet, "does not tell, not reached"),
            (10, mark(300, None), goes_on, Visible, "does not tell, proven by a row"),
            (100, mark(300, Some(1)), absent(100), Lost, "not in its history"),
            (
                100,
                mark(300, Some(1)),
                missing(300, None, Some(0)),
                lost_itself,
                "earlier ones only",
            ),
            (100, mark(300, None), missing(300, None, None), lost_itself, "no takeover at all"),
            (100, mark(300, Some(2)), missing(300, None, None), Lost, "left the timeline since"),
            (100, mark(300, Some(1)), absent(99), InDoubt(Doubt::HistoryUnread), "looked before"),
            (100, mark(99, Some(1)), absent(99), NotYet, "it may come"),
            (100, mark(300, Some(1)), forgot(100), forgotten, "up to what was forgotten"),
            (100, mark(300, Some(1)), forgot(99), Lost, "past what was forgotten"),
            (100, mark(100, Some(1)), None, InDoubt(Doubt::HistoryUnread), "not asked"),
            (100, mark(99, Some(1)), None, NotYet, "not asked, not reached"),
            (FURTHEST + 101, mark(100, Some(1)), goes_on, Implausible, "forged"),
        ];
        for (lsn, mark, known, judgement, why) in cases {
            assert_eq!(judge(&target(lsn), &mark, known), judgement, "{why}");
        }
    }

    #[test]
    fn a_bare_position_is_reached_or_not_on_a_replica_only() {
        let judge = |lsn, mark: &ReplayMark| judge(&WaitTarget::from(Lsn(lsn)), mark, None);
        assert_eq!(judge(100, &mark(100, Some(1))), Judgement::Visible);
        assert_eq!(judge(u64::MAX, &mark(100, None)), Judgement::NotYet);
        let promoted = ReplayMark { in_recovery: false, ..mark(100, Some(2)) };
        assert_eq!(judge(100, &promoted), Judgement::NotAReplica);
    }
}
