//! What a region's apps and its watcher tell each other.

use serde::{Deserialize, Serialize};

use crate::{
    bookmark::{Epoch, Timeline},
    branch::Branch,
    identity::IdentityDigest,
    lsn::Lsn,
};

/// Most epochs that one interest asks about; further ones are not looked at.
pub const INTEREST_MAX_EPOCHS: usize = 16;

/// Reads [`ReplicaProgress::server_start_us`].
pub const SERVER_START_QUERY: &str =
    "SELECT (extract(epoch FROM pg_postmaster_start_time()) * 1000000)::int8";

/// An app's interest in a position: while it has one that is not reached, the watcher polls and
/// broadcasts. It is said again as long as it lasts, so that a lost message only delays.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Interest {
    /// The highest position that somebody in the app waits for.
    pub lsn: Lsn,
    /// Epochs whose branch the app has to know, because somebody waits for a position of theirs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub epochs: Vec<Epoch>,
}

/// How far the region's replica has come, told to every app of the region at once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplicaProgress {
    /// The replayed position, or up to where a server that is no replica shows its own commits;
    /// `None` while the server cannot be asked.
    pub replayed: Option<Lsn>,
    /// When the server was started (`pg_postmaster_start_time()`), in microseconds since 1970: a
    /// replica that crashed can come back *behind* what it had shown, so positions of different
    /// starts do not compare.
    pub server_start_us: i64,
    /// Whether the server is a replica at all; false after a promotion.
    pub in_recovery: bool,
    /// The timeline that the server was on after the position was read, where it tells.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeline: Option<Timeline>,
    /// Which database it shows: two that were mixed up say nothing of each other's positions. `None` where
    /// it shows none of its own, or does not tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity: Option<IdentityDigest>,
    /// What its history says of epochs that were asked about.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub branches: Vec<Branch>,
    /// Why its history could not be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unreadable: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_are_written_as_they_were_read() {
        for text in [
            include_str!("../fixtures/interest.v1.json").trim(),
            include_str!("../fixtures/interest-epochs.v1.json").trim(),
        ] {
            let interest: Interest = serde_json::from_str(text).unwrap();
            assert_eq!(serde_json::to_string(&interest).unwrap(), text);
        }
        for text in [
            include_str!("../fixtures/progress-branches.v1.json").trim(),
            include_str!("../fixtures/progress.v1.json").trim(),
            include_str!("../fixtures/progress-unreachable.v1.json").trim(),
        ] {
            let progress: ReplicaProgress = serde_json::from_str(text).unwrap();
            assert_eq!(serde_json::to_string(&progress).unwrap(), text);
        }
    }
}
