//! One takeover's service: every task of it, and how it ends.
//!
//! The tasks live and die together: when the first of them ends, the others are ended, in the order in
//! which nothing is lost: lanes finish what is in flight, then the last heartbeat, then the word that
//! the epoch ended in good order.

use std::{sync::Arc, time::Duration};

use farwrite_schemas::Epoch;
use sqlx::PgConnection;
use tokio::{sync::mpsc, task::JoinSet};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::{
    answers::outcomes::{self, OutcomesEnd},
    keep::{
        confirm::{self, Unconfirmed},
        heartbeat, hints,
        trim::Trimmer,
        upkeep,
    },
    lane::{
        queue::Dispatcher,
        run::{self, LaneEnd, Shared},
    },
    metrics,
    primary::{PrimaryError, Purpose, Server},
    stream::{
        reader::{Reader, ReaderEnd, Verified},
        unreadable::has_ended,
    },
};

use super::{
    lease::{self, LeaseEnd},
    takeover::{self, Claim},
    veto::{Veto, VetoEnd},
    worker::{End, WorkerError},
};

/// How long a batch in flight may take to finish once the worker is asked to stop; then it is
/// left to roll back, and done again by whoever comes next.
const STOP_WITHIN: Duration = Duration::from_millis(500);
/// How long the last heartbeat may take.
const BEAT_WITHIN: Duration = Duration::from_millis(500);
/// How long writing down that the worker ended in good order may take.
const RELEASE_WITHIN: Duration = Duration::from_millis(500);
/// How long the last replies may take to leave.
const FLUSH_WITHIN: Duration = Duration::from_millis(500);
/// How long the reader may take to notice that the NATS client has ended.
const READ_WITHIN: Duration = Duration::from_millis(500);

/// A takeover with everything that it needs.
pub(crate) struct Serving {
    pub(crate) shared: Shared,
    pub(crate) stream: Verified,
    pub(crate) server: Server,
    pub(crate) lanes: Vec<PgConnection>,
    /// The session that stands for the owner.
    pub(crate) owner: PgConnection,
    pub(crate) control: PgConnection,
    pub(crate) heartbeat: PgConnection,
    pub(crate) outcomes: PgConnection,
    pub(crate) veto: Veto,
    /// Answers that wait for required standbys, where there are any.
    pub(crate) unconfirmed: Option<(mpsc::Receiver<Unconfirmed>, PgConnection, Vec<String>)>,
}

/// A task of a takeover, and how it ended.
enum TaskEnd {
    /// With what hands messages to the lanes: dropped any sooner, they would end for want of them.
    Reader {
        end: ReaderEnd,
        _inlets: Box<Dispatcher>,
    },
    Outcomes(OutcomesEnd),
    Upkeep(sqlx::Error),
    Lease(LeaseEnd),
    Veto(VetoEnd),
    Confirm(Result<(), sqlx::Error>),
}

impl Serving {
    /// Serves until the first task ends or the worker is asked to stop.
    pub(crate) async fn run(self, stop: &CancellationToken, claim: &mut Claim) -> End {
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
        let Shared { config, takeover, client, pulse, .. } = &shared;
        let lanes_stop = CancellationToken::new();
        let mut tasks = JoinSet::new();
        let position = takeover.position();
        let next = position.low_water + 1;
        let name = format!("farwrite-{:.8}", takeover.epoch.to_string());
        let (mut dispatcher, open_lanes) = run::open(&shared, lanes, &lanes_stop, &stream, &name);
        let held = &stream.stream;
        let keeper = hints::Keeper::new(client, held, config, &takeover.hints);
        let trimmer =
            Trimmer::new(stream.context.clone(), held.clone(), config, shared.may_answer.clone());
        let told_stream = held.clone();
        let reader = Reader::new(stream, name, next, position.anchor);
        tasks.spawn(async move {
            let end = reader.run(&mut dispatcher).await;
            TaskEnd::Reader { end, _inlets: Box::new(dispatcher) }
        });
        let mut lanes = JoinSet::new();
        for lane in open_lanes {
            lanes.spawn(lane.run());
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
            async move {
                TaskEnd::Outcomes(
                    outcomes::serve(client, &config, &takeover, &stream, &may_answer, outcomes)
                        .await,
                )
            }
        });
        tasks.spawn({
            let (config, takeover) = (Arc::clone(config), Arc::clone(takeover));
            async move {
                TaskEnd::Upkeep(upkeep::run(control, &config, keeper, trimmer, &takeover).await)
            }
        });
        tasks.spawn({
            let (epoch, lease) = (takeover.epoch, config.lease);
            async move { TaskEnd::Lease(lease::hold(owner, epoch, lease).await) }
        });
        tasks.spawn({
            let (epoch, may_answer) = (takeover.epoch, shared.may_answer.clone());
            async move { TaskEnd::Veto(veto.watch(epoch, may_answer).await) }
        });
        if let Some((answers, connection, required)) = unconfirmed {
            let client = client.clone();
            tasks.spawn(async move {
                TaskEnd::Confirm(confirm::run(answers, connection, client, &required).await)
            });
        }
        metrics::waiting(false);
        shared.health.ready();
        info!(epoch = %takeover.epoch, next, lanes = config.lanes, "serving");
        let mut first_lane = None;
        let mut is_reading = true;
        let end = tokio::select! {
            biased;
            () = stop.cancelled() => End::Stopped,
            Some(end) = lanes.join_next() => {
                first_lane = end.as_ref().ok().map(World::of);
                lane_end(end)
            }
            Some(end) = heart.join_next() => heart_end(end),
            Some(end) = tasks.join_next() => match end {
                Ok(end) => {
                    is_reading = !matches!(end, TaskEnd::Reader { .. });
                    task_end(end)
                }
                Err(error) => panicked(&error),
            },
        };
        lanes_stop.cancel();
        let mut worlds: Vec<World> = first_lane.into_iter().collect();
        // Where only NATS's client has gone, nothing hurries: a command that is ended in its midst would
        // be counted as one that takes something down.
        let patience = async {
            if has_ended(client) && matches!(end, End::Again(_)) {
                let _ = tokio::time::timeout(config.statement_timeout, stop.cancelled()).await;
            }
            tokio::time::sleep(STOP_WITHIN).await;
        };
        let is_drained = drain(lanes, &mut worlds, patience).await;
        // After the last commit, and before the process goes: nobody else may be there to write.
        heart_stop.cancel();
        let beaten = tokio::time::timeout(BEAT_WITHIN, heart.join_next());
        if beaten.await.is_err() {
            warn!("the last heartbeat did not finish in time");
        }
        if is_drained && worlds.iter().all(|world| matches!(world, World::Well)) {
            release(&server, takeover.epoch).await;
        }
        claim.blameless = worlds.iter().filter_map(World::blameless).collect();
        if is_reading && has_ended(client) {
            // It knows where the client was when it ended, whoever noticed first.
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

/// What a lane's end says about the world and about the command that ran.
enum World {
    /// The lane ended in good order.
    Well,
    /// The world failed, and the lane's command is not to blame.
    Blameless(u32),
    /// Something else.
    Unwell,
}

impl World {
    fn of(end: &LaneEnd) -> Self {
        match end {
            LaneEnd::Drained => Self::Well,
            LaneEnd::World { lane, blames: false, .. } => Self::Blameless(*lane),
            LaneEnd::World { .. } | LaneEnd::Fenced | LaneEnd::Broken(_) => Self::Unwell,
        }
    }

    fn blameless(&self) -> Option<u32> {
        match self {
            Self::Blameless(lane) => Some(*lane),
            Self::Well | Self::Unwell => None,
        }
    }
}

/// Lets the batches in flight finish and be settled, as long as there is patience. Answers whether all
/// did.
async fn drain(
    mut lanes: JoinSet<LaneEnd>,
    worlds: &mut Vec<World>,
    patience: impl Future<Output = ()>,
) -> bool {
    let is_drained = tokio::select! {
        biased;
        () = async {
            while let Some(end) = lanes.join_next().await {
                worlds.push(end.as_ref().map_or(World::Unwell, World::of));
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
async fn release(server: &Server, epoch: Epoch) {
    let release = async {
        let mut control = server.connect(&Purpose::Control).await?;
        takeover::release(&mut control, epoch).await?;
        Ok::<_, PrimaryError>(())
    };
    match tokio::time::timeout(RELEASE_WITHIN, release).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => warn!(%error, "the end could not be written down"),
        Err(_) => warn!("the end could not be written down in time"),
    }
}

fn heart_end(end: Result<Result<(), sqlx::Error>, tokio::task::JoinError>) -> End {
    match end {
        Ok(Ok(())) => End::Fatal(WorkerError::Task("the heartbeat")),
        Ok(Err(error)) => End::Again(format!("the heartbeat: {error}")),
        Err(error) => panicked(&error),
    }
}

fn lane_end(end: Result<LaneEnd, tokio::task::JoinError>) -> End {
    match end {
        Ok(LaneEnd::Fenced) => End::Taken,
        Ok(LaneEnd::World { reason, .. }) => End::Again(format!("the primary: {reason}")),
        Ok(LaneEnd::Broken(reason)) => End::Fatal(WorkerError::Broken(reason)),
        Ok(LaneEnd::Drained) => End::Fatal(WorkerError::Task("a lane")),
        Err(error) => panicked(&error),
    }
}

fn task_end(end: TaskEnd) -> End {
    match end {
        TaskEnd::Reader { end: ReaderEnd::Stream(error), .. } => error.into(),
        TaskEnd::Reader { end: ReaderEnd::Closed, .. } => {
            End::Fatal(WorkerError::Task("the reader"))
        }
        TaskEnd::Reader { end: end @ ReaderEnd::ClientEnded, .. } => End::Again(end.to_string()),
        TaskEnd::Upkeep(error) => End::Again(format!("upkeep: {error}")),
        TaskEnd::Outcomes(error) => End::Again(error.to_string()),
        TaskEnd::Confirm(Ok(())) => End::Fatal(WorkerError::Task("confirming answers")),
        TaskEnd::Confirm(Err(error)) => End::Again(format!("confirming answers: {error}")),
        TaskEnd::Veto(VetoEnd::Taken) => End::Taken,
        TaskEnd::Lease(LeaseEnd::Taken) => End::Taken,
        TaskEnd::Lease(LeaseEnd::World(reason)) => End::Again(format!("the lease: {reason}")),
    }
}

fn panicked(cause: &tokio::task::JoinError) -> End {
    error!(%cause, "a task panicked");
    End::Fatal(WorkerError::Task("a task"))
}
