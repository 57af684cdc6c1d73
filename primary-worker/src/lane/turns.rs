//! Turns of lanes to run a suspect: data, and nothing else.

use std::sync::Arc;

use tokio::sync::{OwnedRwLockReadGuard, OwnedRwLockWriteGuard, RwLock};

/// What the lanes of a takeover take turns by.
#[derive(Clone, Default)]
pub(crate) struct SuspectTurns(pub(super) Arc<RwLock<()>>);

/// A turn to run a suspect: beside suspects of other lanes that were not counted before, or without
/// any.
pub(crate) type SuspectTurn = (Option<OwnedRwLockReadGuard<()>>, Option<OwnedRwLockWriteGuard<()>>);
