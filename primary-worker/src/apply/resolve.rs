//! Finds how each command that a lane took is to be applied.
//!
//! What a command needs and does not find here is not its fault: it is parked, and dead-lettered
//! when it has waited too long. Not here: what becomes of a command that failed (`judge`).

use std::{sync::Arc, time::Duration};

use farwrite_schemas::{
    ATOMIC_NAME, AtomicBody, AtomicCommand, CommandId, CommandName, Envelope, Fingerprint,
    Rejection,
};

use crate::{config::Config, stream::delivery::Delivery};

use super::{
    functions::Functions,
    handler::Handlers,
    item::ParkedBefore,
    json_schema::BodyCheck,
    members::{Atomic, Member, MemberWork, Refused},
    work::{CommandWork, Park, ParkReason},
};

/// How far an id's time may lie after the stream's time of its message: a producer whose clock is
/// ahead by more is told so. The ledger's partitions reach at least this far.
pub(crate) const ID_MAX_AHEAD: Duration = Duration::from_secs(86_400);
/// Shortest and longest pause before a command that is not known yet is looked at again; in
/// between, a tenth of how long it has waited. A registration ends the wait at once.
const UNKNOWN_PAUSE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));

/// What a command's work depends on.
pub(crate) struct Resolver<'a> {
    pub(crate) config: &'a Config,
    pub(crate) handlers: &'a Handlers,
    pub(crate) functions: &'a Functions,
    /// Ids whose time lies before it are not known any more, in Unix milliseconds.
    pub(crate) horizon_ms: i64,
}

impl Resolver<'_> {
    /// How a command is to be applied. `None` where its name is not known and `last_word` is
    /// false: the registry is to be read again.
    pub(crate) fn work_of(
        &self,
        delivery: &Delivery,
        parked: Option<&ParkedBefore>,
        last_word: bool,
    ) -> Option<CommandWork> {
        let envelope = match &delivery.envelope {
            Ok(envelope) => envelope,
            Err(error) => {
                return Some(CommandWork::dead_letter(error.code(), error.to_string(), false));
            }
        };
        // What is parked was judged when it came.
        let refusal = || self.refuse_by_age(envelope.id, delivery.at_ns);
        if parked.is_none()
            && let Some(refusal) = refusal()
        {
            return Some(refusal);
        }
        if let Some(refusal) = self.refuse_context(envelope) {
            return Some(CommandWork::Reject(refusal));
        }
        if envelope.name.as_str() == ATOMIC_NAME {
            return self.atomic(delivery, envelope, parked, last_word);
        }
        let (name, version) = (&envelope.name, envelope.version);
        if let Some(handler) = self.handlers.get(name, version) {
            return Some(CommandWork::Handler(Arc::clone(handler)));
        }
        match self.functions.get(name, version) {
            Some(function) => Some(match function.check(delivery.body()) {
                BodyCheck::Fits => CommandWork::Function(function.clone()),
                BodyCheck::Refused(rejection) => CommandWork::Reject(rejection),
                BodyCheck::BadSchema(error) => {
                    let lacks_for = parked.map_or(Duration::ZERO, |parked| parked.lacks_for);
                    not_yet(ParkReason::NotReady, error, lacks_for, self.config)
                }
            }),
            None if last_word => Some(self.unknown(name, version, parked)),
            None => None,
        }
    }

    /// An atomic batch: each of its commands must be known.
    fn atomic(
        &self,
        delivery: &Delivery,
        envelope: &Envelope,
        parked: Option<&ParkedBefore>,
        last_word: bool,
    ) -> Option<CommandWork> {
        let commands = match AtomicBody::decode(envelope.id, delivery.body()) {
            Ok(body) => body.commands,
            Err(error) => {
                return Some(CommandWork::Reject(Rejection::new("bad_body", error.to_string())));
            }
        };
        // The ledger cannot hold such an id; it may tell nothing about it either.
        let refusal = |command: &AtomicCommand| self.refuse_by_age(command.id, delivery.at_ns);
        if let Some(CommandWork::DeadLetter { letter, .. }) = commands.iter().find_map(refusal) {
            return Some(CommandWork::Reject(Rejection::new(letter.reason, letter.message)));
        }
        let mut members = Vec::with_capacity(commands.len());
        let mut refused = None;
        for (index, AtomicCommand { id, name, version, body }) in commands.into_iter().enumerate() {
            let work = match (self.handlers.get(&name, version), self.functions.get(&name, version))
            {
                (Some(handler), _) => MemberWork::Handler(Arc::clone(handler)),
                (None, Some(function)) => {
                    if let BodyCheck::Refused(rejection) = function.check(body.get().as_bytes()) {
                        refused.get_or_insert(Refused { member: index, rejection });
                    }
                    MemberWork::Function(function.number)
                }
                (None, None) if last_word => return Some(self.unknown(&name, version, parked)),
                (None, None) => return None,
            };
            let key = envelope.key.as_ref();
            let fingerprint = Fingerprint::of(&name, version, key, body.get().as_bytes());
            members.push(Member { id, name, version, body, fingerprint, work });
        }
        Some(CommandWork::Atomic { atomic: Arc::new(Atomic { members }), refused })
    }

    fn refuse_by_age(&self, id: CommandId, at_ns: i64) -> Option<CommandWork> {
        refuse_by_age(id, at_ns, self.config.ledger_keep, self.horizon_ms)
    }

    fn unknown(
        &self,
        name: &CommandName,
        version: u32,
        parked: Option<&ParkedBefore>,
    ) -> CommandWork {
        let message = format!(
            "no handler and no function is registered as {name} version {version}: register one with farwrite.register, or upgrade the worker"
        );
        let lacks_for = parked.map_or(Duration::ZERO, |parked| parked.lacks_for);
        not_yet(
            ParkReason::Unknown,
            Rejection::new("unknown_command", message),
            lacks_for,
            self.config,
        )
    }

    /// A context that nobody allowed must not decide what a row-level policy sees.
    fn refuse_context(&self, envelope: &Envelope) -> Option<Rejection> {
        let context = envelope.context.as_deref()?;
        let allowed: Result<serde_json::Map<String, serde_json::Value>, _> =
            serde_json::from_str(context);
        // Checked when it was decoded; what cannot be read is refused and not let through.
        let refused = match &allowed {
            Ok(members) => {
                members.keys().find(|name| !self.config.context_allow.contains(*name))?
            }
            Err(_) => "what it holds",
        };
        Some(Rejection::new(
            "context_not_allowed",
            format!("the worker does not allow {refused:?} in a command's context (context-allow)"),
        ))
    }
}

/// What cannot be applied yet is parked, and dead-lettered when it has waited too long.
pub(crate) fn not_yet(
    reason: ParkReason,
    error: Rejection,
    lacks_for: Duration,
    config: &Config,
) -> CommandWork {
    if lacks_for >= config.unknown_keep {
        let message = format!(
            "{} ({}); it waited {} s for it",
            error.message,
            error.code,
            lacks_for.as_secs()
        );
        return CommandWork::dead_letter(reason.as_str(), message, true);
    }
    let wait = (lacks_for / 10).clamp(UNKNOWN_PAUSE.0, UNKNOWN_PAUSE.1);
    let wait = wait.min(config.unknown_keep.saturating_sub(lacks_for));
    CommandWork::Park(Park { reason, wait: Some(wait), error: Some(error) })
}

/// An id's own time must lie near the stream's: before it by no more than the ledger keeps, or a
/// repetition would not be known; after it by no more than [`ID_MAX_AHEAD`]. Compared with the
/// stream's time of the message and not with the clock, so that a worker that was away for ten
/// days refuses nobody.
///
/// Nor may it lie below the ledger's horizon, whatever the setting says today: what was dropped there
/// was perhaps applied.
fn refuse_by_age(
    id: CommandId,
    at_ns: i64,
    ledger_keep: Duration,
    horizon_ms: i64,
) -> Option<CommandWork> {
    let id_ms = i128::from(id.unix_ms()?);
    let stream_ms = i128::from(at_ns / 1_000_000);
    let keep_ms = ledger_keep.as_millis().cast_signed();
    let ahead_ms = ID_MAX_AHEAD.as_millis().cast_signed();
    if id_ms < stream_ms - keep_ms {
        let message = format!(
            "the command id is {} hours older than its publication, more than the ledger keeps ({} hours): whether it was applied before is not known",
            (stream_ms - id_ms) / 3_600_000,
            keep_ms / 3_600_000
        );
        Some(CommandWork::dead_letter("id_too_old", message, false))
    } else if id_ms < i128::from(horizon_ms) {
        let message = format!(
            "the command id is {} hours older than the oldest that the ledger still knows: whether it was applied before is not known",
            (i128::from(horizon_ms) - id_ms) / 3_600_000
        );
        Some(CommandWork::dead_letter("id_too_old", message, false))
    } else if id_ms > stream_ms + ahead_ms {
        let message = "the command id carries a time more than a day after its publication: the producer's clock is wrong";
        Some(CommandWork::dead_letter("id_in_future", message, false))
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(id_ms: u64, stream_ms: i64) -> Option<String> {
        let id = CommandId::from_uuid(
            uuid::Builder::from_unix_timestamp_millis(id_ms, &[0; 10]).into_uuid(),
        );
        let horizon_ms = 1_763_424_000_000;
        let keep = Duration::from_secs(7 * 86_400);
        match refuse_by_age(id, stream_ms * 1_000_000, keep, horizon_ms)? {
            CommandWork::DeadLetter { letter, .. } => Some(letter.reason),
            _ => None,
        }
    }

    #[test]
    fn an_id_is_refused_by_the_streams_time_and_not_by_the_clock() {
        let day = 86_400_000;
        let stream = 1_763_871_600_000;
        assert_eq!(refused(stream, stream as i64), None);
        assert_eq!(refused(stream - 5 * day, stream as i64), None);
        assert_eq!(refused(stream - 6 * day, stream as i64).as_deref(), Some("id_too_old"));
        assert_eq!(refused(stream + day, (stream + 8 * day) as i64), None);
        assert_eq!(
            refused(stream + day - 1, (stream + 8 * day) as i64).as_deref(),
            Some("id_too_old")
        );
        assert_eq!(refused(stream - 7 * day - 1, stream as i64).as_deref(), Some("id_too_old"));
        assert_eq!(refused(stream + day, stream as i64), None);
        assert_eq!(refused(stream + day + 1, stream as i64).as_deref(), Some("id_in_future"));
    }

    #[test]
    fn a_derived_id_has_no_age() {
        let id = CommandId::derived("a", "b");
        assert!(refuse_by_age(id, 0, Duration::from_secs(1), i64::MAX).is_none());
    }

    #[test]
    fn what_is_not_known_yet_waits_longer_each_time_and_not_for_ever() {
        let name = farwrite_schemas::DatabaseName::new("shop").expect("a name");
        let config = Config::new(name, "postgres://localhost", "localhost");
        let wait = |seconds| {
            let error = Rejection::new("unknown_command", "");
            match not_yet(ParkReason::Unknown, error, Duration::from_secs(seconds), &config) {
                CommandWork::Park(park) => park.wait.map(|wait| wait.as_secs()),
                _ => None,
            }
        };
        assert_eq!(wait(0), Some(1));
        assert_eq!(wait(100), Some(10));
        assert_eq!(wait(10_000), Some(30));
        assert_eq!(wait(config.unknown_keep.as_secs() - 5), Some(5));
        assert_eq!(wait(config.unknown_keep.as_secs()), None);
    }
}
