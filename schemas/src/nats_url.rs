//! Where NATS is, as all programs and the producer take it: one URL, or several joined by commas.
//!
//! The client library ignores the credentials of a URL (async-nats 0.51 connects without them,
//! silently), so they are read here, and the URLs that it is given, and may log, hold none.

use std::fmt;

/// NATS servers and how to present oneself to them.
#[derive(Clone, PartialEq, Eq)]
pub struct NatsServers {
    /// The servers' URLs, without credentials.
    pub urls: Vec<String>,
    /// The first URL's credentials; they count for all servers.
    pub credentials: Option<NatsCredentials>,
}

/// What a NATS server is shown. Exhaustive: a program that passed over a kind of credentials would
/// connect without any.
#[derive(Clone, PartialEq, Eq)]
pub enum NatsCredentials {
    /// `nats://user:password@host`.
    Password {
        /// Who.
        user: String,
        /// Secret.
        password: String,
    },
    /// `nats://token@host`. Secret.
    Token(String),
}

impl NatsServers {
    /// Reads the text. Whether the URLs lead anywhere is for the client to say.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let mut credentials = None;
        let mut urls = Vec::new();
        for url in text.split(',').map(str::trim).filter(|url| !url.is_empty()) {
            let (scheme, rest) =
                url.split_once("://").map_or(("", url), |(scheme, rest)| (scheme, rest));
            let (own, host) =
                rest.rsplit_once('@').map_or((None, rest), |(own, host)| (Some(own), host));
            if urls.is_empty() {
                credentials = own.map(read_credentials);
            }
            urls.push(if scheme.is_empty() {
                host.to_owned()
            } else {
                format!("{scheme}://{host}")
            });
        }
        Self { urls, credentials }
    }
}

fn read_credentials(text: &str) -> NatsCredentials {
    match text.split_once(':') {
        Some((user, password)) => {
            NatsCredentials::Password { user: plain(user), password: plain(password) }
        }
        None => NatsCredentials::Token(plain(text)),
    }
}

/// Undoes a URL's percent signs. What is no escape stays as it is.
fn plain(escaped: &str) -> String {
    let mut bytes = Vec::with_capacity(escaped.len());
    let mut rest = escaped;
    while let Some((before, after)) = rest.split_once('%') {
        bytes.extend_from_slice(before.as_bytes());
        let byte = after.get(..2).filter(|digits| digits.bytes().all(|b| b.is_ascii_hexdigit()));
        match byte.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = after.get(2..).unwrap_or_default();
            }
            None => {
                bytes.push(b'%');
                rest = after;
            }
        }
    }
    bytes.extend_from_slice(rest.as_bytes());
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Without the credentials.
impl fmt::Display for NatsServers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.urls.join(","))
    }
}

impl fmt::Debug for NatsServers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Debug for NatsCredentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("…")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_read_and_taken_out_of_the_urls() {
        let servers = NatsServers::parse("nats://me:p%40ss@one:4222, two:4222,tls://x:y@three");
        assert_eq!(servers.urls, ["nats://one:4222", "two:4222", "tls://three"]);
        let (user, password) = ("me".to_owned(), "p@ss".to_owned());
        assert_eq!(servers.credentials, Some(NatsCredentials::Password { user, password }));
        assert_eq!(
            format!("{servers} {:?}", servers.credentials),
            "nats://one:4222,two:4222,tls://three Some(…)"
        );
        let token = NatsServers::parse("nats://s3cret@one").credentials;
        assert_eq!(token, Some(NatsCredentials::Token("s3cret".to_owned())));
        assert_eq!(NatsServers::parse("localhost").credentials, None);
        assert!(NatsServers::parse(" , ").urls.is_empty());
    }

    #[test]
    fn percent_signs_are_undone() {
        assert_eq!(plain("secret"), "secret");
        assert_eq!(plain("p%40ss%2Fw%C3%B6rd"), "p@ss/w\u{f6}rd");
        assert_eq!(plain("100%"), "100%");
        assert_eq!(plain("%zz%4"), "%zz%4");
    }
}
