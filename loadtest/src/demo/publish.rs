//! Publishing the file: every row, in the file's order, from its own region.
//!
//! One loop calls the verbs, one row after the other; that fixes the order in which each producer
//! sees them. Separate tasks await the answers, as many as there are permits. From here on Farwrite
//! keeps an aircraft's commands in order.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use farwrite_producer::{Accepted, Command, CommandId, Producer, PublishError};
use futures_util::{StreamExt, TryStreamExt, stream};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    task::JoinSet,
    time::Instant,
};

use super::{
    file::{FlightRow, FlightsFile},
    plan::{DemoPlan, DemoVerb},
    stage::DUPLICATE_WINDOW,
    tally::{CallEvent, CopyFate, ReadBack, RegionTally},
};
use crate::flights::Flown;

/// Most commands that wait for their answer at one time, in all regions together. 128 allow 3,200 a
/// second at 40 ms to an acknowledgement. With four times as many the answers took more than twice
/// as long.
pub(super) const IN_FLIGHT: usize = 128;
/// How long a copy is sent again while the broker still suppresses it after its window.
const WINDOW_PASSES_WITHIN: Duration = Duration::from_secs(30);

/// An app in all regions that replays a file.
pub(super) struct Replay<'a> {
    file: &'a FlightsFile,
    plan: &'a DemoPlan,
    producers: &'a [Producer],
    started: &'a AtomicUsize,
    permits: Arc<Semaphore>,
    waiting: JoinSet<Result<(usize, CallEvent)>>,
    /// One for each region.
    pub(super) tallies: Vec<RegionTally>,
    /// The id of each row.
    pub(super) ids: Vec<CommandId>,
}

impl<'a> Replay<'a> {
    /// Nothing is published yet; `started` counts the rows that are.
    pub(super) fn new(
        file: &'a FlightsFile,
        plan: &'a DemoPlan,
        producers: &'a [Producer],
        started: &'a AtomicUsize,
    ) -> Result<Self> {
        let tallies = plan.regions.iter().map(|_| RegionTally::new()).collect::<Result<_, _>>()?;
        Ok(Self {
            file,
            plan,
            producers,
            started,
            permits: Arc::new(Semaphore::new(IN_FLIGHT)),
            waiting: JoinSet::new(),
            tallies,
            ids: Vec::with_capacity(file.rows.len()),
        })
    }

    /// Publishes every row, and the copies that are sent at once.
    pub(super) async fn publish(&mut self) -> Result<()> {
        let rows = self.file.rows.len();
        for (index, row) in self.file.rows.iter().enumerate() {
            let id = DemoPlan::id(index, &self.file.name, row);
            self.ids.push(id);
            self.start(index, row, id).await?;
            if DemoPlan::copies(index, rows).at_once {
                self.start_copy(row, id).await?;
            }
            self.started.fetch_add(1, Ordering::Relaxed);
        }
        self.finish().await
    }

    /// Publishes the copies that only the ledger can know: after the broker's duplicate window.
    pub(super) async fn publish_late_copies(&mut self) -> Result<()> {
        // The only wait by the clock: the window ends by time.
        let first = Instant::now() + DUPLICATE_WINDOW;
        tokio::time::sleep_until(first).await;
        let rows = self.file.rows.len();
        let late = (0..rows).filter(|index| DemoPlan::copies(*index, rows).after_window);
        let mut late: Vec<usize> = late.collect();
        // The broker forgets ids in rounds; a copy that it still knew is sent again.
        while !late.is_empty() {
            ensure!(
                first.elapsed() < WINDOW_PASSES_WITHIN,
                "the broker still suppresses copies {} s after its window",
                WINDOW_PASSES_WITHIN.as_secs()
            );
            let (plan, producers, ids) = (self.plan, self.producers, &self.ids);
            let sending = stream::iter(late).map(|index| {
                let row = &self.file.rows[index];
                let region = plan.region(row);
                let accepted = call_copy(&producers[region], row, ids[index]);
                async move {
                    let accepted = accepted.await.with_context(|| failed(row))?;
                    anyhow::Ok((index, region, copied(&accepted)))
                }
            });
            let sent: Vec<_> = sending.buffer_unordered(IN_FLIGHT).try_collect().await?;
            let mut known = Vec::new();
            for (index, region, copied) in sent {
                self.tallies[region].count(CallEvent::Copied(copied));
                if copied == CopyFate::Suppressed {
                    known.push(index);
                }
            }
            late = known;
        }
        Ok(())
    }

    async fn start(&mut self, index: usize, row: &FlightRow, id: CommandId) -> Result<()> {
        let permit = self.permit().await?;
        let verb = DemoPlan::verb(index);
        match row {
            FlightRow::Departed(command) => self.call(row, command, id, verb, permit),
            FlightRow::Cancelled(command) => self.call(row, command, id, verb, permit),
        }
        Ok(())
    }

    /// Calls the verb now, and leaves its answer to a task.
    fn call<C: Command<Output = Flown>>(
        &mut self,
        row: &FlightRow,
        command: &C,
        id: CommandId,
        verb: DemoVerb,
        permit: OwnedSemaphorePermit,
    ) {
        let region = self.plan.region(row);
        let producer = self.producers[region].clone();
        let call = producer.call(command).id(id);
        let failed = failed(row);
        let began = Instant::now();
        match verb {
            DemoVerb::Publish => {
                let accepted = call.publish();
                self.waiting.spawn(async move {
                    accepted.await.context(failed)?;
                    drop(permit);
                    Ok((region, CallEvent::Accepted(began.elapsed())))
                });
            }
            DemoVerb::Submit => {
                let committed = call.submit();
                self.waiting.spawn(async move {
                    committed.await.context(failed)?;
                    drop(permit);
                    Ok((region, CallEvent::Committed(began.elapsed())))
                });
            }
            DemoVerb::Write => {
                let visible = call.write();
                self.waiting.spawn(async move {
                    visible.await.context(failed)?;
                    let took = began.elapsed();
                    let read = read_back(&producer, id).await?;
                    drop(permit);
                    Ok((region, CallEvent::Visible(took, read)))
                });
            }
        }
    }

    /// The second copy, right behind the first: the producer sends the copy when the first was
    /// accepted.
    async fn start_copy(&mut self, row: &FlightRow, id: CommandId) -> Result<()> {
        let permit = self.permit().await?;
        let region = self.plan.region(row);
        let accepted = call_copy(&self.producers[region], row, id);
        let failed = failed(row);
        self.waiting.spawn(async move {
            let accepted = accepted.await.context(failed)?;
            drop(permit);
            Ok((region, CallEvent::Copied(copied(&accepted))))
        });
        Ok(())
    }

    /// Counts the answers that have come, and waits for a permit.
    async fn permit(&mut self) -> Result<OwnedSemaphorePermit> {
        while let Some(done) = self.waiting.try_join_next() {
            self.count(done)?;
        }
        Ok(Arc::clone(&self.permits).acquire_owned().await?)
    }

    async fn finish(&mut self) -> Result<()> {
        while let Some(done) = self.waiting.join_next().await {
            self.count(done)?;
        }
        Ok(())
    }

    fn count(
        &mut self,
        done: Result<Result<(usize, CallEvent)>, tokio::task::JoinError>,
    ) -> Result<()> {
        let (region, event) = done??;
        self.tallies[region].count(event);
        Ok(())
    }
}

fn failed(row: &FlightRow) -> String {
    format!("line {}", row.flight().line)
}

fn call_copy(
    producer: &Producer,
    row: &FlightRow,
    id: CommandId,
) -> impl Future<Output = Result<Accepted, PublishError>> + use<> {
    match row {
        FlightRow::Departed(command) => producer.call(command).id(id),
        FlightRow::Cancelled(command) => producer.call(command).id(id),
    }
    .publish()
}

const fn copied(accepted: &Accepted) -> CopyFate {
    if accepted.duplicate { CopyFate::Suppressed } else { CopyFate::Stored }
}

/// Reads on the region's own replica what was just said to be visible there.
async fn read_back(producer: &Producer, id: CommandId) -> Result<ReadBack> {
    let rows: i64 = sqlx::query_scalar("SELECT count(*) FROM demo.flights WHERE command_id = $1")
        .bind(id.uuid())
        .fetch_one(producer.reads()?)
        .await?;
    Ok(if rows > 0 { ReadBack::Own } else { ReadBack::Stale })
}
