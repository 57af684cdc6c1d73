//! Who waits for which message of the inbox.
//!
//! Two tables under one lock. A **token** is a number in the reply subject of one publish or one
//! question. Every message on it, also the server's "no responders", belongs to that one waiter. A
//! **reply** belongs to every call in this producer that submitted that id with that fingerprint:
//! the worker answers one of them, and all are served. The fingerprint is part of the reply's
//! subject, so that a late reply never answers another body under the same id.
//!
//! A waiter is a guard: when its caller goes, its entry goes. The tables hold only what somebody
//! waits for, so that they need no bound of their own.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use async_nats::{Message, Subject};
use farwrite_schemas::{CommandId, Fingerprint, Reply};
use tokio::sync::{Notify, oneshot};
use uuid::Uuid;

/// What comes back to a token.
#[derive(Debug)]
pub(crate) enum Arrival {
    /// A message: an acknowledgement, a refusal, an answer or "no responders".
    Message(Message),
    /// The server did not let the message pass.
    Denied,
    /// The server does not let us listen: nothing will come back.
    Deaf,
}

type ReplyKey = (CommandId, Uuid);

#[derive(Debug)]
struct TokenWaiter {
    subject: Subject,
    sender: oneshot::Sender<Arrival>,
}

#[derive(Debug, Default)]
struct Tables {
    last_number: u64,
    tokens: HashMap<u64, TokenWaiter>,
    replies: HashMap<ReplyKey, Vec<(u64, oneshot::Sender<Reply>)>>,
}

/// The two tables.
#[derive(Debug, Default)]
pub(crate) struct Routes {
    tables: Mutex<Tables>,
    is_deaf: AtomicBool,
    /// Wakes the gatherer when there is a new connection.
    pub(crate) connected: Notify,
}

impl Routes {
    fn tables(&self) -> MutexGuard<'_, Tables> {
        self.tables.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for what comes back from one message to `subject`. Register before sending.
    pub(crate) fn expect_answer(self: &Arc<Self>, subject: Subject) -> AnswerRoute {
        let (sender, arrival) = oneshot::channel();
        let mut tables = self.tables();
        tables.last_number += 1;
        let token = tables.last_number;
        tables.tokens.insert(token, TokenWaiter { subject, sender });
        AnswerRoute { routes: Arc::clone(self), token, arrival, has_come: false }
    }

    /// Waits for the reply to a command. Register before publishing.
    pub(crate) fn expect_reply(
        self: &Arc<Self>,
        id: CommandId,
        fingerprint: Fingerprint,
    ) -> ReplyRoute {
        let (sender, reply) = oneshot::channel();
        let key = (id, fingerprint.as_uuid());
        let mut tables = self.tables();
        tables.last_number += 1;
        let number = tables.last_number;
        tables.replies.entry(key).or_default().push((number, sender));
        ReplyRoute { routes: Arc::clone(self), key, number, reply }
    }

    /// Hands an answer to the waiter of the token; false when there is none any more.
    pub(crate) fn deliver_answer(&self, token: u64, message: Message) -> bool {
        let waiting = self.tables().tokens.remove(&token);
        waiting.is_some_and(|waiting| waiting.sender.send(Arrival::Message(message)).is_ok())
    }

    /// Hands a reply to all its waiters; false when there are none any more.
    pub(crate) fn deliver_reply(&self, fingerprint: Uuid, reply: &Reply) -> bool {
        let waiting = self.tables().replies.remove(&(reply.id, fingerprint)).unwrap_or_default();
        let mut was_waited_for = false;
        for (_, sender) in waiting {
            was_waited_for |= sender.send(reply.clone()).is_ok();
        }
        was_waited_for
    }

    /// Everything that was sent to `subject` and is not answered was refused.
    ///
    /// The server names the subject and not the message. Where permissions are withdrawn while
    /// publishes are in flight, one that was stored just before could be among them; the ledger
    /// knows, and so does its id.
    pub(crate) fn deny(&self, subject: &str) {
        let denied: Vec<TokenWaiter> = {
            let mut tables = self.tables();
            let of_subject = tables.tokens.extract_if(|_, waiting| &*waiting.subject == subject);
            of_subject.map(|(_, waiting)| waiting).collect()
        };
        for waiting in denied {
            drop(waiting.sender.send(Arrival::Denied));
        }
    }

    /// The server does not let us listen to our inbox.
    pub(crate) fn deafen(&self) {
        self.is_deaf.store(true, Ordering::SeqCst);
        let unanswered = std::mem::take(&mut self.tables().tokens);
        for (_, waiting) in unanswered {
            drop(waiting.sender.send(Arrival::Deaf));
        }
    }

    /// A new connection may listen again, until the server says otherwise.
    pub(crate) fn reconnected(&self) {
        self.is_deaf.store(false, Ordering::SeqCst);
        self.connected.notify_one();
    }

    /// Whether the server has refused us our inbox.
    pub(crate) fn is_deaf(&self) -> bool {
        self.is_deaf.load(Ordering::SeqCst)
    }

    /// How many wait for an answer, and for how many replies.
    pub(crate) fn waiting(&self) -> (usize, usize) {
        let tables = self.tables();
        (tables.tokens.len(), tables.replies.values().map(Vec::len).sum())
    }
}

/// One waiter on a token.
#[derive(Debug)]
pub(crate) struct AnswerRoute {
    routes: Arc<Routes>,
    pub(crate) token: u64,
    arrival: oneshot::Receiver<Arrival>,
    /// Something came, for which its entry was taken out of the table.
    has_come: bool,
}

impl AnswerRoute {
    /// What came back.
    pub(crate) async fn arrival(mut self) -> Arrival {
        // The entry leaves the table only by sending or by dropping this guard.
        let arrival = (&mut self.arrival).await.unwrap_or(Arrival::Deaf);
        self.has_come = true;
        arrival
    }
}

impl Drop for AnswerRoute {
    fn drop(&mut self) {
        if !self.has_come {
            self.routes.tables().tokens.remove(&self.token);
        }
    }
}

/// One waiter for a reply.
#[derive(Debug)]
pub(crate) struct ReplyRoute {
    routes: Arc<Routes>,
    key: ReplyKey,
    number: u64,
    reply: oneshot::Receiver<Reply>,
}

impl ReplyRoute {
    /// The reply. Never ends when none comes. Safe to drop and call again.
    pub(crate) async fn reply(&mut self) -> Reply {
        match (&mut self.reply).await {
            Ok(reply) => reply,
            Err(_) => std::future::pending().await,
        }
    }
}

impl Drop for ReplyRoute {
    fn drop(&mut self) {
        let mut tables = self.routes.tables();
        if let Some(waiting) = tables.replies.get_mut(&self.key) {
            waiting.retain(|(number, _)| *number != self.number);
            if waiting.is_empty() {
                tables.replies.remove(&self.key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    const REPLY: &str = include_str!("../../../schemas/fixtures/reply-applied.v1.json");

    fn reply() -> Reply {
        Reply::decode(REPLY.as_bytes()).unwrap()
    }

    fn fingerprint(number: u128) -> Fingerprint {
        Fingerprint::from_uuid(Uuid::from_u128(number))
    }

    #[tokio::test]
    async fn everyone_who_waits_for_one_command_gets_its_reply() {
        let routes = Arc::new(Routes::default());
        let reply = reply();
        let mut first = routes.expect_reply(reply.id, fingerprint(1));
        let mut second = routes.expect_reply(reply.id, fingerprint(1));
        let _other_body = routes.expect_reply(reply.id, fingerprint(2));
        assert!(routes.deliver_reply(fingerprint(1).as_uuid(), &reply));
        assert_eq!(first.reply().await.id, reply.id);
        assert_eq!(second.reply().await.id, reply.id);
        assert_eq!(routes.waiting(), (0, 1), "the other body still waits");
        assert!(!routes.deliver_reply(fingerprint(1).as_uuid(), &reply), "a late copy");
    }

    #[test]
    fn a_waiter_that_leaves_takes_its_entry_along_and_no_other() {
        let routes = Arc::new(Routes::default());
        let reply = reply();
        let first = routes.expect_reply(reply.id, fingerprint(1));
        let second = routes.expect_reply(reply.id, fingerprint(1));
        let answer = routes.expect_answer(Subject::from_static("a"));
        assert_eq!(routes.waiting(), (1, 2));
        drop((first, answer));
        assert_eq!(routes.waiting(), (0, 1));
        drop(second);
        assert_eq!(routes.waiting(), (0, 0));
        assert!(routes.tables().replies.is_empty());
    }

    #[tokio::test]
    async fn a_denied_subject_fails_its_own_waiters_only() {
        let routes = Arc::new(Routes::default());
        let denied = routes.expect_answer(Subject::from_static("a"));
        let _other = routes.expect_answer(Subject::from_static("b"));
        routes.deny("a");
        assert!(matches!(denied.arrival().await, Arrival::Denied));
        assert_eq!(routes.waiting(), (1, 0));
    }

    #[tokio::test]
    async fn who_may_not_listen_waits_for_nothing() {
        let routes = Arc::new(Routes::default());
        let answer = routes.expect_answer(Subject::from_static("a"));
        routes.deafen();
        assert!(matches!(answer.arrival().await, Arrival::Deaf));
        assert!(routes.is_deaf());
        routes.reconnected();
        assert!(!routes.is_deaf());
    }

    #[inline(never)]
    fn hot_route_an_answer(routes: &Arc<Routes>, subject: &Subject, message: Message) {
        let answer = routes.expect_answer(subject.clone());
        assert!(routes.deliver_answer(answer.token, message));
        let arrival = answer.arrival().now_or_never();
        assert!(matches!(arrival, Some(Arrival::Message(_))));
    }

    /// For `loadtest/counts.sh`.
    #[test]
    fn routing_an_answer() {
        let (routes, subject) = (Arc::new(Routes::default()), Subject::from_static("a"));
        let message = Message {
            subject: subject.clone(),
            reply: None,
            payload: bytes::Bytes::from_static(b"{}"),
            headers: None,
            status: None,
            description: None,
            length: 2,
        };
        (0..1_000).for_each(|_| hot_route_an_answer(&routes, &subject, message.clone()));
        assert_eq!(routes.waiting(), (0, 0));
    }
}
