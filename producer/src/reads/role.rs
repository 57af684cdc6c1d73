//! What the server that an app reads is.

/// The producer was built without a database to read from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the producer was built without a database to read from: give it a replica's URL")]
pub struct NoReads;

/// What a server that is read is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServerRole {
    /// A region's replica.
    Replica,
    /// The primary.
    Primary,
}

impl ServerRole {
    /// As metrics print it: `replica` or `primary`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Replica => "replica",
            Self::Primary => "primary",
        }
    }
}
