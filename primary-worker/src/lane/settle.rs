//! After the commit: answering the callers that wait.
//!
//! The flush position is read at once after the commit, on the lane's own connection: read later
//! it could lie inside somebody else's record, which no replica reaches until it is complete. It
//! is read only when somebody waits. A reply that NATS does not take at once, or that finds no room in
//! memory, is dropped: its caller asks the outcome service, and a lane never waits for NATS. The answer to a command that
//! expires waits for the required standbys, in `confirm.rs`. So does the answer to a repeated id, which
//! may be of one.

use std::{sync::Arc, time::Instant};

use farwrite_schemas::{Bookmark, Outcome, Reply, headers};
use futures_util::FutureExt;
use sqlx::PgConnection;
use tracing::warn;

use crate::{
    apply::{
        item::BatchItem,
        settled::{CommittedBatch, Settled},
        sort::id_reused,
    },
    failpoint::Failpoint,
    keep::{
        confirm::{Confirming, HeldAnswer},
        heartbeat::Pulse,
    },
    life::{may_answer::MayAnswer, takeover::Takeover},
    memory::Memory,
    metrics::{self, ReplyResult},
    store::server,
    stream::{client::message_max_bytes, delivery::Delivery},
};

use super::context::LaneContext;

/// Settles the batches of one lane.
pub(crate) struct Settler {
    takeover: Arc<Takeover>,
    client: async_nats::Client,
    pulse: Arc<Pulse>,
    /// What a reply's subject starts with, before the origin.
    reply_prefix: String,
    confirm: Option<Confirming>,
    may_answer: MayAnswer,
    memory: Memory,
}

impl Settler {
    pub(crate) fn new(shared: &LaneContext) -> Self {
        Self {
            takeover: Arc::clone(&shared.takeover),
            client: shared.client.clone(),
            pulse: Arc::clone(&shared.pulse),
            reply_prefix: format!("farwrite.{}.reply.", shared.config.database),
            confirm: shared.confirm.clone(),
            may_answer: shared.may_answer.clone(),
            memory: shared.memory.clone(),
        }
    }

    /// Answers the callers that wait for a command of a committed batch, and counts.
    pub(crate) async fn settle(
        &self,
        connection: &mut PgConnection,
        items: &[BatchItem],
        committed: &CommittedBatch,
    ) -> Result<(), sqlx::Error> {
        let began = Instant::now();
        self.pulse.committed();
        let pairs = || items.iter().zip(&committed.settled);
        let is_awaited = |(item, settled): (&BatchItem, &Settled)| {
            matches!(settled, Settled::Ended { .. })
                && (item.unconfirmed
                    || item.delivery.awaited
                    || item.echoes.iter().any(|echo| echo.awaited))
        };
        if pairs().any(is_awaited) && self.may_answer.now() {
            let lsn = server::flush_lsn(connection).await?;
            Failpoint::BeforeReply.pass();
            let bookmark = self.takeover.bookmark(lsn);
            for (item, settled) in pairs() {
                let Settled::Ended { outcome, repeated } = settled else { continue };
                // What was decided before may be of a command that expires.
                let waits = item.unconfirmed || *repeated;
                let confirm = self.confirm.as_ref().filter(|_| waits);
                self.reply(item, &item.delivery, outcome, &bookmark, confirm);
                for echo in &item.echoes {
                    self.reply(item, echo, outcome, &bookmark, confirm);
                }
                if item.unconfirmed
                    && !item.delivery.awaited
                    && let (Some(confirm), Ok(envelope)) = (confirm, &item.delivery.envelope)
                {
                    confirm.recorded(envelope.id.uuid(), lsn);
                }
            }
            metrics::settled_in(began.elapsed());
        }
        count(items, &committed.settled);
        Ok(())
    }

    /// Tells one outcome, where somebody waits for it. An echo that is another command under the
    /// same id is told so.
    fn reply(
        &self,
        first: &BatchItem,
        delivery: &Delivery,
        outcome: &Outcome,
        bookmark: &Bookmark,
        confirm: Option<&Confirming>,
    ) {
        let Some(inbox) = delivery.header(headers::REPLY) else { return };
        let Ok(envelope) = &delivery.envelope else { return };
        if !is_inbox_of(inbox, &self.reply_prefix, envelope.origin.as_str()) {
            warn!(sequence = delivery.sequence, id = %envelope.id, origin = %envelope.origin, "the reply inbox is not the origin's: no reply is sent");
            metrics::reply(ReplyResult::Refused);
            return;
        }
        let max_bytes = message_max_bytes(&self.client);
        let is_other = first
            .delivery
            .envelope
            .as_ref()
            .is_ok_and(|first| first.fingerprint != envelope.fingerprint);
        let outcome = if is_other { Outcome::Rejected(id_reused()) } else { outcome.clone() };
        // One that a message can carry, and that found no room here: the outcome service tells it.
        if let Outcome::AppliedLarge { output_bytes } = &outcome
            && usize::try_from(*output_bytes).is_ok_and(|bytes| bytes < max_bytes)
        {
            return metrics::reply(ReplyResult::Dropped);
        }
        let reply = Reply { id: envelope.id, outcome, bookmark: bookmark.clone(), record: None };
        // An output that no message can carry is left out; the ledger has it.
        let room = if confirm.is_some() { &self.memory.unconfirmed } else { &self.memory.answers };
        let payload = reply.encode_within(max_bytes).ok();
        let Some(payload) = payload.and_then(|payload| room.hold(payload)) else {
            return metrics::reply(ReplyResult::Dropped);
        };
        let inbox = inbox.to_owned();
        let sent = match confirm {
            Some(confirm) => {
                let answer = HeldAnswer { inbox, payload };
                if confirm.answer(envelope.id.uuid(), bookmark.lsn, answer) {
                    return;
                }
                false
            }
            None => matches!(self.client.publish(inbox, payload).now_or_never(), Some(Ok(()))),
        };
        metrics::reply(if sent { ReplyResult::Sent } else { ReplyResult::Dropped });
    }
}

/// Whether a subject is under the origin's own prefix and one that can be published to: a command
/// must not make the worker write into another region's inbox, or anywhere else.
fn is_inbox_of(inbox: &str, prefix: &str, origin: &str) -> bool {
    let own = inbox.strip_prefix(prefix).and_then(|rest| rest.strip_prefix(origin));
    let Some(rest) = own.and_then(|rest| rest.strip_prefix('.')) else { return false };
    let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
    rest.len() <= 128 && rest.split('.').all(|token| !token.is_empty() && token.bytes().all(word))
}

fn count(items: &[BatchItem], settled: &[Settled]) {
    let mut words: [(&'static str, u64); 4] =
        [("applied", 0), ("rejected", 0), ("expired", 0), ("dead_lettered", 0)];
    let mut repeated = 0;
    for (item, settled) in items.iter().zip(settled) {
        repeated += item.echoes.len() as u64;
        match settled {
            Settled::Ended { repeated: true, .. } => repeated += 1,
            Settled::Ended { outcome, repeated: false } => {
                let word = outcome.as_str();
                if let Some(entry) = words.iter_mut().find(|entry| entry.0 == word) {
                    entry.1 += 1;
                }
            }
            Settled::Parked(reason) => metrics::parked_for(reason),
            Settled::Untouched => {}
        }
    }
    for (word, commands) in words.into_iter().filter(|entry| entry.1 > 0) {
        metrics::settled(word, commands);
    }
    if repeated > 0 {
        metrics::repeated(repeated);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_inbox_is_the_origins_own_or_none() {
        let is = |inbox: &str| is_inbox_of(inbox, "farwrite.shop.reply.", "jfk");
        assert!(is("farwrite.shop.reply.jfk.x"));
        assert!(is("farwrite.shop.reply.jfk.x.7"));
        for inbox in [
            "farwrite.shop.reply.jfk",
            "farwrite.shop.reply.jfk.",
            "farwrite.shop.reply.jfkx.y",
            "farwrite.shop.reply.lga.x",
            "farwrite.shop.reply.jfk.x y",
            "farwrite.shop.reply.jfk.*",
            "farwrite.shop.reply.jfk.x\r\nPUB",
            "$JS.API.STREAM.DELETE.x",
        ] {
            assert!(!is(inbox), "{inbox:?}");
        }
    }
}
