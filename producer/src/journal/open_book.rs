//! The book that publishes and the writer share, with the records that are still to be written.
//!
//! A change of the book and its record are made under one lock, so that the file has the records in
//! the order of the changes. A journal in memory has no records.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use farwrite_schemas::CommandId;

use super::{
    book::{JournalBook, StoredAt},
    record::{self, Head, SentRecord},
};
use crate::outbox::message::Message;

/// The book that publishes and the writer share, under its lock.
#[derive(Debug)]
pub(super) struct SharedBook {
    state: Mutex<OpenBook>,
    pub(super) wake: Condvar,
}

/// The book while it is locked, and what of it is still to be written.
#[derive(Debug)]
pub(super) struct OpenBook {
    pub(super) book: JournalBook,
    /// Records that the writer takes all together.
    pub(super) out: Vec<u8>,
    has_file: bool,
    /// Nothing more will come.
    pub(super) is_closing: bool,
}

impl SharedBook {
    pub(super) fn new(book: JournalBook, has_file: bool) -> Self {
        let state = OpenBook { book, out: Vec::new(), has_file, is_closing: false };
        Self { state: Mutex::new(state), wake: Condvar::new() }
    }

    pub(super) fn state(&self) -> MutexGuard<'_, OpenBook> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// There is something to write.
    pub(super) fn wake_writer(&self) {
        self.wake.notify_one();
    }

    /// Nothing more will come.
    pub(super) fn close(&self) {
        self.state().is_closing = true;
        self.wake_writer();
    }
}

impl OpenBook {
    pub(super) const fn has_out(&self) -> bool {
        !self.out.is_empty()
    }

    /// Writes down that a command is about to be sent.
    pub(super) fn note_sent(&mut self, message: &Message, at_ms: u64) {
        if self.has_file {
            let bytes = append_sent(&mut self.out, message, at_ms, false);
            self.book.wrote(message.id, Some(bytes), None);
        }
    }

    /// Writes down that one was acknowledged.
    pub(super) fn note_stored(&mut self, id: CommandId, at: &StoredAt) {
        if self.has_file {
            let bytes = append_stored(&mut self.out, id, at);
            self.book.wrote(id, None, Some(bytes));
        }
    }

    /// Writes down that one is not looked after any more.
    pub(super) fn note_gone(&mut self, id: CommandId, ended: bool) {
        if self.has_file {
            record::append(&mut self.out, &Head::Gone { id, ended }, &[]);
        }
    }
}

/// Appends the record that a command is about to be sent; says how long it is, in bytes.
pub(super) fn append_sent(
    out: &mut Vec<u8>,
    message: &Message,
    at_ms: u64,
    overtaken: bool,
) -> u64 {
    let sent = SentRecord {
        id: message.id,
        at_ms,
        name: message.target.name.as_str().into(),
        version: message.version,
        key: message.key.as_ref().map(|key| key.as_str().into()),
        expires_at_ms: message.terms.expires_at_ms,
        not_before_ms: message.terms.not_before_ms,
        context: message.terms.context.as_deref().map(Into::into),
        overtaken,
    };
    record::append(out, &Head::Sent(sent), &message.body)
}

/// Appends the record that one was acknowledged; says how long it is, in bytes.
pub(super) fn append_stored(out: &mut Vec<u8>, id: CommandId, at: &StoredAt) -> u64 {
    let StoredAt { at_ms, stream, sequence } = at;
    let (at_ms, stream, sequence) = (*at_ms, stream.as_str().into(), *sequence);
    record::append(out, &Head::Stored { id, at_ms, stream, sequence }, &[])
}
