//! Which server an app reads.

/// The producer was built without a database to read from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the producer was built without a database to read from: give it a replica's URL")]
pub struct NoReads;

/// Which server reads are meant to go to. What it really is, its watcher finds out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadFrom {
    /// A region's replica.
    Replica,
    /// The primary.
    Primary,
}

impl ReadFrom {
    /// As metrics and examples print it.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Replica => "replica",
            Self::Primary => "primary",
        }
    }
}
