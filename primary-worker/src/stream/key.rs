//! Which lane a message belongs to, and which key queue it would wait in.

use farwrite_schemas::Envelope;
use xxhash_rust::xxh3::xxh3_64;

use super::delivery::Delivery;

/// Which hash of the key chooses the lane: 2 is XXH3, 64 bits, without its lowest one, so that
/// PostgreSQL's `bigint` holds it. A new one is a new generation of lanes.
pub(crate) const HASH_VERSION: i32 = 2;

/// What chooses a command's lane: its key, so that a key keeps its order; its id where it has no
/// key, so that a repetition meets the first in one lane. Never negative.
pub(crate) fn lane_hash(envelope: &Envelope) -> i64 {
    let hash = match &envelope.key {
        Some(key) => xxh3_64(key.as_str().as_bytes()),
        None => xxh3_64(envelope.id.uuid().as_bytes()),
    };
    (hash >> 1).cast_signed()
}

/// The key queue that a command waits in, when it must wait: all commands of a key share one; a
/// command without a key has one of its own.
pub(crate) fn key_queue(envelope: &Envelope) -> String {
    match &envelope.key {
        Some(key) => format!("k{key}"),
        None => format!("i{}", envelope.id),
    }
}

/// The lane that a message belongs to.
pub(crate) fn lane_of(delivery: &Delivery, lanes: usize) -> usize {
    let hash = match &delivery.envelope {
        Ok(envelope) => lane_hash(envelope).unsigned_abs(),
        Err(_) => delivery.sequence,
    };
    (hash % lanes as u64) as usize
}
