//! Applying what a lane took: finding how, cutting it into batches, and applying each.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    time::{Duration, Instant},
};

use futures_util::FutureExt;
use tracing::{error, info};

use crate::{
    apply::{
        attempt::attempt,
        failure::{FailedCommand, Failure},
        item::{BatchItem, ParkedBefore},
        manner::{Bounds, Care, Manner},
        resolve::Resolver,
        settled::CommittedBatch,
        work::{CommandWork, Park, ParkReason},
    },
    failpoint::Failpoint,
    life::end::ServingEnd,
    metrics,
    store::{lanes, server},
    stream::{delivery::Delivery, position::StreamPosition},
};

use super::{
    batch::{LaneBatch, cut},
    context::LaneContext,
    ends::{end_of, unavailable},
    open::Lane,
};

/// How long a lane whose key queues are full waits before it tries again.
const FULL_PAUSE: Duration = Duration::from_millis(500);

/// The SQLSTATE of a full disk.
const DISK_FULL: &str = "53100";
/// How long a connection may take to show that it lives on.
const PROBE_WITHIN: Duration = Duration::from_secs(2);

impl Lane {
    /// Applies commands of the stream, or parked ones.
    pub(super) async fn apply_all(
        &mut self,
        deliveries: Vec<(Delivery, Option<ParkedBefore>)>,
    ) -> Result<(), ServingEnd> {
        let works = self.works(&deliveries).await?;
        let hints = &self.shared.takeover.hints;
        let is_confirmed = self.shared.confirm.is_some();
        let items = deliveries.into_iter().zip(works).map(|((delivery, parked), work)| {
            // A parked command was not settled, though commands around it were.
            let expires_ns = match parked {
                Some(_) => delivery.expires_ns(),
                None => hints.expiry_of(&delivery),
            };
            // Whatever the hint says: it is no truth.
            let unconfirmed = is_confirmed && delivery.expires_ns().is_some();
            BatchItem { unconfirmed, ..BatchItem::new(delivery, work, parked, expires_ns) }
        });
        for batch in cut(items) {
            self.apply(batch).await?;
        }
        Ok(())
    }

    /// Finds how each command is to be applied; reads the registry again before one is unknown.
    pub(super) async fn works(
        &mut self,
        deliveries: &[(Delivery, Option<ParkedBefore>)],
    ) -> Result<Vec<CommandWork>, ServingEnd> {
        if let Some(works) = self.known_works(deliveries, false) {
            return Ok(works);
        }
        let refreshed = self.functions.refresh(&mut self.connection).await;
        refreshed.map_err(unavailable)?;
        Ok(self.known_works(deliveries, true).unwrap_or_default())
    }

    /// Looks again for what a command lacked when it was taken: while the lane stood still it may
    /// have come, and parking it now would only cost it a turn.
    pub(super) async fn reconsider(&mut self, item: &mut BatchItem) -> Result<(), ServingEnd> {
        let CommandWork::Park(Park { reason: ParkReason::Unknown, .. }) = item.work else {
            return Ok(());
        };
        let mut work = self.resolver().work_of(&item.delivery, item.parked.as_ref(), false);
        if work.is_none() {
            let refreshed = self.functions.refresh(&mut self.connection).await;
            refreshed.map_err(unavailable)?;
            work = self.resolver().work_of(&item.delivery, item.parked.as_ref(), true);
        }
        if let Some(work) = work {
            item.work = work;
        }
        Ok(())
    }

    pub(super) fn resolver(&self) -> Resolver<'_> {
        let LaneContext { config, handlers, takeover, .. } = &self.shared;
        let horizon_ms = takeover.horizon.ms();
        Resolver { config, handlers, functions: &self.functions, horizon_ms }
    }

    pub(super) fn known_works(
        &self,
        deliveries: &[(Delivery, Option<ParkedBefore>)],
        last_word: bool,
    ) -> Option<Vec<CommandWork>> {
        let resolver = self.resolver();
        let work = |(delivery, parked): &(Delivery, Option<ParkedBefore>)| {
            let work = AssertUnwindSafe(|| resolver.work_of(delivery, parked.as_ref(), last_word));
            catch_unwind(work).unwrap_or_else(|_| {
                let message = "reading it panicked; the worker's log says where";
                Some(CommandWork::dead_letter("panicked", message, true))
            })
        };
        deliveries.iter().map(work).collect()
    }

    /// Applies a batch until each of its commands is settled.
    pub(super) async fn apply(&mut self, mut batch: LaneBatch) -> Result<(), ServingEnd> {
        let source = batch.source;
        let items = &mut batch.items[..];
        let careful = (*self.careful(source)).min(items.len());
        let (alone, items) = items.split_at_mut(careful);
        for index in 0..alone.len() {
            let to = if index + 1 == alone.len() && items.is_empty() {
                self.end_of_batch(source)
            } else {
                self.position_after(&alone[index])
            };
            let turn = self.turn(&alone[index]).await?;
            let is_first = !std::mem::replace(&mut self.has_turn, true);
            let is_suspect = self.suspect(&mut alone[index]).await?;
            self.apply_alone(&mut alone[index], to, None).await?;
            if is_suspect {
                self.acquit(&alone[index]).await?;
                *self.careful(source) -= 1;
            }
            self.has_turn = !is_first;
            drop(turn);
        }
        if items.is_empty() {
            return Ok(());
        }
        if self.guarded && items.len() > 1 {
            return self.apply_in_chunks(items, self.end_of_batch(source)).await;
        }
        match (self.attempt(items, self.end_of_batch(source), Care::Plain).await?, &mut *items) {
            (Ok(committed), items) => self.settle(items, committed).await,
            (Err(failed), [item]) => {
                self.apply_alone(item, self.end_of_batch(source), Some(failed)).await
            }
            (Err(_), items) => {
                metrics::batch_retried();
                self.apply_in_chunks(items, self.end_of_batch(source)).await
            }
        }
    }

    /// One attempt; a failure that is not a command's ends the lane. While as much waits as may,
    /// what is due is applied and the attempt made again.
    pub(super) async fn attempt(
        &mut self,
        items: &mut [BatchItem],
        to: StreamPosition,
        care: Care,
    ) -> Result<Result<CommittedBatch, FailedCommand>, ServingEnd> {
        let mut is_full = false;
        loop {
            let fence = self.fence(to);
            let config = &self.shared.config;
            let manner = Manner {
                care,
                staged: self.waits,
                bounds: Bounds {
                    parked_max: config.parked_max / u64::from(config.lanes),
                    key_queue_max: config.parked_max_per_key,
                },
                statement_timeout: config.statement_timeout,
            };
            let began = Instant::now();
            let failure = match attempt(&mut self.connection, items, &fence, manner).await {
                Ok(committed) => {
                    metrics::applied(committed.settled.len(), began.elapsed());
                    if is_full {
                        metrics::lane_full(self.number, false);
                        self.shared.health.over(&format!("lane {}", self.number));
                        info!(lane = self.number, "there is room again for what must wait");
                    }
                    return Ok(Ok(committed));
                }
                Err(Failure::Command(failed)) => return Ok(Err(failed)),
                Err(Failure::Unavailable { reason: rejection, own: Some(verdict), .. })
                    if items.iter().any(|item| !item.work.is_settled())
                        && self.lives_on(&rejection.code).await =>
                {
                    return Ok(Err(FailedCommand { verdict, rejection, member: None }));
                }
                // One by one, so that those which need not wait, or find room, go on.
                Err(Failure::Full) if items.len() > 1 => return Ok(Err(FailedCommand::full())),
                Err(failure) => failure,
            };
            match failure {
                Failure::Full => {
                    if !is_full {
                        is_full = true;
                        metrics::lane_full(self.number, true);
                        let reason = "as many commands are parked as may be";
                        self.shared.health.trouble(&format!("lane {}", self.number), reason);
                        let bound = manner.bounds.parked_max;
                        error!(
                            lane = self.number,
                            bound,
                            "as many commands are parked as may be: the lane stops until some are applied, discarded or cancelled (parked-max)"
                        );
                    }
                    self.make_room().await?;
                    for item in &mut *items {
                        self.reconsider(item).await?;
                    }
                }
                failure => return Err(end_of(failure)),
            }
        }
    }

    /// Whether the connection lives on and the primary takes this lane's writes on it: then a failure
    /// that looked like the primary's was a command's own, such as the error of another server that it
    /// asked. A small write needs no room: where the disk is said to be full, room is asked for.
    async fn lives_on(&mut self, code: &str) -> bool {
        let (key, position) = (self.key(), self.position.sequence);
        let probing = async {
            Ok::<_, sqlx::Error>(
                lanes::touch(&mut self.connection, key, position).await?
                    && (code != DISK_FULL || server::has_room(&mut self.connection).await?),
            )
        };
        matches!(tokio::time::timeout(PROBE_WITHIN, probing).await, Ok(Ok(true)))
    }

    /// Waits a little, and applies what is due. Boxed, since applying may find the key queues
    /// full; what is parked adds nothing to them, so that it goes no deeper.
    pub(super) fn make_room(
        &mut self,
    ) -> Pin<Box<dyn Future<Output = Result<(), ServingEnd>> + Send + '_>> {
        Box::pin(async move {
            tokio::select! {
                biased;
                () = self.stop.cancelled() => return Err(ServingEnd::Stopped),
                () = tokio::time::sleep(FULL_PAUSE) => {}
            }
            self.apply_due().await
        })
    }

    /// Moves on to where a committed batch ends, and tells everybody.
    pub(super) async fn settle(
        &mut self,
        items: &[BatchItem],
        committed: CommittedBatch,
    ) -> Result<(), ServingEnd> {
        self.position = committed.position;
        self.waits = committed.waits;
        if committed.waits {
            // Something may have been parked with a short wait, or a key queue goes on.
            self.look_at = self.look_at.min(Instant::now() + Duration::from_millis(10));
        }
        Failpoint::AfterCommit.pass();
        let settling = self.settler.settle(&mut self.connection, items, &committed);
        match AssertUnwindSafe(settling).catch_unwind().await {
            Ok(settled) => settled.map_err(unavailable)?,
            // The commit stands, and its outcomes can be asked for.
            Err(_) => error!(lane = self.number, "answering callers panicked: they are not told"),
        }
        Failpoint::AfterReply.pass();
        Ok(())
    }
}
