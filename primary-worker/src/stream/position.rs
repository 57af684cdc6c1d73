//! Positions in a stream, and what proves them: data, and nothing else.
//!
//! A sequence alone proves nothing: another message may have it one day. So a position names the
//! message there. JetStream only appends, and only loses its end: a stream that still holds the
//! message at a position holds all that was read below it.

use farwrite_schemas::CommandId;
use uuid::Uuid;
use xxhash_rust::xxh3::xxh3_128;

/// What tells one message from another one at the same sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct MessageProof {
    /// The stream's time of it, in nanoseconds since 1970.
    pub(crate) at_ns: i64,
    /// Its message id, or a hash of one that is no command's; `None` where it has none.
    pub(crate) id: Option<Uuid>,
}

/// A position in the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct StreamPosition {
    /// The sequence of the message there.
    pub(crate) sequence: u64,
    /// The message; `None` where nothing was passed yet: before the first one, or where an operator had
    /// the database go on.
    pub(crate) message: Option<MessageProof>,
}

/// Where a lane stands in a stream.
#[derive(Clone, Debug)]
pub(crate) struct LanePosition {
    /// Every command of the lane up to here (inclusive) is settled.
    pub(crate) position: StreamPosition,
    /// Commands that ran alone after an unclean end and did not come back, by sequence.
    pub(crate) suspects: Vec<i64>,
}

/// How far the database has come in a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct StreamProgress {
    /// Everything up to here (inclusive) is settled.
    pub(crate) low_water: u64,
    /// What was passed last: by a lane, whether it applied, skipped, parked or merely moved along.
    pub(crate) highest: StreamPosition,
}

impl MessageProof {
    pub(crate) fn of(at_ns: i64, message_id: Option<&str>) -> Self {
        let id = |text: &str| match text.parse() {
            Ok(id) => CommandId::uuid(id),
            Err(_) => Uuid::from_u128(xxh3_128(text.as_bytes())),
        };
        Self { at_ns, id: message_id.map(id) }
    }
}

impl StreamPosition {
    /// A position whose message nobody has read.
    pub(crate) const fn unread(sequence: u64) -> Self {
        Self { sequence, message: None }
    }

    /// The higher one of two; at the same sequence the one that names its message.
    pub(crate) fn or_higher(self, other: Self) -> Self {
        let is_higher = other.sequence > self.sequence
            || (other.sequence == self.sequence && self.message.is_none());
        if is_higher { other } else { self }
    }
}

impl StreamProgress {
    /// How far lanes have come in all, and those before them; without lanes everything up to
    /// `low_water` is settled.
    pub(crate) fn of(lanes: &[LanePosition], low_water: u64, before: StreamPosition) -> Self {
        let positions = || lanes.iter().map(|lane| lane.position);
        let low_water = positions().map(|position| position.sequence).min().unwrap_or(low_water);
        let start = StreamPosition::unread(low_water).or_higher(before);
        Self { low_water, highest: positions().fold(start, StreamPosition::or_higher) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(sequence: u64, at_ns: i64) -> StreamPosition {
        StreamPosition { sequence, message: Some(MessageProof { at_ns, id: None }) }
    }

    fn progress(positions: &[StreamPosition], before: StreamPosition) -> (u64, StreamPosition) {
        let lane = |position: &_| LanePosition { position: *position, suspects: Vec::new() };
        let lanes: Vec<_> = positions.iter().map(lane).collect();
        let StreamProgress { low_water, highest } = StreamProgress::of(&lanes, 3, before);
        (low_water, highest)
    }

    #[test]
    fn the_highest_position_of_all_lanes_now_and_before_is_what_proves() {
        let never = StreamPosition::unread(0);
        assert_eq!(progress(&[], never), (3, StreamPosition::unread(3)));
        assert_eq!(progress(&[at(7, 1), at(9, 2)], never), (7, at(9, 2)));
        assert_eq!(progress(&[at(7, 1), at(9, 2)], at(12, 5)), (7, at(12, 5)));
        assert_eq!(progress(&[StreamPosition::unread(7), at(7, 1)], never), (7, at(7, 1)));
    }

    #[test]
    fn a_message_is_told_by_its_time_and_id() {
        let id = CommandId::now();
        let proof = MessageProof::of(5, Some(&id.to_string()));
        assert_eq!(proof, MessageProof { at_ns: 5, id: Some(id.uuid()) });
        assert_ne!(MessageProof::of(5, Some("a")), MessageProof::of(5, Some("b")));
        assert_ne!(MessageProof::of(5, Some("a")), MessageProof::of(5, None));
    }
}
