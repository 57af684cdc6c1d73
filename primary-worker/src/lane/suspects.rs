//! Commands that run alone after an unclean end, each counted before it does: one that takes its
//! backend, its memory or the worker down every time is found by its count, and not run any more.
//!
//! Lanes run such commands at the same time, and what one command takes down is counted for every
//! command that was under way. So a command that was counted before runs while no other lane runs
//! one: only its own doing raises its count further.
//!
//! A function runs in the database. Where the worker fell and the server did not, no function is to blame:
//! the takeover takes its last run back. A handler runs in the worker, and may have taken it down.

use std::sync::Arc;

use crate::{
    apply::{item::BatchItem, work::CommandWork},
    life::end::ServingEnd,
    store::lanes,
};

use super::{ends::unavailable, open::Lane, turns::SuspectTurn};

/// How often a command may run alone and take its backend or its memory down. Where its session was
/// ended by somebody, half a run is counted.
const SUSPECT_MAX: u32 = 3;
/// How many halves of such runs a lane remembers.
const SUSPECTS_MAX: i32 = 128;

impl Lane {
    /// Waits for a command's turn to run alone: no longer than a command may run, since a lane that
    /// stands still must not stop the others.
    pub(crate) async fn turn(&self, item: &BatchItem) -> Result<SuspectTurn, ServingEnd> {
        if self.has_turn {
            return Ok(SuspectTurn::default());
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
            () = self.stop.cancelled() => Err(ServingEnd::Stopped),
            turn = tokio::time::timeout(self.shared.config.statement_timeout, turn) => {
                Ok(turn.unwrap_or_default())
            }
        }
    }

    /// Counts that a command is about to run alone, committed before it does. One that was counted
    /// too often is not run any more. False for one that does not run.
    pub(crate) async fn suspect(&mut self, item: &mut BatchItem) -> Result<bool, ServingEnd> {
        if item.work.is_settled() {
            return Ok(false);
        }
        let (lane, sequence) = (self.key(), item.delivery.sequence.cast_signed());
        let in_worker = item.work.runs_in_worker();
        let counted =
            lanes::count_suspect(&mut self.connection, lane, sequence, in_worker, SUSPECTS_MAX);
        let counted = counted.await;
        let halves = counted.map_err(unavailable)?.ok_or(ServingEnd::Taken)?;
        if halves.unsigned_abs() >= 2 * SUSPECT_MAX {
            let message = format!(
                "it ran alone {SUSPECT_MAX} times or more, and each time its backend, its memory or the worker was gone"
            );
            item.work = CommandWork::dead_letter("took_the_primary_down", message, true);
        }
        Ok(true)
    }

    /// A command that was counted came to an end, whichever: it took nothing down.
    pub(crate) async fn acquit(&mut self, item: &BatchItem) -> Result<(), ServingEnd> {
        let (lane, sequence) = (self.key(), item.delivery.sequence.cast_signed());
        let acquitted = lanes::acquit_suspect(&mut self.connection, lane, sequence).await;
        acquitted.map_err(unavailable)
    }
}
