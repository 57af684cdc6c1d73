//! Building a producer, by hand or from the environment.
//!
//! Everything is checked before the first connection is made. NATS is connected at once, so that a
//! wrong address is found at the start; the databases when they are first needed, because an app
//! whose replica is away can still write.

use std::{sync::Arc, time::Duration};

use async_nats::{Client, ConnectOptions};
use farwrite_lsn_watcher::{EmbeddedConfig, NatsConfig, Watcher};
use farwrite_schemas::{DatabaseName, Origin, Subjects};
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use tokio::sync::Mutex;

use crate::{
    build_error::{BuildError, variable},
    journal::{Journal, Keeping},
    limits::Limits,
    link::{connection::Nats, inbox::Inbox, nats::Link, routes::Routes},
    metrics,
    outbox::{
        attempt::Attempts, gather::Gatherer, gathered::Wire, pace::Gather, send::Outbox,
        target::Targets, turns::Turns,
    },
    pending::PendingCalls,
    producer::{Parts, Producer},
    questions::ask::Questions,
    reads::{
        elsewhere::OtherRegions,
        from::ReadFrom,
        servers::{Fallback, Here, ReadServers},
        wait::Reads,
    },
    region::Region,
};

/// How this region's replica is watched.
enum Watch {
    /// Over a connection of the producer's own.
    Embedded,
    /// Through the region's `lsn-watcher` program.
    OverNats,
    /// By a watcher that the app brings.
    Given(Watcher),
}

/// Collects what a producer needs. Made by [`Producer::builder`].
#[must_use = "a builder does nothing until it connects"]
pub struct Builder {
    database: DatabaseName,
    origin: Origin,
    nats_url: Option<String>,
    nats_options: Option<ConnectOptions>,
    client: Option<Client>,
    replica: Option<String>,
    primary: Option<String>,
    primary_reads: Option<String>,
    regions: Vec<Origin>,
    watch: Watch,
    pool: PgPoolOptions,
    limits: Limits,
    journal: Option<Journal>,
    gather: Gather,
}

impl Producer {
    /// Begins a producer of commands for `database`, published from `origin`.
    ///
    /// ```no_run
    /// use farwrite_producer::{DatabaseName, Origin, Producer};
    ///
    /// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
    /// let producer = Producer::builder(DatabaseName::new("shop")?, Origin::new("jfk")?)
    ///     .nats_url("nats://jfk:secret@nats.internal:4222")
    ///     .replica("postgres://app@replica.jfk.internal/shop")
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
            replica: None,
            primary: None,
            primary_reads: None,
            regions: Vec::new(),
            watch: Watch::Embedded,
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
    /// | `FARWRITE_WATCHER` | `embedded` (default), or `nats`: through the region's `lsn-watcher` |
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
        let mut builder = Producer::builder(database, region.name.clone())
            .nats_url(required("FARWRITE_NATS_URL")?)
            .region(region);
        if let Some(regions) = variable("FARWRITE_REGIONS") {
            let regions: Result<Vec<_>, _> =
                regions.split(',').map(|name| Origin::new(name.trim())).collect();
            builder = builder.regions(regions?);
        }
        builder = match variable("FARWRITE_WATCHER").as_deref() {
            None | Some("embedded") => builder,
            Some("nats") => builder.watch_over_nats(),
            Some(_) => {
                let (name, rule) = ("FARWRITE_WATCHER", "\"embedded\" or \"nats\"");
                return Err(BuildError::Variable { name, rule });
            }
        };
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

    /// This region's replica: what [`Producer::reads`] reads from and `write` waits for. A direct
    /// connection to one server, neither a pooler nor a balancer.
    pub fn replica(self, url: impl Into<String>) -> Self {
        Self { replica: Some(url.into()), ..self }
    }

    /// The primary, for reads that this region's replica is too late for: see
    /// [`Producer::read_at`]. Nothing is connected there before one is.
    pub fn primary(self, url: impl Into<String>) -> Self {
        Self { primary: Some(url.into()), ..self }
    }

    /// The regions that [`Call::visible_everywhere`](crate::Call::visible_everywhere) waits for;
    /// this one is left out. `FARWRITE_REGIONS`, joined by commas, says the same.
    pub fn regions(mut self, regions: impl IntoIterator<Item = Origin>) -> Self {
        let others = regions.into_iter().filter(|region| *region != self.origin);
        self.regions = others.collect();
        self
    }

    /// Where a region reads, as its environment says: on its replica with the primary behind it, or
    /// on the primary.
    pub fn region(self, region: Region) -> Self {
        match (region.replica_url, region.primary_url) {
            (Some(replica), primary) => {
                Self { replica: Some(replica), primary, primary_reads: None, ..self }
            }
            (None, primary_reads) => Self { replica: None, primary: None, primary_reads, ..self },
        }
    }

    /// Reads go to the primary: for the primary's own region. What is committed is visible.
    pub fn primary_reads(self, url: impl Into<String>) -> Self {
        Self { primary_reads: Some(url.into()), ..self }
    }

    /// Waits for the replica through the region's `lsn-watcher` program instead of a connection of
    /// the producer's own: for regions with many app processes.
    pub fn watch_over_nats(self) -> Self {
        Self { watch: Watch::OverNats, ..self }
    }

    /// Waits with a watcher that the app has already. It must watch the replica that is read.
    pub fn watcher(self, watcher: Watcher) -> Self {
        Self { watch: Watch::Given(watcher), ..self }
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
        let Self { database, origin, limits, watch, pool, regions, .. } = self;
        limits.validate()?;
        self.journal.as_ref().map_or(Ok(()), |journal| journal.limits.validate())?;
        metrics::describe();
        let nats = match (self.client, self.nats_url) {
            (Some(client), _) => Nats::Client(client),
            (None, Some(url)) => {
                let options = self.nats_options.unwrap_or_default();
                Nats::at(&url, options).map_err(BuildError::NatsUrl)?
            }
            (None, None) => return Err(BuildError::NoNats),
        };
        let options = |what, url: &Option<String>| {
            let parse = |url: &String| {
                url.parse::<PgConnectOptions>().map_err(|source| BuildError::Url { what, source })
            };
            url.as_ref().map(parse).transpose()
        };
        let replica = options("replica's", &self.replica)?;
        let primary = options("primary's", &self.primary_reads)?;
        let fallback = options("primary's", &self.primary)?;
        let subjects = Subjects::new(database);
        let journal = match self.journal {
            Some(journal) => Some(Arc::new(Keeping::open(journal, &subjects, &origin).await?)),
            None => None,
        };
        let inbox = Inbox::new_subject(&subjects, &origin);
        let routes = Arc::new(Routes::default());
        let client = nats.connect(&inbox, &routes).await?;
        let is_replica = self.replica.is_some() || !matches!(watch, Watch::Embedded);
        if is_replica && primary.is_some() {
            let both = "reads go to a replica or to the primary, not to both: give the primary with \
                        Builder::primary to fall back to it";
            return Err(BuildError::Contradiction(both));
        }
        if !is_replica && fallback.is_some() {
            let none = "there is no replica to fall back from: give the primary with \
                        Builder::primary_reads to read there";
            return Err(BuildError::Contradiction(none));
        }
        let watcher = match (watch, self.replica.or(self.primary_reads)) {
            (Watch::Given(watcher), _) => Some(watcher),
            (Watch::OverNats, _) => {
                let config = NatsConfig::default();
                Some(Watcher::over_nats(client.clone(), &subjects, &origin, config)?)
            }
            (Watch::Embedded, Some(url)) => Some(Watcher::embedded(EmbeddedConfig::new(url))?),
            (Watch::Embedded, None) => None,
        };
        let servers = match watcher {
            Some(watcher) => {
                let meant = if is_replica { ReadFrom::Replica } else { ReadFrom::Primary };
                let fallback = fallback.zip(self.primary).map(|(options, url)| {
                    Fallback::new(url, pool.clone().connect_lazy_with(options))
                });
                let server = replica.or(primary).map(|options| (pool, options));
                ReadServers::Somewhere { here: Here::new(watcher, server, meant), fallback }
            }
            None => ReadServers::Nowhere,
        };
        let inbox = Inbox::open(&client, &inbox, Arc::clone(&routes)).await?;
        let gatherer = (self.gather != Gather::Never).then(|| {
            let (client, routes) = (client.clone(), Arc::clone(&routes));
            let (inbox, ack_timeout) = (inbox.prefix().to_owned(), limits.ack_timeout);
            Gatherer::open(self.gather, Wire { client, routes, inbox, ack_timeout })
        });
        let link = Arc::new(Link { client, inbox, routes, ack_timeout: limits.ack_timeout });
        let database = subjects.database().clone();
        let reads = Arc::new(Reads::new(servers, database, limits.read_budget, limits.timeout));
        let calls = PendingCalls::new(limits.max_pending);
        let outbox = Outbox {
            link: Arc::clone(&link),
            calls: Arc::clone(&calls),
            targets: Targets::new(subjects.clone(), origin.clone()),
            turns: Arc::new(Turns::new(limits.max_blocked_keys, limits.max_blocked_bytes)),
            journal: journal.clone(),
            attempts: Attempts::new(Arc::clone(&link), limits.max_in_flight, gatherer),
        };
        let (asking, of_reads) = (Arc::clone(&link), Arc::clone(&reads));
        let parts = Parts {
            origin,
            limits,
            regions,
            questions: Questions::new(asking, of_reads, Arc::clone(&calls), &subjects),
            others: OtherRegions::new(Arc::clone(&link), subjects),
            calls,
            link,
            outbox,
            reads,
            journal,
            reconciling: Mutex::default(),
        };
        Ok(Producer { parts: Arc::new(parts) })
    }
}
