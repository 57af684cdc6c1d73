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
//! A takeover's tasks are the affair of `serving.rs`.

use std::{sync::Arc, time::Duration};

use async_nats::jetstream::{Context, stream::Stream};
use farwrite_internal::Health;
use sqlx::PgConnection;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::{
    apply::{handler::Handlers, judge::Refreshed},
    config::{Config, ConfigError},
    failpoint::Failpoint,
    keep::{confirm, heartbeat::Pulse, hints::Hints, upkeep},
    lane::{run::Shared, suspects::Turns},
    metrics,
    primary::{self, PrimaryError, Purpose, Start},
    stream::{self, StreamError, reader::Verified, unreadable::Unreadable},
};

use super::{
    lease, schema,
    serving::Serving,
    takeover::{self, Claim, TakeoverError},
    veto::{MayAnswer, Veto},
};

/// First and longest pause before the worker begins again.
const PAUSE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

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
pub(crate) enum End {
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
    unreadable: Unreadable,
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
                    self.health.waiting(reason.as_str());
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
            Ok(serving) => serving.run(stop, &mut memory.claim).await,
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
        schema::check_migrated(&mut owner).await?;
        let client = stream::connect(&config.nats_url).await?;
        let context = async_nats::jetstream::new(client.clone());
        // Looked at first without taking over: a worker that is pointed at the wrong stream must
        // not disturb the one that works.
        let mut stream = look_at_stream(&mut owner, &context, config).await?;
        if self.stand_by(&mut owner, memory).await? {
            stream = look_at_stream(&mut owner, &context, config).await?;
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
        let start = Start::of(&mut owner).await.map_err(PrimaryError::from)?;
        let mut control = server.connect_as(&start, &Purpose::Control).await?;
        let position = takeover.position();
        let identity = stream::verify(&mut control, &context, &stream, &position).await?;
        upkeep::prepare(&mut control, &stream, takeover.stream_id, config).await?;
        let required = config.required_standbys.clone().filter(|names| !names.is_empty());
        let (sender, answers) = confirm::channel();
        let (confirm, unconfirmed) = match required {
            Some(required) => {
                let connection = server.connect_as(&start, &Purpose::Control).await?;
                (Some(sender), Some((answers, connection, required)))
            }
            None => (None, None),
        };
        let unreadable = memory.unreadable.clone();
        unreadable.settled(position.low_water);
        let stream = Verified { context, stream, identity, unreadable };
        let shared = Shared {
            may_answer: MayAnswer::default(),
            turns: Turns::default(),
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
            lanes.push(server.connect_as(&start, &Purpose::Lane(shared.takeover.epoch)).await?);
        }
        let heartbeat = server.connect_as(&start, &Purpose::Control).await?;
        let outcomes = server.connect_as(&start, &Purpose::Control).await?;
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
            // This worker is ready to take over from the one that serves.
            self.health.ready();
        });
        let waited = waited.await;
        metrics::standing_by(false);
        Ok(waited.map_err(PrimaryError::from)?)
    }
}

/// Finds the stream, and checks that it is the one that the database knows.
async fn look_at_stream(
    connection: &mut PgConnection,
    context: &Context,
    config: &Config,
) -> Result<Stream, End> {
    let stream = stream::find(context, config).await?;
    let position = takeover::read_position(connection, &config.stream).await?;
    stream::verify(connection, context, &stream, &position).await?;
    Ok(stream)
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
