//! The settings of a watcher over NATS.

use std::time::Duration;

use crate::{config_error::WatcherConfigError, embedded::EmbeddedConfig, waiters::BoardLimits};

/// How to watch through the region's program.
#[derive(Clone, Debug)]
pub struct NatsConfig {
    repeat: Duration,
    max_waiters: usize,
}

impl NatsConfig {
    /// 500 ms: four times within the program's memory, and two messages a second for a wait that
    /// lasts.
    pub const REPEAT: Duration = Duration::from_millis(500);
    /// 20 ms: the answer to an interest costs a message to every app of the region, so a little
    /// more is believed than beside the replica; still less than a server needs to crash and serve
    /// again.
    const FRESH_FOR: Duration = Duration::from_millis(20);
    /// 250 ms: an interest is answered within a round trip inside the region.
    const ANSWER_WITHIN: Duration = Duration::from_millis(250);
    /// 20 ms between two questions about a branch that is in doubt, as long as somebody waits: a
    /// replica whose timeline is not told is proven by a row, at most a second later.
    pub(super) const DOUBT_INTERVAL: Duration = Duration::from_millis(20);
    /// The least time between two interests of one app, however many callers come: the program
    /// would not poll more often either.
    pub(super) const LEAST_INTERVAL: Duration = Duration::from_millis(1);

    /// How often an interest is repeated while it lasts: [`REPEAT`](Self::REPEAT) unless said. The
    /// program forgets one after [`RegionConfig::TTL`](crate::RegionConfig::TTL).
    #[must_use]
    pub const fn repeat(mut self, interval: Duration) -> Self {
        self.repeat = interval;
        self
    }

    /// The most callers that may wait at once: [`EmbeddedConfig::MAX_WAITERS`] unless said. Further
    /// ones get [`TooManyWaiters`](crate::WaitError::TooManyWaiters).
    #[must_use]
    pub const fn max_waiters(mut self, limit: usize) -> Self {
        self.max_waiters = limit;
        self
    }

    pub(super) const fn repeat_interval(&self) -> Duration {
        self.repeat
    }

    /// Checks every setting.
    ///
    /// # Errors
    /// With the first setting that breaks its rule.
    pub fn validate(&self) -> Result<(), WatcherConfigError> {
        let error = |field, rule| Err(WatcherConfigError::new(field, rule));
        if self.repeat < Duration::from_millis(10) || self.repeat > Duration::from_secs(1) {
            return error("repeat", "10 ms to 1 s, half of what the program remembers");
        }
        if self.max_waiters == 0 {
            return error("max_waiters", "at least 1");
        }
        Ok(())
    }

    pub(crate) fn limits(&self) -> BoardLimits {
        BoardLimits {
            max_waiters: self.max_waiters,
            fresh_for: Self::FRESH_FOR,
            // Two repetitions went unanswered, and a half for the way.
            forget_after: self.repeat * 5 / 2,
            answer_within: Self::ANSWER_WITHIN,
        }
    }
}

impl Default for NatsConfig {
    fn default() -> Self {
        Self { repeat: Self::REPEAT, max_waiters: EmbeddedConfig::MAX_WAITERS }
    }
}
