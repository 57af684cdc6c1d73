//! Parked commands: how they are read, and having them tried at once.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use sqlx::types::Uuid;

use super::{
    body::{hex, json_of},
    chunks::{self, CHUNK_ROWS},
    error::OperateError,
    filter::{Chosen, Cursor, by_stream, chosen, utc},
    operator::Operator,
    records::OperatorRecord,
};

/// A parked command; with subject, headers and body where it is shown.
#[derive(Debug, Serialize, Deserialize)]
#[non_exhaustive]
pub struct WaitingCommand {
    /// The stream that it came from.
    pub stream: Option<String>,
    /// Its sequence there.
    pub sequence: i64,
    /// Its command id.
    pub id: Uuid,
    /// Its name.
    pub command: String,
    /// The version of its body's form.
    pub version: i32,
    /// Its key.
    pub key: Option<String>,
    /// Why it is parked.
    pub reason: String,
    /// Its last failure: a [`LastFailure`].
    pub error: Option<Box<RawValue>>,
    /// How often it failed alone.
    pub attempts: i32,
    /// How many stand before it in its key queue; `None` while it is only scheduled.
    pub ahead: Option<i64>,
    /// How long it is parked.
    pub age_seconds: f64,
    /// `None` where it waits until somebody resumes it.
    pub due_in_seconds: Option<f64>,
    /// When that is.
    pub due_at: Option<String>,
    /// Since when it is parked.
    pub parked_at: String,
    /// When the stream stored it.
    pub published_at: String,
    /// Size of its body.
    pub body_bytes: i64,
    /// Where it was published.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    /// Its headers, a list of pairs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub headers: Option<Box<RawValue>>,
    /// Its body, where it is JSON.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body: Option<Box<RawValue>>,
    /// Its body, where it is not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body_hex: Option<String>,
    /// Its body as it came.
    #[serde(skip)]
    pub body_raw: Vec<u8>,
}

/// A command's failure, as the worker writes it.
#[derive(Debug, Deserialize)]
#[non_exhaustive]
pub struct LastFailure {
    /// A code, such as an SQLSTATE.
    pub code: String,
    /// The same for people.
    pub message: String,
}

/// What is parked, for JSON; who stands before it is counted up to a thousand.
macro_rules! parked {
    ($more:literal) => {
        concat!(
            "SELECT s.name AS stream, w.sequence, w.command_id AS id, w.name AS command, w.version, w.order_key AS key,
                w.reason, w.error, w.attempts,
                CASE WHEN w.place IS NOT NULL THEN (SELECT count(*) FROM (
                    SELECT FROM farwrite.parked q WHERE q.stream_id = w.stream_id AND q.key_queue = w.key_queue AND q.place < w.place LIMIT 1000) a) END AS ahead,
                round(extract(epoch FROM clock_timestamp() - w.parked_at), 3) AS age_seconds,
                CASE WHEN isfinite(coalesce(w.due_at, l.due_at)) THEN round(extract(epoch FROM coalesce(w.due_at, l.due_at) - clock_timestamp()), 3) END AS due_in_seconds, ",
            utc!("coalesce(w.due_at, l.due_at)"), " AS due_at, ",
            utc!("w.parked_at"), " AS parked_at, ",
            utc!("to_timestamp(w.published_at / 1e9)"), " AS published_at, octet_length(w.body) AS body_bytes", $more,
            " FROM (SELECT t.* FROM farwrite.parked t WHERE",
            chosen!("parked_at", "(t.reason = $4 OR t.error->>'code' = $4)"),
            ") w LEFT JOIN farwrite.streams s USING (stream_id)
              LEFT JOIN farwrite.key_queues l ON l.stream_id = w.stream_id AND l.key_queue = w.key_queue AND w.place IS NOT NULL
              ORDER BY w.stream_id, w.sequence"
        )
    };
}

const KEYS: &str = concat!(
    "SELECT t.stream_id, t.sequence FROM farwrite.parked t WHERE",
    chosen!("parked_at", "(t.reason = $4 OR t.error->>'code' = $4)")
);

impl OperatorRecord for WaitingCommand {
    const LIST: &'static str = concat!("SELECT to_json(r) FROM (", parked!(""), ") r");

    const SHOW: &'static str = concat!(
    "SELECT r.stream_id, to_json(r), (SELECT b.body FROM farwrite.parked b WHERE b.stream_id = r.stream_id AND b.sequence = r.sequence)
     FROM (", parked!(", w.stream_id, w.subject, w.headers"), ") r"
);

    fn sequence(&self) -> i64 {
        self.sequence
    }

    fn set_body(&mut self, body: Vec<u8>) {
        self.body = json_of(&body);
        self.body_hex = self.body.is_none().then(|| hex(&body));
        self.body_raw = body;
    }
}

impl WaitingCommand {
    /// Its last failure, where it failed.
    #[must_use]
    pub fn failure(&self) -> Option<LastFailure> {
        serde_json::from_str(self.error.as_ref()?.get()).ok()
    }
}

impl Operator {
    /// Has the parked commands that were chosen tried at once; answers how many.
    ///
    /// # Errors
    /// When a lane stays busy, or the database fails: a first part is released, and its size is not
    /// told.
    pub async fn release(
        &mut self,
        chosen: &mut Chosen,
        reason: &str,
    ) -> Result<i64, OperateError> {
        let mut done = 0;
        while chosen.seen < chosen.acted_on() {
            let chunk = CHUNK_ROWS.min(chosen.acted_on() - chosen.seen);
            let query = chosen.bind(sqlx::query_as(KEYS), chosen.after, chunk);
            let keys: Vec<Cursor> = query.fetch_all(&mut self.connection).await?;
            let Some(last) = keys.last() else { break };
            chosen.passed(*last, keys.len() as i64);
            let streams = by_stream(&keys);
            done += chunks::held(&mut self.connection, async |tx| {
                let mut count = 0;
                for (stream_id, sequences) in &streams {
                    let released: i32 = sqlx::query_scalar("SELECT farwrite.release($1, $2, $3)")
                        .bind(stream_id)
                        .bind(sequences)
                        .bind(reason)
                        .fetch_one(&mut *tx)
                        .await?;
                    count += i64::from(released);
                }
                Ok(count)
            })
            .await?;
        }
        Ok(done)
    }
}
