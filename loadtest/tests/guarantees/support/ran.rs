//! How a program ended.

use anyhow::{Result, ensure};
use serde_json::Value;

/// How a program ended, and what it wrote.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Ran {
    /// An error unless it ended with this status.
    pub(crate) fn ended(self, code: i32) -> Result<Self> {
        ensure!(self.code == Some(code), "not status {code}: {self:?}");
        Ok(self)
    }

    /// Its output, one JSON object a line.
    pub(crate) fn objects(&self) -> Result<Vec<Value>> {
        self.out.lines().map(|line| Ok(serde_json::from_str(line)?)).collect()
    }
}
