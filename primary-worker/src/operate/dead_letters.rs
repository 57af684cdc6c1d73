//! Dead letters: how they are read, and throwing them away.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use sqlx::{Connection, types::Uuid};

use super::{
    body::{hex, json_of},
    chunks::CHUNK_ROWS,
    error::OperateError,
    filter::{Chosen, Cursor, by_stream, chosen, utc},
    operator::Operator,
    records::OperatorRecord,
};

/// A dead letter; with subject, headers and body where it is shown.
#[derive(Debug, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Letter {
    /// The stream that it came from.
    pub stream: Option<String>,
    /// Its sequence there.
    pub sequence: i64,
    /// Its command id, where it has one.
    pub id: Option<Uuid>,
    /// The command's name, or the one in its subject.
    pub command: Option<String>,
    /// Its key.
    pub key: Option<String>,
    /// The code of what is wrong.
    pub reason: String,
    /// The same for people.
    pub message: String,
    /// How often it was tried alone, where the ledger has its id.
    pub attempts: Option<i32>,
    /// How long it is a dead letter.
    pub age_seconds: f64,
    /// Since when.
    pub dead_lettered_at: String,
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

/// What a letter is, for JSON; attempts are the ledger's, where it has the id.
macro_rules! letter {
    ($more:literal) => {
        concat!(
            "SELECT s.name AS stream, t.sequence, t.command_id AS id,
                coalesce(t.name, substring(t.subject FROM '^farwrite\\.[^.]+\\.cmd\\.[^.]+\\.(.+)$')) AS command,
                t.order_key AS key, t.reason, t.message,
                coalesce((SELECT l.attempts FROM farwrite.ledger l WHERE l.command_id = t.command_id AND l.outcome = 'dead_lettered'),
                         (SELECT l.attempts FROM farwrite.ledger_derived l WHERE l.command_id = t.command_id AND l.outcome = 'dead_lettered')) AS attempts,
                round(extract(epoch FROM clock_timestamp() - t.dead_lettered_at), 3) AS age_seconds, ",
            utc!("t.dead_lettered_at"), " AS dead_lettered_at, ",
            utc!("t.published_at"), " AS published_at, octet_length(t.body) AS body_bytes", $more,
            " FROM farwrite.dead_letters t LEFT JOIN farwrite.streams s USING (stream_id) WHERE",
            chosen!("dead_lettered_at", "t.reason = $4")
        )
    };
}

const KEYS: &str = concat!(
    "SELECT t.stream_id, t.sequence FROM farwrite.dead_letters t WHERE",
    chosen!("dead_lettered_at", "t.reason = $4"),
    "FOR UPDATE"
);

impl OperatorRecord for Letter {
    const LIST: &'static str = concat!("SELECT to_json(r) FROM (", letter!(""), ") r");

    const SHOW: &'static str = concat!(
    "SELECT r.stream_id, to_json(r), (SELECT b.body FROM farwrite.dead_letters b WHERE b.stream_id = r.stream_id AND b.sequence = r.sequence)
     FROM (", letter!(", t.stream_id, t.subject, t.headers"), ") r"
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

impl Operator {
    /// Throws away the dead letters that were chosen; answers how many. Their outcome stays.
    ///
    /// # Errors
    /// When the database fails: a first part is gone, and its size is not told.
    pub async fn discard(
        &mut self,
        chosen: &mut Chosen,
        reason: &str,
    ) -> Result<i64, OperateError> {
        let mut done = 0;
        while done < chosen.acted_on() {
            let chunk = CHUNK_ROWS.min(chosen.acted_on() - done);
            let mut tx = self.connection.begin().await?;
            let query = chosen.bind(sqlx::query_as(KEYS), chosen.after, chunk);
            let keys: Vec<Cursor> = query.fetch_all(&mut *tx).await?;
            let Some(last) = keys.last() else { break };
            chosen.passed(*last, keys.len() as i64);
            for (stream_id, sequences) in by_stream(&keys) {
                let count: i32 = sqlx::query_scalar("SELECT farwrite.discard($1, $2, $3)")
                    .bind(stream_id)
                    .bind(sequences)
                    .bind(reason)
                    .fetch_one(&mut *tx)
                    .await?;
                done += i64::from(count);
            }
            tx.commit().await?;
        }
        Ok(done)
    }
}
