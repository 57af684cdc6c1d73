//! What a board does with what its source hears: it moves the mark and wakes those whom it reached.

use farwrite_schemas::{Branch, BranchKnown, Epoch, Lsn};
use tokio::time::Instant;

use super::{board::Board, entry::WaitQueue};
use crate::{
    answer::GoneReason,
    metrics,
    poll::{Audience, Demand, HistoryAnswer, ServerReport},
};

/// Past every position.
const EVERYBODY: Lsn = Lsn(u64::MAX);

impl Audience for Board {
    fn demand(&self) -> Option<Demand> {
        let state = self.lock();
        let youngest = state.youngest.filter(|_| state.waiters() > 0);
        Some(Demand { youngest: youngest.max(state.expected)?, at_once: false })
    }

    async fn demanded(&self) {
        self.registered.notified().await;
    }

    fn asking(&self) {
        let mut state = self.lock();
        state.polls += 1;
        state.expected = None;
        state.asked_at.get_or_insert_with(Instant::now);
    }

    async fn saw(&self, report: ServerReport) {
        let advance = self.lock().heard(report, self.limits.forget_after);
        let Some(advance) = advance else { return };
        if let Some(reached) = advance.reached {
            metrics::replayed(reached);
            let branch = if advance.timeline_changed { EVERYBODY } else { reached };
            self.wake(WaitQueue::Branch, branch).await;
        }
        if advance.timeline_changed {
            self.wake(WaitQueue::Doubt, EVERYBODY).await;
        }
        if !report.in_recovery {
            self.wake(WaitQueue::Bare, EVERYBODY).await;
        } else if let Some(reached) = advance.reached {
            self.wake(WaitQueue::Bare, reached).await;
        }
    }

    fn epochs(&self) -> Vec<Epoch> {
        self.lock().branches.wanted().to_vec()
    }

    async fn told(&self, answer: HistoryAnswer) {
        let is_news = self.lock().branches.learn(&answer);
        if is_news {
            self.wake(WaitQueue::Doubt, EVERYBODY).await;
            // A commit that is in another database's log is not waited for.
            let is_elsewhere =
                |branch: &Branch| matches!(branch.known, BranchKnown::Elsewhere { .. });
            if answer.branches.iter().any(is_elsewhere) {
                self.wake(WaitQueue::Branch, EVERYBODY).await;
            }
        }
    }

    async fn lost(&self, reason: GoneReason) {
        self.lock().lost(reason);
    }
}
