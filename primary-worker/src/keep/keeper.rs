//! Tells the broker how far commands are applied, in a small stream of their own.

use std::time::Duration;

use async_nats::{
    Client,
    jetstream::{
        self,
        stream::{Config as StreamConfig, DiscardPolicy, Stream},
    },
};
use farwrite_schemas::{Epoch, Subjects};
use sqlx::PgConnection;
use tracing::warn;

use crate::{
    config::Config,
    life::takeover::Takeover,
    store::lanes::{self, LanesSettled},
    stream::{error::StreamError, identity::identity_of},
};

use super::{
    hint_book::{HintBook, HintSample, ToldPosition},
    hints::{Hints, WITHIN, hints_subject},
};

/// How often the broker is told.
pub(crate) const EVERY: Duration = Duration::from_secs(1);

/// Makes the stream that holds the samples, and the name of who serves, or brings it up to date.
pub(crate) async fn create(client: &Client, config: &Config) -> Result<(), StreamError> {
    let subjects = Subjects::new(config.database.clone());
    let wanted = StreamConfig {
        name: config.hints_stream(),
        subjects: vec![hints_subject(config), subjects.served(&config.stream)],
        description: Some("How far Farwrite's commands had been applied, and by whom".to_owned()),
        max_messages_per_subject: 1,
        discard: DiscardPolicy::Old,
        num_replicas: config.new_stream.replicas,
        max_bytes: 1 << 20,
        ..StreamConfig::default()
    };
    // One of an older version had one subject less.
    let created = jetstream::new(client.clone()).create_or_update_stream(wanted).await;
    created.map(drop).map_err(|error| StreamError::JetStream {
        stream: config.hints_stream(),
        reason: error.to_string(),
    })
}

/// Tells the broker how far the worker has come.
pub(crate) struct HintKeeper {
    context: jetstream::Context,
    subject: String,
    book: HintBook,
    epoch: Epoch,
}

impl HintKeeper {
    /// Goes on from what the broker had at the takeover.
    pub(crate) fn new(
        client: &Client,
        stream: &Stream,
        config: &Config,
        takeover: &Takeover,
    ) -> Self {
        let Hints { samples, told } = takeover.hints.clone();
        let book = HintBook { identity: identity_of(stream), samples, told };
        let (context, subject) = (jetstream::new(client.clone()), hints_subject(config));
        Self { context, subject, book, epoch: takeover.epoch }
    }

    /// Takes a sample, and tells the broker when it is a new one. What the broker says is not
    /// waited for: the next one repeats it all.
    pub(crate) async fn tick(
        &mut self,
        connection: &mut PgConnection,
        stream_id: i32,
    ) -> Result<(), sqlx::Error> {
        let Some(settled) = lanes::settled(connection, stream_id).await? else { return Ok(()) };
        let LanesSettled { passed, settled: sequence, now_ns: at_ns } = settled;
        if !self.book.add(HintSample { sequence, at_ns, passed }) {
            return Ok(());
        }
        self.book.told = Some(ToldPosition { epoch: self.epoch, passed });
        let payload = serde_json::to_vec(&self.book).unwrap_or_default();
        let publish = self.context.publish(self.subject.clone(), payload.into());
        if !matches!(tokio::time::timeout(WITHIN, publish).await, Ok(Ok(_))) {
            warn!("the hint of how far commands are applied was not sent");
        }
        Ok(())
    }

    /// Up to where everything (inclusive) was settled, or parked, before this time.
    pub(crate) fn settled_before(&self, before_ns: i64) -> u64 {
        self.book.settled_before(before_ns)
    }
}
