//! Where a bookmark is in a request, and how it goes back.

use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue, header};

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
    /// The bookmark that a request brings. The header first: who sets one means it. What cannot be
    /// believed is none.
    pub(super) fn read(&self, headers: &HeaderMap) -> Option<Bookmark> {
        let header = self.header.as_ref().and_then(|name| headers.get(name)?.to_str().ok());
        let text = match (header, &self.cookie) {
            (Some(text), _) => text,
            (None, Some(name)) => cookie(headers, name)?,
            (None, None) => return None,
        };
        let read = match &self.key {
            Some(key) => key.verify(text).map_err(|error| error.to_string()),
            None => text.parse::<Bookmark>().map_err(|error| error.to_string()),
        };
        read.inspect_err(|error| tracing::debug!(error, "a request's bookmark is not believed"))
            .ok()
    }

    /// Puts a bookmark into a response.
    pub(super) fn write(&self, headers: &mut HeaderMap, bookmark: &Bookmark) {
        let text = match &self.key {
            Some(key) => key.sign(bookmark),
            None => bookmark.to_string(),
        };
        self.set(headers, &text, self.max_age);
    }

    /// Takes a bookmark back that nothing can satisfy.
    pub(super) fn drop(&self, headers: &mut HeaderMap) {
        self.set(headers, "", Duration::ZERO);
    }

    fn set(&self, headers: &mut HeaderMap, text: &str, max_age: Duration) {
        if let Some(name) = &self.cookie {
            let secure = if self.secure { "; Secure" } else { "" };
            let seconds = max_age.as_secs();
            let cookie =
                format!("{name}={text}; Path=/; Max-Age={seconds}; HttpOnly; SameSite=Lax{secure}");
            if let Ok(cookie) = HeaderValue::from_str(&cookie) {
                headers.append(header::SET_COOKIE, cookie);
            }
        }
        if let (Some(name), Ok(text)) = (&self.header, HeaderValue::from_str(text))
            && !text.is_empty()
        {
            headers.insert(name.clone(), text);
        }
    }
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
        assert_eq!(token.read(&headers(&[("cookie", &cookies)])), Some(bookmark.clone()));
        assert_eq!(token.read(&headers(&[("farwrite-bookmark", TEXT)])), Some(bookmark.clone()));
        let garbage = [("farwrite-bookmark", "garbage"), ("cookie", &*cookies)];
        assert_eq!(token.read(&headers(&garbage)), None, "the header counts");
        for cookie in ["", "farwrite", "farwrite=", "xfarwrite=1", ";;=;", "farwrite=fw9.x"] {
            assert_eq!(token.read(&headers(&[("cookie", cookie)])), None, "{cookie:?}");
        }
        let mut answer = HeaderMap::new();
        token.write(&mut answer, &bookmark);
        let set = format!("farwrite={TEXT}; Path=/; Max-Age=60; HttpOnly; SameSite=Lax; Secure");
        assert_eq!(answer["set-cookie"], set);
        assert_eq!(answer["farwrite-bookmark"], TEXT);
        let mut answer = HeaderMap::new();
        token.drop(&mut answer);
        assert!(answer["set-cookie"].to_str().unwrap().starts_with("farwrite=; Path=/; Max-Age=0"));
        assert!(!answer.contains_key("farwrite-bookmark"));
    }

    #[test]
    fn with_a_key_only_what_is_signed_counts() {
        let key = BookmarkKey::new(b"sixteen bytes or more").unwrap();
        let token = token(Some(key));
        let bookmark: Bookmark = TEXT.parse().unwrap();
        assert_eq!(token.read(&headers(&[("farwrite-bookmark", TEXT)])), None);
        let mut answer = HeaderMap::new();
        token.write(&mut answer, &bookmark);
        let signed = answer["farwrite-bookmark"].to_str().unwrap();
        assert_eq!(token.read(&headers(&[("farwrite-bookmark", signed)])), Some(bookmark));
    }
}
