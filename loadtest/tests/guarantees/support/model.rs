//! The model: what the stream's order says the effects must be, compared with the database's rows.

use std::collections::{BTreeMap, HashSet};

use anyhow::{Context, Result, bail, ensure};
use async_nats::jetstream::consumer::pull::OrderedConfig;
use farwrite_schemas::headers;
use futures_util::StreamExt;
use serde_json::Value;

use super::{case::Case, servers::DEADLINE};

impl Case {
    /// What the stream's order says the effects must be, by key: the first message of each id that
    /// is not refused.
    pub(crate) async fn model(&self) -> Result<BTreeMap<String, Vec<i32>>> {
        let mut stream = self.context.get_stream(format!("farwrite-{}", self.name)).await?;
        let messages = stream.info().await?.state.messages;
        let mut reading =
            stream.create_consumer(OrderedConfig::default()).await?.messages().await?;
        let (mut model, mut seen) = (BTreeMap::<String, Vec<i32>>::new(), HashSet::new());
        for _ in 0..messages {
            let message = tokio::time::timeout(DEADLINE, reading.next())
                .await?
                .context("the stream ended")??;
            let header = |name| {
                message
                    .headers
                    .as_ref()
                    .and_then(|headers| headers.get(name))
                    .map(|value| value.as_str().to_owned())
            };
            let id = header(headers::COMMAND_ID).context("no id")?;
            let body: Value = serde_json::from_slice(&message.payload).unwrap_or_default();
            let applies = message.subject.ends_with("app.append")
                && body.get("refuse").is_none()
                && body.get("n").is_some();
            if seen.insert(id.clone()) && applies {
                let n = body["n"].as_i64().context("no n")?;
                model
                    .entry(header(headers::KEY).unwrap_or(id))
                    .or_default()
                    .push(i32::try_from(n)?);
            }
        }
        Ok(model)
    }

    /// What the database's own rows say.
    pub(crate) async fn effects(&self) -> Result<BTreeMap<String, Vec<i32>>> {
        let mut connection = self.primary().await?;
        let rows: Vec<(String, Vec<i32>)> =
            sqlx::query_as("SELECT key, array_agg(n ORDER BY place) FROM app.effects GROUP BY key")
                .fetch_all(&mut connection)
                .await?;
        Ok(rows.into_iter().collect())
    }

    /// Compares the database with the model.
    pub(crate) async fn check_model(&self) -> Result<()> {
        self.settled().await?;
        let (model, effects) = (self.model().await?, self.effects().await?);
        for (key, expected) in &model {
            let found = effects.get(key).map_or(&[][..], Vec::as_slice);
            ensure!(
                found == expected,
                "key {key}: the stream says {expected:?}, the database {found:?}"
            );
        }
        if let Some(key) = effects.keys().find(|key| !model.contains_key(*key)) {
            bail!("key {key}: the database has {:?}, the stream nothing", effects[key]);
        }
        Ok(())
    }
}
