//! Names that become parts of NATS subjects: a database, an origin, a command.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A name does not have the form that a subject needs.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} {name:?} is not valid: {rule}")]
pub struct NameError {
    what: &'static str,
    name: String,
    rule: &'static str,
}

/// Longest database name or origin, in bytes; PostgreSQL's own limit for a name is 63.
const TOKEN_MAX_BYTES: usize = 63;
/// Longest command name, in bytes; bounds the subject and every index that holds it.
const COMMAND_NAME_MAX_BYTES: usize = 128;

fn is_token(text: &str) -> bool {
    let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
    !text.is_empty() && text.bytes().all(word)
}

macro_rules! name {
    ($(#[$doc:meta])* $type:ident, $what:literal, $rule:literal, $valid:expr) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $type(Box<str>);

        impl $type {
            /// Checks the name.
            ///
            /// # Errors
            /// When it is empty, too long or holds other characters; the error says the rule.
            pub fn new(name: impl AsRef<str>) -> Result<Self, NameError> {
                let name = name.as_ref();
                Self::check(name)?;
                Ok(Self(name.into()))
            }

            /// The same without keeping it.
            ///
            /// # Errors
            /// As [`Self::new`].
            pub fn check(name: &str) -> Result<(), NameError> {
                if $valid(name) {
                    Ok(())
                } else {
                    let name = name.chars().take(80).collect();
                    Err(NameError { what: $what, name, rule: $rule })
                }
            }

            /// The name as it is written.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:?}", self.0)
            }
        }

        impl std::str::FromStr for $type {
            type Err = NameError;
            fn from_str(name: &str) -> Result<Self, NameError> {
                Self::new(name)
            }
        }

        impl TryFrom<String> for $type {
            type Error = NameError;
            fn try_from(name: String) -> Result<Self, NameError> {
                Self::new(name)
            }
        }

        impl From<$type> for String {
            fn from(name: $type) -> Self {
                name.0.into()
            }
        }
    };
}

name!(
    /// Farwrite's name for one PostgreSQL primary and its replicas; a part of every subject.
    DatabaseName,
    "database name",
    "1 to 63 letters, digits, '_' or '-'",
    |name: &str| name.len() <= TOKEN_MAX_BYTES && is_token(name)
);

name!(
    /// The region that publishes a command; a part of its subject, so that a region's credentials
    /// can be limited to it.
    Origin,
    "origin",
    "1 to 63 letters, digits, '_' or '-'",
    |name: &str| name.len() <= TOKEN_MAX_BYTES && is_token(name)
);

name!(
    /// What a command is called, such as `order.place`.
    CommandName,
    "command name",
    "1 to 128 bytes: words of letters, digits, '_' or '-', joined by dots",
    |name: &str| name.len() <= COMMAND_NAME_MAX_BYTES && name.split('.').all(is_token)
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn command_names_are_words_joined_by_dots() {
        for name in ["order", "order.place", "a_b.c-d.E9"] {
            assert_eq!(CommandName::new(name).unwrap().as_str(), name);
        }
        for name in ["", ".", "a.", ".a", "a..b", "a b", "a.*", "a.>", "é", &"x".repeat(129)] {
            assert!(CommandName::new(name).is_err(), "{name:?}");
        }
    }

    #[test]
    fn a_database_name_is_one_word() {
        assert!(DatabaseName::new("flights-2013").is_ok());
        for name in ["", "a.b", "a b", "*", &"x".repeat(64)] {
            assert!(DatabaseName::new(name).is_err(), "{name:?}");
        }
    }
}
