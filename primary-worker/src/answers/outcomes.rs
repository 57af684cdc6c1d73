//! The service that tells outcomes by id, and how far behind the worker is.
//!
//! For a caller whose reply did not come: the worker restarted between commit and reply, the
//! reply's inbox was another process's, the connection was down. The ledger's row was committed
//! with the effects, so it is the truth; its own position is not known any more, and a fresh flush
//! position after a heartbeat is a later and therefore sufficient one. Of a command that is parked
//! it tells why and until when.
//!
//! It is a NATS service, so that `nats micro` finds it and shows its statistics. Questions that
//! wait together are answered together, by one look-up and one heartbeat. The other endpoint,
//! [`LagGauge`], has a loop of its own: it waits for JetStream, and no outcome waits for it.

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use async_nats::{
    Client,
    jetstream::stream::Stream,
    service::{Request, ServiceExt, endpoint::Endpoint, error::Error as ServiceError},
};
use farwrite_schemas::{
    CommandId, CommandStatus, Lsn, NotEnded, Outcome, OutcomeAnswer, OutcomeRequest, Recorded,
    Reply, Subjects, headers,
};
use futures_util::StreamExt;
use sqlx::{PgConnection, types::Uuid};
use tokio::sync::Mutex;
use tracing::warn;

use crate::{
    config::Config,
    keep::confirm,
    life::{end::ServingEnd, may_answer::MayAnswer, takeover::Takeover},
    metrics,
    store::{ledger, owner, server},
    stream::{client::message_max_bytes, sink::Verified},
};

use super::lag::LagGauge;

/// What the service is called where it ends.
const SERVICE: &str = "the outcome service";
/// How long a question waits for required standbys; then the outcome is not known yet.
const CONFIRM_WITHIN: Duration = Duration::from_millis(500);
/// Questions answered with one look-up.
const TOGETHER: usize = 64;

/// Answers until the database or NATS fails.
pub(crate) async fn serve(
    client: Client,
    config: &Config,
    takeover: &Takeover,
    stream: &Verified,
    may_answer: &MayAnswer,
    connection: PgConnection,
) -> ServingEnd {
    let nats = |error: async_nats::Error| ServingEnd::again_of(SERVICE, error);
    let subjects = Subjects::new(config.database.clone());
    let service = client
        .service_builder()
        .description(format!("Tells outcomes of commands for the database {}", subjects.database()))
        .start(format!("farwrite-outcome-{}", subjects.database()), env!("CARGO_PKG_VERSION"))
        .await;
    let service = match service {
        Ok(service) => service,
        Err(error) => return nats(error),
    };
    let outcomes = match service.endpoint_builder().name("outcome").add(subjects.outcome()).await {
        Ok(endpoint) => endpoint,
        Err(error) => return nats(error),
    };
    let lags = match service.endpoint_builder().name("lag").add(subjects.lag()).await {
        Ok(endpoint) => endpoint,
        Err(error) => return nats(error),
    };
    let connection = Mutex::new(connection);
    let gauge = LagGauge::new(stream, config, takeover.stream_id);
    let required = config.required_standbys.as_deref().unwrap_or_default();
    let connection = &connection;
    let stream = &stream.stream;
    let answers =
        OutcomeAnswers { client: &client, takeover, stream, required, may_answer, connection };
    tokio::select! {
        biased; // callers wait for outcomes
        end = answers.all(outcomes) => end,
        error = gauge.answer_all(lags, connection) => ServingEnd::again(error),
    }
}

/// What answering needs.
struct OutcomeAnswers<'a> {
    client: &'a Client,
    takeover: &'a Takeover,
    stream: &'a Stream,
    required: &'a [String],
    may_answer: &'a MayAnswer,
    connection: &'a Mutex<PgConnection>,
}

impl OutcomeAnswers<'_> {
    async fn all(&self, questions: Endpoint) -> ServingEnd {
        let mut questions = questions.ready_chunks(TOGETHER);
        while let Some(requests) = questions.next().await {
            if let Err(error) = self.some(requests).await {
                return ServingEnd::again(error);
            }
        }
        ServingEnd::again_of(SERVICE, "its subscription ended")
    }

    async fn some(&self, requests: Vec<Request>) -> Result<(), sqlx::Error> {
        let questions = read(requests).await;
        // A caller without an answer asks again.
        if questions.is_empty() || !self.may_answer.now() {
            return Ok(());
        }
        let ids: Vec<Uuid> = questions.iter().map(|(_, question)| question.id.uuid()).collect();
        let mut connection = self.connection.lock().await;
        let known = ledger::recorded(&mut connection, &ids).await?;
        let bookmark = if known.is_empty() {
            None
        } else {
            // The heartbeat first: the position after it lies behind every commit that was seen.
            owner::heartbeat(&mut connection, self.takeover.epoch).await?;
            Some(self.takeover.bookmark(server::flush_lsn(&mut connection).await?))
        };
        let held = match &bookmark {
            Some(bookmark) => self.held(&mut connection, &known, bookmark.lsn).await?,
            None => HashSet::new(),
        };
        drop(connection);
        for (request, question) in questions {
            let id = question.id;
            // Two may ask for one id.
            let answer = match (known.get(&id).cloned(), &bookmark) {
                _ if held.contains(&id) => OutcomeAnswer::Pending(NotEnded::unknown(id)),
                (Some(known), Some(bookmark)) => match known.status_for(question.fingerprint) {
                    CommandStatus::Ended { outcome, record } => {
                        let bookmark = bookmark.clone();
                        OutcomeAnswer::Known(Reply { id, outcome, bookmark, record })
                    }
                    CommandStatus::Parked(parked) => {
                        OutcomeAnswer::Pending(NotEnded { id, parked: Some(parked) })
                    }
                },
                _ => OutcomeAnswer::Pending(NotEnded::unknown(id)),
            };
            metrics::outcome_asked(match &answer {
                OutcomeAnswer::Known(reply) => reply.outcome.as_str(),
                OutcomeAnswer::Pending(NotEnded { parked: Some(_), .. }) => "parked",
                OutcomeAnswer::Pending(NotEnded { parked: None, .. }) => "pending",
            });
            let max_bytes = message_max_bytes(self.client);
            let payload = answer.encode_within(max_bytes).unwrap_or_default();
            if let Err(error) = request.respond(Ok(payload.into())).await {
                warn!(%id, %error, "an outcome could not be told");
            }
        }
        Ok(())
    }
}

impl OutcomeAnswers<'_> {
    /// Commands whose outcome must not be told yet: they expire, and a required standby does not
    /// hold what was decided.
    async fn held(
        &self,
        connection: &mut PgConnection,
        known: &HashMap<CommandId, Recorded>,
        lsn: Lsn,
    ) -> Result<HashSet<CommandId>, sqlx::Error> {
        let mut held = HashSet::new();
        if self.required.is_empty() {
            return Ok(held);
        }
        for recorded in known.values() {
            let CommandStatus::Ended { outcome, record } = &recorded.status else { continue };
            let sequence = record.as_ref().and_then(|record| record.sequence);
            if !matches!(outcome, Outcome::Expired) && self.expires(sequence).await {
                held.insert(recorded.id);
            }
        }
        if !held.is_empty()
            && confirm::is_safe(connection, self.required, lsn, CONFIRM_WITHIN).await?
        {
            held.clear();
        }
        Ok(held)
    }

    /// Whether a command may expire, as far as the stream tells: it does where its message is gone.
    async fn expires(&self, sequence: Option<u64>) -> bool {
        let Some(sequence) = sequence else { return false };
        match self.stream.direct_get(sequence).await {
            Ok(message) => message.headers.get(headers::EXPIRES_AT).is_some(),
            Err(_) => true,
        }
    }
}

/// Reads the questions; senders of anything else are told so.
async fn read(requests: Vec<Request>) -> Vec<(Request, OutcomeRequest)> {
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
    questions
}
