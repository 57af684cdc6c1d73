//! Dead letters: looking at them, and throwing them away.

use serde::{Deserialize, Serialize};
use serde_json::{json, value::RawValue};
use sqlx::{Connection, PgConnection, types::Json, types::Uuid};

use super::{
    End, OperateError,
    chunks::CHUNK_ROWS,
    filter::{Chosen, Cursor, FIRST, chosen, utc},
    print::{self, Printer, age, first_line, hex, json_of, plain},
};

/// A dead letter as it is printed; with subject, headers and body where it is shown.
#[derive(Debug, Serialize, Deserialize)]
struct Letter {
    stream: Option<String>,
    sequence: i64,
    id: Option<Uuid>,
    command: Option<String>,
    key: Option<String>,
    reason: String,
    message: String,
    attempts: Option<i32>,
    age_seconds: f64,
    dead_lettered_at: String,
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

const LIST: &str = concat!("SELECT to_json(r) FROM (", letter!(""), ") r");

const SHOW: &str = concat!(
    "SELECT r.stream_id, to_json(r), (SELECT b.body FROM farwrite.dead_letters b WHERE b.stream_id = r.stream_id AND b.sequence = r.sequence)
     FROM (", letter!(", t.stream_id, t.subject, t.headers"), ") r"
);

const KEYS: &str = concat!(
    "SELECT t.stream_id, t.sequence FROM farwrite.dead_letters t WHERE",
    chosen!("dead_lettered_at", "t.reason = $4"),
    "FOR UPDATE"
);

pub(super) async fn list(
    connection: &mut PgConnection,
    chosen: &Chosen,
    printer: &mut Printer,
) -> Result<End, OperateError> {
    let limit = chosen.listed();
    let query = chosen.bind(sqlx::query_as(LIST), FIRST, limit + 1);
    let mut letters: Vec<(Json<Letter>,)> = query.fetch_all(connection).await?;
    let more = letters.len() as i64 > limit;
    letters.truncate(limit as usize);
    if printer.json {
        for (letter,) in &letters {
            printer.object(&letter.0)?;
        }
    } else {
        let rows: Vec<_> = letters.iter().map(|(letter,)| letter.0.row()).collect();
        let head = ["AGE", "SEQUENCE", "COMMAND", "KEY", "REASON", "ATTEMPTS", "ID", "MESSAGE"];
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
        let row: Option<(i32, Json<Letter>, Vec<u8>)> =
            query.fetch_optional(&mut *connection).await?;
        let Some((stream_id, Json(mut letter), body)) = row else { break };
        after = (stream_id, letter.sequence);
        shown += 1;
        letter.body = json_of(&body);
        letter.body_hex = letter.body.is_none().then(|| hex(&body));
        if printer.json {
            printer.object(&letter)?;
        } else {
            printer.text(&letter.in_full(&body))?;
        }
    }
    if shown == 0 { nothing(chosen, "dead letter") } else { Ok(End::Done) }
}

/// Nothing was found. That is in order, unless single commands were named.
pub(super) fn nothing(chosen: &Chosen, what: &str) -> Result<End, OperateError> {
    eprintln!("no {what} matches");
    Ok(if chosen.names_some() { End::Partly } else { End::Done })
}

pub(super) async fn discard(
    connection: &mut PgConnection,
    chosen: &Chosen,
    reason: &str,
    printer: &mut Printer,
) -> Result<End, OperateError> {
    let (mut after, mut done) = (FIRST, 0);
    while done < chosen.acted_on() {
        let chunk = CHUNK_ROWS.min(chosen.acted_on() - done);
        let mut tx = connection.begin().await?;
        let query = chosen.bind(sqlx::query_as(KEYS), after, chunk);
        let keys: Vec<Cursor> = query.fetch_all(&mut *tx).await?;
        let Some(last) = keys.last() else { break };
        after = *last;
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
    let text = format!("discarded {done} dead letters");
    printer.say(&json!({ "act": "discard", "done": done }), &text)?;
    if done == 0 { nothing(chosen, "dead letter") } else { Ok(End::Done) }
}

/// Sequences by stream, in their order.
pub(super) fn by_stream(keys: &[Cursor]) -> Vec<(i32, Vec<i64>)> {
    let chunks = keys.chunk_by(|a, b| a.0 == b.0);
    chunks.map(|chunk| (chunk[0].0, chunk.iter().map(|key| key.1).collect())).collect()
}

impl Letter {
    fn row(&self) -> [String; 8] {
        [
            age(self.age_seconds),
            self.sequence.to_string(),
            or_dash(self.command.as_ref()),
            or_dash(self.key.as_ref()),
            self.reason.clone(),
            or_dash(self.attempts.as_ref()),
            or_dash(self.id.as_ref()),
            first_line(&self.message),
        ]
    }

    fn in_full(&self, body: &[u8]) -> String {
        let lines = [
            ("stream", or_dash(self.stream.as_ref())),
            ("sequence", self.sequence.to_string()),
            ("id", or_dash(self.id.as_ref())),
            ("command", or_dash(self.command.as_ref())),
            ("key", or_dash(self.key.as_ref())),
            ("reason", self.reason.clone()),
            ("message", self.message.clone()),
            ("attempts", or_dash(self.attempts.as_ref())),
            ("dead-lettered", format!("{} ({} ago)", self.dead_lettered_at, age(self.age_seconds))),
            ("published", self.published_at.clone()),
            ("subject", or_dash(self.subject.as_ref())),
        ];
        in_full(&lines, self.headers.as_deref(), body, self.body.as_deref())
    }
}

/// Names and values under each other, then headers and body.
pub(super) fn in_full(
    lines: &[(&str, String)],
    headers: Option<&RawValue>,
    body: &[u8],
    json: Option<&RawValue>,
) -> String {
    let mut text = String::new();
    for (name, value) in lines {
        text.push_str(&format!("{name:<14}{}\n", plain(value)));
    }
    let headers: Vec<(String, String)> =
        headers.and_then(|json| serde_json::from_str(json.get()).ok()).unwrap_or_default();
    for (name, value) in headers {
        text.push_str(&format!("{:<14}{}: {}\n", "header", plain(&name), plain(&value)));
    }
    match (json, std::str::from_utf8(body)) {
        (Some(json), _) => text.push_str(&format!("{:<14}{}\n", "body", plain(json.get()))),
        (None, Ok(words)) => {
            text.push_str(&format!("{:<14}{}\n", "body, no JSON", plain(words)));
        }
        (None, Err(_)) => text.push_str(&format!("{:<14}{}\n", "body, in hex", hex(body))),
    }
    text
}

pub(super) fn or_dash(value: Option<&impl ToString>) -> String {
    value.map_or_else(|| "-".to_owned(), ToString::to_string)
}
