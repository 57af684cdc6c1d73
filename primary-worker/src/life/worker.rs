//! The worker's life: prepare, take over, serve; and again when the primary or the broker fails.
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

use std::{panic::AssertUnwindSafe, sync::Arc, time::Instant};

use async_nats::jetstream::{Context, stream::Stream};
use farwrite_internal::Health;
use farwrite_schemas::Epoch;
use futures_util::FutureExt;
use sqlx::PgConnection;
use tokio_util::sync::CancellationToken;
use tracing::{error, warn};
use uuid::Uuid;

use crate::{
    apply::{handler::Handlers, judge::Refreshed},
    config::{Config, SettingError},
    failpoint::Failpoint,
    keep::{confirm, heartbeat::Pulse, hints::Hints, upkeep},
    lane::{context::LaneContext, turns::SuspectTurns},
    memory::Memory,
    metrics,
    primary::{self, PrimaryError, PrimarySessions, PrimaryStart, Purpose},
    store::{owner, unconfirmed as unconfirmed_rows},
    stream::{client, find, identity, sink::Verified, unreadable::Unreadable},
};

use super::{
    compare::compare,
    end::{ServingEnd, WorkerError},
    lease,
    may_answer::MayAnswer,
    pauses::{Came, Pauses},
    refusal, schema,
    serving::Serving,
    take_over::{check_not_put_back, end_other_lanes, take_over},
    takeover::Claim,
    veto::{ServedRecord, Veto},
};

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
#[derive(Debug)]
pub struct Worker {
    config: Arc<Config>,
    handlers: Arc<Handlers>,
    health: Health,
}

/// What a worker remembers from one takeover to the next.
#[derive(Default)]
struct Remembered {
    /// What its next takeover is based on.
    claim: Claim,
    refreshed: Refreshed,
    unreadable: Unreadable,
    /// Whether it has served: then its login and its database were right once.
    has_served: bool,
}

impl Worker {
    /// A worker with Rust handlers; functions that the database has registered need none.
    ///
    /// # Errors
    /// When a setting breaks its rule.
    pub fn new(config: Config, handlers: Handlers) -> Result<Self, SettingError> {
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
        let mut pauses = Pauses::default();
        let claim = Claim { forced: self.config.take_over, ..Claim::default() };
        let mut remembered = Remembered { claim, ..Remembered::default() };
        loop {
            let serving = AssertUnwindSafe(self.serve(&stop, &mut remembered)).catch_unwind();
            let (came, end) = serving.await.unwrap_or_else(|_| {
                (Came::ToNothing, ServingEnd::again("the worker panicked; the log says where"))
            });
            match end {
                ServingEnd::Stopped => return Ok(()),
                // A role may be barred for a while, a password be changed, a database be renamed.
                ServingEnd::Fatal(WorkerError::Primary(PrimaryError::Sql(error)))
                    if remembered.has_served =>
                {
                    metrics::waiting(true);
                    self.health.waiting(error.to_string());
                    error!(%error, "the primary refuses this worker, which it served before: waiting");
                }
                ServingEnd::Fatal(error) => {
                    refusal::write_down(&self.config, remembered.claim.mine, &error).await;
                    return Err(error);
                }
                ServingEnd::Again { reason, .. } => {
                    metrics::waiting(true);
                    self.health.waiting(reason.as_str());
                    warn!(reason, "waiting, then beginning again");
                }
                ServingEnd::Taken => {
                    metrics::stepped_back();
                    warn!("another worker has taken over this database: this one steps back");
                    remembered.claim = Claim::default();
                }
            }
            let pause = pauses.next(came);
            tokio::select! {
                biased;
                () = stop.cancelled() => return Ok(()),
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// From the first connection to the end of one takeover.
    async fn serve(
        &self,
        stop: &CancellationToken,
        remembered: &mut Remembered,
    ) -> (Came, ServingEnd) {
        // Starting may be broken off anywhere; serving must end in order, and does so by itself.
        let started = tokio::select! {
            biased;
            () = stop.cancelled() => return (Came::ToNothing, ServingEnd::Stopped),
            started = self.start(remembered) => started,
        };
        match started {
            Ok(serving) => {
                remembered.has_served = true;
                let (pulse, began) = (Arc::clone(&serving.shared.pulse), Instant::now());
                let end = serving.run(stop, &mut remembered.claim).await;
                let (committed, lasted) = (pulse.has_committed(), began.elapsed());
                (Came::ToService { committed, lasted }, end)
            }
            Err(end) => (Came::ToNothing, end),
        }
    }

    /// Everything that must hold before anything is read.
    async fn start(&self, remembered: &mut Remembered) -> Result<Serving, ServingEnd> {
        let config = &self.config;
        let within = config.statement_timeout;
        let (server, mut owner) =
            primary::find(&config.database_url, within, &Purpose::Control).await?;
        primary::check_server(&mut owner).await?;
        schema::check_migrated(&mut owner).await?;
        primary::check_identity(&mut owner).await?;
        let client = client::connect(&config.nats_url).await?;
        let context = async_nats::jetstream::new(client.clone());
        // Looked at first without taking over: a worker that is pointed at the wrong stream must
        // not disturb the one that works.
        let mut stream = look_at_stream(&mut owner, &context, config).await?;
        if self.stand_by(&mut owner, remembered).await? {
            stream = look_at_stream(&mut owner, &context, config).await?;
        }
        let hints = Hints::read(&client, &stream, config).await;
        let veto = Veto::new(&client, config);
        let had_owner = owner::epoch(&mut owner).await?.is_some();
        let served = veto.look(had_owner && !remembered.claim.forced).await?;
        let here = owner::identity(&mut owner).await?;
        let allowed = served.allows(&mut owner, &here, remembered.claim.forced).await?;
        allowed.map_err(ServingEnd::again)?;
        check_not_put_back(&mut owner, &config.stream, &hints).await?;
        // All sessions are had before anything is taken over: a takeover that cannot serve helps nobody.
        let epoch = Epoch(Uuid::new_v4());
        let start = PrimaryStart::of(&mut owner).await?;
        let sessions = PrimarySessions { server: server.clone(), start: start.clone() };
        let opened = match OpenSessions::open(&sessions, epoch, config).await {
            Ok(opened) => opened,
            Err(error) => {
                if error.is_of_too_many() && !remembered.claim.forced {
                    end_other_lanes(&mut owner, epoch).await?;
                }
                return Err(error.into());
            }
        };
        let OpenSessions { mut control, heartbeat, outcomes, confirming, lanes } = opened;
        let takeover = take_over(&mut owner, config, &remembered.claim, hints, epoch).await?;
        remembered.claim = Claim { mine: Some(epoch), server: Some(start), ..Claim::default() };
        if !veto.claim(served, &ServedRecord::of(&takeover)).await? {
            return Err(ServingEnd::Taken);
        }
        metrics::took_over();
        Failpoint::AfterTakeover.pass();
        let identity =
            identity::verify(&mut control, &context, &stream, &takeover.progress).await?;
        upkeep::prepare(&mut control, &stream, &takeover, config).await?;
        let (sender, answers) = confirm::channel();
        let (confirm, unconfirmed) = match (required_of(config), confirming) {
            (Some(required), Some(connection)) => {
                (Some(sender), Some((answers, connection, required)))
            }
            (_, _) => {
                unconfirmed_rows::confirm_all(&mut control).await?;
                (None, None)
            }
        };
        let unreadable = remembered.unreadable.clone();
        unreadable.settled(takeover.progress.low_water);
        let message_max = client::stored_max_bytes(&client, &stream);
        let memory = Memory::of(config.memory, config.lanes, message_max);
        let stream = Verified { context, stream, identity, unreadable };
        let shared = LaneContext {
            memory,
            sessions,
            may_answer: MayAnswer::default(),
            turns: SuspectTurns::default(),
            confirm,
            config: Arc::clone(config),
            takeover: Arc::new(takeover),
            handlers: Arc::clone(&self.handlers),
            client,
            pulse: Arc::new(Pulse::default()),
            refreshed: remembered.refreshed.clone(),
            health: self.health.clone(),
        };
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
    async fn stand_by(
        &self,
        connection: &mut PgConnection,
        remembered: &mut Remembered,
    ) -> Result<bool, ServingEnd> {
        let claim = &mut remembered.claim;
        if claim.forced {
            return Ok(false);
        }
        if let Some(mine) = claim.mine {
            if owner::epoch(connection).await? == Some(mine) {
                return Ok(false);
            }
            // Or a failover has taken the takeover back: then the database is free.
            metrics::stepped_back();
            warn!(epoch = %mine, "another worker has taken over this database: this one steps back");
            *claim = Claim::default();
        }
        let waited = lease::stand_by(connection, || {
            metrics::standing_by(true);
            metrics::waiting(false);
            // This worker is ready to take over from the one that serves.
            self.health.ready();
        });
        let waited = waited.await;
        metrics::standing_by(false);
        Ok(waited?)
    }
}

/// The sessions of a takeover, beside the owner's.
struct OpenSessions {
    control: PgConnection,
    heartbeat: PgConnection,
    outcomes: PgConnection,
    /// For outcomes that wait for required standbys, where there are any.
    confirming: Option<PgConnection>,
    lanes: Vec<PgConnection>,
}

impl OpenSessions {
    async fn open(
        sessions: &PrimarySessions,
        epoch: Epoch,
        config: &Config,
    ) -> Result<Self, PrimaryError> {
        let mut lanes = Vec::with_capacity(config.lanes as usize);
        for _ in 0..config.lanes {
            lanes.push(sessions.lane(epoch).await?);
        }
        let confirming = match required_of(config) {
            Some(_) => Some(sessions.control().await?),
            None => None,
        };
        let (control, heartbeat) = (sessions.control().await?, sessions.control().await?);
        Ok(Self { control, heartbeat, outcomes: sessions.control().await?, confirming, lanes })
    }
}

/// The standbys that are required, where there are any.
fn required_of(config: &Config) -> Option<Vec<String>> {
    config.required_standbys.clone().filter(|names| !names.is_empty())
}

/// Finds the stream, and checks that it is the one that the database knows.
async fn look_at_stream(
    connection: &mut PgConnection,
    context: &Context,
    config: &Config,
) -> Result<Stream, ServingEnd> {
    let stream = find::find(context, config).await?;
    compare(connection, context, &stream).await?;
    Ok(stream)
}
