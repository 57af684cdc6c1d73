//! Fuzzes everything that `farwrite-schemas` reads off the wire: messages, cookies and settings
//! that somebody else wrote.
//!
//! A worker reads a stream in order. If one message made it panic, it would meet the same message
//! after every restart and apply nothing behind it; a bookmark in a cookie or a question for an
//! outcome comes from even farther away. So nothing that is read may panic, overflow or hang,
//! every refusal must say something (for a command also the code of its dead letter), and what was
//! read and can be written must come back as the same: a program passes on what it has read.
//!
//! The first byte says what the rest is read as, counted from the digit `0`: see [`CASES`]. A
//! command is a subject, then lines `Name: value` of headers, an empty line and the body, any
//! bytes; everything else is the bytes or the text themselves. [`HEADERS`] are those of
//! `headers::OF_ENVELOPE`.
//!
//! Out of reach: a body over `BODY_MAX_BYTES`, which is longer than any input of a run, and what
//! the client library makes of the broker's bytes before they are a subject, headers and a body.

#![no_main]

use std::{
    fmt::{Debug, Display},
    str::FromStr,
};

use farwrite_schemas::{
    AtomicBody, BOOKMARK_MAX_BYTES, Bookmark, CommandId, CommandName, CommandSubject, DatabaseName,
    Envelope, Interest, Key, Lag, Lsn, NatsServers, Origin, Outcome, OutcomeAnswer, OutcomeRequest,
    ReplicaProgress, Reply, Subjects, VisibilityAnswer, VisibilityRequest, decode_envelope, headers,
};
use libfuzzer_sys::fuzz_target;
use serde::{Serialize, de::DeserializeOwned};

/// What the rest of an input is read as, by its first byte. The seeds count on the order.
const CASES: [fn(&[u8]); 13] = [
    command,                   // 0
    answer,                    // 1
    json::<OutcomeRequest>,    // 2
    json::<ReplicaProgress>,          // 3
    json::<Interest>,          // 4
    bookmark,                  // 5
    subject,                   // 6
    servers,                   // 7
    word,                      // 8
    atomic,                    // 9
    lag,                       // :
    json::<VisibilityRequest>, // ;
    json::<VisibilityAnswer>,  // <
];

/// How a header is written for an envelope that was read; `None` where it had none.
type Written = fn(&Envelope) -> Option<String>;

/// The headers that an envelope is read from, and how each is written again.
const HEADERS: [(&str, Written); 6] = [
    (headers::COMMAND_ID, |envelope| Some(envelope.id.to_string())),
    (headers::KEY, |envelope| envelope.key.as_ref().map(Key::to_string)),
    (headers::VERSION, |envelope| Some(envelope.version.to_string())),
    (headers::EXPIRES_AT, |envelope| envelope.expires_at_ms.map(|ms| ms.to_string())),
    (headers::NOT_BEFORE, |envelope| envelope.not_before_ms.map(|ms| ms.to_string())),
    (headers::CONTEXT, |envelope| envelope.context.as_deref().map(str::to_owned)),
];

fuzz_target!(|input: &[u8]| {
    if let Some((first, rest)) = input.split_first() {
        CASES[usize::from(first.wrapping_sub(b'0')) % CASES.len()](rest);
    }
});

/// A command: what is read of it, written as a producer would, is read as the same.
fn command(message: &[u8]) {
    let end = message.windows(2).position(|two| two == b"\n\n");
    let (head, body) = end.map_or((message, &[][..]), |end| (&message[..end], &message[end + 2..]));
    let Ok(head) = str::from_utf8(head) else { return };
    let (subject, lines) = head.split_once('\n').unwrap_or((head, ""));
    assert_eq!(HEADERS.map(|(name, _)| name), headers::OF_ENVELOPE);
    let headers = lines.split('\n').filter_map(|line| line.split_once(": "));
    match decode_envelope(subject, headers, body) {
        Ok(envelope) => {
            let database = DatabaseName::new("shop").expect("a valid name");
            let subject = Subjects::new(database).command(&envelope.origin, &envelope.name);
            let written = HEADERS.map(|(name, written)| (name, written(&envelope)));
            let headers = written.iter().filter_map(|(name, it)| Some((*name, it.as_deref()?)));
            assert_eq!(decode_envelope(&subject, headers, body).as_ref(), Ok(&envelope));
            if let Some(context) = &envelope.context {
                serde_json::from_str::<serde_json::Map<String, serde_json::Value>>(context)
                    .expect("a context is an object that the worker can read");
            }
        }
        Err(error) => {
            assert!(!error.code().is_empty(), "no code: {error:?}");
            explains_itself(&error);
        }
    }
}

/// The answer to a question for an outcome, which is also what is sent as a reply.
fn answer(bytes: &[u8]) {
    let answer = match OutcomeAnswer::decode(bytes) {
        Ok(answer) => answer,
        Err(error) => return explains_itself(&error),
    };
    let written = answer.encode().expect("what was read can be written");
    let again = OutcomeAnswer::decode(&written).expect("what was written can be read");
    assert_eq!(format!("{again:?}"), format!("{answer:?}"));
    assert_eq!(again.encode().expect("what was read can be written"), written);
    match (Reply::decode(bytes), answer) {
        (Ok(reply), OutcomeAnswer::Known(known)) => {
            assert_eq!(format!("{reply:?}"), format!("{known:?}"));
            let outcome = known.outcome;
            // A form of the wire alone: the ledger holds the output itself.
            if matches!(outcome, Outcome::AppliedLarge { .. }) {
                return;
            }
            let kept = Outcome::from_ledger(outcome.as_str(), outcome.ledger_answer());
            let kept = kept.expect("what the ledger keeps can be read");
            assert_eq!(format!("{kept:?}"), format!("{outcome:?}"));
        }
        (Err(error), OutcomeAnswer::Pending(_)) => explains_itself(&error),
        (reply, answer) => panic!("{reply:?} as a reply, {answer:?} as an answer"),
    }
}

/// A message that is JSON and nothing else.
fn json<T: Serialize + DeserializeOwned + Debug>(bytes: &[u8]) {
    match serde_json::from_slice::<T>(bytes) {
        Ok(value) => {
            let written = serde_json::to_vec(&value).expect("what was read can be written");
            let again: T = serde_json::from_slice(&written).expect("what was written can be read");
            assert_eq!(format!("{again:?}"), format!("{value:?}"));
        }
        Err(error) => explains_itself(&error),
    }
}

/// How far behind the worker is. The parser reads some numbers a last digit off, and nobody passes
/// these on: written and read again they stay about the same.
fn lag(bytes: &[u8]) {
    match serde_json::from_slice::<Lag>(bytes) {
        Ok(lag) => {
            let written = serde_json::to_vec(&lag).expect("what was read can be written");
            let again: Lag =
                serde_json::from_slice(&written).expect("what was written can be read");
            assert_eq!(again.commands, lag.commands);
            assert!((again.seconds - lag.seconds).abs() <= lag.seconds.abs() * 1e-12);
        }
        Err(error) => explains_itself(&error),
    }
}

/// The body of an atomic batch.
fn atomic(bytes: &[u8]) {
    let id = CommandId::derived("fuzz", "batch");
    match AtomicBody::decode(id, bytes) {
        Ok(body) => {
            let written = serde_json::to_vec(&body).expect("what was read can be written");
            let again = AtomicBody::decode(id, &written).expect("what was written can be read");
            assert_eq!(format!("{again:?}"), format!("{body:?}"));
        }
        Err(error) => explains_itself(&error),
    }
}

fn bookmark(bytes: &[u8]) {
    let Ok(input) = str::from_utf8(bytes) else { return };
    if let Some(bookmark) = text::<Bookmark>(input) {
        assert!(bookmark.to_string().len() <= BOOKMARK_MAX_BYTES, "longer than what is read");
        assert_eq!(bookmark.later_of(&bookmark), Some(&bookmark));
    }
}

fn subject(bytes: &[u8]) {
    let Ok(input) = str::from_utf8(bytes) else { return };
    match CommandSubject::parse(input) {
        Ok(Some(CommandSubject { origin, name })) => {
            let database = input.split('.').nth(1).and_then(|name| DatabaseName::new(name).ok());
            let subjects = Subjects::new(database.expect("it was checked"));
            assert_eq!(subjects.command(&origin, &name), input);
        }
        Ok(None) => {}
        Err(error) => explains_itself(&error),
    }
}

/// Not off the wire, but secret: what is shown of it has no credentials.
fn servers(bytes: &[u8]) {
    let Ok(input) = str::from_utf8(bytes) else { return };
    let servers = NatsServers::parse(input);
    assert_eq!(format!("{servers:?}"), servers.to_string());
    for url in &servers.urls {
        assert_eq!(NatsServers::parse(url).credentials, None, "{url:?}");
    }
}

/// The parts of the other forms, each from the same text.
fn word(bytes: &[u8]) {
    let Ok(input) = str::from_utf8(bytes) else { return };
    text::<Lsn>(input);
    if let Some(id) = text::<CommandId>(input) {
        assert_eq!(id.time().is_some(), id.unix_ms().is_some());
        assert_eq!(id.to_string(), input, "one id has one spelling");
    }
    verbatim::<Key>(input);
    verbatim::<DatabaseName>(input);
    verbatim::<Origin>(input);
    verbatim::<CommandName>(input);
}

/// A text that is shown as it was read.
fn verbatim<T>(input: &str)
where
    T: FromStr<Err: Display> + Display + Debug + PartialEq + Serialize + DeserializeOwned,
{
    if let Some(value) = text::<T>(input) {
        assert_eq!(value.to_string(), input);
    }
}

/// A text that may be shown otherwise than it was read, but is read as the same again; by serde
/// too, for it is a part of messages.
fn text<T>(input: &str) -> Option<T>
where
    T: FromStr<Err: Display> + Display + Debug + PartialEq + Serialize + DeserializeOwned,
{
    let value = match input.parse::<T>() {
        Ok(value) => value,
        Err(error) => {
            explains_itself(&error);
            return None;
        }
    };
    assert_eq!(value.to_string().parse::<T>().ok().as_ref(), Some(&value));
    let written = serde_json::to_string(&value).expect("what was read can be written");
    let again: T = serde_json::from_str(&written).expect("what was written can be read");
    assert_eq!(again, value);
    Some(value)
}

/// An error says something.
fn explains_itself(error: &impl Display) {
    assert!(!error.to_string().is_empty(), "an error without a text");
}
