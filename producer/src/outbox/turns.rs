//! The order of a key's publishes: one at a time, in the order of the calls.
//!
//! A publish that is retried would land behind its successor if that were already under way, so a
//! key has one unacknowledged publish. Many keys are in flight together; they know nothing of each
//! other.
//!
//! ```text
//! call ── enter ──▶ waiting ── the turn before ends ──▶ holder ── drop ──▶ gone
//!                                                          │
//!                                                  block ──▶ the key keeps the unresolved message:
//!                                                            the next holder sends it first
//! ```
//!
//! A call that is dropped while its message is out blocks its key in the same way. Its message goes
//! to the finisher (`finish.rs`), so that the key does not wait for a next call.
//!
//! The map is the truth and the channel only a wake-up: a waiter that leaves in the moment in which
//! it becomes the holder passes the turn on when it is dropped. A key without calls and without an
//! unresolved message has no entry.

use std::{
    collections::{BTreeMap, HashMap, hash_map::Entry},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use farwrite_schemas::{CommandId, Key};
use tokio::{
    sync::{Notify, mpsc, oneshot},
    time::Instant,
};

use crate::{metrics, outbox::message::Message};

/// As many keys are blocked, or as many bytes kept for them, as may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TooManyBlocked;

/// A message that was out when its call was dropped. It blocks its key.
#[derive(Debug)]
pub(crate) struct AbandonedPublish {
    pub(crate) message: Arc<Message>,
    /// The dropped call's.
    pub(crate) deadline: Instant,
}

#[derive(Debug, Default)]
struct KeyCalls {
    holder: Option<u64>,
    waiting: BTreeMap<u64, oneshot::Sender<()>>,
    unresolved: Option<Arc<Message>>,
}

#[derive(Debug, Default)]
struct Keys {
    last_number: u64,
    queues: HashMap<Key, KeyCalls>,
    blocked_bytes: usize,
}

/// The queues of all keys.
#[derive(Debug)]
pub(crate) struct KeyTurns {
    keys: Mutex<Keys>,
    /// Keys that are blocked; changed only while `keys` is locked. A turn that reads it was given
    /// to its holder under that lock, and so sees what the holders before it did to their key:
    /// where it reads none, its key is not blocked.
    blocked: AtomicUsize,
    max_blocked_keys: usize,
    max_blocked_bytes: usize,
    /// Needs no bound of its own: what is in it blocks a key.
    abandoned: mpsc::UnboundedSender<AbandonedPublish>,
    /// Wakes the finisher when a call is refused because too much is blocked.
    pub(super) was_full: Notify,
}

impl KeyTurns {
    /// The turns, and where the messages of dropped calls come out.
    pub(crate) fn new(
        max_blocked_keys: usize,
        max_blocked_bytes: usize,
    ) -> (Self, mpsc::UnboundedReceiver<AbandonedPublish>) {
        let (abandoned, coming) = mpsc::unbounded_channel();
        let turns = Self {
            keys: Mutex::default(),
            blocked: AtomicUsize::default(),
            max_blocked_keys,
            max_blocked_bytes,
            abandoned,
            was_full: Notify::new(),
        };
        (turns, coming)
    }

    fn blocked(&self) -> usize {
        self.blocked.load(Ordering::Relaxed)
    }

    fn keys(&self) -> MutexGuard<'_, Keys> {
        self.keys.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Queues up for a key.
    ///
    /// The bound on blocked keys is kept here, before anything is sent: a call that is already
    /// under way may still block its key, so that it can be passed by as many as are pending.
    ///
    /// # Errors
    /// When too much is blocked already, and this key is not among it.
    pub(crate) fn enter(self: &Arc<Self>, key: &Key) -> Result<KeyTurn, TooManyBlocked> {
        let mut keys = self.keys();
        let is_full =
            self.blocked() >= self.max_blocked_keys || keys.blocked_bytes >= self.max_blocked_bytes;
        let is_blocked = |queue: &KeyCalls| queue.unresolved.is_some();
        if is_full && !keys.queues.get(key).is_some_and(is_blocked) {
            self.was_full.notify_one();
            return Err(TooManyBlocked);
        }
        keys.last_number += 1;
        let number = keys.last_number;
        let queue = keys.queues.entry(key.clone()).or_default();
        let called = if queue.holder.is_none() {
            queue.holder = Some(number);
            None
        } else {
            let (call, called) = oneshot::channel();
            queue.waiting.insert(number, call);
            Some(called)
        };
        Ok(KeyTurn { turns: Arc::clone(self), key: key.clone(), number, called })
    }

    /// The message with this id is resolved: if it blocked the key, it does no longer.
    pub(crate) fn resolve(&self, key: &Key, id: CommandId) {
        if self.blocked() == 0 {
            return;
        }
        let mut keys = self.keys();
        let Keys { queues, blocked_bytes, .. } = &mut *keys;
        let Some(queue) = queues.get_mut(key) else { return };
        if let Some(message) = queue.unresolved.take_if(|message| message.id == id) {
            self.blocked.fetch_sub(1, Ordering::Relaxed);
            metrics::keys_freed(1);
            *blocked_bytes -= message.bytes();
            // Where no call holds the key, nobody else takes its entry out.
            if queue.holder.is_none() {
                queues.remove(key);
            }
        }
    }

    /// The messages that block keys.
    pub(super) fn unresolved(&self) -> Vec<Arc<Message>> {
        self.keys().queues.values().filter_map(|queue| queue.unresolved.clone()).collect()
    }

    /// Keys with an entry, and how many of them are blocked.
    pub(crate) fn counts(&self) -> (usize, usize) {
        let keys = self.keys();
        (keys.queues.len(), self.blocked())
    }
}

impl Drop for KeyTurns {
    fn drop(&mut self) {
        metrics::keys_freed(self.blocked());
    }
}

/// A place in a key's queue. Dropping it lets the next one go.
#[derive(Debug)]
pub(crate) struct KeyTurn {
    turns: Arc<KeyTurns>,
    key: Key,
    number: u64,
    called: Option<oneshot::Receiver<()>>,
}

impl KeyTurn {
    /// Waits until every call of the key before this one has ended.
    pub(crate) async fn come(&mut self) {
        if let Some(called) = &mut self.called {
            // The sender is only dropped with this turn's own entry.
            drop(called.await);
            self.called = None;
        }
    }

    /// The message that blocks the key, if one does.
    pub(crate) fn unresolved(&self) -> Option<Arc<Message>> {
        if self.turns.blocked() == 0 {
            return None;
        }
        self.turns.keys().queues.get(&self.key).and_then(|queue| queue.unresolved.clone())
    }

    /// Blocks the key until `message` is resolved. An earlier one stays: it is the older.
    pub(crate) fn block(&self, message: &Arc<Message>) {
        let mut keys = self.turns.keys();
        let Some(queue) = keys.queues.get_mut(&self.key) else { return };
        if queue.unresolved.is_none() {
            queue.unresolved = Some(Arc::clone(message));
            self.turns.blocked.fetch_add(1, Ordering::Relaxed);
            metrics::key_blocked();
            keys.blocked_bytes += message.bytes();
        }
    }

    /// Blocks the key until `message` is resolved, and leaves that to the finisher, until this time.
    pub(crate) fn abandon(&self, message: &Arc<Message>, deadline: Instant) {
        self.block(message);
        let message = Arc::clone(message);
        // Nobody takes it where the producer ends: then its keys end, too.
        drop(self.turns.abandoned.send(AbandonedPublish { message, deadline }));
    }

    /// The message with this id is resolved: if it blocked the key, it does no longer.
    pub(crate) fn resolve(&self, id: CommandId) {
        self.turns.resolve(&self.key, id);
    }
}

impl Drop for KeyTurn {
    fn drop(&mut self) {
        let mut keys = self.turns.keys();
        // One look-up for what is read and taken out; a key's text is shared.
        let Entry::Occupied(mut entry) = keys.queues.entry(self.key.clone()) else { return };
        let queue = entry.get_mut();
        if queue.holder == Some(self.number) {
            queue.holder = None;
            if let Some((next, call)) = queue.waiting.pop_first() {
                queue.holder = Some(next);
                // Where it has just left, its own drop, which waits for this lock, goes on.
                let _ = call.send(());
            }
        } else {
            queue.waiting.remove(&self.number);
        }
        if queue.holder.is_none() && queue.unresolved.is_none() {
            entry.remove();
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;
    use crate::outbox::message::tests::message;

    fn key(key: &str) -> Key {
        Key::new(key).unwrap()
    }

    fn turns() -> Arc<KeyTurns> {
        Arc::new(KeyTurns::new(2, 1_000).0)
    }

    #[test]
    fn one_key_goes_one_by_one_in_the_order_of_the_calls_and_others_go_on() {
        let turns = turns();
        let mut places: Vec<KeyTurn> = (0..3).map(|_| turns.enter(&key("a")).unwrap()).collect();
        let mut other = turns.enter(&key("b")).unwrap();
        assert!(other.come().now_or_never().is_some());
        assert!(places[0].come().now_or_never().is_some());
        assert!(places[1].come().now_or_never().is_none());
        assert!(places[2].come().now_or_never().is_none());
        places.remove(0);
        assert!(places[1].come().now_or_never().is_none());
        assert!(places[0].come().now_or_never().is_some());
    }

    #[test]
    fn who_leaves_the_queue_is_passed_over() {
        let turns = turns();
        let holder = turns.enter(&key("a")).unwrap();
        let leaving = turns.enter(&key("a")).unwrap();
        let called_and_gone = turns.enter(&key("a")).unwrap();
        let mut last = turns.enter(&key("a")).unwrap();
        drop(leaving);
        drop(holder);
        assert!(last.come().now_or_never().is_none(), "it is the third one's turn");
        drop(called_and_gone);
        assert!(last.come().now_or_never().is_some());
        drop(last);
        assert_eq!(turns.counts(), (0, 0));
    }

    #[test]
    fn a_key_is_blocked_until_its_id_is_resolved() {
        let turns = turns();
        let first = turns.enter(&key("a")).unwrap();
        let (old, new) = (message(Some("a"), "{}"), message(Some("a"), "{}"));
        first.block(&old);
        first.block(&new);
        drop(first);
        assert_eq!(turns.counts(), (1, 1));
        let next = turns.enter(&key("a")).unwrap();
        assert_eq!(next.unresolved().unwrap().id, old.id);
        next.resolve(new.id);
        assert!(next.unresolved().is_some(), "another id resolves nothing");
        next.resolve(old.id);
        assert!(next.unresolved().is_none());
        drop(next);
        assert_eq!(turns.counts(), (0, 0));
    }

    #[test]
    fn what_is_abandoned_blocks_its_key_until_it_is_resolved_also_without_a_call() {
        let (turns, mut abandoned) = KeyTurns::new(2, 1_000);
        let turns = Arc::new(turns);
        let turn = turns.enter(&key("a")).unwrap();
        let waiting = turns.enter(&key("a")).unwrap();
        let (out, deadline) = (message(Some("a"), "{}"), Instant::now());
        turn.abandon(&out, deadline);
        drop(turn);
        assert_eq!(waiting.unresolved().unwrap().id, out.id);
        drop(waiting);
        let left = abandoned.try_recv().unwrap();
        assert_eq!((left.message.id, left.deadline), (out.id, deadline));
        turns.resolve(&key("a"), CommandId::now());
        assert_eq!(turns.counts(), (1, 1), "another id resolves nothing");
        turns.resolve(&key("a"), out.id);
        assert_eq!(turns.counts(), (0, 0));
    }

    #[test]
    fn blocked_keys_and_the_bytes_kept_for_them_are_bounded() {
        let turns = turns();
        for name in ["a", "b"] {
            turns.enter(&key(name)).unwrap().block(&message(Some(name), "{}"));
        }
        assert_eq!(turns.enter(&key("c")).unwrap_err(), TooManyBlocked);
        let blocked = turns.enter(&key("a")).expect("a blocked key may try to get free");
        blocked.resolve(blocked.unresolved().unwrap().id);
        assert!(turns.enter(&key("c")).is_ok());

        let turns = Arc::new(KeyTurns::new(100, 2).0);
        turns.enter(&key("a")).unwrap().block(&message(Some("a"), "{}"));
        assert_eq!(turns.enter(&key("c")).unwrap_err(), TooManyBlocked);
    }

    #[inline(never)]
    fn hot_take_a_turn(turns: &Arc<KeyTurns>, key: &Key, id: CommandId) {
        let turn = turns.enter(key).unwrap();
        assert!(turn.unresolved().is_none());
        turn.resolve(id);
    }

    /// For `loadtest/counts.sh`.
    #[test]
    fn taking_a_turn_among_a_thousand_keys() {
        let turns = Arc::new(KeyTurns::new(10, 10).0);
        let keys: Vec<Key> = (0..1_000).map(|number| key(&format!("k{number:06}"))).collect();
        let _others: Vec<KeyTurn> = keys.iter().map(|key| turns.enter(key).unwrap()).collect();
        let (mine, id) = (key("mine"), CommandId::now());
        (0..1_000).for_each(|_| hot_take_a_turn(&turns, &mine, id));
        assert_eq!(turns.counts(), (1_000, 0));
    }
}
