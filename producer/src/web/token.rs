//! Where a bookmark is in a request, and how it goes back.

use std::{cmp::Reverse, time::Duration};

use http::{HeaderMap, HeaderName, HeaderValue, header};

use super::session::Noted;
use crate::{Bookmark, BookmarkKey};

/// How a bookmark travels.
#[derive(Clone, Debug)]
pub(super) struct Token {
    pub(super) cookie: Option<String>,
    pub(super) header: Option<HeaderName>,
    pub(super) key: Option<BookmarkKey>,
    pub(super) max_age: Duration,
    pub(super) secure: bool,
}

impl Token {
    /// The bookmarks that a request brings, the later one first. The header first: who sets one means it. What
    /// cannot be believed is none.
    pub(super) fn read(&self, headers: &HeaderMap) -> Vec<Bookmark> {
        if let Some(text) = self.header.as_ref().and_then(|name| headers.get(name)) {
            return text.to_str().ok().and_then(|text| self.parse(text)).into_iter().collect();
        }
        let Some(name) = &self.cookie else { return Vec::new() };
        let texts = [cookie(headers, name), cookie(headers, &of_reads(name))];
        let mut bookmarks: Vec<_> =
            texts.into_iter().flatten().filter_map(|text| self.parse(text)).collect();
        bookmarks.sort_by_key(|bookmark| Reverse((bookmark.timeline.0, bookmark.lsn)));
        bookmarks
    }

    fn parse(&self, text: &str) -> Option<Bookmark> {
        let read = match &self.key {
            Some(key) => key.verify(text).map_err(|error| error.to_string()),
            None => text.parse::<Bookmark>().map_err(|error| error.to_string()),
        };
        read.inspect_err(|error| tracing::debug!(error, "a request's bookmark is not believed"))
            .ok()
    }

    /// Puts what was noted into a response. Two tabs of a browser share its cookies: the response to a read
    /// that began early comes late perhaps. So it must not replace what another tab has written since, and reads
    /// have a cookie of their own.
    pub(super) fn write(&self, headers: &mut HeaderMap, noted: &Noted) {
        if let Some(name) = &self.cookie {
            if let Some(read) = &noted.read {
                self.set_cookie(headers, &of_reads(name), &self.text(read), self.max_age);
            }
            if let Some(written) = &noted.written {
                self.set_cookie(headers, name, &self.text(written), self.max_age);
            }
        }
        if let (Some(name), Some(latest)) = (&self.header, noted.latest())
            && let Ok(text) = HeaderValue::from_str(&self.text(latest))
        {
            headers.insert(name.clone(), text);
        }
    }

    fn text(&self, bookmark: &Bookmark) -> String {
        self.key.as_ref().map_or_else(|| bookmark.to_string(), |key| key.sign(bookmark))
    }

    /// Takes bookmarks back that nothing can satisfy.
    pub(super) fn drop(&self, headers: &mut HeaderMap) {
        if let Some(name) = &self.cookie {
            self.set_cookie(headers, name, "", Duration::ZERO);
            self.set_cookie(headers, &of_reads(name), "", Duration::ZERO);
        }
    }

    fn set_cookie(&self, headers: &mut HeaderMap, name: &str, text: &str, max_age: Duration) {
        let secure = if self.secure { "; Secure" } else { "" };
        let seconds = max_age.as_secs();
        let cookie =
            format!("{name}={text}; Path=/; Max-Age={seconds}; HttpOnly; SameSite=Lax{secure}");
        if let Ok(cookie) = HeaderValue::from_str(&cookie) {
            headers.append(header::SET_COOKIE, cookie);
        }
    }
}

/// The cookie of what was read.
fn of_reads(name: &str) -> String {
    format!("{name}-read")
}

/// A cookie's value.
fn cookie<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let lines = headers.get_all(header::COOKIE).into_iter().filter_map(|line| line.to_str().ok());
    let mut pairs = lines.flat_map(|line| line.split(';')).filter_map(|pair| pair.split_once('='));
    pairs.find(|(found, _)| found.trim() == name).map(|(_, value)| value.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "fw1.shop.1.0192f5c08a7b7cc3b1a2c3d4e5f60718.16-B374D848";

    fn token(key: Option<BookmarkKey>) -> Token {
        Token {
            cookie: Some("farwrite".to_owned()),
            header: Some(HeaderName::from_static("farwrite-bookmark")),
            key,
            max_age: Duration::from_secs(60),
            secure: true,
        }
    }

    fn written(bookmark: &Bookmark) -> Noted {
        Noted { written: Some(bookmark.clone()), read: None }
    }

    fn headers(lines: &[(&'static str, &str)]) -> HeaderMap {
        lines
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), value.parse().unwrap()))
            .collect()
    }

    #[test]
    fn a_bookmark_is_in_the_header_or_in_the_cookie() {
        let token = token(None);
        let bookmark: Bookmark = TEXT.parse().unwrap();
        let cookies = format!("a=b; farwrite={TEXT} ;c=d");
        let only = std::slice::from_ref(&bookmark);
        assert_eq!(token.read(&headers(&[("cookie", &cookies)])), only);
        assert_eq!(token.read(&headers(&[("farwrite-bookmark", TEXT)])), only);
        let garbage = [("farwrite-bookmark", "garbage"), ("cookie", &*cookies)];
        assert_eq!(token.read(&headers(&garbage)), [], "the header counts");
        for cookie in ["", "farwrite", "farwrite=", "xfarwrite=1", ";;=;", "farwrite=fw9.x"] {
            assert_eq!(token.read(&headers(&[("cookie", cookie)])), [], "{cookie:?}");
        }
        let mut answer = HeaderMap::new();
        token.write(&mut answer, &written(&bookmark));
        let set = format!("farwrite={TEXT}; Path=/; Max-Age=60; HttpOnly; SameSite=Lax; Secure");
        assert_eq!(answer["set-cookie"], set);
        assert_eq!(answer["farwrite-bookmark"], TEXT);
        let mut answer = HeaderMap::new();
        token.drop(&mut answer);
        assert!(answer["set-cookie"].to_str().unwrap().starts_with("farwrite=; Path=/; Max-Age=0"));
        assert!(!answer.contains_key("farwrite-bookmark"));
    }

    #[test]
    fn what_was_read_replaces_nothing_that_was_written() {
        let token = token(None);
        let earlier: Bookmark = TEXT.parse().unwrap();
        let later = Bookmark { lsn: farwrite_schemas::Lsn(earlier.lsn.0 + 1), ..earlier.clone() };
        let mut answer = HeaderMap::new();
        let read = Noted { written: None, read: Some(earlier.clone()) };
        token.write(&mut answer, &read);
        assert!(answer["set-cookie"].to_str().unwrap().starts_with("farwrite-read=fw1."));
        let both = format!("farwrite-read={earlier}; farwrite={later}");
        assert_eq!(token.read(&headers(&[("cookie", &both)])), [later.clone(), earlier.clone()]);
        let mut answer = HeaderMap::new();
        token.write(
            &mut answer,
            &Noted { written: Some(earlier.clone()), read: Some(later.clone()) },
        );
        assert_eq!(answer.get_all("set-cookie").iter().count(), 2);
        assert_eq!(answer["farwrite-bookmark"], later.to_string());
    }

    #[test]
    fn with_a_key_only_what_is_signed_counts() {
        let key = BookmarkKey::new(b"sixteen bytes or more").unwrap();
        let token = token(Some(key));
        let bookmark: Bookmark = TEXT.parse().unwrap();
        assert_eq!(token.read(&headers(&[("farwrite-bookmark", TEXT)])), []);
        let mut answer = HeaderMap::new();
        token.write(&mut answer, &written(&bookmark));
        let signed = answer["farwrite-bookmark"].to_str().unwrap();
        assert_eq!(token.read(&headers(&[("farwrite-bookmark", signed)])), [bookmark]);
    }
}
