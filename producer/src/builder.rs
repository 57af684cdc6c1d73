//! Building a producer, by hand or from the environment.
//!
//! Everything is checked before the first connection is made. NATS is connected at once, so that a
//! wrong address is found at the start; the databases when they are first needed, because an app
//! whose replica is away can still write.

use std::{fmt, sync::Arc, time::Duration};

use async_nats::{Client, ConnectOptions};
use farwrite_schemas::{DatabaseName, Origin, Subjects};
use sqlx::postgres::PgPoolOptions;
use tokio::sync::Mutex;

use crate::{
    build_error::{BuildError, variable},
    journal::{Journal, Keeping},
    limits::Limits,
    link::{
        connection::{NatsSource, default_options},
        inbox::Inbox,
        nats::NatsLink,
        routes::Routes,
    },
    metrics,
    outbox::{
        attempt::Attempts,
        finish::Finisher,
        gather::{Gather, Gatherer},
        send::Outbox,
        target::Destinations,
        turns::KeyTurns,
    },
    pending::PendingCalls,
    producer::{Parts, Producer},
    questions::ask::Questions,
    reads::{elsewhere::OtherRegions, wait::Reads},
    reads_from::{ReadsFrom, ReadsSource},
    region::Region,
};

/// Collects what a producer needs. Made by [`Producer::builder`].
#[must_use = "a builder does nothing until it connects"]
pub struct Builder {
    database: DatabaseName,
    origin: Origin,
    nats_url: Option<String>,
    nats_options: Option<ConnectOptions>,
    client: Option<Client>,
    reads: ReadsFrom,
    regions: Vec<Origin>,
    pool: PgPoolOptions,
    limits: Limits,
    journal: Option<Journal>,
    gather: Gather,
}

impl Producer {
    /// Begins a producer of commands for `database`, published from `origin`.
    ///
    /// ```no_run
    /// use farwrite_producer::{DatabaseName, Origin, Producer, ReadsFrom};
    ///
    /// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
    /// let producer = Producer::builder(DatabaseName::new("shop")?, Origin::new("jfk")?)
    ///     .nats_url("nats://jfk:secret@nats.internal:4222")
    ///     .reads(ReadsFrom::replica("postgres://app@replica.jfk.internal/shop"))
    ///     .connect()
    ///     .await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn builder(database: DatabaseName, origin: Origin) -> Builder {
        Builder {
            database,
            origin,
            nats_url: None,
            nats_options: None,
            client: None,
            reads: ReadsFrom::default(),
            regions: Vec::new(),
            pool: PgPoolOptions::new(),
            limits: Limits::default(),
            journal: None,
            gather: Gather::default(),
        }
    }

    /// Builds a producer from the environment and connects it.
    ///
    /// | variable | |
    /// |---|---|
    /// | `FARWRITE_DATABASE` | the database's name, required |
    /// | `FARWRITE_NATS_URL` | where NATS is, with user and password where needed, required |
    /// | `FARWRITE_WATCHER` | `embedded` (default), or `nats`: through the region's `farwrite watcher run` |
    /// | `FARWRITE_REGIONS` | all regions, joined by commas: [`Builder::regions`] |
    /// | `FARWRITE_TIMEOUT_MS` | a call's default timeout in milliseconds |
    ///
    /// and those of [`Region::from_env`]: which region this is, its replica, the primary.
    ///
    /// # Errors
    /// When a variable is missing or wrong, or NATS cannot be connected to.
    pub async fn from_env() -> Result<Self, BuildError> {
        Builder::from_env()?.connect().await
    }
}

impl Builder {
    /// A builder with what the environment says, to be changed before it connects. The variables
    /// are those of [`Producer::from_env`].
    ///
    /// # Errors
    /// When a variable is missing or wrong.
    pub fn from_env() -> Result<Self, BuildError> {
        let required = |name| variable(name).ok_or(BuildError::Missing(name));
        let database = DatabaseName::new(required("FARWRITE_DATABASE")?)?;
        let region = Region::from_env()?;
        let origin = region.name.clone();
        let mut builder = Producer::builder(database, origin)
            .nats_url(required("FARWRITE_NATS_URL")?)
            .reads(reads(region, variable("FARWRITE_WATCHER").as_deref())?);
        if let Some(regions) = variable("FARWRITE_REGIONS") {
            let regions: Result<Vec<_>, _> =
                regions.split(',').map(|name| Origin::new(name.trim())).collect();
            builder = builder.regions(regions?);
        }
        if let Some(timeout) = variable("FARWRITE_TIMEOUT_MS") {
            let (name, rule) = ("FARWRITE_TIMEOUT_MS", "a number of milliseconds");
            let timeout = timeout.parse().map_err(|_| BuildError::Variable { name, rule })?;
            builder.limits.timeout = Duration::from_millis(timeout);
        }
        Ok(builder)
    }

    /// Where NATS is: `nats://[user:password@]host[:port]`, several joined by commas. A user
    /// without a password is a token. The first URL's credentials count for all servers.
    pub fn nats_url(self, url: impl Into<String>) -> Self {
        Self { nats_url: Some(url.into()), ..self }
    }

    /// How to connect to NATS. The event callback is replaced by the producer's own, which it
    /// needs to notice what is not permitted.
    pub fn nats_options(self, options: ConnectOptions) -> Self {
        Self { nats_options: Some(options), ..self }
    }

    /// A NATS client that the app has already. The server tells what is not permitted only to the
    /// client's event callback, which cannot be added later: a publish that is not permitted ends
    /// as timed out on such a client, instead of at once as not permitted.
    pub fn client(self, client: Client) -> Self {
        Self { client: Some(client), ..self }
    }

    /// Where reads go, and where a `write` is made visible. Nowhere unless it is said.
    pub fn reads(self, from: impl Into<ReadsFrom>) -> Self {
        Self { reads: from.into(), ..self }
    }

    /// The regions that [`Call::visible_everywhere`](crate::Call::visible_everywhere) waits for;
    /// this one is left out. `FARWRITE_REGIONS`, joined by commas, says the same.
    pub fn regions(mut self, regions: impl IntoIterator<Item = Origin>) -> Self {
        let others = regions.into_iter().filter(|region| *region != self.origin);
        self.regions = others.collect();
        self
    }

    /// How the pool of [`Producer::reads`] behaves. Its `after_connect` and `before_acquire` are
    /// replaced by the producer's own, which check what a connection shows.
    pub fn pool(self, options: PgPoolOptions) -> Self {
        Self { pool: options, ..self }
    }

    /// What the producer may hold and how long it tries.
    pub fn limits(self, limits: Limits) -> Self {
        Self { limits, ..self }
    }

    /// When commands that wait are published as one atomic batch of JetStream's. It changes how
    /// fast they are stored and nothing else: each has its own acknowledgement, error and deadline.
    pub fn gather(self, gather: Gather) -> Self {
        Self { gather, ..self }
    }

    /// Writes down what is sent until its outcome is known, so that
    /// [`Producer::reconcile`] can find out what the stream lost, and send it again. Without it
    /// nothing is kept.
    pub fn journal(self, journal: Journal) -> Self {
        Self { journal: Some(journal), ..self }
    }

    /// Checks everything, opens the journal, connects to NATS and opens the inbox.
    ///
    /// # Errors
    /// When a setting is wrong or NATS cannot be connected to. With
    /// [`ConnectOptions::retry_on_initial_connect`] the latter is not an error: calls wait for the
    /// connection, each until its own deadline.
    pub async fn connect(self) -> Result<Producer, BuildError> {
        let Self { database, origin, limits, regions, .. } = self;
        limits.validate()?;
        self.reads.validate()?;
        self.journal.as_ref().map_or(Ok(()), |journal| journal.limits.validate())?;
        metrics::describe();
        let nats = match (self.client, self.nats_url) {
            (Some(client), _) => NatsSource::Client(client),
            (None, Some(url)) => {
                let options = self.nats_options.unwrap_or_else(default_options);
                NatsSource::at(&url, options).map_err(BuildError::NatsUrl)?
            }
            (None, None) => return Err(BuildError::NoNats),
        };
        let subjects = Subjects::new(database);
        let journal = match self.journal {
            Some(journal) => Some(Arc::new(Keeping::open(journal, &subjects, &origin).await?)),
            None => None,
        };
        let inbox = Inbox::new_subject(&subjects, &origin);
        let routes = Arc::new(Routes::default());
        let client = nats.connect(&inbox, &routes).await.map_err(BuildError::Nats)?;
        let servers = self.reads.open(self.pool, &client, &subjects, &origin)?;
        let inbox = Inbox::open(&client, &inbox, Arc::clone(&routes)).await;
        let inbox = inbox.map_err(BuildError::Inbox)?;
        let link = Arc::new(NatsLink { client, inbox, routes, ack_timeout: limits.ack_timeout });
        let gatherer =
            (self.gather != Gather::Never).then(|| Gatherer::open(self.gather, Arc::clone(&link)));
        let database = subjects.database().clone();
        let reads = Arc::new(Reads::new(servers, database, limits.read_budget, limits.timeout));
        let calls = PendingCalls::new(limits.max_pending);
        let (turns, abandoned) = KeyTurns::new(limits.max_blocked_keys, limits.max_blocked_bytes);
        let outbox = Arc::new(Outbox {
            link: Arc::clone(&link),
            calls: Arc::clone(&calls),
            targets: Destinations::new(subjects.clone(), origin.clone()),
            turns: Arc::new(turns),
            journal: journal.clone(),
            attempts: Attempts::new(Arc::clone(&link), limits.max_in_flight, gatherer),
        });
        let (asking, of_reads) = (Arc::clone(&link), Arc::clone(&reads));
        let parts = Parts {
            origin,
            limits,
            regions,
            questions: Questions::new(asking, of_reads, Arc::clone(&calls), &subjects),
            others: OtherRegions::new(Arc::clone(&link), subjects),
            calls,
            link,
            _finisher: Finisher::open(&outbox, abandoned),
            outbox,
            reads,
            journal,
            reconciling: Mutex::default(),
        };
        Ok(Producer { parts: Arc::new(parts) })
    }
}

/// Where a region reads, watched as `FARWRITE_WATCHER` says.
fn reads(region: Region, watcher: Option<&str>) -> Result<ReadsFrom, BuildError> {
    let reads = ReadsFrom::from(region);
    let wrong = |rule| Err(BuildError::Variable { name: "FARWRITE_WATCHER", rule });
    match (watcher, reads.0) {
        (None | Some("embedded"), source) => Ok(ReadsFrom(source)),
        (Some("nats"), ReadsSource::Nowhere) => Ok(ReadsFrom::over_nats().into()),
        (Some("nats"), ReadsSource::Replica(replica)) => Ok(replica.over_nats().into()),
        (Some("nats"), ReadsSource::Primary { .. }) => {
            wrong("\"embedded\" where reads go to the primary")
        }
        (Some(_), _) => wrong("\"embedded\" or \"nats\""),
    }
}

impl fmt::Debug for Builder {
    /// Without what may hold credentials.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { database, origin, reads, regions, limits, gather, .. } = self;
        f.debug_struct("Builder")
            .field("database", database)
            .field("origin", origin)
            .field("reads", reads)
            .field("regions", regions)
            .field("limits", limits)
            .field("gather", gather)
            .finish_non_exhaustive()
    }
}
