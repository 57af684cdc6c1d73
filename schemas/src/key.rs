//! What commands are ordered by.

use std::{fmt, sync::Arc};

use serde::{Deserialize, Serialize};

/// Longest key, in bytes. A B-tree entry holds 2,704 bytes, and later parts of Farwrite index
/// keys; 512 leaves room and is far more than an identifier needs.
pub const KEY_MAX_BYTES: usize = 512;

/// The key of a command: commands of one key are applied in the order of the stream, one after
/// another. A command without a key has no order. Clones share the text.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Key(Arc<str>);

/// The text cannot be a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// It is empty: leave the key out instead.
    #[error("a key must not be empty: a command without order has no key at all")]
    Empty,
    /// It is longer than [`KEY_MAX_BYTES`].
    #[error(
        "a key has at most {KEY_MAX_BYTES} bytes, this one has {bytes}: use an identifier or a hash of it"
    )]
    TooLong {
        /// Its length.
        bytes: usize,
    },
    /// A header line cannot carry it.
    #[error(
        "a key must not hold control characters, nor start or end with white space: it travels in a header line"
    )]
    NotAHeaderValue,
}

impl Key {
    /// Checks a key.
    ///
    /// # Errors
    /// When it is empty, longer than [`KEY_MAX_BYTES`] or cannot travel in a header line.
    pub fn new(key: impl AsRef<str>) -> Result<Self, KeyError> {
        let key = key.as_ref();
        if key.is_empty() {
            Err(KeyError::Empty)
        } else if key.len() > KEY_MAX_BYTES {
            Err(KeyError::TooLong { bytes: key.len() })
        } else if key.chars().any(char::is_control) || key.trim() != key {
            Err(KeyError::NotAHeaderValue)
        } else {
            Ok(Self(key.into()))
        }
    }

    /// The key as it is written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0)
    }
}

impl std::str::FromStr for Key {
    type Err = KeyError;
    fn from_str(key: &str) -> Result<Self, KeyError> {
        Self::new(key)
    }
}

impl TryFrom<String> for Key {
    type Error = KeyError;
    fn try_from(key: String) -> Result<Self, KeyError> {
        Self::new(key)
    }
}

impl From<Key> for String {
    fn from(key: Key) -> Self {
        (*key.0).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_why_a_key_cannot_be_one() {
        assert_eq!(Key::new(""), Err(KeyError::Empty));
        assert_eq!(Key::new("x".repeat(10_000)), Err(KeyError::TooLong { bytes: 10_000 }));
        for key in ["a\r\nNats-Msg-Id: x", "a\0", " a", "a "] {
            assert_eq!(Key::new(key), Err(KeyError::NotAHeaderValue), "{key:?}");
        }
        assert_eq!(Key::new("Müller 7").unwrap().as_str(), "Müller 7");
    }
}
