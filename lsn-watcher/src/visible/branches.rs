//! What is known of the branches of history that somebody waits on, on one start of the server.
//!
//! What a history says is final while the server runs: an epoch stays in it, and a timeline that ended
//! has ended. So what was read is kept, and only what is still open is asked again: an epoch that nobody asked about, one that was absent before its position was reached, and
//! a timeline that goes on while the server is on another.

use std::{collections::HashMap, sync::Arc};

use farwrite_schemas::{BranchKnown, Epoch, INTEREST_MAX_EPOCHS};

use crate::poll::HistoryAnswer;

/// The most epochs that are known at once. A database has one that matters, and a few in a failover;
/// more come from bookmarks that nobody gave out.
const KNOWN_MAX: usize = 64;

#[derive(Debug, Default)]
pub(crate) struct Branches {
    known: HashMap<Epoch, BranchKnown>,
    /// What somebody needs to know, oldest first.
    wanted: Vec<Epoch>,
    /// Why the history could not be read the last time.
    unreadable: Option<Arc<str>>,
}

impl Branches {
    pub(crate) fn get(&self, epoch: Epoch) -> Option<BranchKnown> {
        self.known.get(&epoch).copied()
    }

    pub(crate) fn unreadable(&self) -> Option<Arc<str>> {
        self.unreadable.clone()
    }

    /// Somebody needs to know more of an epoch. Beyond the bound it is not asked about in this
    /// round: a caller in doubt comes again.
    pub(crate) fn want(&mut self, epoch: Epoch) {
        if self.wanted.len() < INTEREST_MAX_EPOCHS && !self.wanted.contains(&epoch) {
            self.wanted.push(epoch);
        }
    }

    /// What to ask about.
    pub(crate) fn wanted(&self) -> &[Epoch] {
        &self.wanted
    }

    /// Notes what was read; whether any of it is news. What was asked stays wanted while it brought
    /// none.
    pub(crate) fn learn(&mut self, answer: &HistoryAnswer) -> bool {
        let mut is_news = self.unreadable != answer.unreadable;
        self.unreadable.clone_from(&answer.unreadable);
        for branch in &answer.branches {
            if self.known.len() >= KNOWN_MAX && !self.known.contains_key(&branch.epoch) {
                self.known.clear();
            }
            is_news |= self.known.insert(branch.epoch, branch.known) != Some(branch.known);
        }
        if is_news {
            self.wanted.clear();
        }
        is_news
    }

    /// The server was lost, or started anew: what its rows said counts no longer.
    pub(crate) fn forget(&mut self) {
        self.known.clear();
        self.unreadable = None;
    }
}

#[cfg(test)]
mod tests {
    use farwrite_schemas::{Branch, Lsn, Timeline};
    use sqlx::types::Uuid;

    use super::*;

    fn told(epoch: u128, proven: u64) -> HistoryAnswer {
        let known =
            BranchKnown::Held { timeline: Timeline(1), ends: None, proven: Some(Lsn(proven)) };
        HistoryAnswer {
            branches: vec![Branch { epoch: Epoch(Uuid::from_u128(epoch)), known }],
            unreadable: None,
        }
    }

    #[test]
    fn what_brought_no_news_stays_wanted() {
        let mut branches = Branches::default();
        let epoch = Epoch(Uuid::from_u128(1));
        branches.want(epoch);
        branches.want(epoch);
        assert_eq!(branches.wanted(), [epoch]);
        assert!(branches.learn(&told(1, 10)));
        assert!(branches.wanted().is_empty());
        branches.want(epoch);
        assert!(!branches.learn(&told(1, 10)), "the same again");
        assert_eq!(branches.wanted(), [epoch]);
        assert!(branches.learn(&told(1, 11)));
        assert!(branches.learn(&HistoryAnswer {
            unreadable: Some("denied".into()),
            ..HistoryAnswer::default()
        }));
        assert!(branches.learn(&HistoryAnswer::default()), "readable again");
    }

    #[test]
    fn epochs_that_nobody_gave_out_fill_nothing() {
        let mut branches = Branches::default();
        for epoch in 0..10_000 {
            branches.want(Epoch(Uuid::from_u128(epoch)));
            branches.learn(&told(epoch, 1));
            branches.want(Epoch(Uuid::from_u128(epoch)));
        }
        assert!(branches.known.len() <= KNOWN_MAX);
        assert!(branches.wanted().len() <= INTEREST_MAX_EPOCHS);
    }
}
