//! A lane: one connection, one queue, one command after another.
//!
//! Lanes are what makes order and speed go together. A command's key chooses its lane, a lane is
//! sequential, lanes are parallel: one key, one lane, stream order (invariant 4). A lane takes what
//! waits, never lingering for more, applies it as one transaction, and only then settles it.
//!
//! When a batch fails it is run again in parts: first with subtransactions, where a command's own
//! fault becomes its rejection; where even that fails, one command at a time, and what a command
//! does alone is what counts.
//!
//! ```text
//! taken => plain attempt => committed => settled
//!             | a command failed
//!             v
//!          guarded attempts => committed => settled      (until the batch is done)
//!             | still
//!             v
//!          alone => committed => settled
//!             | failed: judged, and what was decided is recorded
//! ```
//!
//! What cannot be applied yet is parked in the batch's own transaction, so the lane goes on; when
//! it is due the lane reads it from PostgreSQL and applies it like any batch, by turns with what
//! the stream brings. After an unclean end (this worker's or another's) the first commands run
//! alone, each counted before it runs: one that takes its backend down every time is found.

use std::{
    pin::Pin,
    sync::Arc,
    time::{Duration, Instant},
};

use farwrite_internal::Health;
use farwrite_schemas::EnvelopeError;
use sqlx::PgConnection;
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio_util::sync::CancellationToken;
use tracing::{error, info};

use crate::{
    apply::{
        attempt::{self, Care, Committed, FailedCommand, Failure, Fence, Manner},
        functions::Functions,
        handler::Handlers,
        judge::Refreshed,
        park,
        sort::Bounds,
        work::{Known, Park, ParkReason, Work},
    },
    config::Config,
    failpoint::Failpoint,
    keep::{confirm::Unconfirmed, heartbeat::Pulse},
    life::{takeover::Takeover, veto::MayAnswer},
    metrics,
    stream::{
        delivery::{Delivery, Place},
        identity::{Anchor, storable},
        reader::Verified,
    },
};

use super::{
    batch::{self, Batch, Item, Parked, Source},
    queue::{Dispatcher, Queued, ReadTo},
    settle::Settler,
    suspects::Turns,
};

/// How long a lane has nothing to do before it is moved along to what was read past it, and looks
/// whether somebody put something into its lines.
const IDLE: Duration = Duration::from_millis(500);
/// How long a lane whose lines are full waits before it tries again.
const FULL_PAUSE: Duration = Duration::from_millis(500);

/// Why a lane ended.
#[derive(Debug)]
pub(crate) enum LaneEnd {
    /// It was asked to, or nothing is read any more.
    Drained,
    /// Somebody else has taken over.
    Fenced,
    /// The primary, or the way to it.
    World {
        /// Which lane.
        lane: u32,
        /// What happened.
        reason: String,
        /// Whether the command that ran, if it ran alone, may be the cause.
        blames: bool,
    },
    /// A handler broke its promise, and going on could lose commands.
    Broken(String),
}

/// One lane.
pub(crate) struct Lane {
    pub(super) number: u32,
    pub(super) shared: Shared,
    pub(super) functions: Functions,
    pub(super) connection: PgConnection,
    pub(super) queue: mpsc::Receiver<Queued>,
    pub(super) read_to: ReadTo,
    pub(super) position: Place,
    pub(super) anchor: Option<Anchor>,
    pub(super) settler: Settler,
    pub(super) stop: CancellationToken,
    /// Whether anything of this lane is parked or paused, as far as is known.
    pub(super) waits: bool,
    /// When the lane looks at what waits.
    pub(super) look_at: Instant,
    /// How many more commands run alone, after an unclean end: of the stream, and of those that
    /// are parked. Apart, since there may always be some of the one that are tried before the other.
    pub(super) careful_stream: usize,
    pub(super) careful_parked: usize,
    /// Whether it has a turn to run such a command in: what it runs meanwhile, to make room, is in it.
    pub(super) has_turn: bool,
    /// Whether the last batch had rejections, so that the next begins guarded.
    pub(super) guarded: bool,
    /// How many commands to offer to a guarded attempt.
    pub(super) part: usize,
}

/// What all lanes of a takeover share.
#[derive(Clone)]
pub(crate) struct Shared {
    pub(crate) config: Arc<Config>,
    pub(crate) takeover: Arc<Takeover>,
    pub(crate) handlers: Arc<Handlers>,
    pub(crate) client: async_nats::Client,
    pub(crate) pulse: Arc<Pulse>,
    pub(crate) refreshed: Refreshed,
    pub(crate) health: Health,
    /// Where answers are left that must wait for required standbys, if there are any.
    pub(crate) confirm: Option<mpsc::Sender<Unconfirmed>>,
    pub(crate) may_answer: MayAnswer,
    pub(crate) turns: Turns,
}

/// Makes the lanes of a takeover over their connections, and what hands messages to them.
pub(crate) fn open(
    shared: &Shared,
    connections: Vec<PgConnection>,
    stop: &CancellationToken,
    stream: &Verified,
    name: &str,
) -> (Dispatcher, Vec<Lane>) {
    let read_to = ReadTo::new(shared.takeover.position().low_water, connections.len());
    let mut dispatcher = Dispatcher::new(read_to.clone(), stream.clone(), name.to_owned());
    let positions = shared.takeover.lanes.iter().zip(connections).enumerate();
    let careful = if shared.takeover.unclean { shared.config.batch_max_commands } else { 0 };
    let lanes = positions.map(|(number, (position, connection))| Lane {
        number: u32::try_from(number).unwrap_or(u32::MAX),
        shared: shared.clone(),
        functions: Functions::default(),
        connection,
        queue: dispatcher.add(),
        read_to: read_to.clone(),
        position: Place { sequence: position.sequence, at_ns: 0 },
        anchor: position.anchor.clone(),
        settler: Settler::new(shared),
        stop: stop.clone(),
        waits: true,
        look_at: Instant::now(),
        careful_stream: careful,
        careful_parked: careful,
        has_turn: false,
        guarded: false,
        part: shared.config.batch_max_commands,
    });
    let lanes = lanes.collect();
    (dispatcher, lanes)
}

impl Lane {
    /// Applies what comes until it is asked to stop; what then waits in the queue is read again by
    /// the next takeover.
    pub(crate) async fn run(mut self) -> LaneEnd {
        let mut taken = Vec::with_capacity(self.shared.config.batch_max_commands);
        let mut last_received = Instant::now();
        loop {
            let now = Instant::now();
            if self.look_at <= now
                && let Err(end) = self.apply_due().await
            {
                return end;
            }
            let wait = self.look_at.saturating_duration_since(Instant::now());
            let max = self.shared.config.batch_max_commands;
            let waiting = tokio::time::timeout(wait, self.queue.recv_many(&mut taken, max));
            // Stopping comes first: the position is in PostgreSQL, nothing here is worth keeping.
            let received = tokio::select! {
                biased;
                () = self.stop.cancelled() => return LaneEnd::Drained,
                received = waiting => received,
            };
            let ended = match received {
                Ok(0) => return LaneEnd::Drained,
                Ok(_) => {
                    last_received = Instant::now();
                    self.take(&mut taken).await
                }
                Err(_) if last_received.elapsed() >= IDLE => self.move_along().await,
                Err(_) => Ok(()),
            };
            if let Err(end) = ended {
                return end;
            }
        }
    }

    /// Applies and settles what was taken from the queue.
    pub(super) async fn take(&mut self, taken: &mut Vec<Queued>) -> Result<(), LaneEnd> {
        metrics::lane_queue(self.number, self.queue.len());
        // What a changed number of lanes makes this lane read again, below its own position.
        let position = self.position.sequence;
        // Kept until they are applied, and given back at once.
        let mut room: Option<OwnedSemaphorePermit> = None;
        let mut deliveries = Vec::with_capacity(taken.len());
        for (delivery, permit) in taken.drain(..) {
            if delivery.sequence > position {
                deliveries.push((delivery, None));
                match &mut room {
                    Some(room) => room.merge(permit),
                    None => room = Some(permit),
                }
            }
        }
        Failpoint::BeforeApply.pass();
        self.apply_all(deliveries).await
    }

    /// Applies parked commands that are due, one batch of them, and sees when to look again: at
    /// once while more is due, so that the stream and the lines take turns.
    pub(super) async fn apply_due(&mut self) -> Result<(), LaneEnd> {
        let takeover = Arc::clone(&self.shared.takeover);
        let waiting = park::look(&mut self.connection, &takeover, self.number).await;
        let waiting = waiting.map_err(|error| self.world(&error))?;
        metrics::parked(self.number, waiting.parked);
        self.functions.expect(waiting.registry);
        self.waits = waiting.any;
        self.look_at = Instant::now() + waiting.next.map_or(IDLE, |next| next.min(IDLE));
        if waiting.next != Some(Duration::ZERO) {
            return Ok(());
        }
        let max = self.shared.config.batch_max_commands;
        let due = park::due(&mut self.connection, &takeover, self.number, max).await;
        let due = due.map_err(|error| self.end_of(error.into()))?;
        let due = due.into_iter().map(|(delivery, parked)| (delivery, Some(parked))).collect();
        self.apply_all(due).await
    }

    /// Applies commands of the stream, or parked ones.
    pub(super) async fn apply_all(
        &mut self,
        deliveries: Vec<(Delivery, Option<Parked>)>,
    ) -> Result<(), LaneEnd> {
        let works = self.works(&deliveries).await?;
        let hints = &self.shared.takeover.hints;
        let items = deliveries.into_iter().zip(works).map(|((delivery, parked), work)| {
            // What is parked was not settled, whatever was settled around it.
            let expires_ns = match parked {
                Some(_) => delivery.expires_ns(),
                None => hints.expiry_of(&delivery),
            };
            Item::new(delivery, work, parked, expires_ns)
        });
        for batch in batch::cut(items) {
            self.apply(batch).await?;
        }
        Ok(())
    }

    /// Finds how each command is to be applied; reads the registry again before one is unknown.
    pub(super) async fn works(
        &mut self,
        deliveries: &[(Delivery, Option<Parked>)],
    ) -> Result<Vec<Work>, LaneEnd> {
        if let Some(works) = self.known_works(deliveries, false) {
            return Ok(works);
        }
        let refreshed = self.functions.refresh(&mut self.connection).await;
        refreshed.map_err(|error| self.world(&error))?;
        Ok(self.known_works(deliveries, true).unwrap_or_default())
    }

    /// Looks again for what a command lacked when it was taken: while the lane stood still it may
    /// have come, and parking it now would only cost it a turn.
    pub(super) async fn reconsider(&mut self, item: &mut Item) -> Result<(), LaneEnd> {
        let Work::Park(Park { reason: ParkReason::Unknown, .. }) = item.work else { return Ok(()) };
        let mut work = self.known().work_of(&item.delivery, item.parked.as_ref(), false);
        if work.is_none() {
            let refreshed = self.functions.refresh(&mut self.connection).await;
            refreshed.map_err(|error| self.world(&error))?;
            work = self.known().work_of(&item.delivery, item.parked.as_ref(), true);
        }
        if let Some(work) = work {
            item.work = work;
        }
        Ok(())
    }

    pub(super) fn known(&self) -> Known<'_> {
        let Shared { config, handlers, .. } = &self.shared;
        Known { config, handlers, functions: &self.functions }
    }

    pub(super) fn known_works(
        &self,
        deliveries: &[(Delivery, Option<Parked>)],
        last_word: bool,
    ) -> Option<Vec<Work>> {
        let known = self.known();
        let work = |(delivery, parked): &(Delivery, Option<Parked>)| {
            known.work_of(delivery, parked.as_ref(), last_word)
        };
        deliveries.iter().map(work).collect()
    }

    /// Applies a batch, whatever becomes of each of its commands.
    pub(super) async fn apply(&mut self, mut batch: Batch) -> Result<(), LaneEnd> {
        let source = batch.source;
        let items = &mut batch.items[..];
        let careful = (*self.careful(source)).min(items.len());
        let (alone, items) = items.split_at_mut(careful);
        for index in 0..alone.len() {
            let to = if index + 1 == alone.len() && items.is_empty() {
                self.end(source)
            } else {
                self.place(&alone[index])
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
            return self.apply_in_parts(items, self.end(source)).await;
        }
        match (self.attempt(items, self.end(source), Care::Plain).await?, &mut *items) {
            (Ok(committed), items) => self.settle(items, committed).await,
            (Err(failed), [item]) => self.apply_alone(item, self.end(source), Some(failed)).await,
            (Err(_), items) => {
                metrics::batch_retried();
                self.apply_in_parts(items, self.end(source)).await
            }
        }
    }

    /// Where the lane stands when a batch is done.
    pub(super) fn end(&self, source: Source) -> Place {
        match source {
            Source::Stream { end } => end,
            Source::Parked => self.position,
        }
    }

    /// Where the lane stands when an item, and not the last of its batch, is done.
    pub(super) fn place(&self, item: &Item) -> Place {
        if item.parked.is_some() { self.position } else { item.delivery.place() }
    }

    /// How many more commands from there run alone, after an unclean end.
    pub(super) fn careful(&mut self, source: Source) -> &mut usize {
        match source {
            Source::Stream { .. } => &mut self.careful_stream,
            Source::Parked => &mut self.careful_parked,
        }
    }

    /// One attempt; a failure that is not a command's ends the lane. While as much waits as may,
    /// what is due is applied and the attempt made again.
    pub(super) async fn attempt(
        &mut self,
        items: &mut [Item],
        to: Place,
        care: Care,
    ) -> Result<Result<Committed, FailedCommand>, LaneEnd> {
        let mut is_full = false;
        loop {
            let own = last_of_stream(items);
            let fence = Fence {
                takeover: &self.shared.takeover,
                lane: self.number,
                from: self.position.sequence,
                to,
                anchor: own.as_ref().or(self.anchor.as_ref()),
            };
            let config = &self.shared.config;
            let manner = Manner {
                care,
                staged: self.waits,
                bounds: Bounds {
                    parked_max: config.parked_max / u64::from(config.lanes),
                    line_max: config.parked_max_per_key,
                },
                statement_timeout: config.statement_timeout,
            };
            let began = Instant::now();
            let failure = match attempt::attempt(&mut self.connection, items, &fence, manner).await
            {
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
                failure => return Err(self.end_of(failure)),
            }
        }
    }

    /// Waits a little, and applies what is due. Boxed, since applying may find the lines full; what
    /// is parked adds nothing to them, so that it goes no deeper.
    pub(super) fn make_room(
        &mut self,
    ) -> Pin<Box<dyn Future<Output = Result<(), LaneEnd>> + Send + '_>> {
        Box::pin(async move {
            tokio::select! {
                biased;
                () = self.stop.cancelled() => return Err(LaneEnd::Drained),
                () = tokio::time::sleep(FULL_PAUSE) => {}
            }
            self.apply_due().await
        })
    }

    /// Moves on to where a committed batch ends, and tells everybody.
    pub(super) async fn settle(
        &mut self,
        items: &[Item],
        committed: Committed,
    ) -> Result<(), LaneEnd> {
        self.position = committed.position;
        self.waits = committed.waits;
        if let Some(anchor) = last_of_stream(items) {
            self.anchor = Some(anchor);
        }
        if committed.waits {
            // Something may have been parked with a short wait, or a line goes on.
            self.look_at = self.look_at.min(Instant::now() + Duration::from_millis(10));
        }
        Failpoint::AfterCommit.pass();
        let settled = self.settler.settle(&mut self.connection, items, &committed).await;
        settled.map_err(|error| self.world(&error))?;
        Failpoint::AfterReply.pass();
        Ok(())
    }

    /// Nothing waits in the queue: the lane stands wherever reading stands.
    pub(super) async fn move_along(&mut self) -> Result<(), LaneEnd> {
        let Some(to) = self.read_to.of_lane(self.number) else { return Ok(()) };
        // What was read up to there is either applied or in the queue; so the queue is looked at
        // after the sequence.
        if to.sequence <= self.position.sequence || !self.queue.is_empty() {
            return Ok(());
        }
        let fence = Fence {
            takeover: &self.shared.takeover,
            lane: self.number,
            from: self.position.sequence,
            to,
            anchor: self.anchor.as_ref(),
        };
        let moved = attempt::move_along(&mut self.connection, &fence).await;
        self.waits = moved.map_err(|failure| self.end_of(failure))?;
        self.position = to;
        Ok(())
    }

    /// The database failed where no command ran.
    pub(super) fn world(&self, error: &sqlx::Error) -> LaneEnd {
        LaneEnd::World { lane: self.number, reason: error.to_string(), blames: false }
    }

    pub(super) fn end_of(&self, failure: Failure) -> LaneEnd {
        let lane = self.number;
        match failure {
            Failure::Fenced => LaneEnd::Fenced,
            Failure::World { reason, blames } => LaneEnd::World { lane, reason, blames },
            Failure::TransactionEnded(reason) => LaneEnd::Broken(reason),
            Failure::Full => LaneEnd::World {
                lane,
                reason: "the lane's key queues changed".to_owned(),
                blames: false,
            },
            Failure::Command(FailedCommand { rejection, .. }) => {
                info!(code = rejection.code, "the fence failed");
                LaneEnd::World { lane, reason: rejection.to_string(), blames: false }
            }
        }
    }
}

/// The anchor of a batch: the last of its messages that came from the stream, unless that one
/// could not be read when it is compared.
pub(crate) fn last_of_stream(items: &[Item]) -> Option<Anchor> {
    let item = items.last().filter(|item| item.parked.is_none())?;
    if matches!(item.delivery.envelope, Err(EnvelopeError::NotText)) {
        return None;
    }
    let Delivery { sequence, at_ns, .. } = item.delivery;
    Some(Anchor { sequence, at_ns, id: item.delivery.message_id().map(storable) })
}
