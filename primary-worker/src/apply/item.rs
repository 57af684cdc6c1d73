//! One command of a batch, and what is known of it.

use std::time::{Duration, SystemTime};

use farwrite_schemas::{CommandId, Envelope, Fingerprint};

use crate::stream::delivery::Delivery;

use super::{handler::Meta, work::CommandWork};

/// One command of a batch.
pub(crate) struct BatchItem {
    pub(crate) delivery: Delivery,
    pub(crate) work: CommandWork,
    /// The same id again, in the same batch: answered with this one's outcome.
    pub(crate) echoes: Vec<Delivery>,
    /// How often it was tried alone and failed by chance.
    pub(crate) attempts: u32,
    /// Where it was parked.
    pub(crate) parked: Option<ParkedBefore>,
    /// When it is no longer to be applied, in Unix nanoseconds.
    pub(crate) expires_ns: Option<i64>,
    /// Whether its outcome is told only when every required standby has it.
    pub(crate) unconfirmed: bool,
}

/// What is known of a command that was parked.
#[derive(Clone, Debug)]
pub(crate) struct ParkedBefore {
    /// How long it has waited for something that is not there, or behind others.
    pub(crate) lacks_for: Duration,
    /// How often it was tried alone and failed by chance.
    pub(crate) attempts: u32,
    /// Whether it was run before and is parked because of its failure. Such a command runs alone: the
    /// commands behind it would only fail with it.
    pub(crate) tried: bool,
}

impl BatchItem {
    pub(crate) fn new(
        delivery: Delivery,
        work: CommandWork,
        parked: Option<ParkedBefore>,
        expires_ns: Option<i64>,
    ) -> Self {
        let attempts = parked.as_ref().map_or(0, |parked| parked.attempts);
        let (echoes, unconfirmed) = (Vec::new(), false);
        Self { delivery, work, echoes, attempts, parked, expires_ns, unconfirmed }
    }

    /// The id and fingerprint that the ledger knows this command by; `None` where it cannot.
    pub(crate) fn ledger_entry(&self) -> Option<(CommandId, Fingerprint)> {
        match (&self.work, &self.delivery.envelope) {
            (CommandWork::DeadLetter { in_ledger: false, .. }, _) | (_, Err(_)) => None,
            (_, Ok(envelope)) => Some((envelope.id, envelope.fingerprint)),
        }
    }

    /// What a handler is told beside the body; `None` for a message that is no command.
    pub(crate) fn meta(&self) -> Option<Meta> {
        let Envelope { id, key, name, version, origin, context, .. } =
            self.delivery.envelope.clone().ok()?;
        let at = Duration::from_nanos(self.delivery.at_ns.unsigned_abs());
        let published_at = SystemTime::UNIX_EPOCH + at;
        let sequence = self.delivery.sequence;
        Some(Meta { id, key, origin, name, version, sequence, published_at, context })
    }
}
