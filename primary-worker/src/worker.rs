//! The worker's life: prepare, take over, serve; and again when the world fails.
//!
//! ```text
//! starting    => standing by  the primary and the stream are what they must be
//! standing by => serving      the database is free, and the takeover is committed
//! serving     => starting     the primary or NATS failed: everything is dropped, and begins with a new takeover
//!             => starting     another worker took over: this one steps back, and will stand by
//!             => ended        asked to stop, or the stream is another one
//! starting    => ended        the configuration or the stream break the contract
//! ```
//!
//! A takeover's tasks live and die together, in one `JoinSet`: when the first of them ends, the
//! others are ended.

use std::{sync::Arc, time::Duration};

use async_nats::jetstream::stream::Stream;
use farwrite_schemas::Epoch;
use sqlx::PgConnection;
use tokio::{sync::mpsc, task::JoinSet};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::{
    config::{Config, ConfigError},
    confirm::{self, Unconfirmed},
    failpoint::Failpoint,
    handler::Handlers,
    health::Health,
    heartbeat::{self, Pulse},
    hints::{self, Hints},
    lane::{self, Dispatcher, LaneEnd, Refreshed, Shared},
    lease::{self, LeaseEnd},
    metrics, migrate,
    outcomes::{self, OutcomesEnd},
    primary::{self, PrimaryError, Purpose, Server},
    stream::{self, Reader, ReaderEnd, StreamError, Verified},
    takeover::{self, Claim, TakeoverError},
    trim::Trimmer,
    upkeep,
    veto::{MayAnswer, Veto, VetoEnd},
};

/// First and longest pause before the worker begins again.
const PAUSE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));
/// How long a batch in flight may take to finish once the worker is asked to stop; then it is
/// left to roll back, and done again by whoever comes next.
const STOP_WITHIN: Duration = Duration::from_millis(500);
/// How long the last heartbeat may take.
const BEAT_WITHIN: Duration = Duration::from_millis(500);
/// How long writing down that the worker ended in good order may take.
const RELEASE_WITHIN: Duration = Duration::from_millis(500);
/// How long the last replies may take to leave.
const FLUSH_WITHIN: Duration = Duration::from_millis(500);

/// Why a worker ended, other than being asked to.
#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    /// A setting breaks its rule.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The primary is not one to work on.
    #[error(transparent)]
    Primary(#[from] PrimaryError),
    /// The stream is not one to work with, or not the one that the database knows.
    #[error(transparent)]
    Stream(#[from] StreamError),
    /// A handler committed or rolled back the batch's transaction.
    #[error(
        "a handler broke its promise, and the worker stops before more is lost: {0}. \
             Look for the commands of the last batch in farwrite.ledger, and mend the handler"
    )]
    Broken(String),
    /// A part of the worker ended unexpectedly.
    #[error("{0} ended unexpectedly")]
    Task(&'static str),
}

/// How one takeover's service ended.
enum End {
    /// It was asked to stop.
    Stopped,
    /// Something that may pass: begin again.
    Again(String),
    /// Another worker has taken over.
    Taken,
    /// Something that will not.
    Fatal(WorkerError),
}

/// Applies the commands of one database, until it is asked to stop.
///
/// ```no_run
/// # use farwrite_primary_worker::{Config, Handlers, Worker};
/// # async fn example(config: Config) -> Result<(), Box<dyn std::error::Error>> {
/// let stop = tokio_util::sync::CancellationToken::new();
/// Worker::new(config, Handlers::new())?.run(stop).await?;
/// # Ok(())
/// # }
/// ```
pub struct Worker {
    config: Arc<Config>,
    handlers: Arc<Handlers>,
    health: Health,
}

/// What a worker remembers from one takeover to the next.
#[derive(Default)]
struct Memory {
    /// What its next takeover is based on.
    claim: Claim,
    refreshed: Refreshed,
}

impl Worker {
    /// A worker with Rust handlers; functions that the database has registered need none.
    ///
    /// # Errors
    /// When a setting breaks its rule.
    pub fn new(config: Config, handlers: Handlers) -> Result<Self, ConfigError> {
        config.validate()?;
        let health = Health::default();
        Ok(Self { config: Arc::new(config), handlers: Arc::new(handlers), health })
    }

    /// Whether it is ready, to be asked while it runs.
    #[must_use]
    pub fn health(&self) -> Health {
        self.health.clone()
    }

    /// Works until `stop` is cancelled: then it finishes the batches in flight, settles them and
    /// returns. While the primary or NATS is away it waits, for ever.
    ///
    /// # Errors
    /// When it must not go on; the error says why and what to do.
    pub async fn run(self, stop: CancellationToken) -> Result<(), WorkerError> {
        let mut pause = PAUSE.0;
        let claim = Claim { forced: self.config.take_over, ..Claim::default() };
        let mut memory = Memory { claim, ..Memory::default() };
        loop {
            let before = memory.claim.mine;
            match self.serve(&stop, &mut memory).await {
                End::Stopped => return Ok(()),
                End::Fatal(error) => return Err(error),
                End::Again(reason) => {
                    metrics::waiting(true);
                    self.health.waiting(&reason);
                    warn!(reason, "waiting, then beginning again");
                }
                End::Taken => {
                    metrics::stepped_back();
                    warn!("another worker has taken over this database: this one steps back");
                    memory.claim = Claim::default();
                    continue;
                }
            }
            // A takeover that succeeded begins the pauses anew.
            pause = if memory.claim.mine == before { (pause * 2).min(PAUSE.1) } else { PAUSE.0 };
            tokio::select! {
                biased;
                () = stop.cancelled() => return Ok(()),
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// From the first connection to the end of one takeover.
    async fn serve(&self, stop: &CancellationToken, memory: &mut Memory) -> End {
        // Starting may be broken off anywhere; serving must end in order, and does so by itself.
        let started = tokio::select! {
            biased;
            () = stop.cancelled() => return End::Stopped,
            started = self.start(memory) => started,
        };
        match started {
            Ok(serving) => serving.run(stop, memory).await,
            Err(end) => end,
        }
    }

    /// Everything that must hold before anything is read.
    async fn start(&self, memory: &mut Memory) -> Result<Serving, End> {
        let config = &self.config;
        let within = config.statement_timeout;
        let (server, mut owner) =
            primary::find(&config.database_url, within, &Purpose::Control).await?;
        primary::check_server(&mut owner).await?;
        migrate::check_migrated(&mut owner).await?;
        let client = stream::connect(&config.nats_url).await?;
        // Looked at first without taking over: a worker that is pointed at the wrong stream must
        // not disturb the one that works.
        let mut stream = look_at_stream(&mut owner, &client, config).await?;
        if self.stand_by(&mut owner, memory).await? {
            stream = look_at_stream(&mut owner, &client, config).await?;
        }
        let hints = Hints::read(&client, &stream, config).await;
        let veto = Veto::new(&client, config);
        let seen = veto.look().await?;
        if !memory.claim.forced {
            let own = primary::timeline(&mut owner).await.map_err(PrimaryError::from)?;
            let allowed = seen.allows(&mut owner, own).await.map_err(PrimaryError::from)?;
            allowed.map_err(|vetoed| End::Again(vetoed.to_string()))?;
        }
        let takeover = takeover::take_over(&mut owner, config, &memory.claim, hints).await?;
        memory.claim = Claim { mine: Some(takeover.epoch), ..Claim::default() };
        if !veto.claim(seen, &takeover).await? {
            return Err(End::Taken);
        }
        metrics::took_over();
        Failpoint::AfterTakeover.pass();
        let mut control = server.connect(&Purpose::Control).await?;
        let identity = stream::verify(&mut control, &stream, &takeover.position()).await?;
        upkeep::prepare(&mut control, &stream, takeover.stream_id, config).await?;
        let required = config.required_standbys.clone().filter(|names| !names.is_empty());
        let (sender, answers) = confirm::channel();
        let (confirm, unconfirmed) = match required {
            Some(required) => {
                let connection = server.connect(&Purpose::Control).await?;
                (Some(sender), Some((answers, connection, required)))
            }
            None => (None, None),
        };
        let context = async_nats::jetstream::new(client.clone());
        let stream = Verified { context, stream, identity };
        let shared = Shared {
            may_answer: MayAnswer::default(),
            confirm,
            config: Arc::clone(config),
            takeover: Arc::new(takeover),
            handlers: Arc::clone(&self.handlers),
            client,
            pulse: Arc::new(Pulse::default()),
            refreshed: memory.refreshed.clone(),
            health: self.health.clone(),
        };
        let mut lanes = Vec::with_capacity(config.lanes as usize);
        for _ in 0..config.lanes {
            lanes.push(server.connect(&Purpose::Lane(shared.takeover.epoch)).await?);
        }
        let heartbeat = server.connect(&Purpose::Control).await?;
        let outcomes = server.connect(&Purpose::Control).await?;
        Ok(Serving {
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
        })
    }

    /// Waits while another worker owns the database; answers whether it had to.
    async fn stand_by(&self, owner: &mut PgConnection, memory: &mut Memory) -> Result<bool, End> {
        let claim = &mut memory.claim;
        if claim.forced {
            return Ok(false);
        }
        if let Some(mine) = claim.mine {
            if lease::owner(owner).await.map_err(PrimaryError::from)?.epoch == Some(mine) {
                return Ok(false);
            }
            // Or a failover has taken the takeover back: then the database is free.
            metrics::stepped_back();
            warn!(epoch = %mine, "another worker has taken over this database: this one steps back");
            *claim = Claim::default();
        }
        let waited = lease::stand_by(owner, || {
            metrics::standing_by(true);
            metrics::waiting(false);
            self.health.standing_by();
        });
        let waited = waited.await;
        metrics::standing_by(false);
        Ok(waited.map_err(PrimaryError::from)?)
    }
}

/// Finds the stream, and checks that it is the one that the database knows.
async fn look_at_stream(
    connection: &mut PgConnection,
    client: &async_nats::Client,
    config: &Config,
) -> Result<Stream, End> {
    let stream = stream::find(client, config).await?;
    let position = takeover::read_position(connection, &config.stream).await?;
    stream::verify(connection, &stream, &position).await?;
    Ok(stream)
}

/// A takeover with everything that it needs.
struct Serving {
    shared: Shared,
    stream: Verified,
    server: Server,
    lanes: Vec<PgConnection>,
    /// The session that stands for the owner.
    owner: PgConnection,
    control: PgConnection,
    heartbeat: PgConnection,
    outcomes: PgConnection,
    veto: Veto,
    /// Answers that wait for required standbys, where there are any.
    unconfirmed: Option<(mpsc::Receiver<Unconfirmed>, PgConnection, Vec<String>)>,
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
    async fn run(self, stop: &CancellationToken, memory: &mut Memory) -> End {
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
        let (mut dispatcher, open_lanes) = lane::open(&shared, lanes, &lanes_stop, &stream, &name);
        let held = &stream.stream;
        let keeper = hints::Keeper::new(client, held, config, &takeover.hints);
        let trimmer = Trimmer::new(held.clone(), config, shared.may_answer.clone());
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
        shared.health.serving();
        info!(epoch = %takeover.epoch, next, lanes = config.lanes, "serving");
        let mut first_lane = None;
        let end = tokio::select! {
            biased;
            () = stop.cancelled() => End::Stopped,
            Some(end) = lanes.join_next() => {
                first_lane = end.as_ref().ok().map(World::of);
                lane_end(end)
            }
            Some(end) = heart.join_next() => heart_end(end),
            Some(end) = tasks.join_next() => match end {
                Ok(end) => task_end(end),
                Err(error) => panicked(&error),
            },
        };
        lanes_stop.cancel();
        let mut worlds: Vec<World> = first_lane.into_iter().collect();
        let is_drained = drain(lanes, &mut worlds).await;
        // After the last commit, and before the process goes: nobody else may be there to write.
        heart_stop.cancel();
        let beaten = tokio::time::timeout(BEAT_WITHIN, heart.join_next());
        if beaten.await.is_err() {
            warn!("the last heartbeat did not finish in time");
        }
        if is_drained && worlds.iter().all(|world| matches!(world, World::Well)) {
            release(&server, takeover.epoch).await;
        }
        memory.claim.blameless = worlds.iter().filter_map(World::blameless).collect();
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

/// Lets the batches in flight finish and be settled. Answers whether all did.
async fn drain(mut lanes: JoinSet<LaneEnd>, worlds: &mut Vec<World>) -> bool {
    let drained = tokio::time::timeout(STOP_WITHIN, async {
        while let Some(end) = lanes.join_next().await {
            worlds.push(end.as_ref().map_or(World::Unwell, World::of));
        }
    });
    if drained.await.is_err() {
        warn!("a batch did not finish in time: it is left to roll back, and will be applied again");
        lanes.shutdown().await;
        return false;
    }
    true
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

impl From<PrimaryError> for End {
    fn from(error: PrimaryError) -> Self {
        if error.may_pass() { Self::Again(error.to_string()) } else { Self::Fatal(error.into()) }
    }
}

impl From<StreamError> for End {
    fn from(error: StreamError) -> Self {
        if error.may_pass() { Self::Again(error.to_string()) } else { Self::Fatal(error.into()) }
    }
}

impl From<TakeoverError> for End {
    fn from(error: TakeoverError) -> Self {
        match error {
            TakeoverError::Sql(error) => PrimaryError::Sql(error).into(),
            TakeoverError::Stream(error) => error.into(),
            TakeoverError::Owned => Self::Again(error.to_string()),
        }
    }
}
