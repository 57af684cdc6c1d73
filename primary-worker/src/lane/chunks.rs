//! A batch that failed, or may well fail: applied in chunks, and one command at a time where that
//! fails too. What a command does alone is judged.

use std::time::Duration;

use tracing::{error, warn};

use crate::{
    apply::{
        failure::FailedCommand,
        item::BatchItem,
        judge::{self, Next},
        manner::{Care, GUARDED_MAX},
        settled::Settled,
        work::CommandWork,
    },
    life::end::ServingEnd,
    stream::position::StreamPosition,
};

use super::{context::LaneContext, open::Lane};

/// First and longest pause before what was decided about a command is recorded again.
const RECORD_PAUSE: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(5));

impl Lane {
    /// A batch that failed plain, or may well fail: guarded, and where that fails too, one by one.
    pub(crate) async fn apply_in_chunks(
        &mut self,
        mut items: &mut [BatchItem],
        end: StreamPosition,
    ) -> Result<(), ServingEnd> {
        // Until a whole batch had no failure, the next ones begin guarded: where one in a hundred
        // is rejected, nine of ten batches would fail plain.
        self.guarded = false;
        while !items.is_empty() {
            let offered = items.len().min(self.offered_max);
            let to =
                if offered == items.len() { end } else { self.position_after(&items[offered - 1]) };
            let chunk = &mut items[..offered];
            let done = match self.attempt(chunk, to, Care::Guarded).await? {
                Ok(committed) => {
                    let done = committed.settled.len();
                    self.guarded |= committed.settled.iter().any(Settled::is_rejected);
                    let max = self.shared.config.batch_max_commands;
                    self.offered_max = next_offered_max(self.offered_max, offered, done, max);
                    self.settle(&chunk[..done], committed).await?;
                    done
                }
                Err(_) => {
                    let alone = offered.min(GUARDED_MAX);
                    for index in 0..alone {
                        let is_last = index + 1 == items.len();
                        let to = if is_last { end } else { self.position_after(&items[index]) };
                        self.apply_alone(&mut items[index], to, None).await?;
                    }
                    alone
                }
            };
            items = &mut items[done..];
        }
        Ok(())
    }

    /// One command in a transaction of its own: what happens to it now is its own doing.
    pub(crate) async fn apply_alone(
        &mut self,
        item: &mut BatchItem,
        to: StreamPosition,
        failed: Option<FailedCommand>,
    ) -> Result<(), ServingEnd> {
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
                } else if self.judge(item, failed) == Next::Refresh {
                    self.renew_session().await?;
                }
            }
            match self.attempt(std::slice::from_mut(item), to, Care::Plain).await? {
                Ok(committed) => return self.settle(std::slice::from_ref(item), committed).await,
                Err(failed) => last = Some(failed),
            }
        }
    }

    /// Decides about a command that failed alone, and tells operators.
    fn judge(&mut self, item: &mut BatchItem, failed: FailedCommand) -> Next {
        let (lane, sequence) = (self.number, item.delivery.sequence);
        let code = failed.rejection.code.clone();
        if code == "FW003" {
            self.functions.forget();
        }
        let next = judge::judge(item, failed, &self.shared.config, &self.shared.refreshed);
        let (id, attempts) = (item.delivery.message_id().unwrap_or("none"), item.attempts);
        match (next, &item.work) {
            (Next::Again, _) => {
                warn!(lane, sequence, id, attempts, code, "failed by chance: trying again");
            }
            (Next::Refresh, _) => {
                warn!(
                    lane,
                    sequence, id, code, "a plan may be stale: trying again in a new session"
                );
            }
            (Next::Record, CommandWork::Park(park)) => {
                let reason = park.reason.as_str();
                warn!(lane, sequence, id, attempts, code, reason, wait = ?park.wait, "parked");
            }
            (Next::Record, CommandWork::DeadLetter { letter, .. }) => {
                let reason = &letter.reason;
                error!(lane, sequence, id, attempts, code, reason, "dead-lettered");
            }
            // A rejection is told to its caller.
            (
                Next::Record,
                CommandWork::Reject(_)
                | CommandWork::Function(_)
                | CommandWork::Handler(_)
                | CommandWork::Atomic { .. },
            ) => {}
        }
        next
    }

    /// Makes a new session of the same server: a change of the schema may have made a plan stale. What a
    /// function's language keeps of its types goes with the session only.
    async fn renew_session(&mut self) -> Result<(), ServingEnd> {
        let LaneContext { sessions, takeover, .. } = &self.shared;
        self.connection = sessions.lane(takeover.epoch).await?;
        Ok(())
    }
}

/// How many commands to offer to the next guarded attempt. One attempt settles as many commands as
/// its subtransactions last for; what is offered beyond that is sent, and looked up, in vain.
fn next_offered_max(before: usize, offered: usize, done: usize, max: usize) -> usize {
    if done < offered { done.max(1) } else { before.max(offered + offered / 4 + 1).min(max) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_are_offered_as_were_settled_and_more_while_all_are() {
        assert_eq!(next_offered_max(256, 256, 90, 256), 90);
        assert_eq!(next_offered_max(90, 90, 90, 256), 113);
        assert_eq!(next_offered_max(250, 250, 250, 256), 256);
        assert_eq!(next_offered_max(90, 3, 3, 256), 90, "there were no more");
        assert_eq!((next_offered_max(1, 1, 1, 256), next_offered_max(1, 1, 0, 256)), (2, 1));
    }
}
