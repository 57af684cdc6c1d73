//! The small stream beside the command stream: how far commands had been applied (hints), and who
//! serves (the veto's record).
//!
//! Nothing in it is a truth, and it may be deleted at any time: the worker that serves makes it again,
//! and writes its record and its hints into it once more. `migrate` makes it first.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use async_nats::{
    Client,
    jetstream::{
        self,
        stream::{Config as StreamConfig, DiscardPolicy},
    },
};
use farwrite_schemas::Subjects;
use tracing::warn;

use crate::{config::Config, metrics, stream::error::StreamError};

use super::hints::hints_subject;

/// Makes the stream, or brings it up to date.
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
    created.map(drop).map_err(|error| StreamError::jetstream(&config.hints_stream(), error))
}

/// The stream, as one takeover uses it.
#[derive(Clone)]
pub(crate) struct HintsStream {
    client: Client,
    config: Arc<Config>,
    /// It was made again, and the hints were not sent since.
    is_new: Arc<AtomicBool>,
}

impl HintsStream {
    pub(crate) fn new(client: &Client, config: &Config) -> Self {
        Self { client: client.clone(), config: Arc::new(config.clone()), is_new: Arc::default() }
    }

    /// Makes it again.
    pub(crate) async fn make_again(&self) -> Result<(), StreamError> {
        let stream = self.config.hints_stream();
        create(&self.client, &self.config).await?;
        self.is_new.store(true, Ordering::Relaxed);
        metrics::hints_made_again();
        warn!(
            stream,
            "the stream of hints was gone, and is made again: after a failover, commands that had an expiry may expire the second time"
        );
        Ok(())
    }

    /// Whether it was made again since this was asked the last time.
    pub(super) fn take_is_new(&self) -> bool {
        self.is_new.swap(false, Ordering::Relaxed)
    }
}
