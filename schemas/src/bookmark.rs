//! A position that travels: in a cookie, a header, a message.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use uuid::Uuid;

use crate::{lsn::Lsn, name::DatabaseName};

/// Longest printed bookmark, in bytes: bounds what is read from a cookie.
pub const BOOKMARK_MAX_BYTES: usize = 160;

/// The form's version, and what every bookmark starts with.
const PREFIX: &str = "fw1";

/// The random token that one takeover minted: the fence of its batches, and the name of the branch
/// of history that its commits lie on. Compared for equality only.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Epoch(pub Uuid);

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0.simple(), f)
    }
}

/// PostgreSQL's number of a branch of history. Not unique: two standbys promoted from one parent
/// carry the same number, which is why a [`Bookmark`] names an [`Epoch`] too.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Timeline(pub u32);

/// A position of one database's history, as a short printable token:
/// `fw1.<database>.<timeline>.<epoch>.<LSN with '-'>`, letters that a cookie, a header and a URL
/// carry unescaped.
///
/// Its holder can wait for it in any region. Two bookmarks compare only on one branch of
/// history: see [`Bookmark::later_of`].
///
/// ```
/// use farwrite_schemas::Bookmark;
/// let text = "fw1.shop.1.0192f5c08a7b7cc3b1a2c3d4e5f60718.16-B374D848";
/// let bookmark: Bookmark = text.parse()?;
/// assert_eq!(bookmark.lsn.to_string(), "16/B374D848");
/// assert_eq!(bookmark.to_string(), text);
/// # Ok::<(), farwrite_schemas::BookmarkFormatError>(())
/// ```
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Bookmark {
    /// The database that the position belongs to.
    pub database: DatabaseName,
    /// The timeline that the primary was on.
    pub timeline: Timeline,
    /// The takeover whose commits these are.
    pub epoch: Epoch,
    /// A position at or behind the commit's end.
    pub lsn: Lsn,
}

/// The text is not a bookmark that this version reads.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BookmarkFormatError {
    /// It is longer than any bookmark.
    #[error("a bookmark has at most {BOOKMARK_MAX_BYTES} bytes, this text has {bytes}")]
    TooLong {
        /// Its length.
        bytes: usize,
    },
    /// It starts with something other than `fw1`.
    #[error("this is not a bookmark of version 1 (it does not start with \"fw1.\")")]
    UnknownVersion,
    /// A part is missing or malformed.
    #[error("the bookmark's {part} is missing or malformed")]
    Malformed {
        /// Which part.
        part: &'static str,
    },
}

impl Bookmark {
    /// The later of two positions on one branch of history; `None` when they do not compare,
    /// because they are of different databases, timelines or epochs.
    #[must_use]
    pub fn later_of<'a>(&'a self, other: &'a Self) -> Option<&'a Self> {
        let comparable = self.database == other.database
            && self.timeline == other.timeline
            && self.epoch == other.epoch;
        comparable.then(|| if self.lsn >= other.lsn { self } else { other })
    }
}

impl fmt::Display for Bookmark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { database, timeline, epoch, lsn } = self;
        let (high, low) = (lsn.0 >> 32, lsn.0 as u32);
        write!(f, "{PREFIX}.{database}.{}.{epoch}.{high:X}-{low:X}", timeline.0)
    }
}

impl FromStr for Bookmark {
    type Err = BookmarkFormatError;

    fn from_str(text: &str) -> Result<Self, BookmarkFormatError> {
        if text.len() > BOOKMARK_MAX_BYTES {
            return Err(BookmarkFormatError::TooLong { bytes: text.len() });
        }
        let mut parts = text.split('.');
        if parts.next() != Some(PREFIX) {
            return Err(BookmarkFormatError::UnknownVersion);
        }
        let malformed = |part| BookmarkFormatError::Malformed { part };
        let mut next = |part| parts.next().ok_or(malformed(part));
        let database = next("database")?;
        let timeline = next("timeline")?;
        let epoch = next("epoch")?;
        let lsn = next("LSN")?;
        if parts.next().is_some() {
            return Err(malformed("end"));
        }
        let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        let timeline =
            Some(timeline).filter(|text| digits(text)).and_then(|text| text.parse().ok());
        let epoch =
            Some(epoch).filter(|text| text.len() == 32).and_then(|text| Uuid::try_parse(text).ok());
        let lsn = lsn.split_once('-').and_then(|(high, low)| Lsn::from_halves(high, low).ok());
        Ok(Self {
            database: DatabaseName::new(database).map_err(|_| malformed("database"))?,
            timeline: Timeline(timeline.ok_or(malformed("timeline"))?),
            epoch: Epoch(epoch.ok_or(malformed("epoch"))?),
            lsn: lsn.ok_or(malformed("LSN"))?,
        })
    }
}

impl Serialize for Bookmark {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Bookmark {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = include_str!("../fixtures/bookmark.v1.txt");

    #[test]
    fn is_printed_as_it_was_read() {
        let bookmark: Bookmark = TEXT.trim().parse().unwrap();
        assert_eq!(bookmark.to_string(), TEXT.trim());
        assert!(bookmark.to_string().len() <= BOOKMARK_MAX_BYTES);
    }

    #[test]
    fn the_longest_bookmark_fits_the_bound() {
        let longest = Bookmark {
            database: DatabaseName::new("d".repeat(63)).unwrap(),
            timeline: Timeline(u32::MAX),
            epoch: Epoch(Uuid::max()),
            lsn: Lsn(u64::MAX),
        };
        assert_eq!(longest.to_string().parse(), Ok(longest));
    }

    #[test]
    fn says_what_is_wrong_with_a_text() {
        let malformed = |part| Err(BookmarkFormatError::Malformed { part });
        let epoch = "0192f5c08a7b7cc3b1a2c3d4e5f60718";
        let read = |text: String| text.parse::<Bookmark>();
        assert_eq!(read(String::new()), Err(BookmarkFormatError::UnknownVersion));
        assert_eq!(read("fw2.shop.1".into()), Err(BookmarkFormatError::UnknownVersion));
        assert_eq!(read("fw1".into()), malformed("database"));
        assert_eq!(read(format!("fw1..1.{epoch}.0-1")), malformed("database"));
        assert_eq!(read(format!("fw1.shop.+1.{epoch}.0-1")), malformed("timeline"));
        assert_eq!(read("fw1.shop.1.xyz.0-1".into()), malformed("epoch"));
        assert_eq!(read(format!("fw1.shop.1.{epoch}.0/1")), malformed("LSN"));
        assert_eq!(read(format!("fw1.shop.1.{epoch}.0-1.x")), malformed("end"));
        let bytes = 1_000;
        assert_eq!(read("f".repeat(bytes)), Err(BookmarkFormatError::TooLong { bytes }));
    }

    #[test]
    fn only_positions_of_one_branch_compare() {
        let one: Bookmark = TEXT.trim().parse().unwrap();
        let later = Bookmark { lsn: Lsn(one.lsn.0 + 1), ..one.clone() };
        assert_eq!(one.later_of(&later), Some(&later));
        assert_eq!(later.later_of(&one), Some(&later));
        let elsewhere = Bookmark { timeline: Timeline(9), ..later };
        assert_eq!(one.later_of(&elsewhere), None);
    }
}
