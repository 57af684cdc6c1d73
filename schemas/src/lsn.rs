//! A position in PostgreSQL's write-ahead log.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A byte position in the write-ahead log of one PostgreSQL history, printed as PostgreSQL prints
/// `pg_lsn`: two hexadecimal numbers with a slash between them.
///
/// LSNs of different timelines do not compare, although this type orders them: compare
/// [`Bookmark`](crate::Bookmark)s where a failover may lie between.
///
/// ```
/// use farwrite_schemas::Lsn;
/// let lsn: Lsn = "16/B374D848".parse()?;
/// assert_eq!(lsn.to_string(), "16/B374D848");
/// assert!(lsn < "17/0".parse()?);
/// # Ok::<(), farwrite_schemas::LsnError>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Lsn(pub u64);

/// The text is not an LSN.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "an LSN is two hexadecimal numbers of up to 8 digits joined by a slash, such as 16/B374D848"
)]
pub struct LsnError;

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:X}/{:X}", self.0 >> 32, self.0 as u32)
    }
}

impl fmt::Debug for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Lsn {
    type Err = LsnError;

    fn from_str(text: &str) -> Result<Self, LsnError> {
        let (high, low) = text.split_once('/').ok_or(LsnError)?;
        Self::from_halves(high, low)
    }
}

impl Lsn {
    /// Reads the two halves of a printed LSN.
    ///
    /// # Errors
    /// When a half is empty, longer than eight digits or not hexadecimal.
    pub(crate) fn from_halves(high: &str, low: &str) -> Result<Self, LsnError> {
        let half = |text: &str| {
            let digits = !text.is_empty() && text.len() <= 8;
            if digits && text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
                u32::from_str_radix(text, 16).map_err(|_| LsnError)
            } else {
                Err(LsnError)
            }
        };
        Ok(Self(u64::from(half(high)?) << 32 | u64::from(half(low)?)))
    }

    /// Bytes of log from `earlier` to here; 0 when `earlier` is not earlier.
    #[must_use]
    pub fn bytes_since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

impl Serialize for Lsn {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Lsn {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prints_and_reads_what_postgresql_prints() {
        for text in ["0/0", "0/1", "16/B374D848", "FFFFFFFF/FFFFFFFF"] {
            assert_eq!(text.parse::<Lsn>().unwrap().to_string(), text);
        }
        assert_eq!("1/0".parse::<Lsn>().unwrap(), Lsn(1 << 32));
    }

    #[test]
    fn refuses_everything_else() {
        for text in ["", "/", "1", "1/", "/1", "g/0", "+1/0", "1/123456789", "1/2/3", " 1/2"] {
            assert_eq!(text.parse::<Lsn>(), Err(LsnError), "{text:?}");
        }
    }
}
