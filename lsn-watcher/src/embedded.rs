//! The watcher inside an app: it polls the replica itself.

use std::{fmt, time::Duration};

use sqlx::postgres::PgConnectOptions;

use crate::{
    config_error::WatcherConfigError,
    poll::{PollIntervals, Replica},
    waiters::BoardLimits,
};

/// How to watch a replica from inside an app.
#[derive(Clone)]
pub struct EmbeddedConfig {
    replica_url: String,
    intervals: PollIntervals,
    connect_timeout: Duration,
    query_timeout: Duration,
    max_waiters: usize,
}

impl EmbeddedConfig {
    /// 2 s: a connection to the server next door takes milliseconds, with TLS some tens; a server
    /// that needs longer is not one to wait for.
    pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
    /// 500 ms: ten thousand times what the question costs, and short enough that a server which
    /// hangs is noticed within the deadlines that people set.
    pub const QUERY_TIMEOUT: Duration = Duration::from_millis(500);
    /// 100,000 waiters are some 10 MB here, and far beyond what one app serves at once.
    pub const MAX_WAITERS: usize = 100_000;
    /// 10 ms: no server crashes and accepts connections again in less, and a question is so cheap
    /// that there is no reason to believe an older answer.
    const FRESH_FOR: Duration = Duration::from_millis(10);
    /// One connection sees one server in order, so a mark is renewed and never doubted; a second
    /// only bounds the case of a clock that was set back.
    const FORGET_AFTER: Duration = Duration::from_secs(1);
    /// 100 ms: five polls at the slowest default pace without an answer.
    const ANSWER_WITHIN: Duration = Duration::from_millis(100);

    /// Watches `replica_url` with the defaults: `postgres://user:password@host:port/database`. Which
    /// rights the user needs is in [the crate's documentation](crate#branches-of-history).
    ///
    /// It must be the very server that is read afterwards, and a direct connection: behind a pooler
    /// or a balancer the answers of several servers would mix.
    #[must_use]
    pub fn new(replica_url: impl Into<String>) -> Self {
        Self {
            replica_url: replica_url.into(),
            intervals: PollIntervals::default(),
            connect_timeout: Self::CONNECT_TIMEOUT,
            query_timeout: Self::QUERY_TIMEOUT,
            max_waiters: Self::MAX_WAITERS,
        }
    }

    /// How often the replica is asked while somebody waits.
    #[must_use]
    pub const fn intervals(mut self, intervals: PollIntervals) -> Self {
        self.intervals = intervals;
        self
    }

    /// The limit on one connection attempt: [`CONNECT_TIMEOUT`](Self::CONNECT_TIMEOUT) unless said.
    #[must_use]
    pub const fn connect_timeout(mut self, limit: Duration) -> Self {
        self.connect_timeout = limit;
        self
    }

    /// The limit on one question: [`QUERY_TIMEOUT`](Self::QUERY_TIMEOUT) unless said. A server that is
    /// silent for longer counts as gone.
    #[must_use]
    pub const fn query_timeout(mut self, limit: Duration) -> Self {
        self.query_timeout = limit;
        self
    }

    /// The most callers that may wait at once: [`MAX_WAITERS`](Self::MAX_WAITERS) unless said. Further
    /// ones get [`TooManyWaiters`](crate::WaitError::TooManyWaiters).
    #[must_use]
    pub const fn max_waiters(mut self, limit: usize) -> Self {
        self.max_waiters = limit;
        self
    }

    /// Checks every setting, without touching the network.
    ///
    /// # Errors
    /// With the first setting that breaks its rule. The replica's URL is never repeated.
    pub fn validate(&self) -> Result<(), WatcherConfigError> {
        self.replica().map(drop)
    }

    pub(crate) fn replica(&self) -> Result<Replica, WatcherConfigError> {
        let error = |field, rule| Err(WatcherConfigError::new(field, rule));
        self.intervals.validate()?;
        if self.connect_timeout.is_zero() {
            return error("connect_timeout", "longer than 0");
        }
        if self.query_timeout < Duration::from_millis(10) {
            return error("query_timeout", "at least 10 ms");
        }
        if self.max_waiters == 0 {
            return error("max_waiters", "at least 1");
        }
        let has_scheme = ["postgres://", "postgresql://"]
            .iter()
            .any(|scheme| self.replica_url.starts_with(scheme));
        match self.replica_url.parse::<PgConnectOptions>() {
            Ok(options) if has_scheme => {
                Ok(Replica::new(options, self.connect_timeout, self.query_timeout))
            }
            _ => error("replica_url", "a URL like postgres://user@host:port/database"),
        }
    }

    pub(crate) const fn poll_intervals(&self) -> PollIntervals {
        self.intervals
    }

    pub(crate) const fn limits(&self) -> BoardLimits {
        BoardLimits {
            max_waiters: self.max_waiters,
            fresh_for: Self::FRESH_FOR,
            forget_after: Self::FORGET_AFTER,
            answer_within: Self::ANSWER_WITHIN,
        }
    }
}

impl fmt::Debug for EmbeddedConfig {
    /// Without the URL, which may hold a password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EmbeddedConfig")
            .field("intervals", &self.intervals)
            .field("connect_timeout", &self.connect_timeout)
            .field("query_timeout", &self.query_timeout)
            .field("max_waiters", &self.max_waiters)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_setting_that_breaks_its_rule_is_named_and_the_url_is_not_repeated() {
        let good = EmbeddedConfig::new("postgres://me:secret@localhost:5432/shop");
        assert_eq!(good.validate(), Ok(()));
        assert!(!format!("{good:?}").contains("secret"));
        let field = |config: EmbeddedConfig| config.validate().unwrap_err().field;
        for url in ["", "localhost", "mysql://me:secret@x/y", "postgres://me:secret@x:port/y"] {
            let error = EmbeddedConfig::new(url).validate().unwrap_err();
            assert_eq!(error.field, "replica_url", "{url}");
            assert!(!error.to_string().contains("secret"));
        }
        assert_eq!(field(good.clone().max_waiters(0)), "max_waiters");
        assert_eq!(field(good.query_timeout(Duration::ZERO)), "query_timeout");
    }
}
