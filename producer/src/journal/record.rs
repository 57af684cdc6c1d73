//! The records of a journal's file.
//!
//! ```text
//! mark "FWJ1" │ length u32 │ crc32 u32 │ content: head's length u32 │ head, JSON │ body
//! ```
//!
//! Numbers are little-endian; length and checksum are the content's. The body is a command's own,
//! byte for byte. Only ever appended, so that a crash leaves whole records and at most a torn tail.
//! The mark is there to find the next whole record behind a damaged place.

use std::borrow::Cow;

use farwrite_schemas::CommandId;
use serde::{Deserialize, Serialize};

const MARK: &[u8; 4] = b"FWJ1";
/// Mark, length and checksum.
const FRAME_BYTES: usize = 12;
/// Longest content: a body and its headers, many times. A longer one is no record.
const CONTENT_MAX_BYTES: usize = 16 << 20;

/// What a record says.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Head<'a> {
    /// Whose journal it is: the first record, and the only one of its kind.
    Owner { database: Cow<'a, str>, origin: Cow<'a, str> },
    /// A command is about to be sent. The body follows.
    Sent(SentRecord<'a>),
    /// The stream acknowledged it; again, when it was sent again.
    Stored { id: CommandId, at_ms: u64, stream: Cow<'a, str>, sequence: u64 },
    /// It is no longer looked after. `ended`: its outcome is known, otherwise it was not accepted
    /// or not wanted any more.
    Gone { id: CommandId, ended: bool },
}

/// All that is needed to publish a command again, but for its body.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct SentRecord<'a> {
    pub(super) id: CommandId,
    /// When it was sent first, in Unix milliseconds.
    pub(super) at_ms: u64,
    pub(super) name: Cow<'a, str>,
    pub(super) version: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) key: Option<Cow<'a, str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) expires_at_ms: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) not_before_ms: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) context: Option<Cow<'a, str>>,
    /// A later command of its key has ended before it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) overtaken: bool,
}

/// Appends one record; says how long it is, in bytes.
pub(super) fn append(out: &mut Vec<u8>, head: &Head<'_>, body: &[u8]) -> u64 {
    let start = out.len();
    out.extend_from_slice(MARK);
    out.extend_from_slice(&[0; FRAME_BYTES]);
    let content = start + FRAME_BYTES;
    let head_at = content + 4;
    // Writing to a vector does not fail, and every head has a JSON form.
    if serde_json::to_writer(&mut *out, head).is_err() {
        out.truncate(start);
        return 0;
    }
    let head_bytes = (out.len() - head_at) as u32;
    out.extend_from_slice(body);
    out[content..head_at].copy_from_slice(&head_bytes.to_le_bytes());
    let length = (out.len() - content) as u32;
    let crc = crc32fast::hash(&out[content..]);
    out[start + 4..start + 8].copy_from_slice(&length.to_le_bytes());
    out[start + 8..content].copy_from_slice(&crc.to_le_bytes());
    (out.len() - start) as u64
}

/// What was no record, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Damage {
    /// Behind the last whole record.
    pub(super) torn_bytes: u64,
    /// Before a whole record.
    pub(super) damaged_bytes: u64,
}

/// Reads every whole record, in order, with where it begins.
///
/// # Errors
/// When a record is whole and cannot be read all the same, or `each` refuses it.
pub(super) fn read_all<E: From<serde_json::Error>>(
    bytes: &[u8],
    mut each: impl FnMut(usize, Head<'_>, &[u8]) -> Result<(), E>,
) -> Result<Damage, E> {
    let mut damage = Damage::default();
    let mut at = 0;
    let mut whole_until = 0;
    while at < bytes.len() {
        let Some(content) = content_at(&bytes[at..]) else {
            at += 1 + next_mark(&bytes[at + 1..]);
            continue;
        };
        let (head, body) = split(content);
        each(at, serde_json::from_slice(head)?, body)?;
        damage.damaged_bytes += (at - whole_until) as u64;
        at += FRAME_BYTES + content.len();
        whole_until = at;
    }
    damage.torn_bytes = (bytes.len() - whole_until) as u64;
    Ok(damage)
}

/// The content of the record that begins here, if one does and it is whole.
fn content_at(bytes: &[u8]) -> Option<&[u8]> {
    let frame = bytes.get(..FRAME_BYTES)?;
    let number = |at: usize| Some(u32::from_le_bytes(frame.get(at..at + 4)?.try_into().ok()?));
    let (length, crc) = (number(4)? as usize, number(8)?);
    if &frame[..4] != MARK || !(4..=CONTENT_MAX_BYTES).contains(&length) {
        return None;
    }
    let content = bytes.get(FRAME_BYTES..FRAME_BYTES + length)?;
    (crc32fast::hash(content) == crc).then_some(content)
}

/// Head and body. A head that claims more than there is has no JSON form either.
fn split(content: &[u8]) -> (&[u8], &[u8]) {
    let (length, rest) = content.split_at(4);
    let length = length.try_into().map_or(0, u32::from_le_bytes) as usize;
    rest.split_at(length.min(rest.len()))
}

/// How far it is to the next mark, or to the end.
fn next_mark(bytes: &[u8]) -> usize {
    bytes.windows(MARK.len()).position(|window| window == MARK).unwrap_or(bytes.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gone(id: CommandId) -> Head<'static> {
        Head::Gone { id, ended: true }
    }

    fn ids(bytes: &[u8]) -> (Vec<CommandId>, Damage) {
        let mut ids = Vec::new();
        let damage = read_all::<serde_json::Error>(bytes, |_, head, _| {
            if let Head::Gone { id, .. } = head {
                ids.push(id);
            }
            Ok(())
        });
        (ids, damage.unwrap())
    }

    #[test]
    fn a_record_is_read_as_it_was_written() {
        let id = CommandId::now();
        let sent = SentRecord {
            id,
            at_ms: 7,
            name: "order.place".into(),
            version: 2,
            key: Some("alice \"a\"".into()),
            expires_at_ms: Some(8),
            not_before_ms: None,
            context: Some("{\"a\":\"\u{e9}\"}".into()),
            overtaken: true,
        };
        let mut bytes = Vec::new();
        let body = b"{\"FWJ1\": \"FWJ1\"}";
        let length = append(&mut bytes, &Head::Sent(sent), body);
        assert_eq!(length, bytes.len() as u64);
        let damage = read_all::<serde_json::Error>(&bytes, |at, head, read| {
            let Head::Sent(sent) = head else { panic!("{head:?}") };
            assert_eq!((at, sent.id, sent.at_ms, sent.version), (0, id, 7, 2));
            assert_eq!((&*sent.name, sent.key.as_deref()), ("order.place", Some("alice \"a\"")));
            assert_eq!((sent.expires_at_ms, sent.not_before_ms), (Some(8), None));
            assert_eq!(sent.context.as_deref(), Some("{\"a\":\"\u{e9}\"}"));
            assert!(sent.overtaken);
            assert_eq!(read, body);
            Ok(())
        });
        assert_eq!(damage.unwrap(), Damage::default());
    }

    #[test]
    fn wherever_the_tail_is_torn_what_is_before_it_is_read() {
        let all: Vec<CommandId> = (0..3).map(|_| CommandId::now()).collect();
        let mut bytes = Vec::new();
        let mut ends = vec![0];
        for id in &all {
            append(&mut bytes, &gone(*id), b"body");
            ends.push(bytes.len());
        }
        for length in 0..=bytes.len() {
            let whole = ends.iter().filter(|end| **end <= length).count() - 1;
            let (read, damage) = ids(&bytes[..length]);
            assert_eq!(read, all[..whole], "{length} bytes");
            let torn_bytes = (length - ends[whole]) as u64;
            assert_eq!(damage, Damage { torn_bytes, damaged_bytes: 0 });
        }
        // What a file system may leave of a write that it had not finished.
        bytes.extend_from_slice(&[0; 100]);
        let expected = Damage { torn_bytes: 100, damaged_bytes: 0 };
        assert_eq!(ids(&bytes), (all, expected));
    }

    #[test]
    fn whatever_byte_is_damaged_the_other_records_are_read_and_it_is_told() {
        let all: Vec<CommandId> = (0..3).map(|_| CommandId::now()).collect();
        let mut bytes = Vec::new();
        for id in &all {
            append(&mut bytes, &gone(*id), b"FWJ1");
        }
        let each = bytes.len() / 3;
        for at in 0..each {
            let mut damaged = bytes.clone();
            damaged[each + at] ^= 0x40;
            let (read, damage) = ids(&damaged);
            assert_eq!(read, [all[0], all[2]], "byte {at}");
            assert_eq!(damage, Damage { torn_bytes: 0, damaged_bytes: each as u64 });
        }
    }

    #[test]
    fn a_record_of_a_later_version_is_an_error_and_no_damage() {
        let mut bytes = Vec::new();
        append(&mut bytes, &gone(CommandId::now()), b"");
        let at = bytes.windows(4).position(|window| window == b"gone").unwrap();
        bytes[at..at + 4].copy_from_slice(b"new!");
        let crc = crc32fast::hash(&bytes[FRAME_BYTES..]);
        bytes[8..FRAME_BYTES].copy_from_slice(&crc.to_le_bytes());
        assert!(read_all::<serde_json::Error>(&bytes, |_, _, _| Ok(())).is_err());
    }
}
