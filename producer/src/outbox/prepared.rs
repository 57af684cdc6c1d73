//! A command on its way to the wire, without its id, and how a call enters with it.

use std::{
    sync::{Arc, atomic::AtomicBool},
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use farwrite_schemas::{BODY_MAX_BYTES, CommandId, Fingerprint, Key};
use tokio::time::Instant;

use crate::outbox::{
    entered::EnteredCall,
    invalid::InvalidCommand,
    message::{Message, fingerprint},
    publish_error::{Known, PublishError, SizeLimit},
    send::Outbox,
    target::Destination,
    terms::{CallTerms, Terms},
};

/// A command without its id.
#[derive(Debug)]
pub(crate) struct Prepared {
    target: Arc<Destination>,
    version: u32,
    key: Option<Key>,
    body: Bytes,
}

impl Prepared {
    /// What tells it from another command under the same id.
    pub(crate) fn fingerprint(&self) -> Fingerprint {
        fingerprint(&self.target, self.version, self.key.as_ref(), &self.body)
    }

    /// Checks what can be checked before anything is sent, as of now.
    pub(crate) fn checked(
        id: CommandId,
        prepared: Result<Self, InvalidCommand>,
        wishes: CallTerms,
    ) -> Result<(Self, Terms), PublishError> {
        let invalid = |cause| PublishError::Invalid { id, cause };
        let prepared = prepared.map_err(invalid)?;
        let terms = wishes.terms(SystemTime::now()).map_err(invalid)?;
        let bytes = prepared.body.len();
        if bytes > BODY_MAX_BYTES {
            let (limit, known) = (SizeLimit::Body, Known::NotAccepted);
            return Err(PublishError::TooLarge { id, bytes, limit, known });
        }
        Ok((prepared, terms))
    }
}

impl Outbox {
    /// Prepares a command.
    pub(crate) fn prepare(
        &self,
        name: &str,
        version: u32,
        key: Option<Key>,
        body: Bytes,
    ) -> Result<Prepared, InvalidCommand> {
        if version == 0 || i32::try_from(version).is_err() {
            return Err(InvalidCommand::Version(version));
        }
        Ok(Prepared { target: self.targets.of(name)?, version, key, body })
    }

    /// Enters with a command. Its time runs from here.
    pub(crate) fn enter(
        &self,
        id: CommandId,
        timeout: Duration,
        prepared: Prepared,
        terms: Terms,
        reply: Option<Box<str>>,
    ) -> Result<EnteredCall, PublishError> {
        let began = Instant::now();
        let limit = self.calls.limit();
        let call = self.calls.enter().ok_or(PublishError::TooManyPending { id, limit })?;
        let Prepared { target, version, key, body } = prepared;
        let turn =
            key.as_ref().map(|key| self.turns.enter(key)).transpose().map_err(|_| {
                PublishError::TooManyBlockedKeys { id, blocked: self.turns.counts().1 }
            })?;
        let has_ended = AtomicBool::default();
        let message = Arc::new(Message { id, target, version, key, body, terms, reply, has_ended });
        Ok(EnteredCall { message, turn, began, deadline: began + timeout, _call: call })
    }
}
