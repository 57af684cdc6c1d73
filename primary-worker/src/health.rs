//! Whether the worker is ready: serving, and no lane standing still.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// The worker's health, shared with whoever asks. A worker that is not ready is not broken: it
/// waits for the primary or for an operator, and restarting it helps nobody.
#[derive(Clone, Debug)]
pub struct Health(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    /// Why nothing is applied; `None` while the worker serves.
    waiting: Option<String>,
    /// Why a lane stands still, by lane.
    lanes: BTreeMap<u32, &'static str>,
}

impl Default for Health {
    fn default() -> Self {
        let waiting = Some("starting".to_owned());
        Self(Arc::new(Mutex::new(State { waiting, lanes: BTreeMap::new() })))
    }
}

impl Health {
    /// Why the worker is not ready, a line each; empty when it is.
    #[must_use]
    pub fn problems(&self) -> Vec<String> {
        let state = self.lock();
        let lanes = state.lanes.iter().map(|(lane, reason)| format!("lane {lane}: {reason}"));
        state.waiting.iter().map(|reason| format!("waiting: {reason}")).chain(lanes).collect()
    }

    pub(crate) fn serving(&self) {
        *self.lock() = State { waiting: None, lanes: BTreeMap::new() };
    }

    /// Another worker owns the database, and this one is ready to take over.
    pub(crate) fn standing_by(&self) {
        *self.lock() = State { waiting: None, lanes: BTreeMap::new() };
    }

    pub(crate) fn waiting(&self, reason: &str) {
        *self.lock() = State { waiting: Some(reason.to_owned()), lanes: BTreeMap::new() };
    }

    pub(crate) fn lane_stands_still(&self, lane: u32, reason: &'static str) {
        self.lock().lanes.insert(lane, reason);
    }

    pub(crate) fn lane_goes_on(&self, lane: u32) {
        self.lock().lanes.remove(&lane);
    }

    /// What is in it is whole whatever happened to its last holder.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_ready_while_it_serves_and_every_lane_moves() {
        let health = Health::default();
        assert_eq!(health.problems(), ["waiting: starting"]);
        health.serving();
        assert!(health.problems().is_empty());
        health.lane_stands_still(2, "full");
        assert_eq!(health.problems(), ["lane 2: full"]);
        health.lane_goes_on(2);
        assert!(health.problems().is_empty());
        health.waiting("the primary is away");
        assert_eq!(health.problems(), ["waiting: the primary is away"]);
    }
}
