//! A published command as the worker reads it: subject, headers and body, checked once.

use std::fmt;

use serde::de::IgnoredAny;

use crate::{
    fingerprint::Fingerprint,
    headers,
    id::CommandId,
    key::{Key, KeyError},
    name::{CommandName, NameError, Origin},
    subject::CommandSubject,
};

/// Largest body, in bytes. The broker's own default limit for a message is 1 MiB with its headers;
/// the stream is created with this limit and room for them.
pub const BODY_MAX_BYTES: usize = 1_000_000;

/// Largest context, in bytes: it is set for every command that carries it.
pub const CONTEXT_MAX_BYTES: usize = 4_096;

/// Deepest nesting of a body's arrays and objects. PostgreSQL reads one of some thousands with its default stack.
pub const BODY_MAX_DEPTH: usize = 2_000;

/// Latest time that a header may name, in Unix milliseconds: in nanoseconds it just fits 64 bits
/// (the year 2262).
pub const HEADER_TIME_MAX_MS: i64 = i64::MAX / 1_000_000;

/// Everything about a command that is not its body.
#[derive(Clone, PartialEq)]
#[non_exhaustive]
pub struct Envelope {
    /// The command id.
    pub id: CommandId,
    /// What it is ordered by.
    pub key: Option<Key>,
    /// What it is called.
    pub name: CommandName,
    /// The version of its body's form.
    pub version: u32,
    /// The region that published it.
    pub origin: Origin,
    /// Tells it from another command under the same id.
    pub fingerprint: Fingerprint,
    /// When it is no longer to be applied, in Unix milliseconds.
    pub expires_at_ms: Option<i64>,
    /// When it is to be applied at the earliest, in Unix milliseconds.
    pub not_before_ms: Option<i64>,
    /// A JSON object, as it was written: what the caller's session would know.
    pub context: Option<Box<str>>,
}

/// Without the context, which may hold anything.
impl fmt::Debug for Envelope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Envelope")
            .field("id", &self.id)
            .field("key", &self.key)
            .field("name", &self.name)
            .field("version", &self.version)
            .field("origin", &self.origin)
            .field("expires_at_ms", &self.expires_at_ms)
            .field("not_before_ms", &self.not_before_ms)
            .finish_non_exhaustive()
    }
}

/// A message that is no command. It is dead-lettered, with its raw bytes.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EnvelopeError {
    /// The subject does not have a command's shape.
    #[error("the subject is not of the form farwrite.<database>.cmd.<origin>.<command name>")]
    Subject,
    /// A part of the subject does not have its form.
    #[error("the subject's {0}")]
    Name(NameError),
    /// There is no command id.
    #[error("the header Nats-Msg-Id, the command id, is missing")]
    NoId,
    /// The command id is no UUID.
    #[error("the header Nats-Msg-Id is not a UUID of 36 characters in lower case")]
    Id,
    /// The version is no positive number.
    #[error("the header Farwrite-Version is not a positive number of at most 2147483647")]
    Version,
    /// The key cannot be one.
    #[error("the header Farwrite-Key: {0}")]
    Key(KeyError),
    /// A time is none.
    #[error("the header {0} is not Unix time in milliseconds, such as 1764000000000")]
    Time(&'static str),
    /// The context is no JSON object, or too large.
    #[error(
        "the header Farwrite-Context is not a JSON object of at most {CONTEXT_MAX_BYTES} bytes"
    )]
    Context,
    /// A header looks like one of Farwrite's, and is none: what it says would not be done.
    #[error(
        "the header {0:?} is none of Farwrite's: their names are to be spelt exactly, with their capitals"
    )]
    UnknownHeader(Box<str>),
    /// No client can read it.
    #[error("the subject, or a header, is not text in UTF-8, or the headers are not of their form")]
    NotText,
    /// Reading it failed in a way that nobody thought of. The log of the program that read it says where.
    #[error("reading it panicked; the log of the program says where")]
    Panicked,
    /// The body is larger than [`BODY_MAX_BYTES`].
    #[error("the body has {bytes} bytes, more than {BODY_MAX_BYTES}")]
    TooLarge {
        /// Its length.
        bytes: usize,
    },
    /// The body is nested more deeply than [`BODY_MAX_DEPTH`].
    #[error("the body is nested more than {BODY_MAX_DEPTH} deep")]
    TooDeep,
    /// The body is not JSON.
    #[error("the body is not JSON in UTF-8 (line {line}, column {column})")]
    NotJson {
        /// Where reading stopped, counted from 1.
        line: usize,
        /// Where reading stopped, counted from 1.
        column: usize,
    },
}

impl From<NameError> for EnvelopeError {
    fn from(error: NameError) -> Self {
        Self::Name(error)
    }
}

impl From<KeyError> for EnvelopeError {
    fn from(error: KeyError) -> Self {
        Self::Key(error)
    }
}

impl EnvelopeError {
    /// The stable code that a dead letter of this kind carries.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Subject | Self::Name(_) => "bad_subject",
            Self::NoId | Self::Id => "bad_id",
            Self::Version
            | Self::Key(_)
            | Self::Time(_)
            | Self::Context
            | Self::UnknownHeader(_)
            | Self::NotText => "bad_header",
            Self::TooDeep => "too_deep",
            Self::Panicked => "panicked",
            Self::TooLarge { .. } => "too_large",
            Self::NotJson { .. } => "not_json",
        }
    }
}

/// The values of [`headers::OF_ENVELOPE`]; of a header that comes twice, the first.
#[derive(Default)]
struct Headers<'a> {
    id: Option<&'a str>,
    key: Option<&'a str>,
    version: Option<&'a str>,
    expires_at: Option<&'a str>,
    not_before: Option<&'a str>,
    context: Option<&'a str>,
    /// One that looks like ours, and is none.
    unknown: Option<&'a str>,
}

/// What the names of Farwrite's headers begin with.
const PREFIX: &[u8] = b"farwrite-";

/// Whether somebody meant one of Farwrite's headers.
fn looks_like_ours(name: &str) -> bool {
    let name = name.trim_ascii();
    let start = name.as_bytes().get(..PREFIX.len());
    start.is_some_and(|start| start.eq_ignore_ascii_case(PREFIX))
        || name.eq_ignore_ascii_case(headers::COMMAND_ID)
}

impl<'a> Headers<'a> {
    fn of(all: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        let mut headers = Self::default();
        for (name, value) in all {
            let header = match name {
                headers::COMMAND_ID => &mut headers.id,
                headers::KEY => &mut headers.key,
                headers::VERSION => &mut headers.version,
                headers::EXPIRES_AT => &mut headers.expires_at,
                headers::NOT_BEFORE => &mut headers.not_before,
                headers::CONTEXT => &mut headers.context,
                headers::REPLY => continue,
                other if looks_like_ours(other) => {
                    headers.unknown = Some(other);
                    continue;
                }
                _ => continue,
            };
            header.get_or_insert(value);
        }
        headers
    }
}

/// Reads a message as a command. Its headers are names, exactly as they are written, and values.
///
/// # Errors
/// When it is no command; the error says why and has a stable code.
pub fn decode_envelope<'a>(
    subject: &str,
    headers: impl IntoIterator<Item = (&'a str, &'a str)>,
    body: &[u8],
) -> Result<Envelope, EnvelopeError> {
    let headers = Headers::of(headers);
    if let Some(name) = headers.unknown {
        return Err(EnvelopeError::UnknownHeader(name.chars().take(64).collect()));
    }
    let id = headers.id.ok_or(EnvelopeError::NoId)?;
    let id: CommandId = id.parse().map_err(|_| EnvelopeError::Id)?;
    let CommandSubject { origin, name, .. } =
        CommandSubject::parse(subject)?.ok_or(EnvelopeError::Subject)?;
    let key = headers.key.map(Key::new).transpose()?;
    let version = decode_version(headers.version)?;
    let expires_at_ms = decode_time(headers::EXPIRES_AT, headers.expires_at)?;
    let not_before_ms = decode_time(headers::NOT_BEFORE, headers.not_before)?;
    let context = headers.context.map(decode_context).transpose()?;
    if body.len() > BODY_MAX_BYTES {
        return Err(EnvelopeError::TooLarge { bytes: body.len() });
    }
    check_json(body)?;
    let fingerprint = Fingerprint::of(&name, version, key.as_ref(), body);
    Ok(Envelope {
        id,
        key,
        name,
        version,
        origin,
        fingerprint,
        expires_at_ms,
        not_before_ms,
        context,
    })
}

fn decode_time(name: &'static str, text: Option<&str>) -> Result<Option<i64>, EnvelopeError> {
    let Some(text) = text else { return Ok(None) };
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    match text.parse::<i64>() {
        Ok(ms) if digits && ms <= HEADER_TIME_MAX_MS => Ok(Some(ms)),
        _ => Err(EnvelopeError::Time(name)),
    }
}

fn decode_context(text: &str) -> Result<Box<str>, EnvelopeError> {
    let is_object = text.len() <= CONTEXT_MAX_BYTES
        && serde_json::from_str::<serde_json::Map<String, serde_json::Value>>(text).is_ok();
    if is_object { Ok(text.into()) } else { Err(EnvelopeError::Context) }
}

/// A version is a column of PostgreSQL's type `integer`: positive and signed.
fn decode_version(text: Option<&str>) -> Result<u32, EnvelopeError> {
    let Some(text) = text else { return Ok(1) };
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    match text.parse::<i32>() {
        Ok(version) if digits && version > 0 => Ok(version.unsigned_abs()),
        _ => Err(EnvelopeError::Version),
    }
}

fn check_json(body: &[u8]) -> Result<(), EnvelopeError> {
    // Strings are checked for UTF-8 only here: serde_json skips that in what it ignores.
    let not_json = |line, column| EnvelopeError::NotJson { line, column };
    let text = std::str::from_utf8(body).map_err(|error| not_json(1, error.valid_up_to() + 1))?;
    serde_json::from_str::<IgnoredAny>(text)
        .map_err(|error| not_json(error.line(), error.column()))?;
    if is_too_deep(body) { Err(EnvelopeError::TooDeep) } else { Ok(()) }
}

/// Whether a JSON text is nested too deeply.
fn is_too_deep(json: &[u8]) -> bool {
    let opens = |byte: u8| matches!(byte, b'[' | b'{');
    // Each level takes two bytes, and few bodies have so many brackets at all.
    if json.len() <= 2 * BODY_MAX_DEPTH
        || json.iter().filter(|byte| opens(**byte)).count() <= BODY_MAX_DEPTH
    {
        return false;
    }
    let (mut depth, mut deepest, mut is_text, mut is_escaped) = (0_usize, 0, false, false);
    for &byte in json {
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' if is_text => is_escaped = true,
            b'"' => is_text = !is_text,
            _ if is_text => {}
            b']' | b'}' => depth = depth.saturating_sub(1),
            _ if opens(byte) => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            _ => {}
        }
    }
    deepest > BODY_MAX_DEPTH
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "0192f5c0-8a7b-7cc3-b1a2-c3d4e5f60718";
    const SUBJECT: &str = "farwrite.shop.cmd.jfk.order.place";

    fn decode(
        subject: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Result<Envelope, EnvelopeError> {
        decode_envelope(subject, headers.iter().copied(), body)
    }

    #[test]
    fn a_command_is_read_with_all_that_its_headers_say() {
        let headers = [
            (headers::COMMAND_ID, ID),
            (headers::KEY, "alice"),
            (headers::VERSION, "3"),
            (headers::EXPIRES_AT, "1764000000000"),
            (headers::NOT_BEFORE, "0"),
            (headers::CONTEXT, "{\"tenant\": \"acme\"}"),
        ];
        let envelope = decode(SUBJECT, &headers, b"{\"article\": \"lamp\"}").unwrap();
        assert_eq!(envelope.id.to_string(), ID);
        assert_eq!(envelope.key.unwrap().as_str(), "alice");
        assert_eq!((envelope.name.as_str(), envelope.version), ("order.place", 3));
        assert_eq!(envelope.origin.as_str(), "jfk");
        assert_eq!(envelope.expires_at_ms, Some(1_764_000_000_000));
        assert_eq!(envelope.not_before_ms, Some(0));
        assert_eq!(envelope.context.as_deref(), Some("{\"tenant\": \"acme\"}"));
    }

    #[test]
    fn each_header_of_the_envelope_is_read() {
        for header in headers::OF_ENVELOPE {
            let id = (headers::COMMAND_ID, ID);
            let decoded = decode(SUBJECT, &[(header, ""), id], b"{}");
            assert!(decoded.is_err(), "none of them may be empty: {header} was not read");
        }
    }

    #[test]
    fn a_header_that_only_looks_like_ours_is_refused() {
        let id = (headers::COMMAND_ID, ID);
        for name in [
            "farwrite-expires-at",
            "Farwrite-Expire-At",
            "FARWRITE-KEY",
            "nats-msg-id",
            "Farwrite-Key ",
        ] {
            let decoded = decode(SUBJECT, &[id, (name, "1")], b"{}");
            assert!(matches!(decoded, Err(EnvelopeError::UnknownHeader(_))), "{name}: {decoded:?}");
        }
        for name in [headers::REPLY, headers::TRACEPARENT, "Nats-Expected-Stream", "Farwriter"] {
            assert!(decode(SUBJECT, &[id, (name, "1")], b"{}").is_ok(), "{name}");
        }
    }

    #[test]
    fn a_body_may_be_nested_so_deep_and_no_deeper() {
        let id = (headers::COMMAND_ID, ID);
        let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        let decoded = |body: &str| decode(SUBJECT, &[id], body.as_bytes());
        assert!(decoded(&nested(BODY_MAX_DEPTH)).is_ok());
        assert_eq!(decoded(&nested(BODY_MAX_DEPTH + 1)).unwrap_err(), EnvelopeError::TooDeep);
        assert_eq!(decoded(&nested(400_000)).unwrap_err(), EnvelopeError::TooDeep);
        let wide = format!("[{}[]]", "[],".repeat(2 * BODY_MAX_DEPTH));
        assert!(decoded(&wide).is_ok(), "wide, and not deep");
        let text = format!("[\"{}\\\"{}\"]", "[".repeat(4_000), "{".repeat(4_000));
        assert!(decoded(&text).is_ok(), "brackets within a text: {}", &text[..20]);
    }

    #[test]
    fn of_a_header_that_comes_twice_the_first_counts() {
        let headers = [(headers::COMMAND_ID, ID), (headers::KEY, "alice"), (headers::KEY, "bob")];
        let envelope = decode(SUBJECT, &headers, b"{}").unwrap();
        assert_eq!(envelope.key.unwrap().as_str(), "alice");
    }

    #[test]
    fn what_is_no_command_is_told_apart() {
        let id = (headers::COMMAND_ID, ID);
        let code = |result: Result<Envelope, EnvelopeError>| result.unwrap_err().code();
        assert_eq!(code(decode(SUBJECT, &[], b"{}")), "bad_id");
        assert_eq!(code(decode(SUBJECT, &[(headers::COMMAND_ID, "7")], b"{}")), "bad_id");
        assert_eq!(code(decode("a.b", &[id], b"{}")), "bad_subject");
        assert_eq!(code(decode("farwrite.shop.cmd.jfk.a b", &[id], b"{}")), "bad_subject");
        for version in ["", "0", "-1", "+1", "1.0", "2147483648", "x"] {
            assert_eq!(
                code(decode(SUBJECT, &[id, (headers::VERSION, version)], b"{}")),
                "bad_header"
            );
        }
        assert_eq!(code(decode(SUBJECT, &[id, (headers::KEY, "")], b"{}")), "bad_header");
        for time in ["", "-1", "+1", "1.5", "tomorrow", "9223372036854775808", "9223372036855"] {
            for header in [headers::NOT_BEFORE, headers::EXPIRES_AT] {
                assert_eq!(code(decode(SUBJECT, &[id, (header, time)], b"{}")), "bad_header");
            }
        }
        for context in ["", "7", "[]", "{", "{\"a\":1", "{\"a\":1e999}", "{\"a\":\"\\ud800\"}"] {
            assert_eq!(
                code(decode(SUBJECT, &[id, (headers::CONTEXT, context)], b"{}")),
                "bad_header"
            );
        }
        for body in [&b""[..], b"{", b"{} {}", b"nul", b"\"\xff\""] {
            assert_eq!(code(decode(SUBJECT, &[id], body)), "not_json", "{body:?}");
        }
        let large = vec![b' '; BODY_MAX_BYTES + 1];
        assert_eq!(code(decode(SUBJECT, &[id], &large)), "too_large");
    }
}
