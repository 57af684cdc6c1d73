//! Whether a region's watcher is of use: NATS is there, and the replica answered when it was asked
//! last.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A region's watcher's health, shared with whoever asks. A watcher that is not ready is not broken:
/// it waits for a server, and restarting it helps nobody.
#[derive(Clone, Debug, Default)]
pub struct Health(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    /// Why the replica could not be asked the last time.
    replica: Option<String>,
    was_asked: bool,
    is_disconnected: bool,
}

impl Health {
    /// Why the watcher is not ready, a line each; empty when it is.
    #[must_use]
    pub fn problems(&self) -> Vec<String> {
        let state = self.lock();
        let starting = (!state.was_asked).then(|| "starting".to_owned());
        let replica = state.replica.as_ref().map(|why| format!("the replica: {why}"));
        let nats = state.is_disconnected.then(|| "NATS is not connected".to_owned());
        starting.into_iter().chain(replica).chain(nats).collect()
    }

    pub(crate) fn answered(&self) {
        let mut state = self.lock();
        (state.replica, state.was_asked) = (None, true);
    }

    pub(crate) fn lost(&self, why: &impl ToString) {
        let mut state = self.lock();
        (state.replica, state.was_asked) = (Some(why.to_string()), true);
    }

    /// NATS came or went.
    pub fn nats(&self, is_connected: bool) {
        self.lock().is_disconnected = !is_connected;
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
