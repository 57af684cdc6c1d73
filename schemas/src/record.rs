//! What the database holds of a command beside its outcome.

use serde::{Deserialize, Serialize};

/// What the ledger holds beside the outcome.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LedgerRecord {
    /// How often it was tried alone, or 1.
    pub attempts: u32,
    /// The stream that it came from; `None` for one that was cancelled before it came.
    pub stream: Option<String>,
    /// Its place there.
    pub sequence: Option<u64>,
    /// The stream's time of it, in Unix milliseconds.
    pub published_at_ms: Option<i64>,
    /// When the transaction began that settled it, by the database's clock, in Unix milliseconds.
    pub settled_at_ms: i64,
}

/// How a command waits that was accepted and could not be applied yet, or whose outcome waits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ParkedCommand {
    /// Stable, such as `scheduled`, `unknown_command` or `paused`; or
    /// [`UNCONFIRMED`](Self::UNCONFIRMED).
    pub reason: String,
    /// How often it was tried alone.
    pub attempts: u32,
    /// When it, or what waits before it in its key, is tried next, in Unix milliseconds; `None`
    /// while nothing is planned, as for a pause.
    pub due_at_ms: Option<i64>,
    /// How its last attempt failed, where there was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<LastError>,
}

impl ParkedCommand {
    /// The reason of a command that has ended, and whose outcome is not told yet: it expires, and
    /// not every required standby is known to have its commit.
    pub const UNCONFIRMED: &str = "unconfirmed";

    /// Whether the command has ended, and its outcome is not told yet.
    #[must_use]
    pub fn is_unconfirmed(&self) -> bool {
        self.reason == Self::UNCONFIRMED
    }
}

/// How the last attempt at a parked command failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastError {
    /// Stable: an SQLSTATE of PostgreSQL, or a code of Farwrite's own.
    pub code: String,
    /// For people.
    pub message: String,
}
