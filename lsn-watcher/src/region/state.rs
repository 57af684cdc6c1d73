//! What a region's apps want and what they were told: when to ask the replica, and when to tell.

use std::time::Duration;

use farwrite_schemas::{Epoch, INTEREST_MAX_EPOCHS, IdentityDigest, Interest, ReplicaProgress};
use tokio::time::Instant;

use super::interest::HighestInterest;
use crate::poll::{Demand, HistoryAnswer, ServerReport};

/// Between two messages that say that the replica cannot be asked: it is no news to those who
/// heard it, and an app that comes learns it within a quarter of a second.
const UNREACHABLE_INTERVAL: Duration = Duration::from_millis(250);

/// What the region's apps want and what they were told.
#[derive(Debug)]
pub(super) struct RegionState {
    interests: HighestInterest,
    /// When the highest interest was raised last.
    youngest: Instant,
    /// An interest came that no look at the replica has answered yet.
    asked: bool,
    /// Epochs whose branch somebody asked about since the history was read last.
    pub(super) epochs: Vec<Epoch>,
    /// The replica's last answer, on its present connection.
    seen: Option<ServerReport>,
    /// The replica could not be asked the last time.
    is_away: bool,
    /// What the apps were told last; `None` after they were told that it cannot be asked.
    told: Option<ServerReport>,
    server_start_us: i64,
    identity: Option<IdentityDigest>,
    unreachable_told_at: Option<Instant>,
}

impl RegionState {
    pub(super) fn new(ttl: Duration) -> Self {
        let now = Instant::now();
        Self {
            interests: HighestInterest::new(ttl, now),
            youngest: now,
            asked: false,
            epochs: Vec::new(),
            seen: None,
            is_away: false,
            told: None,
            server_start_us: 0,
            identity: None,
            unreachable_told_at: None,
        }
    }

    /// Notes an interest; what to tell at once if the replica is known to be away.
    pub(super) fn interest(
        &mut self,
        interest: &Interest,
        now: Instant,
    ) -> Option<ReplicaProgress> {
        if self.interests.add(interest.lsn, now) {
            self.youngest = now;
        }
        for epoch in interest.epochs.iter().take(INTEREST_MAX_EPOCHS) {
            if self.epochs.len() < INTEREST_MAX_EPOCHS && !self.epochs.contains(epoch) {
                self.epochs.push(*epoch);
            }
        }
        self.asked = true;
        if self.is_away { self.unreachable(now) } else { None }
    }

    pub(super) fn demand(&mut self, now: Instant) -> Option<Demand> {
        let highest = self.interests.highest(now)?;
        let reached = self.seen.and_then(|report| report.replayed);
        let is_reached = reached.is_some_and(|reached| reached >= highest);
        (self.asked || !is_reached)
            .then_some(Demand { youngest: self.youngest, at_once: self.asked })
    }

    /// Notes an answer of the replica; what to tell.
    pub(super) fn saw(&mut self, report: ServerReport, now: Instant) -> Option<ReplicaProgress> {
        self.seen = Some(report);
        self.is_away = false;
        (self.server_start_us, self.identity) = (report.server_start_us, report.identity);
        self.unreachable_told_at = None;
        let is_wanted = self.interests.highest(now).is_some();
        let is_news = self.told != Some(report);
        if !(self.asked || is_news && is_wanted) {
            return None;
        }
        self.asked = false;
        self.told = Some(report);
        // The history will be read next, and told together with this.
        let is_to_come = report.replayed.is_some() && !self.epochs.is_empty();
        (!is_to_come).then(|| report.into())
    }

    /// Notes that the history was read; what to tell.
    pub(super) fn told(&mut self, answer: HistoryAnswer) -> Option<ReplicaProgress> {
        self.epochs.clear();
        let report = self.seen?;
        let unreadable = answer.unreadable.map(|why| why.to_string());
        Some(ReplicaProgress { branches: answer.branches, unreadable, ..report.into() })
    }

    /// Notes that the replica could not be asked; what to tell.
    pub(super) fn lost(&mut self, now: Instant) -> Option<ReplicaProgress> {
        (self.seen, self.told, self.is_away) = (None, None, true);
        self.interests.highest(now)?;
        self.unreachable(now)
    }

    fn unreachable(&mut self, now: Instant) -> Option<ReplicaProgress> {
        let told_at = self.unreachable_told_at;
        if told_at.is_some_and(|then| now.duration_since(then) < UNREACHABLE_INTERVAL) {
            return None;
        }
        self.unreachable_told_at = Some(now);
        let server_start_us = self.server_start_us;
        let report = ServerReport {
            replayed: None,
            timeline: None,
            server_start_us,
            in_recovery: true,
            identity: self.identity,
        };
        Some(report.into())
    }
}

#[cfg(test)]
mod tests {
    use farwrite_schemas::{Branch, BranchKnown, Lsn};
    use sqlx::types::Uuid;

    use super::*;

    const TTL: Duration = Duration::from_secs(2);

    fn sight(lsn: u64) -> ServerReport {
        let replayed = Some(Lsn(lsn));
        let identity = None;
        ServerReport { replayed, timeline: None, server_start_us: 1, in_recovery: true, identity }
    }

    fn interest(lsn: u64) -> Interest {
        Interest { lsn: Lsn(lsn), epochs: Vec::new() }
    }

    #[tokio::test(start_paused = true)]
    async fn polls_for_an_interest_until_it_is_reached_and_tells_each_advance_once() {
        let mut state = RegionState::new(TTL);
        let now = Instant::now();
        assert_eq!((state.saw(sight(5), now), state.demand(now)), (None, None), "nobody asked");
        assert_eq!(state.interest(&interest(7), now), None);
        assert_eq!(state.demand(now), Some(Demand { youngest: now, at_once: true }));
        assert_eq!(state.saw(sight(5), now), Some(sight(5).into()), "the interest is answered");
        assert_eq!(state.demand(now), Some(Demand { youngest: now, at_once: false }));
        assert_eq!(state.saw(sight(5), now), None, "no news");
        assert_eq!(state.saw(sight(6), now), Some(sight(6).into()));
        assert_eq!(state.saw(sight(9), now), Some(sight(9).into()));
        assert_eq!(state.demand(now), None, "reached");
        // An interest in what was reached is answered by a new look all the same.
        assert_eq!(state.interest(&interest(7), now), None);
        assert!(state.demand(now).is_some());
        assert_eq!(state.saw(sight(9), now), Some(sight(9).into()));
        assert_eq!(state.demand(now), None);
    }

    #[tokio::test(start_paused = true)]
    async fn an_interest_that_is_not_repeated_ends_the_polling() {
        let mut state = RegionState::new(TTL);
        let now = Instant::now();
        state.interest(&interest(7), now);
        assert!(state.demand(now + TTL).is_some());
        assert_eq!(state.demand(now + 3 * TTL), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_replica_that_is_away_is_told_at_once_and_then_now_and_again() {
        let mut state = RegionState::new(TTL);
        let now = Instant::now();
        let at = |ms| now + Duration::from_millis(ms);
        let away: ReplicaProgress = ServerReport { replayed: None, ..sight(0) }.into();
        let told = |progress: &ReplicaProgress| Some(progress.clone());
        state.saw(sight(5), now);
        assert_eq!(state.lost(at(0)), None, "nobody is interested");
        assert_eq!(state.interest(&interest(7), at(0)), told(&away));
        assert_eq!(state.lost(at(50)), None, "told a moment ago");
        assert_eq!(state.interest(&interest(8), at(100)), None);
        assert_eq!(state.lost(at(250)), told(&away));
        assert_eq!(state.saw(sight(3), at(300)), Some(sight(3).into()), "back, and behind");
        assert_eq!(state.lost(at(301)), told(&away), "lost again: at once");
    }

    #[tokio::test(start_paused = true)]
    async fn a_history_that_is_asked_for_is_told_with_the_position() {
        let mut state = RegionState::new(TTL);
        let now = Instant::now();
        let epoch = Epoch(Uuid::from_u128(7));
        state.interest(&Interest { lsn: Lsn(7), epochs: vec![epoch, epoch] }, now);
        assert_eq!(state.epochs, [epoch]);
        assert_eq!(state.saw(sight(5), now), None, "together with the history");
        let known = BranchKnown::Absent { absent_at: Lsn(5), forgotten: None, latest: None };
        let branches = vec![Branch { epoch, known }];
        let told = HistoryAnswer { branches: branches.clone(), unreadable: None };
        assert_eq!(state.told(told), Some(ReplicaProgress { branches, ..sight(5).into() }));
        assert!(state.epochs.is_empty());
        let promoted = ServerReport { in_recovery: false, ..sight(6) };
        assert_eq!(state.saw(promoted, now), Some(promoted.into()));
    }
}
