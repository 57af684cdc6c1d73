//! Atomic batches: one message, one transaction, an outcome for each of its commands; all or none.
//!
//! The batch is a command like any other, and what becomes of it as a whole (parked, tried again,
//! dead-lettered) is decided like any other's. It runs in a transaction of its own. When one of its
//! commands is refused, none has an effect: that one is rejected for its own reason, the others
//! because of it.

use std::sync::Arc;

use farwrite_schemas::{CommandId, CommandName, Envelope, Fingerprint, Outcome, Rejection};
use serde_json::{json, value::RawValue};
use sqlx::{PgConnection, types::Uuid};

use crate::lane::batch::Item;

use super::{
    attempt::{FailedCommand, Failure},
    handler::AnyHandler,
    staged::{apply_handler, reset},
};

/// An atomic batch, read and resolved.
pub(crate) struct Atomic {
    pub(crate) parts: Vec<Part>,
}

/// One of its commands.
pub(crate) struct Part {
    pub(crate) id: CommandId,
    pub(crate) name: CommandName,
    pub(crate) version: u32,
    pub(crate) body: Box<RawValue>,
    pub(crate) fingerprint: Fingerprint,
    pub(crate) way: Way,
}

/// How a part is applied.
pub(crate) enum Way {
    /// By the function of that number.
    Function(i32),
    /// By a Rust handler.
    Handler(Arc<dyn AnyHandler>),
}

/// The outputs of an atomic batch's parts, in their order.
pub(crate) type Outputs = Vec<Box<RawValue>>;

/// Which part of a batch was refused, and why.
#[derive(Clone, Debug)]
pub(crate) struct Refused {
    pub(crate) part: usize,
    pub(crate) rejection: Rejection,
}

impl Atomic {
    /// Runs all parts in the transaction that is open. Answers the output of each.
    pub(crate) async fn run(
        &self,
        connection: &mut PgConnection,
        item: &Item,
        envelope: &Envelope,
    ) -> Result<Outputs, Failure> {
        let known = self.known(connection).await?;
        let mut outputs = Vec::with_capacity(self.parts.len());
        for (index, (part, known)) in self.parts.iter().zip(known).enumerate() {
            let output = match known {
                Some(Outcome::Applied { output }) => Ok(output),
                Some(Outcome::Rejected(rejection)) => Err(Failure::refused(rejection)),
                // The ledger itself holds no large one: that is a form of the wire.
                Some(
                    Outcome::Expired | Outcome::DeadLettered(_) | Outcome::AppliedLarge { .. },
                ) => {
                    let message = "this command of the batch ended before, and was not applied";
                    Err(Failure::refused(Rejection::new("ended_before", message)))
                }
                None => part.run(connection, item, envelope).await,
            };
            outputs.push(output.map_err(|failure| failure.of_part(index))?);
        }
        Ok(outputs)
    }

    /// What the ledger knows of the parts: one that was applied by itself, or in another batch, is
    /// not applied again.
    async fn known(&self, connection: &mut PgConnection) -> Result<Vec<Option<Outcome>>, Failure> {
        let ids: Vec<Uuid> = self.parts.iter().map(|part| part.id.uuid()).collect();
        let prints: Vec<Uuid> = self.parts.iter().map(|part| part.fingerprint.as_uuid()).collect();
        let (outcomes, answers): (Vec<Option<String>>, Vec<Option<String>>) =
            sqlx::query_as("SELECT outcomes, answers FROM farwrite.known($1, $2)")
                .bind(ids)
                .bind(prints)
                .fetch_one(connection)
                .await?;
        let known = outcomes.into_iter().zip(answers).map(|(word, answer)| {
            let outcome = word.map(|word| Outcome::from_ledger(&word, answer)).transpose();
            outcome.map_err(Failure::unreadable)
        });
        known.collect()
    }

    /// How each part ends that had not ended before, given how the whole does. Nothing for a batch
    /// that is dead-lettered: an operator may put it back, and its parts with it.
    pub(crate) async fn ended(
        &self,
        connection: &mut PgConnection,
        whole: &Outcome,
        outputs: Option<&Outputs>,
        refused: Option<&Refused>,
    ) -> Result<Vec<(CommandId, Fingerprint, Outcome)>, Failure> {
        let known = self.known(connection).await?;
        let of_part = |(index, (part, known)): (usize, (&Part, Option<Outcome>))| {
            if known.is_some() {
                return None;
            }
            let outcome = match (whole, refused) {
                (Outcome::Applied { .. }, _) => {
                    Outcome::Applied { output: outputs?.get(index)?.clone() }
                }
                (Outcome::Rejected(_), Some(refused)) if refused.part == index => {
                    Outcome::Rejected(refused.rejection.clone())
                }
                (Outcome::Rejected(rejection), _) => Outcome::Rejected(Rejection::new(
                    "batch_rejected",
                    format!("its atomic batch was rejected ({})", rejection.code),
                )),
                (Outcome::Expired, _) => Outcome::Expired,
                (Outcome::DeadLettered(_) | Outcome::AppliedLarge { .. }, _) => return None,
            };
            Some((part.id, part.fingerprint, outcome))
        };
        Ok(self.parts.iter().zip(known).enumerate().filter_map(of_part).collect())
    }

    /// The batch's own output: the outputs of its parts.
    pub(crate) fn output(&self, outputs: &[Box<RawValue>]) -> Result<Box<RawValue>, Failure> {
        let commands = self.parts.iter().zip(outputs);
        let commands: Vec<_> = commands
            .map(|(part, output)| json!({"id": part.id, "outcome": "applied", "output": output}))
            .collect();
        serde_json::value::to_raw_value(&json!({ "commands": commands }))
            .map_err(Failure::unreadable)
    }
}

impl Part {
    async fn run(
        &self,
        connection: &mut PgConnection,
        item: &Item,
        envelope: &Envelope,
    ) -> Result<Box<RawValue>, Failure> {
        let Some(mut meta) = item.meta() else { return Err(Failure::internal("no envelope")) };
        meta.id = self.id;
        meta.name = self.name.clone();
        meta.version = self.version;
        let output = match &self.way {
            Way::Handler(handler) => {
                let body = self.body.get().as_bytes();
                apply_handler(connection, handler.as_ref(), body, &meta).await?
            }
            Way::Function(number) => {
                if let Some(context) = &envelope.context {
                    sqlx::query("SELECT set_config('farwrite.context', $1, true)")
                        .bind(&**context)
                        .execute(&mut *connection)
                        .await?;
                }
                let answer: Option<String> = sqlx::query_scalar(
                    "SELECT (farwrite.call(1, ARRAY[$1], ARRAY[$3], ARRAY[$4], ARRAY[$5], ARRAY[$6], ARRAY[$7], ARRAY[$8],
                         ARRAY[$9], $2, ARRAY[1, octet_length($2) + 1], NULL))[1]",
                )
                .bind(number)
                .bind(self.body.get().as_bytes())
                .bind(self.id.uuid())
                .bind(self.name.as_str())
                .bind(self.version.cast_signed())
                .bind(envelope.key.as_ref().map(|key| key.as_str()))
                .bind(envelope.origin.as_str())
                .bind(item.delivery.sequence.cast_signed())
                .bind(item.delivery.at_ns)
                .fetch_one(&mut *connection)
                .await?;
                let answer = answer.unwrap_or_else(|| "null".to_owned());
                RawValue::from_string(answer).map_err(Failure::unreadable)?
            }
        };
        reset(connection).await?;
        Ok(output)
    }
}

impl Failure {
    /// Says which part of an atomic batch failed.
    fn of_part(self, part: usize) -> Self {
        match self {
            Self::Command(failed) => Self::Command(FailedCommand { part: Some(part), ..failed }),
            other => other,
        }
    }
}
