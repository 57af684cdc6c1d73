//! The last message that was read, as an anchor for the next consumer.

use farwrite_schemas::CommandId;

use crate::store::text::storable;

use super::{delivery::Delivery, position::Anchor};

/// The last message that was read, or applied before this reader began.
pub(crate) struct LastRead {
    sequence: u64,
    at_ns: i64,
    id: LastReadId,
}

/// A message's id, without a copy where it is a command's.
enum LastReadId {
    Command(CommandId),
    Text(Option<String>),
}

impl LastRead {
    pub(crate) fn of(delivery: &Delivery) -> Self {
        let id = match &delivery.envelope {
            Ok(envelope) => LastReadId::Command(envelope.id),
            Err(_) => LastReadId::Text(delivery.message_id().map(storable)),
        };
        Self { sequence: delivery.sequence, at_ns: delivery.at_ns, id }
    }

    pub(crate) fn anchor(&self) -> Anchor {
        let id = match &self.id {
            LastReadId::Command(id) => Some(id.to_string()),
            LastReadId::Text(id) => id.clone(),
        };
        Anchor { sequence: self.sequence, at_ns: self.at_ns, id }
    }
}

impl From<Anchor> for LastRead {
    fn from(Anchor { sequence, at_ns, id }: Anchor) -> Self {
        Self { sequence, at_ns, id: LastReadId::Text(id) }
    }
}
