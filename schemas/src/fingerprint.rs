//! What tells a repeated command from another command under the same id.

use uuid::Uuid;
use xxhash_rust::xxh3::Xxh3;

use crate::{key::Key, name::CommandName};

/// A 128-bit hash (XXH3) of a command's name, version, key and body, kept in the ledger: an id
/// that comes again with another fingerprint is refused as `id_reused`.
///
/// It guards against mistakes, not against an attacker: a client that may publish under an id may
/// publish anything.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Fingerprint(u128);

impl Fingerprint {
    /// Hashes a command, byte for byte: the same JSON written differently is another body.
    #[must_use]
    pub fn of(name: &CommandName, version: u32, key: Option<&Key>, body: &[u8]) -> Self {
        let mut hash = Xxh3::new();
        hash.update(name.as_str().as_bytes());
        hash.update(&[0]);
        hash.update(&version.to_le_bytes());
        // A key is never empty, so that no key and any key differ.
        hash.update(key.map_or("", Key::as_str).as_bytes());
        hash.update(&[0]);
        hash.update(body);
        Self(hash.digest128())
    }

    /// The hash in the shape of a UUID: PostgreSQL's type of exactly 16 bytes.
    #[must_use]
    pub const fn as_uuid(self) -> Uuid {
        Uuid::from_u128(self.0)
    }

    /// The reverse of [`Fingerprint::as_uuid`].
    #[must_use]
    pub const fn from_uuid(uuid: Uuid) -> Self {
        Self(uuid.as_u128())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_the_same_in_every_version_and_differs_by_every_part() {
        let name = |name| CommandName::new(name).unwrap();
        let key = Key::new("k").unwrap();
        let one = Fingerprint::of(&name("a"), 1, Some(&key), b"{}");
        let printed = one.as_uuid().to_string();
        assert_eq!(printed, include_str!("../fixtures/fingerprint.v1.txt").trim());
        assert_ne!(one, Fingerprint::of(&name("b"), 1, Some(&key), b"{}"));
        assert_ne!(one, Fingerprint::of(&name("a"), 2, Some(&key), b"{}"));
        assert_ne!(one, Fingerprint::of(&name("a"), 1, None, b"{}"));
        assert_ne!(one, Fingerprint::of(&name("a"), 1, Some(&key), b"{ }"));
    }
}
