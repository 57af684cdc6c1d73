//! Commands that run alone after an unclean end, each counted before it does: one that takes its
//! backend, its memory or the worker down every time is found by its count, and not run any more.

use super::{Lane, LaneEnd, batch::Item, work::Work};

/// How often a command may run alone and take its backend or its memory down.
const SUSPECT_MAX: i32 = 3;
/// How many such runs a lane remembers.
const SUSPECTS_MAX: i32 = 64;

impl Lane {
    /// Counts that a command is about to run alone, committed before it does. One that was counted
    /// too often is not run any more. False for one that does not run.
    pub(super) async fn suspect(&mut self, item: &mut Item) -> Result<bool, LaneEnd> {
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
    pub(super) async fn acquit(&mut self, item: &Item) -> Result<(), LaneEnd> {
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
