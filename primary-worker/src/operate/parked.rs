//! Parked commands: looking at them, and having them tried at once.

use serde::{Deserialize, Serialize};
use serde_json::{json, value::RawValue};
use sqlx::{PgConnection, types::Json, types::Uuid};

use super::{
    End, OperateError,
    chunks::{self, CHUNK_ROWS},
    dead_letters::{by_stream, in_full, nothing, or_dash},
    filter::{Chosen, Cursor, FIRST, chosen, utc},
    print::{self, Printer, age, first_line, hex, json_of},
};

/// A parked command as it is printed; with subject, headers and body where it is shown.
#[derive(Debug, Serialize, Deserialize)]
struct Waiting {
    stream: Option<String>,
    sequence: i64,
    id: Uuid,
    command: String,
    version: i32,
    key: Option<String>,
    reason: String,
    /// Code and message of its last failure.
    error: Option<Box<RawValue>>,
    attempts: i32,
    /// How many stand before it in its line; null while it is only scheduled.
    ahead: Option<i64>,
    age_seconds: f64,
    /// Null where it waits until somebody resumes it.
    due_in_seconds: Option<f64>,
    due_at: Option<String>,
    parked_at: String,
    published_at: String,
    body_bytes: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    subject: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    headers: Option<Box<RawValue>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    body: Option<Box<RawValue>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    body_hex: Option<String>,
}

/// A command's failure, as the worker writes it.
#[derive(Deserialize)]
struct Failure {
    code: String,
    message: String,
}

/// What is parked, for JSON; who stands before it is counted up to a thousand.
macro_rules! waiting {
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

const LIST: &str = concat!("SELECT to_json(r) FROM (", waiting!(""), ") r");

const SHOW: &str = concat!(
    "SELECT r.stream_id, to_json(r), (SELECT b.body FROM farwrite.parked b WHERE b.stream_id = r.stream_id AND b.sequence = r.sequence)
     FROM (", waiting!(", w.stream_id, w.subject, w.headers"), ") r"
);

const KEYS: &str = concat!(
    "SELECT t.stream_id, t.sequence FROM farwrite.parked t WHERE",
    chosen!("parked_at", "(t.reason = $4 OR t.error->>'code' = $4)")
);

pub(super) async fn list(
    connection: &mut PgConnection,
    chosen: &Chosen,
    printer: &mut Printer,
) -> Result<End, OperateError> {
    let limit = chosen.listed();
    let query = chosen.bind(sqlx::query_as(LIST), FIRST, limit + 1);
    let mut parked: Vec<(Json<Waiting>,)> = query.fetch_all(connection).await?;
    let more = parked.len() as i64 > limit;
    parked.truncate(limit as usize);
    if printer.json {
        for (waiting,) in &parked {
            printer.object(&waiting.0)?;
        }
    } else {
        let rows: Vec<_> = parked.iter().map(|(waiting,)| waiting.0.row()).collect();
        let head =
            ["AGE", "SEQUENCE", "COMMAND", "KEY", "REASON", "ATTEMPTS", "DUE IN", "ID", "MESSAGE"];
        printer.text(&print::table(head, &rows))?;
    }
    if more {
        eprintln!("there are more: --limit N lists them");
    }
    Ok(End::Done)
}

pub(super) async fn show(
    connection: &mut PgConnection,
    chosen: &Chosen,
    printer: &mut Printer,
) -> Result<End, OperateError> {
    let mut after = FIRST;
    let mut shown = 0;
    // One at a time: bodies are large.
    while shown < chosen.listed() {
        let query = chosen.bind(sqlx::query_as(SHOW), after, 1);
        let row: Option<(i32, Json<Waiting>, Option<Vec<u8>>)> =
            query.fetch_optional(&mut *connection).await?;
        let Some((stream_id, Json(mut waiting), body)) = row else { break };
        after = (stream_id, waiting.sequence);
        shown += 1;
        let body = body.unwrap_or_default();
        waiting.body = json_of(&body);
        waiting.body_hex = waiting.body.is_none().then(|| hex(&body));
        if printer.json {
            printer.object(&waiting)?;
        } else {
            printer.text(&waiting.in_full(&body))?;
        }
    }
    if shown == 0 { nothing(chosen, "parked command") } else { Ok(End::Done) }
}

pub(super) async fn release(
    connection: &mut PgConnection,
    chosen: &Chosen,
    reason: &str,
    printer: &mut Printer,
) -> Result<End, OperateError> {
    let (mut after, mut left, mut done) = (FIRST, chosen.acted_on(), 0);
    while left > 0 {
        let query = chosen.bind(sqlx::query_as(KEYS), after, CHUNK_ROWS.min(left));
        let keys: Vec<Cursor> = query.fetch_all(&mut *connection).await?;
        let Some(last) = keys.last() else { break };
        after = *last;
        left -= keys.len() as i64;
        let streams = by_stream(&keys);
        done += chunks::held(connection, async |tx| {
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
    let text = format!("released {done} parked commands");
    printer.say(&json!({ "act": "release", "done": done }), &text)?;
    if done == 0 { nothing(chosen, "parked command") } else { Ok(End::Done) }
}

impl Waiting {
    fn failure(&self) -> Option<Failure> {
        serde_json::from_str(self.error.as_ref()?.get()).ok()
    }

    fn due_in(&self) -> String {
        self.due_in_seconds.map_or_else(|| "on resume".to_owned(), age)
    }

    fn row(&self) -> [String; 9] {
        [
            age(self.age_seconds),
            self.sequence.to_string(),
            self.command.clone(),
            or_dash(self.key.as_ref()),
            self.reason.clone(),
            self.attempts.to_string(),
            self.due_in(),
            self.id.to_string(),
            first_line(&self.failure().map(|failure| failure.message).unwrap_or_default()),
        ]
    }

    fn in_full(&self, body: &[u8]) -> String {
        let error = self.failure().map(|failure| format!("{}: {}", failure.code, failure.message));
        let due = match &self.due_at {
            Some(at) => format!("{at} (in {})", self.due_in()),
            None => "when somebody resumes it".to_owned(),
        };
        let lines = [
            ("stream", or_dash(self.stream.as_ref())),
            ("sequence", self.sequence.to_string()),
            ("id", self.id.to_string()),
            ("command", self.command.clone()),
            ("version", self.version.to_string()),
            ("key", or_dash(self.key.as_ref())),
            ("reason", self.reason.clone()),
            ("error", or_dash(error.as_ref())),
            ("attempts", self.attempts.to_string()),
            ("ahead", or_dash(self.ahead.as_ref())),
            ("due", due),
            ("parked", format!("{} ({} ago)", self.parked_at, age(self.age_seconds))),
            ("published", self.published_at.clone()),
            ("subject", or_dash(self.subject.as_ref())),
        ];
        in_full(&lines, self.headers.as_deref(), body, self.body.as_deref())
    }
}
