//! How long to wait for the server next door, by how often it was too late of late.
//!
//! A server that has used up the budget a few times in a row is only looked at for a while: every
//! wait for it would be in vain.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

/// Budgets that run out in a row before the server next door is only looked at.
const MISSES: u32 = 3;
/// For how long it is only looked at then.
const PASSED_OVER_FOR: Duration = Duration::from_secs(1);
/// How long a look may take: one question to the server next door.
const LOOK: Duration = Duration::from_millis(2);

/// How often the server next door was too late of late.
#[derive(Debug, Default)]
pub(crate) struct Patience(Mutex<Misses>);

#[derive(Debug, Default)]
struct Misses {
    in_a_row: u32,
    last: Option<Instant>,
}

impl Patience {
    fn lock(&self) -> MutexGuard<'_, Misses> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How long to wait, of a budget.
    pub(super) fn allows(&self, budget: Duration) -> Duration {
        let misses = self.lock();
        let is_recent = misses.last.is_some_and(|last| last.elapsed() < PASSED_OVER_FOR);
        if misses.in_a_row >= MISSES && is_recent { budget.min(LOOK) } else { budget }
    }

    pub(super) fn reached(&self) {
        self.lock().in_a_row = 0;
    }

    /// A wait ran out of time. A look alone says nothing.
    pub(super) fn missed(&self, waited: Duration) {
        if waited > LOOK {
            let mut misses = self.lock();
            misses.in_a_row = misses.in_a_row.saturating_add(1);
            misses.last = Some(Instant::now());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_server_that_is_late_again_and_again_is_passed_over_for_a_while() {
        let patience = Patience::default();
        let budget = Duration::from_millis(20);
        for _ in 0..MISSES {
            assert_eq!(patience.allows(budget), budget);
            patience.missed(budget);
        }
        assert_eq!(patience.allows(budget), LOOK);
        patience.missed(LOOK);
        tokio::time::advance(PASSED_OVER_FOR).await;
        assert_eq!(patience.allows(budget), budget, "tried again");
        patience.missed(budget);
        assert_eq!(patience.allows(budget), LOOK, "still late");
        patience.reached();
        assert_eq!(patience.allows(budget), budget, "caught up");
    }
}
