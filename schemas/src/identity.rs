//! Which database a server shows, in short.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use xxhash_rust::xxh3::xxh3_64;

/// Reads the identity of the database, null where it has none of its own. The user needs `USAGE` on the
/// schema `farwrite` and `SELECT` on `owner`.
pub const IDENTITY_QUERY: &str = "SELECT farwrite.identity()";

/// A hash of a database's identity (`farwrite.owner`), 16 hexadecimal digits in JSON. It tells databases
/// apart that were mixed up by mistake, and is no secret.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct IdentityDigest(u64);

impl IdentityDigest {
    /// Hashes an identity.
    #[must_use]
    pub fn of(identity: &str) -> Self {
        Self(xxh3_64(identity.as_bytes()))
    }
}

impl fmt::Display for IdentityDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl Serialize for IdentityDigest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for IdentityDigest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        u64::from_str_radix(&text, 16).map(Self).map_err(de::Error::custom)
    }
}
