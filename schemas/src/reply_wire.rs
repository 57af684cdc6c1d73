//! The one flat JSON object that every message about an outcome is.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::{
    bookmark::Bookmark,
    id::CommandId,
    outcome::{DeadLetter, Rejection},
    record::{LedgerRecord, ParkedCommand},
};

/// The wire form of every answer.
#[derive(Serialize, Deserialize)]
pub(crate) struct ReplyWire<'a> {
    pub(crate) id: CommandId,
    pub(crate) outcome: &'a str,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub(crate) output: Option<&'a RawValue>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) output_bytes: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) rejection: Option<Rejection>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) dead_letter: Option<DeadLetter>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) bookmark: Option<Bookmark>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) attempts: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) stream: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) sequence: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) published_at_ms: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) settled_at_ms: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) parked: Option<ParkedCommand>,
}

impl<'a> ReplyWire<'a> {
    pub(crate) const fn new(id: CommandId, outcome: &'a str) -> Self {
        Self {
            id,
            outcome,
            output: None,
            output_bytes: None,
            rejection: None,
            dead_letter: None,
            bookmark: None,
            attempts: None,
            stream: None,
            sequence: None,
            published_at_ms: None,
            settled_at_ms: None,
            parked: None,
        }
    }

    pub(crate) fn record(&mut self) -> Option<LedgerRecord> {
        Some(LedgerRecord {
            attempts: self.attempts?,
            stream: self.stream.take(),
            sequence: self.sequence,
            published_at_ms: self.published_at_ms,
            settled_at_ms: self.settled_at_ms?,
        })
    }
}
