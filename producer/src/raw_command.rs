//! A command without a Rust type.

use std::fmt;

use farwrite_schemas::Key;
use serde_json::value::RawValue;

/// A command without a Rust type: its name, and its body as JSON. Its output is JSON too.
#[derive(Clone)]
pub struct RawCommand {
    pub(crate) name: String,
    pub(crate) version: u32,
    pub(crate) key: Option<Key>,
    pub(crate) body: Box<RawValue>,
}

impl RawCommand {
    /// A command of this name, such as `order.place`. The body is published byte for byte: the same
    /// JSON written differently is another body to the ledger.
    #[must_use]
    pub fn new(name: impl Into<String>, body: Box<RawValue>) -> Self {
        Self { name: name.into(), version: 1, key: None, body }
    }

    /// The version of its body's form; 1 unless it is said.
    #[must_use]
    pub fn version(self, version: u32) -> Self {
        Self { version, ..self }
    }

    /// What it is ordered by; without a key there is no order.
    #[must_use]
    pub fn key(self, key: Key) -> Self {
        Self { key: Some(key), ..self }
    }
}

/// Without the key and the body, which are the app's.
impl fmt::Debug for RawCommand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RawCommand")
            .field("name", &self.name)
            .field("version", &self.version)
            .field("has_key", &self.key.is_some())
            .field("body_bytes", &self.body.get().len())
            .finish()
    }
}
