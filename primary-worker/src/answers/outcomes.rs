//! The service that tells outcomes by id, and how far behind the worker is.
//!
//! For a caller whose reply did not come: the worker restarted between commit and reply, the
//! reply's inbox was another process's, the connection was down. The ledger's row was committed
//! with the effects, so it is the truth; its own position is not known any more, and a fresh flush
//! position after a heartbeat is a later and therefore sufficient one. Of a command that is parked
//! it tells why and until when. An outcome that not every required standby has is not told: see
//! `confirm.rs`.
//!
//! It is a NATS service, so that `nats micro` finds it and shows its statistics. Questions that
//! wait together are answered together, by one look-up and one heartbeat. The other endpoint,
//! [`LagGauge`], has a loop of its own: it waits for JetStream, and no outcome waits for it.

use std::{collections::HashMap, panic::AssertUnwindSafe, time::Duration};

use async_nats::{
    Client,
    service::{Request, ServiceExt, endpoint::Endpoint},
};
use farwrite_schemas::{
    Bookmark, CommandId, CommandStatus, NotEnded, OutcomeAnswer, OutcomeRequest, Recorded, Reply,
    Subjects,
};
use futures_util::{FutureExt, StreamExt};
use sqlx::{PgConnection, types::Uuid};
use tokio::sync::Mutex;
use tracing::{error, warn};

use crate::{
    config::Config,
    failpoint::Failpoint,
    keep::confirm,
    life::{end::ServingEnd, may_answer::MayAnswer, takeover::Takeover},
    memory::Room,
    metrics,
    store::{ledger, owner, server, unconfirmed},
    stream::{client::message_max_bytes, sink::Verified},
};

use super::{lag::LagGauge, service_error::service_error};

/// What the service is called where it ends.
const SERVICE: &str = "the outcome service";
/// How long a question waits for required standbys; then the outcome is not known yet.
const CONFIRM_WITHIN: Duration = Duration::from_millis(500);
/// Questions answered with one look-up.
const TOGETHER: usize = 16;

/// Answers until the database or NATS fails.
pub(crate) async fn serve(
    client: Client,
    config: &Config,
    takeover: &Takeover,
    stream: &Verified,
    may_answer: &MayAnswer,
    answers: &Room,
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
    let client = &client;
    let service = OutcomeAnswers { client, takeover, required, may_answer, answers, connection };
    tokio::select! {
        biased; // callers wait for outcomes
        end = service.all(outcomes) => end,
        error = gauge.answer_all(lags, connection) => ServingEnd::again(error),
    }
}

/// What answering needs.
struct OutcomeAnswers<'a> {
    client: &'a Client,
    takeover: &'a Takeover,
    required: &'a [String],
    may_answer: &'a MayAnswer,
    answers: &'a Room,
    connection: &'a Mutex<PgConnection>,
}

impl OutcomeAnswers<'_> {
    async fn all(&self, questions: Endpoint) -> ServingEnd {
        let mut questions = questions.ready_chunks(TOGETHER);
        while let Some(requests) = questions.next().await {
            match AssertUnwindSafe(self.some(requests)).catch_unwind().await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => return ServingEnd::again(error),
                Err(_) => error!("answering questions for outcomes panicked: they come again"),
            }
        }
        ServingEnd::again_of(SERVICE, "its subscription ended")
    }

    async fn some(&self, requests: Vec<Request>) -> Result<(), sqlx::Error> {
        let questions = read(requests).await;
        Failpoint::Answering.pass();
        // A caller without an answer asks again.
        if questions.is_empty() || !self.may_answer.now() {
            return Ok(());
        }
        let ids: Vec<Uuid> = questions.iter().map(|(_, question)| question.id.uuid()).collect();
        let mut connection = self.connection.lock().await;
        let (mut known, mut bookmark) = self.look(&mut connection, &ids).await?;
        if let Some(seen) = &bookmark
            && known.values().any(|recorded| recorded.status.is_unconfirmed())
            && confirm::is_safe(&mut connection, self.required, seen.lsn, CONFIRM_WITHIN).await?
        {
            let held = known.values().filter(|recorded| recorded.status.is_unconfirmed());
            let held: Vec<Uuid> = held.map(|recorded| recorded.id.uuid()).collect();
            unconfirmed::confirm(&mut connection, &held).await?;
            (known, bookmark) = self.look(&mut connection, &ids).await?;
        }
        drop(connection);
        for (request, question) in questions {
            let id = question.id;
            // Two may ask for one id.
            let answer = match (known.get(&id).cloned(), &bookmark) {
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
                OutcomeAnswer::Pending(NotEnded { parked: Some(parked), .. }) => {
                    if parked.is_unconfirmed() { "unconfirmed" } else { "parked" }
                }
                OutcomeAnswer::Pending(NotEnded { parked: None, .. }) => "pending",
            });
            let max_bytes = message_max_bytes(self.client);
            let payload = answer.encode_within(max_bytes).unwrap_or_default();
            // A caller without an answer asks again.
            let Some(payload) = self.answers.hold(payload) else { continue };
            if let Err(error) = request.respond(Ok(payload)).await {
                warn!(%id, %error, "an outcome could not be told");
            }
        }
        Ok(())
    }
}

impl OutcomeAnswers<'_> {
    /// What is known of some commands, and a position behind all of it.
    async fn look(
        &self,
        connection: &mut PgConnection,
        ids: &[Uuid],
    ) -> Result<(HashMap<CommandId, Recorded>, Option<Bookmark>), sqlx::Error> {
        let known = ledger::recorded(connection, ids).await?;
        if known.is_empty() {
            return Ok((known, None));
        }
        // The heartbeat first: the position after it lies behind every commit that was seen.
        owner::heartbeat(connection, self.takeover.epoch).await?;
        let bookmark = self.takeover.bookmark(server::flush_lsn(connection).await?);
        Ok((known, Some(bookmark)))
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
                let error = service_error(400, &format!("not an outcome request: {error}"));
                let _ = request.respond(Err(error)).await;
            }
        }
    }
    questions
}
