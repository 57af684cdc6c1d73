//! Tells the broker how far commands are applied, in a small stream of their own.

use std::time::Duration;

use async_nats::{
    Client,
    jetstream::{self, stream::Stream},
};
use farwrite_schemas::Epoch;
use sqlx::PgConnection;
use tracing::warn;

use crate::{
    config::Config,
    life::takeover::Takeover,
    store::lanes::{self, LanesSettled},
    stream::identity::identity_of,
};

use super::{
    hint_book::{HintBook, HintSample, ToldPosition},
    hints::{Hints, WITHIN, hints_subject},
    hints_stream::HintsStream,
};

/// How often the broker is told.
pub(crate) const EVERY: Duration = Duration::from_secs(1);

/// Tells the broker how far the worker has come.
pub(crate) struct HintKeeper {
    context: jetstream::Context,
    subject: String,
    book: HintBook,
    epoch: Epoch,
    stream: HintsStream,
    /// Whether the broker has the book as it is.
    is_sent: bool,
}

impl HintKeeper {
    /// Goes on from what the broker had at the takeover.
    pub(crate) fn new(
        client: &Client,
        commands: &Stream,
        config: &Config,
        takeover: &Takeover,
        stream: HintsStream,
    ) -> Self {
        let Hints { samples, told } = takeover.hints.clone();
        let book = HintBook { identity: identity_of(commands), samples, told };
        let (context, subject) = (jetstream::new(client.clone()), hints_subject(config));
        Self { context, subject, book, epoch: takeover.epoch, stream, is_sent: true }
    }

    /// Takes a sample, and tells the broker when it is a new one, or when the broker lost the others.
    /// Each time it is told all of them.
    pub(crate) async fn tick(
        &mut self,
        connection: &mut PgConnection,
        stream_id: i32,
    ) -> Result<(), sqlx::Error> {
        let Some(settled) = lanes::settled(connection, stream_id).await? else { return Ok(()) };
        let LanesSettled { passed, settled: sequence, now_ns: at_ns } = settled;
        let is_new = self.book.add(HintSample { sequence, at_ns, passed });
        if !self.stream.take_is_new() && !is_new && self.is_sent {
            return Ok(());
        }
        self.book.told = Some(ToldPosition { epoch: self.epoch, passed });
        let payload = serde_json::to_vec(&self.book).unwrap_or_default();
        let publish = self.context.publish(self.subject.clone(), payload.into());
        let publish = async { publish.await.ok()?.await.ok() };
        let was_sent = self.is_sent;
        self.is_sent = matches!(tokio::time::timeout(WITHIN, publish).await, Ok(Some(_)));
        if was_sent && !self.is_sent {
            warn!("the hint of how far commands are applied was not stored: it is sent again");
        }
        Ok(())
    }

    /// Up to where everything (inclusive) was settled, or parked, before this time.
    pub(crate) fn settled_before(&self, before_ns: i64) -> u64 {
        self.book.settled_before(before_ns)
    }
}
