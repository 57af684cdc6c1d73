//! The service that tells a command's outcome by its id.
//!
//! For a caller whose reply did not come: the worker restarted between commit and reply, the
//! reply's inbox was another process's, the connection was down. The ledger's row was committed
//! with the effects, so it is the truth; its own position is not known any more, and a fresh flush
//! position after a heartbeat is a later and therefore sufficient one.
//!
//! It is a NATS service, so that `nats micro` finds it and shows its statistics. Questions that
//! wait together are answered together, by one look-up and one heartbeat.

use std::{collections::HashMap, sync::Arc};

use async_nats::service::{Request, ServiceExt, error::Error as ServiceError};
use farwrite_schemas::{
    CommandId, DeadLetter, Fingerprint, Outcome, OutcomeAnswer, OutcomeRequest, Rejection, Reply,
    Subjects,
};
use futures_util::StreamExt;
use sqlx::{PgConnection, types::Uuid};
use tracing::warn;

use crate::{metrics, primary, takeover::Takeover};

/// Questions answered with one look-up.
const TOGETHER: usize = 64;

/// Why the service ended.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OutcomesEnd {
    /// The database failed.
    #[error("{0}")]
    Sql(#[from] sqlx::Error),
    /// NATS did not let the service start, or ended it.
    #[error("the outcome service: {0}")]
    Nats(String),
}

/// Answers until the database or NATS fails.
pub(crate) async fn serve(
    client: async_nats::Client,
    subjects: Subjects,
    takeover: Arc<Takeover>,
    mut connection: PgConnection,
) -> OutcomesEnd {
    let nats = |error: async_nats::Error| OutcomesEnd::Nats(error.to_string());
    let service = client
        .service_builder()
        .description(format!("Tells outcomes of commands for the database {}", subjects.database()))
        .start(format!("farwrite-outcome-{}", subjects.database()), env!("CARGO_PKG_VERSION"))
        .await;
    let service = match service {
        Ok(service) => service,
        Err(error) => return nats(error),
    };
    let endpoint = match service.endpoint_builder().name("outcome").add(subjects.outcome()).await {
        Ok(endpoint) => endpoint,
        Err(error) => return nats(error),
    };
    let mut questions = endpoint.ready_chunks(TOGETHER);
    while let Some(requests) = questions.next().await {
        if let Err(error) = answer(&mut connection, &takeover, requests).await {
            return error.into();
        }
    }
    OutcomesEnd::Nats("its subscription ended".to_owned())
}

async fn answer(
    connection: &mut PgConnection,
    takeover: &Takeover,
    requests: Vec<Request>,
) -> Result<(), sqlx::Error> {
    let mut questions = Vec::with_capacity(requests.len());
    for request in requests {
        match serde_json::from_slice::<OutcomeRequest>(&request.message.payload) {
            Ok(question) => questions.push((request, question)),
            Err(error) => {
                metrics::outcome_asked("malformed");
                let error =
                    ServiceError { code: 400, status: format!("not an outcome request: {error}") };
                let _ = request.respond(Err(error)).await;
            }
        }
    }
    if questions.is_empty() {
        return Ok(());
    }
    let ids: Vec<Uuid> = questions.iter().map(|(_, question)| question.id.uuid()).collect();
    let known = look_up(connection, &ids).await?;
    let bookmark = if known.is_empty() {
        None
    } else {
        // The heartbeat first: the position after it lies behind every commit that was seen.
        primary::heartbeat(connection).await?;
        Some(takeover.bookmark(primary::flush_lsn(connection).await?))
    };
    for (request, question) in questions {
        let answer = match (known.get(&question.id), &bookmark) {
            (Some(known), Some(bookmark)) => {
                let outcome = known.outcome_for(question.fingerprint);
                OutcomeAnswer::Known(Reply { id: question.id, outcome, bookmark: bookmark.clone() })
            }
            _ => OutcomeAnswer::Pending(question.id),
        };
        metrics::outcome_asked(match &answer {
            OutcomeAnswer::Known(reply) => reply.outcome.word(),
            OutcomeAnswer::Pending(_) => "pending",
        });
        let payload = answer.encode().unwrap_or_default();
        if let Err(error) = request.respond(Ok(payload.into())).await {
            warn!(id = %question.id, %error, "an outcome could not be told");
        }
    }
    Ok(())
}

/// What the ledger or the dead letters hold.
struct Known {
    outcome: Outcome,
    /// Of the command that was settled; `None` for a message that was no command.
    fingerprint: Option<Fingerprint>,
}

impl Known {
    /// The outcome for somebody who published a command with that fingerprint.
    fn outcome_for(&self, fingerprint: Option<Fingerprint>) -> Outcome {
        match (self.fingerprint, fingerprint) {
            (Some(settled), Some(asked)) if settled != asked => Outcome::Rejected(Rejection::new(
                "id_reused",
                "this command id was used for another command (its name, version, key or body differs); nothing was applied",
            )),
            _ => self.outcome.clone(),
        }
    }
}

async fn look_up(
    connection: &mut PgConnection,
    ids: &[Uuid],
) -> Result<HashMap<CommandId, Known>, sqlx::Error> {
    let letters: Vec<(Uuid, String, String)> = sqlx::query_as(
        "SELECT command_id, reason, message FROM farwrite.dead_letters WHERE command_id = ANY ($1)",
    )
    .bind(ids)
    .fetch_all(&mut *connection)
    .await?;
    let rows: Vec<(Uuid, String, Option<String>, Uuid)> = sqlx::query_as(
        "SELECT command_id, outcome::text, answer::text, fingerprint FROM farwrite.look_up($1)",
    )
    .bind(ids)
    .fetch_all(connection)
    .await?;
    let mut known = HashMap::with_capacity(ids.len());
    for (id, reason, message) in letters {
        let outcome = Outcome::DeadLettered(DeadLetter { reason, message });
        known.insert(CommandId::from_uuid(id), Known { outcome, fingerprint: None });
    }
    // The ledger has the last word: an id that came undecodable once may have come well later.
    for (id, word, answer, fingerprint) in rows {
        match Outcome::from_ledger(&word, answer) {
            Ok(outcome) => {
                let fingerprint = Some(Fingerprint::from_uuid(fingerprint));
                known.insert(CommandId::from_uuid(id), Known { outcome, fingerprint });
            }
            Err(error) => warn!(%id, %error, "a row of the ledger cannot be read"),
        }
    }
    Ok(known)
}
