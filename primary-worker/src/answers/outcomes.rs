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
//! [`Gauge`], has a loop of its own: it waits for JetStream, and no outcome waits for it.

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
    CommandId, CommandStatus, Lsn, NotEnded, OUTCOMES_QUERY, Outcome, OutcomeAnswer,
    OutcomeRequest, OutcomeRow, Recorded, Reply, Subjects, headers,
};
use futures_util::StreamExt;
use sqlx::{PgConnection, types::Uuid};
use tokio::sync::Mutex;
use tracing::warn;

use crate::{
    config::Config,
    keep::confirm,
    life::{takeover::Takeover, veto::MayAnswer},
    metrics, primary,
};

use super::lag::Gauge;

/// How long a question waits for required standbys; then the outcome is not known yet.
const CONFIRM_WITHIN: Duration = Duration::from_millis(500);
/// Questions answered with one look-up.
const TOGETHER: usize = 64;

/// What a message must leave of the server's limit: room for headers that are put around it on
/// the way.
const HEADROOM_BYTES: usize = 1 << 10;

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

/// Longest message that the server takes, in bytes; an outcome that is longer goes without its
/// output.
pub(crate) fn message_max_bytes(client: &Client) -> usize {
    client.max_payload().saturating_sub(HEADROOM_BYTES)
}

/// Answers until the database or NATS fails.
pub(crate) async fn serve(
    client: Client,
    config: &Config,
    takeover: &Takeover,
    stream: &Stream,
    may_answer: &MayAnswer,
    connection: PgConnection,
) -> OutcomesEnd {
    let nats = |error: async_nats::Error| OutcomesEnd::Nats(error.to_string());
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
    let gauge = Gauge::new(&client, config, takeover.stream_id);
    let required = config.required_standbys.as_deref().unwrap_or_default();
    let connection = &connection;
    let answer = Answer { client: &client, takeover, stream, required, may_answer, connection };
    tokio::select! {
        biased; // whoever asks for an outcome waits for it
        end = answer.all(outcomes) => end,
        error = gauge.answer_all(lags, connection) => error.into(),
    }
}

/// What answering needs.
struct Answer<'a> {
    client: &'a Client,
    takeover: &'a Takeover,
    stream: &'a Stream,
    required: &'a [String],
    may_answer: &'a MayAnswer,
    connection: &'a Mutex<PgConnection>,
}

impl Answer<'_> {
    async fn all(&self, questions: Endpoint) -> OutcomesEnd {
        let mut questions = questions.ready_chunks(TOGETHER);
        while let Some(requests) = questions.next().await {
            if let Err(error) = self.some(requests).await {
                return error.into();
            }
        }
        OutcomesEnd::Nats("its subscription ended".to_owned())
    }

    async fn some(&self, requests: Vec<Request>) -> Result<(), sqlx::Error> {
        let questions = read(requests).await;
        // Whoever asks asks again.
        if questions.is_empty() || !self.may_answer.now() {
            return Ok(());
        }
        let ids: Vec<Uuid> = questions.iter().map(|(_, question)| question.id.uuid()).collect();
        let mut connection = self.connection.lock().await;
        let known = look_up(&mut connection, &ids).await?;
        let bookmark = if known.is_empty() {
            None
        } else {
            // The heartbeat first: the position after it lies behind every commit that was seen.
            primary::heartbeat(&mut connection, self.takeover.epoch).await?;
            Some(self.takeover.bookmark(primary::flush_lsn(&mut connection).await?))
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

impl Answer<'_> {
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

/// Reads the questions; whoever sent something else is told so.
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

async fn look_up(
    connection: &mut PgConnection,
    ids: &[Uuid],
) -> Result<HashMap<CommandId, Recorded>, sqlx::Error> {
    let rows: Vec<OutcomeRow> =
        sqlx::query_as(OUTCOMES_QUERY).bind(ids).fetch_all(connection).await?;
    let mut known = HashMap::with_capacity(rows.len());
    for row in rows {
        let id = row.0;
        match Recorded::from_row(row) {
            Ok(recorded) => {
                known.insert(recorded.id, recorded);
            }
            Err(error) => warn!(%id, %error, "what is known of a command cannot be read"),
        }
    }
    Ok(known)
}
