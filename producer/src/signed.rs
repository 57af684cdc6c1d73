//! Bookmarks that only the app can have made.
//!
//! A sender of a bookmark can make a server wait for it. A wait is bounded, so that a forged bookmark
//! costs little. Still, a browser has no business to choose one, and a key keeps it from doing so.

use std::fmt;

use farwrite_schemas::{BOOKMARK_MAX_BYTES, Bookmark, BookmarkFormatError};
use ring::hmac;

/// Least bytes of a secret.
const SECRET_MIN_BYTES: usize = 16;
/// Between a bookmark and its signature: it is in no bookmark, and a cookie carries it unescaped.
const SEPARATOR: char = '~';
/// Hexadecimal digits of a signature: HMAC-SHA256.
const SIGNATURE_DIGITS: usize = 64;

/// A key that signs bookmarks, and an earlier one that is still believed while keys are changed.
#[derive(Clone)]
pub struct BookmarkKey {
    current: hmac::Key,
    previous: Option<hmac::Key>,
}

impl fmt::Debug for BookmarkKey {
    /// Without the keys.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BookmarkKey").finish_non_exhaustive()
    }
}

/// The secret is too short to keep anybody from guessing it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a bookmark key has at least {SECRET_MIN_BYTES} bytes, this one has {bytes}")]
#[non_exhaustive]
pub struct KeyTooShort {
    /// Its length.
    pub bytes: usize,
}

/// The text is not a bookmark that was signed with this key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SignedError {
    /// It has no signature.
    #[error("the bookmark is not signed")]
    NotSigned,
    /// The signature is another one.
    #[error("the bookmark's signature is wrong")]
    WrongSignature,
    /// What was signed is not a bookmark that this version reads.
    #[error(transparent)]
    Bookmark(#[from] BookmarkFormatError),
}

impl BookmarkKey {
    /// A key of a secret of at least 16 bytes.
    ///
    /// ```
    /// use farwrite_producer::{Bookmark, BookmarkKey};
    /// let key = BookmarkKey::new(b"sixteen bytes or more")?;
    /// let bookmark: Bookmark = "fw1.shop.1.0192f5c08a7b7cc3b1a2c3d4e5f60718.16-B374D848".parse()?;
    /// let text = key.sign(&bookmark);
    /// assert_eq!(key.verify(&text)?, bookmark);
    /// assert!(key.verify(&bookmark.to_string()).is_err());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// When the secret is too short.
    pub fn new(secret: &[u8]) -> Result<Self, KeyTooShort> {
        Ok(Self { current: key(secret)?, previous: None })
    }

    /// Believes what an earlier secret signed, too: for as long as such bookmarks are around.
    ///
    /// # Errors
    /// When the secret is too short.
    pub fn with_previous(self, secret: &[u8]) -> Result<Self, KeyTooShort> {
        Ok(Self { previous: Some(key(secret)?), ..self })
    }

    /// A bookmark and its signature, in letters that a cookie and a header carry unescaped.
    #[must_use]
    pub fn sign(&self, bookmark: &Bookmark) -> String {
        use fmt::Write as _;
        let mut text = bookmark.to_string();
        let signature = hmac::sign(&self.current, text.as_bytes());
        text.reserve(1 + SIGNATURE_DIGITS);
        text.push(SEPARATOR);
        for byte in signature.as_ref() {
            // Writing to a string does not fail.
            let _ = write!(text, "{byte:02x}");
        }
        text
    }

    /// The bookmark of a text that was signed with this key or the earlier one.
    ///
    /// # Errors
    /// When it was not, or holds no bookmark. The length is looked at before anything is computed.
    pub fn verify(&self, text: &str) -> Result<Bookmark, SignedError> {
        let (bookmark, signature) = text.rsplit_once(SEPARATOR).ok_or(SignedError::NotSigned)?;
        if bookmark.len() > BOOKMARK_MAX_BYTES {
            return Err(BookmarkFormatError::TooLong { bytes: bookmark.len() }.into());
        }
        let signature = bytes(signature).ok_or(SignedError::WrongSignature)?;
        let is_signed = |key| hmac::verify(key, bookmark.as_bytes(), &signature).is_ok();
        if is_signed(&self.current) || self.previous.as_ref().is_some_and(is_signed) {
            Ok(bookmark.parse()?)
        } else {
            Err(SignedError::WrongSignature)
        }
    }
}

fn key(secret: &[u8]) -> Result<hmac::Key, KeyTooShort> {
    if secret.len() < SECRET_MIN_BYTES {
        return Err(KeyTooShort { bytes: secret.len() });
    }
    Ok(hmac::Key::new(hmac::HMAC_SHA256, secret))
}

/// Reads hexadecimal digits.
fn bytes(digits: &str) -> Option<[u8; SIGNATURE_DIGITS / 2]> {
    let mut bytes = [0; SIGNATURE_DIGITS / 2];
    if digits.len() != SIGNATURE_DIGITS || !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return None;
    }
    for (index, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(digits.get(2 * index..2 * index + 2)?, 16).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "fw1.shop.1.0192f5c08a7b7cc3b1a2c3d4e5f60718.16-B374D848";

    #[test]
    fn only_what_this_key_or_the_one_before_signed_is_believed() {
        let bookmark: Bookmark = TEXT.parse().unwrap();
        let old = BookmarkKey::new(b"an old secret of 16").unwrap();
        let new = BookmarkKey::new(b"a new secret of 16 b").unwrap();
        let changed = new.clone().with_previous(b"an old secret of 16").unwrap();
        assert_eq!(changed.verify(&old.sign(&bookmark)), Ok(bookmark.clone()));
        assert_eq!(changed.sign(&bookmark), new.sign(&bookmark));
        assert_eq!(new.verify(&old.sign(&bookmark)), Err(SignedError::WrongSignature));
        let signed = new.sign(&bookmark);
        let further = signed.replace("B374D848", "B374D849");
        assert_eq!(new.verify(&further), Err(SignedError::WrongSignature));
        assert_eq!(new.verify(TEXT), Err(SignedError::NotSigned));
        for end in ["~", "~00", "~zz", &format!("~{}", "é".repeat(32))] {
            let text = format!("{TEXT}{end}");
            assert_eq!(new.verify(&text), Err(SignedError::WrongSignature), "{end}");
        }
        let bytes = 10_000;
        let long = format!("{}~{}", "f".repeat(bytes), "0".repeat(64));
        assert_eq!(new.verify(&long), Err(BookmarkFormatError::TooLong { bytes }.into()));
        assert!(!format!("{new:?}").contains("secret"));
        assert_eq!(BookmarkKey::new(b"short").unwrap_err(), KeyTooShort { bytes: 5 });
    }
}
