//! A batch that failed, or may well fail: run in parts, and its commands one by one where that fails,
//! too. What a command does alone is judged.

use std::time::Duration;

use tracing::{error, warn};

use crate::stream::Place;

use super::{
    Lane, LaneEnd,
    attempt::{Care, FailedCommand, GUARDED_MAX, Settled},
    batch::Item,
    judge::{self, Next},
    work::Work,
};

/// First and longest pause before what was decided about a command is recorded again.
const RECORD_PAUSE: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(5));

impl Lane {
    /// A batch that failed plain, or may well fail: guarded, and where that fails too, one by one.
    pub(super) async fn apply_in_parts(
        &mut self,
        mut items: &mut [Item],
        end: Place,
    ) -> Result<(), LaneEnd> {
        // Until a whole batch had no failure, the next ones begin guarded: where one in a hundred
        // is rejected, nine of ten batches would fail plain.
        self.guarded = false;
        while !items.is_empty() {
            let done = match self.attempt(items, end, Care::Guarded).await? {
                Ok(committed) => {
                    let done = committed.settled.len();
                    self.guarded |= committed.settled.iter().any(Settled::is_rejected);
                    self.settle(&items[..done], committed).await?;
                    done
                }
                Err(_) => {
                    let part = items.len().min(GUARDED_MAX);
                    for index in 0..part {
                        let is_last = index + 1 == items.len();
                        let to = if is_last { end } else { self.place(&items[index]) };
                        self.apply_alone(&mut items[index], to, None).await?;
                    }
                    part
                }
            };
            items = &mut items[done..];
        }
        Ok(())
    }

    /// One command in a transaction of its own: what happens to it now is its own doing.
    pub(super) async fn apply_alone(
        &mut self,
        item: &mut Item,
        to: Place,
        failed: Option<FailedCommand>,
    ) -> Result<(), LaneEnd> {
        self.reconsider(item).await?;
        let mut last = failed;
        let mut pause = RECORD_PAUSE.0;
        loop {
            if let Some(failed) = last.take() {
                if item.work.is_settled() {
                    let code = failed.rejection.code;
                    warn!(
                        lane = self.number,
                        code, "what was decided could not be recorded: trying again"
                    );
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(RECORD_PAUSE.1);
                } else {
                    self.judge(item, failed)?;
                }
            }
            match self.attempt(std::slice::from_mut(item), to, Care::Plain).await? {
                Ok(committed) => return self.settle(std::slice::from_ref(item), committed).await,
                Err(failed) => last = Some(failed),
            }
        }
    }

    /// Decides about a command that failed alone, and tells operators.
    fn judge(&mut self, item: &mut Item, failed: FailedCommand) -> Result<(), LaneEnd> {
        let (lane, sequence) = (self.number, item.delivery.sequence);
        let code = failed.rejection.code.clone();
        if code == "FW003" {
            self.functions.forget();
        }
        let reason = failed.rejection.to_string();
        let next = judge::judge(item, failed, &self.shared.config, &self.shared.refreshed);
        let (id, attempts) = (item.delivery.message_id().unwrap_or("none"), item.attempts);
        match (next, &item.work) {
            (Next::Refresh, _) => return Err(LaneEnd::World { lane, reason, blames: false }),
            (Next::Again, _) => {
                warn!(lane, sequence, id, attempts, code, "failed by chance: trying again");
            }
            (Next::Record, Work::Park(park)) => {
                let reason = park.reason.word();
                warn!(lane, sequence, id, attempts, code, reason, wait = ?park.wait, "parked");
            }
            (Next::Record, Work::DeadLetter { letter, .. }) => {
                let reason = &letter.reason;
                error!(lane, sequence, id, attempts, code, reason, "dead-lettered");
            }
            // A rejection is told to its caller.
            (
                Next::Record,
                Work::Reject(_) | Work::Function(_) | Work::Handler(_) | Work::Atomic { .. },
            ) => {}
        }
        Ok(())
    }
}
