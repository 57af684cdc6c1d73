//! Asking another region whether it shows a bookmark.

use serde::{Deserialize, Serialize};

use crate::bookmark::Bookmark;

/// Tell me when your replica shows this, or that it does not for so long.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VisibilityRequest {
    /// What to show.
    pub bookmark: Bookmark,
    /// For how long to wait, in milliseconds.
    pub within_ms: u64,
}

/// What a region says of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "is", rename_all = "snake_case")]
pub enum VisibilityAnswer {
    /// Its replica shows it.
    Visible,
    /// Not yet: ask again.
    NotYet {
        /// What was seen.
        message: String,
    },
    /// It never will: the commit is not in the history of its replica.
    Superseded {
        /// What was seen.
        message: String,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_are_written_as_they_were_read() {
        let text = include_str!("../fixtures/visibility-request.v1.json").trim();
        let request: VisibilityRequest = serde_json::from_str(text).unwrap();
        assert_eq!(serde_json::to_string(&request).unwrap(), text);
        for line in include_str!("../fixtures/visibility-answers.v1.jsonl").lines() {
            let answer: VisibilityAnswer = serde_json::from_str(line).unwrap();
            assert_eq!(serde_json::to_string(&answer).unwrap(), line);
        }
    }
}
