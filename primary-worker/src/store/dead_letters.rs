//! `farwrite.dead_letters`: messages that nobody could apply.

use bytes::Bytes;
use farwrite_schemas::DeadLetter;
use sqlx::{PgConnection, types::Uuid};

use super::text::storable;

/// A message to be kept, with its raw bytes.
pub(crate) struct NewDeadLetter<'a> {
    pub(crate) stream_id: i32,
    pub(crate) sequence: i64,
    /// The command id, where the message has one.
    pub(crate) id: Option<Uuid>,
    pub(crate) letter: &'a DeadLetter,
    pub(crate) subject: &'a str,
    /// JSON: an array of names and values.
    pub(crate) headers: String,
    pub(crate) body: &'a Bytes,
    /// The stream's time of the message, in Unix nanoseconds.
    pub(crate) at_ns: i64,
    pub(crate) name: Option<&'a str>,
    pub(crate) key: Option<&'a str>,
}

/// Keeps a message. One that is read again after the number of lanes changed is there already.
pub(crate) async fn insert(
    connection: &mut PgConnection,
    new: &NewDeadLetter<'_>,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "INSERT INTO farwrite.dead_letters (stream_id, sequence, command_id, reason, message, subject, headers, body, published_at, name, order_key)
         VALUES ($1, $2, $3, $4, $5, $6, $7::json, $8, to_timestamp($9 / 1e9), $10, $11) ON CONFLICT DO NOTHING",
    )
    .bind(new.stream_id)
    .bind(new.sequence)
    .bind(new.id)
    .bind(&new.letter.reason)
    .bind(storable(&new.letter.message))
    .bind(storable(new.subject))
    .bind(&new.headers)
    .bind(new.body.as_ref())
    .bind(new.at_ns)
    .bind(new.name)
    .bind(new.key)
    .execute(connection)
    .await
    .map(drop)
}
