//! Commands as the tests publish them: as messages of their own making, and through a producer.

use std::borrow::Cow;

use anyhow::Result;
use async_nats::HeaderMap;
use farwrite_schemas::{Command, CommandId, headers};
use serde_json::json;

/// `app.append` as an app's code has it.
#[derive(serde::Serialize)]
pub(crate) struct Append {
    #[serde(skip)]
    pub(crate) key: String,
    pub(crate) n: i32,
}

/// What it answers.
#[derive(Debug, PartialEq, Eq, serde::Deserialize)]
pub(crate) struct Appended {
    /// Its place among the key's effects, from 1.
    pub(crate) place: i32,
}

impl Command for Append {
    const NAME: &'static str = "app.append";
    type Output = Appended;
    fn key(&self) -> Option<Cow<'_, str>> {
        Some(self.key.as_str().into())
    }
}

/// A command to publish.
#[derive(Clone, Debug)]
pub(crate) struct Message {
    pub(crate) id: CommandId,
    pub(crate) key: Option<String>,
    pub(crate) name: String,
    pub(crate) body: String,
    pub(crate) reply: Option<String>,
    /// More headers.
    pub(crate) headers: Vec<(&'static str, String)>,
}

impl Message {
    /// `app.append` of a number to a key.
    pub(crate) fn append(key: &str, n: i32) -> Self {
        Self {
            id: CommandId::now(),
            key: Some(key.to_owned()),
            name: "app.append".to_owned(),
            body: json!({ "n": n }).to_string(),
            reply: None,
            headers: Vec::new(),
        }
    }

    /// The same under another command name.
    pub(crate) fn named(self, name: &str) -> Self {
        Self { name: name.to_owned(), ..self }
    }

    /// The same with a header that names a time so long from now; negative for the past.
    pub(crate) fn at(mut self, header: &'static str, from_now_ms: i64) -> Self {
        let now = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
        let at_ms = i64::try_from(now.as_millis()).unwrap_or(0) + from_now_ms;
        self.headers.push((header, at_ms.to_string()));
        self
    }

    /// The same, refused by the function.
    pub(crate) fn refused(key: &str, n: i32) -> Self {
        Self { body: json!({ "n": n, "refuse": "by test" }).to_string(), ..Self::append(key, n) }
    }

    pub(crate) fn headers(&self) -> Result<HeaderMap> {
        let mut headers = HeaderMap::new();
        headers.insert(headers::COMMAND_ID, self.id.to_string());
        if let Some(key) = &self.key {
            headers.insert(headers::KEY, key.as_str());
        }
        if let Some(reply) = &self.reply {
            headers.insert(headers::REPLY, reply.as_str());
        }
        for (name, value) in &self.headers {
            headers.insert(*name, value.as_str());
        }
        Ok(headers)
    }
}
