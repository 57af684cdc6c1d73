//! What a test publishes, and what it asks until it is so.

use std::time::Duration;

use anyhow::{Context, Result};
use async_nats::jetstream::publish::PublishAck;
use farwrite_schemas::{CommandId, OutcomeAnswer, Reply};
use serde_json::json;

use super::{case::Case, message::Message};

impl Case {
    /// Where command `name` of origin `jfk` is published.
    pub(crate) fn subject(&self, name: &str) -> String {
        format!("farwrite.{}.cmd.jfk.{name}", self.name)
    }

    /// Publishes once, without a second try.
    pub(crate) async fn publish(&self, message: &Message) -> Result<PublishAck> {
        let ack = self.context.publish_with_headers(
            self.subject(&message.name),
            message.headers()?,
            message.body.clone().into(),
        );
        Ok(ack.await?.await?)
    }

    /// Publishes the same id again until the broker stores it a second time: until its duplicate
    /// window has passed. Answers how often it was suppressed.
    pub(crate) async fn publish_past_window(&self, message: &Message) -> Result<u32> {
        let mut suppressed = 0;
        self.until("the broker's duplicate window passes", async || {
            let stored = !self.publish(message).await?.duplicate;
            suppressed += u32::from(!stored);
            Ok(stored)
        })
        .await?;
        Ok(suppressed)
    }

    /// Asks the outcome service; `None` while it knows nothing, or is not there.
    pub(crate) async fn outcome(&self, id: CommandId) -> Result<Option<Reply>> {
        let question = serde_json::to_vec(&json!({ "id": id }))?;
        let answer =
            self.client.request(format!("farwrite.{}.outcome", self.name), question.into());
        let Ok(Ok(answer)) = tokio::time::timeout(Duration::from_secs(2), answer).await else {
            return Ok(None);
        };
        match OutcomeAnswer::decode(&answer.payload)? {
            OutcomeAnswer::Known(reply) => Ok(Some(reply)),
            OutcomeAnswer::Pending(_) => Ok(None),
        }
    }

    /// Waits until every command of the stream has ended.
    pub(crate) async fn settled(&self) -> Result<()> {
        let mut stream = self.context.get_stream(format!("farwrite-{}", self.name)).await?;
        let last = stream.info().await?.state.last_sequence.cast_signed();
        let mut connection = self.primary().await?;
        self.until("every lane has passed the stream's end, and nothing is parked", async || {
            // One statement: there are no lanes before the first takeover.
            let passed: Option<bool> = sqlx::query_scalar(
                "SELECT bool_and(sequence >= $1 AND parked = 0) FROM farwrite.lanes",
            )
            .bind(last)
            .fetch_one(&mut connection)
            .await?;
            Ok(passed == Some(true))
        })
        .await
    }

    /// Waits until so many commands are parked for this reason.
    pub(crate) async fn parked(&self, reason: &str, commands: i64) -> Result<()> {
        let mut connection = self.primary().await?;
        self.until(&format!("{commands} are parked as {reason}"), async || {
            let parked: i64 =
                sqlx::query_scalar("SELECT count(*) FROM farwrite.parked WHERE reason = $1")
                    .bind(reason)
                    .fetch_one(&mut connection)
                    .await?;
            Ok(parked == commands)
        })
        .await
    }

    /// Waits until an effect is there: `n` in the key's list.
    pub(crate) async fn applied(&self, key: &str, n: i32) -> Result<()> {
        self.until(&format!("{n} of key {key} is applied"), async || {
            Ok(self.effects().await?.get(key).is_some_and(|effects| effects.contains(&n)))
        })
        .await
    }

    /// The outcome of a command that has ended: its word, and the code of a rejection or the
    /// reason of a dead letter.
    pub(crate) async fn ended(&self, id: CommandId) -> Result<(String, String)> {
        let mut connection = self.primary().await?;
        let mut ended = None;
        self.until(&format!("{id} has ended"), async || {
            ended = sqlx::query_as(
                "SELECT status, coalesce(answer->>'code', answer->>'reason', '')
                 FROM farwrite.outcome_of($1) WHERE status <> 'parked'",
            )
            .bind(id.uuid())
            .fetch_optional(&mut connection)
            .await?;
            Ok(ended.is_some())
        })
        .await?;
        ended.context("no outcome")
    }

    /// A count in the database.
    pub(crate) async fn count(&self, sql: &'static str) -> Result<i64> {
        Ok(sqlx::query_scalar(sql).fetch_one(&mut self.primary().await?).await?)
    }
}
