//! Positions in a stream: data, and nothing else.

/// A position in the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct StreamPosition {
    /// The sequence of the message there.
    pub(crate) sequence: u64,
    /// The stream's time of it, in nanoseconds since 1970.
    pub(crate) at_ns: i64,
}

/// A message that was applied: a stream that holds another one at its sequence is another stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Anchor {
    /// Its sequence.
    pub(crate) sequence: u64,
    /// The stream's time of it, in nanoseconds since 1970.
    pub(crate) at_ns: i64,
    /// Its message id, if it had one.
    pub(crate) id: Option<String>,
}

/// Where a lane stands in a stream.
#[derive(Clone, Debug)]
pub(crate) struct LanePosition {
    /// Every command of the lane up to here (inclusive) is settled.
    pub(crate) sequence: u64,
    /// The last message that it applied, if any.
    pub(crate) anchor: Option<Anchor>,
    /// Commands that ran alone after an unclean end and did not come back, by sequence.
    pub(crate) suspects: Vec<i64>,
}

/// How far the database has come in a stream.
#[derive(Clone, Debug)]
pub(crate) struct StreamProgress {
    /// Everything up to here (inclusive) is settled.
    pub(crate) low_water: u64,
    /// Something up to here (inclusive) is settled.
    pub(crate) high_water: u64,
    /// The last message that was applied, if one was.
    pub(crate) anchor: Option<Anchor>,
}

impl LanePosition {
    /// A lane that has settled everything up to a sequence, and nothing since.
    pub(crate) const fn at(sequence: u64) -> Self {
        Self { sequence, anchor: None, suspects: Vec::new() }
    }
}

impl StreamProgress {
    /// How far lanes have come in all; for a stream without lanes that is nowhere.
    pub(crate) fn of(lanes: &[LanePosition]) -> Self {
        let sequences = || lanes.iter().map(|lane| lane.sequence);
        let anchors = lanes.iter().filter_map(|lane| lane.anchor.clone());
        Self {
            low_water: sequences().min().unwrap_or(0),
            high_water: sequences().max().unwrap_or(0),
            anchor: anchors.max_by_key(|anchor| anchor.sequence),
        }
    }
}
