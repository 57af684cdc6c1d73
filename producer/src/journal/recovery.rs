//! What a journal's file says, read once when it is opened.

use std::sync::{Arc, atomic::AtomicBool};

use bytes::Bytes;
use farwrite_schemas::{DatabaseName, Key, Origin};

use super::{
    book::{JournalBook, StoredAt},
    record::{self, Damage, Head, SentRecord},
};
use crate::outbox::{message::Message, target::Destinations, terms::Terms};

/// Whose journal it is.
#[derive(Clone, Debug)]
pub(crate) struct JournalOwner {
    pub(crate) database: DatabaseName,
    pub(crate) origin: Origin,
}

/// Why a file cannot be taken for this producer's journal.
#[derive(Debug)]
pub(super) enum Strange {
    NotAJournal,
    OtherOwner { database: String, origin: String },
    Unreadable(String),
}

impl From<serde_json::Error> for Strange {
    /// Without the error's own words, which may repeat what it read.
    fn from(error: serde_json::Error) -> Self {
        Self::Unreadable(format!("{:?} error at column {}", error.classify(), error.column()))
    }
}

impl JournalOwner {
    /// The record that a journal begins with.
    pub(super) fn head(&self) -> Head<'_> {
        let Self { database, origin } = self;
        Head::Owner { database: database.as_str().into(), origin: origin.as_str().into() }
    }

    fn check(&self, database: &str, origin: &str) -> Result<(), Strange> {
        if (database, origin) == (self.database.as_str(), self.origin.as_str()) {
            return Ok(());
        }
        Err(Strange::OtherOwner { database: database.to_owned(), origin: origin.to_owned() })
    }
}

/// Reads a file's records into a book.
pub(super) fn recover(
    bytes: &[u8],
    owner: &JournalOwner,
    targets: &Destinations,
    book: &mut JournalBook,
) -> Result<Damage, Strange> {
    let mut is_owned = false;
    let damage = record::read_all(bytes, |at, head, body| {
        match head {
            Head::Owner { database, origin } if at == 0 => {
                is_owned = true;
                return owner.check(&database, &origin);
            }
            _ if !is_owned => return Err(Strange::NotAJournal),
            Head::Owner { .. } => {}
            Head::Sent(sent) => {
                let (at_ms, overtaken) = (sent.at_ms, sent.overtaken);
                book.recover(&Arc::new(message(sent, body, targets)?), at_ms, overtaken);
            }
            Head::Stored { id, at_ms, stream, sequence } => {
                book.stored(id, StoredAt { at_ms, stream: stream.into_owned(), sequence });
            }
            Head::Gone { id, ended: true } => {
                book.end(id);
            }
            Head::Gone { id, ended: false } => {
                book.remove(id);
            }
        }
        Ok(())
    })?;
    if !bytes.is_empty() && !is_owned {
        return Err(Strange::NotAJournal);
    }
    Ok(damage)
}

fn message(sent: SentRecord<'_>, body: &[u8], targets: &Destinations) -> Result<Message, Strange> {
    let SentRecord { id, version, key, expires_at_ms, not_before_ms, context, .. } = sent;
    let strange = |what: &str| Strange::Unreadable(format!("{what} of {id} has no {what}'s form"));
    Ok(Message {
        id,
        target: targets.of(&sent.name).map_err(|_| strange("name"))?,
        version,
        key: key.map(Key::new).transpose().map_err(|_| strange("key"))?,
        body: Bytes::copy_from_slice(body),
        terms: Terms {
            expires_at_ms,
            not_before_ms,
            context: context.map(|context| context.into_owned().into()),
        },
        // The caller that waited for its reply is gone.
        reply: None,
        has_ended: AtomicBool::default(),
    })
}
