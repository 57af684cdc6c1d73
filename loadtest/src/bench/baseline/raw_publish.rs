//! async-nats alone: the same message with the same headers, and its acknowledgement.

use anyhow::Result;
use async_nats::{HeaderMap, Subject, jetstream};
use bytes::Bytes;
use farwrite_schemas::{CommandId, CommandName, DatabaseName, Origin, Subjects, headers};

use crate::bench::put::ItemPut;

/// A context, and where commands go.
#[derive(Clone)]
pub(in crate::bench) struct RawPublish {
    context: jetstream::Context,
    subject: Subject,
}

impl RawPublish {
    pub(in crate::bench) async fn connect(url: &str, database: &str) -> Result<Self> {
        let context = jetstream::new(async_nats::connect(url).await?);
        let subject = subject(database, "item.put")?;
        Ok(Self { context, subject })
    }

    /// Publishes one, and waits for its acknowledgement.
    pub(in crate::bench) async fn publish(&self, put: &ItemPut) -> Result<u64> {
        let mut map = HeaderMap::new();
        map.insert(headers::COMMAND_ID, CommandId::now().to_string());
        map.insert(headers::KEY, put.key.as_str());
        let body = Bytes::from(serde_json::to_vec(put)?);
        let acknowledgement =
            self.context.publish_with_headers(self.subject.clone(), map, body).await?;
        Ok(acknowledgement.await?.sequence)
    }
}

/// Where the benchmark's commands of a name go.
pub(in crate::bench) fn subject(database: &str, name: &str) -> Result<Subject> {
    let subjects = Subjects::new(DatabaseName::new(database)?);
    Ok(subjects.command(&Origin::new("bench")?, &CommandName::new(name)?).into())
}
