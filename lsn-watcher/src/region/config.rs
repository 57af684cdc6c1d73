//! The settings of a region's watcher, and why it ends.

use std::time::Duration;

use farwrite_schemas::{DatabaseName, Origin, Subjects};

use crate::{config_error::WatcherConfigError, embedded::EmbeddedConfig};

/// What a region's watcher watches, and for whom.
#[derive(Clone, Debug)]
pub struct RegionConfig {
    pub(super) subjects: Subjects,
    pub(super) region: Origin,
    pub(super) replica: EmbeddedConfig,
    pub(super) ttl: Duration,
}

impl RegionConfig {
    /// 2 s: four repetitions of an app's interest, so that three may be lost; and when an app
    /// dies, at most twice that many seconds of polling for nobody.
    pub const TTL: Duration = Duration::from_secs(2);

    /// Watches the region's `replica` of the database that the subjects name. The replica's
    /// `max_waiters` has no meaning here.
    #[must_use]
    pub const fn new(subjects: Subjects, region: Origin, replica: EmbeddedConfig) -> Self {
        Self { subjects, region, replica, ttl: Self::TTL }
    }

    /// How long an interest lasts that is not repeated: [`TTL`](Self::TTL) unless said.
    #[must_use]
    pub const fn ttl(mut self, ttl: Duration) -> Self {
        self.ttl = ttl;
        self
    }

    /// The database, as the subjects name it.
    #[must_use]
    pub const fn database(&self) -> &DatabaseName {
        self.subjects.database()
    }

    /// The region.
    #[must_use]
    pub const fn region(&self) -> &Origin {
        &self.region
    }

    /// Checks every setting.
    ///
    /// # Errors
    /// With the first setting that breaks its rule.
    pub fn validate(&self) -> Result<(), WatcherConfigError> {
        if self.ttl < Duration::from_millis(100) {
            return Err(WatcherConfigError::new("ttl", "at least 100 ms"));
        }
        self.replica.validate()
    }
}

/// Why a region's watcher ended.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RegionError {
    /// A setting breaks its rule.
    #[error(transparent)]
    Config(#[from] WatcherConfigError),
    /// The watch subject cannot be subscribed to.
    #[error("cannot listen to the region's interests")]
    Subscribe(#[from] async_nats::SubscribeError),
    /// The NATS client was closed for good.
    #[error("the NATS client was closed")]
    NatsClosed,
}
