//! Listing and showing, for dead letters and parked commands alike.

use serde::{Serialize, de::DeserializeOwned};
use sqlx::types::Json;

use super::{
    error::OperateError,
    filter::{Chosen, FIRST},
    operator::Operator,
};

/// A row that can be listed and shown. Its JSON is what `--json` prints.
pub trait OperatorRecord: Serialize + DeserializeOwned + Send + Unpin + 'static {
    /// Selects the rows of a [`Chosen`] as JSON.
    #[doc(hidden)]
    const LIST: &'static str;
    /// Selects the next row with stream, subject, headers and body.
    #[doc(hidden)]
    const SHOW: &'static str;
    /// Its sequence in the stream.
    fn sequence(&self) -> i64;
    /// Takes the body that was read beside it.
    #[doc(hidden)]
    fn set_body(&mut self, body: Vec<u8>);
}

/// Rows that were listed.
#[derive(Debug)]
pub struct RecordsPage<R> {
    /// In order of sequence.
    pub records: Vec<R>,
    /// Whether there are more than the limit.
    pub more: bool,
}

impl Operator {
    /// Lists what was chosen, without subject, headers and body.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn list<R: OperatorRecord>(
        &mut self,
        chosen: &Chosen,
    ) -> Result<RecordsPage<R>, OperateError> {
        let limit = chosen.listed();
        let query = chosen.bind(sqlx::query_as(R::LIST), FIRST, limit + 1);
        let mut rows: Vec<(Json<R>,)> = query.fetch_all(&mut self.connection).await?;
        let more = rows.len() as i64 > limit;
        rows.truncate(limit as usize);
        Ok(RecordsPage { records: rows.into_iter().map(|(record,)| record.0).collect(), more })
    }

    /// The next of what was chosen, whole. One at a time: bodies are large.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn show<R: OperatorRecord>(
        &mut self,
        chosen: &mut Chosen,
    ) -> Result<Option<R>, OperateError> {
        if chosen.seen >= chosen.listed() {
            return Ok(None);
        }
        let query = chosen.bind(sqlx::query_as(R::SHOW), chosen.after, 1);
        let row: Option<(i32, Json<R>, Option<Vec<u8>>)> =
            query.fetch_optional(&mut self.connection).await?;
        let Some((stream_id, Json(mut record), body)) = row else { return Ok(None) };
        chosen.passed((stream_id, record.sequence()), 1);
        record.set_body(body.unwrap_or_default());
        Ok(Some(record))
    }
}
