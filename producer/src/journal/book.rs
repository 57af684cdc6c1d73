//! What a journal holds, without any I/O: entries in the order in which they were sent, by id, and
//! by key.
//!
//! An entry's number is its place in that order; one key's entries are numbered in the order of its
//! publishes, because a command is entered in its key's turn. It keeps its number however often it
//! is sent again.
//!
//! **Overtaken** is an entry when a later one of its key has ended: should the stream have lost it,
//! sending it again would apply it behind its successor. Everything of a key before an overtaken
//! entry is overtaken too.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use farwrite_schemas::{CommandId, Key};

use super::{journal_error::Unjournaled, settings::JournalLimits};
use crate::outbox::message::Message;

/// What an entry costs beside its texts and its body: numbers, maps, the record's frame.
const ENTRY_BYTES: usize = 256;

/// Where the stream said that it stored a command.
#[derive(Clone, Debug)]
pub(crate) struct StoredAt {
    pub(crate) at_ms: u64,
    pub(crate) stream: String,
    pub(crate) sequence: u64,
}

/// One command that was sent.
#[derive(Debug)]
pub(super) struct JournalEntry {
    pub(super) message: Arc<Message>,
    pub(super) sent_at_ms: u64,
    pub(super) stored: Option<StoredAt>,
    pub(super) overtaken: bool,
    /// When the last publish of it ended, whichever way.
    tried_at_ms: u64,
    /// Publishes of it that are under way.
    publishes: u32,
    /// Whether a publish of it that is over may have stored it.
    maybe_stored: bool,
    /// What its records take in the file: that it was sent, and where it is stored.
    sent_bytes: u64,
    stored_bytes: u64,
}

/// One entry as `reconcile` sees it.
#[derive(Clone, Debug)]
pub(crate) struct Listed {
    pub(crate) message: Arc<Message>,
    pub(crate) sent_at_ms: u64,
    pub(crate) tried_at_ms: u64,
    pub(crate) is_under_way: bool,
    pub(crate) is_stored: bool,
    pub(crate) overtaken: bool,
}

/// What entering a command did.
#[derive(Debug)]
pub(super) struct EnteredEntry {
    /// The entry's number.
    pub(super) number: u64,
    /// It was not there before.
    pub(super) is_new: bool,
}

/// All entries.
#[derive(Debug)]
pub(super) struct JournalBook {
    limits: JournalLimits,
    last_number: u64,
    entries: BTreeMap<u64, JournalEntry>,
    ids: HashMap<CommandId, u64>,
    keys: HashMap<Key, BTreeSet<u64>>,
    bytes: usize,
    file_bytes: u64,
}

impl JournalBook {
    pub(super) fn new(limits: JournalLimits) -> Self {
        Self {
            limits,
            last_number: 0,
            entries: BTreeMap::new(),
            ids: HashMap::new(),
            keys: HashMap::new(),
            bytes: 0,
            file_bytes: 0,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) const fn bytes(&self) -> usize {
        self.bytes
    }

    /// What the entries' records take in the file.
    pub(super) const fn file_bytes(&self) -> u64 {
        self.file_bytes
    }

    /// The number of the last entry that there was.
    pub(super) const fn last_number(&self) -> u64 {
        self.last_number
    }

    pub(super) fn entries(&self) -> impl Iterator<Item = &JournalEntry> {
        self.entries.values()
    }

    /// A publish of a command begins. One that is there already keeps its place, and its message.
    pub(super) fn enter(
        &mut self,
        message: &Arc<Message>,
        now_ms: u64,
    ) -> Result<EnteredEntry, Unjournaled> {
        let is_new = !self.ids.contains_key(&message.id);
        if is_new {
            self.check_room(cost(message))?;
            self.insert(message, now_ms, false, false);
        }
        if let Some(entry) = self.entry_mut(message.id) {
            entry.publishes += 1;
        }
        let number = self.ids.get(&message.id).copied().unwrap_or_default();
        Ok(EnteredEntry { number, is_new })
    }

    /// An entry is read from the file: whether it was stored is not known, or follows.
    pub(super) fn recover(&mut self, message: &Arc<Message>, sent_at_ms: u64, overtaken: bool) {
        // Once more under one id: the first is the one that may have been acknowledged.
        if !self.ids.contains_key(&message.id) {
            self.insert(message, sent_at_ms, true, overtaken);
        }
    }

    fn insert(
        &mut self,
        message: &Arc<Message>,
        sent_at_ms: u64,
        maybe_stored: bool,
        overtaken: bool,
    ) {
        self.last_number += 1;
        let number = self.last_number;
        self.bytes += cost(message);
        self.ids.insert(message.id, number);
        if let Some(key) = &message.key {
            self.keys.entry(key.clone()).or_default().insert(number);
        }
        let entry = JournalEntry {
            message: Arc::clone(message),
            sent_at_ms,
            stored: None,
            overtaken,
            tried_at_ms: sent_at_ms,
            publishes: 0,
            maybe_stored,
            sent_bytes: 0,
            stored_bytes: 0,
        };
        self.entries.insert(number, entry);
    }

    /// Whether there is room for so many bytes.
    fn check_room(&self, bytes: usize) -> Result<(), Unjournaled> {
        let JournalLimits { max_commands, max_bytes } = self.limits;
        if self.len() >= max_commands || self.bytes + bytes > max_bytes {
            return Err(Unjournaled::Full { commands: self.len(), bytes: self.bytes });
        }
        Ok(())
    }

    /// The stream acknowledged it. False when nobody looks after it any more.
    pub(super) fn stored(&mut self, id: CommandId, stored: StoredAt) -> bool {
        let Some(entry) = self.entry_mut(id) else { return false };
        entry.tried_at_ms = stored.at_ms;
        entry.stored = Some(stored);
        true
    }

    /// A publish of it is over. True when it is forgotten, because none of them can have stored it.
    pub(super) fn leave(&mut self, id: CommandId, maybe_stored: bool, now_ms: u64) -> bool {
        let Some(entry) = self.entry_mut(id) else { return false };
        entry.publishes = entry.publishes.saturating_sub(1);
        entry.maybe_stored |= maybe_stored;
        if maybe_stored {
            entry.tried_at_ms = now_ms;
        }
        let is_gone = entry.publishes == 0 && !entry.maybe_stored;
        is_gone && self.remove(id).is_some()
    }

    /// Its outcome is known: what its key sent before it, and is still here, is overtaken.
    pub(super) fn end(&mut self, id: CommandId) -> bool {
        let Some(number) = self.ids.get(&id).copied() else { return false };
        let Some(entry) = self.remove(id) else { return false };
        let before = entry.message.key.as_ref().and_then(|key| self.keys.get(key));
        for number in before.into_iter().flat_map(|numbers| numbers.range(..number).rev()) {
            match self.entries.get_mut(number) {
                Some(entry) if !entry.overtaken => entry.overtaken = true,
                Some(_) | None => break,
            }
        }
        true
    }

    /// It is not looked after any more, whatever becomes of it.
    pub(super) fn remove(&mut self, id: CommandId) -> Option<JournalEntry> {
        let number = self.ids.remove(&id)?;
        let entry = self.entries.remove(&number)?;
        self.bytes -= cost(&entry.message);
        self.file_bytes -= entry.sent_bytes + entry.stored_bytes;
        if let Some(key) = &entry.message.key
            && let Some(numbers) = self.keys.get_mut(key)
        {
            numbers.remove(&number);
            if numbers.is_empty() {
                self.keys.remove(key);
            }
        }
        Some(entry)
    }

    /// How long the records of an entry are; `None` leaves a length as it is.
    pub(super) fn wrote(&mut self, id: CommandId, sent: Option<u64>, stored: Option<u64>) {
        let Some(number) = self.ids.get(&id) else { return };
        let Some(entry) = self.entries.get_mut(number) else { return };
        self.file_bytes -= entry.sent_bytes + entry.stored_bytes;
        entry.sent_bytes = sent.unwrap_or(entry.sent_bytes);
        entry.stored_bytes = stored.unwrap_or(entry.stored_bytes);
        self.file_bytes += entry.sent_bytes + entry.stored_bytes;
    }

    /// All entries, in the order in which they were sent.
    pub(super) fn list(&self) -> Vec<Listed> {
        let listed = |entry: &JournalEntry| Listed {
            message: Arc::clone(&entry.message),
            sent_at_ms: entry.sent_at_ms,
            tried_at_ms: entry.tried_at_ms,
            is_under_way: entry.publishes > 0,
            is_stored: entry.stored.is_some(),
            overtaken: entry.overtaken,
        };
        self.entries.values().map(listed).collect()
    }

    /// A publish of an entry begins that is there and not under way.
    pub(super) fn claim(&mut self, id: CommandId) -> bool {
        match self.entry_mut(id) {
            Some(entry) if entry.publishes == 0 => {
                entry.publishes = 1;
                true
            }
            Some(_) | None => false,
        }
    }

    fn entry_mut(&mut self, id: CommandId) -> Option<&mut JournalEntry> {
        self.entries.get_mut(self.ids.get(&id)?)
    }
}

/// Bytes that a command takes of the limit.
fn cost(message: &Message) -> usize {
    let key = message.key.as_ref().map_or(0, |key| key.as_str().len());
    ENTRY_BYTES + message.target.name.as_str().len() + key + message.bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outbox::message::tests::message;

    fn book(max_commands: usize, max_bytes: usize) -> JournalBook {
        JournalBook::new(JournalLimits { max_commands, max_bytes })
    }

    fn stored(at_ms: u64) -> StoredAt {
        StoredAt { at_ms, stream: "S".to_owned(), sequence: 7 }
    }

    /// Enters a command whose publish is over and acknowledged.
    fn sent(book: &mut JournalBook, key: Option<&str>) -> CommandId {
        let message = message(key, "{}");
        assert!(book.enter(&message, 1).unwrap().is_new);
        assert!(book.stored(message.id, stored(2)));
        assert!(!book.leave(message.id, true, 2));
        message.id
    }

    fn overtaken(book: &JournalBook) -> Vec<CommandId> {
        let listed = book.list().into_iter().filter(|entry| entry.overtaken);
        listed.map(|entry| entry.message.id).collect()
    }

    #[test]
    fn what_cannot_have_been_stored_is_forgotten_and_the_rest_stays() {
        let mut book = book(10, 1 << 20);
        let message = message(Some("k"), "{}");
        for (maybe_stored, is_forgotten) in [(false, true), (true, false), (false, false)] {
            book.enter(&message, 1).unwrap();
            assert_eq!(book.leave(message.id, maybe_stored, 9), is_forgotten);
        }
        let [entry] = &book.list()[..] else { panic!("{book:?}") };
        assert_eq!((entry.sent_at_ms, entry.tried_at_ms, entry.is_stored), (1, 9, false));
        assert!(book.end(message.id));
        assert_eq!((book.len(), book.bytes(), book.keys.len()), (0, 0, 0));
        assert!(!book.end(message.id) && !book.leave(message.id, false, 9));
    }

    #[test]
    fn two_publishes_of_one_id_are_one_entry_until_both_are_over() {
        let mut book = book(1, 1 << 20);
        let message = message(None, "{}");
        assert!(book.enter(&message, 1).unwrap().is_new);
        assert!(!book.enter(&message, 2).unwrap().is_new, "also where the journal is full");
        assert!(!book.leave(message.id, false, 3), "the other one is under way");
        assert!(!book.claim(message.id));
        assert!(book.leave(message.id, false, 3));
    }

    #[test]
    fn a_full_book_refuses_and_says_how_full_it_is() {
        let mut few = book(2, 1 << 20);
        sent(&mut few, None);
        sent(&mut few, None);
        let refused = few.enter(&message(None, "{}"), 1).unwrap_err();
        assert!(
            matches!(refused, Unjournaled::Full { commands: 2, bytes } if bytes == few.bytes())
        );

        let mut small = book(10, 2 * ENTRY_BYTES);
        let first = sent(&mut small, None);
        assert!(small.enter(&message(None, "{}"), 1).is_err());
        assert!(small.end(first));
        sent(&mut small, None);

        let mut tiny = book(9, ENTRY_BYTES);
        assert!(tiny.enter(&message(None, "{}"), 1).is_err(), "it never fits");
    }

    #[test]
    fn what_a_later_one_of_the_key_has_passed_is_overtaken() {
        let mut book = book(100, 1 << 20);
        let ids: Vec<CommandId> = (0..4).map(|_| sent(&mut book, Some("k"))).collect();
        let other = sent(&mut book, Some("other"));
        assert!(book.end(ids[2]));
        assert_eq!(overtaken(&book), ids[..2]);
        assert!(book.end(ids[0]));
        assert!(book.end(other));
        assert_eq!(overtaken(&book), [ids[1]]);
        // Gone without an outcome, it has passed nobody.
        let later = sent(&mut book, Some("k"));
        assert!(book.remove(later).is_some());
        assert_eq!(overtaken(&book), [ids[1]]);
    }
}
