//! Atomic batches: one message, one transaction, an outcome for each of its commands; all or none.
//!
//! The batch is a command like any other, and what becomes of it as a whole (parked, tried again,
//! dead-lettered) is decided like any other's. It runs in a transaction of its own. When one of its
//! commands is refused, none has an effect: that one is rejected for its own reason, the others
//! because of it.

use farwrite_schemas::{CommandId, Envelope, Fingerprint, Outcome, Rejection};
use serde::Serialize;
use serde_json::value::RawValue;
use sqlx::{PgConnection, types::Uuid};

use super::{
    failure::Failure,
    handler_call::apply_handler,
    item::BatchItem,
    members::{Atomic, Member, MemberWork, Outputs, Refused},
    session,
    sort::id_reused,
};

/// The output of an atomic batch.
#[derive(Serialize)]
struct AppliedMembers<'a> {
    commands: Vec<AppliedMember<'a>>,
}

/// The output of one of its members.
#[derive(Serialize)]
struct AppliedMember<'a> {
    id: CommandId,
    outcome: &'static str,
    output: &'a RawValue,
}

impl Atomic {
    /// Runs all members in the transaction that is open. Answers the output of each.
    pub(crate) async fn run(
        &self,
        connection: &mut PgConnection,
        item: &BatchItem,
        envelope: &Envelope,
    ) -> Result<Outputs, Failure> {
        let known = self.known(connection).await?;
        let ran = known.iter().map(Option::is_none).collect();
        let mut outputs = Vec::with_capacity(self.members.len());
        for (index, (member, known)) in self.members.iter().zip(known).enumerate() {
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
                None => member.run(connection, item, envelope).await,
            };
            outputs.push(output.map_err(|failure| failure.of_member(index))?);
        }
        Ok(Outputs { outputs, ran })
    }

    /// What is known of the members: one that was applied by itself, or in another batch, is not
    /// applied again, and one that waits as another command is not applied at all.
    async fn known(&self, connection: &mut PgConnection) -> Result<Vec<Option<Outcome>>, Failure> {
        let ids: Vec<Uuid> = self.members.iter().map(|member| member.id.uuid()).collect();
        let prints: Vec<Uuid> =
            self.members.iter().map(|member| member.fingerprint.as_uuid()).collect();
        let (outcomes, answers, others): (Vec<Option<String>>, Vec<Option<String>>, Vec<Uuid>) =
            sqlx::query_as(
                "SELECT outcomes, answers, ARRAY(
                     SELECT p.command_id FROM unnest($1, $2) AS m (id, fingerprint)
                     JOIN farwrite.parked p ON p.command_id = m.id AND p.fingerprint <> m.fingerprint)
                 FROM farwrite.known($1, $2)",
            )
            .bind(&ids)
            .bind(prints)
            .fetch_one(connection)
            .await?;
        let known = outcomes.into_iter().zip(answers).zip(ids).map(|((word, answer), id)| {
            if word.is_none() && others.contains(&id) {
                return Ok(Some(Outcome::Rejected(id_reused())));
            }
            let outcome = word.map(|word| Outcome::from_ledger(&word, answer)).transpose();
            outcome.map_err(Failure::unreadable)
        });
        known.collect()
    }

    /// How each member ends that had not ended before, given how the whole does. Nothing for a batch
    /// that is dead-lettered: an operator may put it back, and its members with it.
    ///
    /// A member that ran is recorded without another look: another lane may have applied it
    /// meanwhile. Then the ledger's key refuses the record, and nothing of the batch stays.
    pub(crate) async fn ended(
        &self,
        connection: &mut PgConnection,
        whole: &Outcome,
        run: Option<&Outputs>,
        refused: Option<&Refused>,
    ) -> Result<Vec<(CommandId, Fingerprint, Outcome)>, Failure> {
        if let (Outcome::Applied { .. }, Some(run)) = (whole, run) {
            let members = self.members.iter().zip(&run.outputs).zip(&run.ran);
            let ran = members.filter(|(_, ran)| **ran).map(|((member, output), _)| {
                (member.id, member.fingerprint, Outcome::Applied { output: output.clone() })
            });
            return Ok(ran.collect());
        }
        let known = self.known(connection).await?;
        let of_member = |(index, (member, known)): (usize, (&Member, Option<Outcome>))| {
            if known.is_some() {
                return None;
            }
            let outcome = match (whole, refused) {
                (Outcome::Applied { .. }, _) => return None,
                (Outcome::Rejected(_), Some(refused)) if refused.member == index => {
                    Outcome::Rejected(refused.rejection.clone())
                }
                (Outcome::Rejected(rejection), _) => Outcome::Rejected(Rejection::new(
                    "batch_rejected",
                    format!("its atomic batch was rejected ({})", rejection.code),
                )),
                (Outcome::Expired, _) => Outcome::Expired,
                (Outcome::DeadLettered(_) | Outcome::AppliedLarge { .. }, _) => return None,
            };
            Some((member.id, member.fingerprint, outcome))
        };
        Ok(self.members.iter().zip(known).enumerate().filter_map(of_member).collect())
    }

    /// The batch's own output: the outputs of its members.
    pub(crate) fn output(&self, outputs: &[Box<RawValue>]) -> Result<Box<RawValue>, Failure> {
        let commands = self.members.iter().zip(outputs);
        let commands = commands
            .map(|(member, output)| AppliedMember { id: member.id, outcome: "applied", output })
            .collect();
        // By way of text: a number of an app may be none of Rust's, or its nesting too deep.
        serde_json::value::to_raw_value(&AppliedMembers { commands }).map_err(Failure::unreadable)
    }
}

impl Member {
    async fn run(
        &self,
        connection: &mut PgConnection,
        item: &BatchItem,
        envelope: &Envelope,
    ) -> Result<Box<RawValue>, Failure> {
        let Some(mut meta) = item.meta() else { return Err(Failure::internal("no envelope")) };
        meta.id = self.id;
        meta.name = self.name.clone();
        meta.version = self.version;
        let output = match &self.work {
            MemberWork::Handler(handler) => {
                let body = self.body.get().as_bytes();
                apply_handler(connection, handler.as_ref(), body, &meta).await?
            }
            MemberWork::Function(number) => {
                session::set_context(connection, envelope.context.as_deref()).await?;
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
        session::reset(connection).await?;
        Ok(output)
    }
}
