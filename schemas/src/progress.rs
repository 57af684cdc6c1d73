//! What a region's apps and its watcher tell each other.

use serde::{Deserialize, Serialize};

use crate::Lsn;

/// An app's interest in a position: while it has one that is not reached, the watcher polls and
/// broadcasts. It is said again as long as it lasts, so that a lost message only delays.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Interest {
    /// The highest position that somebody in the app waits for.
    pub lsn: Lsn,
}

/// How far the region's replica has come, told to every app of the region at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// The replayed position; `None` while the replica cannot be asked.
    pub replayed: Option<Lsn>,
    /// When the server was started (`pg_postmaster_start_time()`), in microseconds since 1970: a
    /// replica that crashed can come back *behind* what it had shown, so positions of different
    /// starts do not compare.
    pub server_start_us: i64,
    /// Whether the server is a replica at all; false after a promotion.
    pub in_recovery: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_are_written_as_they_were_read() {
        let text = include_str!("../fixtures/interest.v1.json").trim();
        let interest: Interest = serde_json::from_str(text).unwrap();
        assert_eq!(serde_json::to_string(&interest).unwrap(), text);
        for text in [
            include_str!("../fixtures/progress.v1.json").trim(),
            include_str!("../fixtures/progress-unreachable.v1.json").trim(),
        ] {
            let progress: Progress = serde_json::from_str(text).unwrap();
            assert_eq!(serde_json::to_string(&progress).unwrap(), text);
        }
    }
}
