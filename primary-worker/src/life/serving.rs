//! One takeover's service: every task of it, and how it ends.
//!
//! The tasks live and die together: when the first of them ends, the others are ended, in the order in
//! which nothing is lost: lanes finish what is in flight, then the last heartbeat, then the word that
//! the epoch ended in good order.

use std::{sync::Arc, time::Duration};

use farwrite_schemas::Epoch;
use sqlx::PgConnection;
use tokio::task::{JoinError, JoinSet};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::{
    answers::outcomes,
    keep::{
        confirm::Confirmations, heartbeat, keeper::HintKeeper, stream_watch::StreamWatch,
        trim::Trimmer, upkeep,
    },
    lane::{context::LaneContext, open::open, queue::Dispatcher},
    metrics,
    primary::{PrimaryError, PrimaryServer, Purpose},
    store::owner,
    stream::{
        client::has_ended,
        reader::{NAMES_BEGIN, ReaderEnd, StreamReader},
        sink::Verified,
    },
    verdict::Blame,
};

use super::{
    end::{ServingEnd, WorkerError},
    lease,
    takeover::Claim,
    veto::{ServedRecord, Veto},
};

/// How long a batch in flight may take to finish once the worker is asked to stop; then it is
/// left to roll back, and done again by the next worker.
const STOP_WITHIN: Duration = Duration::from_millis(500);
/// How long the last heartbeat may take.
const BEAT_WITHIN: Duration = Duration::from_millis(500);
/// How long writing down that the worker ended in good order may take.
const RELEASE_WITHIN: Duration = Duration::from_millis(500);
/// How long the last replies may take to leave.
const FLUSH_WITHIN: Duration = Duration::from_millis(500);
/// How long lanes may go on with what was read, once the stream is found changed: what of it the stream
/// has lost is nowhere else.
const READ_OUT_WITHIN: Duration = Duration::from_secs(20);
/// How long the reader may take to notice that the NATS client has ended.
const READ_WITHIN: Duration = Duration::from_millis(500);

/// A takeover with everything that it needs.
pub(crate) struct Serving {
    pub(crate) shared: LaneContext,
    pub(crate) stream: Verified,
    pub(crate) server: PrimaryServer,
    pub(crate) lanes: Vec<PgConnection>,
    /// The session that stands for the owner.
    pub(crate) owner: PgConnection,
    pub(crate) control: PgConnection,
    pub(crate) heartbeat: PgConnection,
    pub(crate) outcomes: PgConnection,
    pub(crate) veto: Veto,
    /// Outcomes that wait for required standbys, where there are any.
    pub(crate) unconfirmed: Option<(Confirmations, PgConnection, Vec<String>)>,
}

/// A task of a takeover, and how it ended.
enum TaskEnd {
    /// With what hands messages to the lanes: dropped any sooner, they would end for want of them.
    Reader { end: ReaderEnd, inlets: Box<Dispatcher> },
    /// Any other task.
    Other(ServingEnd),
}

impl Serving {
    /// Serves until the first task ends or the worker is asked to stop.
    pub(crate) async fn run(self, stop: &CancellationToken, claim: &mut Claim) -> ServingEnd {
        let Self {
            shared,
            stream,
            server,
            lanes,
            owner,
            control,
            heartbeat,
            outcomes,
            unconfirmed,
            veto,
        } = self;
        let LaneContext { config, takeover, client, pulse, .. } = &shared;
        let lanes_stop = CancellationToken::new();
        let mut tasks = JoinSet::new();
        let next = takeover.progress.low_water + 1;
        let name = format!("{NAMES_BEGIN}{:.8}", takeover.epoch.to_string());
        let (mut dispatcher, open_lanes) = open(&shared, lanes, &lanes_stop, &stream, &name);
        let held = &stream.stream;
        let keeper = HintKeeper::new(client, held, config, takeover, veto.hints());
        let trimmer =
            Trimmer::new(stream.context.clone(), held.clone(), config, shared.may_answer.clone());
        let watch = StreamWatch::new(held.clone(), shared.health.clone());
        let told_stream = stream.clone();
        let reader = StreamReader::new(stream, name, next, shared.memory.pull);
        tasks.spawn(async move {
            let end = reader.run(&mut dispatcher).await;
            TaskEnd::Reader { end, inlets: Box::new(dispatcher) }
        });
        let mut lanes = JoinSet::new();
        for (number, lane) in (0..).zip(open_lanes) {
            lanes.spawn(async move { (number, lane.run().await) });
        }
        let mut heart = JoinSet::new();
        let heart_stop = CancellationToken::new();
        heart.spawn({
            let (pulse, epoch) = (Arc::clone(pulse), takeover.epoch);
            let stop = heart_stop.clone();
            async move { heartbeat::run(&pulse, epoch, heartbeat, stop).await }
        });
        tasks.spawn({
            let config = Arc::clone(config);
            let may_answer = shared.may_answer.clone();
            let (client, takeover, stream) = (client.clone(), Arc::clone(takeover), told_stream);
            let answers = shared.memory.answers.clone();
            async move {
                let (config, takeover) = (&*config, &*takeover);
                let service = outcomes::serve(
                    client,
                    config,
                    takeover,
                    &stream,
                    &may_answer,
                    &answers,
                    outcomes,
                );
                TaskEnd::Other(service.await)
            }
        });
        tasks.spawn({
            let (config, takeover) = (Arc::clone(config), Arc::clone(takeover));
            let memory = shared.memory.clone();
            async move {
                let kept =
                    upkeep::run(control, &config, keeper, trimmer, watch, &takeover, &memory);
                let error = kept.await;
                TaskEnd::Other(ServingEnd::again_of("upkeep", error))
            }
        });
        tasks.spawn({
            let (epoch, lease) = (takeover.epoch, config.lease);
            async move { TaskEnd::Other(lease::hold(owner, epoch, lease).await) }
        });
        tasks.spawn({
            let (own, may_answer) = (ServedRecord::of(takeover), shared.may_answer.clone());
            let server = server.clone();
            async move { TaskEnd::Other(veto.watch(own, may_answer, &server).await) }
        });
        if let Some((outcomes, connection, required)) = unconfirmed {
            let (client, epoch) = (client.clone(), takeover.epoch);
            let may_answer = shared.may_answer.clone();
            tasks.spawn(async move {
                let confirming = outcomes.run(connection, client, &required, epoch, &may_answer);
                TaskEnd::Other(match confirming.await {
                    Ok(()) => ServingEnd::Fatal(WorkerError::Task("confirming answers")),
                    Err(error) => ServingEnd::again_of("confirming answers", error),
                })
            });
        }
        metrics::waiting(false);
        shared.health.ready();
        info!(epoch = %takeover.epoch, next, lanes = config.lanes, "serving");
        let mut ends = LaneEnds::default();
        let mut is_reading = true;
        let end = tokio::select! {
            biased;
            () = stop.cancelled() => ServingEnd::Stopped,
            Some(ended) = lanes.join_next() => {
                ends.note(&ended);
                ended.map_or_else(|error| panicked(&error), |(_, end)| lane_ended(end))
            }
            Some(end) = heart.join_next() => heart_ended(end),
            Some(end) = tasks.join_next() => match end {
                Ok(TaskEnd::Reader { end: ReaderEnd::Stream(error), inlets }) if error.is_other_stream() => {
                    error!(%error, "what was read of the stream before is applied, and then the worker ends");
                    is_reading = false;
                    drop(inlets);
                    read_out(&mut lanes, &mut ends, stop).await;
                    error.into()
                }
                Ok(end) => {
                    is_reading = !matches!(end, TaskEnd::Reader { .. });
                    task_ended(end)
                }
                Err(error) => panicked(&error),
            },
        };
        lanes_stop.cancel();
        // Where only NATS's client has gone, nothing hurries: a command that is ended in its midst would
        // be counted as one that takes something down.
        let patience = async {
            if has_ended(client) && matches!(end, ServingEnd::Again { .. }) {
                let _ = tokio::time::timeout(config.statement_timeout, stop.cancelled()).await;
            }
            tokio::time::sleep(STOP_WITHIN).await;
        };
        let is_drained = drain(lanes, &mut ends, patience).await;
        // After the last commit, and before the process goes: nobody else may be there to write.
        heart_stop.cancel();
        let beaten = tokio::time::timeout(BEAT_WITHIN, heart.join_next());
        if beaten.await.is_err() {
            warn!("the last heartbeat did not finish in time");
        }
        if is_drained && ends.are_orderly {
            release(&server, takeover.epoch).await;
        }
        (claim.blameless, claim.ended) = (ends.blameless, ends.ended);
        if is_reading && has_ended(client) {
            // The reader knows where the client was when it ended, also where another task noticed first.
            let reader = async {
                while !matches!(tasks.join_next().await, Some(Ok(TaskEnd::Reader { .. })) | None) {}
            };
            if tokio::time::timeout(READ_WITHIN, reader).await.is_err() {
                warn!("the reader did not end in time");
            }
        }
        // Hangs while NATS is away; the replies that it would have sent can be asked for.
        let _ = tokio::time::timeout(FLUSH_WITHIN, client.flush()).await;
        end
    }
}

/// How the lanes of a takeover ended.
struct LaneEnds {
    /// Whether all of them ended in good order.
    are_orderly: bool,
    /// Lanes that ended because the primary was unavailable, through no doing of their command.
    blameless: Vec<u32>,
    /// Lanes whose session somebody ended, the command itself or not.
    ended: Vec<u32>,
}

impl Default for LaneEnds {
    fn default() -> Self {
        Self { are_orderly: true, blameless: Vec::new(), ended: Vec::new() }
    }
}

impl LaneEnds {
    fn note(&mut self, ended: &Result<(u32, ServingEnd), JoinError>) {
        match ended {
            Ok((_, ServingEnd::Stopped)) => return,
            Ok((lane, ServingEnd::Again { blame: Blame::None, .. })) => self.blameless.push(*lane),
            Ok((lane, ServingEnd::Again { blame: Blame::Half, .. })) => self.ended.push(*lane),
            Ok((_, ServingEnd::Again { .. } | ServingEnd::Taken | ServingEnd::Fatal(_)))
            | Err(_) => {}
        }
        self.are_orderly = false;
    }
}

/// Lets the lanes apply what waits in their queues, to which nothing comes any more.
async fn read_out(
    lanes: &mut JoinSet<(u32, ServingEnd)>,
    ends: &mut LaneEnds,
    stop: &CancellationToken,
) {
    let all = async {
        while let Some(ended) = lanes.join_next().await {
            ends.note(&ended);
        }
    };
    tokio::select! {
        biased;
        () = all => {}
        () = stop.cancelled() => {}
        () = tokio::time::sleep(READ_OUT_WITHIN) => {
            warn!("what was read of the stream was not all applied in time");
        }
    }
}

/// Lets the batches in flight finish and be settled, as long as there is patience. Answers whether all
/// did.
async fn drain(
    mut lanes: JoinSet<(u32, ServingEnd)>,
    ends: &mut LaneEnds,
    patience: impl Future<Output = ()>,
) -> bool {
    let is_drained = tokio::select! {
        biased;
        () = async {
            while let Some(ended) = lanes.join_next().await {
                ends.note(&ended);
            }
        } => true,
        () = patience => false,
    };
    if !is_drained {
        warn!("a batch did not finish in time: it is left to roll back, and will be applied again");
        lanes.shutdown().await;
    }
    is_drained
}

/// Says in the database that the takeover ended in good order; where that does not work, the next
/// one is careful for nothing.
async fn release(server: &PrimaryServer, epoch: Epoch) {
    let release = async {
        let mut control = server.connect(&Purpose::Control).await?;
        owner::release(&mut control, epoch).await?;
        Ok::<_, PrimaryError>(())
    };
    match tokio::time::timeout(RELEASE_WITHIN, release).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => warn!(%error, "the end could not be written down"),
        Err(_) => warn!("the end could not be written down in time"),
    }
}

/// The heartbeat was not asked to end.
fn heart_ended(end: Result<Result<(), sqlx::Error>, JoinError>) -> ServingEnd {
    match end {
        Ok(Ok(())) => ServingEnd::Fatal(WorkerError::Task("the heartbeat")),
        Ok(Err(error)) => ServingEnd::again_of("the heartbeat", error),
        Err(error) => panicked(&error),
    }
}

/// A lane was not asked to end.
fn lane_ended(end: ServingEnd) -> ServingEnd {
    match end {
        ServingEnd::Stopped => ServingEnd::Fatal(WorkerError::Task("a lane")),
        ServingEnd::Again { reason, .. } => ServingEnd::again_of("the primary", reason),
        end @ (ServingEnd::Taken | ServingEnd::Fatal(_)) => end,
    }
}

/// Another task was not asked to end.
fn task_ended(end: TaskEnd) -> ServingEnd {
    match end {
        TaskEnd::Reader { end: ReaderEnd::Stream(error), .. } => error.into(),
        TaskEnd::Reader { end: ReaderEnd::Closed, .. } => {
            ServingEnd::Fatal(WorkerError::Task("the reader"))
        }
        TaskEnd::Reader { end: end @ ReaderEnd::ClientEnded, .. } => ServingEnd::again(end),
        TaskEnd::Other(end) => end,
    }
}

fn panicked(cause: &JoinError) -> ServingEnd {
    error!(%cause, "a task panicked");
    // A lane's commands are careful of themselves after that: see `lane/suspects.rs`.
    ServingEnd::again("a task panicked; the log says where")
}
