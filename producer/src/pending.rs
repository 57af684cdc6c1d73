//! The count of calls that are pending, and its bound.
//!
//! A call of any verb, and a question, holds one [`PendingCall`] from the verb to its answer. A
//! dropped future gives it back.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

/// How many calls are pending, of one producer.
#[derive(Debug)]
pub(crate) struct PendingCalls {
    count: AtomicUsize,
    limit: usize,
}

impl PendingCalls {
    pub(crate) fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self { count: AtomicUsize::default(), limit })
    }

    /// Counts one more call; `None` when as many are pending as may be.
    pub(crate) fn enter(self: &Arc<Self>) -> Option<PendingCall> {
        let one_more = |pending| (pending < self.limit).then_some(pending + 1);
        let entered = self.count.fetch_update(Ordering::SeqCst, Ordering::SeqCst, one_more);
        entered.is_ok().then(|| PendingCall(Arc::clone(self)))
    }

    pub(crate) fn count(&self) -> usize {
        self.count.load(Ordering::SeqCst)
    }

    pub(crate) const fn limit(&self) -> usize {
        self.limit
    }
}

/// One call that is pending, until this is dropped.
#[derive(Debug)]
pub(crate) struct PendingCall(Arc<PendingCalls>);

impl Drop for PendingCall {
    fn drop(&mut self) {
        self.0.count.fetch_sub(1, Ordering::SeqCst);
    }
}
