//! What makes a command the same command, however often it is published.

use std::{fmt, str::FromStr, time::SystemTime};

use serde::{Deserialize, Serialize};
use uuid::{Uuid, Variant, Version};

/// The namespace of ids that are derived from a natural idempotency key. Never changes: a derived
/// id must be the same in every version of every program.
const DERIVED: Uuid = Uuid::from_u128(0x6ccf_5e6c_5f0c_4d0a_9c5e_7d1f_0a3b_92e4);

/// The identity of a command: at most one effect per id, for as long as the ledger keeps it.
///
/// Either new ([`CommandId::now`], a UUIDv7, which has an age) or derived from something natural
/// ([`CommandId::derived`]), which has none and is kept apart in the ledger.
///
/// ```
/// use farwrite_schemas::CommandId;
/// let id = CommandId::derived("order.place", "checkout 4711");
/// assert_eq!(id, CommandId::derived("order.place", "checkout 4711"));
/// assert_eq!(id.unix_ms(), None);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "Uuid")]
pub struct CommandId(Uuid);

/// The text is not a command id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a command id is a UUID of 36 characters in lower case, preferably of version 7")]
pub struct CommandIdError;

impl CommandId {
    /// A new id, ordered by time. What is random in it is the kernel's, at the price of a system
    /// call (0.3 µs): a generator in the process would go on with the same numbers in each copy of
    /// a machine that was suspended, or of a process that was forked.
    #[must_use]
    #[allow(clippy::new_without_default)]
    pub fn now() -> Self {
        Self(Uuid::now_v7())
    }

    /// The id that belongs to a natural idempotency key (an order number, a file and line) of one
    /// kind of command: the same two texts give the same id, everywhere and for ever.
    #[must_use]
    pub fn derived(kind: &str, natural_key: &str) -> Self {
        let mut text = Vec::with_capacity(kind.len() + 1 + natural_key.len());
        text.extend_from_slice(kind.as_bytes());
        text.push(0);
        text.extend_from_slice(natural_key.as_bytes());
        Self(Uuid::new_v5(&DERIVED, &text))
    }

    /// Takes any UUID that the caller answers for.
    #[must_use]
    pub const fn from_uuid(id: Uuid) -> Self {
        Self(id)
    }

    /// The UUID.
    #[must_use]
    pub const fn uuid(self) -> Uuid {
        self.0
    }

    /// When a UUIDv7 was made, in milliseconds since 1970; `None` for every other kind, which has
    /// no age.
    #[must_use]
    pub fn unix_ms(self) -> Option<u64> {
        let is_v7 = self.0.get_version() == Some(Version::SortRand)
            && self.0.get_variant() == Variant::RFC4122;
        is_v7.then(|| (self.0.as_u128() >> 80) as u64)
    }

    /// When a UUIDv7 was made; `None` for every other kind.
    #[must_use]
    pub fn time(self) -> Option<SystemTime> {
        let age = std::time::Duration::from_millis(self.unix_ms()?);
        SystemTime::UNIX_EPOCH.checked_add(age)
    }
}

impl fmt::Display for CommandId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl fmt::Debug for CommandId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl From<CommandId> for Uuid {
    fn from(id: CommandId) -> Self {
        id.0
    }
}

impl TryFrom<String> for CommandId {
    type Error = CommandIdError;

    fn try_from(text: String) -> Result<Self, CommandIdError> {
        text.parse()
    }
}

impl FromStr for CommandId {
    type Err = CommandIdError;

    /// Reads only the hyphenated form in lower case, so that one id has one spelling on the wire: JetStream
    /// compares `Nats-Msg-Id` byte by byte.
    fn from_str(text: &str) -> Result<Self, CommandIdError> {
        if text.len() != 36 {
            return Err(CommandIdError);
        }
        let id = Uuid::try_parse(text).map_err(|_| CommandIdError)?;
        let mut spelling = Uuid::encode_buffer();
        if id.hyphenated().encode_lower(&mut spelling) == text {
            Ok(Self(id))
        } else {
            Err(CommandIdError)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_id_carries_its_time() {
        let before = SystemTime::now();
        let age = CommandId::now().time().unwrap().duration_since(before);
        assert!(age.unwrap_or_else(|error| error.duration()).as_secs() < 5);
    }

    #[test]
    fn a_derived_id_is_the_same_in_every_version() {
        let id = CommandId::derived("flight.departed", "2013-01 line 1");
        assert_eq!(id.to_string(), include_str!("../fixtures/derived-id.v1.txt").trim());
        assert_ne!(id, CommandId::derived("flight.departed2013", "-01 line 1"));
    }

    #[test]
    fn one_id_has_one_spelling() {
        let id = CommandId::now();
        assert_eq!(id.to_string().parse(), Ok(id));
        assert!(id.uuid().simple().to_string().parse::<CommandId>().is_err());
        assert!(id.uuid().braced().to_string().parse::<CommandId>().is_err());
        assert!(id.to_string().to_uppercase().parse::<CommandId>().is_err());
        assert!(serde_json::from_str::<CommandId>(&format!("\"{}\"", id.uuid().simple())).is_err());
        assert!("".parse::<CommandId>().is_err());
    }
}
