//! Where an app of this region reads: one value that cannot contradict itself.
//!
//! Only what is said is here. What a server really is, its watcher finds out.

use std::fmt;

use farwrite_lsn_watcher::Watcher;

use crate::region::Region;

/// Where reads go, and where a `write` is made visible. Given to
/// [`Builder::reads`](crate::Builder::reads).
///
/// ```
/// use farwrite_producer::ReadsFrom;
///
/// // In a region with a replica; what is not visible there in time is read on the primary.
/// let jfk: ReadsFrom = ReadsFrom::replica("postgres://app@replica.jfk.internal/shop")
///     .or_primary("postgres://app@primary.ewr.internal/shop")
///     .into();
/// // In the primary's own region.
/// let ewr = ReadsFrom::primary("postgres://app@primary.ewr.internal/shop");
/// ```
#[derive(Clone, Debug, Default)]
pub struct ReadsFrom(pub(crate) ReadsSource);

/// The kinds of it.
#[derive(Clone, Default)]
pub(crate) enum ReadsSource {
    #[default]
    Nowhere,
    Replica(ReplicaReads),
    Primary {
        url: String,
    },
}

/// Reads on this region's replica. Made by [`ReadsFrom::replica`] and others.
#[derive(Clone)]
#[must_use = "give it to a builder"]
pub struct ReplicaReads {
    /// `None` where the app has a pool of its own.
    pub(crate) url: Option<String>,
    pub(crate) watched: WatchedBy,
    pub(crate) primary: Option<String>,
}

/// How a replica is watched.
#[derive(Clone)]
pub(crate) enum WatchedBy {
    /// Over a connection of the producer's own.
    Connection,
    /// Through the region's watcher program.
    Nats,
    /// By a watcher that the app brings.
    Watcher(Watcher),
}

impl ReadsFrom {
    /// Nowhere: the producer publishes and submits only.
    #[must_use]
    pub const fn nowhere() -> Self {
        Self(ReadsSource::Nowhere)
    }

    /// This region's replica: [`Producer::reads`](crate::Producer::reads) reads from it, and `write`
    /// waits for it. A direct connection to one server, neither a pooler nor a balancer.
    pub fn replica(url: impl Into<String>) -> ReplicaReads {
        ReplicaReads { url: Some(url.into()), watched: WatchedBy::Connection, primary: None }
    }

    /// The primary, for its own region: what is committed is visible.
    #[must_use]
    pub fn primary(url: impl Into<String>) -> Self {
        Self(ReadsSource::Primary { url: url.into() })
    }

    /// A pool of the app's own on this region's replica, which the region's watcher program watches.
    pub const fn over_nats() -> ReplicaReads {
        ReplicaReads { url: None, watched: WatchedBy::Nats, primary: None }
    }

    /// A pool of the app's own on the replica that this watcher watches.
    pub const fn watcher(watcher: Watcher) -> ReplicaReads {
        ReplicaReads { url: None, watched: WatchedBy::Watcher(watcher), primary: None }
    }
}

impl ReplicaReads {
    /// Waits for the replica through the region's watcher program instead of a connection of the
    /// producer's own: for regions with many app processes.
    pub fn over_nats(self) -> Self {
        Self { watched: WatchedBy::Nats, ..self }
    }

    /// Waits with a watcher that the app has already. It must watch the replica that is read.
    pub fn watcher(self, watcher: Watcher) -> Self {
        Self { watched: WatchedBy::Watcher(watcher), ..self }
    }

    /// The primary, for what the replica does not show in time: see
    /// [`Producer::read_at`](crate::Producer::read_at). Nothing is connected there before such a
    /// read.
    pub fn or_primary(self, url: impl Into<String>) -> Self {
        Self { primary: Some(url.into()), ..self }
    }
}

impl From<ReplicaReads> for ReadsFrom {
    fn from(replica: ReplicaReads) -> Self {
        Self(ReadsSource::Replica(replica))
    }
}

/// On the region's replica with the primary behind it, or on the primary, or nowhere.
impl From<Region> for ReadsFrom {
    fn from(region: Region) -> Self {
        match (region.replica_url, region.primary_url) {
            (Some(replica), Some(primary)) => Self::replica(replica).or_primary(primary).into(),
            (Some(replica), None) => Self::replica(replica).into(),
            (None, Some(primary)) => Self::primary(primary),
            (None, None) => Self::nowhere(),
        }
    }
}

/// Without URLs, which may hold passwords.
impl fmt::Debug for ReadsSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nowhere => f.write_str("Nowhere"),
            Self::Primary { .. } => f.write_str("Primary"),
            Self::Replica(replica) => replica.fmt(f),
        }
    }
}

impl fmt::Debug for ReplicaReads {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReplicaReads")
            .field("has_url", &self.url.is_some())
            .field("watched", &self.watched)
            .field("has_primary", &self.primary.is_some())
            .finish()
    }
}

impl fmt::Debug for WatchedBy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Connection => "Connection",
            Self::Nats => "Nats",
            Self::Watcher(_) => "Watcher",
        })
    }
}
