//! A setting of the watcher that breaks its rule.

/// A setting breaks its rule. The value is not repeated: it may hold a password.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field} is not valid: {rule}")]
#[non_exhaustive]
pub struct WatcherConfigError {
    /// The setting.
    pub field: &'static str,
    /// What it must be.
    pub rule: &'static str,
}

impl WatcherConfigError {
    pub(crate) const fn new(field: &'static str, rule: &'static str) -> Self {
        Self { field, rule }
    }
}
