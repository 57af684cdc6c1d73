//! What a worker is told: checked as a whole before anything touches the network.

use std::{collections::BTreeSet, fmt, time::Duration};

use farwrite_schemas::{DatabaseName, NatsServers};

/// Most lanes: each is a connection, and PostgreSQL's default allows 100 of them.
pub(crate) const LANES_MAX: u32 = 64;
/// Bytes of commands and answers that the worker holds at once. Each of eight lanes has room for a batch of
/// commands of 16 kB. Parked commands, pulls and answers have as much each.
pub const MEMORY: usize = 128 << 20;
/// How long the ledger keeps an outcome by default.
pub const LEDGER_KEEP: Duration = Duration::from_secs(7 * 86_400);
/// How often a command may fail alone by chance: with the first pause of a second, doubling, its
/// last attempt comes about four minutes after the first.
pub const ATTEMPTS_MAX: u32 = 10;
/// How long a command that failed by chance waits before its third attempt; doubles each time.
pub const RETRY_PAUSE: Duration = Duration::from_secs(1);
/// How long a command that nobody knows yet is kept: a day, longer than a rolling deploy.
pub const UNKNOWN_KEEP: Duration = Duration::from_secs(86_400);
/// Commands that may be parked: at the stream's own default bound they would fill about a quarter
/// of it.
pub const PARKED_MAX: u64 = 1_000_000;
/// Commands of one key that may be parked.
pub const PARKED_MAX_PER_KEY: u64 = 100_000;
/// How long a batch may run: longer than any command should take, shorter than an operator's
/// patience.
pub const STATEMENT_TIMEOUT: Duration = Duration::from_secs(30);
/// How long an owner may be silent before another worker takes over: longer than a pause of the
/// process or a slow network, short enough to wait for.
pub const LEASE: Duration = Duration::from_secs(5);
/// How long a command stays in the stream at least after it was applied.
pub const TRIM_MIN_AGE: Duration = Duration::from_secs(3_600);
/// Largest size of a new stream: a full stream refuses publishes.
pub const STREAM_MAX_BYTES: i64 = 4 << 30;
/// JetStream's duplicate window of a new stream: its own default.
pub const DUPLICATE_WINDOW: Duration = Duration::from_secs(120);

/// Everything that a worker needs to know. [`Config::new`] has the defaults; each method changes one
/// setting.
///
/// ```
/// # use farwrite_primary_worker::Config;
/// # use farwrite_schemas::DatabaseName;
/// let database = DatabaseName::new("shop")?;
/// let config = Config::new(database, "postgres://localhost/shop", "localhost:4222").lanes(4);
/// assert!(config.validate().is_ok());
/// # Ok::<_, farwrite_schemas::NameError>(())
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct Config {
    pub(crate) database: DatabaseName,
    pub(crate) database_url: String,
    pub(crate) nats_url: String,
    pub(crate) stream: String,
    pub(crate) lanes: u32,
    pub(crate) batch_max_commands: usize,
    pub(crate) ledger_keep: Duration,
    pub(crate) statement_timeout: Duration,
    pub(crate) attempts_max: u32,
    pub(crate) retry_pause: Duration,
    pub(crate) unknown_keep: Duration,
    pub(crate) memory: usize,
    pub(crate) parked_max: u64,
    pub(crate) parked_max_per_key: u64,
    pub(crate) context_allow: BTreeSet<String>,
    pub(crate) required_standbys: Option<Vec<String>>,
    pub(crate) trim_min_age: Duration,
    pub(crate) lease: Duration,
    pub(crate) take_over: bool,
    pub(crate) new_stream: NewStream,
}

/// The settings of a stream that `migrate` makes.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct NewStream {
    /// Copies in a cluster.
    pub replicas: usize,
    /// Largest size, in bytes; publishes beyond it are refused.
    pub max_bytes: i64,
    /// How long JetStream itself suppresses a repeated id.
    pub duplicate_window: Duration,
}

impl fmt::Debug for Config {
    /// Without the URL of the database, which may hold a password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config")
            .field("database", &self.database.as_str())
            .field("nats", &NatsServers::parse(&self.nats_url).to_string())
            .field("stream", &self.stream)
            .field("lanes", &self.lanes)
            .field("required_standbys", &self.required_standbys)
            .finish_non_exhaustive()
    }
}

impl Default for NewStream {
    fn default() -> Self {
        Self { replicas: 1, max_bytes: STREAM_MAX_BYTES, duplicate_window: DUPLICATE_WINDOW }
    }
}

/// A setting breaks its rule.
#[derive(Debug, thiserror::Error)]
#[error("{field}: {rule}")]
pub struct SettingError {
    field: &'static str,
    rule: String,
}

/// Splits a `database-url` into its servers' URLs.
pub(crate) fn server_urls(database_url: &str) -> impl Iterator<Item = &str> {
    database_url.split(',').map(str::trim)
}

impl Config {
    /// Lanes by default. Measured on two cores: functions do as well with 4, but handlers in Rust,
    /// whose lanes wait for a round trip each, do a seventh to a third more with 8, and no more with
    /// 16.
    pub const LANES: u32 = 8;
    /// Commands in a batch by default. Measured: 256 is the knee, where a batch takes 6 ms in the
    /// median; 1,024 gives a quarter more throughput for ten times the 99th percentile.
    pub const BATCH_MAX_COMMANDS: usize = 256;

    /// A configuration with the defaults of everything that has one.
    ///
    /// `database` is Farwrite's name of the database, part of every subject. `database_url` is the
    /// primary, a `postgres://` URL, direct and not through a transaction pooler; or several,
    /// separated by commas, one of which is the primary: the worker finds it. `nats_url` names the
    /// NATS servers, separated by commas.
    #[must_use]
    pub fn new(
        database: DatabaseName,
        database_url: impl Into<String>,
        nats_url: impl Into<String>,
    ) -> Self {
        Self {
            stream: format!("farwrite-{database}"),
            database,
            database_url: database_url.into(),
            nats_url: nats_url.into(),
            lanes: Self::LANES,
            batch_max_commands: Self::BATCH_MAX_COMMANDS,
            ledger_keep: LEDGER_KEEP,
            statement_timeout: STATEMENT_TIMEOUT,
            attempts_max: ATTEMPTS_MAX,
            retry_pause: RETRY_PAUSE,
            unknown_keep: UNKNOWN_KEEP,
            memory: MEMORY,
            parked_max: PARKED_MAX,
            parked_max_per_key: PARKED_MAX_PER_KEY,
            context_allow: BTreeSet::new(),
            required_standbys: None,
            trim_min_age: TRIM_MIN_AGE,
            lease: LEASE,
            take_over: false,
            new_stream: NewStream::default(),
        }
    }

    /// JetStream's name of the command stream.
    #[must_use]
    pub fn stream(mut self, stream: impl Into<String>) -> Self {
        self.stream = stream.into();
        self
    }

    /// How many lanes apply in parallel. May change at any start.
    #[must_use]
    pub fn lanes(mut self, lanes: u32) -> Self {
        self.lanes = lanes;
        self
    }

    /// Most commands in one batch.
    #[must_use]
    pub fn batch_max_commands(mut self, batch_max_commands: usize) -> Self {
        self.batch_max_commands = batch_max_commands;
        self
    }

    /// How long the ledger keeps an outcome, and so how long a repeated id is known.
    #[must_use]
    pub fn ledger_keep(mut self, ledger_keep: Duration) -> Self {
        self.ledger_keep = ledger_keep;
        self
    }

    /// How long one statement of a batch may run.
    #[must_use]
    pub fn statement_timeout(mut self, statement_timeout: Duration) -> Self {
        self.statement_timeout = statement_timeout;
        self
    }

    /// How often a command may fail alone by chance before it is dead-lettered.
    #[must_use]
    pub fn attempts_max(mut self, attempts_max: u32) -> Self {
        self.attempts_max = attempts_max;
        self
    }

    /// How long a command waits after its second failure by chance; doubles each time, up to five
    /// minutes.
    #[must_use]
    pub fn retry_pause(mut self, retry_pause: Duration) -> Self {
        self.retry_pause = retry_pause;
        self
    }

    /// How long a command is parked for want of a handler, a function or a table before it is
    /// dead-lettered.
    #[must_use]
    pub fn unknown_keep(mut self, unknown_keep: Duration) -> Self {
        self.unknown_keep = unknown_keep;
        self
    }

    /// How many bytes of commands and answers the worker holds at once. Beyond, it reads no further, and
    /// drops replies, whose callers ask for the outcome. The process takes a few times as much at most: a
    /// batch that is applied is in memory more than once.
    #[must_use]
    pub fn memory(mut self, bytes: usize) -> Self {
        self.memory = bytes;
        self
    }

    /// How many commands may be parked, shared evenly by the lanes; a lane that has its share
    /// stops.
    #[must_use]
    pub fn parked_max(mut self, parked_max: u64) -> Self {
        self.parked_max = parked_max;
        self
    }

    /// How many commands of one key may be parked; more are dead-lettered.
    #[must_use]
    pub fn parked_max_per_key(mut self, parked_max_per_key: u64) -> Self {
        self.parked_max_per_key = parked_max_per_key;
        self
    }

    /// Members that a command's context may have; a command with another one is rejected.
    #[must_use]
    pub fn context_allow(mut self, context_allow: BTreeSet<String>) -> Self {
        self.context_allow = context_allow;
        self
    }

    /// The standbys that must have flushed a command's commit before the command goes from the
    /// stream: each an `application_name` or a physical slot. Without this setting nothing is
    /// trimmed; with an empty list the primary alone counts.
    #[must_use]
    pub fn required_standbys(mut self, required_standbys: Vec<String>) -> Self {
        self.required_standbys = Some(required_standbys);
        self
    }

    /// How long a command stays in the stream at least after it was applied.
    #[must_use]
    pub fn trim_min_age(mut self, trim_min_age: Duration) -> Self {
        self.trim_min_age = trim_min_age;
        self
    }

    /// How long the worker that owns the database may be silent before another one takes over.
    #[must_use]
    pub fn lease(mut self, lease: Duration) -> Self {
        self.lease = lease;
        self
    }

    /// Whether the worker begins by taking over even from an owner that works.
    #[must_use]
    pub fn take_over(mut self, take_over: bool) -> Self {
        self.take_over = take_over;
        self
    }

    /// How the stream is made when `migrate` does not find it.
    #[must_use]
    pub fn new_stream(mut self, new_stream: NewStream) -> Self {
        self.new_stream = new_stream;
        self
    }

    /// JetStream's name of the command stream.
    #[must_use]
    pub fn stream_name(&self) -> &str {
        &self.stream
    }

    /// The name of the small stream that holds hints, and who serves.
    pub(crate) fn hints_stream(&self) -> String {
        format!("{}-hints", self.stream)
    }

    /// Checks every setting by itself and against the others.
    ///
    /// # Errors
    /// Names the first setting that breaks its rule, and the rule.
    pub fn validate(&self) -> Result<(), SettingError> {
        let rule = |holds: bool, field, rule: &str| {
            if holds { Ok(()) } else { Err(SettingError { field, rule: rule.to_owned() }) }
        };
        let token = |text: &str| {
            !text.is_empty()
                && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
        };
        rule(token(&self.stream), "stream", "letters, digits, '-' and '_' only")?;
        rule(
            (1..=LANES_MAX).contains(&self.lanes),
            "lanes",
            &format!("between 1 and {LANES_MAX}: each is a connection to the primary"),
        )?;
        rule(
            (1..=4_096).contains(&self.batch_max_commands),
            "batch-max-commands",
            "between 1 and 4096",
        )?;
        rule(
            self.ledger_keep >= Duration::from_secs(3_600)
                && self.ledger_keep <= Duration::from_secs(366 * 86_400),
            "ledger-keep-hours",
            "between 1 and 8784 (366 days)",
        )?;
        rule(
            (Duration::from_secs(1)..=Duration::from_secs(3_600)).contains(&self.statement_timeout),
            "statement-timeout-ms",
            "between 1000 and 3600000",
        )?;
        rule((1..=1_000).contains(&self.attempts_max), "attempts-max", "between 1 and 1000")?;
        rule(
            (Duration::from_millis(1)..=Duration::from_secs(300)).contains(&self.retry_pause),
            "retry-pause-ms",
            "between 1 and 300000",
        )?;
        rule(
            self.unknown_keep <= Duration::from_secs(366 * 86_400),
            "unknown-keep-s",
            "at most 31622400 (366 days)",
        )?;
        rule((8 << 20..=64 << 30).contains(&self.memory), "memory-mb", "between 8 and 65536")?;
        rule(
            (u64::from(self.lanes)..=100_000_000).contains(&self.parked_max),
            "parked-max",
            "between the number of lanes and 100000000",
        )?;
        rule(
            (1..=self.parked_max).contains(&self.parked_max_per_key),
            "parked-max-per-key",
            "between 1 and parked-max",
        )?;
        rule(
            self.required_standbys.as_ref().is_none_or(|names| {
                names.len() <= 32 && names.iter().all(|name| !name.is_empty() && name != "none")
            }),
            "required-standbys",
            "names joined by commas, at most 32, or none",
        )?;
        rule(
            self.trim_min_age <= Duration::from_secs(366 * 86_400),
            "trim-min-age-s",
            "at most 31622400 (366 days)",
        )?;
        rule(
            (Duration::from_millis(500)..=Duration::from_secs(300)).contains(&self.lease),
            "lease-ms",
            "between 500 and 300000",
        )?;
        rule(
            server_urls(&self.database_url)
                .all(|url| url.starts_with("postgres://") || url.starts_with("postgresql://")),
            "database-url",
            "a URL that starts with postgres://, or several separated by commas",
        )?;
        rule((1..=5).contains(&self.new_stream.replicas), "stream-replicas", "between 1 and 5")?;
        rule(self.new_stream.max_bytes > 0, "stream-max-bytes", "a positive number of bytes")?;
        rule(
            self.new_stream.duplicate_window >= Duration::from_millis(100),
            "duplicate-window-ms",
            "at least 100",
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_broken_rule_names_the_setting() {
        let name = DatabaseName::new("shop").unwrap();
        let good = Config::new(name, "postgres://localhost/shop", "localhost");
        assert!(good.validate().is_ok());
        let field = |change: fn(&mut Config)| {
            let mut config = good.clone();
            change(&mut config);
            config.validate().unwrap_err().field
        };
        assert_eq!(field(|c| c.lanes = 0), "lanes");
        assert_eq!(field(|c| c.lanes = LANES_MAX + 1), "lanes");
        assert_eq!(field(|c| c.stream = "a.b".into()), "stream");
        assert_eq!(field(|c| c.batch_max_commands = 0), "batch-max-commands");
        assert_eq!(field(|c| c.ledger_keep = Duration::ZERO), "ledger-keep-hours");
        assert_eq!(field(|c| c.database_url = "mysql://x".into()), "database-url");
        assert_eq!(field(|c| c.database_url = "postgres://a/x,b/x".into()), "database-url");
        assert_eq!(field(|c| c.lease = Duration::ZERO), "lease-ms");
    }
}
