//! What an entry is, from what was heard of it: one pure function.

use std::time::Duration;

use farwrite_schemas::Outcome;

/// What the worker's lag may be too small by: it is measured once a second, and compares the
/// worker's clock with the stream's. Too small a number sends a command again that was on its way,
/// which has no effect; too large a one sends a lost command that much later.
const LAG_SLACK: Duration = Duration::from_secs(3);

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum EndedAs {
    Applied,
    Rejected,
    Expired,
    DeadLettered,
}

/// What was heard of a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Heard {
    /// The ledger has its outcome.
    Ended(EndedAs),
    /// The database holds it until it is due.
    Parked,
    /// The worker's word: neither, at a time after its lag was asked for.
    NotEnded,
    /// Nobody answered who knows.
    Nothing,
}

impl Heard {
    pub(super) const fn ended(outcome: &Outcome) -> Self {
        Self::Ended(match outcome {
            Outcome::Applied { .. } | Outcome::AppliedLarge { .. } => EndedAs::Applied,
            Outcome::Rejected(_) => EndedAs::Rejected,
            Outcome::Expired => EndedAs::Expired,
            Outcome::DeadLettered(_) => EndedAs::DeadLettered,
        })
    }
}

/// What a command of the journal is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum EntryStanding {
    /// A publish of it is under way.
    UnderWay,
    /// Its last publish ended a moment ago.
    Young,
    Ended(EndedAs),
    Parked,
    /// The worker has not passed its time in the stream.
    OnItsWay,
    /// Nobody knows.
    Unknown,
    /// Nobody knows it any more, or it is lost: the ledger may have forgotten it.
    TooOld,
    /// The worker has passed its time, and has not seen it.
    Lost,
}

/// Judges a command by what was heard of it, how long ago its last publish ended and its first one
/// began, and how far the worker is behind, where that is known.
pub(super) fn standing(
    heard: Heard,
    since_tried: Duration,
    since_sent: Duration,
    behind: Option<Duration>,
    max_age: Duration,
) -> EntryStanding {
    match (heard, behind) {
        (Heard::Ended(ending), _) => EntryStanding::Ended(ending),
        (Heard::Parked, _) => EntryStanding::Parked,
        (Heard::Nothing, _) | (Heard::NotEnded, None) => EntryStanding::Unknown,
        (Heard::NotEnded, Some(behind)) => {
            if since_tried <= behind.saturating_add(LAG_SLACK) {
                EntryStanding::OnItsWay
            } else if since_sent > max_age {
                EntryStanding::TooOld
            } else {
                EntryStanding::Lost
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_the_worker_has_passed_and_does_not_know_is_lost() {
        let seconds = |seconds: Option<u64>| seconds.map(Duration::from_secs);
        let applied = Heard::Ended(EndedAs::Applied);
        let ended = EntryStanding::Ended(EndedAs::Applied);
        let cases = [
            // heard, since tried, since sent, behind: standing
            (applied, 0, 0, None, ended),
            (applied, 999, 999, Some(0), ended),
            (Heard::Parked, 0, 0, None, EntryStanding::Parked),
            (Heard::Parked, 999, 999, Some(0), EntryStanding::Parked),
            (Heard::Nothing, 50, 50, None, EntryStanding::Unknown),
            (Heard::Nothing, 999, 999, Some(0), EntryStanding::Unknown),
            (Heard::NotEnded, 999, 999, None, EntryStanding::Unknown),
            (Heard::NotEnded, 3, 3, Some(0), EntryStanding::OnItsWay),
            (Heard::NotEnded, 4, 4, Some(0), EntryStanding::Lost),
            (Heard::NotEnded, 23, 50, Some(20), EntryStanding::OnItsWay),
            (Heard::NotEnded, 24, 50, Some(20), EntryStanding::Lost),
            (Heard::NotEnded, 24, 100, Some(20), EntryStanding::Lost),
            (Heard::NotEnded, 24, 101, Some(20), EntryStanding::TooOld),
            (Heard::NotEnded, 24, 101, Some(u64::MAX), EntryStanding::OnItsWay),
        ];
        for (heard, tried, sent, behind, expected) in cases {
            let (tried, sent) = (Duration::from_secs(tried), Duration::from_secs(sent));
            let max_age = Duration::from_secs(100);
            let judged = standing(heard, tried, sent, seconds(behind), max_age);
            assert_eq!(judged, expected, "{heard:?} {tried:?} {sent:?} {behind:?}");
        }
    }
}
