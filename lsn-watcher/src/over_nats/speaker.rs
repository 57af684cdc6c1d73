//! Whose progress is believed: a region's subject is only a name, and a watcher of another database may
//! speak on it by mistake.
//!
//! The database whose history holds what somebody waits for is the right one. Once it was heard, the
//! progress of every other one is passed over, until the right one has been silent for long: then an
//! operator may have put another one in its place. A message that cannot be true is never believed. That a
//! branch is not held is believed late while nobody has said that it is: the right one may still speak.
//! Somebody who means to deceive can say what the right one says: credentials keep such a one off
//! the subject.

use std::time::Duration;

use farwrite_schemas::{BranchKnown, IdentityDigest, Lsn, ReplicaProgress};
use tokio::time::Instant;

use crate::visible::FURTHEST;

/// The watchers that speak for a region.
/// How long another watcher may take to say that a branch is held: far longer than a question takes.
const SPEAKS_WITHIN: Duration = Duration::from_millis(250);

/// What is done with a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Hearing {
    /// It is passed over.
    PassedOver,
    /// It is believed but for the branches that it does not hold.
    Positions,
    /// It is believed.
    Believed,
    /// It is believed, and nothing that was heard before it.
    Anew,
}

#[derive(Debug)]
pub(super) struct Speaker {
    forget_after: Duration,
    /// Since when there is no right one, though somebody speaks.
    unsure_since: Option<Instant>,
    right: Option<(IdentityDigest, Instant)>,
    /// The start of the server and the position that were heard last.
    last: Option<(i64, Lsn)>,
    is_logged: bool,
}

impl Speaker {
    pub(super) const fn new(forget_after: Duration) -> Self {
        Self { forget_after, unsure_since: None, right: None, last: None, is_logged: false }
    }

    /// Whether a message is to be believed.
    pub(super) fn hear(&mut self, progress: &ReplicaProgress, now: Instant) -> Hearing {
        let before = self.right.map(|(right, _)| right);
        let reason = self.doubt(progress, now);
        match reason {
            Some(reason) if !self.is_logged => {
                self.is_logged = true;
                tracing::warn!(
                    reason,
                    "progress is passed over: another watcher speaks for this region"
                );
            }
            Some(_) => {}
            None => self.last = progress.replayed.map(|lsn| (progress.server_start_us, lsn)),
        }
        let right = self.right.map(|(right, _)| right);
        if right.is_some() {
            self.unsure_since = None;
        }
        match reason {
            Some(_) => Hearing::PassedOver,
            None if right.is_some() && right != before => Hearing::Anew,
            None if right.is_some() => Hearing::Believed,
            None => {
                let since = *self.unsure_since.get_or_insert(now);
                let is_late = now.saturating_duration_since(since) >= SPEAKS_WITHIN;
                if is_late { Hearing::Believed } else { Hearing::Positions }
            }
        }
    }

    fn doubt(&mut self, progress: &ReplicaProgress, now: Instant) -> Option<&'static str> {
        let ReplicaProgress { replayed, server_start_us, identity, branches, .. } = progress;
        let before = self.last.filter(|(start, _)| start == server_start_us);
        if let (Some((_, last)), Some(replayed)) = (before, replayed)
            && replayed.bytes_since(last) > FURTHEST
        {
            return Some("no server can have come so far at once");
        }
        let holds = branches.iter().any(|branch| matches!(branch.known, BranchKnown::Held { .. }));
        let is_silent = |heard: Instant| now.saturating_duration_since(heard) > self.forget_after;
        match (self.right, *identity) {
            (Some((right, _)), Some(told)) if right == told => self.right = Some((told, now)),
            (_, Some(told)) if holds => self.right = Some((told, now)),
            (Some((_, heard)), _) if is_silent(heard) => self.right = None,
            (Some(_), _) => return Some("it is of another database"),
            (None, _) => {}
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use farwrite_schemas::{Branch, Epoch, Timeline};
    use sqlx::types::Uuid;

    use super::*;

    fn said(identity: Option<&str>, lsn: u64, holds: bool) -> ReplicaProgress {
        let known = BranchKnown::Held { timeline: Timeline(1), ends: None, proven: None };
        let branch = Branch { epoch: Epoch(Uuid::from_u128(1)), known };
        ReplicaProgress {
            replayed: Some(Lsn(lsn)),
            server_start_us: 1,
            in_recovery: true,
            timeline: None,
            identity: identity.map(IdentityDigest::of),
            branches: if holds { vec![branch] } else { Vec::new() },
            unreadable: None,
        }
    }

    #[test]
    fn the_database_that_holds_what_is_waited_for_is_believed_until_it_is_silent() {
        let began = Instant::now();
        let at = |ms| began + Duration::from_millis(ms);
        use Hearing::{Anew, Believed, PassedOver, Positions};
        let mut speaker = Speaker::new(Duration::from_millis(1_000));
        let steps = [
            (0, said(Some("b"), 900, false), Positions, "nothing is known yet"),
            (1, said(Some("a"), 100, true), Anew, "it holds the branch"),
            (2, said(Some("b"), 900, false), PassedOver, "another database"),
            (3, said(None, 900, false), PassedOver, "of none"),
            (4, said(Some("a"), 110, false), Believed, "the right one"),
            (5, said(Some("a"), 110 + FURTHEST + 1, false), PassedOver, "impossible"),
            (6, said(Some("c"), 120, true), Anew, "put in its place: it holds a newer branch"),
            (7, said(Some("a"), 110, false), PassedOver, "the one before"),
            (1_008, said(Some("a"), 110, false), Positions, "the right one is silent"),
            (1_257, said(Some("a"), 110, false), Positions, "another one may speak"),
            (1_258, said(Some("a"), 110, false), Believed, "nobody did"),
        ];
        for (ms, progress, believed, why) in steps {
            assert_eq!(speaker.hear(&progress, at(ms)), believed, "{why}");
        }
    }
}
