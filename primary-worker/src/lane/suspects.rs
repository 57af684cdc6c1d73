//! Commands that run alone after an unclean end, each counted before it does: one that takes its
//! backend, its memory or the worker down every time is found by its count, and not run any more.
//!
//! Lanes run such commands at the same time, and what one of them takes down counts for all that
//! were under way. So one that was counted before has its turn while no other lane's has: only its
//! own doing brings its count further.

use std::sync::Arc;

use tokio::sync::{OwnedRwLockReadGuard, OwnedRwLockWriteGuard, RwLock};

use crate::apply::work::Work;

use super::{
    batch::Item,
    run::{Lane, LaneEnd},
};

/// How often a command may run alone and take its backend or its memory down.
const SUSPECT_MAX: i32 = 3;
/// How many such runs a lane remembers.
const SUSPECTS_MAX: i32 = 64;

/// What the lanes of a takeover take turns by.
#[derive(Clone, Default)]
pub(crate) struct Turns(Arc<RwLock<()>>);

/// A turn to run alone in: beside others that were not counted before, or without any.
pub(crate) type Turn = (Option<OwnedRwLockReadGuard<()>>, Option<OwnedRwLockWriteGuard<()>>);

impl Lane {
    /// Waits for a command's turn to run alone: no longer than a command may run, since a lane that
    /// stands still must not stop the others.
    pub(crate) async fn turn(&self, item: &Item) -> Result<Turn, LaneEnd> {
        if self.has_turn {
            return Ok(Turn::default());
        }
        let turns = Arc::clone(&self.shared.turns.0);
        let before = self.shared.takeover.lanes.get(self.number as usize);
        let sequence = item.delivery.sequence.cast_signed();
        let was_counted = before.is_some_and(|lane| lane.suspects.contains(&sequence));
        let turn = async {
            match was_counted {
                true => (None, Some(turns.write_owned().await)),
                false => (Some(turns.read_owned().await), None),
            }
        };
        tokio::select! {
            biased;
            () = self.stop.cancelled() => Err(LaneEnd::Drained),
            turn = tokio::time::timeout(self.shared.config.statement_timeout, turn) => {
                Ok(turn.unwrap_or_default())
            }
        }
    }

    /// Counts that a command is about to run alone, committed before it does. One that was counted
    /// too often is not run any more. False for one that does not run.
    pub(crate) async fn suspect(&mut self, item: &mut Item) -> Result<bool, LaneEnd> {
        if item.work.is_settled() {
            return Ok(false);
        }
        let takeover = &self.shared.takeover;
        let attempts: Result<Option<i32>, sqlx::Error> = sqlx::query_scalar(
            "UPDATE farwrite.lanes
             SET suspects = (suspects || $4::bigint)[greatest(1, cardinality(suspects) + 2 - $5):]
             WHERE stream_id = $1 AND lane = $2 AND epoch = $3
             RETURNING cardinality(array_positions(suspects, $4))",
        )
        .bind(takeover.stream_id)
        .bind(self.number.cast_signed())
        .bind(takeover.epoch.0)
        .bind(item.delivery.sequence.cast_signed())
        .bind(SUSPECTS_MAX)
        .fetch_optional(&mut self.connection)
        .await;
        let attempts = attempts.map_err(|error| self.world(&error))?.ok_or(LaneEnd::Fenced)?;
        if attempts > SUSPECT_MAX {
            let message = format!(
                "it ran alone {SUSPECT_MAX} times, and each time its backend, its memory or the worker was gone"
            );
            item.work = Work::dead_letter("took_the_primary_down", message, true);
        }
        Ok(true)
    }

    /// A command that was counted came to an end, whichever: it took nothing down.
    pub(crate) async fn acquit(&mut self, item: &Item) -> Result<(), LaneEnd> {
        let takeover = &self.shared.takeover;
        let acquitted = sqlx::query(
            "UPDATE farwrite.lanes SET suspects = array_remove(suspects, $4)
             WHERE stream_id = $1 AND lane = $2 AND epoch = $3",
        )
        .bind(takeover.stream_id)
        .bind(self.number.cast_signed())
        .bind(takeover.epoch.0)
        .bind(item.delivery.sequence.cast_signed())
        .execute(&mut self.connection)
        .await;
        acquitted.map(drop).map_err(|error| self.world(&error))
    }
}
