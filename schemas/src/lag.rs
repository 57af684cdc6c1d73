//! How far behind the worker is.

use serde::{Deserialize, Serialize};

/// The worker's answer to the question how far behind it is. The question has no content.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Lag {
    /// Commands of the stream that are not applied yet, at most: every lane counts from the one
    /// that is furthest behind. What is parked is not counted.
    pub commands: u64,
    /// How long the oldest of them has been in the stream, in seconds; 0 when there is none.
    pub seconds: f64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_written_as_it_was_read() {
        let text = include_str!("../fixtures/lag.v1.json").trim();
        let lag: Lag = serde_json::from_str(text).unwrap();
        assert_eq!(serde_json::to_string(&lag).unwrap(), text);
    }
}
